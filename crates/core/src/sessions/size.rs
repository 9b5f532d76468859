//! How long a request may be, and what it costs in memory while it waits.
//!
//! Checked on arrival, before anything of a request is kept.

use crate::event::TEXT_BYTES_MAX;
use crate::session::{MARKS_MAX, NICK_CHARS_MAX, ROOM_CHARS_MAX, Request, TOPIC_BYTES_MAX, Target};

/// Bytes of a name, at most: the longest a room's can be, and longer than any nick with its suffix.
const NAME_BYTES_MAX: usize = 4 * ROOM_CHARS_MAX;
const _: () = assert!(NAME_BYTES_MAX > 4 * NICK_CHARS_MAX + 8);

/// Bytes of a request in memory.
pub(super) fn bytes(request: &Request) -> usize {
    let marks = match request {
        Request::Mark(mark) => std::mem::size_of_val(mark.shown.as_slice()),
        _ => 0,
    };
    let texts: usize = texts(request).into_iter().flatten().map(|(_, text, _)| text.len()).sum();
    size_of::<Request>() + texts + marks
}

/// What is too long in a request, in words; nothing in most.
pub(super) fn too_long(request: &Request) -> Option<String> {
    if let Request::Mark(mark) = request
        && mark.shown.len() > MARKS_MAX
    {
        return Some(format!("at most {MARKS_MAX} marks fit a request"));
    }
    texts(request)
        .into_iter()
        .flatten()
        .find(|(_, text, max)| text.len() > *max)
        .map(|(what, text, max)| format!("the {what} has {} bytes; at most {max} fit", text.len()))
}

type Text<'a> = Option<(&'static str, &'a str, usize)>;

/// The texts of a request: what it is, itself, and its bound.
fn texts(request: &Request) -> [Text<'_>; 3] {
    fn name(text: &str) -> Text<'_> {
        Some(("name", text, NAME_BYTES_MAX))
    }
    fn target(target: &Target) -> Text<'_> {
        match target {
            Target::Room(text) | Target::Nick(text) => name(text),
            Target::Account(_) => None,
        }
    }
    match request {
        Request::Open(open) => [name(&open.room), None, None],
        Request::Close(close) => [name(&close.room), None, None],
        Request::Send(send) => [target(&send.to), Some(("text", &send.text, TEXT_BYTES_MAX)), None],
        Request::Nick(nick) => [name(&nick.nick), None, None],
        Request::Topic(topic) => {
            let text = topic.text.as_deref().map(|text| ("topic", text, TOPIC_BYTES_MAX));
            [name(&topic.room), text, None]
        }
        Request::Kick(kick) => {
            [name(&kick.room), name(&kick.nick), Some(("reason", &kick.reason, TOPIC_BYTES_MAX))]
        }
        Request::Role(role) => [name(&role.room), name(&role.nick), None],
        Request::History(history) => [target(&history.of), None, None],
        Request::Keep(keep) => [name(&keep.room), None, None],
        Request::Who(who) => [name(&who.room), None, None],
        Request::Attach(_)
        | Request::Rooms(_)
        | Request::Status(_)
        | Request::Ping(_)
        | Request::Verify(_)
        | Request::Mark(_)
        | Request::Detach(_) => [None, None, None],
    }
}

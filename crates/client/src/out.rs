//! Standard output for results, standard error for everything else.

use std::io::{IsTerminal as _, Write as _};

use chatty_client::safe;
use chatty_client::{Attached, Event, Happening, Message, What};
use chatty_core::event::Retention;
use chatty_core::id::Slot;
use chatty_core::session::{ClosedWhy, RoomClosed};

use crate::Trouble;
use crate::objects::{ClosedObject, EventObject, MessageObject};

/// How results are written.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    form: Form,
    paint: Paint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Plain,
}

/// Whether colours are used: on a terminal, unless the user says no (<https://no-color.org>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    Colours,
    None,
}

impl Paint {
    pub fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if !unwanted && std::io::stdout().is_terminal() { Self::Colours } else { Self::None }
    }

    /// Text in a colour of the terminal's palette (an `SGR` parameter; empty: as it is).
    pub fn text(self, sgr: &str, text: &str) -> String {
        match self {
            Self::Colours if !sgr.is_empty() => format!("\x1b[{sgr}m{text}\x1b[0m"),
            Self::Colours | Self::None => text.to_owned(),
        }
    }

    /// A name, in a colour of its own.
    pub fn nick(self, nick: &str) -> String {
        let nick = safe::one_line(nick);
        let sum = nick.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31) ^ u32::from(byte));
        let sgr = ["31", "32", "33", "34", "35", "36"][(sum % 6) as usize];
        self.text(sgr, &nick)
    }

    /// What is not said by anybody.
    pub fn quiet(self, text: &str) -> String {
        self.text("2", text)
    }
}

impl Out {
    pub fn new(json: bool) -> Self {
        Self { form: if json { Form::Json } else { Form::Plain }, paint: Paint::of_stdout() }
    }

    /// Writes an object, or for a person a line; flushed at once.
    pub fn put<T: serde::Serialize>(
        self,
        object: &T,
        plain: impl FnOnce(Paint) -> String,
    ) -> Result<(), Trouble> {
        let line = match self.form {
            Form::Json => safe::json(object)?,
            Form::Plain => plain(self.paint),
        };
        let mut stdout = std::io::stdout().lock();
        // A reader that went away wants no more and no complaint either.
        writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(|_| Trouble::Silent)
    }

    /// Writes an object that says nothing to a person.
    pub fn put_json<T: serde::Serialize>(self, object: &T) -> Result<(), Trouble> {
        match self.form {
            Form::Json => self.put(object, |_| String::new()),
            Form::Plain => Ok(()),
        }
    }

    pub fn message(self, message: &Message) -> Result<(), Trouble> {
        self.put(&MessageObject::of(message), |paint| message_line(paint, message))
    }

    pub fn direct(self, message: &Message) -> Result<(), Trouble> {
        self.put(&MessageObject::direct(message), |paint| message_line(paint, message))
    }

    pub fn happening(self, happening: &Happening) -> Result<(), Trouble> {
        self.put(&EventObject::of(happening), |paint| paint.quiet(&happening_line(happening)))
    }

    pub fn closed(self, closed: &RoomClosed) -> Result<(), Trouble> {
        self.put(&ClosedObject::of(closed), |paint| paint.quiet(&closed_line(closed)))
    }
}

/// `23:31:07 lobby ann: hello`.
fn message_line(paint: Paint, message: &Message) -> String {
    let time = paint.quiet(time_of_day(message.time_ms, 0).as_str());
    let late = if message.late { paint.quiet("(late) ") } else { String::new() };
    let room = safe::one_line(&message.room);
    let (nick, text) = (paint.nick(&message.nick), safe::one_line(&message.text));
    format!("{time} {room} {late}{nick}: {text}")
}

/// What happened, in words.
pub fn happening_line(happening: &Happening) -> String {
    let nick = safe::one_line(&happening.nick);
    let what = match &happening.what {
        What::Joined => format!("{nick} joined"),
        What::Left => format!("{nick} left"),
        What::Kicked { nick: whom, reason, .. } => {
            format!("{nick} kicked {}{}", safe::one_line(whom), because(reason))
        }
        What::Role { nick: whom, rank } => {
            format!("{nick} made {} {rank}", safe::one_line(whom))
        }
        What::Topic(topic) if topic.is_empty() => format!("{nick} cleared the topic"),
        What::Topic(topic) => format!("{nick} set the topic: {}", safe::one_line(topic)),
        What::Kept(keep) => format!("{nick} set what is kept: {}", kept(*keep)),
        What::Created => "the room was made".to_owned(),
        What::Renamed { before } => format!("{} is now {nick}", safe::one_line(before)),
    };
    match &happening.room {
        Some(room) => format!("{}: {what}", safe::one_line(room)),
        None => what,
    }
}

/// Why a room was closed, in words.
pub fn closed_line(closed: &RoomClosed) -> String {
    let room = safe::one_line(&closed.name);
    match &closed.why {
        ClosedWhy::Kicked { by, reason } if by.is_empty() => {
            format!("you are out of {room}{}", because(reason))
        }
        ClosedWhy::Kicked { by, reason } => {
            format!("{} kicked you out of {room}{}", safe::one_line(by), because(reason))
        }
        ClosedWhy::Left => format!("you left {room} (another session of yours did)"),
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({})", safe::one_line(reason)) }
}

/// `HH:MM:SS` at so many minutes east of UTC.
pub fn time_of_day(unix_ms: u64, offset_minutes: i64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(0) + offset_minutes * 60;
    let second = seconds.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// So many of something, in words: one of it has another name than many.
pub fn count(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// So many messages, in words.
pub fn messages(many: u64) -> String {
    count(many, "message", "messages")
}

/// One line on standard error.
pub fn complain(text: &str) {
    note(&format!("chatty: {text}"));
}

/// One line on standard error; when even that is gone, nobody is left to be told.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", safe::one_line(text));
}

/// What a person running a command should know of the session's troubles.
pub fn note_event(event: &Event) {
    match event {
        Event::Lost { server, why } => note(&format!("{server}: {why}; going on elsewhere")),
        Event::Attached(attached) => {
            if attached.outage.is_some() {
                note(&format!("going on at {}", attached.server));
            }
            if let Some(stale) = stale_line(attached) {
                note(&stale);
            }
        }
        Event::Named { nick, taken: Some(taken) } => {
            note(&format!("somebody else is called {taken}: you are {nick}"));
        }
        Event::Notice(text) => note(text),
        Event::Unkept(why) => complain(&format!("messages are no longer kept in a file: {why}")),
        _ => {}
    }
}

/// What a server lacks that was seen elsewhere, in words.
pub fn stale_line(attached: &Attached) -> Option<String> {
    let missing: u64 = attached.stale.iter().map(|(_, missing)| missing).sum();
    (missing > 0).then(|| {
        let server = &attached.server;
        format!(
            "{server} lacks {missing} events that were seen elsewhere; they come when it gets them"
        )
    })
}

/// Why an answer may not be all there is, in words.
pub fn incomplete_line(complete: bool, unreachable: &[Slot]) -> Option<String> {
    if !unreachable.is_empty() {
        let names: Vec<_> = unreachable.iter().map(|slot| slot.as_str()).collect();
        return Some(format!("unreachable: {}; there may be more", names.join(", ")));
    }
    (!complete).then(|| "not complete: the server may lack some of what the others have".into())
}

/// Whether an answer is all there is, on standard error if not.
pub fn note_complete(complete: bool, unreachable: &[Slot]) {
    if let Some(why) = incomplete_line(complete, unreachable) {
        note(&why);
    }
}

/// How long messages are kept, in words.
pub fn kept(keep: Retention) -> String {
    const DAY_MS: u64 = 86_400_000;
    let age = match keep.age_ms {
        0 => None,
        ms if ms % DAY_MS == 0 => Some(count(ms / DAY_MS, "day", "days")),
        ms => Some(format!("{} s", ms / 1000)),
    };
    let count = match keep.messages {
        0 => None,
        1 => Some("the last message".into()),
        many => Some(format!("the last {many} messages")),
    };
    match (age, count) {
        (None, None) => "everything".into(),
        (Some(age), Some(count)) => format!("{age}, and {count} at most"),
        (one, other) => one.or(other).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_something_is_not_called_many() {
        let keep = |days: u64, messages| kept(Retention { age_ms: days * 86_400_000, messages });
        assert_eq!(
            [messages(0), messages(1), messages(2)],
            ["0 messages", "1 message", "2 messages"]
        );
        assert_eq!(keep(1, 1), "1 day, and the last message at most");
        assert_eq!(keep(2, 2), "2 days, and the last 2 messages at most");
    }

    #[test]
    fn times_of_day_wrap_around_midnight() {
        assert_eq!(time_of_day(0, 0), "00:00:00");
        assert_eq!(time_of_day(86_399_000, 61), "01:00:59");
        assert_eq!(time_of_day(0, -90), "22:30:00");
    }
}

//! Requests of a client.

use chatty_core::event::Retention;
use chatty_core::id::{Mid, RequestId};
use chatty_core::session::{self as s, Level, Request};
use chatty_core::time::Hlc;

use super::{RANKS, every, key, room as room_id, targets, text, vector};

every! {
    DIRECTS: s::Direct = Ignore Take;
    MODES: s::Mode = Join Watch;
    CLOSE_MODES: s::CloseMode = Leave Keep;
    LEVELS: Level = Stored Replicated;
}

const REQUEST: RequestId = RequestId(7);

pub(super) fn values() -> Vec<Request> {
    let request = REQUEST;
    let room = || text("lobby");
    let mut all: Vec<Request> =
        DIRECTS.iter().map(|direct| Request::Attach(attach(*direct))).collect();
    all.extend(
        MODES.iter().map(|m| Request::Open(s::Open { request, room: room(), last: 5, mode: *m })),
    );
    all.extend(
        CLOSE_MODES.iter().map(|m| Request::Close(s::Close { request, room: room(), mode: *m })),
    );
    all.extend(targets().into_iter().zip(LEVELS.iter().cycle()).map(|(to, level)| {
        let (mid, text) = (Mid::at(5, 6), text("hello"));
        Request::Send(s::Send { request, to, mid, text, level: *level })
    }));
    all.extend(RANKS.iter().map(|rank| {
        Request::Role(s::Role { request, room: room(), nick: text("bob"), rank: *rank })
    }));
    all.extend(
        targets()
            .into_iter()
            .zip([Some(key()), None].into_iter().cycle())
            .map(|(of, before)| Request::History(s::History { request, of, before, limit: 5 })),
    );
    all.extend(
        [Some(text("tea")), None]
            .map(|text| Request::Topic(s::Topic { request, room: room(), text })),
    );
    all.extend(others());
    all
}

fn attach(direct: s::Direct) -> s::Attach {
    let again = direct == s::Direct::Take;
    s::Attach {
        minor: s::CLIENT_MINOR,
        token: if again { vec![1, 2, 3] } else { Vec::new() },
        nick: again.then(|| text("ann")),
        cursor: if again { vector() } else { Default::default() },
        rooms: vec![s::Opened { room: text("lobby"), since: Hlc::at_ms(5) }],
        direct,
    }
}

fn others() -> Vec<Request> {
    let request = REQUEST;
    let plain = s::Plain { request };
    let room = || text("lobby");
    let keep = Retention { age_ms: 5, messages: 6 };
    vec![
        Request::Nick(s::Nick { request, nick: text("ann") }),
        Request::Kick(s::Kick { request, room: room(), nick: text("bob"), reason: text("spam") }),
        Request::Rooms(plain),
        Request::Who(s::Who { request, room: room() }),
        Request::Status(plain),
        Request::Ping(plain),
        Request::Mark(s::Mark { request, shown: vec![(room_id(), key())] }),
        Request::Detach(plain),
        Request::Verify(plain),
        Request::Keep(s::Keep { request, room: room(), keep }),
    ]
}

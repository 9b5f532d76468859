//! Requests of a client, made of likely values.

use chatty_core::event::{Rank, Retention};
use chatty_core::id::{Log, Mid, RequestId};
use chatty_core::session::{
    Attach, Close, CloseMode, Direct, History, Keep, Kick, Level, Mark, Mode, Nick, Open, Opened,
    Plain, Request, Role, Send, Target, Topic, Who,
};
use chatty_core::time::{Hlc, Key};
use chatty_core::vector::Vector;

use super::{WALL_MS, World, account, mid, peer_origin, room};
use crate::input::Input;

impl World {
    pub(super) fn request(&mut self, input: &mut Input<'_>) -> Request {
        self.last_request += 1;
        let request = RequestId(match input.byte() % 16 {
            0 => input.number(0),
            _ => self.last_request,
        });
        let plain = Plain { request };
        match input.byte() % 24 {
            0 => self.attach_request(input),
            1..=3 => {
                let mode = input.one(&[Mode::Join, Mode::Watch]);
                Request::Open(Open { request, room: name(input), last: number(input), mode })
            }
            4 => {
                let mode = input.one(&[CloseMode::Leave, CloseMode::Keep]);
                Request::Close(Close { request, room: name(input), mode })
            }
            5..=10 => {
                let level = input.one(&[Level::Stored, Level::Replicated]);
                let mid = match input.byte() % 4 {
                    0 => mid(input),
                    _ => Mid::at(self.now.wall_ms, self.last_request.into()),
                };
                Request::Send(Send { request, to: target(input), mid, text: name(input), level })
            }
            11 => Request::Nick(Nick { request, nick: name(input) }),
            12 => {
                let text = input.byte().is_multiple_of(2).then(|| name(input));
                Request::Topic(Topic { request, room: name(input), text })
            }
            13 => {
                let reason = String::new();
                Request::Kick(Kick { request, room: name(input), nick: name(input), reason })
            }
            14 => {
                let rank = input.one(&[Rank::Member, Rank::Op, Rank::Founder]);
                Request::Role(Role { request, room: name(input), nick: name(input), rank })
            }
            15..=16 => {
                let before = input.byte().is_multiple_of(2).then(|| key(input));
                let (of, limit) = (target(input), number(input));
                Request::History(History { request, of, before, limit })
            }
            17 => Request::Rooms(plain),
            18 => Request::Who(Who { request, room: name(input) }),
            19 => Request::Status(plain),
            20 => {
                let shown = (0..input.below(3)).map(|_| (room(input), key(input))).collect();
                Request::Mark(Mark { request, shown })
            }
            21 => Request::Verify(plain),
            22 => {
                let keep = Retention { age_ms: input.number(1000), messages: input.number(2) };
                Request::Keep(Keep { request, room: name(input), keep })
            }
            _ if input.byte().is_multiple_of(2) => Request::Detach(plain),
            _ => Request::Ping(plain),
        }
    }

    fn attach_request(&self, input: &mut Input<'_>) -> Request {
        let token = match input.byte() % 3 {
            0 => Vec::new(),
            1 => input.piece().to_vec(),
            _ => self.token.clone(),
        };
        let cursor = |input: &mut Input<'_>| {
            let log = self.log(input);
            (log, input.number(self.held(log)))
        };
        let cursor: Vector = (0..input.below(3)).map(|_| cursor(input)).collect();
        let opened = |input: &mut Input<'_>| Opened {
            room: name(input),
            since: Hlc::from_bits(input.number(Hlc::at_ms(WALL_MS).bits())),
        };
        let rooms = (0..input.below(3)).map(|_| opened(input)).collect();
        let nick = input.byte().is_multiple_of(2).then(|| name(input));
        let direct = input.one(&[Direct::Take, Direct::Ignore]);
        Request::Attach(Attach { minor: 0, token, nick, cursor, rooms, direct })
    }
}

fn name(input: &mut Input<'_>) -> String {
    match input.byte() % 8 {
        0..=3 => "lobby".into(),
        4 => "den".into(),
        5 => "bob".into(),
        6 => "Ann".into(),
        _ => String::from_utf8_lossy(input.piece()).into_owned(),
    }
}

fn target(input: &mut Input<'_>) -> Target {
    match input.byte() % 4 {
        0 => Target::Nick(name(input)),
        1 => Target::Account(account(input)),
        _ => Target::Room(name(input)),
    }
}

fn number(input: &mut Input<'_>) -> u32 {
    u32::try_from(input.number(5)).unwrap_or(u32::MAX)
}

fn key(input: &mut Input<'_>) -> Key {
    let log = Log::of(peer_origin(input.below(2)));
    let hlc = Hlc::from_bits(input.number(Hlc::at_ms(WALL_MS).bits()));
    Key { hlc, origin: log.origin, seq: input.number(1) }
}

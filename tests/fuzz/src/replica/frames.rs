//! Frames of a peer, made of likely values.

use std::sync::Arc;

use chatty_core::event::{
    Body, Boot, Direct, Event, Floor, Join, Keep, Kick, Leave, Mark, Msg, Nick, Rank, Retention,
    Role, RoomCreate, Topic,
};
use chatty_core::frame::{
    Events, Frame, Have, Haves, Lagging, Leaving, Load, Logs, PresenceUpdate, Push, Range,
    RolledBack, Want,
};
use chatty_core::id::{Log, RoomId, ServerId, Slot};
use chatty_core::session::ServerState;
use chatty_core::time::Hlc;
use chatty_core::vector::Vector;

use super::{WALL_MS, World, account, chain_of, mid, room};
use crate::input::Input;

pub(super) const fn no_haves() -> Haves {
    Haves { haves: Vec::new() }
}

impl World {
    pub(super) fn frame(&mut self, input: &mut Input<'_>) -> Frame {
        match input.byte() % 20 {
            0..=7 => self.events(input),
            8..=9 => self.range(input),
            10..=11 => Frame::Have(self.haves(input)),
            12 => Frame::Vector(self.haves(input)),
            13 => {
                let log = self.log(input);
                let about = self.held(log);
                let push = input.one(&[Push::Unchanged, Push::Start]);
                Frame::Want(Want { log, from: input.number(about), to: input.number(about), push })
            }
            14 => Frame::Prune(Logs { logs: self.logs(input) }),
            15 => Frame::Forked(Logs { logs: self.logs(input) }),
            16 => Frame::Digest(self.replica.broadcast().digest()),
            17 => {
                let (announced, held) = (input.number(0), input.number(0));
                Frame::RolledBack(RolledBack { log: self.log(input), announced, held })
            }
            18 => {
                let place = (account(input), Some(room(input)));
                let full = input.byte().is_multiple_of(2);
                let (here, gone) = if full { (vec![place], vec![]) } else { (vec![], vec![place]) };
                Frame::Presence(PresenceUpdate { full, here, gone })
            }
            _ => match input.byte() {
                // Few: what was found before means what it did.
                0xf8.. => {
                    let state = input.one(&[ServerState::Ready, ServerState::Stopping]);
                    let clients = u32::try_from(input.number(0)).unwrap_or(u32::MAX);
                    Frame::Load(Load { clients, state })
                }
                byte if byte.is_multiple_of(2) => Frame::Lagging(Lagging {}),
                _ => Frame::Leaving(Leaving {}),
            },
        }
    }

    fn logs(&self, input: &mut Input<'_>) -> Vec<Log> {
        (0..input.below(4)).map(|_| self.log(input)).collect()
    }

    fn haves(&self, input: &mut Input<'_>) -> Haves {
        let have = |input: &mut Input<'_>| {
            let log = self.log(input);
            let said = self.said.get(&log).copied().unwrap_or_default();
            let (upto, chain) = match input.byte() % 3 {
                0 => said,
                1 => (input.number(said.0), said.1),
                _ => (input.number(said.0), u64::from(input.byte())),
            };
            Have { log, upto, chain }
        };
        Haves { haves: (0..1 + input.below(3)).map(|_| have(input)).collect() }
    }

    /// Mostly those that come next, as the log's server would say them.
    fn next_events(&mut self, input: &mut Input<'_>) -> (Log, u64, Vec<Arc<Event>>, u64) {
        let log = self.log(input);
        let (upto, before) = self.said.get(&log).copied().unwrap_or_default();
        let mode = input.byte() % 8;
        let base = if mode == 0 { input.number(upto) } else { upto + 1 };
        let n = input.below(4) as u64;
        let numbers = (0..=n).map(|nth| match mode {
            1 => input_number(base, nth),
            _ => base.wrapping_add(nth),
        });
        let numbers: Vec<u64> = numbers.collect();
        let events: Vec<Arc<Event>> =
            numbers.into_iter().map(|seq| Arc::new(event(input, seq))).collect();
        let chain = chain_of(&events, before);
        match mode {
            0 | 1 => {}
            2 => return (log, base, events, chain ^ 1),
            3 => return (log, base.saturating_add(1), events, chain),
            _ => {
                self.said.insert(log, (upto + n + 1, chain));
            }
        }
        (log, base, events, chain)
    }

    fn events(&mut self, input: &mut Input<'_>) -> Frame {
        let (log, base, events, chain) = self.next_events(input);
        Frame::Events(Events { log, base, hops: input.byte(), events, chain })
    }

    fn range(&mut self, input: &mut Input<'_>) -> Frame {
        let (log, base, mut events, chain) = self.next_events(input);
        if input.byte().is_multiple_of(8) {
            events.clear();
        }
        Frame::Range(Range { log, base, events, chain, done: input.byte().is_multiple_of(2) })
    }
}

/// With a hole after the first.
const fn input_number(base: u64, nth: u64) -> u64 {
    if nth == 0 { base } else { base.wrapping_add(nth + 1) }
}

fn event(input: &mut Input<'_>, seq: u64) -> Event {
    let hlc = match input.byte() % 8 {
        0 => Hlc::from_bits(input.number(0)),
        1 => Hlc::at_ms(input.number(WALL_MS)),
        _ => Hlc::from_bits(Hlc::at_ms(WALL_MS).bits().wrapping_add(seq)),
    };
    let (kind, body) = match input.byte() % 8 {
        0 => (u16::from(input.byte()), input.piece().to_vec()),
        _ => {
            let body = body(input);
            (body.kind(), body.encode())
        }
    };
    let wall_ms = hlc.ms();
    Event {
        seq,
        hlc,
        wall_ms,
        room: room(input),
        actor: account(input),
        mid: mid(input),
        kind,
        body,
    }
}

fn name(input: &mut Input<'_>) -> String {
    match input.byte() % 4 {
        0 => "ann".into(),
        1 => "Ann".into(),
        2 => "bob~000000".into(),
        _ => String::from_utf8_lossy(input.piece()).into_owned(),
    }
}

fn body(input: &mut Input<'_>) -> Body {
    let nick = name(input);
    match input.byte() % 16 {
        0..=3 => Msg { nick, text: name(input) }.into(),
        4 => Direct { nick, to: account(input), to_nick: name(input), text: name(input) }.into(),
        5 => Join { nick }.into(),
        6 => Leave { nick }.into(),
        7 => {
            let (account, account_nick) = (account(input), name(input));
            Kick { nick, account, account_nick, reason: String::new() }.into()
        }
        8 => {
            let role = input.one(&[Rank::Member, Rank::Op, Rank::Founder]);
            Role { nick, account: account(input), account_nick: name(input), role }.into()
        }
        9 => Topic { nick, text: name(input) }.into(),
        10 => RoomCreate { name: nick }.into(),
        11 => Nick { nick, before: String::new() }.into(),
        12 => {
            let log = Log::of(super::peer_origin(input.below(2)));
            let seen: Vector = [(log, input.number(3))].into_iter().collect();
            Mark { seen }.into()
        }
        13 => {
            let keep = Retention { age_ms: input.number(1), messages: input.number(2) };
            Keep { nick, keep }.into()
        }
        14 => Floor { ms: input.number(WALL_MS) }.into(),
        _ => Boot {
            server: ServerId::new(u128::from(input.byte())),
            slot: Slot::new("s2").expect("a name"),
            generation: input.number(1),
            prev: None,
            addr: RoomId::new(1).to_string(),
        }
        .into(),
    }
}

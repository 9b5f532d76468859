//! A server among others that say and do what the test wants; its outputs as lines to compare.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::broadcast::Broadcast;
use crate::config::{Config, Feeds, Limits, Me, Mesh, Timing};
use crate::event::{CHAIN_START, Event, Retention};
use crate::frame::{Class, Digest, Events, Frame, Have, Haves, Logs, Push, Range, Want};
use crate::id::{
    AccountId, ClusterId, LinkId, Log, Mid, Origin, PersistToken, ReadToken, RoomId, ServerId, Slot,
};
use crate::io::{Output, Peer, Standing};
use crate::session::ServerAddr;
use crate::store::{Batch, Entry, Loaded, LoadedLog, Query};
use crate::time::{Hlc, Now, Time};
use crate::token::TokenKey;

const WALL_MS: u64 = 1_700_000_000_000;
/// What an event of [`event`] costs.
pub(super) const COST: usize = 100;

pub(super) fn slot(n: u8) -> Slot {
    Slot::new(format!("s{n}")).unwrap()
}

fn origin(n: u8) -> Origin {
    Origin::at(WALL_MS, u128::from(n))
}

/// The log of server `n`'s run.
pub(super) fn log(n: u8) -> Log {
    Log::of(origin(n))
}

pub(super) const fn link(n: u8) -> LinkId {
    LinkId(n as u64)
}

/// The server of a log; logs of runs that are over have numbers above 100.
fn of(log: Log) -> String {
    (0..=255).find(|n| self::log(*n) == log).map_or_else(|| log.to_string(), |n| format!("s{n}"))
}

/// The `seq`-th event of server `n`: each has other words.
pub(super) fn event(n: u8, seq: u64) -> Arc<Event> {
    Arc::new(Event {
        seq,
        hlc: Hlc::at_ms(WALL_MS.wrapping_add(seq)),
        wall_ms: WALL_MS.wrapping_add(seq),
        room: RoomId::new(7),
        actor: AccountId::new(u128::from(n)),
        mid: Mid::at(WALL_MS, u128::from(seq)),
        kind: 2,
        body: vec![n; COST - crate::event::EVENT_OVERHEAD_BYTES],
    })
}

/// The chain of server `n`'s log at its event `upto`.
pub(super) fn chain(n: u8, upto: u64) -> u64 {
    (1..=upto).fold(CHAIN_START, |chain, seq| event(n, seq).chain(chain))
}

pub(super) fn entry(n: u8, seq: u64) -> Entry {
    Entry { log: log(n), event: event(n, seq), chain: chain(n, seq) }
}

fn run(n: u8, from: u64, to: u64) -> Vec<Arc<Event>> {
    (from..=to).map(|seq| event(n, seq)).collect()
}

pub(super) fn events(n: u8, from: u64, to: u64, hops: u8) -> Frame {
    let events = run(n, from, to);
    Frame::Events(Events { log: log(n), base: from, hops, events, chain: chain(n, to) })
}

/// A piece of an answer; `to` below `from`: nothing.
pub(super) fn range(n: u8, from: u64, to: u64, done: bool) -> Frame {
    let events = run(n, from, to);
    Frame::Range(Range { log: log(n), base: from, events, chain: chain(n, to), done })
}

fn haves(all: &[(u8, u64)]) -> Haves {
    let have = |(n, upto): &(u8, u64)| Have { log: log(*n), upto: *upto, chain: chain(*n, *upto) };
    Haves { haves: all.iter().map(have).collect() }
}

pub(super) fn have(all: &[(u8, u64)]) -> Frame {
    Frame::Have(haves(all))
}

pub(super) fn vector(all: &[(u8, u64)]) -> Frame {
    Frame::Vector(haves(all))
}

pub(super) fn want(n: u8, from: u64, to: u64, push: Push) -> Frame {
    Frame::Want(Want { log: log(n), from, to, push })
}

pub(super) fn prune(n: u8) -> Frame {
    Frame::Prune(Logs { logs: vec![log(n)] })
}

/// The digest of a server that holds this.
pub(super) fn digest(all: &[(u8, u64)]) -> Frame {
    Frame::Digest(Digest::of(haves(all).haves))
}

/// A server that held this much of these logs when it started.
pub(super) fn loaded(all: &[(u8, u64)]) -> Loaded {
    let logs = all.iter().map(|(n, upto)| LoadedLog {
        log: log(*n),
        upto: *upto,
        chain: chain(*n, *upto),
        hlc: Hlc::at_ms(WALL_MS + upto),
    });
    Loaded { logs: logs.collect(), ..Loaded::default() }
}

pub(super) fn peer(n: u8) -> Peer {
    Peer {
        slot: slot(n),
        generation: 0,
        server: ServerId::new(u128::from(n)),
        origin: origin(n),
        standing: Standing::Sound,
    }
}

/// `s1` of `servers`.
pub(super) fn config(servers: u8) -> Config {
    Config {
        me: Me {
            cluster: ClusterId::new(1),
            slot: slot(1),
            generation: 0,
            server: ServerId::new(1),
            origin: origin(1),
            prev: None,
            addr: "s1:1".into(),
        },
        servers: (1..=servers).map(|n| ServerAddr { name: slot(n), addr: String::new() }).collect(),
        token_key: TokenKey::new([1; 32]),
        feeds: Feeds::DEFAULT,
        mesh: Mesh::default(),
        timing: Timing::default(),
        limits: Limits::default(),
        retention: Retention::default(),
    }
}

pub(super) struct World {
    pub(super) broadcast: Broadcast,
    pub(super) now: Now,
    writes: VecDeque<(PersistToken, Arc<Batch>)>,
    pub(super) reads: VecDeque<(ReadToken, Query)>,
}

impl World {
    pub(super) fn new(config: &Config, loaded: &Loaded) -> Self {
        let now = Now { time: Time::from_micros(0), wall_ms: WALL_MS };
        let broadcast = Broadcast::new(config, loaded, 1, now);
        let mut world = Self { broadcast, now, writes: VecDeque::new(), reads: VecDeque::new() };
        world.turn(); // who holds its own slot
        world.persist();
        world
    }

    /// A new server with links to all others, which hold nothing either; all of it is said.
    pub(super) fn linked(config: &Config) -> Self {
        let mut world = Self::new(config, &Loaded::default());
        for n in 2..=u8::try_from(config.servers.len()).unwrap() {
            world.link(n);
            world.frame(n, vector(&[]));
        }
        world.turn();
        world.persist();
        world
    }

    /// The same server, to go another way.
    pub(super) fn branch(&self) -> Self {
        let (writes, reads) = (self.writes.clone(), self.reads.clone());
        Self { broadcast: self.broadcast.clone(), now: self.now, writes, reads }
    }

    pub(super) fn link(&mut self, n: u8) {
        self.broadcast.link_up(peer(n), link(n));
    }

    pub(super) fn frame(&mut self, from: u8, frame: Frame) {
        self.broadcast.frame(self.now, link(from), frame).unwrap();
    }

    /// Why a frame is refused.
    pub(super) fn refusal(&mut self, from: u8, frame: Frame) -> Option<String> {
        self.broadcast.frame(self.now, link(from), frame).err()
    }

    /// Makes the next own event.
    pub(super) fn say(&mut self) {
        let seq = self.broadcast.next_seq();
        self.broadcast.append(Arc::unwrap_or_clone(event(1, seq)));
    }

    /// The end of a tick: what it says.
    pub(super) fn turn(&mut self) -> Vec<String> {
        self.broadcast.flush(self.now);
        let mut lines = Vec::new();
        while let Some(output) = self.broadcast.poll_output() {
            if let Some(line) = self.show(output) {
                lines.push(line);
            }
        }
        self.broadcast.assert_invariants();
        lines
    }

    /// The write under way is on the disk.
    pub(super) fn persist(&mut self) -> bool {
        let Some((token, batch)) = self.writes.pop_front() else { return false };
        assert_eq!(self.broadcast.persisted(self.now, token), Some(batch));
        true
    }

    /// The outputs of a tick, all of them on the disk.
    pub(super) fn settle(&mut self) -> Vec<String> {
        let mut lines = self.turn();
        while self.persist() {
            lines.extend(self.turn());
        }
        lines
    }

    /// Time passes; what the timers say, with the milliseconds since the beginning.
    pub(super) fn pass_ms(&mut self, ms: u64) -> Vec<String> {
        let end = self.now.time + Duration::from_millis(ms);
        let mut lines = Vec::new();
        while let Some(at) = self.broadcast.next_deadline().filter(|at| *at <= end) {
            self.now.time = at.max(self.now.time);
            self.broadcast.handle_timeout(self.now);
            let at = self.now.time.as_micros() / 1000;
            lines.extend(self.turn().into_iter().map(|line| format!("{at} ms: {line}")));
        }
        self.now.time = end;
        lines
    }

    fn show(&mut self, output: Output) -> Option<String> {
        Some(match output {
            Output::Send { links, class, frame, cost } => {
                let to: Vec<String> = links.iter().map(|link| format!("s{}", link.0)).collect();
                let (what, of_class) = show_frame(&frame);
                assert_eq!(class, of_class, "{what}");
                if let Frame::Events(Events { events, .. }) | Frame::Range(Range { events, .. }) =
                    &*frame
                {
                    assert_eq!(cost, events.len() * COST, "{what}");
                }
                format!("to {}: {what}", to.join(" "))
            }
            Output::DropQueue(link, class) => format!("drop the {class:?} queue of s{}", link.0),
            Output::Persist(token, batch) => {
                let lines: Vec<String> = batch
                    .entries
                    .iter()
                    .map(|entry| format!("{} {}", of(entry.log), entry.event.seq))
                    .collect();
                self.writes.push_back((token, batch));
                if lines.is_empty() {
                    return None; // who holds what, and such
                }
                format!("write {}", lines.join(", "))
            }
            Output::Read(token, query) => {
                self.reads.push_back((token, query.clone()));
                let Query::Events { log, from, to, bytes_max } = query else { unreachable!() };
                format!("read {} {from}..{to}, {bytes_max} bytes", of(log))
            }
            Output::Log(severity, text) => {
                let first = text.split([':', '(']).next().unwrap_or_default().trim();
                format!("log {severity:?}: {first}")
            }
            other => unreachable!("{other:?}"),
        })
    }
}

fn show_frame(frame: &Frame) -> (String, Class) {
    let logs = |logs: &Logs| logs.logs.iter().map(|l| of(*l)).collect::<Vec<_>>().join(" ");
    let listed = |haves: &Haves| {
        let all = haves.haves.iter().map(|have| {
            let n = (0..=255).find(|n| log(*n) == have.log).unwrap();
            assert_eq!(have.chain, chain(n, have.upto), "the chain of what is announced");
            format!("{} {}", of(have.log), have.upto)
        });
        all.collect::<Vec<_>>().join(", ")
    };
    match frame {
        Frame::Events(Events { log, base, hops, events, .. }) => {
            let last = base + events.len() as u64 - 1;
            (format!("events {} {base}..{last}, {hops} hops", of(*log)), Class::Live)
        }
        Frame::Range(Range { log, base, events, done, .. }) => {
            let end = if *done { ", done" } else { "" };
            let what = match events.len() as u64 {
                0 => format!("nothing of {} from {base}{end}", of(*log)),
                n => format!("range {} {base}..{}{end}", of(*log), base + n - 1),
            };
            (what, Class::CatchUp)
        }
        Frame::Have(haves) => (format!("have {}", listed(haves)), Class::Control),
        Frame::Vector(haves) => (format!("vector {}", listed(haves)), Class::Control),
        Frame::Digest(_) => ("digest".into(), Class::Control),
        Frame::Want(Want { log, from, to, push }) => {
            let push = if *push == Push::Start { ", and push" } else { "" };
            (format!("want {} {from}..{to}{push}", of(*log)), Class::Control)
        }
        Frame::Prune(pruned) => (format!("prune {}", logs(pruned)), Class::Control),
        Frame::Lagging(_) => ("lagging".into(), Class::Control),
        Frame::Forked(forked) => (format!("forked {}", logs(forked)), Class::Control),
        Frame::RolledBack(lost) => (
            format!("rolled back: {} {} not {}", of(lost.log), lost.held, lost.announced),
            Class::Control,
        ),
        Frame::Presence(_) => ("presence".into(), Class::Presence),
        other => unreachable!("{other:?}"),
    }
}

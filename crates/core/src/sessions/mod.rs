//! Sessions: what attached clients asked, what they are owed, what they are shown.
//!
//! A session does not know how its client is attached. Its requests are carried out in order;
//! those that read shared state wait until the session's own writes are on the disk, so that the
//! answer to a later request comes after everything its earlier requests caused (program order).
//!
//! - `attach.rs`: coming, coming back, going
//! - `requests.rs`: everything asked but messages
//! - `send.rs`: messages: dedup, limits, acknowledgement
//! - `deliver.rs`: showing events, queues and gaps
//! - `verify.rs`: reading everything again
//! - `recent.rs`: the newest lines and message identities, in memory

mod attach;
mod deliver;
mod recent;
mod requests;
mod send;
mod verify;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::config::{Config, Limits};
use crate::id::{AccountId, ReadToken, RequestId, RoomId, SessionId};
use crate::session::{Code, Item, Refused, Request};
use crate::store::Loaded;
use crate::time::{Hlc, Key, Now, Time};
use crate::vector::Vector;

use attach::Attaching;
use recent::{Recent, RecentMids};
use requests::Reading;
use send::{Acks, Bucket};
use verify::Verifying;

/// Rooms with a rate of their own, at most; beyond, the idle ones are forgotten.
const ROOM_RATES_MAX: usize = 4096;

/// One attached client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    phase: Phase,
    account: AccountId,
    /// Whether it takes direct messages.
    direct: bool,
    rooms: BTreeMap<RoomId, View>,
    /// Requests behind one that reads the disk or waits for it.
    inbox: VecDeque<Request>,
    reading: Option<(ReadToken, Reading)>,
    /// Answers that wait for an own event to be durable, with its number.
    answers: VecDeque<(u64, Answer)>,
    /// The number of the newest own event this session caused.
    barrier: u64,
    /// Above what its events are stamped: what it has seen elsewhere.
    seen: Hlc,
    /// Bytes delivered that have not left yet.
    queued: usize,
    /// Rooms whose lines were dropped, and the least key of those.
    gapped: BTreeMap<RoomId, Key>,
    rate: Bucket,
    /// The name it was told to go by.
    nick: String,
    /// What its newest token covers.
    told: Vector,
}

/// How far a session is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// It has not said who it is.
    New,
    /// It has; what it saw elsewhere is fetched, its name written, its backlog read.
    Attaching(Box<Attaching>),
    /// It is shown what happens.
    Live,
    /// It was told to go; nothing more is taken from it.
    Closing,
}

/// A room a session has open.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    name: String,
    /// When it was opened: a kick after that closes it.
    since: Hlc,
    /// The newest place shown.
    newest: Key,
}

/// An answer that waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Answer {
    /// As it is.
    Item(Item),
    /// The name, as it is when the answer goes.
    Named(RequestId),
}

/// All sessions of a server, and what they share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sessions {
    all: BTreeMap<SessionId, Session>,
    in_room: BTreeMap<RoomId, BTreeSet<SessionId>>,
    of: BTreeMap<AccountId, BTreeSet<SessionId>>,
    /// Sessions with something that waits for the disk or for other servers.
    blocked: BTreeSet<SessionId>,
    reads: BTreeMap<ReadToken, SessionId>,
    verifying: Option<Verifying>,
    last_read: u64,
    recent: Recent,
    mids: RecentMids,
    acks: Acks,
    /// Rooms whose creation is not durable yet.
    creating: BTreeSet<RoomId>,
    room_rates: BTreeMap<RoomId, Bucket>,
    /// When sessions get newer tokens.
    token_at: Time,
}

impl Sessions {
    pub(crate) fn new(config: &Config, loaded: &Loaded, now: Now) -> Self {
        let durable: Vector = loaded.logs.iter().map(|log| (log.log, log.upto)).collect();
        let mids_floor = if durable.is_empty() {
            0
        } else {
            now.wall_ms.saturating_add(config.timing.max_skew_ms).saturating_add(1)
        };
        Self {
            all: BTreeMap::new(),
            in_room: BTreeMap::new(),
            of: BTreeMap::new(),
            blocked: BTreeSet::new(),
            reads: BTreeMap::new(),
            verifying: None,
            last_read: 1,
            recent: Recent::new(config.limits.recent_lines, durable),
            mids: RecentMids::new(config.limits.recent_mids, mids_floor),
            acks: Acks::default(),
            creating: BTreeSet::new(),
            room_rates: BTreeMap::new(),
            token_at: now.time + config.timing.token_period,
        }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.all.keys().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Sessions that have an account: not those that only ask for the status.
    pub(crate) fn attached(&self) -> usize {
        self.of.values().map(BTreeSet::len).sum()
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let attaching = self.blocked.iter().filter_map(|id| match &self.all.get(id)?.phase {
            Phase::Attaching(attaching) => attaching.deadline(),
            _ => None,
        });
        let token = (!self.all.is_empty()).then_some(self.token_at);
        attaching.chain(self.acks.next_deadline()).chain(token).min()
    }

    /// The token of a read that is no session's.
    pub(crate) const fn verify_read(&mut self) -> ReadToken {
        self.last_read += 2;
        ReadToken(self.last_read)
    }

    fn next_read(&mut self, session: SessionId) -> ReadToken {
        self.last_read += 2; // odd: the sessions' reads
        let token = ReadToken(self.last_read);
        self.reads.insert(token, session);
        token
    }

    fn open(&mut self, id: SessionId, room: RoomId, view: View) {
        if let Some(session) = self.all.get_mut(&id) {
            session.rooms.insert(room, view);
            self.in_room.entry(room).or_default().insert(id);
        }
    }

    fn close(&mut self, id: SessionId, room: RoomId) -> Option<View> {
        let view = self.all.get_mut(&id)?.rooms.remove(&room)?;
        if let Some(sessions) = self.in_room.get_mut(&room) {
            sessions.remove(&id);
            if sessions.is_empty() {
                self.in_room.remove(&room);
            }
        }
        Some(view)
    }

    pub(crate) fn assert_invariants(&self, limits: &Limits) {
        for (id, session) in &self.all {
            assert!(session.inbox.len() <= limits.session_requests, "inbox over its bound");
            for room in session.rooms.keys() {
                let there = self.in_room.get(room).is_some_and(|ids| ids.contains(id));
                assert!(there, "a room knows who has it open");
            }
            if let Some((token, _)) = &session.reading {
                assert_eq!(self.reads.get(token), Some(id), "a read knows its session");
            }
        }
        self.recent.assert_invariants();
        self.mids.assert_invariants();
    }
}

impl Session {
    const fn new(rate: Bucket) -> Self {
        Self {
            phase: Phase::New,
            account: AccountId::new(0),
            direct: false,
            rooms: BTreeMap::new(),
            inbox: VecDeque::new(),
            reading: None,
            answers: VecDeque::new(),
            barrier: 0,
            seen: Hlc::from_bits(0),
            queued: 0,
            gapped: BTreeMap::new(),
            rate,
            nick: String::new(),
            told: Vector::new(),
        }
    }

    /// Whether it is shown what happens as it happens.
    fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }
}

fn refusal(request: RequestId, code: Code, reason: impl Into<String>) -> Item {
    Item::Refused(Refused { request, code, reason: reason.into(), retry_ms: 0 })
}

fn busy(request: RequestId, reason: impl Into<String>, retry_ms: u32) -> Item {
    Item::Refused(Refused { request, code: Code::Busy, reason: reason.into(), retry_ms })
}

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
//! - `lists.rs`: rooms, who, status: long answers in pieces
//! - `rate.rs`: how much may be asked
//! - `size.rs`: how long a request may be
//! - `waits.rs`: who waits for a message to be safe
//! - `verify.rs`: reading everything again
//! - `recent.rs`: the newest lines and message identities, in memory

mod attach;
mod deliver;
mod lists;
mod rate;
mod recent;
mod requests;
mod send;
mod size;
#[cfg(test)]
mod tests;
mod verify;
mod waits;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, Limits};
use crate::id::{AccountId, Mid, ReadToken, RequestId, RoomId, SessionId};
use crate::session::{Code, Item, Refused, Request};
use crate::store::Loaded;
use crate::time::{Hlc, Key, Now, Time};
use crate::vector::Vector;

use attach::Attaching;
use rate::Bucket;
use recent::{Recent, RecentMids};
use requests::Reading;
use verify::Verifying;
use waits::Waits;

/// Rooms with a rate of their own, at most; beyond, the idle ones are forgotten.
const ROOM_RATES_MAX: usize = 4096;

/// Accounts with a rate of their own, at most; beyond, the idle ones are forgotten.
const ACCOUNT_RATES_MAX: usize = 65_536;

/// A kick on its way to the disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kicking {
    /// Its number in this server's own log.
    seq: u64,
    by: String,
    reason: String,
}

/// One attached client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    phase: Phase,
    account: AccountId,
    /// Whether it takes direct messages.
    direct: bool,
    rooms: BTreeMap<RoomId, View>,
    /// Requests behind one that reads the disk or waits for it.
    inbox: VecDeque<Queued>,
    /// Their bytes in memory.
    inbox_bytes: usize,
    reading: Option<(ReadToken, Reading)>,
    /// Answers that wait for an own event to be durable, with its number.
    answers: VecDeque<(u64, Answer)>,
    /// What proves to the client that it has all that came before: it waits while lines are being
    /// dropped, until the client knows of that.
    proofs: VecDeque<Item>,
    /// Bytes of `answers` and `proofs`.
    held_bytes: usize,
    /// The number of the newest own event this session caused.
    barrier: u64,
    /// Above what its events are stamped: what it has seen elsewhere.
    seen: Hlc,
    /// Bytes delivered that have not left yet.
    queued: usize,
    /// Rooms whose lines were dropped, and the least key of those.
    gapped: BTreeMap<RoomId, Key>,
    /// What it may ask before it has an account; then the account's counts.
    rate: Bucket,
    /// When it came, or last asked something but a ping.
    asked: Time,
    /// When it said who it is.
    attached_at: Time,
    /// A message refused as busy: those said after it are not taken before it, until then.
    awaited: Option<(Mid, Time)>,
    /// The name it was told to go by.
    nick: String,
    /// What its newest token covers.
    told: Arc<Vector>,
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

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Queued {
    request: Request,
    bytes: usize,
    /// What it still has to take out of the session's bucket.
    cost: u64,
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
    /// How many those are.
    attached: usize,
    /// Sessions with something that waits for the disk or for other servers.
    blocked: BTreeSet<SessionId>,
    reads: BTreeMap<ReadToken, SessionId>,
    verifying: Option<Verifying>,
    last_read: u64,
    recent: Recent,
    mids: RecentMids,
    acks: Waits,
    /// Rooms whose creation is not durable yet.
    creating: BTreeSet<RoomId>,
    /// Who is put out of which room by a kick that is not durable yet.
    kicking: BTreeMap<(RoomId, AccountId), Kicking>,
    /// Conversations that accounts began on this server since it started.
    begun: BTreeMap<AccountId, BTreeSet<RoomId>>,
    room_rates: BTreeMap<RoomId, Bucket>,
    account_rates: BTreeMap<AccountId, Bucket>,
    /// Sessions that may have no account yet, and when it is looked whether they still ask.
    strangers: BTreeSet<(Time, SessionId)>,
    /// When each live session gets a newer token.
    tokens: BTreeSet<(Time, SessionId)>,
    /// Accounts that may still be made.
    guests: Bucket,
    /// Entries of lists that may still be gone through.
    lists: Bucket,
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
            attached: 0,
            blocked: BTreeSet::new(),
            reads: BTreeMap::new(),
            verifying: None,
            last_read: 1,
            recent: Recent::new(config.limits.recent_lines, durable),
            mids: RecentMids::new(config.limits.recent_mids, mids_floor),
            acks: Waits::default(),
            creating: BTreeSet::new(),
            kicking: BTreeMap::new(),
            begun: BTreeMap::new(),
            room_rates: BTreeMap::new(),
            account_rates: BTreeMap::new(),
            strangers: BTreeSet::new(),
            tokens: BTreeSet::new(),
            guests: Bucket::with_burst(config.limits.guest_rate, config.limits.guest_burst),
            lists: Bucket::new(config.limits.list_rate),
        }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.all.keys().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Sessions that have an account: not those that only ask for the status.
    pub(crate) const fn attached(&self) -> usize {
        self.attached
    }

    /// Accounts attached: many sessions of one are one.
    pub(crate) fn accounts(&self) -> usize {
        self.of.len()
    }

    /// Up to `most` sessions that can go elsewhere and notice nothing: long enough here, waiting for
    /// nothing, of accounts that are not left alone; first those that asked nothing for longest.
    pub(crate) fn movable(
        &self,
        now: Time,
        settled: Duration,
        left_alone: impl Fn(AccountId) -> bool,
        most: usize,
    ) -> Vec<(SessionId, AccountId)> {
        let is_idle = |(id, session): &(&SessionId, &Session)| {
            session.is_live()
                && now.since(session.attached_at) >= settled
                && session.waits_for_nothing(now)
                && !self.acks.has(**id)
                && !left_alone(session.account)
        };
        let mut idle: Vec<(Time, SessionId, AccountId)> = (self.all.iter().filter(is_idle))
            .map(|(id, session)| (session.asked, *id, session.account))
            .collect();
        idle.sort_unstable();
        idle.into_iter().take(most).map(|(_, id, account)| (id, account)).collect()
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let attaching = self.blocked.iter().filter_map(|id| match &self.all.get(id)?.phase {
            Phase::Attaching(attaching) => attaching.deadline(),
            _ => None,
        });
        let token = self.tokens.first().map(|(at, _)| *at);
        let stranger = self.strangers.first().map(|(at, _)| *at);
        attaching.chain(self.acks.next_deadline()).chain(token).chain(stranger).min()
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

    /// Opens a room in a session, or replaces the view of it; tells whether it was not open.
    fn open(&mut self, id: SessionId, room: RoomId, view: View) -> bool {
        let Some(session) = self.all.get_mut(&id) else { return false };
        self.in_room.entry(room).or_default().insert(id);
        session.rooms.insert(room, view).is_none()
    }

    /// Where sessions are: their accounts, and the rooms they have open.
    pub(crate) fn places(&self) -> impl Iterator<Item = (AccountId, Option<RoomId>)> + '_ {
        let attached =
            self.of.iter().flat_map(|(account, ids)| ids.iter().map(|_| (*account, None)));
        let open = self
            .all
            .values()
            .flat_map(|session| session.rooms.keys().map(|room| (session.account, Some(*room))));
        attached.chain(open)
    }

    /// The next token of a session is due after so long. The moments are a twentieth of a period
    /// apart, so that 20,000 sessions are a little work now and then, and neither much at once nor a
    /// turn of the loop each.
    fn token_later(&mut self, id: SessionId, now: Time, period: Duration) {
        let step = u64::try_from(period.as_micros() / 20).unwrap_or(u64::MAX).max(1);
        let at = (now + period).as_micros().div_ceil(step).saturating_mul(step);
        self.tokens.insert((Time::from_micros(at), id));
    }

    /// What a session's asking is taken out of: one bucket for all sessions of an account, which a
    /// new connection does not fill again.
    fn bucket(&mut self, now: Now, id: SessionId) -> Option<&mut Bucket> {
        let session = self.all.get_mut(&id)?;
        if session.phase == Phase::New {
            return Some(&mut session.rate);
        }
        let (account, fresh) = (session.account, session.rate);
        if self.account_rates.len() >= ACCOUNT_RATES_MAX {
            self.account_rates.retain(|_, bucket| !bucket.is_full(now.time));
        }
        Some(self.account_rates.entry(account).or_insert(fresh))
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
            let bytes: usize = session.inbox.iter().map(|queued| queued.bytes).sum();
            assert_eq!(bytes, session.inbox_bytes, "the inbox's bytes are counted");
            assert!(bytes <= limits.session_request_bytes, "inbox over its bytes");
            assert_eq!(
                session.held_bytes,
                deliver::held_bytes(session),
                "held answers are counted"
            );
            assert!(
                session.held_bytes <= deliver::answers_max(limits),
                "held answers over their bound"
            );
            for room in session.rooms.keys() {
                let there = self.in_room.get(room).is_some_and(|ids| ids.contains(id));
                assert!(there, "a room knows who has it open");
            }
            if let Some((token, _)) = &session.reading {
                assert_eq!(self.reads.get(token), Some(id), "a read knows its session");
            }
        }
        let attached: usize = self.of.values().map(BTreeSet::len).sum();
        assert_eq!(attached, self.attached, "who is attached is counted");
        self.acks.assert_invariants();
        self.recent.assert_invariants();
        self.mids.assert_invariants();
    }
}

impl Session {
    fn new(rate: Bucket, now: Time) -> Self {
        Self {
            phase: Phase::New,
            account: AccountId::new(0),
            direct: false,
            rooms: BTreeMap::new(),
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            reading: None,
            answers: VecDeque::new(),
            proofs: VecDeque::new(),
            held_bytes: 0,
            barrier: 0,
            seen: Hlc::from_bits(0),
            queued: 0,
            gapped: BTreeMap::new(),
            rate,
            asked: now,
            attached_at: now,
            awaited: None,
            nick: String::new(),
            told: Arc::default(),
        }
    }

    /// Puts a request before all others that wait; it has paid.
    fn go_on_with(&mut self, request: Request) {
        let bytes = size::bytes(&request);
        self.inbox_bytes += bytes;
        self.inbox.push_front(Queued { request, bytes, cost: 0 });
    }

    /// The next request.
    fn take_request(&mut self) -> Option<Queued> {
        let queued = self.inbox.pop_front()?;
        self.inbox_bytes -= queued.bytes;
        Some(queued)
    }

    /// Nothing waits for it any more.
    fn forget_all(&mut self) {
        self.phase = Phase::Closing;
        self.reading = None;
        self.inbox.clear();
        self.inbox_bytes = 0;
        self.answers.clear();
        self.proofs.clear();
        self.held_bytes = 0;
    }

    /// Whether nothing that it asked or is owed is under way.
    fn waits_for_nothing(&self, now: Time) -> bool {
        self.inbox.is_empty()
            && self.reading.is_none()
            && self.answers.is_empty()
            && self.proofs.is_empty()
            && self.gapped.is_empty()
            && self.awaited.is_none_or(|(_, until)| until <= now)
    }

    /// Whether it is shown what happens as it happens.
    fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }
}

/// After so many milliseconds what waits for the disk may be tried again.
const BUSY_MS: u32 = 200;

fn refusal(request: RequestId, code: Code, reason: impl Into<String>) -> Item {
    let retry_ms = if code == Code::Busy { BUSY_MS } else { 0 };
    Item::Refused(Refused { request, code, reason: reason.into(), retry_ms })
}

/// Whoever is refused for now is told when to come again.
fn busy(request: RequestId, reason: impl Into<String>, retry_ms: u32) -> Item {
    let retry_ms = retry_ms.max(1);
    Item::Refused(Refused { request, code: Code::Busy, reason: reason.into(), retry_ms })
}

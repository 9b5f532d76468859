//! Messages: accepted once whatever happens to the connection, answered when they are safe.
//!
//! Message identity is (room, account, mid). A known identity is answered with that message's
//! state and appends nothing; a second event of it can only come from another server that did not
//! know the first yet, and the store makes it an alias.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::recent::{Known, Recall};
use super::requests::Reading;
use super::{ROOM_RATES_MAX, Sessions, busy, refusal};
use crate::event::{Body, Direct, Identity, Msg, RoomCreate};
use crate::id::{AccountId, EventId, Log, Mid, RequestId, RoomId, SessionId};
use crate::io::Output;
use crate::register::Membership;
use crate::replica::Replica;
use crate::session::{
    Code, Item, Level, Line, Replicated, Send, Sent, Target, check_room, check_text,
};
use crate::store::Query;
use crate::time::{Key, Now, Time};

/// Messages whose senders wait for more than the local disk, at most.
const WAITING_MAX: usize = 1 << 18;

/// Message ids in one notice, at most.
const NOTICES_MAX: usize = 4096;

/// A token bucket: `rate` a second, as many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    rate: u32,
    /// When the bucket is full again if nothing is taken.
    full_at: Time,
}

impl Bucket {
    pub(super) const fn new(rate: u32) -> Self {
        Self { rate, full_at: Time::from_micros(0) }
    }

    /// Takes one; else tells after how many milliseconds there is one.
    fn take(&mut self, now: Time) -> Result<(), u32> {
        let one = Duration::from_micros(1_000_000 / u64::from(self.rate.max(1)));
        let full_at = self.full_at.max(now) + one;
        let over = full_at.since(now);
        if over > Duration::from_secs(1) + one {
            let wait = over.saturating_sub(Duration::from_secs(1));
            return Err(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1));
        }
        self.full_at = full_at;
        Ok(())
    }

    fn is_full(&self, now: Time) -> bool {
        self.full_at <= now
    }
}

/// Who waits for a message to be safe.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Acks {
    logs: BTreeMap<Log, AckLog>,
    count: usize,
    deadlines: BTreeSet<(Time, Log, u64)>,
}

/// The waits for one log's events.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct AckLog {
    waiting: BTreeMap<u64, Vec<Waiter>>,
    /// Up to here, those who wait for the local disk alone were answered.
    stored: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Waiter {
    session: SessionId,
    request: RequestId,
    mid: Mid,
    room: RoomId,
    key: Key,
    /// The level to answer at; `None` once answered as stored.
    answer_at: Option<Level>,
    late: bool,
}

impl Acks {
    fn wait(&mut self, event: EventId, waiter: Waiter, deadline: Time) {
        let log = self.logs.entry(event.log).or_default();
        log.waiting.entry(event.seq).or_default().push(waiter);
        self.count += 1;
        self.deadlines.insert((deadline, event.log, event.seq));
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, ..)| *at)
    }

    /// Messages whose time to answer is over: their senders have to do with less.
    fn expire(&mut self, now: Time) -> Vec<EventId> {
        let mut over = Vec::new();
        while let Some((at, log, seq)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            let waiters = self.logs.get_mut(&log).and_then(|log| log.waiting.get_mut(&seq));
            for waiter in waiters.into_iter().flatten() {
                waiter.late = true;
            }
            over.push(EventId { log, seq });
        }
        over
    }

    fn is_idle(&self) -> bool {
        self.logs.is_empty()
    }
}

impl Replica {
    /// A message. The checks come first; nothing is changed by a refused one.
    pub(super) fn send_request(&mut self, now: Now, id: SessionId, send: Send) {
        match self.accept(now, id, &send) {
            Ok(()) => {}
            Err(item) => self.answer(id, item),
        }
    }

    fn accept(&mut self, now: Now, id: SessionId, send: &Send) -> Result<(), Item> {
        let request = send.request;
        let invalid = |why: String| refusal(request, Code::Invalid, why);
        check_text(&send.text).map_err(invalid)?;
        self.check_writable(request)?;
        let Some(session) = self.sessions.all.get(&id) else { return Ok(()) };
        let account = session.account;
        let (room, body) = self.address(id, account, send)?;
        self.check_kept(request, room, send.mid)?;
        let identity = Identity { room, account, mid: send.mid };
        match self.sessions.mids.recall(&identity) {
            Recall::Known(known) => self.answer_known(now, id, send, room, &body, known),
            Recall::New => self.append_message(now, id, send, room, &body),
            Recall::TooOld => {
                self.read(id, Reading::Message(send.clone()), Query::Message(identity));
                Ok(())
            }
        }
    }

    /// The disk said whether it knows the message.
    pub(super) fn send_looked_up(
        &mut self,
        now: Now,
        id: SessionId,
        send: &Send,
        found: Option<Line>,
    ) {
        let Some(account) = self.sessions.all.get(&id).map(|s| s.account) else { return };
        let result = self.address(id, account, send).and_then(|(room, body)| match found {
            Some(line) => {
                let content = line.event.body().map_or(0, |body| content(&body));
                let known = Known { key: line.key(), content };
                self.answer_known(now, id, send, room, &body, known)
            }
            None => self.append_message(now, id, send, room, &body),
        });
        if let Err(item) = result {
            self.answer(id, item);
        }
    }

    /// Whether writes are taken at all.
    pub(super) fn check_writable(&self, request: RequestId) -> Result<(), Item> {
        if self.clock.is_fenced() {
            let why = "this server's clock is off, it takes no writes; another server does";
            return Err(refusal(request, Code::ClockSkew, why));
        }
        if let Some(why) = &self.refusing {
            let why = format!("the disk of this server takes no writes ({why}); another one does");
            return Err(refusal(request, Code::Storage, why));
        }
        if self.broadcast.is_full() {
            return Err(busy(request, "the disk is behind", 200));
        }
        Ok(())
    }

    /// A message of an id below the room's floor would be gone at once, and may have been there.
    fn check_kept(&self, request: RequestId, room: RoomId, mid: Mid) -> Result<(), Item> {
        if mid.unix_ms() > self.rooms.floor_ms(room) {
            return Ok(());
        }
        let why = "the message is older than what this room keeps";
        Err(refusal(request, Code::Expired, why))
    }

    /// Where a message goes, and its body.
    fn address(
        &self,
        id: SessionId,
        account: AccountId,
        send: &Send,
    ) -> Result<(RoomId, Body), Item> {
        let request = send.request;
        let nick = self.name_of(account);
        let text = send.text.clone();
        let to = match &send.to {
            Target::Room(name) => {
                check_room(name).map_err(|why| refusal(request, Code::Invalid, why))?;
                let room = RoomId::public(name);
                let open = self.sessions.all.get(&id).is_some_and(|s| s.rooms.contains_key(&room));
                if let Some((_, Membership::Kicked { by, reason })) =
                    self.rooms.membership(room, account)
                    && !open
                {
                    let why = format!("{by} put you out of {name} ({reason}); join it again first");
                    return Err(refusal(request, Code::Kicked, why));
                }
                return Ok((room, Body::Msg(Msg { nick, text })));
            }
            Target::Account(to) => *to,
            Target::Nick(to) => self.rooms.account(to).ok_or_else(|| {
                refusal(request, Code::Unknown, format!("nobody goes by the name {to:?}"))
            })?,
        };
        let to_nick = self.rooms.nick(to).ok_or_else(|| {
            refusal(request, Code::Unknown, "there is no such account".to_string())
        })?;
        let body = Body::Direct(Direct { nick, to, to_nick, text });
        Ok((RoomId::direct(account, to), body))
    }

    fn append_message(
        &mut self,
        now: Now,
        id: SessionId,
        send: &Send,
        room: RoomId,
        body: &Body,
    ) -> Result<(), Item> {
        let request = send.request;
        let horizon = self.clock.told_ms(now).saturating_add(self.config.timing.max_skew_ms);
        if send.mid.unix_ms() > horizon {
            let why = "the message id's time is in the future: make it from the server's clock";
            return Err(refusal(request, Code::BadMid, why));
        }
        if self.sessions.acks.count >= WAITING_MAX {
            return Err(busy(request, "too many messages wait for other servers", 1000));
        }
        let room_rate = self.config.limits.room_rate;
        let Some(session) = self.sessions.all.get_mut(&id) else { return Ok(()) };
        let (account, seen) = (session.account, session.seen);
        session.rate.take(now.time).map_err(|ms| busy(request, "you send too fast", ms))?;
        self.sessions.trim_rates(now);
        let rate = self.sessions.room_rates.entry(room).or_insert(Bucket::new(room_rate));
        rate.take(now.time).map_err(|ms| busy(request, "too much is said in this room", ms))?;
        if let Target::Room(name) = &send.to {
            self.create_room(now, id, room, name);
        }
        let key = self.append(now, seen, (room, account, send.mid), body);
        let identity = Identity { room, account, mid: send.mid };
        self.sessions.mids.note(identity, Known { key, content: content(body) });
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.barrier = key.seq;
        }
        self.wait_for(now, id, send, room, key);
        Ok(())
    }

    /// The room's first event, if nobody made it yet.
    pub(super) fn create_room(&mut self, now: Now, id: SessionId, room: RoomId, name: &str) {
        if self.rooms.name(room).is_some() || !self.sessions.creating.insert(room) {
            return;
        }
        let Some(session) = self.sessions.all.get(&id) else { return };
        let (account, seen) = (session.account, session.seen);
        let body = Body::RoomCreate(RoomCreate { name: name.to_string() });
        let mid = Mid::at(now.wall_ms, self.rng.bits128());
        let key = self.append(now, seen, (room, account, mid), &body);
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.barrier = key.seq;
        }
    }

    fn answer_known(
        &mut self,
        now: Now,
        id: SessionId,
        send: &Send,
        room: RoomId,
        body: &Body,
        known: Known,
    ) -> Result<(), Item> {
        if known.content != content(body) {
            let why = "another message was sent under this id";
            return Err(refusal(send.request, Code::Conflict, why));
        }
        self.wait_for(now, id, send, room, known.key);
        let event = known.key.event();
        if self.broadcast.durable().covers(event) {
            self.answer_stored(event);
        }
        Ok(())
    }

    fn wait_for(&mut self, now: Now, id: SessionId, send: &Send, room: RoomId, key: Key) {
        let waiter = Waiter {
            session: id,
            request: send.request,
            mid: send.mid,
            room,
            key,
            answer_at: Some(send.level),
            late: false,
        };
        self.sessions.acks.wait(key.event(), waiter, now.time + self.config.timing.ack_timeout);
    }

    /// Answers whoever waited for what is safe by now.
    pub(crate) fn check_acks(&mut self, now: Now) {
        if self.sessions.acks.is_idle() {
            self.sessions.acks.deadlines.clear();
            return;
        }
        let logs: Vec<Log> = self.sessions.acks.logs.keys().copied().collect();
        for log in logs {
            self.answer_replicated(log);
            let durable = self.broadcast.durable().upto(log);
            let Some(acks) = self.sessions.acks.logs.get_mut(&log) else { continue };
            let from = std::mem::replace(&mut acks.stored, durable) + 1;
            let fresh: Vec<u64> = acks.waiting.range(from..).map(|(seq, _)| *seq).collect();
            for seq in fresh.into_iter().take_while(|seq| *seq <= durable) {
                self.answer_stored(EventId { log, seq });
            }
        }
        for event in self.sessions.acks.expire(now.time) {
            if self.broadcast.durable().covers(event) {
                self.answer_stored(event);
            }
        }
        self.sessions.acks.logs.retain(|_, acks| !acks.waiting.is_empty());
    }

    /// Everything of a log that is on a majority of disks is answered for good.
    fn answer_replicated(&mut self, log: Log) {
        // Only what was shown here: an answer proves to its client all that came before it in the
        // log, so it must not overtake the lines that wait for a slow disk.
        let upto = self.broadcast.replicated_upto(log).min(self.broadcast.durable().upto(log));
        let Some(acks) = self.sessions.acks.logs.get_mut(&log) else { return };
        let rest = acks.waiting.split_off(&upto.saturating_add(1));
        let safe = std::mem::replace(&mut acks.waiting, rest);
        let mut notices: BTreeMap<SessionId, Vec<(Mid, u16)>> = BTreeMap::new();
        for (seq, waiters) in safe {
            self.sessions.acks.count -= waiters.len();
            let replicas = self.replicas(EventId { log, seq });
            for waiter in waiters {
                match waiter.answer_at {
                    Some(_) => self.answer_sent(&waiter, Level::Replicated, replicas),
                    None => {
                        notices.entry(waiter.session).or_default().push((waiter.mid, replicas));
                    }
                }
            }
        }
        for (session, mids) in notices {
            for mids in mids.chunks(NOTICES_MAX) {
                let mids = mids.to_vec();
                self.deliver_answer(vec![session], Item::Replicated(Replicated { mids }));
            }
        }
    }

    /// An event is on this disk: those who asked for no more, or waited too long, are answered.
    fn answer_stored(&mut self, event: EventId) {
        let replicas = self.replicas(event);
        let acks = self.sessions.acks.logs.get_mut(&event.log);
        let waiters = acks.and_then(|acks| acks.waiting.get_mut(&event.seq));
        let mut answers = Vec::new();
        for waiter in waiters.into_iter().flatten() {
            if waiter.late || waiter.answer_at == Some(Level::Stored) {
                if waiter.answer_at.is_some() {
                    answers.push(*waiter);
                }
                waiter.answer_at = None;
            }
        }
        for waiter in answers {
            self.answer_sent(&waiter, Level::Stored, replicas);
        }
    }

    fn answer_sent(&mut self, waiter: &Waiter, level: Level, replicas: u16) {
        let Waiter { session, request, mid, room, key, .. } = *waiter;
        let sent = Sent { request, mid, room, key, level, replicas };
        self.deliver_answer(vec![session], Item::Sent(sent));
    }

    fn replicas(&self, event: EventId) -> u16 {
        u16::try_from(self.broadcast.replicas(event)).unwrap_or(u16::MAX)
    }

    /// Queues a read for a session; it takes no other request until the answer is there.
    pub(super) fn read(&mut self, id: SessionId, why: Reading, query: Query) {
        let token = self.sessions.next_read(id);
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.reading = Some((token, why));
        }
        self.say(Output::Read(token, query));
    }
}

impl Sessions {
    /// Forgets the waits of a session that is gone.
    pub(super) fn forget_waits(&mut self, id: SessionId) {
        let acks = &mut self.acks;
        for log in acks.logs.values_mut() {
            for waiters in log.waiting.values_mut() {
                let before = waiters.len();
                waiters.retain(|waiter| waiter.session != id);
                acks.count -= before - waiters.len();
            }
            log.waiting.retain(|_, waiters| !waiters.is_empty());
        }
        acks.logs.retain(|_, log| !log.waiting.is_empty());
    }

    fn trim_rates(&mut self, now: Now) {
        if self.room_rates.len() >= ROOM_RATES_MAX {
            self.room_rates.retain(|_, bucket| !bucket.is_full(now.time));
        }
    }
}

/// Eight bytes over what a message says, without the names that may change between retries.
fn content(body: &Body) -> u64 {
    let text = match body {
        Body::Msg(msg) => &msg.text,
        Body::Direct(direct) => &direct.text,
        _ => return 0,
    };
    crate::event::first_eight(&blake3::hash(text.as_bytes()))
}

/// What the store's events are remembered by.
pub(super) fn known_of(line: &Line) -> Option<(Identity, Known)> {
    let identity = line.identity()?;
    let content = line.event.body().map_or(0, |body| content(&body));
    Some((identity, Known { key: line.key(), content }))
}

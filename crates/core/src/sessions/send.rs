//! Messages: accepted once whatever happens to the connection, answered when they are safe.
//!
//! Message identity is (room, account, mid). A known identity is answered with that message's
//! state and appends nothing; a second event of it can only come from another server that did not
//! know the first yet, and the store makes it an alias.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rate::{Bucket, NEW_CONVERSATION, NEW_ROOM};
use super::recent::{Known, Recall};
use super::requests::Reading;
use super::waits::Waiter;
use super::{BUSY_MS, ROOM_RATES_MAX, Sessions, busy, refusal};
use crate::bugs::bug;
use crate::event::{Body, Direct, Identity, Msg, RoomCreate};
use crate::id::{AccountId, EventId, Log, Mid, RequestId, RoomId, SessionId};
use crate::io::Output;
use crate::replica::Replica;
use crate::session::{
    Code, Item, Level, Line, Replicated, Send, Sent, Target, check_room, check_text,
};
use crate::store::{Query, is_below_floor};
use crate::time::{Key, Now};

/// A message refused as busy is waited for so long after the time it was told to come again.
const AWAITED: Duration = Duration::from_secs(3);

/// Message ids in one notice, at most.
const NOTICES_MAX: usize = 4096;

impl Replica {
    /// A message. The checks come first; nothing is changed by a refused one.
    pub(super) fn send_request(&mut self, now: Now, id: SessionId, send: Send) {
        match self.accept(now, id, &send) {
            Ok(()) => {}
            Err(item) => self.refuse_message(now, id, send.mid, item),
        }
    }

    /// A message that is to be sent again later keeps its place: those behind it that are under
    /// way already are refused as well, until it comes or its sender must have given it up.
    pub(super) fn refuse_message(&mut self, now: Now, id: SessionId, mid: Mid, item: Item) {
        if let (Item::Refused(refused), Some(session)) = (&item, self.sessions.all.get_mut(&id))
            && refused.code == Code::Busy
            && session.awaited.is_none_or(|(first, until)| mid <= first || until <= now.time)
        {
            let wait = Duration::from_millis(refused.retry_ms.into());
            session.awaited = Some((mid, now.time + wait + AWAITED));
        }
        self.answer(id, item);
    }

    fn accept(&mut self, now: Now, id: SessionId, send: &Send) -> Result<(), Item> {
        let request = send.request;
        let invalid = |why: String| refusal(request, Code::Invalid, why);
        check_text(&send.text).map_err(invalid)?;
        self.check_writable(request)?;
        if self.sessions.acks.is_full() {
            return Err(busy(request, "too many messages wait for other servers", 1000));
        }
        let Some(session) = self.sessions.all.get(&id) else { return Ok(()) };
        let account = session.account;
        let (room, body) = self.address(account, send)?;
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
        let found = found.map(|line| {
            let content = line.event.body().map_or(0, |body| content(&body));
            Known { key: line.key(), content }
        });
        let result = self.address(account, send).and_then(|(room, body)| {
            // While the disk was read another session of the account may have sent it.
            let identity = Identity { room, account, mid: send.mid };
            let known = found.or_else(|| match self.sessions.mids.recall(&identity) {
                Recall::Known(known) => Some(known),
                Recall::New | Recall::TooOld => None,
            });
            match known {
                Some(known) => self.answer_known(now, id, send, room, &body, known),
                None => {
                    // Nor need the disk and the clock be what they were.
                    self.check_writable(send.request)?;
                    self.append_message(now, id, send, room, &body)
                }
            }
        });
        if let Err(item) = result {
            self.refuse_message(now, id, send.mid, item);
        }
    }

    /// Whether writes are taken at all.
    pub(super) fn check_writable(&self, request: RequestId) -> Result<(), Item> {
        if self.clock.is_fenced() {
            let why = "this server's clock is off, it takes no writes; another server does";
            return Err(refusal(request, Code::ClockSkew, why));
        }
        if self.broadcast.runs_twice() {
            let why = "this server runs twice (its machine was cloned), it takes no writes; another \
                       server does";
            return Err(refusal(request, Code::NotReady, why));
        }
        if let Some(why) = self.refuses_writes() {
            let why = format!("the disk of this server takes no writes ({why}); another one does");
            return Err(refusal(request, Code::Storage, why));
        }
        if self.broadcast.is_full() {
            return Err(busy(request, "the disk is behind", BUSY_MS));
        }
        Ok(())
    }

    /// A message of an id below the room's floor would be gone at once, and may have been there.
    fn check_kept(&self, request: RequestId, room: RoomId, mid: Mid) -> Result<(), Item> {
        if !is_below_floor(mid, self.rooms.floor_ms(room)) || bug!(FloorOnStamp) {
            return Ok(()); // a stamp of now is above every floor
        }
        let why = "the message is older than what this room keeps";
        Err(refusal(request, Code::Expired, why))
    }

    /// Where a message goes, and its body.
    fn address(&self, account: AccountId, send: &Send) -> Result<(RoomId, Body), Item> {
        let request = send.request;
        let nick = self.name_of(account);
        let text = send.text.clone();
        let to = match &send.to {
            Target::Room(name) => {
                check_room(name).map_err(|why| refusal(request, Code::Invalid, why))?;
                let room = RoomId::public(name);
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

    /// Whoever was put out of a room says nothing new there. What he said before stands, also when he
    /// says it again.
    fn check_in(
        &self,
        id: SessionId,
        request: RequestId,
        room: RoomId,
        name: &str,
    ) -> Result<(), Item> {
        let account = self.sessions.all.get(&id).map(|session| session.account);
        let out = account.and_then(|account| self.put_out(room, account));
        let Some((by, reason)) = out else { return Ok(()) };
        let why = format!("{by} put you out of {name} ({reason}); join it again first");
        Err(refusal(request, Code::Kicked, why))
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
        if let Target::Room(name) = &send.to {
            self.check_in(id, request, room, name)?;
            self.check_found(id, room, name).map_err(|(code, why)| refusal(request, code, why))?;
        }
        let begins = matches!(body, Body::Direct(_)) && !self.rooms.has_direct(room);
        if begins {
            self.check_begun(id, request, room)?;
            self.owe(now, id, NEW_CONVERSATION);
        }
        let room_rate = self.config.limits.room_rate;
        let Some(session) = self.sessions.all.get(&id) else { return Ok(()) };
        let (account, seen) = (session.account, session.seen);
        if let Some((first, until)) = session.awaited
            && first < send.mid
            && now.time < until
        {
            let wait = until.since(now.time).saturating_sub(AWAITED);
            let wait = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
            return Err(busy(request, "an earlier message of yours comes first", wait));
        }
        self.sessions.trim_rates(now);
        let rate = self.sessions.room_rates.entry(room).or_insert(Bucket::new(room_rate));
        rate.take(now.time, 1).map_err(|ms| busy(request, "too much is said in this room", ms))?;
        if let Target::Room(name) = &send.to {
            self.create_room(now, id, request, room, name)?;
        }
        let key = self
            .append(now, seen, (room, account, send.mid), body)
            .map_err(|why| refusal(request, Code::Invalid, why))?;
        if begins {
            self.sessions.begun.entry(account).or_default().insert(room);
        }
        let identity = Identity { room, account, mid: send.mid };
        self.sessions.mids.note(identity, Known { key, content: content(body) });
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.barrier = key.seq;
            session.awaited.take_if(|(first, _)| *first == send.mid);
        }
        self.wait_for(now, id, send, room, key);
        Ok(())
    }

    /// Whether the room is there, or may be made by this session.
    pub(super) fn check_found(
        &self,
        id: SessionId,
        room: RoomId,
        name: &str,
    ) -> Result<(), (Code, String)> {
        let creating = &self.sessions.creating;
        if self.rooms.name(room).is_some() || creating.contains(&room) {
            return Ok(());
        }
        let limits = &self.config.limits;
        if self.rooms.count() + creating.len() >= limits.rooms {
            let most = limits.rooms;
            let why = format!("{name} is not made: there are {most} rooms, as many as may be");
            return Err((Code::Forbidden, why));
        }
        let founded = self.sessions.all.get(&id).map_or(0, |s| self.rooms.founded(s.account));
        if founded >= limits.rooms_founded {
            let why = format!("{name} is not made: you made {founded} rooms, as many as one may");
            return Err((Code::Forbidden, why));
        }
        Ok(())
    }

    /// Whether this session may begin a conversation. In all only those on the disk count, so that a
    /// few more may pass, begun in the same milliseconds. Against the account only those that it began
    /// count: nobody is kept from beginning one by those who write to him.
    fn check_begun(&self, id: SessionId, request: RequestId, room: RoomId) -> Result<(), Item> {
        let limits = &self.config.limits;
        let forbidden = |why: String| Err(refusal(request, Code::Forbidden, why));
        let most = limits.conversations;
        if self.rooms.conversations() >= most {
            return forbidden(format!("there are {most} conversations, as many as may be"));
        }
        let most = limits.conversations_each;
        let account = self.sessions.all.get(&id).map(|session| session.account);
        let begun = account.and_then(|account| self.sessions.begun.get(&account));
        if begun.is_some_and(|begun| begun.len() >= most && !begun.contains(&room)) {
            let why = format!("you began {most} conversations here; you may begin no other");
            return forbidden(why);
        }
        Ok(())
    }

    /// The room's first event, if nobody made it yet.
    pub(super) fn create_room(
        &mut self,
        now: Now,
        id: SessionId,
        request: RequestId,
        room: RoomId,
        name: &str,
    ) -> Result<(), Item> {
        if self.rooms.name(room).is_some() || self.sessions.creating.contains(&room) {
            return Ok(());
        }
        self.owe(now, id, NEW_ROOM);
        let Some(session) = self.sessions.all.get(&id) else { return Ok(()) };
        let (account, seen) = (session.account, session.seen);
        let body = Body::RoomCreate(RoomCreate { name: name.to_string() });
        let mid = Mid::at(now.wall_ms, self.rng.bits128());
        let key = self
            .append(now, seen, (room, account, mid), &body)
            .map_err(|why| refusal(request, Code::Invalid, why))?;
        self.sessions.creating.insert(room);
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.barrier = key.seq;
        }
        Ok(())
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
            deadline: now.time + self.config.timing.ack_timeout,
        };
        self.sessions.acks.wait(key.event(), waiter);
    }

    /// Answers whoever waited for what is safe by now.
    pub(crate) fn check_acks(&mut self, now: Now) {
        for log in self.sessions.acks.logs() {
            self.answer_replicated(log);
            let durable = self.broadcast.durable().upto(log);
            for seq in self.sessions.acks.stored(log, durable) {
                self.answer_stored(EventId { log, seq });
            }
        }
        for event in self.sessions.acks.expire(now.time) {
            if self.broadcast.durable().covers(event) {
                self.answer_stored(event);
            }
        }
    }

    /// Everything of a log that is on a majority of disks is answered for good.
    fn answer_replicated(&mut self, log: Log) {
        // Only what was shown here: an answer proves to its client all that came before it in the
        // log, so it must not overtake the lines that wait for a slow disk.
        let upto = self.broadcast.replicated_upto(log).min(self.broadcast.durable().upto(log));
        let mut notices: BTreeMap<SessionId, Vec<(Mid, u16)>> = BTreeMap::new();
        for (seq, waiters) in self.sessions.acks.replicated(log, upto) {
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
                self.deliver_proof(session, Item::Replicated(Replicated { mids }));
            }
        }
    }

    /// An event is on this disk: those who asked for no more, or waited too long, are answered.
    fn answer_stored(&mut self, event: EventId) {
        let replicas = self.replicas(event);
        for waiter in self.sessions.acks.content_with_stored(event) {
            self.answer_sent(&waiter, Level::Stored, replicas);
        }
    }

    fn answer_sent(&mut self, waiter: &Waiter, level: Level, replicas: u16) {
        let Waiter { session, request, mid, room, key, .. } = *waiter;
        let account = self.sessions.all.get(&session).map(|session| session.account);
        let to = account.and_then(|account| self.rooms.direct_with(room, account));
        let sent = Sent { request, mid, room, key, level, replicas, to };
        self.deliver_proof(session, Item::Sent(sent));
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

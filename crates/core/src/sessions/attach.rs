//! Coming, coming back, going.
//!
//! An attach goes through stages: what the client saw elsewhere is fetched (or called stale after
//! a while), the name it asks for is written, it is welcomed, what it missed is read and shown,
//! then it is live. Nothing it asks meanwhile is carried out before.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::deliver::RoomLine;
use super::requests::Reading;
use super::send::Bucket;
use super::{Phase, Session, View, refusal};
use crate::event::{Body, Nick};
use crate::id::{AccountId, Mid, Origin, RequestId, RoomId, SessionId};
use crate::io::{Output, Severity};
use crate::register::Membership;
use crate::replica::Replica;
use crate::session::{
    Attach, CLIENT_MINOR, ClosedWhy, Code, Direct, Gap, Item, Opened, OpenedRoom, ROOMS_OPEN_MAX,
    RoomClosed, ServerState, TokenBytes, Welcome, check_nick, check_room,
};
use crate::store::{Query, Rows};
use crate::time::{Hlc, Key, Now, Time};
use crate::token::Token;
use crate::vector::Vector;

/// An attach under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attaching {
    attach: Attach,
    /// What must be here first: what the client saw elsewhere.
    need: Vector,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// Waiting for what it saw, until then.
    Fetching(Time),
    /// Waiting for its name to be durable.
    Naming,
    /// Reading what it missed up to a vector; lines shown from the place on follow.
    Reading(u64, Arc<Vector>),
}

impl Attaching {
    pub(super) fn deadline(&self) -> Option<Time> {
        match self.stage {
            Stage::Fetching(until) => Some(until),
            Stage::Naming | Stage::Reading(..) => None,
        }
    }
}

const SESSION: RequestId = RequestId(0);

impl Replica {
    pub(crate) fn on_session_up(&mut self, id: SessionId) {
        let rate = Bucket::new(self.config.limits.session_rate);
        self.sessions.all.insert(id, Session::new(rate));
    }

    /// The first request.
    pub(super) fn attach(&mut self, now: Now, id: SessionId, attach: Attach) {
        match self.admit(now, &attach) {
            Ok((account, seen, need)) => {
                let until = now.time + self.config.timing.attach_wait;
                let Some(session) = self.sessions.all.get_mut(&id) else { return };
                session.account = account;
                session.seen = seen;
                session.direct = attach.direct == Direct::Take;
                let stage = Stage::Fetching(until);
                session.phase = Phase::Attaching(Box::new(Attaching { attach, need, stage }));
                self.sessions.of.entry(account).or_default().insert(id);
                self.sessions.blocked.insert(id);
                self.presence.enter(account, None);
                self.advance(now, id);
            }
            Err(item) => self.turn_away(id, item),
        }
    }

    /// Tells a session why it cannot stay, and ends it.
    pub(super) fn turn_away(&mut self, id: SessionId, item: Item) {
        self.deliver_answer(vec![id], item);
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.phase = Phase::Closing;
        }
        self.say(Output::CloseSession(id));
    }

    fn admit(&mut self, now: Now, attach: &Attach) -> Result<(AccountId, Hlc, Vector), Item> {
        match self.state() {
            ServerState::Ready | ServerState::Fenced => {}
            ServerState::CatchingUp => {
                let why = "this server is still catching up; attach to another one";
                return Err(refusal(SESSION, Code::NotReady, why));
            }
            ServerState::Stopping => {
                let why = "this server is stopping; attach to another one";
                return Err(refusal(SESSION, Code::NotReady, why));
            }
        }
        if self.sessions.len() > self.config.limits.sessions {
            return Err(super::busy(SESSION, "too many clients are attached here", 1000));
        }
        if attach.rooms.len() > ROOMS_OPEN_MAX {
            let why = format!("a session has at most {ROOMS_OPEN_MAX} rooms open");
            return Err(refusal(SESSION, Code::Invalid, why));
        }
        let invalid = |why| refusal(SESSION, Code::Invalid, why);
        attach.nick.as_deref().map_or(Ok(()), check_nick).map_err(invalid)?;
        attach.rooms.iter().try_for_each(|r| check_room(&r.room)).map_err(invalid)?;
        if attach.token.is_empty() {
            if self.clock.is_fenced() {
                return Err(refusal(SESSION, Code::ClockSkew, "this server's clock is off"));
            }
            let account = AccountId::at(now.wall_ms, self.rng.bits128());
            return Ok((account, Hlc::default(), attach.cursor.clone()));
        }
        let config = &self.config;
        let Some(token) = Token::open(&attach.token, &config.token_key, config.me.cluster) else {
            let why = "the account's token is not of this cluster; remove the identity file or \
                       choose another";
            return Err(refusal(SESSION, Code::BadToken, why));
        };
        let mut need = token.vector;
        need.join(&attach.cursor);
        Ok((token.account, token.hlc, need))
    }

    /// Takes an attach as far as it goes now.
    pub(super) fn advance(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.all.get(&id) else { return };
        let Phase::Attaching(attaching) = &session.phase else { return };
        match &attaching.stage {
            Stage::Fetching(until) => {
                let durable = self.broadcast.durable();
                let here = durable.covers_all(&attaching.need);
                // With all servers linked, what none of them claims is not worth waiting for.
                let hopeless = self.unreachable().is_empty()
                    && self.broadcast.links_told() == self.links.len()
                    && durable.covers_all(&self.broadcast.claimed());
                if here || hopeless || *until <= now.time {
                    self.name_session(now, id);
                }
            }
            Stage::Naming => {
                if self.broadcast.durable().upto(self.own_log()) >= session.barrier {
                    self.welcome(now, id);
                }
            }
            Stage::Reading(..) => {}
        }
    }

    /// Writes the name it asks for, if it is another than the account's.
    fn name_session(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.all.get_mut(&id) else { return };
        let Phase::Attaching(attaching) = &mut session.phase else { return };
        attaching.stage = Stage::Naming;
        let (account, seen) = (session.account, session.seen);
        let held = self.rooms.wanted_nick(account);
        let wanted = match &attaching.attach.nick {
            Some(nick) => Some(nick.clone()),
            None if held.is_none() => Some(format!("guest-{}", self.rng.below(1_000_000))),
            None => None,
        };
        if let Some(nick) = wanted.filter(|nick| held != Some(nick))
            && !self.clock.is_fenced()
        {
            let before = self.rooms.nick(account).unwrap_or_default();
            let mid = Mid::at(now.wall_ms, self.rng.bits128());
            let body = Body::Nick(Nick { nick, before });
            let key = self.append(now, seen, (RoomId::new(0), account, mid), &body);
            if let Some(session) = self.sessions.all.get_mut(&id) {
                session.barrier = key.seq;
            }
        }
        self.advance(now, id);
    }

    fn welcome(&mut self, now: Now, id: SessionId) {
        let place = self.sessions.recent.end();
        let durable = self.broadcast.durable().clone();
        let Some(session) = self.sessions.all.get_mut(&id) else { return };
        let Phase::Attaching(attaching) = &mut session.phase else { return };
        attaching.stage = Stage::Reading(place, durable.clone());
        let Attaching { attach, need, .. } = (**attaching).clone();
        let account = session.account;
        let mut rooms = Vec::new();
        let mut closed = Vec::new();
        for Opened { room: name, since } in &attach.rooms {
            let room = RoomId::public(name);
            if let Some((key, Membership::Kicked { by, reason })) =
                self.rooms.membership(room, account)
                && key.hlc > *since
            {
                let why = ClosedWhy::Kicked { by: by.clone(), reason: reason.clone() };
                closed.push(RoomClosed { room, name: name.clone(), why });
                continue;
            }
            rooms.push(self.opened_room(room, name, *since));
        }
        for room in &rooms {
            let view = View { name: room.name.clone(), since: room.since, newest: Key::MIN };
            self.sessions.open(id, room.id, view);
            self.presence.enter(account, Some(room.id));
        }
        let nick = self.name_of(account);
        let stale: Vec<(Origin, u64)> = need
            .iter()
            .map(|(log, upto)| (log.origin, upto.saturating_sub(durable.upto(log))))
            .filter(|(_, missing)| *missing > 0)
            .collect();
        let welcome = Welcome {
            minor: CLIENT_MINOR,
            cluster: self.config.me.cluster,
            server: self.config.me.slot.clone(),
            origin: self.config.me.origin,
            servers: self.config.servers.clone(),
            account,
            nick: nick.clone(),
            clock_ms: self.clock.told_ms(now),
            token: self.seal(account),
            closed,
            rooms,
            stale,
        };
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.nick = nick;
            // The token's vector is told with the first lines.
            session.told = Vector::new();
        }
        self.deliver_answer(vec![id], Item::Welcome(welcome));
        self.read_missed(now, id, account, &attach, place);
    }

    /// What a client missed: from memory if all of it is there, else from the disk.
    fn read_missed(
        &mut self,
        now: Now,
        id: SessionId,
        account: AccountId,
        attach: &Attach,
        place: u64,
    ) {
        let within = self.broadcast.durable().clone();
        let takes_direct = attach.direct == Direct::Take;
        if attach.cursor.is_empty() {
            let rooms: Vec<_> = self
                .rooms
                .directs(account)
                .map(|room| (room, self.rooms.seen(room, account)))
                .collect();
            if !takes_direct || rooms.is_empty() {
                self.go_live(now, id, &attach.cursor, place);
                return;
            }
            let limit = self.config.limits.waiting_lines;
            self.read(id, Reading::Missed, Query::Waiting { account, rooms, within, limit });
            return;
        }
        if let Some(from) = self.sessions.recent.since(&attach.cursor) {
            self.go_live(now, id, &attach.cursor, from);
            return;
        }
        self.read_since(id, attach.cursor.clone(), within);
    }

    fn read_since(&mut self, id: SessionId, cursor: Vector, within: Arc<Vector>) {
        let rooms = self.shown_rooms(id);
        let scan_max = self.config.limits.since_scan;
        self.read(id, Reading::Missed, Query::Since { cursor, within, rooms, scan_max });
    }

    /// The rooms a session is shown, direct messages included.
    fn shown_rooms(&self, id: SessionId) -> BTreeSet<RoomId> {
        let Some(session) = self.sessions.all.get(&id) else { return BTreeSet::new() };
        let mut rooms: BTreeSet<RoomId> = session.rooms.keys().copied().collect();
        if session.direct {
            rooms.extend(self.rooms.directs(session.account));
        }
        rooms
    }

    /// The disk told what a client missed.
    pub(super) fn missed_read(&mut self, now: Now, id: SessionId, rows: Rows) {
        let Some(session) = self.sessions.all.get(&id) else { return };
        let Phase::Attaching(attaching) = &session.phase else { return };
        let Stage::Reading(place, _) = attaching.stage else { return };
        let cursor = attaching.attach.cursor.clone();
        match rows {
            Rows::Since(lines) | Rows::Waiting(lines) => {
                for line in lines {
                    self.show_to(now, id, &RoomLine::of(line));
                }
            }
            Rows::TooFar(since) => self.tell_gaps(id, since),
            Rows::Failed(why) => {
                self.log(Severity::Error, format!("could not read what a client missed: {why}"));
                self.tell_gaps(id, Key::MIN);
            }
            Rows::Events(_) | Rows::Page(..) | Rows::Message(_) => {}
        }
        self.go_live(now, id, &cursor, place);
    }

    fn tell_gaps(&mut self, id: SessionId, since: Key) {
        for room in self.shown_rooms(id) {
            self.deliver_answer(vec![id], Item::Gap(Gap { room, since }));
        }
    }

    /// Shows what happened since `place` and is not covered by the cursor, then everything. If more
    /// happened than is kept in memory, the disk is read again, from where the last read ended.
    fn go_live(&mut self, now: Now, id: SessionId, cursor: &Vector, place: u64) {
        if !self.show_from(now, id, place, cursor) {
            let place = self.sessions.recent.end();
            let within = self.broadcast.durable().clone();
            let Some(session) = self.sessions.all.get_mut(&id) else { return };
            let Phase::Attaching(attaching) = &mut session.phase else { return };
            let next = Stage::Reading(place, within.clone());
            if let Stage::Reading(_, read) = std::mem::replace(&mut attaching.stage, next) {
                let mut read = (*read).clone();
                read.join(cursor);
                self.read_since(id, read, within);
            }
            return;
        }
        if let Some(session) = self.sessions.all.get_mut(&id)
            && matches!(session.phase, Phase::Attaching(_))
        {
            session.phase = Phase::Live;
        }
        self.give_token(id);
        self.pump(now, id);
    }

    /// A client's connection is gone. Unless it said goodbye it shows as present for the grace.
    pub(crate) fn on_session_down(&mut self, now: Now, id: SessionId) {
        let linger = now.time + self.config.timing.grace;
        self.end_session(id, Some(linger));
        self.sessions.all.remove(&id);
    }

    /// Takes a session out of everything; its queue remains until the connection is closed.
    pub(super) fn end_session(&mut self, id: SessionId, linger: Option<Time>) {
        let Some(session) = self.sessions.all.get(&id) else { return };
        let account = session.account;
        let rooms: Vec<RoomId> = session.rooms.keys().copied().collect();
        for room in rooms {
            self.sessions.close(id, room);
            self.presence.leave(account, Some(room), linger);
        }
        let known = self.sessions.of.get_mut(&account).is_some_and(|ids| ids.remove(&id));
        if known {
            self.presence.leave(account, None, linger);
            self.sessions.of.retain(|_, ids| !ids.is_empty());
        }
        self.sessions.blocked.remove(&id);
        self.sessions.reads.retain(|_, of| *of != id);
        self.sessions.forget_waits(id);
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.phase = Phase::Closing;
            session.reading = None;
            session.inbox.clear();
            session.answers.clear();
        }
    }

    pub(super) fn opened_room(&self, room: RoomId, name: &str, since: Hlc) -> OpenedRoom {
        OpenedRoom {
            id: room,
            name: self.rooms.name(room).unwrap_or(name).to_string(),
            since,
            topic: self.rooms.topic(room).to_string(),
        }
    }

    fn seal(&self, account: AccountId) -> Vec<u8> {
        let config = &self.config;
        let slots: Vec<_> = config.servers.iter().map(|server| server.name.clone()).collect();
        let vector = self.broadcast.not_everywhere(&slots);
        Token { cluster: config.me.cluster, account, vector, hlc: self.clock.last() }
            .seal(&config.token_key)
    }

    /// A newer token, if it covers more than the last.
    pub(super) fn give_token(&mut self, id: SessionId) {
        let durable = self.broadcast.durable();
        let Some(session) = self.sessions.all.get(&id) else { return };
        if !session.is_live() || !session.gapped.is_empty() || session.told == **durable {
            return;
        }
        let vector: Vector =
            durable.iter().filter(|(log, upto)| session.told.upto(*log) != *upto).collect();
        let told = (**durable).clone();
        let token = self.seal(session.account);
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.told = told;
        }
        self.deliver_answer(vec![id], Item::Token(TokenBytes { token, vector }));
    }

    pub(crate) fn sessions_timeout(&mut self, now: Now) {
        let blocked: Vec<SessionId> = self.sessions.blocked.iter().copied().collect();
        for id in blocked {
            self.advance(now, id);
        }
        if self.sessions.token_at <= now.time {
            self.sessions.token_at = now.time + self.config.timing.token_period;
            let all: Vec<SessionId> = self.sessions.ids().collect();
            for id in all {
                self.give_token(id);
            }
        }
        self.check_acks(now);
    }
}

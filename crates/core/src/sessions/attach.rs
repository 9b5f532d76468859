//! Coming, coming back, going.
//!
//! An attach goes through stages: what the client saw elsewhere is fetched (or called stale after
//! a while), the name it asks for is written, it is welcomed, what it missed is read and shown,
//! then it is live. Nothing it asks meanwhile is carried out before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::deliver::RoomLine;
use super::rate::Bucket;
use super::requests::Reading;
use super::{Phase, Session, View, refusal};
use crate::event::{Body, Nick};
use crate::id::{AccountId, Mid, Origin, RequestId, RoomId, SessionId};
use crate::io::{Output, Severity};
use crate::register::{Membership, RegisterKey};
use crate::replica::Replica;
use crate::session::{
    Attach, CLIENT_MINOR, ClosedWhy, Code, Direct, Item, Line, Opened, OpenedRoom, ROOMS_OPEN_MAX,
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
    whose: Whose,
    /// What must be here first: what the client saw elsewhere.
    need: Vector,
    stage: Stage,
}

/// Whether the account was made for this attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Whose {
    Made,
    Known,
}

/// Logs that a cursor may name and this server has never heard of: runs of servers that began while
/// it was away. What a cursor says of more is not taken, and the client shown the lines again.
const UNKNOWN_LOGS_MAX: usize = 1024;

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

/// A session without an account is ended when it has asked nothing for so long.
const STRANGER_LIMIT: Duration = Duration::from_secs(10);

impl Replica {
    pub(crate) fn on_session_up(&mut self, now: Now, id: SessionId) {
        let rate = Bucket::new(self.config.limits.session_rate);
        self.sessions.all.insert(id, Session::new(rate, now.time));
        self.sessions.strangers.insert((now.time + STRANGER_LIMIT, id));
    }

    /// Whoever has not said who he is and asks nothing holds a place that others want.
    fn end_strangers(&mut self, now: Now) {
        while let Some((at, id)) = self.sessions.strangers.first().copied()
            && at <= now.time
        {
            self.sessions.strangers.pop_first();
            let Some(session) = self.sessions.all.get(&id) else { continue };
            if session.phase != Phase::New {
                continue;
            }
            let until = session.asked + STRANGER_LIMIT;
            if self.is_verifying(id) {
                self.sessions.strangers.insert((now.time + STRANGER_LIMIT, id));
            } else if until > now.time {
                self.sessions.strangers.insert((until, id));
            } else {
                let why = "a client attaches, or asks something, within 10 seconds";
                self.turn_away(id, refusal(SESSION, Code::Protocol, why));
            }
        }
    }

    /// The first request.
    pub(super) fn attach(&mut self, now: Now, id: SessionId, mut attach: Attach) {
        let whose = if attach.token.is_empty() { Whose::Made } else { Whose::Known };
        match self.admit(now, &mut attach) {
            Ok((account, seen, need)) => {
                attach.token = Vec::new();
                let until = now.time + self.config.timing.attach_wait;
                let Some(session) = self.sessions.all.get_mut(&id) else { return };
                session.account = account;
                session.attached_at = now.time;
                session.seen = seen;
                session.direct = attach.direct == Direct::Take;
                let stage = Stage::Fetching(until);
                session.phase =
                    Phase::Attaching(Box::new(Attaching { attach, whose, need, stage }));
                let is_new = self.sessions.of.entry(account).or_default().insert(id);
                self.sessions.attached += usize::from(is_new);
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

    fn admit(&mut self, now: Now, attach: &mut Attach) -> Result<(AccountId, Hlc, Vector), Item> {
        match self.state() {
            ServerState::Ready | ServerState::Fenced | ServerState::ReadOnly => {}
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
        let last = self.clock.last();
        for opened in &mut attach.rooms {
            // A client repeats what it was told; more than that it cannot know.
            opened.since = opened.since.min(last);
        }
        attach.cursor = self.bounded(std::mem::take(&mut attach.cursor));
        if attach.token.is_empty() {
            self.check_writable(SESSION)?;
            if self.rooms.accounts() >= self.config.limits.accounts {
                let why = "there are as many accounts as this cluster takes; attach with the \
                           identity of one of them";
                return Err(refusal(SESSION, Code::Forbidden, why));
            }
            let guests = &mut self.sessions.guests;
            let too_fast = |ms| super::busy(SESSION, "too many new guests come at once", ms);
            guests.take(now.time, 1).map_err(too_fast)?;
            let account = AccountId::at(now.wall_ms, self.rng.bits128());
            return Ok((account, Hlc::default(), attach.cursor.clone()));
        }
        let config = &self.config;
        let Some(token) = Token::open(&attach.token, &config.token_key, config.me.cluster) else {
            let why = "the account's token is not of this cluster; remove the identity file or \
                       choose another";
            return Err(refusal(SESSION, Code::BadToken, why));
        };
        let mut need = self.bounded(token.vector);
        need.join(&attach.cursor);
        Ok((token.account, token.hlc, need))
    }

    /// What a client says it has seen, without most of what nobody here has heard of.
    fn bounded(&self, cursor: Vector) -> Vector {
        let mut unknown = 0;
        let mut fits = |log| {
            unknown += usize::from(!self.broadcast.knows(log));
            self.broadcast.knows(log) || unknown <= UNKNOWN_LOGS_MAX
        };
        cursor.iter().filter(|(log, _)| fits(*log)).collect()
    }

    /// Takes an attach as far as it goes now.
    pub(super) fn advance(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.all.get(&id) else { return };
        let Phase::Attaching(attaching) = &session.phase else { return };
        match &attaching.stage {
            Stage::Fetching(until) => {
                let durable = self.broadcast.durable();
                let here = durable.covers_all(&attaching.need);
                if here || *until <= now.time || self.has_all_there_is() {
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

    /// With all servers linked, what none of them claims is not worth waiting for.
    fn has_all_there_is(&self) -> bool {
        self.hears_all() && self.broadcast.durable().covers_all(&self.broadcast.claimed())
    }

    /// Whether all servers are linked and have said what they hold.
    pub(super) fn hears_all(&self) -> bool {
        self.broadcast.links_told() == self.links.len() && self.unreachable().is_empty()
    }

    /// Writes the name it asks for, if it is another than the account's.
    fn name_session(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.all.get_mut(&id) else { return };
        let Phase::Attaching(attaching) = &mut session.phase else { return };
        let whose = attaching.whose;
        attaching.stage = Stage::Naming;
        let (account, seen) = (session.account, session.seen);
        let held = self.rooms.wanted_nick(account);
        let wanted = match &attaching.attach.nick {
            Some(nick) => Some(nick.clone()),
            None if held.is_none() => Some(format!("guest-{}", self.rng.below(1_000_000))),
            None => None,
        };
        if let Some(nick) = wanted.filter(|nick| held != Some(nick)) {
            // An account that is known comes in by the name it has when nothing can be written.
            if let Err(item) = self.check_writable(SESSION) {
                match whose {
                    Whose::Made => {
                        self.turn_away(id, item);
                        self.end_session(id, None);
                    }
                    Whose::Known => self.advance(now, id),
                }
                return;
            }
            let Ok(seen) = self.stamp_floor(now, seen, RegisterKey::Nick(account)) else {
                return self.advance(now, id);
            };
            let before = self.rooms.nick(account).unwrap_or_default();
            let mid = Mid::at(now.wall_ms, self.rng.bits128());
            let body = Body::Nick(Nick { nick, before });
            // A name is short: it always fits.
            if let Ok(key) = self.append(now, seen, (RoomId::new(0), account, mid), &body)
                && let Some(session) = self.sessions.all.get_mut(&id)
            {
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
            if rooms.iter().any(|open: &OpenedRoom| open.id == room) {
                continue; // another spelling of a room that is named already
            }
            // Whoever was put out joins again first: no time that a client tells changes that.
            if let Some((_, Membership::Kicked { by, reason })) =
                self.rooms.membership(room, account)
            {
                let why = ClosedWhy::Kicked { by: by.clone(), reason: reason.clone() };
                closed.push(RoomClosed { room, name: name.clone(), why });
                continue;
            }
            rooms.push(self.opened_room(room, name, *since));
        }
        for room in &rooms {
            let view = View { name: room.name.clone(), since: room.since, newest: Key::MIN };
            self.enter_room(id, room.id, view);
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
            token: self.seal(account, self.not_everywhere()),
            closed,
            rooms,
            stale,
        };
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.nick = nick;
            // The token's vector is told with the first lines.
            session.told = Arc::default();
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
            let limits = &self.config.limits;
            let query = Query::Waiting {
                account,
                rooms,
                within,
                limit: limits.waiting_lines,
                bytes_max: limits.session_queue_bytes,
                scan_max: limits.waiting_scan,
            };
            self.read(id, Reading::Missed, query);
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
        let limits = &self.config.limits;
        let (scan_max, bytes_max) = (limits.since_scan, limits.session_queue_bytes);
        let query = Query::Since { cursor, within, rooms, scan_max, bytes_max };
        self.read(id, Reading::Missed, query);
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
            Rows::Since(lines) => self.show_all(now, id, lines),
            Rows::Waiting(lines, cut) => {
                self.show_all(now, id, lines);
                for (room, since) in cut {
                    self.tell_gap(id, room, since);
                }
            }
            Rows::TooFar(since) => self.tell_gaps(id, since),
            Rows::Failed(why) => {
                self.log(Severity::Error, format!("could not read what a client missed: {why}"));
                self.tell_gaps(id, Key::MIN);
            }
            Rows::Events(_)
            | Rows::Page(..)
            | Rows::Message(_)
            | Rows::Oldest(_)
            | Rows::Scrubbed(_) => {}
        }
        self.go_live(now, id, &cursor, place);
    }

    fn show_all(&mut self, now: Now, id: SessionId, lines: Vec<crate::session::Line>) {
        for line in lines {
            self.show_to(now, id, &RoomLine::of(line));
        }
    }

    /// Opens a room in a session, where its account is seen from then on.
    pub(super) fn enter_room(&mut self, id: SessionId, room: RoomId, view: View) {
        let Some(account) = self.sessions.all.get(&id).map(|session| session.account) else {
            return;
        };
        if self.sessions.open(id, room, view) {
            self.presence.enter(account, Some(room));
        }
    }

    fn tell_gaps(&mut self, id: SessionId, since: Key) {
        for room in self.shown_rooms(id) {
            self.tell_gap(id, room, since);
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
            let period = self.config.timing.token_period;
            self.sessions.token_later(id, now.time, period);
        }
        let unsafe_yet = self.not_everywhere();
        self.give_token(id, &unsafe_yet);
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
            self.sessions.attached -= 1;
            self.presence.leave(account, None, linger);
            if self.sessions.of.get(&account).is_some_and(BTreeSet::is_empty) {
                self.sessions.of.remove(&account);
            }
        }
        self.sessions.blocked.remove(&id);
        let reading = self.sessions.all.get(&id).and_then(|s| s.reading.as_ref());
        if let Some(token) = reading.map(|(token, _)| *token) {
            self.sessions.reads.remove(&token);
        }
        self.sessions.acks.forget(id);
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.forget_all();
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

    /// What this server holds and not every server is known to hold.
    fn not_everywhere(&self) -> Vector {
        let servers = self.config.servers.iter();
        let slots: Vec<_> = servers.map(|server| server.name.clone()).collect();
        self.broadcast.not_everywhere(&slots)
    }

    fn seal(&self, account: AccountId, vector: Vector) -> Vec<u8> {
        let config = &self.config;
        Token { cluster: config.me.cluster, account, vector, hlc: self.clock.last() }
            .seal(&config.token_key)
    }

    /// Whoever goes takes along what he wrote and saw here: he may come again at another server at
    /// once, which then fetches it, or says that it lacks it.
    pub(super) fn give_last_token(&mut self, id: SessionId) {
        let unsafe_yet = self.not_everywhere();
        self.give_token(id, &unsafe_yet);
    }

    /// Whoever reads lines that no token of his covers takes those along too.
    pub(super) fn cover(&mut self, id: SessionId, lines: &[Line]) {
        let Some(session) = self.sessions.all.get(&id) else { return };
        if lines.iter().any(|line| !session.told.covers(line.key().event())) {
            self.give_last_token(id);
        }
    }

    /// A newer token, if it covers more than the last.
    fn give_token(&mut self, id: SessionId, not_everywhere: &Vector) {
        let durable = self.broadcast.durable();
        let Some(session) = self.sessions.all.get(&id) else { return };
        let same = session.told == *durable;
        if !session.is_live() || !session.gapped.is_empty() || same {
            return;
        }
        let vector: Vector =
            durable.iter().filter(|(log, upto)| session.told.upto(*log) != *upto).collect();
        let told = durable.clone();
        let token = self.seal(session.account, not_everywhere.clone());
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
        self.end_strangers(now);
        self.give_tokens(now);
        self.check_acks(now);
    }

    /// Tokens to those whose time has come.
    fn give_tokens(&mut self, now: Now) {
        let mut not_everywhere = None;
        while let Some((at, id)) = self.sessions.tokens.first().copied()
            && at <= now.time
        {
            self.sessions.tokens.pop_first();
            if !self.sessions.all.get(&id).is_some_and(|session| session.is_live()) {
                continue; // gone since
            }
            let period = self.config.timing.token_period;
            self.sessions.token_later(id, now.time, period);
            let vector = not_everywhere.take().unwrap_or_else(|| self.not_everywhere());
            self.give_token(id, &vector);
            not_everywhere = Some(vector);
        }
    }
}

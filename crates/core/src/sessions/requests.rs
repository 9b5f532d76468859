//! Everything a client asks but messages.
//!
//! A request is judged once, here, against what is durable here; other servers do not judge it
//! again.

use std::collections::BTreeSet;
use std::time::Duration;

use super::recent::Kept;
use super::{Answer, BUSY_MS, Kicking, Phase, Queued, View, busy, rate, refusal, size};
use crate::event::{Body, Join, KEEP_MESSAGES_MAX, Keep, Kick, Leave, Mark, Rank, Role, Topic};
use crate::id::{AccountId, LinkId, Mid, ReadToken, RequestId, RoomId, SessionId};
use crate::io::Output;
use crate::register::{Membership, RegisterKey};
use crate::replica::Replica;
use crate::session::{
    self, Close, CloseMode, Code, History, Item, Line, LinkState, Mode, Open, PAGE_LINES_MAX, Page,
    Plain, Pong, ROOMS_OPEN_MAX, Request, RoomOpened, Target, TopicIs, check_nick, check_room,
};
use crate::store::{Query, Rows, is_kept};
use crate::time::{Hlc, Key, Now};
use crate::vector::Vector;

/// Bytes of lines in one page, at most: the older ones are asked for again.
const PAGE_BYTES_MAX: usize = 512 * 1024;

/// A disk that has been writing for so long is behind: what came meanwhile is not shown yet.
const SAVED_WITHIN: Duration = Duration::from_secs(1);

/// A link that takes so long there and back is behind: what the other end holds is not known here.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Why a session reads the disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reading {
    /// What it missed.
    Missed,
    /// The last lines of a room it opens; those shown from this place on belong to them.
    Open(Open, u64),
    /// A page.
    Page {
        request: RequestId,
        /// Whether it was all there was when it was asked for.
        complete: bool,
    },
    /// Whether a message is known.
    Message(session::Send),
}

impl Replica {
    /// A client asks.
    pub(crate) fn on_request(&mut self, now: Now, id: SessionId, request: Request) {
        let limits = &self.config.limits;
        let (max, bytes_max) = (limits.session_requests, limits.session_request_bytes);
        let Some(session) = self.sessions.all.get_mut(&id) else { return };
        match (&session.phase, request) {
            (Phase::Closing, _) => {}
            (Phase::New, Request::Attach(attach)) => self.attach(now, id, attach),
            // What a server sees can be asked without an account.
            (Phase::New, asked @ (Request::Status(_) | Request::Verify(_)))
            // A client that was told that this server is dead wants to know, also while it waits.
            | (Phase::New | Phase::Attaching(_), asked @ Request::Ping(_)) => {
                session.asked = now.time;
                let cost = rate::cost(&asked);
                self.carry_out(now, id, asked, cost);
            }
            (Phase::New, _) => self.protocol_error(id, "the first request is no attach"),
            (_, Request::Attach(_)) => self.protocol_error(id, "a second attach"),
            (_, Request::Detach(_)) => {
                self.give_last_token(id);
                self.end_session(id, None);
                self.say(Output::CloseSession(id));
            }
            (_, request) => {
                if let Some(why) = size::too_long(&request) {
                    let item = refusal(request_id(&request), Code::Invalid, why);
                    self.deliver_answer(vec![id], item);
                    return;
                }
                let (bytes, cost) = (size::bytes(&request), rate::cost(&request));
                if session.inbox.len() >= max || session.inbox_bytes + bytes > bytes_max {
                    let item = busy(request_id(&request), "too many requests wait", BUSY_MS);
                    self.deliver_answer(vec![id], item);
                    return;
                }
                if !matches!(request, Request::Ping(_)) {
                    session.asked = now.time;
                }
                session.inbox_bytes += bytes;
                session.inbox.push_back(Queued { request, bytes, cost });
                self.pump(now, id);
            }
        }
    }

    /// Carries out what waits, in order, as far as it can be.
    pub(super) fn pump(&mut self, now: Now, id: SessionId) {
        loop {
            let durable = self.broadcast.durable().upto(self.own_log());
            let Some(session) = self.sessions.all.get_mut(&id) else { return };
            let own_writes_durable = session.barrier <= durable;
            let ready = session.is_live()
                && session.reading.is_none()
                && session
                    .inbox
                    .front()
                    .is_some_and(|queued| is_pipelined(&queued.request) || own_writes_durable);
            if !ready {
                let waits = !session.inbox.is_empty()
                    || !session.answers.is_empty()
                    || matches!(session.phase, Phase::Attaching(_));
                if waits {
                    self.sessions.blocked.insert(id);
                } else {
                    self.sessions.blocked.remove(&id);
                }
                return;
            }
            let Some(Queued { request, cost, .. }) = session.take_request() else { return };
            self.carry_out(now, id, request, cost);
        }
    }

    /// Takes what a session does out of its account's bucket.
    pub(super) fn pay(
        &mut self,
        now: Now,
        id: SessionId,
        request: RequestId,
        cost: u64,
    ) -> Result<(), Item> {
        let Some(bucket) = self.sessions.bucket(now, id) else { return Ok(()) };
        bucket.take(now.time, cost).map_err(|ms| busy(request, "you ask too fast", ms))
    }

    /// What a request costs besides, as was found when it was carried out: it is not refused for
    /// that any more, and what comes next waits the longer.
    pub(super) fn owe(&mut self, now: Now, id: SessionId, cost: u64) {
        if let Some(bucket) = self.sessions.bucket(now, id) {
            bucket.owe(now.time, cost);
        }
    }

    fn carry_out(&mut self, now: Now, id: SessionId, request: Request, cost: u64) {
        let asked = request_id(&request);
        if cost > 0
            && let Err(item) = self.pay(now, id, asked, cost)
        {
            match request {
                Request::Send(send) => self.refuse_message(now, id, send.mid, item),
                _ => self.answer(id, item),
            }
            return;
        }
        let result = match request {
            Request::Send(send) => {
                self.send_request(now, id, send);
                Ok(())
            }
            Request::Ping(Plain { request }) => {
                self.pong(now, id, request);
                Ok(())
            }
            Request::Verify(Plain { request }) => {
                self.verify(now, id, request);
                Ok(())
            }
            Request::Status(Plain { request }) => self.status(now, id, request),
            Request::Rooms(Plain { request }) => self.list_rooms(now, id, request),
            Request::Open(open) => self.open_room(now, id, open),
            Request::Close(close) => self.close_room(now, id, &close),
            Request::Nick(nick) => self.change_nick(now, id, nick),
            Request::Topic(topic) => self.topic(now, id, topic),
            Request::Kick(kick) => self.kick(now, id, kick),
            Request::Role(role) => self.set_role(now, id, role),
            Request::Keep(keep) => self.set_retention(now, id, keep),
            Request::History(history) => self.history(now, id, &history),
            Request::Who(who) => self.who(now, id, &who),
            Request::Mark(mark) => self.mark(now, id, &mark),
            // Never queued: see `on_request`.
            Request::Attach(_) | Request::Detach(_) => Ok(()),
        };
        if let Err((code, why)) = result {
            self.answer(id, refusal(asked, code, why));
        }
    }

    fn account(&self, id: SessionId) -> AccountId {
        self.sessions.all.get(&id).map_or(AccountId::new(0), |session| session.account)
    }

    pub(super) fn room_of(name: &str) -> Result<RoomId, (Code, String)> {
        check_room(name).map_err(|why| (Code::Invalid, why))?;
        Ok(RoomId::public(name))
    }

    fn known_room(&self, name: &str) -> Result<RoomId, (Code, String)> {
        let room = Self::room_of(name)?;
        match self.rooms.name(room) {
            Some(_) => Ok(room),
            None => Err((
                Code::Unknown,
                format!(
                    "there is no room {name:?}; join or say something \
                                                 in it to make it"
                ),
            )),
        }
    }

    fn person(&self, nick: &str) -> Result<AccountId, (Code, String)> {
        self.rooms
            .account(nick)
            .ok_or_else(|| (Code::Unknown, format!("nobody goes by the name {nick:?}")))
    }

    /// Writes a register. Its stamp must be above the winner's, or the write would be lost.
    fn write(
        &mut self,
        now: Now,
        id: SessionId,
        register: RegisterKey,
        room: RoomId,
        body: &Body,
    ) -> Result<(), (Code, String)> {
        if let Err(Item::Refused(refused)) = self.check_writable(RequestId(0)) {
            return Err((refused.code, refused.reason));
        }
        let Some(session) = self.sessions.all.get(&id) else { return Ok(()) };
        let (account, seen) = (session.account, session.seen);
        let seen = self.stamp_floor(now, seen, register)?;
        let mid = Mid::at(now.wall_ms, self.rng.bits128());
        let key = self
            .append(now, seen, (room, account, mid), body)
            .map_err(|why| (Code::Invalid, why))?;
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.barrier = key.seq;
        }
        Ok(())
    }

    /// Above what a write of that register must be stamped to count: what the writer has seen and
    /// what is there, which this server's clock need not have followed.
    pub(super) fn stamp_floor(
        &self,
        now: Now,
        seen: Hlc,
        register: RegisterKey,
    ) -> Result<Hlc, (Code, String)> {
        let Some(winner) = self.rooms.winner(&register) else { return Ok(seen) };
        if !self.clock.reaches(now, winner.hlc) {
            let why = "what is there was written by a clock far ahead; try again later";
            return Err((Code::ClockSkew, why.into()));
        }
        // A stamp out of reach is not followed, and must not hide the one that is in reach.
        let seen = if self.clock.reaches(now, seen) { seen } else { Hlc::default() };
        Ok(seen.max(winner.hlc))
    }

    fn open_room(&mut self, now: Now, id: SessionId, open: Open) -> Result<(), (Code, String)> {
        let room = Self::room_of(&open.room)?;
        let Some(session) = self.sessions.all.get(&id) else { return Ok(()) };
        if session.rooms.len() >= ROOMS_OPEN_MAX && !session.rooms.contains_key(&room) {
            let why = format!("you have {ROOMS_OPEN_MAX} rooms open; close one first");
            return Err((Code::Forbidden, why));
        }
        let account = session.account;
        if open.mode == Mode::Watch {
            self.check_inside(id, room, &open.room)?;
        }
        if open.mode == Mode::Join {
            if !self.rooms.is_member(room, account) {
                let nick = self.name_of(account);
                let body = Body::Join(Join { nick });
                if let Err(Item::Refused(refused)) = self.check_writable(open.request) {
                    return Err((refused.code, refused.reason));
                }
                self.check_found(id, room, &open.room)?;
                if let Err(Item::Refused(refused)) =
                    self.create_room(now, id, open.request, room, &open.room)
                {
                    self.answer(id, Item::Refused(refused));
                    return Ok(());
                }
                self.write(now, id, RegisterKey::Member(room, account), room, &body)?;
                self.sessions.kicking.remove(&(room, account));
            }
            // The membership must be on the disk before the room is shown as open.
            let own = self.own_log();
            let durable = self.broadcast.durable().upto(own);
            let waits = self.sessions.all.get(&id).is_some_and(|s| s.barrier > durable);
            if waits && let Some(session) = self.sessions.all.get_mut(&id) {
                session.go_on_with(Request::Open(Open { mode: Mode::Watch, ..open }));
                return Ok(());
            }
        }
        let place = self.sessions.recent.end();
        let limit = open.last.min(PAGE_LINES_MAX) as usize;
        if limit == 0 {
            self.opened(now, id, &open, place, (Vec::new(), false));
            return Ok(());
        }
        let within = self.broadcast.durable().clone();
        let query = Query::Page { room, before: Key::MAX, limit, within };
        self.read(id, Reading::Open(open, place), query);
        Ok(())
    }

    /// A room is open. Its last lines are those of now: what happened while the disk was read is
    /// among them, and not told after them, for a token that came meanwhile covers it.
    fn opened(
        &mut self,
        now: Now,
        id: SessionId,
        open: &Open,
        place: u64,
        rows: (Vec<Line>, bool),
    ) {
        let room = RoomId::public(&open.room);
        let limit = open.last.min(PAGE_LINES_MAX) as usize;
        let recent = self.sessions.recent.from(place);
        let in_room = recent.map(|recent| recent.filter(|kept| kept.line.event.room == room));
        let Some(mut lines) = in_room.and_then(|recent| with_recent(rows, recent, limit)) else {
            // More happened while the disk was read than is kept: read it again.
            if let Some(session) = self.sessions.all.get_mut(&id) {
                session.go_on_with(Request::Open(Open { mode: Mode::Watch, ..open.clone() }));
            }
            return;
        };
        let floor = self.rooms.floor_ms(room);
        lines.retain(|line| is_kept(&line.event, floor));
        // While the disk was read he may have been put out.
        if let Err((code, why)) = self.check_inside(id, room, &open.room) {
            return self.answer(id, refusal(open.request, code, why));
        }
        let since = self.clock.last();
        let opened = self.opened_room(room, &open.room, since);
        let newest = lines.last().map_or(Key::MIN, Line::key);
        let was = self.sessions.all.get(&id).and_then(|session| session.rooms.get(&room));
        let newest = newest.max(was.map_or(Key::MIN, |view| view.newest));
        let (lines, _) = newest_lines(lines);
        let (complete, unreachable) = (self.is_complete(now), self.unreachable());
        let name = opened.name.clone();
        let shown = lines.clone();
        let item = RoomOpened { request: open.request, room: opened, lines, complete, unreachable };
        self.deliver_answer(vec![id], Item::RoomOpened(item));
        self.enter_room(id, room, View { name, since, newest });
        self.cover(id, &shown);
    }

    fn close_room(&mut self, now: Now, id: SessionId, close: &Close) -> Result<(), (Code, String)> {
        let room = Self::room_of(&close.room)?;
        let account = self.account(id);
        let open = self.sessions.all.get(&id).is_some_and(|s| s.rooms.contains_key(&room));
        // Whoever is put out does not turn that into his own going.
        let stays = self.rooms.is_member(room, account) && self.put_out(room, account).is_none();
        if close.mode == CloseMode::Leave && stays {
            let nick = self.name_of(account);
            let body = Body::Leave(Leave { nick });
            self.write(now, id, RegisterKey::Member(room, account), room, &body)?;
        } else if !open {
            return Err((Code::Unknown, format!("you are not in {}", close.room)));
        }
        if open {
            self.sessions.close(id, room);
            self.presence.leave(account, Some(room), None);
        }
        self.answer(id, Item::Done(Plain { request: close.request }));
        Ok(())
    }

    fn change_nick(
        &mut self,
        now: Now,
        id: SessionId,
        nick: session::Nick,
    ) -> Result<(), (Code, String)> {
        check_nick(&nick.nick).map_err(|why| (Code::Invalid, why))?;
        let account = self.account(id);
        if let Some(holder) = self.rooms.account(&nick.nick)
            && holder != account
        {
            let why = format!("{:?} is taken; choose another nick", nick.nick);
            return Err((Code::Conflict, why));
        }
        if self.rooms.wanted_nick(account) != Some(nick.nick.as_str()) {
            let body =
                Body::Nick(crate::event::Nick { nick: nick.nick, before: self.name_of(account) });
            self.write(now, id, RegisterKey::Nick(account), RoomId::new(0), &body)?;
        }
        self.answer_later(id, Answer::Named(nick.request));
        Ok(())
    }

    fn topic(
        &mut self,
        now: Now,
        id: SessionId,
        topic: session::Topic,
    ) -> Result<(), (Code, String)> {
        let room = self.known_room(&topic.room)?;
        let text = match topic.text {
            None => self.rooms.topic(room).to_string(),
            Some(text) => {
                self.check_inside(id, room, &topic.room)?;
                let nick = self.name_of(self.account(id));
                let body = Body::Topic(Topic { nick, text: text.clone() });
                self.write(now, id, RegisterKey::Topic(room), room, &body)?;
                text
            }
        };
        let name = self.rooms.name(room).map_or(topic.room, str::to_string);
        let item = TopicIs { request: topic.request, room: name, topic: text };
        self.answer(id, Item::TopicIs(item));
        Ok(())
    }

    /// Whoever was put out of a room changes nothing in it until he joins again.
    fn check_inside(&self, id: SessionId, room: RoomId, name: &str) -> Result<(), (Code, String)> {
        match self.put_out(room, self.account(id)) {
            Some((by, reason)) => {
                let why = format!("{by} put you out of {name} ({reason}); join it again first");
                Err((Code::Kicked, why))
            }
            None => Ok(()),
        }
    }

    /// By whom an account was put out of a room, and why; also by a kick that is on its way to the disk:
    /// in this log nothing of his comes after it.
    pub(super) fn put_out(&self, room: RoomId, account: AccountId) -> Option<(&str, &str)> {
        let durable = match self.rooms.membership(room, account) {
            Some((_, Membership::Kicked { by, reason })) => Some((by.as_str(), reason.as_str())),
            _ => None,
        };
        let coming = || self.sessions.kicking.get(&(room, account));
        durable.or_else(|| coming().map(|kick| (kick.by.as_str(), kick.reason.as_str())))
    }

    fn check_op(&self, id: SessionId, room: RoomId, name: &str) -> Result<(), (Code, String)> {
        self.check_inside(id, room, name)?;
        if self.rooms.rank(room, self.account(id)) < Rank::Op {
            let why = format!("only the founder and ops of {name} may do that");
            return Err((Code::Forbidden, why));
        }
        Ok(())
    }

    fn kick(&mut self, now: Now, id: SessionId, kick: session::Kick) -> Result<(), (Code, String)> {
        let room = self.known_room(&kick.room)?;
        self.check_op(id, room, &kick.room)?;
        let account = self.person(&kick.nick)?;
        self.check_kickable(id, room, account)?;
        let here = self.rooms.is_member(room, account)
            || !self.presence.servers(account, Some(room), &self.config.me.slot).is_empty();
        if !here {
            return Err((Code::Unknown, format!("{} is not in {}", kick.nick, kick.room)));
        }
        let (nick, reason) = (self.name_of(self.account(id)), kick.reason);
        let body = Body::Kick(Kick {
            nick: nick.clone(),
            account,
            account_nick: self.name_of(account),
            reason: reason.clone(),
        });
        self.write(now, id, RegisterKey::Member(room, account), room, &body)?;
        let seq = self.sessions.all.get(&id).map_or(0, |session| session.barrier);
        self.sessions.kicking.insert((room, account), Kicking { seq, by: nick, reason });
        self.answer(id, Item::Done(Plain { request: kick.request }));
        Ok(())
    }

    /// A room is never without its founder by somebody else's doing, and who wants to go leaves.
    fn check_kickable(
        &self,
        id: SessionId,
        room: RoomId,
        account: AccountId,
    ) -> Result<(), (Code, String)> {
        if account == self.account(id) {
            return Err((Code::Invalid, "you cannot put yourself out; leave the room".into()));
        }
        if self.rooms.rank(room, account) == Rank::Founder {
            let why = "nobody can put the founder of a room out of it";
            return Err((Code::Forbidden, why.into()));
        }
        Ok(())
    }

    fn set_role(
        &mut self,
        now: Now,
        id: SessionId,
        role: session::Role,
    ) -> Result<(), (Code, String)> {
        let room = self.known_room(&role.room)?;
        self.check_op(id, room, &role.room)?;
        let account = self.person(&role.nick)?;
        if role.rank == Rank::Founder || self.rooms.rank(room, account) == Rank::Founder {
            return Err((Code::Invalid, "the founder of a room stays its founder".into()));
        }
        let body = Body::Role(Role {
            nick: self.name_of(self.account(id)),
            account,
            account_nick: self.name_of(account),
            role: role.rank,
        });
        self.write(now, id, RegisterKey::Role(room, account), room, &body)?;
        self.answer(id, Item::Done(Plain { request: role.request }));
        Ok(())
    }

    fn set_retention(
        &mut self,
        now: Now,
        id: SessionId,
        keep: session::Keep,
    ) -> Result<(), (Code, String)> {
        let room = self.known_room(&keep.room)?;
        self.check_op(id, room, &keep.room)?;
        if keep.keep.messages > KEEP_MESSAGES_MAX {
            let why = format!("a room keeps at most {KEEP_MESSAGES_MAX} messages, or all of them");
            return Err((Code::Invalid, why));
        }
        let body = Body::Keep(Keep { nick: self.name_of(self.account(id)), keep: keep.keep });
        self.write(now, id, RegisterKey::Keep(room), room, &body)?;
        self.answer(id, Item::Done(Plain { request: keep.request }));
        Ok(())
    }

    fn history(
        &mut self,
        now: Now,
        id: SessionId,
        history: &History,
    ) -> Result<(), (Code, String)> {
        let account = self.account(id);
        let room = match &history.of {
            Target::Room(name) => Self::room_of(name)?,
            Target::Nick(nick) => RoomId::direct(account, self.person(nick)?),
            Target::Account(other) => RoomId::direct(account, *other),
        };
        let limit = history.limit.clamp(1, PAGE_LINES_MAX) as usize;
        let before = history.before.unwrap_or(Key::MAX);
        let within = self.broadcast.durable().clone();
        let query = Query::Page { room, before, limit, within };
        let (request, complete) = (history.request, self.is_complete(now));
        self.read(id, Reading::Page { request, complete }, query);
        Ok(())
    }

    /// The disk answered a session's question.
    pub(crate) fn on_session_read(&mut self, now: Now, token: ReadToken, rows: Rows) {
        if self.verify_read(now, token, &rows) {
            return;
        }
        let Some(id) = self.sessions.reads.remove(&token) else { return };
        let Some(session) = self.sessions.all.get_mut(&id) else { return };
        let Some((_, reading)) = session.reading.take_if(|(asked, _)| *asked == token) else {
            return;
        };
        match (reading, rows) {
            (Reading::Missed, rows) => self.missed_read(now, id, rows),
            (Reading::Open(open, place), Rows::Page(lines, more)) => {
                self.opened(now, id, &open, place, (lines, more));
            }
            (Reading::Page { request, complete }, Rows::Page(lines, more)) => {
                let complete = complete && self.is_complete(now);
                self.page(id, (request, complete), lines, more);
            }
            (Reading::Message(send), Rows::Message(found)) => {
                self.send_looked_up(now, id, &send, found);
            }
            (reading, rows) => self.read_failed(id, &reading, rows),
        }
        self.pump(now, id);
    }

    fn read_failed(&mut self, id: SessionId, reading: &Reading, rows: Rows) {
        let request = match reading {
            Reading::Missed => RequestId(0),
            Reading::Open(open, _) => open.request,
            Reading::Page { request, .. } => *request,
            Reading::Message(send) => send.request,
        };
        let why = match rows {
            Rows::Failed(why) => format!("the disk could not be read: {why}"),
            _ => "the disk answered another question".into(),
        };
        self.answer(id, refusal(request, Code::Storage, why));
    }

    /// Whether what is shown here is all that any server had on its disk some seconds ago: all are
    /// linked, live and have said what they hold, what they say comes soon (it goes the way of their
    /// answers to pings), and no more is missing than what this disk is about to have written.
    fn is_complete(&self, now: Now) -> bool {
        let is_up = |link: &LinkId| {
            let (state, _) = self.health.link(*link);
            state == LinkState::Up && self.round_trip(*link) < TOLD_WITHIN
        };
        let since = self.broadcast.saving_since();
        self.hears_all()
            && self.links.keys().all(is_up)
            && self.broadcast.missing() == 0
            && self.refusing.is_none()
            && since.is_none_or(|since| now.time.since(since) < SAVED_WITHIN)
    }

    fn page(
        &mut self,
        id: SessionId,
        (request, complete): (RequestId, bool),
        lines: Vec<Line>,
        more: bool,
    ) {
        let (lines, cut) = newest_lines(lines);
        self.cover(id, &lines);
        let unreachable = self.unreachable();
        let page = Page { request, lines, more: more || cut, complete, unreachable };
        self.answer(id, Item::Page(page));
    }

    fn mark(
        &mut self,
        now: Now,
        id: SessionId,
        mark: &session::Mark,
    ) -> Result<(), (Code, String)> {
        let account = self.account(id);
        let mine: BTreeSet<RoomId> = self.rooms.directs(account).collect();
        let rooms: BTreeSet<RoomId> =
            mark.shown.iter().map(|(room, _)| *room).filter(|room| mine.contains(room)).collect();
        for room in rooms {
            let held = self.rooms.seen(room, account);
            // Only what is news is written, so that a mark is as long as its request, whatever
            // was marked before: the register joins them.
            let mut news = Vector::new();
            for (_, key) in mark.shown.iter().filter(|(of, _)| *of == room) {
                let event = key.event();
                if self.broadcast.durable().covers(event) && !held.covers(event) {
                    news.raise(event.log, event.seq);
                }
            }
            if !news.is_empty() {
                let body = Body::Mark(Mark { seen: news });
                self.write(now, id, RegisterKey::Mark(room, account), room, &body)?;
            }
        }
        self.answer(id, Item::Done(Plain { request: mark.request }));
        Ok(())
    }

    fn pong(&mut self, now: Now, id: SessionId, request: RequestId) {
        let clock_ms = self.clock.told_ms(now);
        self.answer(id, Item::Pong(Pong { request, clock_ms }));
    }
}

/// The newest lines that fit a page, and whether older ones were cut off.
fn newest_lines(mut lines: Vec<Line>) -> (Vec<Line>, bool) {
    let mut bytes = 0;
    let fits = lines
        .iter()
        .rev()
        .take_while(|line| {
            bytes += line.event.cost();
            bytes <= PAGE_BYTES_MAX
        })
        .count();
    let cut = lines.len() - fits;
    lines.drain(..cut);
    (lines, cut > 0)
}

/// The last `limit` messages of a room as a read would find them now: those of a read a moment ago,
/// and what was shown since. Of a room that has more before them, what is older than all of them is
/// left to the page before; `None` if one of them has moved there, and another takes its place.
fn with_recent<'a>(
    (mut lines, more): (Vec<Line>, bool),
    since: impl Iterator<Item = &'a Kept>,
    limit: usize,
) -> Option<Vec<Line>> {
    let (oldest, read) = (lines.first().filter(|_| more).map(Line::key), lines.len());
    for kept in since.filter(|kept| kept.line.identity().is_some()) {
        if let Some(from) = kept.from {
            lines.retain(|line| line.key() != from);
        }
        let key = kept.line.key();
        if oldest.is_none_or(|oldest| oldest < key)
            && let Err(place) = lines.binary_search_by_key(&key, Line::key)
        {
            lines.insert(place, kept.line.clone());
        }
    }
    if lines.len() < read {
        return None;
    }
    let over = lines.len().saturating_sub(limit);
    lines.drain(..over);
    Some(lines)
}

/// Requests that need not wait for the session's own writes: they read no shared state.
const fn is_pipelined(request: &Request) -> bool {
    matches!(request, Request::Send(_) | Request::Ping(_))
}

const fn request_id(request: &Request) -> RequestId {
    match request {
        Request::Attach(_) => RequestId(0),
        Request::Open(r) => r.request,
        Request::Close(r) => r.request,
        Request::Send(r) => r.request,
        Request::Nick(r) => r.request,
        Request::Topic(r) => r.request,
        Request::Kick(r) => r.request,
        Request::Role(r) => r.request,
        Request::Keep(r) => r.request,
        Request::History(r) => r.request,
        Request::Who(r) => r.request,
        Request::Mark(r) => r.request,
        Request::Rooms(r)
        | Request::Status(r)
        | Request::Ping(r)
        | Request::Detach(r)
        | Request::Verify(r) => r.request,
    }
}

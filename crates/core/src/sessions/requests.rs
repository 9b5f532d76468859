//! Everything a client asks but messages.
//!
//! A request is judged once, here, against what is durable here; other servers do not judge it
//! again.

use std::collections::BTreeSet;

use super::deliver::RoomLine;
use super::{Answer, Phase, View, busy, refusal};
use crate::event::{Body, Join, Kick, Leave, Mark, Rank, Role, Topic};
use crate::id::{AccountId, Mid, ReadToken, RequestId, RoomId, SessionId};
use crate::io::Output;
use crate::register::{Membership, RegisterKey};
use crate::replica::Replica;
use crate::session::{
    self, Close, CloseMode, Code, History, Item, Line, LinkState, LinkStatus, MARKS_MAX, Mode,
    Open, PAGE_LINES_MAX, Page, Participant, Participants, Plain, Pong, ROOMS_OPEN_MAX, Request,
    RoomDigest, RoomInfo, RoomList, RoomOpened, Status, TOPIC_BYTES_MAX, Target, TopicIs,
    check_nick, check_room,
};
use crate::store::{Query, Rows};
use crate::time::{Key, Now};

/// Bytes of lines in one page, at most: the older ones are asked for again.
const PAGE_BYTES_MAX: usize = 512 * 1024;
/// Entries of one item of a list, at most; longer lists continue in further items.
const LIST_MAX: usize = 2000;

/// Why a session reads the disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reading {
    /// What it missed.
    Missed,
    /// The last lines of a room it opens; lines shown from this place on follow.
    Open(Open, u64),
    /// A page.
    Page(RequestId),
    /// Whether a message is known.
    Message(session::Send),
}

impl Replica {
    /// A client asks.
    pub(crate) fn on_request(&mut self, now: Now, id: SessionId, request: Request) {
        let max = self.config.limits.session_requests;
        let Some(session) = self.sessions.all.get_mut(&id) else { return };
        match (&session.phase, request) {
            (Phase::Closing, _) => {}
            (Phase::New, Request::Attach(attach)) => self.attach(now, id, attach),
            // What a server sees can be asked without an account.
            (Phase::New, Request::Status(Plain { request })) => self.status(now, id, request),
            // A client that was told that this server is dead wants to know, also while it waits.
            (Phase::New | Phase::Attaching(_), Request::Ping(Plain { request })) => {
                self.pong(now, id, request);
            }
            (Phase::New, _) => self.protocol_error(id, "the first request is no attach"),
            (_, Request::Attach(_)) => self.protocol_error(id, "a second attach"),
            (_, Request::Detach(_)) => {
                self.end_session(id, None);
                self.say(Output::CloseSession(id));
            }
            (_, request) => {
                if session.inbox.len() >= max {
                    let item = busy(request_id(&request), "too many requests wait", 200);
                    self.deliver_answer(vec![id], item);
                    return;
                }
                session.inbox.push_back(request);
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
                && session.inbox.front().is_some_and(|r| is_pipelined(r) || own_writes_durable);
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
            let Some(request) = session.inbox.pop_front() else { return };
            self.carry_out(now, id, request);
        }
    }

    fn carry_out(&mut self, now: Now, id: SessionId, request: Request) {
        let asked = request_id(&request);
        let result = match request {
            Request::Send(send) => {
                self.send_request(now, id, send);
                Ok(())
            }
            Request::Ping(Plain { request }) => {
                self.pong(now, id, request);
                Ok(())
            }
            Request::Status(Plain { request }) => {
                self.status(now, id, request);
                Ok(())
            }
            Request::Rooms(Plain { request }) => {
                self.list_rooms(id, request);
                Ok(())
            }
            Request::Open(open) => self.open_room(now, id, open),
            Request::Close(close) => self.close_room(now, id, &close),
            Request::Nick(nick) => self.change_nick(now, id, nick),
            Request::Topic(topic) => self.topic(now, id, topic),
            Request::Kick(kick) => self.kick(now, id, kick),
            Request::Role(role) => self.set_role(now, id, role),
            Request::History(history) => self.history(id, &history),
            Request::Who(who) => self.who(id, &who),
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

    fn room_of(name: &str) -> Result<RoomId, (Code, String)> {
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
        let horizon = self.clock.reading_ms(now).saturating_add(self.config.timing.max_skew_ms);
        if self.rooms.winner(&register).is_some_and(|winner| winner.hlc.ms() > horizon) {
            let why = "what is there was written by a clock far ahead; try again later";
            return Err((Code::ClockSkew, why.into()));
        }
        let mid = Mid::at(now.wall_ms, self.rng.bits128());
        let key = self.append(now, seen, (room, account, mid), body);
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.barrier = key.seq;
        }
        Ok(())
    }

    fn open_room(&mut self, now: Now, id: SessionId, open: Open) -> Result<(), (Code, String)> {
        let room = Self::room_of(&open.room)?;
        let Some(session) = self.sessions.all.get(&id) else { return Ok(()) };
        if session.rooms.len() >= ROOMS_OPEN_MAX && !session.rooms.contains_key(&room) {
            let why = format!("you have {ROOMS_OPEN_MAX} rooms open; close one first");
            return Err((Code::Busy, why));
        }
        let account = session.account;
        if open.mode == Mode::Join {
            if !self.rooms.is_member(room, account) {
                let nick = self.name_of(account);
                let body = Body::Join(Join { nick });
                if let Err(Item::Refused(refused)) = self.check_writable(open.request) {
                    return Err((refused.code, refused.reason));
                }
                self.create_room(now, id, room, &open.room);
                self.write(now, id, RegisterKey::Member(room, account), room, &body)?;
            }
            // The membership must be on the disk before the room is shown as open.
            let own = self.own_log();
            let durable = self.broadcast.durable().upto(own);
            let waits = self.sessions.all.get(&id).is_some_and(|s| s.barrier > durable);
            if waits && let Some(session) = self.sessions.all.get_mut(&id) {
                session.inbox.push_front(Request::Open(Open { mode: Mode::Watch, ..open }));
                return Ok(());
            }
        }
        let place = self.sessions.recent.end();
        let limit = open.last.min(PAGE_LINES_MAX) as usize;
        if limit == 0 {
            self.opened(now, id, &open, place, Vec::new());
            return Ok(());
        }
        let within = self.broadcast.durable().clone();
        let query = Query::Page { room, before: Key::MAX, limit, within };
        self.read(id, Reading::Open(open, place), query);
        Ok(())
    }

    /// A room is open: its last lines, then what happened since they were read.
    fn opened(&mut self, now: Now, id: SessionId, open: &Open, place: u64, lines: Vec<Line>) {
        if self.sessions.recent.from(place).is_none()
            && let Some(session) = self.sessions.all.get_mut(&id)
        {
            // More happened while the disk was read than is kept: read it again.
            session.inbox.push_front(Request::Open(Open { mode: Mode::Watch, ..open.clone() }));
            return;
        }
        let room = RoomId::public(&open.room);
        let account = self.account(id);
        let since = self.clock.last();
        let opened = self.opened_room(room, &open.room, since);
        let newest = lines.last().map_or(Key::MIN, Line::key);
        let was = self.sessions.close(id, room);
        if was.is_none() {
            self.presence.enter(account, Some(room));
        }
        let newest = newest.max(was.map_or(Key::MIN, |view| view.newest));
        let (lines, _) = newest_lines(lines);
        let unreachable = self.unreachable();
        let complete = unreachable.is_empty() && self.broadcast.lag() == 0;
        let name = opened.name.clone();
        let item = RoomOpened { request: open.request, room: opened, lines, complete, unreachable };
        self.deliver_answer(vec![id], Item::RoomOpened(item));
        self.sessions.open(id, room, View { name, since, newest });
        let recent = self.sessions.recent.from(place);
        let missed: Vec<Line> = recent
            .into_iter()
            .flatten()
            .filter(|kept| kept.line.event.room == room)
            .map(|kept| kept.line.clone())
            .collect();
        for line in missed {
            self.show_to(now, id, &RoomLine::of(line));
        }
    }

    fn close_room(&mut self, now: Now, id: SessionId, close: &Close) -> Result<(), (Code, String)> {
        let room = Self::room_of(&close.room)?;
        let account = self.account(id);
        let open = self.sessions.all.get(&id).is_some_and(|s| s.rooms.contains_key(&room));
        if close.mode == CloseMode::Leave && self.rooms.is_member(room, account) {
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
                if text.len() > TOPIC_BYTES_MAX {
                    let why = format!("a topic has at most {TOPIC_BYTES_MAX} bytes");
                    return Err((Code::Invalid, why));
                }
                let nick = self.name_of(self.account(id));
                let body = Body::Topic(Topic { nick, text: text.clone() });
                self.write(now, id, RegisterKey::Topic(room), room, &body)?;
                text
            }
        };
        let item = TopicIs { request: topic.request, room: topic.room, topic: text };
        self.answer(id, Item::TopicIs(item));
        Ok(())
    }

    /// Whoever was put out of a room changes nothing in it until he joins again.
    fn check_inside(&self, id: SessionId, room: RoomId, name: &str) -> Result<(), (Code, String)> {
        let open = self.sessions.all.get(&id).is_some_and(|s| s.rooms.contains_key(&room));
        match self.rooms.membership(room, self.account(id)) {
            Some((_, Membership::Kicked { by, reason })) if !open => {
                let why = format!("{by} put you out of {name} ({reason}); join it again first");
                Err((Code::Kicked, why))
            }
            _ => Ok(()),
        }
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
        if kick.reason.len() > TOPIC_BYTES_MAX {
            let why = format!("a reason has at most {TOPIC_BYTES_MAX} bytes");
            return Err((Code::Invalid, why));
        }
        let account = self.person(&kick.nick)?;
        let here = self.rooms.is_member(room, account)
            || !self.presence.servers(account, Some(room), &self.config.me.slot).is_empty();
        if !here {
            return Err((Code::Unknown, format!("{} is not in {}", kick.nick, kick.room)));
        }
        let body = Body::Kick(Kick {
            nick: self.name_of(self.account(id)),
            account,
            account_nick: self.name_of(account),
            reason: kick.reason,
        });
        self.write(now, id, RegisterKey::Member(room, account), room, &body)?;
        self.answer(id, Item::Done(Plain { request: kick.request }));
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

    fn history(&mut self, id: SessionId, history: &History) -> Result<(), (Code, String)> {
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
        self.read(id, Reading::Page(history.request), query);
        Ok(())
    }

    /// The disk answered a session's question.
    pub(crate) fn on_session_read(&mut self, now: Now, token: ReadToken, rows: Rows) {
        let Some(id) = self.sessions.reads.remove(&token) else { return };
        let Some(session) = self.sessions.all.get_mut(&id) else { return };
        let Some((_, reading)) = session.reading.take_if(|(asked, _)| *asked == token) else {
            return;
        };
        match (reading, rows) {
            (Reading::Missed, rows) => self.missed_read(now, id, rows),
            (Reading::Open(open, place), Rows::Page(lines, _)) => {
                self.opened(now, id, &open, place, lines);
            }
            (Reading::Page(request), Rows::Page(lines, more)) => {
                self.page(id, request, lines, more);
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
            Reading::Page(request) => *request,
            Reading::Message(send) => send.request,
        };
        let why = match rows {
            Rows::Failed(why) => format!("the disk could not be read: {why}"),
            _ => "the disk answered another question".into(),
        };
        self.answer(id, refusal(request, Code::Storage, why));
    }

    fn page(&mut self, id: SessionId, request: RequestId, lines: Vec<Line>, more: bool) {
        let (lines, cut) = newest_lines(lines);
        let unreachable = self.unreachable();
        let complete = unreachable.is_empty() && self.broadcast.lag() == 0;
        let page = Page { request, lines, more: more || cut, complete, unreachable };
        self.answer(id, Item::Page(page));
    }

    fn list_rooms(&mut self, id: SessionId, request: RequestId) {
        let watching =
            self.presence.room_counts(|room, account| self.rooms.is_member(room, account));
        let mut rooms: Vec<RoomInfo> = self
            .rooms
            .rooms()
            .map(|(id, name)| {
                let here =
                    self.rooms.members(id).count() + watching.get(&id).map_or(0, BTreeSet::len);
                RoomInfo {
                    id,
                    name: name.to_string(),
                    topic: self.rooms.topic(id).to_string(),
                    participants: u32::try_from(here).unwrap_or(u32::MAX),
                    messages: self.rooms.sum(id).messages,
                }
            })
            .collect();
        rooms.sort_by(|a, b| a.name.cmp(&b.name));
        for (rooms, more) in pieces(rooms) {
            self.answer(id, Item::Rooms(RoomList { request, rooms, more }));
        }
    }

    fn who(&mut self, id: SessionId, who: &session::Who) -> Result<(), (Code, String)> {
        let room = Self::room_of(&who.room)?;
        let me = &self.config.me.slot;
        let accounts: BTreeSet<AccountId> =
            self.rooms.members(room).chain(self.presence.in_room(room)).collect();
        let people: Vec<Participant> = accounts
            .into_iter()
            .map(|account| Participant {
                account,
                nick: self.name_of(account),
                rank: self.rooms.rank(room, account),
                member: self.rooms.is_member(room, account),
                servers: self.presence.servers(account, Some(room), me),
            })
            .collect();
        for (people, more) in pieces(people) {
            let room = who.room.clone();
            let request = who.request;
            self.answer(id, Item::Participants(Participants { request, room, people, more }));
        }
        Ok(())
    }

    fn mark(
        &mut self,
        now: Now,
        id: SessionId,
        mark: &session::Mark,
    ) -> Result<(), (Code, String)> {
        if mark.shown.len() > MARKS_MAX {
            return Err((Code::Invalid, format!("at most {MARKS_MAX} marks fit a request")));
        }
        let account = self.account(id);
        let mine: BTreeSet<RoomId> = self.rooms.directs(account).collect();
        let rooms: BTreeSet<RoomId> =
            mark.shown.iter().map(|(room, _)| *room).filter(|room| mine.contains(room)).collect();
        for room in rooms {
            let mut seen = self.rooms.seen(room, account);
            let before = seen.clone();
            for (_, key) in mark.shown.iter().filter(|(of, _)| *of == room) {
                let event = key.event();
                if self.broadcast.durable().covers(event) {
                    seen.raise(event.log, event.seq);
                }
            }
            if seen != before {
                let body = Body::Mark(Mark { seen });
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

    fn status(&mut self, now: Now, id: SessionId, request: RequestId) {
        let me = self.config.me.clone();
        let links = self
            .config
            .servers
            .iter()
            .filter(|server| server.name != me.slot)
            .map(|server| self.link_status(&server.name))
            .collect();
        let mut rooms: Vec<RoomDigest> = self
            .rooms
            .sums()
            .map(|(room, sum)| RoomDigest {
                room: self.rooms.name(room).map_or_else(|| room.to_string(), str::to_string),
                messages: sum.messages,
                digest: sum.digest,
            })
            .collect();
        rooms.sort_by(|a, b| a.room.cmp(&b.room));
        let status = Status {
            request,
            server: me.slot,
            disk: me.server,
            origin: me.origin,
            state: self.state(),
            standing: self.broadcast.standing(),
            links,
            vector: (**self.broadcast.durable()).clone(),
            rooms: Vec::new(),
            more: false,
            lag: self.broadcast.lag(),
            sessions: u32::try_from(self.sessions.of.values().map(BTreeSet::len).sum::<usize>())
                .unwrap_or(u32::MAX),
            uptime_s: now.time.since(self.started).as_secs(),
        };
        for (rooms, more) in pieces(rooms) {
            self.answer(id, Item::Status(Status { rooms, more, ..status.clone() }));
        }
    }

    fn link_status(&self, slot: &crate::id::Slot) -> LinkStatus {
        let link = self.links.iter().find(|(_, peer)| peer.slot == *slot).map(|(id, _)| *id);
        let (state, rtt_micros) = link.map_or((LinkState::Down, 0), |id| self.health.link(id));
        let behind = link.map_or(0, |id| self.broadcast.behind(id));
        LinkStatus { server: slot.clone(), state, rtt_micros, behind }
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

/// A list in pieces that fit a frame, each with whether more follow; at least one.
fn pieces<T>(mut list: Vec<T>) -> Vec<(Vec<T>, bool)> {
    let mut pieces = Vec::new();
    while list.len() > LIST_MAX {
        let rest = list.split_off(LIST_MAX);
        pieces.push((std::mem::replace(&mut list, rest), true));
    }
    pieces.push((list, false));
    pieces
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
        Request::History(r) => r.request,
        Request::Who(r) => r.request,
        Request::Mark(r) => r.request,
        Request::Rooms(r) | Request::Status(r) | Request::Ping(r) | Request::Detach(r) => r.request,
    }
}

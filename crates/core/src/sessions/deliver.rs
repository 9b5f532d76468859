//! Showing events: to whom, whether late, and what happens when a client is slow.
//!
//! A line is shown when it is on this server's disk. Its item is made once for all sessions that
//! see it alike. A session whose queue is full loses lines, not the connection: when it has room
//! again it is told in which rooms ([`Gap`]) and reads them.

use std::sync::Arc;

use super::lists::Piece;
use super::recent::Audience;
use super::send::known_of;
use super::{Answer, Phase, Session, View};
use crate::bugs::bug;
use crate::config::Limits;
use crate::event::Body;
use crate::id::{AccountId, Log, RequestId, RoomId, SessionId};
use crate::io::{Output, Severity};
use crate::register::Membership;
use crate::replica::Replica;
use crate::session::{ClosedWhy, Code, Gap, Item, Line, Moved, Named, RoomClosed, Shown};
use crate::store::{Entry, Outcome, is_kept};
use crate::time::{Hlc, Key, Now};
use crate::vector::Vector;

/// A line so much older than the newest shown is marked late: 1 second.
const LATE_MS: u64 = 1000;
/// A session whose answers alone exceed its queue so many times is cut off.
const ANSWERS_FACTOR: usize = 16;

/// A line and who sees it.
#[derive(Clone, Debug)]
pub(super) struct RoomLine {
    line: Line,
    audience: Option<Audience>,
    /// Where it stood before, if it moved.
    from: Option<Key>,
}

impl RoomLine {
    pub(super) fn of(line: Line) -> Self {
        let audience = match line.event.body() {
            Some(
                Body::Msg(_)
                | Body::Join(_)
                | Body::Leave(_)
                | Body::Kick(_)
                | Body::Role(_)
                | Body::Topic(_)
                | Body::Keep(_),
            ) => Some(Audience::Room),
            Some(Body::Direct(body)) => Some(Audience::Direct(line.event.actor, body.to)),
            Some(
                Body::Boot(_)
                | Body::RoomCreate(_)
                | Body::Nick(_)
                | Body::Mark(_)
                | Body::Floor(_),
            )
            | None => None,
        };
        Self { line, audience, from: None }
    }
}

impl Replica {
    /// An event is on the disk: it is shown, remembered, and acted upon.
    pub(crate) fn on_durable(&mut self, now: Now, entry: &Entry, outcome: Outcome) {
        let event = &entry.event;
        let line = Line { origin: entry.log.origin, event: event.clone() };
        if let Some((identity, known)) = known_of(&line) {
            self.sessions.mids.note(identity, known);
        }
        let from = match outcome {
            Outcome::Alias { of } => {
                // The line is there, in its place.
                self.sessions.recent.alias(of, line.key());
                return;
            }
            Outcome::Below => return, // it is gone already
            Outcome::Moved { from } => Some(from),
            Outcome::New | Outcome::NoMessage => None,
        };
        let shown = RoomLine { from, ..RoomLine::of(line) };
        match shown.audience {
            Some(Audience::Room) => {
                let ids = self.sessions.in_room.get(&event.room);
                let ids: Vec<SessionId> = ids.into_iter().flatten().copied().collect();
                self.show(now, ids, &shown);
            }
            Some(Audience::Direct(from, to)) => {
                let mut ids = self.direct_sessions(from);
                if to != from {
                    ids.extend(self.direct_sessions(to));
                }
                self.show(now, ids, &shown);
            }
            None => {}
        }
        if let Some(audience) = shown.audience {
            self.sessions.recent.push(shown.line.clone(), audience, from);
        }
        self.act(now, entry.log, &shown.line);
    }

    fn direct_sessions(&self, account: AccountId) -> Vec<SessionId> {
        let takes = |id: &&SessionId| self.sessions.all.get(id).is_some_and(|s| s.direct);
        self.sessions.of.get(&account).into_iter().flatten().filter(takes).copied().collect()
    }

    /// What an event does to sessions besides being shown.
    fn act(&mut self, now: Now, log: Log, line: &Line) {
        let event = &line.event;
        match event.body() {
            Some(Body::Kick(kick)) => {
                let whom = (event.room, kick.account);
                let coming = self.sessions.kicking.get(&whom);
                if log == self.own_log() && coming.is_some_and(|kick| kick.seq <= event.seq) {
                    self.sessions.kicking.remove(&whom);
                }
                let why = ClosedWhy::Kicked { by: kick.nick, reason: kick.reason };
                // What counts is whether he is out now: a kick that arrives late must not close what
                // he joined after it, nor is one evaded by what a client says of when it opened.
                let out = matches!(
                    self.rooms.membership(event.room, kick.account),
                    Some((_, Membership::Kicked { .. }))
                );
                if out && !bug!(KickedHears) {
                    self.close_rooms(event.room, kick.account, None, &why);
                }
            }
            Some(Body::Leave(_)) => {
                self.close_rooms(event.room, event.actor, Some(event.hlc), &ClosedWhy::Left);
            }
            Some(Body::Floor(_)) => self.on_floor(now),
            Some(Body::RoomCreate(_)) => {
                self.sessions.creating.remove(&event.room);
            }
            Some(Body::Nick(_)) => {
                // Shown to everybody who shares a room with the account.
                let account = event.actor;
                let shares = |room: &RoomId| {
                    self.rooms.is_member(*room, account)
                        || !self
                            .presence
                            .servers(account, Some(*room), &self.config.me.slot)
                            .is_empty()
                };
                let ids: std::collections::BTreeSet<SessionId> = self
                    .sessions
                    .in_room
                    .iter()
                    .filter(|(room, _)| shares(room))
                    .flat_map(|(_, ids)| ids.iter().copied())
                    .collect();
                let line = Line { origin: log.origin, event: event.clone() };
                let shown = RoomLine { line, audience: Some(Audience::Room), from: None };
                self.show(now, ids.into_iter().collect(), &shown);
            }
            _ => {}
        }
    }

    /// Closes a room in the sessions of an account: all, or those that opened it before `before`.
    fn close_rooms(
        &mut self,
        room: RoomId,
        account: AccountId,
        before: Option<Hlc>,
        why: &ClosedWhy,
    ) {
        let of = self.sessions.of.get(&account);
        let ids: Vec<SessionId> = of.into_iter().flatten().copied().collect();
        for id in ids {
            let view = self.sessions.all.get(&id).and_then(|s| s.rooms.get(&room));
            let stays = |view: &View| before.is_some_and(|before| view.since >= before);
            if view.is_none_or(stays) {
                continue;
            }
            let Some(View { name, .. }) = self.sessions.close(id, room) else { continue };
            self.presence.leave(account, Some(room), None);
            let closed = RoomClosed { room, name, why: why.clone() };
            self.deliver_answer(vec![id], Item::RoomClosed(closed));
        }
    }

    /// An account goes by another name now: its sessions are told.
    pub(crate) fn tell_name(&mut self, account: AccountId) {
        let nick = self.name_of(account);
        let of = self.sessions.of.get(&account);
        let ids: Vec<SessionId> = of.into_iter().flatten().copied().collect();
        for id in ids {
            let Some(session) = self.sessions.all.get_mut(&id) else { continue };
            let asked = session.answers.iter().any(|(_, a)| matches!(a, Answer::Named(_)));
            if session.nick == nick || asked || !session.is_live() {
                continue;
            }
            session.nick.clone_from(&nick);
            let item = self.named(RequestId(0), account);
            self.deliver_answer(vec![id], item);
        }
    }

    pub(super) fn named(&self, request: RequestId, account: AccountId) -> Item {
        let nick = self.name_of(account);
        let wanted = self.rooms.wanted_nick(account);
        let taken = wanted.filter(|wanted| *wanted != nick).map(str::to_string);
        Item::Named(Named { request, nick, taken })
    }

    pub(super) fn name_of(&self, account: AccountId) -> String {
        self.rooms.nick(account).unwrap_or_else(|| "guest".into())
    }

    /// Shows a line to sessions that are live.
    fn show(&mut self, now: Now, ids: Vec<SessionId>, shown: &RoomLine) {
        let key = shown.line.key();
        let room = shown.line.event.room;
        if !is_kept(&shown.line.event, self.rooms.floor_ms(room)) {
            return;
        }
        let limit = self.config.limits.session_queue_bytes;
        let cost = shown.line.event.cost();
        let (mut fresh, mut late) = (Vec::new(), Vec::new());
        let mut fell_behind = false;
        for id in ids {
            let Some(session) = self.sessions.all.get_mut(&id) else { continue };
            if !session.is_live() {
                continue;
            }
            // Once a line is lost all are, until the client knows: a later line of the same log in
            // another room would raise its cursor above the lost one.
            if session.queued + cost > limit || !session.gapped.is_empty() {
                fell_behind |= session.gapped.is_empty();
                let least = session.gapped.entry(room).or_insert(key);
                *least = key.min(*least);
                continue;
            }
            session.queued += cost;
            let is_late = session.rooms.get_mut(&room).is_some_and(|view| {
                let horizon = now.wall_ms.saturating_add(self.config.timing.max_skew_ms);
                place(view, key, horizon)
            });
            if is_late { late.push(id) } else { fresh.push(id) }
        }
        if fell_behind {
            let what = "a client takes less than there is to show: it is told of a gap, and reads \
                        again";
            self.log(Severity::Info, what.into());
        }
        for (sessions, late) in [(fresh, false), (late, true)] {
            if !sessions.is_empty() {
                let told = Shown { line: shown.line.clone(), late };
                let item = match shown.from {
                    Some(from) => Item::Moved(Moved { shown: told, from }),
                    None => Item::Event(told),
                };
                self.say(Output::Deliver { sessions, item: Arc::new(item), cost });
            }
        }
    }

    /// Shows a line to one session, attached or attaching, if it is for it.
    pub(super) fn show_to(&mut self, now: Now, id: SessionId, shown: &RoomLine) {
        let Some(session) = self.sessions.all.get_mut(&id) else { return };
        let room = shown.line.event.room;
        let sees = match shown.audience {
            Some(Audience::Room) => session.rooms.contains_key(&room),
            Some(Audience::Direct(from, to)) => {
                session.direct && [from, to].contains(&session.account)
            }
            None => false,
        };
        if !sees {
            return;
        }
        let phase = std::mem::replace(&mut session.phase, Phase::Live);
        self.show(now, vec![id], shown);
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.phase = phase;
        }
    }

    /// Shows a session the recent lines from a place on that its cursor does not cover; false if
    /// some of them are not kept any more.
    pub(super) fn show_from(
        &mut self,
        now: Now,
        id: SessionId,
        place: u64,
        cursor: &Vector,
    ) -> bool {
        let Some(lines) = self.sessions.recent.from(place) else { return false };
        let lines: Vec<RoomLine> = lines
            .filter(|kept| !kept.is_covered(cursor))
            .map(|kept| RoomLine {
                line: kept.line.clone(),
                audience: Some(kept.audience),
                from: kept.from,
            })
            .collect();
        for line in lines {
            self.show_to(now, id, &line);
        }
        true
    }

    /// Queues an answer once the session's own events before it are durable and shown.
    pub(super) fn answer(&mut self, id: SessionId, item: Item) {
        self.answer_later(id, Answer::Item(item));
    }

    pub(super) fn answer_later(&mut self, id: SessionId, answer: Answer) {
        let durable = self.broadcast.durable().upto(self.own_log());
        let Some(session) = self.sessions.all.get_mut(&id) else { return };
        if session.answers.is_empty() && session.barrier <= durable {
            self.give(id, answer);
            return;
        }
        session.held_bytes += answer_cost(&answer);
        session.answers.push_back((session.barrier, answer));
        self.sessions.blocked.insert(id);
        self.check_held(id);
    }

    /// A session that makes more answers than it takes is cut off.
    fn check_held(&mut self, id: SessionId) {
        let limit = answers_max(&self.config.limits);
        if self.sessions.all.get(&id).is_some_and(|s| s.queued + s.held_bytes > limit) {
            self.cut_off(id);
        }
    }

    fn cut_off(&mut self, id: SessionId) {
        self.log(Severity::Warn, format!("cut off session {}: it does not read", id.0));
        self.end_session(id, None);
        self.say(Output::CloseSession(id));
    }

    /// Delivers what proves that the client has all that came before it in a log. While lines are
    /// being dropped that would be wrong: it waits until the client was told of the gap.
    pub(super) fn deliver_proof(&mut self, id: SessionId, item: Item) {
        let Some(session) = self.sessions.all.get_mut(&id) else { return };
        if session.gapped.is_empty() {
            self.deliver_answer(vec![id], item);
            return;
        }
        session.held_bytes += cost_of(&item);
        session.proofs.push_back(item);
        self.check_held(id);
    }

    fn give(&mut self, id: SessionId, answer: Answer) {
        let item = match answer {
            Answer::Item(item) => item,
            Answer::Named(request) => {
                let Some(account) = self.sessions.all.get(&id).map(|s| s.account) else { return };
                let nick = self.name_of(account);
                if let Some(session) = self.sessions.all.get_mut(&id) {
                    session.nick = nick;
                }
                self.named(request, account)
            }
        };
        self.deliver_answer(vec![id], item);
    }

    /// Gives the answers whose time has come, and goes on with what waited behind them.
    pub(crate) fn release(&mut self, now: Now) {
        let durable = self.broadcast.durable().upto(self.own_log());
        let blocked: Vec<SessionId> = self.sessions.blocked.iter().copied().collect();
        for id in blocked {
            self.advance(now, id);
            while let Some(session) = self.sessions.all.get_mut(&id)
                && session.answers.front().is_some_and(|(barrier, _)| *barrier <= durable)
                && let Some((_, answer)) = session.answers.pop_front()
            {
                session.held_bytes -= answer_cost(&answer);
                self.give(id, answer);
            }
            self.pump(now, id);
        }
    }

    /// Delivers an item that must not be lost. A session that asks and does not read is cut off.
    pub(crate) fn deliver_answer(&mut self, mut ids: Vec<SessionId>, item: Item) {
        let cost = cost_of(&item);
        let limit = answers_max(&self.config.limits);
        let mut over = Vec::new();
        ids.retain(|id| {
            let Some(session) = self.sessions.all.get_mut(id) else { return false };
            if session.phase == Phase::Closing {
                return false;
            }
            session.queued += cost;
            let fits = session.queued + session.held_bytes <= limit;
            if !fits {
                over.push(*id);
            }
            fits
        });
        if !ids.is_empty() {
            self.say(Output::Deliver { sessions: ids, item: Arc::new(item), cost });
        }
        for id in over {
            self.cut_off(id);
        }
    }

    /// So many bytes left for a client: there may be room to say what it lost.
    pub(crate) fn on_drained(&mut self, id: SessionId, bytes: usize) {
        let limit = self.config.limits.session_queue_bytes;
        let Some(session) = self.sessions.all.get_mut(&id) else { return };
        session.queued = session.queued.saturating_sub(bytes);
        if session.gapped.is_empty() || session.queued > limit / 2 {
            return;
        }
        let rooms = std::mem::take(&mut session.gapped);
        for (room, since) in rooms {
            self.tell_gap(id, room, since);
        }
        while let Some(session) = self.sessions.all.get_mut(&id)
            && let Some(proof) = session.proofs.pop_front()
        {
            session.held_bytes -= cost_of(&proof);
            self.deliver_answer(vec![id], proof);
        }
    }

    /// Says that lines of a room were left out, and how it can be read again.
    pub(super) fn tell_gap(&mut self, id: SessionId, room: RoomId, since: Key) {
        let Some(account) = self.sessions.all.get(&id).map(|session| session.account) else {
            return;
        };
        let with = self.rooms.direct_with(room, account);
        self.deliver_answer(vec![id], Item::Gap(Gap { room, since, with }));
    }

    pub(super) fn protocol_error(&mut self, id: SessionId, why: &str) {
        self.turn_away(id, super::refusal(RequestId(0), Code::Protocol, why));
        self.end_session(id, None);
    }

    pub(crate) fn own_log(&self) -> Log {
        Log::of(self.config.me.origin)
    }
}

/// Notes a line in its room; tells whether it is late there.
fn place(view: &mut View, key: Key, horizon_ms: u64) -> bool {
    let late = key.hlc.ms().saturating_add(LATE_MS) < view.newest.hlc.ms();
    // A stamp far ahead of the clock must not make all that follows late.
    if key > view.newest && key.hlc.ms() <= horizon_ms {
        view.newest = key;
    }
    late
}

/// Bytes of answers of one session, queued or held back, at most.
pub(super) const fn answers_max(limits: &Limits) -> usize {
    limits.session_queue_bytes.saturating_mul(ANSWERS_FACTOR)
}

/// Bytes of what a session's answers held back count for.
pub(super) fn held_bytes(session: &Session) -> usize {
    let answers = session.answers.iter().map(|(_, answer)| answer_cost(answer));
    answers.chain(session.proofs.iter().map(cost_of)).sum()
}

fn answer_cost(answer: &Answer) -> usize {
    match answer {
        Answer::Item(item) => cost_of(item),
        Answer::Named(_) => SMALL,
    }
}

/// Bytes an item counts for besides what it lists.
const SMALL: usize = 128;
/// Bytes of an entry of a vector on the wire, at most but for numbers beyond 2^49.
const VECTOR_ENTRY_BYTES: usize = 24;

/// Bytes an item counts for in a session's queue.
pub(super) fn cost_of(item: &Item) -> usize {
    let lines = |lines: &[Line]| lines.iter().map(|line| line.event.cost()).sum::<usize>();
    SMALL
        + match item {
            Item::Event(shown) | Item::Moved(Moved { shown, .. }) => shown.line.event.cost(),
            Item::Page(page) => lines(&page.lines),
            Item::RoomOpened(opened) => lines(&opened.lines),
            Item::Rooms(list) => list.rooms.iter().map(Piece::bytes).sum(),
            Item::Participants(list) => list.people.iter().map(Piece::bytes).sum(),
            Item::Status(status) => {
                let rooms: usize = status.rooms.iter().map(Piece::bytes).sum();
                rooms + status.vector.len() * VECTOR_ENTRY_BYTES
            }
            Item::Token(token) => token.token.len() + token.vector.len() * VECTOR_ENTRY_BYTES,
            Item::Replicated(replicated) => replicated.mids.len() * 18,
            Item::Welcome(_)
            | Item::Refused(_)
            | Item::Done(_)
            | Item::Sent(_)
            | Item::RoomClosed(_)
            | Item::Named(_)
            | Item::TopicIs(_)
            | Item::Gap(_)
            | Item::Leaving(_)
            | Item::Verified(_)
            | Item::Pong(_) => 0,
        }
}

//! The session with one server: its liveness, its clock, and what its items mean.

use std::time::Duration;

use crate::event::{Body, Event};
use crate::id::{Mid, RequestId, RoomId, Slot};
use crate::rng::Rng;
use crate::session::{
    ClosedWhy, Code, Gap, Item, Line, Moved, Moving, Named, Plain, Pong, Refused, Request,
    RoomClosed, Shown, Target, TokenBytes, check_nick,
};
use crate::time::{Key, Time};

use super::ask::{Answer, Ask};
use super::config::{Roam, Timing};
use super::io::{ClientEvent, Conn, Failure, LostWhy, MessageState, Output};
use super::outbox::Settled;
use super::{Client, Phase};

/// Clocks of servers may differ by this: a line further ahead moves nothing.
const SKEW_MAX_MS: u64 = 2000;
/// A line that was longer under way has waited in a queue.
const FRESH_MS: u64 = 1000;
/// A refused write is repeated after at least this.
const RETRY_MIN: Duration = Duration::from_millis(10);

/// What came since the attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Perhaps still what was missed, room by room: one line does not prove those before it.
    Replay,
    /// A token has come: whatever comes now is in the order of its log.
    Live,
}

/// A connection whose attach was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) conn: Conn,
    pub(super) addr: String,
    pub(super) server: Slot,
    pub(super) since: Time,
    pub(super) heard_at: Time,
    pub(super) stream: Stream,
    pub(super) detach: Option<(RequestId, Time)>,
    /// The last ping and when it left.
    pinged: Option<(RequestId, Time)>,
    pinged_at: Time,
    /// Until when the ping after a hint must be answered.
    probe_until: Option<Time>,
    pub(super) rtt: Duration,
}

impl Session {
    pub(super) fn new(now: Time, conn: Conn, addr: String, server: Slot) -> Self {
        Self {
            conn,
            addr,
            server,
            since: now,
            heard_at: now,
            stream: Stream::Replay,
            detach: None,
            pinged: None,
            pinged_at: now,
            probe_until: None,
            rtt: Duration::ZERO,
        }
    }

    fn ping_at(&self, timing: &Timing) -> Time {
        self.heard_at.max(self.pinged_at) + timing.ping
    }

    pub(super) fn next_deadline(&self, timing: &Timing) -> Time {
        let silent_at = self.heard_at + timing.silence;
        let detach = self.detach.map(|(_, until)| until);
        [self.probe_until, detach]
            .into_iter()
            .flatten()
            .fold(silent_at.min(self.ping_at(timing)), Time::min)
    }
}

/// The newest moment this client knows: the servers' clock, and the last id made from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tip {
    /// A server's unix milliseconds and when they were true.
    clock: Option<(u64, Time)>,
    last_mid: Mid,
}

impl Tip {
    pub(super) fn learn(&mut self, now: Time, clock_ms: u64, rtt: Duration) {
        let ahead = u64::try_from(rtt.as_millis() / 2).unwrap_or(0);
        self.clock = Some((clock_ms.saturating_add(ahead), now));
    }

    /// The servers' clock now: steady time since it was learnt, so that this machine's own clock
    /// may be wrong or jump.
    pub(super) fn clock_ms(&self, now: Time) -> u64 {
        let Some((ms, at)) = self.clock else { return 0 };
        ms.saturating_add(u64::try_from(now.since(at).as_millis()).unwrap_or(0))
    }

    /// An id above every one used before, as long as the servers' clocks agree.
    pub(super) fn next_mid(&self, now: Time, rng: &mut Rng) -> Mid {
        let mid = Mid::at(self.clock_ms(now), rng.bits128());
        // An id made by a clock that turned out to be far ahead is not followed. Half of what
        // servers allow: theirs may have stood still since it was learnt.
        let mad = self.last_mid.unix_ms() > mid.unix_ms().saturating_add(SKEW_MAX_MS / 2);
        if mid > self.last_mid || mad {
            return mid;
        }
        let next = Mid::new(self.last_mid.bits().saturating_add(1));
        if next.bits() & 0x3fff_ffff_ffff_ffff != 0 {
            return next;
        }
        Mid::at(self.last_mid.unix_ms().saturating_add(1), rng.bits128())
    }

    pub(super) const fn used(&mut self, mid: Mid) {
        self.last_mid = mid;
    }
}

impl Client {
    pub(super) fn on_session_timeout(&mut self, now: Time) {
        let Phase::Attached(session) = &self.phase else { return };
        let timing = &self.config.timing;
        if session.detach.is_some_and(|(_, until)| until <= now) {
            return self.finish_detach();
        }
        if session.probe_until.is_some_and(|until| until <= now) {
            return self.fail_over(now, LostWhy::Dead);
        }
        if session.heard_at + timing.silence <= now {
            return self.fail_over(now, LostWhy::Silent);
        }
        if session.ping_at(timing) <= now {
            self.ping(now);
        }
    }

    pub(super) fn ping(&mut self, now: Time) {
        let request = self.request_id();
        let Phase::Attached(session) = &mut self.phase else { return };
        session.pinged = Some((request, now));
        session.pinged_at = now;
        let conn = session.conn;
        self.send(conn, Request::Ping(Plain { request }));
    }

    /// Nothing listens at the server's port, says the kernel. Anybody can send that packet, so an
    /// attached server gets a ping and a short time to answer, and so does one that looks at an
    /// attach; a handshake gets a short time to complete.
    pub(super) fn on_hint(&mut self, now: Time, conn: Conn) {
        match &mut self.phase {
            Phase::Attached(session) if session.conn == conn && session.probe_until.is_none() => {
                let probe = self.config.timing.probe.max(session.rtt * 2);
                session.probe_until = Some(now + probe);
                self.ping(now);
            }
            Phase::Dialing { conn: dialed, probe_until, .. }
                if *dialed == conn && probe_until.is_none() =>
            {
                *probe_until = Some(now + self.config.timing.hinted);
            }
            Phase::Attaching { conn: attaching, probe_until, .. }
                if *attaching == conn && probe_until.is_none() =>
            {
                *probe_until = Some(now + self.config.timing.hinted);
                let request = self.request_id();
                self.send(conn, Request::Ping(Plain { request }));
            }
            _ => {}
        }
    }

    pub(super) fn on_attach_refused(&mut self, now: Time, refused: Refused) {
        match refused.code {
            Code::Busy | Code::NotReady | Code::ClockSkew | Code::Storage => {
                self.fail_over(now, LostWhy::Unable(refused.code, refused.reason));
            }
            Code::Invalid
            | Code::Unknown
            | Code::Forbidden
            | Code::Kicked
            | Code::BadToken
            | Code::Conflict
            | Code::BadMid
            | Code::Expired
            | Code::Protocol => {
                if let Phase::Attaching { conn, .. } = &self.phase {
                    self.outputs.push_back(Output::Hangup(*conn));
                }
                self.end(Some(Failure::Refused(refused.code, refused.reason)));
            }
        }
    }

    pub(super) fn on_leaving(&mut self, now: Time, moving: &Moving) {
        self.dialer.prefer(now, &moving.servers);
        self.fail_over(now, LostWhy::Leaving);
    }

    pub(super) fn on_session_item(&mut self, now: Time, item: Item) {
        match item {
            // A second answer to one attach: a server's mistake that harms nothing.
            Item::Welcome(_) => {}
            Item::Refused(refused) => self.on_refused(now, refused),
            Item::Done(done) => self.on_done(done),
            Item::Sent(sent) => {
                self.prove(now, sent.key);
                if let Some(to) = sent.to {
                    self.outbox.resolve(sent.mid, to);
                }
                let settled = self.outbox.sent(&sent);
                self.tell(now, settled);
            }
            Item::Replicated(replicated) => {
                for (mid, replicas) in replicated.mids {
                    let settled = self.outbox.replicated(mid, replicas);
                    self.tell(now, settled);
                }
            }
            Item::RoomOpened(opened) => self.on_room_opened(now, opened),
            Item::RoomClosed(closed) => self.on_room_closed(closed),
            Item::Event(shown) => self.on_shown(now, shown),
            Item::Moved(moved) => self.on_moved(now, moved),
            Item::Page(page) => {
                if self.rereads.expects(page.request) {
                    self.on_reread_page(now, page);
                } else {
                    self.answer(page.request, Answer::Page(page));
                }
            }
            Item::Rooms(list) => {
                self.answer_part(list.request, list.more, Answer::Rooms(list));
            }
            Item::Participants(people) => {
                self.answer_part(people.request, people.more, Answer::Who(people));
            }
            Item::Named(named) => self.on_named(named),
            Item::TopicIs(topic) => self.answer(topic.request, Answer::Topic(topic)),
            Item::Status(status) => {
                let (request, more) = (status.request, status.more);
                self.answer_part(request, more, Answer::Status(Box::new(status)));
            }
            Item::Token(token) => self.on_token(token),
            Item::Gap(gap) => self.on_gap(now, gap),
            Item::Leaving(moving) => return self.on_leaving(now, &moving),
            Item::Pong(pong) => self.on_pong(now, pong),
            // Asked without an account only.
            Item::Verified(_) => {}
        }
        self.pump(now);
    }

    /// Tells the program of a message's new state.
    fn tell(&mut self, now: Time, settled: Option<Settled>) {
        let Phase::Attached(session) = &self.phase else { return };
        let Some(settled) = settled else { return };
        let state = MessageState {
            ticket: settled.ticket,
            mid: settled.mid,
            room: settled.room,
            key: settled.key,
            level: settled.level,
            replicas: settled.replicas,
            server: session.server.clone(),
            elapsed: now.since(settled.at),
        };
        self.emit(ClientEvent::Message(state));
    }

    pub(super) fn answer(&mut self, request: RequestId, answer: Answer) {
        if let Some((ticket, _)) = self.asks.answered(request) {
            self.emit(ClientEvent::Answered { ticket, answer });
        }
    }

    /// Answers that are long come in parts.
    fn answer_part(&mut self, request: RequestId, more: bool, part: Answer) {
        if more {
            self.asks.part(request, part);
        } else {
            let whole = self.asks.whole(request, part);
            self.answer(request, whole);
        }
    }

    fn on_done(&mut self, done: Plain) {
        if let Phase::Attached(session) = &self.phase
            && session.detach.is_some_and(|(request, _)| request == done.request)
        {
            return self.finish_detach();
        }
        if let Some((ticket, ask)) = self.asks.answered(done.request) {
            self.rooms.done(&ask);
            self.emit(ClientEvent::Answered { ticket, answer: Answer::Done });
        }
    }

    fn finish_detach(&mut self) {
        if let Phase::Attached(session) = &self.phase {
            self.outputs.push_back(Output::Hangup(session.conn));
            self.end(None);
        }
    }

    fn on_named(&mut self, named: Named) {
        // What to ask for after a fail-over: the wish, so that a name that comes free is had.
        self.nick = Some(named.taken.clone().unwrap_or_else(|| named.nick.clone()));
        self.called.clone_from(&named.nick);
        if named.request == RequestId(0) {
            self.emit(ClientEvent::Named { nick: named.nick, taken: named.taken });
        } else {
            self.answer(named.request, Answer::Named(named));
        }
    }

    fn on_pong(&mut self, now: Time, pong: Pong) {
        let Phase::Attached(session) = &mut self.phase else { return };
        let Some((request, at)) = session.pinged else { return };
        // Pings are answered in order: the answer to an older one proves nothing about a probe.
        if pong.request < request {
            return;
        }
        let sample = now.since(at);
        session.rtt = if session.rtt.is_zero() { sample } else { (session.rtt * 7 + sample) / 8 };
        session.pinged = None;
        session.probe_until = None;
        self.tip.learn(now, pong.clock_ms, sample);
    }

    fn on_token(&mut self, token: TokenBytes) {
        self.token = token.token;
        let Phase::Attached(session) = &mut self.phase else { return };
        if self.rereads.is_empty() {
            session.stream = Stream::Live;
            self.base.join(&token.vector);
            self.cursor.join(&token.vector);
            self.rooms.covered();
        } else {
            self.rereads.hold(token.vector);
        }
    }

    fn on_refused(&mut self, now: Time, refused: Refused) {
        let only = matches!(self.config.roam, Roam::Only(_));
        match refused.code {
            Code::Busy if refused.request != RequestId(0) => {
                let wait = RETRY_MIN.max(Duration::from_millis(refused.retry_ms.into()));
                let again = now + wait;
                if !(self.outbox.busy(refused.request, again)
                    || self.rereads.busy(refused.request, again))
                {
                    self.asks.busy(refused.request, again);
                }
            }
            Code::BadMid if self.outbox.is_past(refused.request, self.tip.clock_ms(now)) => {
                self.on_refused_for_good(refused);
            }
            Code::BadMid if self.outbox.expects(refused.request) => {
                // What this client took for the server's clock is not.
                if !self.outbox.is_paused() {
                    self.ping(now);
                }
                if let Some(ticket) = self.outbox.too_early(now, refused.request) {
                    self.emit(ClientEvent::Failed { ticket, failure: Failure::TimedOut });
                }
            }
            Code::NotReady if only && refused.request != RequestId(0) => {
                self.asks.busy(refused.request, now + self.config.timing.backoff_min);
            }
            Code::ClockSkew | Code::Storage if only => self.on_refused_for_good(refused),
            Code::Busy | Code::NotReady | Code::ClockSkew | Code::Storage => {
                self.fail_over(now, LostWhy::Unable(refused.code, refused.reason));
            }
            Code::BadToken | Code::Protocol if refused.request == RequestId(0) => {
                if let Phase::Attached(session) = &self.phase {
                    self.outputs.push_back(Output::Hangup(session.conn));
                }
                self.end(Some(Failure::Refused(refused.code, refused.reason)));
            }
            Code::Invalid
            | Code::Unknown
            | Code::Forbidden
            | Code::Kicked
            | Code::BadToken
            | Code::Conflict
            | Code::BadMid
            | Code::Expired
            | Code::Protocol => self.on_refused_for_good(refused),
        }
    }

    fn on_refused_for_good(&mut self, refused: Refused) {
        let Refused { request, code, reason, .. } = refused;
        if request == RequestId(0) {
            self.emit(ClientEvent::Notice(reason));
        } else if self.outbox.expects(request) {
            if let Some((ticket, doubtful)) = self.outbox.refused(request) {
                let failure = Failure::refused(code, reason, doubtful);
                self.emit(ClientEvent::Failed { ticket, failure });
            }
        } else if self.rereads.expects(request) {
            let what = self.rereads.give_up(request);
            self.emit(ClientEvent::Notice(format!(
                "some lines of {what} could not be read again: {reason}"
            )));
            self.thaw();
        } else {
            let doubtful = self.asks.is_doubtful(request);
            match self.asks.taken(request) {
                Some((Some(ticket), _)) => {
                    let failure = Failure::refused(code, reason, doubtful);
                    self.emit(ClientEvent::Failed { ticket, failure });
                }
                // This client's own try to open a room again after a fail-over.
                Some((None, Ask::Open { room, .. })) => self.on_room_closed(RoomClosed {
                    room: RoomId::public(&room),
                    name: room,
                    why: ClosedWhy::Kicked { by: String::new(), reason },
                }),
                _ => {}
            }
        }
    }

    pub(super) fn on_room_closed(&mut self, closed: RoomClosed) {
        self.rereads.drop_room(closed.room);
        self.thaw();
        if self.rooms.close(closed.room) {
            self.emit(ClientEvent::RoomClosed(closed));
        }
    }

    fn on_gap(&mut self, now: Time, gap: Gap) {
        // None: of a room just closed.
        let target = self.rooms.target(gap.room).or(gap.with.map(Target::Account));
        if let Some(target) = target {
            // What proved less than it seemed is taken back.
            self.cursor.clone_from(&self.base);
            self.rereads.start(gap.room, target, gap.since);
            self.pump(now);
        }
    }

    fn on_shown(&mut self, now: Time, shown: Shown) {
        let line = shown.line;
        let (event, key) = (line.event.clone(), line.key());
        self.note_direct(&event);
        self.note_name(&event, key);
        self.show(now, line);
        self.prove(now, key);
    }

    /// A message has another place. It is news only to a client that could not be told it in the
    /// old one; the others may have forgotten its identity.
    fn on_moved(&mut self, now: Time, moved: Moved) {
        if self.base.covers(moved.from.event()) {
            self.prove(now, moved.shown.line.key());
        } else {
            self.on_shown(now, moved.shown);
        }
    }

    /// A server tells the events of a log in their order, so this one proves those before it,
    /// unless lines may have been left out: while missed ones are replayed room by room, while a
    /// room is read again, and when it comes so late that this client is slow.
    fn prove(&mut self, now: Time, key: Key) {
        let live =
            matches!(&self.phase, Phase::Attached(session) if session.stream == Stream::Live);
        let fresh = key.hlc.ms().saturating_add(FRESH_MS) > self.tip.clock_ms(now);
        if live && fresh && self.rereads.is_empty() {
            let id = key.event();
            self.cursor.raise(id.log, id.seq);
        }
    }

    /// Tells a line, unless it was told before.
    pub(super) fn show(&mut self, now: Time, line: Line) {
        // A server that lacked it when this client came now has it too.
        if self.rooms.was_told(line.event.room, line.key().event(), &self.attached_with) {
            return;
        }
        let horizon = self.tip.clock_ms(now).saturating_add(SKEW_MAX_MS);
        if let Some(event) = self.rooms.show(line, horizon, &self.base) {
            self.emit(event);
        }
    }

    /// Learns whose direct messages a room holds, and whom a nick in the outbox meant.
    fn note_direct(&mut self, event: &Event) {
        let (Some(me), Some(Body::Direct(body))) = (self.account, direct_body(event)) else {
            return;
        };
        let other = if event.actor == me { body.to } else { event.actor };
        self.rooms.note_direct(event.room, other);
        if event.actor == me {
            self.outbox.resolve(event.mid, body.to);
        }
    }
}

impl Client {
    /// The name by which a server greets this session.
    pub(super) fn on_called(&mut self, nick: String) {
        match &self.nick {
            Some(wish) if *wish != nick && self.called != nick => {
                let taken = Some(wish.clone());
                self.emit(ClientEvent::Named { nick: nick.clone(), taken });
            }
            Some(_) => {}
            // A name with a mark was given instead of another one: nobody may ask for it.
            None => self.nick = check_nick(&nick).is_ok().then(|| nick.clone()),
        }
        self.called = nick;
    }

    /// Another session of the account changed the name: this one keeps to it after a fail-over.
    fn note_name(&mut self, event: &Event, key: Key) {
        if event.kind != super::rooms::KIND_NICK || Some(event.actor) != self.account {
            return;
        }
        if let Some(Body::Nick(body)) = event.body()
            && self.named_at.is_none_or(|at| at < key)
        {
            self.named_at = Some(key);
            self.nick = Some(body.nick);
        }
    }
}

/// Decodes direct messages alone: other bodies are the program's to read.
fn direct_body(event: &Event) -> Option<Body> {
    (event.kind == super::rooms::KIND_DIRECT).then(|| event.body()).flatten()
}

//! A client as a pure state machine: it holds what its program said and saw, and finds a server.
//!
//! It decides which server to attach to and when to leave it (a silent one after two seconds, one
//! whose process is gone after a probe), keeps every message until it is replicated and sends it
//! again under the same [`Mid`](crate::id::Mid) after a fail-over, and tells its program each line
//! once: by identity within what it remembers, by its cursor before that. It leaves to its driver
//! the connections, the clock and the files, and to its program what to show.
//!
//! The driver's contract: call [`Client::handle`] for what happened and [`Client::handle_timeout`]
//! when [`Client::next_deadline`] has come (or at any time); after each call drain
//! [`Client::poll_output`] and do what it says, in order. The first `handle_timeout` dials.

mod ask;
mod config;
mod dial;
mod io;
mod journal;
mod outbox;
mod reread;
mod rooms;
mod seen;
mod session;

use std::collections::VecDeque;
use std::time::Duration;

use crate::id::{AccountId, RequestId, RoomId, Slot};
use crate::rng::Rng;
use crate::session::{Attach, CLIENT_MINOR, Code, Item, Plain, Request, ServerAddr, Welcome};
use crate::time::{Key, Time};
use crate::vector::Vector;

pub use ask::{Answer, Ask};
pub use config::{Config, Roam, Timing};
pub use io::{
    Attached, ClientEvent, Command, Conn, Failure, Input, LostWhy, MessageState, Output, Ticket,
};
pub use journal::{Journal, Note, Waiting};
pub use outbox::{DRAFTS_MAX, WINDOW_MAX};

use ask::Asks;
use dial::Dialer;
use outbox::{Outbox, Step};
use reread::Rereads;
use rooms::Rooms;
use session::{Session, Tip};

/// Where the client stands with its server.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection: the next dial is the dialer's to time.
    Resting,
    /// Waits for a connection.
    Dialing { conn: Conn, addr: String, until: Time, probe_until: Option<Time> },
    /// Waits for the answer to the attach.
    Attaching { conn: Conn, addr: String, until: Time, probe_until: Option<Time> },
    /// Talking.
    Attached(Session),
    /// For good: detached, or refused for a reason that no server will see differently.
    Ended,
}

/// A client. See the module.
#[derive(Clone, Debug)]
pub struct Client {
    config: Config,
    rng: Rng,
    phase: Phase,
    last_conn: u64,
    last_request: u64,
    dialer: Dialer,
    account: Option<AccountId>,
    token: Vec<u8>,
    nick: Option<String>,
    /// The newest change of that name seen.
    named_at: Option<Key>,
    /// The name that servers gave, as the program was told.
    called: String,
    /// Everything told in the open rooms, as far as lines and answers prove it: what a server must
    /// have before it takes this session over, and need not tell again.
    cursor: Vector,
    /// The same as far as tokens prove it. A line proves less when a slow client's lines are being
    /// dropped: those of its log in another room, dropped before it, are announced after it.
    base: Vector,
    /// What tokens proved when this server was asked to take the session over.
    attached_with: Vector,
    rooms: Rooms,
    outbox: Outbox,
    asks: Asks,
    rereads: Rereads,
    tip: Tip,
    /// Since when the program has been told that it is without a server.
    lost_at: Option<Time>,
    /// When the machine last ran: a long gap means that the whole client stood still.
    ran_at: Time,
    outputs: VecDeque<Output>,
}

impl Client {
    /// A client that knows these servers; `seed` drives its message ids and its jitter.
    pub fn new(config: Config, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let dialer = Dialer::new(&config, &mut rng);
        let mut outbox = Outbox::new();
        let mut tip = Tip::default();
        if let Some(journal) = &config.journal {
            let newest = outbox.restore(Time::default(), journal);
            newest.into_iter().for_each(|mid| tip.used(mid));
        }
        Self {
            phase: Phase::Resting,
            last_conn: 0,
            last_request: 0,
            dialer,
            account: None,
            token: config.token.clone(),
            nick: config.nick.clone(),
            named_at: None,
            called: String::new(),
            cursor: Vector::new(),
            base: Vector::new(),
            attached_with: Vector::new(),
            rooms: Rooms::new(config.remembered),
            outbox,
            asks: Asks::default(),
            rereads: Rereads::default(),
            tip,
            lost_at: None,
            ran_at: Time::default(),
            outputs: VecDeque::new(),
            rng,
            config,
        }
    }

    /// The newest token: whoever keeps it is this account.
    pub fn token(&self) -> &[u8] {
        &self.token
    }

    /// What was shown of the client's rooms.
    pub const fn cursor(&self) -> &Vector {
        &self.cursor
    }

    /// The account, once a server has said it.
    pub const fn account(&self) -> Option<AccountId> {
        self.account
    }

    /// The server attached to.
    pub const fn server(&self) -> Option<&Slot> {
        match &self.phase {
            Phase::Attached(session) => Some(&session.server),
            _ => None,
        }
    }

    /// The servers known, those of the last `Welcome` with their names.
    pub fn servers(&self) -> Vec<ServerAddr> {
        self.dialer.named()
    }

    /// A room's name by its id, while it is open.
    pub fn room_name(&self, room: RoomId) -> Option<&str> {
        self.rooms.name(room)
    }

    /// A room's name by its id, while it is open and for some time after.
    pub fn known_room_name(&self, room: RoomId) -> Option<&str> {
        self.rooms.known_name(room)
    }

    /// How many more messages fit the window of unanswered ones; a [`Command::Send`] beyond a
    /// window more is refused as busy.
    pub fn sends_free(&self) -> usize {
        WINDOW_MAX.saturating_sub(self.outbox.unanswered())
    }

    /// Messages not answered yet, and messages not known to be replicated yet.
    pub fn outstanding(&self) -> (usize, usize) {
        (self.outbox.unanswered(), self.outbox.len())
    }

    /// Whether the client has ended for good.
    pub const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes in what has happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.woke(now);
        match input {
            Input::Command(command) => self.on_command(now, command),
            Input::Connected(conn) => self.on_connected(now, conn),
            Input::Disconnected(conn, why) => self.on_disconnected(now, conn, why),
            Input::Stranger(conn, why) => self.on_stranger(now, conn, why),
            Input::Heard(conn) => {
                if let Some(session) = self.session(conn) {
                    session.heard_at = now;
                }
            }
            Input::Item(conn, item) => self.on_item(now, conn, item),
            Input::Hint(conn) => self.on_hint(now, conn),
            Input::Kept(batch) => {
                let safe = self.outbox.on_kept(batch);
                if !safe.is_empty() {
                    self.emit(ClientEvent::Kept(safe));
                }
                self.pump(now);
            }
            Input::Unkept(why) => {
                self.outbox.on_unkept();
                self.emit(ClientEvent::Unkept(why));
                self.pump(now);
            }
        }
        self.write_down();
    }

    /// Hands over what is to be kept.
    fn write_down(&mut self) {
        if let Some((batch, notes)) = self.outbox.take_notes() {
            self.outputs.push_back(Output::Keep(batch, notes));
        }
    }

    /// Fires every timer due at `now`. Calling early does nothing.
    pub fn handle_timeout(&mut self, now: Time) {
        self.woke(now);
        match &self.phase {
            Phase::Resting => self.dial(now),
            Phase::Dialing { until, probe_until, .. }
            | Phase::Attaching { until, probe_until, .. } => {
                if probe_until.is_some_and(|until| until <= now) {
                    self.fail_over(now, LostWhy::Dead);
                } else if *until <= now {
                    self.fail_over(now, LostWhy::Silent);
                }
            }
            Phase::Attached(_) => self.on_session_timeout(now),
            Phase::Ended => {}
        }
        for ticket in self.asks.expire(now) {
            self.emit(ClientEvent::Failed { ticket, failure: Failure::TimedOut });
        }
        self.pump(now);
        self.write_down();
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let phase = match &self.phase {
            Phase::Resting => self.dialer.next_at(),
            Phase::Dialing { until, probe_until, .. }
            | Phase::Attaching { until, probe_until, .. } => {
                Some(probe_until.map_or(*until, |probe| probe.min(*until)))
            }
            Phase::Attached(session) => [
                Some(session.next_deadline(&self.config.timing)),
                self.outbox.next_deadline(),
                self.asks.retry_at(),
                self.rereads.retry_at(),
            ]
            .into_iter()
            .flatten()
            .min(),
            Phase::Ended => return None,
        };
        [phase, self.asks.deadline()].into_iter().flatten().min()
    }

    fn emit(&mut self, event: ClientEvent) {
        self.outputs.push_back(Output::Emit(event));
    }

    fn request_id(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    /// The session, if `conn` is it and not an older one whose last inputs are still coming.
    fn session(&mut self, conn: Conn) -> Option<&mut Session> {
        match &mut self.phase {
            Phase::Attached(session) if session.conn == conn => Some(session),
            _ => None,
        }
    }

    /// Silence is not held against a server while this whole process stood still (suspended, or
    /// its program was slow): the machine runs at least every ping while it is attached.
    fn woke(&mut self, now: Time) {
        let stood_still = now.since(self.ran_at) > self.config.timing.silence / 2;
        self.ran_at = now;
        if let (true, Phase::Attached(session)) = (stood_still, &mut self.phase) {
            session.heard_at = now;
            self.ping(now);
        }
    }

    fn on_command(&mut self, now: Time, command: Command) {
        match command {
            Command::Send { ticket, to, text, level } => {
                if matches!(self.phase, Phase::Ended) {
                    return self.emit(ClientEvent::Failed { ticket, failure: Failure::Ended });
                }
                if let Err(failure) = self.outbox.submit(now, ticket, to, text, level) {
                    return self.emit(ClientEvent::Failed { ticket, failure });
                }
            }
            Command::Ask { ticket, ask } => {
                if matches!(self.phase, Phase::Ended) {
                    return self.emit(ClientEvent::Failed { ticket, failure: Failure::Ended });
                }
                let request = self.request_id();
                let deadline = now + self.config.timing.patience;
                if let Err(failure) = self.asks.submit(request, ticket, ask, deadline) {
                    return self.emit(ClientEvent::Failed { ticket, failure });
                }
            }
            Command::Detach => return self.on_detach(now),
        }
        self.pump(now);
    }

    fn on_detach(&mut self, now: Time) {
        let request = self.request_id();
        let mut until = now + self.config.timing.detach_wait;
        match &mut self.phase {
            Phase::Attached(session) => {
                until = until + session.rtt * 2;
                session.detach = Some((request, until));
                let conn = session.conn;
                self.send(conn, Request::Detach(Plain { request }));
            }
            Phase::Dialing { conn, .. } | Phase::Attaching { conn, .. } => {
                let conn = *conn;
                self.outputs.push_back(Output::Hangup(conn));
                self.end(None);
            }
            Phase::Resting => self.end(None),
            Phase::Ended => {}
        }
    }

    /// Ends for good; everything still open is told so.
    fn end(&mut self, why: Option<Failure>) {
        self.phase = Phase::Ended;
        for (ticket, doubtful) in self.asks.drain().into_iter().chain(self.outbox.drain()) {
            let failure = match why.clone().unwrap_or(Failure::Ended) {
                Failure::Refused(code, reason) => Failure::refused(code, reason, doubtful),
                other => other,
            };
            self.emit(ClientEvent::Failed { ticket, failure });
        }
        self.emit(ClientEvent::Ended(why));
    }

    fn dial(&mut self, now: Time) {
        let Some(addr) = self.dialer.next(now) else { return };
        self.last_conn += 1;
        let conn = Conn(self.last_conn);
        let until = now + self.dialer.limit(&addr, self.config.timing.dial);
        self.outputs.push_back(Output::Dial(conn, addr.clone()));
        self.phase = Phase::Dialing { conn, addr, until, probe_until: None };
    }

    fn on_connected(&mut self, now: Time, conn: Conn) {
        match &self.phase {
            Phase::Dialing { conn: dialed, addr, .. } if *dialed == conn => {
                let until = now + self.dialer.limit(addr, self.config.timing.attach);
                let addr = addr.clone();
                self.phase = Phase::Attaching { conn, addr, until, probe_until: None };
                self.attached_with.clone_from(&self.base);
                let attach = self.attach();
                self.send(conn, Request::Attach(attach));
            }
            // Hung up meanwhile: the driver may have connected before it read that.
            _ => {}
        }
    }

    fn attach(&self) -> Attach {
        Attach {
            minor: CLIENT_MINOR,
            token: self.token.clone(),
            nick: self.nick.clone(),
            cursor: self.cursor.clone(),
            rooms: self.rooms.opened(),
            direct: self.config.direct,
        }
    }

    fn on_disconnected(&mut self, now: Time, conn: Conn, why: String) {
        let current = match &self.phase {
            Phase::Dialing { conn, .. } | Phase::Attaching { conn, .. } => *conn,
            Phase::Attached(session) => session.conn,
            Phase::Resting | Phase::Ended => return,
        };
        if current == conn {
            self.fail_over(now, LostWhy::Closed(why));
        }
    }

    /// A client that was attached before goes on trying: whoever answers now in the place of all
    /// servers will not for ever. One that never was has the wrong fingerprint or addresses.
    fn on_stranger(&mut self, now: Time, conn: Conn, why: String) {
        let addr = match &self.phase {
            Phase::Dialing { conn: dialed, addr, .. } if *dialed == conn => addr.clone(),
            _ => return,
        };
        self.dialer.stranger(&addr);
        if self.account.is_some() || !self.dialer.all_strangers() {
            self.fail_over(now, LostWhy::Closed(why));
            self.dialer.stranger(&addr);
            return;
        }
        self.outputs.push_back(Output::Hangup(conn));
        let why = format!(
            "none of the servers given proves to be of this cluster ({why}); the URL or the folder \
             is of another cluster: take the one that this cluster's `up` printed"
        );
        self.end(Some(Failure::Refused(Code::Invalid, why)));
    }

    /// Gives this server up and dials the next one, at once if one is left to try.
    fn fail_over(&mut self, now: Time, why: LostWhy) {
        match std::mem::replace(&mut self.phase, Phase::Resting) {
            Phase::Dialing { conn, addr, .. } | Phase::Attaching { conn, addr, .. } => {
                self.outputs.push_back(Output::Hangup(conn));
                self.dialer.failed(now, &addr, &mut self.rng);
                if !matches!(why, LostWhy::Leaving) {
                    self.emit(ClientEvent::Unreachable { addr, why });
                }
            }
            Phase::Attached(session) => {
                self.outputs.push_back(Output::Hangup(session.conn));
                if session.detach.is_some() {
                    return self.end(None);
                }
                let short = now.since(session.since) < self.config.timing.backoff_max;
                self.dialer.left(now, &session.addr, short, &mut self.rng);
                self.lost_at = Some(now);
                if !matches!(why, LostWhy::Leaving) {
                    self.emit(ClientEvent::Lost { server: session.server, why });
                }
                self.outbox.lost();
                self.asks.lost();
                self.rereads.lost();
            }
            Phase::Resting => {}
            Phase::Ended => {
                self.phase = Phase::Ended;
                return;
            }
        }
        self.dial(now);
    }

    fn send(&mut self, conn: Conn, request: Request) {
        self.outputs.push_back(Output::Request(conn, request));
    }

    fn on_welcome(&mut self, now: Time, conn: Conn, welcome: Welcome) {
        let Phase::Attaching { conn: attaching, addr, .. } = &self.phase else { return };
        if *attaching != conn {
            return;
        }
        let addr = addr.clone();
        if let Some(journal) = self.config.journal.take() {
            if journal.account().is_some_and(|of| of != welcome.account) && !journal.is_empty() {
                self.outputs.push_back(Output::Hangup(conn));
                let why = "the messages left from last time are another account's".to_owned();
                return self.end(Some(Failure::Refused(Code::Conflict, why)));
            }
            if journal.account() != Some(welcome.account) {
                self.outbox.note_account(welcome.account);
            }
        }
        self.account = Some(welcome.account);
        self.token = welcome.token;
        self.tip.learn(now, welcome.clock_ms, Duration::ZERO);
        self.dialer.welcome(&addr, &welcome.server, &welcome.servers, welcome.account);
        self.phase = Phase::Attached(Session::new(now, conn, addr.clone(), welcome.server.clone()));
        let outage = self.lost_at.take().map(|at| now.since(at));
        self.emit(ClientEvent::Attached(Attached {
            server: welcome.server,
            addr,
            account: welcome.account,
            nick: welcome.nick.clone(),
            stale: welcome.stale,
            outage,
        }));
        self.on_called(welcome.nick);
        for closed in welcome.closed {
            self.on_room_closed(closed);
        }
        for (room, last, mode) in self.rooms.welcome(&welcome.rooms) {
            // Neither open nor closed here: this server has not heard of the room yet.
            let request = self.request_id();
            let deadline = now + self.config.timing.patience;
            self.asks.again(request, Ask::Open { room, last, mode }, deadline);
        }
        // The round trip is known before a hint may ask for it.
        self.ping(now);
        self.pump(now);
    }

    /// Sends what may be sent: requests first, then messages in their order.
    fn pump(&mut self, now: Time) {
        let Phase::Attached(session) = &self.phase else { return };
        if session.detach.is_some() {
            return;
        }
        let conn = session.conn;
        for request in self.asks.due(now) {
            self.send(conn, request);
        }
        for room in self.rereads.due(now) {
            let request = self.request_id();
            if let Some(history) = self.rereads.ask(room, request) {
                self.send(conn, Request::History(history));
            }
        }
        while let Some(step) = self.outbox.next_step(now) {
            match step {
                Step::Name => {
                    let mid = self.tip.next_mid(now, &mut self.rng);
                    self.tip.used(mid);
                    self.outbox.name(mid);
                }
                Step::Send => {
                    let request = self.request_id();
                    let Some(send) = self.outbox.next(now, request) else { break };
                    self.send(conn, Request::Send(send));
                }
            }
        }
    }

    fn on_item(&mut self, now: Time, conn: Conn, item: Item) {
        if let Phase::Attaching { conn: attaching, probe_until, .. } = &mut self.phase {
            if *attaching == conn {
                // Whatever it says, it is there.
                *probe_until = None;
                match item {
                    Item::Welcome(welcome) => self.on_welcome(now, conn, welcome),
                    Item::Refused(refused) => self.on_attach_refused(now, refused),
                    Item::Leaving(moving) => self.on_leaving(now, &moving),
                    _ => {}
                }
            }
            return;
        }
        let Some(session) = self.session(conn) else { return };
        session.heard_at = now;
        self.on_session_item(now, item);
    }
}

#[cfg(test)]
mod tests;

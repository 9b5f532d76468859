//! The loop around the replica: one task owns it, and nothing in the loop waits for a peer, a
//! client or a disk.
//!
//! A tick takes what has come, up to 64 KiB or 5 ms, hands each input to the replica, flushes it,
//! and makes one call for each output. At low load it begins with the first input; at high load
//! things gather for some milliseconds first: see [`pace`]. Results come back through [`inbox`].

mod disk;
mod encode;
pub(crate) mod inbox;
mod pace;
pub(crate) mod queue;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chatty_core::frame::{Frame as CoreFrame, Ping};
use chatty_core::id::{LinkId, Origin, SessionId, Slot};
use chatty_core::io::{Input, Output, Severity, Standing};
use chatty_core::replica::Replica;
use chatty_core::store::Store;
use chatty_core::time::{Now, Time};

use tokio::sync::watch;

use crate::backup::Held;
use crate::close::{self, DONE, DUPLICATE, DUPLICATE_DISK, Lost, REFUSED};
use crate::links::{Admission, Contests, Links, Ready, duplicate};
use crate::watchdog::{Doing, Pulse, TURN};
use disk::Disk;
use encode::{TooLong, encode};
use inbox::{Ask, Doors, Event, Inbox};
use pace::Pace;
use queue::{Frame, Hold, Queue};

/// A tick takes inputs up to this many bytes…
const TICK_BYTES: usize = 64 * 1024;
/// … or for this long.
const TICK_TIME: Duration = Duration::from_millis(5);
/// From the order to stop until clients have been told where to go and all is written.
const STOP_LIMIT: Duration = Duration::from_millis(1000);
/// Of that, the time for what was sent before to be written and acknowledged.
const ACK_LIMIT: Duration = Duration::from_millis(250);
/// The same line of the replica is logged once in this time.
const SAME_LINE: Duration = Duration::from_secs(60);
/// A link that ends sooner is told of as such a line.
const BRIEF: Duration = Duration::from_secs(10);
/// Lines remembered for that.
const LINES: usize = 64;

/// The steady clock and the wall clock, as the replica wants them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Time begins.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Now.
    pub(crate) fn now(self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            time: Time::from_micros(
                u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX),
            ),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn instant(self, time: Time) -> tokio::time::Instant {
        (self.0 + Duration::from_micros(time.as_micros())).into()
    }
}

/// The replica and what it speaks through.
pub(crate) struct Driver {
    replica: Replica,
    clock: Clock,
    disk: Disk,
    links: Links,
    /// What this server's hellos say.
    standing: watch::Sender<Standing>,
    contests: Contests,
    sessions: BTreeMap<SessionId, Arc<Queue>>,
    pace: Pace,
    /// Sessions whose items wait for company, and until when, in this order.
    held: VecDeque<(Instant, SessionId)>,
    doors: Doors,
    inbox: Inbox,
    writing: Writing,
    stage: Stage,
    /// A drain has told the clients where to go; those that did not are closed then.
    hand_over_at: Option<Instant>,
    pulse: Pulse,
    lines: BTreeMap<String, Instant>,
    /// Runs whose last link did not live long.
    brief: BTreeMap<Slot, Origin>,
    /// What is wrong with the database.
    damage: Option<String>,
    /// Whether somebody told it to stop.
    asked_to_stop: bool,
}

/// Why a run ended before it was told to stop.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The database is damaged: it has to be mended before the next run.
    Damaged(String),
    /// The same, found while it was stopping: there is no next run for now.
    DamagedAtEnd(String),
    /// It cannot go on.
    Failed(String),
}

/// How much of what had come a tick took.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    All,
    Some,
}

/// Whether the disk is at work on a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    Yes,
    No,
}

enum Stage {
    Running,
    /// Since then; sessions are told, then closed.
    Stopping(Instant),
    Failed(String),
}

impl Driver {
    /// Starts the disk's threads.
    pub(crate) fn start<S: Store + Send + 'static>(
        replica: Replica,
        clock: Clock,
        store: S,
        (links, standing): (Links, watch::Sender<Standing>),
        (doors, inbox): (Doors, Inbox),
        pulse: Pulse,
    ) -> std::io::Result<Self> {
        let disk = Disk::start(store, &doors)?;
        Ok(Self {
            replica,
            clock,
            disk,
            links,
            standing,
            contests: Contests::default(),
            sessions: BTreeMap::new(),
            pace: Pace::start(Instant::now()),
            held: VecDeque::new(),
            doors,
            inbox,
            writing: Writing::No,
            stage: Stage::Running,
            hand_over_at: None,
            pulse,
            lines: BTreeMap::new(),
            brief: BTreeMap::new(),
            damage: None,
            asked_to_stop: false,
        })
    }

    /// Runs until the server is told to stop and has told its clients, or cannot go on.
    ///
    /// # Errors
    /// Why it cannot go on.
    pub(crate) async fn run(mut self) -> Result<(), Ended> {
        let mut next_tick = Instant::now();
        loop {
            self.pulse.turn();
            self.pulse.doing(Doing::Waiting);
            if next_tick > Instant::now() {
                tokio::time::sleep_until(next_tick.into()).await;
            }
            let due = self.due();
            let first = tokio::select! { biased;
                event = self.inbox.next() => Some(event),
                () = tokio::time::sleep_until(due) => None,
            };
            let began = Instant::now();
            next_tick = match self.tick(first) {
                Taken::All => began + self.pace.gap(),
                Taken::Some => began,
            };
            match std::mem::replace(&mut self.stage, Stage::Running) {
                Stage::Running => {}
                Stage::Failed(why) => return Err(Ended::Failed(why)),
                Stage::Stopping(since) => {
                    self.stage = Stage::Stopping(since);
                    let done = self.sessions.is_empty() && self.writing == Writing::No;
                    if done || since.elapsed() >= STOP_LIMIT {
                        break;
                    }
                }
            }
        }
        // A write that the disk refuses again and again is not waited for: nobody was told of it.
        if self.writing == Writing::No {
            self.disk.stop();
        }
        match self.damage {
            Some(why) if self.asked_to_stop => Err(Ended::DamagedAtEnd(why)),
            Some(why) => Err(Ended::Damaged(why)),
            None => Ok(()),
        }
    }

    /// When the replica, or a stop, has something to do; soon, for the watchdog to see.
    fn due(&self) -> tokio::time::Instant {
        let due = self.replica.next_deadline().map(|time| self.clock.instant(time));
        let stop = match self.stage {
            Stage::Stopping(since) if since.elapsed() < ACK_LIMIT => {
                Some((since + ACK_LIMIT).into())
            }
            Stage::Stopping(since) => Some((since + STOP_LIMIT).into()),
            Stage::Running | Stage::Failed(_) => None,
        };
        let contest = self.contests.next_deadline(&self.links).map(Into::into);
        let hand_over = self.hand_over_at.map(Into::into);
        let held = self.held.front().map(|(until, _)| (*until).into());
        let turn = tokio::time::Instant::now() + TURN;
        [due, stop, contest, hand_over, held].into_iter().flatten().fold(turn, Ord::min)
    }

    fn tick(&mut self, first: Option<(Event, usize)>) -> Taken {
        let began = Instant::now();
        let mut left = TICK_BYTES;
        let mut next = first;
        let mut taken = Taken::All;
        while let Some((event, bytes)) = next.take() {
            self.on_event(event);
            left = left.saturating_sub(bytes);
            if left > 0 && began.elapsed() < TICK_TIME {
                next = self.inbox.next_ready();
            } else {
                taken = Taken::Some;
            }
        }
        while let Some(ready) = self.contests.won(&self.links) {
            self.link(ready);
        }
        let now = self.clock.now();
        if self.replica.next_deadline().is_some_and(|due| due <= now.time) {
            self.pulse.doing(Doing::Timeout);
            self.replica.handle_timeout(now);
        }
        self.pulse.doing(Doing::Flush);
        self.replica.flush(now);
        while let Some(output) = self.replica.poll_output() {
            self.pulse.doing(doing_output(&output));
            self.on_output(output);
        }
        let now = Instant::now();
        self.pace.count(now);
        self.ring(now);
        if self.hand_over_at.take_if(|at| *at <= now).is_some() {
            self.sessions.values().for_each(|queue| queue.finish());
        }
        self.tell_standing();
        if let Stage::Stopping(since) = self.stage
            && (self.writing == Writing::No || since.elapsed() >= ACK_LIMIT)
        {
            // Whoever is still attached has been told where to go, and what became of its sends.
            self.sessions.values().for_each(|queue| queue.finish());
        }
        taken
    }

    /// Lets what has waited long enough for company be written.
    fn ring(&mut self, now: Instant) {
        while let Some((_, session)) = self.held.pop_front_if(|(until, _)| *until <= now) {
            if let Some(queue) = self.sessions.get(&session) {
                queue.ring();
            }
        }
    }

    /// Hands an item to a session's writer: at once, or with what follows.
    fn deliver(&mut self, id: SessionId, frame: Frame) {
        let Some(queue) = self.sessions.get(&id) else { return };
        self.pace.add(1);
        let hold = self.pace.hold();
        if hold.is_zero() {
            queue.push(frame);
        } else if queue.hold(frame) == Hold::First {
            self.held.push_back((Instant::now() + hold, id));
        }
    }

    /// What hellos say from now on. The others counted this disk by the hello of their link; what
    /// one of them found out the rest must not count either, so their links are made anew.
    fn tell_standing(&mut self) {
        let standing = self.replica.broadcast().standing();
        if self.standing.send_replace(standing) == standing || standing != Standing::RolledBack {
            return;
        }
        for link in self.links.ids() {
            let why = "this server's disk was rolled back: the next hello says so";
            self.tell_end(link, "closed", why);
            self.links.close(link, DONE, why);
            self.handle(Input::LinkDown(link));
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Input(input) => {
                if matches!(input, Input::Request(..) | Input::Frame(..)) {
                    self.pace.add(1);
                }
                match &input {
                    Input::Persisted(..) => self.writing = Writing::No,
                    Input::SessionDown(id) => drop(self.sessions.remove(id)),
                    Input::Frame(link, CoreFrame::Pong(pong)) => self.on_pong(*link, *pong),
                    _ => {}
                }
                self.handle(input);
            }
            Event::LinkReady(ready) => self.on_link_ready(*ready),
            Event::LinkLost(link, lost) => self.on_link_lost(link, &lost),
            Event::SessionUp(id, queue) => {
                self.sessions.insert(id, queue);
                self.handle(Input::SessionUp(id));
            }
            Event::Hint(address) => {
                if let Some(link) = self.links.at(address) {
                    self.handle(Input::Hint(link));
                }
            }
            Event::Ask(ask) => self.on_ask(ask),
            Event::Stop => {
                self.asked_to_stop = true;
                if let Stage::Running = self.stage {
                    tracing::info!("stopping");
                    self.stop();
                }
            }
            Event::Damaged(why) => self.on_damage(why),
            Event::WriterEnded(why) => {
                self.writing = Writing::No;
                self.on_damage(why);
            }
            Event::Fatal(why) => self.stage = Stage::Failed(why),
        }
    }

    fn stop(&mut self) {
        self.stage = Stage::Stopping(Instant::now());
        self.handle(Input::Stop);
    }

    /// The run ends in good order, so that the damage can be cut out.
    fn on_damage(&mut self, why: String) {
        if self.damage.is_none() {
            tracing::error!("DAMAGED: the database in the data folder: {why}");
            self.damage = Some(why);
        }
        if let Stage::Running = self.stage {
            self.stop();
        }
    }

    fn on_ask(&mut self, ask: Ask) {
        self.pulse.doing(Doing::Operator);
        match ask {
            Ask::Drain => {
                self.handle(Input::Drain);
                self.hand_over_at = Some(Instant::now() + ACK_LIMIT);
            }
            // Whoever asked may be gone.
            Ask::Drained(answer) => drop(answer.send(self.replica.drain())),
            Ask::Resume => {
                self.hand_over_at = None;
                self.handle(Input::Resume);
            }
            Ask::Held(answer) => drop(answer.send(Held {
                vector: self.replica.durable().clone(),
                holders: self.replica.broadcast().holders().cloned().collect(),
            })),
        }
    }

    fn handle(&mut self, input: Input) {
        self.pulse.doing(doing_input(&input));
        self.replica.handle(self.clock.now(), input);
    }

    /// A connection says that it is another server. What is linked stays until it is known that
    /// the newcomer is the one to talk to.
    fn on_link_ready(&mut self, ready: Ready) {
        let peer = &ready.peer;
        if let Err(why) = self.replica.admits(peer) {
            let line = format!("refused {} ({}): {why}", peer.slot, peer.server);
            self.log(Severity::Error, line);
            close::close(&ready.connection, REFUSED, &why);
            return;
        }
        let Some((old, rival)) = self.links.rival(peer) else { return self.link(ready) };
        let (now, run) = (self.clock.now().time, rival.origin);
        let round_trip = self.replica.round_trip(old);
        match self.contests.begin(now, (run, round_trip), ready) {
            Ok(()) => self.handle(Input::Hint(old)),
            Err(ready) => {
                let why = "another run of this disk came before, and is being looked at";
                close::close(&ready.connection, DUPLICATE, why);
            }
        }
    }

    /// The old run of a disk answers: the new one is a copy.
    fn on_pong(&mut self, link: LinkId, pong: Ping) {
        let Some((old, _)) = self.links.peer(link) else { return };
        let Some(copy) = self.contests.answered(old, Time::from_micros(pong.sent_micros)) else {
            return;
        };
        let why = duplicate(old, &copy.peer);
        close::close(&copy.connection, DUPLICATE_DISK, &why);
        self.log(Severity::Error, format!("{why} It is at {}.", copy.connection.remote_address()));
    }

    fn link(&mut self, ready: Ready) {
        let Admission::Link(link, peer, old) = self.links.admit(ready, &self.doors) else { return };
        if let Some(old) = old {
            self.handle(Input::LinkDown(old));
        }
        if self.brief.get(&peer.slot) != Some(&peer.origin) {
            tracing::info!(
                peer = %peer.slot, disk = %peer.server, run = %peer.origin, link = link.0, "linked"
            );
        }
        self.handle(Input::LinkUp(link, peer));
    }

    fn on_link_lost(&mut self, link: LinkId, lost: &Lost) {
        // A link that was closed here is not there any more, and the replica knows.
        if let Some((peer, _)) = self.links.peer(link) {
            let slot = peer.slot.clone();
            if lost.code == Some(DUPLICATE_DISK) {
                let line = format!("{} refused this server: {}", peer.slot, lost.why);
                self.log(Severity::Error, line);
            }
            self.tell_end(link, "lost", &lost.why);
            if lost.code == Some(DUPLICATE) {
                // It is replaced, and what replaces it is told.
                self.brief.remove(&slot);
            }
            self.links.close(link, DONE, "");
            self.handle(Input::LinkDown(link));
        }
    }

    /// Tells why a link ends. One that is made and ended again and again (another server is fenced,
    /// say) is told once, and that it was made too.
    fn tell_end(&mut self, link: LinkId, how: &str, why: &str) {
        let Some((peer, age)) = self.links.peer(link) else { return };
        let (slot, run) = (peer.slot.clone(), peer.origin);
        if age > BRIEF {
            self.brief.remove(&slot);
            tracing::info!(peer = %slot, link = link.0, "link {how}: {why}");
        } else {
            self.log(Severity::Info, format!("link to {slot} {how}: {why}"));
            self.brief.insert(slot, run);
        }
    }

    fn on_output(&mut self, output: Output) {
        match output {
            Output::Send { links, class, frame, cost } => match encode(&*frame) {
                Ok(bytes) => {
                    for link in links {
                        self.links.send(link, class, Frame { bytes: bytes.clone(), cost });
                    }
                }
                Err(TooLong(bytes)) => {
                    tracing::error!(bytes, "a frame to other servers is too long to be sent");
                    for link in links {
                        self.doors.tell(Event::Input(Input::Wrote(link, class, cost)));
                    }
                }
            },
            Output::DropQueue(link, class) => self.links.drop_queue(link, class),
            Output::Close(link, why) => {
                self.tell_end(link, "closed", &why);
                self.links.close(link, REFUSED, &why);
            }
            Output::Persist(token, batch) => {
                if self.damage.is_some() {
                    return; // nothing more is promised by this run
                }
                self.writing = Writing::Yes;
                if self.disk.write(token, batch).is_err() {
                    self.fail("the thread that writes to the disk ended");
                }
            }
            Output::Read(token, query) => {
                if self.disk.read(token, query).is_err() {
                    self.fail("the threads that read from the disk ended");
                }
            }
            Output::Deliver { sessions, item, cost } => match encode(&*item) {
                Ok(bytes) => {
                    for id in sessions {
                        self.deliver(id, Frame { bytes: bytes.clone(), cost });
                    }
                }
                Err(TooLong(bytes)) => {
                    tracing::error!(bytes, "an answer to a client is too long to be sent");
                    let Ok(bytes) = encode(&item.too_long()) else { return };
                    for queue in sessions.iter().filter_map(|id| self.sessions.get(id)) {
                        queue.push(Frame { bytes: bytes.clone(), cost });
                    }
                }
            },
            Output::CloseSession(id) => {
                if let Some(queue) = self.sessions.get(&id) {
                    queue.finish();
                }
            }
            Output::Damaged(why) => self.on_damage(why),
            Output::Log(severity, line) => self.log(severity, line),
        }
    }

    fn fail(&mut self, why: &str) {
        if self.damage.is_none() && !matches!(self.stage, Stage::Failed(_)) {
            self.stage = Stage::Failed(why.into());
        }
    }

    /// What is true for long is told now and then, not with every attempt of a peer.
    fn log(&mut self, severity: Severity, line: String) {
        self.lines.retain(|_, at| at.elapsed() < SAME_LINE);
        if self.lines.contains_key(&line) {
            return;
        }
        match severity {
            Severity::Info => tracing::info!("{line}"),
            Severity::Warn => tracing::warn!("{line}"),
            Severity::Error => tracing::error!("{line}"),
        }
        if self.lines.len() < LINES {
            self.lines.insert(line, Instant::now());
        }
    }
}

fn doing_input(input: &Input) -> Doing {
    match input {
        Input::LinkUp(..) => Doing::LinkUp,
        Input::LinkDown(_) => Doing::LinkDown,
        Input::Frame(..) => Doing::Frame,
        Input::Hint(_) => Doing::Hint,
        Input::Wrote(..) => Doing::Wrote,
        Input::SessionUp(_) => Doing::SessionUp,
        Input::Request(..) => Doing::Request,
        Input::SessionDown(_) => Doing::SessionDown,
        Input::Drained(..) => Doing::Drained,
        Input::Persisted(..) => Doing::Persisted,
        Input::PersistFailed(..) | Input::Room(_) => Doing::PersistFailed,
        Input::ReadDone(..) => Doing::ReadDone,
        Input::Drain | Input::Resume | Input::Certificate(..) | Input::Stop => Doing::Operator,
    }
}

fn doing_output(output: &Output) -> Doing {
    match output {
        Output::Send { .. } | Output::DropQueue(..) => Doing::Send,
        Output::Close(..) => Doing::Close,
        Output::Persist(..) => Doing::Persist,
        Output::Read(..) => Doing::Read,
        Output::Deliver { .. } | Output::CloseSession(_) => Doing::Deliver,
        Output::Log(..) | Output::Damaged(_) => Doing::Log,
    }
}

//! One client of the measurement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chatty_client::driver::{Driver, Sockets};
use chatty_client::identity::{Found, IdentityFile, Kept, Minting};
use chatty_client::{Cluster, Level, Target, Ticket};
use chatty_core::client::{Answer, Ask, ClientEvent, Command, Config, Failure, Roam, Timing};
use chatty_core::event::Body;
use chatty_core::id::RoomId;
use chatty_core::session::{Line, Mode};
use chatty_net::Trust;

use super::Shared;
use super::tally::{Histogram, Numbers};
use crate::Trouble;

/// Lines of each room that a client remembers beyond its cursor.
const REMEMBERED: usize = 256;
/// After the sending, what is on its way is waited for so long.
const DRAIN_MAX: Duration = Duration::from_secs(15);
/// A sender in open loop that is later than this counts from when it should have sent; the
/// runtime's timers are good for a millisecond or two.
const LATE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(60);

/// What one client found.
#[derive(Debug, Default)]
pub struct MemberReport {
    pub client: usize,
    pub stored: Histogram,
    pub replicated: Histogram,
    pub same: Histogram,
    pub other: Histogram,
    /// Answers and deliveries while it was measured.
    pub acknowledged: u64,
    pub delivered: u64,
    /// By room: how many messages it said, and which of them nobody acknowledged.
    pub said: BTreeMap<usize, u64>,
    pub unanswered: Vec<(usize, u64)>,
    /// By room and sender: what it got.
    pub got: BTreeMap<usize, BTreeMap<usize, Numbers>>,
    pub repeated: u64,
    /// How often it lost its server, by the reason.
    pub lost_servers: BTreeMap<String, u64>,
}

/// One client.
pub struct Member {
    n: usize,
    shared: Arc<Shared>,
    driver: Driver,
    file: IdentityFile,
    minting: Option<Minting>,
    rooms: Vec<usize>,
    open: BTreeMap<RoomId, usize>,
    server: String,
    report: MemberReport,
    received: BTreeMap<usize, u64>,
    /// Unanswered messages: their room and number, and how late they were said.
    asked: BTreeMap<Ticket, (usize, u64, u64)>,
    last_ticket: u64,
    /// The next room to say something in.
    turn: usize,
    padding: String,
    /// What is measured, in microseconds of the run.
    measured: std::ops::Range<u64>,
    flow: Flow,
}

/// Whether an answer lets a sender in closed loop go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Sending,
    Over,
}

impl Member {
    pub async fn new(
        n: usize,
        shared: Arc<Shared>,
        cluster: &Cluster,
        sockets: Sockets,
        trust: Trust,
        addrs: &[String],
    ) -> Result<Self, Trouble> {
        let nick = format!("bench-{n}");
        let file = IdentityFile::of(cluster, &nick)?;
        let (token, minting) = match file.find(PATIENCE).await? {
            Found::Account(kept) => (kept.token(), None),
            Found::None(minting) => (Vec::new(), Some(minting)),
        };
        let first = addrs.get(n % addrs.len().max(1)).cloned();
        let config = Config {
            servers: cluster.servers.clone(),
            seeds: cluster.seeds.clone(),
            roam: first.map_or(Roam::Anywhere, Roam::First),
            token,
            nick: minting.is_some().then_some(nick),
            remembered: REMEMBERED,
            timing: Timing { patience: PATIENCE, ..Timing::default() },
            ..Config::default()
        };
        let seed = chatty_client::chat::seed()?;
        let rooms = shared.plan.rooms_of(n);
        Ok(Self {
            n,
            driver: Driver::new(sockets, trust, config, seed),
            file,
            minting,
            open: BTreeMap::new(),
            server: String::new(),
            report: MemberReport { client: n, ..MemberReport::default() },
            received: rooms.iter().map(|room| (*room, 0)).collect(),
            asked: BTreeMap::new(),
            last_ticket: 0,
            turn: n,
            padding: "x".repeat(shared.plan.body),
            measured: 0..0,
            flow: Flow::Over,
            rooms,
            shared,
        })
    }

    pub async fn run(mut self) -> Result<MemberReport, String> {
        self.open_rooms().await?;
        let mut start = self.shared.start.subscribe();
        self.shared.ready.fetch_add(1, Ordering::AcqRel);
        let start = loop {
            tokio::select! {
                event = self.driver.next() => self.on_event(event)?,
                changed = start.changed() => {
                    if changed.is_err() {
                        return Err("the measurement was given up".into());
                    }
                    let at = *start.borrow();
                    if let Some(at) = at {
                        break at;
                    }
                }
            }
        };
        let plan = &self.shared.plan;
        let from = start.duration_since(self.shared.began) + plan.warmup;
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.measured = micros(from)..micros(from + plan.seconds);
        if self.n < self.shared.plan.senders() && !self.rooms.is_empty() {
            self.send(start).await?;
            self.shared.finished.fetch_add(1, Ordering::AcqRel);
        } else if self.n < self.shared.plan.senders() {
            self.shared.finished.fetch_add(1, Ordering::AcqRel);
        }
        self.drain(start).await?;
        self.report.unanswered = self.asked.values().map(|(room, n, _)| (*room, *n)).collect();
        Ok(self.report)
    }

    async fn open_rooms(&mut self) -> Result<(), String> {
        for room in self.rooms.clone() {
            let name = Shared::room(room);
            self.open.insert(RoomId::public(&name), room);
            let ticket = self.ticket();
            let ask = Ask::Open { room: name, last: 0, mode: Mode::Watch };
            self.driver.command(Command::Ask { ticket, ask });
        }
        let mut left = self.rooms.len();
        while left > 0 || self.server.is_empty() {
            match self.driver.next().await {
                ClientEvent::Answered { answer: Answer::Opened(_), .. } => left -= 1,
                ClientEvent::Failed { failure, .. } => return Err(self.words(&failure)),
                event => self.on_event(event)?,
            }
        }
        Ok(())
    }

    fn words(&self, failure: &Failure) -> String {
        format!("client {}: {failure}", self.n)
    }

    fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    /// Sends until the time is over.
    async fn send(&mut self, start: Instant) -> Result<(), String> {
        let plan = self.shared.plan.clone();
        let end = start + plan.warmup + plan.seconds;
        self.flow = Flow::Sending;
        match plan.window {
            Some(window) => {
                self.until(start).await?;
                for _ in 0..window {
                    self.say(Duration::ZERO);
                }
                self.until(end).await?;
            }
            None => {
                let senders = u32::try_from(plan.senders()).unwrap_or(u32::MAX);
                let every = Duration::from_secs_f64(f64::from(senders) / plan.rate);
                // Spread over the first interval, so that senders do not speak at one moment.
                let offset = every
                    .mul_f64(f64::from(u32::try_from(self.n).unwrap_or(0)) / f64::from(senders));
                let mut next = start + offset;
                while next < end {
                    self.until(next).await?;
                    while next <= Instant::now() && next < end {
                        let late = next.elapsed();
                        self.say(if late > LATE { late } else { Duration::ZERO });
                        next += every;
                    }
                }
                self.until(end).await?;
            }
        }
        self.flow = Flow::Over;
        Ok(())
    }

    async fn until(&mut self, at: Instant) -> Result<(), String> {
        let sleep = tokio::time::sleep_until(at.into());
        tokio::pin!(sleep);
        loop {
            tokio::select! { biased;
                () = &mut sleep => return Ok(()),
                event = self.driver.next() => {
                    self.on_event(event)?;
                    while let Some(event) = self.driver.next_ready() {
                        self.on_event(event)?;
                    }
                }
            }
        }
    }

    fn say(&mut self, late: Duration) {
        let Some(room) = self.rooms.get(self.turn % self.rooms.len().max(1)).copied() else {
            return;
        };
        self.turn += 1;
        let late = u64::try_from(late.as_micros()).unwrap_or(0);
        let number = self.report.said.entry(room).or_insert(0);
        let n = *number;
        *number += 1;
        self.shared.said.get(room).map(|said| said.fetch_add(1, Ordering::Relaxed));
        let at = self.shared.micros().saturating_sub(late);
        let mut text = format!("{:08x} {} {n} {at} {} ", self.shared.run, self.n, self.server);
        let padding = self.shared.plan.body.saturating_sub(text.len());
        text.push_str(self.padding.get(..padding).unwrap_or_default());
        let ticket = self.ticket();
        self.asked.insert(ticket, (room, n, late));
        let to = Target::Room(Shared::room(room));
        self.driver.command(Command::Send { ticket, to, text, level: Level::Stored });
    }

    fn on_event(&mut self, event: ClientEvent) -> Result<(), String> {
        match event {
            ClientEvent::Line { line, .. } => self.on_line(&line),
            ClientEvent::Message(state) => {
                let elapsed = u64::try_from(state.elapsed.as_micros()).unwrap_or(u64::MAX);
                self.on_state(state.ticket, state.level, elapsed);
            }
            ClientEvent::Failed { ticket, failure } => {
                if self.asked.contains_key(&ticket) {
                    crate::out::complain(&self.words(&failure));
                }
            }
            ClientEvent::Attached(attached) => {
                self.server = attached.server.to_string();
                if let (Some(minting), Some(account)) =
                    (self.minting.take(), self.driver.client().account())
                {
                    let kept = Kept::new(account, self.driver.client().token());
                    self.file.save(&kept).map_err(|error| error.to_string())?;
                    drop(minting);
                }
            }
            ClientEvent::Lost { why, .. } => {
                *self.report.lost_servers.entry(why.to_string()).or_insert(0) += 1;
            }
            ClientEvent::Ended(why) => {
                let why = why.unwrap_or(Failure::Ended);
                return Err(self.words(&why));
            }
            ClientEvent::Unreachable { .. }
            | ClientEvent::Direct { .. }
            | ClientEvent::Answered { .. }
            | ClientEvent::RoomClosed(_)
            | ClientEvent::Named { .. }
            | ClientEvent::Kept(_)
            | ClientEvent::Unkept(_)
            | ClientEvent::Notice(_) => {}
        }
        Ok(())
    }

    fn on_state(&mut self, ticket: Ticket, level: Level, elapsed: u64) {
        let wanted = Level::from(self.shared.plan.level);
        let Some((_, _, late)) = self.asked.get(&ticket).copied() else { return };
        let now = self.shared.micros();
        let latency = elapsed.saturating_add(late);
        if self.measured.contains(&now.saturating_sub(latency)) {
            match level {
                Level::Stored => self.report.stored.add(latency),
                Level::Replicated => self.report.replicated.add(latency),
            }
        }
        let counts = level == wanted || (level == Level::Replicated && wanted == Level::Stored);
        if counts {
            self.asked.remove(&ticket);
            if self.measured.contains(&now) {
                self.report.acknowledged += 1;
            }
            if self.flow == Flow::Sending && self.shared.plan.window.is_some() {
                self.say(Duration::ZERO);
            }
        }
    }

    fn on_line(&mut self, line: &Line) {
        let Some(room) = self.open.get(&line.event.room).copied() else { return };
        let Some(Body::Msg(msg)) = line.event.body() else { return };
        // Another run's messages may still be coming.
        let Some((sender, number, at, server)) = parse(&msg.text, self.shared.run) else { return };
        let numbers = self.report.got.entry(room).or_default().entry(sender).or_default();
        if !numbers.see(number) {
            self.report.repeated += 1;
            return;
        }
        *self.received.entry(room).or_insert(0) += 1;
        let now = self.shared.micros();
        if self.measured.contains(&now) {
            self.report.delivered += 1;
        }
        if self.measured.contains(&at) {
            let latency = now.saturating_sub(at);
            if server == self.server {
                self.report.same.add(latency);
            } else {
                self.report.other.add(latency);
            }
        }
    }

    /// Waits for the answers and for everybody's messages.
    async fn drain(&mut self, start: Instant) -> Result<(), String> {
        let plan = &self.shared.plan;
        let end = start + plan.warmup + plan.seconds;
        let senders = plan.senders();
        while Instant::now() < end + DRAIN_MAX {
            let all_said = self.shared.finished.load(Ordering::Acquire) >= senders;
            let has_all = self.received.iter().all(|(room, received)| {
                let said = self.shared.said.get(*room);
                said.is_none_or(|said| said.load(Ordering::Relaxed) == *received)
            });
            if all_said && has_all && self.asked.is_empty() {
                break;
            }
            self.until(Instant::now() + Duration::from_millis(20)).await?;
        }
        Ok(())
    }
}

/// Sender, number, moment and server of a message of this run.
fn parse(text: &str, run: u32) -> Option<(usize, u64, u64, &str)> {
    let mut words = text.split(' ');
    let is_ours = u32::from_str_radix(words.next()?, 16) == Ok(run);
    let sender = words.next()?.parse().ok()?;
    let number = words.next()?.parse().ok()?;
    let at = words.next()?.parse().ok()?;
    is_ours.then_some((sender, number, at, words.next()?))
}

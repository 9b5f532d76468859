//! What goes wrong, drawn for each run (swarm testing: Groce et al., 2012): which faults are on,
//! how often, and how tight the bounds are, so that runs differ in kind and not only in luck.

use std::collections::BTreeMap;
use std::num::NonZeroU8;
use std::time::Duration;

use chatty_core::config::{Feeds, Limits, Mesh, Start};
use chatty_core::event::Retention;
use chatty_core::rng::Rng;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A server dies; what it had not synced is gone.
    Crash,
    /// All servers die at once.
    CrashAll,
    /// A server's disk is lost; the slot comes back with a new one.
    Wipe,
    /// A server comes back with an older state of its disk, and is wiped when it is found out.
    RollBack,
    /// Two servers hear nothing of each other.
    Cut,
    /// One server hears another, and not the other way round.
    OneWay,
    /// A server is cut off from all others, and its clients stay.
    Isolate,
    /// A connection between two servers breaks and is made anew.
    Reset,
    /// All connections between servers break at once.
    Blip,
    /// A server stands still.
    Pause,
    /// A server's wall clock jumps.
    Clock,
    /// A server's fsyncs take long.
    SlowDisk,
    /// A server's disk takes no writes.
    DiskFull,
    /// A server's disk is damaged: what is right of it is kept, and it knows that.
    Damage,
    /// A client hears nothing of its server.
    ClientCut,
    /// A client's connection breaks.
    ClientReset,
    /// A server is stopped in good order.
    Stop,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 17] = [
        Self::Crash,
        Self::CrashAll,
        Self::Wipe,
        Self::RollBack,
        Self::Cut,
        Self::OneWay,
        Self::Isolate,
        Self::Reset,
        Self::Blip,
        Self::Pause,
        Self::Clock,
        Self::SlowDisk,
        Self::DiskFull,
        Self::Damage,
        Self::ClientCut,
        Self::ClientReset,
        Self::Stop,
    ];
}

/// What one run is made of.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Servers.
    pub servers: usize,
    /// Clients.
    pub clients: usize,
    /// Rooms.
    pub rooms: usize,
    /// Messages sent in all.
    pub messages: usize,
    /// For so long messages and faults happen; then everything is healed.
    pub turmoil: Duration,
    /// The faults that are on.
    pub faults: Vec<Fault>,
    /// How many of them happen.
    pub strikes: usize,
    /// One way, at least, and jitter on top, in microseconds.
    pub delay_micros: (u64, u64),
    /// An fsync, in microseconds.
    pub fsync_micros: (u64, u64),
    /// How many links push a log to a server.
    pub feeds: Feeds,
    /// Who pushes what to begin with.
    pub mesh: Mesh,
    /// How long messages are kept.
    pub retention: Retention,
    /// Bounds, often tight.
    pub limits: Limits,
}

impl std::fmt::Display for Swarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (feeds, usual, limits) = (self.feeds, Limits::default(), &self.limits);
        write!(
            f,
            "{} servers, {} clients, {} rooms, feeds {feeds:?}, {} strikes of {:?}",
            self.servers, self.clients, self.rooms, self.strikes, self.faults
        )?;
        let bounds = [
            ("tail", limits.tail_events, usual.tail_events),
            ("buffer", limits.buffer_events, usual.buffer_events),
            ("live queue", limits.live_queue_bytes, usual.live_queue_bytes),
            ("session queue", limits.session_queue_bytes, usual.session_queue_bytes),
            ("recent lines", limits.recent_lines, usual.recent_lines),
            ("since scan", limits.since_scan, usual.since_scan),
            ("recent mids", limits.recent_mids, usual.recent_mids),
            ("range window", limits.range_window_bytes, usual.range_window_bytes),
            ("unsaved", limits.unsaved_bytes, usual.unsaved_bytes),
        ];
        if !self.retention.is_for_ever() {
            write!(f, ", {:?}", self.retention)?;
        }
        for (name, drawn, _) in bounds.iter().filter(|(_, drawn, usual)| drawn != usual) {
            write!(f, ", {name} {drawn}")?;
        }
        Ok(())
    }
}

impl Swarm {
    /// Draws a run.
    pub fn draw(rng: &mut Rng) -> Self {
        let feeds = match rng.below(4) {
            0 => Feeds::All,
            1 => Feeds::Some(NonZeroU8::MIN),
            _ => Feeds::DEFAULT,
        };
        let on = 1 + rng.below(4) as usize;
        let mut faults = Vec::new();
        for _ in 0..on {
            let fault = Fault::ALL[rng.below(Fault::ALL.len() as u64) as usize];
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        Self {
            servers: if rng.one_in(6) { 5 } else { 3 },
            clients: 2 + rng.below(4) as usize,
            rooms: 1 + rng.below(3) as usize,
            messages: 40 + rng.below(160) as usize,
            turmoil: Duration::from_millis(2000 + rng.below(8000)),
            strikes: 1 + rng.below(6) as usize,
            faults,
            delay_micros: (50 + rng.below(2000), 1 + rng.below(5000)),
            fsync_micros: (50 + rng.below(500), 1 + rng.below(10_000)),
            feeds,
            retention: retention(rng),
            limits: limits(rng),
            // From a copy: it was not drawn once, and every other draw of a seed is what it was.
            mesh: Mesh { start: start(rng.clone()), ..Mesh::default() },
        }
    }
}

/// As if everybody asked for everything, or as if everybody had pruned already.
fn start(mut rng: Rng) -> Start {
    if rng.one_in(2) { Start::Pruned } else { Start::Flooded }
}

/// Mostly everything is kept; else so little that floors move in a short run.
fn retention(rng: &mut Rng) -> Retention {
    match rng.below(6) {
        0 => Retention { age_ms: 500 + rng.below(4000), messages: 0 },
        1 => Retention { age_ms: 0, messages: 3 + rng.below(30) },
        _ => Retention::default(),
    }
}

/// Bounds so tight that what happens at them happens in a short run.
fn limits(rng: &mut Rng) -> Limits {
    let mut limits = Limits::default();
    if rng.one_in(2) {
        limits.tail_events = 1 + rng.below(20) as usize;
    }
    if rng.one_in(2) {
        limits.buffer_events = 1 + rng.below(10) as usize;
        limits.buffer_bytes = 2000;
    }
    if rng.one_in(3) {
        limits.live_queue_bytes = 1000 + rng.below(3000) as usize;
    }
    if rng.one_in(3) {
        limits.session_queue_bytes = 2000 + rng.below(4000) as usize;
    }
    if rng.one_in(2) {
        limits.recent_lines = 1 + rng.below(30) as usize;
    }
    if rng.one_in(3) {
        limits.since_scan = 1 + rng.below(60) as usize;
    }
    if rng.one_in(2) {
        limits.recent_mids = 1 + rng.below(20) as usize;
    }
    if rng.one_in(3) {
        limits.range_window_bytes = 300 + rng.below(2000) as usize;
    }
    if rng.one_in(6) {
        limits.unsaved_bytes = 2000 + rng.below(20_000) as usize;
    }
    limits
}

/// How often each fault happened.
pub type Counts = BTreeMap<Fault, u64>;

//! What one run is made of, and how it is drawn.

use std::num::NonZeroU8;
use std::time::Duration;

use chatty_core::config::{Feeds, Limits, Mesh, Start};
use chatty_core::event::Retention;
use chatty_core::rng::Rng;

use super::Fault;

/// What one run is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The faults that are on, and how hard each is at most: 1 to 100.
    pub faults: Vec<(Fault, u8)>,
    /// How many of them happen.
    pub strikes: usize,
    /// One way, at least, and jitter on top, in microseconds.
    pub delay_micros: (u64, u64),
    /// How unlike the ways between servers are: each takes up to so many times longer.
    pub unlike: u8,
    /// How far each server's clock is off by itself, at most.
    pub clocks_ms: u64,
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

/// A bound that is drawn: its name, and where it is.
pub type Bound = (&'static str, fn(&mut Limits) -> &mut usize);

/// All bounds that are drawn.
pub const BOUNDS: &[Bound] = &[
    ("tail_events", |limits| &mut limits.tail_events),
    ("buffer_events", |limits| &mut limits.buffer_events),
    ("buffer_bytes", |limits| &mut limits.buffer_bytes),
    ("live_queue_bytes", |limits| &mut limits.live_queue_bytes),
    ("session_queue_bytes", |limits| &mut limits.session_queue_bytes),
    ("recent_lines", |limits| &mut limits.recent_lines),
    ("since_scan", |limits| &mut limits.since_scan),
    ("recent_mids", |limits| &mut limits.recent_mids),
    ("range_window_bytes", |limits| &mut limits.range_window_bytes),
    ("unsaved_bytes", |limits| &mut limits.unsaved_bytes),
    ("attach_lag", |limits| &mut limits.attach_lag),
];

impl std::fmt::Display for Swarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let feeds = match self.feeds {
            Feeds::All => "all".to_string(),
            Feeds::Some(n) => n.to_string(),
        };
        let faults: Vec<String> =
            self.faults.iter().map(|(fault, hard)| format!("{} {hard}", fault.name())).collect();
        write!(
            f,
            "{} servers, {} clients, {} rooms, feeds {feeds}, {} strikes of {}",
            self.servers,
            self.clients,
            self.rooms,
            self.strikes,
            faults.join(", ")
        )?;
        if !self.retention.is_for_ever() {
            write!(f, ", {:?}", self.retention)?;
        }
        let (mut drawn, mut usual) = (self.limits.clone(), Limits::default());
        for (name, of) in BOUNDS {
            if of(&mut drawn) != of(&mut usual) {
                write!(f, ", {} {}", name.replace('_', " "), of(&mut drawn))?;
            }
        }
        Ok(())
    }
}

impl Swarm {
    /// Servers and clients in peace.
    pub fn calm(servers: usize, clients: usize) -> Self {
        Self {
            servers,
            clients,
            rooms: 1,
            messages: 0,
            turmoil: Duration::ZERO,
            faults: Vec::new(),
            strikes: 0,
            delay_micros: (200, 300),
            unlike: 1,
            clocks_ms: 0,
            fsync_micros: (100, 200),
            feeds: Feeds::DEFAULT,
            mesh: Mesh::default(),
            retention: Retention::default(),
            limits: Limits::default(),
        }
    }

    /// Draws a run.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut faults: Vec<(Fault, u8)> = Vec::new();
        for _ in 0..1 + rng.below(5) {
            let fault = Fault::ALL[rng.below(Fault::SECOND as u64) as usize];
            if !faults.iter().any(|(other, _)| *other == fault) {
                faults.push((fault, 1 + rng.below(100) as u8));
            }
        }
        Self {
            servers: if rng.one_in(6) { 5 } else { 3 },
            clients: 2 + rng.below(4) as usize,
            rooms: 1 + rng.below(3) as usize,
            messages: 40 + rng.below(160) as usize,
            turmoil: Duration::from_millis(2000 + rng.below(8000)),
            strikes: 2 + rng.below(8) as usize,
            faults,
            delay_micros: (50 + rng.below(2000), 1 + rng.below(5000)),
            unlike: if rng.one_in(2) { 1 } else { 2 + rng.below(12) as u8 },
            clocks_ms: if rng.one_in(2) { 0 } else { rng.below(400) },
            fsync_micros: (50 + rng.below(500), 1 + rng.below(10_000)),
            feeds: feeds(rng),
            mesh: Mesh { start: start(rng), ..Mesh::default() },
            retention: retention(rng),
            limits: attach_lag(limits(rng), rng.clone()),
        }
    }

    /// Draws a run as the first edition did, which knew fewer kinds of fault, all hard, and links
    /// that are alike: histories that once broke a rule are named by seeds of it.
    pub fn draw_first(rng: &mut Rng) -> Self {
        let feeds = feeds(rng);
        let mut faults: Vec<(Fault, u8)> = Vec::new();
        for _ in 0..1 + rng.below(4) {
            let fault = Fault::ALL[rng.below(Fault::FIRST as u64) as usize];
            if !faults.iter().any(|(other, _)| *other == fault) {
                faults.push((fault, 100));
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
            unlike: 1,
            clocks_ms: 0,
            fsync_micros: (50 + rng.below(500), 1 + rng.below(10_000)),
            feeds,
            retention: retention(rng),
            limits: limits(rng),
            // From a copy: it was not drawn once, and every other draw of a seed is what it was.
            mesh: Mesh { start: start(&mut rng.clone()), ..Mesh::default() },
        }
    }
}

fn feeds(rng: &mut Rng) -> Feeds {
    match rng.below(4) {
        0 => Feeds::All,
        1 => Feeds::Some(NonZeroU8::MIN),
        _ => Feeds::DEFAULT,
    }
}

/// How near a server must be to take clients. From a copy of the randomness: it was not drawn once,
/// and every other draw of a seed is what it was.
fn attach_lag(mut limits: Limits, mut rng: Rng) -> Limits {
    if rng.one_in(3) {
        limits.attach_lag = 1 + rng.below(60) as usize;
    }
    limits
}

/// As if everybody asked for everything, or as if everybody had pruned already.
fn start(rng: &mut Rng) -> Start {
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

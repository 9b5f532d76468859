//! Load that is too much, one kind at a time: what is asked beyond a bound is refused with the time
//! to come again, what is pushed or shown beyond one is dropped and pulled, and in the end every
//! message that was said is there once and everybody has been shown it.
//!
//! Bounds are so tight that a short run meets them a hundred times. That they hold is checked after
//! every step (`assert_invariants`) and by the peaks that are written down here.

use std::time::Duration;

use chatty_core::config::Limits;
use chatty_core::event::Retention;
use chatty_core::rng::Rng;
use chatty_core::session::{Code, Item};

use crate::faults::Swarm;
use crate::luck::Stream;
use crate::strike::Relent;
use crate::world::{Action, Failure, World};

/// Who asks too much, or takes too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// A client says ten times as much as one may.
    Client,
    /// Many clients say ten times as much in one room as one server takes for it.
    Room,
    /// Servers push to one whose disk takes half a second a write.
    Server,
    /// A client takes nothing for seconds while the others talk.
    SlowClient,
    /// A server takes nothing for seconds while the others talk.
    SlowPeer,
}

impl Flood {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Client, Self::Room, Self::Server, Self::SlowClient, Self::SlowPeer];
}

/// What happened at the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Felt {
    /// Requests refused as busy.
    pub refusals: u64,
    /// Gaps that clients were told of.
    pub gaps: u64,
    /// Live queues dropped.
    pub overflows: u64,
    /// Turns of a loop after which the disk was too far behind to take more.
    pub full: u64,
    /// Bytes that waited for a disk, at most.
    pub unsaved: usize,
    /// Messages said.
    pub messages: u64,
}

impl Felt {
    /// Notes what clients are told. A refusal for now says when it may be tried again.
    pub(crate) fn item(&mut self, item: &Item) -> Result<(), String> {
        match item {
            Item::Refused(refused) if refused.code == Code::Busy => {
                self.refusals += 1;
                if refused.retry_ms == 0 {
                    return Err(format!("{:?} was refused without a time", refused.reason));
                }
            }
            Item::Gap(_) => self.gaps += 1,
            _ => {}
        }
        Ok(())
    }
}

/// Messages a second from one session, and into one room, when that is what floods.
const RATE: u32 = 20;
/// The bound of the queue that is too short.
pub const QUEUE_BYTES: usize = 4000;
/// How long somebody takes nothing: no link and no session ends by that.
const SLOW: Duration = Duration::from_millis(1500);

/// Floods a calm cluster, and waits until everything is as if it had not been.
///
/// # Errors
/// A rule that was broken on the way.
pub fn run(flood: Flood, seed: u64) -> Result<Felt, Failure> {
    let mut rng = Rng::new(seed);
    let drawn = Swarm::draw_first(&mut rng);
    let swarm = Swarm {
        servers: 3,
        clients: 6,
        rooms: 1,
        faults: Vec::new(),
        strikes: 0,
        retention: Retention::default(),
        limits: limits(flood),
        ..drawn
    };
    let mut world = World::with(swarm, rng);
    world.gather()?;
    let slow = world.luck.of(Stream::Strike).below(3) as usize;
    let lagging = world.luck.of(Stream::Strike).below(6) as usize;
    match flood {
        Flood::Client | Flood::Room => {}
        Flood::Server => world.servers[slow].slow_micros = 500_000,
        Flood::SlowClient => world.cut_client(lagging, None),
        Flood::SlowPeer => (0..3).filter(|n| *n != slow).for_each(|n| world.block(n, slow, None)),
    }
    let speakers: Vec<usize> = match flood {
        Flood::Client => vec![lagging],
        Flood::SlowClient => (0..6).filter(|person| *person != lagging).collect(),
        Flood::Room | Flood::Server | Flood::SlowPeer => (0..6).collect(),
    };
    for nth in 0..300 {
        let person = speakers[nth % speakers.len()];
        world.later(nth as u64 * 3000, Action::Say { person });
    }
    let end = world.time + SLOW;
    world.go_to(end)?;
    let over = match flood {
        Flood::Client | Flood::Room => Ok(()),
        Flood::Server => world.relent(Relent::FastDisk(slow)),
        Flood::SlowClient => world.relent(Relent::Uncut(lagging, None)),
        Flood::SlowPeer => {
            (0..3).filter(|n| *n != slow).for_each(|n| world.unblock(n, slow, None));
            Ok(())
        }
    };
    over.map_err(|what| world.failure(what))?;
    world.settle()?;
    Ok(Felt { overflows: world.totals().0.overflows, ..world.felt })
}

fn limits(flood: Flood) -> Limits {
    let usual = Limits::default();
    match flood {
        Flood::Client => Limits { session_rate: RATE, ..usual },
        Flood::Room => Limits { room_rate: RATE, ..usual },
        // What is taken at once is taken whole: a frame, and what it completes.
        Flood::Server => Limits {
            unsaved_bytes: QUEUE_BYTES,
            range_window_bytes: QUEUE_BYTES / 2,
            buffer_bytes: QUEUE_BYTES / 2,
            ..usual
        },
        Flood::SlowClient => Limits { session_queue_bytes: QUEUE_BYTES, ..usual },
        Flood::SlowPeer => Limits { live_queue_bytes: QUEUE_BYTES, ..usual },
    }
}

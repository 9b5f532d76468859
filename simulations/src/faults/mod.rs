//! What goes wrong, drawn for each run (swarm testing: Groce et al., 2012): which faults are on,
//! how hard and how often, and how tight the bounds are, so that runs differ in kind and not only
//! in luck.
//!
//! A new kind of fault is a line here and an arm in `strike`.

mod swarm;

use std::collections::BTreeMap;

pub use swarm::{BOUNDS, Bound, Swarm};

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Fault {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name in schedules and on pages.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What it is, in a sentence.
            pub const fn words(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)+ }
            }

            /// The inverse of [`Self::name`].
            pub fn by_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|fault| fault.name() == name)
            }
        }
    };
}

// The first seventeen stand in the order in which the first edition drew them: see
// `Swarm::draw_first`.
faults! {
    /// A server dies; what it had not synced is gone.
    Crash = "crash",
    /// All servers die at once.
    CrashAll = "crash-all",
    /// A server's disk is lost; the slot comes back with a new one, empty or from a backup.
    Wipe = "wipe",
    /// A server comes back with an older state of its disk, and is wiped when it is found out.
    RollBack = "roll-back",
    /// Two servers hear nothing of each other.
    Cut = "cut",
    /// One server hears another, and not the other way round.
    OneWay = "one-way",
    /// A server is cut off from all others, and its clients stay.
    Isolate = "isolate",
    /// A connection between two servers breaks and is made anew.
    Reset = "reset",
    /// All connections between servers break at once.
    ResetAll = "reset-all",
    /// A server stands still.
    Pause = "pause",
    /// A server's wall clock jumps by seconds, and back later.
    Clock = "clock",
    /// A server's fsyncs take long.
    SlowDisk = "slow-disk",
    /// A server's disk takes no writes.
    DiskFull = "disk-full",
    /// A server's disk is damaged: what is right of it is kept, and it knows that.
    Damage = "damage",
    /// A client hears nothing of its server.
    ClientCut = "client-cut",
    /// A client's connection breaks.
    ClientReset = "client-reset",
    /// A server is stopped in good order.
    Stop = "stop",
    /// A server dies in the middle of a write; the beginning of it is on the disk.
    Torn = "torn",
    /// The servers fall into two groups that hear nothing of each other.
    Partition = "partition",
    /// A way between two servers, or all ways of one, is cut and heals, again and again.
    Flap = "flap",
    /// Nothing arrives anywhere for some milliseconds, also at clients; perhaps several times.
    Blip = "blip",
    /// Packets between two servers are lost and sent again.
    Loss = "loss",
    /// What one server says reaches another late.
    SlowLink = "slow-link",
    /// Few bytes a second get from one server to another.
    NarrowLink = "narrow-link",
    /// A server's wall clock is off by less than is allowed.
    Skew = "skew",
    /// A server does everything late.
    SlowServer = "slow-server",
    /// A copy of a server's disk is started beside it.
    Copy = "copy",
    /// A server is drained, and goes on or stops.
    Drain = "drain",
    /// A server and its clients are told, wrongly, that the other side's process is gone.
    FalseHint = "false-hint",
    /// A client dies and comes back with what it had written down.
    ClientCrash = "client-crash",
    /// A client dies and comes back as somebody else.
    ClientForgets = "client-forgets",
    /// A client takes its lines in slowly.
    SlowClient = "slow-client",
    /// A client's connection breaks before an answer to something it said arrives.
    AnswerLost = "answer-lost",
    /// A server says and writes things of a newer minor version, which the others do not know.
    Newer = "newer",
    /// A machine is cloned with its memory: one run of a server goes on twice.
    Clone = "clone",
    /// A server's certificate ends, and is renewed later: who is connected stays, nobody comes.
    Expired = "expired",
    /// Bits flip on a server's disk, and all servers are asked to verify theirs.
    Rot = "rot",
}

impl Fault {
    /// How many there were in the first edition.
    pub const FIRST: usize = 17;
    /// How many a seed draws by its own luck; those that came later have luck of their own.
    pub const SECOND: usize = 33;
}

/// How often each fault happened.
pub type Counts = BTreeMap<Fault, u64>;

//! All randomness of a world, in one stream for each thing that needs some: what is left of a
//! schedule after something was taken out of it goes on as it did, as far as it can.

use chatty_core::rng::Rng;

/// Whose luck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// A way from one server to another.
    Way(usize, usize),
    /// A server's loop, identity and end.
    Server(usize),
    /// A server's disk.
    Disk(usize),
    /// A client, and its connections.
    Client(usize),
    /// The strike that is under way.
    Strike,
}

/// More servers and copies of servers, or clients, than any run has.
pub(crate) const NAMES_MAX: usize = 32;

impl Stream {
    const fn place(self) -> usize {
        const SQUARE: usize = NAMES_MAX * NAMES_MAX;
        match self {
            Self::Way(from, to) => (from % NAMES_MAX) * NAMES_MAX + to % NAMES_MAX,
            Self::Server(n) => SQUARE + n % NAMES_MAX,
            Self::Disk(n) => SQUARE + NAMES_MAX + n % NAMES_MAX,
            Self::Client(n) => SQUARE + 2 * NAMES_MAX + n % NAMES_MAX,
            Self::Strike => SQUARE + 3 * NAMES_MAX,
        }
    }
}

/// Where randomness comes from.
pub(crate) enum Luck {
    /// One stream for all, as the first edition had it.
    One(Rng),
    /// One each.
    Many(Vec<Rng>),
}

impl Luck {
    /// A stream each, all from one seed.
    pub(crate) fn many(seed: u64) -> Self {
        let mut seeds = Rng::new(seed);
        Self::Many((0..=Stream::Strike.place()).map(|_| Rng::new(seeds.bits())).collect())
    }

    pub(crate) fn of(&mut self, stream: Stream) -> &mut Rng {
        match self {
            Self::One(rng) => rng,
            Self::Many(all) => &mut all[stream.place()],
        }
    }

    /// A strike brings its own luck.
    pub(crate) fn begin_strike(&mut self, luck: u64) {
        if let Self::Many(all) = self {
            all[Stream::Strike.place()] = Rng::new(luck);
        }
    }
}

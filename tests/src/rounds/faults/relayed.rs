//! Ways that are long, and ways on which packets overtake each other and come twice: they go by the
//! relay.

use std::time::Duration;

use chatty_core::session::LinkState;
use chatty_simulations::history::Server;

use crate::rounds::fault::{Dice, Scene, Strike};
use crate::rounds::machines::{client_address, client_machine, server_address, server_machine};
use crate::rounds::relay::{Counts, Ends, Relay, Way, address};
use crate::rounds::system::until;

/// With so many words a second the relay has done what it is there for within this.
const SHOW_MAX: Duration = Duration::from_secs(20);
/// So many packets are overtaken, and so many doubled, before a round goes on.
const MANY: u64 = 20;

/// Who sends and takes packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Server(Server),
    Clients(Server),
}

impl End {
    fn machine(self) -> String {
        match self {
            Self::Server(server) => server_machine(server),
            Self::Clients(server) => client_machine(server),
        }
    }

    fn address(self) -> String {
        match self {
            Self::Server(server) => server_address(server),
            Self::Clients(server) => client_address(server),
        }
    }

    fn says(self) -> String {
        match self {
            Self::Server(server) => format!("s{}", server + 1),
            Self::Clients(server) => format!("the clients of s{}", server + 1),
        }
    }
}

/// Two ends, with what is done to packets there and back.
struct Pair {
    one: End,
    other: End,
    there: Way,
    back: Way,
}

impl Pair {
    fn ends(&self) -> Result<Ends, String> {
        Ok((address(&self.one.address())?, address(&self.other.address())?))
    }
}

/// The relay with what it does.
struct Led {
    pairs: Vec<Pair>,
    seed: u64,
    relay: Option<Relay>,
}

impl Led {
    fn new(pairs: Vec<Pair>, dice: &mut Dice) -> Self {
        Self { pairs, seed: dice.number(0, u64::MAX), relay: None }
    }

    fn begin(&mut self) -> Result<(), String> {
        let relay = self.relay.insert(Relay::begin(self.seed)?);
        for pair in &self.pairs {
            let (one, other) = pair.ends()?;
            relay.lead(&pair.other.machine(), (other, one), pair.back)?;
            relay.lead(&pair.one.machine(), (one, other), pair.there)?;
        }
        Ok(())
    }

    fn counts(&self) -> Result<Vec<(Ends, Counts)>, String> {
        Ok(self.relay.as_ref().ok_or("no packet goes by the relay")?.counts())
    }

    fn sum(&self) -> Result<Counts, String> {
        Ok(self.counts()?.into_iter().map(|(_, counts)| counts).sum())
    }

    /// Waits until packets took every way.
    fn all_taken(&self) -> Result<(), String> {
        until("packets take every way by the relay", SHOW_MAX, || {
            match self.counts()?.iter().find(|(_, counts)| counts.left == 0) {
                Some(((from, to), _)) => Err(format!("none from {from} to {to}")),
                None => Ok(()),
            }
        })
    }

    /// All ways are as they were; what was done on them.
    fn end(&mut self) -> Result<Counts, String> {
        if let Some(relay) = &mut self.relay {
            relay.end()?;
        }
        let sum = self.sum()?;
        self.relay = None;
        if sum.dropped > 0 {
            return Err(format!("the relay had no room for {} packets", sum.dropped));
        }
        Ok(sum)
    }
}

/// See [`Fault::Far`](crate::rounds::fault::Fault::Far).
pub struct Far {
    led: Led,
    lasts: Duration,
}

impl Far {
    /// A server and all others, or two servers; half the time it is as far there as back. One time in
    /// three the clients of the server are far from it as well.
    pub fn draw(dice: &mut Dice) -> Self {
        let order = dice.shuffled();
        let (one, rest) = (End::Server(order[0]), &order[1..]);
        let others = if dice.one_in(2) { &rest[..1] } else { rest };
        let mut others: Vec<_> = others.iter().map(|other| End::Server(*other)).collect();
        if dice.one_in(3) {
            others.push(End::Clients(order[0]));
        }
        let there = Self::way(dice);
        let back = if dice.one_in(2) { there } else { Self::way(dice) };
        let pair = |other| Pair { one, other, there, back };
        let led = Led::new(others.into_iter().map(pair).collect(), dice);
        Self { led, lasts: dice.millis(3000, 6000) }
    }

    fn way(dice: &mut Dice) -> Way {
        let base = Duration::from_millis(dice.number(100, 301));
        Way { base, jitter: Duration::from_millis(dice.number(0, 81)), ..Way::default() }
    }

    /// The round trip of a link that goes the way, as its server says; unless another fault took it.
    fn round_trip(&self, scene: &Scene<'_>) -> Option<Duration> {
        let Pair { one: End::Server(one), other: End::Server(other), .. } =
            self.led.pairs.first()?
        else {
            return None;
        };
        let status = scene.stage.status(*one).ok()?;
        let name = scene.stage.name(*other);
        let link = status.links.iter().find(|link| link.server.as_str() == name)?;
        (link.state == LinkState::Up).then(|| Duration::from_micros(link.rtt_micros))
    }
}

impl Strike for Far {
    fn says(&self) -> String {
        let others: Vec<_> = self.led.pairs.iter().map(|pair| pair.other.says()).collect();
        let Some(Pair { one, there, back, .. }) = self.led.pairs.first() else {
            return String::new();
        };
        let way = |way: &Way| {
            let (base, jitter) = (way.base, way.jitter);
            format!("{} to {} ms", base.as_millis(), (base + jitter).as_millis())
        };
        let length = if there == back {
            way(there)
        } else {
            format!("{} there, {} back", way(there), way(back))
        };
        let ms = self.lasts.as_millis();
        format!("{} far from {}, {length}, for {ms} ms", one.says(), others.join(" "))
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        self.led.begin()?;
        scene.note("far");
        Ok(())
    }

    fn shows(&mut self, _scene: &mut Scene<'_>) -> Result<(), String> {
        self.led.all_taken()
    }

    fn lasts(&self) -> Duration {
        self.lasts
    }

    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String> {
        let round_trip = self
            .round_trip(scene)
            .map(|rtt| format!(", a round trip takes {} ms", rtt.as_millis()));
        let sum = self.led.end()?;
        let (left, mean) = (sum.left, sum.mean());
        scene.note("near again");
        let least = self.led.pairs.iter().map(|pair| pair.there.base.min(pair.back.base)).min();
        if Some(mean) < least {
            return Err(format!("packets took {} ms on their way", mean.as_millis()));
        }
        Ok(format!("{left} packets took {} ms{}", mean.as_millis(), round_trip.unwrap_or_default()))
    }
}

/// See [`Fault::Reorder`](crate::rounds::fault::Fault::Reorder).
pub struct Reorder {
    led: Led,
    lasts: Duration,
}

impl Reorder {
    /// Up to three pairs: servers, or a server and its clients.
    pub fn draw(dice: &mut Dice) -> Self {
        let millis = |dice: &mut Dice, from, to| Duration::from_millis(dice.number(from, to));
        let way = Way {
            base: millis(dice, 0, 20),
            jitter: millis(dice, 2, 60),
            held_percent: dice.number(5, 31),
            hold: millis(dice, 20, 150),
            doubled_percent: dice.number(5, 31),
        };
        let mut ends = std::collections::BTreeSet::new();
        for _ in 0..dice.number(1, 4) {
            let order = dice.shuffled();
            let (one, other) = (order[0].min(order[1]), order[0].max(order[1]));
            let other = if dice.one_in(4) { End::Clients(one) } else { End::Server(other) };
            ends.insert((End::Server(one), other));
        }
        let pair = |(one, other)| Pair { one, other, there: way, back: way };
        let led = Led::new(ends.into_iter().map(pair).collect(), dice);
        Self { led, lasts: dice.millis(2000, 5000) }
    }
}

/// That this is many.
fn many(counts: &Counts) -> Result<(), String> {
    let Counts { left, overtaken, doubled, .. } = counts;
    if *overtaken >= MANY && *doubled >= MANY {
        return Ok(());
    }
    Err(format!("of {left} packets {overtaken} were overtaken and {doubled} went twice"))
}

impl Strike for Reorder {
    fn says(&self) -> String {
        let pairs: Vec<_> = self.led.pairs.iter().collect();
        let Some(way) = pairs.first().map(|pair| pair.there) else { return String::new() };
        let names =
            pairs.iter().map(|pair| format!("{} and {}", pair.one.says(), pair.other.says()));
        format!(
            "between {} packets take {} to {} ms, {} % of them {} ms more, {} % go twice, for {} ms",
            names.collect::<Vec<_>>().join(", "),
            way.base.as_millis(),
            (way.base + way.jitter).as_millis(),
            way.held_percent,
            way.hold.as_millis(),
            way.doubled_percent,
            self.lasts.as_millis(),
        )
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        self.led.begin()?;
        scene.note("packets overtake each other and come twice");
        Ok(())
    }

    fn shows(&mut self, _scene: &mut Scene<'_>) -> Result<(), String> {
        self.led.all_taken()?;
        until("many packets are overtaken and doubled", SHOW_MAX, || many(&self.led.sum()?))
    }

    fn lasts(&self) -> Duration {
        self.lasts
    }

    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String> {
        let sum = self.led.end()?;
        scene.note("packets come as they are sent");
        many(&sum)?;
        let Counts { left, overtaken, doubled, .. } = sum;
        Ok(format!("of {left} packets {overtaken} were overtaken, {doubled} went twice"))
    }
}

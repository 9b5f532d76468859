//! What is done to packets on their way: nothing here reads a clock or has a socket.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use chatty_core::rng::Rng;
use chatty_core::time::Time;

/// So many packets wait at once; what comes then is dropped, and counted.
pub const QUEUE_MAX: usize = 10_000;

/// What is done to the packets of one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Each takes so long…
    pub base: Duration,
    /// … and up to so much longer.
    pub jitter: Duration,
    /// So many of a hundred are held…
    pub held_percent: u64,
    /// … for so much longer.
    pub hold: Duration,
    /// So many of a hundred go twice, each with a delay of its own.
    pub doubled_percent: u64,
}

impl Way {
    fn draw(&self, rng: &mut Rng) -> Duration {
        let micros = u64::try_from(self.jitter.as_micros()).unwrap_or(u64::MAX);
        let delay = self.base + Duration::from_micros(rng.below(micros.saturating_add(1)));
        if rng.below(100) < self.held_percent { delay + self.hold } else { delay }
    }
}

/// From which address to which.
pub type Ends = (Ipv4Addr, Ipv4Addr);

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that left, copies among them.
    pub left: u64,
    /// How long these were here, all together.
    pub delay: Duration,
    /// Those of them that left after one that came later.
    pub overtaken: u64,
    /// Packets that were sent twice.
    pub doubled: u64,
    /// Packets for which there was no room.
    pub dropped: u64,
}

impl Counts {
    /// How long a packet was here, on average.
    pub fn mean(&self) -> Duration {
        self.delay.checked_div(u32::try_from(self.left).unwrap_or(u32::MAX)).unwrap_or_default()
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            left: sum.left + one.left,
            delay: sum.delay + one.delay,
            overtaken: sum.overtaken + one.overtaken,
            doubled: sum.doubled + one.doubled,
            dropped: sum.dropped + one.dropped,
        })
    }
}

/// A packet that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sent it.
    pub from: SocketAddrV4,
    /// To whom.
    pub to: SocketAddrV4,
    /// What is in it.
    pub bytes: Vec<u8>,
    came: Time,
    /// Packets are numbered as they come; a copy has a number of its own.
    number: u64,
}

struct Lane {
    way: Way,
    counts: Counts,
    /// The highest number of those that left.
    newest: u64,
}

/// Packets that wait, of all ways.
pub struct Queue {
    lanes: BTreeMap<Ends, Lane>,
    waiting: BTreeMap<(Time, u64), Packet>,
    rng: Rng,
    next: u64,
}

impl Queue {
    /// Without any way.
    pub const fn new(seed: u64) -> Self {
        Self { lanes: BTreeMap::new(), waiting: BTreeMap::new(), rng: Rng::new(seed), next: 1 }
    }

    /// From now on this is done to packets between these ends.
    pub fn open(&mut self, ends: Ends, way: Way) {
        self.lanes.insert(ends, Lane { way, counts: Counts::default(), newest: 0 });
    }

    /// What was done on each way.
    pub fn counts(&self) -> impl Iterator<Item = (Ends, Counts)> {
        self.lanes.iter().map(|(ends, lane)| (*ends, lane.counts))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A packet came. One of no way that was opened goes nowhere.
    pub fn push(&mut self, now: Time, from: SocketAddrV4, to: SocketAddrV4, bytes: &[u8]) {
        let Some(lane) = self.lanes.get_mut(&(*from.ip(), *to.ip())) else { return };
        let twice = self.rng.below(100) < lane.way.doubled_percent;
        for copy in 0..=u64::from(twice) {
            if self.waiting.len() >= QUEUE_MAX {
                lane.counts.dropped += 1;
                return;
            }
            lane.counts.doubled += copy;
            let at = now + lane.way.draw(&mut self.rng);
            let number = self.next;
            self.next += 1;
            let packet = Packet { from, to, bytes: bytes.to_vec(), came: now, number };
            self.waiting.insert((at, number), packet);
        }
    }

    /// When the next one leaves.
    pub fn next_at(&self) -> Option<Time> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next one that leaves now.
    pub fn pop(&mut self, now: Time) -> Option<Packet> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= now)?;
        let packet = first.remove();
        if let Some(lane) = self.lanes.get_mut(&(*packet.from.ip(), *packet.to.ip())) {
            lane.counts.left += 1;
            lane.counts.delay += now.since(packet.came);
            lane.counts.overtaken += u64::from(packet.number < lane.newest);
            lane.newest = lane.newest.max(packet.number);
        }
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    const fn ms(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    const fn way(base: u64, jitter: u64) -> Way {
        Way {
            base: Duration::from_millis(base),
            jitter: Duration::from_millis(jitter),
            held_percent: 0,
            hold: Duration::from_millis(200),
            doubled_percent: 0,
        }
    }

    fn queue(way: Way) -> Queue {
        let mut queue = Queue::new(7);
        queue.open((ONE, OTHER), way);
        queue
    }

    fn push(queue: &mut Queue, now: Time, text: u32) {
        let (from, to) = (SocketAddrV4::new(ONE, 1), SocketAddrV4::new(OTHER, 2));
        queue.push(now, from, to, &text.to_be_bytes());
    }

    /// All that leave, when and with which text.
    fn drain(queue: &mut Queue) -> Vec<(Time, u32)> {
        let mut left = Vec::new();
        while let Some(at) = queue.next_at() {
            let early = Time::from_micros(at.as_micros() - 1);
            assert_eq!(queue.pop(early), None, "nothing leaves too early");
            let packet = queue.pop(at).unwrap();
            assert_eq!((packet.from.port(), packet.to.port()), (1, 2));
            left.push((at, u32::from_be_bytes(packet.bytes.try_into().unwrap())));
        }
        left
    }

    /// What was done with so many packets, one each millisecond.
    fn passed(way: Way, count: u32) -> (Vec<(Time, u32)>, Counts) {
        let mut queue = queue(way);
        (0..count).for_each(|n| push(&mut queue, ms(u64::from(n)), n));
        let left = drain(&mut queue);
        (left, queue.counts().map(|(_, counts)| counts).sum())
    }

    #[test]
    fn without_jitter_packets_leave_in_order_each_after_its_delay() {
        let (left, counts) = passed(way(150, 0), 100);
        let expected: Vec<_> = (0..100).map(|n| (ms(u64::from(n) + 150), n)).collect();
        assert_eq!(left, expected);
        let delay = Duration::from_millis(150);
        assert_eq!(counts, Counts { left: 100, delay: delay * 100, ..Counts::default() });
        assert_eq!(counts.mean(), delay);
        assert_eq!(Counts::default().mean(), Duration::ZERO);
    }

    #[test]
    fn jitter_is_spread_over_its_width_and_lets_packets_overtake_which_is_counted() {
        let (left, counts) = passed(way(100, 50), 1000);
        let delays: Vec<_> = left.iter().map(|(at, n)| at.since(ms(u64::from(*n)))).collect();
        let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        assert!((100..103).contains(&least.as_millis()) && (147..=150).contains(&most.as_millis()));
        assert!((123..127).contains(&counts.mean().as_millis()), "{counts:?}");
        let late = (1..left.len()).filter(|i| left[..*i].iter().any(|(_, n)| *n > left[*i].1));
        assert_eq!(counts.overtaken, late.count() as u64);
        assert!(counts.overtaken > 500, "{counts:?}");
        assert_eq!(passed(way(100, 50), 1000).0, left, "a seed draws the same again");
    }

    #[test]
    fn a_share_is_held_and_overtaken_by_the_others() {
        let (left, counts) = passed(Way { held_percent: 10, ..way(5, 0) }, 1000);
        let held = left.iter().filter(|(at, n)| *at == ms(u64::from(*n) + 205)).count();
        assert!((70..130).contains(&held), "{held}");
        let at_once = left.iter().filter(|(at, n)| *at == ms(u64::from(*n) + 5)).count();
        assert_eq!(held + at_once, 1000);
        // Held among the last, nobody passes it.
        assert!(counts.overtaken <= held as u64 && counts.overtaken > 50, "{counts:?}");
    }

    #[test]
    fn a_share_goes_twice() {
        let (left, counts) = passed(Way { doubled_percent: 20, ..way(5, 30) }, 1000);
        assert!((160..240).contains(&counts.doubled), "{counts:?}");
        assert_eq!((left.len() as u64, counts.left), (1000 + counts.doubled, counts.left));
        let texts: std::collections::BTreeSet<_> = left.iter().map(|(_, n)| *n).collect();
        assert_eq!(texts.len(), 1000, "nothing is lost");
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_until_there_is_room_again() {
        let mut queue = queue(way(1000, 0));
        (0..QUEUE_MAX as u32 + 3).for_each(|n| push(&mut queue, ms(0), n));
        let dropped = |queue: &Queue| queue.counts().map(|(_, counts)| counts.dropped).sum::<u64>();
        assert_eq!((queue.len(), dropped(&queue)), (QUEUE_MAX, 3));
        queue.pop(ms(1000)).unwrap();
        push(&mut queue, ms(1000), 1);
        assert_eq!((queue.len(), dropped(&queue)), (QUEUE_MAX, 3));
    }

    #[test]
    fn each_direction_has_a_way_of_its_own_and_without_one_a_packet_goes_nowhere() {
        let mut queue = queue(way(100, 0));
        let (one, other) = (SocketAddrV4::new(ONE, 1), SocketAddrV4::new(OTHER, 2));
        queue.push(ms(0), other, one, b"nowhere");
        assert_eq!(queue.len(), 0);
        queue.open((OTHER, ONE), way(300, 0));
        queue.push(ms(0), one, other, b"there");
        queue.push(ms(0), other, one, b"back");
        assert_eq!(queue.next_at(), Some(ms(100)));
        assert_eq!(queue.pop(ms(100)).unwrap().bytes, b"there");
        assert_eq!(queue.next_at(), Some(ms(300)));
        assert_eq!(queue.pop(ms(300)).unwrap().bytes, b"back");
        let means: Vec<_> = queue.counts().map(|(_, counts)| counts.mean().as_millis()).collect();
        assert_eq!(means, [100, 300]);
    }
}

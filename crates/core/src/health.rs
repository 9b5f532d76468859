//! Which links live: pings on the control stream, suspicion, and hints from the kernel.
//!
//! Any frame counts as life. A link silent for `suspect_after` is not waited for, one silent for
//! `down_after` is closed. Pings belong to the loop and not to the transport, because a transport
//! that keeps alive proves nothing about the loop. A loop that itself stood still must not declare
//! the others dead: a gap of over a second between its own ticks moves all deadlines by the gap.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Timing;
use crate::frame::Ping;
use crate::id::{LinkId, Slot};
use crate::session::LinkState;
use crate::time::{Now, Time};

/// A gap between own ticks that counts as having stood still.
const STALL: Duration = Duration::from_secs(1);

/// The health of one link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pulse {
    slot: Slot,
    heard: Time,
    ping_at: Time,
    /// Until when the kernel's hint must be disproved.
    probe_until: Option<Time>,
    suspect: bool,
    rtt_micros: u64,
    /// The peer's clock and when it was read.
    clock: Option<(u64, Time)>,
}

/// The health of all links.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Health {
    timing: Timing,
    links: BTreeMap<LinkId, Pulse>,
    last_tick: Time,
}

/// What is to be done about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Ping it.
    Ping(LinkId),
    /// It fell silent, or speaks again.
    Suspect(LinkId),
    /// It is dead: close it.
    Close(LinkId),
}

impl Health {
    /// No links yet.
    pub const fn new(timing: Timing, now: Now) -> Self {
        Self { timing, links: BTreeMap::new(), last_tick: now.time }
    }

    /// A link is up.
    pub fn link_up(&mut self, now: Now, link: LinkId, slot: Slot) {
        let pulse = Pulse {
            slot,
            heard: now.time,
            ping_at: now.time,
            probe_until: None,
            suspect: false,
            rtt_micros: 0,
            clock: None,
        };
        self.links.insert(link, pulse);
    }

    /// A link is down.
    pub fn link_down(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    /// Every call of the core comes here first: notices when the process stood still.
    pub fn tick(&mut self, now: Now) {
        let gap = now.time.since(self.last_tick);
        self.last_tick = now.time;
        if gap <= STALL {
            return;
        }
        for pulse in self.links.values_mut() {
            pulse.heard = pulse.heard + gap;
            pulse.probe_until = pulse.probe_until.map(|until| until + gap);
        }
    }

    /// Something came from a link. Tells whether it was suspected until now.
    pub fn heard(&mut self, now: Now, link: LinkId) -> bool {
        let Some(pulse) = self.links.get_mut(&link) else { return false };
        pulse.heard = now.time;
        pulse.probe_until = None;
        std::mem::take(&mut pulse.suspect)
    }

    /// A ping, or the answer to one, told the peer's clock.
    pub fn clock(&mut self, now: Now, link: LinkId, clock_ms: u64) {
        if let Some(pulse) = self.links.get_mut(&link) {
            pulse.clock = Some((clock_ms, now.time));
        }
    }

    /// The answer to a ping of ours.
    pub fn pong(&mut self, now: Now, link: LinkId, pong: Ping) {
        self.clock(now, link, pong.clock_ms);
        let Some(pulse) = self.links.get_mut(&link) else { return };
        let rtt = now.time.as_micros().saturating_sub(pong.sent_micros).max(1);
        pulse.rtt_micros = match pulse.rtt_micros {
            0 => rtt,
            smoothed => (smoothed * 7 + rtt) / 8,
        };
    }

    /// The kernel says that nothing listens at the other end: ping at once, and wait shortly, but for
    /// two round trips; how long these are is not known before the first answer. A forged hint costs
    /// that and nothing more.
    pub fn hint(&mut self, now: Now, link: LinkId) {
        let (timeout, unknown) = (self.timing.probe_timeout, self.timing.suspect_after);
        if let Some(pulse) = self.links.get_mut(&link)
            && pulse.probe_until.is_none()
        {
            let wait = match pulse.rtt_micros {
                0 => unknown,
                rtt => timeout.max(Duration::from_micros(rtt.saturating_mul(2))),
            };
            pulse.probe_until = Some(now.time + wait);
            pulse.ping_at = now.time;
        }
    }

    /// The state and round trip (microseconds, 0 if unknown) of a link.
    pub fn link(&self, link: LinkId) -> (LinkState, u64) {
        self.links.get(&link).map_or((LinkState::Down, 0), |pulse| {
            let state = if pulse.suspect { LinkState::Suspect } else { LinkState::Up };
            (state, pulse.rtt_micros)
        })
    }

    /// The clocks of the linked slots that `votes`, as they should read now, in milliseconds.
    pub fn clocks(&self, now: Now, votes: impl Fn(&Slot) -> bool) -> Vec<u64> {
        self.links
            .values()
            .filter(|pulse| votes(&pulse.slot))
            .filter_map(|pulse| pulse.clock)
            .map(|(ms, read)| ms.saturating_add(millis(now.time.since(read))))
            .collect()
    }

    /// When [`Self::due`] has something to say.
    pub fn next_deadline(&self) -> Option<Time> {
        self.links
            .values()
            .flat_map(|pulse| {
                let silent = if pulse.suspect {
                    pulse.heard + self.timing.down_after
                } else {
                    pulse.heard + self.timing.suspect_after
                };
                [Some(pulse.ping_at), Some(silent), pulse.probe_until]
            })
            .flatten()
            .min()
    }

    /// What is to be done now.
    pub fn due(&mut self, now: Now) -> Vec<Care> {
        let mut care = Vec::new();
        for (link, pulse) in &mut self.links {
            let silence = now.time.since(pulse.heard);
            let probed = pulse.probe_until.is_some_and(|until| until <= now.time);
            if silence >= self.timing.down_after || probed {
                care.push(Care::Close(*link));
                pulse.probe_until = None;
                pulse.heard = now.time; // said once; the driver answers with `LinkDown`
                continue;
            }
            if silence >= self.timing.suspect_after && !pulse.suspect {
                pulse.suspect = true;
                care.push(Care::Suspect(*link));
            }
            if pulse.ping_at <= now.time {
                pulse.ping_at = now.time + self.timing.ping_period;
                care.push(Care::Ping(*link));
            }
        }
        care
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LinkId = LinkId(1);

    const fn ms(ms: u64) -> Now {
        Now { time: Time::from_micros(ms * 1000), wall_ms: ms }
    }

    fn linked() -> Health {
        let mut health = Health::new(Timing::default(), ms(0));
        let Ok(slot) = Slot::new("s2") else { unreachable!() };
        health.link_up(ms(0), LINK, slot);
        assert_eq!(health.due(ms(0)), [Care::Ping(LINK)]);
        health
    }

    /// As [`linked`], and a ping was answered within a millisecond.
    fn near() -> Health {
        let mut health = linked();
        health.pong(ms(1), LINK, Ping { sent_micros: 0, clock_ms: 1 });
        health
    }

    /// Lets the loop turn every 100 ms, as it does when it lives.
    fn turn(health: &mut Health, from: u64, to: u64) -> Vec<(u64, Care)> {
        let mut seen = Vec::new();
        for t in (from..=to).step_by(100) {
            health.tick(ms(t));
            let care = health.due(ms(t));
            seen.extend(care.into_iter().filter(|c| *c != Care::Ping(LINK)).map(|c| (t, c)));
        }
        seen
    }

    #[test]
    fn a_silent_link_is_suspected_then_closed() {
        let mut health = linked();
        let seen = turn(&mut health, 100, 5000);
        assert_eq!(seen, [(2000, Care::Suspect(LINK)), (5000, Care::Close(LINK))]);
    }

    #[test]
    fn a_loop_that_stood_still_does_not_blame_the_others() {
        let mut health = linked();
        health.tick(ms(10_000));
        assert_eq!(health.due(ms(10_000)), [Care::Ping(LINK)]);
    }

    #[test]
    fn a_hint_is_a_probe_that_an_answer_disproves() {
        let mut health = linked();
        health.hint(ms(100), LINK);
        assert_eq!(health.due(ms(100)), [Care::Ping(LINK)]);
        health.heard(ms(110), LINK);
        assert_eq!(turn(&mut health, 200, 600), []);
    }

    #[test]
    fn a_probe_waits_for_two_round_trips() {
        let mut health = linked();
        health.pong(ms(300), LINK, Ping { sent_micros: 0, clock_ms: 300 });
        health.hint(ms(300), LINK);
        assert_eq!(turn(&mut health, 300, 1000), [(900, Care::Close(LINK))]);
    }

    #[test]
    fn a_hint_that_nothing_disproves_closes_the_link() {
        let mut health = near();
        health.hint(ms(100), LINK);
        assert_eq!(turn(&mut health, 100, 400), [(400, Care::Close(LINK))]);
        // It may be far: nothing has come back from it yet.
        let mut health = linked();
        health.hint(ms(100), LINK);
        let seen = turn(&mut health, 100, 2100);
        assert_eq!(seen.last(), Some(&(2100, Care::Close(LINK))));
        assert_eq!(seen.len(), 2, "suspected before: {seen:?}");
    }

    #[test]
    fn a_link_is_pinged_every_half_second_and_its_deadlines_are_told() {
        let mut health = linked();
        let at = |ms: u64| Some(Time::from_micros(ms * 1000));
        assert_eq!(health.next_deadline(), at(500));
        assert_eq!(health.due(ms(499)), []);
        assert_eq!(health.due(ms(500)), [Care::Ping(LINK)]);
        assert_eq!(health.next_deadline(), at(1000));
        health.due(ms(1900));
        assert_eq!(health.next_deadline(), at(2000), "when it falls silent");
        assert_eq!(health.due(ms(2000)), [Care::Suspect(LINK)]);
        assert_eq!(health.link(LINK), (LinkState::Suspect, 0));
        assert_eq!(health.next_deadline(), at(2400));
        health.due(ms(4900));
        assert_eq!(health.next_deadline(), at(5000), "when it is given up");
        health.hint(ms(4950), LINK);
        assert_eq!(health.next_deadline(), at(4950));
        assert_eq!(health.due(ms(4950)), [Care::Ping(LINK)]);
        assert!(health.heard(ms(4960), LINK), "it was suspected");
        assert!(!health.heard(ms(4960), LINK));
        assert_eq!(health.link(LINK), (LinkState::Up, 0));
        health.link_down(LINK);
        assert_eq!((health.next_deadline(), health.link(LINK)), (None, (LinkState::Down, 0)));
        assert!(!health.heard(ms(4970), LINK));
    }

    #[test]
    fn a_probe_is_due_when_it_is_told() {
        let mut health = near();
        health.hint(ms(100), LINK);
        health.due(ms(100));
        health.hint(ms(300), LINK);
        assert_eq!(health.next_deadline(), Some(ms(350).time), "a second hint changes nothing");
        assert_eq!(health.due(ms(349)), []);
        assert_eq!(health.due(ms(350)), [Care::Close(LINK)]);
        assert_eq!(health.next_deadline(), Some(ms(600).time), "said once");
    }

    #[test]
    fn round_trips_are_smoothed() {
        let mut health = linked();
        let mut rtt = |now: u64, sent: u64| {
            health.pong(ms(now), LINK, Ping { sent_micros: sent * 1000, clock_ms: 0 });
            health.link(LINK).1
        };
        assert_eq!(rtt(80, 0), 80_000, "the first as it is");
        assert_eq!(rtt(200, 200), 70_000, "then an eighth of each: 0 counts as a microsecond");
        assert_eq!(rtt(900, 100), 161_250);
        assert_eq!(rtt(900, 2000), 141_093, "a clock that went back");
    }

    #[test]
    fn clocks_of_others_are_told_as_they_should_read_now() {
        let mut health = linked();
        assert_eq!(health.clocks(ms(0), |_| true), [] as [u64; 0], "never told");
        health.clock(ms(100), LINK, 5000);
        assert_eq!(health.clocks(ms(350), |_| true), [5250]);
        assert_eq!(health.clocks(ms(350), |slot| slot.as_str() != "s2"), [] as [u64; 0]);
        health.pong(ms(400), LINK, Ping { sent_micros: 0, clock_ms: 6000 });
        assert_eq!(health.clocks(ms(400), |_| true), [6000]);
    }

    #[test]
    fn a_gap_of_a_second_between_ticks_is_not_a_stall() {
        let mut health = linked();
        for t in [1000, 2000] {
            health.tick(ms(t));
        }
        assert!(health.due(ms(2000)).contains(&Care::Suspect(LINK)));
        let mut health = near();
        health.hint(ms(0), LINK);
        health.tick(ms(1001));
        assert_eq!(health.due(ms(1001)), [Care::Ping(LINK)], "a probe waits as well");
        assert_eq!(turn(&mut health, 1100, 1300), [(1300, Care::Close(LINK))]);
    }
}

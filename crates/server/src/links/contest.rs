//! Two runs of one disk: a server that was restarted, or a copy of its data folder.
//!
//! Both look the same at first: a connection says hello for a disk that is linked, by another run
//! of it. A restarted server's old run is dead, and that of a copied folder is not. So the old run
//! is asked: only its answer to a ping that left after the newcomer's hello refuses the newcomer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chatty_core::id::{Origin, Slot};
use chatty_core::io::Peer;
use chatty_core::time::Time;

use super::{Links, Ready};

/// An old run that is silent for so long, and for so many round trips, is over. The replica's own
/// probe mostly finds it out before; frames of a dead run that were still on their way can hold that
/// up.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const ROUND_TRIPS: u32 = 4;
/// The same while its round trip is not known: it was linked just now.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(4);

/// Newcomers that wait for the old run of their disk to answer or to end: one a slot.
#[derive(Default)]
pub(crate) struct Contests(BTreeMap<Slot, Contest>);

struct Contest {
    old: Origin,
    /// Pings that left before this prove nothing.
    asked: Time,
    until: Instant,
    newcomer: Ready,
}

impl Contests {
    /// A newcomer waits for the old run, to which a round trip takes so long (zero if unknown).
    ///
    /// # Errors
    /// Gives it back: another one waits already.
    pub(crate) fn begin(
        &mut self,
        now: Time,
        (old, round_trip): (Origin, Duration),
        newcomer: Ready,
    ) -> Result<(), Box<Ready>> {
        let slot = newcomer.peer.slot.clone();
        if self.0.contains_key(&slot) {
            return Err(Box::new(newcomer));
        }
        let until = Instant::now() + answer_limit(round_trip);
        self.0.insert(slot, Contest { old, asked: now, until, newcomer });
        Ok(())
    }

    /// A run answered a ping that left at `sent`; the newcomer that is refused by that.
    pub(crate) fn answered(&mut self, by: &Peer, sent: Time) -> Option<Ready> {
        let contest = self.0.get(&by.slot)?;
        let lives = contest.old == by.origin && contest.asked <= sent;
        if lives { self.0.remove(&by.slot).map(|contest| contest.newcomer) } else { None }
    }

    /// A newcomer whose old run is not linked any more, or did not answer.
    pub(crate) fn won(&mut self, links: &Links) -> Option<Ready> {
        let over = self.0.iter().find(|(slot, contest)| contest.is_over(slot, links));
        let slot = over.map(|(slot, _)| slot.clone())?;
        self.0.remove(&slot).map(|contest| contest.newcomer)
    }

    /// When [`Self::won`] has something to say.
    pub(crate) fn next_deadline(&self, links: &Links) -> Option<Instant> {
        let due = |(slot, contest): (&Slot, &Contest)| {
            if contest.is_over(slot, links) { Instant::now() } else { contest.until }
        };
        self.0.iter().map(due).min()
    }
}

impl Contest {
    fn is_over(&self, slot: &Slot, links: &Links) -> bool {
        links.run(slot) != Some(self.old) || self.until <= Instant::now()
    }
}

/// How long an old run has to answer, to which a round trip takes so long.
fn answer_limit(round_trip: Duration) -> Duration {
    match round_trip {
        Duration::ZERO => UNKNOWN_LIMIT,
        known => ANSWER_LIMIT.max(known.saturating_mul(ROUND_TRIPS)),
    }
}

/// What both sides are told of two live runs of one disk.
pub(crate) fn duplicate(linked: &Peer, newcomer: &Peer) -> String {
    format!(
        "DUPLICATE: the disk {} of {} runs twice: run {} is linked and answers, run {} came after \
         it and is refused. A copy of the data folder was started. Stop the copy; if it is to \
         take part, delete its data and give it a slot and a certificate of its own.",
        linked.server, linked.slot, linked.origin, newcomer.origin
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_run_has_the_time_of_its_way_before_it_is_over() {
        let limit = |ms| answer_limit(Duration::from_millis(ms)).as_millis();
        assert_eq!([0, 1, 250, 251, 700].map(limit), [4000, 1000, 1000, 1004, 2800]);
    }
}

//! How each fault is made, shows, and ends.

pub mod clock;
pub mod disks;
pub mod links;
pub mod processes;
pub mod relayed;

use chatty_core::id::Origin;
use chatty_core::time::Time;
use chatty_simulations::history::{Did, History, What};

/// How many messages said and answered in that time a run of a server wrote to its own log.
pub(super) fn taken_by(history: &History, run: Origin, from: Time, until: Time) -> usize {
    let mut said = std::collections::BTreeSet::new();
    let mut taken = std::collections::BTreeSet::new();
    for op in history.ops.iter().filter(|op| from < op.at && op.at < until) {
        match &op.what {
            What::Client(session, Did::Sent { ticket, .. }) => {
                said.insert((*session, *ticket));
            }
            What::Client(session, Did::Answered { ticket, key: Some(key), .. })
                if key.origin == run && said.contains(&(*session, *ticket)) =>
            {
                taken.insert((*session, *ticket));
            }
            _ => {}
        }
    }
    taken.len()
}

#[cfg(test)]
mod tests {
    use chatty_core::id::{Mid, RoomId};
    use chatty_core::session::Level;
    use chatty_core::time::Key;
    use chatty_simulations::history::Op;

    use super::*;

    #[test]
    fn what_a_run_wrote_of_what_was_said_in_a_time_is_counted() {
        let at = |s: u64| Time::from_micros(s * 1_000_000);
        let run = Origin::new(7);
        let one = |said: u64, told: u64, origin| {
            let sent = Did::Sent { ticket: said, room: RoomId::public("lobby") };
            let (mid, level) = (Mid::default(), Level::Stored);
            let key = Some(Key { origin, ..Key::MIN });
            let answer = Did::Answered { ticket: said, mid, key, level, server: 0 };
            let op = |s, did| Op { at: at(s), what: What::Client(0, did) };
            [op(said, sent), op(told, answer)]
        };
        let count = |ops: [Op; 2]| {
            let history = History { ops: ops.into(), ..History::default() };
            taken_by(&history, run, at(10), at(20))
        };
        assert_eq!(count(one(11, 12, run)), 1);
        assert_eq!(count(one(11, 12, Origin::new(8))), 0, "another server took it");
        assert_eq!(count(one(9, 12, run)), 0, "it was said before");
        assert_eq!(count(one(11, 21, run)), 0, "it may have been taken after");
    }
}

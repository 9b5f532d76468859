//! Which lines were told already.

use std::collections::{BTreeSet, VecDeque};

use crate::id::{AccountId, EventId, Log, Mid};
use crate::session::Line;
use crate::vector::Vector;

/// Lines remembered at most, also when the cursor does not cover them: past that, a line that
/// comes again is told again. 65,536: a server replays 10,000 before it asks to read again.
const SEEN_MAX: usize = 65_536;

/// What makes a line the same line: a message's identity, else its place in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Same {
    Message(Mid, AccountId),
    Event(EventId),
}

fn same(line: &Line) -> (Same, EventId) {
    let event = line.event.id(Log::of(line.origin));
    match line.identity() {
        Some(identity) => (Same::Message(identity.mid, identity.account), event),
        None => (Same::Event(event), event),
    }
}

/// The lines told of one room, newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    order: VecDeque<(Same, EventId)>,
    set: BTreeSet<Same>,
}

impl Seen {
    /// Remembers a line; tells whether it is new. Forgets the oldest beyond `remembered` that the
    /// cursor covers, since no server sends those again.
    pub(super) fn insert(&mut self, line: &Line, remembered: usize, cursor: &Vector) -> bool {
        let (same, event) = same(line);
        if !self.set.insert(same) {
            return false;
        }
        self.order.push_back((same, event));
        while self.order.len() > remembered {
            let covered = self.order.front().is_some_and(|(_, event)| cursor.covers(*event));
            if !covered && self.order.len() <= SEEN_MAX {
                break;
            }
            if let Some((same, _)) = self.order.pop_front() {
                self.set.remove(&same);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{Body, Event, Msg};
    use crate::id::{Origin, RoomId};
    use crate::time::Hlc;

    fn line(seq: u64) -> Line {
        let body = Body::from(Msg { nick: "ann".into(), text: "hi".into() });
        let event = Event {
            seq,
            hlc: Hlc::at_ms(seq),
            wall_ms: seq,
            room: RoomId::new(1),
            actor: AccountId::new(1),
            mid: Mid::new(seq.into()),
            kind: body.kind(),
            body: body.encode(),
        };
        Line { origin: Origin::new(1), event: Arc::new(event) }
    }

    fn upto(upto: u64) -> Vector {
        [(Log::of(Origin::new(1)), upto)].into_iter().collect()
    }

    #[test]
    fn only_what_the_cursor_covers_is_forgotten() {
        let mut seen = Seen::default();
        for seq in 1..=10 {
            assert!(seen.insert(&line(seq), 4, &upto(3)));
        }
        assert_eq!(seen.order.len(), 7, "lines 4 to 10 may come again after a fail-over");
        seen.insert(&line(11), 4, &upto(11));
        assert_eq!(seen.order.len(), 4);
        assert!(!seen.insert(&line(9), 4, &upto(11)), "still remembered");
    }

    #[test]
    fn memory_is_bounded_also_when_no_token_ever_comes() {
        let mut seen = Seen::default();
        let lines = u64::try_from(SEEN_MAX).unwrap() + 100;
        for seq in 1..=lines {
            seen.insert(&line(seq), 4, &Vector::new());
        }
        assert_eq!((seen.order.len(), seen.set.len()), (SEEN_MAX, SEEN_MAX));
    }
}

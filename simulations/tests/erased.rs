//! What is left on a disk of messages below a floor.

use std::sync::Arc;

use chatty_core::event::{Body, CHAIN_START, Event, Floor, Msg, VOID};
use chatty_core::id::{AccountId, Log, Mid, Origin, RoomId};
use chatty_core::store::{Batch, Entry, Floors, Outcome, Swept};
use chatty_core::time::Hlc;
use chatty_simulations::disk::Disk;

const FLOOR_MS: u64 = 100;

fn room() -> RoomId {
    RoomId::public("lobby")
}

/// A disk, and what others say.
#[derive(Default)]
struct World {
    disk: Disk,
    chains: std::collections::BTreeMap<Log, (u64, u64)>,
}

impl World {
    /// An event of a log arrives.
    fn hear(&mut self, log: u128, mid: Mid, body: &Body, floors: &Floors) -> (Outcome, u64) {
        let log = Log::of(Origin::new(log));
        let (seq, chain) = self.chains.get(&log).copied().unwrap_or((0, CHAIN_START));
        let event = Event {
            seq: seq + 1,
            hlc: Hlc::at_ms(1000 + seq),
            wall_ms: 1000,
            room: room(),
            actor: AccountId::new(1),
            mid,
            kind: body.kind(),
            body: body.encode(),
        };
        let chain = event.chain(chain);
        self.chains.insert(log, (seq + 1, chain));
        let entries = vec![Entry { log, event: Arc::new(event), chain }];
        let batch = Batch { entries, floors: floors.clone(), ..Batch::default() };
        let outcomes = self.disk.commit(&batch).outcomes;
        (outcomes[0], seq + 1)
    }

    fn say(&mut self, log: u128, mid: Mid, floors: &Floors) -> (Outcome, u64) {
        self.hear(log, mid, &Msg { nick: "ann".into(), text: "secret".into() }.into(), floors)
    }

    fn is_erased(&self, log: u128, seq: u64) -> bool {
        self.disk.logs()[&Log::of(Origin::new(log))][seq as usize - 1].event.kind == VOID
    }
}

#[test]
fn what_comes_below_a_floor_before_a_majority_has_it_is_erased_with_the_rest() {
    let mut world = World::default();
    let (none, floors): (Floors, Floors) =
        (Floors::default(), Arc::new([(room(), FLOOR_MS)].into()));
    let (old, alone, kept) = (Mid::at(50, 1), Mid::at(60, 2), Mid::at(200, 3));
    assert_eq!(world.say(1, old, &none).0, Outcome::New);
    assert_eq!(world.say(1, kept, &none).0, Outcome::New);
    let nobody = Mid::new(0);
    world.hear(1, nobody, &Floor { ms: FLOOR_MS }.into(), &none);

    // The floor is known, and on one disk: a repetition with a smaller key, and a message that
    // nobody here had seen.
    assert_eq!(world.say(0, old, &none), (Outcome::Below, 1));
    assert_eq!(world.say(2, alone, &none), (Outcome::Below, 1));
    assert!(!world.is_erased(0, 1) && !world.is_erased(2, 1), "the floor may still be lost");
    let before = world.disk.sums();
    assert_eq!(before[&room()].messages, 2);

    // A majority has it.
    let sweep = Batch { floors: floors.clone(), sweep: Some(None), ..Batch::default() };
    assert_eq!(world.disk.commit(&sweep).swept, Some(Swept::All));
    assert!(world.is_erased(1, 1), "what had a place");
    assert!(world.is_erased(0, 1) && world.is_erased(2, 1), "what had none");
    assert!(!world.is_erased(1, 2), "what is above the floor");
    assert!(!world.disk.is_unerased());
    assert_eq!(world.disk.sums()[&room()].messages, 1);
    assert_eq!(world.disk.timeline(room()).len(), 1);
    assert_eq!(world.say(2, alone, &floors).0, Outcome::Below, "and it does not come back");
    assert!(world.is_erased(2, 2));
}

//! What lost is erased when its winner is on a majority of disks, and not before.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use super::super::{Batch, Entry, Row, SlotHolder, Sum, Tidied, Tidy, View, plan};
use super::TIDY_STEP;
use crate::event::{Body, Event, Identity, RoomCreate, Topic, VOID};
use crate::id::{AccountId, Log, Mid, Origin, RoomId, Slot};
use crate::register::{Register, RegisterKey};
use crate::time::{Hlc, Key};

const LOG: Log = Log::of(Origin::new(1));
const ROOM: RoomId = RoomId::new(1);

/// A disk with one log.
#[derive(Default)]
struct Shelf {
    log: Vec<Entry>,
    registers: BTreeMap<RegisterKey, Register>,
    lost: BTreeMap<Key, RegisterKey>,
}

impl Shelf {
    fn commit(&mut self, batch: &Batch) -> Option<Tidied> {
        let Ok((rows, done)) = plan(self, batch);
        for row in rows {
            match row {
                Row::Event(entry) => self.log.push(entry),
                Row::Void(entry) => {
                    let at = entry.event.seq as usize - 1;
                    self.log[at] = entry;
                }
                Row::Register(key, value) => drop(self.registers.insert(key, value)),
                Row::Lost(key, register) => drop(self.lost.insert(key, register)),
                Row::ForgetLost(key) => drop(self.lost.remove(&key)),
                row => panic!("no register write makes {row:?}"),
            }
        }
        done.tidied
    }

    fn write(&mut self, stamp: u64, body: &Body) {
        let event = Event {
            seq: self.log.len() as u64 + 1,
            hlc: Hlc::from_bits(stamp),
            wall_ms: 0,
            room: ROOM,
            actor: AccountId::new(1),
            mid: Mid::new(0),
            kind: body.kind(),
            body: body.encode(),
        };
        let chain = event.chain(self.log.last().map_or(0, |last| last.chain));
        let entries = vec![Entry { log: LOG, event: Arc::new(event), chain }];
        self.commit(&Batch { entries, ..Batch::default() });
    }

    fn tidy(&mut self, replicated: u64, after: Option<Key>) -> Option<Tidied> {
        let replicated = Arc::new([(LOG, replicated)].into_iter().collect());
        self.commit(&Batch { tidy: Some(Tidy { after, replicated }), ..Batch::default() })
    }

    fn erased(&self) -> Vec<u64> {
        let void = self.log.iter().filter(|entry| entry.event.kind == VOID);
        void.map(|entry| entry.event.seq).collect()
    }
}

impl View for Shelf {
    type Error = Infallible;

    fn events(&self, log: Log, from: u64, to: u64, _: usize) -> Result<Vec<Entry>, Infallible> {
        let of = self.log.iter().filter(|e| log == LOG && (from..=to).contains(&e.event.seq));
        Ok(of.cloned().collect())
    }
    fn places(&self, _: RoomId, _: Key, _: usize) -> Result<Vec<Key>, Infallible> {
        Ok(Vec::new())
    }
    fn places_above(&self, _: RoomId, _: Key, _: usize) -> Result<Vec<Key>, Infallible> {
        Ok(Vec::new())
    }
    fn keys(&self, _: &Identity) -> Result<Vec<Key>, Infallible> {
        Ok(Vec::new())
    }
    fn identities(
        &self,
        _: Option<&Identity>,
        _: u64,
        _: usize,
    ) -> Result<Vec<(Identity, Vec<Key>)>, Infallible> {
        Ok(Vec::new())
    }
    fn register(&self, key: &RegisterKey) -> Result<Option<Register>, Infallible> {
        Ok(self.registers.get(key).cloned())
    }
    fn lost(&self, after: Option<Key>, n: usize) -> Result<Vec<(Key, RegisterKey)>, Infallible> {
        let later = self.lost.iter().filter(|(key, _)| after.is_none_or(|after| **key > after));
        Ok(later.take(n).map(|(key, register)| (*key, *register)).collect())
    }
    fn sum(&self, _: RoomId) -> Result<Sum, Infallible> {
        Ok(Sum::default())
    }
    fn slot(&self, _: &Slot) -> Result<Option<SlotHolder>, Infallible> {
        Ok(None)
    }
}

fn topic(text: &str) -> Body {
    Topic { nick: "ann".into(), text: text.into() }.into()
}

#[test]
fn a_write_that_lost_is_erased_once_its_winner_is_replicated() {
    let mut shelf = Shelf::default();
    shelf.write(1, &topic("old"));
    shelf.write(2, &topic("new"));

    assert_eq!(shelf.tidy(1, None), Some(Tidied::All));
    assert_eq!(shelf.erased(), [], "the winner is on one disk");

    let chains: Vec<u64> = shelf.log.iter().map(|entry| entry.chain).collect();
    shelf.tidy(2, None);
    assert_eq!(shelf.erased(), [1]);
    assert!(shelf.lost.is_empty(), "nothing is left to remember");
    let still = shelf.log.iter().scan(0, |chain, entry| {
        *chain = entry.event.chain(*chain);
        Some(*chain)
    });
    assert_eq!(still.collect::<Vec<_>>(), chains, "the chain can be checked as before");
}

#[test]
fn a_write_that_comes_late_and_loses_is_the_one_erased() {
    let mut shelf = Shelf::default();
    shelf.write(5, &topic("new"));
    shelf.write(4, &topic("old, from a server that was cut off"));
    shelf.tidy(2, None);
    assert_eq!(shelf.erased(), [2]);
}

#[test]
fn of_several_creations_of_a_room_the_earliest_stays() {
    let mut shelf = Shelf::default();
    for stamp in [7, 3, 9] {
        shelf.write(stamp, &RoomCreate { name: "lobby".into() }.into());
    }
    shelf.tidy(3, None);
    assert_eq!(shelf.erased(), [1, 3]);
}

#[test]
fn a_step_erases_so_many_and_the_next_goes_on_after_them() {
    let mut shelf = Shelf::default();
    let all = TIDY_STEP as u64 + 3;
    for stamp in 1..=all {
        shelf.write(stamp, &topic("again"));
    }
    let Some(Tidied::Upto(last)) = shelf.tidy(all, None) else { panic!("more was lost") };
    assert_eq!(shelf.erased().len(), TIDY_STEP);
    assert_eq!(shelf.tidy(all, Some(last)), Some(Tidied::All));
    assert_eq!(shelf.erased(), (1..all).collect::<Vec<_>>(), "all but the winner");
}

//! The database against a reference in memory that shares only the core's rules with it.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Bound;

use chatty_core::event::{Event, Identity, Join, Msg, Topic};
use chatty_core::id::{AccountId, Mid, RoomId, ServerId, Slot};
use chatty_core::io::Standing;
use chatty_core::register::{Register, RegisterKey};
use chatty_core::session::Line;
use chatty_core::store::{Entry, Row, Rows, SlotHolder, Sum, Tidy, View};
use chatty_core::time::{Hlc, Key};
use chatty_core::vector::Vector;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// The rows as maps.
#[derive(Clone, Default)]
struct Memory {
    events: BTreeMap<(Log, u64), Entry>,
    places: BTreeSet<(RoomId, Key)>,
    keys: BTreeMap<Identity, Vec<Key>>,
    registers: BTreeMap<RegisterKey, Register>,
    lost: BTreeMap<Key, RegisterKey>,
    sums: BTreeMap<RoomId, Sum>,
    disks: BTreeMap<(ServerId, Log), u64>,
    slots: BTreeMap<Slot, SlotHolder>,
    standing: Standing,
}

impl Memory {
    fn commit(&mut self, batch: &Batch) -> Committed {
        let (rows, done) = plan(self, batch).unwrap();
        for row in rows {
            match row {
                Row::Event(e) | Row::Void(e) => {
                    self.events.insert((e.log, e.event.seq), e);
                }
                Row::ForgetKey(identity) => drop(self.keys.remove(&identity)),
                Row::Place(room, key) => drop(self.places.insert((room, key))),
                Row::Unplace(room, key) => drop(self.places.remove(&(room, key))),
                Row::Keys(identity, keys) => drop(self.keys.insert(identity, keys)),
                Row::Register(key, value) => drop(self.registers.insert(key, value)),
                Row::Lost(key, register) => drop(self.lost.insert(key, register)),
                Row::ForgetLost(key) => drop(self.lost.remove(&key)),
                Row::Sum(room, sum) => drop(self.sums.insert(room, sum)),
                Row::Disk(server, log, upto) => drop(self.disks.insert((server, log), upto)),
                Row::ForgetDisk(server) => self.disks.retain(|(of, _), _| *of != server),
                Row::Slot(holder) => drop(self.slots.insert(holder.slot.clone(), holder)),
                Row::Standing(standing) => self.standing = standing,
            }
        }
        done
    }

    fn loaded(&self) -> Loaded {
        let mut heads = BTreeMap::new();
        for ((log, seq), e) in &self.events {
            let head = LoadedLog { log: *log, upto: *seq, chain: e.chain, hlc: e.event.hlc };
            heads.insert(*log, head);
        }
        Loaded {
            logs: heads.into_values().collect(),
            registers: self.registers.iter().map(|(k, v)| (*k, v.clone())).collect(),
            sums: self.sums.iter().map(|(k, v)| (*k, *v)).collect(),
            disks: self.disks.iter().map(|((s, l), n)| (*s, *l, *n)).collect(),
            slots: self.slots.values().cloned().collect(),
            standing: self.standing,
        }
    }
}

impl View for Memory {
    type Error = StoreError;

    fn events(&self, log: Log, from: u64, to: u64, bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let mut left = bytes;
        let all = (from.max(1)..=to).map_while(|seq| self.events.get(&(log, seq)));
        let fits = all.enumerate().take_while(|(at, e)| {
            let (fits, cost) = (*at == 0 || e.event.cost() <= left, e.event.cost());
            left = left.saturating_sub(cost);
            fits
        });
        Ok(fits.map(|(_, e)| e.clone()).collect())
    }
    fn places(&self, room: RoomId, below: Key, limit: usize) -> Result<Vec<Key>, StoreError> {
        let range = (room, Key::MIN)..(room, below);
        Ok(self.places.range(range).rev().take(limit).map(|(_, key)| *key).collect())
    }
    fn places_above(&self, room: RoomId, above: Key, limit: usize) -> Result<Vec<Key>, StoreError> {
        let all = self.places.iter().filter(|(of, key)| *of == room && *key > above);
        Ok(all.take(limit).map(|(_, key)| *key).collect())
    }
    fn keys(&self, identity: &Identity) -> Result<Vec<Key>, StoreError> {
        Ok(self.keys.get(identity).cloned().unwrap_or_default())
    }
    fn identities(
        &self,
        after: Option<&Identity>,
        upto_ms: u64,
        limit: usize,
    ) -> Result<Vec<(Identity, Vec<Key>)>, StoreError> {
        let place = |identity: &Identity| (identity.mid, identity.account, identity.room);
        let mut found: Vec<(Identity, Vec<Key>)> = self
            .keys
            .iter()
            .filter(|(identity, _)| identity.mid.unix_ms() <= upto_ms)
            .filter(|(identity, _)| after.is_none_or(|after| place(identity) > place(after)))
            .map(|(identity, keys)| (*identity, keys.clone()))
            .collect();
        found.sort_by_key(|(identity, _)| place(identity));
        found.truncate(limit);
        Ok(found)
    }

    fn register(&self, key: &RegisterKey) -> Result<Option<Register>, StoreError> {
        Ok(self.registers.get(key).cloned())
    }
    fn lost(
        &self,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, RegisterKey)>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let lost = self.lost.range((from, Bound::Unbounded));
        Ok(lost.take(limit).map(|(key, register)| (*key, *register)).collect())
    }
    fn sum(&self, room: RoomId) -> Result<Sum, StoreError> {
        Ok(self.sums.get(&room).copied().unwrap_or_default())
    }
    fn slot(&self, slot: &Slot) -> Result<Option<SlotHolder>, StoreError> {
        Ok(self.slots.get(slot).cloned())
    }
}

/// An event before it has its place in a log. Few rooms, people, ids and stamps: collisions are
/// what is tested.
#[derive(Clone, Debug)]
struct Draft {
    log: u128,
    stamp_gap: u64,
    room: u128,
    actor: u128,
    mid: u128,
    kind: u8,
}

#[derive(Clone, Debug)]
struct DraftBatch {
    events: Vec<Draft>,
    disks: Vec<(u128, u128, u64)>,
    slot: Option<(u8, u128)>,
}

fn draft() -> impl Strategy<Value = Draft> {
    (1u128..4, 1u64..5, 0u128..3, 0u128..3, 0u128..8, 0u8..6).prop_map(
        |(log, stamp_gap, room, actor, mid, kind)| Draft { log, stamp_gap, room, actor, mid, kind },
    )
}

fn drafts() -> impl Strategy<Value = Vec<DraftBatch>> {
    let disks = prop::collection::vec((0u128..3, 1u128..4, 0u64..9), 0..3);
    let slot = prop::option::of((0u8..2, 0u128..3));
    let batch = (prop::collection::vec(draft(), 0..9), disks, slot)
        .prop_map(|(events, disks, slot)| DraftBatch { events, disks, slot });
    prop::collection::vec(batch, 1..7)
}

fn log(n: u128) -> Log {
    Log::of(Origin::new(n))
}

/// Batches of events whose logs have no holes and whose stamps rise within a log.
fn batches(drafts: &[DraftBatch]) -> Vec<Batch> {
    let mut heads: BTreeMap<u128, (u64, u64, u64)> = BTreeMap::new();
    let mut entry = |draft: &Draft| {
        let (seq, hlc, chain) = heads.entry(draft.log).or_default();
        *seq += 1;
        *hlc += draft.stamp_gap;
        let nick = String::from("ann");
        let body: chatty_core::event::Body = match draft.kind {
            0 => Join { nick }.into(),
            1 => Topic { nick, text: hlc.to_string() }.into(),
            _ => Msg { nick, text: format!("message {}", draft.mid) }.into(),
        };
        let event = Event {
            seq: *seq,
            hlc: Hlc::from_bits(*hlc),
            wall_ms: 5,
            room: RoomId::new(draft.room),
            actor: AccountId::new(draft.actor),
            mid: Mid::new(draft.mid),
            kind: body.kind(),
            body: body.encode(),
        };
        *chain = event.chain(*chain);
        Entry { log: log(draft.log), event: event.into(), chain: *chain }
    };
    let batch = |draft: &DraftBatch| Batch {
        entries: draft.events.iter().map(&mut entry).collect(),
        disks: draft.disks.iter().map(|(s, l, n)| (ServerId::new(*s), log(*l), *n)).collect(),
        slots: draft.slot.iter().map(|(slot, server)| holder(*slot, *server)).collect(),
        // Small message ids are of the first millisecond: below any floor.
        floors: Arc::new([(RoomId::new(0), 1)].into()),
        sweep: draft.slot.map(|_| None),
        tidy: draft.slot.map(|(slot, _)| Tidy {
            after: None,
            replicated: Arc::new((1..4).map(|n| (log(n), u64::from(slot) * 4)).collect()),
        }),
        standing: draft
            .slot
            .map(|(slot, _)| [Standing::Lossy, Standing::Sound][usize::from(slot % 2)]),
    };
    drafts.iter().map(batch).collect()
}

fn holder(slot: u8, server: u128) -> SlotHolder {
    let slot = Slot::new(format!("s{slot}")).unwrap();
    SlotHolder { slot, server: ServerId::new(server), generation: 4 }
}

fn queries() -> Vec<Query> {
    let vector = |upto| (1..4).map(|n| (log(n), upto)).collect::<Vector>();
    let within = Arc::new(vector(12));
    let room = RoomId::new;
    let mut queries = Vec::new();
    for n in 1..4 {
        for (from, to, bytes_max) in [(1, u64::MAX, usize::MAX), (2, 6, 300), (5, 4, 9), (3, 3, 1)]
        {
            queries.push(Query::Events { log: log(n), from, to, bytes_max });
        }
        let before = Key { hlc: Hlc::from_bits(9), origin: Origin::new(2), seq: 3 };
        for (before, limit) in [(Key::MAX, 3), (Key::MAX, 100), (before, 4)] {
            let within = within.clone();
            queries.push(Query::Page { room: room(n - 1), before, limit, within });
        }
        for mid in 0..8 {
            let identity =
                Identity { room: room(n - 1), account: AccountId::new(1), mid: Mid::new(mid) };
            queries.push(Query::Message(identity));
        }
    }
    let rooms = [room(0), room(1)];
    let (cursor, rooms_set) = (vector(3), rooms.into_iter().collect());
    queries.push(Query::Since {
        cursor,
        within: within.clone(),
        rooms: rooms_set,
        scan_max: 99,
        bytes_max: 1 << 20,
    });
    let (account, rooms) = (AccountId::new(1), rooms.map(|room| (room, vector(2))).to_vec());
    queries.push(Query::Waiting {
        account,
        rooms,
        within,
        limit: 5,
        bytes_max: 1 << 20,
        scan_max: 99,
    });
    queries
}

fn assert_same(store: &mut FjallStore, memory: &Memory) {
    assert_eq!(store.load().unwrap(), memory.loaded());
    let reader = store.reader();
    for query in queries() {
        assert_eq!(reader.read(&query).unwrap(), answer(memory, &query).unwrap(), "{query:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_batches_give_the_answers_of_the_reference_also_after_a_restart(drafts in drafts()) {
        let folder = TempDir::new().unwrap();
        let mut store = FjallStore::open(&folder.path().join("db")).unwrap();
        let mut memory = Memory::default();
        for batch in batches(&drafts) {
            prop_assert_eq!(store.commit(&batch).unwrap(), memory.commit(&batch));
        }
        assert_same(&mut store, &memory);
        drop(store);
        assert_same(&mut FjallStore::open(&folder.path().join("db")).unwrap(), &memory);
    }
}

/// What a client with that cursor is told of the logs 1 and 2.
fn told(store: &FjallStore, cursor: &[(u128, u64)]) -> Vec<Key> {
    let cursor: Vector = cursor.iter().map(|(n, upto)| (log(*n), *upto)).collect();
    let within = Arc::new([(log(1), 1), (log(2), 1)].into_iter().collect());
    let rooms = [RoomId::new(0)].into();
    let since = Query::Since { cursor, within, rooms, scan_max: 99, bytes_max: usize::MAX };
    let Rows::Since(lines) = store.reader().read(&since).unwrap() else { panic!("{since:?}") };
    lines.iter().map(Line::key).collect()
}

#[test]
fn a_client_is_not_told_a_message_that_it_has_under_another_key() {
    let one = |log, stamp_gap| DraftBatch {
        events: vec![Draft { log, stamp_gap, room: 0, actor: 1, mid: 7, kind: 5 }],
        disks: Vec::new(),
        slot: None,
    };
    // Said at 1, cut off then, and said again at 2; either may come here first.
    let (first, again) = (one(1, 1), one(2, 5));
    for order in [[first.clone(), again.clone()], [again, first]] {
        let folder = TempDir::new().unwrap();
        let mut store = FjallStore::open(folder.path()).unwrap();
        for batch in batches(&order) {
            store.commit(&batch).unwrap();
        }
        let first = Key { hlc: Hlc::from_bits(1), origin: Origin::new(1), seq: 1 };
        assert_eq!(told(&store, &[]), [first], "once, in its place");
        assert_eq!(told(&store, &[(2, 1)]), [], "it saw the second and forgot which it was");
        assert_eq!(told(&store, &[(1, 1)]), [], "it saw the first");
    }
}

fn some_batches(count: usize) -> Vec<Batch> {
    let event =
        |n: usize| Draft { log: 1, stamp_gap: 1, room: 0, actor: 1, mid: n as u128, kind: 5 };
    let batch = |n: usize| DraftBatch {
        events: vec![event(2 * n), event(2 * n + 1)],
        disks: Vec::new(),
        slot: None,
    };
    batches(&(0..count).map(batch).collect::<Vec<_>>())
}

#[test]
fn a_batch_that_does_not_continue_its_log_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let mut store = FjallStore::open(&folder.path().join("db")).unwrap();
    let mut batches = some_batches(3);
    store.commit(&batches[0]).unwrap();
    let before = store.load().unwrap();

    batches[2].disks.push((ServerId::new(1), log(1), 7));
    let refused = store.commit(&batches[2]).unwrap_err();

    let StoreError::Corrupt(why) = refused else { panic!("{refused:?}") };
    assert!(why.contains("event 5") && why.contains("event 3 is due"), "{why}");
    assert_eq!(store.load().unwrap(), before);
    store.commit(&batches[1]).unwrap();
}

#[test]
fn a_disk_named_and_forgotten_in_one_batch_is_forgotten() {
    let folder = TempDir::new().unwrap();
    let mut store = FjallStore::open(&folder.path().join("db")).unwrap();
    let disks = |n| vec![(ServerId::new(1), log(n), 7)];
    let commit = |store: &mut FjallStore, disks, slots| {
        store.commit(&Batch { disks, slots, ..Batch::default() }).unwrap();
    };
    commit(&mut store, disks(1), vec![holder(0, 1)]);
    commit(&mut store, disks(2), vec![holder(0, 2)]);
    assert_eq!(store.load().unwrap().disks, []);
}

/// A power cut leaves any prefix of what was not synced, and the rest as it was: zeros.
#[test]
fn a_torn_tail_costs_whole_batches_and_nothing_before_them() {
    let folder = TempDir::new().unwrap();
    let batches = some_batches(6);
    let mut store = FjallStore::open(&folder.path().join("db")).unwrap();
    let mut states = vec![Memory::default()];
    for batch in &batches {
        store.commit(batch).unwrap();
        let mut state = states.last().unwrap().clone();
        state.commit(batch);
        states.push(state);
    }
    drop(store);
    let journal = folder.path().join("db/0.jnl");
    let whole = fs::read(&journal).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for cut in [end - 1, end - 100, end - 300, end - 700] {
        fs::write(&journal, &whole[..cut]).unwrap();
        // The second witness may be behind after a power cut.
        fs::remove_file(folder.path().join("db.high")).unwrap();
        let mut store = FjallStore::open(&folder.path().join("db")).unwrap();
        let held = store.load().unwrap();
        let state = states.iter().position(|state| state.loaded() == held);
        let state = state.expect("the state after some batch");
        assert!(state < states.len() - 1, "nothing was torn");
        assert_same(&mut store, &states[state]);
        store.commit(&batches[state]).unwrap();
    }
}

#[test]
fn a_row_that_does_not_parse_is_told_in_words() {
    let folder = TempDir::new().unwrap();
    let mut store = FjallStore::open(&folder.path().join("db")).unwrap();
    store.commit(&some_batches(1)[0]).unwrap();
    with_tables(&store.shared, |tables| {
        tables.log.insert(rows::event_key(log(1), 2), b"rubbish").map_err(store_error)
    })
    .unwrap();
    let query = Query::Events { log: log(1), from: 1, to: 2, bytes_max: 9999 };
    let damage = store.reader().read(&query).unwrap_err();
    assert!(damage.to_string().contains("event 2 of log"), "{damage}");
}

#[test]
fn another_format_is_refused() {
    let folder = TempDir::new().unwrap();
    let store = FjallStore::open(&folder.path().join("db")).unwrap();
    with_tables(&store.shared, |tables| {
        tables.meta.insert(tag::FORMAT, 99u32.to_be_bytes()).map_err(store_error)?;
        tables.db.persist(PersistMode::SyncAll).map_err(store_error)
    })
    .unwrap();
    drop(store);
    assert!(matches!(FjallStore::open(&folder.path().join("db")), Err(StoreError::Unusable(_))));
}

#[test]
fn a_run_names_the_newest_run_before_it_that_wrote_events() {
    let folder = TempDir::new().unwrap();
    let run = Origin::new;
    let begin = |run| FjallStore::open(&folder.path().join("db")).unwrap().begin_run(run).unwrap();
    assert_eq!(begin(run(1)), None);
    FjallStore::open(&folder.path().join("db")).unwrap().commit(&some_batches(1)[0]).unwrap();
    assert_eq!(begin(run(2)), Some((run(1), 2)));
    assert_eq!(begin(run(3)), Some((run(1), 2)), "run 2 wrote nothing");
}

//! How much a query may find and look at, whatever a client says that it has; writes and whole reads
//! are tested in the files beside this.

pub(crate) mod disk;
mod read;
mod write;

use std::cell::Cell;

use super::*;
use crate::event::{Body, Msg};
use crate::id::{Mid, Origin};

const LOG: Log = Log::of(Origin::new(1));

/// Logs alone; the timelines are made from them.
#[derive(Default)]
struct Shelf(BTreeMap<Log, Vec<Entry>>, Looked);

/// How many events were looked at, and their bytes, in how many goes.
#[derive(Default)]
struct Looked {
    goes: Cell<usize>,
    events: Cell<usize>,
    bytes: Cell<usize>,
}

impl Shelf {
    fn say(&mut self, room: u128, bytes: usize) -> Key {
        let log = self.0.entry(LOG).or_default();
        let seq = log.len() as u64 + 1;
        let body = Body::Msg(Msg { nick: "ann".into(), text: "x".repeat(bytes) });
        let event = Event {
            seq,
            hlc: Hlc::from_bits(seq),
            wall_ms: 0,
            room: RoomId::new(room),
            actor: AccountId::new(1),
            mid: Mid::new(seq.into()),
            kind: body.kind(),
            body: body.encode(),
        };
        let key = event.key(LOG.origin);
        log.push(Entry { log: LOG, event: Arc::new(event), chain: 0 });
        key
    }

    fn within(&self) -> Arc<Vector> {
        Arc::new(self.0.iter().map(|(log, entries)| (*log, entries.len() as u64)).collect())
    }

    fn since(&self, cursor: u64, bytes_max: usize) -> Rows {
        let cursor = [(LOG, cursor)].into_iter().collect();
        let rooms = [RoomId::new(1)].into();
        let within = self.within();
        let Ok(rows) =
            answer(self, &Query::Since { cursor, within, rooms, scan_max: 100, bytes_max });
        rows
    }
}

impl View for Shelf {
    type Error = std::convert::Infallible;

    fn events(
        &self,
        log: Log,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, Self::Error> {
        let entries = self.0.get(&log).into_iter().flatten();
        let mut bytes = 0;
        let found: Vec<Entry> = entries
            .filter(|e| (from..=to).contains(&e.event.seq))
            .take_while(|e| {
                bytes += e.event.cost();
                bytes == e.event.cost() || bytes <= bytes_max
            })
            .cloned()
            .collect();
        self.1.goes.set(self.1.goes.get() + 1);
        self.1.events.set(self.1.events.get() + found.len());
        self.1.bytes.set(self.1.bytes.get() + found.iter().map(|e| e.event.cost()).sum::<usize>());
        Ok(found)
    }

    fn places(&self, room: RoomId, below: Key, limit: usize) -> Result<Vec<Key>, Self::Error> {
        let entries = self.0.values().flatten().filter(|e| e.event.room == room);
        let mut keys: Vec<Key> =
            entries.map(|e| e.event.key(e.log.origin)).filter(|key| *key < below).collect();
        keys.sort_by(|a, b| b.cmp(a));
        keys.truncate(limit);
        Ok(keys)
    }

    fn places_above(
        &self,
        room: RoomId,
        above: Key,
        limit: usize,
    ) -> Result<Vec<Key>, Self::Error> {
        let mut keys = self.places(room, Key::MAX, usize::MAX)?;
        keys.retain(|key| *key > above);
        keys.reverse();
        keys.truncate(limit);
        Ok(keys)
    }

    fn keys(&self, _: &Identity) -> Result<Vec<Key>, Self::Error> {
        Ok(Vec::new())
    }

    fn identities(
        &self,
        _: Option<&Identity>,
        _: u64,
        _: usize,
    ) -> Result<Vec<(Identity, Vec<Key>)>, Self::Error> {
        Ok(Vec::new())
    }

    fn register(&self, _: &RegisterKey) -> Result<Option<Register>, Self::Error> {
        Ok(None)
    }

    fn lost(&self, _: Option<Key>, _: usize) -> Result<Vec<(Key, RegisterKey)>, Self::Error> {
        Ok(Vec::new())
    }

    fn sum(&self, room: RoomId) -> Result<Sum, Self::Error> {
        let mut sum = Sum::default();
        for entry in self.0.values().flatten().filter(|e| e.event.room == room) {
            sum.add(line_hash(entry.event.key(entry.log.origin), &entry.event));
        }
        Ok(sum)
    }

    fn slot(&self, _: &Slot) -> Result<Option<SlotHolder>, Self::Error> {
        Ok(None)
    }
}

#[test]
fn a_cursor_beyond_all_there_is_misses_nothing() {
    let mut shelf = Shelf::default();
    shelf.say(1, 10);
    for cursor in [1, 2, u64::MAX - 1, u64::MAX] {
        assert_eq!(shelf.since(cursor, 1 << 20), Rows::Since(Vec::new()));
    }
}

/// Places that are too new for this server's disk use up a look at the timeline: the next look then
/// brings more than the page has room for.
#[test]
fn a_page_that_has_no_room_for_what_is_there_says_that_there_is_more() {
    let mut shelf = Shelf::default();
    for _ in 0..60 {
        shelf.say(1, 10);
    }
    let within: Arc<Vector> = Arc::new([(LOG, 55)].into_iter().collect());
    let query = |limit| Query::Page {
        room: RoomId::new(1),
        before: Key::MAX,
        limit,
        within: within.clone(),
    };
    for (limit, more) in [(50, true), (54, true), (55, false), (56, false)] {
        let Ok(Rows::Page(lines, said)) = answer(&shelf, &query(limit)) else { panic!("no page") };
        assert_eq!((lines.len(), said), (limit.min(55), more), "of {limit}");
    }
}

#[test]
fn more_than_fits_is_told_by_where_it_begins() {
    let mut shelf = Shelf::default();
    let keys: Vec<Key> = (0..10).map(|_| shelf.say(1, 1000)).collect();
    assert!(matches!(shelf.since(0, 20_000), Rows::Since(lines) if lines.len() == 10));
    assert_eq!(shelf.since(2, 5000), Rows::TooFar(keys[2]));
}

#[test]
fn what_a_client_missed_is_read_in_goes_of_256_kib() {
    let mut shelf = Shelf::default();
    for _ in 0..80 {
        shelf.say(1, 16_000);
    }
    let each = 256 * 1024 / shelf.0[&LOG][0].event.cost();
    assert!(matches!(shelf.since(0, 1 << 30), Rows::Since(lines) if lines.len() == 80));
    assert_eq!((shelf.1.goes.get(), shelf.1.events.get()), (80_usize.div_ceil(each), 80));
}

fn waiting(shelf: &Shelf, rooms: u128, bytes_max: usize) -> (Vec<Line>, Vec<(RoomId, Key)>) {
    let query = Query::Waiting {
        account: AccountId::new(9),
        rooms: (1..=rooms).map(|room| (RoomId::new(room), Vector::new())).collect(),
        within: shelf.within(),
        limit: 8,
        bytes_max,
        scan_max: 1000,
    };
    let Ok(Rows::Waiting(lines, cut)) = answer(shelf, &query) else { panic!("no lines") };
    (lines, cut)
}

#[test]
fn waiting_messages_fit_a_budget_of_which_each_conversation_has_a_share() {
    let mut shelf = Shelf::default();
    let mut keys: BTreeMap<u128, Vec<Key>> = BTreeMap::new();
    for n in 0..300 {
        let room = if n < 10 { 3 } else { 1 + n % 2 };
        keys.entry(room).or_default().push(shelf.say(room, 1000));
    }
    let (lines, cut) = waiting(&shelf, 3, 9000);
    let bytes: usize = lines.iter().map(|line| line.event.cost()).sum();
    assert!(bytes <= 9000 + 1200, "{bytes}");
    for room in 1..=3 {
        let mine: Vec<Key> =
            lines.iter().filter(|l| l.event.room == RoomId::new(room)).map(Line::key).collect();
        assert!((2..=4).contains(&mine.len()), "{} of room {room}", mine.len());
        let newest = &keys[&room][keys[&room].len() - 8..];
        assert_eq!(mine, newest[8 - mine.len()..], "the newest");
        assert!(cut.contains(&(RoomId::new(room), newest[0])), "{cut:?}");
    }
}

#[test]
fn waiting_messages_that_fit_are_all_told() {
    let mut shelf = Shelf::default();
    let keys: Vec<Key> = (0..6).map(|n| shelf.say(1 + n % 3, 100)).collect();
    let (lines, cut) = waiting(&shelf, 3, 1 << 20);
    assert_eq!(lines.iter().map(Line::key).collect::<Vec<_>>(), keys);
    assert_eq!(cut, []);
}

/// Reads a room again, in pieces of which none looks at more than it may; what is wrong, and how many
/// pieces it took.
fn scrubbed(shelf: &Shelf, room: RoomId) -> (Option<String>, usize) {
    let mut at = scrub::At::Room(scrub::RoomAt::begin(room));
    for pieces in 1.. {
        shelf.1.events.set(0);
        shelf.1.bytes.set(0);
        let (within, rooms) = (shelf.within(), Arc::new([room]));
        let Ok(Rows::Scrubbed(piece)) = answer(shelf, &Query::Scrub { at, within, rooms }) else {
            panic!("no piece")
        };
        assert!(shelf.1.events.get() <= scrub::PIECE_PLACES);
        assert!(shelf.1.bytes.get() <= scrub::PIECE_BYTES + crate::event::BODY_BYTES_MAX);
        match (piece.wrong().map(str::to_owned), piece.next) {
            (None, Some(next)) => at = next,
            (wrong, _) => return (wrong, pieces),
        }
    }
    unreachable!("there are more pieces than can be counted")
}

#[test]
fn a_room_is_verified_in_pieces_of_bounded_work() {
    for (lines, bytes, pieces) in [(0, 0, 1), (1023, 10, 1), (1024, 10, 2), (40, 16_384, 3)] {
        let mut shelf = Shelf::default();
        let keys: Vec<Key> = (0..lines).map(|_| shelf.say(1, bytes)).collect();
        assert_eq!(scrubbed(&shelf, RoomId::new(1)), (None, pieces), "{lines} lines");

        // A line of the timeline whose event is another one, or none.
        let Some(last) = keys.last() else { continue };
        let log = shelf.0.get_mut(&LOG).unwrap();
        Arc::make_mut(&mut log[keys.len() - 1].event).hlc = last.hlc.next();
        let (within, rooms) = (shelf.within(), [RoomId::new(1)]);
        let before = scrub::RoomAt::begin(RoomId::new(1));
        let mut sum = before.found;
        sum.add(1);
        let at = scrub::At::Room(scrub::RoomAt { after: *last, found: sum, ..before });
        let Ok(piece) = scrub::piece(&shelf, &at, &within, &rooms);
        assert!(piece.miscount.is_some_and(|miscount| miscount.room == RoomId::new(1)));
    }
}

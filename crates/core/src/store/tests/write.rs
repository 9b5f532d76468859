//! What a write does: the alias rule, sums, floors and the erasing below them.

use std::sync::Arc;

use proptest::prelude::*;

use super::disk::Disk;
use crate::event::{Body, Event, Floor, Identity, Msg, VOID};
use crate::id::{AccountId, Log, Mid, Origin, RoomId, ServerId, Slot};
use crate::io::Standing;
use crate::scrub::{self, At, Piece, RoomAt};
use crate::store::{
    Batch, Committed, Floors, Outcome, Query, Rows, SlotHolder, Sum, Swept, line_hash,
};
use crate::time::{Hlc, Key};
use crate::vector::Vector;

const ROOM: RoomId = RoomId::new(7);
/// The unix millisecond of message 1; each later one is a millisecond later.
const MS: u64 = 1_700_000_000_000;

const fn log(n: u128) -> Log {
    Log::of(Origin::new(n))
}

/// Message `n` of ann, stamped `at`.
fn message(seq: u64, at: u64, n: u64) -> Event {
    let body = Body::Msg(Msg { nick: "ann".into(), text: format!("message {n}") });
    Event {
        seq,
        hlc: Hlc::from_bits(at),
        wall_ms: 0,
        room: ROOM,
        actor: AccountId::new(1),
        mid: Mid::at(MS + n, n.into()),
        kind: body.kind(),
        body: body.encode(),
    }
}

fn floor(seq: u64, at: u64, ms: u64) -> Event {
    let body = Body::Floor(Floor { ms });
    Event {
        actor: AccountId::new(0),
        mid: Mid::new(0),
        kind: body.kind(),
        body: body.encode(),
        ..message(seq, at, 0)
    }
}

fn identity(n: u64) -> Identity {
    Identity { room: ROOM, account: AccountId::new(1), mid: Mid::at(MS + n, n.into()) }
}

fn key(origin: u128, seq: u64, at: u64) -> Key {
    Key { hlc: Hlc::from_bits(at), origin: Origin::new(origin), seq }
}

/// The texts of a room, oldest first.
fn page(disk: &Disk) -> Vec<String> {
    let query = Query::Page { room: ROOM, before: Key::MAX, limit: 1000, within: disk.within() };
    let Rows::Page(lines, false) = disk.ask(&query) else { panic!("not a whole page") };
    let text = |event: &Event| match event.body() {
        Some(Body::Msg(msg)) => msg.text,
        other => panic!("{other:?}"),
    };
    lines.iter().map(|line| text(&line.event)).collect()
}

#[test]
fn of_all_events_of_one_message_the_smallest_key_is_its_line() {
    let mut disk = Disk::default();
    let done = disk.append(&[(log(1), message(1, 20, 1)), (log(1), message(2, 30, 1))]);
    assert_eq!(done.outcomes, [Outcome::New, Outcome::Alias { of: key(1, 1, 20) }]);
    // A later batch, with a smaller key: the line moves.
    let done = disk.append(&[(log(2), message(1, 10, 1)), (log(2), message(2, 25, 2))]);
    assert_eq!(done.outcomes, [Outcome::Moved { from: key(1, 1, 20) }, Outcome::New]);
    let line = line_hash(key(2, 1, 10), &message(1, 10, 1));
    let other = line_hash(key(2, 2, 25), &message(2, 25, 2));
    let sum = Sum { messages: 2, digest: line.wrapping_add(other) };
    assert_eq!((done.sums, disk.sums[&ROOM]), (vec![(ROOM, sum)], sum));
    assert_eq!(disk.keys[&identity(1)], [key(2, 1, 10), key(1, 1, 20), key(1, 2, 30)]);
    assert_eq!(page(&disk), ["message 1", "message 2"]);
    let message_query = Query::Message(identity(1));
    assert!(
        matches!(disk.ask(&message_query), Rows::Message(Some(line)) if line.key() == key(2, 1, 10))
    );
    assert_eq!(disk.ask(&Query::Message(identity(9))), Rows::Message(None));
    // The same, inside one batch.
    let mut once = Disk::default();
    let done = once.append(&[
        (log(1), message(1, 20, 1)),
        (log(2), message(1, 10, 1)),
        (log(1), message(2, 30, 1)),
    ]);
    let moved = Outcome::Moved { from: key(1, 1, 20) };
    assert_eq!(done.outcomes, [Outcome::New, moved, Outcome::Alias { of: key(2, 1, 10) }]);
    assert_eq!(once.places, [(ROOM, key(2, 1, 10))].into());
}

#[test]
fn the_hash_of_a_line_tells_its_place_its_message_and_its_content_apart() {
    let event = message(1, 20, 1);
    let place = key(1, 1, 20);
    let other = |change: fn(&mut Event)| {
        let mut event = event.clone();
        change(&mut event);
        line_hash(place, &event)
    };
    let all = [
        line_hash(place, &event),
        line_hash(key(1, 1, 21), &event),
        line_hash(key(2, 1, 20), &event),
        line_hash(key(1, 2, 20), &event),
        other(|event| event.actor = AccountId::new(2)),
        other(|event| event.mid = Mid::new(2)),
        other(|event| event.kind = 3),
        other(|event| event.body.push(1)),
    ];
    let different: std::collections::BTreeSet<u64> = all.into_iter().collect();
    assert_eq!(different.len(), all.len());
}

#[test]
fn an_event_of_a_kind_that_only_newer_servers_know_is_kept_as_it_came() {
    let mut disk = Disk::default();
    let newer = Event { kind: 60_000, body: b"of a newer server".to_vec(), ..floor(1, 20, 0) };
    assert_eq!(newer.body(), None);
    disk.append(&[(log(1), newer.clone())]);
    assert_eq!(*disk.logs[&log(1)][0].event, newer);
}

#[test]
fn of_one_message_sixteen_keys_are_remembered_the_smallest() {
    let mut disk = Disk::default();
    for n in 0..20 {
        disk.append(&[(log(n + 1), message(1, 100 - u64::try_from(n).unwrap(), 1))]);
    }
    disk.append(&[(log(90), message(1, 200, 1))]);
    let keys: Vec<Key> = (0..16).map(|n| key(20 - n, 1, 81 + u64::try_from(n).unwrap())).collect();
    assert_eq!(disk.keys[&identity(1)], keys);
    // And up to there any.
    let mut disk = Disk::default();
    for n in 0..17 {
        disk.append(&[(log(n + 1), message(1, 100 + u64::try_from(n).unwrap(), 1))]);
    }
    assert_eq!(disk.keys[&identity(1)].len(), 16);
    assert_eq!(disk.keys[&identity(1)].last(), Some(&key(16, 1, 115)));
    // One that comes after them and is smaller than some: whatever order they come in.
    let written = disk.append(&[(log(30), message(1, 105, 1))]);
    assert_eq!(written.outcomes, [Outcome::Alias { of: key(1, 1, 100) }]);
    let keys = &disk.keys[&identity(1)];
    assert_eq!((keys.len(), keys[6], keys[15]), (16, key(30, 1, 105), key(15, 1, 114)));
}

#[test]
fn messages_below_the_floor_by_their_ids_are_gone_whatever_their_stamps() {
    let mut disk = Disk::default();
    disk.append(&[(log(1), floor(1, 50, MS + 2))]);
    let late = Hlc::at_ms(MS + 99).bits();
    let written = disk.append(&[(log(1), message(2, late, 2)), (log(1), message(3, 1, 3))]);
    assert_eq!(written.outcomes, [Outcome::Below, Outcome::New]);
    assert_eq!(page(&disk), ["message 3"]);
    assert_eq!(disk.sums[&ROOM].messages, 1);
    // One that was there before is hidden, and still there until it is erased.
    disk.append(&[(log(1), floor(4, 70, MS + 3))]);
    assert_eq!(page(&disk), [] as [&str; 0]);
    assert_eq!(disk.sums[&ROOM].messages, 1);
    // Of a floor that is on a majority of disks, only a stub is kept.
    let entries = [message(5, 80, 1)].map(|event| crate::store::Entry {
        log: log(1),
        chain: event.chain(disk.logs[&log(1)][3].chain),
        event: Arc::new(event),
    });
    let floors = Floors::new([(ROOM, MS + 3)].into());
    let done = disk.commit(&Batch { entries: entries.into(), floors, ..Batch::default() });
    assert_eq!(done.outcomes, [Outcome::Below]);
    assert_eq!(disk.logs[&log(1)][4].event.kind, VOID);
    assert_ne!(disk.logs[&log(1)][1].event.kind, VOID);
    assert_sound(&disk);
}

fn sweep(disk: &mut Disk, ms: u64) -> Vec<Option<Swept>> {
    let floors = Floors::new([(ROOM, ms)].into());
    let mut after = None;
    let mut said = Vec::new();
    loop {
        let batch = Batch { floors: floors.clone(), sweep: Some(after), ..Batch::default() };
        let Committed { swept, .. } = disk.commit(&batch);
        said.push(swept);
        match swept {
            Some(Swept::Upto(last)) => after = Some(last),
            _ => return said,
        }
    }
}

#[test]
fn a_sweep_erases_what_is_below_the_floor_in_steps_and_nothing_else() {
    let mut disk = Disk::default();
    let events: Vec<(Log, Event)> = (1..=600).map(|n| (log(1), message(n, n, n))).collect();
    disk.append(&events);
    disk.append(&[(log(2), message(1, 1000, 5)), (log(2), floor(2, 1001, MS + 512))]);
    let mut other = message(3, 1002, 1);
    other.room = RoomId::new(8);
    disk.append(&[(log(2), other)]);
    let before = disk.clone();
    assert_eq!(
        sweep(&mut disk, MS + 512),
        [Some(Swept::Upto(identity(255))), Some(Swept::Upto(identity(511))), Some(Swept::All)]
    );
    assert_eq!(disk.sums[&ROOM].messages, 88);
    assert_eq!(disk.sums[&RoomId::new(8)], before.sums[&RoomId::new(8)], "another room");
    assert_eq!(disk.keys.len(), 89);
    let kinds = |disk: &Disk, n: u128| {
        disk.logs[&log(n)].iter().filter(|entry| entry.event.kind == VOID).count()
    };
    assert_eq!((kinds(&disk, 1), kinds(&disk, 2)), (512, 1), "the alias, too");
    assert_eq!(page(&disk).first().map(String::as_str), Some("message 513"));
    assert_sound(&disk);
    // Without floors there is nothing to do.
    assert_eq!(sweep(&mut disk.clone(), 0), [Some(Swept::All)]);
    let swept = disk.commit(&Batch::default()).swept;
    assert_eq!(swept, None);
}

#[test]
fn what_comes_below_a_floor_that_few_disks_have_is_erased_by_the_next_sweep() {
    let mut disk = Disk::default();
    disk.append(&[(log(1), floor(1, 10, MS + 5))]);
    // Three events of one message: they get no place, and their words stay for now.
    let done = disk.append(&[(log(1), message(2, 50, 3)), (log(2), message(1, 20, 3))]);
    assert_eq!(done.outcomes, [Outcome::Below, Outcome::Below]);
    disk.append(&[(log(2), message(2, 40, 3))]);
    assert_eq!(disk.places, [].into());
    assert_eq!(disk.keys[&identity(3)], [key(2, 1, 20), key(2, 2, 40), key(1, 2, 50)]);
    let kinds = |disk: &Disk| {
        let events = disk.logs.values().flatten();
        events.filter(|entry| entry.event.kind == VOID).count()
    };
    assert_eq!(kinds(&disk), 0);
    sweep(&mut disk, MS + 5);
    assert_eq!((kinds(&disk), disk.keys.len()), (3, 0));
    assert_sound(&disk);
}

#[test]
fn a_new_holder_of_a_slot_takes_the_word_of_the_old_one_along() {
    let mut disk = Disk::default();
    let slot = |server| SlotHolder {
        slot: Slot::new("s2").unwrap(),
        server: ServerId::new(server),
        generation: 0,
    };
    let of = |server| Batch { slots: vec![slot(server)], ..Batch::default() };
    disk.commit(&Batch { disks: vec![(ServerId::new(2), log(1), 5)], ..of(2) });
    disk.commit(&of(2));
    assert_eq!(disk.disks.len(), 1);
    disk.commit(&Batch { standing: Some(Standing::Lossy), ..of(3) });
    assert_eq!(disk.disks.len(), 0);
    assert_eq!(disk.slots[&Slot::new("s2").unwrap()], slot(3));
    assert_eq!(disk.standing, Standing::Lossy);
}

#[test]
fn the_message_that_just_stays_is_found_by_its_place() {
    let mut disk = Disk::default();
    disk.append(&[1, 2, 3].map(|n| (log(1), message(n, n, n))));
    let oldest = |keep| disk.ask(&Query::Oldest { room: ROOM, keep });
    assert_eq!(oldest(2), Rows::Oldest(Some(MS + 2)));
    assert_eq!(oldest(3), Rows::Oldest(Some(MS + 1)));
    assert_eq!(oldest(4), Rows::Oldest(None));
}

/// Reads everything again.
fn scrubbed(disk: &Disk) -> (u64, Option<String>) {
    let rooms: Vec<RoomId> = disk.sums.keys().copied().collect();
    let within = disk.within();
    let mut events = 0;
    let mut at = scrub::start(&within, &rooms);
    while let Some(next) = at {
        let query = Query::Scrub { at: next, within: within.clone(), rooms: rooms.clone().into() };
        let Rows::Scrubbed(piece) = disk.ask(&query) else { panic!("no piece") };
        events += piece.events;
        if let Some(wrong) = piece.wrong() {
            return (events, Some(wrong.to_string()));
        }
        at = piece.next;
    }
    (events, None)
}

#[track_caller]
fn assert_sound(disk: &Disk) {
    let events = disk.logs.values().map(|log| log.len() as u64).sum();
    assert_eq!(scrubbed(disk), (events, None));
}

/// Three logs, two rooms, more than a piece of each.
fn library() -> Disk {
    let mut disk = Disk::default();
    let mut events = Vec::new();
    for n in 1..=2100u64 {
        events.push((log(1 + u128::from(n % 2)), message(n.div_ceil(2), n, n)));
    }
    let mut other = message(1, 3000, 5000);
    other.room = RoomId::new(9);
    events.push((log(3), other));
    events.sort_by_key(|(log, event)| (*log, event.seq));
    disk.append(&events);
    disk
}

#[test]
fn a_scrub_reads_every_log_and_then_every_room() {
    let disk = library();
    assert_sound(&disk);
    let rooms = [ROOM, RoomId::new(9)];
    let within = disk.within();
    let mut way = Vec::new();
    let mut at = scrub::start(&within, &rooms);
    while let Some(next) = at {
        let Ok(piece) = scrub::piece(&disk, &next, &within, &rooms);
        way.push(match next {
            At::Log(log, from, _) => format!("{} of {}", from, log.origin.bits()),
            At::Room(at) => format!("room {} after {}", at.room, at.found.messages),
        });
        at = piece.next;
    }
    let first = format!("room {}", rooms[0]);
    let (second, last) = (format!("{first} after 0"), format!("room {} after 0", rooms[1]));
    let more = [1024, 2048].map(|lines| format!("{first} after {lines}"));
    let pieces = ["1 of 1", "1 of 2", "1 of 3", &second, &more[0], &more[1], &last];
    assert_eq!(way, pieces);
    assert_eq!(scrub::start(&Vector::new(), &[]), None);
    assert_eq!(scrub::start(&Vector::new(), &[ROOM]), Some(At::Room(RoomAt::begin(ROOM))));
}

#[test]
fn a_long_log_is_read_in_pieces() {
    let mut disk = Disk::default();
    let long = |n: u64| {
        let body = Body::Msg(Msg { nick: "ann".into(), text: "x".repeat(15_000) });
        Event { body: body.encode(), ..message(n, n, n) }
    };
    disk.append(&(1..=40).map(|n| (log(1), long(n))).collect::<Vec<_>>());
    let Ok(piece) = scrub::piece(
        &disk,
        &At::Log(log(1), 1, crate::event::CHAIN_START),
        &disk.within(),
        &[ROOM],
    );
    let chain = disk.logs[&log(1)][16].chain;
    let next = Some(At::Log(log(1), 18, chain));
    assert_eq!(piece, Piece { next, events: 17, ..Piece::default() }, "256 KiB");
    assert_sound(&disk);
}

#[test]
fn a_scrub_finds_what_is_not_as_it_was_written() {
    let whole = library();
    let damage = |change: fn(&mut Disk)| {
        let mut disk = whole.clone();
        change(&mut disk);
        scrubbed(&disk).1.unwrap_or_default()
    };
    // An event with another content, another number, another chain; one that is missing.
    let changed = damage(|disk| {
        Arc::make_mut(&mut disk.logs.get_mut(&log(2)).unwrap()[9].event).body[0] ^= 1;
    });
    assert!(changed.starts_with("event 10 of log") && changed.ends_with("is not what was written"));
    let chain = damage(|disk| disk.logs.get_mut(&log(1)).unwrap()[3].chain ^= 1);
    assert!(chain.starts_with("event 4 of log"), "{chain}");
    let number = damage(|disk| {
        disk.logs.get_mut(&log(1)).unwrap().remove(1);
    });
    assert!(number.starts_with("event 2 of log"), "{number}");
    let short = {
        let mut disk = whole.clone();
        let within = disk.within();
        disk.logs.get_mut(&log(3)).unwrap().pop();
        let Ok(piece) =
            scrub::piece(&disk, &At::Log(log(3), 1, crate::event::CHAIN_START), &within, &[ROOM]);
        piece.damage.unwrap_or_default()
    };
    assert!(short.contains("is missing, it holds 1"), "{short}");
    // A line of which there is no event; one that is not counted; one that is another.
    let line = damage(|disk| {
        disk.places.insert((ROOM, key(1, 1, 7)));
    });
    assert!(line.contains("has no event for its line"), "{line}");
    let sum = damage(|disk| disk.sums.get_mut(&ROOM).unwrap().digest ^= 1);
    assert!(sum.contains("has 2100 lines, its sum says 2100"), "{sum}");
    let last = damage(|disk| disk.sums.get_mut(&RoomId::new(9)).unwrap().messages += 1);
    assert!(last.contains("has 1 lines, its sum says 2"), "{last}");
}

proptest! {
    /// Whatever order logs arrive in, and in however many batches: one timeline, one sum.
    #[test]
    fn the_order_of_arrival_leaves_no_trace(
        said in prop::collection::vec((1u128..4, 1u64..200, 1u64..6), 1..40),
        cuts in prop::collection::vec(1usize..6, 40),
        order in prop::collection::vec(0u128..4, 40),
    ) {
        let mut logs: std::collections::BTreeMap<u128, Vec<Event>> = Default::default();
        for (origin, step, n) in &said {
            let log = logs.entry(*origin).or_default();
            let at = log.last().map_or(0, |event: &Event| event.hlc.bits()) + step;
            log.push(message(log.len() as u64 + 1, at, *n));
        }
        let whole: Vec<(Log, Event)> = logs
            .iter()
            .flat_map(|(origin, events)| events.iter().map(|e| (log(*origin), e.clone())))
            .collect();
        let mut straight = Disk::default();
        straight.append(&whole);
        // Drawn from the logs by turns, in small batches.
        let mut mixed = Disk::default();
        let mut rest = logs.clone();
        let mut turn = order.iter().cycle().zip(cuts.iter().cycle());
        while rest.values().any(|events| !events.is_empty()) {
            let Some((n, cut)) = turn.next() else { break };
            let origin = rest.keys().copied().filter(|o| !rest[o].is_empty());
            let origins: Vec<u128> = origin.collect();
            let origin = origins[usize::try_from(*n).unwrap() % origins.len()];
            let events = rest.get_mut(&origin).unwrap();
            let piece: Vec<(Log, Event)> =
                events.drain(..(*cut).min(events.len())).map(|e| (log(origin), e)).collect();
            mixed.append(&piece);
        }
        prop_assert_eq!(&mixed, &straight);
        let messages: std::collections::BTreeSet<u64> = said.iter().map(|(.., n)| *n).collect();
        prop_assert_eq!(page(&mixed).len(), messages.len());
        prop_assert_eq!(scrubbed(&mixed).1, None);
    }
}

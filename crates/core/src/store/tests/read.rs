//! Answers from a disk as it is written: pages, what was missed, what waits.

use std::sync::Arc;

use super::disk::Disk;
use crate::event::{Body, Event, Floor, Msg};
use crate::id::{AccountId, Log, Mid, Origin, RoomId};
use crate::session::Line;
use crate::store::{Query, Rows};
use crate::time::{Hlc, Key};
use crate::vector::Vector;

const ROOM: RoomId = RoomId::new(7);
const MS: u64 = 1_700_000_000_000;

const fn log(n: u128) -> Log {
    Log::of(Origin::new(n))
}

/// Message `n` of an account in a room, as event `seq` stamped `at`.
fn message(seq: u64, at: u64, n: u64, room: RoomId, actor: u128) -> Event {
    let body = Body::Msg(Msg { nick: "x".into(), text: format!("{n}") });
    Event {
        seq,
        hlc: Hlc::from_bits(at),
        wall_ms: 0,
        room,
        actor: AccountId::new(actor),
        mid: Mid::at(MS + n, n.into()),
        kind: body.kind(),
        body: body.encode(),
    }
}

fn texts(lines: &[Line]) -> Vec<String> {
    let text = |line: &Line| match line.event.body() {
        Some(Body::Msg(msg)) => msg.text,
        _ => "?".into(),
    };
    lines.iter().map(text).collect()
}

/// Messages 1 to `n` of account 1 in one room.
fn talk(n: u64) -> Disk {
    let mut disk = Disk::default();
    let events: Vec<_> = (1..=n).map(|n| (log(1), message(n, n, n, ROOM, 1))).collect();
    disk.append(&events);
    disk
}

fn page(disk: &Disk, before: Key, limit: usize, within: u64) -> (Vec<String>, bool) {
    let within = Arc::new([(log(1), within)].into_iter().collect());
    let Rows::Page(lines, more) = disk.ask(&Query::Page { room: ROOM, before, limit, within })
    else {
        panic!("no page")
    };
    (texts(&lines), more)
}

#[test]
fn a_page_ends_where_the_timeline_does_or_says_that_there_is_more() {
    let disk = talk(5);
    let said = |texts: &[&str], more| (texts.iter().map(|t| (*t).to_string()).collect(), more);
    assert_eq!(page(&disk, Key::MAX, 2, 5), said(&["4", "5"], true));
    assert_eq!(page(&disk, Key::MAX, 5, 5), said(&["1", "2", "3", "4", "5"], false));
    assert_eq!(page(&disk, Key::MAX, 6, 5), said(&["1", "2", "3", "4", "5"], false));
    let third = disk.logs[&log(1)][2].event.key(log(1).origin);
    assert_eq!(page(&disk, third, 9, 5), said(&["1", "2"], false));
    assert_eq!(page(&disk, third, 1, 5), said(&["2"], true));
    assert_eq!(page(&disk, Key::MAX, 2, 3), said(&["2", "3"], true), "of what is durable");
    assert_eq!(page(&Disk::default(), Key::MAX, 2, 0), said(&[], false));
}

#[test]
fn a_message_that_moves_to_a_place_not_yet_durable_is_shown_where_it_was() {
    let mut disk = Disk::default();
    let said = [10, 20, 30].iter().zip(1..);
    let events: Vec<_> = said.map(|(at, n)| (log(1), message(n, *at, n, ROOM, 1))).collect();
    disk.append(&events);
    disk.append(&[(log(2), message(1, 5, 2, ROOM, 1))]);
    let page = |before: Key, limit, logs: &[(Log, u64)]| {
        let within = Arc::new(logs.iter().copied().collect());
        let query = Query::Page { room: ROOM, before, limit, within };
        let Rows::Page(lines, more) = disk.ask(&query) else { panic!("no page") };
        (texts(&lines).concat(), more)
    };
    let told = |texts: &str, more| (texts.to_string(), more);
    let (one, both) = ([(log(1), 3)], [(log(1), 3), (log(2), 1)]);
    assert_eq!(page(Key::MAX, 9, &one), told("123", false));
    assert_eq!(page(Key::MAX, 9, &both), told("213", false));
    // It stood above where this page ends: whoever reads on has had it.
    let second = disk.logs[&log(1)][1].event.key(log(1).origin);
    assert_eq!(page(second, 9, &one), told("1", false));
    assert_eq!(page(second, 9, &both), told("21", false));
    assert_eq!(page(Key::MAX, 9, &[(log(1), 1)]), told("1", false), "no place of it is durable");
}

#[test]
fn a_page_is_bounded_work_whatever_it_skips() {
    let disk = talk(100);
    // Nothing of the newest ninety is durable: ten looks of two places find nothing.
    assert_eq!(page(&disk, Key::MAX, 2, 10), (vec![], true));
    assert_eq!(page(&disk, Key::MAX, 10, 10).0.len(), 10);
    assert_eq!(page(&disk, Key::MAX, 9, 10), (vec![], true), "ninety places were looked at");
}

fn since(disk: &Disk, cursor: &[(u128, u64)], scan_max: usize, bytes_max: usize) -> Rows {
    let cursor = cursor.iter().map(|(n, upto)| (log(*n), *upto)).collect();
    let (within, rooms) = (disk.within(), [ROOM].into());
    disk.ask(&Query::Since { cursor, within, rooms, scan_max, bytes_max })
}

#[test]
fn what_a_client_missed_is_told_in_order_and_of_its_rooms_alone() {
    let mut disk = talk(3);
    disk.append(&[
        (log(2), message(1, 2, 10, ROOM, 2)),
        (log(2), message(2, 9, 11, RoomId::new(8), 2)),
    ]);
    let told = |rows: Rows| match rows {
        Rows::Since(lines) => texts(&lines),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(since(&disk, &[], 100, 1 << 20)), ["1", "2", "10", "3"]);
    assert_eq!(told(since(&disk, &[(1, 2)], 100, 1 << 20)), ["10", "3"]);
    assert_eq!(told(since(&disk, &[(1, 3), (2, 2)], 0, 0)), [] as [&str; 0]);
}

#[test]
fn too_much_is_told_by_where_it_begins_in_any_log() {
    let mut disk = talk(5);
    disk.append(&[(log(2), message(1, 4, 10, ROOM, 2))]);
    let key =
        |n: u128, seq: u64, at: u64| Key { hlc: Hlc::from_bits(at), origin: Origin::new(n), seq };
    assert!(matches!(since(&disk, &[], 6, 1 << 20), Rows::Since(lines) if lines.len() == 6));
    assert_eq!(since(&disk, &[], 5, 1 << 20), Rows::TooFar(key(1, 1, 1)));
    assert_eq!(since(&disk, &[(1, 4)], 1, 1 << 20), Rows::TooFar(key(2, 1, 4)));
    assert_eq!(since(&disk, &[(2, 1)], 4, 1 << 20), Rows::TooFar(key(1, 1, 1)));
    let cost: usize = disk.logs.values().flatten().map(|entry| entry.event.cost()).sum();
    assert!(matches!(since(&disk, &[], 6, cost), Rows::Since(_)));
    assert_eq!(since(&disk, &[], 6, cost - 1), Rows::TooFar(key(1, 1, 1)));
}

#[test]
fn a_message_is_told_once_under_whatever_keys_it_came() {
    let mut disk = Disk::default();
    // Message 1: as event 1 of log 1, and with a larger key as event 1 of log 2.
    disk.append(&[(log(1), message(1, 10, 1, ROOM, 1)), (log(2), message(1, 20, 1, ROOM, 1))]);
    let told = |cursor: &[(u128, u64)]| match since(&disk, cursor, 100, 1 << 20) {
        Rows::Since(lines) => lines.iter().map(|line| line.origin.bits()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(&[]), [1], "the smaller one");
    assert_eq!(told(&[(1, 1)]), [] as [u128; 0], "it has it under the other");
    assert_eq!(told(&[(2, 1)]), [] as [u128; 0]);
}

#[test]
fn what_is_below_a_floor_is_not_told() {
    let mut disk = talk(3);
    let floor = Body::Floor(Floor { ms: MS + 2 });
    let event = Event {
        kind: floor.kind(),
        body: floor.encode(),
        actor: AccountId::new(0),
        mid: Mid::new(0),
        ..message(4, 50, 0, ROOM, 0)
    };
    disk.append(&[(log(1), event)]);
    let Rows::Since(lines) = since(&disk, &[], 100, 1 << 20) else { panic!("no lines") };
    assert_eq!(texts(&lines), ["3", "?"], "and the floor itself");
    assert_eq!(page(&disk, Key::MAX, 9, 9), (vec!["3".to_string()], false));
}

/// Waiting messages of account 9 in so many conversations.
fn waiting(disk: &Disk, seen: u64, limit: usize, bytes_max: usize, scan_max: usize) -> Rows {
    let seen: Vector = [(log(1), seen)].into_iter().collect();
    let within = disk.within();
    let (account, rooms) = (AccountId::new(9), vec![(ROOM, seen)]);
    disk.ask(&Query::Waiting { account, rooms, within, limit, bytes_max, scan_max })
}

fn waits(rows: Rows) -> (Vec<String>, Option<u64>) {
    let Rows::Waiting(lines, cut) = rows else { panic!("no lines") };
    (texts(&lines), cut.first().map(|(_, key)| key.seq))
}

#[test]
fn waiting_messages_are_those_not_read_and_not_said_by_oneself() {
    let mut disk = talk(4);
    disk.append(&[(log(1), message(5, 5, 5, ROOM, 9)), (log(1), message(6, 6, 6, ROOM, 1))]);
    let some = |texts: &[&str]| texts.iter().map(|t| (*t).to_string()).collect::<Vec<_>>();
    let much = 1 << 20;
    assert_eq!(waits(waiting(&disk, 2, 9, much, 100)), (some(&["3", "4", "6"]), None));
    assert_eq!(waits(waiting(&disk, 0, 2, much, 100)), (some(&["6"]), None), "the newest two");
    // Not more places than may be looked at.
    assert_eq!(waits(waiting(&disk, 0, 9, much, 3)), (some(&["4", "6"]), None));
    assert_eq!(waits(waiting(&disk, 0, 9, much, 0)), (some(&[]), None));
    // One line may pass the bytes; what was left out is told by the oldest of it.
    let cost = disk.logs[&log(1)][0].event.cost();
    assert_eq!(waits(waiting(&disk, 0, 9, cost, 100)), (some(&["6"]), Some(1)));
    assert_eq!(waits(waiting(&disk, 0, 9, cost + 1, 100)), (some(&["6"]), Some(1)));
    assert_eq!(waits(waiting(&disk, 3, 9, 3 * cost, 100)), (some(&["4", "6"]), None));
    assert_eq!(waits(waiting(&disk, 3, 9, 0, 100)), (some(&[]), Some(4)));
}

#[test]
fn many_places_are_looked_at_in_steps() {
    let disk = talk(700);
    let (lines, cut) = waits(waiting(&disk, 0, 600, 1 << 20, 1000));
    assert_eq!((lines.len(), lines[0].as_str(), cut), (600, "101", None));
    let (lines, _) = waits(waiting(&disk, 0, 1000, 1 << 20, 600));
    assert_eq!((lines.len(), lines[0].as_str()), (600, "101"));
    let (lines, _) = waits(waiting(&disk, 0, 1000, 1 << 20, 10_000));
    assert_eq!(lines.len(), 700);
}

#[test]
fn one_conversation_leaves_the_next_its_share() {
    let mut disk = Disk::default();
    let rooms: Vec<RoomId> = (1..=3).map(RoomId::new).collect();
    let mut events = Vec::new();
    for n in 1..=30u64 {
        let room = rooms[usize::try_from(n).unwrap() % 3];
        events.push((log(1), message(n, n, n, room, 1)));
    }
    disk.append(&events);
    let of = |scan_max: usize, bytes_max: usize| {
        let rooms = rooms.iter().map(|room| (*room, Vector::new())).collect();
        let (account, within) = (AccountId::new(9), disk.within());
        let query = Query::Waiting { account, rooms, within, limit: 100, bytes_max, scan_max };
        let Rows::Waiting(lines, cut) = disk.ask(&query) else { panic!("no lines") };
        let counts: Vec<usize> = (1..=3)
            .map(|n| lines.iter().filter(|l| l.event.room == RoomId::new(n)).count())
            .collect();
        (counts, cut.len())
    };
    assert_eq!(of(1000, 1 << 20), (vec![10, 10, 10], 0));
    assert_eq!(of(12, 1 << 20), (vec![4, 4, 4], 0));
    let cost = disk.logs[&log(1)][29].event.cost();
    assert_eq!(of(1000, 6 * cost), (vec![2, 2, 2], 3));
}

#[test]
fn a_conversation_that_has_its_lines_leaves_the_rest_of_its_places_to_the_next() {
    let mut disk = Disk::default();
    let (one, two) = (RoomId::new(1), RoomId::new(2));
    disk.append(&(1..=300).map(|n| (log(1), message(n, n, n, one, 1))).collect::<Vec<_>>());
    // In the second one all is read but the oldest line, far below.
    disk.append(&[(log(3), message(1, 1, 1000, two, 1))]);
    disk.append(
        &(1..=943).map(|n| (log(2), message(n, 1000 + n, 2000 + n, two, 1))).collect::<Vec<_>>(),
    );
    let seen: Vector = [(log(2), 943)].into_iter().collect();
    let rooms = vec![(one, Vector::new()), (two, seen)];
    let (account, within) = (AccountId::new(9), disk.within());
    // The first takes 256 places of its 600, in one step: 944 are left.
    let (limit, bytes_max, scan_max) = (256, 1 << 20, 1200);
    let query = Query::Waiting { account, rooms, within, limit, bytes_max, scan_max };
    let Rows::Waiting(lines, _) = disk.ask(&query) else { panic!("no lines") };
    let of = |room| lines.iter().filter(|line| line.event.room == room).count();
    assert_eq!((of(one), of(two)), (256, 1));
}

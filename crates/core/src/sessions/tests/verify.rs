//! A room that changes while it is counted.

use std::sync::Arc;

use super::world::*;
use crate::config::Limits;
use crate::id::{Origin, RoomId, SessionId};
use crate::scrub::{At, Miscount, Piece, RoomAt};
use crate::session::{Item, Mode, Plain, Request, Verified};
use crate::store::{Loaded, Query, Rows, Sum};
use crate::time::{Hlc, Key};

fn lobby() -> RoomId {
    RoomId::public("lobby")
}

const fn key(ms: u64) -> Key {
    Key { hlc: Hlc::at_ms(ms), origin: Origin::new(1), seq: 1 }
}

/// A server that counts the lobby, and somebody in there.
fn counting() -> (World, SessionId) {
    let sums = vec![(lobby(), Sum { messages: 2, digest: 5 })];
    let mut world = world_of(Limits::default(), 1, &Loaded { sums, ..Loaded::default() });
    let (ann, _) = world.guest("ann");
    world.open(ann, "lobby", Mode::Join);
    world.reads.clear();
    let request = world.request();
    world.ask(ann, Request::Verify(Plain { request }));
    piece(&mut world, Piece { next: Some(At::Room(RoomAt::begin(lobby()))), ..Piece::default() });
    world.take(ann);
    (world, ann)
}

fn piece(world: &mut World, piece: Piece) {
    assert!(matches!(world.reads.front(), Some((_, Query::Scrub { .. }))), "{:?}", world.reads);
    world.read_done(Rows::Scrubbed(piece));
}

/// A piece ends at that line, and there is more.
fn read_to(world: &mut World, after: Key) {
    let at = RoomAt { after, ..RoomAt::begin(lobby()) };
    piece(world, Piece { next: Some(At::Room(at)), ..Piece::default() });
}

/// The room ends at that line, and the sum is another.
fn miscounted(world: &mut World, last: Key) {
    let miscount = Some(Miscount { room: lobby(), last, why: "another sum".into() });
    piece(world, Piece { miscount, ..Piece::default() });
}

/// Whether the room is being read from its beginning again.
fn is_counted_again(world: &World) -> bool {
    match world.reads.front() {
        Some((_, Query::Scrub { at: At::Room(at), .. })) => *at == RoomAt::begin(lobby()),
        _ => false,
    }
}

/// What was found, if it is over.
fn verdict(world: &mut World, id: SessionId) -> Option<Option<String>> {
    let verified = |item: &Arc<Item>| match &**item {
        Item::Verified(Verified { done: true, damage, .. }) => Some(damage.clone()),
        _ => None,
    };
    world.take(id).iter().find_map(verified)
}

#[test]
fn a_room_in_which_nothing_was_written_and_whose_sum_is_another_is_damaged() {
    let (mut world, ann) = counting();
    read_to(&mut world, key(5));
    miscounted(&mut world, key(9));
    assert_eq!(verdict(&mut world, ann), Some(Some("another sum".into())));
}

#[test]
fn a_line_that_came_where_the_count_has_yet_to_be_excuses_nothing() {
    let (mut world, ann) = counting();
    world.say(ann, room("lobby"), 1, "now");
    read_to(&mut world, key(5));
    miscounted(&mut world, key(9));
    assert_eq!(verdict(&mut world, ann), Some(Some("another sum".into())));
}

#[test]
fn a_room_that_changed_behind_the_count_is_counted_again() {
    for before_the_piece in [true, false] {
        let (mut world, ann) = counting();
        if before_the_piece {
            world.say(ann, room("lobby"), 1, "now");
        }
        read_to(&mut world, key(WALL_MS + 1000));
        if !before_the_piece {
            world.say(ann, room("lobby"), 1, "now");
        }
        miscounted(&mut world, key(WALL_MS + 2000));
        assert!(is_counted_again(&world), "{:?}", world.reads);
        piece(&mut world, Piece::default());
        assert_eq!(verdict(&mut world, ann), Some(None));
    }
}

#[test]
fn a_room_that_always_changes_behind_the_count_is_left_at_last() {
    let (mut world, ann) = counting();
    for nth in 1.. {
        read_to(&mut world, key(WALL_MS + 1000));
        world.say(ann, room("lobby"), nth, "again");
        miscounted(&mut world, key(WALL_MS + 2000));
        if !is_counted_again(&world) {
            assert_eq!(nth, 8);
            break;
        }
    }
    assert_eq!(verdict(&mut world, ann), Some(None));
}

/// A batch in which nothing was said here, and the sums that it changed.
fn written(world: &mut World, sweep: bool, room: RoomId) {
    let sum = Sum { messages: 1, digest: 5 };
    let batch = crate::store::Batch { sweep: sweep.then_some(None), ..Default::default() };
    let committed = crate::store::Committed { sums: vec![(room, sum)], ..Default::default() };
    world.replica.verify_written(&batch, &committed);
}

#[test]
fn lines_that_were_erased_excuse_the_room_they_were_in_and_no_other() {
    let again = |sweep: bool, room: RoomId| {
        let (mut world, ann) = counting();
        written(&mut world, sweep, room);
        read_to(&mut world, key(5));
        miscounted(&mut world, key(9));
        let again = is_counted_again(&world);
        assert_eq!(again, verdict(&mut world, ann).is_none());
        again
    };
    assert!(again(true, lobby()), "a sweep may take any line");
    assert!(!again(true, RoomId::public("tea")));
    assert!(!again(false, lobby()), "a line that came is where it came");
}

#[test]
fn a_disk_that_answers_another_question_proves_nothing() {
    let (mut world, ann) = counting();
    world.read_done(Rows::Oldest(None));
    let why = "the disk answered another question".to_string();
    assert_eq!(verdict(&mut world, ann), Some(Some(why)));
}

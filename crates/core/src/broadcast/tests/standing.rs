//! Disks that hold less than they announced.

use super::world::*;
use crate::frame::{Frame, HAVES_MAX, Haves, RolledBack};
use crate::io::{Peer, Standing};
use crate::store::Loaded;

const NOTHING: [&str; 0] = [];

fn with(standing: Standing) -> Peer {
    Peer { standing, ..peer(2) }
}

/// s1 of three with two own events, on the disk of s2 too; then s2 comes again.
fn again(standing: Standing) -> World {
    let mut world = World::linked(&config(3));
    world.say();
    world.say();
    world.settle();
    world.frame(2, have(&[(1, 2)]));
    world.broadcast.link_down(world.now, link(2));
    world.turn();
    world.broadcast.link_up(with(standing), link(2));
    world.turn();
    world
}

fn counted(world: &World) -> u64 {
    world.broadcast.on_disk_of(&slot(2), log(1))
}

#[test]
fn a_disk_that_holds_less_than_it_announced_was_put_back_and_is_told_so() {
    let mut world = again(Standing::Sound);
    world.frame(2, vector(&[(1, 1)]));
    let lines = ["log Error: ROLLED BACK", "to s2: rolled back: s1 1 not 2"];
    assert_eq!(world.turn()[..2], lines);
    assert_eq!(counted(&world), 0);
    assert!(world.broadcast.has_told(link(2)));
    // It is said in the log once, and to the server each time.
    world.frame(2, vector(&[]));
    assert_eq!(world.turn(), ["to s2: rolled back: s1 0 not 2"]);
    world.frame(2, have(&[(1, 2)]));
    assert_eq!(counted(&world), 0, "for good");
}

/// A copy of a disk is linked, which holds less; then the original, which holds all of it.
#[test]
fn a_disk_whose_copy_was_accused_counts_again_when_it_shows_all_that_it_announced() {
    let mut world = again(Standing::Sound);
    world.frame(2, vector(&[(1, 1)]));
    world.turn();
    world.frame(2, vector(&[(1, 2)]));
    assert_eq!(counted(&world), 0, "what was accused fetches, and was put back all the same");
    world.broadcast.link_down(world.now, link(2));
    world.broadcast.link_up(with(Standing::RolledBack), link(2));
    world.frame(2, vector(&[(1, 2)]));
    assert_eq!(counted(&world), 0, "it says so itself");
    world.broadcast.link_down(world.now, link(2));
    world.broadcast.link_up(with(Standing::Sound), link(2));
    world.turn();
    assert_eq!(counted(&world), 0, "it has not said what it holds");
    world.frame(2, vector(&[(1, 2)]));
    let counts = |line: &String| line.starts_with("log Info: the disk") && line.contains("again");
    assert!(world.turn().iter().any(counts));
    assert_eq!(counted(&world), 2);
}

#[test]
fn a_disk_that_holds_what_it_announced_and_more_is_sound() {
    let mut world = again(Standing::Sound);
    world.frame(2, vector(&[(1, 2), (2, 5)]));
    assert!(!world.turn().iter().any(|line| line.contains("ROLLED")));
    assert_eq!((counted(&world), world.broadcast.on_disk_of(&slot(2), log(2))), (2, 5));
}

#[test]
fn a_disk_that_says_it_lost_something_is_counted_anew() {
    let mut world = again(Standing::Lossy);
    world.frame(2, vector(&[(1, 1)]));
    assert!(!world.turn().iter().any(|line| line.contains("ROLLED")));
    assert_eq!(counted(&world), 1);
    let mut world = again(Standing::Lossy);
    world.frame(2, vector(&[(2, 3)]));
    assert_eq!((counted(&world), world.broadcast.on_disk_of(&slot(2), log(2))), (0, 3));
}

#[test]
fn a_disk_that_says_it_was_put_back_counts_for_nothing() {
    let mut world = World::linked(&config(3));
    world.broadcast.link_down(world.now, link(2));
    world.broadcast.link_up(with(Standing::RolledBack), link(2));
    assert_eq!(world.turn(), ["log Error: ROLLED BACK", "to s2: digest"]);
    world.frame(2, vector(&[(2, 3)]));
    assert_eq!(world.broadcast.on_disk_of(&slot(2), log(2)), 0);
    world.broadcast.link_down(world.now, link(2));
    world.broadcast.link_up(with(Standing::RolledBack), link(2));
    assert_eq!(world.turn(), ["to s2: digest"], "it is in the log already");
}

#[test]
fn a_vector_in_pieces_is_whole_at_the_piece_that_is_not_full() {
    let mut world = again(Standing::Sound);
    let Frame::Vector(Haves { haves }) = vector(&[(2, 0)]) else { unreachable!() };
    world.frame(2, Frame::Vector(Haves { haves: vec![haves[0]; HAVES_MAX] }));
    assert!(!world.broadcast.has_told(link(2)));
    assert!(!world.turn().iter().any(|line| line.contains("ROLLED")), "the rest is to come");
    world.frame(2, vector(&[(1, 2)]));
    assert!(world.broadcast.has_told(link(2)));
    assert!(!world.turn().iter().any(|line| line.contains("ROLLED")));
    assert_eq!(counted(&world), 2);
}

#[test]
fn all_that_is_on_the_disk_leaves_in_full_frames_and_one_that_is_not() {
    let many = |n: u64| {
        let logs = (0..n).map(|nth| crate::store::LoadedLog {
            log: crate::id::Log::of(crate::id::Origin::new(u128::from(nth) + 1)),
            upto: 1,
            chain: 0,
            hlc: crate::time::Hlc::default(),
        });
        let loaded = Loaded { logs: logs.collect(), ..Loaded::default() };
        let mut world = World::new(&config(2), &loaded);
        world.link(2);
        world.turn();
        world.frame(2, digest(&[(9, 9)]));
        world.broadcast.flush(world.now);
        let sent = std::iter::from_fn(|| world.broadcast.poll_output()).filter_map(|output| {
            let crate::io::Output::Send { frame, .. } = output else { return None };
            match &*frame {
                Frame::Vector(haves) => Some(haves.haves.len()),
                _ => None,
            }
        });
        let sent: Vec<usize> = sent.collect();
        assert_eq!(world.broadcast.counts().have_frames, sent.len() as u64);
        sent
    };
    assert_eq!(many(0), [0]);
    assert_eq!(many(8191), [8191]);
    assert_eq!(many(8192), [8192, 0]);
    assert_eq!(many(8193), [8192, 1]);
}

#[test]
fn a_server_that_is_told_of_its_own_disk_believes_it_and_writes_it_down() {
    let mut world = World::linked(&config(3));
    let lost = RolledBack { log: log(1), announced: 2, held: 0 };
    world.frame(2, Frame::RolledBack(lost));
    assert_eq!(world.turn(), ["log Error: ROLLED BACK"]);
    assert_eq!(world.broadcast.standing(), Standing::RolledBack);
    let standing = world.broadcast.saving().and_then(|(_, batch)| batch.standing);
    assert_eq!(standing, Some(Standing::RolledBack));
    world.frame(3, Frame::RolledBack(lost));
    assert_eq!(world.turn(), NOTHING);
}

#[test]
fn a_damaged_disk_is_sound_when_it_has_all_and_has_told_all() {
    let lossy = Loaded { standing: Standing::Lossy, ..loaded(&[]) };
    let mut world = World::new(&config(3), &lossy);
    world.link(2);
    world.frame(2, vector(&[(2, 1)]));
    world.turn();
    world.broadcast.check_mended(2);
    assert_eq!(world.broadcast.standing(), Standing::Lossy, "s3 has not told");
    world.link(3);
    world.frame(3, vector(&[]));
    world.broadcast.check_mended(2);
    assert_eq!(world.broadcast.standing(), Standing::Lossy, "an event of s2 is missing");
    world.frame(2, events(2, 1, 1, 0));
    world.settle();
    world.broadcast.check_mended(2);
    let said = world.turn();
    assert!(said.iter().any(|line| line.starts_with("log Info: the damaged disk")), "{said:?}");
    assert_eq!(world.broadcast.standing(), Standing::Sound);
    world.broadcast.check_mended(2);
    assert_eq!(world.turn(), NOTHING);
    let mut sound = World::linked(&config(3));
    sound.broadcast.check_mended(2);
    assert_eq!(sound.turn(), NOTHING);
}

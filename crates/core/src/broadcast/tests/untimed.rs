//! The broadcast without its clock: what a checker may fire, and what tells no states apart.

use super::world::*;
use crate::broadcast::Timer;
use crate::time::Time;

const LATER: Time = Time::from_micros(u64::MAX);

/// Fires one timer; what is said then.
fn fire(world: &mut World, timer: Timer) -> Vec<String> {
    world.broadcast.expire(world.now, timer);
    world.broadcast.handle_timeout(world.now);
    world.settle()
}

/// s1 of four, of which s2 announced an event that did not come.
fn announced() -> World {
    let mut world = World::linked(&config(4));
    world.frame(2, have(&[(2, 1)]));
    world.frame(3, have(&[(2, 1)]));
    world.settle();
    world.broadcast.forget_time();
    world
}

#[test]
fn a_timer_fires_when_the_checker_likes_and_only_that_one() {
    let mut world = announced();
    let digests = [2, 3, 4].map(|n| Timer::Digest(link(n)));
    let all = [&[Timer::Repair(log(2))], &digests[..]].concat();
    assert_eq!(world.broadcast.timers(), all);
    for n in [2, 3, 4] {
        let digest = fire(&mut world.branch(), Timer::Digest(link(n)));
        assert_eq!(digest, [format!("to s{n}: digest")]);
    }
    assert_eq!(fire(&mut world, Timer::Repair(log(2))), ["to s2: want s2 1..1, and push"]);
    // A request may be given up at any time, however often that was done before.
    for n in [3, 2, 3, 2] {
        world.broadcast.forget_time();
        let want = format!("to s{n}: want s2 1..1, and push");
        assert_eq!(fire(&mut world, Timer::Repair(log(2))), [want]);
    }
    world.say();
    world.settle();
    world.broadcast.forget_time();
    let announces = [2, 3, 4].map(|n| Timer::Announce(link(n)));
    assert_eq!(world.broadcast.timers()[1..4], announces);
    assert_eq!(fire(&mut world, Timer::Announce(link(3))), ["to s3: have s1 1"]);
    assert_eq!(world.broadcast.timers()[1..3], [announces[0], announces[2]]);
}

#[test]
fn a_hole_may_be_asked_for_at_any_time() {
    let mut world = World::linked(&config(3));
    world.frame(3, events(2, 2, 2, 1));
    world.settle();
    world.broadcast.forget_time();
    assert_eq!(fire(&mut world, Timer::Repair(log(2))), ["to s3: want s2 1..2, and push"]);
}

/// The same happens to two servers, to each at its own pace.
#[test]
fn moments_and_counts_tell_no_states_apart() {
    let at_a_pace_of = |ms: u64| {
        let mut world = World::linked(&config(4));
        let pass = |world: &mut World| {
            world.now.time = world.now.time + std::time::Duration::from_millis(ms);
        };
        for (seq, n) in [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (2, 2)] {
            world.frame(n, events(2, seq, seq, 1));
            world.settle();
            pass(&mut world);
        }
        world.say();
        world.settle();
        pass(&mut world);
        world.frame(2, have(&[(2, 7)]));
        world.frame(3, events(3, 2, 2, 0));
        world.settle();
        assert!(world.broadcast.is_pruned(link(4), log(2)));
        world.broadcast.forget_time();
        world.broadcast
    };
    let one = at_a_pace_of(1);
    assert_eq!(one, at_a_pace_of(3));
    assert_eq!(one.counts(), crate::broadcast::Counts::default());
    let deadlines = one.next_deadline();
    assert_eq!(deadlines, Some(LATER), "nothing is due until the checker says so");
}

#[test]
fn which_feed_is_older_is_remembered() {
    let stays = |first: u8, second: u8| {
        let mut world = World::linked(&config(4)); // two feeds
        for n in [first, second] {
            world.frame(n, events(4, 1, 1, 1));
            world.settle();
            world.now.time = world.now.time + std::time::Duration::from_millis(1);
        }
        world.broadcast.forget_time();
        // Their maker pushes: the worse of the two goes, of equal ones the younger.
        for seq in 2..=3 {
            world.frame(4, events(4, seq, seq, 0));
            world.settle();
        }
        let pruned = |n: u8| world.broadcast.is_pruned(link(n), log(4));
        (pruned(first), pruned(second))
    };
    assert_eq!((stays(2, 3), stays(3, 2)), ((false, true), (false, true)));
}

#[test]
fn how_often_something_was_asked_for_is_forgotten() {
    let asked = |of: &[u8]| {
        let mut world = announced();
        for n in of {
            let want = format!("to s{n}: want s2 1..1, and push");
            assert_eq!(fire(&mut world, Timer::Repair(log(2))), [want]);
            world.broadcast.forget_time();
        }
        world.broadcast
    };
    assert_eq!(asked(&[2]), asked(&[2, 3, 2, 3, 2]));
}

//! The broadcast without its clock: what a checker may fire, and what tells no states apart.

use super::world::*;
use crate::broadcast::{Broadcast, Restarts, Spent, Timer};
use crate::config::{Config, Mesh, Start};
use crate::frame::{Class, Frame, Push};
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
    assert_eq!(world.broadcast.buffered().collect::<Vec<_>>(), [(log(2), 2)]);
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

/// s1 of three, of which each is pushed everything by both others.
fn flooded() -> World {
    let mesh = Mesh { start: Start::Flooded, ..Mesh::default() };
    World::linked(&Config { mesh, ..config(3) })
}

/// Takes frames, each in a tick of its own, all of it on the disk.
fn take(world: &mut World, frames: &[(u8, Frame)]) {
    for (n, frame) in frames {
        world.frame(*n, frame.clone());
        world.settle();
        for n in [2, 3] {
            world.broadcast.wrote(link(n), Class::Live, 1 << 20);
        }
    }
}

fn forgotten(world: &World, restarts: Restarts) -> Broadcast {
    let mut broadcast = world.broadcast.clone();
    broadcast.forget_time();
    broadcast.forget_spent(restarts);
    broadcast
}

#[test]
fn who_brought_what_is_here_tells_no_states_apart() {
    let by = |first: u8, second: u8| {
        let mut world = flooded();
        let hops = u8::from(first > second);
        take(&mut world, &[(first, events(4, 1, 1, hops)), (second, events(4, 1, 1, 1))]);
        take(&mut world, &[(first, have(&[(4, 1)])), (second, have(&[(4, 1)]))]);
        world
    };
    for restarts in [Restarts::Maybe, Restarts::Never] {
        let known = forgotten(&by(2, 3), restarts);
        assert_eq!(known, forgotten(&by(3, 2), restarts));
        assert!(known.links.values().all(|link| link.has.iter().next().is_none()), "it is here");
    }
    let mut claimed = by(2, 3);
    take(&mut claimed, &[(3, have(&[(4, 2)]))]);
    assert_eq!(forgotten(&claimed, Restarts::Never).missing(), 1, "what is missing is remembered");
}

#[test]
fn what_was_counted_is_written_for_those_that_start_again() {
    let written = |restarts: Restarts| {
        let mut world = flooded();
        take(&mut world, &[(2, events(2, 1, 1, 0)), (2, have(&[(2, 1)])), (3, have(&[(2, 1)]))]);
        world.broadcast = forgotten(&world, restarts);
        world.say();
        world.turn();
        world.broadcast.saving().map_or(0, |(_, batch)| batch.disks.len())
    };
    assert_eq!([written(Restarts::Maybe), written(Restarts::Never)], [2, 0]);
    let being_written = |restarts: Restarts| {
        let mut world = flooded();
        take(&mut world, &[(2, events(2, 1, 1, 0)), (2, have(&[(2, 1)])), (3, have(&[(2, 1)]))]);
        world.say();
        world.turn();
        forgotten(&world, restarts).saving().map_or(0, |(_, batch)| batch.disks.len())
    };
    assert_eq!([being_written(Restarts::Maybe), being_written(Restarts::Never)], [2, 0]);
}

#[test]
fn what_the_next_announcement_tells_is_known() {
    let mut world = flooded();
    take(&mut world, &[(3, events(4, 1, 1, 0))]);
    assert_eq!(world.broadcast.untold(link(2)).collect::<Vec<_>>(), [(log(4), 1)]);
    let holds = [(log(4), 1), (log(4), 2), (log(5), 0)];
    let holds = holds.map(|(log, upto)| world.broadcast.holds(log, upto));
    assert_eq!(holds, [true, false, false], "an unknown log is not held");
}

#[test]
fn a_frame_is_spent_that_changes_nothing_whenever_it_comes() {
    let mut world = flooded();
    let all = [events(2, 1, 1, 1), have(&[(2, 1)]), vector(&[(2, 1)])];
    let spent = |world: &World| {
        let of = |frame: &Frame| world.broadcast.is_spent(link(3), frame);
        all.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(spent(&world), [None; 3], "the event is not here");
    take(&mut world, &[(2, events(2, 1, 1, 0))]);
    let counted = Some(Spent::ButCounted);
    assert_eq!(spent(&world), [Some(Spent::Wholly), counted, counted]);
    take(&mut world, &[(3, have(&[(2, 1)]))]);
    assert_eq!(spent(&world), [Some(Spent::Wholly), Some(Spent::Wholly), counted]);
    let before = forgotten(&world, Restarts::Maybe);
    take(&mut world, &[(3, all[0].clone()), (3, all[1].clone())]);
    assert_eq!(forgotten(&world, Restarts::Maybe), before);
    for frame in
        [have(&[(2, 2)]), have(&[(2, 1), (4, 1)]), have(&[(4, 0)]), want(2, 1, 1, Push::Start)]
    {
        assert_eq!(world.broadcast.is_spent(link(3), &frame), None, "{frame:?}");
    }
    // With more links than feeds a copy shows who pushes, and may be one too many.
    let mut four = World::linked(&config(4));
    take(&mut four, &[(2, events(2, 1, 1, 0))]);
    assert_eq!(four.broadcast.is_spent(link(3), &all[0]), None);
}

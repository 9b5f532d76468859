//! A clock that is set while clients write.

use super::start::link_up;
use super::world::*;
use crate::config::Limits;
use crate::frame::{Frame, Haves, Ping};
use crate::id::LinkId;
use crate::io::Input;
use crate::session::{Code, ServerState};
use crate::store::Loaded;

const DAY_MS: u64 = 86_400_000;

/// One of three that knows the others' clocks.
fn one_of_three() -> World {
    let mut world = world_of(Limits::default(), 3, &Loaded::default());
    for n in [2, 3] {
        link_up(&mut world, n);
        world.give(Input::Frame(LinkId(n), Frame::Vector(Haves { haves: Vec::new() })));
        let ping = Ping { sent_micros: 0, clock_ms: world.now.wall_ms };
        world.give(Input::Frame(LinkId(n), Frame::Ping(ping)));
    }
    world
}

#[test]
fn a_clock_that_is_set_stamps_nothing_before_it_is_judged() {
    for ahead in [DAY_MS, 1500] {
        let mut world = one_of_three();
        let (ann, _) = world.guest("ann");
        let events = world.written.len();
        let right = world.now.wall_ms;

        // No ping comes between.
        world.now.wall_ms = right + ahead;
        world.say(ann, room("lobby"), 1, "by which clock?");

        let codes: Vec<_> = refused(&world.take(ann)).into_iter().map(|(_, code)| code).collect();
        assert_eq!(codes, [Code::ClockSkew]);
        assert_eq!(world.written.len(), events, "nothing was stamped");

        // Nor has it to wait when it is right again.
        world.now.wall_ms = right;
        world.say(ann, room("lobby"), 2, "by this one");
        assert_eq!(refused(&world.take(ann)), []);
        assert_eq!(world.replica.state(), ServerState::Ready);
    }
}

#[test]
fn a_clock_that_is_set_right_is_believed_at_once() {
    let mut world = one_of_three();
    let (ann, _) = world.guest("ann");
    world.now.wall_ms += 500;
    world.say(ann, room("lobby"), 1, "half a second is nothing");
    assert_eq!(refused(&world.take(ann)), []);
}

#[test]
fn who_slept_and_wakes_alone_takes_writes_when_a_majority_confirms_the_clock() {
    let mut world = one_of_three();
    let (ann, _) = world.guest("ann");
    // The machine was suspended: its wall clock went on, right, and its steady clock did not.
    world.now.wall_ms += 3_600_000;
    for n in [2, 3] {
        world.give(Input::LinkDown(LinkId(n)));
    }
    world.say(ann, room("lobby"), 1, "good morning");
    let codes: Vec<_> = refused(&world.take(ann)).into_iter().map(|(_, code)| code).collect();
    assert_eq!(codes, [Code::ClockSkew], "it looks like a clock that was set");

    link_up(&mut world, 2);
    let ping = Ping { sent_micros: 0, clock_ms: world.now.wall_ms };
    world.give(Input::Frame(LinkId(2), Frame::Ping(ping)));
    world.say(ann, room("lobby"), 2, "now?");
    assert_eq!(refused(&world.take(ann)), []);
}

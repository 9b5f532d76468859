//! Links that lose frames without a word.

use super::world::*;
use crate::config::{Config, Links, Mesh};
use crate::frame::Class;

const NOTHING: [&str; 0] = [];

/// s1 of three over such links, with one own event on its disk, pushed and lost on the way.
fn lossy() -> World {
    let mesh = Mesh { links: Links::Lossy, ..Mesh::default() };
    let mut world = World::new(&Config { mesh, ..config(3) }, &loaded(&[]));
    world.link(2);
    world.link(3);
    assert_eq!(world.turn(), NOTHING, "nothing is there to tell");
    world.persist();
    world.say();
    assert_eq!(world.turn()[0], "to s2 s3: events s1 1..1, 0 hops");
    world.persist();
    world
}

#[test]
fn news_travels_alone_when_nobody_says_anything_and_then_no_more() {
    let mut world = lossy();
    assert_eq!(world.pass_ms(24), NOTHING, "a quarter of the tick");
    assert_eq!(world.pass_ms(1), ["25 ms: to s2: have s1 1", "25 ms: to s3: have s1 1"]);
    world.frame(2, have(&[(1, 1)]));
    world.frame(3, have(&[(1, 1)]));
    assert_eq!(world.pass_ms(60_000), NOTHING, "a quiet link costs nothing");
    assert_eq!(world.broadcast.next_deadline(), None);
    assert_eq!(world.broadcast.counts().have_frames, 2);
}

#[test]
fn a_server_that_links_is_told_all_that_there_is() {
    let mesh = Mesh { links: Links::Lossy, ..Mesh::default() };
    let mut world = World::new(&Config { mesh, ..config(3) }, &loaded(&[(1, 2), (2, 1)]));
    world.link(2);
    assert_eq!(world.turn(), ["to s2: have s1 2, s2 1"]);
    assert_eq!(world.turn(), NOTHING);
}

#[test]
fn anything_said_takes_the_whole_along() {
    let mut world = lossy();
    world.pass_ms(100);
    world.frame(2, events(2, 1, 1, 0));
    let lines = ["to s3: events s2 1..1, 1 hops", "to s3: have s1 1", "write s2 1"];
    assert_eq!(world.turn(), lines);
    world.persist();
    // s2 made it and is told at once; s3 at its tick.
    assert_eq!(world.pass_ms(0), ["100 ms: to s2: have s1 1, s2 1"]);
    assert_eq!(world.pass_ms(100), ["125 ms: to s3: have s1 1, s2 1"]);
}

#[test]
fn whoever_says_something_that_lacks_what_is_here_is_told_again_with_own_events() {
    let mut world = lossy();
    world.pass_ms(100);
    world.frame(3, have(&[(1, 1)]));
    world.pass_ms(99);
    world.frame(2, have(&[]));
    assert_eq!(world.turn(), NOTHING, "the last word may be on its way");
    world.pass_ms(1);
    world.broadcast.wrote(link(2), Class::CatchUp, COST);
    world.frame(2, have(&[]));
    let told: Vec<String> = world.turn();
    assert_eq!(told, ["to s2: range s1 1..1, done", "to s2: have s1 1"]);
    world.frame(2, have(&[]));
    assert_eq!(world.turn(), NOTHING, "that may be on its way, too");
    world.frame(2, have(&[(1, 1)]));
    assert_eq!(world.pass_ms(60_000), NOTHING, "it has shown that it has it");
}

#[test]
fn whoever_shows_nothing_for_long_may_be_cut_off_and_is_probed() {
    let mut world = lossy();
    world.pass_ms(100);
    world.frame(3, have(&[(1, 1)]));
    let suspect = |world: &World| world.broadcast.rank(link(2), log(3)).0;
    // Two links: each half second one of those who owe a proof.
    let probes = |said: Vec<String>| -> Vec<String> {
        said.into_iter().filter(|line| line.contains("have")).collect()
    };
    let at = [600, 1100, 1600].map(|at| format!("{at} ms: to s2: have s1 1"));
    assert_eq!(probes(world.pass_ms(1899)), at);
    assert!(!suspect(&world));
    world.pass_ms(1);
    assert!(suspect(&world));
    let said = probes(world.pass_ms(10_000));
    assert!(said.len() >= 20 && said.iter().all(|line| line.contains("to s2: have")), "{said:?}");
    // A word that shows less is no proof.
    world.frame(2, have(&[]));
    assert!(suspect(&world));
    world.frame(2, have(&[(1, 1)]));
    assert!(!suspect(&world));
    world.turn();
    assert_eq!(probes(world.pass_ms(60_000)), NOTHING);
}

#[test]
fn a_link_that_is_always_a_little_behind_proves_enough() {
    let mut world = lossy();
    world.frame(3, have(&[(1, 1)]));
    for seq in 1..=10 {
        world.pass_ms(1500);
        world.say();
        world.turn();
        world.persist();
        world.frame(2, have(&[(1, seq)]));
        world.frame(3, have(&[(1, seq + 1)]));
        assert!(!world.broadcast.rank(link(2), log(3)).0, "after event {seq}");
    }
    world.pass_ms(1999);
    assert!(!world.broadcast.rank(link(2), log(3)).0);
    world.pass_ms(1);
    assert!(world.broadcast.rank(link(2), log(3)).0, "the last event is not proven");
}

#[test]
fn a_feed_that_may_be_cut_off_is_replaced() {
    let mut world = lossy();
    world.pass_ms(100);
    world.frame(2, have(&[(1, 1)]));
    world.frame(3, have(&[(1, 1)]));
    world.link(4);
    world.settle();
    world.frame(4, have(&[(1, 1)]));
    world.frame(4, crate::frame::Frame::Lagging(crate::frame::Lagging {}));
    world.say();
    world.turn();
    world.persist();
    world.frame(3, have(&[(1, 2)]));
    world.frame(4, have(&[(1, 2)]));
    let said = world.pass_ms(2000);
    let wants: Vec<&String> = said.iter().filter(|line| line.contains("want")).collect();
    assert_eq!(wants.len(), 3, "of each log but its own: {said:?}");
    assert!(wants.iter().all(|line| line.starts_with("2100 ms: to s4: want")), "{said:?}");
}

#[test]
fn only_a_word_of_what_somebody_has_shows_what_it_lacks() {
    let mut world = lossy();
    world.pass_ms(100); // s2 was told again
    world.frame(3, events(3, 1, 1, 0));
    let said = world.turn();
    assert!(!said.iter().any(|line| line.contains("range")), "a push is none: {said:?}");
    let mut world = lossy();
    world.pass_ms(100);
    world.frame(3, have(&[]));
    assert_eq!(world.turn()[0], "to s3: range s1 1..1, done");
}

#[test]
fn a_sign_has_only_those_told_again_whose_last_word_is_not_on_its_way() {
    let mut world = lossy();
    world.pass_ms(150); // s2 was told again at 100 ms
    world.frame(3, have(&[]));
    assert_eq!(world.turn(), ["to s3: range s1 1..1, done", "to s3: have s1 1"]);
    // A while later it would have said so.
    let mut world = lossy();
    world.pass_ms(200);
    world.broadcast.wrote(link(2), Class::CatchUp, COST);
    world.frame(3, have(&[]));
    let told: Vec<String> = world.turn();
    assert!(told.contains(&"to s2: have s1 1".into()), "{told:?}");
}

#[test]
fn an_own_event_that_should_be_there_is_told_again_though_a_proof_was_given_lately() {
    let mut world = lossy();
    world.frame(3, have(&[(1, 1)]));
    let say = |world: &mut World, at: u64| {
        world.pass_ms(at - world.now.time.as_micros() / 1000);
        world.say();
        world.turn();
        world.persist();
    };
    say(&mut world, 50);
    world.pass_ms(45);
    world.frame(2, have(&[(1, 1)])); // proves the first; the second may be on its way
    say(&mut world, 120);
    world.pass_ms(20);
    world.frame(2, have(&[(1, 1)]));
    let ranges = |said: Vec<String>| -> Vec<String> {
        said.into_iter().filter(|line| line.contains("range")).collect()
    };
    assert_eq!(ranges(world.turn()), NOTHING, "90 ms after the second event");
    world.pass_ms(15);
    world.frame(2, have(&[(1, 1)]));
    let told = ranges(world.turn());
    assert_eq!(told, ["to s2: range s1 2..3, done"], "105 ms after it");
}

#[test]
fn whoever_lacks_what_others_made_is_told_again_too() {
    let mut world = lossy();
    world.frame(3, events(3, 1, 1, 0));
    world.turn();
    world.persist();
    world.pass_ms(10);
    for n in [2, 3] {
        world.frame(n, have(&[(1, 1)]));
    }
    world.pass_ms(240); // s2 was told again before
    world.frame(2, have(&[(1, 1)]));
    assert_eq!(world.turn(), ["to s2: have s1 1, s3 1"]);
}

#[test]
fn a_proof_is_owed_since_the_first_event_that_is_not_proven() {
    let mut world = lossy();
    world.frame(3, have(&[(1, 1)]));
    let suspect = |world: &World| world.broadcast.rank(link(2), log(3)).0;
    for seq in 2..=4 {
        world.pass_ms(500);
        world.say();
        world.turn();
        world.persist();
        world.frame(3, have(&[(1, seq)]));
    }
    world.pass_ms(499);
    assert!(!suspect(&world));
    world.pass_ms(1);
    assert!(suspect(&world), "two seconds after the first");
    // Who has shown to have all owes nothing.
    let mut world = lossy();
    for n in [2, 3] {
        world.frame(n, have(&[(1, 5), (2, 1)]));
    }
    world.frame(2, events(2, 1, 1, 0));
    world.turn();
    world.persist();
    world.frame(3, have(&[(1, 5), (2, 1)]));
    world.pass_ms(5000);
    assert!(!suspect(&world) && !world.broadcast.rank(link(3), log(2)).0);
}

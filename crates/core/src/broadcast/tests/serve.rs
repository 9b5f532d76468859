//! Answering whoever asks.

use super::world::*;
use crate::config::{Config, Limits};
use crate::frame::{Class, Push};
use crate::store::Rows;

const NOTHING: [&str; 0] = [];

/// s1 of three with `n` own events, of which it has the last `tail` in memory, and windows of so
/// many events.
fn world(n: u64, tail: usize, window: usize) -> World {
    let limits =
        Limits { tail_events: tail, range_window_bytes: window * COST, ..Limits::default() };
    let mut world = World::linked(&Config { limits, ..config(3) });
    (0..n).for_each(|_| world.say());
    world.settle();
    world.pass_ms(200);
    world
}

fn ask(world: &mut World, from: u64, to: u64) -> Vec<String> {
    world.frame(2, want(1, from, to, Push::Unchanged));
    world.turn()
}

#[test]
fn what_is_in_memory_is_given_as_asked() {
    let mut world = world(6, 4, 100);
    assert_eq!(ask(&mut world, 3, 4), ["to s2: range s1 3..4, done"]);
    assert_eq!(ask(&mut world, 6, 6), ["to s2: range s1 6..6, done"]);
    assert_eq!(world.broadcast.counts().range_sends, 3);
    // More than there is: what there is.
    assert_eq!(ask(&mut world, 5, 99), ["to s2: range s1 5..6, done"]);
    assert_eq!(ask(&mut world, 7, 99), ["to s2: nothing of s1 from 7, done"]);
    // Nothing is asked for: nothing is said.
    assert_eq!(ask(&mut world, 5, 4), NOTHING);
    world.frame(2, want(9, 1, 1, Push::Start));
    assert_eq!(world.turn(), NOTHING, "of a log that nobody knows here");
    let refusal = world.refusal(2, want(1, 0, 1, Push::Start));
    assert_eq!(refusal.as_deref(), Some("a want from event 0; events are counted from 1"));
}

#[test]
fn what_is_not_in_memory_is_read_from_the_disk() {
    let mut world = world(6, 2, 100);
    assert_eq!(ask(&mut world, 2, 6), ["read s1 2..6, 10000 bytes"]);
    assert_eq!(world.turn(), NOTHING, "the disk is awaited");
    let (token, _) = world.reads.pop_front().unwrap();
    let rows = || Rows::Events(vec![entry(1, 2), entry(1, 3)]);
    world.broadcast.read_done(token, rows());
    assert_eq!(world.turn(), ["to s2: range s1 2..3", "read s1 4..6, 9800 bytes"]);
    world.broadcast.read_done(token, rows());
    assert_eq!(world.turn(), NOTHING, "an answer that was given already");
    let (second, _) = world.reads.pop_front().unwrap();
    assert_ne!(second, token);
    world.broadcast.read_done(second, Rows::Events(vec![entry(1, 4)]));
    assert_eq!(world.turn(), ["to s2: range s1 4..4", "to s2: range s1 5..6, done"]);
}

#[test]
fn a_disk_that_fails_answers_with_nothing() {
    let mut world = world(6, 2, 100);
    ask(&mut world, 2, 6);
    let (token, _) = world.reads.pop_front().unwrap();
    world.broadcast.read_done(token, Rows::Failed("bad sector".into()));
    let said = world.turn();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("log Error: could not read log"), "{said:?}");
    assert_eq!(said[1], "to s2: nothing of s1 from 2, done");
}

#[test]
fn a_read_for_a_link_that_is_gone_is_answered_to_nobody() {
    let mut world = world(6, 2, 100);
    ask(&mut world, 2, 6);
    let (token, _) = world.reads.pop_front().unwrap();
    world.broadcast.link_down(world.now, link(2));
    world.settle();
    world.link(2);
    world.turn();
    world.broadcast.read_done(token, Rows::Events(vec![entry(1, 2)]));
    assert_eq!(world.turn(), NOTHING);
}

#[test]
fn an_answer_ends_with_its_window() {
    let mut world = world(9, 100, 3);
    assert_eq!(ask(&mut world, 1, 9), ["to s2: range s1 1..3, done"]);
    assert_eq!(ask(&mut world, 4, 9), NOTHING, "a window waits for the network");
    world.broadcast.wrote(link(2), Class::Live, 3 * COST);
    assert_eq!(world.turn(), NOTHING);
    world.broadcast.wrote(link(2), Class::CatchUp, 1);
    assert_eq!(world.turn(), ["to s2: range s1 4..6, done"]);
    world.broadcast.wrote(link(2), Class::CatchUp, 9 * COST);
    assert_eq!(ask(&mut world, 7, 9), ["to s2: range s1 7..9, done"]);
}

#[test]
fn a_window_smaller_than_an_event_gives_one() {
    let limits = Limits { range_window_bytes: 1, ..Limits::default() };
    let mut world = World::linked(&Config { limits, ..config(2) });
    world.say();
    world.say();
    world.settle();
    world.pass_ms(200);
    assert_eq!(ask(&mut world, 1, 2), ["to s2: range s1 1..1, done"]);
}

#[test]
fn each_log_is_asked_for_once_and_the_newest_word_counts() {
    let mut world = world(9, 2, 3);
    world.frame(3, events(3, 1, 2, 0));
    world.settle();
    world.pass_ms(200);
    assert_eq!(ask(&mut world, 1, 9), ["read s1 1..9, 300 bytes"]);
    world.frame(2, want(3, 2, 2, Push::Unchanged));
    world.frame(2, want(1, 5, 6, Push::Unchanged));
    world.frame(2, want(3, 1, 2, Push::Unchanged));
    assert_eq!(world.turn(), NOTHING);
    let (token, _) = world.reads.pop_front().unwrap();
    let rows = Rows::Events((1..=3).map(|seq| entry(1, seq)).collect());
    world.broadcast.read_done(token, rows);
    assert_eq!(world.turn(), ["to s2: range s1 1..3, done"]);
    world.broadcast.wrote(link(2), Class::CatchUp, 3 * COST);
    assert_eq!(world.turn(), ["read s1 5..6, 300 bytes"]);
    let (token, _) = world.reads.pop_front().unwrap();
    world.broadcast.read_done(token, Rows::Events(vec![entry(1, 5), entry(1, 6)]));
    assert_eq!(world.turn(), ["to s2: range s1 5..6, done", "to s2: range s3 1..2, done"]);
}

#[test]
fn links_are_answered_each_for_itself() {
    let mut world = world(4, 100, 2);
    assert_eq!(ask(&mut world, 1, 4), ["to s2: range s1 1..2, done"]);
    world.frame(3, want(1, 3, 4, Push::Unchanged));
    assert_eq!(world.turn(), ["to s3: range s1 3..4, done"]);
}

#[test]
fn pieces_of_an_answer_fit_a_frame() {
    let most = (crate::frame::EVENTS_BYTES_MAX / COST) as u64;
    let mut world = world(most + 1, 10_000, 10_000);
    let lines =
        [format!("to s2: range s1 1..{most}"), format!("to s2: range s1 {0}..{0}, done", most + 1)];
    assert_eq!(ask(&mut world, 1, most + 1), lines);
}

#[test]
fn an_answer_takes_announcements_along() {
    let mut world = world(1, 100, 100);
    world.frame(3, events(3, 1, 1, 0));
    world.turn();
    world.persist();
    world.pass_ms(50);
    world.frame(2, want(1, 1, 1, Push::Unchanged));
    assert_eq!(world.turn(), ["to s2: range s1 1..1, done", "to s2: have s3 1"]);
}

#[test]
fn a_link_that_goes_takes_only_its_own_reads_along() {
    let mut world = world(6, 2, 100);
    world.frame(3, want(1, 2, 3, Push::Unchanged));
    assert_eq!(world.turn(), ["read s1 2..3, 10000 bytes"]);
    ask(&mut world, 2, 6);
    world.broadcast.link_down(world.now, link(2));
    world.settle();
    let (token, _) = world.reads.pop_front().unwrap();
    world.broadcast.read_done(token, Rows::Events(vec![entry(1, 2), entry(1, 3)]));
    assert_eq!(world.turn(), ["to s3: range s1 2..3, done"]);
}

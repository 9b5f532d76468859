//! Pushing, applying, keeping what came too early, and refusing what cannot be.

use std::sync::Arc;

use super::world::*;
use crate::config::{Feeds, Limits};
use crate::event::BODY_BYTES_MAX;
use crate::frame::{Class, Events, Frame, Logs, PresenceUpdate, Range};
use crate::store::Loaded;
use crate::time::Hlc;

const NOTHING: [&str; 0] = [];

#[test]
fn an_own_event_is_pushed_to_all_then_written_then_announced() {
    let mut world = World::linked(&config(3));
    assert_eq!(world.broadcast.next_seq(), 1);
    world.say();
    world.say();
    assert_eq!(world.broadcast.next_seq(), 3);
    assert_eq!(world.turn(), ["to s2 s3: events s1 1..2, 0 hops", "write s1 1, s1 2"]);
    assert_eq!(world.broadcast.held().upto(log(1)), 2);
    assert_eq!(world.broadcast.durable().upto(log(1)), 0);
    assert!(!world.broadcast.is_saved());

    assert!(world.persist());
    assert_eq!(world.broadcast.durable().upto(log(1)), 2);
    assert!(world.broadcast.is_saved());
    assert_eq!(world.turn(), NOTHING, "announced at the tick, or with what goes anyway");
    assert_eq!(world.pass_ms(99), NOTHING);
    assert_eq!(world.pass_ms(1), ["100 ms: to s2: have s1 2", "100 ms: to s3: have s1 2"]);
    let counts = world.broadcast.counts();
    assert_eq!((counts.payload_sends, counts.have_frames, counts.duplicates), (4, 2, 0));
}

#[test]
fn one_write_is_under_way_and_the_next_gathers() {
    let mut world = World::linked(&config(1));
    world.say();
    assert_eq!(world.turn(), ["write s1 1"]);
    world.say();
    assert_eq!(world.turn(), NOTHING);
    world.say();
    assert_eq!(world.turn(), NOTHING);
    assert_eq!(world.broadcast.durable().upto(log(1)), 0);
    world.persist();
    assert_eq!(world.turn(), ["write s1 2, s1 3"]);
    assert_eq!(world.broadcast.durable().upto(log(1)), 1);
    let (token, batch) = world.broadcast.saving().map(|(t, b)| (t, b.clone())).unwrap();
    assert_eq!(batch.entries, [entry(1, 2), entry(1, 3)]);
    for other in [token.0 - 1, token.0 + 1].map(crate::id::PersistToken) {
        assert_eq!(world.broadcast.persisted(world.now, other), None, "no such write");
    }
    assert_eq!(world.broadcast.persisted(world.now, token), Some(batch));
    assert_eq!(world.broadcast.saving(), None);
}

#[test]
fn a_pushed_event_goes_on_to_all_but_its_sender_and_its_maker() {
    let mut world = World::linked(&config(4));
    world.frame(3, events(2, 1, 2, 1));
    assert_eq!(world.broadcast.take_received(), [event(2, 1).hlc, event(2, 2).hlc]);
    assert_eq!(world.broadcast.take_received(), [] as [Hlc; 0]);
    assert_eq!(world.turn(), ["to s4: events s2 1..2, 2 hops", "write s2 1, s2 2"]);

    // Copies are told apart by their numbers alone, and pushed no further.
    world.frame(4, events(2, 1, 2, 1));
    assert_eq!(world.turn(), NOTHING);
    assert_eq!(world.broadcast.counts().duplicates, 2);
    // Of a frame that is half new only the new half is.
    world.frame(2, events(2, 2, 3, 0));
    assert_eq!(world.broadcast.counts().duplicates, 3);
    assert_eq!(world.turn(), ["to s3 s4: events s2 3..3, 1 hops"]);
    assert_eq!(world.broadcast.held().upto(log(2)), 3);
}

#[test]
fn what_a_link_has_is_not_pushed_to_it() {
    let mut world = World::linked(&config(4));
    world.frame(4, have(&[(2, 1)]));
    world.frame(3, events(2, 1, 1, 1));
    assert_eq!(world.turn(), ["write s2 1"]);
    world.frame(3, events(2, 2, 2, 1));
    assert_eq!(world.turn(), ["to s4: events s2 2..2, 2 hops"]);
}

#[test]
fn the_log_s_own_server_hears_at_once_what_is_on_the_disk_and_others_at_their_tick() {
    let mut world = World::linked(&config(3));
    world.frame(2, events(2, 1, 1, 0));
    assert_eq!(world.turn(), ["to s3: events s2 1..1, 1 hops", "write s2 1"]);
    world.persist();
    assert_eq!(world.pass_ms(0), ["0 ms: to s2: have s2 1"]);
    world.pass_ms(50);
    // What goes to a link anyway in the second half of the tick takes the announcement along.
    world.say();
    let lines = ["to s2 s3: events s1 1..1, 0 hops", "to s3: have s2 1", "write s1 1"];
    assert_eq!(world.turn(), lines);
    assert_eq!(world.pass_ms(1000), NOTHING);
}

#[test]
fn whoever_hears_of_its_own_log_at_once_hears_of_the_others_at_their_tick() {
    let mut world = World::linked(&config(3));
    world.frame(3, events(3, 1, 1, 0));
    world.settle();
    assert_eq!(world.pass_ms(10), NOTHING);
    world.frame(2, events(2, 1, 1, 0));
    let told = ["to s3: events s2 1..1, 1 hops", "write s2 1", "to s2: have s2 1"];
    assert_eq!(world.settle(), told);
    let ticks = ["100 ms: to s2: have s3 1"];
    assert_eq!(world.pass_ms(90), ticks);
    assert_eq!(world.pass_ms(10), ["110 ms: to s3: have s2 1"]);
    assert_eq!(world.pass_ms(1000), NOTHING);
}

#[test]
fn one_announcement_tells_of_all_that_was_said_in_half_a_tick() {
    let mut world = World::linked(&config(3));
    let mut told = Vec::new();
    for seq in 1..=40 {
        world.frame(2, events(2, seq, seq, 0));
        told.extend(world.settle());
        world.pass_ms(5);
    }
    let to = |peer: &str| told.iter().filter(|line| line.starts_with(peer)).count();
    let haves = |line: &&String| line.starts_with("to s3: have");
    assert_eq!((to("to s2: have"), to("to s3: events")), (40, 40));
    assert_eq!(told.iter().filter(haves).count(), 3, "in 200 ms, with what goes anyway: {told:?}");
}

#[test]
fn events_before_their_predecessors_wait_for_them() {
    let mut world = World::linked(&config(3));
    world.frame(2, events(2, 3, 4, 0));
    world.frame(2, events(2, 6, 6, 0));
    assert_eq!(world.turn(), NOTHING);
    assert_eq!(world.broadcast.held().upto(log(2)), 0);
    world.frame(2, events(2, 1, 2, 0));
    let lines = ["to s3: events s2 1..4, 1 hops", "write s2 1, s2 2, s2 3, s2 4"];
    assert_eq!(world.turn(), lines, "up to the next hole");
    world.frame(2, events(2, 4, 5, 0));
    world.persist();
    let lines = ["to s3: events s2 5..6, 1 hops", "to s2: have s2 4", "write s2 5, s2 6"];
    assert_eq!(world.turn(), lines);
    assert_eq!(world.broadcast.held().upto(log(2)), 6);
    assert_eq!(world.pass_ms(15), NOTHING, "the hole is filled, nobody is asked");
}

#[test]
fn what_waits_is_bounded_by_number_and_by_bytes() {
    let of = |limits: Limits| {
        let mut world = World::linked(&crate::config::Config { limits, ..config(3) });
        world.frame(2, events(2, 2, 9, 0));
        world.frame(3, events(3, 2, 9, 0));
        world.frame(2, events(2, 1, 1, 0));
        world.frame(3, events(3, 1, 1, 0));
        let held = world.broadcast.held();
        (held.upto(log(2)), held.upto(log(3)))
    };
    assert_eq!(of(Limits::default()), (9, 9));
    assert_eq!(of(Limits { buffer_events: 5, ..Limits::default() }), (5, 5), "numbers 2 to 5");
    assert_eq!(of(Limits { buffer_bytes: 3 * COST, ..Limits::default() }), (4, 4));
    assert_eq!(of(Limits { buffer_bytes: 3 * COST - 1, ..Limits::default() }), (3, 3));
    assert_eq!(of(Limits { buffers_bytes: 10 * COST, ..Limits::default() }), (9, 3), "of all logs");
}

#[test]
fn an_event_that_came_early_twice_is_counted_once() {
    let limits = Limits { buffer_bytes: 3 * COST, ..Limits::default() };
    let mut world = World::linked(&crate::config::Config { limits, ..config(3) });
    for _ in 0..5 {
        world.frame(2, events(2, 2, 3, 0));
        world.turn();
    }
    world.frame(2, events(2, 4, 4, 0));
    world.frame(2, events(2, 1, 1, 0));
    assert_eq!(world.broadcast.held().upto(log(2)), 4);
}

#[test]
fn a_full_disk_queue_takes_nothing_more_and_asks_later() {
    let limits = Limits { unsaved_bytes: 2 * COST, ..Limits::default() };
    let mut world = World::linked(&crate::config::Config { limits, ..config(2) });
    world.say();
    assert_eq!((world.broadcast.is_full(), world.broadcast.unsaved_bytes()), (false, COST));
    world.say();
    assert_eq!((world.broadcast.is_full(), world.broadcast.unsaved_bytes()), (true, 2 * COST));
    world.turn();
    world.frame(2, events(2, 1, 1, 0));
    assert_eq!(world.broadcast.held().upto(log(2)), 0);
    world.persist();
    assert!(!world.broadcast.is_full(), "what is on the disk does not count");
    assert_eq!(world.pass_ms(99), NOTHING);
    let lines = ["100 ms: to s2: have s1 2", "100 ms: to s2: want s2 1..1, and push"];
    let mut said = world.pass_ms(1);
    said.sort();
    assert_eq!(said, lines);
}

#[test]
fn many_events_leave_in_frames_of_bounded_bytes() {
    let mut world = World::linked(&config(2));
    for _ in 0..crate::frame::EVENTS_BYTES_MAX / COST + 1 {
        world.say();
    }
    let lines = ["to s2: events s1 1..2621, 0 hops", "to s2: events s1 2622..2622, 0 hops"];
    assert_eq!(world.turn()[..2], lines);
}

#[test]
fn events_that_cannot_be_are_a_breach() {
    let frame = |base: u64, seqs: &[u64]| {
        let events = seqs.iter().map(|seq| event(2, *seq)).collect();
        Frame::Events(Events { log: log(2), base, hops: 0, events, chain: 0 })
    };
    let mut world = World::linked(&config(2));
    let mut refusal = |frame| world.refusal(2, frame).unwrap_or_default();
    let placeless = "events without a place in their log";
    assert_eq!(refusal(frame(0, &[0])), placeless);
    assert_eq!(refusal(frame(1, &[])), placeless);
    assert_eq!(refusal(frame(u64::MAX, &[u64::MAX])), placeless);
    let holed = "events with a hole in their numbers";
    assert_eq!(refusal(frame(1, &[1, 3])), holed);
    assert_eq!(refusal(frame(1, &[2, 3])), holed);
    let sized = |bytes| {
        let body = vec![0; bytes];
        let event = crate::event::Event { body, ..Arc::unwrap_or_clone(event(2, 1)) };
        let chain = event.chain(crate::event::CHAIN_START);
        Range { log: log(2), base: 1, events: vec![Arc::new(event)], chain, done: true }
    };
    let long = Frame::Range(sized(BODY_BYTES_MAX + 1));
    assert_eq!(refusal(long), "an event with a body over 17408 bytes");
    assert_eq!(refusal(Frame::Range(sized(BODY_BYTES_MAX))), "");
    assert_eq!(world.broadcast.held().upto(log(2)), 1);
}

#[test]
fn frames_of_a_link_that_is_down_change_nothing() {
    let mut world = World::linked(&config(3));
    world.broadcast.link_down(world.now, link(2));
    let before = world.broadcast.clone();
    world.frame(2, events(2, 1, 1, 0));
    world.frame(2, have(&[(2, 7)]));
    world.broadcast.wrote(link(2), Class::Live, 9);
    world.broadcast.set_health(link(2), true, 9);
    world.broadcast.link_down(world.now, link(2));
    assert_eq!(world.broadcast, before);
}

#[test]
fn a_log_of_which_two_contents_were_seen_is_neither_taken_nor_given() {
    let mut world = World::linked(&config(3));
    world.frame(3, events(2, 1, 3, 1));
    world.settle();
    let other = |seq: u64, chain: u64| {
        let (log, events) = (log(2), vec![event(9, seq)]);
        Frame::Events(Events { log, base: seq, hops: 0, events, chain })
    };
    let mut early = world.branch();
    // Another content under a number that is held: told by the chain at its end.
    world.frame(2, other(3, 5));
    let lines = ["log Error: FORK", "to s2: forked s2"];
    assert_eq!(world.turn(), lines, "the maker hears of it");
    world.frame(2, other(3, 5));
    world.frame(3, events(2, 4, 4, 1));
    world.frame(3, have(&[(2, 9)]));
    world.frame(3, want(2, 1, 3, crate::frame::Push::Unchanged));
    assert_eq!(world.pass_ms(4000), NOTHING);
    assert_eq!(world.broadcast.held().upto(log(2)), 3);
    assert_eq!(world.broadcast.lag(), 0);
    assert_eq!(world.broadcast.on_disk_of(&slot(3), log(2)), 0);
    assert!(!world.broadcast.runs_twice());

    // A new event whose chain does not follow.
    early.frame(2, other(4, 5));
    assert_eq!(early.turn(), lines);
    assert_eq!(early.broadcast.held().upto(log(2)), 3);
}

#[test]
fn what_waited_is_held_against_the_chain_it_came_with() {
    let mut world = World::linked(&config(2));
    let (log, events_) = (log(2), vec![event(2, 2)]);
    world.frame(2, Frame::Events(Events { log, base: 2, hops: 0, events: events_, chain: 5 }));
    world.frame(2, events(2, 1, 1, 0));
    assert_eq!(world.turn()[0], "log Error: FORK");
    assert_eq!(world.broadcast.held().upto(log), 1);
}

#[test]
fn events_of_this_run_that_it_never_made_show_a_clone() {
    let clone = |frame: Frame| {
        let mut world = World::linked(&config(2));
        world.frame(2, frame.clone());
        assert_eq!(world.turn(), ["log Error: FORK"]);
        world.frame(2, frame);
        assert_eq!(world.turn(), NOTHING, "told once");
        world.broadcast.runs_twice()
    };
    assert!(clone(events(1, 1, 1, 1)));
    assert!(clone(have(&[(1, 1)])));
    // Or somebody says so; of another's log that says nothing.
    let forked = |n| Frame::Forked(Logs { logs: vec![log(n)] });
    assert!(clone(forked(1)));
    let mut world = World::linked(&config(2));
    world.frame(2, forked(2));
    assert_eq!(world.turn(), NOTHING);
    assert!(!world.broadcast.runs_twice());
}

#[test]
fn the_maker_of_a_forked_log_is_told_when_it_comes_up() {
    let mut world = World::linked(&config(3));
    world.broadcast.link_down(world.now, link(2));
    world.frame(3, events(2, 1, 1, 1));
    world.frame(
        3,
        Frame::Have(match have(&[(2, 1)]) {
            Frame::Have(mut haves) => {
                haves.haves[0].chain += 1;
                haves
            }
            _ => unreachable!(),
        }),
    );
    assert_eq!(world.turn(), ["log Error: FORK", "write s2 1"]);
    world.link(2);
    assert_eq!(world.turn(), ["to s2: digest", "to s2: forked s2"]);
}

#[test]
fn the_death_of_a_server_is_answered_with_all_that_it_pushed() {
    let mut world = World::linked(&config(4));
    world.frame(2, events(2, 1, 1, 0));
    world.settle();
    world.pass_ms(200);
    world.broadcast.link_down(world.now, link(2));
    assert_eq!(world.turn(), ["to s3: have s2 1", "to s4: have s2 1"]);
    // Of a server that made nothing there is nothing to say.
    world.broadcast.link_down(world.now, link(3));
    assert_eq!(world.turn(), NOTHING);
}

#[test]
fn a_link_too_slow_for_what_is_pushed_is_told_so_and_pushed_nothing_more() {
    let limits = Limits { live_queue_bytes: 2 * COST, ..Limits::default() };
    let mut world = World::linked(&crate::config::Config { limits, ..config(3) });
    world.say();
    world.say();
    assert_eq!(world.turn()[0], "to s2 s3: events s1 1..2, 0 hops");
    world.broadcast.wrote(link(3), Class::CatchUp, COST);
    world.broadcast.wrote(link(2), Class::Live, COST);
    world.say();
    let lines = [
        "to s2 s3: events s1 3..3, 0 hops",
        "log Info: s3 takes less than is pushed to it",
        "drop the Live queue of s3",
        "to s3: lagging",
    ];
    assert_eq!(world.turn(), lines, "s2 wrote some of it");
    world.persist();
    world.broadcast.wrote(link(2), Class::Live, 5 * COST);
    world.say();
    assert_eq!(world.turn()[0], "to s2: events s1 4..4, 0 hops");
    assert_eq!(world.broadcast.counts().overflows, 1);
    // It asks to be pushed to again.
    world.frame(3, want(1, 4, 4, crate::frame::Push::Start));
    world.turn();
    world.say();
    assert_eq!(world.turn()[0], "to s2 s3: events s1 5..5, 0 hops");
}

#[test]
fn presence_takes_announcements_along() {
    let mut world = World::linked(&config(3));
    world.frame(2, events(2, 1, 1, 0));
    world.turn();
    world.persist();
    world.pass_ms(0);
    let update = PresenceUpdate { full: false, here: Vec::new(), gone: Vec::new() };
    let mut presence = || {
        world.broadcast.send_presence(vec![link(3)], Frame::Presence(update.clone()));
        let lines = world.turn();
        world.pass_ms(50);
        lines
    };
    assert_eq!(presence(), ["to s3: presence"], "more may come in this tick");
    assert_eq!(presence(), ["to s3: presence", "to s3: have s2 1"]);
    assert_eq!(presence(), ["to s3: presence"]);
}

#[test]
fn a_log_in_memory_is_as_long_as_its_bound() {
    let limits = Limits { tail_events: 3, ..Limits::default() };
    let mut world = World::linked(&crate::config::Config { limits, ..config(2) });
    for _ in 0..5 {
        world.say();
    }
    world.settle();
    world.frame(2, want(1, 3, 5, crate::frame::Push::Unchanged));
    assert_eq!(world.turn()[0], "to s2: range s1 3..5, done");
    world.frame(2, want(1, 2, 5, crate::frame::Push::Unchanged));
    assert_eq!(world.turn(), ["read s1 2..5, 262144 bytes"]);
}

#[test]
fn what_the_disk_held_at_the_start_is_held_and_announced() {
    let loaded = loaded(&[(1, 2), (2, 3)]);
    let mut world = World::new(&config(2), &loaded);
    assert_eq!(world.broadcast.next_seq(), 3);
    assert_eq!(world.broadcast.durable().upto(log(2)), 3);
    world.link(2);
    assert_eq!(world.turn(), ["to s2: digest"]);
    world.frame(2, digest(&[]));
    assert_eq!(world.settle(), ["to s2: vector s1 2, s2 3"]);
    world.frame(2, events(2, 4, 4, 0));
    assert_eq!(world.turn(), ["write s2 4"]);
}

#[test]
fn a_server_of_unknown_logs_knows_them_when_they_are_named() {
    let mut world = World::new(&config(3), &Loaded::default());
    assert!(world.broadcast.knows(log(1)) && !world.broadcast.knows(log(2)));
    world.link(2);
    assert!(world.broadcast.knows(log(2)), "its own, when it links");
    world.frame(2, have(&[(3, 1)]));
    assert!(world.broadcast.knows(log(3)));
}

#[test]
fn with_all_feeds_nobody_is_told_to_stop() {
    let mut world = World::linked(&crate::config::Config { feeds: Feeds::All, ..config(6) });
    for seq in 1..5 {
        for n in 2..=6 {
            world.frame(n, events(2, seq, seq, 1));
        }
        world.settle();
    }
    assert_eq!(world.broadcast.counts().prunes, 0);
}

#[test]
fn copies_of_what_is_held_are_no_fork_whoever_made_it() {
    let mut world = World::linked(&config(3));
    (0..3).for_each(|_| world.say());
    world.frame(2, events(2, 1, 3, 0));
    world.settle();
    world.frame(3, events(1, 2, 3, 1)); // this run's own, as far as it made them
    world.frame(3, events(1, 1, 2, 1));
    world.frame(3, events(2, 1, 2, 1));
    assert_eq!(world.turn(), NOTHING);
    assert!(!world.broadcast.runs_twice() && !world.broadcast.is_forked(log(2)));
    assert_eq!(world.broadcast.counts().duplicates, 6);
}

#[test]
fn what_waited_and_came_again_with_its_predecessors_is_dropped() {
    let mut world = World::linked(&config(3));
    world.frame(2, events(2, 3, 3, 0));
    world.frame(2, events(2, 1, 4, 0));
    assert_eq!(world.turn(), ["to s3: events s2 1..4, 1 hops", "write s2 1, s2 2, s2 3, s2 4"]);
    assert_eq!(world.broadcast.held().upto(log(2)), 4);
}

#[test]
fn a_forked_log_gives_up_what_waited_and_the_others_keep_it() {
    let mut world = World::linked(&config(3));
    world.frame(2, events(2, 1, 1, 0));
    world.frame(2, events(2, 5, 6, 0));
    world.frame(3, events(3, 2, 2, 0));
    world.turn();
    let Frame::Have(mut haves) = have(&[(2, 1)]) else { unreachable!() };
    haves.haves[0].chain ^= 1;
    world.frame(3, Frame::Have(haves));
    world.turn(); // the buffered bytes are counted
    world.frame(3, events(3, 1, 1, 0));
    assert_eq!(world.broadcast.held().upto(log(3)), 2);
}

#[test]
fn whoever_reads_of_a_fork_is_told_whose_machine_is_twofold() {
    let told = |frame: Frame| {
        let mut world = World::linked(&config(2));
        world.frame(2, events(2, 1, 1, 0));
        world.frame(2, frame);
        std::iter::from_fn(|| world.broadcast.poll_output()).find_map(|output| match output {
            crate::io::Output::Log(_, text) => Some(text),
            _ => None,
        })
    };
    let own = told(events(1, 1, 1, 1)).unwrap();
    assert!(own.contains("s2 has events of this run") && own.contains("Stop the clone"), "{own}");
    let Frame::Have(mut haves) = have(&[(2, 1)]) else { unreachable!() };
    haves.haves[0].chain ^= 1;
    let others = told(Frame::Have(haves)).unwrap();
    assert!(others.contains("differs from the copy of s2 at or before event 1"), "{others}");
}

#[test]
fn what_is_claimed_is_waited_for_or_here() {
    let mut world = World::linked(&config(3));
    world.frame(2, have(&[(2, 2)]));
    world.broadcast.assert_asks();
    world.frame(2, events(2, 1, 2, 0));
    world.settle();
    world.pass_ms(1000);
    world.broadcast.assert_asks();
}

#[test]
#[should_panic(expected = "a link has more, and nobody waits for it or asks")]
fn what_is_claimed_and_neither_waited_for_nor_here_breaks_a_rule() {
    let mut world = World::linked(&config(3));
    world.broadcast.link_has(link(3), log(2), 3);
    world.broadcast.assert_asks();
}

#[test]
#[should_panic(expected = "unsaved bytes are counted")]
fn bytes_that_are_not_counted_break_a_rule() {
    let mut world = World::linked(&config(2));
    world.broadcast.unsaved_bytes += 1;
    world.broadcast.assert_invariants();
}

#[test]
#[should_panic(expected = "no more feeds than configured")]
fn a_feed_too_many_breaks_a_rule() {
    let mut world = World::linked(&config(2));
    world.frame(2, events(2, 1, 1, 0));
    world.broadcast.logs[&log(2)].feeding.assert_invariants(0);
}

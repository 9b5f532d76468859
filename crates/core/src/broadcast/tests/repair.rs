//! What is missing, and asking for it: when, whom, and when again.

use std::sync::Arc;

use super::world::*;
use crate::config::{Config, Limits};
use crate::event::Event;
use crate::frame::{Frame, HAVES_MAX, Haves, Lagging, Push};
use crate::id::ServerId;
use crate::io::Output;

const NOTHING: [&str; 0] = [];

/// When something was said first, in milliseconds.
fn moments(lines: &[String], what: &str) -> Vec<u64> {
    let said = lines.iter().filter(|line| line.contains(what));
    said.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn what_is_announced_and_not_pushed_is_asked_for_after_a_while() {
    let mut world = World::linked(&config(4));
    world.frame(2, have(&[(2, 3)]));
    assert_eq!(world.pass_ms(49), NOTHING);
    // More of it later does not put the moment off; less of it takes nothing back.
    world.frame(3, have(&[(2, 4)]));
    world.frame(3, have(&[(2, 2)]));
    assert_eq!(world.broadcast.lag(), 4);
    assert_eq!((world.broadcast.behind(link(2)), world.broadcast.behind(link(3))), (3, 4));
    assert_eq!(world.broadcast.behind(link(9)), 0);
    assert_eq!(world.pass_ms(1), ["50 ms: to s2: want s2 1..3, and push"], "of its maker");
    world.frame(2, range(2, 1, 3, true));
    assert_eq!(world.turn(), ["to s4: events s2 1..3, 255 hops", "write s2 1, s2 2, s2 3"]);
    // What came is behind still, until it is on the disk.
    assert_eq!((world.broadcast.lag(), world.broadcast.missing()), (4, 1));
    assert_eq!((world.broadcast.behind(link(2)), world.broadcast.behind(link(3))), (3, 4));
    world.settle();
    assert_eq!((world.broadcast.lag(), world.broadcast.missing()), (1, 1));
    assert_eq!((world.broadcast.behind(link(2)), world.broadcast.behind(link(3))), (0, 1));
}

#[test]
fn what_comes_in_time_is_not_asked_for() {
    let mut world = World::linked(&config(2));
    world.frame(2, have(&[(2, 2)]));
    world.pass_ms(30);
    world.frame(2, events(2, 1, 2, 0));
    world.settle();
    world.pass_ms(5);
    assert_eq!(world.broadcast.lag(), 0);
    assert_eq!(moments(&world.pass_ms(1000), "want"), []);
    assert_eq!(world.broadcast.counts().wants, 0);
}

#[test]
fn what_is_announced_while_some_of_it_comes_has_a_time_of_its_own() {
    let mut world = World::linked(&config(2));
    world.frame(2, have(&[(2, 1)]));
    world.pass_ms(30);
    world.frame(2, have(&[(2, 5)]));
    world.frame(2, events(2, 1, 1, 0));
    world.settle();
    assert_eq!(moments(&world.pass_ms(49), "want"), [50], "the oldest is what counts");
    let mut world = World::linked(&config(2));
    world.frame(2, have(&[(2, 1)]));
    world.pass_ms(30);
    world.frame(2, events(2, 1, 1, 0));
    world.frame(2, have(&[(2, 5)]));
    world.frame(2, events(2, 2, 4, 0));
    world.settle();
    assert_eq!(moments(&world.pass_ms(49), "want"), []);
    assert_eq!(moments(&world.pass_ms(1), "want s2 5..5"), [80]);
}

#[test]
fn what_a_new_link_holds_is_asked_for_at_once() {
    let mut world = World::new(&config(2), &loaded(&[]));
    world.link(2);
    world.turn();
    world.frame(2, vector(&[(2, 2), (3, 1)]));
    let lines = ["0 ms: to s2: want s2 1..2, and push", "0 ms: to s2: want s3 1..1, and push"];
    assert_eq!(world.pass_ms(0), lines);
}

#[test]
fn a_hole_is_asked_of_whoever_showed_it() {
    let mut world = World::linked(&config(3));
    world.frame(3, events(2, 3, 3, 1));
    assert_eq!(world.pass_ms(19), NOTHING);
    world.frame(2, events(2, 4, 4, 1));
    assert_eq!(world.pass_ms(1), ["20 ms: to s3: want s2 1..3, and push"]);
    // And if that link is gone, at once of another.
    let mut world = World::linked(&config(3));
    world.frame(3, events(2, 3, 3, 1));
    world.frame(2, events(2, 3, 3, 1));
    world.broadcast.link_down(world.now, link(3));
    assert_eq!(world.turn(), ["to s2: want s2 1..3, and push"]);
}

#[test]
fn two_contents_under_one_number_before_their_turn_are_counted_once() {
    let mut world = World::linked(&config(3));
    let longer = |frame: Frame| {
        let Frame::Events(mut chunk) = frame else { panic!("events") };
        for event in &mut chunk.events {
            let mut other = Event::clone(event);
            other.body.extend([b'x'; 33]);
            *event = Arc::new(other);
        }
        Frame::Events(chunk)
    };
    for (from, frame) in
        [(3, events(2, 3, 3, 1)), (2, longer(events(2, 3, 3, 1))), (3, events(2, 3, 3, 1))]
    {
        world.frame(from, frame);
        world.broadcast.assert_invariants();
    }
    world.frame(2, events(2, 1, 2, 1));
    world.broadcast.assert_invariants();
    world.settle();
    assert_eq!(world.broadcast.durable().upto(log(2)), 3);
}

#[test]
fn a_request_without_an_answer_goes_to_another_link_and_back_for_ever() {
    let mut world = World::linked(&config(3));
    world.frame(2, have(&[(2, 1)]));
    world.frame(3, have(&[(2, 1)]));
    let said = world.pass_ms(30_000);
    let asked: Vec<&str> = said.iter().filter_map(|line| line.split(' ').nth(3)).collect();
    let wants: Vec<String> = said.iter().filter(|line| line.contains("want")).cloned().collect();
    assert!(asked.len() >= wants.len());
    let to: Vec<char> = wants
        .iter()
        .map(|line| line.chars().nth(line.find("to s").unwrap() + 4).unwrap())
        .collect();
    assert_eq!(to.iter().collect::<String>(), "23".repeat(to.len() / 2 + 1)[..to.len()]);
    // After 100 ms doubling to 2 s, each up to a quarter later by chance.
    let at = moments(&said, "want");
    assert_eq!(at[0], 50);
    for (nth, pair) in at.windows(2).enumerate() {
        let least = (100 << nth.min(10)).min(2000);
        let waited = pair[1] - pair[0];
        assert!((least..=least * 5 / 4 + 1).contains(&waited), "{waited} ms after the {nth}. want");
    }
    let waits: std::collections::BTreeSet<u64> =
        at.windows(2).skip(5).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.len() > 3, "not all at the same moment: {waits:?}");
    assert_eq!(world.broadcast.counts().wants, at.len() as u64);
}

#[test]
fn an_answer_has_the_time_of_its_way_before_another_link_is_asked() {
    let mut world = World::linked(&config(3));
    let rtt = 600;
    for n in [2, 3] {
        world.broadcast.set_health(link(n), false, rtt * 1000);
        world.frame(n, have(&[(2, 10)]));
    }
    let asked = moments(&world.pass_ms(3000), "want");
    let waits: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!((asked[0], waits.len()), (50, 3), "{asked:?}");
    for (waited, least) in waits.iter().zip([100, 200, 400]) {
        assert!((rtt + least..=rtt + least * 5 / 4 + 1).contains(waited), "{waits:?}");
    }
    // So have the pieces of one: a sender may wait for a round trip between two of them.
    let to = if asked.len().is_multiple_of(2) { 3 } else { 2 };
    world.frame(to, range(2, 1, 3, false));
    world.settle();
    assert_eq!(moments(&world.pass_ms(rtt + 399), "want"), []);
    assert_eq!(moments(&world.pass_ms(1), "want").len(), 1);
}

#[test]
fn a_round_trip_out_of_all_reason_puts_no_question_off_for_long() {
    let mut world = World::linked(&config(2));
    world.broadcast.set_health(link(2), false, u64::MAX);
    world.frame(2, have(&[(2, 1)]));
    let asked = moments(&world.pass_ms(2175), "want");
    assert!(asked.len() == 2 && asked[1] >= 2150, "{asked:?}");
}

#[test]
fn with_one_link_alone_that_one_is_asked_again() {
    let mut world = World::linked(&config(2));
    world.frame(2, have(&[(2, 1)]));
    assert!(moments(&world.pass_ms(1000), "to s2: want s2 1..1").len() >= 3);
}

#[test]
fn a_link_that_is_gone_is_asked_no_more_and_what_it_was_asked_goes_to_another() {
    let mut world = World::linked(&config(3));
    world.frame(2, have(&[(2, 1)]));
    world.frame(3, have(&[(2, 1)]));
    world.pass_ms(50);
    world.broadcast.link_down(world.now, link(2));
    assert_eq!(world.turn(), ["to s3: want s2 1..1, and push"]);
    world.broadcast.link_down(world.now, link(3));
    assert_eq!(world.pass_ms(10_000), NOTHING, "nobody alive claims it");
    assert_eq!(world.broadcast.lag(), 0);
    // Whoever comes and claims it is asked.
    world.link(3);
    world.turn();
    world.frame(3, vector(&[(2, 1)]));
    assert_eq!(moments(&world.pass_ms(0), "to s3: want s2 1..1, and push"), [10_050]);
}

#[test]
fn an_answer_in_pieces_is_waited_for_and_its_next_window_is_asked_for() {
    let mut world = World::linked(&config(3));
    world.frame(2, have(&[(2, 10)]));
    world.frame(3, have(&[(2, 10)]));
    assert_eq!(moments(&world.pass_ms(50), "to s2: want s2 1..10"), [50]);
    // Every piece is a reason to wait four times as long.
    world.pass_ms(90);
    world.frame(2, range(2, 1, 2, false));
    world.settle();
    assert_eq!(moments(&world.pass_ms(399), "want"), []);
    world.frame(2, range(2, 3, 4, true));
    let said = world.turn();
    assert!(said.contains(&"to s2: want s2 5..10, and push".to_string()), "{said:?}");
    world.frame(2, range(2, 5, 10, true));
    world.settle();
    assert_eq!(moments(&world.pass_ms(4000), "want"), [], "nothing is missing");
}

#[test]
fn whoever_cannot_give_what_it_claimed_is_followed_by_another() {
    let mut world = World::linked(&config(3));
    world.frame(2, have(&[(2, 2)]));
    world.frame(3, have(&[(2, 2)]));
    world.pass_ms(50);
    world.frame(2, range(2, 1, 0, true));
    assert_eq!(world.turn(), NOTHING, "not at once: it may be everybody's answer");
    let said = world.pass_ms(100);
    assert_eq!(said, ["150 ms: to s3: want s2 1..2, and push"]);
    // An answer of somebody who was not asked is events like any others.
    world.frame(2, range(2, 1, 0, true));
    assert_eq!(world.pass_ms(100), NOTHING);
}

#[test]
fn what_the_disk_has_no_room_for_is_asked_for_when_it_has() {
    let limits = Limits { unsaved_bytes: 2 * COST, ..Limits::default() };
    let mut world = World::linked(&Config { limits, ..config(2) });
    world.frame(2, have(&[(2, 4)]));
    world.pass_ms(50);
    world.frame(2, range(2, 1, 2, true));
    let said = world.turn();
    assert_eq!(said, ["write s2 1, s2 2"], "no next window into a full queue");
    world.persist();
    assert_eq!(moments(&world.pass_ms(100), "want s2 3..4"), [150]);
}

#[test]
fn whoever_is_far_behind_pulls_and_is_pushed_to_when_it_is_near() {
    let mut world = World::linked(&config(2));
    world.frame(2, Frame::Lagging(Lagging {}));
    world.frame(2, have(&[(2, 1001)]));
    assert_eq!(world.pass_ms(50), ["50 ms: to s2: want s2 1..1001"]);
    assert!(world.broadcast.is_pruned(link(2), log(2)));
    world.frame(2, range(2, 1, 1, true));
    let said = world.turn();
    assert!(said.contains(&"to s2: want s2 2..1001, and push".to_string()), "{said:?}");
    assert!(!world.broadcast.is_pruned(link(2), log(2)));
}

#[test]
fn more_prefixes_than_a_frame_may_have_are_a_breach() {
    let mut world = World::linked(&config(2));
    let many = |n: usize| match have(&[(2, 0)]) {
        Frame::Have(haves) => Frame::Have(Haves { haves: vec![haves.haves[0]; n] }),
        _ => unreachable!(),
    };
    assert_eq!(world.refusal(2, many(HAVES_MAX)), None);
    let refusal = world.refusal(2, many(HAVES_MAX + 1));
    assert_eq!(refusal.as_deref(), Some("more than 8192 prefixes in one frame"));
}

#[test]
fn an_announcement_of_another_content_is_a_fork() {
    let mut world = World::linked(&config(3));
    world.frame(2, events(2, 1, 3, 0));
    world.settle();
    for upto in 1..=3 {
        let mut world = world.branch();
        world.frame(3, have(&[(2, upto)]));
        assert!(!world.broadcast.is_forked(log(2)), "the same content up to {upto}");
        let Frame::Have(mut haves) = have(&[(2, upto)]) else { unreachable!() };
        haves.haves[0].chain ^= 1;
        world.frame(3, Frame::Have(haves));
        assert!(world.broadcast.is_forked(log(2)), "another content at {upto}");
    }
    // What is not in memory cannot be compared.
    let mut world = World::new(&config(3), &loaded(&[(2, 3)]));
    world.link(3);
    let Frame::Have(mut haves) = have(&[(2, 2)]) else { unreachable!() };
    haves.haves[0].chain ^= 1;
    world.frame(3, Frame::Have(haves));
    assert!(!world.broadcast.is_forked(log(2)));
}

#[test]
fn every_so_often_some_link_is_asked_whether_it_holds_the_same() {
    let mut world = World::linked(&config(4));
    let mut asked = std::collections::BTreeSet::new();
    for nth in 1..=40 {
        let said = world.pass_ms(5000);
        let [line] = &said[..] else { panic!("one digest in each period: {said:?}") };
        assert!(line.starts_with(&format!("{} ms: to s", nth * 5000)) && line.ends_with("digest"));
        asked.insert(line.clone().split_off(line.find("to").unwrap()));
    }
    assert_eq!(asked.len(), 3, "each of them, by and by");
    for n in 2..=4 {
        world.broadcast.link_down(world.now, link(n));
    }
    assert_eq!(world.broadcast.next_deadline(), None);
}

#[test]
fn an_equal_digest_says_as_much_as_the_whole_vector() {
    let mut world = World::new(&config(2), &loaded(&[(1, 1), (2, 4)]));
    world.link(2);
    assert_eq!(world.turn(), ["to s2: digest"]);
    assert_eq!(world.broadcast.links_told(), 0);
    assert_eq!(world.broadcast.on_disk_of(&slot(2), log(2)), 0);
    world.frame(2, digest(&[(1, 1), (2, 4)]));
    assert_eq!(world.turn(), ["to s2: digest"], "it hears so, once");
    assert!(world.broadcast.has_told(link(2)));
    assert_eq!(world.broadcast.on_disk_of(&slot(2), log(2)), 4);
    world.frame(2, digest(&[(1, 1), (2, 4)]));
    assert_eq!(world.turn(), NOTHING);
    world.frame(2, digest(&[(1, 1), (2, 5)]));
    assert_eq!(world.turn(), ["to s2: vector s1 1, s2 4"]);
}

#[test]
fn a_digest_that_answers_an_older_one_counts_for_what_was_asked_then() {
    let mut world = World::new(&config(2), &loaded(&[(2, 1)]));
    world.link(2);
    world.turn();
    world.frame(2, events(2, 2, 2, 0));
    world.settle();
    world.frame(2, digest(&[(2, 1)]));
    let said = world.turn();
    assert!(!said.iter().any(|line| line.contains("vector")), "{said:?}");
    assert_eq!(world.broadcast.on_disk_of(&slot(2), log(2)), 1);
    // It counts once.
    world.frame(2, digest(&[(2, 1)]));
    assert_eq!(world.turn(), ["to s2: vector s2 2"]);
}

#[test]
fn an_equal_digest_accuses_nobody_who_announced_more() {
    let mut world = World::new(&config(2), &loaded(&[(2, 1)]));
    world.link(2);
    world.turn();
    world.frame(2, have(&[(2, 2)]));
    let hash = match digest(&[(2, 1)]) {
        Frame::Digest(digest) => digest.hash,
        _ => unreachable!(),
    };
    world.frame(2, digest(&[(2, 1)]));
    world.broadcast.flush(world.now);
    let sent = std::iter::from_fn(|| world.broadcast.poll_output()).find_map(|output| {
        let crate::io::Output::Send { frame, .. } = output else { return None };
        match &*frame {
            Frame::Digest(digest) => Some(digest.hash),
            _ => None,
        }
    });
    assert!(sent.is_some_and(|sent| sent != hash), "another hash brings its whole vector");
    assert!(!world.broadcast.has_told(link(2)));
    assert_eq!(world.broadcast.on_disk_of(&slot(2), log(2)), 2);
}

#[test]
fn a_window_that_ends_at_what_is_there_needs_nothing_more() {
    let mut world = World::linked(&config(3));
    world.frame(2, have(&[(2, 2)]));
    world.pass_ms(50);
    world.frame(2, range(2, 1, 2, true));
    world.settle();
    world.frame(3, have(&[(2, 3)]));
    world.frame(3, want(2, 1, 2, Push::Unchanged));
    let said = world.pass_ms(100);
    assert_eq!(moments(&said, "to s3: want s2 3..3, and push"), [100]);
}

/// What two servers log when they link, the first holding three events of a run that is over, and the
/// other as many.
fn logged_by_both(chain_here: u64, chain_there: u64) -> [Vec<String>; 2] {
    let side = |me: u8, chain: u64| {
        let mut config = config(3);
        (config.me.slot, config.me.server) = (slot(me), ServerId::new(me.into()));
        config.me.origin = peer(me).origin;
        let mut loaded = loaded(&[(101, 3)]);
        loaded.logs[0].chain = chain;
        World::new(&config, &loaded)
    };
    let mut sides = [side(1, chain_here), side(2, chain_there)];
    sides[0].link(2);
    sides[1].link(1);
    let mut logged = [Vec::new(), Vec::new()];
    // A digest, a vector or a digest in answer, and nothing more.
    for _ in 0..4 {
        for at in 0..2 {
            let said: Vec<Output> =
                std::iter::from_fn(|| sides[at].broadcast.poll_output()).collect();
            for output in said {
                match output {
                    Output::Send { frame, .. } => {
                        sides[1 - at].frame(at as u8 + 1, Frame::clone(&frame));
                    }
                    Output::Log(_, line) => {
                        logged[at].push(line.split(':').next().unwrap().to_string());
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    for (side, other) in sides.iter().zip([2, 1]) {
        assert!(side.broadcast.has_told(link(other)));
        let counted = side.broadcast.on_disk_of(&slot(other), log(101));
        assert_eq!(counted, if chain_here == chain_there { 3 } else { 0 });
    }
    logged
}

#[test]
fn logs_of_one_length_and_two_contents_are_found_when_their_servers_link() {
    assert_eq!(logged_by_both(5, 5), [NOTHING; 2].map(Vec::from));
    assert_eq!(logged_by_both(5, 6), [["FORK"], ["FORK"]]);
}

#[test]
fn an_announcement_is_over_when_its_last_event_came_and_not_before() {
    // All of two but the last: the moment stays.
    let mut world = World::linked(&config(2));
    world.frame(2, have(&[(2, 2)]));
    world.pass_ms(30);
    world.frame(2, events(2, 1, 1, 0));
    world.settle();
    assert_eq!(moments(&world.pass_ms(1000), "want s2 2..2")[0], 50);
    // All of it: what is announced then has a time of its own.
    let mut world = World::linked(&config(2));
    world.frame(2, have(&[(2, 2)]));
    world.pass_ms(10);
    world.frame(2, events(2, 1, 2, 0));
    world.settle();
    world.pass_ms(10);
    world.frame(2, have(&[(2, 3)]));
    assert_eq!(moments(&world.pass_ms(1000), "want s2 3..3")[0], 70);
}

/// Event 3 finds the buffer full after so many frames, and 1 comes after it: 2 and 3 are asked for.
#[track_caller]
fn assert_asks_for_what_did_not_fit(before: &[Frame]) {
    let limits = Limits { buffer_events: 1, ..Limits::default() };
    let mut world = World::linked(&Config { limits, ..config(2) });
    before.iter().for_each(|frame| world.frame(2, frame.clone()));
    world.frame(2, events(2, 3, 3, 0));
    world.pass_ms(10);
    world.frame(2, events(2, 1, 1, 0));
    world.settle();
    world.broadcast.assert_asks();
    assert_eq!(moments(&world.pass_ms(1000), "want s2 2..3")[0], 60);
}

#[test]
fn what_did_not_fit_into_the_buffer_is_asked_for_when_what_comes_before_it_is_here() {
    assert_asks_for_what_did_not_fit(&[]);
    assert_asks_for_what_did_not_fit(&[have(&[(2, 1)])]);
}

#[test]
fn a_second_hole_behind_the_first_is_asked_for_in_its_time() {
    let mut world = World::linked(&config(2));
    world.frame(2, events(2, 3, 3, 0));
    world.frame(2, events(2, 6, 6, 0));
    world.pass_ms(10);
    world.frame(2, events(2, 1, 2, 0));
    world.settle();
    assert_eq!(moments(&world.pass_ms(1000), "want s2 4..6")[0], 20);
}

#[test]
fn an_answer_that_lacks_the_last_event_leaves_it_asked_for() {
    let mut world = World::linked(&config(2));
    world.frame(2, have(&[(2, 3)]));
    world.pass_ms(50);
    world.frame(2, range(2, 1, 2, false));
    world.settle();
    world.broadcast.assert_asks();
    assert_eq!(moments(&world.pass_ms(400), "want s2 3..3"), [450]);
}

#[test]
fn a_link_that_goes_with_a_request_and_a_hole_of_its_own_is_followed_by_another() {
    let mut world = World::linked(&config(3));
    world.frame(2, have(&[(2, 5)]));
    world.frame(3, have(&[(2, 5)]));
    assert_eq!(moments(&world.pass_ms(50), "to s2: want s2 1..5"), [50]);
    world.frame(2, events(2, 4, 4, 0));
    world.broadcast.link_down(world.now, link(2));
    assert_eq!(world.turn(), ["to s3: want s2 1..5, and push"]);
}

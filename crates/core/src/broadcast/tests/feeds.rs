//! Who pushes a log to this server, and who is told to stop.

use super::world::*;
use crate::config::{Config, Feeds, Mesh, Start};
use crate::frame::{Frame, Lagging, Push};

const NOTHING: [&str; 0] = [];

/// Every server pushes event `seq` of s2, with as many hops.
fn flood(world: &mut World, seq: u64, hops: &[(u8, u8)]) -> Vec<String> {
    for (n, hops) in hops {
        world.frame(*n, events(2, seq, seq, *hops));
    }
    let lines = world.settle();
    lines.into_iter().filter(|line| line.contains("prune") || line.contains("want")).collect()
}

#[test]
fn the_third_feed_is_told_to_stop_at_its_second_copy() {
    let mut world = World::linked(&config(4));
    let hops = [(2, 0), (3, 1), (4, 1)];
    assert_eq!(flood(&mut world, 1, &hops), NOTHING, "one copy too many may be chance");
    world.pass_ms(10);
    assert_eq!(flood(&mut world, 2, &hops), ["to s4: prune s2"]);
    assert_eq!(world.broadcast.counts().prunes, 1);
    assert!(world.broadcast.is_pruned(link(4), log(2)));
    assert!(!world.broadcast.is_pruned(link(3), log(2)));
    // Frames that were under way are no reason to say it again.
    for seq in 3..9 {
        assert_eq!(flood(&mut world, seq, &hops), NOTHING);
    }
}

#[test]
fn a_better_feed_displaces_the_worst() {
    let mut world = World::linked(&config(4));
    let hops = [(3, 1), (4, 2), (2, 0)];
    assert_eq!(flood(&mut world, 1, &hops), NOTHING);
    assert_eq!(flood(&mut world, 2, &hops), ["to s4: prune s2"], "of most hops");
    // A feed that comes by a longer way now is the worst.
    world.link(5);
    let hops = [(2, 0), (3, 3), (5, 1)];
    world.pass_ms(1000);
    assert_eq!(flood(&mut world, 3, &hops), NOTHING);
    assert_eq!(flood(&mut world, 4, &hops), ["to s3: prune s2"]);
}

#[test]
fn of_two_feeds_of_equal_hops_the_older_stays() {
    let mut world =
        World::linked(&Config { feeds: Feeds::Some(std::num::NonZeroU8::MIN), ..config(3) });
    flood(&mut world, 1, &[(3, 1)]);
    world.pass_ms(1);
    assert_eq!(flood(&mut world, 2, &[(3, 1), (2, 1)]), NOTHING);
    assert_eq!(flood(&mut world, 3, &[(3, 1), (2, 1)]), ["to s2: prune s2"]);
}

#[test]
fn copies_that_are_long_apart_are_no_sign_of_a_feed_too_many() {
    let mut world = World::linked(&config(4));
    for seq in 1..5 {
        assert_eq!(flood(&mut world, seq, &[(2, 0), (3, 1), (4, 1)]), NOTHING);
        world.pass_ms(10_001);
    }
    // At the end of the window they still are one.
    flood(&mut world, 6, &[(4, 1)]);
    let mut world = World::linked(&config(4));
    flood(&mut world, 1, &[(2, 0), (3, 1), (4, 1)]);
    world.pass_ms(10_000);
    assert_eq!(flood(&mut world, 2, &[(2, 0), (3, 1), (4, 1)]), ["to s4: prune s2"]);
}

#[test]
fn a_link_is_told_to_stop_once_a_second_at_most() {
    let mut world = World::linked(&config(4));
    let hops = [(2, 0), (3, 1), (4, 1)];
    flood(&mut world, 1, &hops);
    flood(&mut world, 2, &hops);
    // It pushes again because it was asked to; and is one too many again.
    let again = |world: &mut World, from: u64, ms: u64| {
        world.broadcast.set_health(link(3), true, 0);
        world.broadcast.check_feeds(world.now);
        world.broadcast.set_health(link(3), false, 0);
        let mut said = world.turn();
        world.pass_ms(ms);
        said.extend(flood(world, from, &hops));
        said.extend(flood(world, from + 1, &hops));
        said
    };
    assert_eq!(again(&mut world, 3, 999), ["to s4: want s2 3..2, and push"]);
    world.pass_ms(1);
    assert_eq!(flood(&mut world, 5, &hops), ["to s4: prune s2"]);
}

#[test]
fn whoever_told_us_to_stop_is_not_pushed_to_until_it_asks() {
    let mut world = World::linked(&config(3));
    world.frame(3, prune(1));
    world.say();
    assert_eq!(world.turn()[0], "to s2: events s1 1..1, 0 hops");
    assert!(!world.broadcast.pushes(link(3), log(1)) && world.broadcast.pushes(link(2), log(1)));
    // One direction and one log only.
    world.frame(2, events(2, 1, 1, 0));
    assert_eq!(world.turn()[0], "to s3: events s2 1..1, 1 hops");
    // To ask for what is there is not to ask for more.
    world.frame(3, want(1, 1, 1, Push::Unchanged));
    assert_eq!(world.turn(), ["to s3: range s1 1..1, done"]);
    assert!(!world.broadcast.pushes(link(3), log(1)));
    // To ask for nothing but to be pushed to: `to` is below `from`.
    world.frame(3, want(1, 2, 1, Push::Start));
    assert_eq!(world.turn(), NOTHING);
    assert!(world.broadcast.pushes(link(3), log(1)));
    world.say();
    world.say();
    assert_eq!(world.turn()[0], "to s2 s3: events s1 2..3, 0 hops");
}

/// s1 of four, which told s4 to stop.
fn pruned() -> World {
    let mut world = World::linked(&config(4));
    let hops = [(2, 0), (3, 1), (4, 1)];
    flood(&mut world, 1, &hops);
    flood(&mut world, 2, &hops);
    world.pass_ms(200);
    world
}

#[test]
fn a_lost_feed_is_replaced_though_nothing_is_missing() {
    let mut world = pruned();
    world.broadcast.link_down(world.now, link(3));
    assert_eq!(world.turn(), ["to s4: want s2 3..2, and push"]);
    assert_eq!(world.broadcast.counts().wants, 1);
    assert!(!world.broadcast.is_pruned(link(4), log(2)));
    // Two are left, both push.
    world.broadcast.check_feeds(world.now);
    assert_eq!(world.turn(), NOTHING);
}

#[test]
fn a_feed_that_fell_silent_is_replaced_once_a_second_at_most() {
    let mut world = pruned();
    world.broadcast.check_feeds(world.now);
    assert_eq!(world.turn(), NOTHING, "two push: enough");
    world.broadcast.set_health(link(4), true, 0);
    world.broadcast.set_health(link(3), true, 0);
    world.broadcast.check_feeds(world.now);
    assert_eq!(world.turn(), NOTHING, "nobody alive is left to ask");
    world.broadcast.set_health(link(4), false, 0);
    world.broadcast.check_feeds(world.now);
    assert_eq!(world.turn(), ["to s4: want s2 3..2, and push"]);
    // It is told to stop again, and so are those after it: each second one is asked.
    world.broadcast.set_health(link(3), false, 0);
    world.pass_ms(999);
    flood(&mut world, 3, &[(4, 1)]);
    flood(&mut world, 4, &[(4, 1)]);
    world.broadcast.set_health(link(3), true, 0);
    world.broadcast.check_feeds(world.now);
    assert_eq!(world.turn(), NOTHING);
}

#[test]
fn nobody_is_asked_to_push_what_this_server_makes_itself() {
    let mut world = World::linked(&config(4));
    world.say();
    world.settle();
    for n in 2..=4 {
        world.frame(n, Frame::Lagging(Lagging {}));
    }
    assert!(world.broadcast.is_pruned(link(2), log(1)));
    world.broadcast.check_feeds(world.now);
    let said = world.turn();
    assert_eq!(said.iter().filter(|line| line.contains("want s1")).count(), 0, "{said:?}");
}

#[test]
fn of_two_that_could_push_the_maker_is_asked_then_the_nearest() {
    let asked = |gone: u8, rtts: &[(u8, u64)]| {
        let mut world = World::linked(&config(6));
        for n in 2..=6 {
            world.frame(n, Frame::Lagging(Lagging {}));
        }
        for (n, rtt) in rtts {
            world.broadcast.set_health(link(*n), false, *rtt);
        }
        world.broadcast.link_down(world.now, link(gone));
        let said = world.turn();
        said.into_iter().find(|line| line.contains("want s2")).unwrap()
    };
    let rtts = [(2, 9000), (3, 300), (4, 100), (5, 200)];
    assert_eq!(asked(6, &rtts), "to s2: want s2 1..0, and push");
    assert_eq!(asked(2, &rtts), "to s6: want s2 1..0, and push", "not measured yet: zero");
    assert_eq!(asked(6, &rtts[1..]), "to s2: want s2 1..0, and push");
}

#[test]
fn whoever_dropped_its_queue_for_us_counts_as_told_to_stop() {
    let mut world = World::linked(&config(4));
    flood(&mut world, 1, &[(2, 0), (3, 1)]);
    world.frame(3, Frame::Lagging(Lagging {}));
    assert!(
        world.broadcast.is_pruned(link(3), log(2)) && world.broadcast.is_pruned(link(3), log(1))
    );
    // Another takes its place.
    assert_eq!(flood(&mut world, 2, &[(2, 0), (4, 1)]), NOTHING);
    assert_eq!(flood(&mut world, 3, &[(2, 0), (4, 1)]), NOTHING);
}

#[test]
fn a_log_that_begins_after_a_queue_was_dropped_is_asked_of_that_link_too() {
    let mut world = World::linked(&config(3));
    world.frame(2, Frame::Lagging(Lagging {}));
    // The first of this log was in that queue, for all we know.
    world.frame(3, events(101, 1, 1, 1));
    world.settle();
    assert!(world.broadcast.is_pruned(link(2), log(101)));
    world.broadcast.check_feeds(world.now);
    let said = world.turn();
    assert!(said.contains(&"to s2: want s101 2..1, and push".to_string()), "{said:?}");
    assert!(!world.broadcast.is_pruned(link(2), log(101)));
}

#[test]
fn a_link_that_comes_again_is_pushed_to_and_may_push() {
    let mut world = pruned();
    world.frame(4, prune(1));
    world.broadcast.link_down(world.now, link(4));
    world.link(4);
    assert!(world.broadcast.pushes(link(4), log(1)));
    assert!(!world.broadcast.is_pruned(link(4), log(2)));
}

/// A mesh that everybody knows begins without floods: who pushes what is planned.
#[test]
fn a_planned_mesh_pushes_each_log_once_for_each_feed() {
    for servers in 2..=6u8 {
        for feeds in 1..=3u8 {
            let planned = |me: u8| {
                let mut config = Config {
                    feeds: Feeds::Some(feeds.try_into().unwrap()),
                    mesh: Mesh { start: Start::Pruned, ..Mesh::default() },
                    ..config(servers)
                };
                let peer = peer(me);
                (config.me.slot, config.me.server) = (peer.slot, peer.server);
                config.me.origin = peer.origin;
                let mut world = World::new(&config, &crate::store::Loaded::default());
                (1..=servers).filter(|n| *n != me).for_each(|n| world.link(n));
                world
            };
            let worlds: Vec<World> = (1..=servers).map(planned).collect();
            for maker in 1..=servers {
                for to in (1..=servers).filter(|to| *to != maker) {
                    let pushes = |from: &u8| {
                        let world = &worlds[usize::from(*from) - 1];
                        world.broadcast.pushes(link(to), log(maker))
                    };
                    let others = (1..=servers).filter(|n| *n != to);
                    let pushing: Vec<u8> = others.filter(pushes).collect();
                    let what = format!("{pushing:?} push s{maker} to s{to} of {servers}");
                    assert!(pushing.contains(&maker), "{what}");
                    let most = usize::from(feeds.min(servers - 1));
                    assert_eq!(pushing.len(), most, "{what}, {feeds} feeds");
                    // Both ends of a link know it: the receiver expects those, and no others.
                    let world = &worlds[usize::from(to) - 1];
                    let declines = |n: u8| world.broadcast.declines(link(n), log(maker));
                    let expected: Vec<u8> =
                        (1..=servers).filter(|n| *n != to && !declines(*n)).collect();
                    assert_eq!(pushing, expected, "{what}, as s{to} sees it");
                }
            }
        }
    }
}

#[test]
fn a_server_outside_the_plan_is_pushed_everything() {
    let mesh = Mesh { start: Start::Pruned, ..Mesh::default() };
    let one = Feeds::Some(std::num::NonZeroU8::MIN);
    let mut world = World::new(&Config { feeds: one, mesh, ..config(3) }, &loaded(&[]));
    for n in [2, 3, 9] {
        world.link(n);
    }
    assert!(world.broadcast.pushes(link(9), log(2)) && !world.broadcast.pushes(link(3), log(2)));
    assert!(world.broadcast.pushes(link(9), log(1)) && world.broadcast.pushes(link(2), log(9)));
}

/// A log that was asked for before its maker's link came up goes on as it was asked for.
#[test]
fn the_plan_takes_nothing_from_those_who_asked() {
    let mesh = Mesh { start: Start::Pruned, ..Mesh::default() };
    let one = Feeds::Some(std::num::NonZeroU8::MIN);
    let mut world = World::new(&Config { feeds: one, mesh, ..config(3) }, &loaded(&[]));
    world.link(3);
    world.frame(3, have(&[(2, 1)]));
    world.frame(3, want(2, 1, 1, Push::Start));
    world.link(2);
    assert!(world.broadcast.pushes(link(3), log(2)));
    // And who was seen to push it is expected to.
    let mut world = World::new(&Config { feeds: one, mesh, ..config(3) }, &loaded(&[]));
    world.link(3);
    world.frame(3, events(2, 1, 1, 1));
    world.link(2);
    assert!(!world.broadcast.declines(link(3), log(2)));
}

#[test]
fn a_link_that_is_gone_leaves_its_place_among_the_feeds_and_no_other() {
    let mut world = World::linked(&config(5));
    flood(&mut world, 1, &[(2, 0), (3, 1)]);
    world.broadcast.link_down(world.now, link(3));
    world.turn();
    for seq in 2..6 {
        assert_eq!(flood(&mut world, seq, &[(2, 0), (4, 1)]), NOTHING, "two feeds again");
    }
    for seq in 6..7 {
        assert_eq!(flood(&mut world, seq, &[(2, 0), (4, 1), (5, 1)]), NOTHING);
    }
    assert_eq!(flood(&mut world, 7, &[(2, 0), (4, 1), (5, 1)]), ["to s5: prune s2"]);
}

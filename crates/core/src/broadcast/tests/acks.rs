//! Whose disks count, for how much.

use super::world::*;
use crate::config::Config;
use crate::frame::Frame;
use crate::id::{EventId, ServerId};
use crate::io::{Peer, Standing};
use crate::store::{Loaded, SlotHolder};
use crate::vector::Vector;

/// How much of what is here is not on that server's disk.
fn missing_on(world: &World, n: u8) -> u64 {
    world.broadcast.missing_on(&slot(n), &world.broadcast.held())
}

fn not_replicated(world: &World) -> u64 {
    world.broadcast.not_replicated(&world.broadcast.held())
}

/// s1 of `servers` with two own events on its disk.
fn written(servers: u8) -> World {
    let mut world = World::linked(&config(servers));
    world.say();
    world.say();
    world.settle();
    world
}

fn replicas(world: &World, seq: u64) -> usize {
    world.broadcast.replicas(EventId { log: log(1), seq })
}

#[test]
fn an_event_is_replicated_when_a_majority_of_disks_has_it() {
    let mut world = written(5);
    let upto = |world: &World| world.broadcast.replicated_upto(log(1));
    assert_eq!((replicas(&world, 1), upto(&world)), (1, 0));
    world.frame(2, have(&[(1, 2)]));
    assert_eq!((replicas(&world, 1), upto(&world)), (2, 0));
    world.frame(3, have(&[(1, 1)]));
    assert_eq!((replicas(&world, 1), replicas(&world, 2), upto(&world)), (3, 2, 1));
    world.frame(4, have(&[(1, 2)]));
    assert_eq!((replicas(&world, 1), replicas(&world, 2), upto(&world)), (4, 3, 2));
    // An older word takes nothing back.
    world.frame(4, have(&[(1, 1)]));
    assert_eq!(upto(&world), 2);
    assert_eq!(replicas(&world, 3), 0);
}

#[test]
fn what_is_pushed_and_not_on_a_disk_does_not_count() {
    let mut world = World::linked(&config(3));
    world.frame(2, events(2, 1, 1, 0));
    world.turn();
    let event = EventId { log: log(2), seq: 1 };
    assert_eq!(world.broadcast.replicas(event), 0, "neither here nor there");
    world.persist();
    assert_eq!(world.broadcast.replicas(event), 1);
}

#[test]
fn seven_servers_vote_and_the_others_only_hold() {
    let mut world = written(9);
    for n in [8, 9, 2, 3] {
        world.frame(n, have(&[(1, 2)]));
    }
    assert_eq!((replicas(&world, 2), world.broadcast.replicated_upto(log(1))), (3, 0));
    world.frame(4, have(&[(1, 2)]));
    assert_eq!((replicas(&world, 2), world.broadcast.replicated_upto(log(1))), (4, 2));
}

#[test]
fn what_is_not_known_to_be_everywhere_is_carried_in_tokens() {
    let mut world = written(3);
    let slots = [slot(1), slot(2), slot(3)];
    let all: Vector = [(log(1), 2)].into_iter().collect();
    assert_eq!(world.broadcast.not_everywhere(&slots), all);
    world.frame(2, have(&[(1, 2)]));
    world.frame(3, have(&[(1, 1)]));
    assert_eq!(world.broadcast.not_everywhere(&slots), all);
    assert_eq!(world.broadcast.not_everywhere(&slots[..2]), Vector::new());
    world.frame(3, have(&[(1, 2)]));
    assert_eq!(world.broadcast.not_everywhere(&slots), Vector::new());
    assert_eq!(missing_on(&world, 3), 0);
}

#[test]
fn a_drain_asks_what_of_all_that_is_here_a_disk_lacks() {
    let mut world = World::new(&config(3), &loaded(&[(101, 3)]));
    world.link(2);
    world.frame(2, vector(&[]));
    world.frame(2, events(2, 1, 4, 0));
    assert_eq!(missing_on(&world, 2), 7, "of an earlier run, and of another server");
    assert_eq!(not_replicated(&world), 7);
    world.settle();
    world.frame(2, have(&[(2, 4), (101, 1)]));
    assert_eq!(missing_on(&world, 2), 2);
    assert_eq!(not_replicated(&world), 2, "two of three disks have the others");

    let Frame::Have(mut haves) = have(&[(101, 3)]) else { unreachable!() };
    haves.haves[0].chain ^= 1;
    world.frame(2, Frame::Have(haves));
    assert_eq!(missing_on(&world, 2), 3, "it holds something else");
}

#[test]
fn a_drain_asks_of_a_disk_that_was_put_back_for_this_run_alone() {
    let mut world = World::new(&config(3), &loaded(&[(101, 3)]));
    let put_back = Peer { standing: Standing::RolledBack, ..peer(2) };
    world.broadcast.link_up(put_back, link(2));
    world.frame(2, vector(&[(101, 3)]));
    world.say();
    assert_eq!(missing_on(&world, 2), 1);
    world.settle();
    world.frame(2, have(&[(1, 1)]));
    assert_eq!(missing_on(&world, 2), 0);
    assert_eq!(not_replicated(&world), 4, "it counts for nothing");
}

#[test]
fn a_drain_asks_what_of_this_run_a_disk_lacks() {
    let mut world = written(2);
    assert_eq!(missing_on(&world, 2), 2);
    world.frame(2, have(&[(1, 1)]));
    assert_eq!(missing_on(&world, 2), 1);
    world.say();
    assert_eq!(missing_on(&world, 2), 2, "also what is not written yet");
    assert_eq!(missing_on(&world, 9), 3, "nobody is there");
}

#[test]
fn what_live_links_claim_is_what_can_be_had() {
    let mut world = written(3);
    world.frame(2, have(&[(2, 4), (3, 1)]));
    world.frame(3, have(&[(2, 5)]));
    let claimed: Vector = [(log(2), 5), (log(3), 1)].into_iter().collect();
    assert_eq!(world.broadcast.claimed(), claimed);
    assert_eq!((world.broadcast.claims(log(2)), world.broadcast.claims(log(1))), (5, 0));
    world.broadcast.link_down(world.now, link(3));
    assert_eq!(world.broadcast.claims(log(2)), 4);
    world.frame(2, events(2, 1, 1, 0));
    world.frame(2, events(2, 1, 1, 0));
    let crate::frame::Frame::Have(mut haves) = have(&[(2, 1)]) else { unreachable!() };
    haves.haves[0].chain += 1;
    world.frame(2, crate::frame::Frame::Have(haves));
    assert_eq!(world.broadcast.claims(log(2)), 0, "two contents under one name");
    assert_eq!(world.broadcast.claimed(), [(log(3), 1)].into_iter().collect());
}

#[test]
fn a_slot_has_one_holder_and_the_newest_certificate_wins() {
    let mut world = World::linked(&config(2));
    let of =
        |generation, server: u128| Peer { generation, server: ServerId::new(server), ..peer(2) };
    world.broadcast.link_up(of(3, 2), link(2));
    assert_eq!(world.broadcast.admits(&of(3, 2)), Ok(()));
    assert_eq!(world.broadcast.admits(&of(2, 2)), Err(3), "an older certificate");
    assert_eq!(world.broadcast.admits(&of(3, 9)), Err(3), "another disk with an equal one");
    assert_eq!(world.broadcast.admits(&of(4, 9)), Ok(()));
    assert_eq!(world.broadcast.admits(&peer(7)), Ok(()), "nobody held it before");
}

#[test]
fn what_was_counted_for_a_disk_is_forgotten_when_its_slot_gets_another() {
    let mut world = written(2);
    world.frame(2, have(&[(1, 2)]));
    assert_eq!(world.broadcast.replicated_upto(log(1)), 2);
    assert_eq!(world.broadcast.server(), ServerId::new(1));
    let new = Peer { generation: 1, server: ServerId::new(22), ..peer(2) };
    world.broadcast.link_down(world.now, link(2));
    world.broadcast.link_up(new, link(3));
    assert_eq!(world.broadcast.replicated_upto(log(1)), 0);
    let said = world.turn();
    assert!(said.iter().any(|line| line.starts_with("log Warn: s2 has a new disk")), "{said:?}");
    let holders: Vec<&SlotHolder> = world.broadcast.holders().collect();
    let holder = |n, server, generation| SlotHolder {
        slot: slot(n),
        server: ServerId::new(server),
        generation,
    };
    assert_eq!(holders, [&holder(1, 1, 0), &holder(2, 22, 1)]);
    // The holder is written, and the word of the old disk is not.
    let (_, batch) = world.broadcast.saving().unwrap();
    assert_eq!(batch.slots, [holder(2, 22, 1)]);
    assert_eq!(batch.disks, []);
}

#[test]
fn a_holder_that_comes_again_is_no_news() {
    let mut world = World::linked(&config(2));
    world.broadcast.link_down(world.now, link(2));
    world.link(2);
    assert_eq!(world.turn(), ["to s2: digest"]);
    assert_eq!(world.broadcast.saving(), None, "nothing to write");
    let renewed = Peer { generation: 1, ..peer(2) };
    world.broadcast.link_up(renewed, link(2));
    assert_eq!(world.turn(), ["to s2: digest"], "the same disk: nothing is forgotten");
    assert_eq!(world.broadcast.saving().map(|(_, batch)| batch.slots.len()), Some(1));
}

#[test]
fn what_other_disks_hold_is_written_with_the_next_events_and_counts_after_a_start() {
    let mut world = written(2);
    world.frame(2, have(&[(1, 1)]));
    world.frame(2, have(&[(1, 2)]));
    world.turn();
    assert_eq!(world.broadcast.saving(), None, "alone it can wait");
    world.say();
    world.turn();
    let server = ServerId::new(2);
    let (_, batch) = world.broadcast.saving().unwrap();
    assert_eq!(batch.disks, [(server, log(1), 1), (server, log(1), 2)]);

    let disks = vec![(server, log(1), 2)];
    let slots = vec![SlotHolder { slot: slot(2), server, generation: 0 }];
    let world = World::new(&config(3), &Loaded { disks, slots, ..loaded(&[(1, 2)]) });
    assert_eq!(world.broadcast.replicated_upto(log(1)), 2);
}

#[test]
fn what_waits_to_be_written_of_other_disks_is_bounded() {
    let mut world = World::linked(&config(2));
    for upto in 1..=4097 {
        world.broadcast.set_disk(ServerId::new(2), log(9), upto);
    }
    world.say();
    world.turn();
    let (_, batch) = world.broadcast.saving().unwrap();
    assert_eq!(batch.disks, [(ServerId::new(2), log(9), 4097)], "the newest of each");
    let mut world = World::linked(&config(2));
    for upto in 1..=4096 {
        world.broadcast.set_disk(ServerId::new(2), log(9), upto);
        world.broadcast.set_disk(ServerId::new(2), log(9), upto);
    }
    world.say();
    world.turn();
    assert_eq!(world.broadcast.saving().map(|(_, batch)| batch.disks.len()), Some(4096));
}

#[test]
fn a_disk_that_was_rolled_back_counts_for_nothing() {
    let rolled_back = Loaded { standing: Standing::RolledBack, ..loaded(&[(1, 2)]) };
    let world = World::new(&config(1), &rolled_back);
    assert_eq!(world.broadcast.on_disk_of(&slot(1), log(1)), 0);
    assert_eq!(world.broadcast.replicated_upto(log(1)), 0);
    assert_eq!(world.broadcast.standing(), Standing::RolledBack);
}

#[test]
fn a_sweep_is_written_though_nothing_else_is() {
    let mut world = World::linked(&Config { ..config(1) });
    let floors = crate::store::Floors::new([(crate::id::RoomId::new(7), 5)].into());
    world.broadcast.sweep(floors.clone(), None);
    world.turn();
    let (_, batch) = world.broadcast.saving().map(|(t, b)| (t, b.clone())).unwrap();
    assert_eq!((batch.sweep, &batch.floors), (Some(None), &floors));
    world.persist();
    world.say();
    world.turn();
    let (_, batch) = world.broadcast.saving().unwrap();
    assert_eq!((batch.sweep, &batch.floors), (None, &floors), "floors stay, a sweep is one");
}

#[test]
fn an_announcement_is_not_put_off_by_the_next_one() {
    let mut world = World::linked(&config(3));
    world.frame(2, events(2, 1, 1, 0));
    world.settle();
    world.pass_ms(60);
    world.frame(2, have(&[(2, 1)]));
    world.frame(2, events(2, 2, 2, 0));
    world.turn();
    world.persist();
    let said = world.pass_ms(1000);
    let lines = ["60 ms: to s2: have s2 2", "160 ms: to s3: have s2 2"];
    assert_eq!(said, lines, "the push took the older one along");
    let mut world = World::linked(&config(4));
    for (at, n) in [(0, 2), (60, 3)] {
        world.now.time = crate::time::Time::from_micros(at * 1000);
        world.frame(4, have(&[(n, 1)]));
        world.frame(n, events(n, 1, 1, 0));
        world.turn();
        world.persist();
    }
    let said = world.pass_ms(1000);
    let lines = [
        "60 ms: to s3: have s2 1, s3 1",
        "100 ms: to s4: have s2 1, s3 1",
        "160 ms: to s2: have s3 1",
    ];
    assert_eq!(said, lines);
}

#[test]
fn register_writes_that_lost_are_erased_by_what_is_replicated_now() {
    let mut world = written(3);
    world.frame(2, have(&[(1, 1)]));
    let after = Some(crate::time::Key::MAX);
    world.broadcast.tidy(after);
    world.turn();
    let (_, batch) = world.broadcast.saving().unwrap();
    let tidy = batch.tidy.as_ref().unwrap();
    let replicated = |n| tidy.replicated.upto(log(n));
    assert_eq!((tidy.after, replicated(1), replicated(2)), (after, 1, 0));
}

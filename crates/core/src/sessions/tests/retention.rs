//! What rooms do not keep: when floors are set, by whom, and when what is below them is erased.

use super::world::*;
use crate::config::Limits;
use crate::event::{Body, Event, Retention};
use crate::id::{LinkId, Mid, Origin, RoomId, SessionId};
use crate::io::Input;
use crate::register::{Register, RegisterKey};
use crate::session::{Code, Keep, Level, Mode, Open, Request, Send};
use crate::store::{Loaded, Sum};
use crate::time::{Hlc, Key};

const HOUR_MS: u64 = 3_600_000;
const HOUR: i64 = HOUR_MS.cast_signed();

fn keep(world: &mut World, id: SessionId, age_ms: u64, messages: u64) {
    let keep = Retention { age_ms, messages };
    let request = world.request();
    world.ask(id, Request::Keep(Keep { request, room: "lobby".into(), keep }));
    world.take(id);
}

/// Floors that were set, in milliseconds since the beginning.
fn floors(world: &World) -> Vec<i64> {
    let ms = |event: &std::sync::Arc<Event>| match event.body() {
        Some(Body::Floor(floor)) => Some(floor.ms.cast_signed() - WALL_MS.cast_signed()),
        _ => None,
    };
    world.written.iter().filter_map(ms).collect()
}

fn messages(world: &World) -> u64 {
    let sum = world.disk.as_ref().unwrap().sums.get(&RoomId::public("lobby"));
    sum.map_or(0, |sum| sum.messages)
}

/// Ann in the lobby, which she founded.
fn lobby(servers: usize) -> (World, SessionId) {
    let mut world = with_disk(Limits::default(), servers);
    (2..=u8::try_from(servers).unwrap()).for_each(|n| world.link(n));
    let (ann, _) = world.guest("ann");
    world.open(ann, "lobby", Mode::Join);
    (world, ann)
}

#[test]
fn messages_older_than_their_room_keeps_are_hidden_and_then_erased() {
    let (mut world, ann) = lobby(1);
    keep(&mut world, ann, 2 * HOUR_MS, 0);
    world.say(ann, room("lobby"), 1, "old");
    world.pass_ms(HOUR_MS);
    assert_eq!(floors(&world), [-HOUR], "checked once an hour");
    world.pass_ms(1);
    world.say(ann, room("lobby"), 2, "newer");
    world.pass_ms(HOUR_MS - 2);
    assert_eq!(floors(&world), [-HOUR]);
    world.pass_ms(1);
    assert_eq!(floors(&world), [-HOUR, 0]);
    world.take(ann);
    let request = world.request();
    let open = Open { request, room: "lobby".into(), last: 10, mode: Mode::Watch };
    world.ask(ann, Request::Open(open));
    assert_eq!(world.heard(ann), [format!("#{} open lobby: ann: newer", request.0)], "at once");
    world.pass_ms(999);
    assert_eq!(messages(&world), 2, "and erased a little later");
    world.pass_ms(1);
    assert_eq!(messages(&world), 1);
    world.pass_ms(HOUR_MS + 1000);
    assert_eq!((floors(&world), messages(&world)), (vec![-HOUR, 0, HOUR], 1), "by a millisecond");
    world.pass_ms(HOUR_MS);
    assert_eq!(messages(&world), 0);
}

#[test]
fn a_message_repeated_below_the_floor_of_its_room_is_refused_and_nothing_is_written() {
    let (mut world, ann) = lobby(1);
    keep(&mut world, ann, 2 * HOUR_MS, 0);
    world.say(ann, room("lobby"), 1, "old");
    world.pass_ms(2 * HOUR_MS);
    assert_eq!(floors(&world), [-HOUR, 0]);
    world.take(ann);
    let written = world.written.len();
    let repeat = |world: &mut World, id, mid, text: &str| {
        let request = world.request();
        let (to, text) = (room("lobby"), text.into());
        world.ask(id, Request::Send(Send { request, to, mid, text, level: Level::Stored }));
        (request, world.take(id))
    };
    // Erased or not yet, known in memory or forgotten, by its writer or at a new session of his.
    let (request, told) = repeat(&mut world, ann, Mid::at(WALL_MS, 1), "old");
    assert_eq!(refused(&told), [(request, Code::Expired)]);
    world.pass_ms(2000);
    assert_eq!(messages(&world), 0, "it is erased");
    for mid in [Mid::at(WALL_MS, 1), Mid::at(WALL_MS, 2), Mid::at(WALL_MS - 1, 3)] {
        let (request, told) = repeat(&mut world, ann, mid, "old");
        assert_eq!(refused(&told), [(request, Code::Expired)], "{mid}");
    }
    assert_eq!((world.written.len(), messages(&world)), (written, 0));
    // A millisecond above the floor is above it.
    let (_, told) = repeat(&mut world, ann, Mid::at(WALL_MS + 1, 4), "newer");
    assert_eq!((refused(&told), messages(&world)), (vec![], 1));
}

#[test]
fn a_room_that_keeps_a_number_lets_a_sixteenth_more_gather() {
    let gone = |said: u64| {
        let (mut world, ann) = lobby(1);
        keep(&mut world, ann, 0, 32);
        for n in 1..=said {
            world.pass_ms(10);
            world.say(ann, room("lobby"), n.into(), "x");
        }
        world.pass_ms(HOUR_MS + 2000);
        messages(&world)
    };
    assert_eq!(gone(32), 32);
    assert_eq!(gone(34), 34);
    assert_eq!(gone(35), 32, "the newest");
    assert_eq!(gone(50), 32);
}

#[test]
fn a_room_that_keeps_everything_has_no_floor() {
    let (mut world, ann) = lobby(1);
    for n in 1..50 {
        world.pass_ms(10);
        world.say(ann, room("lobby"), n, "x");
    }
    world.pass_ms(5 * HOUR_MS);
    assert_eq!((floors(&world), messages(&world)), (vec![], 49));
    // Nor is anything read or set for rooms after one of these.
    keep(&mut world, ann, 0, 10);
    world.pass_ms(HOUR_MS + 2000);
    assert_eq!((floors(&world).len(), messages(&world)), (1, 10));
    world.pass_ms(HOUR_MS);
    assert_eq!(floors(&world).len(), 1, "ten are left");
}

#[test]
fn a_floor_moves_when_a_good_part_of_the_age_has_passed() {
    let (mut world, ann) = lobby(1);
    keep(&mut world, ann, 64 * 2 * HOUR_MS, 0);
    world.say(ann, room("lobby"), 1, "x");
    world.give(Input::SessionDown(ann));
    world.pass_ms((64 * 2 + 8) * HOUR_MS);
    // Above the first by more than two hours, each time: every third hour.
    let hours: Vec<i64> = floors(&world).iter().map(|ms| ms / HOUR).collect();
    assert!(hours.len() > 40 && hours.windows(2).all(|two| two[1] - two[0] == 3), "{hours:?}");
}

#[test]
fn nothing_that_is_being_said_now_is_below_a_floor() {
    let (mut world, ann) = lobby(1);
    keep(&mut world, ann, 1, 0);
    world.say(ann, room("lobby"), 1, "x");
    world.pass_ms(HOUR_MS);
    assert_eq!(floors(&world), [HOUR - 2000], "as far back as clocks may differ");
}

#[test]
fn what_is_below_a_floor_is_erased_when_the_floor_is_on_a_majority_of_disks() {
    let (mut world, ann) = lobby(3);
    world.say(ann, room("lobby"), 1, "x");
    // The lobby's floor is another server's to set: this one hears of it as of its own.
    let nobody = (RoomId::public("lobby"), crate::id::AccountId::new(0), crate::id::Mid::new(0));
    let floor = Body::Floor(crate::event::Floor { ms: WALL_MS + 10_000 });
    world.replica.append(world.now, Hlc::default(), nobody, &floor).unwrap();
    world.turn();
    world.pass_ms(1500);
    assert_eq!(messages(&world), 1, "here alone");
    world.has(2, 1);
    world.pass_ms(1500);
    assert_eq!(messages(&world), 1, "not the floor itself");
    world.has(2, 0);
    world.pass_ms(1000);
    assert_eq!(messages(&world), 0);
    let next = world.replica.next_deadline();
    assert!(next.is_some());
}

/// Forty rooms that keep so much, with so many messages each.
fn rooms_that_keep(age_ms: u64, messages: u64, held: u64) -> Loaded {
    let rooms = (1..=40).map(RoomId::new);
    let key = Key { hlc: Hlc::default(), origin: Origin::new(1), seq: 1 };
    let keep = Retention { age_ms, messages };
    Loaded {
        registers: rooms
            .clone()
            .map(|room| (RegisterKey::Keep(room), Register::Keep { key, keep }))
            .collect(),
        sums: rooms.map(|room| (room, Sum { messages: held, digest: 1 })).collect(),
        ..Loaded::default()
    }
}

/// Forty rooms that keep a second, as server `me` of three with links to some others.
fn sets(me: u8, links: &[u8], change: fn(&mut World)) -> Vec<RoomId> {
    let loaded = rooms_that_keep(1000, 0, 1);
    let mut world = world_as(me, Limits::default(), 3, &loaded);
    for n in links {
        world.link(*n);
    }
    change(&mut world);
    world.now.time = crate::time::Time::from_micros((HOUR_MS + 1000) * 1000);
    world.now.wall_ms += HOUR_MS;
    world.replica.handle_timeout(world.now);
    world.turn();
    world.written.iter().filter(|event| event.kind == 13).map(|event| event.room).collect()
}

#[test]
fn the_floor_of_a_room_is_set_by_one_of_the_servers_that_are_linked() {
    let all: Vec<RoomId> = (1..=40).map(RoomId::new).collect();
    let joined = |sets: &[Vec<RoomId>]| {
        assert!(sets.iter().all(|rooms| rooms.len() >= 5), "each has a share: {sets:?}");
        let mut rooms: Vec<RoomId> = sets.iter().flatten().copied().collect();
        rooms.sort();
        rooms
    };
    let nothing = |_: &mut World| {};
    assert_eq!(
        joined(&[sets(1, &[2, 3], nothing), sets(2, &[1, 3], nothing), sets(3, &[1, 2], nothing)]),
        all
    );
    assert_eq!(joined(&[sets(1, &[2], nothing), sets(2, &[1], nothing)]), all);
    assert_eq!(sets(1, &[], nothing), [], "no majority");
}

#[test]
fn a_server_that_takes_no_writes_sets_no_floor() {
    let fenced = |world: &mut World| {
        for n in [2, 3] {
            let ping = crate::frame::Ping { sent_micros: 0, clock_ms: WALL_MS + 9_000_000 };
            world.give(Input::Frame(LinkId(n), crate::frame::Frame::Ping(ping)));
        }
        assert!(world.replica.clock.is_fenced());
    };
    assert_eq!(sets(1, &[2, 3], fenced), []);
    let refusing = |world: &mut World| {
        world.give(Input::PersistFailed(crate::id::PersistToken(1), "full".into()));
    };
    assert_eq!(sets(1, &[2, 3], refusing), []);
    let cloned = |world: &mut World| {
        let logs =
            crate::frame::Logs { logs: vec![crate::id::Log::of(world.replica.config.me.origin)] };
        world.give(Input::Frame(LinkId(2), crate::frame::Frame::Forked(logs)));
    };
    assert_eq!(sets(1, &[2, 3], cloned), []);
}

#[test]
fn a_server_that_takes_no_writes_any_more_when_its_disk_answers_sets_no_floor() {
    let set = |meanwhile: fn(&mut World)| {
        let mut world = world_of(Limits::default(), 1, &rooms_that_keep(0, 32, 100));
        world.pass_ms(HOUR_MS + 1000);
        assert_eq!(world.reads.len(), 1);
        meanwhile(&mut world);
        world.read_done(crate::store::Rows::Oldest(Some(WALL_MS + 1)));
        floors(&world)
    };
    assert_eq!(set(|_| {}), [0]);
    let refusing = |world: &mut World| {
        world.give(Input::PersistFailed(crate::id::PersistToken(1), "full".into()));
    };
    assert_eq!(set(refusing), []);
}

#[test]
fn register_writes_that_lost_are_erased_bit_by_bit_every_hour() {
    let (mut world, ann) = lobby(1);
    world.take(ann);
    world.pass_ms(HOUR_MS - 10);
    world.fsync = Fsync::WhenToldTo;
    world.persist_all();
    let tidies = |world: &mut World, ms: u64| {
        world.pass_ms(ms);
        world.replica.flush(world.now);
        world.turn();
        let tidies: Vec<_> =
            world.writes.iter().filter_map(|(_, batch)| batch.tidy.as_ref()).collect();
        tidies.iter().map(|tidy| tidy.after).collect::<Vec<_>>()
    };
    assert_eq!(tidies(&mut world, 1100), [None]);
    world.persist_all();
    assert_eq!(tidies(&mut world, HOUR_MS), [None], "once more, since that one is over");
    world.persist_all();
    // One that is not over goes on where it is; the next hour begins no other.
    assert_eq!(tidies(&mut world, HOUR_MS), [None]);
    let (token, _) = world.writes.pop_front().unwrap();
    let last = Key { hlc: Hlc::at_ms(5), origin: Origin::new(1), seq: 7 };
    let tidied = Some(crate::store::Tidied::Upto(last));
    let committed = crate::store::Committed { tidied, ..Default::default() };
    world.give(Input::Persisted(token, committed));
    assert_eq!(tidies(&mut world, 0), [Some(last)]);
    assert_eq!(tidies(&mut world, HOUR_MS), [Some(last)]);
}

#[test]
fn a_room_whose_floor_cannot_be_read_is_told_of_and_the_others_go_on() {
    let mut world = world_of(Limits::default(), 1, &rooms_that_keep(0, 32, 100));
    world.pass_ms(HOUR_MS + 1000);
    assert_eq!(world.reads.len(), 1);
    world.read_done(crate::store::Rows::Failed("bad sector".into()));
    let told = world.logged.iter().filter(|line| line.starts_with("could not check what"));
    assert_eq!(told.count(), 1, "{:?}", world.logged);
    assert_eq!(world.reads.len(), 1, "the next room");
}

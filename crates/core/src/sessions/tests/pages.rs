//! What a page says of itself: whether it can be all there is.

use super::world::*;
use crate::config::Limits;
use crate::frame::{Frame, Have, Haves, Ping};
use crate::id::{LinkId, Log, Origin, SessionId};
use crate::io::Input;
use crate::session::{History, Item, Mode, Page, Request};
use crate::store::{Loaded, Rows};

const OTHERS: [u8; 2] = [2, 3];

/// s1 of three, with links to both, somebody who talks and somebody who reads.
fn linked() -> (World, SessionId, SessionId) {
    let mut world = with_disk(Limits::default(), 3);
    for n in OTHERS {
        world.link(n);
    }
    let (ann, _) = world.guest("ann");
    world.open(ann, "lobby", Mode::Watch);
    let (bob, _) = world.guest("bob");
    (world, ann, bob)
}

fn ask_page(world: &mut World, reader: SessionId) {
    let request = world.request();
    let history = History { request, of: room("lobby"), before: None, limit: 10 };
    world.ask(reader, Request::History(history));
}

fn told_page(world: &mut World, reader: SessionId) -> Page {
    let items = world.take(reader);
    let page = items.iter().find_map(|item| match &**item {
        Item::Page(page) => Some(page.clone()),
        _ => None,
    });
    page.unwrap_or_else(|| panic!("no page: {items:?}"))
}

/// Whether a page is called complete; all servers are linked.
#[track_caller]
fn is_complete(world: &mut World, reader: SessionId) -> bool {
    ask_page(world, reader);
    let page = told_page(world, reader);
    assert_eq!(page.unreachable, []);
    page.complete
}

fn says_it_holds(world: &mut World, n: u8, haves: Vec<Have>) {
    world.give(Input::Frame(LinkId(n.into()), Frame::Vector(Haves { haves })));
}

fn lives(world: &mut World, n: u8) {
    world.give(Input::Frame(LinkId(n.into()), Frame::Have(Haves { haves: Vec::new() })));
}

#[test]
fn a_page_is_not_called_complete_before_every_link_has_said_what_it_holds() {
    let (mut world, _, bob) = linked();
    assert!(is_complete(&mut world, bob));
    world.give(Input::LinkDown(LinkId(3)));
    world.give(Input::LinkUp(LinkId(3), peer(3)));
    assert!(!is_complete(&mut world, bob), "what s3 holds is not known");
    let log = Log::of(Origin::new(77));
    says_it_holds(&mut world, 3, vec![Have { log, upto: 5, chain: 1 }]);
    assert!(!is_complete(&mut world, bob), "it holds more");
    world.give(Input::LinkDown(LinkId(3)));
    world.link(3);
    assert!(is_complete(&mut world, bob));
}

#[test]
fn a_page_is_not_called_complete_while_what_a_server_says_comes_late() {
    let (mut world, _, bob) = linked();
    let pong = |world: &mut World, ms: u64| {
        let sent_micros = world.now.time.as_micros() - ms * 1000;
        let clock_ms = world.now.wall_ms;
        world.give(Input::Frame(LinkId(2), Frame::Pong(Ping { sent_micros, clock_ms })));
    };
    world.now.time = world.now.time + std::time::Duration::from_secs(3);
    OTHERS.into_iter().for_each(|n| lives(&mut world, n));
    pong(&mut world, 999);
    assert!(is_complete(&mut world, bob));
    for _ in 0..60 {
        pong(&mut world, 1001);
    }
    assert!(!is_complete(&mut world, bob), "it may hold more, and has said so a second ago");
    let (mut world, _, bob) = linked();
    world.now.time = world.now.time + std::time::Duration::from_secs(3);
    OTHERS.into_iter().for_each(|n| lives(&mut world, n));
    pong(&mut world, 1000);
    assert!(!is_complete(&mut world, bob));
}

#[test]
fn a_page_is_not_called_complete_while_the_disk_takes_nothing_or_takes_long() {
    let (mut world, ann, bob) = linked();
    world.fsync = Fsync::WhenToldTo;
    world.say(ann, room("lobby"), 1, "one");
    assert!(is_complete(&mut world, bob), "a write takes its moment");
    world.pass_ms(999);
    assert!(is_complete(&mut world, bob));
    world.pass_ms(1);
    assert!(!is_complete(&mut world, bob), "a second ago others may have had it");
    world.persist_all();
    assert!(is_complete(&mut world, bob));

    world.say(ann, room("lobby"), 2, "two");
    let (token, _) = world.writes[0];
    world.give(Input::PersistFailed(token, "no space left".into()));
    assert!(!is_complete(&mut world, bob), "it is in memory alone, and may stay there");
    world.persist_all();
    assert!(is_complete(&mut world, bob));
}

#[test]
fn a_page_is_not_called_complete_while_a_link_is_silent() {
    let (mut world, _, bob) = linked();
    for _ in 0..21 {
        world.pass_ms(100);
        lives(&mut world, 2);
    }
    assert!(!is_complete(&mut world, bob), "s3 may be gone");
    lives(&mut world, 3);
    assert!(is_complete(&mut world, bob));
}

#[test]
fn a_page_is_as_complete_as_it_was_when_it_was_asked_for() {
    let mut world = world_of(Limits::default(), 3, &Loaded::default());
    for n in OTHERS {
        world.link(n);
    }
    let (bob, _) = world.guest("bob");
    world.give(Input::LinkDown(LinkId(3)));
    ask_page(&mut world, bob);
    world.link(3);
    world.read_done(Rows::Page(Vec::new(), false));
    let page = told_page(&mut world, bob);
    assert_eq!((page.complete, page.unreachable), (false, vec![]));

    ask_page(&mut world, bob);
    world.read_done(Rows::Page(Vec::new(), false));
    assert!(told_page(&mut world, bob).complete);
}

#[test]
fn whoever_reads_what_no_token_of_his_covers_is_given_one_before_it() {
    let (mut world, ann, bob) = linked();
    world.take(bob);
    world.say(ann, room("lobby"), 1, "hello");
    world.take(ann);
    let read = |world: &mut World| {
        ask_page(world, bob);
        let items = world.take(bob);
        let told = items.iter().map(|item| match &**item {
            Item::Token(token) => format!("{} logs", token.vector.iter().count()),
            Item::Page(page) => format!("{} lines", page.lines.len()),
            other => panic!("{other:?}"),
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(read(&mut world), ["1 logs", "1 lines"], "s1 may die the moment after");
    assert_eq!(read(&mut world), ["1 lines"]);
    world.say(ann, room("elsewhere"), 2, "hello");
    assert_eq!(read(&mut world), ["1 lines"], "nothing of it was read");
}

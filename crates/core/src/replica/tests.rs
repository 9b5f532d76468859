//! Draining, by the inputs and outputs of one replica.

use super::*;
use crate::config::{Feeds, Limits, Me, Mesh, Timing};
use crate::event::{CHAIN_START, Retention, Topic};
use crate::frame::{Have, Haves};
use crate::id::{ClusterId, Log, Origin, ServerId};
use crate::io::Standing;
use crate::session::{Attach, CLIENT_MINOR, Code, Direct, Request};
use crate::store::{Batch, Outcome};
use crate::token::TokenKey;

const LINK: LinkId = LinkId(1);

const fn at(ms: u64) -> Now {
    Now { time: Time::from_micros(ms * 1000), wall_ms: 1_700_000_000_000 + ms }
}

fn slot(n: u8) -> Slot {
    let Ok(slot) = Slot::new(format!("s{n}")) else { unreachable!() };
    slot
}

/// `s1` of two, linked with `s2`, which has not said what it holds.
fn starting() -> Replica {
    let origin = |n: u8| Origin::at(1_700_000_000_000, u128::from(n));
    let config = Config {
        me: Me {
            cluster: ClusterId::new(1),
            slot: slot(1),
            generation: 0,
            server: ServerId::new(1),
            origin: origin(1),
            prev: None,
            addr: "s1:1".into(),
        },
        servers: [1, 2].map(|n| ServerAddr { name: slot(n), addr: format!("s{n}:1") }).into(),
        token_key: TokenKey::new([1; 32]),
        feeds: Feeds::DEFAULT,
        mesh: Mesh::default(),
        timing: Timing::default(),
        limits: Limits::default(),
        retention: Retention::default(),
    };
    let mut replica = Replica::new(config, &Loaded::default(), 1, at(0));
    let peer = Peer {
        slot: slot(2),
        generation: 0,
        server: ServerId::new(2),
        origin: origin(2),
        standing: Standing::Sound,
    };
    replica.handle(at(1), Input::LinkUp(LINK, peer));
    replica
}

/// `s1` of two, linked with `s2`, taking clients.
fn linked() -> Replica {
    let mut replica = starting();
    replica.handle(at(1), Input::Frame(LINK, Frame::Vector(Haves { haves: Vec::new() })));
    // Who holds which slot is written.
    save(&mut replica);
    assert_eq!(replica.state(), ServerState::Ready);
    replica
}

fn outputs(replica: &mut Replica) -> Vec<Output> {
    replica.flush(at(2));
    std::iter::from_fn(|| replica.poll_output()).collect()
}

/// What is to be written.
fn persist(outputs: &[Output]) -> Option<(PersistToken, Arc<Batch>)> {
    outputs.iter().find_map(|output| match output {
        Output::Persist(token, batch) => Some((*token, batch.clone())),
        _ => None,
    })
}

/// Makes durable what is to be written; gives the newest batch.
fn save(replica: &mut Replica) -> Option<Arc<Batch>> {
    let mut last = None;
    while let Some((token, batch)) = persist(&outputs(replica)) {
        let outcomes = vec![Outcome::NoMessage; batch.entries.len()];
        let done = Committed { outcomes, ..Committed::default() };
        replica.handle(at(3), Input::Persisted(token, done));
        last = Some(batch);
    }
    last
}

#[test]
fn a_drain_waits_for_the_word_of_the_other_disk() {
    let mut replica = linked();
    let about = (RoomId::new(7), AccountId::new(8), Mid::new(9));
    let topic = Body::from(Topic { nick: "ann".into(), text: "tea".into() });
    replica.append(at(2), Hlc::default(), about, &topic).unwrap();
    replica.handle(at(2), Input::Drain);
    assert_eq!(replica.state(), ServerState::Stopping);

    // Sent, and on this disk: that is not enough. The boot of the log counts as well.
    let batch = save(&mut replica).expect("the event is written");
    assert_eq!(replica.drain().missing, [(slot(2), 2)]);
    let last = batch.entries.last().expect("two events");
    let have = |upto| Have { log: Log::of(replica.config.me.origin), upto, chain: last.chain };
    let haves = vec![have(2)];
    replica.handle(at(4), Input::Frame(LINK, Frame::Have(Haves { haves })));
    assert_eq!(replica.drain(), Drain::default());
    assert!(replica.drain().is_done());

    // A server that is not linked is named, and not waited for if it has all that is here.
    replica.handle(at(5), Input::LinkDown(LINK));
    assert_eq!(replica.drain().unreachable, [slot(2)]);
    assert!(replica.drain().is_done());
}

#[test]
fn a_drain_waits_for_a_majority_of_the_disks_though_nobody_is_linked() {
    let mut replica = linked();
    let about = (RoomId::new(7), AccountId::new(8), Mid::new(9));
    let topic = Body::from(Topic { nick: "ann".into(), text: "tea".into() });
    replica.append(at(2), Hlc::default(), about, &topic).unwrap();
    save(&mut replica);
    replica.handle(at(4), Input::LinkDown(LINK));
    replica.handle(at(4), Input::Drain);
    let drain = replica.drain();
    assert_eq!((drain.missing.len(), drain.not_replicated), (0, 2));
    assert!(!drain.is_done(), "its disk alone has it");
}

/// An event of the other server, pushed.
fn pushed(seq: u64) -> Frame {
    let event = |seq| {
        Arc::new(Event {
            seq,
            hlc: Hlc::at_ms(1_700_000_000_000 + seq),
            wall_ms: 1_700_000_000_000,
            room: RoomId::new(7),
            actor: AccountId::new(8),
            mid: Mid::new(9),
            kind: 60_000,
            body: Vec::new(),
        })
    };
    let chain = (1..=seq).fold(CHAIN_START, |chain, seq| event(seq).chain(chain));
    let (log, events) = (Log::of(Origin::at(1_700_000_000_000, 2)), vec![event(seq)]);
    Frame::Events(crate::frame::Events { log, base: seq, hops: 0, events, chain })
}

#[test]
fn a_drain_waits_for_what_was_here_when_it_began_and_not_for_what_others_say_later() {
    let mut replica = linked();
    replica.handle(at(2), Input::Frame(LINK, pushed(1)));
    replica.handle(at(2), Input::Drain);
    replica.handle(at(2), Input::Frame(LINK, pushed(2)));
    save(&mut replica);
    // The other server makes them, and has not said that they are on its disk.
    assert_eq!(replica.drain().missing, [(slot(2), 1)]);
    assert_eq!(replica.drain().not_replicated, 1);
}

/// How often the first client is sent to other servers.
fn leaving(replica: &mut Replica) -> usize {
    let told = |output: &Output| match output {
        Output::Deliver { sessions, item, .. } => {
            matches!(**item, Item::Leaving(_)) && *sessions == [SessionId(1)]
        }
        _ => false,
    };
    outputs(replica).iter().filter(|output| told(output)).count()
}

#[test]
fn clients_are_sent_away_once_and_taken_again_when_a_drain_is_given_up() {
    let mut replica = linked();
    replica.handle(at(2), Input::SessionUp(SessionId(1)));
    replica.handle(at(2), Input::Drain);
    replica.handle(at(2), Input::Drain);
    assert_eq!(leaving(&mut replica), 1);

    replica.handle(at(3), Input::Resume);
    assert_eq!(replica.state(), ServerState::Ready);
    replica.handle(at(4), Input::Stop);
    replica.handle(at(4), Input::Resume);
    assert_eq!(replica.state(), ServerState::Stopping, "a stop is not given up");
}

fn frames(outputs: &[Output]) -> Vec<(LinkId, Frame)> {
    let sent = |output: &Output| match output {
        Output::Send { links, frame, .. } => Some((links[0], (**frame).clone())),
        _ => None,
    };
    outputs.iter().filter_map(sent).collect()
}

fn logged(outputs: &[Output]) -> Vec<(Severity, &str)> {
    let all = outputs.iter();
    all.filter_map(|output| match output {
        Output::Log(severity, what) => Some((*severity, what.as_str())),
        _ => None,
    })
    .collect()
}

#[test]
fn a_ping_is_answered_with_what_it_asked_and_this_server_s_clock() {
    let mut replica = linked();
    let ping = Ping { sent_micros: 77, clock_ms: at(0).wall_ms };
    replica.handle(at(10), Input::Frame(LINK, Frame::Ping(ping)));
    let pong = Frame::Pong(Ping { sent_micros: 77, clock_ms: at(10).wall_ms });
    assert!(frames(&outputs(&mut replica)).contains(&(LINK, pong)));
}

#[test]
fn a_peer_that_breaks_the_protocol_is_cut_off() {
    let cut = |frame: Frame| {
        let mut replica = linked();
        outputs(&mut replica);
        replica.handle(at(5), Input::Frame(LINK, frame));
        let said = outputs(&mut replica);
        let closed = |output: &Output| matches!(output, Output::Close(link, _) if *link == LINK);
        assert!(said.iter().any(closed), "{said:?}");
        let [(Severity::Warn, why)] = logged(&said)[..] else { panic!("{said:?}") };
        assert_eq!(replica.unreachable(), [slot(2)]);
        why.to_string()
    };
    let hello = crate::frame::Hello {
        minor: 0,
        origin: Origin::at(0, 1),
        wall_ms: 0,
        addr: String::new(),
        standing: Standing::Sound,
        common: None,
    };
    assert_eq!(cut(Frame::Hello(hello)), "closed the link to s2: it sent a second Hello");
    let want = crate::frame::Want {
        log: Log::of(Origin::at(0, 1)),
        from: 0,
        to: 0,
        push: crate::frame::Push::Start,
    };
    let why = "closed the link to s2: it sent a want from event 0; events are counted from 1";
    assert_eq!(cut(Frame::Want(want)), why);
}

#[test]
fn an_older_certificate_of_a_slot_is_turned_away() {
    let mut replica = linked();
    let peer = |generation, server| Peer {
        slot: slot(2),
        generation,
        server: ServerId::new(server),
        origin: Origin::at(0, 9),
        standing: Standing::Sound,
    };
    replica.handle(at(5), Input::LinkDown(LINK));
    replica.handle(at(5), Input::LinkUp(LinkId(2), peer(1, 3)));
    outputs(&mut replica);
    assert_eq!(replica.admits(&peer(1, 3)), Ok(()));
    let why = "fenced: s2 is held by the certificate of generation 1, yours is 0. Wipe this \
               server, or restore it as a new one.";
    assert_eq!(replica.admits(&peer(0, 2)), Err(why.to_string()));
    replica.handle(at(6), Input::LinkUp(LinkId(3), peer(0, 2)));
    let said = outputs(&mut replica);
    assert!(said.contains(&Output::Close(LinkId(3), why.into())), "{said:?}");
    assert_eq!(logged(&said)[0].0, Severity::Error);
    assert_eq!(replica.unreachable(), [] as [Slot; 0], "the other one stays");
}

#[test]
fn a_clock_that_is_off_is_told_once_and_so_is_its_mending() {
    let mut replica = linked();
    let ping = |replica: &mut Replica, ms, clock_ms| {
        let ping = Ping { sent_micros: 0, clock_ms };
        replica.handle(at(ms), Input::Frame(LINK, Frame::Ping(ping)));
        let said = outputs(replica);
        logged(&said).iter().map(|(severity, _)| *severity).collect::<Vec<_>>()
    };
    let wall = at(0).wall_ms;
    assert_eq!(ping(&mut replica, 10, wall - 9000), [Severity::Error]);
    assert_eq!(replica.state(), ServerState::Fenced);
    assert_eq!(ping(&mut replica, 11, wall - 9000), []);
    assert_eq!(ping(&mut replica, 12, wall), [Severity::Info]);
    assert_eq!(replica.state(), ServerState::Ready);
}

#[test]
fn only_clocks_of_voters_count() {
    let mut replica = linked();
    replica.handle(at(5), Input::LinkDown(LINK));
    let stranger = Peer {
        slot: slot(9),
        generation: 0,
        server: ServerId::new(9),
        origin: Origin::at(0, 9),
        standing: Standing::Sound,
    };
    replica.handle(at(5), Input::LinkUp(LinkId(9), stranger));
    let ping = Ping { sent_micros: 0, clock_ms: 0 };
    replica.handle(at(6), Input::Frame(LinkId(9), Frame::Ping(ping)));
    assert_eq!(replica.state(), ServerState::Ready);
}

#[test]
fn a_link_that_falls_silent_is_suspected_pinged_and_closed() {
    let mut replica = linked();
    let mut said = Vec::new();
    for ms in (100..=5100).step_by(100) {
        replica.handle_timeout(at(ms));
        let outputs = outputs(&mut replica);
        let pings = frames(&outputs).iter().filter(|(_, f)| matches!(f, Frame::Ping(_))).count();
        said.extend(std::iter::repeat_n((ms, "ping"), pings));
        if outputs.iter().any(|output| matches!(output, Output::Close(..))) {
            said.push((ms, "close"));
        }
        let suspect = replica.broadcast.rank(LINK, Log::of(Origin::at(0, 7))).0;
        let expected = (2001..5001).contains(&ms);
        assert_eq!(suspect, expected || ms >= 5001, "at {ms} ms");
    }
    let first: Vec<u64> = said.iter().map(|(ms, _)| *ms).take(3).collect();
    assert_eq!(first, [100, 600, 1100]);
    assert_eq!(said.last(), Some(&(5100, "close")));
    assert_eq!(replica.unreachable(), [slot(2)]);
}

#[test]
fn whoever_speaks_again_is_suspected_no_more() {
    let mut replica = linked();
    for ms in (100..=2100).step_by(100) {
        replica.handle_timeout(at(ms));
    }
    let suspect = |replica: &Replica| replica.broadcast.rank(LINK, Log::of(Origin::at(0, 7))).0;
    assert!(suspect(&replica));
    let leaving = Frame::Leaving(Leaving {});
    replica.handle(at(2200), Input::Frame(LINK, leaving));
    assert!(!suspect(&replica));
    let said = outputs(&mut replica);
    assert!(logged(&said).contains(&(Severity::Info, "s2 is about to stop")), "{said:?}");
}

#[test]
fn a_stop_is_told_to_the_links_and_a_drain_is_not() {
    let mut replica = linked();
    let leaving = |replica: &mut Replica| {
        frames(&outputs(replica)).iter().any(|(_, frame)| matches!(frame, Frame::Leaving(_)))
    };
    replica.handle(at(5), Input::Drain);
    assert!(!leaving(&mut replica));
    replica.handle(at(5), Input::Stop);
    assert!(leaving(&mut replica));
}

mod catch_up;

#[test]
fn a_server_far_behind_takes_no_clients() {
    let mut replica = linked();
    let lag = replica.config.limits.attach_lag as u64;
    let have = |upto| {
        let log = Log::of(Origin::at(0, 9));
        Frame::Have(Haves { haves: vec![Have { log, upto, chain: 0 }] })
    };
    replica.handle(at(5), Input::Frame(LINK, have(lag)));
    assert_eq!(replica.state(), ServerState::Ready);
    replica.handle(at(5), Input::Frame(LINK, have(lag + 1)));
    assert_eq!(replica.state(), ServerState::CatchingUp);
    replica.handle(at(6), Input::SessionUp(SessionId(1)));
    let attach = Attach {
        minor: CLIENT_MINOR,
        token: Vec::new(),
        nick: Some("ann".into()),
        cursor: Vector::new(),
        rooms: Vec::new(),
        direct: Direct::Ignore,
    };
    outputs(&mut replica);
    replica.handle(at(6), Input::Request(SessionId(1), Request::Attach(attach)));
    let told = outputs(&mut replica);
    let refused = told.iter().find_map(|output| match output {
        Output::Deliver { item, .. } => match &**item {
            Item::Refused(refused) => Some((refused.code, refused.reason.as_str())),
            _ => None,
        },
        _ => None,
    });
    let why = "this server is still catching up; attach to another one";
    assert_eq!(refused, Some((Code::NotReady, why)));
    assert!(told.contains(&Output::CloseSession(SessionId(1))));
}

#[test]
fn a_disk_that_refuses_a_write_is_told_of_and_its_recovery_too() {
    let mut replica = linked();
    let about = (RoomId::new(7), AccountId::new(8), Mid::new(9));
    let topic = Body::from(Topic { nick: "ann".into(), text: "tea".into() });
    replica.append(at(2), Hlc::default(), about, &topic).unwrap();
    let said = outputs(&mut replica);
    let token = said.iter().find_map(|output| match output {
        Output::Persist(token, _) => Some(*token),
        _ => None,
    });
    let token = token.unwrap();
    replica.handle(at(3), Input::PersistFailed(token, "full".into()));
    assert_eq!(replica.state(), ServerState::ReadOnly);
    let what = "the disk refused a write: full; no writes are taken until it takes them";
    assert_eq!(logged(&outputs(&mut replica)), [(Severity::Error, what)]);
    let outcomes = vec![Outcome::NoMessage; 2];
    replica.handle(at(4), Input::Persisted(token, Committed { outcomes, ..Committed::default() }));
    assert_eq!(replica.state(), ServerState::Ready);
    let what = "the disk takes writes again";
    assert_eq!(logged(&outputs(&mut replica)), [(Severity::Info, what)]);
}

#[test]
fn a_disk_without_room_for_what_clients_write_is_told_of_and_takes_what_others_wrote() {
    let mut replica = linked();
    let full = || Input::Room(Err("full".into()));
    replica.handle(at(3), full());
    replica.handle(at(3), full());
    assert_eq!(replica.state(), ServerState::ReadOnly);
    let what = "full; no writes of clients are taken until there is room (reading and replicating \
                go on)";
    assert_eq!(logged(&outputs(&mut replica)), [(Severity::Error, what)], "once");

    replica.handle(at(4), Input::Frame(LINK, pushed(1)));
    assert!(save(&mut replica).is_some_and(|batch| batch.entries.len() == 1));
    assert_eq!(replica.state(), ServerState::ReadOnly, "a write that is done proves no room");

    replica.handle(at(5), Input::Room(Ok(())));
    assert_eq!(replica.state(), ServerState::Ready);
    let what = "the disk has room again: writes are taken";
    assert_eq!(logged(&outputs(&mut replica)), [(Severity::Info, what)]);
}

#[test]
fn clients_are_sent_away_once_when_there_is_no_room_if_anybody_can_take_them() {
    let full = || Input::Room(Err("full".into()));
    let mut replica = linked();
    replica.handle(at(2), Input::SessionUp(SessionId(1)));
    // That there is room is no news, and neither is that there still is none.
    let lines = [(Input::Room(Ok(())), (0, 0)), (full(), (1, 1)), (full(), (0, 0))];
    for (input, (sent, said)) in lines {
        let words = format!("{input:?}");
        replica.handle(at(3), input);
        let mut other = replica.clone();
        assert_eq!(leaving(&mut replica), sent, "{words}");
        assert_eq!(logged(&outputs(&mut other)).len(), said, "{words}");
    }
    replica.handle(at(4), Input::Room(Ok(())));
    replica.handle(at(4), Input::LinkDown(LINK));
    replica.handle(at(4), full());
    assert_eq!(leaving(&mut replica), 0, "nobody is linked");
}

#[test]
fn a_body_that_no_server_takes_is_not_appended() {
    let mut replica = linked();
    let about = (RoomId::new(7), AccountId::new(8), Mid::new(9));
    let topic = |bytes: usize| Body::from(Topic { nick: String::new(), text: "x".repeat(bytes) });
    let mut fits = |bytes| replica.append(at(2), Hlc::default(), about, &topic(bytes)).is_ok();
    // Three bytes of length and one for the empty nick.
    assert!(fits(BODY_BYTES_MAX - 4));
    assert!(!fits(BODY_BYTES_MAX - 3));
    assert_eq!(replica.counts().payload_sends, 0, "nothing is sent before the tick ends");
    outputs(&mut replica);
    assert_eq!(replica.counts().payload_sends, 2, "the boot and one more");
}

#[test]
fn a_drain_is_done_when_no_client_is_left_and_no_disk_lacks_anything() {
    let missing = vec![(slot(2), 1)];
    assert!(Drain::default().is_done());
    assert!(!Drain { sessions: 1, ..Drain::default() }.is_done());
    assert!(!Drain { missing, ..Drain::default() }.is_done());
    let unreachable = vec![slot(2)];
    assert!(Drain { unreachable, ..Drain::default() }.is_done(), "nobody is waited for");
}

#[test]
fn who_is_present_is_told_to_the_links_there_are() {
    let presence = |replica: &mut Replica| {
        replica.handle(at(2), Input::SessionUp(SessionId(1)));
        let attach = crate::session::Attach {
            minor: 0,
            token: Vec::new(),
            nick: Some("ann".into()),
            cursor: Vector::new(),
            rooms: Vec::new(),
            direct: crate::session::Direct::Take,
        };
        let attach = crate::session::Request::Attach(attach);
        replica.handle(at(2), Input::Request(SessionId(1), attach));
        let said = outputs(replica);
        let sent = |output: &Output| match output {
            Output::Send { links, frame, .. } if matches!(**frame, Frame::Presence(_)) => {
                Some(links.clone())
            }
            _ => None,
        };
        said.iter().filter_map(sent).collect::<Vec<_>>()
    };
    assert_eq!(presence(&mut linked()), [[LINK]]);
    let mut alone = linked();
    alone.handle(at(1), Input::LinkDown(LINK));
    assert_eq!(presence(&mut alone), [[]; 0]);
}

/// `s1` of three, of which `s3` is linked, or both.
fn of_three(standing: Standing, links: &[u8]) -> Replica {
    let mut config = (*linked().config).clone();
    config.servers.push(ServerAddr { name: slot(3), addr: "s3:1".into() });
    let loaded = Loaded { standing, ..Loaded::default() };
    let mut replica = Replica::new(config, &loaded, 1, at(0));
    for n in links {
        let peer = Peer {
            slot: slot(*n),
            generation: 0,
            server: ServerId::new(u128::from(*n)),
            origin: Origin::at(0, u128::from(*n)),
            standing: Standing::Sound,
        };
        let link = LinkId(u64::from(*n));
        replica.handle(at(1), Input::LinkUp(link, peer));
        replica.handle(at(1), Input::Frame(link, Frame::Vector(Haves { haves: Vec::new() })));
    }
    save(&mut replica);
    replica
}

#[test]
fn clients_are_sent_to_linked_servers_first() {
    let mut replica = of_three(Standing::Sound, &[3]);
    replica.handle(at(2), Input::SessionUp(SessionId(1)));
    replica.handle(at(2), Input::Stop);
    let said = outputs(&mut replica);
    let servers = said.iter().find_map(|output| match output {
        Output::Deliver { item, .. } => match &**item {
            Item::Leaving(moving) => Some(moving.servers.clone()),
            _ => None,
        },
        _ => None,
    });
    let names: Vec<Slot> = servers.unwrap().into_iter().map(|server| server.name).collect();
    assert_eq!(names, [slot(3), slot(2)]);
}

#[test]
fn a_mended_disk_counts_when_all_others_said_what_they_hold() {
    let standing = |links: &[u8]| {
        let mut replica = of_three(Standing::Lossy, links);
        replica.handle_timeout(at(100));
        replica.broadcast.standing()
    };
    assert_eq!(standing(&[3]), Standing::Lossy);
    assert_eq!(standing(&[2, 3]), Standing::Sound);
}

#[test]
fn a_replica_shows_the_rooms_it_has() {
    let mut replica = linked();
    let lobby = RoomId::public("lobby");
    let about = (lobby, AccountId::new(8), Mid::new(9));
    let create = Body::from(crate::event::RoomCreate { name: "lobby".into() });
    replica.append(at(2), Hlc::default(), about, &create).unwrap();
    save(&mut replica);
    assert_eq!(replica.rooms().name(lobby), Some("lobby"));
}

#[test]
#[should_panic(expected = "the driver drains the outputs")]
fn outputs_that_are_left_break_a_rule() {
    let mut replica = linked();
    outputs(&mut replica);
    replica.assert_invariants();
    replica.log(Severity::Info, "left".into());
    replica.assert_invariants();
}

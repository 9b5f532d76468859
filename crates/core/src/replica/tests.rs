//! Draining, by the inputs and outputs of one replica.

use super::*;
use crate::config::{Feeds, Limits, Me, Mesh, Timing};
use crate::event::{Retention, Topic};
use crate::frame::{Have, Haves};
use crate::id::{ClusterId, Log, Origin, ServerId};
use crate::io::Standing;
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

/// `s1` of two, linked with `s2`, taking clients.
fn linked() -> Replica {
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

/// Makes durable what is to be written; gives the newest batch.
fn save(replica: &mut Replica) -> Option<Arc<Batch>> {
    let mut last = None;
    while let Some((token, batch)) = outputs(replica).into_iter().find_map(|output| match output {
        Output::Persist(token, batch) => Some((token, batch)),
        _ => None,
    }) {
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

    // A server that is not linked is named, and not waited for.
    replica.handle(at(5), Input::LinkDown(LINK));
    assert_eq!(replica.drain().unreachable, [slot(2)]);
    assert!(replica.drain().is_done());
}

#[test]
fn clients_are_sent_away_once_and_taken_again_when_a_drain_is_given_up() {
    let mut replica = linked();
    replica.handle(at(2), Input::SessionUp(SessionId(1)));
    let leaving = |replica: &mut Replica| {
        let told = |output: &Output| match output {
            Output::Deliver { sessions, item, .. } => {
                matches!(**item, Item::Leaving(_)) && *sessions == [SessionId(1)]
            }
            _ => false,
        };
        outputs(replica).iter().filter(|output| told(output)).count()
    };
    replica.handle(at(2), Input::Drain);
    replica.handle(at(2), Input::Drain);
    assert_eq!(leaving(&mut replica), 1);

    replica.handle(at(3), Input::Resume);
    assert_eq!(replica.state(), ServerState::Ready);
    replica.handle(at(4), Input::Stop);
    replica.handle(at(4), Input::Resume);
    assert_eq!(replica.state(), ServerState::Stopping, "a stop is not given up");
}

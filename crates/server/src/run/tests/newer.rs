//! A peer of a newer minor version: what it says beyond this version harms nothing, and what it
//! writes is kept and passed on.

use chatty_core::event::{Body, Boot, CHAIN_START, Event as LogEvent, Msg};
use chatty_core::frame::{Class, Common, Digest, Events, Frame, Have, Hello, Ping, SERVER_MINOR};
use chatty_core::id::{AccountId, Log, RoomId};
use chatty_core::io::Standing;
use chatty_core::store::{Query, Reader, Rows};
use chatty_core::time::Hlc;
use chatty_net::link::{LinkStreams, accept_classes};
use chatty_net::{Identity, ServerEndpointConfig};

use super::*;
use crate::store::FjallStore;

/// Frames and events that no version before it knows.
const NEW_FRAME: u8 = 201;
const NEW_EVENT: u16 = 60_001;

/// `s3`, as a newer version would be: linked with `s1` alone, whatever `s2` dials.
struct Newer {
    endpoint: Endpoint,
    connection: Connection,
    identity: Identity,
    origin: Origin,
    ours: LinkStreams,
    frames: tokio::sync::mpsc::UnboundedReceiver<Frame>,
    chain: u64,
    sent: Vec<Arc<LogEvent>>,
}

impl Newer {
    async fn link(made: &Made) -> Self {
        let config = config::load(&made.config("s3")).unwrap();
        let proof = credentials::load(&config).unwrap();
        let endpoint = Endpoint::server(ServerEndpointConfig {
            listen: config.listen,
            credentials: proof.credentials,
            authority_pem: proof.authority_pem,
            reset_secret: [3; 32],
        })
        .unwrap();
        let s1 = config.servers.iter().find(|s| s.name.as_str() == "s1").unwrap();
        let (connection, _) = endpoint.dial_peer(s1.addr.parse().unwrap(), LIMIT).await.unwrap();
        let origin = Origin::at(Clock::start().now().wall_ms, random::bits128().unwrap());
        let mut ours = LinkStreams::open(&connection).await.unwrap();
        let hello = Frame::Hello(Hello {
            minor: SERVER_MINOR + 1,
            origin,
            wall_ms: Clock::start().now().wall_ms,
            addr: "127.0.0.1:9".into(),
            standing: Standing::Sound,
            common: Some(Common {
                voters: config.servers.iter().map(|server| server.name.clone()).collect(),
                retention: config.retention,
            }),
        });
        let mut body = Vec::new();
        hello.encode_body(&mut body);
        body.extend_from_slice(b"a field of the next version");
        let control = ours.class(Class::Control);
        control.push(hello.kind(), |to| to.extend_from_slice(&body)).unwrap();
        control.flush().await.unwrap();
        let (came, frames) = tokio::sync::mpsc::unbounded_channel();
        let mut streams = accept_classes(&connection);
        while let Some((_, mut reader)) = streams.next().await.unwrap() {
            let came = came.clone();
            tokio::spawn(async move {
                while let Ok(Some(raw)) = reader.next().await {
                    let frame = Frame::decode(raw.kind, &raw.body).expect("what this version says");
                    if came.send(frame).is_err() {
                        return;
                    }
                }
            });
        }
        let chain = CHAIN_START;
        let (identity, sent) = (proof.identity, Vec::new());
        Self { endpoint, connection, identity, origin, ours, frames, chain, sent }
    }

    async fn say(&mut self, class: Class, frame: &Frame) {
        let mut body = Vec::new();
        frame.encode_body(&mut body);
        self.say_raw(class, frame.kind(), &body).await;
    }

    async fn say_raw(&mut self, class: Class, kind: u8, body: &[u8]) {
        let writer = self.ours.class(class);
        writer.push(kind, |to| to.extend_from_slice(body)).unwrap();
        writer.flush().await.unwrap();
    }

    /// Writes an event to its own log and pushes it.
    async fn write(&mut self, room: RoomId, kind: u16, body: Vec<u8>) {
        let seq = self.sent.len() as u64 + 1;
        let wall_ms = Clock::start().now().wall_ms;
        let event = Arc::new(LogEvent {
            seq,
            hlc: Hlc::from_bits((wall_ms << 16) + seq),
            wall_ms,
            room,
            actor: AccountId::new(5),
            mid: Mid::at(wall_ms, u128::from(seq)),
            kind,
            body,
        });
        self.chain = event.chain(self.chain);
        self.sent.push(event.clone());
        let (log, chain) = (Log::of(self.origin), self.chain);
        let events = Events { log, base: seq, hops: 0, events: vec![event], chain };
        self.say(Class::Live, &Frame::Events(events)).await;
    }

    /// The first frame that fits; pings are answered meanwhile.
    async fn find<T>(&mut self, fits: impl Fn(Frame) -> Option<T>) -> T {
        let found = async {
            loop {
                let frame = self.frames.recv().await.expect("the link stays");
                if let Frame::Ping(Ping { sent_micros, .. }) = frame {
                    let clock_ms = Clock::start().now().wall_ms;
                    let pong = Frame::Pong(Ping { sent_micros, clock_ms });
                    self.say(Class::Control, &pong).await;
                }
                if let Some(found) = fits(frame) {
                    return found;
                }
            }
        };
        tokio::time::timeout(LIMIT, found).await.expect("in time")
    }
}

fn boot(identity: &Identity) -> Body {
    Body::Boot(Boot {
        server: identity.server,
        slot: identity.slot.clone(),
        generation: identity.generation,
        prev: None,
        addr: "127.0.0.1:9".into(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_a_newer_minor_version_is_linked_and_its_unknown_events_are_kept() {
    let made = make(3);
    let (s1, s2) = (made.start("s1").await, made.start("s2").await);
    let mut bob = made.attach("s2").await;
    bob.open("lobby").await;
    bob.find(|item| matches!(item, Item::RoomOpened(_)).then_some(())).await;
    let mut newer = Newer::link(&made).await;

    // Unknown frames on every stream, of no length and of some.
    for class in Class::ALL {
        newer.say_raw(class, NEW_FRAME, b"").await;
        newer.say_raw(class, NEW_FRAME, &[7; 3000]).await;
    }
    let lobby = RoomId::public("lobby");
    let first = boot(&newer.identity);
    newer.write(RoomId::new(0), first.kind(), first.encode()).await;
    newer.write(lobby, NEW_EVENT, b"opaque to this version".to_vec()).await;
    let msg = Body::Msg(Msg { nick: "zoe".into(), text: "from the future".into() });
    newer.write(lobby, msg.kind(), msg.encode()).await;

    // Acknowledged: on the disk of s1, with the chain over what it cannot read.
    let (log, chain) = (Log::of(newer.origin), newer.chain);
    let held = |frame| match frame {
        Frame::Have(haves) | Frame::Vector(haves) => {
            haves.haves.into_iter().find(|have| have.log == log && have.upto == 3)
        }
        _ => None,
    };
    assert_eq!(newer.find(held).await, Have { log, upto: 3, chain });
    // Forwarded: what came after it is shown on s2, and no server shows it before the rest is there.
    assert_eq!(bob.find(text_of).await, "from the future");
    // Known traffic goes on, both ways, over the same link.
    let mut ann = made.attach("s1").await;
    ann.say("lobby", "still here").await;
    ann.find(|item| matches!(item, Item::Sent(_)).then_some(())).await;
    let pushed = |frame| match frame {
        Frame::Events(events) => events.events.iter().find_map(|event| match event.body() {
            Some(Body::Msg(msg)) => Some(msg.text),
            _ => None,
        }),
        _ => None,
    };
    assert_eq!(newer.find(pushed).await, "still here");
    newer.say(Class::Control, &Frame::Digest(Digest { hash: 0 })).await;
    newer.find(|frame| matches!(frame, Frame::Vector(_)).then_some(())).await;
    assert_eq!(newer.connection.close_reason(), None);

    let sent = newer.sent.clone();
    newer.endpoint.close("done");
    for (server, name) in [(s1, "s1"), (s2, "s2")] {
        stop(server).await;
        // Byte by byte on the disk, also on the one that got it from s1.
        let config = config::load(&made.config(name)).unwrap();
        let store = FjallStore::open(&config.data.join("db")).unwrap();
        let query = Query::Events { log, from: 1, to: 3, bytes_max: usize::MAX };
        let Rows::Events(entries) = store.reader().read(&query).unwrap() else { panic!() };
        assert_eq!(entries.into_iter().map(|entry| entry.event).collect::<Vec<_>>(), sent);
    }
}

//! Writes inputs to begin with: `seeds FOLDER` makes a folder for each target in it.
//!
//! One of each kind of frame, request, item and event; files as the programs write them.

use std::path::PathBuf;
use std::sync::Arc;

use chatty_core::client::Note;
use chatty_core::event::{
    Body, Boot, Direct, Event, Floor, Join, Keep, Kick, Leave, Mark, Msg, Nick, Rank, Retention,
    Role, RoomCreate, Topic,
};
use chatty_core::frame::{
    Digest, Events, Frame, Have, Haves, Hello, Lagging, Leaving, Logs, Ping, PresenceUpdate, Push,
    Range, RolledBack, Want,
};
use chatty_core::id::{AccountId, ClusterId, Log, Mid, Origin, RequestId, RoomId, ServerId, Slot};
use chatty_core::io::Standing;
use chatty_core::session::{self as s, Item, Level, Request, Target};
use chatty_core::time::{Hlc, Key};
use chatty_core::token::{Token, TokenKey};
use chatty_core::vector::Vector;
use chatty_core::wire::Wire;
use chatty_net::{Authority, Identity};

const LOG: Log = Log::of(Origin::new(5));

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).expect("a folder"));
    let mut seeds = Seeds { folder, count: 0 };
    seeds.frames();
    seeds.requests();
    seeds.items();
    for body in bodies() {
        let mut bytes = vec![u8::try_from(body.kind()).expect("a small kind")];
        bytes.extend(body.encode());
        seeds.keep("event", &bytes);
        let event = Event { kind: body.kind(), body: body.encode(), ..event(1) };
        seeds.keep("event", &postcard::to_allocvec(&event).expect("an event"));
    }
    let account = AccountId::new(3);
    let token = Token { cluster: ClusterId::new(9), account, vector: vector(), hlc: Hlc::at_ms(5) };
    let sealed = token.seal(&TokenKey::new([7; 32]));
    seeds.keep("token", &sealed[..sealed.len() - 32]);
    seeds.texts();
    seeds.files();
    seeds.rows();
    // Choices that are all the same, and all different.
    for step in 0..=23u8 {
        seeds.keep("replica", &[0, 0, step, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    }
    let mut state = 1u32;
    for _ in 0..8 {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let bytes: Vec<u8> = (0..600).map(|_| next()).collect();
        seeds.keep("replica", &bytes);
        seeds.keep("client", &bytes);
        seeds.keep("database_files", &bytes[..20]);
    }
}

struct Seeds {
    folder: PathBuf,
    count: usize,
}

impl Seeds {
    fn keep(&mut self, target: &str, bytes: &[u8]) {
        self.count += 1;
        let folder = self.folder.join(target);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(format!("seed{:03}", self.count)), bytes).expect("written");
    }

    fn frame<T: Wire>(&mut self, target: &str, frame: &T) {
        let mut bytes = vec![frame.kind()];
        frame.encode_body(&mut bytes);
        self.keep(target, &bytes);
        if bytes.len() < 200 {
            let mut stream = vec![3, 1, 7, 2];
            stream.extend((bytes.len() as u32).to_be_bytes());
            stream.extend(bytes);
            self.keep("framing", &stream);
        }
    }

    fn frames(&mut self) {
        let ping = Ping { sent_micros: 5, clock_ms: 6 };
        let haves = || Haves { haves: vec![Have { log: LOG, upto: 3, chain: 4 }] };
        let events = || vec![Arc::new(event(1)), Arc::new(event(2))];
        let logs = || Logs { logs: vec![LOG] };
        let (addr, standing) = ("s1:7".into(), Standing::Lossy);
        let common = None;
        let hello = Hello { minor: 0, origin: LOG.origin, wall_ms: 9, addr, standing, common };
        let mut bytes = Vec::new();
        Frame::Hello(hello.clone()).encode_body(&mut bytes);
        self.keep("frame", &bytes);
        let place = (AccountId::new(1), Some(RoomId::public("lobby")));
        for frame in [
            Frame::Hello(hello),
            Frame::Ping(ping),
            Frame::Pong(ping),
            Frame::Digest(Digest { hash: 7 }),
            Frame::Vector(haves()),
            Frame::Have(haves()),
            Frame::Want(Want { log: LOG, from: 1, to: 2, push: Push::Start }),
            Frame::Prune(logs()),
            Frame::Lagging(Lagging {}),
            Frame::Leaving(Leaving {}),
            Frame::Events(Events { log: LOG, base: 1, hops: 0, events: events(), chain: 9 }),
            Frame::Range(Range { log: LOG, base: 1, events: events(), chain: 9, done: true }),
            Frame::Presence(PresenceUpdate { full: true, here: vec![place], gone: vec![place] }),
            Frame::RolledBack(RolledBack { log: LOG, announced: 3, held: 2 }),
            Frame::Forked(logs()),
        ] {
            self.frame("frame", &frame);
        }
    }

    fn requests(&mut self) {
        let request = RequestId(7);
        let room = || String::from("lobby");
        let plain = s::Plain { request };
        for request in [
            Request::Attach(s::Attach {
                minor: 0,
                token: vec![1, 2, 3],
                nick: Some("ann".into()),
                cursor: vector(),
                rooms: vec![s::Opened { room: room(), since: Hlc::at_ms(5) }],
                direct: s::Direct::Take,
            }),
            Request::Open(s::Open { request, room: room(), last: 5, mode: s::Mode::Join }),
            Request::Close(s::Close { request, room: room(), mode: s::CloseMode::Leave }),
            Request::Send(s::Send {
                request,
                to: Target::Room(room()),
                mid: Mid::at(5, 6),
                text: "hello".into(),
                level: Level::Stored,
            }),
            Request::Nick(s::Nick { request, nick: "ann".into() }),
            Request::Topic(s::Topic { request, room: room(), text: Some("tea".into()) }),
            Request::Kick(s::Kick { request, room: room(), nick: "bob".into(), reason: room() }),
            Request::Role(s::Role { request, room: room(), nick: "bob".into(), rank: Rank::Op }),
            Request::History(s::History {
                request,
                of: Target::Nick("bob".into()),
                before: Some(key()),
                limit: 5,
            }),
            Request::Rooms(plain),
            Request::Who(s::Who { request, room: room() }),
            Request::Status(plain),
            Request::Ping(plain),
            Request::Mark(s::Mark { request, shown: vec![(RoomId::new(1), key())] }),
            Request::Detach(plain),
            Request::Verify(plain),
            Request::Keep(s::Keep { request, room: room(), keep: Retention::default() }),
        ] {
            self.frame("request", &request);
        }
    }

    /// One of each kind by its number: whatever parses is a beginning.
    fn items(&mut self) {
        let refused = s::Refused {
            request: RequestId(1),
            code: s::Code::Busy,
            reason: "soon".into(),
            retry_ms: 5,
        };
        self.frame("item", &Item::Refused(refused));
        let verified =
            s::Verified { request: RequestId(1), events: 5, done: true, damage: Some("no".into()) };
        self.frame("item", &Item::Verified(verified));
        let token = s::TokenBytes { token: vec![1, 2], vector: vector() };
        self.frame("item", &Item::Token(token));
        for (kind, _) in Item::KINDS {
            for length in [0usize, 8, 40, 120] {
                let bytes: Vec<u8> =
                    std::iter::once(*kind).chain(std::iter::repeat_n(1, length)).collect();
                self.keep("item", &bytes);
            }
        }
    }

    fn texts(&mut self) {
        let hash = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        let url = format!("127.0.0.1:7001,[::1]:7002,chat.example:7003/#{hash}");
        for text in [
            key().to_string(),
            RoomId::public("lobby").to_string(),
            "s1".into(),
            "lobby".into(),
            "ann~".into(),
            hash.into(),
            format!("chatty://{url}"),
            url,
        ] {
            self.keep("text", text.as_bytes());
        }
        let slot = postcard::to_allocvec(&Slot::new("s1").expect("a name")).expect("a name");
        self.keep("text", &slot);
    }

    fn files(&mut self) {
        let authority = Authority::generate(ClusterId::new(9)).expect("an authority");
        let slot = Slot::new("s1").expect("a name");
        let (cluster, server) = (ClusterId::new(9), ServerId::new(1));
        let identity = Identity { cluster, slot, generation: 1, server };
        let issued = authority
            .issue_server(&identity, std::time::Duration::from_secs(90 * 86_400))
            .expect("a certificate");
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let pem = issued.cert_pem.as_bytes();
        let der = CertificateDer::from_pem_slice(pem).expect("a certificate");
        self.keep("certificate", &der);
        let both = format!("{}\0{}", authority.cert_pem(), authority.key_pem());
        self.keep("certificate", both.as_bytes());
        self.keep("certificate", format!("cluster {cluster}\n{}\n", "01".repeat(32)).as_bytes());
        let config = "name = \"s1\"\nlisten = \"127.0.0.1:7400\"\ndata = \"d\"\n\
             certificate = \"c\"\nkey = \"k\"\nauthority = \"a\"\ntoken_key = \"t\"\nfeeds = 2\n\
             servers = [{ name = \"s1\", addr = \"s1:7\" }, { name = \"s2\", addr = \"s2:7\" }]\n\
             [limits]\nsessions = 5\nsession_rate = 1\nroom_rate = 4000000000\nguest_rate = 1\n\
             guest_burst = 4000000000\naccounts = 1\nrooms = 1\nrooms_founded = 1\nlist_rate = 1\n\
             disk_reserve_mib = 18446744073709551615\nwatchdog_seconds = 1\n\
             [retention]\ndays = 3\nmessages = 5\ncheck_seconds = 1\n\
             [log]\nlevel = \"info\"\nformat = \"json\"\n";
        self.keep("config", config.replace("18446744073709551615", "9").as_bytes());
        self.keep(
            "config",
            config.replace("= 18446744073709551615", "= 9223372036854775807").as_bytes(),
        );
        let client = format!(
            "cluster = \"{cluster}\"\nauthority = \"{}\"\n[[servers]]\nname = \"s1\"\naddr = \"s1:7\"\n",
            authority.fingerprint()
        );
        self.keep("client_files", client.as_bytes());
        let kept = format!("{{\"account\":\"{}\",\"token\":\"00ff\"}}", AccountId::new(1));
        self.keep("client_files", kept.as_bytes());
        let said = Note::Said {
            nth: 1,
            to: Target::Room("lobby".into()),
            text: "hello".into(),
            level: Level::Stored,
        };
        let named = Note::Named { nth: 1, mid: Mid::at(5, 6) };
        let notes = Note::encode(&vec![Note::Account(AccountId::new(1)), said, named]);
        self.keep("client_files", &notes);
        let mut outbox = vec![0, 0, u8::try_from(notes.len()).expect("short notes")];
        outbox.extend(&notes);
        outbox.extend([0, 1, 0]);
        self.keep("client_files", &outbox);
        // Records of a backup, each after its length: a head and a piece.
        let source = (cluster, "s1", server);
        let holders = vec![("s1", server, 1u64)];
        let head = postcard::to_allocvec(&(0u8, source, 5u64, holders)).expect("a head");
        let event = event(1);
        let chain = event.chain(0);
        let piece = postcard::to_allocvec(&(1u8, LOG, 1u64, vec![event], chain)).expect("a piece");
        let end = postcard::to_allocvec(&(3u8, 1u64, [0u8; 32])).expect("an end");
        let mut records = Vec::new();
        for record in [head, piece, end] {
            records.push(u8::try_from(record.len()).expect("a short record"));
            records.extend(record);
            self.keep("backup", &records);
        }
    }

    fn rows(&mut self) {
        let mut log = LOG.origin.to_bytes().to_vec();
        log.extend([0, 0]);
        let with = |head: &[u8], tail: &[u8]| [head, tail].concat();
        let numbers: Vec<u8> = [3u64, 5, 7].iter().flat_map(|n| n.to_be_bytes()).collect();
        let room = RoomId::public("lobby").to_bytes();
        let place = [&5u64.to_be_bytes()[..], &LOG.origin.to_bytes(), &1u64.to_be_bytes()].concat();
        let event = with(&9u64.to_be_bytes(), &postcard::to_allocvec(&event(1)).expect("an event"));
        let identity = [&Mid::at(5, 6).to_bytes()[..], &[0; 16], &room].concat();
        let register = chatty_core::register::write_of(
            LOG,
            &Event {
                kind: 9,
                body: Body::from(RoomCreate { name: "lobby".into() }).encode(),
                ..self::event(1)
            },
        );
        let (key, value) = register.expect("a register");
        let (key, value) = (
            postcard::to_allocvec(&key).expect("a key"),
            postcard::to_allocvec(&value).expect("a value"),
        );
        let rows: Vec<(u8, Vec<u8>, Vec<u8>)> = vec![
            (0, with(&log, &1u64.to_be_bytes()), event),
            (1, with(&room, &place), Vec::new()),
            (2, identity, place.clone()),
            (3, key, value),
            (4, with(b"l", &log), numbers.clone()),
            (4, with(&with(b"d", &ServerId::new(1).to_bytes()), &log), numbers[..8].to_vec()),
            (4, b"ss2".to_vec(), with(&ServerId::new(11).to_bytes(), &numbers[..8])),
            (4, with(b"r", &room), numbers[..16].to_vec()),
            (4, b"h".to_vec(), vec![1]),
            (4, b"o".to_vec(), with(&LOG.origin.to_bytes(), &[0])),
            (4, b"f".to_vec(), vec![0, 0, 0, 1]),
        ];
        let mut all = Vec::new();
        for (table, key, value) in rows {
            let mut row = vec![table, key.len() as u8];
            row.extend(key);
            row.push(value.len() as u8);
            row.extend(value);
            for target in ["rows", "database"] {
                self.keep(target, &row);
            }
            all.extend(row);
        }
        for target in ["rows", "database"] {
            self.keep(target, &all);
        }
    }
}

fn key() -> Key {
    Key { hlc: Hlc::at_ms(5), origin: LOG.origin, seq: 1 }
}

fn vector() -> Vector {
    [(LOG, 3)].into_iter().collect()
}

fn event(seq: u64) -> Event {
    let body = Body::from(Msg { nick: "ann".into(), text: "hello".into() });
    Event {
        seq,
        hlc: Hlc::at_ms(seq),
        wall_ms: seq,
        room: RoomId::public("lobby"),
        actor: AccountId::new(1),
        mid: Mid::at(seq, 1),
        kind: body.kind(),
        body: body.encode(),
    }
}

fn bodies() -> Vec<Body> {
    let nick = || String::from("ann");
    let account = AccountId::new(2);
    vec![
        Boot {
            server: ServerId::new(1),
            slot: Slot::new("s1").expect("a name"),
            generation: 1,
            prev: Some((LOG.origin, 3)),
            addr: "s1:7".into(),
        }
        .into(),
        Msg { nick: nick(), text: "hello".into() }.into(),
        Direct { nick: nick(), to: account, to_nick: nick(), text: "hello".into() }.into(),
        Join { nick: nick() }.into(),
        Leave { nick: nick() }.into(),
        Kick { nick: nick(), account, account_nick: nick(), reason: nick() }.into(),
        Role { nick: nick(), account, account_nick: nick(), role: Rank::Op }.into(),
        Topic { nick: nick(), text: "tea".into() }.into(),
        RoomCreate { name: "lobby".into() }.into(),
        Nick { nick: nick(), before: String::new() }.into(),
        Mark { seen: vector() }.into(),
        Keep { nick: nick(), keep: Retention { age_ms: 5, messages: 6 } }.into(),
        Floor { ms: 5 }.into(),
    ]
}

//! Writes inputs to begin with: `seeds FOLDER` makes a folder for each target in it.
//!
//! One of each kind of frame, request, item, event, row and note; files as the programs write them.

use std::path::PathBuf;

use chatty_core::client::Note;
use chatty_core::event::{Body, CHAIN_START, Event, Msg};
use chatty_core::id::{AccountId, ClusterId, Log, Mid, Origin, RoomId, ServerId, Slot};
use chatty_core::session::{Level, Target};
use chatty_core::time::{Hlc, Key};
use chatty_core::token::{Token, TokenKey};
use chatty_core::vector::Vector;
use chatty_fuzz::kinds;
use chatty_net::{Authority, Identity};

const LOG: Log = Log::of(Origin::new(5));

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).expect("a folder"));
    let mut seeds = Seeds { folder, count: 0 };
    seeds.kinds();
    let account = AccountId::new(3);
    let token = Token { cluster: ClusterId::new(9), account, vector: vector(), hlc: Hlc::at_ms(5) };
    let sealed = token.seal(&TokenKey::new([7; 32]));
    seeds.keep("token", &sealed[..sealed.len() - 32]);
    seeds.texts();
    seeds.files();
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

    /// One of each; what travels also as a stream that comes in pieces.
    fn kinds(&mut self) {
        for target in kinds::TARGETS {
            for kind in kinds::values(target) {
                self.keep(target, &kind.bytes);
                let travels = matches!(*target, "frame" | "request" | "item");
                let is_first = kind.name.starts_with("kind-first-");
                if travels && !is_first && kind.bytes.len() < 200 {
                    let mut stream = vec![3, 1, 7, 2];
                    stream.extend((kind.bytes.len() as u32).to_be_bytes());
                    stream.extend(kind.bytes);
                    self.keep("framing", &stream);
                }
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
        self.backup(cluster, server);
    }

    /// Records of a backup, each after its length: a head, a piece, an end with the hash of both.
    fn backup(&mut self, cluster: ClusterId, server: ServerId) {
        let (source, holders) = ((cluster, "s1", server), vec![("s1", server, 1u64)]);
        let head = postcard::to_allocvec(&(0u8, source, 5u64, holders)).expect("a head");
        let event = event(1);
        let chain = event.chain(CHAIN_START);
        let piece = postcard::to_allocvec(&(1u8, LOG, 1u64, vec![event], chain)).expect("a piece");
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"chatty backup 1\n");
        for record in [&head, &piece] {
            hasher.update(&(record.len() as u32).to_be_bytes()).update(record);
        }
        let hash = *hasher.finalize().as_bytes();
        let end = postcard::to_allocvec(&(3u8, 1u64, hash)).expect("an end");
        let mut records = Vec::new();
        for record in [head, piece, end] {
            records.push(u8::try_from(record.len()).expect("a short record"));
            records.extend(record);
            self.keep("backup", &records);
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

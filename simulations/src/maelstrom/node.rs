//! A Maelstrom node: the real [`Broadcast`] between lines in and lines out.
//!
//! [`Node::line`] for a line that came, [`Node::flush`] after those of one moment (it fires what is
//! due, too), then [`Node::poll`] until it is empty, and again by [`Node::next_deadline`]. What a node
//! has to say to another after one flush is one message.
//!
//! The members of the cluster are those that `init` names, all linked to each other: Maelstrom's
//! network takes messages from any node to any other, loses them without a word, and reports no links.
//! The topology that it offers is read and not followed. A client's broadcast is an event of the node's
//! own log; it is acknowledged when the node's disk has it, and read from where it is on the disk. The
//! disk is memory: a node that is killed is not started again with it, here as in Maelstrom.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use chatty_core::broadcast::{Broadcast, Counts};
use chatty_core::clock::Clock;
use chatty_core::config::{Config, Feeds, Limits, Links, Me, Mesh, Start, Timing};
use chatty_core::event::{Body, Event, Msg, TEXT_BYTES_MAX};
use chatty_core::frame::Frame;
use chatty_core::id::{AccountId, ClusterId, LinkId, Log, Mid, Origin, RoomId, ServerId, Slot};
use chatty_core::io::{Output, Peer, Standing};
use chatty_core::session::ServerAddr;
use chatty_core::store::Batch;
use chatty_core::time::{Hlc, Now, Time};
use chatty_core::token::TokenKey;
use serde_json::{Map, Value, json};

use super::message::{Code, Message, carried, carry};
use crate::disk::Disk;

/// Nodes of a cluster, at most.
pub const NODES_MAX: usize = 1000;
/// Values that a node takes from clients, at most; beyond, it says that its disk is full.
pub const VALUES_MAX: u64 = 1_000_000;

/// What a node may be told at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many nodes push each other node's values to this one.
    pub feeds: NonZeroU8,
    /// How long a message travels, usually. Repair waits for what is probably under way.
    pub hop: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { feeds: NonZeroU8::MIN, hop: Duration::from_millis(100) }
    }
}

impl Options {
    /// Lone `Have`s wait for some company for 2 seconds: with 25 nodes and two broadcasts a second
    /// from each, 2 % of them find none.
    fn timing(self) -> Timing {
        let ms = Duration::from_millis;
        let usual = Timing::default();
        Timing {
            have_tick: ms(2000),
            ack_tick: ms(2000), // clients are answered by this node's own disk
            // News of an event overtake it by no more than a hop.
            ihave_timeout: self.hop,
            gap_delay: self.hop,
            want_retry_min: self.hop * 3, // a round trip, and half of one for a slow day
            want_retry_max: self.hop * 4,
            // A `Have` may wait for 2 seconds and travels both ways.
            suspect_after: ms(2500) + self.hop * 5,
            ping_period: ms(500),
            ..usual
        }
    }
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A message, as a line without its end: for standard output.
    Line(String),
    /// Something was wrong and nothing was done: for standard error.
    Complaint(String),
}

/// A node.
pub struct Node {
    options: Options,
    seed: u64,
    member: Option<Member>,
    out: VecDeque<Said>,
}

/// A node that knows who it is.
struct Member {
    name: String,
    names: Vec<String>,
    broadcast: Broadcast,
    clock: Clock,
    disk: Disk,
    /// Clients that wait for the fsync of an own event, by its number.
    waiting: BTreeMap<u64, (String, u64)>,
    /// What is on the disk, in the order in which it came.
    values: Vec<Value>,
    /// The same, to take each value once.
    texts: BTreeSet<String>,
}

impl Node {
    /// A node that has to be told by `init` who it is. `seed` feeds its randomness.
    pub const fn new(options: Options, seed: u64) -> Self {
        Self { options, seed, member: None, out: VecDeque::new() }
    }

    /// A line came.
    pub fn line(&mut self, now: Now, line: &str) {
        match Message::parse(line) {
            Ok(message) => self.message(now, &message),
            Err(error) => self.complain(format!("ignored {error}")),
        }
    }

    fn message(&mut self, now: Now, message: &Message) {
        if message.kind() == "frames" {
            if let Err(why) = self.frames(now, message) {
                self.complain(format!("ignored frames of {:?}: {why}", message.src));
            }
            return;
        }
        let done = match message.kind() {
            "init" => self.init(now, message).map(|()| Some(body("init_ok"))),
            "topology" => self.topology(message).map(|()| Some(body("topology_ok"))),
            "broadcast" => self.broadcast(now, message).map(|()| None),
            "read" => self.read(),
            "error" => {
                // Nothing was asked of anybody that could end in one.
                self.complain(format!("ignored an error: {}", message.line()));
                return;
            }
            "" => Err((Code::Malformed, "the body has no \"type\"".into())),
            other => {
                let known = "init, topology, broadcast and read";
                Err((Code::NotSupported, format!("{other:?} is not among {known}")))
            }
        };
        match done {
            Ok(Some(answer)) => self.answer(message, answer),
            Ok(None) => {} // answered when the disk has it
            Err((code, text)) => self.refuse(message, code, &text),
        }
    }

    fn init(&mut self, now: Now, message: &Message) -> Result<(), (Code, String)> {
        let wrong = |text: &str| (Code::Malformed, text.to_string());
        let name = message.text("node_id").ok_or_else(|| wrong("\"node_id\" is no text"))?;
        let Some(Value::Array(ids)) = message.body.get("node_ids") else {
            return Err(wrong("\"node_ids\" is no list"));
        };
        let names: Option<Vec<String>> =
            ids.iter().map(|id| id.as_str().map(ToString::to_string)).collect();
        let names = names.ok_or_else(|| wrong("\"node_ids\" has something that is no text"))?;
        if names.iter().collect::<BTreeSet<_>>().len() < names.len() {
            return Err(wrong("\"node_ids\" names a node twice"));
        }
        if names.len() > NODES_MAX {
            return Err((Code::Malformed, format!("more than {NODES_MAX} nodes")));
        }
        if !names.iter().any(|other| other == name) {
            return Err(wrong("\"node_id\" is not among \"node_ids\""));
        }
        match &self.member {
            Some(member) if member.name == name && member.names == names => Ok(()),
            Some(member) => {
                let text =
                    format!("this is {} already, of other nodes or another name", member.name);
                Err((Code::Precondition, text))
            }
            None => {
                self.member = Some(Member::new(self.options, self.seed, now, name, names));
                Ok(())
            }
        }
    }

    /// It may choose its own neighbours, and knows better ones than a grid's.
    fn topology(&self, message: &Message) -> Result<(), (Code, String)> {
        self.member()?;
        match message.body.get("topology") {
            Some(Value::Object(_)) => Ok(()),
            _ => Err((Code::Malformed, "\"topology\" is no object".into())),
        }
    }

    fn broadcast(&mut self, now: Now, message: &Message) -> Result<(), (Code, String)> {
        let member = self.member.as_mut().ok_or_else(uninitialised)?;
        let Some(value) = message.body.get("message") else {
            return Err((Code::Malformed, "\"message\" is missing".into()));
        };
        let text = value.to_string();
        if text.len() > TEXT_BYTES_MAX {
            let text = format!("\"message\" has {} bytes, over {TEXT_BYTES_MAX}", text.len());
            return Err((Code::Malformed, text));
        }
        if member.broadcast.is_full() || member.broadcast.next_seq() > VALUES_MAX {
            return Err((Code::Unavailable, "the disk takes no more".into()));
        }
        let seq = member.append(now, &message.src, text);
        if let Some(id) = message.id() {
            member.waiting.insert(seq, (message.src.clone(), id));
        }
        Ok(())
    }

    fn read(&self) -> Result<Option<Map<String, Value>>, (Code, String)> {
        let mut answer = body("read_ok");
        answer.insert("messages".into(), Value::Array(self.member()?.values.clone()));
        Ok(Some(answer))
    }

    fn frames(&mut self, now: Now, message: &Message) -> Result<(), String> {
        let member = self.member.as_mut().ok_or_else(|| "not initialised yet".to_string())?;
        let link = member.link(&message.src).ok_or("it is no node of this cluster")?;
        let frames = carried(&message.body).map_err(|error| error.to_string())?;
        for frame in frames {
            member.broadcast.frame(now, link, frame)?;
        }
        for stamp in member.broadcast.take_received() {
            member.clock.observe(now, stamp);
        }
        Ok(())
    }

    fn member(&self) -> Result<&Member, (Code, String)> {
        self.member.as_ref().ok_or_else(uninitialised)
    }

    /// The end of what came at one moment: fires what is due, and says what there is to say.
    pub fn flush(&mut self, now: Now) {
        let Some(member) = &mut self.member else { return };
        if member.broadcast.next_deadline().is_some_and(|at| at <= now.time) {
            member.broadcast.handle_timeout(now);
        }
        let mut frames: BTreeMap<LinkId, Vec<Arc<Frame>>> = BTreeMap::new();
        let mut answers = Vec::new();
        loop {
            member.broadcast.flush(now);
            let mut done = true;
            while let Some(output) = member.broadcast.poll_output() {
                done = false;
                match output {
                    Output::Send { links, class, frame, cost } => {
                        for link in links {
                            frames.entry(link).or_default().push(frame.clone());
                            member.broadcast.wrote(link, class, cost);
                        }
                    }
                    Output::Persist(token, batch) => {
                        member.disk.commit(&batch);
                        if let Some(batch) = member.broadcast.persisted(now, token) {
                            answers.extend(member.show(&batch));
                        }
                    }
                    Output::Read(token, query) => {
                        let rows = member.disk.read(&query);
                        member.broadcast.read_done(token, rows);
                    }
                    Output::Log(severity, what) => {
                        self.out.push_back(Said::Complaint(format!("{severity:?}: {what}")));
                    }
                    Output::Damaged(what) => self.out.push_back(Said::Complaint(what)),
                    // Nothing waits for the network, no link goes down, there are no sessions.
                    Output::DropQueue(..)
                    | Output::Close(..)
                    | Output::Deliver { .. }
                    | Output::CloseSession(_) => {}
                }
            }
            if done {
                break;
            }
        }
        for (link, frames) in frames {
            let Some(dest) = member.name_of(link) else { continue };
            let message = Message { src: member.name.clone(), dest, body: carry(&frames) };
            self.out.push_back(Said::Line(message.line()));
        }
        let src = member.name.clone();
        for (client, id) in answers {
            self.reply(&src, &client, id, body("broadcast_ok"));
        }
    }

    /// When [`Self::flush`] has something to do though nothing came.
    pub fn next_deadline(&self) -> Option<Time> {
        self.member.as_ref()?.broadcast.next_deadline()
    }

    /// The next thing it says.
    pub fn poll(&mut self) -> Option<Said> {
        self.out.pop_front()
    }

    /// What a `read` is answered with now.
    pub fn values(&self) -> &[Value] {
        self.member.as_ref().map_or(&[], |member| &member.values)
    }

    /// What its broadcast did so far.
    pub fn counts(&self) -> Counts {
        self.member.as_ref().map(|member| member.broadcast.counts()).unwrap_or_default()
    }

    /// Panics if a rule of the broadcast is broken.
    pub fn assert_invariants(&self) {
        if let Some(member) = &self.member {
            member.broadcast.assert_invariants();
        }
    }

    fn answer(&mut self, message: &Message, answer: Map<String, Value>) {
        if let Some(id) = message.id() {
            self.reply(&message.dest, &message.src, id, answer);
        }
    }

    fn refuse(&mut self, message: &Message, code: Code, text: &str) {
        match message.id() {
            Some(id) => {
                let mut answer = body("error");
                answer.insert("code".into(), json!(code as u64));
                answer.insert("text".into(), text.into());
                self.reply(&message.dest, &message.src, id, answer);
            }
            None => self.complain(format!("ignored {}: {text}", message.line())),
        }
    }

    fn reply(&mut self, src: &str, dest: &str, id: u64, mut answer: Map<String, Value>) {
        answer.insert("in_reply_to".into(), id.into());
        let message = Message { src: src.into(), dest: dest.into(), body: answer };
        self.out.push_back(Said::Line(message.line()));
    }

    fn complain(&mut self, what: String) {
        self.out.push_back(Said::Complaint(what));
    }
}

fn body(kind: &str) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("type".into(), kind.into());
    body
}

fn uninitialised() -> (Code, String) {
    (Code::Unavailable, "this node was not told by init who it is".into())
}

/// The slot of the n-th node: node ids may be anything, and all nodes are told them in one order.
fn slot_of(n: usize) -> Slot {
    Slot::new(format!("n{n}")).unwrap_or_else(|name| unreachable!("{name} is a slot"))
}

/// Node ids say nothing that could tell two runs of one node apart, and Maelstrom starts none again.
fn origin_of(n: usize) -> Origin {
    Origin::new(n as u128 + 1)
}

impl Member {
    fn new(options: Options, seed: u64, now: Now, name: &str, names: Vec<String>) -> Self {
        let me = names.iter().position(|other| other == name).unwrap_or(0);
        let servers = (0..names.len())
            .map(|n| ServerAddr { name: slot_of(n), addr: String::new() })
            .collect();
        let timing = options.timing();
        let clock = Clock::new(Hlc::default(), timing.max_skew_ms);
        let config = Config {
            me: Me {
                cluster: ClusterId::new(0),
                slot: slot_of(me),
                generation: 1,
                server: ServerId::new(me as u128 + 1),
                origin: origin_of(me),
                prev: None,
                addr: String::new(),
            },
            servers,
            token_key: TokenKey::new([0; 32]),
            feeds: Feeds::Some(options.feeds),
            mesh: Mesh { start: Start::Pruned, links: Links::Lossy },
            timing,
            limits: Limits::default(),
            retention: Default::default(),
        };
        let disk = Disk::default();
        let mut broadcast = Broadcast::new(&config, &disk.load(), seed, now);
        for n in (0..names.len()).filter(|n| *n != me) {
            let peer = Peer {
                slot: slot_of(n),
                generation: 1,
                server: ServerId::new(n as u128 + 1),
                origin: origin_of(n),
                standing: Standing::Sound,
            };
            broadcast.link_up(peer, LinkId(n as u64));
        }
        Self {
            name: name.into(),
            names,
            broadcast,
            clock,
            disk,
            waiting: BTreeMap::new(),
            values: Vec::new(),
            texts: BTreeSet::new(),
        }
    }

    /// The link to another node.
    fn link(&self, name: &str) -> Option<LinkId> {
        let other = |known: &String| known == name && *known != self.name;
        self.names.iter().position(other).map(|n| LinkId(n as u64))
    }

    fn name_of(&self, LinkId(n): LinkId) -> Option<String> {
        self.names.get(usize::try_from(n).ok()?).cloned()
    }

    /// A client's value becomes an event of the own log; its number.
    fn append(&mut self, now: Now, client: &str, text: String) -> u64 {
        let hlc = self.clock.stamp(now, Hlc::default());
        let seq = self.broadcast.next_seq();
        let body = Body::from(Msg { nick: client.into(), text });
        self.broadcast.append(Event {
            seq,
            hlc,
            wall_ms: now.wall_ms,
            room: RoomId::public("broadcast"),
            actor: AccountId::new(0),
            // One id for each stamp and node: no two values are one message.
            mid: Mid::new((u128::from(hlc.bits()) << 64) | self.broadcast.server().bits()),
            kind: body.kind(),
            body: body.encode(),
        });
        seq
    }

    /// What is on the disk now can be read; the clients whose values these are, and their requests.
    fn show(&mut self, batch: &Batch) -> Vec<(String, u64)> {
        let own = Log::of(Origin::new(self.broadcast.server().bits()));
        let mut answers = Vec::new();
        for entry in &batch.entries {
            if let Some(Body::Msg(msg)) = entry.event.body()
                && let Ok(value) = serde_json::from_str(&msg.text)
                && self.texts.insert(msg.text)
            {
                self.values.push(value);
            }
            if entry.log == own {
                answers.extend(self.waiting.remove(&entry.event.seq));
            }
        }
        answers
    }
}

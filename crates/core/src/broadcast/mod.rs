//! Reliable broadcast: every event of every log reaches every connected server, once.
//!
//! Textbook eager reliable broadcast (Cachin, Guerraoui, Rodrigues, algorithm 3.3: relay on first
//! receipt) that the *receiver* prunes, per log, down to `feeds` feeding links (Plumtree, Leitao
//! et al. 2007, with one tree for each origin as in Riak). What pushing misses is pulled: a
//! durable prefix is announced by `Have`, asked for by `Want`, served from memory or disk by
//! `Range`, retried for ever while a live link claims it.
//!
//! - `mod.rs`: logs, links, applying and pushing events
//! - `feeds.rs`: who pushes what to whom
//! - `plan.rs`: who does so before anybody has asked for anything
//! - `repair.rs`: what is missing, and asking for it
//! - `serve.rs`: answering those who ask
//! - `acks.rs`: what is durable, here and elsewhere
//! - `lossy.rs`: the same over links that lose frames without a word
//! - `standing.rs`: how far disks are to be believed
//! - `untimed.rs`: the same without a clock, for model checkers
//!
//! This module decides nothing about rooms or clients, and works without them.

mod acks;
mod feeds;
mod lossy;
mod plan;
mod repair;
mod serve;
mod standing;
mod untimed;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::bugs::bug;
use crate::config::{Config, Feeds, Limits, Links, Start, Timing, VOTERS_MAX};
use crate::event::{BODY_BYTES_MAX, CHAIN_START, Event};
use crate::frame::{Class, EVENTS_BYTES_MAX, Events, Frame, Logs, Push, Range};
use crate::id::{LinkId, Log, PersistToken, ReadToken, SEQ_MAX, ServerId, Slot};
use crate::io::{Output, Peer, Severity, Standing};
use crate::rng::Rng;
use crate::store::{Batch, Entry, Floors, Loaded, LoadedLog, SlotHolder};
use crate::time::{Hlc, Now, Time};
use crate::vector::Vector;

use feeds::Feeding;
use lossy::{Proof, Sent};
use plan::Known;
use repair::{Answer, Repair};
use serve::Serving;
pub use untimed::{Restarts, Spent, Timer};

/// Logs a server knows, at most: one for every process start in the cluster's life. A peer that
/// names more is cut off.
pub const LOGS_MAX: usize = 1 << 20;

/// One log as this server holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LogState {
    /// Number of the next event to apply; everything below is held.
    next: u64,
    /// The chain at `next - 1`.
    chain: u64,
    /// Fsynced here.
    durable: u64,
    /// The chain at `durable`.
    durable_chain: u64,
    /// The newest events, ending at `next - 1`.
    tail: VecDeque<Entry>,
    /// Events whose predecessors are missing, with the chain where a frame ended.
    buffer: BTreeMap<u64, (Arc<Event>, Option<u64>)>,
    buffer_bytes: usize,
    /// Who pushes it.
    feeding: Feeding,
    /// What is missing.
    repair: Repair,
    /// Two contents were seen under one name: nothing of it is taken or given any more.
    forked: bool,
}

impl LogState {
    fn new(loaded: Option<&LoadedLog>) -> Self {
        let (upto, chain) = loaded.map_or((0, CHAIN_START), |l| (l.upto, l.chain));
        Self {
            next: upto + 1,
            chain,
            durable: upto,
            durable_chain: chain,
            tail: VecDeque::new(),
            buffer: BTreeMap::new(),
            buffer_bytes: 0,
            feeding: Feeding::default(),
            repair: Repair::default(),
            forked: false,
        }
    }

    /// Events held (durable or not).
    const fn held(&self) -> u64 {
        self.next - 1
    }

    /// The chain at `upto`, if it is still in memory.
    fn chain_at(&self, upto: u64) -> Option<u64> {
        if upto == self.held() {
            return Some(self.chain);
        }
        if upto == self.durable {
            return Some(self.durable_chain);
        }
        let first = self.tail.front()?.event.seq;
        let at = usize::try_from(upto.checked_sub(first)?).ok()?;
        self.tail.get(at).map(|entry| entry.chain)
    }
}

/// One link to another server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Link {
    peer: Peer,
    /// What it holds, received or durable, as far as it told or pushed.
    has: BTreeMap<Log, u64>,
    /// Logs whose durable prefix grew since it was told.
    unannounced: BTreeSet<Log>,
    /// When they are told at the latest.
    announce_at: Option<Time>,
    /// From when on they are told with whatever goes to it.
    ride_from: Time,
    /// When its own log is, at the latest: it waits for that to answer its clients.
    ack_at: Option<Time>,
    /// Whether it ever dropped what it had queued for us.
    lagged: bool,
    /// Whether something goes to it in this tick anyway, or must.
    touched: bool,
    /// Bytes of live frames that have not left yet.
    live_queued: usize,
    serving: Serving,
    /// Preferred when two links could serve: silent ones last, then the nearest.
    suspect: bool,
    rtt_micros: u64,
    /// Whether it has said all that it holds.
    told: bool,
    /// Whether it was told that its disk holds less than it announced.
    accused: bool,
    /// What was held here when it was last asked whether it holds the same.
    asked: Option<(u64, Arc<Vector>)>,
    /// What it has said of that so far.
    vector: BTreeMap<Log, u64>,
    /// What it has yet to show that it has, if it loses frames.
    proof: Proof,
}

impl Link {
    /// Whether its other end makes the events of that log.
    fn is_own(&self, log: Log) -> bool {
        self.peer.origin == log.origin
    }

    fn has(&self, log: Log) -> u64 {
        self.has.get(&log).copied().unwrap_or(0)
    }

    fn raise_has(&mut self, log: Log, upto: u64) {
        let has = self.has.entry(log).or_insert(0);
        *has = upto.max(*has);
    }
}

/// Events applied in this tick, to be pushed at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pushing {
    log: Log,
    entries: Vec<Entry>,
    hops: u8,
    from: Option<LinkId>,
}

/// Counters of what was done, for status, figures and the cost gates of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Counts {
    /// Copies of events pushed to links.
    pub payload_sends: u64,
    /// Copies of events sent because somebody asked.
    pub range_sends: u64,
    /// `Have` and `Vector` frames sent.
    pub have_frames: u64,
    /// `Want` frames sent.
    pub wants: u64,
    /// `Prune` frames sent.
    pub prunes: u64,
    /// Pushed copies of events that were here already.
    pub duplicates: u64,
    /// Live queues dropped because a link was too slow.
    pub overflows: u64,
}

/// The broadcast layer of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Broadcast {
    own: Log,
    server: ServerId,
    slot: Slot,
    voters: Vec<Slot>,
    majority: usize,
    feeds: Feeds,
    start: Start,
    lossy: bool,
    /// All servers of the configuration, in its order.
    ring: Vec<Slot>,
    timing: Timing,
    limits: Limits,
    rng: Rng,
    logs: BTreeMap<Log, LogState>,
    links: BTreeMap<LinkId, Link>,
    /// Logs with a timer armed.
    waiting: BTreeSet<Log>,
    /// What is fsynced here, log by log.
    durable: Arc<Vector>,
    /// What other disks hold, by their own word.
    disks: BTreeMap<ServerId, BTreeMap<Log, u64>>,
    slots: BTreeMap<Slot, SlotHolder>,
    /// How far the own disk is to be believed.
    standing: Standing,
    /// Disks that hold less than they announced.
    rolled_back: BTreeSet<ServerId>,
    /// What is below these is not kept.
    floors: Floors,
    pushing: Vec<Pushing>,
    /// What the next batch writes.
    unsaved: Batch,
    unsaved_bytes: usize,
    /// The batch that is being written.
    saving: Option<(PersistToken, Arc<Batch>, usize)>,
    /// When it was handed over.
    saving_since: Time,
    last_persist: u64,
    last_read: u64,
    /// Which link a read of ours serves.
    reads: BTreeMap<ReadToken, LinkId>,
    digest_at: Time,
    /// What of the own log everybody should have; only for lossy links, as what follows.
    sent: Sent,
    /// When anything last came from anybody.
    heard: Time,
    /// When one of those who owe a proof may be probed.
    probe_at: Time,
    buffers_bytes: usize,
    /// Stamps of events applied since they were last taken.
    received: Vec<Hlc>,
    counts: Counts,
    out: VecDeque<Output>,
}

impl Broadcast {
    /// A server's broadcast layer, with what its disk holds.
    pub fn new(config: &Config, loaded: &Loaded, seed: u64, now: Now) -> Self {
        let own = Log::of(config.me.origin);
        let mut logs: BTreeMap<_, _> =
            loaded.logs.iter().map(|l| (l.log, LogState::new(Some(l)))).collect();
        logs.entry(own).or_insert_with(|| LogState::new(None));
        let mut disks: BTreeMap<ServerId, BTreeMap<Log, u64>> = BTreeMap::new();
        for (server, log, upto) in &loaded.disks {
            disks.entry(*server).or_default().insert(*log, *upto);
        }
        let mut broadcast = Self {
            own,
            server: config.me.server,
            slot: config.me.slot.clone(),
            voters: config.voters().cloned().collect(),
            majority: config.majority(),
            feeds: config.feeds,
            start: config.mesh.start,
            lossy: config.mesh.links == Links::Lossy,
            ring: config.servers.iter().map(|server| server.name.clone()).collect(),
            timing: config.timing.clone(),
            limits: config.limits.clone(),
            rng: Rng::new(seed),
            logs,
            links: BTreeMap::new(),
            waiting: BTreeSet::new(),
            durable: Arc::new(loaded.logs.iter().map(|l| (l.log, l.upto)).collect()),
            disks,
            slots: loaded.slots.iter().map(|h| (h.slot.clone(), h.clone())).collect(),
            standing: loaded.standing,
            rolled_back: BTreeSet::new(),
            floors: Floors::default(),
            pushing: Vec::new(),
            unsaved: Batch::default(),
            unsaved_bytes: 0,
            saving: None,
            saving_since: now.time,
            last_persist: 0,
            last_read: 0,
            reads: BTreeMap::new(),
            digest_at: now.time,
            sent: Sent::default(),
            heard: now.time,
            probe_at: now.time,
            buffers_bytes: 0,
            received: Vec::new(),
            counts: Counts::default(),
            out: VecDeque::new(),
        };
        broadcast.digest_at = now.time + broadcast.timing.digest_period;
        broadcast.hold_slot(&Peer {
            slot: config.me.slot.clone(),
            generation: config.me.generation,
            server: config.me.server,
            origin: config.me.origin,
            standing: loaded.standing,
        });
        debug_assert!(broadcast.voters.len() <= VOTERS_MAX);
        broadcast
    }

    /// Appends an event to the server's own log; it is pushed and written at the end of the tick.
    /// The caller has stamped it: stamps rise strictly.
    pub fn append(&mut self, event: Event) -> Entry {
        let own = self.own;
        let Some(state) = self.logs.get_mut(&own) else {
            unreachable!("the own log is made with the state")
        };
        debug_assert_eq!(event.seq, state.next, "own events are numbered without holes");
        let entry = state.take(own, Arc::new(event), self.limits.tail_events);
        self.unsaved_bytes += entry.event.cost();
        self.unsaved.entries.push(entry.clone());
        self.push_later(own, entry.clone(), 0, None);
        entry
    }

    /// The number the next own event gets.
    pub fn next_seq(&self) -> u64 {
        self.logs.get(&self.own).map_or(1, |state| state.next)
    }

    /// Whether so much is waiting for the disk that nothing more should be accepted.
    pub const fn is_full(&self) -> bool {
        self.unsaved_bytes >= self.limits.unsaved_bytes
    }

    /// A link is up: everything is pushed to it from now on, and both say what they hold.
    pub fn link_up(&mut self, peer: Peer, link: LinkId) {
        self.hold_slot(&peer);
        let log = Log::of(peer.origin);
        let known = if self.logs.contains_key(&log) { Known::Before } else { Known::Now };
        self.ensure_log(log);
        if peer.standing == Standing::RolledBack {
            self.says_rolled_back(&peer);
        }
        self.links.insert(
            link,
            Link {
                peer,
                has: BTreeMap::new(),
                unannounced: BTreeSet::new(),
                announce_at: None,
                ride_from: Time::from_micros(0),
                ack_at: None,
                lagged: false,
                touched: false,
                live_queued: 0,
                serving: Serving::default(),
                suspect: false,
                rtt_micros: 0,
                told: false,
                accused: false,
                asked: None,
                vector: BTreeMap::new(),
                proof: Proof::default(),
            },
        );
        self.plan(link, known);
        if self.lossy {
            self.greet_lossy(link);
        } else {
            self.send_digest(link);
        }
        let made_there = self.links.get(&link).map(|link| Log::of(link.peer.origin));
        if let Some(log) = made_there.filter(|log| self.is_forked(*log)) {
            self.send_control(link, Frame::Forked(Logs { logs: vec![log] }));
        }
    }

    /// A link is down.
    pub fn link_down(&mut self, now: Now, link: LinkId) {
        let Some(gone) = self.links.remove(&link) else { return };
        self.reads.retain(|_, of| *of != link);
        self.unfeed(now, link);
        // The crash relay of lazy reliable broadcast (algorithm 3.2): what only the dead server
        // pushed to us, the others learn of at once.
        let log = Log::of(gone.peer.origin);
        if self.durable.upto(log) > 0 {
            for other in self.links.values_mut() {
                other.unannounced.insert(log);
                other.announce_at = Some(now.time);
            }
        }
    }

    /// A frame of the broadcast came. `Err` tells what the peer did wrong: it is to be cut off.
    ///
    /// # Errors
    /// A breach of the protocol, in words.
    pub fn frame(&mut self, now: Now, link: LinkId, frame: Frame) -> Result<(), String> {
        if !self.links.contains_key(&link) {
            return Ok(()); // in flight when the link went down
        }
        if self.lossy {
            self.heard = now.time;
        }
        let proves = self.lossy && matches!(frame, Frame::Have(_));
        let taken = self.take_frame(now, link, frame);
        if proves {
            self.prove(now, link);
        }
        taken
    }

    fn take_frame(&mut self, now: Now, link: LinkId, frame: Frame) -> Result<(), String> {
        match frame {
            Frame::Events(events) => self.on_events(now, link, events),
            Frame::Range(range) => self.on_range(now, link, range),
            Frame::Have(haves) => self.on_haves(now, link, &haves.haves, repair::Told::Growth),
            Frame::Vector(haves) => self.on_haves(now, link, &haves.haves, repair::Told::Whole),
            Frame::Digest(digest) => {
                self.on_digest(link, digest.hash);
                Ok(())
            }
            Frame::Want(want) => self.on_want(link, want),
            Frame::Prune(Logs { logs }) => {
                self.on_prune(link, &logs);
                Ok(())
            }
            Frame::Lagging(_) => {
                self.on_lagging(link);
                Ok(())
            }
            Frame::Forked(Logs { logs }) => {
                if logs.contains(&self.own) {
                    self.fork(self.own, link);
                }
                Ok(())
            }
            Frame::RolledBack(lost) => {
                let slot = self.links.get(&link).map(|link| link.peer.slot.to_string());
                self.on_rolled_back(&slot.unwrap_or_default(), lost);
                Ok(())
            }
            Frame::Hello(_)
            | Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Leaving(_)
            | Frame::Load(_)
            | Frame::Presence(_) => Ok(()),
        }
    }

    fn on_events(&mut self, now: Now, link: LinkId, frame: Events) -> Result<(), String> {
        let Events { log, base, hops, events, chain } = frame;
        let last = self.check(log, base, &events)?;
        self.link_has(link, log, last);
        self.feed(now, link, log, hops);
        self.receive(now, link, log, Chunk { base, events, chain, hops: hops.saturating_add(1) });
        Ok(())
    }

    fn on_range(&mut self, now: Now, link: LinkId, frame: Range) -> Result<(), String> {
        let Range { log, base, events, chain, done } = frame;
        let answer = match (done, events.is_empty()) {
            (_, true) => Answer::Nothing,
            (true, false) => Answer::Done,
            (false, false) => Answer::Piece,
        };
        if !events.is_empty() {
            let last = self.check(log, base, &events)?;
            self.link_has(link, log, last);
            // A repaired event goes on to those who still lack it, as if pushed from afar.
            self.receive(now, link, log, Chunk { base, events, chain, hops: u8::MAX });
        }
        self.on_range_answer(now, link, log, answer);
        Ok(())
    }

    /// Whether the events of a frame can be events `base..` of a log; the number of the last.
    fn check(&mut self, log: Log, base: u64, events: &[Arc<Event>]) -> Result<u64, String> {
        let last = base.saturating_sub(1).saturating_add(events.len() as u64);
        if base == 0 || events.is_empty() || last > SEQ_MAX {
            return Err("events without a place in their log".into());
        }
        let numbered = events.iter().zip(base..).all(|(event, seq)| event.seq == seq);
        if !numbered {
            return Err("events with a hole in their numbers".into());
        }
        if events.iter().any(|event| event.body.len() > BODY_BYTES_MAX) {
            return Err(format!("an event with a body over {BODY_BYTES_MAX} bytes"));
        }
        if !self.ensure_log(log) {
            return Err(format!("more than {LOGS_MAX} logs"));
        }
        Ok(last)
    }

    /// Makes the state of a log that was not known; false if there are too many.
    fn ensure_log(&mut self, log: Log) -> bool {
        if self.logs.contains_key(&log) {
            return true;
        }
        if self.logs.len() >= LOGS_MAX {
            return false;
        }
        let mut state = LogState::new(None);
        // Whoever dropped its queue may have dropped the first of this log with it, and not push it
        // until it is asked.
        let lagged = self.links.iter().filter(|(_, link)| link.lagged);
        lagged.for_each(|(id, _)| state.feeding.prune(*id));
        self.logs.insert(log, state);
        true
    }

    /// Applies what is new of a chunk, or keeps it until its predecessors come.
    fn receive(&mut self, now: Now, link: LinkId, log: Log, chunk: Chunk) {
        let full = self.is_full();
        let Some(state) = self.logs.get_mut(&log) else { return };
        if state.forked {
            return;
        }
        let last = chunk.base + chunk.events.len() as u64 - 1;
        if last < state.next {
            self.counts.duplicates += chunk.events.len() as u64;
            if state.chain_at(last).is_some_and(|held| held != chunk.chain) {
                self.fork(log, link);
            }
            return;
        }
        if log == self.own {
            self.fork(log, link); // events of this run that this run never made
            return;
        }
        if full {
            self.missing_later(now, log); // the disk is behind: asked for when there is room
            return;
        }
        if chunk.base > state.next {
            self.buffer(now, link, log, chunk);
            return;
        }
        let known = usize::try_from(state.next - chunk.base).unwrap_or(usize::MAX);
        self.counts.duplicates += known as u64;
        let Chunk { events, chain, hops, .. } = chunk;
        let mut end = state.chain;
        for event in &events[known.min(events.len())..] {
            end = event.chain(end);
        }
        if end != chain {
            self.fork(log, link);
            return;
        }
        for event in events.into_iter().skip(known) {
            self.apply(log, event, hops, link);
        }
        self.drain_buffer(now, log, hops, link);
        self.progressed(now, log);
    }

    fn apply(&mut self, log: Log, event: Arc<Event>, hops: u8, from: LinkId) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        let entry = state.take(log, event, self.limits.tail_events);
        self.received.push(entry.event.hlc);
        self.unsaved_bytes += entry.event.cost();
        self.unsaved.entries.push(entry.clone());
        self.push_later(log, entry, hops, Some(from));
    }

    /// Keeps events that came before their predecessors; full buffers drop them, and they are
    /// asked for later.
    fn buffer(&mut self, now: Now, link: LinkId, log: Log, chunk: Chunk) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        let last = chunk.base + chunk.events.len() as u64 - 1;
        for (event, seq) in chunk.events.into_iter().zip(chunk.base..) {
            let cost = event.cost();
            let fits = seq - state.next < self.limits.buffer_events as u64
                && state.buffer_bytes + cost <= self.limits.buffer_bytes
                && self.buffers_bytes + cost <= self.limits.buffers_bytes;
            if !fits {
                break;
            }
            let chain = (seq == last).then_some(chunk.chain);
            // What two peers say under one number need not be the same, nor of one length.
            let other =
                state.buffer.insert(seq, (event, chain)).map_or(0, |(event, _)| event.cost());
            state.buffer_bytes = state.buffer_bytes + cost - other;
            self.buffers_bytes = self.buffers_bytes + cost - other;
        }
        self.hole(now, link, log);
    }

    fn drain_buffer(&mut self, now: Now, log: Log, hops: u8, from: LinkId) {
        loop {
            let Some(state) = self.logs.get_mut(&log) else { return };
            let Some(first) = state.buffer.first_entry() else { return };
            let seq = *first.key();
            if seq > state.next {
                self.hole(now, from, log);
                return;
            }
            let (event, chain) = first.remove();
            state.buffer_bytes -= event.cost();
            self.buffers_bytes -= event.cost();
            if seq < state.next {
                continue;
            }
            if chain.is_some_and(|chain| event.chain(state.chain) != chain) {
                self.fork(log, from);
                return;
            }
            self.apply(log, event, hops, from);
        }
    }

    /// Two contents under one name: the same run of a server exists twice (a cloned machine), or
    /// somebody's bits rotted. The log is neither taken nor given until an operator decides.
    fn fork(&mut self, log: Log, link: LinkId) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        if state.forked || bug!(ForkIgnored) {
            return;
        }
        state.forked = true;
        self.buffers_bytes -= state.buffer_bytes;
        state.buffer_bytes = 0;
        state.buffer.clear();
        state.repair = Repair::default();
        self.waiting.remove(&log);
        let held = state.held();
        let peer = self.links.get(&link).map_or_else(String::new, |l| l.peer.slot.to_string());
        let what = if log == self.own {
            format!(
                "FORK: {peer} has events of this run ({log}) that this server never made: the run \
                 goes on twice, as if the machine had been cloned. This server takes no writes any \
                 more (it goes on reading). Stop the clone, then start this server again: each \
                 start is a new run."
            )
        } else {
            format!(
                "FORK: log {log} differs from the copy of {peer} at or before event {held}; it is \
                 no longer taken nor served. If a machine was cloned, stop the clone; then wipe \
                 the server whose copy is wrong."
            )
        };
        self.out.push_back(Output::Log(Severity::Error, what));
        // Whoever makes its events need not have seen the others.
        let makers = self.links.iter().filter(|(_, link)| link.peer.origin == log.origin);
        for maker in makers.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.send_control(maker, Frame::Forked(Logs { logs: vec![log] }));
        }
    }

    fn push_later(&mut self, log: Log, entry: Entry, hops: u8, from: Option<LinkId>) {
        if let Some(last) = self.pushing.last_mut()
            && (last.log, last.hops, last.from) == (log, hops, from)
        {
            last.entries.push(entry);
            return;
        }
        self.pushing.push(Pushing { log, entries: vec![entry], hops, from });
    }

    /// The end of a tick: pushes what was applied, announces what is durable, starts a write.
    pub fn flush(&mut self, now: Now) {
        for pushing in std::mem::take(&mut self.pushing) {
            self.push(&pushing);
        }
        self.pump_all();
        if self.lossy {
            self.announce_lossy(now);
        } else {
            self.announce(now);
        }
        self.start_write(now);
    }

    fn push(&mut self, pushing: &Pushing) {
        let Pushing { log, entries, hops, from } = pushing;
        let Some(last) = entries.last() else { return };
        let Some(state) = self.logs.get(log) else { return };
        if state.forked {
            return;
        }
        let links: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(id, link)| {
                Some(**id) != *from
                    && !state.feeding.is_muted(**id)
                    && link.peer.origin != log.origin
                    && link.has(*log) < last.event.seq
            })
            .map(|(id, _)| *id)
            .collect();
        if links.is_empty() {
            return;
        }
        for chunk in chunks(entries, EVENTS_BYTES_MAX) {
            let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { continue };
            let cost = chunk.iter().map(|entry| entry.event.cost()).sum();
            self.counts.payload_sends += (chunk.len() * links.len()) as u64;
            let frame = Frame::Events(Events {
                log: *log,
                base: first.event.seq,
                hops: *hops,
                events: chunk.iter().map(|entry| entry.event.clone()).collect(),
                chain: last.chain,
            });
            self.send_live(&links, frame, cost);
        }
    }

    fn send_live(&mut self, links: &[LinkId], frame: Frame, cost: usize) {
        for id in links {
            if let Some(link) = self.links.get_mut(id) {
                link.live_queued += cost;
                link.touched = true;
            }
        }
        let frame = Arc::new(frame);
        self.out.push_back(Output::Send { links: links.to_vec(), class: Class::Live, frame, cost });
        for id in links {
            let full = self
                .links
                .get(id)
                .is_some_and(|link| link.live_queued > self.limits.live_queue_bytes);
            if full {
                self.overflow(*id);
            }
        }
    }

    fn send_control(&mut self, link: LinkId, frame: Frame) {
        let frame = Arc::new(frame);
        self.out.push_back(Output::Send {
            links: vec![link],
            class: Class::Control,
            frame,
            cost: 64,
        });
    }

    /// So many bytes of a class have left for the network.
    pub fn wrote(&mut self, link: LinkId, class: Class, bytes: usize) {
        let Some(link) = self.links.get_mut(&link) else { return };
        match class {
            Class::Live => link.live_queued = link.live_queued.saturating_sub(bytes),
            Class::CatchUp => link.serving.wrote(bytes),
            Class::Control | Class::Presence => {}
        }
    }

    fn link_has(&mut self, link: LinkId, log: Log, upto: u64) {
        if let Some(link) = self.links.get_mut(&link) {
            link.raise_has(log, upto);
        }
    }

    /// What the layer below the rooms knows of a link's health.
    pub fn set_health(&mut self, link: LinkId, suspect: bool, rtt_micros: u64) {
        if let Some(link) = self.links.get_mut(&link) {
            link.suspect = suspect;
            link.rtt_micros = rtt_micros;
        }
    }

    /// What is fsynced here.
    pub const fn durable(&self) -> &Arc<Vector> {
        &self.durable
    }

    /// What is held here, fsynced or not.
    pub fn held(&self) -> Vector {
        self.logs.iter().map(|(log, state)| (*log, state.held())).collect()
    }

    /// Stamps of remote events applied since the last call.
    pub fn take_received(&mut self) -> Vec<Hlc> {
        std::mem::take(&mut self.received)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What was done so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        let logs = self
            .waiting
            .iter()
            .filter_map(|log| self.logs.get(log).and_then(|state| state.repair.deadline()));
        let links = self.links.values().flat_map(|link| [link.announce_at, link.ack_at]).flatten();
        let digest = (!self.lossy && !self.links.is_empty()).then_some(self.digest_at);
        let proofs = self.links.values().filter_map(|link| self.proof_deadline(link));
        let lossy =
            if self.lossy { [self.probe_deadline(), self.quiet_deadline()] } else { [None; 2] };
        logs.chain(links).chain(digest).chain(proofs).chain(lossy.into_iter().flatten()).min()
    }

    /// Fires every timer due at `now`. `Have`s that are due travel at the next flush.
    pub fn handle_timeout(&mut self, now: Now) {
        let due: Vec<Log> = self
            .waiting
            .iter()
            .filter(|log| {
                self.logs
                    .get(log)
                    .and_then(|state| state.repair.deadline())
                    .is_some_and(|at| at <= now.time)
            })
            .copied()
            .collect();
        for log in due {
            self.repair(now, log);
        }
        if self.lossy {
            self.check_proofs(now);
        } else if self.digest_at <= now.time {
            self.digest_at = now.time + self.timing.digest_period;
            let nth = self.rng.below(self.links.len() as u64) as usize;
            if let Some(link) = self.links.keys().nth(nth).copied() {
                self.send_digest(link);
            }
        }
    }

    /// Panics if a link claims an event that is not here and nobody waits for it or asks: never give
    /// up, never forget. Apart from the other rules, since it looks at every log of every link.
    pub fn assert_asks(&self) {
        for (log, upto) in self.links.values().flat_map(|link| &link.has) {
            let asks = self.waiting.contains(log) || self.lacking(*log, *upto) == 0;
            assert!(asks, "{log}: a link has more, and nobody waits for it or asks");
        }
    }

    /// Panics if a rule of the broadcast is broken; the simulator calls it after every step.
    pub fn assert_invariants(&self) {
        let mut buffers = 0;
        for (log, state) in &self.logs {
            assert!(state.durable <= state.held(), "{log}: durable beyond what is held");
            assert_eq!(self.durable.upto(*log), state.durable, "{log}: two ideas of durable");
            if let Some(last) = state.tail.back() {
                assert_eq!(last.event.seq, state.held(), "{log}: the tail ends at the last event");
                assert_eq!(last.chain, state.chain, "{log}: the tail ends at the chain");
            }
            assert!(state.tail.len() <= self.limits.tail_events, "{log}: tail over its bound");
            let bytes: usize = state.buffer.values().map(|(event, _)| event.cost()).sum();
            assert_eq!(bytes, state.buffer_bytes, "{log}: buffered bytes are counted");
            assert!(bytes <= self.limits.buffer_bytes, "{log}: buffer over its bound");
            assert!(state.buffer.keys().all(|seq| *seq > state.next), "{log}: buffer is drained");
            let armed = state.repair.deadline().is_some();
            assert_eq!(armed, self.waiting.contains(log), "{log}: timers are known");
            buffers += bytes;
            state.feeding.assert_invariants(self.feeds.max());
        }
        assert_eq!(buffers, self.buffers_bytes, "all buffered bytes are counted");
        assert!(buffers <= self.limits.buffers_bytes, "buffers over their bound");
        for (id, link) in &self.links {
            let queued = link.live_queued;
            assert!(queued <= self.limits.live_queue_bytes, "{id:?}: live queue over its bound");
            let told = link.unannounced.is_empty() || link.announce_at.or(link.ack_at).is_some();
            assert!(told, "{id:?}: what is durable will be announced");
        }
        let written = self.unsaved.entries.iter().chain(self.being_written());
        let unsaved: usize = written.map(|entry| entry.event.cost()).sum();
        assert_eq!(unsaved, self.unsaved_bytes, "unsaved bytes are counted");
    }
}

/// Events of a frame on their way in.
struct Chunk {
    base: u64,
    events: Vec<Arc<Event>>,
    chain: u64,
    hops: u8,
}

impl LogState {
    /// Appends the next event.
    fn take(&mut self, log: Log, event: Arc<Event>, tail_max: usize) -> Entry {
        self.chain = event.chain(self.chain);
        self.next += 1;
        let entry = Entry { log, event, chain: self.chain };
        self.tail.push_back(entry.clone());
        if self.tail.len() > tail_max {
            self.tail.pop_front();
        }
        entry
    }
}

/// Cuts entries into pieces of at most `bytes_max`, at least one entry each.
fn chunks(entries: &[Entry], bytes_max: usize) -> impl Iterator<Item = &[Entry]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest
            .iter()
            .take_while(|entry| {
                bytes += entry.event.cost();
                bytes <= bytes_max
            })
            .count();
        if rest.is_empty() {
            return None;
        }
        let (piece, more) = rest.split_at(fits.max(1));
        rest = more;
        Some(piece)
    })
}

#[cfg(test)]
mod tests;

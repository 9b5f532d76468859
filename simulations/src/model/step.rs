//! What can happen in a state, and what it leads to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use chatty_core::broadcast::{Broadcast, Timer};
use chatty_core::clock::Clock;
use chatty_core::event::{Body, Event, Msg};
use chatty_core::frame::{Class, Frame};
use chatty_core::id::{AccountId, LinkId, Log, Mid, RoomId};
use chatty_core::io::{Output, Peer, Severity};
use chatty_core::time::{Hlc, Now, Time};

use super::cluster::{Action, CLASSES, Cable, Cluster, Left, Letter, Pair, Run, Server};
use super::reduce::without_hops;
use super::scope::{Mids, Pace, Scope, WALL_MS};

/// The moment at which time stands still.
const NOW: Time = Time::from_micros(1000);

pub(super) fn now_of(n: usize) -> Now {
    Now { time: NOW, wall_ms: WALL_MS + 10 * n as u64 }
}

/// Steps after which a cluster must have come to rest by itself.
const REST_STEPS_MAX: usize = 10_000;

impl Cluster {
    /// All servers are up, linked, and have said what they hold: nothing, or what was said before.
    pub(super) fn new(scope: &Scope) -> Self {
        let all = scope.says.len();
        let left =
            Left { says: vec![0; all], crashes: 0, victim: None, cuts: 0, hasty: 0, digests: 0 };
        let mut cluster = Self {
            servers: (0..all).map(Server::new).collect(),
            cables: Default::default(),
            left,
            broken: None,
        };
        // Nothing is left to happen yet: what will matter is not known.
        let plain = Scope { reduced: false, ..scope.clone() };
        cluster.rest(&plain);
        for _ in 0..scope.before {
            cluster.left.says[0] = 1;
            cluster.say(&plain, 0);
            cluster.rest(&plain);
        }
        cluster.left = Left {
            says: scope.says.to_vec(),
            crashes: scope.crashes,
            victim: None,
            cuts: scope.cuts,
            hasty: scope.hasty,
            digests: scope.digests,
        };
        cluster
    }

    /// Where the exploration begins. Which server dies is settled in advance if one does: all that
    /// leads up to it is explored once for each, and what the others do can be told by that.
    pub(super) fn begin(scope: &Scope) -> Vec<Self> {
        let cluster = Self::new(scope);
        let victims: Vec<Option<usize>> = match scope.crashes {
            1 if scope.reduced => (0..cluster.servers.len()).map(Some).collect(),
            _ => vec![None],
        };
        let begin = |victim| {
            let mut begun = cluster.clone();
            begun.left.victim = victim;
            if scope.reduced {
                begun.forget();
            }
            begun.settle(scope, |_, _| ());
            begun
        };
        victims.into_iter().map(begin).collect()
    }

    /// Lets happen what happens by itself, one thing after another, until nothing is left.
    pub(super) fn rest(&mut self, scope: &Scope) {
        let mut progress = Vec::new();
        for _ in 0..REST_STEPS_MAX {
            progress.clear();
            self.progress(&mut progress);
            let Some(action) = progress.first() else { return };
            self.take(scope, *action);
            if self.broken.is_some() {
                return;
            }
        }
        self.broken = Some(format!("not at rest after {REST_STEPS_MAX} steps").into());
    }

    /// What can happen.
    pub(super) fn actions(&self, into: &mut Vec<Action>) {
        if self.broken.is_some() {
            return;
        }
        self.progress(into);
        let idle = self.is_idle();
        for (n, server) in self.servers.iter().enumerate() {
            let Some(broadcast) = server.broadcast() else { continue };
            if self.left.says[n] > 0 {
                into.push(Action::Say(n));
            }
            if self.may_die(n) {
                into.push(Action::Die(n));
                if broadcast.saving().is_some() {
                    into.push(Action::DieWritten(n));
                }
            }
            for timer in broadcast.timers() {
                let hasty = matches!(timer, Timer::Repair(_)) && !idle && self.left.hasty > 0;
                let digest = matches!(timer, Timer::Digest(_)) && self.left.digests > 0;
                if hasty || digest {
                    into.push(Action::Fire(n, timer));
                }
            }
        }
        if self.left.cuts > 0 {
            let whole = self.cables.iter().filter(|(_, cable)| cable.whole);
            into.extend(whole.map(|(pair, _)| Action::Cut(*pair)));
        }
    }

    /// What happens by itself: neither faults nor people nor haste.
    pub(super) fn progress(&self, into: &mut Vec<Action>) {
        for (pair, cable) in &self.cables {
            for side in 0..2 {
                if !cable.up[side] {
                    continue;
                }
                for (class, queue) in CLASSES.iter().zip(&cable.to[side]) {
                    if !queue.is_empty() {
                        into.push(Action::Deliver(*pair, side, *class));
                    }
                }
                if !cable.whole {
                    into.push(Action::Notice(*pair, side));
                }
            }
        }
        let idle = self.is_idle();
        for (n, server) in self.servers.iter().enumerate() {
            let Some(broadcast) = server.broadcast() else {
                into.push(Action::Start(n));
                continue;
            };
            if broadcast.saving().is_some() {
                into.push(Action::Synced(n));
            }
            for timer in broadcast.timers() {
                let free = match timer {
                    Timer::Repair(_) => idle,
                    Timer::Announce(_) => true,
                    Timer::Digest(_) => false,
                };
                if free {
                    into.push(Action::Fire(n, timer));
                }
            }
            for m in n + 1..self.servers.len() {
                if self.servers[m].run.is_some() && !self.cables.contains_key(&(n, m)) {
                    into.push(Action::Connect((n, m)));
                }
            }
        }
    }

    /// Whether nothing is under way, on any cable or to any disk: no timer fires too soon.
    pub(super) fn is_idle(&self) -> bool {
        let writing = |server: &Server| server.broadcast().is_some_and(|b| b.saving().is_some());
        self.cables.values().all(|cable| cable.is_idle()) && !self.servers.iter().any(writing)
    }

    /// Takes a step; a panic of the core is a broken rule like any other.
    pub(super) fn step(&mut self, scope: &Scope, action: Action) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take(scope, action))) {
            let what = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_else(|| "a panic without words".into());
            self.broken = Some(what.into());
        }
    }

    pub(super) fn take(&mut self, scope: &Scope, action: Action) {
        match action {
            Action::Say(n) => self.say(scope, n),
            Action::Deliver(pair, side, class) => self.deliver(scope, pair, side, class),
            Action::Synced(n) => self.sync(scope, n),
            Action::Fire(n, timer) => {
                match timer {
                    Timer::Repair(_) if !self.is_idle() => self.left.hasty -= 1,
                    Timer::Digest(_) => self.left.digests -= 1,
                    Timer::Repair(_) | Timer::Announce(_) => {}
                }
                self.tick(scope, n, |run, now| run.broadcast.expire(now, timer));
            }
            Action::DieWritten(n) => {
                let saving = self.servers[n].broadcast().and_then(Broadcast::saving);
                if let Some(batch) = saving.map(|(_, batch)| batch.clone()) {
                    Arc::make_mut(&mut self.servers[n].disk).commit(&batch);
                }
                self.die(scope, n);
            }
            Action::Die(n) => self.die(scope, n),
            Action::Start(n) => self.start(scope, n),
            Action::Cut(pair) => {
                self.left.cuts -= 1;
                if let Some(cable) = self.cables.get_mut(&pair) {
                    Arc::make_mut(cable).whole = false;
                }
            }
            Action::Notice(pair, side) => self.notice(scope, pair, side),
            Action::Connect(pair) => self.connect(scope, pair),
        }
    }

    fn say(&mut self, scope: &Scope, n: usize) {
        self.left.says[n] -= 1;
        let Some(origin) = self.servers[n].origin() else { return };
        let nth = self.servers[n].said.len() as u128;
        let (mid, text) = match scope.mids {
            Mids::Own => ((n as u128) << 8 | nth, format!("{n}{nth}")),
            Mids::Same => (0, "again".into()),
        };
        let body = Body::Msg(Msg { nick: "n".into(), text });
        let (mut seq, mut stamp) = (0, Hlc::default());
        self.tick(scope, n, |run, now| {
            stamp = run.clock.stamp(now, Hlc::default());
            let event = Event {
                seq: run.broadcast.next_seq(),
                hlc: stamp,
                wall_ms: now.wall_ms,
                room: RoomId::new(1),
                actor: AccountId::new(1),
                mid: Mid::at(WALL_MS, mid),
                kind: body.kind(),
                body: body.encode(),
            };
            seq = event.seq;
            run.broadcast.append(event);
        });
        let server = &mut self.servers[n];
        Arc::make_mut(&mut server.said).push((Log::of(origin), seq));
        server.change();
        self.check_stamp(n, Log::of(origin), seq, stamp);
    }

    fn deliver(&mut self, scope: &Scope, pair: Pair, side: usize, class: Class) {
        let Some(cable) = self.cables.get_mut(&pair).map(Arc::make_mut) else { return };
        let (link, sent_on) = (cable.links[side], cable.links[1 - side]);
        let queue = &mut cable.to[side][class_index(class)];
        let Some(Letter { frame, cost, .. }) = queue.pop_front() else { return };
        let (from, sender_up) = (end(pair, 1 - side), cable.up[1 - side]);
        if sender_up && scope.is_narrow() {
            self.tick(scope, from, |run, _| run.broadcast.wrote(sent_on, class, cost));
        }
        let n = end(pair, side);
        let counted = self.counted(n);
        let mut breach = None;
        self.tick(scope, n, |run, now| {
            breach = run.broadcast.frame(now, link, (*frame).clone()).err();
        });
        self.check_counts(n, from, &frame, &counted);
        if let Some(breach) = breach {
            self.breaks(format!("s{} was cut off: it sent {breach}", from + 1));
        }
    }

    fn sync(&mut self, scope: &Scope, n: usize) {
        let saving = self.servers[n].broadcast().and_then(Broadcast::saving);
        let Some((token, batch)) = saving.map(|(token, batch)| (token, batch.clone())) else {
            return;
        };
        Arc::make_mut(&mut self.servers[n].disk).commit(&batch);
        self.tick(scope, n, |run, now| {
            run.broadcast.persisted(now, token);
        });
    }

    fn die(&mut self, scope: &Scope, n: usize) {
        self.left.crashes -= 1;
        self.left.victim = None;
        self.servers[n].run = None;
        self.servers[n].change();
        for (pair, cable) in &mut self.cables {
            for side in 0..2 {
                if end(*pair, side) == n {
                    let cable = Arc::make_mut(cable);
                    cable.whole = false;
                    cable.up[side] = false;
                    cable.to[side] = Default::default();
                }
            }
        }
        self.cables.retain(|_, cable| cable.up != [false, false]);
        if scope.reduced {
            self.forget();
        }
    }

    fn start(&mut self, scope: &Scope, n: usize) {
        let server = &mut self.servers[n];
        server.starts += 1;
        let config = Arc::new(scope.config(n, server.starts, &server.disk));
        let loaded = server.disk.load();
        let stamps = loaded.logs.iter().map(|log| log.hlc);
        let clock = Clock::load(stamps, config.timing.max_skew_ms, now_of(n));
        let broadcast = Broadcast::new(&config, &loaded, 0, now_of(n));
        server.run = Some(Arc::new(Run { broadcast, clock, config, links: 0 }));
        self.tick(scope, n, |_, _| {});
    }

    fn notice(&mut self, scope: &Scope, pair: Pair, side: usize) {
        let Some(cable) = self.cables.get_mut(&pair).map(Arc::make_mut) else { return };
        cable.up[side] = false;
        cable.to[side] = Default::default();
        let link = cable.links[side];
        if cable.up == [false, false] {
            self.cables.remove(&pair);
        }
        self.tick(scope, end(pair, side), |run, now| run.broadcast.link_down(now, link));
    }

    fn connect(&mut self, scope: &Scope, pair: Pair) {
        let links = [0, 1].map(|side| self.next_link(end(pair, side)));
        self.cables.insert(pair, Arc::new(Cable::new(links)));
        for (side, link) in links.into_iter().enumerate() {
            let Some(far) = &self.servers[end(pair, 1 - side)].run else { return };
            let me = &far.config.me;
            let peer = Peer {
                slot: me.slot.clone(),
                generation: me.generation,
                server: me.server,
                origin: me.origin,
                standing: far.broadcast.standing(),
            };
            self.tick(scope, end(pair, side), |run, _| run.broadcast.link_up(peer, link));
        }
    }

    /// A name for a new link of a server: after all that this run has had.
    fn next_link(&mut self, n: usize) -> LinkId {
        let Some(run) = &mut self.servers[n].run else { return LinkId(0) };
        let run = Arc::make_mut(run);
        run.links += 1;
        LinkId(run.links)
    }

    /// The links that a server thinks are up, each with its cable.
    pub(super) fn links_of(&self, n: usize) -> impl Iterator<Item = (Pair, LinkId)> {
        self.cables.iter().flat_map(move |(pair, cable)| {
            let sides = (0..2).filter(move |side| end(*pair, *side) == n && cable.up[*side]);
            sides.map(move |side| (*pair, cable.links[side]))
        })
    }

    /// A turn of a server's loop: one input, what is due, the end of the tick, its outputs.
    fn tick(&mut self, scope: &Scope, n: usize, input: impl FnOnce(&mut Run, Now)) {
        let now = now_of(n);
        let Some(mut held) = self.servers[n].run.take() else { return };
        let run = Arc::make_mut(&mut held);
        input(run, now);
        for stamp in run.broadcast.take_received() {
            run.clock.observe(now, stamp);
        }
        if run.broadcast.next_deadline().is_some_and(|at| at <= now.time) {
            run.broadcast.handle_timeout(now);
        }
        run.broadcast.flush(now);
        while let Some(output) = run.broadcast.poll_output() {
            self.perform(scope, n, run, output);
        }
        run.broadcast.assert_invariants();
        run.broadcast.assert_asks();
        run.broadcast.forget_time();
        if scope.reduced {
            run.broadcast.forget_spent(self.restarts(n));
            self.forget_disks(n);
        }
        self.servers[n].run = Some(held);
        self.servers[n].change();
    }

    fn perform(&mut self, scope: &Scope, n: usize, run: &mut Run, output: Output) {
        let now = now_of(n);
        match output {
            Output::Send { links, class, frame, cost } => {
                self.check_frame(scope, n, Log::of(run.origin()), &frame);
                let frame = if scope.reduced { without_hops(&run.broadcast, frame) } else { frame };
                for link in links {
                    self.send(n, link, class, &frame, cost);
                    if !scope.is_narrow() {
                        run.broadcast.wrote(link, class, cost); // queues never fill
                    }
                }
            }
            Output::DropQueue(link, class) => {
                if let Some((pair, cable)) = self.cable_mut(n, link) {
                    let to = usize::from(pair.0 == n);
                    cable.to[to][class_index(class)].clear();
                }
            }
            Output::Persist(token, batch) if scope.fsync == Pace::AtOnce => {
                Arc::make_mut(&mut self.servers[n].disk).commit(&batch);
                run.broadcast.persisted(now, token);
                run.broadcast.flush(now);
            }
            Output::Persist(..) => {} // the broadcast remembers what is being written
            Output::Read(token, query) => {
                let rows = self.servers[n].disk.read(&query);
                run.broadcast.read_done(token, rows);
                run.broadcast.flush(now);
            }
            Output::Log(Severity::Info, _) => {}
            Output::Log(_, what) => self.breaks(format!("s{} says: {what}", n + 1)),
            Output::Close(_, why) | Output::Damaged(why) => {
                self.breaks(format!("s{} gives up: {why}", n + 1));
            }
            Output::Deliver { .. } | Output::CloseSession(_) => {
                self.breaks("a broadcast has no sessions".into());
            }
        }
    }

    fn send(&mut self, n: usize, link: LinkId, class: Class, frame: &Arc<Frame>, cost: usize) {
        let Some((pair, cable)) = self.cable_mut(n, link) else { return };
        if cable.whole {
            let to = usize::from(pair.0 == n);
            cable.to[to][class_index(class)].push_back(Letter::new(frame.clone(), cost));
        }
    }

    fn cable_mut(&mut self, n: usize, link: LinkId) -> Option<(Pair, &mut Cable)> {
        let (pair, _) = self.links_of(n).find(|(_, of)| *of == link)?;
        self.cables.get_mut(&pair).map(|cable| (pair, Arc::make_mut(cable)))
    }

    pub(super) fn breaks(&mut self, what: String) {
        self.broken.get_or_insert(what.into());
    }
}

pub(super) const fn end(pair: Pair, side: usize) -> usize {
    if side == 0 { pair.0 } else { pair.1 }
}

fn class_index(class: Class) -> usize {
    CLASSES.iter().position(|one| *one == class).unwrap_or(0)
}

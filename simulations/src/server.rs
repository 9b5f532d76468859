//! A server in the world: the real core over a virtual disk, and what its driver would do.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

#[cfg(chatty_bugs)]
use chatty_core::bugs::{Bug, is_on};
use chatty_core::config::{Config, Me, Timing};
use chatty_core::event::Identity;
use chatty_core::frame::Frame;
use chatty_core::id::{
    ClusterId, Generation, LinkId, Log, Origin, PersistToken, ReadToken, ServerId, SessionId, Slot,
};
use chatty_core::io::{Input, Output, Standing};
use chatty_core::replica::Replica;
use chatty_core::rng::Rng;
use chatty_core::session::{Item, Level, ServerAddr};
use chatty_core::store::{Batch, Query, Rows};
use chatty_core::time::Time;
use chatty_core::token::TokenKey;

use crate::disk::Disk;
use crate::faults::Fault;
use crate::luck::Stream;
use crate::network::Said;
use crate::schedule::Plant;
use crate::strike::bites::{Cause, Place};
use crate::strike::certificates::Expired;
use crate::strike::newer::Newer;
use crate::world::{Action, World};

/// How often floors are set, when not everything is kept: runs are short.
const FLOOR_PERIOD: Duration = Duration::from_millis(1500);

/// How soon a refused write is tried again.
const DISK_RETRY_MICROS: u64 = 200_000;

/// A server.
pub(crate) struct Server {
    /// Its place in the configuration; a copy of a disk has that of the original.
    pub(crate) place: usize,
    pub(crate) slot: Slot,
    pub(crate) generation: Generation,
    pub(crate) id: ServerId,
    pub(crate) origin: Origin,
    /// Of its disk, as its run began.
    pub(crate) standing: Standing,
    /// How many times it started.
    pub(crate) run: u64,
    pub(crate) disk: Disk,
    /// Disks the slot had before.
    lost_disks: Vec<Disk>,
    pub(crate) replica: Option<Replica>,
    last_origin: Option<Origin>,
    inbox: VecDeque<Input>,
    tick_at: Option<Time>,
    paused_until: Option<Time>,
    /// How far its clock is off by itself, and how far faults set it off.
    pub(crate) drift_ms: i64,
    pub(crate) skew_ms: i64,
    pub(crate) skewed_by: Cause,
    /// How much longer a write takes.
    pub(crate) slow_micros: u64,
    pub(crate) full: bool,
    /// How late its loop turns, and until when.
    pub(crate) sluggish: (u64, Time),
    /// The strike that ends it in its next write.
    pub(crate) tear: Option<usize>,
    /// Its version, if that is newer than the others'.
    pub(crate) newer: Option<Newer>,
    /// The strike that flipped bits on its disk, and whether its run found that.
    pub(crate) rotten_by: Cause,
    pub(crate) damaged: bool,
    /// Its certificate, if that has ended, and the number of its next event when it was alone with it.
    pub(crate) expired: Option<Expired>,
    pub(crate) outside_from: Option<u64>,
    /// The number of its next event when it found out that its run goes on twice.
    pub(crate) twice_from: Option<u64>,
    /// Since when it is accused of an older state of its disk, as the operator reads.
    pub(crate) accused_at: Option<Time>,
    saving: Option<(PersistToken, Arc<Batch>)>,
    /// What the disk had before its last write: there is a disk that lies.
    unsynced: Option<Box<Disk>>,
    cluster: Vec<ServerAddr>,
    life: Life,
}

/// What becomes of a server that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// It starts again.
    Goes,
    /// It was a copy of a disk, and is gone.
    Over,
}

pub(crate) fn slot_of(n: usize) -> Slot {
    Slot::new(format!("s{}", n + 1)).unwrap_or_else(|name| panic!("{name} is no slot"))
}

pub(crate) fn addr_of(n: usize) -> String {
    format!("s{}:7", n + 1)
}

impl Server {
    pub(crate) fn new(n: usize, all: usize, rng: &mut Rng) -> Self {
        let cluster = (0..all).map(|n| ServerAddr { name: slot_of(n), addr: addr_of(n) }).collect();
        Self {
            place: n,
            slot: slot_of(n),
            generation: 1,
            id: ServerId::new(rng.bits128()),
            origin: Origin::new(0),
            standing: Standing::Sound,
            run: 0,
            disk: Disk::default(),
            lost_disks: Vec::new(),
            replica: None,
            last_origin: None,
            inbox: VecDeque::new(),
            tick_at: None,
            paused_until: None,
            drift_ms: 0,
            skew_ms: 0,
            skewed_by: None,
            slow_micros: 0,
            full: false,
            sluggish: (0, Time::default()),
            tear: None,
            newer: None,
            rotten_by: None,
            damaged: false,
            expired: None,
            outside_from: None,
            twice_from: None,
            accused_at: None,
            saving: None,
            unsynced: None,
            cluster,
            life: Life::Goes,
        }
    }

    /// The same folder on another machine.
    pub(crate) fn copy_of(original: &Self) -> Self {
        let mut copy = Self::new(original.place, 0, &mut Rng::new(0));
        copy.expired = original.expired;
        copy.generation = original.generation;
        copy.id = original.id;
        copy.disk = original.disk.clone();
        copy.last_origin = original.last_origin;
        copy.cluster.clone_from(&original.cluster);
        copy
    }

    /// The same machine once more, with all that is in its memory.
    pub(crate) fn clone_of(original: &Self) -> Option<Self> {
        let mut clone = Self::copy_of(original);
        clone.replica = Some(original.replica.clone()?);
        (clone.origin, clone.standing) = (original.origin, original.standing);
        (clone.run, clone.inbox) = (original.run, original.inbox.clone());
        (clone.tick_at, clone.saving) = (original.tick_at, original.saving.clone());
        (clone.unsynced, clone.drift_ms) = (original.unsynced.clone(), original.drift_ms);
        clone.twice_from = original.twice_from;
        Some(clone)
    }

    /// Whether it was a copy, and is gone.
    pub(crate) fn is_over(&self) -> bool {
        self.life == Life::Over
    }

    /// Ends a copy for good; gives its disk back.
    pub(crate) fn end(&mut self) -> Disk {
        self.life = Life::Over;
        std::mem::take(&mut self.disk)
    }

    /// The slot had that disk.
    pub(crate) fn had(&mut self, disk: Disk) {
        self.lost_disks.push(disk);
    }

    /// Only the first events of the write under way are on the disk; false if nothing is written.
    pub(crate) fn tear_write(&mut self, rng: &mut Rng) -> bool {
        let Some((_, batch)) = self.saving.take_if(|(_, batch)| !batch.entries.is_empty()) else {
            return false;
        };
        let whole = rng.below(batch.entries.len() as u64) as usize;
        if !self.full {
            let entries = batch.entries[..whole].to_vec();
            self.disk.commit(&Batch { entries, ..Batch::default() });
        }
        true
    }

    pub(crate) const fn is_alive(&self) -> bool {
        self.replica.is_some()
    }

    pub(crate) fn is_paused(&self, now: Time) -> bool {
        self.paused_until.is_some_and(|until| until > now)
    }

    pub(crate) const fn pause(&mut self, until: Time) {
        self.paused_until = Some(until);
    }

    pub(crate) const fn resume(&mut self) {
        self.paused_until = None;
    }

    /// Whether this slot has a message, on its disk or on one that was lost since.
    pub(crate) fn ever_had(&self, identity: &Identity) -> bool {
        self.disk.has(identity)
            || identity.mid.unix_ms() <= self.disk.floor_ms(identity.room)
            || self.lost_disks.iter().any(|disk| disk.has(identity))
    }

    /// Loses the disk; the authority gives the slot its next certificate.
    pub(crate) fn lose_disk(&mut self, rng: &mut Rng) {
        self.lost_disks.push(std::mem::take(&mut self.disk));
        self.generation += 1;
        self.id = ServerId::new(rng.bits128());
        self.last_origin = None;
    }

    /// Some logs are damaged somewhere: what comes before is kept, everything else is made anew
    /// from it, and the disk knows that it lost something.
    pub(crate) fn cut_out_damage(&mut self, rng: &mut Rng) {
        let kept = self.disk.cut_out_damage(rng);
        self.lost_disks.push(std::mem::replace(&mut self.disk, kept));
    }

    /// What flipped is cut out, as damage is.
    pub(crate) fn cut_out_rot(&mut self) {
        let kept = self.disk.cut_out_rot();
        self.lost_disks.push(std::mem::replace(&mut self.disk, kept));
    }

    /// An older state of the disk is put back.
    pub(crate) fn roll_back(&mut self, kept: Disk) {
        self.lost_disks.push(std::mem::replace(&mut self.disk, kept));
    }
}

impl World {
    pub(crate) fn start_server(&mut self, n: usize) {
        if self.servers[n].is_alive() || self.servers[n].is_over() {
            return;
        }
        self.mend_clock_alone(n);
        let now = self.now_of(n);
        let rng = self.luck.of(Stream::Server(n));
        let seed = rng.bits();
        let origin = Origin::at(now.wall_ms, rng.bits128());
        self.note_up(n);
        let server = &mut self.servers[n];
        #[cfg(chatty_bugs)]
        let origin = match server.last_origin {
            Some(last) if is_on(Bug::OneOrigin) => last,
            _ => origin,
        };
        let prev = server.last_origin.map(|o| (o, server.disk.upto(Log::of(o))));
        server.origin = origin;
        server.last_origin = Some(origin);
        server.run += 1;
        server.inbox.clear();
        server.tick_at = None;
        server.saving = None;
        (server.twice_from, server.outside_from, server.damaged) = (None, None, false);
        let config = Config {
            me: Me {
                cluster: ClusterId::new(1),
                slot: server.slot.clone(),
                generation: server.generation,
                server: server.id,
                origin,
                prev,
                addr: addr_of(server.place),
            },
            servers: server.cluster.clone(),
            token_key: TokenKey::new([1; 32]),
            feeds: self.swarm.feeds,
            mesh: self.swarm.mesh,
            timing: Timing { floor_period: FLOOR_PERIOD, ..Timing::default() },
            retention: self.swarm.retention,
            limits: self.swarm.limits.clone(),
        };
        server.disk.assert_derived();
        let loaded = server.disk.load();
        server.standing = loaded.standing;
        server.replica = Some(Replica::new(config, &loaded, seed, now));
        self.tell_certificate(n);
        self.tick_soon(n);
    }

    /// Something for a server's loop.
    pub(crate) fn give(&mut self, n: usize, input: Input) {
        if self.servers[n].is_alive() {
            self.servers[n].inbox.push_back(input);
            self.tick_soon(n);
        }
    }

    pub(crate) fn tick_soon(&mut self, n: usize) {
        let rng = self.luck.of(Stream::Server(n));
        let mut micros = rng.below(200);
        let (late, until) = self.servers[n].sluggish;
        if until > self.time {
            micros += rng.below(late);
            self.bite(Fault::SlowServer, Place::Server(n));
        }
        self.tick_by(n, self.time + Duration::from_micros(micros));
    }

    fn tick_by(&mut self, n: usize, at: Time) {
        let server = &self.servers[n];
        let until = server.paused_until.unwrap_or(at);
        if until > at {
            self.bite(Fault::Pause, Place::Server(n));
        }
        let (server, at) = (&mut self.servers[n], at.max(until));
        if server.tick_at.is_none_or(|due| due > at) {
            server.tick_at = Some(at);
            let run = server.run;
            self.at(at, Action::Tick { server: n, run });
        }
    }

    /// A turn of a server's loop.
    pub(crate) fn tick(&mut self, n: usize, run: u64) -> Result<(), String> {
        let now = self.now_of(n);
        let server = &mut self.servers[n];
        if server.run != run || server.tick_at != Some(self.time) {
            return Ok(());
        }
        server.tick_at = None;
        if let Some(until) = server.paused_until.filter(|until| *until > self.time) {
            self.tick_by(n, until);
            return Ok(());
        }
        let Some(mut replica) = server.replica.take() else { return Ok(()) };
        let off_by = server.skewed_by.filter(|_| server.skew_ms != 0);
        for input in std::mem::take(&mut server.inbox) {
            replica.handle(now, input);
        }
        if replica.next_deadline().is_some_and(|at| at <= now.time) {
            replica.handle_timeout(now);
        }
        replica.flush(now);
        self.bite_by(off_by);
        let mut outputs = Vec::new();
        while let Some(output) = replica.poll_output() {
            outputs.push(output);
        }
        replica.assert_invariants();
        if self.is_watched() {
            replica.broadcast().assert_asks();
        }
        self.felt.full += u64::from(replica.broadcast().is_full());
        self.felt.unsaved = self.felt.unsaved.max(replica.broadcast().unsaved_bytes());
        self.check_beliefs(n, &replica)?;
        let deadline = replica.next_deadline();
        self.servers[n].replica = Some(replica);
        if !self.forks.is_empty() {
            self.check_twin(n)?;
        }
        if self.servers[n].expired.is_some() {
            self.check_outside(n)?;
        }
        for output in outputs {
            self.note_made(n, &output)?;
            self.perform(n, output)?;
        }
        if let Some(at) = deadline {
            self.tick_by(n, at.max(self.time + Duration::from_micros(1)));
        }
        Ok(())
    }

    fn perform(&mut self, n: usize, output: Output) -> Result<(), String> {
        let run = self.servers[n].run;
        match output {
            Output::Send { links, class, frame, cost } => {
                self.check_haves(n, &frame)?;
                for LinkId(cable) in links {
                    self.send_said(cable, n, class, Said::Frame(frame.clone()), cost);
                    self.send_unknown(cable, n, class);
                }
            }
            Output::DropQueue(LinkId(cable), class) => self.drop_queue(cable, n, class),
            Output::Close(LinkId(cable), _) => self.hang_up(cable, n),
            Output::Persist(token, batch) => {
                let (least, jitter) = self.swarm.fsync_micros;
                let slow = self.servers[n].slow_micros;
                if slow > 0 {
                    self.bite(Fault::SlowDisk, Place::Server(n));
                }
                let micros = least + slow + self.luck.of(Stream::Disk(n)).below(jitter);
                assert!(self.servers[n].saving.is_none(), "one write at a time");
                if !batch.entries.is_empty()
                    && let Some(strike) = self.servers[n].tear.take()
                {
                    self.later(micros / 2, Action::Tear { server: n, run, strike });
                }
                self.servers[n].saving = Some((token, batch));
                self.later(micros, Action::Persisted { server: n, run, token });
            }
            Output::Read(token, query) => {
                let micros = 50 + self.luck.of(Stream::Disk(n)).below(3000);
                self.later(micros, Action::Read { server: n, run, token, query });
            }
            Output::Deliver { sessions, item, cost } => {
                self.check_said(n, &sessions, &item)?;
                self.felt.item(&item)?;
                for SessionId(line) in sessions {
                    self.send_item(line, &item, cost);
                    self.on_verified(line, &item)?;
                }
            }
            Output::CloseSession(SessionId(line)) => self.close_line(line),
            Output::Damaged(why) => self.on_damage(n, &why)?,
            Output::Log(_, what) if what.starts_with("FORK: ") => self.on_fork_said(n, &what)?,
            Output::Log(..) => {}
        }
        Ok(())
    }

    /// What a server counts for the disk of another that told it all, is there.
    fn check_beliefs(&self, n: usize, replica: &Replica) -> Result<(), String> {
        for (id, cable) in &self.cables {
            let Some(side) = cable.ends.iter().position(|end| *end == n) else { continue };
            let far = &self.servers[cable.ends[1 - side]];
            let current =
                cable.runs == [self.servers[cable.ends[0]].run, self.servers[cable.ends[1]].run];
            if !current
                || !far.is_alive()
                || !cable.up[side]
                || !replica.broadcast().has_told(LinkId(*id))
            {
                continue;
            }
            for (log, _) in replica.durable().iter() {
                let (counted, held) =
                    (replica.broadcast().on_disk_of(&far.slot, log), far.disk.upto(log));
                if counted > held {
                    return Err(format!(
                        "{} counts {counted} events of {log} on the disk of {}, which holds {held}",
                        self.servers[n].slot, far.slot
                    ));
                }
            }
        }
        Ok(())
    }

    /// What a server announces is on its disk.
    fn check_haves(&self, n: usize, frame: &Frame) -> Result<(), String> {
        let (Frame::Have(haves) | Frame::Vector(haves)) = frame else { return Ok(()) };
        for have in &haves.haves {
            let upto = self.servers[n].disk.upto(have.log);
            if have.upto > upto {
                return Err(format!(
                    "{} announced {} events of {}, its disk holds {upto}",
                    self.servers[n].slot, have.upto, have.log
                ));
            }
        }
        Ok(())
    }

    /// What a server says of a message is so.
    fn check_said(&self, n: usize, sessions: &[SessionId], item: &Item) -> Result<(), String> {
        self.check_unshown(n, item)?;
        match item {
            Item::Event(shown) => {
                let log = shown.line.key().event().log;
                if self.servers[n].disk.upto(log) < shown.line.event.seq {
                    return Err(format!("{} showed what it had not synced", self.servers[n].slot));
                }
            }
            Item::Sent(sent) if sent.level == Level::Replicated => {
                for line in sessions.iter().filter_map(|id| self.lines.get(&id.0)) {
                    let Some(account) = self.people[line.person].account() else { continue };
                    let identity = Identity { room: sent.room, account, mid: sent.mid };
                    let had = |server: &&Server| server.ever_had(&identity);
                    let slots: BTreeSet<usize> =
                        self.servers.iter().filter(had).map(|server| server.place).collect();
                    let disks = slots.len();
                    // Of what a cloned machine took while it ran twice that word proves nothing.
                    let twins = || self.of_twins().contains_key(&(sent.room, sent.mid));
                    if disks <= self.swarm.servers / 2 && !twins() {
                        return Err(format!(
                            "{} called a message replicated that is on {disks} disks",
                            self.servers[n].slot
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn on_persisted(
        &mut self,
        n: usize,
        run: u64,
        token: PersistToken,
    ) -> Result<(), String> {
        let server = &mut self.servers[n];
        if server.run != run || !server.is_alive() {
            return Ok(());
        }
        if server.full && server.saving.as_ref().is_some_and(|(saving, _)| *saving == token) {
            self.bite(Fault::DiskFull, Place::Server(n));
            self.give(n, Input::PersistFailed(token, "no space left".into()));
            self.later(DISK_RETRY_MICROS, Action::Persisted { server: n, run, token });
            return Ok(());
        }
        let Some((_, batch)) = server.saving.take_if(|(saving, _)| *saving == token) else {
            return Ok(());
        };
        if self.plant == Some(Plant::LyingDisk) {
            server.unsynced = Some(Box::new(server.disk.clone()));
        }
        let committed = match server.disk.try_commit(&batch) {
            Ok(committed) => committed,
            Err(why) => return self.on_damage(n, &why),
        };
        self.give(n, Input::Persisted(token, committed));
        self.check_kept(n, &batch)?;
        self.check_unmixed(n)
    }

    pub(crate) fn on_read(
        &mut self,
        n: usize,
        run: u64,
        token: ReadToken,
        query: &Query,
    ) -> Result<(), String> {
        let server = &self.servers[n];
        if server.run != run || !server.is_alive() {
            return Ok(());
        }
        let read = server.disk.try_read(query);
        let found = read.as_ref().err().cloned();
        self.give(n, Input::ReadDone(token, read.unwrap_or_else(Rows::Failed)));
        found.map_or(Ok(()), |why| self.on_damage(n, &why))
    }

    /// The process ends at once. A write under way happened or not; both must do.
    pub(crate) fn kill(&mut self, n: usize) {
        let written = self.luck.of(Stream::Server(n)).one_in(2);
        if !self.servers[n].is_alive() {
            return;
        }
        self.note_down(n);
        let server = &mut self.servers[n];
        server.replica = None;
        server.paused_until = None;
        if let Some((_, batch)) = server.saving.take()
            && written
            && !server.full
            && server.disk.try_commit(&batch).is_ok()
        {
            #[cfg(chatty_bugs)]
            if is_on(Bug::LateIndex) {
                server.disk.lose_index(&batch);
            }
        }
        if let Some(before) = server.unsynced.take() {
            server.disk = *before;
        }
        let run = server.run;
        let cables: Vec<(u64, usize)> = self
            .cables
            .iter()
            .filter_map(|(id, c)| {
                let side = c.ends.iter().position(|end| *end == n)?;
                (c.runs[side] == run).then_some((*id, c.ends[1 - side]))
            })
            .collect();
        for (cable, to) in cables {
            let rng = self.luck.of(Stream::Server(n));
            if rng.one_in(2) {
                let delay = rng.below(500_000);
                self.later(delay, Action::LinkHint { cable, to });
            }
        }
        let lines: Vec<(usize, u64)> = self
            .lines
            .values_mut()
            .filter(|line| line.server == n && line.run == run)
            .map(|line| {
                line.up_at_server = false;
                (line.person, line.conn.0)
            })
            .collect();
        for (person, conn) in lines {
            let rng = self.luck.of(Stream::Server(n));
            if !rng.one_in(4) {
                let delay = rng.below(120_000);
                self.later(delay, Action::ClientHint { person, conn });
            }
        }
    }
}

//! What is durable: here, after each fsync, and elsewhere, by `Have`.
//!
//! `replicated` counts disks of voters, never sockets or processes. A slot of the configuration
//! counts once, by its newest disk; when that changes, what was counted for the old one is
//! forgotten.

use std::sync::Arc;

use super::{Broadcast, Entry, Frame, Now, Output, Peer};
use crate::bugs::bug;
use crate::frame::{HAVES_MAX, Have, Haves};
use crate::id::{EventId, LinkId, Log, PersistToken, ServerId, Slot};
use crate::io::{Severity, Standing};
use crate::store::{Batch, Floors, SlotHolder, SweepAfter, Tidy};
use crate::time::{Key, Time};
use crate::vector::Vector;

impl Broadcast {
    /// Hands the next batch to the disk, if it is idle: while one fsync runs the next one gathers.
    pub(super) fn start_write(&mut self, now: Now) {
        if self.saving.is_some() || self.unsaved.can_wait() {
            return; // what other disks hold rides on the next batch
        }
        self.unsaved.floors = self.floors.clone();
        let batch = Arc::new(std::mem::take(&mut self.unsaved));
        self.last_persist += 1;
        let token = PersistToken(self.last_persist);
        let bytes = batch.entries.iter().map(|entry| entry.event.cost()).sum();
        self.saving = Some((token, batch.clone(), bytes));
        self.saving_since = now.time;
        self.out.push_back(Output::Persist(token, batch));
    }

    /// The next write erases some of what is below these floors, after that identity.
    pub fn sweep(&mut self, floors: Floors, after: SweepAfter) {
        self.floors = floors;
        self.unsaved.sweep = Some(after);
    }

    /// The next write erases some register writes that lost, after that one.
    pub fn tidy(&mut self, after: Option<Key>) {
        let logs = self.logs.keys();
        let replicated = logs.map(|log| (*log, self.replicated_upto(*log))).collect();
        self.unsaved.tidy = Some(Tidy { after, replicated: Arc::new(replicated) });
    }

    /// The batch is fsynced: it is announced, and given back to be shown.
    pub fn persisted(&mut self, now: Now, token: PersistToken) -> Option<Arc<Batch>> {
        let (_, batch, bytes) = self.saving.take_if(|(saving, ..)| *saving == token)?;
        self.unsaved_bytes -= bytes;
        let durable = Arc::make_mut(&mut self.durable);
        for entry in &batch.entries {
            let Some(state) = self.logs.get_mut(&entry.log) else { continue };
            state.durable = entry.event.seq;
            state.durable_chain = entry.chain;
            durable.raise(entry.log, entry.event.seq);
        }
        let mut last = None;
        for entry in &batch.entries {
            if last == Some(entry.log) {
                continue;
            }
            last = Some(entry.log);
            for link in self.links.values_mut() {
                link.unannounced.insert(entry.log);
                if link.is_own(entry.log) {
                    link.ack_at.get_or_insert(now.time + self.timing.ack_tick);
                } else if link.announce_at.is_none() {
                    link.announce_at = Some(now.time + self.timing.have_tick);
                    link.ride_from = now.time + self.timing.have_tick / 2;
                }
            }
        }
        if self.lossy {
            self.owe_proofs(now);
        }
        Some(batch)
    }

    /// Tells the links what is durable: each its own log at once, the rest when its time has come, or
    /// a little earlier if something goes to it in this tick anyway. Whatever goes could take them
    /// along at once, but where much is said that is one announcement for each event on each link,
    /// and in a mesh more bytes than the events themselves.
    pub(super) fn announce(&mut self, now: Now) {
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now.time);
        let mut telling: Vec<(LinkId, Vec<Log>)> = Vec::new();
        for (id, link) in &mut self.links {
            let goes = std::mem::take(&mut link.touched) || due(link.ack_at);
            let logs: Vec<Log> = if due(link.announce_at) || (goes && link.ride_from <= now.time) {
                (link.announce_at, link.ack_at) = (None, None);
                std::mem::take(&mut link.unannounced).into_iter().collect()
            } else if goes {
                link.ack_at = None;
                let origin = link.peer.origin;
                link.unannounced.extract_if(.., |log| log.origin == origin).collect()
            } else {
                continue;
            };
            if !logs.is_empty() {
                telling.push((*id, logs));
            }
        }
        for (id, logs) in telling {
            let haves: Vec<Have> = logs
                .into_iter()
                .filter_map(|log| {
                    let state = self.logs.get(&log).filter(|state| !state.forked)?;
                    if bug!(HaveBeforeFsync) {
                        return Some(Have { log, upto: state.held(), chain: state.chain });
                    }
                    Some(Have { log, upto: state.durable, chain: state.durable_chain })
                })
                .collect();
            for piece in haves.chunks(HAVES_MAX) {
                self.counts.have_frames += 1;
                self.send_control(id, Frame::Have(Haves { haves: piece.to_vec() }));
            }
        }
    }

    /// A server said that its disk holds more of a log.
    pub(super) fn count_disk(&mut self, server: ServerId, log: Log, upto: u64) {
        let held = self.disks.get(&server).and_then(|disk| disk.get(&log));
        if held.is_none_or(|held| *held < upto) {
            self.set_disk(server, log, upto);
        }
    }

    /// What a server's disk holds of a log, by its own word.
    pub(super) fn set_disk(&mut self, server: ServerId, log: Log, upto: u64) {
        let held = self.disks.entry(server).or_default().insert(log, upto);
        if held == Some(upto) {
            return;
        }
        self.unsaved.disks.push((server, log, upto));
        // Bounded by what was counted since the last batch: keep the newest of each.
        if self.unsaved.disks.len() > 4096 {
            let newest: std::collections::BTreeMap<_, _> =
                self.unsaved.disks.iter().map(|(s, l, u)| ((*s, *l), *u)).collect();
            self.unsaved.disks = newest.into_iter().map(|((s, l), u)| (s, l, u)).collect();
        }
    }

    /// Whether the peer is, or becomes, the holder of its slot.
    ///
    /// # Errors
    /// The generation that fences it.
    pub fn admits(&self, peer: &Peer) -> Result<(), u64> {
        match self.slots.get(&peer.slot) {
            Some(holder)
                if holder.generation > peer.generation
                    || (holder.generation == peer.generation && holder.server != peer.server) =>
            {
                Err(holder.generation)
            }
            _ => Ok(()),
        }
    }

    /// Makes the peer the holder of its slot; a new holder starts with an empty disk.
    pub(super) fn hold_slot(&mut self, peer: &Peer) {
        let holder = SlotHolder {
            slot: peer.slot.clone(),
            server: peer.server,
            generation: peer.generation,
        };
        let old = self.slots.insert(peer.slot.clone(), holder.clone());
        if old.as_ref() == Some(&holder) {
            return;
        }
        if let Some(old) = old.filter(|old| old.server != holder.server) {
            self.disks.remove(&old.server);
            self.unsaved.disks.retain(|(server, ..)| *server != old.server);
            self.out.push_back(Output::Log(
                Severity::Warn,
                format!(
                    "{} has a new disk {} (certificate {}): the old one {} is fenced for good",
                    holder.slot, holder.server, holder.generation, old.server
                ),
            ));
        }
        self.unsaved.slots.push(holder);
    }

    /// On how many voters' disks an event is known to be.
    pub fn replicas(&self, event: EventId) -> usize {
        self.voters.iter().filter(|slot| self.on_disk_of(slot, event.log) >= event.seq).count()
    }

    /// How many events of a log are on a majority of the voters' disks: the prefix that the
    /// `majority`-th best of them holds.
    pub fn replicated_upto(&self, log: Log) -> u64 {
        let mut held: Vec<u64> =
            self.voters.iter().map(|slot| self.on_disk_of(slot, log)).collect();
        held.sort_unstable_by(|a, b| b.cmp(a));
        held.get(self.majority - 1).copied().unwrap_or(0)
    }

    /// How many events of a log are known to be on the disk of a slot's newest holder. A disk that
    /// was rolled back counts for nothing, and so does what others hold under the names of a log of
    /// which there are two.
    pub fn on_disk_of(&self, slot: &Slot, log: Log) -> u64 {
        if *slot == self.slot {
            let counts = self.standing != Standing::RolledBack;
            return if counts { self.durable.upto(log) } else { 0 };
        }
        if self.is_forked(log) {
            return 0;
        }
        let holder = self.slots.get(slot).map(|holder| holder.server);
        let sound = holder.filter(|server| !self.rolled_back.contains(server));
        let disk = sound.and_then(|server| self.disks.get(&server));
        disk.and_then(|disk| disk.get(&log)).copied().unwrap_or(0)
    }

    /// Whether a link has said all that it holds.
    pub fn has_told(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|link| link.told)
    }

    /// How many of these events are not known to be on that server's disk.
    pub fn missing_on(&self, slot: &Slot, of: &Vector) -> u64 {
        let holder = self.slots.get(slot).map(|holder| holder.server);
        let disk = holder.and_then(|server| self.disks.get(&server));
        // A disk that counts for nothing has at least what it announced of this run.
        let rolled_back = holder.is_some_and(|server| self.rolled_back.contains(&server));
        count_missing(of, |log| match disk {
            _ if rolled_back && log != self.own => u64::MAX,
            Some(disk) if !self.is_forked(log) => disk.get(&log).copied().unwrap_or(0),
            _ => 0,
        })
    }

    /// How many of these events are not known to be on a majority of the voters' disks.
    pub fn not_replicated(&self, of: &Vector) -> u64 {
        count_missing(of, |log| self.replicated_upto(log))
    }

    /// Who holds each slot, as far as this server knows.
    pub fn holders(&self) -> impl Iterator<Item = &SlotHolder> {
        self.slots.values()
    }

    /// What this server holds and not every server is known to hold: what a token must carry.
    pub fn not_everywhere(&self, servers: &[Slot]) -> Vector {
        self.durable
            .iter()
            .filter(|(log, upto)| servers.iter().any(|s| self.on_disk_of(s, *log) < *upto))
            .collect()
    }

    /// Whether that log is known here, by whatever way.
    pub fn knows(&self, log: Log) -> bool {
        self.logs.contains_key(&log)
    }

    /// How many links have said what they hold.
    pub fn links_told(&self) -> usize {
        self.links.values().filter(|link| link.told).count()
    }

    /// Everything that live links claim to hold and that can be had: a forked log is not fetched.
    pub fn claimed(&self) -> Vector {
        let claimed = self.links.values().flat_map(|link| link.has.iter().map(|(l, u)| (*l, *u)));
        claimed.filter(|(log, _)| self.logs.get(log).is_none_or(|state| !state.forked)).collect()
    }

    /// The furthest that live links claim of a log, if it can be had.
    pub fn claims(&self, log: Log) -> u64 {
        if self.is_forked(log) { 0 } else { self.most_held(log) }
    }

    /// Whether two contents were seen under one name of that log.
    pub fn is_forked(&self, log: Log) -> bool {
        self.logs.get(&log).is_some_and(|state| state.forked)
    }

    /// Whether another machine makes events under the names of this run: what this one would make
    /// now reaches nobody.
    pub fn runs_twice(&self) -> bool {
        self.is_forked(self.own) && !bug!(TwinWrites)
    }

    /// What the disk being written or waiting holds back: whether everything applied is durable.
    pub fn is_saved(&self) -> bool {
        self.saving.is_none() && self.unsaved.entries.is_empty()
    }

    /// Since when the disk has been writing what it writes now, if it does.
    pub fn saving_since(&self) -> Option<Time> {
        self.saving.as_ref().map(|_| self.saving_since)
    }

    /// The batch that is being written, for a second try.
    pub fn saving(&self) -> Option<(PersistToken, &Arc<Batch>)> {
        self.saving.as_ref().map(|(token, batch, _)| (*token, batch))
    }

    /// What is being written.
    pub(super) fn being_written(&self) -> &[Entry] {
        self.saving.as_ref().map_or(&[], |(_, batch, _)| &batch.entries)
    }

    /// Bytes applied but not on the disk yet.
    pub const fn unsaved_bytes(&self) -> usize {
        self.unsaved_bytes
    }

    /// This server's own disk.
    pub const fn server(&self) -> ServerId {
        self.server
    }
}

fn count_missing(of: &Vector, there: impl Fn(Log) -> u64) -> u64 {
    let missing = of.iter().map(|(log, upto)| upto.saturating_sub(there(log)));
    missing.fold(0, u64::saturating_add)
}

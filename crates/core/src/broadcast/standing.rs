//! How far the disks of others, and this one, are to be believed.
//!
//! A disk that once announced an event holds it for ever: `replicated` rests on that. So a whole
//! vector below what its disk announced before shows a disk that was rolled back to an older state,
//! or a copy of one. It is told so, says so in every hello from then on, goes on replicating, and
//! counts for nothing until it comes back as a new server. A disk that lost something and *knows*
//! it (damage was cut out of it) says that first, and is counted anew by its vector.

use std::collections::BTreeMap;

use super::{Broadcast, Frame};
use crate::bugs::bug;
use crate::frame::{Digest, HAVES_MAX, Have, Haves, RolledBack};
use crate::id::{LinkId, Log, ServerId};
use crate::io::{Output, Peer, Severity, Standing};

impl Broadcast {
    /// All that is on the disk, by log, with the chains.
    fn on_disk(&self) -> impl Iterator<Item = Have> + '_ {
        self.durable.iter().filter_map(|(log, upto)| {
            let chain = self.logs.get(&log)?.durable_chain;
            Some(Have { log, upto, chain })
        })
    }

    /// A hash of it.
    pub fn digest(&self) -> Digest {
        Digest::of(self.on_disk())
    }

    /// Tells all that is on the disk. The receiver knows the end by a frame that is not full.
    pub(super) fn send_vector(&mut self, link: LinkId) {
        let haves: Vec<Have> = self.on_disk().collect();
        let full = haves.len() / HAVES_MAX;
        let (full, rest) = haves.split_at(full * HAVES_MAX);
        for piece in full.chunks(HAVES_MAX).chain([rest]) {
            self.counts.have_frames += 1;
            self.send_control(link, Frame::Vector(Haves { haves: piece.to_vec() }));
        }
    }

    /// A piece of all that a disk holds; the last one is not full.
    pub(super) fn gather_vector(&mut self, link: LinkId, haves: &[Have]) {
        let Some(from) = self.links.get_mut(&link) else { return };
        from.vector.extend(haves.iter().map(|have| (have.log, have.upto)));
        if haves.len() < HAVES_MAX {
            let vector = std::mem::take(&mut from.vector);
            self.recount(link, &vector);
        }
    }

    /// A server told all that its disk holds: what was counted for it must be there.
    pub(super) fn recount(&mut self, link: LinkId, vector: &BTreeMap<Log, u64>) {
        let Some(from) = self.links.get_mut(&link) else { return };
        from.told = true;
        let peer = from.peer.clone();
        let before = self.disks.get(&peer.server).cloned().unwrap_or_default();
        let lost = before.iter().find_map(|(log, announced)| {
            let held = vector.get(log).copied().unwrap_or(0);
            (held < *announced).then_some(RolledBack { log: *log, announced: *announced, held })
        });
        match (lost, peer.standing) {
            (Some(lost), Standing::Sound) => {
                self.rolled_back(link, &peer.slot.to_string(), peer.server, lost);
                return;
            }
            (_, Standing::RolledBack) => return,
            (Some(_), Standing::Lossy) => {
                for log in before.keys().filter(|log| !vector.contains_key(log)) {
                    self.set_disk(peer.server, *log, 0);
                }
            }
            (None, _) => self.acquit(link),
        }
        for (log, upto) in vector {
            self.set_disk(peer.server, *log, *upto);
        }
    }

    /// A disk holds all that it announced, and came with a hello that knows of no accusation: what was
    /// accused was a copy of it, which is gone.
    fn acquit(&mut self, link: LinkId) {
        let Some(from) = self.links.get(&link).filter(|link| !link.accused) else { return };
        let peer = &from.peer;
        if bug!(AccusedForGood) || !self.rolled_back.remove(&peer.server) {
            return;
        }
        let what = format!(
            "the disk {} of {} holds all that it announced, and counts again: what held less was a \
             copy of it",
            peer.server, peer.slot
        );
        self.out.push_back(Output::Log(Severity::Info, what));
    }

    /// Its hello says so: another server found it out.
    pub(super) fn says_rolled_back(&mut self, peer: &Peer) {
        if self.rolled_back.insert(peer.server) {
            self.out.push_back(Output::Log(
                Severity::Error,
                format!(
                    "ROLLED BACK: {} says that its disk {} holds less than it once announced. It \
                     counts for nothing until it is wiped and comes back as a new server.",
                    peer.slot, peer.server
                ),
            ));
        }
    }

    fn rolled_back(&mut self, link: LinkId, slot: &str, server: ServerId, lost: RolledBack) {
        if self.rolled_back.insert(server) {
            let RolledBack { log, announced, held } = lost;
            self.out.push_back(Output::Log(
                Severity::Error,
                format!(
                    "ROLLED BACK: the disk {server} of {slot} announced {announced} events of log \
                     {log} and holds {held} now: an older state of it was put back, or a copy of it \
                     was started. It counts for nothing until it is wiped and comes back as a new \
                     server."
                ),
            ));
        }
        if let Some(link) = self.links.get_mut(&link) {
            link.accused = true;
        }
        self.send_control(link, Frame::RolledBack(lost));
    }

    /// Another server knows better than this one what its disk held.
    pub fn on_rolled_back(&mut self, slot: &str, lost: RolledBack) {
        if self.standing == Standing::RolledBack {
            return;
        }
        let RolledBack { log, announced, held } = lost;
        self.set_standing(Standing::RolledBack);
        self.out.push_back(Output::Log(
            Severity::Error,
            format!(
                "ROLLED BACK: {slot} knows that this disk held {announced} events of log {log}; it \
                 holds {held}. An older state of the data folder was put back, or a copy of it was \
                 started. This server goes on replicating and serving, and counts for nothing. Make \
                 sure that no other copy of it runs, then wipe it: it comes back as a new server."
            ),
        ));
    }

    fn set_standing(&mut self, standing: Standing) {
        self.standing = standing;
        self.unsaved.standing = Some(standing);
    }

    /// How far this server's disk is to be believed.
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// A disk that lost something, has what all other servers hold, and told them all, is sound. What
    /// it alone had held is lost.
    pub fn check_mended(&mut self, others: usize) {
        if self.standing == Standing::Lossy
            && self.links_told() >= others
            && self.durable.covers_all(&self.claimed())
        {
            self.set_standing(Standing::Sound);
            let what =
                "the damaged disk holds what all other servers hold, and counts like any other";
            self.out.push_back(Output::Log(Severity::Info, what.into()));
        }
    }
}

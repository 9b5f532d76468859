//! Announcing over links that lose frames without a word and never go down ([`Links::Lossy`]).
//!
//! Nothing said once can be relied on, so all that is held is said whenever anything is said: any frame
//! is accompanied by the whole `Have`, and any that arrives shows all that was missed, whoever's it is
//! and whatever got lost before it. A link that is quiet costs nothing: alone a `Have` travels only if
//! it is news, after `have_tick`, and to whoever *owes a proof*, that is, has not shown to have what is
//! here. Whoever says something that lacks it is told again at once: in answer, a frame that crosses a
//! healed cut in one direction mends the other too. Whoever says nothing for `suspect_after` may be cut
//! off, and is probed every `ping_period`.
//!
//! [`Links::Lossy`]: crate::config::Links::Lossy

use std::sync::Arc;

use super::{Broadcast, Frame, Link, Now, Time};
use crate::frame::{HAVES_MAX, Have, Haves};
use crate::id::LinkId;
use crate::vector::Vector;

/// What a link has yet to show that it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Proof {
    /// What was durable here then: more is asked about when that is proven, so a link that is always
    /// a little behind proves enough.
    owed: Option<(Time, Arc<Vector>)>,
    /// When anything was last sent to it.
    sent: Time,
}

impl Link {
    fn covers(&self, vector: &Vector) -> bool {
        vector.iter().all(|(log, upto)| self.has(log) >= upto)
    }
}

impl Broadcast {
    /// A link is there; whether anybody hears us is not known.
    pub(super) fn greet_lossy(&mut self, link: LinkId) {
        let news = !self.durable.is_empty();
        if let Some(link) = self.links.get_mut(&link) {
            link.touched |= news;
        }
    }

    /// A `Have` came: it proves what it covers. What it should cover and does not got lost on the
    /// way, so the other end is told again, at once.
    pub(super) fn prove(&mut self, now: Now, link: LinkId) {
        let patience = self.timing.want_retry_min;
        let Some(link) = self.links.get_mut(&link) else { return };
        let Some((since, owed)) = &link.proof.owed else { return };
        if !link.covers(owed) {
            let old = *since + patience <= now.time;
            link.touched |= old && link.proof.sent + patience <= now.time;
            return;
        }
        let more = !link.covers(&self.durable);
        link.proof.owed = more.then(|| (now.time, self.durable.clone()));
        link.suspect = false;
    }

    /// Tells all that is durable to the links that get something in this tick anyway, to those that
    /// were told nothing of the news for long enough, and to those that are probed.
    pub(super) fn announce_lossy(&mut self, now: Now) {
        let mut due = Vec::new();
        for (id, link) in &mut self.links {
            let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now.time);
            let probe = link.suspect.then(|| link.proof.sent + self.timing.ping_period);
            if !(std::mem::take(&mut link.touched) || is_due(link.announce_at) || is_due(probe)) {
                continue;
            }
            link.announce_at = None;
            link.unannounced.clear();
            link.proof.sent = now.time;
            due.push(*id);
        }
        if due.is_empty() {
            return;
        }
        let haves: Vec<Have> = self
            .durable
            .iter()
            .filter_map(|(log, upto)| {
                let state = self.logs.get(&log).filter(|state| !state.forked)?;
                Some(Have { log, upto, chain: state.durable_chain })
            })
            .collect();
        for id in due {
            for piece in haves.chunks(HAVES_MAX) {
                self.counts.have_frames += 1;
                self.send_control(id, Frame::Have(Haves { haves: piece.to_vec() }));
            }
        }
    }

    /// More is durable here: everybody owes a proof to have it too.
    pub(super) fn owe_proofs(&mut self, now: Now) {
        for link in self.links.values_mut() {
            if link.proof.owed.is_none() && !link.covers(&self.durable) {
                link.proof.owed = Some((now.time, self.durable.clone()));
            }
        }
    }

    /// When a link is not waited for any more, or probed again.
    pub(super) fn proof_deadline(&self, link: &Link) -> Option<Time> {
        let (since, _) = link.proof.owed.as_ref()?;
        Some(match link.suspect {
            true => link.proof.sent + self.timing.ping_period,
            false => *since + self.timing.suspect_after,
        })
    }

    /// Whoever owed a proof for too long is cut off, as far as one can know.
    pub(super) fn check_proofs(&mut self, now: Now) {
        let mut cut = false;
        for link in self.links.values_mut() {
            let overdue = |(since, _): &(Time, _)| *since + self.timing.suspect_after <= now.time;
            if !link.suspect && link.proof.owed.as_ref().is_some_and(overdue) {
                link.suspect = true;
                cut = true;
            }
        }
        if cut {
            self.check_feeds(now);
        }
    }
}

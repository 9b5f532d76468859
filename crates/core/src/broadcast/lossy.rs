//! Announcing over links that lose frames without a word and never go down ([`Links::Lossy`]).
//!
//! Nothing said once can be relied on, so all that is held is said whenever anything is said: any frame
//! is accompanied by the whole `Have`, and any that arrives shows all that was missed, whoever's it is
//! and whatever got lost before it. A link that is quiet costs nothing: alone a `Have` travels only if
//! it is news, after `have_tick`, and to whoever *owes a proof*, that is, has not shown to have what is
//! here. Whoever says something that lacks it is told again at once, and gets the events of this server's
//! own log that it lacks: a frame that crosses a healed cut in one direction mends the other too. And it
//! is a sign that a cut is over, so a few of those that were silent for the longest are told with it.
//! Where nobody says anything any more, news waits for no company, and then each server probes one of
//! those who owe a proof at a time, seldom ([`PROBE_LINK`]). Whoever says nothing for `suspect_after` may
//! be cut off, and is probed every `ping_period`.
//!
//! [`Links::Lossy`]: crate::config::Links::Lossy

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::{Broadcast, Frame, Link, Now, Time};
use crate::frame::{HAVES_MAX, Have, Haves};
use crate::id::LinkId;
use crate::vector::Vector;

/// So many silent links are told when one shows that it lost something: few, because it may have been
/// one frame and no cut. Those tell others in turn.
const SIGNS_MAX: usize = 4;

/// A server with so many links probes one of them every so many times this, if one owes a proof: all
/// servers of a mesh together probe some four links a second, however many they are. One frame that gets
/// through starts the rest.
const PROBE_LINK: Duration = Duration::from_millis(250);

/// When nothing came from anybody for this part of `have_tick`, nothing will that news could ride on.
const QUIET_PART: u32 = 4;

/// How finely it is remembered when own events became durable.
const MARKS_MAX: usize = 16;

/// What a link has yet to show that it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Proof {
    /// What was durable here then: more is asked about when that is proven, so a link that is always
    /// a little behind proves enough.
    owed: Option<(Time, Arc<Vector>)>,
    /// When anything was last sent to it.
    sent: Time,
    /// Since when there is news for it that it was not told.
    news: Option<Time>,
    /// When it was last told again, with events of the own log.
    retold: Time,
    /// Whether it is to be.
    again: bool,
}

impl Proof {
    /// Since when it is owed, if that is so long that it is not on its way, nor is what it was told
    /// again.
    fn overdue(&self, now: Now, patience: Duration) -> Option<Time> {
        let (since, _) = self.owed.as_ref()?;
        let is_old = |at: Time| at + patience <= now.time;
        (is_old(*since) && is_old(self.retold) && !self.again).then_some(*since)
    }

    /// When news is told though nothing goes there and nobody says anything.
    fn quiet_at(&self, heard: Time, quiet: Duration) -> Option<Time> {
        self.news.map(|since| since.max(heard) + quiet)
    }
}

/// What every link should have of the own log, if it says anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Sent {
    /// How much was durable when, the oldest first.
    marks: VecDeque<(Time, u64)>,
    /// How much was durable so long ago that an answer would be here.
    old: u64,
}

impl Sent {
    fn mark(&mut self, now: Now, upto: u64) {
        if self.marks.len() >= MARKS_MAX {
            self.marks.pop_back(); // somewhat later is early enough
        }
        self.marks.push_back((now.time, upto));
    }

    fn old(&mut self, now: Now, patience: Duration) -> u64 {
        while let Some((_, upto)) = self.marks.pop_front_if(|(at, _)| *at + patience <= now.time) {
            self.old = upto;
        }
        self.old
    }
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
    /// way, so the other end is told again.
    pub(super) fn prove(&mut self, now: Now, id: LinkId) {
        let (own, patience) = (self.own, self.timing.want_retry_min);
        let sent = self.sent.old(now, patience);
        let Some(link) = self.links.get_mut(&id) else { return };
        let mut lacks = link.has(own) < sent;
        match &link.proof.owed {
            Some((_, owed)) if link.covers(owed) => {
                let more = !link.covers(&self.durable);
                link.proof.owed = more.then(|| (now.time, self.durable.clone()));
                link.suspect = false;
            }
            Some(_) => lacks |= link.proof.overdue(now, patience).is_some(),
            None => {}
        }
        if !lacks || now.time < link.proof.retold + patience {
            return;
        }
        link.proof.again = true;
        for id in self.owing(now).into_iter().take(SIGNS_MAX) {
            self.tell_again(id);
        }
    }

    /// Links that owe a proof for so long that it is not on its way, the longest first.
    fn owing(&self, now: Now) -> Vec<LinkId> {
        let patience = self.timing.want_retry_min;
        let owing = |(id, link): (&LinkId, &Link)| Some((link.proof.overdue(now, patience)?, *id));
        let mut owing: Vec<(Time, LinkId)> = self.links.iter().filter_map(owing).collect();
        owing.sort();
        owing.into_iter().map(|(_, id)| id).collect()
    }

    fn tell_again(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.proof.again = true;
        }
    }

    /// Whoever is told again gets the events of the own log that it has not shown to have: nobody else
    /// is as sure to have them, and nobody else sends the same.
    fn send_own_again(&mut self, now: Now) {
        let (own, upto) = (self.own, self.durable.upto(self.own));
        let mut lacking = Vec::new();
        for (id, link) in self.links.iter_mut().filter(|(_, link)| link.proof.again) {
            (link.proof.again, link.proof.retold, link.touched) = (false, now.time, true);
            let from = link.has(own).saturating_add(1);
            if from <= upto {
                link.serving.queue.insert(own, (from, upto));
                lacking.push(*id);
            }
        }
        lacking.into_iter().for_each(|id| self.pump(id));
    }

    /// Tells all that is durable to the links that get something in this tick anyway, to those that
    /// were told nothing of the news for long enough, and to those that are probed.
    pub(super) fn announce_lossy(&mut self, now: Now) {
        self.send_own_again(now);
        let (heard, quiet) = (self.heard, self.timing.have_tick / QUIET_PART);
        let mut due = Vec::new();
        for (id, link) in &mut self.links {
            let probe = link.suspect.then(|| link.proof.sent + self.timing.ping_period);
            let quiet_at = link.proof.quiet_at(heard, quiet);
            let times = [link.announce_at, link.ack_at, quiet_at, probe];
            let is_due = times.into_iter().flatten().any(|at| at <= now.time);
            if !(std::mem::take(&mut link.touched) || is_due) {
                continue;
            }
            (link.announce_at, link.ack_at) = (None, None);
            link.proof.news = None;
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
        let (own, patience) = (self.durable.upto(self.own), self.timing.want_retry_min);
        self.sent.old(now, patience);
        self.sent.mark(now, own);
        for link in self.links.values_mut() {
            link.proof.news.get_or_insert(now.time);
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

    /// When news is told that waits for company in vain.
    pub(super) fn quiet_deadline(&self) -> Option<Time> {
        let quiet = self.timing.have_tick / QUIET_PART;
        self.links.values().filter_map(|link| link.proof.quiet_at(self.heard, quiet)).min()
    }

    /// When the link that owes a proof for the longest is probed.
    pub(super) fn probe_deadline(&self) -> Option<Time> {
        let patience = self.timing.want_retry_min;
        let of = |link: &Link| {
            let (since, _) = link.proof.owed.as_ref()?;
            Some((*since).max(link.proof.retold) + patience)
        };
        let owing = self.links.values().filter_map(of).min();
        owing.map(|at| at.max(self.probe_at))
    }

    /// Whoever owed a proof for too long is cut off, as far as one can know.
    pub(super) fn check_proofs(&mut self, now: Now) {
        if self.probe_deadline().is_some_and(|at| at <= now.time) {
            if let Some(id) = self.owing(now).first() {
                self.tell_again(*id);
            }
            let links = u32::try_from(self.links.len()).unwrap_or(u32::MAX);
            self.probe_at = now.time + PROBE_LINK.saturating_mul(links);
        }
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

//! Who pushes what in a full mesh before anybody has said anything.
//!
//! Two floods of a log show its receivers whom to prune, and leave the log's own server as the feed of
//! everybody, and for each feed beyond the first some other server. In a mesh that everybody knows
//! ([`Start::Pruned`]) both ends of a link can tell that beforehand and save the floods. The plan
//! is an expectation and no promise: a link that pushes against it is an ordinary one, one that ought
//! to push and does not is found by `Have` and replaced by `Want`, like any other feed.

use super::Broadcast;
use crate::config::Start;
use crate::id::{LinkId, Log, Slot};

/// Whether a log was there when the link of its server came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Before,
    Now,
}

impl Broadcast {
    /// Whether server `from` pushes the logs of server `of` to server `to`, to begin with: its own to
    /// everybody, and those of others to the servers before it in the configuration, as many as there
    /// are feeds beyond one. Servers that are not in the configuration are not planned for.
    fn is_planned(&self, of: &Slot, from: &Slot, to: &Slot) -> bool {
        let place = |slot: &Slot| self.ring.iter().position(|other| other == slot);
        let (Some(of), Some(from), Some(to)) = (place(of), place(from), place(to)) else {
            return true;
        };
        let behind = |place: usize| (place + self.ring.len() - to) % self.ring.len();
        let skipped = usize::from(behind(of) < behind(from));
        from == of || behind(from) - skipped < self.feeds.max()
    }

    /// A link came up, and with it a log: mutes what the plan has nobody push, and expects nothing of
    /// those whom it has not push.
    pub(super) fn plan(&mut self, link: LinkId, known: Known) {
        if self.start == Start::Flooded {
            return;
        }
        let Some(peer) = self.links.get(&link).map(|link| link.peer.clone()) else { return };
        let own = (self.own, self.slot.clone());
        let linked = self.links.values().map(|l| (Log::of(l.peer.origin), l.peer.slot.clone()));
        let logs: Vec<(Log, Slot)> = linked.chain([own]).collect();
        // The new link, and all logs of those who are linked.
        for (log, of) in &logs {
            self.plan_one(*log, of, link, &peer.slot, Known::Now);
        }
        // The new log, and all other links. Who asked for it already goes on getting it.
        let others: Vec<(LinkId, Slot)> =
            self.links.iter().map(|(id, l)| (*id, l.peer.slot.clone())).collect();
        for (id, slot) in others.iter().filter(|(id, _)| *id != link) {
            self.plan_one(Log::of(peer.origin), &peer.slot, *id, slot, known);
        }
    }

    fn plan_one(&mut self, log: Log, of: &Slot, link: LinkId, peer: &Slot, known: Known) {
        let gives = self.is_planned(of, &self.slot, peer);
        let gets = self.is_planned(of, peer, &self.slot);
        let own = log == self.own;
        let Some(state) = self.logs.get_mut(&log) else { return };
        if !gives && known == Known::Now {
            state.feeding.mute(link);
        }
        if !gets && !own {
            state.feeding.expect_nothing(link);
        }
    }
}

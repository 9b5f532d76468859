//! Who pushes a log to whom: everybody at first, then what receivers left.
//!
//! A link is *muted* when its other end told us to stop ([`Frame::Prune`], one direction only), and
//! *pruned* when we told it. Every live link that is not pruned pushes to us by the rules, so
//! counting them tells whether enough feeds are left without any traffic.
//!
//! Modification from Plumtree: prune is one-directional (a symmetric prune plus the shorter-path
//! swap lost feeds in more than a third of broadcasts of a model), happens at the second duplicate
//! and not the first, and keeps the best feeds instead of the first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Broadcast, Class, Frame, Link, Logs, Now, Output, Push, Time};
use crate::bugs::bug;
use crate::frame::{Lagging, Want};
use crate::id::{LinkId, Log};
use crate::io::Severity;

/// Who pushes one log to us, and to whom we do not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Feeding {
    /// Links seen to push it to us, best first.
    feeds: Vec<Feed>,
    /// Links we told to stop.
    pruned: BTreeSet<LinkId>,
    /// Links that do not push it by the plan (see `plan.rs`), without having been told.
    idle: BTreeSet<LinkId>,
    /// Links that told us to stop, or whose queue we dropped, or that do not expect it by the plan.
    muted: BTreeSet<LinkId>,
    /// Superfluous copies: how many since when.
    duplicates: BTreeMap<LinkId, (u8, Time)>,
    /// When a link was last told to stop.
    pruned_at: BTreeMap<LinkId, Time>,
    /// When a pruned link may be asked to push again.
    regraft_at: Time,
}

/// A link that pushes a log: fewer hops are better, then the older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Feed {
    hops: u8,
    since: Time,
    link: LinkId,
}

impl Feeding {
    pub(super) fn is_muted(&self, link: LinkId) -> bool {
        self.muted.contains(&link)
    }

    pub(super) fn unmute(&mut self, link: LinkId) {
        self.muted.remove(&link);
    }

    pub(super) fn unprune(&mut self, link: LinkId) {
        self.pruned.remove(&link);
        self.idle.remove(&link);
    }

    /// The other end does not push it until it is asked.
    pub(super) fn prune(&mut self, link: LinkId) {
        self.feeds.retain(|feed| feed.link != link);
        self.idle.remove(&link);
        self.pruned.insert(link);
    }

    /// The other end does not expect it to be pushed.
    pub(super) fn mute(&mut self, link: LinkId) {
        self.muted.insert(link);
    }

    /// The other end is taken not to push it, unless it was seen to, or was told.
    pub(super) fn expect_nothing(&mut self, link: LinkId) {
        if !self.pruned.contains(&link) && self.feeds.iter().all(|feed| feed.link != link) {
            self.idle.insert(link);
        }
    }

    /// Links that do not push it, told or not.
    fn silent(&self) -> impl Iterator<Item = LinkId> {
        self.pruned.union(&self.idle).copied()
    }

    pub(super) fn is_silent(&self, link: LinkId) -> bool {
        self.pruned.contains(&link) || self.idle.contains(&link)
    }

    pub(super) fn is_pruned(&self, link: LinkId) -> bool {
        self.pruned.contains(&link)
    }

    /// Keeps which feed is older, and that a second duplicate came soon; no limit by the second
    /// holds anything back.
    pub(super) fn forget_time(&mut self) {
        let mut ages: Vec<Time> = self.feeds.iter().map(|feed| feed.since).collect();
        ages.sort();
        ages.dedup();
        for feed in &mut self.feeds {
            let rank = ages.iter().position(|age| *age == feed.since);
            feed.since = Time::from_micros(rank.unwrap_or(0) as u64);
        }
        self.duplicates.values_mut().for_each(|(_, since)| *since = Time::from_micros(0));
        self.pruned_at.clear();
        self.regraft_at = Time::from_micros(0);
    }

    /// Where no feed is ever one too many it does not matter which links are seen to push; one that is
    /// gone has no business here and stays, to be found.
    pub(super) fn forget_feeds(&mut self, links: &BTreeMap<LinkId, Link>) {
        self.feeds.retain(|feed| !links.contains_key(&feed.link));
    }

    fn forget(&mut self, link: LinkId) {
        self.feeds.retain(|feed| feed.link != link);
        self.pruned.remove(&link);
        self.idle.remove(&link);
        self.muted.remove(&link);
        self.duplicates.remove(&link);
        self.pruned_at.remove(&link);
    }

    pub(super) fn assert_invariants(&self, feeds_max: usize) {
        assert!(self.feeds.len() <= feeds_max, "no more feeds than configured");
        assert!(self.feeds.is_sorted(), "the best feed is first");
        let fed: BTreeSet<_> = self.feeds.iter().map(|feed| feed.link).collect();
        assert!(fed.is_disjoint(&self.pruned), "a pruned link is no feed");
        assert!(fed.is_disjoint(&self.idle), "a link that pushes is not idle");
        assert!(self.pruned.is_disjoint(&self.idle), "a link that was told is not idle");
    }
}

impl Broadcast {
    /// A link pushed events of a log, new ones or not: it is one of the feeds, or one too many.
    pub(super) fn feed(&mut self, now: Now, link: LinkId, log: Log, hops: u8) {
        let max = self.feeds.max();
        let (window, period) = (self.timing.prune_window, self.timing.prune_period);
        let Some(state) = self.logs.get_mut(&log) else { return };
        let feeding = &mut state.feeding;
        if feeding.pruned.contains(&link) {
            return; // frames in flight
        }
        feeding.idle.remove(&link); // it does push
        if let Some(feed) = feeding.feeds.iter_mut().find(|feed| feed.link == link) {
            feed.hops = hops;
            feeding.feeds.sort();
            return;
        }
        let new = Feed { hops, since: now.time, link };
        if feeding.feeds.len() < max {
            feeding.feeds.push(new);
            feeding.feeds.sort();
            return;
        }
        let (count, since) = feeding.duplicates.entry(link).or_insert((0, now.time));
        if now.time.since(*since) > window {
            (*count, *since) = (0, now.time);
        }
        *count = count.saturating_add(1);
        if *count < 2 {
            return;
        }
        let worst = match feeding.feeds.last().copied() {
            Some(last) if last > new => last,
            _ => new,
        };
        if feeding.pruned_at.get(&worst.link).is_some_and(|at| now.time.since(*at) < period) {
            return;
        }
        if worst.link != link {
            feeding.feeds.pop();
            feeding.feeds.push(new);
            feeding.feeds.sort();
        }
        feeding.duplicates.remove(&worst.link);
        feeding.duplicates.remove(&link);
        feeding.pruned_at.insert(worst.link, now.time);
        feeding.pruned.insert(worst.link);
        if bug!(SymmetricPrune) {
            feeding.muted.insert(worst.link);
        }
        self.counts.prunes += 1;
        self.send_control(worst.link, Frame::Prune(Logs { logs: vec![log] }));
    }

    /// The other end has enough feeds of these logs.
    pub(super) fn on_prune(&mut self, link: LinkId, logs: &[Log]) {
        for log in logs {
            if let Some(state) = self.logs.get_mut(log) {
                state.feeding.muted.insert(link);
            }
        }
    }

    /// A link is gone: its feeds are to be replaced, even if nothing is missing yet.
    pub(super) fn unfeed(&mut self, now: Now, link: LinkId) {
        let logs: Vec<Log> = self.logs.keys().copied().collect();
        for log in logs {
            if let Some(state) = self.logs.get_mut(&log) {
                state.feeding.forget(link);
            }
            self.regraft(now, log);
            self.reask(now, log, link);
        }
    }

    /// Asks a pruned link to push again when too few feeds are left.
    pub(super) fn regraft(&mut self, now: Now, log: Log) {
        let max = self.feeds.max();
        let Some(state) = self.logs.get(&log) else { return };
        let feeding = &state.feeding;
        if bug!(LostFeed)
            || feeding.silent().next().is_none()
            || log == self.own
            || now.time < feeding.regraft_at
        {
            return;
        }
        let live = |link: &LinkId| self.links.get(link).is_some_and(|l| !l.suspect);
        let pushing = self.links.keys().filter(|l| live(l) && !feeding.is_silent(**l)).count();
        if pushing >= max {
            return;
        }
        let best = feeding.silent().filter(live).min_by_key(|id| self.rank(*id, log));
        let Some(best) = best else { return };
        let Some(state) = self.logs.get_mut(&log) else { return };
        state.feeding.regraft_at = now.time + self.timing.prune_period;
        state.feeding.unprune(best);
        let from = state.next;
        self.counts.wants += 1;
        // Nothing need be missing: `to` below `from` asks for pushing alone.
        let want = Want { log, from, to: from.saturating_sub(1), push: Push::Start };
        self.send_control(best, Frame::Want(want));
    }

    /// Which of two links is the better one to ask for a log: alive, then direct, then near.
    pub(crate) fn rank(&self, id: LinkId, log: Log) -> (bool, bool, u64, LinkId) {
        self.links.get(&id).map_or((true, true, u64::MAX, id), |link| {
            (link.suspect, link.peer.origin != log.origin, link.rtt_micros, id)
        })
    }

    /// The links' health changed: feeds that fell silent are replaced.
    pub fn check_feeds(&mut self, now: Now) {
        let thinned: Vec<Log> = self
            .logs
            .iter()
            .filter(|(_, state)| state.feeding.silent().next().is_some())
            .map(|(log, _)| *log)
            .collect();
        for log in thinned {
            self.regraft(now, log);
        }
    }

    /// A link is too slow for what is pushed to it: forget the queue, push nothing more until it
    /// asks, and tell it so. It pulls.
    pub(super) fn overflow(&mut self, link: LinkId) {
        let Some(slow) = self.links.get_mut(&link) else { return };
        slow.live_queued = 0;
        let what = format!(
            "{} takes less than is pushed to it: what waited for it is dropped, it asks for it",
            slow.peer.slot
        );
        self.out.push_back(Output::Log(Severity::Info, what));
        for state in self.logs.values_mut() {
            state.feeding.muted.insert(link);
        }
        self.counts.overflows += 1;
        self.out.push_back(Output::DropQueue(link, Class::Live));
        if !bug!(SilentDrop) {
            self.send_control(link, Frame::Lagging(Lagging {}));
        }
    }

    /// The other end dropped what it had queued for us: it pushes a log again when we ask, and we
    /// ask when we are near.
    pub(super) fn on_lagging(&mut self, link: LinkId) {
        for state in self.logs.values_mut() {
            state.feeding.prune(link);
        }
        if let Some(link) = self.links.get_mut(&link) {
            link.lagged = true;
        }
    }

    /// Sends a presence frame; here, so that every frame counts as a carrier for `Have`s.
    pub fn send_presence(&mut self, links: Vec<LinkId>, frame: Frame) {
        for id in &links {
            if let Some(link) = self.links.get_mut(id) {
                link.touched = true;
            }
        }
        let cost = 64;
        let frame = Arc::new(frame);
        self.out.push_back(Output::Send { links, class: Class::Presence, frame, cost });
    }
}

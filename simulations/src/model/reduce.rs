//! What makes the states fewer and loses none that breaks a rule. `--full` explores without it, and
//! `--compare` both ways: what each disk holds in any state, and all ends, are the same.
//!
//! **States that differ in nothing that matters are one.** [`Broadcast::forget_spent`] names what is
//! forgotten of a server, each with its reason; besides, what a disk holds about other disks is read by
//! a start alone, so it is forgotten where none is to come; and hops only rank feeds, so they are where
//! nobody can have one too many.
//!
//! **Who dies is settled in advance**, where one crash is to come: the exploration begins once for each
//! server. So it is known of the others that they do not start again, and of a cable between them that it
//! loses nothing.
//!
//! **Steps that clash with no other are taken at once** ([`Cluster::settle`]): whenever they are taken,
//! and whatever is taken before, the same states follow. A way that takes such a step later is the same
//! way with it moved forward. Each takes a frame from a cable, or a timer, or makes a server or a cable
//! that was not there: so no loop is made of such steps alone, which would leave others out for ever.
//! They are:
//!
//! - a dead server starts: nobody but itself depends on that before they connect, and it writes nothing,
//!   since all had written their first batch when the exploration began
//! - a frame is taken that changes nothing, whenever it comes ([`Spent::Wholly`]); so it does not matter
//!   either whether it is lost
//! - a frame is taken that only tells what is on a disk, of events that are held here too, and it cannot
//!   be lost ([`Spent::ButCounted`]): nothing is sent or asked for by that count, and too high a count is
//!   found the sooner
//! - an announcement is sent that is such a frame, on a link whose ends compare nothing any more: only a
//!   comparison reads the count. If more would have gone with it, that goes by itself, in another frame
//! - what a server does whose disk holds all there is ([`Ripe::Done`]), once no fault is to come and
//!   nothing to be said: it only answers, each link by itself. What comes over a link may clash with the
//!   announcement for that link, nothing else: if both can happen, both orders are explored, and nothing
//!   else before
//! - while nobody gets an event before nothing is under way any more ([`Outlook::quiet`]), the same goes for
//!   a server that writes nothing; and what others announce, more than is here or not, is only taken down
//! - two servers connect whose disks hold all there is
//! - where a server holds all there is, and nobody can send it anything that makes a difference, its own
//!   steps are explored before all others ([`Cluster::own`]), also what it writes to its disk
//!
//! Taking one of these never lets a repair timer fire that could not have: one fires when nothing is
//! under way, and each of these frames is under way until it is taken; what two servers that are done say
//! to each other is taken at once.
//!
//! **The rules see no difference.** All steps of each server are explored with all that it can have been
//! told before, in some order with those of others. So a rule is not lost that looks at one server and a
//! frame, like that on what a frame may announce or what may be counted for it ([`Cluster::check_counts`]);
//! nor one of the end; nor one that stays broken, like two disks that differ. Who is pushed what is looked
//! at when nothing is under way, and where steps are put before others everybody is pushed by everybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use chatty_core::broadcast::{Broadcast, Restarts, Spent, Timer};
use chatty_core::frame::{Events, Frame, Range};
use chatty_core::id::{LinkId, Log};
use chatty_core::vector::Vector;

use super::cluster::{Action, CLASSES, Cable, Cluster, Pair, Server};
use super::scope::Scope;
use super::step::end;

impl Cluster {
    /// Whether a server may still die.
    pub(super) fn may_die(&self, n: usize) -> bool {
        self.left.crashes > 0 && self.left.victim.is_none_or(|victim| victim == n)
    }

    pub(super) fn restarts(&self, n: usize) -> Restarts {
        if self.may_die(n) { Restarts::Maybe } else { Restarts::Never }
    }

    /// Whether all that is under way on a cable, and will be, arrives.
    fn is_safe(&self, pair: Pair) -> bool {
        let whole = |cable: &Cable| cable.whole && cable.up == [true, true];
        self.left.cuts == 0
            && ![pair.0, pair.1].into_iter().any(|n| self.may_die(n))
            && self.cables.get(&pair).is_some_and(|cable| whole(cable))
    }

    /// What is explored of all that can happen here.
    pub(super) fn choices(&self, scope: &Scope, into: &mut Vec<Action>) {
        match self.first().filter(|_| scope.reduced && !scope.is_narrow()) {
            Some(first) => into.extend(first),
            None => self.actions(into),
        }
    }

    /// The state after a step, and after what clashes with no other step.
    pub(super) fn after(&self, scope: &Scope, action: Action) -> Self {
        let mut next = self.clone();
        next.step(scope, action);
        next.settle(scope, |_, _| ());
        next
    }

    /// What such a step is made of.
    pub(super) fn steps(&self, scope: &Scope, action: Action) -> Vec<Action> {
        let (mut next, mut steps) = (self.clone(), vec![action]);
        next.step(scope, action);
        next.settle(scope, |_, action| steps.push(action));
        steps
    }

    /// Takes the steps that clash with no other, whenever they are taken; the rules must hold
    /// between them, too.
    pub(super) fn settle(&mut self, scope: &Scope, mut tell: impl FnMut(&Self, Action)) {
        while scope.reduced && !scope.is_narrow() && self.broken.is_none() {
            let Some(action) = self.eager() else { break };
            if let Some(rule) = self.broken_rule(scope) {
                self.broken = Some(rule.into());
                break;
            }
            self.step(scope, action);
            tell(self, action);
        }
        self.servers.iter_mut().for_each(Server::seal);
    }

    fn eager(&self) -> Option<Action> {
        if let Some(n) = self.servers.iter().position(|server| server.run.is_none()) {
            return Some(Action::Start(n));
        }
        let outlook = self.outlook();
        let (ripe, quiet) = (&outlook.ripe, outlook.quiet);
        for (pair, cable) in &self.cables {
            let safe = self.is_safe(*pair);
            for side in (0..2).filter(|side| cable.up[*side]) {
                let n = end(*pair, side);
                let Some(broadcast) = self.servers[n].broadcast() else { continue };
                let link = cable.links[side];
                for (class, queue) in CLASSES.iter().zip(&cable.to[side]) {
                    let Some(first) = queue.front() else { continue };
                    let eager = match (broadcast.is_spent(link, &first.frame), &*first.frame) {
                        (Some(Spent::Wholly), _) => true,
                        (Some(Spent::ButCounted), _) => safe,
                        (None, Frame::Have(_)) => quiet,
                        (None, Frame::Range(_)) => ripe[n] >= Ripe::Full,
                        (None, Frame::Want(_)) => ripe[n] == Ripe::Done,
                        (None, Frame::Digest(_)) => {
                            let answers = ripe[n] == Ripe::Done || quiet && broadcast.is_saved();
                            answers && !announces(broadcast, link)
                        }
                        (None, _) => false,
                    };
                    if eager {
                        return Some(Action::Deliver(*pair, side, *class));
                    }
                }
                // At the other end it is taken at once, or when what is before it has been.
                let only_counts = safe && self.left.digests == 0 && !cable.compares();
                let there = self.servers[end(*pair, 1 - side)].broadcast();
                let held = |(log, upto)| there.is_some_and(|there| there.holds(log, upto));
                if only_counts && announces(broadcast, link) && broadcast.untold(link).all(held) {
                    return Some(Action::Fire(n, Timer::Announce(link)));
                }
            }
        }
        let done = |n: usize| ripe[n] == Ripe::Done;
        let all = 0..self.servers.len();
        let mut pairs = all.clone().flat_map(|n| all.clone().skip(n + 1).map(move |m| (n, m)));
        let pair =
            pairs.find(|(n, m)| done(*n) && done(*m) && !self.cables.contains_key(&(*n, *m)));
        pair.map(Action::Connect).or_else(|| match self.own(&outlook).as_deref() {
            Some([only]) => Some(*only),
            _ => None,
        })
    }

    /// Steps of which one comes before all others that clash with them.
    fn first(&self) -> Option<Vec<Action>> {
        if self.broken.is_some() {
            return None;
        }
        let outlook = self.outlook();
        let (ripe, quiet) = (&outlook.ripe, outlook.quiet);
        for (pair, cable) in &self.cables {
            for side in 0..2 {
                let (n, link) = (end(*pair, side), cable.links[side]);
                let first = cable.to[side][0].front();
                let digest = first.is_some_and(|first| matches!(&*first.frame, Frame::Digest(_)));
                let saved = || self.servers[n].broadcast().is_some_and(Broadcast::is_saved);
                if digest && (ripe[n] == Ripe::Done || quiet && saved()) {
                    let deliver = Action::Deliver(*pair, side, CLASSES[0]);
                    return Some(vec![deliver, Action::Fire(n, Timer::Announce(link))]);
                }
            }
        }
        self.own(&outlook)
    }

    /// All steps of one server that nobody else can add to: it holds all there is or gets nothing for now,
    /// its links are all up, nothing is under way from it that would be answered, and nobody asks it for
    /// anything before nothing is under way any more. So something must be, to this server or to its disk,
    /// unless all hold everything. The fewest such steps.
    fn own(&self, Outlook { ripe, quiet, asks }: &Outlook) -> Option<Vec<Action>> {
        if *asks || !self.cables.values().all(|cable| cable.whole && cable.up == [true, true]) {
            return None;
        }
        let all_full = ripe.iter().all(|ripe| *ripe >= Ripe::Full);
        let own = |n: usize| {
            let broadcast = self.servers[n].broadcast()?;
            let (mut links, mut coming) = (0, Vec::new());
            for (pair, cable) in self.cables.iter().filter(|((a, b), _)| *a == n || *b == n) {
                links += 1;
                let side = usize::from(pair.1 == n);
                let mut sent = cable.to[1 - side].iter().flatten();
                if sent.any(|sent| matches!(&*sent.frame, Frame::Digest(_) | Frame::Range(_))) {
                    return None;
                }
                let queues = CLASSES.iter().zip(&cable.to[side]);
                let heads = queues.filter(|(_, queue)| !queue.is_empty());
                coming.extend(heads.map(|(class, _)| Action::Deliver(*pair, side, *class)));
            }
            coming.extend(broadcast.saving().map(|_| Action::Synced(n)));
            if links + 1 < self.servers.len() || (coming.is_empty() && !all_full) {
                return None;
            }
            let announces = |timer: &Timer| matches!(timer, Timer::Announce(_));
            let timers = broadcast.timers().into_iter().filter(announces);
            coming.extend(timers.map(|timer| Action::Fire(n, timer)));
            Some(coming).filter(|own| !own.is_empty())
        };
        let able = (0..self.servers.len()).filter(|n| *quiet || ripe[*n] >= Ripe::Full);
        able.filter_map(own).min_by_key(Vec::len)
    }

    /// How far each server is from what it will be in the end.
    pub(super) fn outlook(&self) -> Outlook {
        let left = &self.left;
        let faults = left.crashes + left.cuts + left.hasty + left.digests;
        if faults > 0 || left.says.iter().any(|says| *says > 0) {
            let ripe = vec![Ripe::Not; self.servers.len()];
            return Outlook { ripe, quiet: false, asks: true };
        }
        let mut there: BTreeMap<Log, u64> = BTreeMap::new();
        let mut raise = |log: Log, upto: u64| {
            let most = there.entry(log).or_insert(0);
            *most = upto.max(*most);
        };
        let held = |server: &Server| server.broadcast().map(Broadcast::held).unwrap_or_default();
        let held: Vec<Vector> = self.servers.iter().map(held).collect();
        for (server, held) in self.servers.iter().zip(&held) {
            server.disk.logs().iter().for_each(|(log, held)| raise(*log, held.len() as u64));
            held.iter().for_each(|(log, upto)| raise(log, upto));
            let buffered = server.broadcast().into_iter().flat_map(Broadcast::buffered);
            buffered.for_each(|(log, upto)| raise(log, upto));
        }
        let (mut sent, mut asks) = (false, false);
        for (pair, cable) in &self.cables {
            let ways = cable.to.iter().enumerate();
            let letters = ways.flat_map(|(side, to)| to.iter().flatten().map(move |l| (side, l)));
            for (side, letter) in letters {
                match &*letter.frame {
                    Frame::Events(Events { log, base, events, .. })
                    | Frame::Range(Range { log, base, events, .. }) => {
                        raise(*log, base + events.len() as u64 - 1);
                        sent = true;
                    }
                    Frame::Want(_) => sent = true,
                    Frame::Vector(all) => {
                        let held = &held[end(*pair, side)];
                        asks |= all.haves.iter().any(|have| have.upto > held.upto(have.log));
                    }
                    _ => {}
                }
            }
        }
        let whole = |n: usize| there.iter().all(|(log, upto)| held[n].upto(*log) >= *upto);
        let all = self.servers.len();
        let mut pairs = (0..all).flat_map(|n| (n + 1..all).map(move |m| (n, m)));
        asks |= pairs.any(|(n, m)| {
            let compare = self.cables.get(&(n, m)).is_none_or(|cable| cable.compares());
            compare && !(whole(n) && whole(m))
        });
        let fed = |server: &Server| server.broadcast().is_some_and(Broadcast::has_feeds_for_all);
        let quiet = !sent
            && !asks
            && self.cables.values().all(|cable| cable.whole && cable.up == [true, true])
            && self.servers.iter().all(fed);
        let ripe = |n: usize| {
            let Some(broadcast) = self.servers[n].broadcast() else { return Ripe::Not };
            let mut own = self.cables.iter().filter(|((a, b), _)| *a == n || *b == n);
            let full = broadcast.has_feeds_for_all()
                && own.all(|(_, cable)| cable.whole && cable.up == [true, true])
                && whole(n)
                && !broadcast.timers().iter().any(|timer| matches!(timer, Timer::Repair(_)));
            match full {
                true if broadcast.is_saved() => Ripe::Done,
                true => Ripe::Full,
                false => Ripe::Not,
            }
        };
        Outlook { ripe: (0..all).map(ripe).collect(), quiet, asks }
    }

    /// Forgets what can make no difference any more now that fewer servers can die.
    pub(super) fn forget(&mut self) {
        for n in 0..self.servers.len() {
            let restarts = self.restarts(n);
            // A dead server has yet to start from its disk.
            let Some(run) = &mut self.servers[n].run else { continue };
            Arc::make_mut(run).broadcast.forget_spent(restarts);
            self.forget_disks(n);
            self.servers[n].change();
        }
    }

    /// What a disk holds about others is read by a start alone.
    pub(super) fn forget_disks(&mut self, n: usize) {
        if self.restarts(n) == Restarts::Never && self.servers[n].disk.names_disks() {
            Arc::make_mut(&mut self.servers[n].disk).forget_disks();
        }
    }
}

/// What can still come.
pub(super) struct Outlook {
    pub(super) ripe: Vec<Ripe>,
    /// Whether no server gets an event before nothing is under way any more: none is under way, none was
    /// asked for or will be, and nobody finds out that it lost a link.
    quiet: bool,
    /// Whether somebody may ask for an event before nothing is under way any more: he is told, or could be,
    /// by a new link of all that it holds, and asks for it at once.
    asks: bool,
}

/// How far a server is from what it will be in the end, when no fault is to come and nothing to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ripe {
    /// It may lack something.
    Not,
    /// It holds all that is anywhere or under way.
    Full,
    /// So does its disk.
    Done,
}

fn announces(broadcast: &Broadcast, link: LinkId) -> bool {
    broadcast.timers().contains(&Timer::Announce(link))
}

/// A frame as it travels: how often it was pushed on tells nobody anything where nobody is ever fed by
/// one link too many.
pub(super) fn without_hops(sender: &Broadcast, frame: Arc<Frame>) -> Arc<Frame> {
    match &*frame {
        Frame::Events(events) if sender.has_feeds_for_all() => {
            Arc::new(Frame::Events(Events { hops: 0, ..events.clone() }))
        }
        _ => frame,
    }
}

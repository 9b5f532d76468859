//! Clients spread again by themselves: a server that has clearly more of them than the others sends
//! some on.
//!
//! After a rolling restart the server that came last has none, since those who left it stay where
//! they went. Servers tell each other how many clients they have ([`Load`]). One that has more than a
//! quarter and more than [`BEYOND`] clients above the mean for [`UNEVEN`] asks a few each second to
//! move to the emptiest one (`Leaving`, as for a stop), until it is at the mean. Nothing moves unless
//! all linked servers say that they take clients and writes, and a server that comes or goes begins
//! the time anew.
//!
//! Who has been here for a while only is left alone ([`Timing::settled`](crate::config::Timing)),
//! and so is who waits for something; of the others those go first who asked for nothing for the
//! longest time. An account that was asked is not asked again for [`AGAIN`]: whoever comes back has
//! his reasons.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::frame::{Frame, Load};
use crate::id::{AccountId, LinkId, SessionId};
use crate::io::Severity;
use crate::replica::Replica;
use crate::session::{Item, LinkState, Moving, ServerAddr, ServerState};
use crate::time::{Now, Time};

/// So many clients above the mean are not worth a move.
const BEYOND: u64 = 8;
/// How long it must be uneven, all servers being there.
const UNEVEN: Duration = Duration::from_secs(10);
/// How often clients are asked to move…
const STEP: Duration = Duration::from_secs(1);
/// … and how many at once: a handful, which no server feels.
const STEP_CLIENTS: u64 = 5;
/// An account that was asked to move is left alone for so long.
const AGAIN: Duration = Duration::from_secs(3600);
/// Accounts of which that is remembered, at most; full: nobody is asked.
const ASKED_MAX: usize = 65_536;

/// What servers told of their clients, and what is being done about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Balance {
    /// What each link was told, and told.
    told: BTreeMap<LinkId, Load>,
    heard: BTreeMap<LinkId, Load>,
    /// Since when there are clearly more clients here than elsewhere.
    uneven_since: Option<Time>,
    /// How many were asked to move since, once that is so.
    moving: Option<u64>,
    step_at: Time,
    asked: BTreeMap<AccountId, Time>,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Rest,
    /// Ask a client for each of these to go there.
    Ask(Vec<LinkId>),
    /// It is even again; so many were asked.
    Done(u64),
}

impl Balance {
    pub(crate) fn heard(&mut self, link: LinkId, load: Load) {
        self.heard.insert(link, load);
    }

    pub(crate) fn link_down(&mut self, link: LinkId) {
        self.heard.remove(&link);
        self.told.remove(&link);
        self.rest();
    }

    /// Whether that is news to a link, which is told it now.
    fn tells(&mut self, link: LinkId, load: Load) -> bool {
        self.told.insert(link, load) != Some(load)
    }

    fn rest(&mut self) -> Step {
        self.uneven_since = None;
        self.moving = None;
        Step::Rest
    }

    /// Looks at what all servers have: `mine` here, the others as those links told. `links` are all
    /// there are, and whether each is heard.
    fn look(&mut self, now: Time, mine: Load, links: &[(LinkId, LinkState)]) -> Step {
        let is_ready = |load: &Load| load.state == ServerState::Ready;
        let told = |(link, state): &(LinkId, LinkState)| {
            let load = self.heard.get(link).filter(|load| is_ready(load))?;
            (*state == LinkState::Up).then_some((*link, u64::from(load.clients)))
        };
        let others: Option<Vec<(LinkId, u64)>> = links.iter().map(told).collect();
        let Some(mut others) = others.filter(|_| is_ready(&mine)) else { return self.rest() };
        let own = u64::from(mine.clients);
        let servers = others.len() as u64 + 1;
        let all = others.iter().map(|(_, clients)| clients).sum::<u64>() + own;
        // Times the number of servers, so that the mean need not be rounded.
        let (own_scaled, beyond) = (own * servers, BEYOND * servers);
        let clearly = own_scaled * 4 > all * 5 && own_scaled > all + beyond;
        if self.moving.is_none() {
            if !clearly {
                return self.rest();
            }
            if now.since(*self.uneven_since.get_or_insert(now)) < UNEVEN {
                return Step::Rest;
            }
        }
        let asked = *self.moving.get_or_insert(0);
        let mean = all.div_ceil(servers);
        let excess = own.saturating_sub(mean);
        if excess == 0 {
            self.rest();
            return Step::Done(asked);
        }
        if self.step_at > now {
            return Step::Rest;
        }
        self.step_at = now + STEP;
        // Whoever is above the mean gives each that is below it his share of what it lacks: all of
        // them choose by the same numbers.
        let above: u64 = others.iter().map(|(_, clients)| clients.saturating_sub(mean)).sum();
        others.retain(|(_, clients)| clients * servers < all);
        let share = |clients: u64| ((mean - clients) * excess).div_ceil(above + excess);
        let mut left: Vec<(u64, LinkId)> =
            others.iter().map(|(link, clients)| (share(*clients), *link)).collect();
        let mut targets = Vec::new();
        for _ in 0..excess.min(STEP_CLIENTS) {
            let neediest = left.iter_mut().max_by_key(|(lacks, link)| (*lacks, Reverse(*link)));
            let Some((lacks, link)) = neediest.filter(|(lacks, _)| *lacks > 0) else { break };
            *lacks -= 1;
            targets.push(*link);
        }
        Step::Ask(targets)
    }

    /// Whether an account is left alone.
    fn was_asked(&self, now: Time, account: AccountId) -> bool {
        self.asked.get(&account).is_some_and(|at| now.since(*at) < AGAIN)
    }

    /// Notes that an account is asked; false if there is no room to remember it.
    fn ask(&mut self, now: Time, account: AccountId) -> bool {
        if self.asked.len() >= ASKED_MAX {
            self.asked.retain(|_, at| now.since(*at) < AGAIN);
        }
        let fits = self.asked.len() < ASKED_MAX;
        if fits {
            self.asked.insert(account, now);
            self.moving = self.moving.map(|asked| asked + 1);
        }
        fits
    }

    pub(crate) fn assert_invariants(&self) {
        assert!(
            self.asked.len() <= ASKED_MAX,
            "who was asked to move is remembered within a bound"
        );
    }
}

impl Replica {
    /// What this server tells of its clients.
    fn load(&self) -> Load {
        let clients = u32::try_from(self.sessions.accounts()).unwrap_or(u32::MAX);
        Load { clients, state: self.state() }
    }

    /// Tells a link how many clients are here, if that is news to it.
    pub(crate) fn tell_load(&mut self, link: LinkId) {
        let load = self.load();
        if self.balance.tells(link, load) {
            self.send_control(link, Frame::Load(load));
        }
    }

    /// Tells all links at once: this server takes no clients any more, or takes them again.
    pub(crate) fn tell_loads(&mut self) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.tell_load(link);
        }
    }

    /// Asks some clients to move to emptier servers, if it is time to.
    pub(crate) fn balance(&mut self, now: Now) {
        let settled = self.config.timing.settled;
        if settled.is_zero() || self.links.is_empty() {
            return;
        }
        let links: Vec<(LinkId, LinkState)> =
            self.links.keys().map(|link| (*link, self.health.link(*link).0)).collect();
        let mine = self.load();
        let targets = match self.balance.look(now.time, mine, &links) {
            Step::Rest | Step::Done(0) => return,
            Step::Done(asked) => {
                let what =
                    format!("the servers' clients are even again: {asked} were asked to move");
                return self.log(Severity::Info, what);
            }
            Step::Ask(targets) => targets,
        };
        let left_alone = |account| self.balance.was_asked(now.time, account);
        let idle = self.sessions.movable(now.time, settled, left_alone, targets.len());
        let first = self.balance.moving == Some(0);
        if first && !idle.is_empty() {
            let clients = mine.clients;
            let what = format!(
                "clearly more clients are attached here ({clients}) than elsewhere: some are asked \
                 to move, a few each second"
            );
            self.log(Severity::Info, what);
        }
        for ((id, account), link) in idle.into_iter().zip(targets) {
            self.ask_to_move(now, id, account, link);
        }
    }

    fn ask_to_move(&mut self, now: Now, id: SessionId, account: AccountId, link: LinkId) {
        let slot = self.links.get(&link).map(|peer| &peer.slot);
        let named = |server: &&ServerAddr| Some(&server.name) == slot;
        let Some(server) = self.config.servers.iter().find(named).cloned() else { return };
        if self.balance.ask(now.time, account) {
            self.deliver_answer(vec![id], Item::Leaving(Moving { servers: vec![server] }));
        }
    }
}

#[cfg(test)]
mod tests;

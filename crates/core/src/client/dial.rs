//! Which server to dial next, and when.
//!
//! Without a wish of the user the list is shuffled by rendezvous hash of the account, so that the
//! clients of a dead server spread over all others and one account's sessions meet on one server.
//! A server that failed waits, longer each time; the others are dialled at once.

use std::time::Duration;

use crate::id::{AccountId, Slot};
use crate::rng::Rng;
use crate::session::ServerAddr;
use crate::time::Time;

use super::config::{Config, Roam};

/// Servers a client remembers, at most: a longer list is cut.
const KNOWN_MAX: usize = 256;

/// See [`Dialer::limit`].
const PATIENCE_FACTOR: u32 = 10;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    name: Option<Slot>,
    addr: String,
    /// Not dialled before.
    retry_at: Time,
    /// The back-off of the next failure.
    step: Duration,
    /// Whether somebody answered there, last time, who is not of this cluster.
    stranger: bool,
    /// The list's order: lower is dialled first.
    rank: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Dialer {
    known: Vec<Known>,
    roam: Roam,
    min: Duration,
    max: Duration,
}

impl Dialer {
    pub(super) fn new(config: &Config, rng: &mut Rng) -> Self {
        let mut dialer = Self {
            known: Vec::new(),
            roam: config.roam.clone(),
            min: config.timing.backoff_min,
            max: config.timing.backoff_max,
        };
        if let Roam::First(addr) | Roam::Only(addr) = &config.roam {
            dialer.add(None, addr, 0);
        }
        for server in &config.servers {
            dialer.add(Some(&server.name), &server.addr, rng.bits() | 1);
        }
        for addr in &config.seeds {
            dialer.add(None, addr, rng.bits() | 1);
        }
        dialer.sort();
        dialer
    }

    fn add(&mut self, name: Option<&Slot>, addr: &str, rank: u64) {
        if let Some(known) = self.known.iter_mut().find(|known| known.addr == addr) {
            if name.is_some() {
                known.name = name.cloned();
            }
            return;
        }
        let only = matches!(&self.roam, Roam::Only(only) if only != addr);
        if only || self.known.len() >= KNOWN_MAX {
            return;
        }
        self.known.push(Known {
            name: name.cloned(),
            addr: addr.to_owned(),
            retry_at: Time::default(),
            step: self.min,
            stranger: false,
            rank,
        });
    }

    fn sort(&mut self) {
        self.known.sort_by(|a, b| (a.rank, &a.addr).cmp(&(b.rank, &b.addr)));
    }

    /// Servers whose names are known.
    pub(super) fn named(&self) -> Vec<ServerAddr> {
        let named = |known: &Known| {
            known.name.clone().map(|name| ServerAddr { name, addr: known.addr.clone() })
        };
        let mut servers: Vec<_> = self.known.iter().filter_map(named).collect();
        servers.sort();
        servers
    }

    /// The first server of the list that need not wait.
    pub(super) fn next(&self, now: Time) -> Option<String> {
        self.known.iter().find(|known| known.retry_at <= now).map(|known| known.addr.clone())
    }

    /// How long a dial of that server may take: ten times the back-off of its next failure, 1 s at
    /// first and 10 s after many. A server that thousands dial at once is slow, and a handshake
    /// given up half-way is work done for nothing. Never less than `least`, however short the
    /// back-off is kept: what a server may wait for is waited for.
    pub(super) fn limit(&self, addr: &str, least: Duration) -> Duration {
        let known = self.known.iter().find(|known| known.addr == addr);
        known.map_or(least, |known| (known.step * PATIENCE_FACTOR).min(self.max * 2).max(least))
    }

    pub(super) fn next_at(&self) -> Option<Time> {
        self.known.iter().map(|known| known.retry_at).min()
    }

    /// A dial or an attach failed.
    pub(super) fn failed(&mut self, now: Time, addr: &str, rng: &mut Rng) {
        let Some(known) = self.known.iter_mut().find(|known| known.addr == addr) else { return };
        known.stranger = false;
        let step = known.step;
        known.step = (step * 2).min(self.max);
        let half = u64::try_from(step.as_micros() / 2).unwrap_or(u64::MAX);
        let retry_at = now + Duration::from_micros(half.saturating_add(rng.below(half)));
        known.retry_at = retry_at;
        let name = known.name.clone();
        // The same server under another address fails in the same way.
        if let Some(name) = name {
            for twin in self.known.iter_mut().filter(|twin| twin.name.as_ref() == Some(&name)) {
                twin.retry_at = twin.retry_at.max(retry_at);
            }
        }
    }

    /// Somebody else answered there.
    pub(super) fn stranger(&mut self, addr: &str) {
        if let Some(known) = self.known.iter_mut().find(|known| known.addr == addr) {
            known.stranger = true;
        }
    }

    /// Whether that is so at every address known.
    pub(super) fn all_strangers(&self) -> bool {
        self.known.iter().all(|known| known.stranger)
    }

    /// An attached server was lost or left; after a short session its back-off goes on growing.
    pub(super) fn left(&mut self, now: Time, addr: &str, short: bool, rng: &mut Rng) {
        if !short {
            self.reset(addr);
        }
        self.failed(now, addr, rng);
    }

    fn reset(&mut self, addr: &str) {
        let min = self.min;
        if let Some(known) = self.known.iter_mut().find(|known| known.addr == addr) {
            known.step = min;
        }
    }

    /// A stopping server names those it is linked to: the others come after them.
    pub(super) fn prefer(&mut self, now: Time, servers: &[ServerAddr]) {
        if servers.is_empty() {
            return;
        }
        for known in &mut self.known {
            let linked = servers.iter().any(|server| {
                server.addr == known.addr || Some(&server.name) == known.name.as_ref()
            });
            if !linked {
                known.retry_at = known.retry_at.max(now + self.min);
            }
        }
    }

    /// Takes the list of a `Welcome`: new servers come in, moved ones are found at their new
    /// address, and addresses the user gave stay as a way back in.
    pub(super) fn welcome(
        &mut self,
        addr: &str,
        server: &Slot,
        servers: &[ServerAddr],
        account: AccountId,
    ) {
        if let Some(known) = self.known.iter_mut().find(|known| known.addr == addr) {
            known.name = Some(server.clone());
            known.retry_at = Time::default();
        }
        for server in servers {
            self.add(Some(&server.name), &server.addr, 1);
        }
        for known in &mut self.known {
            if known.rank != 0 {
                known.rank = rendezvous(account, known).max(1);
            }
        }
        self.sort();
    }
}

/// The weight of a server for an account: the same at every client, different for every account.
fn rendezvous(account: AccountId, known: &Known) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&account.to_bytes());
    match &known.name {
        Some(name) => hasher.update(name.as_str().as_bytes()),
        None => hasher.update(known.addr.as_bytes()),
    };
    crate::event::first_eight(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> ServerAddr {
        ServerAddr { name: Slot::new(name).unwrap(), addr: format!("{name}:1") }
    }

    fn dialer(names: &[&str], roam: Roam) -> (Dialer, Rng) {
        let servers = names.iter().map(|name| server(name)).collect();
        let mut rng = Rng::new(1);
        let config = Config { servers, roam, ..Config::default() };
        (Dialer::new(&config, &mut rng), rng)
    }

    #[test]
    fn the_wished_server_comes_first_and_a_failed_one_after_the_others() {
        let (mut dialer, mut rng) = dialer(&["s1", "s2", "s3"], Roam::First("s2:1".into()));
        let now = Time::from_micros(1_000_000);
        assert_eq!(dialer.next(now).as_deref(), Some("s2:1"));
        dialer.failed(now, "s2:1", &mut rng);
        let next = dialer.next(now).unwrap();
        assert_ne!(next, "s2:1");
        for addr in ["s1:1", "s3:1"] {
            dialer.failed(now, addr, &mut rng);
        }
        assert_eq!(dialer.next(now), None);
        let wait = dialer.next_at().unwrap().since(now);
        assert!((50..=100).contains(&wait.as_millis()), "{wait:?}");
    }

    #[test]
    fn back_off_doubles_up_to_its_bound() {
        let (mut dialer, mut rng) = dialer(&["s1"], Roam::Anywhere);
        let mut now = Time::default();
        let mut last = Duration::ZERO;
        for _ in 0..10 {
            dialer.failed(now, "s1:1", &mut rng);
            last = dialer.next_at().unwrap().since(now);
            now = now + last;
        }
        assert!((2500..=5000).contains(&last.as_millis()), "{last:?}");
    }

    #[test]
    fn a_dial_may_take_longer_the_more_of_them_failed() {
        let (mut dialer, mut rng) = dialer(&["s1", "s2"], Roam::Anywhere);
        let second = Duration::from_secs(1);
        let mut limits = Vec::new();
        for _ in 0..6 {
            limits.push(dialer.limit("s1:1", second).as_millis());
            dialer.failed(Time::default(), "s1:1", &mut rng);
        }
        assert_eq!(limits, [1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(dialer.limit("s2:1", second), second, "the others are as quick as before");
    }

    #[test]
    fn an_attach_has_its_whole_time_also_where_the_back_off_is_kept_short() {
        let mut rng = Rng::new(1);
        let mut config = Config { servers: vec![server("s1")], ..Config::default() };
        config.timing.backoff_max = Duration::from_millis(500);
        let mut dialer = Dialer::new(&config, &mut rng);
        let least = config.timing.attach;
        for _ in 0..6 {
            assert_eq!(dialer.limit("s1:1", least), least);
            dialer.failed(Time::default(), "s1:1", &mut rng);
        }
    }

    #[test]
    fn only_one_server_is_dialled_when_the_answer_must_be_its_own() {
        let (mut dialer, _) = dialer(&["s1", "s2"], Roam::Only("s2:1".into()));
        let list = [server("s1"), server("s2"), server("s3")];
        dialer.welcome("s2:1", &Slot::new("s2").unwrap(), &list, AccountId::new(1));
        let now = Time::from_micros(1);
        assert_eq!(dialer.known.len(), 1);
        assert_eq!(dialer.next(now).as_deref(), Some("s2:1"));
    }

    #[test]
    fn accounts_spread_over_the_servers() {
        let mut first = std::collections::BTreeMap::new();
        for account in 0..300 {
            let (mut dialer, _) = dialer(&["s1", "s2", "s3"], Roam::Anywhere);
            dialer.welcome("s1:1", &Slot::new("s1").unwrap(), &[], AccountId::new(account));
            *first.entry(dialer.next(Time::from_micros(1)).unwrap()).or_insert(0) += 1;
        }
        assert!(first.len() == 3 && first.values().all(|n| *n > 60), "{first:?}");
    }

    #[test]
    fn a_server_that_was_good_for_long_is_dialled_again_soon() {
        let back_off = |short: bool| {
            let (mut dialer, mut rng) = dialer(&["s1"], Roam::Anywhere);
            for _ in 0..4 {
                dialer.failed(Time::default(), "s1:1", &mut rng);
            }
            dialer.left(Time::default(), "s1:1", short, &mut rng);
            dialer.next_at().unwrap().as_micros() / 1000
        };
        assert!((50..=100).contains(&back_off(false)));
        assert!((800..=1600).contains(&back_off(true)));
    }

    #[test]
    fn a_stopping_server_s_friends_come_first() {
        let (mut dialer, _) = dialer(&["s1", "s2", "s3"], Roam::First("s1:1".into()));
        let now = Time::from_micros(5);
        let moved = ServerAddr { name: Slot::new("s3").unwrap(), addr: "elsewhere:1".into() };
        dialer.prefer(now, &[moved]);
        assert_eq!(dialer.next(now).as_deref(), Some("s3:1"), "by its name");
        assert_eq!(dialer.next(now + dialer.min).as_deref(), Some("s1:1"));
        let same = ServerAddr { name: Slot::new("x").unwrap(), addr: "s2:1".into() };
        let (mut dialer, _) = self::dialer(&["s1", "s2", "s3"], Roam::First("s1:1".into()));
        dialer.prefer(now, &[same]);
        assert_eq!(dialer.next(now).as_deref(), Some("s2:1"), "by its address");
        dialer.prefer(now, &[]);
        assert_eq!(dialer.next(now).as_deref(), Some("s2:1"));
    }

    #[test]
    fn servers_are_told_with_their_names() {
        let (mut dialer, _) = dialer(&["s2", "s1"], Roam::First("gate:1".into()));
        assert_eq!(dialer.named(), [server("s1"), server("s2")]);
        dialer.welcome("gate:1", &Slot::new("s3").unwrap(), &[server("s4")], AccountId::new(1));
        let gate = ServerAddr { name: Slot::new("s3").unwrap(), addr: "gate:1".into() };
        assert_eq!(dialer.named(), [server("s1"), server("s2"), gate, server("s4")]);
    }
}

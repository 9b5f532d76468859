//! The rule alone, between servers whose clients do what they are asked.

use super::*;
use crate::rng::Rng;

/// A server, as the rule sees it.
struct Server {
    balance: Balance,
    clients: u32,
    state: ServerState,
    /// Clients asked to move, in all.
    asked: u64,
}

/// Servers that hear each other, all of them linked.
struct Servers {
    all: Vec<Server>,
    ms: u64,
}

const READY: ServerState = ServerState::Ready;

impl Servers {
    fn with(clients: &[u32]) -> Self {
        let server = |clients: &u32| Server {
            balance: Balance::default(),
            clients: *clients,
            state: READY,
            asked: 0,
        };
        Self { all: clients.iter().map(server).collect(), ms: 0 }
    }

    /// The link to a server, the same for all others.
    const fn link(n: usize) -> LinkId {
        LinkId(n as u64)
    }

    fn counts(&self) -> Vec<u32> {
        self.all.iter().map(|server| server.clients).collect()
    }

    fn asked(&self) -> u64 {
        self.all.iter().map(|server| server.asked).sum()
    }

    /// Half a second passes: all are told, look, and clients go where they are asked to.
    fn turn(&mut self) {
        self.ms += 500;
        let loads: Vec<Load> =
            self.all.iter().map(|s| Load { clients: s.clients, state: s.state }).collect();
        let now = Time::from_micros(self.ms * 1000);
        for n in 0..self.all.len() {
            let others = || (0..loads.len()).filter(|other| *other != n);
            let server = &mut self.all[n];
            others().for_each(|other| server.balance.heard(Self::link(other), loads[other]));
            let links: Vec<_> = others().map(|o| (Self::link(o), LinkState::Up)).collect();
            let Step::Ask(targets) = server.balance.look(now, loads[n], &links) else { continue };
            assert!(targets.len() as u64 <= STEP_CLIENTS);
            server.asked += targets.len() as u64;
            server.clients -= targets.len() as u32;
            for LinkId(target) in targets {
                self.all[target as usize].clients += 1;
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        (0..seconds * 2).for_each(|_| self.turn());
    }
}

#[test]
fn the_clients_of_two_spread_over_three_and_each_moves_once() {
    let mut servers = Servers::with(&[60, 60, 0]);
    servers.pass(9);
    assert_eq!(servers.counts(), [60, 60, 0], "it may be over in a moment");
    servers.pass(6);
    assert!(servers.asked() > 0 && servers.asked() <= 60, "a few each second");
    servers.pass(5);
    assert_eq!(servers.counts(), [40, 40, 40]);
    assert_eq!(servers.asked(), 40, "what the third lacked, and no more");
    servers.pass(600);
    assert_eq!(servers.asked(), 40);
}

#[test]
fn what_is_nearly_even_is_left_alone() {
    for counts in [[28, 28, 4], [120, 100, 80], [0, 0, 0], [8, 0, 0], [1000, 1000, 601]] {
        let mut servers = Servers::with(&counts);
        servers.pass(300);
        assert_eq!(servers.counts(), counts);
    }
    let mut servers = Servers::with(&[13, 0, 0]);
    servers.pass(60);
    assert_eq!(servers.counts(), [5, 4, 4], "more than eight above the mean");
}

#[test]
fn a_quarter_above_the_mean_is_nearly_even_and_one_more_is_not() {
    let mut servers = Servers::with(&[50, 30]);
    servers.pass(60);
    assert_eq!(servers.counts(), [50, 30]);
    let mut servers = Servers::with(&[51, 30]);
    servers.pass(60);
    assert_eq!(servers.counts(), [41, 40]);
}

#[test]
fn the_first_are_asked_after_ten_seconds_and_the_next_a_second_later() {
    let mut balance = Balance::default();
    let load = |clients| Load { clients, state: READY };
    balance.heard(LinkId(2), load(0));
    let mut asks = |ms: u64| {
        let now = Time::from_micros(ms * 1000);
        balance.look(now, load(60), &[(LinkId(2), LinkState::Up)]) != Step::Rest
    };
    let looks = [0, 9_999, 10_000, 10_999, 11_000, 11_999, 12_000];
    assert_eq!(
        looks.map(|ms| (ms, asks(ms))),
        looks.map(|ms| (ms, ms >= 10_000 && ms % 1000 == 0))
    );
}

#[test]
#[should_panic(expected = "remembered within a bound")]
fn more_who_were_asked_than_may_be_remembered_break_a_rule() {
    let mut balance = Balance::default();
    for n in 0..=ASKED_MAX as u128 {
        balance.asked.insert(AccountId::new(n), Time::from_micros(1));
    }
    balance.assert_invariants();
}

#[test]
fn whatever_the_counts_all_are_near_the_mean_in_the_end_and_none_went_far_above_it() {
    let mut rng = Rng::new(7);
    for _ in 0..300 {
        let servers = 2 + rng.below(8) as usize;
        let counts: Vec<u32> = (0..servers).map(|_| rng.below(200) as u32).collect();
        let mut world = Servers::with(&counts);
        let (all, n) = (u64::from(counts.iter().sum::<u32>()), servers as u64);
        let mean = all.div_ceil(n);
        let excess: u64 = counts.iter().map(|c| u64::from(*c).saturating_sub(mean)).sum();
        world.pass(120);
        let after = world.counts();
        assert!(world.asked() <= excess, "{counts:?} became {after:?} with {}", world.asked());
        for (before, after) in counts.iter().zip(after.iter().map(|c| u64::from(*c))) {
            let clearly = after * n * 4 > all * 5 && after * n > all + 8 * n;
            assert!(!clearly, "{counts:?} became {:?}", world.counts());
            // A share is rounded up.
            assert!(after <= (mean + n).max(u64::from(*before)), "{counts:?}: {after}");
        }
        let asked = world.asked();
        world.pass(120);
        assert_eq!(world.asked(), asked, "it ends");
    }
}

#[test]
fn nobody_is_moved_unless_all_servers_take_clients_and_are_heard() {
    use ServerState::{CatchingUp, Fenced, ReadOnly, Stopping};
    for state in [CatchingUp, Fenced, ReadOnly, Stopping] {
        for n in 0..3 {
            let mut servers = Servers::with(&[60, 60, 0]);
            servers.all[n].state = state;
            servers.pass(60);
            assert_eq!(servers.counts(), [60, 60, 0], "s{} is {state}", n + 1);
            servers.all[n].state = READY;
            servers.pass(9);
            assert_eq!(servers.asked(), 0, "the time begins anew");
            servers.pass(15);
            assert_eq!(servers.counts(), [40, 40, 40]);
        }
    }
    let mut balance = Balance::default();
    let load = |clients| Load { clients, state: READY };
    balance.heard(LinkId(2), load(0));
    let mut look = |ms: u64, links: &[(LinkId, LinkState)]| {
        balance.look(Time::from_micros(ms * 1000), load(60), links)
    };
    let silent = [(LinkId(2), LinkState::Suspect)];
    let untold = [(LinkId(2), LinkState::Up), (LinkId(3), LinkState::Up)];
    for links in [&silent[..], &untold[..]] {
        assert_eq!((look(0, links), look(60_000, links)), (Step::Rest, Step::Rest), "{links:?}");
    }
}

#[test]
fn a_server_that_comes_and_goes_begins_the_time_anew() {
    let mut servers = Servers::with(&[60, 60, 0]);
    for _ in 0..50 {
        servers.pass(9);
        servers.all.iter_mut().for_each(|server| server.balance.link_down(Servers::link(2)));
    }
    assert_eq!(servers.asked(), 0);
    servers.pass(13);
    let asked = servers.asked();
    assert!(asked > 0);
    servers.all.iter_mut().for_each(|server| server.balance.link_down(Servers::link(2)));
    servers.pass(9);
    assert_eq!(servers.asked(), asked, "what was under way stops, too");
}

#[test]
fn an_account_is_asked_once_in_an_hour_and_few_are_remembered() {
    let mut balance = Balance::default();
    let at = |seconds: u64| Time::from_micros(seconds * 1_000_000);
    let ann = AccountId::new(1);
    assert!(!balance.was_asked(at(0), ann));
    assert!(balance.ask(at(0), ann));
    assert!(balance.was_asked(at(3599), ann));
    assert!(!balance.was_asked(at(3600), ann));
    for n in 1..ASKED_MAX as u128 {
        assert!(balance.ask(at(1), AccountId::new(1 + n)));
    }
    assert!(!balance.ask(at(3599), AccountId::new(0)), "full");
    balance.assert_invariants();
    assert!(balance.ask(at(3600), AccountId::new(0)), "the first is forgotten");
    balance.assert_invariants();
}

#[test]
fn a_load_is_told_when_it_is_news() {
    let mut balance = Balance::default();
    let load = |clients| Load { clients, state: READY };
    assert!(balance.tells(LinkId(1), load(0)), "the first, also when nobody is here");
    assert!(!balance.tells(LinkId(1), load(0)));
    assert!(balance.tells(LinkId(1), load(1)));
    assert!(balance.tells(LinkId(2), load(1)));
    balance.link_down(LinkId(1));
    assert!(balance.tells(LinkId(1), load(1)));
}

//! What is done to the ways between servers: cut, flapping, lossy, slow, narrow, reset.

use chatty_core::id::LinkId;
use chatty_core::io::Input;
use chatty_core::time::Time;

use super::{Relent, Struck};
use crate::luck::Stream;
use crate::network::Way;
use crate::schedule::Strike;
use crate::world::{Action, World};

impl World {
    pub(super) fn cut_way(&mut self, nth: usize, from: usize, to: usize, long: u64) {
        self.block(from, to, Some(nth));
        self.later(long, Action::Relent(Relent::Unblock(from, to, Some(nth))));
    }

    pub(super) fn isolate(&mut self, nth: usize, n: usize, long: u64) {
        for other in (0..self.swarm.servers).filter(|other| *other != n) {
            self.cut_way(nth, n, other, long);
            self.cut_way(nth, other, n, long);
        }
    }

    /// Two groups, drawn, neither of them empty.
    pub(super) fn partition(&mut self, nth: usize, long: u64) -> bool {
        let all = self.swarm.servers;
        let side = 1 + self.luck.of(Stream::Strike).below((1 << all) - 2);
        let is_in = |n: usize| side >> n & 1 == 1;
        for a in 0..all {
            for b in (0..all).filter(|b| is_in(a) && !is_in(*b)) {
                self.cut_way(nth, a, b, long);
                self.cut_way(nth, b, a, long);
            }
        }
        true
    }

    /// Cut for half of each turn; hard strikes take all ways of the server, or one direction.
    pub(super) fn flap(&mut self, nth: usize, strike: &Strike) {
        let turns = 2 + u64::from(strike.hard) / 10;
        let period = (strike.micros() / turns).max(2000);
        let one_way = self.luck.of(Stream::Strike).one_in(3);
        let n = strike.server;
        for other in (0..self.swarm.servers).filter(|other| *other != n) {
            if strike.hard < 67 && other != strike.other {
                continue;
            }
            for turn in 0..turns {
                let cut = |from, to| Action::Relent(Relent::CutAgain(nth, from, to, period / 2));
                self.later(turn * period, cut(n, other));
                if !one_way {
                    self.later(turn * period, cut(other, n));
                }
            }
        }
    }

    /// 1 to 11 ms each, and up to nine of them within a second or two.
    pub(super) fn blips(&mut self, nth: usize, strike: &Strike) {
        let mut at = 0;
        for _ in 0..1 + strike.hard / 12 {
            let long = 1000 + u64::from(strike.hard) * 100;
            self.later(at, Action::Relent(Relent::BlipAgain(nth, long)));
            at += long + self.luck.of(Stream::Strike).below(300_000);
        }
    }

    pub(super) fn blip(&mut self, nth: usize, long: u64) {
        let all = self.swarm.servers;
        for (a, b) in (0..all).flat_map(|a| (0..all).map(move |b| (a, b))).filter(|(a, b)| a != b) {
            self.cut_way(nth, a, b, long);
        }
        for p in 0..self.people.len() {
            self.cut_client(p, Some(nth));
            self.later(long, Action::Relent(Relent::Uncut(p, Some(nth))));
        }
    }

    /// Makes a way bad for the length of a strike: every third time in both directions.
    pub(super) fn spoil(&mut self, strike: &Strike, set: impl Fn(&mut Way, Time)) -> Struck {
        let until = self.time + strike.long;
        set(self.ways.entry((strike.server, strike.other)).or_default(), until);
        if self.luck.of(Stream::Strike).one_in(3) {
            set(self.ways.entry((strike.other, strike.server)).or_default(), until);
        }
        Struck::Yes
    }

    pub(super) fn reset(&mut self, which: impl Fn(&[usize; 2]) -> bool) -> bool {
        let cables: Vec<(u64, [usize; 2])> = self
            .cables
            .iter()
            .filter(|(_, cable)| cable.up != [false, false] && which(&cable.ends))
            .map(|(id, cable)| (*id, cable.ends))
            .collect();
        for (id, ends) in &cables {
            for end in ends {
                self.tell_link(*id, *end, Input::LinkDown(LinkId(*id)));
            }
        }
        !cables.is_empty()
    }
}

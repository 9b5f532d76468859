//! What is done to clients: cut off, reset at any moment or at the worst, slow, killed.

use super::{Relent, Struck};
use crate::person::Loses;
use crate::schedule::Strike;
use crate::world::{Action, World};

impl World {
    pub(super) fn reset_client(&mut self, p: usize) -> bool {
        let line = self.lines.iter().rev().find(|(_, l)| l.person == p && l.up_at_client);
        match line.map(|(id, line)| (*id, line.conn.0)) {
            Some((id, conn)) => {
                self.later(0, Action::Disconnected { person: p, conn });
                self.later(0, Action::SessionDown { line: id });
                true
            }
            None => false,
        }
    }

    /// Its next answer to something it said is lost with its connection.
    pub(super) fn arm_answer(&mut self, p: usize, nth: usize) -> Struck {
        if self.people[p].loses_answer.is_some() {
            return Struck::No;
        }
        self.people[p].loses_answer = Some(nth);
        Struck::Waits
    }

    pub(super) fn slow_client(&mut self, p: usize, strike: &Strike) -> bool {
        // An item takes it up to 50 ms.
        self.people[p].slow = (u64::from(strike.hard) * 500, self.time + strike.long);
        true
    }

    pub(super) fn crash_client(&mut self, p: usize, long: u64, loses: Loses) -> bool {
        if !self.people[p].is_running() {
            return false;
        }
        let lines: Vec<u64> = self
            .lines
            .iter()
            .filter(|(_, line)| line.person == p && line.up_at_client)
            .map(|(id, _)| *id)
            .collect();
        for line in lines {
            self.client_hung_up(line);
        }
        self.person_dies(p, loses);
        self.later(long, Action::Relent(Relent::Return(p)));
        true
    }
}

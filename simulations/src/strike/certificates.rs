//! The certificate of a server ends: nobody makes a new connection with it, in either direction, and
//! those that are there stay. A server that is alone meanwhile holds its clock to it.

use chatty_core::io::Input;

use super::Relent;
use crate::schedule::Strike;
use crate::world::{Action, World};

/// Strikes as hard as that find the server without links.
const ALONE: u8 = 50;
/// How long a renewed certificate is good.
const RENEWED_MS: u64 = 90 * 24 * 3600 * 1000;

/// A certificate that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expired {
    /// When, in unix milliseconds.
    ends_ms: u64,
    strike: usize,
}

impl World {
    pub(super) fn expire(&mut self, nth: usize, strike: &Strike) -> bool {
        let n = strike.server;
        if !self.servers[n].is_alive() || self.servers[n].expired.is_some() {
            return false;
        }
        let ends_ms = self.now_of(n).wall_ms - 1;
        self.servers[n].expired = Some(Expired { ends_ms, strike: nth });
        self.servers[n].outside_from = None;
        self.tell_certificate(n);
        if strike.hard > ALONE {
            self.reset(|ends| ends.contains(&n));
        }
        self.later(strike.micros(), Action::Relent(Relent::Renew(n, nth)));
        true
    }

    /// The driver tells when the certificate is good.
    pub(crate) fn tell_certificate(&mut self, n: usize) {
        if let Some(Expired { ends_ms, .. }) = self.servers[n].expired {
            self.give(n, Input::Certificate(0, ends_ms));
        }
    }

    pub(super) fn renew(&mut self, n: usize, nth: usize) {
        if self.servers[n].expired.take_if(|expired| expired.strike == nth).is_some() {
            let ends_ms = self.now_of(n).wall_ms + RENEWED_MS;
            self.give(n, Input::Certificate(0, ends_ms));
        }
    }

    /// Whether two servers take each other's certificates. One whose own has ended cannot tell whether
    /// its clock is wrong, and takes another that has (decision 0010).
    pub(crate) fn certificates_fit(&self, a: usize, b: usize) -> bool {
        self.servers[a].expired.is_some() == self.servers[b].expired.is_some()
    }

    /// A connection was not made for a certificate's sake.
    pub(crate) fn bite_by_certificate(&mut self, n: usize) {
        self.bite_by(self.servers[n].expired.map(|expired| expired.strike));
    }

    /// A server that is linked to no majority, by a clock that is past its certificate, makes nothing.
    pub(crate) fn check_outside(&mut self, n: usize) -> Result<(), String> {
        let now = self.now_of(n);
        let run = self.servers[n].run;
        let links = self.cables.values().filter(|cable| {
            let side = cable.ends.iter().position(|end| *end == n);
            side.is_some_and(|side| cable.up[side] && cable.runs[side] == run)
        });
        let alone = (links.count() + 1) * 2 <= self.swarm.servers;
        let server = &mut self.servers[n];
        let outside = server.expired.is_some_and(|expired| now.wall_ms > expired.ends_ms);
        let Some(replica) = server.replica.as_ref().filter(|_| alone && outside) else {
            server.outside_from = None;
            return Ok(());
        };
        let next = replica.broadcast().next_seq();
        if *server.outside_from.get_or_insert(next) != next {
            return Err(format!(
                "{} is alone, its certificate has ended by its clock, and it took a write",
                server.slot
            ));
        }
        Ok(())
    }
}

//! What the log says of a server that was far behind and fetches what it lacks.
//!
//! A line when it begins, one every five seconds, one when it is near again: how many events of how
//! many are on its disk, and how fast. It decides nothing: whom a server far behind turns away is
//! decided in `replica.rs`, what it asks for in `broadcast/repair.rs`.

use std::time::Duration;

use crate::id::Log;
use crate::io::Severity;
use crate::replica::Replica;
use crate::store::Batch;
use crate::time::{Now, Time};

/// With fewer events to fetch than this a start is told of only if it takes longer than a period,
/// and with no more (or [`crate::config::Limits::attach_lag`], if that is less) a server is near.
const NEAR_EVENTS: u64 = 1000;

/// How often the progress is told.
const TELL_PERIOD: Duration = Duration::from_secs(5);

/// How often it is looked how far behind the server is: that goes through all logs of all links.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

/// How far a server has caught up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CatchUp {
    look_at: Time,
    under_way: Option<UnderWay>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct UnderWay {
    since: Time,
    tell_at: Time,
    /// Events of others that were made durable, and their bytes.
    events: u64,
    bytes: u64,
}

impl CatchUp {
    pub(crate) const fn new(now: Time) -> Self {
        Self { look_at: now, under_way: None }
    }

    /// That was made durable.
    pub(crate) fn saved(&mut self, batch: &Batch, own: Log) {
        let Some(under_way) = &mut self.under_way else { return };
        for entry in batch.entries.iter().filter(|entry| entry.log != own) {
            under_way.events += 1;
            under_way.bytes += entry.event.cost() as u64;
        }
    }

    /// While it is under way its end is looked for.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.under_way.as_ref().map(|_| self.look_at)
    }
}

impl UnderWay {
    /// So many of those that there are to be, in so many bytes a second.
    fn so_far(&self, now: Time, lag: u64) -> String {
        let Self { events, bytes, since, .. } = self;
        let all = events.saturating_add(lag);
        let millis = u64::try_from(now.since(*since).as_millis()).unwrap_or(u64::MAX).max(1);
        // Bytes a millisecond are thousands of them a second.
        let speed = bytes / millis;
        format!(
            "{events} of {all} events, {}.{} MB, {}.{} MB/s",
            bytes / 1_000_000,
            bytes / 100_000 % 10,
            speed / 1000,
            speed / 100 % 10
        )
    }
}

impl Replica {
    /// Tells how far this server is, if that is due.
    pub(crate) fn tell_catch_up(&mut self, now: Now) {
        // A start is seen from its first moment: what comes before is in no count.
        let begins = self.catch_up.under_way.is_none() && self.is_starting();
        if now.time < self.catch_up.look_at && !begins {
            return;
        }
        self.catch_up.look_at = now.time + LOOK_PERIOD;
        let (lag, far) = (self.broadcast.lag(), self.config.limits.attach_lag as u64);
        let is_long = now.time.since(self.started) >= TELL_PERIOD;
        let is_starting = self.is_starting() && lag > 0;
        let Some(under_way) = &mut self.catch_up.under_way else {
            if lag > far || is_starting && (lag >= NEAR_EVENTS || is_long) {
                let (since, tell_at) = (now.time, now.time + TELL_PERIOD);
                self.catch_up.under_way = Some(UnderWay { since, tell_at, events: 0, bytes: 0 });
                let what = format!(
                    "catching up: {lag} events behind; clients are sent to other servers meanwhile"
                );
                self.log(Severity::Info, what);
            }
            return;
        };
        if self.links.is_empty() {
            let Some(UnderWay { events, .. }) = self.catch_up.under_way.take() else { return };
            let what = format!("no server is linked to catch up from; {events} events so far");
            self.log(Severity::Info, what);
        } else if !is_starting && lag <= far.min(NEAR_EVENTS) {
            let what = format!("caught up: {}", under_way.so_far(now.time, lag));
            self.catch_up.under_way = None;
            self.log(Severity::Info, what);
        } else if under_way.tell_at <= now.time {
            under_way.tell_at = now.time + TELL_PERIOD;
            let what = format!("catching up: {}", under_way.so_far(now.time, lag));
            self.log(Severity::Info, what);
        }
    }
}

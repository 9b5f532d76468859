//! What the program said and the cluster has not yet made safe.
//!
//! A message waits as a draft until it first leaves (only then is its id made, from the server's
//! clock), and stays until it is replicated. After a fail-over everything here is sent again, in
//! order, under the same ids; a server that knows an id answers with its state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::id::{AccountId, Mid, RequestId, RoomId};
use crate::session::{Code, Level, Send, Sent, Target};
use crate::time::{Key, Time};

use super::io::{Failure, Ticket};

/// Messages sent and not answered, at most.
pub const WINDOW_MAX: usize = 256;
/// Drafts beyond the window, at most; more are refused as busy.
const DRAFTS_MAX: usize = 4096;
/// Messages kept until they are replicated, at most. Beyond that the oldest that are stored leave:
/// in a cluster without a majority they rest on their server's disk alone.
const KEPT_MAX: usize = 65_536;

/// New messages a second, and so many at once: a tenth below what a server takes from one session
/// by default. One refused as busy is overtaken by those behind it that are under way already, so
/// a client that knows better keeps its order.
const PACE: u32 = 900;
const BURST: Duration = Duration::from_secs(1);

/// Before a new id is made the server's clock is asked anew; this is the time for its answer.
const REMAKE_WAIT: Duration = Duration::from_millis(100);
/// A message whose id is in a server's future is tried again after this…
const EARLY_RETRY: Duration = Duration::from_millis(500);
/// … for so long: more than servers that reach each other need to tell.
const EARLY_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    /// The order in which messages were said.
    nth: u64,
    ticket: Ticket,
    to: Target,
    text: String,
    wanted: Level,
    at: Time,
    reached: Option<Level>,
    room: Option<RoomId>,
    key: Option<Key>,
    /// Whether a server may have taken it without saying so.
    doubtful: bool,
    /// Since when servers say that its id is in their future.
    early_since: Option<Time>,
}

/// A message that reached a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) ticket: Ticket,
    pub(super) mid: Mid,
    pub(super) room: Option<RoomId>,
    pub(super) key: Option<Key>,
    pub(super) level: Level,
    pub(super) replicas: u16,
    pub(super) at: Time,
}

#[derive(Clone, Debug)]
pub(super) struct Outbox {
    last_nth: u64,
    drafts: VecDeque<Kept>,
    /// By id, which is the order in which they were said.
    kept: BTreeMap<Mid, Kept>,
    /// Of those kept, the ones to send (again).
    unsent: BTreeSet<Mid>,
    asked: BTreeMap<RequestId, Mid>,
    /// Messages whose id is in the future for the server: when to try again.
    postponed: BTreeMap<Mid, Time>,
    /// Messages in flight at most now: halved by a refusal as busy, grown by every answer, so that
    /// few overtake a refused one.
    window: usize,
    paused_until: Option<Time>,
    /// When the pace allows a full burst again, and when the next message if one must wait.
    rested_at: Time,
    paced_until: Option<Time>,
    /// How many of those kept have reached no level yet.
    unanswered: usize,
}

impl Outbox {
    pub(super) const fn new() -> Self {
        Self {
            last_nth: 0,
            drafts: VecDeque::new(),
            kept: BTreeMap::new(),
            unsent: BTreeSet::new(),
            asked: BTreeMap::new(),
            postponed: BTreeMap::new(),
            window: WINDOW_MAX,
            paused_until: None,
            rested_at: Time::from_micros(0),
            paced_until: None,
            unanswered: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.drafts.len() + self.kept.len()
    }

    pub(super) fn unanswered(&self) -> usize {
        self.drafts.len() + self.unanswered
    }

    /// Whether nothing goes for now.
    pub(super) const fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// When something that waits may go.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.postponed.values().copied().chain(self.paused_until).chain(self.paced_until).min()
    }

    pub(super) fn submit(
        &mut self,
        at: Time,
        ticket: Ticket,
        to: Target,
        text: String,
        wanted: Level,
    ) -> Result<(), Failure> {
        if self.drafts.len() >= DRAFTS_MAX {
            let reason = "too many messages wait to be sent; wait for their answers".into();
            return Err(Failure::Refused(Code::Busy, reason));
        }
        self.last_nth += 1;
        let nth = self.last_nth;
        let kept = Kept {
            nth,
            ticket,
            to,
            text,
            wanted,
            at,
            reached: None,
            room: None,
            key: None,
            doubtful: false,
            early_since: None,
        };
        self.drafts.push_back(kept);
        Ok(())
    }

    /// Whether a message may leave now.
    pub(super) fn has_next(&mut self, now: Time) -> bool {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        let due = self.postponed.iter().filter(|(_, at)| **at <= now).map(|(mid, _)| *mid);
        for mid in due.collect::<Vec<_>>() {
            self.postponed.remove(&mid);
            self.unsent.insert(mid);
        }
        let waits = !(self.unsent.is_empty() && self.drafts.is_empty());
        let rest = self.rested_at.since(now);
        self.paced_until = (waits && rest > BURST).then(|| now + (rest - BURST));
        waits
            && self.paused_until.is_none()
            && self.paced_until.is_none()
            && self.asked.len() < self.window
    }

    /// The next message in order; a draft gets the id `fresh`.
    pub(super) fn next(&mut self, now: Time, request: RequestId, fresh: Mid) -> Option<Send> {
        let mid = match self.unsent.pop_first() {
            Some(mid) => mid,
            None => {
                let draft = self.drafts.pop_front()?;
                self.make_room();
                self.kept.insert(fresh, draft);
                self.unanswered += 1;
                fresh
            }
        };
        let kept = self.kept.get(&mid)?;
        self.rested_at = self.rested_at.max(now) + BURST / PACE;
        self.asked.insert(request, mid);
        Some(Send {
            request,
            to: kept.to.clone(),
            mid,
            text: kept.text.clone(),
            level: kept.wanted,
        })
    }

    fn make_room(&mut self) {
        while self.kept.len() >= KEPT_MAX {
            let stored = self.kept.iter().find(|(_, kept)| kept.reached.is_some());
            let Some(mid) = stored.map(|(mid, _)| *mid) else { return };
            self.kept.remove(&mid);
            self.unsent.remove(&mid);
            self.postponed.remove(&mid);
        }
    }

    pub(super) fn expects(&self, request: RequestId) -> bool {
        self.asked.contains_key(&request)
    }

    /// The server answered with a message's state.
    pub(super) fn sent(&mut self, sent: &Sent) -> Option<Settled> {
        let mid = self.asked.remove(&sent.request)?;
        self.window = (self.window + 1).min(WINDOW_MAX);
        let kept = self.kept.get_mut(&mid)?;
        kept.room = Some(sent.room);
        kept.key = Some(sent.key);
        self.reached(mid, sent.level, sent.replicas)
    }

    pub(super) fn replicated(&mut self, mid: Mid, replicas: u16) -> Option<Settled> {
        self.reached(mid, Level::Replicated, replicas)
    }

    /// Each level is told once; the last one takes the message out.
    fn reached(&mut self, mid: Mid, level: Level, replicas: u16) -> Option<Settled> {
        let kept = self.kept.get_mut(&mid)?;
        if kept.reached.is_some_and(|reached| reached >= level) {
            return None;
        }
        if kept.reached.is_none() {
            self.unanswered -= 1;
        }
        kept.reached = Some(level);
        let (ticket, room, key, at) = (kept.ticket, kept.room, kept.key, kept.at);
        if level == Level::Replicated {
            self.kept.remove(&mid);
            self.unsent.remove(&mid);
            self.postponed.remove(&mid);
        }
        Some(Settled { ticket, mid, room, key, level, replicas, at })
    }

    /// Refused for now; tells whether the request was one of a message.
    pub(super) fn busy(&mut self, request: RequestId, again: Time) -> bool {
        let Some(mid) = self.asked.remove(&request) else { return false };
        if self.kept.contains_key(&mid) {
            self.unsent.insert(mid);
        }
        self.window = (self.window / 2).max(1);
        self.paused_until = Some(self.paused_until.map_or(again, |until| until.max(again)));
        true
    }

    /// Its id is in the future for this server: an earlier one's clock was ahead. What no server can
    /// have taken gets a new id; what one may have taken keeps it, and is tried again until the
    /// servers have told each other or the time has come.
    /// It is given up, as doubtful as it was, after [`EARLY_MAX`]; then its ticket is returned.
    pub(super) fn too_early(&mut self, now: Time, request: RequestId) -> Option<Ticket> {
        let mid = self.asked.remove(&request)?;
        let kept = self.kept.get_mut(&mid)?;
        if kept.doubtful || kept.reached.is_some() {
            let since = *kept.early_since.get_or_insert(now);
            if kept.reached.is_none() && now.since(since) > EARLY_MAX {
                self.unanswered -= 1;
                return self.kept.remove(&mid).map(|kept| kept.ticket);
            }
            self.postponed.insert(mid, now + EARLY_RETRY);
        } else if let Some(kept) = self.kept.remove(&mid) {
            self.unanswered -= 1;
            let at = self.drafts.partition_point(|draft| draft.nth < kept.nth);
            self.drafts.insert(at, kept);
            let again = now + REMAKE_WAIT;
            self.paused_until = Some(self.paused_until.map_or(again, |until| until.max(again)));
        }
        None
    }

    /// Refused for good: whose message it was. One that an earlier server stored has happened, and
    /// its program was told so: that refusal concerns the repetition alone.
    pub(super) fn refused(&mut self, request: RequestId) -> Option<Ticket> {
        let mid = self.asked.remove(&request)?;
        let kept = self.kept.remove(&mid)?;
        if kept.reached.is_some() {
            return None;
        }
        self.unanswered -= 1;
        Some(kept.ticket)
    }

    /// The connection is lost: everything not replicated goes again.
    pub(super) fn lost(&mut self) {
        for mid in std::mem::take(&mut self.asked).into_values() {
            if let Some(kept) = self.kept.get_mut(&mid) {
                kept.doubtful = true;
            }
        }
        self.postponed.clear();
        self.unsent = self.kept.keys().copied().collect();
        self.paused_until = None;
        // The next server counts anew.
        self.rested_at = Time::default();
        self.window = WINDOW_MAX;
    }

    /// A nick turned out to mean that account: a retry must not go to the nick's next holder.
    pub(super) fn resolve(&mut self, mid: Mid, account: AccountId) {
        if let Some(kept) = self.kept.get_mut(&mid)
            && matches!(kept.to, Target::Nick(_))
        {
            kept.to = Target::Account(account);
        }
    }

    /// Takes out everything; whose answers are still owed.
    pub(super) fn drain(&mut self) -> Vec<Ticket> {
        let kept = std::mem::take(&mut self.kept).into_values();
        let drafts = std::mem::take(&mut self.drafts);
        let owed = kept.filter(|kept| kept.reached.is_none()).chain(drafts);
        let tickets = owed.map(|kept| kept.ticket).collect();
        *self = Self::new();
        tickets
    }
}

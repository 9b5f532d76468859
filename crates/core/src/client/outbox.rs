//! What the program said and the cluster has not yet made safe.
//!
//! A message waits as a draft until it may leave (only then is its id made, from the server's
//! clock), and stays until it is replicated. After a fail-over everything here is sent again, in
//! order, under the same ids; a server that knows an id answers with its state.
//!
//! With a journal, what is said and the ids are noted, and a message leaves once its notes are
//! kept: see [`super::journal`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::id::{AccountId, Mid, RequestId, RoomId};
use crate::session::{Code, Level, Send, Sent, Target};
use crate::time::{Key, Time};

use super::io::{Failure, Ticket};
use super::journal::{Journal, Note};

/// Messages sent and not answered, at most.
pub const WINDOW_MAX: usize = 256;
/// Drafts beyond the window, at most; more are refused as busy.
pub const DRAFTS_MAX: usize = 4096;
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

/// An id older than this is not in any server's future.
const PAST_MS: u64 = 60_000;

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

impl Kept {
    fn new(nth: u64, ticket: Ticket, at: Time, wanted: Level) -> Self {
        Self {
            nth,
            ticket,
            to: Target::Room(String::new()),
            text: String::new(),
            wanted,
            at,
            reached: None,
            room: None,
            key: None,
            doubtful: false,
            early_since: None,
        }
    }
}

/// What may be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Give the oldest draft an id.
    Name,
    /// Send the next message.
    Send,
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
    notes: Notes,
}

/// What is to be written down, and what waits for it.
#[derive(Clone, Debug, Default)]
struct Notes {
    wanted: Wanted,
    open: Vec<Note>,
    /// What waits for the notes that are open.
    waits: Waits,
    /// What waits for notes handed over, by the number of their batch.
    handed: BTreeMap<u64, Waits>,
    last_batch: u64,
}

/// Whether anything is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Wanted {
    #[default]
    No,
    Yes,
}

#[derive(Clone, Debug, Default)]
struct Waits {
    /// Messages that may leave then.
    named: Vec<Mid>,
    /// Messages that outlive this process then.
    said: Vec<Ticket>,
}

impl Notes {
    fn add(&mut self, note: impl FnOnce() -> Note) {
        if self.wanted == Wanted::Yes {
            self.open.push(note());
        }
    }
}

impl Outbox {
    pub(super) fn new() -> Self {
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
            notes: Notes::default(),
        }
    }

    /// Takes over what an earlier client left, and writes down from now on. The newest id of it.
    pub(super) fn restore(&mut self, at: Time, journal: &Journal) -> Option<Mid> {
        self.notes.wanted = Wanted::Yes;
        for (nth, message) in journal.messages() {
            self.last_nth = self.last_nth.max(*nth);
            let mut kept = Kept::new(*nth, Ticket::restored(*nth), at, message.level);
            kept.to = message.to.clone();
            kept.text = message.text.clone();
            match message.mid {
                Some(mid) => {
                    kept.doubtful = true;
                    self.unanswered += 1;
                    self.unsent.insert(mid);
                    self.kept.insert(mid, kept);
                }
                None => self.drafts.push_back(kept),
            }
        }
        self.kept.last_key_value().map(|(mid, _)| *mid)
    }

    pub(super) fn note_account(&mut self, account: AccountId) {
        self.notes.add(|| Note::Account(account));
    }

    /// The next notes to be kept, and the number of their batch.
    pub(super) fn take_notes(&mut self) -> Option<(u64, Vec<Note>)> {
        let notes = &mut self.notes;
        if notes.open.is_empty() {
            return None;
        }
        notes.last_batch += 1;
        notes.handed.insert(notes.last_batch, std::mem::take(&mut notes.waits));
        Some((notes.last_batch, std::mem::take(&mut notes.open)))
    }

    /// Notes are kept up to this batch: what waited for them may leave. Whose words are safe.
    pub(super) fn on_kept(&mut self, batch: u64) -> Vec<Ticket> {
        let rest = self.notes.handed.split_off(&batch.saturating_add(1));
        let mut safe = Vec::new();
        for waits in std::mem::replace(&mut self.notes.handed, rest).into_values() {
            self.release(waits.named);
            safe.extend(waits.said);
        }
        safe
    }

    /// Nothing can be kept any more: what waited for that goes without.
    pub(super) fn on_unkept(&mut self) {
        let notes = std::mem::take(&mut self.notes);
        for waits in notes.handed.into_values().chain([notes.waits]) {
            self.release(waits.named);
        }
    }

    fn release(&mut self, named: Vec<Mid>) {
        self.unsent.extend(named.into_iter().filter(|mid| self.kept.contains_key(mid)));
    }

    /// How many have an id that is not kept yet.
    fn being_kept(&self) -> usize {
        let handed = self.notes.handed.values().chain([&self.notes.waits]);
        handed.map(|waits| waits.named.len()).sum()
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
        if self.notes.wanted == Wanted::Yes {
            let (to, text) = (to.clone(), text.clone());
            self.notes.open.push(Note::Said { nth, to, text, level: wanted });
            self.notes.waits.said.push(ticket);
        }
        self.drafts.push_back(Kept { to, text, ..Kept::new(nth, ticket, at, wanted) });
        Ok(())
    }

    /// What may be done now.
    pub(super) fn next_step(&mut self, now: Time) -> Option<Step> {
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
        let under_way = self.asked.len() + self.being_kept();
        let held = self.paused_until.is_some() || self.paced_until.is_some();
        if !waits || held || under_way >= self.window {
            None
        } else if self.unsent.is_empty() {
            Some(Step::Name)
        } else {
            Some(Step::Send)
        }
    }

    /// The oldest draft goes by that id.
    pub(super) fn name(&mut self, mid: Mid) {
        let Some(draft) = self.drafts.pop_front() else { return };
        self.make_room();
        let nth = draft.nth;
        self.kept.insert(mid, draft);
        self.unanswered += 1;
        match self.notes.wanted {
            Wanted::Yes => {
                self.notes.open.push(Note::Named { nth, mid });
                self.notes.waits.named.push(mid);
            }
            Wanted::No => {
                self.unsent.insert(mid);
            }
        }
    }

    /// The next message in order.
    pub(super) fn next(&mut self, now: Time, request: RequestId) -> Option<Send> {
        let mid = self.unsent.pop_first()?;
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
            self.take_out(mid);
        }
    }

    /// Takes a message out for good.
    fn take_out(&mut self, mid: Mid) -> Option<Kept> {
        self.unsent.remove(&mid);
        self.postponed.remove(&mid);
        let kept = self.kept.remove(&mid)?;
        self.notes.add(|| Note::Done { nth: kept.nth });
        Some(kept)
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
            self.take_out(mid);
        }
        Some(Settled { ticket, mid, room, key, level, replicas, at })
    }

    /// Refused for now; tells whether the request was one of a message.
    pub(super) fn busy(&mut self, request: RequestId, again: Time) -> bool {
        let Some(mid) = self.asked.remove(&request) else { return false };
        if self.kept.contains_key(&mid) {
            self.unsent.insert(mid);
        }
        // Those behind it are refused as well: that is one refusal, told many times.
        if self.paused_until.is_none() {
            self.window = (self.window / 2).max(1);
        }
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
                return self.take_out(mid).map(|kept| kept.ticket);
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

    /// Whether a message refused for its id's time is far older than that: no floor of a room that
    /// went over it comes down again.
    pub(super) fn is_past(&self, request: RequestId, clock_ms: u64) -> bool {
        let doubtful = |mid: &&Mid| self.kept.get(mid).is_some_and(|kept| kept.doubtful);
        let mid = self.asked.get(&request).filter(doubtful);
        mid.is_some_and(|mid| mid.unix_ms().saturating_add(PAST_MS) < clock_ms)
    }

    /// Refused for good: whose message it was, and whether an earlier server may have taken it. One
    /// that an earlier server stored has happened, and its program was told so: that refusal concerns
    /// the repetition alone.
    pub(super) fn refused(&mut self, request: RequestId) -> Option<(Ticket, bool)> {
        let mid = self.asked.remove(&request)?;
        let kept = self.take_out(mid)?;
        if kept.reached.is_some() {
            return None;
        }
        self.unanswered -= 1;
        Some((kept.ticket, kept.doubtful))
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
        for waits in self.notes.handed.values().chain([&self.notes.waits]) {
            for mid in &waits.named {
                self.unsent.remove(mid);
            }
        }
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
            let nth = kept.nth;
            self.notes.add(|| Note::Meant { nth, account });
        }
    }

    /// Takes out everything; whose answers are still owed.
    pub(super) fn drain(&mut self) -> Vec<(Ticket, bool)> {
        for mid in self.asked.values() {
            if let Some(kept) = self.kept.get_mut(mid) {
                kept.doubtful = true;
            }
        }
        let kept = std::mem::take(&mut self.kept).into_values();
        let drafts = std::mem::take(&mut self.drafts);
        let owed = kept.filter(|kept| kept.reached.is_none()).chain(drafts);
        let tickets = owed.map(|kept| (kept.ticket, kept.doubtful)).collect();
        let notes = std::mem::take(&mut self.notes);
        *self = Self { notes, ..Self::new() };
        tickets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_700_000_000_000;

    const fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    fn mid(n: u64) -> Mid {
        Mid::at(MS + n, 0)
    }

    /// Messages 1 to `n`, all of them with ids.
    fn named(n: u64) -> Outbox {
        let mut outbox = Outbox::new();
        for n in 1..=n {
            let to = Target::Room("lobby".into());
            outbox.submit(at(0), Ticket(n), to, n.to_string(), Level::Stored).unwrap();
            outbox.name(mid(n));
        }
        outbox
    }

    /// All of them sent, as requests of their numbers.
    fn asked(n: u64) -> Outbox {
        let mut outbox = named(n);
        for n in 1..=n {
            assert_eq!(outbox.next(at(0), RequestId(n)).map(|send| send.mid), Some(mid(n)));
        }
        outbox
    }

    fn sent(request: u64, n: u64, level: Level) -> Sent {
        Sent {
            request: RequestId(request),
            mid: mid(n),
            room: RoomId::new(1),
            key: Key::MIN,
            level,
            replicas: 2,
            to: None,
        }
    }

    #[test]
    fn drafts_and_messages_are_counted_till_they_are_answered_and_till_they_are_safe() {
        let mut outbox = asked(2);
        let to = Target::Room("lobby".into());
        outbox.submit(at(0), Ticket(3), to, "3".into(), Level::Stored).unwrap();
        let counts = |outbox: &Outbox| (outbox.len(), outbox.unanswered());
        assert_eq!(counts(&outbox), (3, 3));
        assert!(outbox.expects(RequestId(1)) && !outbox.expects(RequestId(9)));
        let settled = outbox.sent(&sent(1, 1, Level::Stored)).unwrap();
        assert_eq!(
            (settled.ticket, settled.level, settled.replicas),
            (Ticket(1), Level::Stored, 2)
        );
        assert_eq!(counts(&outbox), (3, 2));
        assert_eq!(outbox.sent(&sent(1, 1, Level::Stored)), None, "answered once");
        assert_eq!(outbox.replicated(mid(1), 3).map(|s| s.ticket), Some(Ticket(1)));
        assert_eq!(counts(&outbox), (2, 2));
        assert_eq!(outbox.refused(RequestId(2)), Some((Ticket(2), false)));
        assert_eq!(counts(&outbox), (1, 1));
        assert_eq!(outbox.drain(), [(Ticket(3), false)]);
        assert_eq!(counts(&outbox), (0, 0));
    }

    #[test]
    fn whose_answers_are_owed_at_the_end_is_whose_message_reached_no_level() {
        let mut outbox = asked(3);
        outbox.sent(&sent(2, 2, Level::Stored));
        assert_eq!(outbox.drain(), [(Ticket(1), true), (Ticket(3), true)]);
    }

    #[test]
    fn an_id_that_no_server_can_have_taken_is_made_anew_in_its_order() {
        let mut outbox = named(3);
        for n in 4..=5 {
            let to = Target::Room("lobby".into());
            outbox.submit(at(0), Ticket(n), to, n.to_string(), Level::Stored).unwrap();
        }
        for n in 1..=3 {
            outbox.next(at(0), RequestId(n));
        }
        for n in [2, 1, 3] {
            assert_eq!(outbox.too_early(at(10), RequestId(n)), None);
        }
        assert!(outbox.is_paused());
        assert_eq!((outbox.len(), outbox.unanswered()), (5, 5));
        assert_eq!(outbox.next_deadline(), Some(at(110)), "the clock is asked meanwhile");
        assert_eq!(outbox.next_step(at(109)), None);
        for n in 11..=15 {
            assert_eq!(outbox.next_step(at(110)), Some(Step::Name));
            assert!(!outbox.is_paused());
            outbox.name(mid(n));
            let send = outbox.next(at(110), RequestId(n)).unwrap();
            assert_eq!((send.text, send.mid), ((n - 10).to_string(), mid(n)));
        }
    }

    #[test]
    fn an_id_that_a_server_may_have_taken_is_tried_again_for_ten_seconds() {
        let mut outbox = asked(1);
        outbox.lost();
        let again = |outbox: &mut Outbox, ms: u64, request: u64| {
            assert_eq!(outbox.next_step(at(ms)), Some(Step::Send), "at {ms}");
            outbox.next(at(ms), RequestId(request)).unwrap();
            outbox.too_early(at(ms), RequestId(request))
        };
        assert_eq!(again(&mut outbox, 0, 2), None);
        assert_eq!(outbox.next_deadline(), Some(at(500)));
        assert_eq!(outbox.next_step(at(499)), None);
        assert_eq!(again(&mut outbox, 500, 3), None);
        assert_eq!(again(&mut outbox, 10_000, 4), None, "the last time");
        assert_eq!((outbox.len(), outbox.unanswered()), (1, 1));
        assert_eq!(again(&mut outbox, 10_500, 5), Some(Ticket(1)));
        assert_eq!((outbox.len(), outbox.unanswered()), (0, 0));
    }

    #[test]
    fn what_a_server_called_stored_is_tried_again_for_ever() {
        let mut outbox = asked(1);
        outbox.sent(&sent(1, 1, Level::Stored));
        outbox.lost();
        for nth in 0..100 {
            outbox.next_step(at(nth * 500));
            outbox.next(at(nth * 500), RequestId(nth + 2)).unwrap();
            assert_eq!(outbox.too_early(at(nth * 500), RequestId(nth + 2)), None);
        }
        assert_eq!((outbox.len(), outbox.unanswered()), (1, 0));
    }

    #[test]
    fn only_a_doubtful_id_of_over_a_minute_is_past() {
        let mut outbox = asked(1);
        assert!(!outbox.is_past(RequestId(1), u64::MAX), "no server can have taken it");
        outbox.lost();
        outbox.next(at(0), RequestId(2));
        assert!(!outbox.is_past(RequestId(2), MS + 1 + 60_000));
        assert!(outbox.is_past(RequestId(2), MS + 1 + 60_001));
        assert!(!outbox.is_past(RequestId(9), u64::MAX));
    }

    #[test]
    fn a_window_that_was_halved_grows_with_every_answer() {
        let mut outbox = asked(256);
        let to = Target::Room("lobby".into());
        outbox.submit(at(0), Ticket(257), to, String::new(), Level::Stored).unwrap();
        outbox.busy(RequestId(1), at(10));
        // 255 are under way in a window of 128.
        for n in 2..=64 {
            outbox.sent(&sent(n, n, Level::Stored));
            assert_eq!(outbox.next_step(at(10)), None, "{} under way", 256 - n);
        }
        outbox.sent(&sent(65, 65, Level::Stored));
        assert_eq!(outbox.next_step(at(10)), Some(Step::Send), "191 in a window of 192");
    }

    #[test]
    fn a_pace_holds_back_and_says_until_when() {
        let mut outbox = named(1000);
        let mut gone = 0;
        while outbox.next_step(at(0)) == Some(Step::Send) {
            gone += 1;
            outbox.next(at(0), RequestId(gone)).unwrap();
            outbox.sent(&sent(gone, gone, Level::Replicated));
        }
        assert_eq!(gone, 901, "a second's worth, and the one that passes it");
        let until = outbox.next_deadline().unwrap();
        assert!((1..=3).contains(&(until.as_micros() / 1000)), "{until:?}");
        assert_eq!(outbox.next_step(until), Some(Step::Send));
    }

    #[test]
    fn beyond_what_is_kept_the_oldest_stored_message_leaves() {
        let mut outbox = named(0);
        for n in 1..=KEPT_MAX as u64 {
            let kept = Kept::new(n, Ticket(n), at(0), Level::Stored);
            outbox.kept.insert(mid(n), kept);
            outbox.unanswered += 1;
        }
        for n in [5, 7] {
            outbox.reached(mid(n), Level::Stored, 1);
        }
        let say = |outbox: &mut Outbox, n: u64| {
            let to = Target::Room("lobby".into());
            outbox.submit(at(0), Ticket(n), to, String::new(), Level::Stored).unwrap();
            outbox.name(mid(n));
            outbox.kept.len()
        };
        assert_eq!(say(&mut outbox, 100_000), KEPT_MAX);
        assert!(!outbox.kept.contains_key(&mid(5)) && outbox.kept.contains_key(&mid(7)));
        assert_eq!(say(&mut outbox, 100_001), KEPT_MAX);
        assert_eq!(say(&mut outbox, 100_002), KEPT_MAX + 1, "none that is not stored");
    }

    #[test]
    fn a_window_of_ids_that_are_being_kept_is_a_window() {
        let mut outbox = Outbox::new();
        outbox.restore(at(0), &Journal::default());
        for n in 1..=WINDOW_MAX as u64 + 1 {
            let to = Target::Room("lobby".into());
            outbox.submit(at(0), Ticket(n), to, String::new(), Level::Stored).unwrap();
        }
        for n in 1..=WINDOW_MAX as u64 {
            assert_eq!(outbox.next_step(at(0)), Some(Step::Name));
            outbox.name(mid(n));
            if n == 9 {
                assert_eq!(outbox.take_notes().map(|(batch, _)| batch), Some(1));
            }
        }
        assert_eq!(outbox.next_step(at(0)), None, "handed over or not");
        assert_eq!(outbox.on_kept(1).len(), WINDOW_MAX + 1, "all that was said");
        for n in 1..=9 {
            assert_eq!(outbox.next_step(at(0)), Some(Step::Send));
            outbox.next(at(0), RequestId(n)).unwrap();
        }
        assert_eq!(outbox.next_step(at(0)), None, "asked or being kept");
        outbox.sent(&sent(1, 1, Level::Replicated));
        assert_eq!(outbox.next_step(at(0)), Some(Step::Name));
    }
}

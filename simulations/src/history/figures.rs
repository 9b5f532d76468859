//! Counts and times of a history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chatty_core::id::RoomId;
use chatty_core::session::Level;
use chatty_core::time::Time;

use super::facts::{Facts, Fate, SightKind};
use super::{Did, History, Session, What};

/// What a history amounts to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Messages said.
    pub sent: usize,
    /// Of those, acknowledged as replicated.
    pub replicated: usize,
    /// Acknowledged as stored and never as more.
    pub stored_only: usize,
    /// Definitely not happened.
    pub refused: usize,
    /// Without an answer, or with one that says that it may have happened.
    pub unknown: usize,
    /// Acknowledged as replicated and not in every final timeline.
    pub replicated_lost: usize,
    /// Acknowledged as stored only and not in every final timeline, whether that breaks a promise
    /// or the one disk was lost.
    pub stored_lost: usize,
    /// Acknowledged, then lost by the servers (and not with a disk), and there all the same because
    /// the sender said it again.
    pub repaired: usize,
    /// Lines shown to sessions, on pages not counted.
    pub shown: usize,
    /// Pages read.
    pub pages: usize,
    /// From when a message was said to its first answer.
    pub answered: Quantiles,
    /// From when a message was said to `replicated`.
    pub until_replicated: Quantiles,
    /// From when a message was said to when a session was shown it, for every session and message.
    pub visible: Quantiles,
    /// From the first answer to a message to when the last session was shown it; zero for one that
    /// all had seen by then.
    pub stale: Quantiles,
    /// By session.
    pub stalls: BTreeMap<Session, Stall>,
}

/// A distribution of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// How many there are.
    pub count: usize,
    /// The median.
    pub p50: Duration,
    /// 99 of 100 are no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Quantiles {
    /// Of these times.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        // The nearest rank: the smallest time that so many percent do not exceed.
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).copied().unwrap_or_default()
        };
        Self { count: times.len(), p50: at(50), p99: at(99), max: at(100) }
    }
}

/// How long a session had to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// The longest that one of its messages waited for its first answer (or for the end).
    pub answer: Duration,
    /// The longest that it heard nothing at all, from the first message that anybody said in a room
    /// it had open, or a later moment, until it heard something; begun before the last message.
    pub silence: Duration,
}

impl Stall {
    /// The longer one.
    pub fn longest(&self) -> Duration {
        self.answer.max(self.silence)
    }
}

/// Counts and measures a history.
pub fn figures(history: &History) -> Figures {
    let facts = Facts::of(history);
    let mut figures = Figures { sent: facts.sent.len(), ..Figures::default() };
    let end = history.ops.last().map(|op| op.at).unwrap_or_default();
    let (mut answered, mut replicated) = (Vec::new(), Vec::new());
    // When each message was said, and first acknowledged.
    let mut said = BTreeMap::new();
    for ((session, _), sent) in &facts.sent {
        let stall = figures.stalls.entry(*session).or_default();
        let first = sent.answers.first().map(|answer| answer.at);
        if first.is_some() || sent.fate == Fate::Open {
            stall.answer = stall.answer.max(first.unwrap_or(end).since(sent.at));
        }
        answered.extend(first.map(|at| at.since(sent.at)));
        let Some(best) = Facts::best(sent) else {
            match sent.fate {
                Fate::Refused => figures.refused += 1,
                Fate::Open => figures.unknown += 1,
            }
            continue;
        };
        let is_lost = !facts.absent(&best.identity).is_empty();
        figures.repaired += usize::from(!is_lost && facts.lost_event(sent).is_some());
        match best.level {
            Level::Replicated => {
                figures.replicated += 1;
                figures.replicated_lost += usize::from(is_lost);
                replicated.push(best.at.since(sent.at));
            }
            Level::Stored => {
                figures.stored_only += 1;
                figures.stored_lost += usize::from(is_lost);
            }
        }
        said.insert(best.identity, (sent.at, first.unwrap_or(best.at)));
    }
    let mut visible = Vec::new();
    let mut last_seen: BTreeMap<_, Time> = BTreeMap::new();
    for sight in facts.sights.iter().filter(|sight| sight.kind == SightKind::Told) {
        figures.shown += 1;
        let identity = sight.line.identity(sight.room);
        if let Some((at, _)) = said.get(&identity) {
            visible.push(sight.at.since(*at));
        }
        last_seen.insert(identity, sight.at);
    }
    let stale = said.iter().filter_map(|(identity, (_, first))| {
        last_seen.get(identity).map(|last| last.since(*first))
    });
    figures.stale = Quantiles::of(stale.collect());
    figures.answered = Quantiles::of(answered);
    figures.until_replicated = Quantiles::of(replicated);
    figures.visible = Quantiles::of(visible);
    figures.pages = history.ops.iter().filter(|op| is_page(&op.what)).count();
    for (session, silence) in silences(history, &facts) {
        figures.stalls.entry(session).or_default().silence = silence;
    }
    figures
}

const fn is_page(what: &What) -> bool {
    matches!(what, What::Client(_, Did::Read { .. }))
}

/// How long each session that had a room open heard nothing while something was said there.
fn silences(history: &History, facts: &Facts<'_>) -> BTreeMap<Session, Duration> {
    let mut spans: BTreeMap<RoomId, (Time, Time)> = BTreeMap::new();
    for sent in facts.sent.values() {
        let span = spans.entry(sent.room).or_insert((sent.at, sent.at));
        *span = (span.0.min(sent.at), span.1.max(sent.at));
    }
    let mut open: BTreeMap<Session, BTreeSet<RoomId>> = BTreeMap::new();
    let mut heard: BTreeMap<Session, Vec<Time>> = BTreeMap::new();
    for op in &history.ops {
        let What::Client(session, did) = &op.what else { continue };
        match did {
            Did::Opened { room, .. } => {
                open.entry(*session).or_default().insert(*room);
            }
            Did::Saw { .. } | Did::Answered { .. } => {
                heard.entry(*session).or_default().push(op.at);
            }
            _ => {}
        }
    }
    let mut silences = BTreeMap::new();
    for (session, rooms) in open {
        let spoken = rooms.iter().filter_map(|room| spans.get(room));
        let from = spoken.clone().map(|span| span.0).min();
        let Some((from, until)) = from.zip(spoken.map(|span| span.1).max()) else { continue };
        let mut last = from;
        let mut longest = Duration::ZERO;
        let heard = heard.get(&session).into_iter().flatten().copied();
        for at in heard.filter(|at| *at >= from).chain([until]) {
            // What is heard after the last word may be late: it ends a silence all the same.
            longest = longest.max(at.since(last));
            last = last.max(at);
            if at >= until {
                break;
            }
        }
        silences.insert(session, longest);
    }
    silences
}

//! What each session may rely on, from one server to the next.

use std::collections::{BTreeMap, BTreeSet};

use chatty_core::event::Identity;
use chatty_core::id::{Origin, RoomId};
use chatty_core::time::{Key, Time};

use super::Found;
use crate::history::facts::{Facts, Sent};
use crate::history::write::seconds;
use crate::history::{Did, Op, Rule, Session, Shown, What};

/// What a session knows of a room.
#[derive(Default)]
struct Known {
    /// Messages it was answered, or shown: their keys as far as it was told, and since when.
    wrote: BTreeMap<Identity, (BTreeSet<Key>, Time)>,
    saw: BTreeMap<Identity, (BTreeSet<Key>, Time)>,
    /// The highest key of all these of each log, and of which message.
    highest: BTreeMap<Origin, (Key, Identity)>,
}

impl Known {
    fn raise(&mut self, key: Key, identity: Identity) {
        let highest = self.highest.entry(key.origin).or_insert((key, identity));
        if highest.0 < key {
            *highest = (key, identity);
        }
    }

    fn saw(&mut self, line: &Shown, room: RoomId, at: Time) {
        let identity = line.identity(room);
        self.saw.entry(identity).or_insert((BTreeSet::new(), at)).0.insert(line.key);
        self.raise(line.key, identity);
    }
}

/// A page, as [`Did::Read`] tells of it.
struct Page<'a> {
    session: Session,
    room: RoomId,
    at: Time,
    asked: Time,
    before: Option<Key>,
    lines: &'a [Shown],
    more: bool,
}

/// [`Rule::ReadYourWrites`] or [`Rule::MonotonicReads`].
pub(super) fn pages(facts: &Facts<'_>, rule: Rule, found: &mut Found) {
    let mut known: BTreeMap<(Session, RoomId), Known> = BTreeMap::new();
    let mut stale: BTreeMap<Session, BTreeSet<Origin>> = BTreeMap::new();
    for Op { at, what } in &facts.history.ops {
        let What::Client(session, did) = what else { continue };
        match did {
            Did::Attached { stale: lacks, .. } => {
                stale.insert(*session, lacks.clone());
            }
            Did::Read { room, asked, before, lines, more, .. } => {
                let known = known.entry((*session, *room)).or_default();
                let (session, room, at, asked) = (*session, *room, *at, *asked);
                let page = Page { session, room, at, asked, before: *before, lines, more: *more };
                let stale = stale.entry(session).or_default();
                missing_on(facts, rule, &page, known, stale, found);
                for line in lines {
                    known.saw(line, room, at);
                }
            }
            did => learn(facts, &mut known, *session, *at, did),
        }
    }
}

fn learn(
    facts: &Facts<'_>,
    known: &mut BTreeMap<(Session, RoomId), Known>,
    session: Session,
    at: Time,
    did: &Did,
) {
    match did {
        Did::Saw { room, line, .. } => {
            known.entry((session, *room)).or_default().saw(line, *room, at);
        }
        Did::Answered { ticket, key, .. } => {
            let Some(sent) = facts.sent.get(&(session, *ticket)) else { return };
            let Some(identity) = sent.identity() else { return };
            let known = known.entry((session, sent.room)).or_default();
            let wrote = known.wrote.entry(identity).or_insert((BTreeSet::new(), at));
            wrote.0.extend(*key);
            if let Some(key) = key {
                known.raise(*key, identity);
            }
        }
        _ => {}
    }
}

fn missing_on(
    facts: &Facts<'_>,
    rule: Rule,
    page: &Page<'_>,
    known: &Known,
    stale: &BTreeSet<Origin>,
    found: &mut Found,
) {
    let there: BTreeSet<Identity> =
        page.lines.iter().map(|line| line.identity(page.room)).collect();
    let lowest = page.lines.first().filter(|_| page.more).map(|line| line.key);
    if page.more && lowest.is_none() {
        return; // an empty page says nothing
    }
    let (messages, verb) = match rule {
        Rule::ReadYourWrites => (&known.wrote, "had been answered"),
        _ => (&known.saw, "had seen"),
    };
    // What is there and had to be: it could as well be missing.
    let is_due = |(identity, (_, since)): (&Identity, &(_, Time))| {
        *since <= page.asked && there.contains(identity)
    };
    if messages.iter().any(is_due) {
        found.judges(rule);
    }
    let mut missing = Vec::new();
    for (identity, (keys, since)) in messages {
        if there.contains(identity) || *since > page.asked {
            continue;
        }
        // In the end it may stand at the smaller key of an alias that this server knew already.
        let place = facts.places.get(identity).map(|place| place.key);
        let mut all = keys.iter().copied().chain(place);
        let belongs = |key: Key| {
            lowest.is_none_or(|low| low < key) && page.before.is_none_or(|before| key < before)
        };
        let is_excused = |key: Key| stale.contains(&key.origin);
        let anywhere = all.clone().next().is_some();
        if anywhere && all.clone().all(belongs) && !all.any(is_excused) {
            missing.push((*since, identity.mid));
        }
    }
    if let Some((since, mid)) = missing.iter().max() {
        let what = format!(
            "{} asked at {} for a page of {}, got {} lines{}, and lacks {} messages that it {verb}, \
             the last of them {mid} {} ms before it asked",
            facts.session(page.session),
            seconds(page.asked),
            facts.room(page.room),
            page.lines.len(),
            if page.more { "" } else { " and that there are no older ones" },
            missing.len(),
            page.asked.since(*since).as_millis(),
        );
        found.add(rule, page.at, what);
    }
}

pub(super) fn writes_follow_reads(facts: &Facts<'_>, found: &mut Found) {
    let mut known: BTreeMap<(Session, RoomId), Known> = BTreeMap::new();
    for (index, Op { at, what }) in facts.history.ops.iter().enumerate() {
        let What::Client(session, did) = what else { continue };
        match did {
            Did::Read { room, lines, .. } => {
                let known = known.entry((*session, *room)).or_default();
                for line in lines {
                    known.saw(line, *room, *at);
                }
            }
            Did::Sent { ticket, room } => {
                let Some(sent) = facts.sent.get(&(*session, *ticket)) else { continue };
                let Some(known) = known.get(&(*session, *room)) else { continue };
                let stale = stale_meanwhile(facts, *session, index, sent);
                let counts = |(origin, _): &(&Origin, &(Key, Identity))| !stale.contains(origin);
                let highest = known.highest.iter().filter(counts).map(|(_, highest)| *highest);
                let Some((highest, before)) = highest.max_by_key(|(key, _)| *key) else {
                    continue;
                };
                let place = sent.identity().and_then(|identity| facts.places.get(&identity));
                let keys = sent.answers.iter().filter_map(|answer| answer.key);
                let Some(key) = keys.chain(place.map(|place| place.key)).min() else { continue };
                found.judges(Rule::WritesFollowReads);
                if key <= highest {
                    let what = format!(
                        "{} said message {ticket} in {} when it knew {} at {highest}, and it \
                         stands at {key}",
                        facts.session(*session),
                        facts.room(*room),
                        before.mid,
                    );
                    found.add(Rule::WritesFollowReads, *at, what);
                }
            }
            did => learn(facts, &mut known, *session, *at, did),
        }
    }
}

/// The logs that any server lacked that may have taken a message: as the attach before it said, and
/// those until its last answer.
fn stale_meanwhile(
    facts: &Facts<'_>,
    session: Session,
    said: usize,
    sent: &Sent,
) -> BTreeSet<Origin> {
    let until = sent.answers.last().map_or(usize::MAX, |answer| answer.index);
    let mut stale = BTreeSet::new();
    for (index, op) in facts.history.ops.iter().enumerate().take_while(|(n, _)| *n < until) {
        if let What::Client(who, Did::Attached { stale: lacks, .. }) = &op.what
            && *who == session
        {
            if index < said {
                stale.clear();
            }
            stale.extend(lacks.iter().copied());
        }
    }
    stale
}

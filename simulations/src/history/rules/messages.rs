//! What became of each message.

use std::collections::{BTreeMap, BTreeSet};

use chatty_core::event::Identity;
use chatty_core::id::{AccountId, RoomId};
use chatty_core::session::Level;
use chatty_core::time::Time;

use super::Found;
use crate::history::facts::{Answer, Cut, Facts, Fate, Sent, SightKind};
use crate::history::{Did, Rule, Server, Session, What};

pub(super) fn lost(facts: &Facts<'_>, found: &mut Found) {
    for ((session, ticket), sent) in &facts.sent {
        let (Some(best), Some(identity)) = (Facts::best(sent), sent.identity()) else { continue };
        if best.level == Level::Stored && facts.is_disk_lost_after(best.server, best.index) {
            continue;
        }
        found.judges(Rule::Lost);
        let absent = facts.absent(&identity);
        let said = |answer: &Answer| {
            format!(
                "message {ticket} of {} in {} ({}) was acknowledged as {} by {}",
                facts.session(*session),
                facts.room(sent.room),
                identity.mid,
                words(answer.level),
                facts.server(answer.server),
            )
        };
        if !absent.is_empty() {
            let what = format!("{} and is not on {}", said(best), facts.servers(absent));
            found.add(Rule::Lost, best.at, what);
        } else if let Some((answer, place)) = facts.lost_event(sent) {
            let what = format!(
                "{} at {}, and that event is gone: only its sender's repetition is there, at {place}",
                said(answer),
                answer.key.unwrap_or(place),
            );
            found.add(Rule::Lost, answer.at, what);
        }
    }
}

pub(super) const fn words(level: Level) -> &'static str {
    match level {
        Level::Stored => "stored",
        Level::Replicated => "replicated",
    }
}

pub(super) fn duplicated(facts: &Facts<'_>, found: &mut Found) {
    let mut told: BTreeMap<(Session, Identity), Time> = BTreeMap::new();
    for sight in facts.sights.iter().filter(|sight| sight.kind == SightKind::Told) {
        found.judges(Rule::Duplicated);
        let identity = sight.line.identity(sight.room);
        if let Some(before) = told.insert((sight.session, identity), sight.at) {
            let what = format!(
                "{} was shown {} of {} twice, first {} before",
                facts.session(sight.session),
                identity.mid,
                facts.room(sight.room),
                millis(sight.at, before),
            );
            found.add(Rule::Duplicated, sight.at, what);
        }
    }
    let mut pages: BTreeSet<(usize, Identity)> = BTreeSet::new();
    for sight in facts.sights.iter().filter(|sight| sight.kind == SightKind::OnPage) {
        if !pages.insert((sight.index, sight.line.identity(sight.room))) {
            let (session, mid) = (facts.session(sight.session), sight.line.mid);
            let what = format!("{session} read a page with {mid} twice in it");
            found.add(Rule::Duplicated, sight.at, what);
        }
    }
    for (room, timelines) in &facts.finals {
        for (server, lines) in timelines {
            let mut there = BTreeSet::new();
            for line in *lines {
                if !there.insert(line.identity(*room)) {
                    let (server, room) = (facts.server(*server), facts.room(*room));
                    let what = format!("{} stands twice in {room} on {server}", line.mid);
                    found.add(Rule::Duplicated, end(facts), what);
                }
            }
        }
    }
}

fn millis(later: Time, earlier: Time) -> String {
    format!("{} ms", later.since(earlier).as_millis())
}

/// When the record ends.
pub(super) fn end(facts: &Facts<'_>) -> Time {
    facts.history.ops.last().map(|op| op.at).unwrap_or_default()
}

pub(super) fn dirty_read(facts: &Facts<'_>, found: &mut Found) {
    // A line shown by a server that still has its disk must be there.
    let mut reported = BTreeSet::new();
    for sight in &facts.sights {
        let identity = sight.line.identity(sight.room);
        let disk_lost =
            sight.server.is_some_and(|server| facts.is_disk_lost_after(server, sight.index));
        if disk_lost || reported.contains(&identity) {
            continue;
        }
        found.judges(Rule::DirtyRead);
        let absent = facts.absent(&identity);
        if !absent.is_empty() {
            reported.insert(identity);
            let what = format!(
                "{} was shown {} of {} by {}, and it is not on {}",
                facts.session(sight.session),
                identity.mid,
                facts.room(sight.room),
                sight.server.map_or("nobody known", |server| facts.server(server)),
                facts.servers(absent),
            );
            found.add(Rule::DirtyRead, sight.at, what);
        }
    }
}

pub(super) fn overheard(facts: &Facts<'_>, found: &mut Found) {
    let accounts: BTreeSet<AccountId> = facts.accounts.values().copied().collect();
    let mut reported = BTreeSet::new();
    for sight in &facts.sights {
        let Some(pair) = facts.history.directs.get(&sight.room) else { continue };
        if accounts.iter().any(|account| !pair.contains(account)) {
            found.judges(Rule::Overheard);
        }
        let identity = sight.line.identity(sight.room);
        let account = facts.account(sight.session);
        if !pair.contains(&account) && reported.insert((sight.session, identity)) {
            let what = format!(
                "{} was shown {} of {}, which is between {} and {}",
                facts.session(sight.session),
                identity.mid,
                facts.room(sight.room),
                pair[0],
                pair[1],
            );
            found.add(Rule::Overheard, sight.at, what);
        }
    }
}

pub(super) fn minority_replicated(facts: &Facts<'_>, found: &mut Found) {
    for ((session, ticket), sent) in &facts.sent {
        for answer in &sent.answers {
            let alone = |cut| is_alone(facts, cut, sent, answer.server, answer.at);
            if !facts.cuts.iter().any(alone) {
                continue;
            }
            found.judges(Rule::MinorityReplicated);
            if answer.level == Level::Replicated {
                let what = format!(
                    "message {ticket} of {} in {}, said and answered during the cut, was called \
                     replicated by {}, whose side has no majority",
                    facts.session(*session),
                    facts.room(sent.room),
                    facts.server(answer.server),
                );
                found.add(Rule::MinorityReplicated, answer.at, what);
            }
        }
    }
}

/// Whether the server could not reach a majority from when a message was said to its answer.
fn is_alone(facts: &Facts<'_>, cut: &Cut, sent: &Sent, server: Server, answered: Time) -> bool {
    let side = cut.sides.iter().find(|side| side.contains(&server)).map_or(1, BTreeSet::len);
    let during = cut.from <= sent.at && cut.until.is_none_or(|until| answered < until);
    during && side * 2 <= facts.history.servers.len()
}

pub(super) fn missed(facts: &Facts<'_>, found: &mut Found) {
    let mut first_said: BTreeMap<RoomId, usize> = BTreeMap::new();
    for sent in facts.sent.values() {
        let first = first_said.entry(sent.room).or_insert(sent.index);
        *first = (*first).min(sent.index);
    }
    let mut told: BTreeMap<(Session, RoomId), BTreeSet<Identity>> = BTreeMap::new();
    for sight in facts.sights.iter().filter(|sight| sight.kind == SightKind::Told) {
        let identity = sight.line.identity(sight.room);
        told.entry((sight.session, sight.room)).or_default().insert(identity);
    }
    for (session, room) in open_throughout(facts, &first_said) {
        found.judges(Rule::Missed);
        let told = told.remove(&(session, room)).unwrap_or_default();
        let due = |identity: &&Identity| {
            identity.room == room && !facts.history.unshown.contains(&(room, identity.mid))
        };
        let there: BTreeSet<_> = facts.places.keys().filter(due).copied().collect();
        let mut missing = there.difference(&told);
        if let Some(first) = missing.next() {
            let what = format!(
                "{} had {} open from before its first message and was not shown {} of its {} \
                 messages, among them {}",
                facts.session(session),
                facts.room(room),
                1 + missing.count(),
                there.len(),
                first.mid,
            );
            found.add(Rule::Missed, end(facts), what);
        }
    }
}

/// Sessions that had a room open from before its first message until the end.
fn open_throughout(
    facts: &Facts<'_>,
    first_said: &BTreeMap<RoomId, usize>,
) -> BTreeSet<(Session, RoomId)> {
    let mut open = BTreeSet::new();
    for (index, op) in facts.history.ops.iter().enumerate() {
        let What::Client(session, did) = &op.what else { continue };
        match did {
            Did::Opened { room, .. } if first_said.get(room).is_none_or(|first| index < *first) => {
                open.insert((*session, *room));
            }
            // Opened anew: what was there comes with the answer, as far as it asked for that.
            Did::Opened { room, .. } | Did::Closed(room) => {
                open.remove(&(*session, *room));
            }
            Did::Ended => open.retain(|(other, _)| other != session),
            _ => {}
        }
    }
    open
}

pub(super) fn invented(facts: &Facts<'_>, found: &mut Found) {
    let mut answered = BTreeSet::new();
    // How many messages of an account in a room may be there without an answer.
    let mut open: BTreeMap<(AccountId, RoomId), usize> = BTreeMap::new();
    for ((session, _), sent) in &facts.sent {
        answered.extend(sent.identity());
        if sent.answers.is_empty() && sent.fate == Fate::Open {
            let account = facts.accounts.get(session).copied().unwrap_or_default();
            *open.entry((account, sent.room)).or_default() += 1;
        }
    }
    for identity in facts.places.keys() {
        found.judges(Rule::Invented);
        if answered.contains(identity) {
            continue;
        }
        let left = open.entry((identity.account, identity.room)).or_default();
        if *left > 0 {
            *left -= 1;
            continue;
        }
        let what = format!(
            "{} of {} in {} is there, and nobody said it or it was refused",
            identity.mid,
            identity.account,
            facts.room(identity.room),
        );
        found.add(Rule::Invented, end(facts), what);
    }
}

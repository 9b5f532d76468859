//! The final timelines, and the order in which sessions saw what is in them.

use std::collections::{BTreeMap, BTreeSet};

use chatty_core::event::Identity;
use chatty_core::id::RoomId;
use chatty_core::time::Key;

use super::Found;
use super::messages::end;
use crate::history::facts::{Facts, Sight, SightKind};
use crate::history::{Did, Rule, Server, Session, Shown, What};

pub(super) fn reordered(facts: &Facts<'_>, found: &mut Found) {
    for (room, timelines) in &facts.finals {
        for (server, lines) in timelines {
            if let Some(two) = lines.windows(2).find(|two| two[0].key >= two[1].key) {
                let (server, room) = (facts.server(*server), facts.room(*room));
                let what = format!(
                    "{room} on {server} does not rise by key: {} at {} stands before {} at {}",
                    two[0].mid, two[0].key, two[1].mid, two[1].key
                );
                found.add(Rule::Reordered, end(facts), what);
            }
        }
    }
    let mut keys: BTreeMap<(Session, RoomId, Key), Identity> = BTreeMap::new();
    let mut reported = BTreeSet::new();
    for sight in &facts.sights {
        found.judges(Rule::Reordered);
        let identity = sight.line.identity(sight.room);
        let other = *keys.entry((sight.session, sight.room, sight.line.key)).or_insert(identity);
        let why = if other != identity {
            Some(format!("{} stands in the same place", other.mid))
        } else {
            moved(facts, sight, &identity)
        };
        if let Some(why) = why
            && reported.insert((sight.session, identity))
        {
            let what = format!(
                "{} saw {} of {} at {}: {why}",
                facts.session(sight.session),
                identity.mid,
                facts.room(sight.room),
                sight.line.key,
            );
            found.add(Rule::Reordered, sight.at, what);
        }
    }
}

/// Why a line may not have gone to where it is in the end.
fn moved(facts: &Facts<'_>, sight: &Sight, identity: &Identity) -> Option<String> {
    let (seen, place) = (sight.line.key, facts.places.get(identity)?.key);
    // The event may be gone with the disk of the only server that had it; its sender repeated it.
    let is_gone = sight.server.is_some_and(|of| facts.is_disk_lost_after(of, sight.index));
    if place > seen && !is_gone {
        return Some(format!("in the end it stands after that, at {place}"));
    }
    // One log holds an id once: only another log's event can take its place.
    (place < seen && place.origin == seen.origin)
        .then(|| format!("in the end it stands elsewhere in the same log, at {place}"))
}

/// A line so much older than the newest shown is late, in milliseconds.
const LATE_MS: u64 = 1000;

/// [`Rule::Unmarked`].
pub(super) fn unmarked(facts: &Facts<'_>, found: &mut Found) {
    let mut newest: BTreeMap<(Session, RoomId), Key> = BTreeMap::new();
    let mut opened =
        facts.history.ops.iter().enumerate().filter_map(|(index, op)| match &op.what {
            What::Client(session, Did::Opened { room, .. }) => Some((index, (*session, *room))),
            _ => None,
        });
    let mut next = opened.next();
    for sight in facts.sights.iter().filter(|sight| sight.kind == SightKind::Told) {
        // Who comes in again begins anew.
        while let Some((_, of)) = next.filter(|(index, _)| *index < sight.index) {
            newest.remove(&of);
            next = opened.next();
        }
        let key = sight.line.key;
        let newest = newest.entry((sight.session, sight.room)).or_insert(key);
        if key.hlc.ms() + LATE_MS < newest.hlc.ms() {
            found.judges(Rule::Unmarked);
            if !sight.late {
                let what = format!(
                    "{} was shown {} of {} at {key} as new, {} ms below what it had been shown",
                    facts.session(sight.session),
                    sight.line.mid,
                    facts.room(sight.room),
                    newest.hlc.ms() - key.hlc.ms(),
                );
                found.add(Rule::Unmarked, sight.at, what);
            }
        }
        *newest = (*newest).max(key);
    }
}

pub(super) fn diverged(facts: &Facts<'_>, found: &mut Found) {
    for (room, timelines) in &facts.finals {
        let mut all = timelines.iter();
        let Some(first) = all.next() else { continue };
        if !first.1.is_empty() {
            found.judges(Rule::Diverged);
        }
        for other in all.filter(|(_, lines)| lines != &first.1) {
            let what = difference(facts, *room, first, other);
            found.add(Rule::Diverged, end(facts), what);
        }
    }
    let mut reported = BTreeSet::new();
    for sight in &facts.sights {
        let identity = sight.line.identity(sight.room);
        let Some(place) = facts.places.get(&identity) else { continue };
        let same_event = place.key == sight.line.key;
        if same_event && place.body != sight.line.body && reported.insert(identity) {
            let what = format!(
                "{} was shown {} of {} with another content than it has in the end",
                facts.session(sight.session),
                identity.mid,
                facts.room(sight.room),
            );
            found.add(Rule::Diverged, sight.at, what);
        }
    }
}

fn difference(
    facts: &Facts<'_>,
    room: RoomId,
    (one, first): (&Server, &&[Shown]),
    (two, second): (&Server, &&[Shown]),
) -> String {
    let at = first.iter().zip(second.iter()).take_while(|(a, b)| a == b).count();
    let word = |line: Option<&Shown>| match line {
        Some(line) => format!("{} at {} (content {:016x})", line.mid, line.key, line.body),
        None => "nothing".into(),
    };
    format!(
        "{}: {} has {} messages, {} has {}; the first difference is line {}: {} and {}",
        facts.room(room),
        facts.server(*one),
        first.len(),
        facts.server(*two),
        second.len(),
        at + 1,
        word(first.get(at)),
        word(second.get(at)),
    )
}

pub(super) fn unread(facts: &Facts<'_>, found: &mut Found) {
    let mut rooms: BTreeSet<RoomId> = facts.sent.values().map(|sent| sent.room).collect();
    rooms.extend(facts.sights.iter().map(|sight| sight.room));
    rooms.extend(facts.finals.keys());
    for room in rooms {
        found.judges(Rule::Unread);
        let read = facts.finals.get(&room);
        let is_read = |server: &Server| read.is_some_and(|read| read.contains_key(server));
        let unread: Vec<_> =
            (0..facts.history.servers.len()).filter(|server| !is_read(server)).collect();
        if !unread.is_empty() {
            let servers = facts.servers(unread);
            let what = format!("{} was not read from {servers} in the end", facts.room(room));
            found.add(Rule::Unread, end(facts), what);
        }
    }
}

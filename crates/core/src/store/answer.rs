//! How the disk's content answers a question.

use std::collections::{BTreeMap, BTreeSet};

use super::{Query, Rows, View, floor_of, is_kept};
use crate::bugs::bug;
use crate::event::Event;
use crate::id::RoomId;
use crate::register::RegisterKey;
use crate::scrub;
use crate::session::Line;
use crate::time::Key;
use crate::vector::Vector;

/// Bytes read from a log in one go while a client's missed lines are looked for.
const SCAN_BYTES: usize = 256 * 1024;
/// Answers a query.
///
/// # Errors
/// Those of the view.
pub fn answer<V: View>(view: &V, query: &Query) -> Result<Rows, V::Error> {
    Ok(match query {
        Query::Events { log, from, to, bytes_max } => {
            Rows::Events(view.events(*log, *from, *to, *bytes_max)?)
        }
        Query::Page { room, before, limit, within } => {
            let (lines, more) =
                page(view, *room, *before, *limit, |key| within.covers(key.event()))?;
            Rows::Page(lines, more)
        }
        Query::Since { cursor, within, rooms, scan_max, bytes_max } => {
            since(view, cursor, within, rooms, (*scan_max, *bytes_max))?
        }
        Query::Waiting { account, rooms, within, limit, bytes_max, scan_max } => {
            let mut left = Left { places: *scan_max, bytes: *bytes_max };
            let share = |left: usize, nth: usize| left.div_ceil(rooms.len() - nth);
            let (mut waiting, mut cut) = (Vec::new(), Vec::new());
            for (nth, (room, seen)) in rooms.iter().enumerate() {
                let unseen = |key: Key| within.covers(key.event()) && !seen.covers(key.event());
                let of = Left { places: share(left.places, nth), bytes: share(left.bytes, nth) };
                let found = newest(view, *room, unseen, *limit, of, &mut left)?;
                let others = found.lines.into_iter().filter(|line| line.event.actor != *account);
                waiting.extend(others);
                cut.extend(found.cut_above.map(|key| (*room, key)));
            }
            waiting.sort_by_key(Line::key);
            Rows::Waiting(waiting, cut)
        }
        Query::Scrub { at, within, rooms } => {
            Rows::Scrubbed(scrub::piece(view, at, within, rooms)?)
        }
        Query::Oldest { room, keep } => Rows::Oldest(oldest(view, *room, *keep)?),
        Query::Message(identity) => Rows::Message(match view.keys(identity)?.first() {
            Some(key) => line(view, *key)?,
            None => None,
        }),
    })
}

/// When the message was said that just stays if the newest `keep` are kept.
fn oldest<V: View>(view: &V, room: RoomId, keep: u64) -> Result<Option<u64>, V::Error> {
    let limit = usize::try_from(keep).unwrap_or(usize::MAX);
    let places = view.places(room, Key::MAX, limit)?;
    let Some(key) = places.last().filter(|_| places.len() == limit) else { return Ok(None) };
    Ok(line(view, *key)?.map(|line| line.event.mid.unix_ms()))
}

fn line<V: View>(view: &V, key: Key) -> Result<Option<Line>, V::Error> {
    let entries = view.events(key.event().log, key.seq, key.seq, 1)?;
    Ok(entries.into_iter().next().map(|e| Line { origin: key.origin, event: e.event }))
}

/// Up to `limit` lines below `before` that `fits` accepts, oldest first, and whether more may be
/// below. Looks at 10 times `limit` places at most, so that a page is bounded work. A message that has
/// just moved to a place that does not fit yet is shown where it was.
fn page<V: View>(
    view: &V,
    room: RoomId,
    before: Key,
    limit: usize,
    fits: impl Fn(Key) -> bool,
) -> Result<(Vec<Line>, bool), V::Error> {
    let floor_ms = floor_of(view.register(&RegisterKey::Floor(room))?.as_ref());
    let mut lines = Vec::new();
    let mut below = before;
    for _ in 0..10 {
        if lines.len() >= limit {
            break;
        }
        let places = view.places(room, below, limit)?;
        let end = places.len() < limit;
        for key in places {
            if lines.len() >= limit {
                // A place that the page has no room for: there is more, whatever comes after it.
                lines.sort_by_key(Line::key);
                return Ok((lines, true));
            }
            below = key;
            let here = if fits(key) { Some(key) } else { was_at(view, key, &fits)? };
            if let Some(key) = here.filter(|key| *key < before) {
                lines.extend(line(view, key)?.filter(|line| is_kept(&line.event, floor_ms)));
            }
        }
        if end {
            lines.sort_by_key(Line::key);
            return Ok((lines, false));
        }
    }
    let more = !view.places(room, below, 1)?.is_empty();
    lines.sort_by_key(Line::key);
    Ok((lines, more))
}

/// Where the message at a place stood before it moved there: its smallest key that fits.
fn was_at<V: View>(
    view: &V,
    place: Key,
    fits: impl Fn(Key) -> bool,
) -> Result<Option<Key>, V::Error> {
    let identity = line(view, place)?.and_then(|line| line.identity());
    let Some(identity) = identity else { return Ok(None) };
    Ok(view.keys(&identity)?.into_iter().find(|key| fits(*key)))
}

/// What a query may still look at and find.
struct Left {
    places: usize,
    bytes: usize,
}

/// Lines of one room.
struct Found {
    lines: Vec<Line>,
    /// Some were left out; none of these is below this.
    cut_above: Option<Key>,
}

/// Places read in one go while waiting lines are looked for.
const PLACES_STEP: usize = 256;

/// The newest lines of a room that `fits` accepts: at most `limit` of them, and bytes up to the
/// room's share (one line may pass it, if there is anything left of the whole). Below its share of
/// places nothing is looked at: a first page of the room's history shows what is there.
fn newest<V: View>(
    view: &V,
    room: RoomId,
    fits: impl Fn(Key) -> bool,
    limit: usize,
    share: Left,
    left: &mut Left,
) -> Result<Found, V::Error> {
    let mut found = Found { lines: Vec::new(), cut_above: None };
    let mut fitting = Vec::new();
    let mut below = Key::MAX;
    let mut places_left = share.places;
    while fitting.len() < limit && places_left > 0 {
        let step = PLACES_STEP.min(places_left);
        let places = view.places(room, below, step)?;
        places_left -= places.len().min(places_left);
        left.places -= places.len().min(left.places);
        let end = places.len() < step;
        below = places.last().copied().unwrap_or(below);
        fitting.extend(places.into_iter().filter(|key| fits(*key)));
        if end {
            break;
        }
    }
    fitting.truncate(limit);
    let mut bytes = 0;
    for key in &fitting {
        if left.bytes == 0 || bytes >= share.bytes {
            found.cut_above = fitting.last().copied();
            break;
        }
        if let Some(line) = line(view, *key)? {
            bytes += line.event.cost();
            left.bytes = left.bytes.saturating_sub(line.event.cost());
            found.lines.push(line);
        }
    }
    Ok(found)
}

fn since<V: View>(
    view: &V,
    cursor: &Vector,
    within: &Vector,
    rooms: &BTreeSet<RoomId>,
    (scan_max, bytes_max): (usize, usize),
) -> Result<Rows, V::Error> {
    if within.ahead_of(cursor) > scan_max as u64 {
        return too_far(view, cursor, within);
    }
    let mut floors: BTreeMap<RoomId, u64> = BTreeMap::new();
    for room in rooms {
        floors.insert(*room, floor_of(view.register(&RegisterKey::Floor(*room))?.as_ref()));
    }
    let kept = |event: &Event| floors.get(&event.room).is_some_and(|ms| is_kept(event, *ms));
    let mut lines = Vec::new();
    let mut bytes = 0;
    for (log, upto) in within.iter() {
        // The cursor is a client's word: it may be anything.
        let mut from = cursor.upto(log).saturating_add(1);
        while from <= upto {
            let entries = view.events(log, from, upto, SCAN_BYTES)?;
            let Some(last) = entries.last() else { break };
            from = last.event.seq.saturating_add(1);
            for entry in entries.into_iter().filter(|entry| kept(&entry.event)) {
                let line = Line { origin: log.origin, event: entry.event };
                if bug!(CursorAsPosition) && is_below(view, cursor, &line)? {
                    continue;
                }
                if !is_told_otherwise(view, cursor, within, &line)? {
                    bytes += line.event.cost();
                    lines.push(line);
                }
            }
            if bytes > bytes_max {
                return too_far(view, cursor, within);
            }
        }
    }
    lines.sort_by_key(Line::key);
    Ok(Rows::Since(lines))
}

/// Below what nothing is missing.
fn too_far<V: View>(view: &V, cursor: &Vector, within: &Vector) -> Result<Rows, V::Error> {
    // Stamps rise within a log: its first missing event bounds all that are missing of it.
    let mut least = Key::MAX;
    for (log, upto) in within.iter() {
        let next = cursor.upto(log).saturating_add(1);
        if next <= upto
            && let Some(entry) = view.events(log, next, next, 1)?.first()
        {
            least = least.min(entry.event.key(log.origin));
        }
    }
    Ok(Rows::TooFar(least))
}

/// Whether a line sorts below some event of a cursor.
fn is_below<V: View>(view: &V, cursor: &Vector, line: &Line) -> Result<bool, V::Error> {
    for (log, upto) in cursor.iter() {
        let newest = view.events(log, upto, upto, 1)?;
        if newest.iter().any(|entry| line.key() < entry.event.key(log.origin)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a client with this cursor has that message under another key, or is told it under one
/// that is smaller.
fn is_told_otherwise<V: View>(
    view: &V,
    cursor: &Vector,
    within: &Vector,
    line: &Line,
) -> Result<bool, V::Error> {
    let Some(identity) = line.identity() else { return Ok(false) };
    let key = line.key();
    let told = |other: &Key| {
        cursor.covers(other.event()) || (*other < key && within.covers(other.event()))
    };
    Ok(view.keys(&identity)?.iter().filter(|other| **other != key).any(told))
}

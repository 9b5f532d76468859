//! Reading everything again: the logs against their chains, the timelines against their sums.
//!
//! Bit rot shows only where it is read. A scrub goes over the whole disk in pieces of bounded work,
//! so that it runs beside everything else; each piece is one [`crate::store::Query`].
//!
//! A timeline changes while it is read in pieces. From the oldest line to the newest, what comes
//! meanwhile mostly comes where the scrub has yet to be, and is in the sum that the last piece finds
//! too. Whoever asks knows what came elsewhere, and counts such a room again ([`Miscount`]).

use std::sync::Arc;

use crate::bugs::bug;
use crate::event::CHAIN_START;
use crate::id::{Log, RoomId};
use crate::store::{Sum, View, line_hash};
use crate::time::Key;
use crate::vector::Vector;

/// Bytes of events read in one piece, at most, and one event more.
pub const PIECE_BYTES: usize = 256 * 1024;
/// Places of a timeline looked up in one piece, at most.
pub const PIECE_PLACES: usize = 1024;

/// Where a scrub is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// Before that event of a log, with the chain before it.
    Log(Log, u64, u64),
    /// In a timeline.
    Room(RoomAt),
}

/// Where in a timeline a scrub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoomAt {
    /// Which room.
    pub room: RoomId,
    /// The last line that was read.
    pub after: Key,
    /// What was read.
    pub found: Sum,
}

impl RoomAt {
    /// Before the first line.
    pub fn begin(room: RoomId) -> Self {
        Self { room, after: Key::MIN, found: Sum::default() }
    }
}

/// What a piece found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Piece {
    /// Where to go on; `None`: everything was read.
    pub next: Option<At>,
    /// Events read and found right.
    pub events: u64,
    /// What is wrong, in words; the scrub ends there.
    pub damage: Option<String>,
    /// A room is over, and its lines are not those of its sum.
    pub miscount: Option<Miscount>,
}

/// The lines of a room are not those of its sum: damage, unless lines came or went since they were
/// read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Miscount {
    /// Which room.
    pub room: RoomId,
    /// Its last line.
    pub last: Key,
    /// What is wrong, in words.
    pub why: String,
}

impl Piece {
    /// What is wrong if nothing was written since the scrub began.
    pub fn wrong(&self) -> Option<&str> {
        let miscount = self.miscount.as_ref().map(|miscount| &miscount.why);
        self.damage.as_ref().or(miscount).map(String::as_str)
    }
}

/// Where a scrub of what `within` covers begins.
pub fn start(within: &Vector, rooms: &[RoomId]) -> Option<At> {
    let log = within.iter().find(|(_, upto)| *upto > 0);
    log.map(|(log, _)| At::Log(log, 1, CHAIN_START)).or_else(|| first_room(rooms))
}

fn first_room(rooms: &[RoomId]) -> Option<At> {
    rooms.first().map(|room| At::Room(RoomAt::begin(*room)))
}

/// Reads the piece at `at`. `rooms` are all rooms with messages, ascending.
///
/// # Errors
/// The disk's: damage that it notices itself.
pub fn piece<V: View>(
    view: &V,
    at: &At,
    within: &Arc<Vector>,
    rooms: &[RoomId],
) -> Result<Piece, V::Error> {
    match at {
        At::Log(log, from, chain) => log_piece(view, (*log, *from, *chain), within, rooms),
        At::Room(at) => room_piece(view, *at, rooms),
    }
}

fn log_piece<V: View>(
    view: &V,
    (log, from, mut chain): (Log, u64, u64),
    within: &Arc<Vector>,
    rooms: &[RoomId],
) -> Result<Piece, V::Error> {
    let upto = within.upto(log);
    let entries = view.events(log, from, upto, PIECE_BYTES)?;
    let mut piece = Piece::default();
    for (entry, seq) in entries.iter().zip(from..) {
        chain = entry.event.chain(chain);
        if entry.event.seq != seq || (entry.chain != chain && !bug!(BlindScrub)) {
            piece.damage = Some(format!("event {seq} of log {log} is not what was written"));
            return Ok(piece);
        }
        piece.events += 1;
    }
    let next = from.saturating_add(piece.events);
    if entries.is_empty() {
        piece.damage = Some(format!("event {next} of log {log} is missing, it holds {upto}"));
        return Ok(piece);
    }
    piece.next = if next <= upto {
        Some(At::Log(log, next, chain))
    } else {
        let after = within.iter().find(|(other, held)| *other > log && *held > 0);
        let log = after.map(|(log, _)| At::Log(log, 1, CHAIN_START));
        log.or_else(|| first_room(rooms))
    };
    Ok(piece)
}

fn room_piece<V: View>(view: &V, at: RoomAt, rooms: &[RoomId]) -> Result<Piece, V::Error> {
    let RoomAt { room, mut after, mut found } = at;
    let mut piece = Piece::default();
    let places = view.places_above(room, after, PIECE_PLACES)?;
    let mut all = places.len() < PIECE_PLACES;
    let mut bytes = 0;
    for key in places {
        if bytes >= PIECE_BYTES {
            all = false;
            break;
        }
        let entries = view.events(key.event().log, key.seq, key.seq, 1)?;
        let Some(entry) = entries.first().filter(|entry| entry.event.key(key.origin) == key) else {
            piece.damage = Some(format!("room {room} has no event for its line {key}"));
            return Ok(piece);
        };
        found.add(line_hash(key, &entry.event));
        bytes += entry.event.cost();
        after = key;
    }
    if !all {
        piece.next = Some(At::Room(RoomAt { room, after, found }));
        return Ok(piece);
    }
    let sum = view.sum(room)?;
    if sum != found && !bug!(BlindScrub) {
        let why = format!(
            "room {room} has {} lines, its sum says {}; or one of them is another",
            found.messages, sum.messages
        );
        piece.miscount = Some(Miscount { room, last: after, why });
    }
    piece.next = first_room(&rooms[rooms.partition_point(|other| *other <= room)..]);
    Ok(piece)
}

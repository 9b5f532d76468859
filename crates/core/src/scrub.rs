//! Reading everything again: the logs against their chains, the timelines against their sums.
//!
//! Bit rot shows only where it is read. A scrub goes over the whole disk in pieces of bounded work,
//! so that it runs beside everything else; each piece is one [`crate::store::Query`].

use std::sync::Arc;

use crate::event::CHAIN_START;
use crate::id::{Log, RoomId};
use crate::store::{Sum, View, line_hash};
use crate::time::Key;
use crate::vector::Vector;

/// Bytes of a log read in one piece.
const PIECE_BYTES: usize = 256 * 1024;
/// Places of a timeline looked up in one go.
const PLACES: usize = 1024;

/// Where a scrub is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// Before that event of a log, with the chain before it.
    Log(Log, u64, u64),
    /// Before the timeline of that room.
    Room(RoomId),
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
}

/// Where a scrub of what `within` covers begins.
pub fn start(within: &Vector, rooms: &[RoomId]) -> Option<At> {
    let log = within.iter().find(|(_, upto)| *upto > 0);
    log.map(|(log, _)| At::Log(log, 1, CHAIN_START))
        .or_else(|| rooms.first().copied().map(At::Room))
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
        At::Room(room) => room_piece(view, *room, rooms),
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
        if entry.event.seq != seq || entry.chain != chain {
            piece.damage = Some(format!("event {seq} of log {log} is not what was written"));
            return Ok(piece);
        }
        piece.events += 1;
    }
    let next = from + piece.events;
    if entries.is_empty() {
        piece.damage = Some(format!("event {next} of log {log} is missing, it holds {upto}"));
        return Ok(piece);
    }
    piece.next = if next <= upto {
        Some(At::Log(log, next, chain))
    } else {
        let after = within.iter().find(|(other, held)| *other > log && *held > 0);
        let log = after.map(|(log, _)| At::Log(log, 1, CHAIN_START));
        log.or_else(|| rooms.first().copied().map(At::Room))
    };
    Ok(piece)
}

fn room_piece<V: View>(view: &V, room: RoomId, rooms: &[RoomId]) -> Result<Piece, V::Error> {
    let mut found = Sum::default();
    let mut below = Key::MAX;
    let mut piece = Piece::default();
    loop {
        let places = view.places(room, below, PLACES)?;
        let end = places.len() < PLACES;
        for key in places {
            below = key;
            let entries = view.events(key.event().log, key.seq, key.seq, 1)?;
            match entries.first().filter(|entry| entry.event.key(key.origin) == key) {
                Some(entry) => found.add(line_hash(key, &entry.event)),
                None => {
                    piece.damage = Some(format!("room {room} has no event for its line {key}"));
                    return Ok(piece);
                }
            }
        }
        if end {
            break;
        }
    }
    let sum = view.sum(room)?;
    if sum != found {
        piece.damage = Some(format!(
            "room {room} has {} lines, its sum says {}; or one of them is another",
            found.messages, sum.messages
        ));
        return Ok(piece);
    }
    piece.next = rooms.iter().find(|other| **other > room).copied().map(At::Room);
    Ok(piece)
}

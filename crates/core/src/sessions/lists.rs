//! Long answers: the rooms, who is in one, what this server sees of the cluster.
//!
//! Each goes through all there is, so all of them together take their entries out of one bucket of
//! the server, and each is cut into items that fit a frame.

use std::collections::BTreeSet;

use super::busy;
use crate::id::{AccountId, RequestId, RoomId, SessionId, Slot};
use crate::replica::Replica;
use crate::session::{
    Code, Item, LinkState, LinkStatus, Participant, Participants, RoomDigest, RoomInfo, RoomList,
    Status, Who,
};
use crate::store::Sum;
use crate::time::Now;

/// Bytes of the entries of one item, at most; longer lists continue in further items. A frame has
/// 1 MiB, and a status has a vector besides.
const LIST_BYTES_MAX: usize = 256 * 1024;
/// What all direct messages together are called in a status. No room can have that name.
const DIRECT_MESSAGES: &str = "direct messages";

/// An entry of a list.
pub(super) trait Piece {
    /// Bytes it takes on the wire, at most.
    fn bytes(&self) -> usize;
}

/// Bytes of an entry besides its texts.
const ENTRY_BYTES: usize = 64;

impl Piece for RoomInfo {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.name.len() + self.topic.len()
    }
}

impl Piece for RoomDigest {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.room.len()
    }
}

impl Piece for Participant {
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + self.nick.len()
            + self.servers.iter().map(|s| 1 + s.as_str().len()).sum::<usize>()
    }
}

impl Replica {
    /// Takes so many entries out of what the server goes through for all its clients.
    fn pay_list(&mut self, now: Now, id: SessionId, request: RequestId, entries: usize) -> bool {
        let taken = self.sessions.lists.take(now.time, entries as u64);
        if let Err(ms) = taken {
            self.answer(id, busy(request, "too many lists are asked for", ms));
        }
        taken.is_ok()
    }

    pub(super) fn list_rooms(
        &mut self,
        now: Now,
        id: SessionId,
        request: RequestId,
    ) -> Result<(), (Code, String)> {
        if !self.pay_list(now, id, request, self.rooms.count() + self.presence.places()) {
            return Ok(());
        }
        let watching =
            self.presence.room_counts(|room, account| self.rooms.is_member(room, account));
        let mut rooms: Vec<RoomInfo> = self
            .rooms
            .rooms()
            .map(|(id, name)| {
                let here =
                    self.rooms.members(id).count() + watching.get(&id).map_or(0, BTreeSet::len);
                RoomInfo {
                    id,
                    name: name.to_string(),
                    topic: self.rooms.topic(id).to_string(),
                    participants: u32::try_from(here).unwrap_or(u32::MAX),
                    messages: self.rooms.sum(id).messages,
                    keep: self.rooms.retention(id).unwrap_or(self.config.retention),
                }
            })
            .collect();
        rooms.sort_by(|a, b| a.name.cmp(&b.name));
        for (rooms, more) in pieces(rooms) {
            self.answer(id, Item::Rooms(RoomList { request, rooms, more }));
        }
        Ok(())
    }

    pub(super) fn who(&mut self, now: Now, id: SessionId, who: &Who) -> Result<(), (Code, String)> {
        let room = Self::room_of(&who.room)?;
        let entries = self.presence.places() + self.rooms.members(room).count();
        if !self.pay_list(now, id, who.request, entries) {
            return Ok(());
        }
        let me = &self.config.me.slot;
        let accounts: BTreeSet<AccountId> =
            self.rooms.members(room).chain(self.presence.in_room(room)).collect();
        let people: Vec<Participant> = accounts
            .into_iter()
            .map(|account| Participant {
                account,
                nick: self.name_of(account),
                rank: self.rooms.rank(room, account),
                member: self.rooms.is_member(room, account),
                servers: self.presence.servers(account, Some(room), me),
            })
            .collect();
        let name = self.rooms.name(room).unwrap_or(&who.room).to_string();
        for (people, more) in pieces(people) {
            let (request, room) = (who.request, name.clone());
            self.answer(id, Item::Participants(Participants { request, room, people, more }));
        }
        Ok(())
    }

    pub(super) fn status(
        &mut self,
        now: Now,
        id: SessionId,
        request: RequestId,
    ) -> Result<(), (Code, String)> {
        if !self.pay_list(now, id, request, self.rooms.sums_len()) {
            return Ok(());
        }
        let me = self.config.me.clone();
        let links = self
            .config
            .servers
            .iter()
            .filter(|server| server.name != me.slot)
            .map(|server| self.link_status(&server.name))
            .collect();
        let status = Status {
            request,
            server: me.slot,
            disk: me.server,
            origin: me.origin,
            state: self.state(),
            standing: self.broadcast.standing(),
            links,
            vector: (**self.broadcast.durable()).clone(),
            rooms: Vec::new(),
            more: false,
            lag: self.broadcast.lag(),
            sessions: u32::try_from(self.sessions.attached()).unwrap_or(u32::MAX),
            uptime_s: now.time.since(self.started).as_secs(),
            certificate_ends_ms: self.certificate_ends_ms,
        };
        for (rooms, more) in pieces(self.room_digests()) {
            self.answer(id, Item::Status(Status { rooms, more, ..status.clone() }));
        }
        Ok(())
    }

    /// Each public room's timeline in 8 bytes. Conversations are told as one: whoever knows two
    /// accounts knows the id of theirs, and anybody may ask for the status.
    fn room_digests(&self) -> Vec<RoomDigest> {
        let mut rooms = Vec::new();
        let mut direct: Option<Sum> = None;
        let sums: Vec<(RoomId, Sum)> = self.rooms.sums().collect();
        for (room, sum) in sums {
            if let Some(name) = self.rooms.name(room) {
                let Sum { messages, digest } = sum;
                rooms.push(RoomDigest { room: name.to_string(), messages, digest });
            } else {
                let all = direct.get_or_insert(Sum::default());
                all.messages = all.messages.wrapping_add(sum.messages);
                // In any order the same, and no room's digest stands for another's.
                all.digest = all.digest.wrapping_add(sum.digest);
            }
        }
        rooms.sort_by(|a, b| a.room.cmp(&b.room));
        rooms.extend(direct.map(|Sum { messages, digest }| RoomDigest {
            room: DIRECT_MESSAGES.to_string(),
            messages,
            digest,
        }));
        rooms
    }

    fn link_status(&self, slot: &Slot) -> LinkStatus {
        let link = self.links.iter().find(|(_, peer)| peer.slot == *slot).map(|(id, _)| *id);
        let (state, rtt_micros) = link.map_or((LinkState::Down, 0), |id| self.health.link(id));
        let behind = link.map_or(0, |id| self.broadcast.behind(id));
        LinkStatus { server: slot.clone(), state, rtt_micros, behind }
    }
}

/// A list in pieces that fit a frame, each with whether more follow; at least one.
fn pieces<T: Piece>(list: Vec<T>) -> Vec<(Vec<T>, bool)> {
    let mut pieces = vec![(Vec::new(), false)];
    let mut bytes = 0;
    for entry in list {
        bytes += entry.bytes();
        if let Some((last, more)) = pieces.last_mut() {
            if bytes <= LIST_BYTES_MAX || last.is_empty() {
                last.push(entry);
                continue;
            }
            *more = true;
        }
        bytes = entry.bytes();
        pieces.push((vec![entry], false));
    }
    pieces
}

//! Reading a room again after a gap.
//!
//! A server drops lines rather than wait for a slow client, and says so. The client then pages
//! back as far as the server says that lines may be missing (late lines sort below others that were
//! told, so meeting a known line proves nothing), and tells what is new, oldest first. Meanwhile the
//! cursor stands still: a fail-over in between must find it below the gap.

use std::collections::BTreeMap;

use crate::id::{RequestId, RoomId};
use crate::session::{History, Line, PAGE_LINES_MAX, Page, Target};
use crate::time::{Key, Time};
use crate::vector::Vector;

use super::io::ClientEvent;
use super::session::Stream;
use super::{Client, Phase};

/// Pages of one room read again, at most (50,000 lines, some 15 MiB); more are left to `history`.
const PAGES_MAX: u32 = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Due,
    Asked(RequestId),
    Later(Time),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Reread {
    of: Target,
    stage: Stage,
    before: Option<Key>,
    lines: Vec<Line>,
    pages: u32,
    /// Nothing below this is missing.
    since: Key,
}

/// The rooms being read again.
#[derive(Clone, Debug, Default)]
pub(super) struct Rereads {
    rooms: BTreeMap<RoomId, Reread>,
    /// What tokens covered that came since the first gap.
    held: Vector,
}

impl Rereads {
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Begins, or begins again: pages read before a second gap may lack what it dropped.
    pub(super) fn start(&mut self, room: RoomId, of: Target, since: Key) {
        let since = self.rooms.get(&room).map_or(since, |reread| reread.since.min(since));
        let (stage, before, lines) = (Stage::Due, None, Vec::new());
        let fresh = Reread { of, stage, before, lines, pages: 0, since };
        self.rooms.insert(room, fresh);
    }

    pub(super) fn due(&self, now: Time) -> Vec<RoomId> {
        if self.rooms.is_empty() {
            return Vec::new();
        }
        let due = |reread: &Reread| match reread.stage {
            Stage::Due => true,
            Stage::Later(at) => at <= now,
            Stage::Asked(_) => false,
        };
        self.rooms.iter().filter(|(_, reread)| due(reread)).map(|(room, _)| *room).collect()
    }

    pub(super) fn ask(&mut self, room: RoomId, request: RequestId) -> Option<History> {
        let reread = self.rooms.get_mut(&room)?;
        reread.stage = Stage::Asked(request);
        let (of, before) = (reread.of.clone(), reread.before);
        Some(History { request, of, before, limit: PAGE_LINES_MAX })
    }

    pub(super) fn retry_at(&self) -> Option<Time> {
        let later = |reread: &Reread| match reread.stage {
            Stage::Later(at) => Some(at),
            Stage::Due | Stage::Asked(_) => None,
        };
        self.rooms.values().filter_map(later).min()
    }

    fn room_of(&self, request: RequestId) -> Option<RoomId> {
        let asked = |reread: &Reread| reread.stage == Stage::Asked(request);
        self.rooms.iter().find(|(_, reread)| asked(reread)).map(|(room, _)| *room)
    }

    pub(super) fn expects(&self, request: RequestId) -> bool {
        self.room_of(request).is_some()
    }

    pub(super) fn busy(&mut self, request: RequestId, again: Time) -> bool {
        let room = self.room_of(request);
        let Some(reread) = room.and_then(|room| self.rooms.get_mut(&room)) else { return false };
        reread.stage = Stage::Later(again);
        true
    }

    /// Ends without success; what it was of, in words.
    pub(super) fn give_up(&mut self, request: RequestId) -> String {
        let reread = self.room_of(request).and_then(|room| self.rooms.remove(&room));
        match reread.map(|reread| reread.of) {
            Some(Target::Room(name)) => name,
            Some(Target::Nick(_) | Target::Account(_)) | None => "a direct conversation".into(),
        }
    }

    pub(super) fn drop_room(&mut self, room: RoomId) {
        self.rooms.remove(&room);
    }

    pub(super) fn hold(&mut self, vector: Vector) {
        self.held.join(&vector);
    }

    /// The connection is lost: the next server is told the old cursor and sends what is missing.
    pub(super) fn lost(&mut self) {
        *self = Self::default();
    }
}

impl Client {
    pub(super) fn on_reread_page(&mut self, now: Time, page: Page) {
        let Some(room) = self.rereads.room_of(page.request) else { return };
        let Some(reread) = self.rereads.rooms.get_mut(&room) else { return };
        let met = page.lines.first().is_none_or(|line| line.key() <= reread.since);
        reread.pages += 1;
        if let Some(first) = page.lines.first() {
            reread.before = Some(first.key());
        }
        let missing = page.lines.into_iter().filter(|line| !self.rooms.has(line, &self.base));
        reread.lines.extend(missing);
        let enough = reread.pages >= PAGES_MAX;
        if !met && page.more && !enough {
            reread.stage = Stage::Due;
            return;
        }
        let cut = enough && !met && page.more;
        let Some(reread) = self.rereads.rooms.remove(&room) else { return };
        let mut lines = reread.lines;
        lines.sort_by_key(Line::key);
        if cut {
            self.emit(ClientEvent::Notice(
                "more lines were missed than are read again: see history".into(),
            ));
        }
        for line in lines {
            self.show(now, line);
        }
        self.thaw();
    }

    /// The cursor moves again once no room is being read.
    pub(super) fn thaw(&mut self) {
        if self.rereads.is_empty() && !self.rereads.held.is_empty() {
            let held = std::mem::take(&mut self.rereads.held);
            self.base.join(&held);
            self.cursor.join(&held);
            self.rooms.covered();
            // The token that was held ended the replay. Without this, lines shown from here to the
            // next token would prove nothing, and the next server would not know that it lacks them.
            if let Phase::Attached(session) = &mut self.phase {
                session.stream = Stream::Live;
            }
        }
    }
}

//! What is not kept for ever: floors are set from each room's policy, and what is below them is
//! erased.
//!
//! A floor is a moment: messages whose *ids* are from before it are gone, whatever their stamps, so
//! that all aliases of a message cross it together. It is an event like any other, so all servers
//! come to the same one without agreeing on clocks. One server at a time sets it: the first by
//! rendezvous hash (Thaler and Ravishankar, 1998) of those it is linked to, if its clock is right
//! and it is linked to a majority. Lines below a floor are not shown from then on. They are erased
//! once the floor is on a majority of disks: before, its own disk could be lost, and the line be
//! gone here and shown elsewhere. Register writes that lost go the same way, at the same intervals
//! (`store/tidy.rs`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Body, Floor, KEEP_MESSAGES_MAX, Retention, first_eight};
use crate::id::{AccountId, Mid, ReadToken, RoomId, Slot};
use crate::io::{Output, Severity};
use crate::replica::Replica;
use crate::store::{Floors, Query, Rows, Swept, Tidied};
use crate::time::{Hlc, Now, Time};

/// How often it is looked whether floors have reached a majority, while some have not.
const LOOK: Duration = Duration::from_secs(1);

/// What is being done about retention.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Retaining {
    /// When the rooms are checked again.
    check_at: Time,
    /// When it is looked again whether floors are replicated.
    look_at: Option<Time>,
    /// Rooms still to be checked.
    rooms: VecDeque<RoomId>,
    reading: Option<(ReadToken, RoomId)>,
    /// Floors that are on a majority of disks.
    floors: Floors,
    /// Whether what is below them is being erased.
    sweeping: bool,
    /// Whether register writes that lost are being erased.
    tidying: bool,
}

impl Retaining {
    pub(crate) fn new(period: Duration, now: Now) -> Self {
        Self {
            check_at: now.time + period,
            look_at: Some(now.time + LOOK),
            rooms: VecDeque::new(),
            reading: None,
            floors: Arc::new(BTreeMap::new()),
            sweeping: false,
            tidying: false,
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.look_at.into_iter().chain([self.check_at]).min()
    }
}

impl Replica {
    pub(crate) fn retention_timeout(&mut self, now: Now) {
        if self.retaining.look_at.is_some_and(|at| at <= now.time) {
            self.look_at_floors(now);
        }
        if self.retaining.check_at <= now.time {
            self.retaining.check_at = now.time + self.config.timing.floor_period;
            self.retaining.rooms = self.rooms.sums().map(|(room, _)| room).collect();
            self.check_rooms(now);
            if !std::mem::replace(&mut self.retaining.tidying, true) {
                self.broadcast.tidy(None);
            }
        }
    }

    /// A floor is on this disk.
    pub(crate) fn on_floor(&mut self, now: Now) {
        self.retaining.look_at.get_or_insert(now.time + LOOK);
    }

    /// Takes over the floors that have reached a majority, and erases what is below them.
    fn look_at_floors(&mut self, now: Now) {
        let mut floors = (*self.retaining.floors).clone();
        let mut waiting = false;
        for (room, ms, key) in self.rooms.floors() {
            let event = key.event();
            if floors.get(&room).is_some_and(|held| *held >= ms) {
                continue;
            }
            if self.broadcast.replicated_upto(event.log) >= event.seq {
                floors.insert(room, ms);
            } else {
                waiting = true;
            }
        }
        if floors != *self.retaining.floors {
            if self.retaining.sweeping {
                waiting = true; // another sweep follows the one that is under way
            } else {
                self.retaining.floors = Arc::new(floors);
                self.retaining.sweeping = true;
                self.broadcast.sweep(self.retaining.floors.clone(), None);
            }
        }
        self.retaining.look_at = waiting.then(|| now.time + LOOK);
    }

    /// A step of erasing is on the disk.
    pub(crate) fn on_swept(&mut self, swept: Swept) {
        match swept {
            Swept::Upto(last) => self.broadcast.sweep(self.retaining.floors.clone(), Some(last)),
            Swept::All => self.retaining.sweeping = false,
        }
    }

    /// A step of erasing register writes that lost is on the disk.
    pub(crate) fn on_tidied(&mut self, tidied: Tidied) {
        match tidied {
            Tidied::Upto(last) => self.broadcast.tidy(Some(last)),
            Tidied::All => self.retaining.tidying = false,
        }
    }

    /// Goes on checking rooms, up to one that needs the disk.
    fn check_rooms(&mut self, now: Now) {
        if self.retaining.reading.is_some() {
            return;
        }
        while let Some(room) = self.retaining.rooms.pop_front() {
            let keep = self.rooms.retention(room).unwrap_or(self.config.retention);
            if keep.is_for_ever() || !self.sets_floor(room) {
                continue;
            }
            let Retention { age_ms, messages } = keep;
            let messages = messages.min(KEEP_MESSAGES_MAX);
            if age_ms > 0 {
                let floor = self.clock.told_ms(now).saturating_sub(age_ms);
                // Not for every message, but when a good part of the age has passed.
                self.set_floor(now, room, floor, age_ms / 64);
            }
            // Some more than are kept may gather.
            if messages > 0
                && self.rooms.sum(room).messages > messages.saturating_add(messages / 16)
            {
                let token = self.sessions.verify_read();
                self.retaining.reading = Some((token, room));
                self.say(Output::Read(token, Query::Oldest { room, keep: messages }));
                return;
            }
        }
    }

    /// The disk told where the floor of a room goes. Whether the read was for that.
    pub(crate) fn retention_read(&mut self, now: Now, token: ReadToken, rows: &Rows) -> bool {
        let Some((_, room)) = self.retaining.reading.take_if(|(asked, _)| *asked == token) else {
            return false;
        };
        match rows {
            // Those of the same millisecond stay, too. While the disk was read the clock may have gone
            // wrong, or links, or another machine have been found to be this run.
            Rows::Oldest(Some(ms)) if self.sets_floor(room) => {
                self.set_floor(now, room, ms.saturating_sub(1), 0);
            }
            Rows::Failed(why) => {
                self.log(Severity::Error, format!("could not check what {room} keeps: {why}"));
            }
            _ => {}
        }
        self.check_rooms(now);
        true
    }

    /// Whether this server is the one that sets the floor of a room now.
    fn sets_floor(&self, room: RoomId) -> bool {
        let config = &self.config;
        let me = &config.me.slot;
        let linked = |slot: &Slot| self.links.values().any(|peer| peer.slot == *slot);
        let here: Vec<&Slot> = config.voters().filter(|slot| *slot == me || linked(slot)).collect();
        let score = |slot: &Slot| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&room.to_bytes());
            hasher.update(slot.as_str().as_bytes());
            first_eight(&hasher.finalize())
        };
        here.len() >= config.majority()
            && !self.clock.is_fenced()
            && self.refuses_writes().is_none()
            && !self.broadcast.runs_twice()
            && here.into_iter().max_by_key(|slot| score(slot)) == Some(me)
    }

    /// Sets a room's floor, unless it is hardly higher than it was.
    fn set_floor(&mut self, now: Now, room: RoomId, ms: u64, step_ms: u64) {
        // Clocks may differ by the skew: nothing that is being said now may be below.
        let highest = self.clock.told_ms(now).saturating_sub(self.config.timing.max_skew_ms);
        let ms = ms.min(highest);
        if ms <= self.rooms.floor_ms(room).saturating_add(step_ms) {
            return;
        }
        let nobody = (room, AccountId::new(0), Mid::new(0));
        if let Err(why) = self.append(now, Hlc::default(), nobody, &Body::Floor(Floor { ms })) {
            self.log(Severity::Error, why);
        }
    }
}

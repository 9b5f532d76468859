//! Answering `Want`: from memory if it is recent, else from the disk, so that it cannot miss a
//! cache (iroh and corrosion drop a graft whose payload has left theirs).
//!
//! One answer a link at a time, at most a window of bytes each, the others in a queue of one entry
//! a log; nothing is sent while a window's worth waits for the network.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Broadcast, Class, EVENTS_BYTES_MAX, Entry, Frame, Output, Push, Range, chunks};
use crate::frame::Want;
use crate::id::{LinkId, Log, ReadToken};
use crate::store::{Query, Rows};

/// What one link asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Serving {
    /// Asked and not answered: from, to.
    pub(super) queue: BTreeMap<Log, (u64, u64)>,
    active: Option<Active>,
    /// Bytes of ranges that have not left yet.
    queued: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Active {
    log: Log,
    next: u64,
    to: u64,
    sent: usize,
    reading: bool,
}

impl Serving {
    pub(super) const fn wrote(&mut self, bytes: usize) {
        self.queued = self.queued.saturating_sub(bytes);
    }
}

impl Broadcast {
    pub(super) fn on_want(&mut self, link: LinkId, want: Want) -> Result<(), String> {
        let Want { log, from, to, push } = want;
        if from == 0 {
            return Err("a want from event 0; events are counted from 1".into());
        }
        let Some(state) = self.logs.get_mut(&log) else {
            return Ok(()); // claimed by a run of this server that is over
        };
        if push == Push::Start {
            state.feeding.unmute(link);
        }
        if to < from || state.forked {
            return Ok(());
        }
        let to = to.min(state.held());
        if let Some(asker) = self.links.get_mut(&link) {
            asker.serving.queue.insert(log, (from, to));
        }
        self.pump(link);
        Ok(())
    }

    /// Goes on answering every link that has room.
    pub(super) fn pump_all(&mut self) {
        let asking: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, l)| l.serving.active.is_some() || !l.serving.queue.is_empty())
            .map(|(id, _)| *id)
            .collect();
        for link in asking {
            self.pump(link);
        }
    }

    pub(super) fn pump(&mut self, id: LinkId) {
        let window = self.limits.range_window_bytes;
        loop {
            let Some(link) = self.links.get_mut(&id) else { return };
            let serving = &mut link.serving;
            if serving.queued >= window {
                return;
            }
            let active = match serving.active {
                Some(active) => active,
                None => match serving.queue.pop_first() {
                    Some((log, (next, to))) => Active { log, next, to, sent: 0, reading: false },
                    None => return,
                },
            };
            serving.active = Some(active);
            if active.reading {
                return;
            }
            if active.next > active.to {
                self.range(id, active, &[]); // nothing of it is here
                continue;
            }
            let bytes_max = EVENTS_BYTES_MAX.min(window.saturating_sub(active.sent).max(1));
            match self.in_memory(active, bytes_max) {
                Some(entries) => self.range(id, active, &entries),
                None => self.read_range(id, active, bytes_max),
            }
        }
    }

    /// The wanted events, if the first is still in memory.
    fn in_memory(&self, active: Active, bytes_max: usize) -> Option<Vec<Entry>> {
        let tail = &self.logs.get(&active.log)?.tail;
        let first = tail.front()?.event.seq;
        let skip = usize::try_from(active.next.checked_sub(first)?).ok()?;
        let entries: Vec<Entry> = tail
            .iter()
            .skip(skip)
            .take_while(|entry| entry.event.seq <= active.to)
            .take(bytes_max / crate::event::EVENT_OVERHEAD_BYTES + 1)
            .cloned()
            .collect();
        chunks(&entries, bytes_max).next().map(<[Entry]>::to_vec)
    }

    fn read_range(&mut self, id: LinkId, active: Active, bytes_max: usize) {
        self.last_read += 2; // even: the broadcast's reads
        let token = ReadToken(self.last_read);
        self.reads.insert(token, id);
        if let Some(link) = self.links.get_mut(&id) {
            link.serving.active = Some(Active { reading: true, ..active });
        }
        let Active { log, next: from, to, .. } = active;
        self.out.push_back(Output::Read(token, Query::Events { log, from, to, bytes_max }));
    }

    /// A read of the broadcast's is done.
    pub fn read_done(&mut self, token: ReadToken, rows: Rows) {
        let Some(id) = self.reads.remove(&token) else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(active) = link.serving.active else { return };
        let active = Active { reading: false, ..active };
        let entries = match rows {
            Rows::Events(entries) => entries,
            Rows::Page(..)
            | Rows::Since(_)
            | Rows::TooFar(_)
            | Rows::Waiting(..)
            | Rows::Message(_)
            | Rows::Oldest(_)
            | Rows::Scrubbed(_) => Vec::new(),
            Rows::Failed(why) => {
                let what = format!("could not read log {} from {}: {why}", active.log, active.next);
                self.out.push_back(Output::Log(crate::io::Severity::Error, what));
                Vec::new()
            }
        };
        self.range(id, active, &entries);
        self.pump(id);
    }

    /// Sends a piece of the answer; an empty one ends it.
    fn range(&mut self, id: LinkId, mut active: Active, entries: &[Entry]) {
        let window = self.limits.range_window_bytes;
        let cost: usize = entries.iter().map(|entry| entry.event.cost()).sum();
        let base = active.next;
        active.next += entries.len() as u64;
        active.sent += cost;
        let done = entries.is_empty() || active.next > active.to || active.sent >= window;
        let Some(link) = self.links.get_mut(&id) else { return };
        link.serving.active = (!done).then_some(active);
        link.serving.queued += cost;
        link.touched = true;
        self.counts.range_sends += entries.len() as u64;
        let frame = Frame::Range(Range {
            log: active.log,
            base,
            events: entries.iter().map(|entry| entry.event.clone()).collect(),
            chain: entries.last().map_or(0, |entry| entry.chain),
            done,
        });
        let frame = Arc::new(frame);
        self.out.push_back(Output::Send { links: vec![id], class: Class::CatchUp, frame, cost });
    }
}

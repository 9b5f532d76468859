//! What travelled between servers, by kind of frame.

use chatty_core::frame::Frame;
use serde::{Deserialize, Serialize};

/// Frames and their bytes, counted once for each link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Frames.
    pub frames: u64,
    /// Bytes, with length and kind.
    pub bytes: u64,
}

/// What travelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Events said.
    pub said: u64,
    /// Copies of events pushed.
    pub copies: u64,
    /// Copies of events sent because somebody asked.
    pub repairs: u64,
    /// Prefixes announced.
    pub haves: u64,
    /// `Events`.
    pub events: Tally,
    /// `Have`.
    pub have: Tally,
    /// `Digest` and `Vector`: the look after the links that goes on whatever is said.
    pub vectors: Tally,
    /// `Want`.
    pub wants: Tally,
    /// `Range`.
    pub ranges: Tally,
    /// `Prune`.
    pub prunes: Tally,
    /// Everything, of whatever kind.
    pub all: Tally,
}

impl Traffic {
    /// A frame of so many bytes goes to so many links.
    pub(super) fn count(&mut self, frame: &Frame, bytes: usize, links: usize) {
        let links = links as u64;
        let tally = match frame {
            Frame::Events(events) => {
                self.copies += events.events.len() as u64 * links;
                Some(&mut self.events)
            }
            Frame::Range(range) => {
                self.repairs += range.events.len() as u64 * links;
                Some(&mut self.ranges)
            }
            Frame::Have(haves) => {
                self.haves += haves.haves.len() as u64 * links;
                Some(&mut self.have)
            }
            Frame::Digest(_) | Frame::Vector(_) => Some(&mut self.vectors),
            Frame::Want(_) => Some(&mut self.wants),
            Frame::Prune(_) => Some(&mut self.prunes),
            Frame::Hello(_)
            | Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Lagging(_)
            | Frame::Leaving(_)
            | Frame::Load(_)
            | Frame::Presence(_)
            | Frame::RolledBack(_)
            | Frame::Forked(_) => None,
        };
        for tally in tally.into_iter().chain([&mut self.all]) {
            tally.frames += links;
            tally.bytes += bytes as u64 * links;
        }
    }
}

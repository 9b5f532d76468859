//! Frames on their way to one stream: encoded once, shared by all streams they go to.
//!
//! The queue has no bound of its own. The core counts what it puts in by [`Frame::cost`] until it
//! is told that it left, and stops, or empties the queue, at its limit.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chatty_net::FrameWriter;
use tokio::sync::Notify;

/// A write takes frames up to this many bytes: beyond 8 KiB little is gained, and what is taken can
/// no longer be dropped.
const WRITE_BYTES: usize = 64 * 1024;
/// Larger frames are handed over as they are, smaller ones copied together.
const COPY_BYTES: usize = 8 * 1024;
/// What waits for company is written when it is so much.
const HOLD_BYTES: usize = 8 * 1024;

/// An encoded frame and what it counts for.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    pub(crate) cost: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Notify,
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frame>,
    /// Of all of them.
    bytes: usize,
    /// Whether they are to be written, or may wait for company.
    go: bool,
    end: End,
}

/// What has to be done about a frame that waits for company.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It is the first: [`Queue::ring`] when it has waited long enough.
    First,
    /// Nothing.
    Another,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// After what is queued, the stream ends.
    Finish,
}

impl State {
    /// What fits into a write, and at least one.
    fn take(&mut self) -> Vec<Frame> {
        let mut bytes = 0;
        let count = self.frames.iter().take_while(|frame| {
            let fits = bytes == 0 || bytes + frame.bytes.len() <= WRITE_BYTES;
            if fits {
                bytes += frame.bytes.len();
            }
            fits
        });
        let count = count.count();
        self.bytes -= bytes;
        self.go = count < self.frames.len();
        self.frames.drain(..count).collect()
    }
}

impl Queue {
    /// Adds a frame. After [`Self::finish`] it is dropped.
    pub(crate) fn push(&self, frame: Frame) {
        let mut state = self.lock();
        if state.end == End::Open {
            state.bytes += frame.bytes.len();
            state.frames.push_back(frame);
            state.go = true;
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Adds a frame that others may join before it is written, unless there is enough already.
    pub(crate) fn hold(&self, frame: Frame) -> Hold {
        let mut state = self.lock();
        if state.end == End::Finish {
            return Hold::Another;
        }
        let first = state.frames.is_empty();
        state.bytes += frame.bytes.len();
        state.frames.push_back(frame);
        if state.bytes < HOLD_BYTES {
            return if first { Hold::First } else { Hold::Another };
        }
        state.go = true;
        drop(state);
        self.wake.notify_one();
        Hold::Another
    }

    /// What is held has waited long enough.
    pub(crate) fn ring(&self) {
        let mut state = self.lock();
        if state.frames.is_empty() {
            return;
        }
        state.go = true;
        drop(state);
        self.wake.notify_one();
    }

    /// Drops what was not taken yet.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        state.frames.clear();
        state.bytes = 0;
        // Nothing to be written is the writer's end.
        state.go = false;
    }

    /// Ends the stream after what is queued.
    pub(crate) fn finish(&self) {
        self.lock().end = End::Finish;
        self.wake.notify_one();
        self.ended.notify_one();
    }

    /// Waits until [`Self::finish`] was called. For one task.
    pub(crate) async fn finished(&self) {
        self.ended.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next frames, at least one; none at the end.
    async fn take(&self) -> Vec<Frame> {
        loop {
            {
                let mut state = self.lock();
                if state.go || state.end == End::Finish {
                    return state.take();
                }
            }
            self.wake.notified().await;
        }
    }

    /// Writes what is queued until the queue is finished or the stream fails, and tells what left.
    pub(crate) async fn write(&self, to: &mut FrameWriter, left: impl Fn(usize)) {
        loop {
            let frames = self.take().await;
            if frames.is_empty() {
                return;
            }
            let mut cost = 0;
            for frame in frames {
                cost += frame.cost;
                if frame.bytes.len() <= COPY_BYTES {
                    to.push_encoded(&frame.bytes);
                } else if to.write_encoded(frame.bytes).await.is_err() {
                    return;
                }
            }
            if to.flush().await.is_err() {
                return;
            }
            left(cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize) -> Frame {
        Frame { bytes: vec![0; length].into(), cost: length }
    }

    #[tokio::test]
    async fn a_write_takes_what_fits_and_at_least_one() {
        let queue = Queue::default();
        for length in [WRITE_BYTES + 1, WRITE_BYTES - 10, 10, 1] {
            queue.push(frame(length));
        }
        queue.finish();
        queue.push(frame(7));
        let mut taken = Vec::new();
        loop {
            let frames = queue.take().await;
            if frames.is_empty() {
                break;
            }
            taken.push(frames.iter().map(|frame| frame.cost).collect::<Vec<_>>());
        }
        assert_eq!(taken, [vec![WRITE_BYTES + 1], vec![WRITE_BYTES - 10, 10], vec![1]]);
    }

    #[tokio::test]
    async fn what_is_cleared_is_not_written_and_the_writer_waits_for_more() {
        let queue = Queue::default();
        queue.push(frame(5));
        queue.clear();
        let taking =
            async { queue.take().await.iter().map(|frame| frame.cost).collect::<Vec<_>>() };
        let pushing = async { queue.push(frame(6)) };
        // The writer looks first, and finds nothing.
        let (taken, ()) = tokio::join!(biased; taking, pushing);
        assert_eq!(taken, [6]);
    }

    const NOTHING: [usize; 0] = [];

    /// What a writer would take now, by length.
    fn ready(queue: &Queue) -> Vec<usize> {
        let mut state = queue.lock();
        if !state.go {
            return Vec::new();
        }
        state.take().iter().map(|frame| frame.bytes.len()).collect()
    }

    #[test]
    fn what_waits_for_company_is_written_in_order_when_it_is_rung_or_enough_or_something_must_go() {
        let queue = Queue::default();
        assert_eq!(queue.hold(frame(1)), Hold::First);
        assert_eq!(queue.hold(frame(2)), Hold::Another);
        assert_eq!(ready(&queue), NOTHING);
        queue.ring();
        assert_eq!(ready(&queue), [1, 2]);

        assert_eq!(queue.hold(frame(3)), Hold::First, "who waited before is gone");
        assert_eq!(ready(&queue), NOTHING);
        queue.push(frame(4));
        assert_eq!(ready(&queue), [3, 4]);

        assert_eq!(queue.hold(frame(5)), Hold::First);
        queue.hold(frame(HOLD_BYTES - 6));
        assert_eq!(ready(&queue), NOTHING);
        queue.hold(frame(1));
        assert_eq!(ready(&queue), [5, HOLD_BYTES - 6, 1]);

        queue.hold(frame(WRITE_BYTES - 1));
        queue.hold(frame(2));
        assert_eq!(ready(&queue), [WRITE_BYTES - 1]);
        assert_eq!(ready(&queue), [2], "what did not fit goes next, without a ring");
        assert_eq!(queue.hold(frame(6)), Hold::First);
    }

    #[test]
    fn a_ring_that_comes_late_says_nothing_of_what_is_held_next() {
        let queue = Queue::default();
        queue.hold(frame(1));
        queue.push(frame(2));
        assert_eq!(ready(&queue), [1, 2]);
        queue.ring();
        assert_eq!(queue.hold(frame(3)), Hold::First);
        assert_eq!(ready(&queue), NOTHING);
        queue.clear();
        queue.ring();
        assert_eq!(ready(&queue), NOTHING);
        assert_eq!(queue.hold(frame(4)), Hold::First, "what is cleared keeps nobody company");
    }
}

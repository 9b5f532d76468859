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
    end: End,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// After what is queued, the stream ends.
    Finish,
}

impl Queue {
    /// Adds a frame. After [`Self::finish`] it is dropped.
    pub(crate) fn push(&self, frame: Frame) {
        let mut state = self.lock();
        if state.end == End::Open {
            state.frames.push_back(frame);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Drops what was not taken yet.
    pub(crate) fn clear(&self) {
        self.lock().frames.clear();
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
                let mut bytes = 0;
                let count = state.frames.iter().take_while(|frame| {
                    let fits = bytes == 0 || bytes + frame.bytes.len() <= WRITE_BYTES;
                    bytes += frame.bytes.len();
                    fits
                });
                let count = count.count();
                if count > 0 || state.end == End::Finish {
                    return state.frames.drain(..count).collect();
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
    async fn what_is_cleared_is_not_written() {
        let queue = Queue::default();
        queue.push(frame(5));
        queue.clear();
        queue.push(frame(6));
        assert_eq!(queue.take().await.len(), 1);
    }
}

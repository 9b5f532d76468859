//! What reaches the one task that owns the replica, through two doors.
//!
//! Results of its own work (writes, reads, bytes that left) come through a door without a bound:
//! their number is bounded by the work. What others send comes through a door that is bounded in
//! number and bytes: a reader that waits there stops reading, and QUIC's flow control stops the
//! sender.

use std::net::SocketAddr;
use std::sync::Arc;

use chatty_core::id::{LinkId, SessionId};
use chatty_core::io::Input;
use chatty_core::replica::Drain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::queue::Queue;
use crate::backup::Held;
use crate::close::Lost;
use crate::links::Ready;

/// Frames and requests waiting, at most.
const WAITING: usize = 1024;
/// Their bytes, at most; a single frame is shorter.
const WAITING_BYTES: u32 = 8 * 1024 * 1024;

/// What happened.
pub(crate) enum Event {
    /// For the replica.
    Input(Input),
    /// A connection to another server has said hello.
    LinkReady(Box<Ready>),
    /// A link's connection ended, and everything that came on it is in the inbox.
    LinkLost(LinkId, Lost),
    /// A client opened its stream; what it is told goes into this queue.
    SessionUp(SessionId, Arc<Queue>),
    /// Nobody listens there any more, says the kernel.
    Hint(SocketAddr),
    /// The operator's command.
    Ask(Ask),
    /// The operator wants the server to stop.
    Stop,
    /// A part of the database cannot be read, told in words.
    Damaged(String),
    /// The same, found by the thread that writes; it has closed the database.
    WriterEnded(String),
    /// The server cannot go on.
    Fatal(String),
}

/// What the operator's door asks of the replica.
pub(crate) enum Ask {
    /// Take no more clients, and send those there are to other servers.
    Drain,
    /// How far that is.
    Drained(oneshot::Sender<Drain>),
    /// Take clients again.
    Resume,
    /// What is on the disk now.
    Held(oneshot::Sender<Held>),
}

/// An event from outside, and the bytes it holds of the budget until it is handled.
pub(crate) struct Outside {
    pub(crate) event: Event,
    pub(crate) bytes: usize,
    _budget: Option<OwnedSemaphorePermit>,
}

/// The way in. Clones lead to the same task.
#[derive(Clone)]
pub(crate) struct Doors {
    inner: mpsc::UnboundedSender<Event>,
    outer: mpsc::Sender<Outside>,
    budget: Arc<Semaphore>,
}

/// The replica's task is gone: the server stops.
#[derive(Debug)]
pub(crate) struct Gone;

impl Doors {
    /// For results of the replica's own work.
    pub(crate) fn tell(&self, event: Event) {
        // If the task is gone, nobody needs the result.
        let _ = self.inner.send(event);
    }

    /// For what others send: waits while too much is waiting. Keeps the order of one sender.
    pub(crate) async fn pass(&self, event: Event, bytes: usize) -> Result<(), Gone> {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX).min(WAITING_BYTES);
        let budget = self.budget.clone().acquire_many_owned(wanted).await.ok();
        self.outer.send(Outside { event, bytes, _budget: budget }).await.map_err(|_| Gone)
    }
}

/// The end that the replica's task has.
pub(crate) struct Inbox {
    inner: mpsc::UnboundedReceiver<Event>,
    outer: mpsc::Receiver<Outside>,
}

/// A pair.
pub(crate) fn inbox() -> (Doors, Inbox) {
    let (inner, inner_end) = mpsc::unbounded_channel();
    let (outer, outer_end) = mpsc::channel(WAITING);
    let budget = Arc::new(Semaphore::new(WAITING_BYTES as usize));
    (Doors { inner, outer, budget }, Inbox { inner: inner_end, outer: outer_end })
}

impl Inbox {
    /// The next event and its bytes; waits for one. Cancelling loses nothing.
    pub(crate) async fn next(&mut self) -> (Event, usize) {
        tokio::select! { biased;
            Some(event) = self.inner.recv() => (event, 0),
            Some(outside) = self.outer.recv() => (outside.event, outside.bytes),
            // The task holds a sender itself, so the doors never close under it.
            else => std::future::pending().await,
        }
    }

    /// The next event if there is one already.
    pub(crate) fn next_ready(&mut self) -> Option<(Event, usize)> {
        match self.inner.try_recv() {
            Ok(event) => Some((event, 0)),
            Err(_) => self.outer.try_recv().ok().map(|outside| (outside.event, outside.bytes)),
        }
    }
}

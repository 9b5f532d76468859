//! Clients over QUIC: one bidirectional stream, opened by the client; requests one way, items the
//! other, framed as between servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chatty_core::id::SessionId;
use chatty_core::io::Input;
use chatty_core::session::Request;
use chatty_core::wire::{DecodeError, Wire};
use chatty_net::{Connection, FrameReader, FrameWriter, RecvStream};
use tokio::sync::Semaphore;

use crate::close::{self, DONE, FULL, PROTOCOL};
use crate::driver::inbox::{Doors, Event};
use crate::driver::queue::Queue;

/// A client opens its stream within this time.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// The last items reach a client within this time, or not at all.
const LAST_LIMIT: Duration = Duration::from_secs(2);
/// Connections above the sessions that the core allows: it tells those why they must go.
const SPARE: usize = 64;

/// Takes connections of clients. Clones are the same gateway.
#[derive(Clone)]
pub(crate) struct Gateway {
    doors: Doors,
    next: Arc<AtomicU64>,
    room: Arc<Semaphore>,
}

impl Gateway {
    /// For so many sessions.
    pub(crate) fn new(doors: Doors, sessions: usize) -> Self {
        let room = sessions.saturating_add(SPARE).min(Semaphore::MAX_PERMITS);
        Self { doors, next: Arc::new(AtomicU64::new(1)), room: Arc::new(Semaphore::new(room)) }
    }

    /// Serves a client until its connection ends.
    pub(crate) async fn serve(self, connection: Connection) {
        let Ok(_place) = self.room.clone().try_acquire_owned() else {
            return close::close(&connection, FULL, "too many clients; try another server");
        };
        let opened = tokio::time::timeout(OPEN_LIMIT, connection.accept_bi()).await;
        let (to, from) = match opened {
            Ok(Ok(streams)) => streams,
            Ok(Err(_)) => return,
            Err(_) => return close::close(&connection, PROTOCOL, "no stream was opened"),
        };
        let id = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        let queue = Arc::new(Queue::default());
        if self.doors.pass(Event::SessionUp(id, queue.clone()), 0).await.is_err() {
            return;
        }
        let writer = write(id, queue, FrameWriter::new(to), connection.clone(), self.doors.clone());
        tokio::spawn(writer);
        let why = self.read(id, FrameReader::new(from)).await;
        close::close(&connection, why.0, &why.1);
        // If the task is gone, nobody needs to know.
        let _ = self.doors.pass(Event::Input(Input::SessionDown(id)), 0).await;
    }

    /// Reads requests to the end; tells how to close the connection.
    async fn read(&self, id: SessionId, mut from: FrameReader<RecvStream>) -> (u32, String) {
        loop {
            let raw = match from.next().await {
                Ok(Some(raw)) => raw,
                Ok(None) => return (DONE, "goodbye".into()),
                Err(error) => return (PROTOCOL, error.to_string()),
            };
            let bytes = raw.body.len();
            let request = match Request::decode(raw.kind, &raw.body) {
                Ok(request) => request,
                Err(DecodeError::Unknown(_)) => continue,
                Err(error) => return (PROTOCOL, error.to_string()),
            };
            if self.doors.pass(Event::Input(Input::Request(id, request)), bytes).await.is_err() {
                return (DONE, "the server stops".into());
            }
        }
    }
}

/// Writes items until the connection ends or the session is closed, and then closes it.
async fn write(
    id: SessionId,
    queue: Arc<Queue>,
    mut to: FrameWriter,
    connection: Connection,
    doors: Doors,
) {
    let left = |bytes| doors.tell(Event::Input(Input::Drained(id, bytes)));
    let all = async {
        queue.write(&mut to, left).await;
        let mut stream = to.into_stream();
        // If it is closed already, there is nothing to wait for.
        if stream.finish().is_ok() {
            let _ = stream.stopped().await;
        }
    };
    let late = async {
        queue.finished().await;
        tokio::time::sleep(LAST_LIMIT).await;
    };
    tokio::select! {
        () = all => {}
        () = late => {}
        _ = connection.closed() => {}
    }
    close::close(&connection, DONE, "the session is closed");
}

//! Clients over QUIC: one bidirectional stream, opened by the client; requests one way, items the
//! other, framed as between servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chatty_core::id::SessionId;
use chatty_core::io::Input;
use chatty_core::session::Request;
use chatty_core::wire::{DecodeError, Wire};
use chatty_net::frame::FrameError;
use chatty_net::{Connection, FrameReader, FrameWriter, RecvStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::addresses::Addresses;
use crate::close::{self, DONE, FULL, PROTOCOL};
use crate::driver::inbox::{Doors, Event};
use crate::driver::queue::Queue;

/// A client opens its stream within this time.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// A request of a client takes so many bytes at most, its longest message included.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// But for the first: with a cursor it names the runs of all servers, 20,000 of them.
const ATTACH_BYTES_MAX: usize = 512 << 10;
/// So many may be sending such a long one, so that they fill 128 MiB together.
const LONG_ATTACHES_MAX: usize = 256;
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
    /// Who may send a long attach.
    long: Arc<Semaphore>,
    addresses: Addresses,
}

impl Gateway {
    /// For so many sessions in all, and from one address.
    pub(crate) fn new(doors: Doors, sessions: usize, address_sessions: usize) -> Self {
        let room = sessions.saturating_add(SPARE).min(Semaphore::MAX_PERMITS);
        Self {
            doors,
            next: Arc::new(AtomicU64::new(1)),
            room: Arc::new(Semaphore::new(room)),
            long: Arc::new(Semaphore::new(LONG_ATTACHES_MAX)),
            addresses: Addresses::new(address_sessions),
        }
    }

    /// Serves a client until its connection ends.
    pub(crate) async fn serve(self, connection: Connection) {
        let Ok(_place) = self.room.clone().try_acquire_owned() else {
            return close::close(&connection, FULL, "too many clients; try another server");
        };
        let Some(_here) = self.addresses.take(connection.remote_address().ip()) else {
            let why = "too many clients at your address; try another server";
            return close::close(&connection, FULL, why);
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
        from.allow(REQUEST_BYTES_MAX);
        let mut first = First::Awaited;
        loop {
            let raw = match from.next().await {
                Ok(Some(raw)) => raw,
                Ok(None) => return (DONE, "goodbye".into()),
                Err(FrameError::TooLong { length, .. })
                    if matches!(first, First::Awaited)
                        && usize::try_from(length).is_ok_and(|bytes| bytes <= ATTACH_BYTES_MAX) =>
                {
                    let Ok(place) = self.long.clone().try_acquire_owned() else {
                        return (FULL, "too many long attaches at once; try again".into());
                    };
                    first = First::Long(place);
                    from.allow(ATTACH_BYTES_MAX);
                    continue;
                }
                Err(error) => return (PROTOCOL, error.to_string()),
            };
            let bytes = raw.body.len();
            let request = match Request::decode(raw.kind, &raw.body) {
                Ok(request) => request,
                Err(DecodeError::Unknown(_)) => continue,
                Err(error) => return (PROTOCOL, error.to_string()),
            };
            if matches!(request, Request::Attach(_)) {
                // Its bytes are gone, and with them the place.
                first = First::Came;
                from.allow(REQUEST_BYTES_MAX);
            }
            if self.doors.pass(Event::Input(Input::Request(id, request)), bytes).await.is_err() {
                return (DONE, "the server stops".into());
            }
        }
    }
}

/// The attach of a client, which may be long.
enum First {
    Awaited,
    /// It is a long one, on its way.
    Long(#[expect(dead_code, reason = "held until it came")] OwnedSemaphorePermit),
    Came,
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

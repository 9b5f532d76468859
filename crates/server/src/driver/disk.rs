//! The threads that wait for the disk, so that nothing else does.
//!
//! One writes: a commit may take long when the database turns over its journal. Two read. A write
//! that fails is tried again for as long as it takes (a full disk is emptied some day); nothing is
//! acknowledged meanwhile. Damage ends the run: it is cut out before the next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use chatty_core::id::{PersistToken, ReadToken};
use chatty_core::io::Input;
use chatty_core::store::{Batch, Query, Reader, Rows, Store, StoreError};

use super::inbox::{Doors, Event};

const READERS: usize = 2;
/// A failed write is repeated after this, doubling…
const RETRY_MIN: Duration = Duration::from_millis(100);
/// … up to this.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// So often it is looked whether there is room, if nothing is written.
const LOOK: Duration = Duration::from_secs(1);

type Write = (PersistToken, Arc<Batch>);
type Read = (ReadToken, Query);

/// See the module.
pub(super) struct Disk {
    writes: Sender<Write>,
    reads: Sender<Read>,
    writer: JoinHandle<()>,
}

/// A disk thread is gone.
pub(super) struct Gone;

impl Disk {
    /// Starts the threads.
    pub(super) fn start<S: Store + Send + 'static>(
        store: S,
        doors: &Doors,
    ) -> std::io::Result<Self> {
        let (reads, to_read) = mpsc::channel();
        let to_read = Arc::new(Mutex::new(to_read));
        for _ in 0..READERS {
            let (reader, to_read, doors) = (store.reader(), to_read.clone(), doors.clone());
            let run = move || read(&reader, &to_read, &doors);
            thread::Builder::new().name("disk-read".into()).spawn(run)?;
        }
        let (writes, to_write) = mpsc::channel();
        let doors = doors.clone();
        let run = move || write(store, &to_write, &doors);
        let writer = thread::Builder::new().name("disk-write".into()).spawn(run)?;
        Ok(Self { writes, reads, writer })
    }

    /// Writes a batch; `Persisted` comes when it is durable.
    pub(super) fn write(&self, token: PersistToken, batch: Arc<Batch>) -> Result<(), Gone> {
        self.writes.send((token, batch)).map_err(|_| Gone)
    }

    /// Reads; `ReadDone` comes.
    pub(super) fn read(&self, token: ReadToken, query: Query) -> Result<(), Gone> {
        self.reads.send((token, query)).map_err(|_| Gone)
    }

    /// Ends the threads and closes the database. What was handed over before is written.
    pub(super) fn stop(self) {
        let Self { writes, reads, writer } = self;
        drop((writes, reads));
        // It ended by a panic if this fails, and said so.
        let _ = writer.join();
    }
}

fn read(reader: &impl Reader, jobs: &Mutex<Receiver<Read>>, doors: &Doors) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((token, query)) = job else { return };
        // The database is not made for damaged files: it may give up in the middle.
        let read = catch_unwind(AssertUnwindSafe(|| reader.read(&query)))
            .unwrap_or_else(|_| Err(StoreError::Corrupt("the database gave up reading".into())));
        let rows = read.unwrap_or_else(|error| {
            if let StoreError::Corrupt(why) = &error {
                doors.tell(Event::Damaged(why.clone()));
            } else {
                tracing::error!(%error, "reading failed");
            }
            Rows::Failed(error.to_string())
        });
        doors.tell(Event::Input(Input::ReadDone(token, rows)));
    }
}

/// Whether the disk has room, as it was told.
struct Room(bool);

impl Room {
    fn look(&mut self, store: &impl Store, doors: &Doors) {
        let room = store.room();
        if room.is_ok() != self.0 {
            self.0 = room.is_ok();
            doors.tell(Event::Input(Input::Room(room)));
        }
    }
}

fn write(mut store: impl Store, jobs: &Receiver<Write>, doors: &Doors) {
    let mut room = Room(true);
    loop {
        room.look(&store, doors);
        let (token, batch) = match jobs.recv_timeout(LOOK) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut told = String::new();
        let mut wait = RETRY_MIN;
        loop {
            // The database is not made for damaged files: it may give up in the middle.
            let written =
                catch_unwind(AssertUnwindSafe(|| store.commit(&batch))).unwrap_or_else(|_| {
                    Err(StoreError::Corrupt("the database gave up writing".into()))
                });
            match written {
                Ok(done) => {
                    doors.tell(Event::Input(Input::Persisted(token, done)));
                    break;
                }
                Err(StoreError::Io(why)) => {
                    if why != told {
                        told.clone_from(&why);
                        doors.tell(Event::Input(Input::PersistFailed(token, why)));
                    }
                    room.look(&store, doors);
                    thread::sleep(wait);
                    wait = (wait * 2).min(RETRY_MAX);
                }
                Err(StoreError::Corrupt(why)) => {
                    drop(store);
                    doors.tell(Event::WriterEnded(why));
                    return;
                }
                Err(unusable @ StoreError::Unusable(_)) => {
                    doors.tell(Event::Fatal(unusable.to_string()));
                    return;
                }
            }
        }
    }
}

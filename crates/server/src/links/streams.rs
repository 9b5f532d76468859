//! A link's streams at work: a task for each of our four, which writes what is queued, and one for
//! each of theirs, which reads as long as the replica keeps up.

use std::sync::Arc;

use chatty_core::frame::{Class, Frame};
use chatty_core::id::LinkId;
use chatty_core::io::Input;
use chatty_core::wire::{DecodeError, Wire};
use chatty_net::link::LinkStreams;
use chatty_net::{Connection, FrameReader, RecvStream};
use tokio::task::JoinSet;

use super::greet::Streams;
use crate::close::{self, Lost, PROTOCOL};
use crate::driver::inbox::{Doors, Event};
use crate::driver::queue::Queue;

/// The queue of a class.
pub(super) fn queue(queues: &[Arc<Queue>; 4], class: Class) -> &Queue {
    let [control, live, presence, catch_up] = queues;
    match class {
        Class::Control => control,
        Class::Live => live,
        Class::Presence => presence,
        Class::CatchUp => catch_up,
    }
}

/// Starts the tasks; they end with the connection. Then, after everything that came, the loss of
/// the link is told.
pub(super) fn start(
    id: LinkId,
    connection: &Connection,
    ours: LinkStreams,
    theirs: Streams,
    doors: &Doors,
) -> [Arc<Queue>; 4] {
    let queues: [Arc<Queue>; 4] = Default::default();
    for ((queue, mut writer), class) in queues.iter().zip(ours.into_writers()).zip(Class::ALL) {
        let (queue, doors, connection) = (queue.clone(), doors.clone(), connection.clone());
        tokio::spawn(async move {
            let left = |cost| doors.tell(Event::Input(Input::Wrote(id, class, cost)));
            tokio::select! {
                () = queue.write(&mut writer, left) => {}
                _ = connection.closed() => {}
            }
        });
    }
    let mut readers = JoinSet::new();
    for (_, reader) in theirs {
        readers.spawn(read(id, reader, connection.clone(), doors.clone()));
    }
    let (connection, doors) = (connection.clone(), doors.clone());
    tokio::spawn(async move {
        let why = connection.closed().await;
        while readers.join_next().await.is_some() {}
        // If the task is gone, nobody needs to know.
        let _ = doors.pass(Event::LinkLost(id, Lost::of(&why)), 0).await;
    });
    queues
}

/// Reads one stream to its end.
async fn read(id: LinkId, mut from: FrameReader<RecvStream>, connection: Connection, doors: Doors) {
    loop {
        let raw = match from.next().await {
            Ok(Some(raw)) => raw,
            Ok(None) => return close::close(&connection, PROTOCOL, "a stream of the link ended"),
            Err(error) => return close::close(&connection, PROTOCOL, &error.to_string()),
        };
        let bytes = raw.body.len();
        match Frame::decode(raw.kind, &raw.body) {
            Ok(frame) => {
                if doors.pass(Event::Input(Input::Frame(id, frame)), bytes).await.is_err() {
                    return;
                }
            }
            Err(DecodeError::Unknown(kind)) => tracing::debug!(kind, "skipped an unknown frame"),
            Err(error) => return close::close(&connection, PROTOCOL, &error.to_string()),
        }
    }
}

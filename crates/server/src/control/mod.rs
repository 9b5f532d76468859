//! The operator's door to a running server: the socket `control.sock` in its data folder, for
//! whoever may write there (the server's user and root).
//!
//! One connection, one command. The command is one line, an object such as `{"do":"drain"}`; the
//! answers are objects too, one a line, and the last of them has `done` or `error`. A backup is the
//! exception: after its first line the bytes of the backup follow until the end.
//! Everything is bounded: the line, the connections, the time to say what is wanted.

mod ask;
mod drain;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::backup;
use crate::certificate::Renewer;
use crate::driver::inbox::{Ask, Doors, Event};
use crate::store::FjallReader;

pub use ask::{AskError, backup, drain, reload};
pub(crate) use socket::Socket;

/// Commands at once.
const CONNECTIONS: usize = 8;
/// Bytes of a command's line, at most.
const COMMAND_BYTES: u64 = 4096;
/// Whoever connects has this long to say what it wants.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// What the operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
enum Command {
    /// Send the clients away, wait until the log is everywhere, stop.
    Drain {
        /// For so many milliseconds at most.
        limit_ms: u64,
        /// And then?
        #[serde(default)]
        otherwise: Otherwise,
    },
    /// Take the certificate's files anew.
    Reload,
    /// Give everything that is on disk.
    Backup,
}

/// What becomes of a server that is not drained in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Otherwise {
    /// It goes on.
    #[default]
    Resume,
    /// It stops all the same, and says what it leaves behind.
    Stop,
}

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reply {
    /// How it goes.
    Progress(String),
    /// It is done.
    Done(String),
    /// It is not, and why; nothing was changed.
    Error(String),
    /// The bytes follow.
    Bytes,
}

/// What the door needs of the server.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) doors: Doors,
    pub(crate) renewer: Renewer,
    pub(crate) reader: FjallReader,
    pub(crate) source: backup::Source,
}

/// Takes commands until the task is aborted.
pub(crate) async fn serve(socket: Socket, door: Door) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    // Dropped with this task, and all commands with it.
    let mut commands = JoinSet::new();
    loop {
        let Some(stream) = accept(socket.listener()).await else { continue };
        while commands.try_join_next().is_some() {}
        let (door, place) = (door.clone(), room.clone().try_acquire_owned());
        commands.spawn(async move {
            let mut link = Link::new(stream);
            let done = match place {
                Ok(_place) => command(&mut link, &door).await,
                Err(_) => {
                    let why = format!("{CONNECTIONS} commands are under way; wait for one to end");
                    link.say(&Reply::Error(why)).await
                }
            };
            if let Err(error) = done {
                tracing::debug!(%error, "a command's connection ended");
            }
        });
    }
}

async fn accept(listener: &UnixListener) -> Option<UnixStream> {
    match listener.accept().await {
        Ok((stream, _)) => Some(stream),
        Err(error) => {
            // Too many open files, say: later there may be room.
            tracing::warn!(%error, "a command was not taken");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn command(link: &mut Link, door: &Door) -> std::io::Result<()> {
    let line = match tokio::time::timeout(COMMAND_LIMIT, link.line()).await {
        Ok(Ok(line)) => line,
        Ok(Err(error)) => return Err(error),
        Err(_) => return link.say(&Reply::Error("no command came".into())).await,
    };
    let command = match serde_json::from_str::<Command>(&line) {
        Ok(command) => command,
        Err(error) => {
            let why = format!(
                "the command is not understood ({error}); is this chatty-server of \
                               another version than the running one?"
            );
            return link.say(&Reply::Error(why)).await;
        }
    };
    match command {
        Command::Drain { limit_ms, otherwise } => {
            drain::drain(link, &door.doors, Duration::from_millis(limit_ms), otherwise).await
        }
        Command::Reload => {
            let reply = match door.renewer.reload_now().await {
                Ok(what) => Reply::Done(what),
                Err(why) => Reply::Error(why),
            };
            link.say(&reply).await
        }
        Command::Backup => send_backup(link, door).await,
    }
}

async fn send_backup(link: &mut Link, door: &Door) -> std::io::Result<()> {
    let Some(held) = ask(&door.doors, Ask::Held).await else {
        return link.say(&Reply::Error("the server stops".into())).await;
    };
    link.say(&Reply::Bytes).await?;
    tracing::info!(logs = held.vector.len(), "a backup begins");
    let mut pieces = backup::read(door.reader.clone(), door.source.clone(), held);
    while let Some(piece) = pieces.recv().await {
        link.stream.write_all(&piece).await?;
    }
    link.stream.shutdown().await?;
    tracing::info!("a backup was given");
    Ok(())
}

/// Asks the replica's task; `None` if it is gone.
async fn ask<T>(doors: &Doors, what: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    doors.tell(Event::Ask(what(answer)));
    answered.await.ok()
}

/// A command's connection.
struct Link {
    stream: BufReader<UnixStream>,
}

impl Link {
    fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    async fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        (&mut self.stream).take(COMMAND_BYTES).read_line(&mut line).await?;
        Ok(line)
    }

    async fn say(&mut self, reply: &Reply) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        self.stream.write_all(&line).await
    }

    /// Waits until whoever gave the command is gone.
    async fn gone(&mut self) {
        let mut rest = [0; 64];
        while matches!(self.stream.read(&mut rest).await, Ok(1..)) {}
    }
}

#[cfg(test)]
mod tests;

//! Drives one [`Client`] over QUIC: its connection, its deadlines, its canaries. No decisions.
//!
//! While attached and otherwise silent it sends a byte every 110 ms: where the server's process
//! has died, its machine's kernel answers that nobody listens, and the client probes at once.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::BufMut as _;
use chatty_core::client::{Client, ClientEvent, Command, Config, Conn, Input, Note, Output};
use chatty_core::session::{Item, Request};
use chatty_core::time::Time;
use chatty_core::wire::{DecodeError, Wire as _};
use chatty_net::frame::FrameError;
use chatty_net::hint::Hints;
use chatty_net::{
    Connection, DialError, Endpoint, FrameReader, FrameWriter, RawFrame, RecvStream, Trust,
};
use tokio::task::JoinHandle;

use crate::outbox::OutboxFile;

/// Silence of our own after which a byte is sent. With the probe of 60 ms and a dial of some ten,
/// an idle client of a killed server is talking again within 200 ms.
const CANARY_EVERY: Duration = Duration::from_millis(110);
/// A dial is given up by the machine; this only keeps a forgotten one from staying.
const DIAL_MAX: Duration = Duration::from_secs(15);
/// Items taken from one read before the deadlines are looked at again.
const ITEMS_AT_ONCE: usize = 256;

/// Which sockets a client dials with.
#[derive(Clone)]
pub enum Sockets {
    /// A new one for each dial. What the kernel says about a dead server's port fails the next
    /// send on the same socket, whatever its target: a dial of another server, just when it must
    /// not wait for a retransmission.
    Own,
    /// One for many clients: cheaper for those who measure.
    Shared(Endpoint),
}

/// A client on the network. One task owns it and calls [`Self::next`] again and again.
pub struct Driver {
    client: Client,
    sockets: Sockets,
    trust: Trust,
    /// Of the last connection, to wait for its goodbye to leave.
    left: Option<Endpoint>,
    began: Instant,
    dial: Option<(Conn, Dial)>,
    link: Option<Box<Link>>,
    scratch: Vec<u8>,
    keeper: Option<Keeper>,
}

/// Writes notes down, a batch at a time: while one is on its way to the disk, the next one builds.
struct Keeper {
    /// The file, unless it is being written.
    file: Option<OutboxFile>,
    writing: Option<Writing>,
    notes: Vec<Note>,
    /// The number of the newest batch in `notes`.
    upto: u64,
}

struct Writing {
    upto: u64,
    done: JoinHandle<(OutboxFile, std::io::Result<()>)>,
}

impl Keeper {
    fn begin(&mut self) {
        if self.notes.is_empty() {
            return;
        }
        if let Some(mut file) = self.file.take() {
            let notes = std::mem::take(&mut self.notes);
            let done = tokio::task::spawn_blocking(move || {
                let written = file.append(notes);
                (file, written)
            });
            self.writing = Some(Writing { upto: self.upto, done });
        }
    }

    /// Waits for the batch that is being written. Cancelling loses nothing.
    async fn written(&mut self) -> Result<u64, String> {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let done = (&mut writing.done).await;
        let upto = writing.upto;
        self.writing = None;
        match done {
            Ok((file, Ok(()))) => {
                self.file = Some(file);
                Ok(upto)
            }
            Ok((file, Err(error))) => {
                let path = file.path().display().to_string();
                Err(match file.give_up() {
                    Ok(()) => format!("{path}: {error}"),
                    Err(_) => format!("{path}: {error}; delete it, it is not to be used again"),
                })
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

type Dial = Pin<Box<dyn Future<Output = Result<Box<Link>, NoLink>> + Send>>;

/// Why a dial brought no connection.
enum NoLink {
    /// Somebody answered who is not of this cluster.
    Stranger(String),
    /// Anything else: the same may work later.
    Failed(String),
}

struct Link {
    conn: Conn,
    connection: Connection,
    endpoint: Endpoint,
    hints: Hints,
    addr: SocketAddr,
    reader: FrameReader<RecvStream>,
    writer: FrameWriter,
    canary_at: Instant,
}

/// What one wait brought.
enum Happened {
    Dialed(Result<Box<Link>, NoLink>),
    Frame(Result<Option<RawFrame>, FrameError>),
    Flushed(Result<(), String>),
    Hint(SocketAddr),
    Canary,
    Timer,
    Kept(Result<u64, String>),
}

impl Driver {
    /// A client that dials with these sockets. Must be called inside a tokio runtime.
    pub fn new(sockets: Sockets, trust: Trust, config: Config, seed: u64) -> Self {
        Self {
            client: Client::new(config, seed),
            sockets,
            trust,
            left: None,
            began: Instant::now(),
            dial: None,
            link: None,
            scratch: Vec::new(),
            keeper: None,
        }
    }

    /// Keeps in this file what is said. The configuration has its journal.
    #[must_use]
    pub fn keeping(mut self, file: OutboxFile) -> Self {
        let (writing, notes) = (None, Vec::new());
        self.keeper = Some(Keeper { file: Some(file), writing, notes, upto: 0 });
        self
    }

    /// The machine, to ask it things.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Hands a command over. What it leads to comes out of [`Self::next`].
    pub fn command(&mut self, command: Command) {
        self.client.handle(self.now(), Input::Command(command));
    }

    fn now(&self) -> Time {
        Time::from_micros(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// What the program is to be told next; waits for it. Cancelling loses nothing. After
    /// [`ClientEvent::Ended`] nothing comes any more, and this waits for ever.
    pub async fn next(&mut self) -> ClientEvent {
        loop {
            while let Some(output) = self.client.poll_output() {
                if let Some(event) = self.perform(output) {
                    return event;
                }
            }
            let happened = self.wait().await;
            self.take_in(happened);
            let now = self.now();
            if self.client.next_deadline().is_some_and(|at| at <= now) {
                self.client.handle_timeout(now);
            }
        }
    }

    /// What the program is to be told, if something is known already.
    pub fn next_ready(&mut self) -> Option<ClientEvent> {
        while let Some(output) = self.client.poll_output() {
            if let Some(event) = self.perform(output) {
                return Some(event);
            }
        }
        None
    }

    /// Waits until the goodbye to the last server has left, but no longer than `limit`.
    pub async fn settle(mut self, limit: Duration) {
        // What is done need not be sent again next time.
        while let Some(keeper) = &mut self.keeper {
            keeper.begin();
            if keeper.writing.is_none() || keeper.written().await.is_err() {
                break;
            }
        }
        let link = self.link.map(|link| link.endpoint);
        if let (Some(endpoint), Sockets::Own) = (link.or(self.left), &self.sockets) {
            endpoint.close("");
            // Whoever does not hear the goodbye finds out by itself.
            let _ = endpoint.wait_idle(limit).await;
        }
    }

    fn perform(&mut self, output: Output) -> Option<ClientEvent> {
        match output {
            Output::Emit(event) => return Some(event),
            Output::Dial(conn, addr) => {
                let dial = dial(self.sockets.clone(), self.trust.clone(), conn, addr);
                self.dial = Some((conn, Box::pin(dial)));
            }
            Output::Request(conn, request) => self.push(conn, &request),
            Output::Keep(batch, notes) => {
                if let Some(keeper) = &mut self.keeper {
                    keeper.notes.extend(notes);
                    keeper.upto = batch;
                    keeper.begin();
                }
            }
            Output::Hangup(conn) => {
                self.dial.take_if(|(dialing, _)| *dialing == conn);
                if let Some(link) = self.link.take_if(|link| link.conn == conn) {
                    link.connection.close(0u32.into(), b"left");
                    self.left = Some(link.endpoint);
                }
            }
        }
        None
    }

    fn push(&mut self, conn: Conn, request: &Request) {
        let Some(link) = self.link.as_mut().filter(|link| link.conn == conn) else { return };
        self.scratch.clear();
        request.encode_body(&mut self.scratch);
        let scratch = &self.scratch;
        let pushed = link.writer.push(request.kind(), |body| body.put_slice(scratch));
        if let Err(too_long) = pushed {
            // Texts and lists are bounded far below a frame: only a mad token is that long.
            self.lose(conn, too_long.to_string());
        }
    }

    fn lose(&mut self, conn: Conn, why: String) {
        if let Some(link) = self.link.take_if(|link| link.conn == conn) {
            link.connection.close(0u32.into(), why.as_bytes());
        }
        self.client.handle(self.now(), Input::Disconnected(conn, why));
    }

    async fn wait(&mut self) -> Happened {
        let deadline = self.client.next_deadline();
        let deadline = deadline.map(|at| self.began + Duration::from_micros(at.as_micros()));
        let dialing = async {
            match &mut self.dial {
                Some((_, dial)) => dial.await,
                None => std::future::pending().await,
            }
        };
        let written = async {
            match &mut self.keeper {
                Some(keeper) => keeper.written().await,
                None => std::future::pending().await,
            }
        };
        let Some(link) = &mut self.link else {
            return tokio::select! {
                dialed = dialing => Happened::Dialed(dialed),
                kept = written => Happened::Kept(kept),
                () = until(deadline) => Happened::Timer,
            };
        };
        let flush = async {
            if link.writer.waiting() == 0 {
                std::future::pending::<()>().await;
            }
            link.writer.flush().await.map_err(|error| error.to_string())
        };
        let wake = deadline.map_or(link.canary_at, |at| at.min(link.canary_at));
        let canary = wake == link.canary_at;
        tokio::select! { biased;
            flushed = flush => Happened::Flushed(flushed),
            kept = written => Happened::Kept(kept),
            frame = link.reader.next() => Happened::Frame(frame),
            Some(hint) = link.hints.next() => Happened::Hint(hint),
            () = until(Some(wake)) => if canary { Happened::Canary } else { Happened::Timer },
        }
    }

    fn take_in(&mut self, happened: Happened) {
        match happened {
            Happened::Dialed(dialed) => {
                let Some((conn, _)) = self.dial.take() else { return };
                let input = match dialed {
                    Ok(link) => {
                        self.link = Some(link);
                        Input::Connected(conn)
                    }
                    Err(NoLink::Stranger(why)) => Input::Stranger(conn, why),
                    Err(NoLink::Failed(why)) => Input::Disconnected(conn, why),
                };
                self.client.handle(self.now(), input);
            }
            Happened::Frame(Ok(Some(frame))) => self.on_frames(frame),
            Happened::Frame(none) => {
                let Some(conn) = self.link.as_ref().map(|link| link.conn) else { return };
                let why = match none {
                    Err(error) => error.to_string(),
                    Ok(_) => "the server ended the session".into(),
                };
                self.lose(conn, why);
            }
            Happened::Flushed(flushed) => {
                let Some(link) = &mut self.link else { return };
                link.canary_at = Instant::now() + CANARY_EVERY;
                let conn = link.conn;
                if let Err(why) = flushed {
                    self.lose(conn, why);
                }
            }
            Happened::Hint(addr) => {
                let Some(link) = &self.link else { return };
                if canonical(addr) == canonical(link.addr) {
                    let conn = link.conn;
                    self.client.handle(self.now(), Input::Hint(conn));
                }
            }
            Happened::Canary => {
                let Some(link) = &mut self.link else { return };
                link.canary_at = Instant::now() + CANARY_EVERY;
                // A full socket buffer means that other packets are under way: they do as well.
                let _ = link.endpoint.canary(link.addr);
            }
            Happened::Timer => {}
            Happened::Kept(kept) => {
                let input = match kept {
                    Ok(upto) => Input::Kept(upto),
                    Err(why) => {
                        self.keeper = None;
                        Input::Unkept(why)
                    }
                };
                self.client.handle(self.now(), input);
                if let Some(keeper) = &mut self.keeper {
                    keeper.begin();
                }
            }
        }
    }

    /// Takes in a frame and those that came with it.
    fn on_frames(&mut self, first: RawFrame) {
        let now = self.now();
        let mut next = Some(first);
        for left in (0..ITEMS_AT_ONCE).rev() {
            let (Some(frame), Some(link)) = (next.take(), &mut self.link) else { return };
            let conn = link.conn;
            match Item::decode(frame.kind, &frame.body) {
                Ok(item) => self.client.handle(now, Input::Item(conn, item)),
                // Of a newer version: a sign of life all the same.
                Err(DecodeError::Unknown(_)) => self.client.handle(now, Input::Heard(conn)),
                Err(error @ DecodeError::Malformed(_)) => {
                    return self.lose(conn, error.to_string());
                }
            }
            // The last turn takes no more out of the reader than it can hand over.
            if left > 0 {
                match link.reader.next_ready() {
                    Ok(frame) => next = frame,
                    Err(error) => return self.lose(conn, error.to_string()),
                }
            }
        }
    }
}

async fn dial(
    sockets: Sockets,
    trust: Trust,
    conn: Conn,
    addr: String,
) -> Result<Box<Link>, NoLink> {
    let failed = |error: &dyn std::fmt::Display| NoLink::Failed(error.to_string());
    let endpoint = match sockets {
        Sockets::Own => Endpoint::client().map_err(|error| failed(&error))?,
        Sockets::Shared(endpoint) => endpoint,
    };
    let found = tokio::net::lookup_host(&addr).await;
    let found = found.map_err(|error| NoLink::Failed(format!("{addr}: {error}")))?;
    let mut last = NoLink::Failed(format!("{addr}: no address"));
    for addr in found {
        let connection = match endpoint.dial_server(addr, &trust, DIAL_MAX).await {
            Ok(connection) => connection,
            Err(error @ DialError::WrongCluster { .. }) => {
                last = NoLink::Stranger(error.to_string());
                continue;
            }
            Err(error) => {
                last = failed(&error);
                continue;
            }
        };
        let (send, receive) = connection.open_bi().await.map_err(|error| failed(&error))?;
        return Ok(Box::new(Link {
            conn,
            connection,
            hints: endpoint.hints(),
            endpoint,
            addr,
            reader: FrameReader::new(receive),
            writer: FrameWriter::new(send),
            canary_at: Instant::now() + CANARY_EVERY,
        }));
    }
    Err(last)
}

fn canonical(addr: SocketAddr) -> (std::net::IpAddr, u16) {
    (addr.ip().to_canonical(), addr.port())
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

//! The first words on a connection between servers: each side opens its four streams and says
//! [`Hello`] on the control stream; then the connection may become a link.
//!
//! Two servers that start together dial each other at the same moment. The one with the smaller
//! [`ServerId`] lets one connection after the other through its [`Gate`]: the first that becomes
//! the link closes the others before a word was said on them. The other side holds nothing back,
//! or the two would wait for each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chatty_core::frame::{Class, Common, Frame, Hello, SERVER_MINOR};
use chatty_core::id::{Origin, ServerId, Slot};
use chatty_core::io::{Peer, Standing};
use chatty_core::session::ServerAddr;
use chatty_core::wire::Wire;
use chatty_net::frame::FrameError;
use chatty_net::link::{self, LinkError, LinkStreams};
use chatty_net::{Connection, FrameReader, Identity, RecvStream};
use tokio::sync::{Mutex, watch};

use super::common::{Differs, voters_differ};
use super::{Linked, may_link};
use crate::close::{self, CONFIGURED, DUPLICATE, Lost, PROTOCOL, REFUSED};
use crate::driver::inbox::{Doors, Event};

/// From the handshake to the other side's hello.
const LIMIT: Duration = Duration::from_secs(5);

/// The other side's streams, each with its class.
pub(super) type Streams = Vec<(Class, FrameReader<RecvStream>)>;

/// A connection on which both sides have said hello.
pub(crate) struct Ready {
    pub(crate) peer: Peer,
    pub(crate) dialled_by: ServerId,
    pub(crate) connection: Connection,
    pub(super) ours: LinkStreams,
    pub(super) theirs: Streams,
}

/// Where connections to one server wait for each other.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) linked: watch::Receiver<Linked>,
    pub(crate) turn: Arc<Mutex<()>>,
}

/// Says hello for this server.
#[derive(Clone)]
pub(crate) struct Greeter {
    pub(crate) me: Arc<Identity>,
    pub(crate) origin: Origin,
    pub(crate) addr: Arc<str>,
    /// Of this server's disk, as it is known now.
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) common: Arc<Common>,
    /// What is told of the configuration of each server, as long as it is so.
    pub(crate) differs: Arc<Differs>,
    pub(crate) servers: Arc<[ServerAddr]>,
    pub(crate) gates: Arc<BTreeMap<Slot, Gate>>,
    pub(crate) doors: Doors,
}

/// Why a connection does not become a link; it is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GreetError {
    #[error("{0}")]
    MayNot(String),
    #[error("{0}")]
    Configured(String),
    #[error("no hello in {LIMIT:?}")]
    Late,
    #[error("its first frame is no hello")]
    NoHello,
    #[error("another connection became the link meanwhile")]
    Duplicate,
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Greeter {
    /// Makes a connection the link to its server, unless another one becomes it first.
    pub(crate) async fn introduce(
        &self,
        connection: Connection,
        other: Identity,
        dialled_by: ServerId,
    ) -> Result<(), GreetError> {
        let gate = self.gates.get(&other.slot).filter(|_| self.me.server < other.server).cloned();
        let Some(mut gate) = gate else {
            let ready = self.greet(connection, other, dialled_by).await?;
            self.doors.tell(Event::LinkReady(Box::new(ready)));
            return Ok(());
        };
        let before = *gate.linked.borrow_and_update();
        // Each turn is bounded by the limit of a greeting.
        let _turn = gate.turn.lock().await;
        let now = *gate.linked.borrow_and_update();
        if now != before && now != Linked::No {
            close::close(&connection, DUPLICATE, "another connection is the link");
            return Err(GreetError::Duplicate);
        }
        let ready = self.greet(connection.clone(), other, dialled_by).await?;
        self.doors.tell(Event::LinkReady(Box::new(ready)));
        // The next one sees what became of this one.
        tokio::select! {
            _ = gate.linked.wait_for(|linked| *linked != now && *linked != Linked::No) => {}
            _ = connection.closed() => {}
        }
        Ok(())
    }

    /// Exchanges hellos on a new connection.
    async fn greet(
        &self,
        connection: Connection,
        other: Identity,
        dialled_by: ServerId,
    ) -> Result<Ready, GreetError> {
        let done = match may_link(&self.servers, &self.me, &other) {
            Ok(()) => tokio::time::timeout(LIMIT, self.exchange(&connection))
                .await
                .unwrap_or(Err(GreetError::Late))
                .and_then(|done| self.compare(&other, &done.0).map(|()| done)),
            Err(why) => Err(GreetError::MayNot(why)),
        };
        match done {
            Ok((hello, ours, theirs)) => {
                let Identity { slot, generation, server, .. } = other;
                let (origin, standing) = (hello.origin, hello.standing);
                let peer = Peer { slot, generation, server, origin, standing };
                Ok(Ready { peer, dialled_by, connection, ours, theirs })
            }
            Err(error) => {
                let code = match error {
                    GreetError::MayNot(_) => REFUSED,
                    GreetError::Configured(_) => CONFIGURED,
                    _ => PROTOCOL,
                };
                // The other side may have been quicker to see it.
                let lost = connection.close_reason().map(|error| Lost::of(&error));
                if let Some(Lost { code: Some(CONFIGURED), why }) = lost {
                    self.differs.error(&other.slot, &why);
                }
                close::close(&connection, code, &error.to_string());
                Err(error)
            }
        }
    }

    /// Whether the other server's configuration fits: an older version does not tell.
    fn compare(&self, other: &Identity, hello: &Hello) -> Result<(), GreetError> {
        let Some(theirs) = &hello.common else { return Ok(()) };
        if let Some(why) = voters_differ((&self.me.slot, &self.common), (&other.slot, theirs)) {
            self.differs.error(&other.slot, &why);
            return Err(GreetError::Configured(why));
        }
        self.differs.compare_retention(&other.slot, self.common.retention, theirs.retention);
        Ok(())
    }

    async fn exchange(
        &self,
        connection: &Connection,
    ) -> Result<(Hello, LinkStreams, Streams), GreetError> {
        let mut ours = LinkStreams::open(connection).await?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let hello = Frame::Hello(Hello {
            minor: SERVER_MINOR,
            origin: self.origin,
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
            addr: self.addr.to_string(),
            standing: *self.standing.borrow(),
            common: Some(Common::clone(&self.common)),
        });
        let mut body = Vec::new();
        hello.encode_body(&mut body);
        let control = ours.class(Class::Control);
        // A hello is far below the limit of a frame.
        let _ = control.push(hello.kind(), |to| to.extend_from_slice(&body));
        control.flush().await.map_err(LinkError::from)?;

        let mut theirs = Streams::new();
        let mut coming = link::accept_classes(connection);
        while let Some(stream) = coming.next().await? {
            theirs.push(stream);
        }
        let control = theirs.iter_mut().find(|(class, _)| *class == Class::Control);
        let Some((_, control)) = control else { return Err(GreetError::NoHello) };
        let first = control.next().await?.ok_or(GreetError::NoHello)?;
        let hello = (first.kind == hello.kind()).then(|| Hello::decode(&first.body));
        let Some(Ok(hello)) = hello else { return Err(GreetError::NoHello) };
        Ok((hello, ours, theirs))
    }
}

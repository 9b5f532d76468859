//! A session as a program uses it: calls that wait for their answer, and a stream of events.

mod account;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chatty_core::client::{
    Answer, Ask, Config, DRAFTS_MAX, Failure, Journal, LostWhy, MessageState, Roam, Ticket, Timing,
    WINDOW_MAX, Waiting,
};
use chatty_core::event::{Rank, Retention};
use chatty_core::id::{AccountId, RoomId, Slot};
use chatty_core::session::{
    CloseMode, Code, Direct, Level, MARKS_MAX, Mode, Named, PAGE_LINES_MAX, Page, Participant,
    RoomInfo, RoomOpened, ServerAddr, Status, Target, check_nick, check_room, check_text,
};
use chatty_core::time::Key;
use chatty_net::Trust;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::cluster::Cluster;
use crate::driver::{Driver, Sockets};
use crate::identity::{IdentityAt, IdentityError};
use crate::outbox::{OutboxAt, OutboxError, OutboxFile};
use crate::view::{Event, Message};
use account::Account;
use task::{Call, Task};

/// How to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Who: finds the account in the state folder, and names a new one (an old one keeps its
    /// name, see [`Chat::nick`]). With [`IdentityAt::File`] the account takes this name. `None`:
    /// `$CHATTY_NICK`, else the login name.
    pub nick: Option<String>,
    /// Where the account is kept.
    pub identity: IdentityAt,
    /// Which server to begin with.
    pub start: Start,
    /// Where what is said waits to be replicated.
    pub outbox: OutboxAt,
    /// Whether direct messages are shown by this program.
    pub direct: Direct,
    /// How long a call may wait for its answer, fail-overs included.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nick: None,
            identity: IdentityAt::StateFolder,
            start: Start::Anywhere,
            outbox: OutboxAt::Nowhere,
            direct: Direct::Ignore,
            patience: Duration::from_secs(10),
        }
    }
}

/// Which server to begin with.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Start {
    /// Any.
    #[default]
    Anywhere,
    /// The one of that name or address, and any when it fails.
    At(String),
    /// The one of that name or address and no other.
    Only(String),
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server asked for is not known.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::ClusterError),
    /// The account cannot be read or kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The outbox cannot be used.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The nick cannot be one.
    #[error("{0}")]
    Nick(String),
    /// The network cannot be used.
    #[error("{0}")]
    Network(String),
    /// A server said no for good.
    #[error("{0}")]
    Refused(Failure),
    /// No server answered.
    #[error("no server of the cluster answers{0}")]
    NoServer(String),
}

/// A session. Clones share it; it ends with [`Chat::leave_cluster`] or when all are dropped.
#[derive(Clone, Debug)]
pub struct Chat {
    calls: mpsc::Sender<Call>,
    tickets: Arc<AtomicU64>,
    window: Arc<Semaphore>,
    state: watch::Receiver<State>,
    patience: Duration,
    left: Arc<Vec<Left>>,
    keeps: bool,
}

/// A message that an earlier process left in the outbox. It is sent again; what becomes of it is
/// told under this ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Which message, for the program: no other has this ticket in one session.
    pub ticket: Ticket,
    /// To whom.
    pub to: Target,
    /// What.
    pub text: String,
}

/// Where the session stands.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct State {
    /// The server, while there is one.
    pub server: Option<Slot>,
    /// The account, once known.
    pub account: Option<AccountId>,
    /// The name it goes by.
    pub nick: String,
    /// The servers known.
    pub servers: Vec<ServerAddr>,
    /// Why servers could not be reached, newest last.
    pub troubles: Vec<(String, LostWhy)>,
    /// Whether the session is over, and why.
    pub ended: Option<Option<Failure>>,
}

/// What a session's program is told, in order.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` after [`Event::Ended`]. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }

    /// The next event, if it is there already.
    pub fn next_ready(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }
}

/// A part of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Oldest first.
    pub messages: Vec<Message>,
    /// Whether it is all that any server of the cluster had on its disk some seconds ago.
    pub complete: bool,
    /// Servers that it cannot reach.
    pub unreachable: Vec<Slot>,
}

impl Chat {
    /// Attaches; returns once a server has answered.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        cluster: &Cluster,
        options: Options,
    ) -> Result<(Self, Events), ConnectError> {
        let (chat, events) = Self::start(cluster, options).await?;
        chat.attached().await?;
        Ok((chat, events))
    }

    /// Begins to attach; the session can be used at once, and what it is asked waits for a server.
    ///
    /// # Errors
    /// See [`ConnectError`]; but for [`ConnectError::NoServer`].
    pub async fn start(
        cluster: &Cluster,
        options: Options,
    ) -> Result<(Self, Events), ConnectError> {
        let trust =
            Trust::pinned(cluster.authority).map_err(|e| ConnectError::Network(e.to_string()))?;
        if let Some(nick) = &options.nick {
            check_nick(nick).map_err(ConnectError::Nick)?;
        }
        let roam = match &options.start {
            Start::Anywhere => Roam::Anywhere,
            Start::At(server) => Roam::First(cluster.address_of(server)?),
            Start::Only(server) => Roam::Only(cluster.address_of(server)?),
        };
        let mut account = Account::find(cluster, &options).await?;
        let timing = Timing {
            patience: options.patience,
            // One server alone is waited for: ask it more often.
            backoff_max: match &roam {
                Roam::Only(_) => Duration::from_millis(500),
                Roam::Anywhere | Roam::First(_) => Timing::default().backoff_max,
            },
            ..Timing::default()
        };
        let outbox = open_outbox(cluster, &options.outbox, &account)?;
        let journal = outbox.as_ref().map(|outbox| outbox.journal().clone());
        let left: Vec<Left> = journal.iter().flat_map(Journal::messages).map(left).collect();
        let config = Config {
            servers: cluster.servers.clone(),
            seeds: cluster.seeds.clone(),
            roam,
            token: account.token.clone(),
            nick: account.wish.take(),
            direct: options.direct,
            timing,
            journal,
            ..Config::default()
        };
        let keeps = outbox.is_some();
        let mut driver = Driver::new(Sockets::Own, trust, config, seed()?);
        if let Some(outbox) = outbox {
            driver = driver.keeping(outbox);
        }
        let (calls, called) = mpsc::channel(64);
        let (events, told) = mpsc::channel(256);
        let (state, watched) = watch::channel(State::default());
        let window = if keeps { DRAFTS_MAX } else { WINDOW_MAX };
        let window = Arc::new(Semaphore::new(window.saturating_sub(left.len())));
        let waiting = left.iter().map(|left| left.ticket).collect();
        let task = Task::new(driver, account, state, window.clone(), waiting);
        tokio::spawn(task.run(called, events));
        let tickets = Arc::new(AtomicU64::new(0));
        let patience = options.patience;
        let left = Arc::new(left);
        Ok((Self { calls, tickets, window, state: watched, patience, left, keeps }, Events(told)))
    }

    /// What an earlier process left in the outbox, in the order it was said.
    pub fn left(&self) -> &[Left] {
        &self.left
    }

    /// Whether what is said outlives this process.
    pub const fn keeps(&self) -> bool {
        self.keeps
    }

    /// Waits until a server has answered.
    ///
    /// # Errors
    /// [`ConnectError::Refused`], or [`ConnectError::NoServer`] when the patience is over.
    pub async fn attached(&self) -> Result<(), ConnectError> {
        let mut state = self.state.clone();
        let reached = state.wait_for(|state| state.server.is_some() || state.ended.is_some());
        let reached = tokio::time::timeout(self.patience, reached).await;
        let reached = reached.ok().and_then(Result::ok).map(|state| state.ended.clone());
        match reached {
            Some(None) => Ok(()),
            Some(Some(Some(failure))) => Err(ConnectError::Refused(failure)),
            Some(Some(None)) => Err(ConnectError::Refused(Failure::Ended)),
            None => Err(ConnectError::NoServer(self.troubles())),
        }
    }

    /// Why no server was reached, for a person.
    pub fn troubles(&self) -> String {
        let state = self.state.borrow();
        let mut newest = BTreeMap::new();
        for (addr, why) in &state.troubles {
            newest.insert(addr.clone(), why.to_string());
        }
        let told: Vec<_> = newest
            .into_iter()
            .map(|(addr, why)| if why.contains(&addr) { why } else { format!("{addr}: {why}") })
            .collect();
        if told.is_empty() { String::new() } else { format!(": {}", told.join("; ")) }
    }

    /// Where the session stands now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed) + 1)
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, Failure> {
        let (reply, answer) = oneshot::channel();
        let call = Call::Ask { ticket: self.ticket(), ask, reply };
        self.calls.send(call).await.map_err(|_| Failure::Ended)?;
        answer.await.unwrap_or(Err(Failure::Ended))
    }

    /// Joins a room for good, and shows so many of its last lines.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn join(&self, room: &str, last: u32) -> Result<RoomOpened, Failure> {
        self.open(room, last, Mode::Join).await
    }

    /// Takes part in a room while this session lasts.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn watch(&self, room: &str, last: u32) -> Result<RoomOpened, Failure> {
        self.open(room, last, Mode::Watch).await
    }

    async fn open(&self, room: &str, last: u32, mode: Mode) -> Result<RoomOpened, Failure> {
        check_room(room).map_err(invalid)?;
        let room = room.to_owned();
        match self.ask(Ask::Open { room, last: last.min(PAGE_LINES_MAX), mode }).await? {
            Answer::Opened(opened) => Ok(opened),
            _ => Err(confused()),
        }
    }

    /// Leaves a room for good.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn leave(&self, room: &str) -> Result<(), Failure> {
        check_room(room).map_err(invalid)?;
        self.ask(Ask::Close { room: room.to_owned(), mode: CloseMode::Leave }).await.map(drop)
    }

    /// Says something in a room; returns once it is replicated, or stored when that takes long.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn send(&self, room: &str, text: &str) -> Result<MessageState, Failure> {
        check_room(room).map_err(invalid)?;
        self.say(Target::Room(room.to_owned()), text, Level::Replicated).await
    }

    /// Says something to one person; as [`Self::send`].
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn dm(&self, nick: &str, text: &str) -> Result<MessageState, Failure> {
        self.say(Target::Nick(nick.to_owned()), text, Level::Replicated).await
    }

    /// Says something; returns once it has reached `level`, or stored when that takes long.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn say(&self, to: Target, text: &str, level: Level) -> Result<MessageState, Failure> {
        let (reply, answer) = oneshot::channel();
        self.hand_over(to, text, level, Some(reply)).await?;
        answer.await.unwrap_or(Err(Failure::Ended))
    }

    /// Says something without waiting for the answer: it comes as [`Event::State`] or
    /// [`Event::Failed`] with the ticket. Waits while 256 messages are unanswered; with an outbox,
    /// while 4096 are.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn submit(&self, to: Target, text: &str, level: Level) -> Result<Ticket, Failure> {
        self.hand_over(to, text, level, None).await
    }

    async fn hand_over(
        &self,
        to: Target,
        text: &str,
        level: Level,
        reply: Option<oneshot::Sender<Result<MessageState, Failure>>>,
    ) -> Result<Ticket, Failure> {
        check_text(text).map_err(invalid)?;
        // Given back when the message is answered.
        self.window.acquire().await.map_err(|_| Failure::Ended)?.forget();
        let (ticket, text) = (self.ticket(), text.to_owned());
        let call = Call::Send { ticket, to, text, level, reply };
        self.calls.send(call).await.map_err(|_| Failure::Ended)?;
        Ok(ticket)
    }

    /// The last `last` messages of a room or a conversation; as many pages as that takes.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn history(&self, of: Target, last: u64) -> Result<History, Failure> {
        let mut history = History { messages: Vec::new(), complete: true, unreachable: vec![] };
        let (mut before, mut left, mut first) = (None, last, true);
        let mut seen = BTreeSet::new();
        let room = match &of {
            Target::Room(name) => Some(self.room_name(name).await?),
            Target::Nick(_) | Target::Account(_) => None,
        };
        while left > 0 || first {
            let limit = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_LINES_MAX);
            let page = self.page(of.clone(), before, limit).await?;
            first = false;
            history.complete &= page.complete;
            for slot in page.unreachable {
                if !history.unreachable.contains(&slot) {
                    history.unreachable.push(slot);
                }
            }
            before = page.lines.first().map(|line| line.key());
            let me = self.state.borrow().account.unwrap_or_default();
            for line in page.lines.iter().rev() {
                // A message may have moved to an older place between two pages.
                if left > 0
                    && let Some(message) = Message::of(line, false, room.as_deref(), me)
                    && seen.insert((message.account, message.mid))
                {
                    history.messages.push(message);
                    left -= 1;
                }
            }
            if !page.more || before.is_none() {
                break;
            }
        }
        history.messages.reverse();
        Ok(history)
    }

    /// One page of a timeline.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn page(&self, of: Target, before: Option<Key>, limit: u32) -> Result<Page, Failure> {
        match self.ask(Ask::History { of, before, limit }).await? {
            Answer::Page(page) => Ok(page),
            _ => Err(confused()),
        }
    }

    /// The rooms.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn rooms(&self) -> Result<Vec<RoomInfo>, Failure> {
        match self.ask(Ask::Rooms).await? {
            Answer::Rooms(list) => Ok(list.rooms),
            _ => Err(confused()),
        }
    }

    /// A room's participants.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn who(&self, room: &str) -> Result<Vec<Participant>, Failure> {
        check_room(room).map_err(invalid)?;
        match self.ask(Ask::Who { room: room.to_owned() }).await? {
            Answer::Who(who) => Ok(who.people),
            _ => Err(confused()),
        }
    }

    /// The topic of a room; with a text, sets it before.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn topic(&self, room: &str, text: Option<&str>) -> Result<String, Failure> {
        check_room(room).map_err(invalid)?;
        let (room, text) = (room.to_owned(), text.map(str::to_owned));
        match self.ask(Ask::Topic { room, text }).await? {
            Answer::Topic(topic) => Ok(topic.topic),
            _ => Err(confused()),
        }
    }

    /// A room's name as its founder wrote it; as given here when there is no such room (yet).
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn room_name(&self, room: &str) -> Result<String, Failure> {
        check_room(room).map_err(invalid)?;
        match self.ask(Ask::Topic { room: room.to_owned(), text: None }).await {
            Ok(Answer::Topic(topic)) => Ok(topic.room),
            Ok(_) => Err(confused()),
            Err(Failure::Refused(Code::Unknown, _)) => Ok(room.to_owned()),
            Err(failure) => Err(failure),
        }
    }

    /// Puts somebody out of a room; he stays out until he joins again.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn kick(&self, room: &str, nick: &str, reason: &str) -> Result<(), Failure> {
        check_room(room).map_err(invalid)?;
        let (room, nick, reason) = (room.to_owned(), nick.to_owned(), reason.to_owned());
        self.ask(Ask::Kick { room, nick, reason }).await.map(drop)
    }

    /// Makes somebody op of a room, or takes it from him.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn role(&self, room: &str, nick: &str, rank: Rank) -> Result<(), Failure> {
        check_room(room).map_err(invalid)?;
        let (room, nick) = (room.to_owned(), nick.to_owned());
        self.ask(Ask::Role { room, nick, rank }).await.map(drop)
    }

    /// Says how long a room's messages are kept.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn keep(&self, room: &str, keep: Retention) -> Result<(), Failure> {
        check_room(room).map_err(invalid)?;
        self.ask(Ask::Keep { room: room.to_owned(), keep }).await.map(drop)
    }

    /// Goes by another name; what it is now is in the answer.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn nick(&self, nick: &str) -> Result<Named, Failure> {
        check_nick(nick).map_err(invalid)?;
        match self.ask(Ask::Nick { nick: nick.to_owned() }).await? {
            Answer::Named(named) => Ok(named),
            _ => Err(confused()),
        }
    }

    /// What the server sees of the cluster.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn status(&self) -> Result<Status, Failure> {
        match self.ask(Ask::Status).await? {
            Answer::Status(status) => Ok(*status),
            _ => Err(confused()),
        }
    }

    /// Says that direct messages have been shown: they wait for nobody any more.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn mark(&self, shown: &[(RoomId, Key)]) -> Result<(), Failure> {
        for shown in shown.chunks(MARKS_MAX) {
            self.ask(Ask::Mark { shown: shown.to_vec() }).await?;
        }
        Ok(())
    }

    /// Says goodbye and ends the session; what is still unanswered is given up.
    pub async fn leave_cluster(&self) {
        let (done, ended) = oneshot::channel();
        if self.calls.send(Call::Detach(done)).await.is_ok() {
            // An error means that the session has ended already.
            let _ = ended.await;
        }
    }
}

fn left((nth, message): (&u64, &Waiting)) -> Left {
    let (to, text) = (message.to.clone(), message.text.clone());
    Left { ticket: Ticket::restored(*nth), to, text }
}

fn open_outbox(
    cluster: &Cluster,
    at: &OutboxAt,
    account: &Account,
) -> Result<Option<OutboxFile>, OutboxError> {
    let opened = match at {
        OutboxAt::Nowhere => return Ok(None),
        OutboxAt::File(file) => OutboxFile::open(file, cluster)?,
        OutboxAt::BesideIdentity => {
            let Some(path) = account.outbox_path() else { return Ok(None) };
            match OutboxFile::open(&path, cluster) {
                Err(OutboxError::Busy { .. }) => return Ok(None),
                opened => opened?,
            }
        }
    };
    let (journal, file) = (opened.journal(), opened.path().to_owned());
    let count = journal.messages().len();
    if count > 0 && journal.account().is_some() && journal.account() != account.id {
        return Err(OutboxError::OtherAccount { file, count });
    }
    Ok(Some(opened))
}

fn invalid(reason: String) -> Failure {
    Failure::Refused(Code::Invalid, reason)
}

/// A server gave the answer to another question.
fn confused() -> Failure {
    Failure::Refused(Code::Protocol, "the server answered something else".into())
}

/// A seed for [`crate::driver::Driver::new`].
///
/// # Errors
/// [`ConnectError::Network`] if the system gives no random numbers.
pub fn seed() -> Result<u64, ConnectError> {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(u64::from_be_bytes(bytes)),
        Err(_) => Err(ConnectError::Network("the system gives no random numbers".into())),
    }
}

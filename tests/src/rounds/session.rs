//! One client of a round: it talks, reads, and writes down everything it is told.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chatty_client::{
    Chat, Cluster, Event, Events, Failure, IdentityAt, Level, Message, Options, Start, Target,
    Ticket,
};
use chatty_core::client::WINDOW_MAX;
use chatty_core::id::{AccountId, RoomId};
use chatty_core::session::Page;
use chatty_core::time::{Key, Time};
use chatty_simulations::history::{Did, Session, Shown, What};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::recorder::Recorder;

/// How long a call of whoever stays waits for a server: longer than all of them are ever down here.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Whoever only looks in waits for a server, and for an answer, so long.
pub const VISIT_PATIENCE: Duration = Duration::from_secs(5);
/// A server at rest answers at once; one that does not is a finding.
const READ_PATIENCE: Duration = Duration::from_secs(10);
/// Lines of a page that a talking client reads now and then.
const PAGE_LINES: u32 = 50;
/// How often it does.
const READ_EVERY: Duration = Duration::from_millis(250);
/// The pages of a whole timeline.
const FINAL_LINES: u32 = 500;

/// What the sessions of a round do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// They listen, and wait for answers.
    Quiet,
    /// Those that talk talk.
    Talking,
    /// They say goodbye.
    Over,
}

/// Which client.
#[derive(Clone, Debug)]
pub struct Who {
    /// Its name in the history, and its nick.
    pub name: String,
    /// The server it begins at.
    pub server: String,
    /// What it takes part in.
    pub rooms: Vec<String>,
    /// Pause between two messages; `None` only listens.
    pub says_every: Option<Duration>,
    /// Every eighth message is longer by so many bytes.
    pub padding: usize,
    /// How long it waits for a server.
    pub patience: Duration,
    /// Keeps its account from round to round.
    pub identity: PathBuf,
}

/// A client that runs.
pub struct Talker {
    who: Who,
    chat: Chat,
    events: Events,
    recorder: Arc<Recorder>,
    session: Session,
    rooms: Vec<(String, RoomId)>,
    /// Messages without any answer, and those not known to be replicated.
    unanswered: BTreeSet<Ticket>,
    unsettled: BTreeSet<Ticket>,
    said: usize,
    pages: usize,
    reading: Option<JoinHandle<Reading>>,
}

/// A page that was asked for.
struct Reading {
    room: RoomId,
    asked: Time,
    page: Result<Page, Failure>,
}

impl Talker {
    /// Attaches and opens its rooms.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn start(
        cluster: &Cluster,
        who: Who,
        recorder: Arc<Recorder>,
    ) -> Result<Self, String> {
        let options = Options {
            nick: Some(who.name.clone()),
            identity: IdentityAt::File(who.identity.clone()),
            start: Start::At(who.server.clone()),
            patience: who.patience,
            ..Options::default()
        };
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", who.name);
        let (chat, events) = Chat::connect(cluster, options).await.map_err(|e| failed(&e))?;
        let session = recorder.session(&who.name);
        let mut talker = Self {
            chat,
            events,
            recorder,
            session,
            rooms: Vec::new(),
            unanswered: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            said: 0,
            pages: 0,
            reading: None,
            who: who.clone(),
        };
        // The attach is told before anything that follows from it.
        while let Some(event) = talker.events.next_ready() {
            talker.on_event(event);
        }
        for room in &who.rooms {
            // Who talks joins for good, who listens does not.
            let opened = match who.says_every {
                Some(_) => talker.chat.join(room, 0).await,
                None => talker.chat.watch(room, 0).await,
            };
            let opened = opened.map_err(|error| failed(&error))?;
            talker.rooms.push((room.clone(), opened.room.id));
            talker.did(Did::Opened(opened.room.id));
        }
        Ok(talker)
    }

    fn did(&self, did: Did) {
        self.recorder.did(self.session, did);
    }

    /// Does as the phases say, until the last.
    pub async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        let mut says = steady(self.who.says_every.unwrap_or(Duration::from_secs(3600)));
        let mut reads = steady(READ_EVERY);
        loop {
            let now = *phase.borrow_and_update();
            if now == Phase::Over {
                break;
            }
            let talks = now == Phase::Talking && self.who.says_every.is_some();
            tokio::select! {
                event = self.events.next() => match event {
                    Some(Event::Ended(why)) => {
                        let why = why.map_or_else(|| "ended".into(), |why| why.to_string());
                        return self.recorder.ended(self.session, why);
                    }
                    Some(event) => self.on_event(event),
                    None => return self.recorder.ended(self.session, "ended".into()),
                },
                _ = says.tick(), if talks => self.say().await,
                _ = reads.tick(), if talks && self.reading.is_none() => self.ask_page(),
                reading = answer(&mut self.reading) => self.on_page(reading),
                changed = phase.changed() => if changed.is_err() { break },
            }
        }
        self.chat.leave_cluster().await;
    }

    /// Says something in each room, waits until it is on a majority of the disks, but not for long,
    /// and leaves.
    pub async fn visit(mut self) {
        for _ in 0..self.rooms.len() {
            self.say().await;
        }
        let late = tokio::time::sleep(VISIT_PATIENCE);
        tokio::pin!(late);
        while !self.unsettled.is_empty() {
            tokio::select! {
                event = self.events.next() => match event {
                    Some(Event::Ended(_)) | None => break,
                    Some(event) => self.on_event(event),
                },
                () = &mut late => break,
            }
        }
        // What it does not know yet it will never hear of.
        self.recorder.left(self.session);
        self.chat.leave_cluster().await;
    }

    async fn say(&mut self) {
        // A full window would make it wait here instead of listening.
        if self.unanswered.len() + 1 >= WINDOW_MAX {
            return;
        }
        let Some((name, room)) = self.rooms.get(self.said % self.rooms.len().max(1)) else {
            return;
        };
        self.said += 1;
        let mut text = format!("message {} of {} in {name}", self.said, self.who.name);
        if self.said.is_multiple_of(8) {
            text.extend(std::iter::repeat_n('.', self.who.padding));
        }
        // Most wait for a majority; some only for one disk.
        let level = if self.said.is_multiple_of(4) { Level::Stored } else { Level::Replicated };
        let (at, room) = (self.recorder.now(), *room);
        match self.chat.submit(Target::Room(name.clone()), &text, level).await {
            Ok(ticket) => {
                let sent = Did::Sent { ticket: ticket.0, room };
                self.recorder.note_at(at, What::Client(self.session, sent));
                self.unanswered.insert(ticket);
                self.unsettled.insert(ticket);
                self.tell_unsettled();
            }
            Err(failure) => self.recorder.ended(self.session, failure.to_string()),
        }
    }

    fn tell_unsettled(&self) {
        self.recorder.unsettled(self.session, self.unsettled.len());
    }

    fn ask_page(&mut self) {
        self.pages += 1;
        let Some((name, room)) = self.rooms.get(self.pages % self.rooms.len().max(1)) else {
            return;
        };
        let (chat, of, room) = (self.chat.clone(), Target::Room(name.clone()), *room);
        let asked = self.recorder.now();
        self.reading = Some(tokio::spawn(async move {
            Reading { room, asked, page: chat.page(of, None, PAGE_LINES).await }
        }));
    }

    fn on_page(&mut self, reading: Option<Reading>) {
        self.reading = None;
        // A page that did not come in time says nothing.
        if let Some(Reading { room, asked, page: Ok(page) }) = reading {
            let (lines, more, complete) = (shown_on(&page), page.more, page.complete);
            self.did(Did::Read { room, asked, before: None, lines, more, complete });
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Attached(attached) => {
                let server = self.recorder.server(&attached.server);
                let stale = attached.stale.iter().map(|(origin, _)| *origin).collect();
                self.did(Did::Attached { account: attached.account, server, stale });
            }
            Event::Lost { .. } => self.did(Did::Lost),
            Event::Message(message) => {
                let (room, late) = (message.room_id, message.late);
                self.did(Did::Saw { room, line: shown(&message), late });
            }
            Event::State(state) => {
                self.unanswered.remove(&state.ticket);
                if state.level == Level::Replicated {
                    self.unsettled.remove(&state.ticket);
                }
                let server = self.recorder.server(&state.server);
                let (ticket, mid, key, level) = (state.ticket.0, state.mid, state.key, state.level);
                self.did(Did::Answered { ticket, mid, key, level, server });
                self.tell_unsettled();
            }
            Event::Failed { ticket, failure } => {
                self.unanswered.remove(&ticket);
                self.unsettled.remove(&ticket);
                let (ticket, why) = (ticket.0, failure.to_string());
                self.did(match failure {
                    Failure::Refused(..) => Did::Refused { ticket, why },
                    Failure::TimedOut | Failure::Ended => Did::Doubted { ticket, why },
                });
                self.tell_unsettled();
            }
            Event::RoomClosed(closed) => self.did(Did::Closed(closed.room)),
            Event::Unreachable { .. }
            | Event::Direct(_)
            | Event::Kept(_)
            | Event::Unkept(_)
            | Event::Happened(_)
            | Event::Named { .. }
            | Event::Notice(_)
            | Event::Ended(_) => {}
        }
    }
}

fn steady(every: Duration) -> Interval {
    let mut interval = interval(every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The answer of a task, or none if it has failed; waits for ever if there is no task.
async fn answer(reading: &mut Option<JoinHandle<Reading>>) -> Option<Reading> {
    match reading {
        Some(task) => task.await.ok(),
        None => std::future::pending().await,
    }
}

fn shown(message: &Message) -> Shown {
    // Hashed with fixed keys: the same in every process.
    let mut hash = DefaultHasher::new();
    (&message.nick, &message.text, message.time_ms).hash(&mut hash);
    Shown { account: message.account, mid: message.mid, key: message.key, body: hash.finish() }
}

fn shown_on(page: &Page) -> Vec<Shown> {
    let nobody = AccountId::default();
    let messages = page.lines.iter().filter_map(|line| Message::of(line, false, None, nobody));
    messages.map(|message| shown(&message)).collect()
}

/// The whole timelines of rooms as one server has them, oldest first.
///
/// # Errors
/// Why they cannot be read.
pub async fn timelines(
    cluster: &Cluster,
    server: &str,
    identity: PathBuf,
    rooms: Vec<String>,
) -> Result<Vec<(RoomId, Vec<Shown>)>, String> {
    let options = Options {
        identity: IdentityAt::File(identity),
        start: Start::Only(server.to_owned()),
        patience: READ_PATIENCE,
        ..Options::default()
    };
    let failed = |error: &dyn std::fmt::Display| format!("reading from {server}: {error}");
    let (chat, _events) = Chat::connect(cluster, options).await.map_err(|e| failed(&e))?;
    let mut timelines = Vec::new();
    for room in rooms {
        let mut pages: Vec<Vec<Shown>> = Vec::new();
        let mut before: Option<Key> = None;
        loop {
            let of = Target::Room(room.clone());
            let page = chat.page(of, before, FINAL_LINES).await.map_err(|e| failed(&e))?;
            before = page.lines.first().map(|line| line.key());
            pages.push(shown_on(&page));
            if !page.more || before.is_none() {
                break;
            }
        }
        let lines = pages.into_iter().rev().flatten().collect();
        timelines.push((RoomId::public(&room), lines));
    }
    chat.leave_cluster().await;
    Ok(timelines)
}

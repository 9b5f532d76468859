//! One client of a round: it talks, reads, and writes down everything it is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chatty_client::{
    Chat, Cluster, Direct, Events, Failure, IdentityAt, Level, Options, Start, Target,
};
use chatty_core::client::WINDOW_MAX;
use chatty_core::id::RoomId;
use chatty_core::session::Page;
use chatty_core::time::Time;
use chatty_simulations::history::Did;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::pen::{Heard, Pen};
use super::recorder::Recorder;

/// How long a call of whoever stays waits for a server: longer than all of them are ever down here.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Whoever only looks in waits for a server, and for an answer, so long.
pub const VISIT_PATIENCE: Duration = Duration::from_secs(5);
/// Lines of a page that a talking client reads now and then.
const PAGE_LINES: u32 = 50;
/// How often it does.
const READ_EVERY: Duration = Duration::from_millis(250);

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
    pen: Pen,
    rooms: Vec<(String, RoomId)>,
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
            // Nobody says anything to it: it would notice what is another's.
            direct: Direct::Take,
            ..Options::default()
        };
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", who.name);
        let (chat, events) = Chat::connect(cluster, options).await.map_err(|e| failed(&e))?;
        let pen = Pen::new(recorder, &who.name);
        let mut talker = Self {
            chat,
            events,
            pen,
            rooms: Vec::new(),
            said: 0,
            pages: 0,
            reading: None,
            who: who.clone(),
        };
        // The attach is told before anything that follows from it.
        while let Some(event) = talker.events.next_ready() {
            talker.pen.hears(event);
        }
        for room in &who.rooms {
            // Who talks joins for good, who listens does not.
            let opened = match who.says_every {
                Some(_) => talker.chat.join(room, 0).await,
                None => talker.chat.watch(room, 0).await,
            };
            let opened = opened.map_err(|error| failed(&error))?;
            talker.rooms.push((room.clone(), opened.room.id));
            let (room, since) = (opened.room.id, opened.room.since);
            talker.pen.did(Did::Opened { room, since });
        }
        Ok(talker)
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
                event = self.events.next() => match event.map(|event| self.pen.hears(event)) {
                    Some(Heard::Ended(why)) => return self.pen.ended(why),
                    Some(_) => {}
                    None => return self.pen.ended("ended".into()),
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
        while !self.pen.is_settled() {
            tokio::select! {
                event = self.events.next() => match event.map(|event| self.pen.hears(event)) {
                    Some(Heard::Ended(_)) | None => break,
                    Some(_) => {}
                },
                () = &mut late => break,
            }
        }
        // What it does not know yet it will never hear of.
        self.pen.left();
        self.chat.leave_cluster().await;
    }

    async fn say(&mut self) {
        // A full window would make it wait here instead of listening.
        if self.pen.unanswered() + 1 >= WINDOW_MAX {
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
        let (at, room) = (self.pen.now(), *room);
        match self.chat.submit(Target::Room(name.clone()), &text, level).await {
            Ok(ticket) => self.pen.said(at, ticket, room),
            Err(failure) => self.pen.ended(failure.to_string()),
        }
    }

    fn ask_page(&mut self) {
        self.pages += 1;
        let Some((name, room)) = self.rooms.get(self.pages % self.rooms.len().max(1)) else {
            return;
        };
        let (chat, of, room) = (self.chat.clone(), Target::Room(name.clone()), *room);
        let asked = self.pen.now();
        self.reading = Some(tokio::spawn(async move {
            Reading { room, asked, page: chat.page(of, None, PAGE_LINES).await }
        }));
    }

    fn on_page(&mut self, reading: Option<Reading>) {
        self.reading = None;
        // A page that did not come in time says nothing.
        if let Some(Reading { room, asked, page: Ok(page) }) = reading {
            // Where it was read, and that something is stale there, was told before it.
            while let Some(event) = self.events.next_ready() {
                self.pen.hears(event);
            }
            self.pen.read(room, asked, None, &page);
        }
    }
}

/// Ticks at that pace, later ones not sooner.
pub fn steady(every: Duration) -> Interval {
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

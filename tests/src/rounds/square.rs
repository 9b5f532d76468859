//! The square: a room of each round where people do what they do besides talking. They write to each
//! other, take other names, set the topic, read back, leave and come again; and one, who made the
//! room, puts them out of it in turn.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chatty_client::{
    Chat, Cluster, Direct, Events, IdentityAt, Level, Options, Start, Target, Ticket,
};
use chatty_core::id::{AccountId, RoomId};
use chatty_core::time::Key;
use chatty_simulations::history::{Did, Subject};
use tokio::sync::watch;

use super::pen::{Heard, Pen};
use super::recorder::Recorder;
use super::session::{PATIENCE, Phase, steady};

/// How often one of them does something.
const TURN_EVERY: Duration = Duration::from_millis(200);
/// Whoever was put out stays out for so long.
const OUT: Duration = Duration::from_millis(500);
/// Lines of a page, and pages read one after the other.
const PAGE_LINES: u32 = 50;
const PAGES: usize = 2;

/// What one does in the square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Makes the room, and puts others out.
    Founder,
    /// Everything else.
    Regular,
}

/// Who comes to the square.
#[derive(Clone, Debug)]
pub struct Comer {
    /// Its name in the history, and its first nick.
    pub name: String,
    /// What it does.
    pub part: Part,
    /// The server it begins at.
    pub server: String,
    /// The square.
    pub square: String,
    /// Where others talk, to be read.
    pub rooms: Vec<String>,
    /// Keeps its account.
    pub identity: PathBuf,
}

/// Somebody in the square, for the others.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who it is.
    pub account: AccountId,
    /// The name it goes by, as far as it was told.
    pub nick: String,
    /// Where its account is.
    pub identity: PathBuf,
    /// Its session in the history.
    pub session: usize,
}

/// All who write to each other, in the order in which they came: each to the next one.
#[derive(Debug, Default)]
pub struct Book(Mutex<Vec<Entry>>);

impl Book {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        // What somebody who panicked has written stands.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, entry: Entry) {
        self.entries().push(entry);
    }

    fn rename(&self, account: AccountId, nick: &str) {
        let mut entries = self.entries();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.account == account) {
            nick.clone_into(&mut entry.nick);
        }
    }

    /// Who writes to whom: each to the next, the last to the first.
    pub fn pairs(&self) -> Vec<[Entry; 2]> {
        let entries = self.entries();
        let next = entries.iter().cycle().skip(1);
        entries.iter().zip(next).map(|(one, next)| [one.clone(), next.clone()]).collect()
    }

    /// Those with whom somebody has conversations.
    fn others(&self, account: AccountId) -> Vec<Entry> {
        let pairs = self.pairs().into_iter();
        let other = |[one, next]: [Entry; 2]| match account {
            of if of == one.account => Some(next),
            of if of == next.account => Some(one),
            _ => None,
        };
        pairs.filter_map(other).filter(|other| other.account != account).collect()
    }
}

/// Where somebody stands with the square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Inside,
    /// It asked to leave; what it was shown before is all told when that message is settled.
    Leaving(Ticket),
    /// It left, or was put out then.
    Outside(Instant),
}

/// Somebody in the square.
pub struct Regular {
    comer: Comer,
    chat: Chat,
    events: Events,
    pen: Pen,
    account: AccountId,
    square: RoomId,
    book: Arc<Book>,
    stands: Stands,
    /// Whether it tried to speak since it was put out.
    tried: bool,
    turns: usize,
}

impl Regular {
    /// Attaches and comes in.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn start(
        cluster: &Cluster,
        comer: Comer,
        recorder: Arc<Recorder>,
        book: Arc<Book>,
    ) -> Result<Self, String> {
        let options = Options {
            nick: Some(comer.name.clone()),
            identity: IdentityAt::File(comer.identity.clone()),
            start: Start::At(comer.server.clone()),
            patience: PATIENCE,
            direct: Direct::Take,
            ..Options::default()
        };
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", comer.name);
        let (chat, mut events) = Chat::connect(cluster, options).await.map_err(|e| failed(&e))?;
        let mut pen = Pen::new(recorder, &comer.name);
        // The attach is told before anything that follows from it.
        while let Some(event) = events.next_ready() {
            pen.hears(event);
        }
        let state = chat.state();
        let account = state.account.ok_or_else(|| failed(&"it has no account"))?;
        let opened = chat.join(&comer.square, 0).await.map_err(|error| failed(&error))?;
        let (square, since) = (opened.room.id, opened.room.since);
        pen.did(Did::Opened { room: square, since });
        if comer.part == Part::Regular {
            let (identity, session) = (comer.identity.clone(), pen.session());
            book.add(Entry { account, nick: state.nick, identity, session });
        }
        let (stands, tried, turns) = (Stands::Inside, false, 0);
        Ok(Self { comer, chat, events, pen, account, square, book, stands, tried, turns })
    }

    /// Does something at every turn while people talk; counted while it does, and how often it did.
    pub async fn run(
        mut self,
        mut phase: watch::Receiver<Phase>,
        busy: Arc<AtomicUsize>,
        turns_had: Arc<AtomicUsize>,
    ) {
        let mut turns = steady(TURN_EVERY);
        loop {
            let now = *phase.borrow_and_update();
            if now == Phase::Over {
                break;
            }
            tokio::select! {
                event = self.events.next() => match event.map(|event| self.pen.hears(event)) {
                    Some(Heard::Ended(why)) => return self.pen.ended(why),
                    Some(heard) => self.on_heard(&heard),
                    None => return self.pen.ended("ended".into()),
                },
                _ = turns.tick(), if now == Phase::Talking => {
                    // Counted before the phase is looked at, as with those that come and go.
                    busy.fetch_add(1, Ordering::SeqCst);
                    if *phase.borrow() == Phase::Talking {
                        self.turn().await;
                        turns_had.fetch_add(1, Ordering::SeqCst);
                    }
                    busy.fetch_sub(1, Ordering::SeqCst);
                }
                changed = phase.changed() => if changed.is_err() { break },
            }
        }
        self.chat.leave_cluster().await;
    }

    fn on_heard(&mut self, heard: &Heard) {
        match heard {
            Heard::Out(room) if *room == self.square => {
                self.tried = false;
                self.stands = Stands::Outside(Instant::now());
            }
            Heard::Settled(ticket) if self.stands == Stands::Leaving(*ticket) => {
                self.pen.did(Did::Closed(self.square));
                self.tried = true;
                self.stands = Stands::Outside(Instant::now());
            }
            _ => {}
        }
    }

    async fn turn(&mut self) {
        self.turns += 1;
        match (self.stands, self.comer.part) {
            (Stands::Leaving(_), _) => {}
            (Stands::Outside(_), _) if !self.tried => {
                self.tried = true;
                self.say().await;
            }
            (Stands::Outside(since), _) if since.elapsed() < OUT => self.read_back().await,
            (Stands::Outside(_), _) => self.enter().await,
            (Stands::Inside, Part::Founder) => match self.turns % 4 {
                2 => self.put_out().await,
                3 if self.turns % 8 == 3 => self.set_topic().await,
                _ => self.say().await,
            },
            (Stands::Inside, Part::Regular) => match self.turns % 12 {
                1 | 5 | 9 => self.say().await,
                3 => self.set_topic().await,
                0 | 6 => self.read_back().await,
                7 => self.rename().await,
                11 => self.leave().await,
                _ => drop(self.write().await),
            },
        }
    }

    async fn submit(&mut self, to: Target, room: RoomId, text: &str) -> Option<Ticket> {
        let at = self.pen.now();
        match self.chat.submit(to, text, Level::Replicated).await {
            Ok(ticket) => {
                self.pen.said(at, ticket, room);
                Some(ticket)
            }
            Err(failure) => {
                self.pen.ended(failure.to_string());
                None
            }
        }
    }

    async fn say(&mut self) {
        let text = format!("word {} of {}", self.turns, self.comer.name);
        let to = Target::Room(self.comer.square.clone());
        self.submit(to, self.square, &text).await;
    }

    /// Writes to one of those it has conversations with.
    async fn write(&mut self) -> Option<Ticket> {
        let others = self.book.others(self.account);
        let other = others.get(self.turns / 2 % others.len().max(1))?;
        let text = format!("to {} alone: {} of {}", other.nick, self.turns, self.comer.name);
        let room = RoomId::direct(self.account, other.account);
        self.submit(Target::Nick(other.nick.clone()), room, &text).await
    }

    async fn set_topic(&mut self) {
        let value = format!("topic {} of {}", self.turns, self.comer.name);
        let subject = Subject::Topic(self.square);
        self.pen.did(Did::Sets { subject, value: value.clone() });
        // One that is refused, or whose answer is lost, is judged as one that may be there.
        let _ = self.chat.topic(&self.comer.square, Some(&value)).await;
    }

    async fn rename(&mut self) {
        let value = format!("{}-{}", self.comer.name, self.turns);
        let subject = Subject::Nick(self.account);
        self.pen.did(Did::Sets { subject, value: value.clone() });
        if let Ok(named) = self.chat.nick(&value).await {
            self.book.rename(self.account, &named.nick);
        }
    }

    /// Reads the newest pages of a timeline, one after the other.
    async fn read_back(&mut self) {
        let mut timelines: Vec<(Target, RoomId)> =
            vec![(Target::Room(self.comer.square.clone()), self.square)];
        timelines.extend(self.book.others(self.account).into_iter().map(|other| {
            (Target::Account(other.account), RoomId::direct(self.account, other.account))
        }));
        let rooms = self.comer.rooms.iter();
        timelines.extend(rooms.map(|name| (Target::Room(name.clone()), RoomId::public(name))));
        let nth = self.turns / 6 % timelines.len();
        for (of, room) in timelines.into_iter().cycle().skip(nth).take(2) {
            let mut before: Option<Key> = None;
            for _ in 0..PAGES {
                let asked = self.pen.now();
                // A page that did not come in time says nothing.
                let Ok(page) = self.chat.page(of.clone(), before, PAGE_LINES).await else { break };
                // Where it was read, and that something is stale there, was told before it.
                while let Some(event) = self.events.next_ready() {
                    let heard = self.pen.hears(event);
                    self.on_heard(&heard);
                }
                self.pen.read(room, asked, before, &page);
                before = page.lines.first().map(|line| line.key());
                if !page.more {
                    break;
                }
            }
        }
    }

    async fn leave(&mut self) {
        // Refused, it is out already, which it will be told.
        if self.chat.leave(&self.comer.square).await.is_err() {
            return;
        }
        if let Some(ticket) = self.write().await {
            self.stands = Stands::Leaving(ticket);
        }
    }

    async fn enter(&mut self) {
        if let Ok(opened) = self.chat.join(&self.comer.square, 0).await {
            self.pen.did(Did::Opened { room: self.square, since: opened.room.since });
            self.stands = Stands::Inside;
        }
    }

    /// Puts one of the others out, by the name he goes by here, and speaks on.
    async fn put_out(&mut self) {
        let Ok(people) = self.chat.who(&self.comer.square).await else { return };
        let others: Vec<_> =
            people.into_iter().filter(|other| other.account != self.account).collect();
        let Some(other) = others.get(self.turns / 4 % others.len().max(1)) else { return };
        // Who has left or has another name by now stays.
        let _ = self.chat.kick(&self.comer.square, &other.nick, "in turn").await;
        self.say().await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn entry(n: u128) -> Entry {
        let (account, nick) = (AccountId::new(n), format!("r{n}"));
        Entry { account, nick, identity: PathBuf::new(), session: 0 }
    }

    #[test]
    fn each_writes_to_the_next_and_is_found_by_its_newest_name() {
        let book = Book::default();
        (1..=3).for_each(|n| book.add(entry(n)));
        let pairs: BTreeMap<_, _> =
            book.pairs().into_iter().map(|[one, next]| (one.nick, next.nick)).collect();
        let of = |one: &str| pairs.get(one).map(String::as_str);
        assert_eq!([of("r1"), of("r2"), of("r3")], [Some("r2"), Some("r3"), Some("r1")]);
        book.rename(AccountId::new(2), "other");
        let others: Vec<_> =
            book.others(AccountId::new(1)).into_iter().map(|other| other.nick).collect();
        assert_eq!(others, ["other", "r3"]);
        assert_eq!(book.others(AccountId::new(9)).len(), 0);
    }
}

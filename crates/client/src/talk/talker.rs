//! The session of a person: what he says becomes calls, what happens becomes lines.
//!
//! Knows no terminal: [`Talker::shows`] is what there is to show, in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;

use chatty_client::{
    Chat, Cluster, Event, Failure, Happening, Level, LostWhy, Message, MessageState, Target,
    Ticket, What, safe,
};
use chatty_core::event::Rank;
use chatty_core::id::RoomId;
use chatty_core::session::RoomOpened;
use chatty_core::time::Key;
use tokio::sync::mpsc;

use super::late::Late;
use super::screen::{Mark, Own, Piece};
use super::words::{self, Said};
use crate::out;
use crate::tail::Marks;

/// Lines shown when a room is joined.
const LAST_ON_JOIN: u32 = 20;
/// Own messages whose echo is waited for, at most.
const ECHOES_MAX: usize = 1000;
/// Names remembered for completion, at most.
const NAMES_MAX: usize = 2000;

const QUIET: &str = "2";
const ALARM: &str = "31";

/// What is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    Line(Vec<Piece>),
    /// An own message that has just been said.
    Own(Own, Vec<Piece>),
    Mark(Own, Mark),
}

/// What came of something that was asked.
enum Outcome {
    Joined(String, Result<RoomOpened, Failure>),
    Left(String, Result<(), Failure>),
    Lines(Result<Vec<Vec<Piece>>, Failure>),
    Submitted(Own, Result<Ticket, Failure>),
}

/// An own message whose echo has not come.
struct Echo {
    own: Own,
    to: Target,
    text: String,
}

/// See the module.
pub struct Talker {
    chat: Chat,
    cluster: Cluster,
    offset_minutes: i64,
    pub shows: VecDeque<Show>,
    target: Option<Target>,
    /// By id, as their founders wrote them.
    rooms: BTreeMap<RoomId, String>,
    names: BTreeSet<String>,
    outcomes: (mpsc::UnboundedSender<Outcome>, mpsc::UnboundedReceiver<Outcome>),
    /// Messages go out one after the other, in the order they were typed.
    outgoing: mpsc::UnboundedSender<(Own, Target, String)>,
    last_own: Own,
    echoes: VecDeque<Echo>,
    sent: BTreeMap<Ticket, Own>,
    /// States that came before it was known whose they are.
    early: BTreeMap<Ticket, MessageState>,
    /// Own messages without any answer.
    unanswered: BTreeSet<Own>,
    /// Those of last time without any answer.
    left: BTreeSet<Ticket>,
    busy: usize,
    lost: Option<(String, LostWhy)>,
    late: Late,
    pub marks: Marks,
}

/// The words of a quiet line.
fn quiet(text: impl Into<String>) -> Vec<Piece> {
    vec![Piece::new(QUIET, format!("· {}", text.into()))]
}

fn alarm(text: impl Into<String>) -> Vec<Piece> {
    vec![Piece::new(ALARM, format!("! {}", text.into()))]
}

/// A name in a colour of its own.
fn name(nick: &str) -> Piece {
    let sum = nick.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31) ^ u32::from(byte));
    let colours = ["31", "32", "33", "34", "35", "36"];
    let colour = colours.get((sum % 6) as usize).copied().unwrap_or_default();
    Piece::new(colour, safe::one_line(nick))
}

impl Talker {
    pub fn new(chat: Chat, cluster: Cluster, offset_minutes: i64) -> Self {
        let outcomes = mpsc::unbounded_channel();
        let (outgoing, typed) = mpsc::unbounded_channel();
        tokio::spawn(say_in_order(chat.clone(), typed, outcomes.0.clone()));
        let left = chat.left().iter().map(|left| left.ticket).collect();
        Self {
            left,
            chat,
            cluster,
            offset_minutes,
            shows: VecDeque::new(),
            target: None,
            rooms: BTreeMap::new(),
            names: BTreeSet::new(),
            outcomes,
            outgoing,
            last_own: 0,
            echoes: VecDeque::new(),
            sent: BTreeMap::new(),
            early: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            busy: 0,
            lost: None,
            late: Late::default(),
            marks: Marks::default(),
        }
    }

    /// Whether nothing that was asked waits for its answer.
    pub fn is_idle(&self) -> bool {
        self.busy == 0
    }

    pub fn unanswered(&self) -> usize {
        self.unanswered.len() + self.left.len()
    }

    fn line(&mut self, line: Vec<Piece>) {
        self.shows.push_back(Show::Line(line));
    }

    pub fn greet(&mut self) {
        self.line(quiet("/join ROOM to begin, /help for more"));
    }

    /// What became of the outbox of last time.
    pub fn greet_outbox(&mut self) {
        match self.chat.left().len() {
            0 => {}
            1 => self.line(quiet("1 message from last time is sent again")),
            count => self.line(quiet(format!("{count} messages from last time are sent again"))),
        }
        if !self.chat.keeps() {
            self.line(quiet(
                "another session of yours keeps the outbox: what is said here does not outlive a \
                 crash of this one",
            ));
        }
    }

    /// Room, server and state.
    pub fn prompt(&self) -> Vec<Piece> {
        let state = self.chat.state();
        let place = match &self.target {
            Some(Target::Room(room)) => safe::one_line(room),
            Some(Target::Nick(nick)) => format!("@{}", safe::one_line(nick)),
            Some(Target::Account(_)) | None => "-".to_owned(),
        };
        let server = match &state.server {
            Some(server) => Piece::new("32", server.to_string()),
            None => Piece::new("33", "connecting…"),
        };
        let waiting = match self.unanswered() {
            0 => String::new(),
            count => format!(" …{count}"),
        };
        vec![
            Piece::new("1", place),
            Piece::new(QUIET, " on "),
            server,
            Piece::new("33", waiting),
            Piece::new("", "> "),
        ]
    }

    /// What the word that was begun may be.
    pub fn completions(&self, begun: &str) -> Vec<String> {
        let lower = begun.to_lowercase();
        if begun.starts_with('/') {
            let all = words::commands().filter(|word| word.starts_with(&lower));
            return all.map(str::to_owned).collect();
        }
        let names = self.names.iter().chain(self.rooms.values());
        names.filter(|name| name.to_lowercase().starts_with(&lower)).cloned().collect()
    }

    /// Carries out what was typed; tells whether the session goes on.
    pub fn said(&mut self, said: Said) -> bool {
        let chat = self.chat.clone();
        match said {
            Said::Nothing => {}
            Said::Quit => return false,
            Said::Wrong(why) => self.line(alarm(why)),
            Said::Help => {
                for (usage, what) in words::HELP {
                    let usage = Piece::new("1", format!("{usage:<24}"));
                    self.line(vec![usage, Piece::new("", *what)]);
                }
            }
            Said::Text(text) => match self.target.clone() {
                Some(to) => self.say(to, text),
                None => self.line(alarm("join a room first: /join ROOM")),
            },
            Said::Join(room) => {
                self.target = Some(Target::Room(room.clone()));
                if !self.rooms.contains_key(&RoomId::public(&room)) {
                    self.run(async move {
                        let opened = chat.join(&room, LAST_ON_JOIN).await;
                        Outcome::Joined(room, opened)
                    });
                }
            }
            Said::Leave(room) => {
                if let Some(room) = self.here(room) {
                    self.run(async move {
                        let left = chat.leave(&room).await;
                        Outcome::Left(room, left)
                    });
                }
            }
            Said::Direct(nick, None) => self.target = Some(Target::Nick(nick)),
            Said::Direct(nick, Some(text)) => self.say(Target::Nick(nick), text),
            Said::Rooms => self.lines(async move { rooms(&chat).await }),
            Said::Status => {
                let cluster = self.cluster.clone();
                self.lines(async move { Ok(status(&cluster).await) });
            }
            Said::History(count) => self.history(count),
            Said::Nick(nick) => self.lines(async move {
                let named = chat.nick(&nick).await?;
                let now = safe::one_line(&named.nick);
                Ok(vec![match named.taken {
                    None => quiet(format!("you are {now}")),
                    Some(taken) => {
                        let taken = safe::one_line(&taken);
                        quiet(format!("somebody else is called {taken}: you are {now}"))
                    }
                }])
            }),
            said => self.said_of_room(said),
        }
        true
    }

    /// Commands about the room one is in.
    fn said_of_room(&mut self, said: Said) {
        let chat = self.chat.clone();
        let named = match &said {
            Said::Who(room) => room.clone(),
            _ => None,
        };
        let Some(room) = self.here(named) else { return };
        match said {
            Said::Who(_) => self.lines(async move { who(&chat, &room).await }),
            Said::Topic(text) => self.lines(async move {
                let topic = chat.topic(&room, text.as_deref()).await?;
                let room = safe::one_line(&room);
                Ok(match (topic.as_str(), text) {
                    // Setting it is seen by everybody in the room.
                    (_, Some(_)) => Vec::new(),
                    ("", None) => vec![quiet(format!("{room} has no topic"))],
                    (topic, None) => vec![quiet(format!("{room}: {}", safe::one_line(topic)))],
                })
            }),
            Said::Kick(nick, reason) => self
                .lines(async move { chat.kick(&room, &nick, &reason).await.map(|()| Vec::new()) }),
            Said::Op(nick) => self
                .lines(async move { chat.role(&room, &nick, Rank::Op).await.map(|()| Vec::new()) }),
            Said::Deop(nick) => self.lines(async move {
                chat.role(&room, &nick, Rank::Member).await.map(|()| Vec::new())
            }),
            _ => {}
        }
    }

    /// The room named, or the one in front.
    fn here(&mut self, named: Option<String>) -> Option<String> {
        let here = match &self.target {
            Some(Target::Room(room)) => Some(room.clone()),
            Some(Target::Nick(_) | Target::Account(_)) | None => None,
        };
        let room = named.or(here);
        if room.is_none() {
            self.line(alarm("which room? Go to one: /join ROOM"));
        }
        room
    }

    fn run(&mut self, task: impl Future<Output = Outcome> + Send + 'static) {
        self.busy += 1;
        let to = self.outcomes.0.clone();
        tokio::spawn(async move {
            // An error means that the session is over.
            let _ = to.send(task.await);
        });
    }

    fn lines<F>(&mut self, task: F)
    where
        F: Future<Output = Result<Vec<Vec<Piece>>, Failure>> + Send + 'static,
    {
        self.run(async move { Outcome::Lines(task.await) });
    }

    fn history(&mut self, count: u64) {
        let Some(of) = self.target.clone() else {
            return self.line(alarm("which room? Go to one: /join ROOM"));
        };
        let (chat, offset) = (self.chat.clone(), self.offset_minutes);
        self.lines(async move {
            let history = chat.history(of, count).await?;
            let mut lines: Vec<_> =
                history.messages.iter().map(|m| message(m, offset, Place::Hidden)).collect();
            let incomplete = out::incomplete_line(history.complete, &history.unreachable);
            lines.extend(incomplete.map(quiet));
            Ok(lines)
        });
    }

    fn say(&mut self, to: Target, text: String) {
        if let Err(why) = chatty_core::session::check_text(&text) {
            return self.line(alarm(why));
        }
        self.last_own += 1;
        let own = self.last_own;
        let place = match &to {
            Target::Nick(nick) => Some(format!("@{nick}")),
            Target::Room(_) | Target::Account(_) => None,
        };
        let mut line = vec![Piece::new(QUIET, self.time_now() + " ")];
        if let Some(place) = place {
            line.push(Piece::new("36", format!("{} ", safe::one_line(&place))));
        }
        line.push(name(&self.chat.state().nick));
        line.push(Piece::new("", format!(": {}", safe::one_line(&text))));
        self.shows.push_back(Show::Own(own, line));
        self.unanswered.insert(own);
        self.echoes.push_back(Echo { own, to: to.clone(), text: text.clone() });
        if self.echoes.len() > ECHOES_MAX {
            self.echoes.pop_front();
        }
        // The task lives as long as the session.
        let _ = self.outgoing.send((own, to, text));
    }

    fn time_now(&self) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0));
        out::time_of_day(ms, self.offset_minutes)
    }

    /// Waits for the answer to something that was asked, and shows it. Cancelling loses nothing.
    pub async fn answer(&mut self) {
        if let Some(outcome) = self.outcomes.1.recv().await {
            self.on_outcome(outcome);
        }
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Submitted(own, Ok(ticket)) => {
                self.sent.insert(ticket, own);
                if let Some(state) = self.early.remove(&ticket) {
                    self.on_state(&state);
                }
                return;
            }
            Outcome::Submitted(own, Err(failure)) => return self.refused(own, &failure),
            Outcome::Joined(_, Ok(opened)) => self.joined(&opened),
            Outcome::Joined(room, Err(failure)) => {
                if self.target == Some(Target::Room(room)) {
                    self.target = self.rooms.values().next().cloned().map(Target::Room);
                }
                self.line(alarm(safe::one_line(&failure.to_string())));
            }
            Outcome::Left(room, Ok(())) => {
                self.gone(RoomId::public(&room));
                self.line(quiet(format!("you left {}", safe::one_line(&room))));
            }
            Outcome::Lines(Ok(lines)) => lines.into_iter().for_each(|line| self.line(line)),
            Outcome::Left(_, Err(failure)) | Outcome::Lines(Err(failure)) => {
                self.line(alarm(safe::one_line(&failure.to_string())));
            }
        }
        self.busy -= 1;
    }

    fn joined(&mut self, opened: &RoomOpened) {
        let room = opened.room.name.clone();
        self.rooms.insert(opened.room.id, room.clone());
        let in_front = match &self.target {
            Some(Target::Room(typed)) => RoomId::public(typed) == opened.room.id,
            Some(Target::Nick(_) | Target::Account(_)) => false,
            None => true,
        };
        if in_front {
            self.target = Some(Target::Room(room.clone()));
        }
        let me = self.chat.state().account.unwrap_or_default();
        for line in &opened.lines {
            if let Some(said) = Message::of(line, false, Some(&room), me) {
                self.remember(&said.nick);
                let place = self.place_of(&said);
                self.line(message(&said, self.offset_minutes, place));
            }
        }
        let room = safe::one_line(&room);
        self.line(quiet(match opened.room.topic.as_str() {
            "" => format!("you are in {room}"),
            topic => format!("you are in {room}: {}", safe::one_line(topic)),
        }));
        if let Some(why) = out::incomplete_line(opened.complete, &opened.unreachable) {
            self.line(quiet(why));
        }
    }

    fn gone(&mut self, room: RoomId) {
        self.rooms.remove(&room);
        if matches!(&self.target, Some(Target::Room(name)) if RoomId::public(name) == room) {
            self.target = self.rooms.values().next().cloned().map(Target::Room);
        }
    }

    fn remember(&mut self, nick: &str) {
        if self.names.len() < NAMES_MAX {
            self.names.insert(nick.to_owned());
        }
    }

    /// Shows what happened; tells whether the session goes on.
    pub fn on_event(&mut self, event: Event) -> bool {
        match event {
            Event::Message(said) => self.on_message(&said),
            Event::Direct(said) => {
                self.marks.shown(said.room_id, said.key);
                self.on_message(&said);
            }
            Event::Happened(happening) => self.on_happening(&happening),
            Event::State(state) => self.on_state(&state),
            Event::Failed { ticket, failure } if ticket.is_restored() => {
                self.left.remove(&ticket);
                let left = self.chat.left().iter().find(|left| left.ticket == ticket);
                let text = left.map_or(String::new(), |left| beginning(&left.text));
                let why = safe::one_line(&failure.to_string());
                let not = not_said(&failure);
                self.line(alarm(format!("{not}, from last time: {why} (\"{text}\")")));
            }
            Event::Failed { ticket, failure } => {
                if let Some(own) = self.sent.remove(&ticket) {
                    self.refused(own, &failure);
                }
            }
            Event::RoomClosed(closed) => {
                self.gone(closed.room);
                self.line(quiet(out::closed_line(&closed)));
            }
            Event::Named { nick, taken: Some(taken) } => {
                let (nick, taken) = (safe::one_line(&nick), safe::one_line(&taken));
                self.line(quiet(format!("somebody else is called {taken}: you are {nick}")));
            }
            Event::Named { taken: None, .. } => {}
            // The mark in front of a message says how safe it is.
            Event::Kept(_) => {}
            Event::Unkept(why) => {
                let why = safe::one_line(&why);
                self.line(alarm(format!("what you say is no longer kept in a file: {why}")));
            }
            Event::Notice(text) => self.line(quiet(safe::one_line(&text))),
            Event::Lost { server, why } => self.lost = Some((server.to_string(), why)),
            Event::Attached(attached) => self.on_attached(&attached),
            // The prompt says that there is no server.
            Event::Unreachable { .. } => {}
            Event::Ended(why) => {
                if let Some(failure) = why {
                    self.line(alarm(safe::one_line(&failure.to_string())));
                }
                return false;
            }
        }
        true
    }

    fn on_attached(&mut self, attached: &chatty_client::Attached) {
        if let (Some((server, why)), Some(outage)) = (self.lost.take(), attached.outage) {
            let why = safe::one_line(&why.to_string());
            let after = match outage.as_secs_f64() {
                seconds if seconds < 1.0 => String::new(),
                seconds => format!(" after {seconds:.1} s"),
            };
            let next = &attached.server;
            self.line(quiet(format!("{server}: {why}; going on at {next}{after}")));
        }
        if let Some(stale) = out::stale_line(attached) {
            self.line(quiet(stale));
        }
    }

    /// Shows late lines if no more come.
    pub fn flush_late(&mut self) {
        if self.late.rests() {
            self.show_late();
        }
    }

    /// Shows late lines now.
    pub fn show_late(&mut self) {
        let lines = self.late.take();
        let head = match lines.len() {
            0 => return,
            1 => "1 earlier message arrived after a disconnect:".to_owned(),
            count => format!("{count} earlier messages arrived after a disconnect:"),
        };
        self.line(quiet(head));
        lines.into_iter().for_each(|line| self.line(line));
    }

    /// Shows a line, or keeps it for those that come late.
    fn arrived(&mut self, late: bool, key: Key, line: Vec<Piece>) {
        if !late {
            self.line(line);
        } else if self.late.keep(key, line) {
            self.show_late();
        }
    }

    fn on_message(&mut self, said: &Message) {
        self.remember(&said.nick);
        let me = self.chat.state().account;
        if me == Some(said.account) && self.is_echo(said) {
            return;
        }
        let place = self.place_of(said);
        self.arrived(said.late, said.key, message(said, self.offset_minutes, place));
    }

    /// Whether it is an own message that was shown when it was said.
    fn is_echo(&mut self, said: &Message) -> bool {
        let is_same = |echo: &Echo| {
            echo.text == said.text
                && match (&echo.to, &said.to) {
                    (Target::Room(room), None) => RoomId::public(room) == said.room_id,
                    (Target::Nick(_) | Target::Account(_), Some(_)) => true,
                    _ => false,
                }
        };
        let found = self.echoes.iter().position(is_same);
        found.and_then(|at| self.echoes.remove(at)).is_some()
    }

    fn place_of(&self, said: &Message) -> Place {
        let in_front = match (&self.target, &said.to) {
            (Some(Target::Room(room)), None) => RoomId::public(room) == said.room_id,
            _ => false,
        };
        if in_front { Place::Hidden } else { Place::Shown }
    }

    fn on_happening(&mut self, happening: &Happening) {
        self.remember(&happening.nick);
        // Whoever is put out himself is told by the closing of the room.
        let me = self.chat.state().account;
        if matches!(&happening.what, What::Kicked { account, .. } if me == Some(*account)) {
            return;
        }
        let line = quiet(out::happening_line(happening));
        self.arrived(happening.late, happening.key, line);
    }

    fn on_state(&mut self, state: &MessageState) {
        if state.ticket.is_restored() {
            self.left.remove(&state.ticket);
            return;
        }
        let Some(own) = self.sent.get(&state.ticket).copied() else {
            self.early.insert(state.ticket, state.clone());
            return;
        };
        self.unanswered.remove(&own);
        let mark = match state.level {
            Level::Stored => Mark::Stored,
            Level::Replicated => {
                self.sent.remove(&state.ticket);
                Mark::Replicated
            }
        };
        self.shows.push_back(Show::Mark(own, mark));
    }

    fn refused(&mut self, own: Own, failure: &Failure) {
        self.unanswered.remove(&own);
        let text = self
            .echoes
            .iter()
            .position(|echo| echo.own == own)
            .and_then(|at| self.echoes.remove(at))
            .map_or(String::new(), |echo| format!(" (\"{}\")", beginning(&echo.text)));
        self.shows.push_back(Show::Mark(own, Mark::Refused));
        let why = safe::one_line(&failure.to_string());
        let not = not_said(failure);
        self.line(alarm(format!("{not}: {why}{text}")));
    }
}

/// What a failure says of a message.
const fn not_said(failure: &Failure) -> &'static str {
    if failure.is_certain() { "not said" } else { "perhaps not said" }
}

/// The first words of a text.
fn beginning(text: &str) -> String {
    let text = safe::one_line(text);
    match text.char_indices().nth(30) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

/// Whether a line names its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Shown,
    Hidden,
}

fn message(said: &Message, offset_minutes: i64, place: Place) -> Vec<Piece> {
    let mut line = vec![Piece::new(QUIET, out::time_of_day(said.time_ms, offset_minutes) + " ")];
    if place == Place::Shown {
        line.push(Piece::new("36", format!("{} ", safe::one_line(&said.room))));
    }
    line.push(name(&said.nick));
    line.push(Piece::new("", format!(": {}", safe::one_line(&said.text))));
    line
}

async fn say_in_order(
    chat: Chat,
    mut typed: mpsc::UnboundedReceiver<(Own, Target, String)>,
    to: mpsc::UnboundedSender<Outcome>,
) {
    while let Some((own, target, text)) = typed.recv().await {
        let submitted = chat.submit(target, &text, Level::Stored).await;
        if to.send(Outcome::Submitted(own, submitted)).is_err() {
            return;
        }
    }
}

async fn rooms(chat: &Chat) -> Result<Vec<Vec<Piece>>, Failure> {
    let rooms = chat.rooms().await?;
    if rooms.is_empty() {
        return Ok(vec![quiet("there are no rooms yet: /join ROOM makes one")]);
    }
    let line = |room: chatty_core::session::RoomInfo| {
        let people = out::count(room.participants.into(), "person", "people");
        let counts = format!("  {people}, {}", out::messages(room.messages));
        let topic = match room.topic.as_str() {
            "" => String::new(),
            topic => format!("  {}", safe::one_line(topic)),
        };
        let room = Piece::new("36", safe::one_line(&room.name));
        vec![room, Piece::new(QUIET, counts), Piece::new("", topic)]
    };
    Ok(rooms.into_iter().map(line).collect())
}

async fn who(chat: &Chat, room: &str) -> Result<Vec<Vec<Piece>>, Failure> {
    let people = chat.who(room).await?;
    if people.is_empty() {
        return Ok(vec![quiet(format!("nobody is in {}", safe::one_line(room)))]);
    }
    let line = |person: chatty_core::session::Participant| {
        let servers: Vec<_> = person.servers.iter().map(ToString::to_string).collect();
        let place = if servers.is_empty() { "away".to_owned() } else { servers.join(", ") };
        let rank = match person.rank {
            Rank::Member => String::new(),
            rank => format!(" ({rank})"),
        };
        vec![name(&person.nick), Piece::new("", rank), Piece::new(QUIET, format!("  {place}"))]
    };
    Ok(people.into_iter().map(line).collect())
}

async fn status(cluster: &Cluster) -> Vec<Vec<Piece>> {
    let texts = crate::status::texts(cluster).await;
    texts.iter().flat_map(|text| text.lines()).map(|line| vec![Piece::new("", line)]).collect()
}

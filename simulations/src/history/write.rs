//! A history as text, a line for each operation, for whoever looks into a failed run.

use std::fmt;

use chatty_core::session::Level;
use chatty_core::time::Time;

use super::{Did, History, Op, Shown, State, Subject, What};

/// Seconds since the run began.
pub(super) fn seconds(at: Time) -> String {
    let micros = at.as_micros();
    format!("{}.{:06} s", micros / 1_000_000, micros % 1_000_000)
}

/// What a session did or heard, as words.
struct Words<'a>(&'a History, &'a Did);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_did(f, self.1)
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Op { at, what } in &self.ops {
            write!(f, "{} ", seconds(*at))?;
            self.write_what(f, what)?;
        }
        Ok(())
    }
}

impl History {
    fn server_name(&self, server: usize) -> &str {
        self.servers.get(server).map_or("?", String::as_str)
    }

    fn room_name(&self, room: chatty_core::id::RoomId) -> String {
        self.rooms.get(&room).cloned().unwrap_or_else(|| room.to_string())
    }

    /// What may be set, in words.
    pub(super) fn subject(&self, subject: Subject) -> String {
        match subject {
            Subject::Topic(room) => format!("the topic of {}", self.room_name(room)),
            Subject::Nick(account) => format!("the name of {account}"),
        }
    }

    /// What a session did or heard, in words.
    pub fn words(&self, did: &Did) -> String {
        Words(self, did).to_string().trim_end().to_string()
    }

    fn write_what(&self, f: &mut fmt::Formatter<'_>, what: &What) -> fmt::Result {
        match what {
            What::Client(session, did) => {
                write!(f, "{}: ", self.sessions.get(*session).map_or("?", String::as_str))?;
                self.write_did(f, did)
            }
            What::Cut(sides) => {
                let side = |side: &std::collections::BTreeSet<usize>| {
                    let names: Vec<_> = side.iter().map(|s| self.server_name(*s)).collect();
                    names.join(" ")
                };
                writeln!(f, "cut: {}", sides.iter().map(side).collect::<Vec<_>>().join(" | "))
            }
            What::Healed => writeln!(f, "healed"),
            What::Down(server) => writeln!(f, "{} is down", self.server_name(*server)),
            What::Up(server) => writeln!(f, "{} was started", self.server_name(*server)),
            What::DiskLost(server) => writeln!(f, "{} lost its disk", self.server_name(*server)),
            What::Final(server, room, lines) => {
                let (server, room) = (self.server_name(*server), self.room_name(*room));
                writeln!(f, "the final timeline of {room} on {server}, {} messages", lines.len())?;
                lines.iter().try_for_each(|line| writeln!(f, "  {}", words(line)))
            }
            What::State(server, room, State { topic, members }) => {
                let (server, room) = (self.server_name(*server), self.room_name(*room));
                let who = |(account, nick): (&_, &String)| format!("{nick} ({account})");
                let members: Vec<_> = members.iter().map(who).collect();
                writeln!(f, "{room} on {server}: topic {topic:?}, with {}", members.join(", "))
            }
        }
    }

    fn write_did(&self, f: &mut fmt::Formatter<'_>, did: &Did) -> fmt::Result {
        match did {
            Did::Attached { account, server, stale } => {
                write!(f, "attached to {} as {account}", self.server_name(*server))?;
                for origin in stale {
                    write!(f, ", stale in {origin}")?;
                }
                writeln!(f)
            }
            Did::Lost => writeln!(f, "lost its server"),
            Did::Opened { room, .. } => writeln!(f, "opened {}", self.room_name(*room)),
            Did::Closed(room) => writeln!(f, "is out of {}", self.room_name(*room)),
            Did::Sets { subject, value } => {
                writeln!(f, "sets {} to {value:?}", self.subject(*subject))
            }
            Did::Changed { subject, value, key } => {
                writeln!(f, "learns that {} is {value:?} since {key}", self.subject(*subject))
            }
            Did::Sent { ticket, room } => {
                writeln!(f, "sends {ticket} to {}", self.room_name(*room))
            }
            Did::Answered { ticket, mid, key, level, server } => {
                let level = match level {
                    Level::Stored => "stored",
                    Level::Replicated => "replicated",
                };
                write!(f, "{ticket} is {level}, says {}: {mid}", self.server_name(*server))?;
                match key {
                    Some(key) => writeln!(f, " at {key}"),
                    None => writeln!(f),
                }
            }
            Did::Refused { ticket, why } => writeln!(f, "{ticket} is refused: {why}"),
            Did::Doubted { ticket, why } => writeln!(f, "{ticket} may have happened: {why}"),
            Did::Saw { room, line, late } => {
                let late = if *late { ", late" } else { "" };
                writeln!(f, "is shown in {}{late}: {}", self.room_name(*room), words(line))
            }
            Did::Read { room, asked, before, lines, more, complete } => {
                write!(f, "reads {} (asked at {}", self.room_name(*room), seconds(*asked))?;
                if let Some(before) = before {
                    write!(f, ", before {before}")?;
                }
                let ends = |line: Option<&Shown>| line.map_or_else(String::new, words);
                let (first, last) = (ends(lines.first()), ends(lines.last()));
                let more = if *more { "there is more" } else { "from the beginning" };
                let complete = if *complete { "complete" } else { "perhaps not complete" };
                writeln!(f, "): {} messages, {complete}, {more}, {first} to {last}", lines.len())
            }
            Did::Joined { room, account, key } => {
                writeln!(f, "learns that {account} joined {} at {key}", self.room_name(*room))
            }
            Did::Kicked { room, account, key } => {
                writeln!(
                    f,
                    "learns that {account} was kicked from {} at {key}",
                    self.room_name(*room)
                )
            }
            Did::Ended => writeln!(f, "ended"),
        }
    }
}

fn words(line: &Shown) -> String {
    format!("{} {} of {} ({:016x})", line.key, line.mid, line.account, line.body)
}

//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use chatty_client::{Cluster, Direct, IdentityAt, Level, Options, OutboxAt, Start};
use clap::{Parser, Subcommand, ValueEnum};

use crate::Trouble;

/// Talk with people on a chatty cluster. Without a command: a session in this terminal.
#[derive(Debug, Parser)]
#[command(name = "chatty", version, max_term_width = 100)]
pub struct Args {
    /// The cluster: a folder made by `scripts/cluster up`, or a chatty:// URL.
    #[arg(
        long,
        global = true,
        value_name = "DIR|URL",
        env = "CHATTY_CLUSTER",
        default_value = ".chatty"
    )]
    cluster: String,

    /// The server to begin with, or of those commands that ask one server (`history`, `rooms`,
    /// `who`) the one that answers; `status` and `verify` ask all.
    #[arg(long, global = true, value_name = "NAME|ADDR")]
    pub server: Option<String>,

    /// Who you are: finds your account, and names a new one (else $CHATTY_NICK, else the login).
    #[arg(long, global = true)]
    nick: Option<String>,

    /// The file that keeps the account (else one for each cluster and nick in the state folder).
    #[arg(long, global = true, value_name = "FILE")]
    identity: Option<PathBuf>,

    /// The file that keeps what is said until it is replicated: what a crash cuts short is said at
    /// the next start. Only for `send`, `dm` and the session in the terminal, which has one by itself.
    #[arg(long, global = true, value_name = "FILE")]
    state: Option<PathBuf>,

    /// Write one JSON object a line (see docs/client.md).
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join a room for good.
    Join {
        /// The room's name.
        room: String,
        /// Show so many of its last messages.
        #[arg(long, value_name = "X", default_value_t = 0)]
        last: u64,
    },
    /// Leave a room.
    Leave {
        /// The room's name.
        room: String,
    },
    /// Go by another name.
    Nick {
        /// The new name.
        #[arg(value_name = "NEW")]
        new: String,
    },
    /// Say something in a room.
    Send {
        /// The room's name, or @ and somebody's nick.
        room: String,
        /// What to say (after `--` if it begins with a dash).
        #[arg(required_unless_present = "stdin", conflicts_with = "stdin")]
        text: Option<String>,
        /// Say each line of standard input.
        #[arg(long)]
        stdin: bool,
        /// How safe a message must be before its first receipt.
        #[arg(long, value_enum, default_value_t = Safety::Replicated)]
        level: Safety,
    },
    /// Say something to one person.
    Dm {
        /// Whom, by his nick.
        #[arg(value_name = "NICK")]
        whom: String,
        /// What to say (after `--` if it begins with a dash).
        text: String,
    },
    /// Show what happens in rooms, and direct messages.
    Tail {
        /// Their names.
        #[arg(required = true, value_name = "ROOM")]
        rooms: Vec<String>,
        /// Begin with so many of the last messages of each room.
        #[arg(long, value_name = "X", default_value_t = 0)]
        last: u64,
        /// End after so many seconds without anything to show.
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        until_idle: Option<Duration>,
    },
    /// Show the last messages of a room, or of a conversation (@NICK).
    History {
        /// The room's name, or @ and the nick of somebody you talk with.
        #[arg(value_name = "ROOM|@NICK")]
        room: String,
        /// How many; more than there are shows all.
        #[arg(long, value_name = "X", default_value_t = 50)]
        last: u64,
    },
    /// List the rooms.
    Rooms,
    /// List who takes part in a room, and at which servers.
    Who {
        /// The room's name.
        room: String,
    },
    /// Put somebody out of a room.
    Kick {
        /// The room's name.
        room: String,
        /// Whom, by his nick.
        #[arg(value_name = "NICK")]
        whom: String,
        /// Why: told to everybody there.
        reason: Option<String>,
    },
    /// Make somebody op of a room.
    Op {
        /// The room's name.
        room: String,
        /// Whom, by his nick.
        #[arg(value_name = "NICK")]
        whom: String,
    },
    /// Take op from somebody.
    Deop {
        /// The room's name.
        room: String,
        /// Whom, by his nick.
        #[arg(value_name = "NICK")]
        whom: String,
    },
    /// Show a room's topic, or set it.
    Topic {
        /// The room's name.
        room: String,
        /// The new topic ("" clears it).
        text: Option<String>,
    },
    /// Say how long a room's messages are kept; older ones are erased on every server.
    Keep {
        /// The room's name.
        room: String,
        /// The messages of so many days.
        #[arg(long)]
        days: Option<u64>,
        /// The newest so many messages (a few more may be there for a while).
        #[arg(long)]
        messages: Option<u64>,
        /// Everything.
        #[arg(long, conflicts_with_all = ["days", "messages"], required_unless_present_any = ["days", "messages"])]
        forever: bool,
    },
    /// Show every server of the cluster.
    Status,
    /// Read every server's disk again and check it, and compare what the servers show.
    Verify,
    /// Measure the cluster, and check every delivery.
    Bench(crate::bench::Plan),
}

/// See [`Level`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Safety {
    /// On one server's disk.
    Stored,
    /// On a majority of the servers' disks.
    Replicated,
}

impl From<Safety> for Level {
    fn from(safety: Safety) -> Self {
        match safety {
            Safety::Stored => Self::Stored,
            Safety::Replicated => Self::Replicated,
        }
    }
}

pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a number of seconds".to_owned())
}

/// Where a command's answers may come from when `--server` is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// It begins there and moves when it must.
    Anywhere,
    /// From that server alone, which is waited for.
    ThatServer,
}

impl Args {
    pub fn cluster(&self) -> Result<Cluster, Trouble> {
        let cluster = Cluster::open(&self.cluster)?;
        if let Some(server) = &self.server {
            cluster.address_of(server)?;
        }
        Ok(cluster)
    }

    pub fn options(&self, answers: Answers, patience: Duration) -> Result<Options, Trouble> {
        if let Some(nick) = &self.nick {
            chatty_core::session::check_nick(nick).map_err(Trouble::Usage)?;
        }
        let start = match (&self.server, answers) {
            (None, _) => Start::Anywhere,
            (Some(server), Answers::Anywhere) => Start::At(server.clone()),
            (Some(server), Answers::ThatServer) => Start::Only(server.clone()),
        };
        let identity = match &self.identity {
            Some(file) => IdentityAt::File(file.clone()),
            None => IdentityAt::StateFolder,
        };
        let outbox = self.outbox()?;
        let nick = self.nick.clone();
        Ok(Options { nick, identity, start, outbox, direct: Direct::Ignore, patience })
    }

    /// Where what is said is kept.
    ///
    /// # Errors
    /// `--state` with a command that says nothing.
    pub fn outbox(&self) -> Result<OutboxAt, Trouble> {
        match (&self.state, &self.command) {
            (Some(file), None | Some(Command::Send { .. } | Command::Dm { .. })) => {
                Ok(OutboxAt::File(file.clone()))
            }
            (Some(_), Some(_)) => {
                let why = "--state is for send, dm and the session in the terminal";
                Err(Trouble::Usage(why.into()))
            }
            (None, None) => Ok(OutboxAt::BesideIdentity),
            (None, Some(_)) => Ok(OutboxAt::Nowhere),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn options_stand_before_or_after_the_command() {
        for line in [
            "chatty --json --nick ann --server s1 send lobby hi",
            "chatty send lobby hi --json --nick ann --server s1",
            "chatty send --json lobby --nick ann hi --server s1",
        ] {
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            assert!(args.json && args.nick.as_deref() == Some("ann"), "{line}");
            assert!(matches!(args.command, Some(Command::Send { text: Some(_), .. })));
        }
    }

    #[test]
    fn a_nick_to_act_upon_is_not_the_nick_one_goes_by() {
        for line in ["nick bob", "dm bob hi", "kick lobby bob", "op lobby bob", "deop lobby bob"] {
            let line = format!("chatty --nick ann {line}");
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(args.nick.as_deref(), Some("ann"), "{line}");
        }
    }

    #[test]
    fn an_outbox_is_for_commands_that_say_something() {
        let outbox = |line: &str| {
            Args::try_parse_from(format!("chatty --state F {line}").split_whitespace())
                .unwrap()
                .outbox()
        };
        for line in ["", "send lobby hi", "dm bob hi"] {
            assert!(matches!(outbox(line), Ok(OutboxAt::File(_))), "{line}");
        }
        for line in ["status", "verify", "bench", "rooms", "who lobby", "tail lobby", "join lobby"]
        {
            assert!(matches!(outbox(line), Err(Trouble::Usage(_))), "{line}");
        }
    }

    #[test]
    fn every_argument_says_what_it_is() {
        for command in Args::command().get_subcommands() {
            for argument in command.get_arguments() {
                let name = (command.get_name(), argument.get_id());
                assert!(argument.get_help().is_some(), "{name:?} has no help");
            }
        }
    }

    #[test]
    fn a_text_and_stdin_exclude_each_other_and_one_is_needed() {
        for line in ["chatty send lobby", "chatty send lobby hi --stdin", "chatty tail"] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}

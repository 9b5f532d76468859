//! What is read from every server in the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chatty_client::{Chat, Cluster, Events, IdentityAt, Options, Start, Target};
use chatty_core::id::{AccountId, RoomId};
use chatty_core::time::Key;
use chatty_simulations::history::{Shown, State};

use super::pen::shown_on;

/// A server at rest answers at once; one that does not is a finding.
const READ_PATIENCE: Duration = Duration::from_secs(10);
/// The pages of a whole timeline.
const PAGE_LINES: u32 = 500;

/// A timeline, and who may read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// What it is called.
    pub name: String,
    /// Its room.
    pub room: RoomId,
    /// What its reader asks for.
    pub of: Target,
    /// Where the reader's account is.
    pub reader: PathBuf,
}

impl Timeline {
    /// A room that everybody may read.
    pub fn public(name: &str, accounts: &Path) -> Self {
        let (room, of) = (RoomId::public(name), Target::Room(name.into()));
        Self { name: name.into(), room, of, reader: accounts.join("reader.id") }
    }
}

async fn attach(cluster: &Cluster, server: &str, reader: &Path) -> Result<(Chat, Events), String> {
    let options = Options {
        identity: IdentityAt::File(reader.into()),
        start: Start::Only(server.to_owned()),
        patience: READ_PATIENCE,
        ..Options::default()
    };
    Chat::connect(cluster, options).await.map_err(|error| failed(server, &error))
}

fn failed(server: &str, error: &dyn std::fmt::Display) -> String {
    format!("reading from {server}: {error}")
}

/// Timelines as one server has them, oldest first.
///
/// # Errors
/// Why they cannot be read.
pub async fn read(
    cluster: &Cluster,
    server: &str,
    timelines: &[Timeline],
) -> Result<Vec<Vec<Shown>>, String> {
    let mut all = Vec::new();
    for of_reader in timelines.chunk_by(|one, next| one.reader == next.reader) {
        let Some(first) = of_reader.first() else { continue };
        let (chat, _events) = attach(cluster, server, &first.reader).await?;
        for timeline in of_reader {
            let lines = whole(&chat, &timeline.of).await;
            all.push(lines.map_err(|error| failed(server, &error))?);
        }
        chat.leave_cluster().await;
    }
    Ok(all)
}

async fn whole(chat: &Chat, of: &Target) -> Result<Vec<Shown>, chatty_client::Failure> {
    let mut pages: Vec<Vec<Shown>> = Vec::new();
    let mut before: Option<Key> = None;
    loop {
        let page = chat.page(of.clone(), before, PAGE_LINES).await?;
        before = page.lines.first().map(|line| line.key());
        pages.push(shown_on(&page));
        if !page.more || before.is_none() {
            break;
        }
    }
    Ok(pages.into_iter().rev().flatten().collect())
}

/// A room's topic and members as one server has them.
///
/// # Errors
/// Why they cannot be read.
pub async fn state(
    cluster: &Cluster,
    server: &str,
    room: &str,
    reader: &Path,
) -> Result<State, String> {
    let (chat, _events) = attach(cluster, server, reader).await?;
    let topic = chat.topic(room, None).await.map_err(|error| failed(server, &error))?;
    let people = chat.who(room).await.map_err(|error| failed(server, &error))?;
    chat.leave_cluster().await;
    let members: Vec<(AccountId, String)> = people
        .into_iter()
        .filter(|person| person.member)
        .map(|person| (person.account, person.nick))
        .collect();
    Ok(State { topic, members: members.into_iter().collect() })
}

//! Commands that ask one thing and print the answer.

use std::time::Duration;

use chatty_client::{Chat, Cluster, ConnectError, Event, Events, Message, Target, safe};
use chatty_core::event::{Rank, Retention};
use chatty_core::session::RoomOpened;

use crate::Trouble;
use crate::args::{Answers, Args};
use crate::objects::{DoneObject, PersonObject, RoomObject};
use crate::out::{self, Out};

/// A command waits so long for a server, and for its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// As long as the contract says when one server alone may answer.
const PATIENCE_PINNED: Duration = Duration::from_secs(30);

/// Attaches, with troubles told on standard error.
pub async fn connect(args: &Args, cluster: &Cluster, answers: Answers) -> Result<Chat, Trouble> {
    let pinned = answers == Answers::ThatServer && args.server.is_some();
    let patience = if pinned { PATIENCE_PINNED } else { PATIENCE };
    let (chat, events) = Chat::start(cluster, args.options(answers, patience)?).await?;
    tokio::spawn(note_all(events));
    match (chat.attached().await, &args.server) {
        (Ok(()), _) => Ok(chat),
        (Err(ConnectError::NoServer(troubles)), Some(server)) if pinned => {
            let seconds = patience.as_secs();
            Err(Trouble::Say(format!("{server} was not ready within {seconds} s{troubles}")))
        }
        (Err(error), _) => Err(error.into()),
    }
}

async fn note_all(mut events: Events) {
    while let Some(event) = events.next().await {
        // A name that is taken comes back in the answer of `nick`, too: said there.
        out::note_event(&event);
        if matches!(event, Event::Ended(_)) {
            return;
        }
    }
}

/// The last lines of a room just opened: those that came with it and, when these are fewer than
/// asked for (a server gives so many lines and bytes at once), those before.
pub async fn last_messages(
    chat: &Chat,
    opened: &RoomOpened,
    last: u64,
) -> Result<Vec<Message>, Trouble> {
    let me = chat.state().account.unwrap_or_default();
    let room = opened.room.name.as_str();
    let read = |line| Message::of(line, false, Some(room), me);
    let messages: Vec<_> = opened.lines.iter().filter_map(read).collect();
    if messages.is_empty() || messages.len() as u64 >= last {
        return Ok(messages);
    }
    let newest = messages.last().map(|message| message.key);
    let history = chat.history(Target::Room(room.to_owned()), last).await?;
    let old = |message: &Message| newest.is_none_or(|newest| message.key <= newest);
    Ok(history.messages.into_iter().filter(old).collect())
}

pub async fn join(
    args: &Args,
    cluster: &Cluster,
    out: Out,
    room: &str,
    last: u64,
) -> Result<(), Trouble> {
    let chat = connect(args, cluster, Answers::Anywhere).await?;
    let opened = chat.join(room, u32::try_from(last).unwrap_or(u32::MAX)).await?;
    for message in last_messages(&chat, &opened, last).await? {
        out.message(&message)?;
    }
    out::note_complete(opened.complete, &opened.unreachable);
    let (room, topic) = (opened.room.name.as_str(), opened.room.topic.as_str());
    let object =
        DoneObject { kind: "joined", room: Some(room), topic: Some(topic), ..Default::default() };
    out.put(&object, |_| match topic {
        "" => format!("joined {}", safe::one_line(room)),
        topic => format!("joined {}: {}", safe::one_line(room), safe::one_line(topic)),
    })?;
    chat.leave_cluster().await;
    Ok(())
}

pub async fn leave(args: &Args, cluster: &Cluster, out: Out, room: &str) -> Result<(), Trouble> {
    let chat = connect(args, cluster, Answers::Anywhere).await?;
    let room = &chat.room_name(room).await?;
    chat.leave(room).await?;
    let object = DoneObject { kind: "left", room: Some(room), ..Default::default() };
    out.put(&object, |_| format!("left {}", safe::one_line(room)))?;
    chat.leave_cluster().await;
    Ok(())
}

pub async fn nick(args: &Args, cluster: &Cluster, out: Out, nick: &str) -> Result<(), Trouble> {
    let chat = connect(args, cluster, Answers::Anywhere).await?;
    let named = chat.nick(nick).await?;
    let taken = named.taken.as_deref();
    let object = DoneObject { kind: "nick", nick: Some(&named.nick), taken, ..Default::default() };
    let name = safe::one_line(&named.nick);
    out.put(&object, |_| match taken {
        None => format!("you are {name}"),
        Some(taken) => {
            format!("somebody else is called {}: you are {name}", safe::one_line(taken))
        }
    })?;
    chat.leave_cluster().await;
    Ok(())
}

/// A room, or `@nick` for the direct messages with somebody.
pub fn target(room: &str) -> Result<Target, Trouble> {
    match room.strip_prefix('@') {
        Some(nick) => Ok(Target::Nick(nick.to_owned())),
        None => {
            chatty_core::session::check_room(room).map_err(Trouble::Say)?;
            Ok(Target::Room(room.to_owned()))
        }
    }
}

pub async fn history(
    args: &Args,
    cluster: &Cluster,
    out: Out,
    room: &str,
    last: u64,
) -> Result<(), Trouble> {
    let of = target(room)?;
    let chat = connect(args, cluster, Answers::ThatServer).await?;
    let history = chat.history(of, last).await?;
    for message in &history.messages {
        out.message(message)?;
    }
    out::note_complete(history.complete, &history.unreachable);
    chat.leave_cluster().await;
    Ok(())
}

pub async fn rooms(args: &Args, cluster: &Cluster, out: Out) -> Result<(), Trouble> {
    let chat = connect(args, cluster, Answers::ThatServer).await?;
    for room in chat.rooms().await? {
        out.put(&RoomObject::of(&room), |paint| {
            let name = safe::one_line(&room.name);
            let topic = match safe::one_line(&room.topic) {
                topic if topic.is_empty() => topic,
                topic => paint.quiet(&format!("  {topic}")),
            };
            let (people, messages) = (room.participants, room.messages);
            let person = if people == 1 { "person" } else { "people" };
            let message = if messages == 1 { "message" } else { "messages" };
            format!("{name:<20} {people:>5} {person} {messages:>8} {message}{topic}")
        })?;
    }
    chat.leave_cluster().await;
    Ok(())
}

pub async fn who(args: &Args, cluster: &Cluster, out: Out, room: &str) -> Result<(), Trouble> {
    let chat = connect(args, cluster, Answers::ThatServer).await?;
    let room = &chat.room_name(room).await?;
    for person in chat.who(room).await? {
        out.put(&PersonObject::of(room, &person), |paint| {
            let nick = safe::one_line(&person.nick);
            let servers: Vec<_> = person.servers.iter().map(|slot| slot.as_str()).collect();
            let place = if servers.is_empty() { "away".to_owned() } else { servers.join(", ") };
            let rank = match (person.rank, person.member) {
                (Rank::Member, false) => "watching".to_owned(),
                (rank, _) => rank.to_string(),
            };
            format!("{nick:<20} {rank:<8} {}", paint.quiet(&place))
        })?;
    }
    chat.leave_cluster().await;
    Ok(())
}

pub async fn kick(
    args: &Args,
    cluster: &Cluster,
    out: Out,
    room: &str,
    nick: &str,
    reason: Option<&str>,
) -> Result<(), Trouble> {
    let chat = connect(args, cluster, Answers::Anywhere).await?;
    let room = &chat.room_name(room).await?;
    chat.kick(room, nick, reason.unwrap_or_default()).await?;
    let object = DoneObject {
        kind: "kicked",
        room: Some(room),
        nick: Some(nick),
        reason,
        ..Default::default()
    };
    out.put(&object, |_| {
        format!("kicked {} out of {}", safe::one_line(nick), safe::one_line(room))
    })?;
    chat.leave_cluster().await;
    Ok(())
}

pub async fn role(
    args: &Args,
    cluster: &Cluster,
    out: Out,
    room: &str,
    nick: &str,
    rank: Rank,
) -> Result<(), Trouble> {
    let chat = connect(args, cluster, Answers::Anywhere).await?;
    let room = &chat.room_name(room).await?;
    chat.role(room, nick, rank).await?;
    let object = DoneObject {
        kind: "role",
        room: Some(room),
        nick: Some(nick),
        rank: Some(rank.to_string()),
        ..Default::default()
    };
    out.put(&object, |_| {
        format!("{} is now {rank} of {}", safe::one_line(nick), safe::one_line(room))
    })?;
    chat.leave_cluster().await;
    Ok(())
}

pub async fn keep(
    args: &Args,
    cluster: &Cluster,
    out: Out,
    room: &str,
    days: Option<u64>,
    messages: Option<u64>,
) -> Result<(), Trouble> {
    let age_ms = days.unwrap_or(0).saturating_mul(86_400_000);
    let keep = Retention { age_ms, messages: messages.unwrap_or(0) };
    let chat = connect(args, cluster, Answers::Anywhere).await?;
    chat.keep(room, keep).await?;
    let object = DoneObject {
        kind: "keep",
        room: Some(room),
        keep: Some(keep.into()),
        ..Default::default()
    };
    out.put(&object, |_| format!("{room} keeps {}", out::kept(keep)))?;
    chat.leave_cluster().await;
    Ok(())
}

pub async fn topic(
    args: &Args,
    cluster: &Cluster,
    out: Out,
    room: &str,
    text: Option<&str>,
) -> Result<(), Trouble> {
    let chat = connect(args, cluster, Answers::Anywhere).await?;
    let room = &chat.room_name(room).await?;
    let topic = chat.topic(room, text).await?;
    let object =
        DoneObject { kind: "topic", room: Some(room), topic: Some(&topic), ..Default::default() };
    out.put(&object, |_| match topic.as_str() {
        "" => format!("{} has no topic", safe::one_line(room)),
        topic => safe::one_line(topic),
    })?;
    chat.leave_cluster().await;
    Ok(())
}

//! What a session is told, as lines to compare.

use std::sync::Arc;

use super::world::World;
use crate::event::{Body, Event};
use crate::id::{AccountId, RoomId, SessionId};
use crate::session::{ClosedWhy, Item, Level, Line, Refused, Request};

impl World {
    /// What a session was told since, in words.
    pub(super) fn heard(&mut self, id: SessionId) -> Vec<String> {
        self.take(id).iter().map(show).collect()
    }

    /// Asks, and tells what everybody else was told in answer: only the asker's.
    pub(super) fn asks(&mut self, id: SessionId, ask: impl FnOnce(u64) -> Request) -> Vec<String> {
        let request = self.request();
        self.ask(id, ask(request.0));
        self.heard(id)
    }
}

fn body(event: &Event) -> String {
    match event.body() {
        Some(Body::Msg(msg)) => format!("{}: {}", msg.nick, msg.text),
        Some(Body::Direct(msg)) => format!("{} to {}: {}", msg.nick, msg.to_nick, msg.text),
        Some(Body::Join(join)) => format!("{} joins", join.nick),
        Some(Body::Leave(leave)) => format!("{} leaves", leave.nick),
        Some(Body::Kick(kick)) => {
            format!("{} kicks {}: {}", kick.nick, kick.account_nick, kick.reason)
        }
        Some(Body::Role(role)) => {
            format!("{} makes {} {}", role.nick, role.account_nick, role.role)
        }
        Some(Body::Topic(topic)) => format!("{} sets the topic: {}", topic.nick, topic.text),
        Some(Body::Keep(keep)) => format!("{} keeps {:?}", keep.nick, keep.keep),
        Some(Body::Nick(nick)) => format!("{} is {} now", nick.before, nick.nick),
        other => format!("{other:?}"),
    }
}

pub(super) fn lines(lines: &[Line]) -> String {
    lines.iter().map(|line| body(&line.event)).collect::<Vec<_>>().join(" | ")
}

fn words(item: &Item) -> String {
    match item {
        Item::Welcome(welcome) => format!("welcome {}", welcome.nick),
        Item::Refused(Refused { code, reason, retry_ms, .. }) => match retry_ms {
            0 => format!("{code:?}: {reason}"),
            ms => format!("{code:?} for {ms} ms: {reason}"),
        },
        Item::Done(_) => "done".into(),
        Item::Sent(sent) => {
            let level = if sent.level == Level::Stored { "stored" } else { "replicated" };
            format!("{level} on {}", sent.replicas)
        }
        Item::Replicated(told) => {
            format!("replicated: {:?}", told.mids.iter().map(|(_, n)| n).collect::<Vec<_>>())
        }
        Item::RoomOpened(opened) => {
            let complete = if opened.complete { "" } else { ", not complete" };
            format!("open {}: {}{complete}", opened.room.name, lines(&opened.lines))
        }
        Item::RoomClosed(closed) => match &closed.why {
            ClosedWhy::Kicked { by, reason } => format!("out of {}: {by}, {reason}", closed.name),
            ClosedWhy::Left => format!("left {}", closed.name),
        },
        Item::Event(shown) => {
            let late = if shown.late { "late " } else { "" };
            format!("{late}{}", body(&shown.line.event))
        }
        Item::Moved(moved) => format!("moved {}", body(&moved.shown.line.event)),
        Item::Page(page) => {
            let more = if page.more { ", more" } else { "" };
            let complete = if page.complete { "" } else { ", not complete" };
            format!("page {}{more}{complete}", lines(&page.lines))
        }
        Item::Rooms(list) => {
            let rooms = list.rooms.iter().map(|room| {
                format!(
                    "{} ({}) {} people {} messages",
                    room.name, room.topic, room.participants, room.messages
                )
            });
            format!("rooms {}", rooms.collect::<Vec<_>>().join(", "))
        }
        Item::Participants(list) => {
            let people = list.people.iter().map(|who| {
                let member = if who.member { "" } else { " watching" };
                let servers: Vec<&str> = who.servers.iter().map(|slot| slot.as_str()).collect();
                format!("{} {}{member} at {}", who.nick, who.rank, servers.join("+"))
            });
            let mut people: Vec<String> = people.collect();
            people.sort();
            format!("in {}: {}", list.room, people.join(", "))
        }
        Item::Named(named) => match &named.taken {
            Some(taken) => format!("named {}, for {taken} is taken", named.nick),
            None => format!("named {}", named.nick),
        },
        Item::TopicIs(topic) => format!("topic of {}: {}", topic.room, topic.topic),
        Item::Token(_) => "token".into(),
        Item::Gap(gap) => match gap.with {
            Some(_) => "gap with somebody".into(),
            None => format!(
                "gap in {}",
                if gap.room == RoomId::public("lobby") { "lobby" } else { "?" }
            ),
        },
        Item::Leaving(moving) => {
            let servers: Vec<&str> = moving.servers.iter().map(|s| s.name.as_str()).collect();
            format!("leave for {}", servers.join(" "))
        }
        Item::Pong(pong) => format!("pong at {}", pong.clock_ms),
        Item::Status(status) => format!("status {}", status.state),
        Item::Verified(verified) => {
            let end = if verified.done { ", done" } else { "" };
            let damage =
                verified.damage.as_deref().map_or(String::new(), |what| format!(": {what}"));
            format!("verified {} events{end}{damage}", verified.events)
        }
    }
}

fn show(item: &Arc<Item>) -> String {
    match item.request().0 {
        0 => words(item),
        request => format!("#{request} {}", words(item)),
    }
}

/// An account that nobody has.
pub(super) const NOBODY: AccountId = AccountId::new(77);

//! `tail`: what happens in rooms, as it happens.

use std::collections::BTreeSet;
use std::time::Duration;

use chatty_client::{Chat, Cluster, Direct, Event, Events};
use chatty_core::id::RoomId;
use chatty_core::time::Key;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::Trouble;
use crate::args::{Answers, Args};
use crate::commands::last_messages;
use crate::out::{self, Out};

/// Rooms are opened, and reopened at another server, within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// Direct messages shown are reported as shown after at most this.
const MARK_EVERY: Duration = Duration::from_millis(500);

/// Direct messages that were shown and not yet reported.
#[derive(Debug, Default)]
pub struct Marks(Vec<(RoomId, Key)>);

impl Marks {
    pub fn shown(&mut self, room: RoomId, key: Key) {
        self.0.push((room, key));
    }

    /// Reports them in the background; what fails is sent again at the next attach.
    pub fn report(&mut self, chat: &Chat) {
        if !self.0.is_empty() {
            let (chat, shown) = (chat.clone(), std::mem::take(&mut self.0));
            tokio::spawn(async move { chat.mark(&shown).await });
        }
    }

    /// Reports them and waits, before a goodbye.
    pub async fn finish(mut self, chat: &Chat) {
        // They would be shown once more: no reason to fail.
        let _ = chat.mark(&std::mem::take(&mut self.0)).await;
    }
}

/// When nothing has come for long enough.
struct Idle {
    limit: Option<Duration>,
    until: Option<Instant>,
}

impl Idle {
    const fn new(limit: Option<Duration>) -> Self {
        Self { limit, until: None }
    }

    /// Something came.
    fn restart(&mut self) {
        self.until = self.limit.map(|limit| Instant::now() + limit);
    }

    /// Without a server silence says nothing; but it is not waited for without end.
    fn without_server(&mut self) {
        self.until = self.limit.map(|limit| Instant::now() + limit.max(PATIENCE));
    }
}

pub async fn run(
    args: &Args,
    cluster: &Cluster,
    out: Out,
    rooms: &[String],
    last: u64,
    until_idle: Option<Duration>,
) -> Result<(), Trouble> {
    for room in rooms {
        chatty_core::session::check_room(room).map_err(Trouble::Say)?;
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut options = args.options(Answers::Anywhere, PATIENCE)?;
    options.direct = Direct::Take;
    let (chat, mut events) = Chat::connect(cluster, options).await?;
    let mut open = Vec::new();
    // A room named twice, in whatever case of letters, is one room.
    let mut named = BTreeSet::new();
    for room in rooms.iter().filter(|room| named.insert(RoomId::public(room))) {
        let opened = tokio::select! {
            opened = chat.watch(room, u32::try_from(last).unwrap_or(u32::MAX)) => opened?,
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        };
        for message in last_messages(&chat, &opened, last).await? {
            out.message(&message)?;
        }
        out::note_complete(opened.complete, &opened.unreachable);
        open.push(opened.room.id);
    }
    let mut tail = Tail { out, open, marks: Marks::default(), idle: Idle::new(until_idle) };
    tail.idle.restart();
    let ended = tail.follow(&chat, &mut events, &mut interrupt, &mut terminate).await;
    if ended.is_ok() {
        tail.marks.finish(&chat).await;
        chat.leave_cluster().await;
    }
    ended
}

struct Tail {
    out: Out,
    open: Vec<RoomId>,
    marks: Marks,
    idle: Idle,
}

impl Tail {
    async fn follow(
        &mut self,
        chat: &Chat,
        events: &mut Events,
        interrupt: &mut tokio::signal::unix::Signal,
        terminate: &mut tokio::signal::unix::Signal,
    ) -> Result<(), Trouble> {
        let mut mark = tokio::time::interval(MARK_EVERY);
        loop {
            let until = self.idle.until;
            tokio::select! { biased;
                event = events.next() => match event {
                    Some(event) => self.show(event)?,
                    None => return Ok(()),
                },
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                _ = mark.tick() => self.marks.report(chat),
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    return match chat.state().server {
                        Some(_) => Ok(()),
                        None => {
                            let troubles = chat.troubles();
                            Err(Trouble::Say(format!("no server of the cluster answers{troubles}")))
                        }
                    };
                }
            }
        }
    }

    fn show(&mut self, event: Event) -> Result<(), Trouble> {
        match &event {
            Event::Message(message) => self.out.message(message)?,
            Event::Direct(message) => {
                self.out.direct(message)?;
                self.marks.shown(message.room_id, message.key);
            }
            Event::Happened(happening) => self.out.happening(happening)?,
            Event::RoomClosed(closed) => {
                self.out.closed(closed)?;
                self.open.retain(|room| *room != closed.room);
                if self.open.is_empty() {
                    return Err(Trouble::Say(out::closed_line(closed)));
                }
            }
            Event::Lost { .. } => {
                out::note_event(&event);
                self.idle.without_server();
                return Ok(());
            }
            Event::Ended(None) => return Ok(()),
            Event::Ended(Some(failure)) => return Err(Trouble::Say(failure.to_string())),
            Event::Attached(_) => out::note_event(&event),
            Event::Unreachable { .. }
            | Event::State(_)
            | Event::Failed { .. }
            | Event::Kept(_)
            | Event::Unkept(_)
            | Event::Named { .. }
            | Event::Notice(_) => {
                out::note_event(&event);
                return Ok(());
            }
        }
        self.idle.restart();
        Ok(())
    }
}

//! `send` and `dm`: one message, or a message for each line of standard input.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use chatty_client::{
    Chat, Cluster, Event, Events, Failure, Left, Level, MessageState, Target, Ticket,
};
use chatty_core::event::TEXT_BYTES_MAX;
use chatty_core::session::check_text;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::Trouble;
use crate::args::{Answers, Args};
use crate::lines;
use crate::objects::{KeptObject, LeftObject, Receipt, RefusedObject, place};
use crate::out::{self, Out};

/// What is unacknowledged after the end of input is waited for so long.
const PATIENCE: Duration = Duration::from_secs(45);
/// What is acknowledged as stored is waited for so long to be replicated, too.
const REPLICATION_PATIENCE: Duration = Duration::from_secs(3);

async fn start(args: &Args, cluster: &Cluster) -> Result<(Chat, Events), Trouble> {
    Ok(Chat::start(cluster, args.options(Answers::Anywhere, PATIENCE)?).await?)
}

fn put_receipt(out: Out, line: u64, state: &MessageState) -> Result<(), Trouble> {
    out.put(&Receipt::of(line, state), |paint| {
        let ms = state.elapsed.as_secs_f64() * 1e3;
        format!("{line} {} {}", words(state), paint.quiet(&format!("{ms:.1} ms")))
    })
}

fn words(state: &MessageState) -> String {
    match state.level {
        Level::Stored => format!("stored on {} ({} on disk)", state.server, state.replicas),
        Level::Replicated => format!("replicated ({} on disk)", state.replicas),
    }
}

/// What earlier runs left in the outbox, and what becomes of it.
struct Leftover {
    /// Not acknowledged yet.
    open: BTreeMap<Ticket, Left>,
    /// Acknowledged as stored only.
    stored: BTreeMap<Ticket, Left>,
    refused: usize,
}

impl Leftover {
    fn of(chat: &Chat) -> Self {
        let left: Vec<Left> = chat.left().to_vec();
        if !left.is_empty() {
            out::note(&format!("{} sent again from last time", out::messages(left.len() as u64)));
        }
        let open = left.into_iter().map(|left| (left.ticket, left)).collect();
        Self { open, stored: BTreeMap::new(), refused: 0 }
    }

    /// Takes what is told of them; tells whether it was.
    fn on_event(&mut self, out: Out, event: &Event) -> Result<bool, Trouble> {
        match event {
            Event::State(state) if state.ticket.is_restored() => {
                let open = self.open.remove(&state.ticket);
                let Some(left) = open.or_else(|| self.stored.remove(&state.ticket)) else {
                    return Ok(true);
                };
                out.put(&LeftObject::of(&left, state), |_| {
                    let text = chatty_client::safe::one_line(&left.text);
                    format!("from last time: {} {text}", words(state))
                })?;
                if state.level == Level::Stored {
                    self.stored.insert(left.ticket, left);
                }
                Ok(true)
            }
            Event::Failed { ticket, failure } if ticket.is_restored() => {
                if let Some(left) = self.open.remove(ticket) {
                    self.refused += 1;
                    let (text, room) = (&left.text, place(&left.to));
                    out::complain(&format!("from last time, to {room}: {failure} ({text:?})"));
                    out.put_json(&LeftObject::refused(&left, failure))?;
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

async fn say(
    args: &Args,
    cluster: &Cluster,
    out: Out,
    to: Target,
    text: &str,
    level: Level,
) -> Result<(), Trouble> {
    check_text(text).map_err(Trouble::Say)?;
    let (chat, mut events) = start(args, cluster).await?;
    let mut leftover = Leftover::of(&chat);
    let said = chat.say(to, text, level);
    let said = tokio::time::timeout(PATIENCE, said);
    tokio::pin!(said);
    let state = loop {
        tokio::select! {
            said = &mut said => match said {
                Ok(said) => break said?,
                Err(_) => {
                    let troubles = chat.troubles();
                    return Err(Trouble::Say(format!("the message was not acknowledged{troubles}")));
                }
            },
            Some(event) = events.next() => match event {
                Event::Ended(Some(failure)) => return Err(failure.into()),
                event => if !leftover.on_event(out, &event)? {
                    out::note_event(&event);
                },
            },
        }
    };
    put_receipt(out, 1, &state)?;
    let until = Instant::now() + PATIENCE;
    while !leftover.open.is_empty() {
        match tokio::time::timeout_at(until, events.next()).await {
            Ok(Some(event)) if leftover.on_event(out, &event)? => {}
            Ok(Some(event)) => out::note_event(&event),
            Ok(None) | Err(_) => break,
        }
    }
    chat.leave_cluster().await;
    match leftover.open.len() + leftover.refused {
        0 => Ok(()),
        count => Err(Trouble::Say(format!(
            "{} from last time not acknowledged",
            out::messages(count as u64)
        ))),
    }
}

pub async fn one(
    args: &Args,
    cluster: &Cluster,
    out: Out,
    room: &str,
    text: &str,
    level: Level,
) -> Result<(), Trouble> {
    let to = crate::commands::target(room)?;
    say(args, cluster, out, to, text, level).await
}

pub async fn dm(
    args: &Args,
    cluster: &Cluster,
    out: Out,
    nick: &str,
    text: &str,
) -> Result<(), Trouble> {
    let nick = nick.strip_prefix('@').unwrap_or(nick);
    say(args, cluster, out, Target::Nick(nick.to_owned()), text, Level::Replicated).await
}

type Submitting = Pin<Box<dyn Future<Output = Result<Ticket, Failure>>>>;

/// The lines under way.
struct Lines {
    leftover: Leftover,
    /// Whether the file of the outbox could not be written.
    unkept: Option<String>,
    read: u64,
    refused: u64,
    /// Not acknowledged yet.
    open: BTreeMap<Ticket, u64>,
    /// Acknowledged as stored only.
    stored: BTreeMap<Ticket, u64>,
}

impl Lines {
    fn fail(&mut self, out: Out, line: u64, failure: &Failure) -> Result<(), Trouble> {
        self.refuse(out, line, &failure.to_string(), !failure.is_certain())
    }

    fn refuse(&mut self, out: Out, line: u64, reason: &str, unsure: bool) -> Result<(), Trouble> {
        self.refused += 1;
        out::complain(&format!("line {line}: {reason}"));
        out.put(&RefusedObject::new(line, reason, unsure), |_| format!("{line} refused"))
    }

    fn on_event(&mut self, out: Out, event: Event) -> Result<(), Trouble> {
        if self.leftover.on_event(out, &event)? {
            return Ok(());
        }
        match event {
            Event::Kept(tickets) => {
                let line = tickets.iter().filter_map(|ticket| self.open.get(ticket)).max();
                line.map_or(Ok(()), |line| out.put_json(&KeptObject::new(*line)))
            }
            Event::Unkept(why) => {
                out::note_event(&Event::Unkept(why.clone()));
                self.unkept = Some(why);
                Ok(())
            }
            Event::State(state) => {
                let line = self.open.remove(&state.ticket);
                let Some(line) = line.or_else(|| self.stored.remove(&state.ticket)) else {
                    return Ok(());
                };
                if state.level == Level::Stored {
                    self.stored.insert(state.ticket, line);
                }
                put_receipt(out, line, &state)
            }
            Event::Failed { ticket, failure } => match self.open.remove(&ticket) {
                Some(line) => self.fail(out, line, &failure),
                None => Ok(()),
            },
            Event::Ended(Some(failure)) => Err(failure.into()),
            event => {
                out::note_event(&event);
                Ok(())
            }
        }
    }
}

pub async fn stdin(
    args: &Args,
    cluster: &Cluster,
    out: Out,
    room: &str,
    level: Level,
) -> Result<(), Trouble> {
    let to = crate::commands::target(room)?;
    let (chat, mut events) = start(args, cluster).await?;
    let (read, mut input) = mpsc::channel(64);
    tokio::spawn(lines::read(TEXT_BYTES_MAX, read));
    let mut lines = Lines {
        leftover: Leftover::of(&chat),
        unkept: None,
        read: 0,
        refused: 0,
        open: BTreeMap::new(),
        stored: BTreeMap::new(),
    };
    let mut submitting: Option<(u64, Submitting)> = None;
    let mut until: Option<Instant> = None;
    loop {
        let ended = until.is_some();
        let answered = lines.open.is_empty() && lines.leftover.open.is_empty();
        if ended && submitting.is_none() && answered {
            break;
        }
        let idle = !ended && submitting.is_none();
        let submit = async {
            match &mut submitting {
                Some((_, submit)) => submit.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { biased;
            Some(event) = events.next() => lines.on_event(out, event)?,
            submitted = submit => {
                let Some((line, _)) = submitting.take() else { continue };
                match submitted {
                    Ok(ticket) => {
                        lines.open.insert(ticket, line);
                    }
                    Err(failure) => lines.fail(out, line, &failure)?,
                }
            }
            line = input.recv(), if idle => match line.transpose()? {
                None => until = Some(Instant::now() + PATIENCE),
                Some(line) => {
                    lines.read += 1;
                    match line.and_then(|text| check_text(&text).map(|()| text)) {
                        Err(why) => lines.refuse(out, lines.read, &why, false)?,
                        Ok(text) => {
                            let (chat, to) = (chat.clone(), to.clone());
                            let submit = async move { chat.submit(to, &text, level).await };
                            submitting = Some((lines.read, Box::pin(submit)));
                        }
                    }
                }
            },
            () = sleep_until(until.unwrap_or_else(Instant::now)), if ended => break,
        }
    }
    wait_for_replication(out, &mut lines, &mut events).await?;
    let missing = lines.open.len() as u64 + u64::from(submitting.is_some()) + lines.refused;
    let left = lines.leftover.open.len() + lines.leftover.refused;
    chat.leave_cluster().await;
    if missing > 0 || left > 0 {
        let (read, troubles) = (lines.read, chat.troubles());
        let before = if left > 0 { format!(", nor were {left} of earlier") } else { String::new() };
        let waiting = lines.open.len() + lines.leftover.open.len();
        let next = if chat.keeps() && lines.unkept.is_none() && waiting > 0 {
            format!("; {waiting} of them are sent at the next start with this --state")
        } else {
            String::new()
        };
        return Err(Trouble::Say(format!(
            "{missing} of {read} lines were not acknowledged{before}{troubles}{next}"
        )));
    }
    lines.unkept.map_or(Ok(()), |_| Err(Trouble::Silent))
}

/// What is on one disk only when all is said: a little more time.
async fn wait_for_replication(
    out: Out,
    lines: &mut Lines,
    events: &mut Events,
) -> Result<(), Trouble> {
    let until = Instant::now() + REPLICATION_PATIENCE;
    while !(lines.stored.is_empty() && lines.leftover.stored.is_empty()) {
        match tokio::time::timeout_at(until, events.next()).await {
            Ok(Some(event)) => lines.on_event(out, event)?,
            Ok(None) | Err(_) => break,
        }
    }
    Ok(())
}

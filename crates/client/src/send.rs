//! `send` and `dm`: one message, or a message for each line of standard input.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use chatty_client::{Chat, Cluster, Event, Events, Failure, Level, MessageState, Target, Ticket};
use chatty_core::event::TEXT_BYTES_MAX;
use chatty_core::session::check_text;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::Trouble;
use crate::args::{Answers, Args};
use crate::lines;
use crate::objects::{Receipt, RefusedObject};
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
        let how = match state.level {
            Level::Stored => format!("stored on {} ({} on disk)", state.server, state.replicas),
            Level::Replicated => format!("replicated ({} on disk)", state.replicas),
        };
        format!("{line} {how} {}", paint.quiet(&format!("{ms:.1} ms")))
    })
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
                event => out::note_event(&event),
            },
        }
    };
    put_receipt(out, 1, &state)?;
    chat.leave_cluster().await;
    Ok(())
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
#[derive(Default)]
struct Lines {
    read: u64,
    refused: u64,
    /// Not acknowledged yet.
    open: BTreeMap<Ticket, u64>,
    /// Acknowledged as stored only.
    stored: BTreeMap<Ticket, u64>,
}

impl Lines {
    fn refuse(&mut self, out: Out, line: u64, reason: &str) -> Result<(), Trouble> {
        self.refused += 1;
        out::complain(&format!("line {line}: {reason}"));
        out.put(&RefusedObject::new(line, reason), |_| format!("{line} refused"))
    }

    fn on_event(&mut self, out: Out, event: Event) -> Result<(), Trouble> {
        match event {
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
                Some(line) => self.refuse(out, line, &failure.to_string()),
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
    let mut lines = Lines::default();
    let mut submitting: Option<(u64, Submitting)> = None;
    let mut until: Option<Instant> = None;
    loop {
        let ended = until.is_some();
        if ended && submitting.is_none() && lines.open.is_empty() {
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
                    Err(failure) => lines.refuse(out, line, &failure.to_string())?,
                }
            }
            line = input.recv(), if idle => match line.transpose()? {
                None => until = Some(Instant::now() + PATIENCE),
                Some(line) => {
                    lines.read += 1;
                    match line.and_then(|text| check_text(&text).map(|()| text)) {
                        Err(why) => lines.refuse(out, lines.read, &why)?,
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
    chat.leave_cluster().await;
    if missing > 0 {
        let (read, troubles) = (lines.read, chat.troubles());
        return Err(Trouble::Say(format!(
            "{missing} of {read} lines were not acknowledged{troubles}"
        )));
    }
    Ok(())
}

/// What is on one disk only when all is said: a little more time.
async fn wait_for_replication(
    out: Out,
    lines: &mut Lines,
    events: &mut Events,
) -> Result<(), Trouble> {
    let until = Instant::now() + REPLICATION_PATIENCE;
    while !lines.stored.is_empty() {
        match tokio::time::timeout_at(until, events.next()).await {
            Ok(Some(event)) => lines.on_event(out, event)?,
            Ok(None) | Err(_) => break,
        }
    }
    Ok(())
}

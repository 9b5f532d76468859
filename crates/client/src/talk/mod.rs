//! A session in the terminal, or over plain lines when there is no terminal.

mod editor;
mod late;
mod screen;
mod talker;
mod words;

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chatty_client::{Chat, Cluster, Direct, Events};
use chatty_core::event::TEXT_BYTES_MAX;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste, Event as Input, KeyEventKind};
use crossterm::{execute, terminal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use crate::Trouble;
use crate::args::{Answers, Args};
use crate::out::Paint;
use editor::{Action, Editor};
use screen::{Mark, Screen};
use talker::{Show, Talker};

/// A question of the session waits so long for its answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// On leaving, what was said and not acknowledged is waited for so long …
const GOODBYE: Duration = Duration::from_secs(3);
/// … and so long when it came through a pipe, as in `send --stdin`.
const GOODBYE_PLAIN: Duration = Duration::from_secs(45);
/// Bytes of a line through a pipe, at most: a command and a text.
const LINE_BYTES_MAX: usize = TEXT_BYTES_MAX + 1024;
/// How often late lines are told of and direct messages reported as shown.
const TICK: Duration = Duration::from_millis(400);

pub async fn run(args: &Args, cluster: &Cluster) -> Result<(), Trouble> {
    let mut options = args.options(Answers::Anywhere, PATIENCE)?;
    options.direct = Direct::Take;
    let (chat, events) = Chat::start(cluster, options).await?;
    let mut talker = Talker::new(chat.clone(), cluster.clone(), offset_minutes());
    talker.greet_outbox();
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        in_terminal(chat, events, talker).await
    } else {
        plain(chat, events, talker).await
    }
}

/// Minutes east of UTC here and now, as `date` knows them.
fn offset_minutes() -> i64 {
    let zone = std::process::Command::new("date").arg("+%z").output();
    let zone = zone.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    parse_zone(&zone.unwrap_or_default()).unwrap_or(0)
}

/// `+0130` as minutes.
fn parse_zone(zone: &str) -> Option<i64> {
    let (hours, minutes) = (zone.get(1..3)?, zone.get(3..5)?);
    let span = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
    match zone.get(..1)? {
        "+" => Some(span),
        "-" => Some(-span),
        _ => None,
    }
}

/// The terminal as a line editor needs it; dropped, it is as it was.
struct Raw;

impl Raw {
    fn new() -> std::io::Result<Self> {
        terminal::enable_raw_mode()?;
        let raw = Self;
        execute!(std::io::stdout(), EnableBracketedPaste)?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to restore.
        let _ = execute!(std::io::stdout(), DisableBracketedPaste);
        let _ = terminal::disable_raw_mode();
    }
}

/// Reads the terminal in a thread of its own, until `over`.
fn read_terminal(over: Arc<AtomicBool>) -> mpsc::UnboundedReceiver<Input> {
    let (to, from) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            let ready = crossterm::event::poll(Duration::from_millis(100));
            let input = match ready {
                Ok(true) => crossterm::event::read(),
                Ok(false) => continue,
                Err(error) => Err(error),
            };
            let Ok(input) = input else { return };
            if to.send(input).is_err() {
                return;
            }
        }
    });
    from
}

async fn in_terminal(chat: Chat, events: Events, mut talker: Talker) -> Result<(), Trouble> {
    let raw = Raw::new()?;
    let over = Arc::new(AtomicBool::new(false));
    let inputs = read_terminal(over.clone());
    let (columns, rows) = terminal::size().unwrap_or((80, 24));
    let to = std::io::BufWriter::with_capacity(16 * 1024, std::io::stdout());
    let screen = Screen::new(to, Paint::of_stdout(), columns.into(), rows.into());
    talker.greet();
    let mut session = Session { chat, events, talker, screen, editor: Editor::default() };
    let result = session.run(inputs).await;
    over.store(true, Ordering::Relaxed);
    let Session { chat, talker, mut screen, .. } = session;
    // The terminal may be gone.
    let _ = screen.finish();
    drop(raw);
    talker.marks.finish(&chat).await;
    chat.leave_cluster().await;
    result
}

struct Session<W: std::io::Write> {
    chat: Chat,
    events: Events,
    talker: Talker,
    screen: Screen<W>,
    editor: Editor,
}

impl<W: std::io::Write> Session<W> {
    async fn run(&mut self, mut inputs: mpsc::UnboundedReceiver<Input>) -> Result<(), Trouble> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.show()?;
        loop {
            let goes_on = tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.on_input(input)?,
                    None => return Ok(()),
                },
                event = self.events.next() => match event {
                    Some(event) => self.talker.on_event(event),
                    None => return Err(Trouble::Silent),
                },
                () = self.talker.answer() => true,
                _ = tick.tick() => {
                    self.talker.flush_late();
                    self.talker.marks.report(&self.chat);
                    true
                }
                _ = terminate.recv() => return Ok(()),
                _ = hangup.recv() => return Ok(()),
            };
            self.show()?;
            if !goes_on {
                self.talker.show_late();
                self.show()?;
                return self.goodbye(&mut inputs).await;
            }
        }
    }

    /// A moment for what was said and is not acknowledged yet.
    async fn goodbye(
        &mut self,
        inputs: &mut mpsc::UnboundedReceiver<Input>,
    ) -> Result<(), Trouble> {
        if self.chat.state().ended.is_some_and(|why| why.is_some()) {
            return Err(Trouble::Silent);
        }
        let until = Instant::now() + GOODBYE;
        while self.talker.unanswered() > 0 {
            tokio::select! {
                event = timeout_at(until, self.events.next()) => match event {
                    Ok(Some(event)) => {
                        self.talker.on_event(event);
                    }
                    Ok(None) | Err(_) => break,
                },
                () = self.talker.answer() => {}
                // A second wish to leave is not made to wait.
                Some(input) = inputs.recv() => {
                    if !self.on_input(input)? {
                        break;
                    }
                }
            }
            self.show()?;
        }
        match self.talker.unanswered() {
            0 => Ok(()),
            count => Err(Trouble::Say(unacknowledged(count, &self.chat))),
        }
    }

    /// Takes a key; tells whether the session goes on.
    fn on_input(&mut self, input: Input) -> Result<bool, Trouble> {
        match input {
            Input::Key(key) if key.kind != KeyEventKind::Release => match self.editor.key(key) {
                Action::None => {}
                Action::Quit => return Ok(false),
                Action::Clear => self.screen.clear()?,
                Action::Enter(line) => return Ok(self.talker.said(words::parse(&line))),
                Action::Complete(begun) => self.complete(&begun),
            },
            Input::Paste(text) => self.editor.insert(&text),
            Input::Resize(columns, rows) => {
                // Of several changes, the terminal shows the last one already.
                let (columns, rows) = terminal::size().unwrap_or((columns, rows));
                self.screen.resize(columns.into(), rows.into())?;
            }
            _ => {}
        }
        Ok(true)
    }

    /// Completes a word as far as all it may become agree.
    fn complete(&mut self, begun: &str) {
        let found = self.talker.completions(begun);
        let Some(first) = found.first().filter(|_| !begun.is_empty()) else { return };
        let agree = |at: &usize| {
            let head = first.get(..*at).map(str::to_lowercase);
            head.is_some() && found.iter().all(|o| o.get(..*at).map(str::to_lowercase) == head)
        };
        let ends = first.char_indices().map(|(at, c)| at + c.len_utf8());
        let length = ends.take_while(agree).last().unwrap_or(0);
        let Some(rest) = first.get(begun.len()..length) else { return };
        self.editor.insert(rest);
        if found.len() == 1 {
            let is_name = self.editor.is_first_word() && !begun.starts_with('/');
            self.editor.insert(if is_name { ": " } else { " " });
        }
    }

    fn show(&mut self) -> Result<(), Trouble> {
        self.screen.set_prompt(self.talker.prompt());
        let columns = self.screen.input_columns();
        self.screen.set_input(self.editor.view(columns));
        while let Some(show) = self.talker.shows.pop_front() {
            match show {
                Show::Line(line) => self.screen.print(&line, None)?,
                Show::Own(own, line) => self.screen.print(&line, Some((own, Mark::Sent)))?,
                Show::Mark(own, mark) => self.screen.mark(own, mark)?,
            }
        }
        self.screen.draw()?;
        Ok(())
    }
}

fn unacknowledged(count: usize, chat: &Chat) -> String {
    let next = if chat.keeps() { "; they are sent at the next start" } else { "" };
    format!("{count} of your messages were not acknowledged{next}")
}

/// Lines in, lines out: each is answered before the next one is read.
async fn plain(chat: Chat, mut events: Events, mut talker: Talker) -> Result<(), Trouble> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (read, mut input) = mpsc::channel(1);
    tokio::spawn(crate::lines::read(LINE_BYTES_MAX, read));
    let mut tick = tokio::time::interval(TICK);
    let mut until: Option<Instant> = None;
    let mut failed = false;
    loop {
        print_plain(&mut talker)?;
        if until.is_some() && talker.is_idle() && talker.unanswered() == 0 {
            break;
        }
        let deadline = until.unwrap_or_else(Instant::now);
        let goes_on = tokio::select! { biased;
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
            () = talker.answer() => true,
            event = events.next() => match event {
                Some(event) => {
                    let goes_on = talker.on_event(event);
                    failed |= !goes_on;
                    goes_on
                }
                None => false,
            },
            _ = tick.tick() => {
                talker.flush_late();
                talker.marks.report(&chat);
                true
            }
            line = input.recv(), if until.is_none() && talker.is_idle() => {
                let goes_on = match line.transpose()? {
                    Some(Ok(line)) => talker.said(words::parse(&line)),
                    Some(Err(why)) => talker.said(words::Said::Wrong(why)),
                    None => false,
                };
                if !goes_on {
                    until = Some(Instant::now() + GOODBYE_PLAIN);
                }
                true
            }
            () = tokio::time::sleep_until(deadline), if until.is_some() => false,
        };
        if !goes_on {
            break;
        }
    }
    talker.show_late();
    print_plain(&mut talker)?;
    let missing = talker.unanswered();
    talker.marks.finish(&chat).await;
    chat.leave_cluster().await;
    match missing {
        _ if failed => Err(Trouble::Silent),
        0 => Ok(()),
        count => Err(Trouble::Say(unacknowledged(count, &chat))),
    }
}

fn print_plain(talker: &mut Talker) -> Result<(), Trouble> {
    let paint = Paint::of_stdout();
    let mut to = std::io::stdout().lock();
    while let Some(show) = talker.shows.pop_front() {
        let (Show::Line(line) | Show::Own(_, line)) = show else { continue };
        let text: String = line.iter().map(|piece| paint.text(piece.colour, &piece.text)).collect();
        writeln!(to, "{text}").and_then(|()| to.flush()).map_err(|_| Trouble::Silent)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_minutes_east_of_utc() {
        assert_eq!(parse_zone("+0000"), Some(0));
        assert_eq!(parse_zone("+0545"), Some(345));
        assert_eq!(parse_zone("-0330"), Some(-210));
        assert_eq!(parse_zone(""), None);
    }
}

//! The task that owns a session's driver: calls in, answers and events out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chatty_core::client::{
    Answer, Ask, Attached, ClientEvent, Command, Failure, MessageState, Ticket,
};
use chatty_core::session::{Level, Target};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::State;
use super::account::Account;
use crate::driver::Driver;
use crate::view::Event;

/// Events a program has not taken yet, at most; then the client stops reading (and the server
/// says what it left out), unless a call waits for its answer.
const EVENTS_MAX: usize = 8192;

/// What a session is asked by its program.
pub(super) enum Call {
    Send {
        ticket: Ticket,
        to: Target,
        text: String,
        level: Level,
        reply: Option<oneshot::Sender<Result<MessageState, Failure>>>,
    },
    Ask {
        ticket: Ticket,
        ask: Ask,
        reply: oneshot::Sender<Result<Answer, Failure>>,
    },
    Detach(oneshot::Sender<()>),
}

/// The task that owns the driver.
pub(super) struct Task {
    driver: Driver,
    account: Account,
    state: watch::Sender<State>,
    window: Arc<Semaphore>,
    /// Events that the program has not taken yet.
    waiting: VecDeque<Event>,
    asks: BTreeMap<Ticket, oneshot::Sender<Result<Answer, Failure>>>,
    sends: BTreeMap<Ticket, oneshot::Sender<Result<MessageState, Failure>>>,
    /// Messages that hold a place in the window.
    unanswered: BTreeSet<Ticket>,
    goodbyes: Vec<oneshot::Sender<()>>,
}

/// Whether the task goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Over,
}

impl Task {
    pub(super) fn new(
        driver: Driver,
        account: Account,
        state: watch::Sender<State>,
        window: Arc<Semaphore>,
        left: BTreeSet<Ticket>,
    ) -> Self {
        Self {
            driver,
            account,
            state,
            window,
            waiting: VecDeque::new(),
            asks: BTreeMap::new(),
            sends: BTreeMap::new(),
            unanswered: left,
            goodbyes: Vec::new(),
        }
    }

    pub(super) async fn run(
        mut self,
        mut calls: mpsc::Receiver<Call>,
        events: mpsc::Sender<Event>,
    ) {
        let mut listening = true;
        let mut calling = true;
        loop {
            let reads =
                self.waiting.len() < EVENTS_MAX || !(self.asks.is_empty() && self.sends.is_empty());
            let waits = listening && !self.waiting.is_empty();
            tokio::select! {
                permit = events.reserve(), if waits => match permit {
                    Ok(permit) => {
                        if let Some(event) = self.waiting.pop_front() {
                            permit.send(event);
                        }
                    }
                    Err(_) => {
                        listening = false;
                        self.waiting.clear();
                    }
                },
                call = calls.recv(), if calling => match call {
                    Some(call) => self.on_call(call),
                    None => {
                        calling = false;
                        self.driver.command(Command::Detach);
                    }
                },
                event = self.driver.next(), if reads => {
                    if self.on_event(event, listening) == Flow::Over {
                        break;
                    }
                }
            }
            if self.account.is_save_due() {
                self.save();
            }
        }
        self.save();
        self.window.close();
        self.driver.settle(Duration::from_millis(200)).await;
        for done in self.goodbyes {
            // An error means that nobody waits any more.
            let _ = done.send(());
        }
        for event in self.waiting {
            if events.send(event).await.is_err() {
                break;
            }
        }
    }

    fn save(&mut self) {
        if let Err(error) = self.account.save(self.driver.client()) {
            self.waiting.push_back(Event::Notice(error.to_string()));
            // Said once.
            self.account.give_up();
        }
    }

    fn on_call(&mut self, call: Call) {
        match call {
            Call::Send { ticket, to, text, level, reply } => {
                self.unanswered.insert(ticket);
                if let Some(reply) = reply {
                    self.sends.insert(ticket, reply);
                }
                self.driver.command(Command::Send { ticket, to, text, level });
            }
            Call::Ask { ticket, ask, reply } => {
                self.asks.insert(ticket, reply);
                self.driver.command(Command::Ask { ticket, ask });
            }
            Call::Detach(done) => {
                self.goodbyes.push(done);
                self.driver.command(Command::Detach);
            }
        }
    }

    fn on_event(&mut self, event: ClientEvent, listening: bool) -> Flow {
        let flow = match &event {
            ClientEvent::Ended(_) => Flow::Over,
            _ => Flow::On,
        };
        self.note(&event);
        let event = match event {
            ClientEvent::Answered { ticket, answer } => {
                if let Answer::Named(named) = &answer {
                    self.named(&named.nick, named.taken.is_none());
                }
                if let Some(reply) = self.asks.remove(&ticket) {
                    // The caller may have given up.
                    let _ = reply.send(Ok(answer));
                }
                return flow;
            }
            ClientEvent::Message(state) => {
                self.answered(state.ticket);
                if let Some(reply) = self.sends.remove(&state.ticket) {
                    let _ = reply.send(Ok(state.clone()));
                }
                ClientEvent::Message(state)
            }
            ClientEvent::Failed { ticket, failure } => {
                self.answered(ticket);
                if let Some(reply) = self.sends.remove(&ticket) {
                    let _ = reply.send(Err(failure));
                    return flow;
                }
                if let Some(reply) = self.asks.remove(&ticket) {
                    let _ = reply.send(Err(failure));
                    return flow;
                }
                ClientEvent::Failed { ticket, failure }
            }
            event => event,
        };
        if listening && let Some(event) = Event::of(event, self.driver.client()) {
            self.waiting.push_back(event);
        }
        flow
    }

    /// A message has its answer: its place in the window is free.
    fn answered(&mut self, ticket: Ticket) {
        if self.unanswered.remove(&ticket) {
            self.window.add_permits(1);
        }
    }

    fn named(&mut self, nick: &str, is_wish: bool) {
        self.state.send_modify(|state| nick.clone_into(&mut state.nick));
        if is_wish {
            self.account.renamed(nick);
        }
    }

    fn note(&mut self, event: &ClientEvent) {
        match event {
            ClientEvent::Attached(Attached { server, account, nick, .. }) => {
                let servers = self.driver.client().servers();
                self.state.send_modify(|state| {
                    state.server = Some(server.clone());
                    state.account = Some(*account);
                    state.nick.clone_from(nick);
                    state.servers = servers;
                    state.troubles.clear();
                });
                self.save();
            }
            ClientEvent::Lost { server, why } => self.state.send_modify(|state| {
                state.server = None;
                state.troubles.push((server.to_string(), why.clone()));
            }),
            ClientEvent::Unreachable { addr, why } => self.state.send_modify(|state| {
                state.troubles.retain(|(other, _)| other != addr);
                state.troubles.push((addr.clone(), why.clone()));
            }),
            ClientEvent::Named { nick, taken } => self.named(nick, taken.is_none()),
            ClientEvent::Ended(why) => self.state.send_modify(|state| {
                state.server = None;
                state.ended = Some(why.clone());
            }),
            _ => {}
        }
    }
}

//! All clients of a round: on each server one that talks and one that only listens.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chatty_client::Cluster;
use chatty_core::id::RoomId;
use chatty_simulations::history::Shown;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::place::Place;
use super::recorder::Recorder;
use super::servers::until;
use super::session::{Phase, Talker, Who};

/// What is on its way after the talk is waited for so long: a client may have to find a server,
/// and the servers each other.
const SETTLE_MAX: Duration = Duration::from_secs(45);
/// Lines that are on every disk reach the clients within this.
const SHOWN_MAX: Duration = Duration::from_secs(15);

/// The clients of a round.
pub struct Crowd {
    recorder: Arc<Recorder>,
    phase: watch::Sender<Phase>,
    running: Vec<JoinHandle<()>>,
}

/// What a client is to be, with the network it is on.
pub type Guest<'a> = (&'a Place, Who);

/// Who comes to one server.
pub fn guests_of<'a>(
    place: &'a Place,
    server: &str,
    rooms: &[String],
    says_every: Duration,
    accounts: &Path,
) -> [Guest<'a>; 2] {
    let who = |what: &str, says_every| {
        let name = format!("{what}-{server}");
        let identity = accounts.join(format!("{name}.id"));
        (place, Who { name, server: server.into(), rooms: rooms.into(), says_every, identity })
    };
    [who("talker", Some(says_every)), who("listener", None)]
}

impl Crowd {
    /// All come in; nobody has said anything when the last one has its rooms open.
    ///
    /// # Errors
    /// Who could not, and why.
    pub fn gather(
        cluster: &Cluster,
        recorder: Arc<Recorder>,
        guests: Vec<Guest<'_>>,
    ) -> Result<Self, String> {
        let (phase, phases) = watch::channel(Phase::Quiet);
        let mut coming = Vec::new();
        for (place, who) in guests {
            let (cluster, recorder, phases) = (cluster.clone(), recorder.clone(), phases.clone());
            let (arrived, arrives) = tokio::sync::oneshot::channel();
            let running = place.spawn(async move {
                match Talker::start(&cluster, who, recorder).await {
                    Ok(talker) => {
                        // An error means that nobody waits any more: then the phases end too.
                        let _ = arrived.send(Ok(()));
                        talker.run(phases).await;
                    }
                    Err(why) => drop(arrived.send(Err(why))),
                }
            });
            coming.push((arrives, running));
        }
        let mut running = Vec::new();
        for (arrives, task) in coming {
            arrives.blocking_recv().map_err(|_| "a client's task ended".to_owned())??;
            running.push(task);
        }
        Ok(Self { recorder, phase, running })
    }

    /// All do that from now on.
    pub fn now(&self, phase: Phase) {
        // An error means that all have ended, which the history tells.
        let _ = self.phase.send(phase);
    }

    /// Waits until every message is replicated.
    ///
    /// # Errors
    /// How many are not, after a long time.
    pub fn settle(&self) -> Result<(), String> {
        until("every message is replicated", SETTLE_MAX, || match self.recorder.all_unsettled() {
            0 => Ok(()),
            left => Err(format!("{left} are not")),
        })
    }

    /// Waits until everybody has been shown all of these timelines. Who has not is for the history's
    /// checker to judge.
    pub fn wait_shown(&self, timelines: &[(RoomId, Vec<Shown>)]) {
        let not_shown = || {
            let of =
                |(room, lines): &(RoomId, Vec<Shown>)| self.recorder.not_shown(*room, lines.len());
            timelines.iter().map(of).sum::<usize>()
        };
        // The checker says who was not shown what.
        let _ = until("all lines are shown", SHOWN_MAX, || match not_shown() {
            0 => Ok(()),
            left => Err(left.to_string()),
        });
    }

    /// All say goodbye.
    ///
    /// # Errors
    /// That one of them panicked.
    pub fn end(self, place: &Place) -> Result<(), String> {
        self.now(Phase::Over);
        self.running.into_iter().try_for_each(|task| place.wait(task))
    }
}

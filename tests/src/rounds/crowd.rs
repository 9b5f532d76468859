//! All clients of a round: on each server one that talks and one that only listens; in a mixed crowd
//! also one that comes and goes, and long messages among the short ones.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chatty_client::Cluster;
use chatty_core::id::RoomId;
use chatty_simulations::history::Shown;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::place::Place;
use super::recorder::Recorder;
use super::session::{PATIENCE, Phase, Talker, VISIT_PATIENCE, Who};
use super::system::until;

/// What is on its way after the talk is waited for so long: a client may have to find a server,
/// and the servers each other.
const SETTLE_MAX: Duration = Duration::from_secs(45);
/// Lines that are on every disk reach the clients within this.
const SHOWN_MAX: Duration = Duration::from_secs(15);
/// By how much a long message is longer.
const PADDING: usize = 3000;
/// Who comes and goes stays away for so long.
const AWAY: Duration = Duration::from_millis(300);

/// The clients of a round.
pub struct Crowd {
    recorder: Arc<Recorder>,
    phase: watch::Sender<Phase>,
    running: Vec<JoinHandle<()>>,
    /// How many of those that come and go are there.
    inside: Arc<AtomicUsize>,
}

/// What a crowd is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Some talk, some listen.
    Plain,
    /// Some come and go besides, and some messages are long.
    Varied,
}

/// How the names of those that come and go begin.
pub const VISITOR: &str = "visitor";

/// What a client is to be, with the network it is on.
pub struct Guest<'a> {
    place: &'a Place,
    who: Who,
    stays: Stays,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stays {
    Throughout,
    ForAWord,
}

/// Who comes to one server.
pub fn guests_of<'a>(
    place: &'a Place,
    server: &str,
    rooms: &[String],
    says_every: Duration,
    mix: Mix,
    accounts: &Path,
) -> Vec<Guest<'a>> {
    let guest = |what: &str, says_every, stays| {
        let name = format!("{what}-{server}");
        let identity = accounts.join(format!("{name}.id"));
        let patience = if stays == Stays::Throughout { PATIENCE } else { VISIT_PATIENCE };
        let padding = if mix == Mix::Varied { PADDING } else { 0 };
        let (server, rooms) = (server.into(), rooms.into());
        let who = Who { name, server, rooms, says_every, padding, patience, identity };
        Guest { place, who, stays }
    };
    let mut guests = vec![
        guest("talker", Some(says_every), Stays::Throughout),
        guest("listener", None, Stays::Throughout),
    ];
    if mix == Mix::Varied {
        guests.push(guest(VISITOR, Some(says_every), Stays::ForAWord));
    }
    guests
}

/// Comes and goes while the others talk; counted while inside.
async fn come_and_go(
    cluster: Cluster,
    who: Who,
    recorder: Arc<Recorder>,
    mut phases: watch::Receiver<Phase>,
    inside: Arc<AtomicUsize>,
) {
    loop {
        let phase = *phases.borrow_and_update();
        match phase {
            Phase::Over => return,
            Phase::Quiet => {
                if phases.changed().await.is_err() {
                    return;
                }
            }
            Phase::Talking => {
                // Counted before the phase is looked at: whoever says that all be quiet, and then
                // counts nobody, hears nobody any more.
                inside.fetch_add(1, Ordering::SeqCst);
                if *phases.borrow() == Phase::Talking {
                    // Who finds no server in time tries again, as people do.
                    let came = Talker::start(&cluster, who.clone(), recorder.clone()).await;
                    if let Ok(talker) = came {
                        talker.visit().await;
                    }
                }
                inside.fetch_sub(1, Ordering::SeqCst);
                tokio::time::sleep(AWAY).await;
            }
        }
    }
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
        let mut running = Vec::new();
        let inside = Arc::new(AtomicUsize::new(0));
        for Guest { place, who, stays } in guests {
            let (cluster, recorder, phases) = (cluster.clone(), recorder.clone(), phases.clone());
            if stays == Stays::ForAWord {
                let inside = inside.clone();
                running.push(place.spawn(come_and_go(cluster, who, recorder, phases, inside)));
                continue;
            }
            let (arrived, arrives) = tokio::sync::oneshot::channel();
            let task = place.spawn(async move {
                match Talker::start(&cluster, who, recorder).await {
                    Ok(talker) => {
                        // An error means that nobody waits any more: then the phases end too.
                        let _ = arrived.send(Ok(()));
                        talker.run(phases).await;
                    }
                    Err(why) => drop(arrived.send(Err(why))),
                }
            });
            coming.push((arrives, task));
        }
        for (arrives, task) in coming {
            arrives.blocking_recv().map_err(|_| "a client's task ended".to_owned())??;
            running.push(task);
        }
        Ok(Self { recorder, phase, running, inside })
    }

    /// All do that from now on.
    pub fn now(&self, phase: Phase) {
        // An error means that all have ended, which the history tells.
        let _ = self.phase.send(phase);
    }

    /// Waits until who comes and goes has gone, and every message is replicated.
    ///
    /// # Errors
    /// How many are not, after a long time.
    pub fn settle(&self) -> Result<(), String> {
        let inside = || match self.inside.load(Ordering::SeqCst) {
            0 => Ok(()),
            left => Err(format!("{left} are still there")),
        };
        until("who comes and goes has gone", SETTLE_MAX, inside)?;
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

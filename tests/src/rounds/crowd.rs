//! All clients of a round: on each server one that talks, one that only listens, and one in the
//! square, where one more puts others out; in a varied crowd also one that comes and goes, and long
//! messages among the short ones.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chatty_client::{Cluster, Target};
use chatty_core::id::RoomId;
use chatty_core::time::Hlc;
use chatty_simulations::history::{Did, Shown, What};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::place::Place;
use super::recorder::Recorder;
use super::session::{PATIENCE, Phase, Talker, VISIT_PATIENCE, Who};
use super::square::{Book, Comer, Part, Regular};
use super::system::until;
use super::timeline::Timeline;

/// What is on its way after the talk is waited for so long: a client may have to find a server,
/// and the servers each other.
const SETTLE_MAX: Duration = Duration::from_secs(45);
/// Lines that are on every disk reach the clients within this.
const SHOWN_MAX: Duration = Duration::from_secs(15);
/// In so many turns somebody is put out, a topic is set, and everybody has said and written something.
const TURNS: usize = 6;
/// By how much a long message is longer.
const PADDING: usize = 3000;
/// Who comes and goes stays away for so long.
const AWAY: Duration = Duration::from_millis(300);

/// The clients of a round.
pub struct Crowd {
    recorder: Arc<Recorder>,
    phase: watch::Sender<Phase>,
    running: Vec<JoinHandle<()>>,
    /// How many of those that come and go are there, or are about something in the square.
    busy: Arc<AtomicUsize>,
    book: Arc<Book>,
    /// How often each of those in the square did something.
    turns: Vec<Arc<AtomicUsize>>,
}

/// What a crowd is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Some talk, some listen.
    Plain,
    /// Some come and go besides, and some messages are long.
    Varied,
}

/// How the names of those begin that stay where they are, talking and listening: nothing that they do
/// themselves keeps them from hearing what is said.
pub const THROUGHOUT: [&str; 2] = ["talker-", "listener-"];

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
        guests.push(guest("visitor", Some(says_every), Stays::ForAWord));
    }
    guests
}

/// Comes and goes while the others talk; counted while inside.
async fn come_and_go(
    cluster: Cluster,
    who: Who,
    recorder: Arc<Recorder>,
    mut phases: watch::Receiver<Phase>,
    busy: Arc<AtomicUsize>,
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
                busy.fetch_add(1, Ordering::SeqCst);
                if *phases.borrow() == Phase::Talking {
                    // Who finds no server in time tries again, as people do.
                    let came = Talker::start(&cluster, who.clone(), recorder.clone()).await;
                    if let Ok(talker) = came {
                        talker.visit().await;
                    }
                }
                busy.fetch_sub(1, Ordering::SeqCst);
                tokio::time::sleep(AWAY).await;
            }
        }
    }
}

/// Who comes to the square from one server; where the founder is, he comes first.
pub fn comers_of(
    server: &str,
    square: &str,
    rooms: &[String],
    founder: bool,
    accounts: &Path,
) -> Vec<Comer> {
    let comer = |part: Part| {
        let what = if part == Part::Founder { "founder" } else { "regular" };
        // Of each square: who wrote to whom in an earlier one is none of this one's business.
        let name = format!("{what}-{server}-{square}");
        let identity = accounts.join(format!("{name}.id"));
        let (server, square, rooms) = (server.into(), square.into(), rooms.into());
        Comer { name, part, server, square, rooms, identity }
    };
    let founder = founder.then(|| comer(Part::Founder));
    founder.into_iter().chain([comer(Part::Regular)]).collect()
}

/// Somebody who is to come: whether he has, and all that he does.
type Coming = (oneshot::Receiver<Result<(), String>>, JoinHandle<()>);

/// Runs somebody once he is there, which is waited for.
fn come<T: Send + 'static, F: Future<Output = ()> + Send>(
    place: &Place,
    comes: impl Future<Output = Result<T, String>> + Send + 'static,
    stays: impl FnOnce(T) -> F + Send + 'static,
) -> Coming {
    let (arrived, arrives) = oneshot::channel();
    let task = place.spawn(async move {
        match comes.await {
            Ok(there) => {
                // An error means that nobody waits any more: then the phases end too.
                let _ = arrived.send(Ok(()));
                stays(there).await;
            }
            Err(why) => drop(arrived.send(Err(why))),
        }
    });
    (arrives, task)
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
        comers: Vec<(&Place, Comer)>,
    ) -> Result<Self, String> {
        let (phase, phases) = watch::channel(Phase::Quiet);
        let (busy, book) = (Arc::new(AtomicUsize::new(0)), Arc::new(Book::default()));
        let mut crowd =
            Self { recorder, phase, running: Vec::new(), busy, book, turns: Vec::new() };
        // One after the other: the first one makes the square.
        for (place, comer) in comers {
            let (book, busy, phases) = (crowd.book.clone(), crowd.busy.clone(), phases.clone());
            let (cluster, recorder) = (cluster.clone(), crowd.recorder.clone());
            let comes = async move { Regular::start(&cluster, comer, recorder, book).await };
            let turns = Arc::new(AtomicUsize::new(0));
            crowd.turns.push(turns.clone());
            let came = come(place, comes, |regular| regular.run(phases, busy, turns));
            crowd.wait_for(vec![came])?;
        }
        crowd.introduce();
        let mut coming = Vec::new();
        for Guest { place, who, stays } in guests {
            let cluster = cluster.clone();
            let (recorder, phases) = (crowd.recorder.clone(), phases.clone());
            if stays == Stays::ForAWord {
                let busy = crowd.busy.clone();
                let visits = come_and_go(cluster, who, recorder, phases, busy);
                crowd.running.push(place.spawn(visits));
                continue;
            }
            let comes = async move { Talker::start(&cluster, who, recorder).await };
            coming.push(come(place, comes, |talker| talker.run(phases)));
        }
        crowd.wait_for(coming)?;
        Ok(crowd)
    }

    fn wait_for(&mut self, coming: Vec<Coming>) -> Result<(), String> {
        for (arrives, task) in coming {
            arrives.blocking_recv().map_err(|_| "a client's task ended".to_owned())??;
            self.running.push(task);
        }
        Ok(())
    }

    /// The history learns who writes to whom; both are shown all of it from the beginning.
    fn introduce(&self) {
        for [one, next] in self.book.pairs() {
            let room = RoomId::direct(one.account, next.account);
            let name = format!("{} and {}", one.nick, next.nick);
            self.recorder.direct(room, [one.account, next.account], name);
            let since = Hlc::default();
            for session in [one.session, next.session] {
                self.recorder.note(What::Client(session, Did::Opened { room, since }));
            }
        }
    }

    /// The conversations, each to be read by one of its two.
    pub fn conversations(&self) -> Vec<Timeline> {
        let of_pair = |[one, next]: [super::square::Entry; 2]| Timeline {
            name: format!("{} and {}", one.nick, next.nick),
            room: RoomId::direct(one.account, next.account),
            of: Target::Account(next.account),
            reader: one.identity,
        };
        self.book.pairs().into_iter().map(of_pair).collect()
    }

    /// All do that from now on.
    pub fn now(&self, phase: Phase) {
        // An error means that all have ended, which the history tells.
        let _ = self.phase.send(phase);
    }

    /// Waits until everybody in the square has done something of each kind that there is.
    ///
    /// # Errors
    /// That somebody has not, after a long time.
    pub fn wait_turns(&self) -> Result<(), String> {
        until("everybody in the square has had some turns", SETTLE_MAX, || {
            let least = self.turns.iter().map(|turns| turns.load(Ordering::SeqCst)).min();
            match least {
                Some(least) if least < TURNS => Err(format!("one has had {least}")),
                _ => Ok(()),
            }
        })
    }

    /// Waits until who comes and goes has gone, nobody is about anything, and every message is replicated.
    ///
    /// # Errors
    /// How many are not, after a long time.
    pub fn settle(&self) -> Result<(), String> {
        let busy = || match self.busy.load(Ordering::SeqCst) {
            0 => Ok(()),
            left => Err(format!("{left} are still about it")),
        };
        until("who comes and goes has gone, and the square is quiet", SETTLE_MAX, busy)?;
        until("every message is replicated", SETTLE_MAX, || match self.recorder.all_unsettled() {
            0 => Ok(()),
            left => Err(format!("{left} are not")),
        })
    }

    /// Waits until everybody has been shown all of these timelines. Who has not is for the history's
    /// checker to judge.
    pub fn wait_shown(&self, timelines: &[(Timeline, Vec<Shown>)]) {
        let not_shown = || {
            let of = |(timeline, lines): &(Timeline, Vec<Shown>)| {
                self.recorder.not_shown(timeline.room, lines.len())
            };
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

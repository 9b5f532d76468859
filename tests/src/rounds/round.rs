//! One round on a stage: clients come, talk, live through faults, and everything comes to rest.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chatty_core::id::RoomId;
use chatty_core::session::Level;
use chatty_core::time::Time;
use chatty_simulations::history::{Did, History, Server, Session, Shown, What};

use super::Judged;
use super::crowd::{Crowd, Mix, THROUGHOUT, comers_of, guests_of};
use super::fault::{Scene, Strike};
use super::recorder::Recorder;
use super::session::Phase;
use super::stage::Stage;
use super::table::Row;
use super::timeline::Timeline;

/// A fault that lasts longer than this is lived through with people being answered.
const ANSWERED_FROM: Duration = Duration::from_secs(2);
/// What a server's clock may be off without being noticed.
const STAMP_SLACK_MS: u64 = 2000;

/// What is to be done in a round.
pub struct Plan {
    /// Where people talk; nobody has before.
    pub rooms: Vec<String>,
    /// Where people do what else they do; nobody has been there before.
    pub square: String,
    /// At which server whoever makes the square begins.
    pub founder: Server,
    /// Messages a second, of all clients together that only talk.
    pub rate: u32,
    /// Who the clients are.
    pub mix: Mix,
    /// People talk for so long before each act, and after the last.
    pub lead: Duration,
    /// See `lead`.
    pub afterwards: Duration,
    /// Whether they talk when a fault ends.
    pub ends: Ends,
    /// The faults: those of one act at the same time, one act after the other.
    pub acts: Vec<Vec<Box<dyn Strike>>>,
}

/// What people do when a fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// They go on talking.
    InTalk,
    /// They wait for answers and say nothing more.
    InQuiet,
}

/// A round that was lived.
pub struct Lived {
    /// What is to be said of it.
    pub judged: Judged,
    /// What was done, with times.
    pub notes: Vec<String>,
    /// What proves that the faults happened.
    pub proofs: Vec<String>,
    /// The timelines of its rooms.
    pub timelines: Vec<(Timeline, Vec<Shown>)>,
    /// From when all faults had ended and nobody said anything any more until all servers showed the
    /// same.
    pub rest: Duration,
    /// What the faults put into a table.
    pub cells: Row,
}

/// Lives a round.
pub fn live(stage: &mut Stage, mut plan: Plan) -> Result<Lived, String> {
    let began_ms = unix_ms();
    let rooms: Vec<_> = plan.rooms.iter().chain([&plan.square]).cloned().collect();
    let recorder = Arc::new(Recorder::new(stage.names(), &rooms));
    let crowd = gather(stage, &plan, recorder.clone())?;
    crowd.now(Phase::Talking);
    let mut scene = Scene { stage, recorder: &recorder, notes: Vec::new() };
    let mut proofs = Vec::new();
    let mut spans = Vec::new();
    let mut troubles = Vec::new();
    for act in &mut plan.acts {
        // The moment is the fault: it is drawn, not waited for.
        std::thread::sleep(plan.lead);
        match play(act, &mut scene, plan.ends, &crowd, &mut proofs) {
            Ok(span) => spans.push(span),
            Err(why) => {
                scene.note(&why);
                troubles.push(why);
                // What else there is of it ends too, so that the rest can be judged.
                for strike in act.iter_mut().filter(|strike| !strike.ends_last()) {
                    let _ = strike.heal(&mut scene);
                }
                act.clear();
                break;
            }
        }
    }
    std::thread::sleep(plan.afterwards);
    if plan.ends == Ends::InTalk {
        troubles.extend(crowd.wait_turns().err());
    }
    crowd.now(Phase::Quiet);
    let quiet = Instant::now();
    let mut same = scene.stage.converge();
    let rest = quiet.elapsed();
    troubles.extend(recorder.all_ended());
    troubles.extend(crowd.settle().err());
    // What was on its way to a server that was away is there now.
    same = same.and_then(|()| scene.stage.converge());
    troubles.extend(same.err());
    scene.note(format!("at rest after {} ms", rest.as_millis()));
    let (stage, notes) = (scene.stage, scene.notes);
    let public = rooms.iter().map(|room| Timeline::public(room, stage.accounts()));
    let all: Vec<_> = public.chain(crowd.conversations()).collect();
    let timelines = read_all(stage, &all, &recorder, &crowd, &mut troubles);
    read_states(stage, &plan.square, &recorder, &mut troubles);
    troubles.extend(crowd.end(stage.watcher()).err());
    let history = recorder.history();
    for (act, (from, until)) in plan.acts.iter().zip(spans) {
        troubles.extend(unanswered(act, &history, from, until));
        troubles.extend(act.iter().flat_map(|strike| strike.judge(&history)));
    }
    troubles.extend(wrong_stamps(&timelines, began_ms));
    troubles.extend(not_taken(&history));
    let cells = plan.acts.iter().flatten().flat_map(|strike| strike.cells()).collect();
    let judged = Judged::new(history, troubles);
    Ok(Lived { judged, notes, proofs, timelines, rest, cells })
}

fn gather(stage: &Stage, plan: &Plan, recorder: Arc<Recorder>) -> Result<Crowd, String> {
    let names = stage.names();
    // Each server has one client that talks.
    let talkers = u32::try_from(names.len()).unwrap_or(u32::MAX);
    let says_every = Duration::from_secs(1) * talkers / plan.rate.max(1);
    let guests = names.iter().enumerate().flat_map(|(server, name)| {
        let place = stage.place_of(server);
        guests_of(place, name, &plan.rooms, says_every, plan.mix, stage.accounts())
    });
    // Whoever makes the square comes first.
    let order = (0..names.len()).map(|n| (n + plan.founder) % names.len());
    let comers = order.flat_map(|server| {
        let (name, is_founder) = (&names[server], server == plan.founder);
        let all = comers_of(name, &plan.square, &plan.rooms, is_founder, stage.accounts());
        all.into_iter().map(move |comer| (stage.place_of(server), comer))
    });
    Crowd::gather(stage.cluster(), recorder, guests.collect(), comers.collect())
}

/// Lets faults happen together; gives when all of them showed and when the first was ended.
fn play(
    act: &mut [Box<dyn Strike>],
    scene: &mut Scene<'_>,
    ends: Ends,
    crowd: &Crowd,
    proofs: &mut Vec<String>,
) -> Result<(Time, Time), String> {
    for strike in &mut *act {
        scene.note(strike.says());
        strike.strike(scene)?;
        strike.shows(scene)?;
    }
    let from = scene.recorder.now();
    std::thread::sleep(act.iter().map(|strike| strike.lasts()).max().unwrap_or_default());
    let until = scene.recorder.now();
    if ends == Ends::InQuiet {
        crowd.now(Phase::Quiet);
    }
    let (last, first): (Vec<_>, Vec<_>) = act.iter_mut().partition(|strike| strike.ends_last());
    for strike in first.into_iter().chain(last) {
        let proof = strike.heal(scene)?;
        scene.note(&proof);
        proofs.push(proof);
    }
    Ok((from, until))
}

/// Reads all timelines from all servers.
fn read_all(
    stage: &Stage,
    all: &[Timeline],
    recorder: &Recorder,
    crowd: &Crowd,
    troubles: &mut Vec<String>,
) -> Vec<(Timeline, Vec<Shown>)> {
    let mut timelines = Vec::new();
    for server in 0..stage.servers.len() {
        match stage.read(server, all) {
            Ok(read) => {
                let read: Vec<_> = all.iter().cloned().zip(read).collect();
                for (timeline, lines) in &read {
                    recorder.note(What::Final(server, timeline.room, lines.clone()));
                }
                if timelines.is_empty() {
                    crowd.wait_shown(&read);
                    timelines = read;
                }
            }
            Err(why) => troubles.push(why),
        }
    }
    timelines
}

/// Reads what the square has besides its timeline from all servers.
fn read_states(stage: &Stage, square: &str, recorder: &Recorder, troubles: &mut Vec<String>) {
    for server in 0..stage.servers.len() {
        match stage.read_state(server, square) {
            Ok(state) => recorder.note(What::State(server, RoomId::public(square), state)),
            Err(why) => troubles.push(why),
        }
    }
}

/// Whether nobody was told `replicated` for a long time though a majority of the servers could.
fn unanswered(
    act: &[Box<dyn Strike>],
    history: &History,
    from: Time,
    until: Time,
) -> Option<String> {
    let span = until.since(from);
    let majority = matches!(act, [strike] if strike.leaves_majority());
    if span < ANSWERED_FROM || !majority {
        return None;
    }
    let mut said = std::collections::BTreeSet::new();
    for op in history.ops.iter().filter(|op| from < op.at && op.at < until) {
        match &op.what {
            What::Client(session, Did::Sent { ticket, .. }) => {
                said.insert((*session, *ticket));
            }
            What::Client(session, Did::Answered { ticket, level: Level::Replicated, .. })
                if said.contains(&(*session, *ticket)) =>
            {
                return None;
            }
            _ => {}
        }
    }
    Some(format!(
        "for {} ms nobody was told replicated, and a majority was there",
        span.as_millis()
    ))
}

/// What those that talk throughout were refused, or never answered: nothing forbids them anything.
fn not_taken(history: &History) -> Option<String> {
    let talks = |session: &Session| {
        history.sessions.get(*session).is_some_and(|name| name.starts_with(THROUGHOUT[0]))
    };
    let mut all = history.ops.iter().filter_map(|op| match &op.what {
        What::Client(session, Did::Refused { ticket, why } | Did::Doubted { ticket, why })
            if talks(session) =>
        {
            Some(format!("message {ticket} of {} was not taken: {why}", history.sessions[*session]))
        }
        _ => None,
    });
    let first = all.next()?;
    Some(format!("{first}, and {} more", all.count()))
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Lines that stand at a time at which they cannot have been said.
fn wrong_stamps(timelines: &[(Timeline, Vec<Shown>)], began_ms: u64) -> Option<String> {
    let may = began_ms.saturating_sub(STAMP_SLACK_MS)..=unix_ms() + STAMP_SLACK_MS;
    let stamps = timelines.iter().flat_map(|(_, lines)| lines).map(|line| line.key.hlc.ms());
    let wrong: Vec<_> = stamps.filter(|ms| !may.contains(ms)).collect();
    let first = wrong.first()?;
    Some(format!(
        "{} lines stand at times outside the round, one at {first} (ms since 1970), not in {} to {}",
        wrong.len(),
        may.start(),
        may.end()
    ))
}

#[cfg(test)]
mod tests {
    use chatty_core::id::{AccountId, Mid};
    use chatty_core::time::{Hlc, Key};
    use chatty_simulations::history::Op;

    use super::super::fault::{Dice, Fault};
    use super::*;

    fn act(faults: &[Fault]) -> Vec<Box<dyn Strike>> {
        let mut dice = Dice::new(1, 3, Duration::from_secs(5));
        faults.iter().map(|fault| fault.draw(&mut dice)).collect()
    }

    /// A message said at one second and answered at another.
    fn answered(said: u64, told: u64, level: Level) -> History {
        let op =
            |s: u64, did| Op { at: Time::from_micros(s * 1_000_000), what: What::Client(0, did) };
        let sent = Did::Sent { ticket: 1, room: RoomId::public("lobby") };
        let (mid, key) = (Mid::default(), None);
        let answer = Did::Answered { ticket: 1, mid, key, level, server: 0 };
        History { ops: vec![op(said, sent), op(told, answer)], ..History::default() }
    }

    #[test]
    fn a_fault_under_which_a_majority_replicates_nothing_is_a_finding() {
        let at = |s: u64| Time::from_micros(s * 1_000_000);
        let stop = act(&[Fault::Stop]);
        let found = |act: &[Box<dyn Strike>], history: History| {
            unanswered(act, &history, at(10), at(15)).is_some()
        };
        assert!(!found(&stop, answered(11, 12, Level::Replicated)));
        assert!(found(&stop, answered(11, 12, Level::Stored)), "stored is not replicated");
        assert!(found(&stop, answered(9, 12, Level::Replicated)), "said before");
        assert!(found(&stop, answered(11, 16, Level::Replicated)), "answered after");
        let short = unanswered(&stop, &answered(9, 12, Level::Stored), at(10), at(11));
        assert_eq!(short, None, "no client finds another server so soon");
        for may in [vec![Fault::KillAll], vec![Fault::Stop, Fault::Kill]] {
            assert!(
                !found(&act(&may), answered(11, 12, Level::Stored)),
                "no majority may be there"
            );
        }
    }

    #[test]
    fn a_refusal_of_those_that_talk_is_a_finding() {
        let refused = |name: &str| {
            let why = String::from("no");
            let what = What::Client(0, Did::Refused { ticket: 7, why });
            let ops = vec![Op { at: Time::default(), what }];
            not_taken(&History { sessions: vec![name.into()], ops, ..History::default() })
        };
        let found = refused("talker-s1").expect("a finding");
        assert!(found.contains("message 7 of talker-s1 was not taken: no"), "{found}");
        assert_eq!(refused("regular-s1-round-1"), None, "he may be out of the room");
    }

    #[test]
    fn a_line_of_another_time_is_a_finding() {
        let now = unix_ms();
        let line = |ms: u64| {
            let key = Key { hlc: Hlc::at_ms(ms), ..Key::MIN };
            let shown = Shown { account: AccountId::default(), mid: Mid::default(), key, body: 0 };
            vec![(Timeline::public("lobby", std::path::Path::new("")), vec![shown])]
        };
        assert_eq!(wrong_stamps(&line(now), now), None);
        assert!(wrong_stamps(&line(now - 10_000), now).is_some());
        assert!(wrong_stamps(&line(now + 10_000), now).is_some());
    }
}

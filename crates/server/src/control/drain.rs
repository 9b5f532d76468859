//! Draining: the clients go, all that is here reaches every linked server's disk and a majority of the
//! voters', then the server stops.
//! Whoever asked stays to the end: if the connection ends before, the drain is given up, and the
//! server takes clients again.

use std::time::{Duration, Instant};

use chatty_core::replica::Drain;

use super::{Ask, Doors, Event, Link, Otherwise, Reply, ask};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Gives the drain up when dropped, unless it came to its end.
struct Draining<'a>(Option<&'a Doors>);

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        if let Some(doors) = self.0 {
            tracing::warn!("the drain is given up: clients are taken again");
            doors.tell(Event::Ask(Ask::Resume));
        }
    }
}

/// See the module.
pub(super) async fn drain(
    link: &mut Link,
    doors: &Doors,
    limit: Duration,
    otherwise: Otherwise,
) -> std::io::Result<()> {
    let began = Instant::now();
    tracing::info!("draining");
    doors.tell(Event::Ask(Ask::Drain));
    let mut draining = Draining(Some(doors));
    let mut told = String::new();
    loop {
        let Some(state) = ask(doors, Ask::Drained).await else {
            return link.say(&Reply::Error("the server stops".into())).await;
        };
        if state.is_done() {
            draining.0 = None;
            doors.tell(Event::Stop);
            return link.say(&Reply::Done(empty(&state))).await;
        }
        let left = waits_for(&state);
        if began.elapsed() >= limit {
            let what = format!("not drained in {} s: {left}", limit.as_secs_f64());
            if otherwise == Otherwise::Stop {
                draining.0 = None;
                tracing::warn!("{what}; stopping all the same");
                doors.tell(Event::Stop);
                return link.say(&Reply::Done(what)).await;
            }
            drop(draining);
            let why = format!(
                "{what}; the server goes on and takes clients again (--force stops it all the same)"
            );
            return link.say(&Reply::Error(why)).await;
        }
        if left != told {
            link.say(&Reply::Progress(left.clone())).await?;
            tracing::info!("draining: {left}");
            told = left;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = link.gone() => return Ok(()),
        }
    }
}

fn waits_for(state: &Drain) -> String {
    let mut parts = Vec::new();
    match state.sessions {
        0 => {}
        1 => parts.push("1 client is still attached".to_owned()),
        sessions => parts.push(format!("{sessions} clients are still attached")),
    }
    let are = |events: u64| if events == 1 { "event is" } else { "events are" };
    for (slot, events) in &state.missing {
        parts.push(format!("{events} {} not on the disk of {slot} yet", are(*events)));
    }
    if state.not_replicated > 0 {
        let events = state.not_replicated;
        let away = away(state);
        parts.push(format!("{events} {} not on the disks of most voters yet{away}", are(events)));
    }
    parts.join(", ")
}

fn empty(state: &Drain) -> String {
    let all = "no clients, and all that it holds is on the disks of most voters and of every linked \
               server";
    format!("{all}{}", away(state))
}

fn away(state: &Drain) -> String {
    if state.unreachable.is_empty() {
        return String::new();
    }
    let names: Vec<_> = state.unreachable.iter().map(ToString::to_string).collect();
    format!(" (not linked: {})", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatty_core::id::Slot;

    #[test]
    fn what_is_waited_for_is_told_in_words() {
        let slot = |name: &str| Slot::new(name).unwrap();
        let state = Drain {
            sessions: 2,
            missing: vec![(slot("s2"), 7)],
            not_replicated: 1,
            unreachable: vec![slot("s3")],
        };
        assert!(!state.is_done());
        assert_eq!(
            waits_for(&state),
            "2 clients are still attached, 7 events are not on the disk of s2 yet, 1 event is not on \
             the disks of most voters yet (not linked: s3)"
        );
        assert!(empty(&state).ends_with("every linked server (not linked: s3)"));
    }
}

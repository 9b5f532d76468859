//! Draining: the clients go, the log reaches every linked server's disk, then the server stops.
//! Whoever asked stays to the end: if the connection ends before, the drain is given up, and the
//! server takes clients again.

use std::time::{Duration, Instant};

use chatty_core::replica::Drain;

use super::{Ask, Doors, Event, Link, Reply, ask};

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
pub(super) async fn drain(link: &mut Link, doors: &Doors, limit: Duration) -> std::io::Result<()> {
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
            let why = format!(
                "not drained in {} s: {left}; the server goes on and takes clients again",
                limit.as_secs_f64()
            );
            drop(draining);
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
    for (slot, events) in &state.missing {
        let what =
            if *events == 1 { "event of this server is" } else { "events of this server are" };
        parts.push(format!("{events} {what} not on the disk of {slot} yet"));
    }
    parts.join(", ")
}

fn empty(state: &Drain) -> String {
    let mut text = "no clients, and its log is on the disk of every linked server".to_owned();
    if !state.unreachable.is_empty() {
        let names: Vec<_> = state.unreachable.iter().map(ToString::to_string).collect();
        text += &format!(" (not linked, and not waited for: {})", names.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatty_core::id::Slot;

    #[test]
    fn what_is_waited_for_is_told_in_words() {
        let slot = |name: &str| Slot::new(name).unwrap();
        let state =
            Drain { sessions: 2, missing: vec![(slot("s2"), 7)], unreachable: vec![slot("s3")] };
        assert!(!state.is_done());
        assert_eq!(
            waits_for(&state),
            "2 clients are still attached, 7 events of this server are not on the disk of s2 yet"
        );
        assert!(empty(&state).ends_with("(not linked, and not waited for: s3)"));
    }
}

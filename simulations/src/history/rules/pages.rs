//! What a page says of itself.

use std::collections::BTreeSet;
use std::time::Duration;

use chatty_core::event::Identity;
use chatty_core::id::Mid;

use super::Found;
use crate::history::facts::{Answer, Facts};
use crate::history::write::seconds;
use crate::history::{Did, Op, Rule, What};

/// A page may be called complete without what was acknowledged so shortly before it was asked for:
/// what servers hold is told by frames that take their time, and a silent link is noticed after it.
const RECENT: Duration = Duration::from_secs(3);

/// [`Rule::Incomplete`].
pub(super) fn incomplete(facts: &Facts<'_>, found: &mut Found) {
    for Op { at, what } in &facts.history.ops {
        let What::Client(session, Did::Read { room, asked, before, lines, more, complete: true }) =
            what
        else {
            continue;
        };
        let lowest = lines.first().filter(|_| *more).map(|line| line.key);
        if *more && lowest.is_none() {
            continue; // an empty page says nothing
        }
        let there: BTreeSet<Identity> = lines.iter().map(|line| line.identity(*room)).collect();
        let mut missing: Vec<(&Answer, Mid)> = Vec::new();
        let mut judged = false;
        for sent in facts.sent.values().filter(|sent| sent.room == *room) {
            let Some(identity) = sent.identity() else { continue };
            let Some(place) = facts.places.get(&identity) else { continue };
            let is_old = |answer: &&Answer| answer.at + RECENT <= *asked && stands(facts, answer);
            let Some(answer) = sent.answers.iter().find(is_old) else { continue };
            // In the end it may stand at the smaller key of an alias that no server had then.
            let mut keys = sent.keys().chain([place.key]);
            let belongs = keys.all(|key| {
                lowest.is_none_or(|low| low < key) && before.is_none_or(|before| key < before)
            });
            if there.contains(&identity) {
                judged = true;
            } else if belongs {
                missing.push((answer, identity.mid));
            }
        }
        if judged {
            found.judges(Rule::Incomplete);
        }
        if let Some((answer, mid)) = missing.iter().max_by_key(|(answer, _)| answer.at) {
            let what = format!(
                "{} asked at {} for a page of {}, got {} lines that were called complete, and they \
                 lack {} messages, the last of them {mid}, which {} had acknowledged {} ms before",
                facts.session(*session),
                seconds(*asked),
                facts.room(*room),
                lines.len(),
                missing.len(),
                facts.server(answer.server),
                asked.since(answer.at).as_millis(),
            );
            found.add(Rule::Incomplete, *at, what);
        }
    }
}

/// Whether what was acknowledged is still there: its server has its disk.
fn stands(facts: &Facts<'_>, answer: &Answer) -> bool {
    !facts.is_disk_lost_after(answer.server, answer.index)
}

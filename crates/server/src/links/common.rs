//! What the servers of a cluster are to have configured alike, held against each other in the hellos.
//!
//! With other voters, what one server calls *replicated* is not so for the other: they do not link.
//! Another retention does less harm, since a room's floor is an event that all agree on.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use chatty_core::event::Retention;
use chatty_core::frame::Common;
use chatty_core::id::Slot;

/// Why two servers must not link; the same words on both sides.
pub(super) fn voters_differ(me: (&Slot, &Common), other: (&Slot, &Common)) -> Option<String> {
    if me.1.voters == other.1.voters {
        return None;
    }
    let (first, second) = if me.0 < other.0 { (me, other) } else { (other, me) };
    let list = |common: &Common| {
        let names: Vec<_> = common.voters.iter().map(Slot::as_str).collect();
        names.join(", ")
    };
    Some(format!(
        "the configurations differ: by {0} the voters are {1}, by {2} they are {3}, so that what one \
         calls replicated is not so for the other. Give both the same [[servers]] list in server.toml, \
         and start the one that was wrong again",
        first.0,
        list(first.1),
        second.0,
        list(second.1)
    ))
}

/// What is told of each server's configuration: once, and not with every dial.
#[derive(Default)]
pub(crate) struct Differs(Mutex<BTreeMap<Slot, String>>);

impl Differs {
    /// Whether this is news.
    fn is_news(&self, slot: &Slot, what: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One line a server of the configuration: no other is greeted.
        told.insert(slot.clone(), what.to_owned()).is_none_or(|before| before != what)
    }

    pub(super) fn error(&self, slot: &Slot, why: &str) {
        // As this side says it, or the other one did.
        let why = why.trim_start_matches(crate::close::BY_THE_OTHER_SIDE);
        if self.is_news(slot, why) {
            tracing::error!("not linked with {slot}: {why}");
        }
    }

    /// They link, whatever is found here.
    pub(super) fn compare_retention(&self, slot: &Slot, here: Retention, there: Retention) {
        if here == there {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(slot);
            return;
        }
        let words = |kept: Retention| {
            format!("days = {}, messages = {}", kept.age_ms / 86_400_000, kept.messages)
        };
        let what = format!(
            "{slot} has another [retention] in its server.toml ({}) than this server ({}): rooms \
             without a policy of their own keep what the server that sets their floor says",
            words(there),
            words(here)
        );
        if self.is_news(slot, &what) {
            tracing::warn!("{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(n: u8) -> Slot {
        Slot::new(format!("s{n}")).unwrap()
    }

    fn common(voters: &[u8]) -> Common {
        let voters = voters.iter().map(|n| slot(*n)).collect();
        Common { voters, retention: Retention::default() }
    }

    #[test]
    fn other_voters_are_told_in_the_same_words_on_both_sides() {
        let (s1, s2) = (slot(1), slot(2));
        let (few, all) = (common(&[1, 2]), common(&[3, 2, 1]));
        assert_eq!(voters_differ((&s1, &all), (&s2, &common(&[1, 2, 3]))), None);
        let why = voters_differ((&s1, &few), (&s2, &all)).unwrap();
        assert!(why.contains("by s1 the voters are s1, s2, by s2 they are s1, s2, s3,"), "{why}");
        assert_eq!(voters_differ((&s2, &all), (&s1, &few)), Some(why));
    }

    #[test]
    fn what_differs_is_told_once_until_it_is_mended() {
        let differs = Differs::default();
        assert!(differs.is_news(&slot(1), "this"));
        assert!(!differs.is_news(&slot(1), "this"));
        assert!(differs.is_news(&slot(2), "this"));
        assert!(differs.is_news(&slot(1), "that"));
        differs.compare_retention(&slot(1), Retention::default(), Retention::default());
        assert!(differs.is_news(&slot(1), "that"));
    }
}

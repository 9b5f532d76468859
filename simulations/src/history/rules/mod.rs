//! The promises, each held against the facts.

mod kicks;
mod messages;
mod pages;
mod sessions;
mod shared;
mod timelines;

use std::collections::BTreeMap;

use chatty_core::time::Time;

use super::facts::Facts;
use super::{History, Rule, Violation};

/// Everything in a history that breaks a promise, in the order of [`Rule::ALL`].
pub fn check(history: &History) -> Vec<Violation> {
    judge(history).broken
}

/// What came of holding a history against the promises.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Everything that breaks one, in the order of [`Rule::ALL`].
    pub broken: Vec<Violation>,
    /// How often each rule had something to judge: a rule without that has proven nothing.
    pub judged: BTreeMap<Rule, u64>,
}

/// Holds a history against the promises.
pub fn judge(history: &History) -> Verdict {
    let facts = Facts::of(history);
    let mut found = Found::default();
    for rule in Rule::ALL {
        match rule {
            Rule::Lost => messages::lost(&facts, &mut found),
            Rule::Duplicated => messages::duplicated(&facts, &mut found),
            Rule::DirtyRead => messages::dirty_read(&facts, &mut found),
            Rule::Reordered => timelines::reordered(&facts, &mut found),
            Rule::ReadYourWrites => sessions::pages(&facts, Rule::ReadYourWrites, &mut found),
            Rule::MonotonicReads => sessions::pages(&facts, Rule::MonotonicReads, &mut found),
            Rule::Incomplete => pages::incomplete(&facts, &mut found),
            Rule::Unmarked => timelines::unmarked(&facts, &mut found),
            Rule::WritesFollowReads => sessions::writes_follow_reads(&facts, &mut found),
            Rule::MinorityReplicated => messages::minority_replicated(&facts, &mut found),
            Rule::Diverged => timelines::diverged(&facts, &mut found),
            Rule::KickedHeard => kicks::kicked_heard(&facts, &mut found),
            Rule::Overheard => messages::overheard(&facts, &mut found),
            Rule::Shared => shared::shared(&facts, &mut found),
            Rule::Missed => messages::missed(&facts, &mut found),
            Rule::Invented => messages::invented(&facts, &mut found),
            Rule::Unread => timelines::unread(&facts, &mut found),
        }
    }
    found.0
}

/// What was found so far.
#[derive(Default)]
struct Found(Verdict);

impl Found {
    fn add(&mut self, rule: Rule, at: Time, what: String) {
        self.0.broken.push(Violation { rule, at, what });
    }

    /// A rule has something before it that would break it if it were otherwise.
    fn judges(&mut self, rule: Rule) {
        *self.0.judged.entry(rule).or_insert(0) += 1;
    }
}

//! What is set rather than said: topics, names, and who is in a room.

use std::collections::{BTreeMap, BTreeSet};

use chatty_core::id::RoomId;
use chatty_core::time::Key;

use super::Found;
use super::messages::end;
use crate::history::facts::Facts;
use crate::history::{Did, Op, Rule, Server, State, Subject, What};

/// What is known of something that was set.
#[derive(Default)]
struct Known {
    /// Every change that anybody was told of.
    told: BTreeMap<Key, String>,
    /// The last one of those that are on a disk that was not lost since.
    last: Option<Key>,
    /// What anybody asked for: it may be there, though nobody was told.
    asked: BTreeSet<String>,
}

impl Known {
    /// Whether it may be that in the end.
    fn may_be(&self, value: &str) -> bool {
        let newest = self.told.range(self.last.unwrap_or(Key::MIN)..);
        let told: BTreeSet<_> = self.told.values().collect();
        let untold = self.asked.iter().filter(|asked| !told.contains(asked));
        newest.map(|(_, value)| value).chain(untold).any(|may| may == value)
    }
}

pub(super) fn shared(facts: &Facts<'_>, found: &mut Found) {
    let mut known: BTreeMap<Subject, Known> = BTreeMap::new();
    let mut states: BTreeMap<RoomId, BTreeMap<Server, &State>> = BTreeMap::new();
    for (index, Op { what, .. }) in facts.history.ops.iter().enumerate() {
        match what {
            What::Client(_, Did::Sets { subject, value }) => {
                known.entry(*subject).or_default().asked.insert(value.clone());
            }
            What::Client(session, Did::Changed { subject, value, key }) => {
                let known = known.entry(*subject).or_default();
                known.told.insert(*key, value.clone());
                if !facts.may_be_gone(*session, index) {
                    known.last = known.last.max(Some(*key));
                }
            }
            What::State(server, room, state) => {
                states.entry(*room).or_default().insert(*server, state);
            }
            _ => {}
        }
    }
    for (room, states) in states {
        let mut all = states.iter();
        let Some((one, first)) = all.next() else { continue };
        for (other, state) in all.filter(|(_, state)| state != &first) {
            let what = format!(
                "{}: {} has the topic {:?} and the members {:?}, {} the topic {:?} and {:?}",
                facts.room(room),
                facts.server(*one),
                first.topic,
                first.members.values(),
                facts.server(*other),
                state.topic,
                state.members.values(),
            );
            found.add(Rule::Shared, end(facts), what);
        }
        let nicks = first.members.iter().map(|(account, nick)| (Subject::Nick(*account), nick));
        for (subject, value) in [(Subject::Topic(room), &first.topic)].into_iter().chain(nicks) {
            let Some(known) = known.get(&subject).filter(|known| known.last.is_some()) else {
                continue;
            };
            found.judges(Rule::Shared);
            if !known.may_be(value) {
                let last = known.last.and_then(|last| known.told.get_key_value(&last));
                let what = format!(
                    "{} is {value:?} in the end, and somebody was told {last:?}",
                    facts.history.subject(subject),
                );
                found.add(Rule::Shared, end(facts), what);
            }
        }
    }
}

//! Every order of events in small clusters, explored by a model checker (stateright) on the real
//! core: the states are clusters of real [`chatty_core::broadcast::Broadcast`]s with their disks,
//! the steps are calls of them.
//!
//! What a state leaves out, so that there are finitely many: time stands still and timers fire in
//! any order ([`chatty_core::broadcast::Timer`]); a server takes one input a tick; both ends of a
//! new connection come up together; reads of the disk are done within the step. What is bounded by
//! a scope: what is said, crashes, cuts, and timers that fire before an answer could have come.

mod cluster;
mod compare;
mod reduce;
mod rules;
pub mod scope;
mod step;

use std::time::{Duration, Instant};

use chatty_core::config::Start;
use stateright::{Checker, HasDiscoveries, Model, Property};

pub use cluster::{Action, Cluster, Pair};
pub use compare::{Reached, reach};
pub use scope::{SCOPES, Scope, Size};

/// A scope as a model: its states, its steps, its rules.
struct Explored(Scope);

impl Model for Explored {
    type State = Cluster;
    type Action = Action;

    fn init_states(&self) -> Vec<Cluster> {
        Cluster::begin(&self.0)
    }

    fn actions(&self, state: &Cluster, actions: &mut Vec<Action>) {
        state.choices(&self.0, actions);
    }

    fn next_state(&self, last: &Cluster, action: Action) -> Option<Cluster> {
        Some(last.after(&self.0, action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let scope = &self.0;
        let mut properties = vec![
            Property::always("every rule holds", |model: &Self, state: &Cluster| {
                state.wrong(&model.0).is_none()
            }),
            Property::sometimes("all is said and replicated", |_, state: &Cluster| {
                state.is_at_rest() && state.all_is_replicated()
            }),
        ];
        if scope.crashes > 0 && scope.fsync == scope::Pace::Slow {
            properties.push(Property::sometimes("a crash loses a tail", |_, state: &Cluster| {
                state.has_lost_a_tail()
            }));
        }
        if scope.prunes() {
            properties.push(Property::sometimes("somebody is pruned", |_, state: &Cluster| {
                state.has_pruned()
            }));
        }
        if scope.start == Start::Pruned {
            properties.push(Property::sometimes("a link pushes nothing", |_, state: &Cluster| {
                state.is_at_rest() && state.has_planned()
            }));
        }
        properties
    }
}

/// What came of exploring a scope.
#[derive(Clone, Debug)]
pub struct Report {
    /// Distinct states.
    pub states: usize,
    /// Steps taken, also to states that were known.
    pub steps: usize,
    /// The longest way looked at.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Whether every state was looked at: neither a broken rule nor the time limit ended it.
    pub whole: bool,
    /// A rule that was broken and the way there; or something that never happens and must.
    pub broken: Option<String>,
}

/// Explores a scope, until it is done, a rule is broken, or the time is over. A small one breadth
/// first, so that the way to a broken rule is the shortest; a large one depth first: only the states
/// on the way are kept, of all others 8 bytes, so that memory bounds nothing before time does.
#[expect(clippy::disallowed_methods, reason = "measures the check itself, outside every world")]
pub fn check(size: Size, scope: &Scope, threads: usize, limit: Option<Duration>) -> Report {
    let began = Instant::now();
    let mut builder =
        Explored(scope.clone()).checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    if let Some(limit) = limit {
        builder = builder.timeout(limit);
    }
    match size {
        Size::Small => report(scope, &builder.spawn_bfs().join(), began.elapsed(), limit),
        Size::Large => report(scope, &builder.spawn_dfs().join(), began.elapsed(), limit),
    }
}

fn report(
    scope: &Scope,
    checker: &impl Checker<Explored>,
    took: Duration,
    limit: Option<Duration>,
) -> Report {
    let over = limit.is_some_and(|limit| took >= limit);
    let mut broken = None;
    for property in checker.model().properties() {
        let found = checker.discovery(property.name);
        let failed = match property.expectation {
            stateright::Expectation::Sometimes => found.is_none() && !over,
            _ => found.is_some(),
        };
        if !failed || broken.is_some() {
            continue;
        }
        broken = Some(match found {
            Some(path) => tell(scope, &path.into_vec()),
            None => format!("it never happens that {}", property.name),
        });
    }
    Report {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took,
        whole: broken.is_none() && !over,
        broken,
    }
}

/// The way to a broken rule, step by step.
fn tell(scope: &Scope, path: &[(Cluster, Option<Action>)]) -> String {
    use std::fmt::Write;
    let last = path.last();
    let wrong = last.and_then(|(state, _)| state.wrong(scope)).unwrap_or_default();
    let mut told = format!("{wrong}\n");
    let steps = path.iter().filter_map(|(state, action)| Some(state.steps(scope, (*action)?)));
    for (nth, action) in steps.flatten().enumerate() {
        let _ = writeln!(told, "{:>4} {action:?}", nth + 1);
    }
    if let Some((state, _)) = last {
        let _ = write!(told, "{state:?}");
    }
    told
}

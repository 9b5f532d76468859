//! Whether a scope leads to the same with and without the reductions of `reduce.rs`.

use ahash::AHashSet;
use chatty_core::id::Log;

use super::cluster::{Cluster, Server, print};
use super::scope::Scope;

type Prints = AHashSet<u64>;

/// What a scope leads to.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    /// Distinct states.
    pub states: usize,
    /// Distinct contents of each disk, in whatever state.
    pub disks: Prints,
    /// Distinct ends, when nothing is left to happen: disks, and what each server holds, counts, pushes
    /// and stamps.
    pub ends: Prints,
    /// The first broken rule.
    pub broken: Option<String>,
}

impl Reached {
    /// Whether another exploration led to the same: the same disks on the way, the same ends, and a
    /// broken rule if this one found one.
    pub fn is_same(&self, other: &Self) -> bool {
        self.broken.is_some() == other.broken.is_some()
            && (self.broken.is_some() || (&self.disks, &self.ends) == (&other.disks, &other.ends))
    }
}

/// Explores a whole scope, by itself and in one thread, until a rule is broken.
pub fn reach(scope: &Scope) -> Reached {
    let mut reached = Reached::default();
    let mut known = Prints::default();
    let mut pending = Cluster::begin(scope);
    known.extend(pending.iter().map(Cluster::print));
    let mut actions = Vec::new();
    while let Some(state) = pending.pop() {
        reached.states += 1;
        if let Some(broken) = state.wrong(scope) {
            reached.broken = Some(broken);
            return reached;
        }
        reached.disks.extend(state.disks());
        if state.is_at_rest() {
            reached.ends.insert(state.end());
        }
        state.choices(scope, &mut actions);
        for action in actions.drain(..) {
            let mut next = state.clone();
            next.step(scope, action);
            reached.disks.extend(next.disks());
            next.settle(scope, |state, _| reached.disks.extend(state.disks()));
            if known.insert(next.print()) {
                pending.push(next);
            }
        }
    }
    reached
}

impl Cluster {
    fn disks(&self) -> impl Iterator<Item = u64> {
        self.servers.iter().map(|server| print((&server.slot, server.disk.logs(), &server.said)))
    }

    fn end(&self) -> u64 {
        let logs: Vec<Log> = self.logs().into_iter().collect();
        let one = |n: usize, server: &Server| {
            let broadcast = server.broadcast()?;
            let ends = self.links_of(n).map(|(pair, link)| {
                let each = logs.iter().map(|log| {
                    let declines = broadcast.declines(link, *log);
                    (broadcast.pushes(link, *log), declines, broadcast.is_pruned(link, *log))
                });
                (pair, each.collect::<Vec<_>>(), broadcast.has_told(link))
            });
            let slots = self.servers.iter().map(|server| &server.slot);
            let counted = slots.flat_map(|slot| logs.iter().map(move |log| (slot, *log)));
            let counted = counted.map(|(slot, log)| broadcast.on_disk_of(slot, log));
            let run = server.run.as_ref()?;
            let lasting = (broadcast.held(), broadcast.durable().clone(), run.clock.last());
            Some((lasting, counted.collect::<Vec<_>>(), ends.collect::<Vec<_>>()))
        };
        let servers = self.servers.iter().enumerate().map(|(n, server)| {
            (one(n, server), server.disk.logs(), server.disk.sums(), server.starts, &server.said)
        });
        print(servers.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SCOPES;

    /// Scopes that take some seconds together, as tests are built.
    const QUICK: [&str; 7] = ["calm", "talk", "alias", "crash", "digest", "prune-1", "plan"];

    #[test]
    fn reductions_lead_to_the_same_disks_and_the_same_ends() {
        for (_, scope) in SCOPES.iter().filter(|(_, scope)| QUICK.contains(&scope.name)) {
            let reduced = reach(scope);
            let full = reach(&Scope { reduced: false, ..scope.clone() });
            assert_eq!(full.broken, None, "{}", scope.name);
            assert!(
                reduced.is_same(&full),
                "{}: {} disks and {} ends, of {} and {}",
                scope.name,
                reduced.disks.len(),
                reduced.ends.len(),
                full.disks.len(),
                full.ends.len()
            );
            assert!(reduced.states < full.states, "{}", scope.name);
        }
    }
}

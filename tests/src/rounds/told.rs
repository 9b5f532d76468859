//! What people on each side of a partition were told while it lasted.

use std::collections::BTreeMap;
use std::time::Duration;

use chatty_core::session::Level;
use chatty_core::time::Time;
use chatty_simulations::history::{Did, History, Quantiles, What};

use super::table::{Cell, Table};

/// What the clients of one side said during the cut and were told before the heal.
#[derive(Default)]
struct Told {
    said: usize,
    replicated: usize,
    stored: usize,
    refused: usize,
    waits: Vec<Duration>,
}

/// What each side's clients were told during the cut.
pub fn told(history: &History) -> Table {
    let mut table = Table::default();
    let cut = history.ops.iter().find_map(|op| match &op.what {
        What::Cut(sides) => Some((op.at, sides)),
        _ => None,
    });
    let healed = history.ops.iter().find(|op| matches!(op.what, What::Healed));
    let (Some((cut, sides)), Some(healed)) = (cut, healed) else { return table };
    for servers in sides {
        let names: Vec<_> =
            servers.iter().filter_map(|server| history.servers.get(*server)).collect();
        let majority = servers.len() * 2 > history.servers.len();
        let mut all = Told::default();
        for (session, name) in history.sessions.iter().enumerate() {
            if names.iter().any(|server| *name == format!("talker-{server}")) {
                all.count(history, session, cut, healed.at);
            }
        }
        let waits = Quantiles::of(all.waits.clone());
        let side = if majority { "majority" } else { "minority" };
        let names = names.into_iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        table.add(vec![
            ("side", Cell::Word(format!("{side} ({names})"))),
            ("said in the cut", Cell::Count(all.said)),
            ("told replicated", Cell::Count(all.replicated)),
            ("told stored", Cell::Count(all.stored)),
            ("refused", Cell::Count(all.refused)),
            ("not told before the heal", Cell::Count(all.said - all.waits.len() - all.refused)),
            ("median wait", Cell::Longest(waits.p50)),
            ("longest wait", Cell::Longest(waits.max)),
        ]);
    }
    table
}

impl Told {
    fn count(&mut self, history: &History, session: usize, cut: Time, healed: Time) {
        let mut open = BTreeMap::new();
        let mut best = BTreeMap::new();
        for op in history.ops.iter().filter(|op| cut <= op.at && op.at < healed) {
            let What::Client(who, did) = &op.what else { continue };
            match did {
                _ if *who != session => {}
                Did::Sent { ticket, .. } => {
                    open.insert(*ticket, op.at);
                    self.said += 1;
                }
                Did::Answered { ticket, level, .. } => {
                    let Some(at) = open.get(ticket) else { continue };
                    if best.insert(*ticket, *level).is_none() {
                        self.waits.push(op.at.since(*at));
                    }
                }
                Did::Refused { ticket, .. } => {
                    self.refused += usize::from(open.contains_key(ticket));
                }
                _ => {}
            }
        }
        self.replicated += best.values().filter(|level| **level == Level::Replicated).count();
        self.stored += best.values().filter(|level| **level == Level::Stored).count();
    }
}

//! Erasing register writes that lost.
//!
//! Members come and go and topics change, and only the last write of a register counts: the others
//! are found as they lose ([`Row::Lost`]) and become stubs in steps of bounded work. A write goes
//! only once the one that beat it is on a majority of disks: before, the winner's one disk could be
//! lost, and the register be empty where the loser was erased and old where it was not. Winners are
//! never erased. No timeline shows register writes, so none changes.

use super::plan::{Plan, void};
use super::{Row, Tidied, Tidy, View};
use crate::bugs::bug;
use crate::event::VOID;

/// Writes that one step looks at.
const TIDY_STEP: usize = 256;

impl<V: View> Plan<'_, V> {
    /// Erases a few writes that lost to what is on a majority of disks by now.
    pub(super) fn tidy(&mut self, tidy: &Tidy) -> Result<Tidied, V::Error> {
        let found = self.view.lost(tidy.after, TIDY_STEP)?;
        let last = found.last().map(|(key, _)| *key).filter(|_| found.len() == TIDY_STEP);
        for (key, register) in found {
            // The winner of now need not be the write that it lost to, but beat that one.
            let winner = self.view.register(&register)?.and_then(|held| held.winner());
            let beaten = winner.filter(|winner| *winner != key);
            let safe = beaten.is_some_and(|winner| tidy.replicated.covers(winner.event()));
            if !safe && !bug!(LoserVoidedEarly) {
                continue;
            }
            self.rows.push(Row::ForgetLost(key));
            let entries = self.view.events(key.event().log, key.seq, key.seq, 1)?;
            let whole = entries.first().filter(|entry| entry.event.kind != VOID);
            self.rows.extend(whole.map(|entry| Row::Void(void(entry))));
        }
        Ok(last.map_or(Tidied::All, Tidied::Upto))
    }
}

#[cfg(test)]
mod tests;

//! Lines that belong above what was shown: told of together, in their order, once no more come. What
//! has scrolled away cannot be written between.

use chatty_core::time::Key;

use super::screen::Piece;

/// Lines told of together, at most.
const MOST: usize = 1000;

/// See the module.
#[derive(Default)]
pub struct Late {
    lines: Vec<(Key, Vec<Piece>)>,
    /// How many there were at the last tick.
    before: usize,
}

impl Late {
    /// Keeps a line; tells whether there are so many that they have to be shown.
    pub fn keep(&mut self, key: Key, line: Vec<Piece>) -> bool {
        self.lines.push((key, line));
        self.lines.len() >= MOST
    }

    /// A tick: whether there are lines and no more have come since the last one.
    pub fn rests(&mut self) -> bool {
        let count = self.lines.len();
        let before = std::mem::replace(&mut self.before, count);
        count > 0 && count == before
    }

    /// All of them, in the order of the timeline.
    pub fn take(&mut self) -> Vec<Vec<Piece>> {
        let mut lines = std::mem::take(self).lines;
        lines.sort_by_key(|(key, _)| *key);
        lines.into_iter().map(|(_, line)| line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatty_core::id::Origin;
    use chatty_core::time::Hlc;

    fn key(ms: u64) -> Key {
        Key { hlc: Hlc::at_ms(ms), origin: Origin::new(1), seq: 1 }
    }

    fn line(text: &str) -> Vec<Piece> {
        vec![Piece::new("", text)]
    }

    #[test]
    fn late_lines_are_told_of_together_in_their_order_once_no_more_come() {
        let mut late = Late::default();
        assert!(!late.rests(), "there is nothing to show");
        assert!(!late.keep(key(20), line("second")));
        assert!(!late.rests(), "more may come");
        assert!(!late.keep(key(10), line("first")));
        assert!(!late.rests(), "another one has come since");
        assert!(late.rests());
        assert_eq!(late.take(), [line("first"), line("second")]);
        assert!(!late.rests(), "they are shown once");
        assert!(!late.keep(key(5), line("third")));
        assert!(!late.rests(), "what was counted before is forgotten");
    }

    #[test]
    fn late_lines_without_an_end_are_shown_all_the_same() {
        let mut late = Late::default();
        let full = (1..=MOST as u64).position(|ms| late.keep(key(ms), line("one of many")));
        assert_eq!(full, Some(MOST - 1));
        assert_eq!(late.take().len(), MOST);
    }
}

//! The table at the end of a run.

use std::fmt;
use std::time::Duration;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A word; not added up.
    Word(String),
    /// A count; the total is the sum.
    Count(usize),
    /// A time; the total is the longest.
    Longest(Duration),
}

impl Cell {
    fn joined(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Count(a), Self::Count(b)) => Self::Count(a + b),
            (Self::Longest(a), Self::Longest(b)) => Self::Longest(*a.max(b)),
            _ => Self::Word(format!("{self} {other}")),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Count(count) => write!(f, "{count}"),
            Self::Longest(time) if time.as_secs() >= 10 => write!(f, "{:.1} s", time.as_secs_f64()),
            Self::Longest(time) => write!(f, "{} ms", time.as_millis()),
        }
    }
}

/// A line of a table, each entry with its heading.
pub type Row = Vec<(&'static str, Cell)>;

/// A line in which no heading stands twice: words side by side, counts added, of times the longest.
pub fn merged(row: Row) -> Row {
    let mut merged: Row = Row::new();
    for (heading, cell) in row {
        match merged.iter_mut().find(|(other, _)| *other == heading) {
            None => merged.push((heading, cell)),
            Some((_, there)) => *there = there.joined(&cell),
        }
    }
    merged
}

/// Rows under the same headings.
#[derive(Clone, Debug, Default)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Adds a row; the first one says the headings.
    pub fn add(&mut self, row: Row) {
        let (headings, cells) = row.into_iter().unzip();
        self.headings = headings;
        self.rows.push(cells);
    }

    /// What was added last, in words.
    pub fn last_row(&self) -> String {
        let cells = self.rows.last().into_iter().flatten();
        let words = self.headings.iter().zip(cells).map(|(name, cell)| format!("{name} {cell}"));
        words.collect::<Vec<_>>().join(", ")
    }

    /// Sums and longest times.
    fn totals(&self) -> Vec<String> {
        let total = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let sum = cells.fold(None, |total: Option<Cell>, cell| match (total, cell) {
                (total, Cell::Word(_)) => total,
                (Some(Cell::Count(a)), Cell::Count(b)) => Some(Cell::Count(a + b)),
                (Some(Cell::Longest(a)), Cell::Longest(b)) => Some(Cell::Longest(a.max(*b))),
                (None, Cell::Count(_) | Cell::Longest(_)) => Some(cell.clone()),
                _ => None,
            });
            sum.map_or_else(String::new, |cell| cell.to_string())
        };
        let mut totals: Vec<_> = (0..self.headings.len()).map(total).collect();
        if let Some(first) = totals.first_mut() {
            *first = "all".into();
        }
        totals
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![self.headings.iter().map(|name| (*name).to_owned()).collect()];
        let words = |row: &Vec<Cell>| row.iter().map(Cell::to_string).collect::<Vec<_>>();
        lines.extend(self.rows.iter().map(words));
        lines.push(self.totals());
        let width = |column: usize| {
            lines.iter().filter_map(|line| line.get(column)).map(|w| w.chars().count()).max()
        };
        let widths: Vec<_> = (0..self.headings.len()).filter_map(width).collect();
        for line in &lines {
            for (word, width) in line.iter().zip(&widths) {
                write!(f, "{word:>width$}  ")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_under_the_same_heading_become_one() {
        let word = |word: &str| Cell::Word(word.into());
        let ms = |ms| Cell::Longest(Duration::from_millis(ms));
        let row = vec![("who", word("s1")), ("took", ms(5)), ("who", word("s2")), ("took", ms(3))];
        assert_eq!(merged(row), [("who", word("s1 s2")), ("took", ms(5))]);
    }

    #[test]
    fn counts_are_added_up_and_the_longest_time_stands() {
        let mut table = Table::default();
        for (n, count, ms) in [(1, 5, 30), (2, 7, 20)] {
            table.add(vec![
                ("round", Cell::Word(format!("{n}"))),
                ("said", Cell::Count(count)),
                ("stall", Cell::Longest(Duration::from_millis(ms))),
            ]);
        }
        assert_eq!(table.totals(), ["all", "12", "30 ms"]);
        assert_eq!(table.last_row(), "round 2, said 7, stall 20 ms");
        let text = table.to_string();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.starts_with("round  said  stall"), "{text}");
    }
}

//! The terminal: lines scroll up above one line that is being typed.
//!
//! Nothing but [`Screen`] writes to the terminal. Lines are broken here and not by the terminal,
//! so that the number of rows since a line is known, and the mark in front of an own message can
//! be changed while it is still on the screen.

use std::collections::VecDeque;
use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::out::Paint;

/// Columns in front of every line for the mark of an own message.
const MARK_COLUMNS: usize = 3;
/// Rows in front of which marks can be changed, at most.
const ROWS_REMEMBERED: usize = 500;

/// Own messages, numbered by the session.
pub type Own = u64;

/// What stands in front of an own message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// On its way.
    Sent,
    /// On one disk.
    Stored,
    /// On a majority of disks.
    Replicated,
    /// Refused.
    Refused,
}

impl Mark {
    fn painted(self, paint: Paint) -> String {
        match self {
            Self::Sent => paint.quiet("…  "),
            Self::Stored => paint.text("33", "✓  "),
            Self::Replicated => paint.text("32", "✓✓ "),
            Self::Refused => paint.text("31", "✗  "),
        }
    }
}

/// A piece of a line in one colour (an `SGR` parameter; empty: none).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub colour: &'static str,
    pub text: String,
}

impl Piece {
    pub fn new(colour: &'static str, text: impl Into<String>) -> Self {
        Self { colour, text: text.into() }
    }
}

/// See the module.
pub struct Screen<W: Write> {
    to: W,
    paint: Paint,
    columns: usize,
    rows: usize,
    /// Lines above the prompt, newest last: rows each, and whose message it is.
    lines: VecDeque<(usize, Option<Own>)>,
    prompt: Vec<Piece>,
    input: (String, usize),
    look: Look,
    /// Columns of the prompt and what is typed as they stand on the screen, and the cursor's.
    drawn: (usize, usize),
}

/// Whether the prompt stands on the screen as it is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Drawn,
    Old,
}

impl<W: Write> Screen<W> {
    pub fn new(to: W, paint: Paint, columns: usize, rows: usize) -> Self {
        let (columns, rows) = (columns.max(10), rows.max(2));
        let input = (String::new(), 0);
        Self {
            to,
            paint,
            columns,
            rows,
            lines: VecDeque::new(),
            prompt: Vec::new(),
            input,
            look: Look::Old,
            drawn: (0, 0),
        }
    }

    /// The terminal has another size: what is above has moved, nobody knows where. The line being
    /// typed was broken into several rows if it does not fit any more, and goes whole; it comes
    /// back with the next [`Self::draw`], once it is cut to the new size.
    pub fn resize(&mut self, columns: usize, rows: usize) -> io::Result<()> {
        // The cursor goes with the character before it when it stands behind the last one.
        let (width, cursor) = self.drawn;
        let up = cursor.min(width.saturating_sub(1)) / columns.max(1);
        if up > 0 {
            write!(self.to, "\x1b[{up}A")?;
        }
        write!(self.to, "\r\x1b[J")?;
        self.drawn = (0, 0);
        (self.columns, self.rows) = (columns.max(10), rows.max(2));
        self.lines.clear();
        self.look = Look::Old;
        Ok(())
    }

    /// Columns left for what is typed.
    pub fn input_columns(&self) -> usize {
        let used: usize = self.prompt.iter().map(|piece| piece.text.width()).sum();
        self.columns.saturating_sub(used)
    }

    pub fn set_prompt(&mut self, prompt: Vec<Piece>) {
        if self.prompt != prompt {
            self.prompt = prompt;
            self.look = Look::Old;
        }
    }

    pub fn set_input(&mut self, input: (String, usize)) {
        if self.input != input {
            self.input = input;
            self.look = Look::Old;
        }
    }

    /// Draws the prompt and what is typed, if they changed or lines were added, and shows it all.
    pub fn draw(&mut self) -> io::Result<()> {
        if self.look == Look::Drawn {
            return Ok(());
        }
        self.look = Look::Drawn;
        write!(self.to, "\r\x1b[K")?;
        for Piece { colour, text } in &self.prompt {
            write!(self.to, "{}", self.paint.text(colour, text))?;
        }
        write!(self.to, "{}", self.input.0)?;
        let prompt = self.columns - self.input_columns();
        self.drawn = (prompt + self.input.0.width(), prompt + self.input.1);
        self.place_cursor()?;
        self.to.flush()
    }

    fn place_cursor(&mut self) -> io::Result<()> {
        let column = self.columns - self.input_columns() + self.input.1;
        match column.min(self.columns - 1) {
            0 => write!(self.to, "\r"),
            column => write!(self.to, "\r\x1b[{column}C"),
        }
    }

    /// Adds a line above the prompt; [`Self::draw`] shows it.
    pub fn print(&mut self, line: &[Piece], own: Option<(Own, Mark)>) -> io::Result<()> {
        let rows = broken(line, self.columns - MARK_COLUMNS);
        self.drawn = (0, 0);
        write!(self.to, "\r\x1b[K")?;
        for (n, row) in rows.iter().enumerate() {
            match own {
                Some((_, mark)) if n == 0 => write!(self.to, "{}", mark.painted(self.paint))?,
                _ => write!(self.to, "{:MARK_COLUMNS$}", "")?,
            }
            for Piece { colour, text } in row {
                write!(self.to, "{}", self.paint.text(colour, text))?;
            }
            write!(self.to, "\r\n")?;
        }
        self.lines.push_back((rows.len(), own.map(|(own, _)| own)));
        if self.lines.len() > ROWS_REMEMBERED {
            self.lines.pop_front();
        }
        self.look = Look::Old;
        Ok(())
    }

    /// Changes the mark of an own message, if it is still on the screen.
    pub fn mark(&mut self, own: Own, mark: Mark) -> io::Result<()> {
        let mut up = 0;
        let mut found = false;
        for (rows, of) in self.lines.iter().rev() {
            up += rows;
            if *of == Some(own) {
                found = true;
                break;
            }
        }
        if !found || up >= self.rows {
            return Ok(());
        }
        write!(self.to, "\r\x1b[{up}A{}\x1b[{up}B", mark.painted(self.paint))?;
        self.place_cursor()?;
        self.to.flush()
    }

    /// Clears the screen; what was on it can be scrolled back to.
    pub fn clear(&mut self) -> io::Result<()> {
        self.lines.clear();
        self.look = Look::Old;
        write!(self.to, "\x1b[2J\x1b[H")?;
        self.draw()
    }

    /// Leaves the terminal with an empty line.
    pub fn finish(&mut self) -> io::Result<()> {
        write!(self.to, "\r\x1b[K")?;
        self.to.flush()
    }
}

/// The rows of a line: broken at blanks where there are some.
fn broken(line: &[Piece], columns: usize) -> Vec<Vec<Piece>> {
    let mut rows = vec![Vec::new()];
    let mut used = 0;
    for Piece { colour, text } in line {
        for word in text.split_inclusive(' ') {
            let mut word = word;
            if used > 0 && used + word.trim_end().width() > columns {
                rows.push(Vec::new());
                used = 0;
            }
            // A word longer than a row is broken anywhere.
            while word.trim_end().width() > columns {
                let (head, tail) = word.split_at(fitting(word, columns));
                push(&mut rows, colour, head);
                rows.push(Vec::new());
                word = tail;
            }
            let mut rest = columns.saturating_sub(used);
            let fits = |c: &char| {
                let width = c.width().unwrap_or(0);
                rest.checked_sub(width).map(|left| rest = left).is_some()
            };
            let shown: String = word.chars().take_while(fits).collect();
            used += shown.width();
            push(&mut rows, colour, &shown);
        }
    }
    rows
}

fn push(rows: &mut [Vec<Piece>], colour: &'static str, text: &str) {
    let Some(row) = rows.last_mut() else { return };
    match row.last_mut() {
        Some(piece) if piece.colour == colour => piece.text.push_str(text),
        _ => row.push(Piece::new(colour, text)),
    }
}

/// How many bytes of a text fit; at least one character.
fn fitting(text: &str, columns: usize) -> usize {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > columns {
            return if at == 0 { c.len_utf8() } else { at };
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(columns: usize) -> Screen<Vec<u8>> {
        let mut screen = Screen::new(Vec::new(), Paint::None, columns, 10);
        screen.set_prompt(vec![Piece::new("", "> ")]);
        screen.set_input(("typed".into(), 5));
        screen
    }

    fn written(screen: &mut Screen<Vec<u8>>) -> String {
        String::from_utf8(std::mem::take(&mut screen.to)).unwrap()
    }

    fn texts(line: &str, columns: usize) -> Vec<String> {
        let rows = broken(&[Piece::new("", line)], columns);
        rows.into_iter().map(|row| row.into_iter().map(|p| p.text).collect()).collect()
    }

    #[test]
    fn an_arriving_line_stands_above_what_is_typed() {
        let mut screen = screen(40);
        screen.print(&[Piece::new("", "bob: hi")], None).unwrap();
        screen.draw().unwrap();
        assert_eq!(written(&mut screen), "\r\x1b[K   bob: hi\r\n\r\x1b[K> typed\r\x1b[7C");
        screen.draw().unwrap();
        assert_eq!(written(&mut screen), "", "nothing changed");
    }

    #[test]
    fn a_mark_is_changed_in_its_place_while_it_is_on_the_screen() {
        let mut screen = screen(40);
        screen.print(&[Piece::new("", "me: one")], Some((1, Mark::Sent))).unwrap();
        screen.print(&[Piece::new("", "bob: two")], None).unwrap();
        written(&mut screen);
        screen.mark(1, Mark::Stored).unwrap();
        assert_eq!(written(&mut screen), "\r\x1b[2A✓  \x1b[2B\r\x1b[7C");
        for _ in 0..10 {
            screen.print(&[Piece::new("", "bob: more")], None).unwrap();
        }
        written(&mut screen);
        screen.mark(1, Mark::Replicated).unwrap();
        screen.mark(7, Mark::Replicated).unwrap();
        assert_eq!(written(&mut screen), "", "it has scrolled away");
    }

    #[test]
    fn a_narrower_terminal_keeps_no_copies_of_what_is_typed() {
        let mut screen = screen(100);
        screen.set_input(("x".repeat(80), 80));
        screen.draw().unwrap();
        written(&mut screen);
        // 82 columns were broken into three rows of 40; the cursor is in the last one.
        screen.resize(40, 10).unwrap();
        assert_eq!(written(&mut screen), "\x1b[2A\r\x1b[J", "and not drawn as it was");
        screen.set_input(("x".repeat(30), 30));
        screen.draw().unwrap();
        assert!(written(&mut screen).starts_with("\r\x1b[K> xxx"));
        screen.resize(100, 10).unwrap();
        assert_eq!(written(&mut screen), "\r\x1b[J", "one row stays one");
    }

    #[test]
    fn rows_are_counted_as_they_are_broken() {
        let mut screen = screen(13);
        screen.print(&[Piece::new("", "me: four rows of text")], Some((1, Mark::Sent))).unwrap();
        written(&mut screen);
        screen.mark(1, Mark::Stored).unwrap();
        assert!(written(&mut screen).starts_with("\r\x1b[3A"));
    }

    #[test]
    fn lines_are_broken_at_blanks_and_long_words_anywhere() {
        assert_eq!(texts("one two three", 8), ["one two ", "three"]);
        assert_eq!(texts("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(texts("漢字漢字", 5), ["漢字", "漢字"]);
        assert_eq!(texts("", 5), [""]);
        assert_eq!(texts("a     b", 3).iter().map(|r| r.width()).max(), Some(3));
    }
}

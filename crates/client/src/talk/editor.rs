//! The line being typed: keys in, a line out. No terminal in here.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use unicode_width::UnicodeWidthChar as _;

/// Lines remembered.
const REMEMBERED: usize = 500;

/// What a key asks of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing but a new look.
    None,
    /// The line is finished.
    Enter(String),
    /// Leave.
    Quit,
    /// Clear the screen.
    Clear,
    /// Complete the word before the cursor.
    Complete(String),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Editor {
    line: Vec<char>,
    /// Before which character the cursor stands.
    cursor: usize,
    /// The first character shown, when the line is longer than its place.
    first: usize,
    history: Vec<String>,
    /// Which line of the history is shown; beyond the last: the draft.
    at: usize,
    draft: String,
}

fn width(c: char) -> usize {
    look(c).width().unwrap_or(0)
}

/// How a character of the line is shown.
fn look(c: char) -> char {
    match c {
        '\n' => '⏎',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

impl Editor {
    pub fn key(&mut self, key: KeyEvent) -> Action {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        match key.code {
            KeyCode::Char(c) if control => return self.control(c),
            KeyCode::Char('b') if alt => self.cursor = self.word_left(),
            KeyCode::Char('f') if alt => self.cursor = self.word_right(),
            KeyCode::Char('d') if alt => self.cut(self.cursor, self.word_right()),
            KeyCode::Backspace if control || alt => self.cut(self.word_left(), self.cursor),
            KeyCode::Left if control || alt => self.cursor = self.word_left(),
            KeyCode::Right if control || alt => self.cursor = self.word_right(),
            KeyCode::Enter if alt => self.insert("\n"),
            KeyCode::Enter => return self.enter(),
            KeyCode::Tab => return Action::Complete(self.word()),
            KeyCode::Char(c) => self.insert(c.encode_utf8(&mut [0; 4])),
            KeyCode::Backspace => self.cut(self.left(), self.cursor),
            KeyCode::Delete => self.cut(self.cursor, self.right()),
            KeyCode::Left => self.cursor = self.left(),
            KeyCode::Right => self.cursor = self.right(),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.line.len(),
            KeyCode::Up => self.recall(self.at.saturating_sub(1)),
            KeyCode::Down => self.recall(self.at + 1),
            _ => {}
        }
        Action::None
    }

    fn control(&mut self, c: char) -> Action {
        match c {
            'c' => return Action::Quit,
            'd' if self.line.is_empty() => return Action::Quit,
            'l' => return Action::Clear,
            'j' | 'm' => return self.enter(),
            'd' => self.cut(self.cursor, self.right()),
            'a' => self.cursor = 0,
            'e' => self.cursor = self.line.len(),
            'b' => self.cursor = self.left(),
            'f' => self.cursor = self.right(),
            'h' => self.cut(self.left(), self.cursor),
            'k' => self.cut(self.cursor, self.line.len()),
            'u' => self.cut(0, self.cursor),
            'w' => self.cut(self.word_left(), self.cursor),
            'p' => self.recall(self.at.saturating_sub(1)),
            'n' => self.recall(self.at + 1),
            _ => {}
        }
        Action::None
    }

    /// Puts text in at the cursor: typed, pasted or completed.
    pub fn insert(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let chars: Vec<char> = text.chars().collect();
        let count = chars.len();
        self.line.splice(self.cursor..self.cursor, chars);
        self.cursor += count;
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.line.drain(from..to);
        self.cursor = from;
    }

    /// One step; marks that stand on the character before them go with it.
    fn left(&self) -> usize {
        let before = self.line.get(..self.cursor).unwrap_or_default();
        before.iter().rposition(|c| width(*c) > 0).unwrap_or(0)
    }

    fn right(&self) -> usize {
        let after = self.line.get(self.cursor + 1..).unwrap_or_default();
        let step = after.iter().position(|c| width(*c) > 0).unwrap_or(after.len());
        (self.cursor + 1 + step).min(self.line.len())
    }

    fn word_left(&self) -> usize {
        let before = self.line.get(..self.cursor).unwrap_or_default();
        let end = before.iter().rposition(|c| !c.is_whitespace()).map_or(0, |at| at + 1);
        let word = before.get(..end).unwrap_or_default();
        word.iter().rposition(|c| c.is_whitespace()).map_or(0, |at| at + 1)
    }

    fn word_right(&self) -> usize {
        let after = self.line.get(self.cursor..).unwrap_or_default();
        let start = after.iter().position(|c| !c.is_whitespace()).unwrap_or(after.len());
        let word = after.get(start..).unwrap_or_default();
        let length = word.iter().position(|c| c.is_whitespace()).unwrap_or(word.len());
        self.cursor + start + length
    }

    /// The word before the cursor.
    fn word(&self) -> String {
        let word = self.line.get(self.word_left()..self.cursor).unwrap_or_default();
        if word.last().is_some_and(|c| c.is_whitespace()) {
            return String::new();
        }
        word.iter().collect()
    }

    /// Whether the cursor stands in the line's first word.
    pub fn is_first_word(&self) -> bool {
        self.word_left() == 0
    }

    fn enter(&mut self) -> Action {
        let line: String = self.line.drain(..).collect();
        self.cursor = 0;
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            self.history.push(line.clone());
            if self.history.len() > REMEMBERED {
                self.history.remove(0);
            }
        }
        self.at = self.history.len();
        Action::Enter(line)
    }

    fn recall(&mut self, at: usize) {
        if at > self.history.len() || at == self.at {
            return;
        }
        if self.at == self.history.len() {
            self.draft = self.line.iter().collect();
        }
        let line = self.history.get(at).unwrap_or(&self.draft);
        self.line = line.chars().collect();
        self.at = at;
        self.cursor = self.line.len();
    }

    /// What is shown in a place of so many columns, and in which column the cursor stands.
    pub fn view(&mut self, columns: usize) -> (String, usize) {
        let columns = columns.max(4);
        self.first = self.first.min(self.cursor);
        let span = |line: &[char]| line.iter().map(|c| width(*c)).sum::<usize>();
        // The cursor itself needs a column.
        while span(self.line.get(self.first..self.cursor).unwrap_or_default()) >= columns {
            self.first += 1;
        }
        // What went out of sight comes back when there is room for it.
        while self.first > 0 && span(self.line.get(self.first - 1..).unwrap_or_default()) < columns
        {
            self.first -= 1;
        }
        let before: String = self.line.iter().skip(self.first).map(|c| look(*c)).collect();
        let column = span(self.line.get(self.first..self.cursor).unwrap_or_default());
        let mut used = 0;
        let fits = |c: &char| {
            used += c.width().unwrap_or(0);
            used < columns
        };
        (before.chars().take_while(fits).collect(), column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(editor: &mut Editor, code: KeyCode) -> Action {
        editor.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn control(editor: &mut Editor, c: char) -> Action {
        editor.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
    }

    fn typed(text: &str) -> Editor {
        let mut editor = Editor::default();
        text.chars().for_each(|c| {
            press(&mut editor, KeyCode::Char(c));
        });
        editor
    }

    fn line(editor: &Editor) -> String {
        editor.line.iter().collect()
    }

    #[test]
    fn text_is_typed_corrected_and_entered() {
        let mut editor = typed("helo");
        press(&mut editor, KeyCode::Left);
        press(&mut editor, KeyCode::Char('l'));
        press(&mut editor, KeyCode::Home);
        press(&mut editor, KeyCode::Delete);
        press(&mut editor, KeyCode::Char('H'));
        press(&mut editor, KeyCode::End);
        press(&mut editor, KeyCode::Char('!'));
        press(&mut editor, KeyCode::Backspace);
        assert_eq!(press(&mut editor, KeyCode::Enter), Action::Enter("Hello".into()));
        assert_eq!(line(&editor), "");
    }

    #[test]
    fn words_are_crossed_and_deleted() {
        let mut editor = typed("one two  three");
        control(&mut editor, 'w');
        assert_eq!(line(&editor), "one two  ");
        control(&mut editor, 'w');
        assert_eq!(line(&editor), "one ");
        control(&mut editor, 'u');
        assert_eq!(line(&editor), "");
        let mut editor = typed("one two");
        editor.key(KeyEvent::new(KeyCode::Left, KeyModifiers::CONTROL));
        control(&mut editor, 'k');
        assert_eq!(line(&editor), "one ");
    }

    #[test]
    fn wide_characters_and_marks_move_as_one() {
        let mut editor = typed("e\u{301}漢");
        assert_eq!(editor.view(20), ("e\u{301}漢".into(), 3));
        press(&mut editor, KeyCode::Left);
        assert_eq!(editor.view(20).1, 1);
        press(&mut editor, KeyCode::Left);
        assert_eq!(editor.view(20).1, 0);
        press(&mut editor, KeyCode::Right);
        press(&mut editor, KeyCode::Backspace);
        assert_eq!(line(&editor), "漢");
    }

    #[test]
    fn earlier_lines_come_back_and_the_draft_is_kept() {
        let mut editor = typed("first");
        press(&mut editor, KeyCode::Enter);
        editor.insert("second");
        press(&mut editor, KeyCode::Enter);
        editor.insert("dra");
        press(&mut editor, KeyCode::Up);
        press(&mut editor, KeyCode::Up);
        assert_eq!(line(&editor), "first");
        press(&mut editor, KeyCode::Up);
        press(&mut editor, KeyCode::Down);
        press(&mut editor, KeyCode::Down);
        assert_eq!(line(&editor), "dra");
    }

    #[test]
    fn a_long_line_scrolls_with_the_cursor() {
        let mut editor = typed("abcdefghij");
        assert_eq!(editor.view(5), ("ghij".into(), 4));
        let mut wider = typed("abcdefghij");
        wider.view(5);
        assert_eq!(wider.view(11), ("abcdefghij".into(), 10), "it comes back with the room");
        press(&mut editor, KeyCode::Home);
        assert_eq!(editor.view(5), ("abcd".into(), 0));
    }

    #[test]
    fn a_pasted_line_break_is_part_of_the_message() {
        let mut editor = Editor::default();
        editor.insert("a\r\nb\x1b");
        assert_eq!(editor.view(9).0, "a⏎b\u{fffd}");
        assert_eq!(press(&mut editor, KeyCode::Enter), Action::Enter("a\nb\u{1b}".into()));
    }

    #[test]
    fn leaving_is_always_one_key_away() {
        assert_eq!(control(&mut typed("half a"), 'c'), Action::Quit);
        assert_eq!(control(&mut Editor::default(), 'd'), Action::Quit);
        assert_eq!(control(&mut typed("x"), 'd'), Action::None);
    }
}

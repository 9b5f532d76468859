//! Characters that nobody sees: in a name they would let two people look the same.
//!
//! Letters of different scripts that look alike (a Latin and a Cyrillic `a`) and the two ways to
//! write an accented letter are not told apart here: whoever must be sure compares accounts.

/// Whether a character shows nothing, so that two names with and without it look the same: blanks,
/// control characters, Unicode's `Default_Ignorable_Code_Point` (a property that changes only
/// within the ranges reserved for it), and the three signs that are drawn as a blank.
pub(crate) fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
        // Interlinear marks; the blank of Braille; a note without its head.
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{2800}' | '\u{1d159}')
}

#[cfg(test)]
mod tests {
    use crate::session::{check_nick, check_room, check_text};

    #[test]
    fn what_nobody_sees_is_in_no_name() {
        let unseen = [
            '\u{ad}',
            '\u{fe0f}',
            '\u{3164}',
            '\u{2800}',
            '\u{200b}',
            '\u{34f}',
            '\u{61c}',
            '\u{180e}',
            '\u{feff}',
            '\u{e0041}',
            '\u{115f}',
            '\u{ffa0}',
            '\u{a0}',
            '\u{1d173}',
            '\u{fffa}',
            '\u{7f}',
        ];
        for c in unseen {
            for name in [format!("ann{c}"), format!("{c}ann"), format!("a{c}nn"), c.to_string()] {
                let why = check_nick(&name).unwrap_err();
                assert!(why.contains(&format!("U+{:04X}", u32::from(c))), "{why}");
                assert!(check_room(&name).is_err(), "{name:?}");
            }
        }
        for name in ["ann", "Zoë", "Œuvre", "Ελένη", "Ольга", "सीता", "王芳", "がく", "😀", "a_b.c"]
        {
            assert_eq!((check_nick(name), check_room(name)), (Ok(()), Ok(())), "{name}");
        }
    }

    #[test]
    fn a_text_of_blanks_is_a_text() {
        assert_eq!(check_text(" "), Ok(()));
        assert_eq!(check_text("\n\u{3000}"), Ok(()));
        assert!(check_text("").is_err());
    }

    #[test]
    fn a_person_given_for_a_room_is_told_so() {
        let why = check_room("@dana").unwrap_err();
        assert!(why.contains("\"@dana\" is a person and no room"), "{why}");
    }
}

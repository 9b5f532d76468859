//! Texts of other people on a terminal: nothing in them may steer it.

/// Characters that change how the ones around them are read or shown.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The text on one line: line breaks and tabs become a mark or a blank, every other control
/// character (also the one-byte forms of escape sequences, and what turns the direction of
/// writing) becomes U+FFFD.
pub fn one_line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' => safe.push_str(" ⏎ "),
            '\t' => safe.push(' '),
            c if is_unsafe(c) => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// JSON in which no control character stands as itself, not even those that JSON allows
/// (U+007F to U+009F hold one-byte escape sequences).
#[derive(Clone, Copy, Debug, Default)]
struct Escaped;

impl serde_json::ser::Formatter for Escaped {
    fn write_string_fragment<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> std::io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_unsafe) {
            let (plain, tail) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = tail.chars();
            if let Some(c) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(c))?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// A value as one line of JSON that is safe to show.
///
/// # Errors
/// If the value cannot be written as JSON.
pub fn json<T: serde::Serialize>(value: &T) -> serde_json::Result<String> {
    let mut bytes = Vec::with_capacity(256);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Escaped))?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

/// Unix milliseconds as RFC 3339 in UTC: `2026-11-22T23:31:07.042Z`.
pub fn rfc3339(unix_ms: u64) -> String {
    let (year, month, day) = civil(unix_ms / 86_400_000);
    let (hour, minute, second) = clock(unix_ms);
    let ms = unix_ms % 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

const fn clock(unix_ms: u64) -> (u64, u64, u64) {
    let seconds = unix_ms / 1000 % 86_400;
    (seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A day since 1970-01-01 as a date (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`).
const fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_007), "2000-02-29T00:00:00.007Z");
        assert_eq!(rfc3339(1_795_389_067_042), "2026-11-22T23:11:07.042Z");
    }

    #[test]
    fn escape_sequences_lose_their_teeth() {
        assert_eq!(one_line("a\x1b[2Jb\u{9b}31mc"), "a\u{fffd}[2Jb\u{fffd}31mc");
        assert_eq!(one_line("two\r\nlines\tand"), "two ⏎ lines and");
        assert_eq!(one_line("\u{202e}evil"), "\u{fffd}evil");
        assert_eq!(json(&"\x1b\u{9b}\u{7f}é").unwrap(), r#""\u001b\u009b\u007fé""#);
    }

    proptest! {
        #[test]
        fn no_text_steers_a_terminal_and_json_keeps_it_whole(text in any::<String>()) {
            prop_assert!(!one_line(&text).contains(is_unsafe));
            let written = json(&text).unwrap();
            prop_assert!(!written.contains(is_unsafe));
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }
}

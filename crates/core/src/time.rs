//! Time as an argument, the hybrid clock's stamps, and the order of a timeline.
//!
//! The core never reads a clock: every call brings [`Now`]. [`Hlc`] is the hybrid logical clock
//! of Kulkarni et al. (2014), 48 bits of unix milliseconds and a 16-bit counter; [`Key`] is the
//! one display order of a room.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{EventId, Log, Origin};

/// Microseconds since the process, or the simulated world, began. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// `micros` microseconds after the beginning.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the beginning.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// The moment of a call: the steady clock for deadlines, the wall clock for stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Steady time.
    pub time: Time,
    /// Unix milliseconds by this machine's clock; it may jump.
    pub wall_ms: u64,
}

/// A hybrid-clock stamp: 48 bits of unix milliseconds, 16 bits of counter.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Hlc(u64);

impl Hlc {
    /// The first stamp of a millisecond.
    pub const fn at_ms(ms: u64) -> Self {
        Self(ms << 16)
    }

    /// From its 64 bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its 64 bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The milliseconds in it.
    pub const fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The next stamp; a full counter carries into the milliseconds.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The place of an event in its room's timeline: the total order (hlc, origin, seq).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// When, by the hybrid clock of the server that accepted it.
    pub hlc: Hlc,
    /// Breaks ties between servers.
    pub origin: Origin,
    /// Breaks ties within a log (never needed: stamps rise strictly within a log).
    pub seq: u64,
}

impl Key {
    /// Below every key of an event.
    pub const MIN: Self = Self { hlc: Hlc(0), origin: Origin::new(0), seq: 0 };
    /// Above every key of an event.
    pub const MAX: Self =
        Self { hlc: Hlc(u64::MAX), origin: Origin::new(u128::MAX), seq: u64::MAX };

    /// The event of that key.
    pub const fn event(self) -> EventId {
        EventId { log: Log::of(self.origin), seq: self.seq }
    }
}

/// A key as people and scripts see it: 65 characters that sort bytewise in timeline order.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:032x}-{:016x}", self.hlc.0, self.origin.bits(), self.seq)
    }
}

impl FromStr for Key {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("not a key: {text:?}");
        // `from_str_radix` takes a sign too, so the digits are checked first.
        let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (stamp, seq) = text.split_once('-').ok_or_else(bad)?;
        if (stamp.len(), seq.len()) != (48, 16) || !is_digits(stamp) || !is_digits(seq) {
            return Err(bad());
        }
        let (hlc, origin) = stamp.split_at_checked(16).ok_or_else(bad)?;
        let hlc = u64::from_str_radix(hlc, 16).map_err(|_| bad())?;
        let origin = u128::from_str_radix(origin, 16).map_err(|_| bad())?;
        let seq = u64::from_str_radix(seq, 16).map_err(|_| bad())?;
        Ok(Self { hlc: Hlc(hlc), origin: Origin::new(origin), seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_65_characters_and_has_no_signs() {
        let key = Key { hlc: Hlc::at_ms(7), origin: Origin::new(1 << 100), seq: 9 };
        let text = key.to_string();
        assert_eq!(text.parse(), Ok(key));
        for at in [0, 16, 49] {
            let signed: String =
                text.char_indices().map(|(nth, c)| if nth == at { '+' } else { c }).collect();
            assert!(signed.parse::<Key>().is_err(), "{signed}");
        }
        for bad in ["", "-", &text[1..], &text.replace('-', "0"), &"é".repeat(32)] {
            assert!(bad.parse::<Key>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_read_as_it_is_written_and_sorts_as_it_reads() {
        let key =
            |hlc, origin, seq| Key { hlc: Hlc::from_bits(hlc), origin: Origin::new(origin), seq };
        let keys = [key(1, 2, 3), key(1, 2, 0x10), key(1, 0x20, 0), key(0xff, 0, 0), Key::MAX];
        let texts = keys.map(|key| key.to_string());
        assert_eq!(texts[0], "000000000000000100000000000000000000000000000002-0000000000000003");
        assert!(texts.is_sorted() && keys.is_sorted());
        for (key, text) in keys.iter().zip(&texts) {
            assert_eq!(text.parse(), Ok(*key));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let good = Key::MIN.to_string();
        let bad = [
            String::new(),
            good[1..].to_string(),
            format!("{good}0"),
            good.replace('-', "0"),
            format!("-{}", good.replace('-', "0").split_off(1)),
            format!("é{}", &good[2..]),
            good.replace("0-", "x-"),
            format!("x{}", &good[1..]),
            format!("{}x", &good[..64]),
        ];
        for text in bad {
            assert_eq!(text.parse::<Key>(), Err(format!("not a key: {text:?}")));
        }
    }

    #[test]
    fn a_stamp_is_milliseconds_and_a_counter_that_carries() {
        let stamp = Hlc::at_ms(5);
        assert_eq!((stamp.ms(), stamp.bits(), Hlc::from_bits(5 << 16)), (5, 5 << 16, stamp));
        assert_eq!(Hlc::from_bits((5 << 16) | 0xffff).next(), Hlc::at_ms(6));
        assert_eq!(Hlc::from_bits(u64::MAX).next().bits(), u64::MAX);
    }

    #[test]
    fn spans_are_measured_forward() {
        let (early, late) = (Time::from_micros(5), Time::from_micros(8));
        assert_eq!(
            (late.since(early), early.since(late)),
            (Duration::from_micros(3), Duration::ZERO)
        );
        assert_eq!(early + Duration::from_micros(3), late);
        assert_eq!((late + Duration::MAX).as_micros(), u64::MAX);
    }
}

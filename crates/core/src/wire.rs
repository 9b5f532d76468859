//! How a numbered family of frames is written: one byte of kind, a postcard body.
//!
//! A kind that this version does not know is skipped by its length ([`DecodeError::Unknown`] is
//! not an offence); a body that does not parse is one. What bounds the length is the reader of
//! the stream, before it allocates: [`FRAME_BYTES_MAX`].

use std::fmt;

/// Bytes of one frame, kind included, at most.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// A kind of a newer version: skip it.
    Unknown(u8),
    /// A known kind whose body does not parse: the sender is at fault, close the connection.
    Malformed(u8),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(kind) => write!(f, "frame kind {kind} is not known to this version"),
            Self::Malformed(kind) => write!(f, "the body of a frame of kind {kind} does not parse"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// A family of frames.
pub trait Wire: Sized {
    /// Every kind number of the family, with its name.
    const KINDS: &'static [(u8, &'static str)];

    /// The number of this frame's kind.
    fn kind(&self) -> u8;

    /// Appends the body, without kind and length.
    fn encode_body(&self, to: &mut Vec<u8>);

    /// Reads a body of that kind; all of it must be used.
    ///
    /// # Errors
    /// See [`DecodeError`]; nothing is allocated beyond a small multiple of `body`.
    fn decode(kind: u8, body: &[u8]) -> Result<Self, DecodeError>;
}

/// Declares an enum of newtype variants with their kind numbers, and its [`Wire`].
macro_rules! wire {
    ($(#[$doc:meta])* pub enum $name:ident {
        $($(#[$vdoc:meta])* $number:literal => $variant:ident($payload:ty),)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant($payload),)*
        }

        impl $crate::wire::Wire for $name {
            const KINDS: &'static [(u8, &'static str)] = &[$(($number, stringify!($variant)),)*];

            fn kind(&self) -> u8 {
                match self { $(Self::$variant(_) => $number,)* }
            }

            fn encode_body(&self, to: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(body) => $crate::wire::append(body, to),)*
                }
            }

            fn decode(kind: u8, body: &[u8]) -> Result<Self, $crate::wire::DecodeError> {
                match kind {
                    $($number => $crate::wire::parse(kind, body).map(Self::$variant),)*
                    _ => Err($crate::wire::DecodeError::Unknown(kind)),
                }
            }
        }
    };
}
pub(crate) use wire;

pub(crate) fn append<T: serde::Serialize>(body: &T, to: &mut Vec<u8>) {
    let before = to.len();
    match postcard::to_extend(body, std::mem::take(to)) {
        Ok(bytes) => *to = bytes,
        // Plain data into a vector: postcard has nothing to fail on.
        Err(_) => debug_assert_eq!(before, 0, "a frame that cannot be encoded"),
    }
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(
    kind: u8,
    body: &[u8],
) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(DecodeError::Malformed(kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_follows_what_is_there_and_is_read_to_its_end() {
        let mut bytes = vec![9];
        append(&(7u8, 300u16), &mut bytes);
        assert_eq!(bytes, [9, 7, 0xac, 2]);
        assert_eq!(parse::<(u8, u16)>(4, &bytes[1..]), Ok((7, 300)));
        let malformed = Err(DecodeError::Malformed(4));
        assert_eq!(parse::<(u8, u16)>(4, &bytes[1..3]), malformed, "too short");
        assert_eq!(parse::<(u8, u16)>(4, &[7, 0xac, 2, 0]), malformed, "too long");
    }

    #[test]
    fn as_many_prefixes_as_may_be_told_at_once_fit_a_frame() {
        use crate::frame::{Frame, HAVES_MAX, Have, Haves};
        use crate::id::{Log, Origin, SEQ_MAX};
        let log = Log { shard: u16::MAX, ..Log::of(Origin::new(u128::MAX)) };
        let have = Have { log, upto: SEQ_MAX, chain: u64::MAX };
        let mut bytes = Vec::new();
        Frame::Vector(Haves { haves: vec![have; HAVES_MAX] }).encode_body(&mut bytes);
        assert!(bytes.len() < FRAME_BYTES_MAX, "{} bytes", bytes.len());
    }

    #[test]
    fn errors_name_the_kind() {
        let text = DecodeError::Unknown(7).to_string();
        assert_eq!(text, "frame kind 7 is not known to this version");
        let text = DecodeError::Malformed(7).to_string();
        assert_eq!(text, "the body of a frame of kind 7 does not parse");
    }
}

//! The streams between two servers: one for each class and direction.
//!
//! Loss holds back the class it hit and no other, and what is urgent passes what is bulky. The
//! first byte of a stream says its class; frames follow. A client's connection has no classes: it
//! is the one bidirectional stream that the client opens.

use chatty_core::frame::Class;
use quinn::{Connection, ConnectionError, ReadExactError, RecvStream, WriteError};

use crate::frame::{FrameReader, FrameWriter};

/// The first byte of the stream of a class.
pub const fn class_to_byte(class: Class) -> u8 {
    match class {
        Class::Control => 1,
        Class::Live => 2,
        Class::Presence => 3,
        Class::CatchUp => 4,
    }
}

/// The inverse of [`class_to_byte`].
pub fn class_from_byte(byte: u8) -> Option<Class> {
    Class::ALL.into_iter().find(|&class| class_to_byte(class) == byte)
}

/// For QUIC: a higher number is sent first. New streams have 0.
const fn priority(class: Class) -> i32 {
    match class {
        Class::Control => 3,
        Class::Live => 2,
        Class::Presence => 1,
        Class::CatchUp => 0,
    }
}

/// Why a link is of no use; close it. All but [`LinkError::Lost`] and [`LinkError::Write`] are the
/// other side's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The connection ended.
    #[error("the link was lost: {0}")]
    Lost(#[from] ConnectionError),
    /// A stream of ours was stopped.
    #[error("the other server takes no more on a stream: {0}")]
    Write(#[from] WriteError),
    /// A stream ended before its first byte.
    #[error("a stream without a class: {0}")]
    NoClass(ReadExactError),
    /// The first byte of a stream is no class.
    #[error("a stream of unknown class {0}; is the other server of a newer version?")]
    UnknownClass(u8),
    /// A second stream of a class.
    #[error("a second stream of class {0:?}")]
    Duplicate(Class),
}

/// Our four streams of a link.
#[derive(Debug)]
pub struct LinkStreams([FrameWriter; 4]);

impl LinkStreams {
    /// Opens all four.
    ///
    /// # Errors
    /// If the connection ends meanwhile.
    pub async fn open(connection: &Connection) -> Result<Self, LinkError> {
        let [control, live, presence, catch_up] = Class::ALL;
        Ok(Self([
            open_class(connection, control).await?,
            open_class(connection, live).await?,
            open_class(connection, presence).await?,
            open_class(connection, catch_up).await?,
        ]))
    }

    /// The stream of a class.
    pub fn class(&mut self, class: Class) -> &mut FrameWriter {
        let [control, live, presence, catch_up] = &mut self.0;
        match class {
            Class::Control => control,
            Class::Live => live,
            Class::Presence => presence,
            Class::CatchUp => catch_up,
        }
    }

    /// All four in the order of [`Class::ALL`], for a task each.
    pub fn into_writers(self) -> [FrameWriter; 4] {
        self.0
    }
}

async fn open_class(connection: &Connection, class: Class) -> Result<FrameWriter, LinkError> {
    let mut stream = connection.open_uni().await?;
    stream.set_priority(priority(class)).map_err(|_| WriteError::ClosedStream)?;
    stream.write_all(&[class_to_byte(class)]).await?;
    Ok(FrameWriter::new(stream))
}

/// The other server's four streams of a link, as they come.
pub fn accept_classes(connection: &Connection) -> ClassStreams {
    ClassStreams { connection: connection.clone(), seen: [Seen::Not; 4], opening: None }
}

/// See [`accept_classes`].
#[derive(Debug)]
pub struct ClassStreams {
    connection: Connection,
    seen: [Seen; 4],
    /// Accepted, and its first byte has not come.
    opening: Option<RecvStream>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Not,
    Once,
}

impl ClassStreams {
    /// The next stream; `None` after all four. Cancelling loses nothing.
    ///
    /// # Errors
    /// See [`LinkError`]: close the connection.
    pub async fn next(&mut self) -> Result<Option<(Class, FrameReader<RecvStream>)>, LinkError> {
        if self.seen == [Seen::Once; 4] {
            return Ok(None);
        }
        let stream = match &mut self.opening {
            Some(stream) => stream,
            none => none.insert(self.connection.accept_uni().await?),
        };
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map_err(LinkError::NoClass)?;
        let [byte] = byte;
        let class = class_from_byte(byte).ok_or(LinkError::UnknownClass(byte))?;
        let Some(seen) = self.seen.get_mut(class as usize) else {
            return Err(LinkError::UnknownClass(byte));
        };
        if std::mem::replace(seen, Seen::Once) == Seen::Once {
            return Err(LinkError::Duplicate(class));
        }
        Ok(self.opening.take().map(|stream| (class, FrameReader::new(stream))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_its_byte_and_no_other_byte_is_a_class() {
        let classes: Vec<_> = (0..=255).filter_map(class_from_byte).collect();
        assert_eq!(classes, Class::ALL);
        assert!(Class::ALL.is_sorted_by_key(|&class| std::cmp::Reverse(priority(class))));
    }
}

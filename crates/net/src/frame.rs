//! Frames on a stream: `u32` length (big-endian, of kind and body), `u8` kind, body.
//!
//! A read takes what has come, up to 64 KiB, and gives out every frame in it; a write takes many
//! frames. (One message a write costs four times the CPU of 1 KiB a write, beyond 8 KiB little is
//! gained: design, section 12.) What a kind means is for the caller; one it does not know has a
//! length like any other and is skipped by dropping it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
pub use chatty_core::wire::FRAME_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The length in front.
const LENGTH_BYTES: usize = 4;
/// Room for one read. It begins small, because most connections of a server are clients that say
/// little, and doubles while reads fill it.
const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 64 << 10;

/// A frame as it came: the body has not been looked at. It shares memory with its neighbours from
/// the same read, so copy a small part that is to be kept for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// What it is.
    pub kind: u8,
    /// The rest.
    pub body: Bytes,
}

/// Why a stream gives no more frames. All but [`FrameError::Io`] are the sender's fault.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A length above what is allowed. Found before any memory was taken for it; whoever allows
    /// more after all (see [`FrameReader::allow`]) goes on.
    #[error("a frame of {length} bytes announced, {max} are allowed; close the stream")]
    TooLong {
        /// What was announced.
        length: u32,
        /// What is allowed.
        max: usize,
    },
    /// A length of 0: not even a kind.
    #[error("a frame without a kind; close the stream")]
    Empty,
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame; what came before is whole")]
    Truncated,
    /// The stream failed.
    #[error("reading a stream: {0}")]
    Io(#[from] std::io::Error),
}

/// Takes frames from a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
    /// Room to make for the next read.
    room: usize,
    /// A frame may be as long.
    max: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames from here, of up to [`FRAME_BYTES_MAX`].
    pub fn new(from: R) -> Self {
        Self { from, buffer: BytesMut::new(), room: READ_BYTES_MIN, max: FRAME_BYTES_MAX }
    }

    /// From the next frame on, kind and body may be so long together, [`FRAME_BYTES_MAX`] at most.
    pub fn allow(&mut self, bytes: usize) {
        self.max = bytes.min(FRAME_BYTES_MAX);
    }

    /// The next frame, or `None` if the stream ended after a whole one. Cancelling loses nothing.
    ///
    /// # Errors
    /// See [`FrameError`]; a second call fails again.
    pub async fn next(&mut self) -> Result<Option<RawFrame>, FrameError> {
        loop {
            if let Some(frame) = self.next_ready()? {
                return Ok(Some(frame));
            }
            self.make_room();
            let room = self.buffer.capacity() - self.buffer.len();
            let read = self.from.read_buf(&mut self.buffer).await?;
            if read == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
            if read >= room.min(self.room) {
                self.room = (self.room * 2).min(READ_BYTES_MAX);
            }
        }
    }

    /// The next frame if it has been read already, without waiting.
    ///
    /// # Errors
    /// As for [`Self::next`].
    pub fn next_ready(&mut self) -> Result<Option<RawFrame>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let announced = u32::from_be_bytes(*head);
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        match length {
            0 => return Err(FrameError::Empty),
            length if length <= self.max => {}
            _ => return Err(FrameError::TooLong { length: announced, max: self.max }),
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let mut frame = self.buffer.split_to(length).freeze();
        Ok(Some(RawFrame { kind: frame.get_u8(), body: frame }))
    }

    /// Memory follows the bytes that came, never the length that was announced.
    fn make_room(&mut self) {
        if self.buffer.capacity() - self.buffer.len() < self.room / 4 {
            self.buffer.reserve(self.room);
        }
    }
}

/// A body was too long for a frame; nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes, {FRAME_BYTES_MAX} are allowed; send it in parts")]
pub struct FrameTooLong {
    /// Kind and body.
    pub length: usize,
}

/// Appends one frame; `body` appends its body.
///
/// # Errors
/// If the body is too long; `to` is then as it was.
pub fn put_frame(
    to: &mut BytesMut,
    kind: u8,
    body: impl FnOnce(&mut BytesMut),
) -> Result<(), FrameTooLong> {
    let start = to.len();
    to.put_u32(0);
    to.put_u8(kind);
    body(to);
    let length = to.len().saturating_sub(start + LENGTH_BYTES);
    let written = u32::try_from(length).ok().filter(|_| length <= FRAME_BYTES_MAX);
    match (written, to.get_mut(start..start + LENGTH_BYTES)) {
        (Some(written), Some(head)) => {
            head.copy_from_slice(&written.to_be_bytes());
            Ok(())
        }
        _ => {
            to.truncate(start);
            Err(FrameTooLong { length })
        }
    }
}

/// Puts frames on a QUIC stream: [`push`](Self::push) many, then [`flush`](Self::flush).
#[derive(Debug)]
pub struct FrameWriter {
    to: quinn::SendStream,
    buffer: BytesMut,
    /// Taken from the buffer by a flush that has not finished.
    writing: Bytes,
}

impl FrameWriter {
    /// Writes frames to here.
    pub fn new(to: quinn::SendStream) -> Self {
        Self { to, buffer: BytesMut::new(), writing: Bytes::new() }
    }

    /// Keeps a frame for the next flush.
    ///
    /// # Errors
    /// If it is too long; it is not sent, and the others are.
    pub fn push(&mut self, kind: u8, body: impl FnOnce(&mut BytesMut)) -> Result<(), FrameTooLong> {
        put_frame(&mut self.buffer, kind, body)
    }

    /// Keeps bytes that are whole frames already, as [`put_frame`] made them.
    pub fn push_encoded(&mut self, frames: &[u8]) {
        self.buffer.put_slice(frames);
    }

    /// How many bytes wait for a flush. The buffer has no limit of its own: the caller has one.
    pub fn waiting(&self) -> usize {
        self.buffer.len() + self.writing.len()
    }

    /// Hands everything to QUIC. Waits while the receiver lets no more in; cancelling loses nothing,
    /// the next flush goes on.
    ///
    /// # Errors
    /// If the stream or the connection is closed.
    pub async fn flush(&mut self) -> Result<(), quinn::WriteError> {
        loop {
            if self.writing.is_empty() {
                if self.buffer.is_empty() {
                    return Ok(());
                }
                self.writing = self.buffer.split().freeze();
            }
            self.to.write_chunks(std::slice::from_mut(&mut self.writing)).await?;
        }
    }

    /// Hands over whole frames without copying them, after what was pushed before.
    ///
    /// # Errors
    /// As for [`Self::flush`]. Cancelling keeps what was not handed over for the next flush.
    pub async fn write_encoded(&mut self, frames: Bytes) -> Result<(), quinn::WriteError> {
        self.flush().await?;
        self.writing = frames;
        self.flush().await
    }

    /// The stream, to finish or reset it. What was not flushed is dropped.
    pub fn into_stream(self) -> quinn::SendStream {
        self.to
    }
}

#[cfg(test)]
mod tests;

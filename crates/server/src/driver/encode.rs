//! A frame as bytes: `u32` length (big-endian, of kind and body), `u8` kind, body.

use bytes::Bytes;
use chatty_core::wire::Wire;
use chatty_net::frame::FRAME_BYTES_MAX;

const HEAD_BYTES: usize = 4;
/// Room that most frames fit in: one allocation instead of four.
const USUAL_BYTES: usize = 320;

/// The frame was too long to be sent; it would have been this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong(pub(crate) usize);

/// Encodes once what many streams carry.
pub(crate) fn encode<W: Wire>(frame: &W) -> Result<Bytes, TooLong> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    bytes.extend([0; HEAD_BYTES]);
    bytes.push(frame.kind());
    frame.encode_body(&mut bytes);
    let length = bytes.len() - HEAD_BYTES;
    let announced = u32::try_from(length).ok().filter(|_| length <= FRAME_BYTES_MAX);
    match (announced, bytes.first_chunk_mut()) {
        (Some(announced), Some(head)) => {
            *head = announced.to_be_bytes();
            Ok(bytes.into())
        }
        _ => Err(TooLong(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatty_core::frame::{Digest, Frame};
    use chatty_net::FrameReader;

    #[tokio::test]
    async fn what_is_encoded_is_read_as_the_same_frame() {
        let frame = Frame::Digest(Digest { hash: 77 });
        let bytes = encode(&frame).unwrap();
        let raw = FrameReader::new(&bytes[..]).next().await.unwrap().unwrap();
        assert_eq!(Frame::decode(raw.kind, &raw.body), Ok(frame));
    }
}

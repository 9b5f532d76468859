use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, duplex};

use super::*;

fn frame(kind: u8, body: &[u8]) -> RawFrame {
    RawFrame { kind, body: Bytes::copy_from_slice(body) }
}

fn encode(frames: &[RawFrame]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for frame in frames {
        put_frame(&mut bytes, frame.kind, |to| to.put_slice(&frame.body)).unwrap();
    }
    bytes
}

async fn read_all(from: impl AsyncRead + Unpin) -> (Vec<RawFrame>, Option<FrameError>) {
    let mut reader = FrameReader::new(from);
    let mut frames = Vec::new();
    loop {
        match reader.next().await {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

#[tokio::test]
async fn frames_come_through_a_stream_cut_at_every_byte() {
    let frames = [frame(1, b""), frame(2, b"hello"), frame(255, &[7; 300])];
    let bytes = encode(&frames);
    for cut in 0..=bytes.len() {
        let (mut to, from) = duplex(bytes.len() + 1);
        let (head, tail) = bytes.split_at(cut);
        let mut reader = FrameReader::new(from);
        let mut got = Vec::new();
        to.write_all(head).await.unwrap();
        // Poll once with the head only, and drop the future: what was read is kept.
        tokio::select! { biased;
            next = reader.next() => got.extend(next.unwrap()),
            () = std::future::ready(()) => {}
        }
        to.write_all(tail).await.unwrap();
        drop(to);
        while let Some(next) = reader.next().await.unwrap() {
            got.push(next);
        }
        assert_eq!(got, frames, "cut at {cut}");
    }
}

#[tokio::test]
async fn a_frame_longer_than_allowed_is_refused_until_more_is_allowed() {
    let frames = [frame(1, &[7; 9]), frame(2, &[7; 10]), frame(3, &[7; 20])];
    let bytes = encode(&frames);
    let mut reader = FrameReader::new(&bytes[..]);
    reader.allow(10);
    assert_eq!(reader.next().await.unwrap().as_ref(), Some(&frames[0]), "kind and body count");
    for _ in 0..2 {
        let error = reader.next().await.unwrap_err();
        assert!(matches!(error, FrameError::TooLong { length: 11, max: 10 }), "{error}");
    }
    reader.allow(21);
    assert_eq!(reader.next().await.unwrap().as_ref(), Some(&frames[1]), "nothing is lost");
    assert_eq!(reader.next().await.unwrap().as_ref(), Some(&frames[2]));
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_frame_says_so() {
    let bytes = encode(&[frame(2, b"hello")]);
    for end in 1..bytes.len() {
        let (frames, error) = read_all(&bytes[..end]).await;
        assert_eq!(frames, []);
        assert!(matches!(error, Some(FrameError::Truncated)), "end at {end}: {error:?}");
    }
}

#[tokio::test]
async fn a_length_above_the_limit_takes_no_memory() {
    let announced = u32::try_from(FRAME_BYTES_MAX).unwrap() + 1;
    let bytes = announced.to_be_bytes();
    let mut reader = FrameReader::new(&bytes[..]);
    for _ in 0..2 {
        let error = reader.next().await.unwrap_err();
        assert!(matches!(error, FrameError::TooLong { length, .. } if length == announced));
    }
    assert!(reader.buffer.capacity() <= READ_BYTES_MAX);
}

#[tokio::test]
async fn an_announced_length_takes_no_memory_until_the_bytes_come() {
    let announced = u32::try_from(FRAME_BYTES_MAX).unwrap();
    let bytes = announced.to_be_bytes();
    let mut reader = FrameReader::new(&bytes[..]);
    assert!(matches!(reader.next().await, Err(FrameError::Truncated)));
    assert!(reader.buffer.capacity() <= READ_BYTES_MAX);
}

#[tokio::test]
async fn a_frame_has_a_kind() {
    let (frames, error) = read_all(&[0, 0, 0, 0][..]).await;
    assert_eq!(frames, []);
    assert!(matches!(error, Some(FrameError::Empty)));
}

#[tokio::test]
async fn the_longest_frame_passes_and_one_byte_more_is_not_written() {
    let mut bytes = BytesMut::from(&b"before"[..]);
    let error = put_frame(&mut bytes, 1, |to| to.put_bytes(0, FRAME_BYTES_MAX)).unwrap_err();
    assert_eq!(error, FrameTooLong { length: FRAME_BYTES_MAX + 1 });
    assert_eq!(bytes, &b"before"[..], "nothing was added");

    let longest = [frame(1, &vec![0; FRAME_BYTES_MAX - 1])];
    let (frames, error) = read_all(&encode(&longest)[..]).await;
    assert!(frames == longest && error.is_none());
}

#[tokio::test]
async fn frames_of_one_read_are_ready_without_waiting() {
    let frames = [frame(1, b"a"), frame(2, b"b"), frame(3, b"c")];
    let bytes = encode(&frames);
    let mut reader = FrameReader::new(&bytes[..]);
    assert_eq!(reader.next_ready().unwrap(), None, "nothing was read yet");
    assert_eq!(reader.next().await.unwrap().as_ref(), Some(&frames[0]));
    assert_eq!(reader.next_ready().unwrap().as_ref(), Some(&frames[1]));
    assert_eq!(reader.next_ready().unwrap().as_ref(), Some(&frames[2]));
    assert_eq!(reader.next_ready().unwrap(), None);
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

proptest! {
    #[test]
    fn what_is_put_is_what_is_read(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..9000)), 0..20)
    ) {
        let frames: Vec<_> = frames.iter().map(|(kind, body)| frame(*kind, body)).collect();
        let (read, error) = block_on(read_all(&encode(&frames)[..]));
        prop_assert!(error.is_none());
        prop_assert_eq!(read, frames);
    }

    #[test]
    fn garbage_is_frames_or_an_error_and_never_a_panic(
        bytes in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..2000)
    ) {
        let (read, _) = block_on(read_all(&bytes[..]));
        prop_assert!(bytes.starts_with(&encode(&read)));
    }
}

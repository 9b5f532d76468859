//! Bytes from a socket: frames, requests, items, events, tokens, texts, and a stream of frames.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use chatty_client::Cluster;
use chatty_core::event::{Body, Event, VOID};
use chatty_core::frame::{Frame, Hello};
use chatty_core::id::{AccountId, ClusterId, Log, Mid, Origin, RoomId, ServerId, Slot};
use chatty_core::register::write_of;
use chatty_core::session::{Item, Request, check_nick, check_room, check_text};
use chatty_core::time::{Hlc, Key};
use chatty_core::token::{Token, TokenKey};
use chatty_core::wire::Wire;
use chatty_net::frame::{FRAME_BYTES_MAX, FrameError, FrameReader, put_frame};
use chatty_net::{Fingerprint, RawFrame};
use tokio::io::{AsyncRead, ReadBuf};

use crate::input::Input;

/// What was read is written, and read the same again.
fn again<T: Wire + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let mut input = Input::new(bytes);
    let frame = T::decode(input.byte(), input.rest()).ok()?;
    let mut body = Vec::new();
    frame.encode_body(&mut body);
    assert_eq!(T::decode(frame.kind(), &body).as_ref(), Ok(&frame));
    Some(frame)
}

pub(crate) fn frame(bytes: &[u8]) {
    if let Ok(hello) = Hello::decode(bytes) {
        let mut body = Vec::new();
        Frame::Hello(hello.clone()).encode_body(&mut body);
        body.push(0); // what a newer version appends
        assert_eq!(Hello::decode(&body), Ok(hello));
    }
    match again::<Frame>(bytes) {
        Some(Frame::Events(events)) => events.events.iter().for_each(|event| look_at(event)),
        Some(Frame::Range(range)) => range.events.iter().for_each(|event| look_at(event)),
        Some(_) | None => {}
    }
}

pub(crate) fn request(bytes: &[u8]) {
    again::<Request>(bytes);
}

pub(crate) fn item(bytes: &[u8]) {
    if let Some(item) = again::<Item>(bytes) {
        let short = item.too_long();
        assert_eq!(short.request(), item.request(), "whoever asked is answered");
    }
}

pub(crate) fn event(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = u16::from(input.byte());
    if let Some(body) = Body::decode(kind, input.rest()) {
        assert_eq!(Body::decode(body.kind(), &body.encode()), Some(body));
    }
    if let Ok(event) = postcard::from_bytes::<Event>(bytes) {
        look_at(&event);
    }
}

fn look_at(event: &Event) {
    let log = Log::of(Origin::new(1));
    let _ = (event.cost(), event.identity(), event.mid.unix_ms(), event.hlc.ms());
    let written = write_of(log, event);
    if event.identity().is_some() {
        assert!(!matches!(event.body(), Some(Body::Boot(_))), "a message is no boot");
    } else if let Some((_, mut register)) = written {
        let same = register.clone();
        assert!(!register.merge(&same), "a register takes itself in without a change");
    }
    // What is left of it fits the same chain, also once more.
    let left = event.void();
    assert_eq!(left.kind, VOID);
    assert_eq!(left.chain(7), event.chain(7));
    assert_eq!(left.void().chain(7), event.chain(7));
}

pub(crate) fn token(bytes: &[u8]) {
    const KEY: [u8; 32] = [7; 32];
    const CLUSTER: ClusterId = ClusterId::new(9);
    let key = TokenKey::new(KEY);
    assert_eq!(Token::open(bytes, &key, CLUSTER), None, "nobody guesses the cluster's hand");
    let mut sealed = bytes.to_vec();
    sealed.extend_from_slice(blake3::keyed_hash(&KEY, bytes).as_bytes());
    if let Some(token) = Token::open(&sealed, &key, CLUSTER) {
        assert_eq!(Token::open(&token.seal(&key), &key, CLUSTER), Some(token));
    }
}

pub(crate) fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = text.parse::<Key>() {
        assert_eq!(key.to_string(), text.to_lowercase(), "one text a key");
    }
    if let Ok(hash) = text.parse::<Fingerprint>() {
        assert_eq!(hash.to_string(), text.to_lowercase(), "one text a fingerprint");
    }
    if let Ok(id) = text.parse::<RoomId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    let _ = (text.parse::<Mid>(), text.parse::<AccountId>(), text.parse::<ServerId>());
    if let Ok(slot) = Slot::new(text) {
        let bytes = postcard::to_allocvec(&slot).expect("a name is encoded");
        assert_eq!(postcard::from_bytes(&bytes), Ok(slot));
    }
    if let Ok(slot) = postcard::from_bytes::<Slot>(bytes) {
        assert_eq!(Slot::new(slot.as_str()), Ok(slot.clone()), "a name from outside is a name");
    }
    let _ = (check_nick(text), check_text(text));
    if check_room(text).is_ok() {
        assert_eq!(RoomId::public(text), RoomId::public(text));
    }
    for url in [text.to_owned(), format!("chatty://{text}")] {
        if let Ok(cluster) = Cluster::parse_url(&url) {
            assert!(!cluster.seeds.is_empty());
            cluster.seeds.iter().for_each(|seed| assert!(cluster.address_of(seed).is_ok()));
        }
    }
    let _ = Hlc::at_ms(bytes.len() as u64);
}

/// Bytes that come in pieces: of these lengths, over and over.
struct InPieces<'a> {
    bytes: &'a [u8],
    lengths: Vec<usize>,
    nth: usize,
}

impl AsyncRead for InPieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let length = self.lengths[self.nth % self.lengths.len()];
        self.nth += 1;
        let (piece, rest) = self.bytes.split_at(length.min(to.remaining()).min(self.bytes.len()));
        to.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

pub(crate) fn framing(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let lengths: Vec<usize> = input.piece().iter().map(|n| usize::from(*n).max(1)).collect();
    let stream = input.rest();
    let lengths = if lengths.is_empty() { vec![usize::MAX] } else { lengths };
    let mut reader = FrameReader::new(InPieces { bytes: stream, lengths, nth: 0 });
    let mut rest = stream;
    loop {
        let expected = first_frame(rest);
        let next = pin!(reader.next());
        let Poll::Ready(read) = next.poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("bytes are there and the reader waits");
        };
        match (read, expected) {
            (Ok(Some(frame)), First::Frame(expected, after)) => {
                let mut encoded = bytes::BytesMut::new();
                put_frame(&mut encoded, frame.kind, |to| to.extend_from_slice(&frame.body))
                    .expect("what was read can be written");
                assert_eq!((&encoded[..], frame), (&rest[..rest.len() - after.len()], expected));
                rest = after;
            }
            (Ok(None), First::End)
            | (Err(FrameError::TooLong { .. }), First::TooLong)
            | (Err(FrameError::Empty), First::Empty)
            | (Err(FrameError::Truncated), First::Truncated) => return,
            (read, _) => panic!("{read:?} out of {rest:?}"),
        }
    }
}

/// What a stream begins with, told in the simplest way.
enum First<'a> {
    Frame(RawFrame, &'a [u8]),
    End,
    TooLong,
    Empty,
    Truncated,
}

fn first_frame(bytes: &[u8]) -> First<'_> {
    if bytes.is_empty() {
        return First::End;
    }
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return First::Truncated };
    let length = u32::from_be_bytes(*length) as usize;
    match (length, rest.split_at_checked(length)) {
        (0, _) => First::Empty,
        (length, _) if length > FRAME_BYTES_MAX => First::TooLong,
        (_, None) => First::Truncated,
        (_, Some((frame, after))) => {
            let body = bytes::Bytes::copy_from_slice(&frame[1..]);
            First::Frame(RawFrame { kind: frame[0], body }, after)
        }
    }
}

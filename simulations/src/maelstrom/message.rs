//! Maelstrom's messages: one JSON object a line, `{"src": …, "dest": …, "body": {"type": …}}`
//! (`doc/protocol.md` of jepsen-io/maelstrom). Frames of ours travel between nodes in bodies of type
//! `frames`, each as the kind's number and the encoded body in hexadecimal.

use std::fmt;

use chatty_core::frame::Frame;
use chatty_core::wire::Wire;
use serde_json::{Map, Value, json};

/// Bytes of a line, at most: a batch of frames is a fraction of it.
pub const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who says it.
    pub src: String,
    /// To whom.
    pub dest: String,
    /// What, with its `type`.
    pub body: Map<String, Value>,
}

/// Why a line is no message. Nothing of it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not JSON, and where it ends to be.
    Json(String),
    /// No object, or without a text `src` or `dest`, or without an object `body`.
    Field(&'static str),
    /// A frame that cannot be read.
    Frame(String),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(why) => write!(f, "a line that is no JSON object: {why}"),
            Self::Field(name) => write!(f, "a line whose {name:?} is missing or of another kind"),
            Self::Frame(why) => write!(f, "a frame that cannot be read: {why}"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Maelstrom's error codes (`resources/errors.edn`). All of these are definite: it did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// No such request.
    NotSupported = 10,
    /// Not now.
    Unavailable = 11,
    /// The request is not as it should be.
    Malformed = 12,
    /// The state forbids it.
    Precondition = 22,
}

impl Message {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &str) -> Result<Self, Malformed> {
        let value: Value =
            serde_json::from_str(line).map_err(|error| Malformed::Json(error.to_string()))?;
        let Value::Object(mut object) = value else {
            return Err(Malformed::Json("it is something else".into()));
        };
        let mut text = |name| match object.remove(name) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(Malformed::Field(name)),
        };
        let (src, dest) = (text("src")?, text("dest")?);
        let Some(Value::Object(body)) = object.remove("body") else {
            return Err(Malformed::Field("body"));
        };
        Ok(Self { src, dest, body })
    }

    /// The line, without its end.
    pub fn line(&self) -> String {
        json!({"src": self.src, "dest": self.dest, "body": self.body}).to_string()
    }

    /// Its type; empty if it has none.
    pub fn kind(&self) -> &str {
        self.text("type").unwrap_or_default()
    }

    /// A text of the body.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.body.get(name)?.as_str()
    }

    /// The number that an answer is to name, if one is wanted.
    pub fn id(&self) -> Option<u64> {
        self.body.get("msg_id")?.as_u64()
    }

    /// The number of the request that this answers.
    pub fn answers(&self) -> Option<u64> {
        self.body.get("in_reply_to")?.as_u64()
    }
}

/// The body that carries frames from node to node: all that a node has to say to another at one
/// moment.
pub fn carry(frames: &[impl AsRef<Frame>]) -> Map<String, Value> {
    let frames: Vec<Value> = frames
        .iter()
        .map(|frame| {
            let mut bytes = vec![frame.as_ref().kind()];
            frame.as_ref().encode_body(&mut bytes);
            Value::String(hex(&bytes))
        })
        .collect();
    let mut body = Map::new();
    body.insert("type".into(), "frames".into());
    body.insert("frames".into(), frames.into());
    body
}

/// The frames in a body, all or none.
///
/// # Errors
/// What is wrong with the first that cannot be read.
pub fn carried(body: &Map<String, Value>) -> Result<Vec<Frame>, Malformed> {
    let Some(Value::Array(frames)) = body.get("frames") else {
        return Err(Malformed::Field("frames"));
    };
    let read = |frame: &Value| {
        let text = frame.as_str().ok_or_else(|| Malformed::Frame("it is no text".into()))?;
        let bytes = unhex(text).ok_or_else(|| Malformed::Frame("it is not hexadecimal".into()))?;
        let (kind, rest) =
            bytes.split_first().ok_or_else(|| Malformed::Frame("it is empty".into()))?;
        Frame::decode(*kind, rest).map_err(|error| Malformed::Frame(error.to_string()))
    };
    frames.iter().map(read).collect()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    if !odd.is_empty() {
        return None;
    }
    pairs.iter().map(|[a, b]| u8::try_from(digit(*a)? * 16 + digit(*b)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatty_core::frame::{Digest, Logs};
    use std::sync::Arc;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let frames = [Frame::Digest(Digest { hash: 7 }), Frame::Prune(Logs { logs: vec![] })];
        let body = carry(&frames.clone().map(Arc::new));
        let message = Message { src: "n1".into(), dest: "n2".into(), body };
        let read = Message::parse(&message.line()).unwrap();
        assert_eq!(read, message);
        assert_eq!(carried(&read.body).unwrap(), frames);
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_reason() {
        for (line, why) in [
            ("", "no JSON object"),
            ("[1]", "something else"),
            (r#"{"dest":"n1","body":{}}"#, "\"src\" is missing"),
            (r#"{"src":"c1","dest":7,"body":{}}"#, "\"dest\" is missing"),
            (r#"{"src":"c1","dest":"n1","body":3}"#, "\"body\" is missing"),
        ] {
            let error = Message::parse(line).unwrap_err().to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    #[test]
    fn frames_that_cannot_be_read_are_refused_with_the_reason() {
        for (frames, why) in [
            (r#"{"frames":7}"#, "missing"),
            (r#"{"frames":[7]}"#, "no text"),
            (r#"{"frames":["0"]}"#, "hexadecimal"),
            (r#"{"frames":["zz"]}"#, "hexadecimal"),
            (r#"{"frames":["+1"]}"#, "hexadecimal"),
            (r#"{"frames":[""]}"#, "empty"),
            (r#"{"frames":["ff"]}"#, "255"),
            (r#"{"frames":["03"]}"#, "cannot be read"),
        ] {
            let body = serde_json::from_str(frames).unwrap();
            let error = carried(&body).unwrap_err().to_string();
            assert!(error.contains(why), "{frames}: {error}");
        }
    }
}

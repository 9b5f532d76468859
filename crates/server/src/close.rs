//! Why this server closes a connection, as a number for the other side; a text goes with it.
//! `chatty_net` has the numbers below 16.

use chatty_net::Connection;
use quinn::VarInt;

/// Two servers have one link; this one is the other.
pub const DUPLICATE: u32 = 16;
/// This server does not link with that one.
pub const REFUSED: u32 = 17;
/// The other side broke the protocol.
pub const PROTOCOL: u32 = 18;
/// There was nothing more to say.
pub const DONE: u32 = 19;
/// Too many connections; try another server.
pub const FULL: u32 = 20;

/// Closes a connection.
pub(crate) fn close(connection: &Connection, code: u32, why: &str) {
    connection.close(VarInt::from_u32(code), why.as_bytes());
}

/// Why a connection ended, in words for a log; none for an end that both sides meant.
pub(crate) fn reason(error: &chatty_net::ConnectionError) -> String {
    match error {
        chatty_net::ConnectionError::ApplicationClosed(close) => {
            let text = String::from_utf8_lossy(&close.reason);
            let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            format!("closed by the other side: {text}")
        }
        chatty_net::ConnectionError::LocallyClosed => "closed here".into(),
        error => error.to_string(),
    }
}

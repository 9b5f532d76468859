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

/// Another run of the same disk is linked and answers.
pub const DUPLICATE_DISK: u32 = 21;

/// The servers' configurations do not fit each other.
pub const CONFIGURED: u32 = 22;

/// How a connection ended.
#[derive(Debug)]
pub(crate) struct Lost {
    /// The other side's number, if it closed it.
    pub(crate) code: Option<u32>,
    /// In words for a log.
    pub(crate) why: String,
}

impl Lost {
    pub(crate) fn of(error: &chatty_net::ConnectionError) -> Self {
        let code = match error {
            chatty_net::ConnectionError::ApplicationClosed(close) => {
                u32::try_from(close.error_code.into_inner()).ok()
            }
            _ => None,
        };
        Self { code, why: reason(error) }
    }
}

/// How a reason begins that the other side gave.
pub(crate) const BY_THE_OTHER_SIDE: &str = "closed by the other side: ";

/// Closes a connection. If it is closed already, the first reason stands.
pub(crate) fn close(connection: &Connection, code: u32, why: &str) {
    if connection.close_reason().is_none() {
        connection.close(VarInt::from_u32(code), why.as_bytes());
    }
}

/// Why a connection ended, in words for a log.
pub(crate) fn reason(error: &chatty_net::ConnectionError) -> String {
    match error {
        chatty_net::ConnectionError::ApplicationClosed(close) => {
            let text = String::from_utf8_lossy(&close.reason);
            let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            format!("{BY_THE_OTHER_SIDE}{text}")
        }
        chatty_net::ConnectionError::LocallyClosed => "closed here".into(),
        error => error.to_string(),
    }
}

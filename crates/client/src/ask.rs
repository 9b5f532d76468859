//! One question to one server, without an account: what it sees of the cluster.

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use chatty_core::id::RequestId;
use chatty_core::session::{Item, Plain, Request, Status};
use chatty_core::wire::{DecodeError, Wire as _};
use chatty_net::{Endpoint, FrameReader, FrameWriter, Trust};

use crate::cluster::Cluster;

/// What the server at host:port sees; it answers also while it takes no clients.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn status(cluster: &Cluster, addr: &str, limit: Duration) -> Result<Status, String> {
    let endpoint = Endpoint::client().map_err(|error| error.to_string())?;
    let trust = Trust::pinned(cluster.authority).map_err(|error| error.to_string())?;
    let asked = ask(&endpoint, &trust, addr, limit);
    let answer = tokio::time::timeout(limit, asked).await;
    endpoint.close("");
    // Whoever does not hear the goodbye finds out by itself.
    let _ = endpoint.wait_idle(Duration::from_millis(50)).await;
    answer.unwrap_or_else(|_| Err(format!("no answer in {} s", limit.as_secs_f64())))
}

async fn ask(
    endpoint: &Endpoint,
    trust: &Trust,
    addr: &str,
    limit: Duration,
) -> Result<Status, String> {
    let mut found = tokio::net::lookup_host(addr).await.map_err(|error| error.to_string())?;
    let addr = found.next().ok_or("it has no address")?;
    let connection =
        endpoint.dial_server(addr, trust, limit).await.map_err(|error| error.to_string())?;
    let (send, receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
    let request = Request::Status(Plain { request: RequestId(1) });
    let (mut body, mut writer) = (Vec::new(), FrameWriter::new(send));
    request.encode_body(&mut body);
    let put = |to: &mut BytesMut| to.put_slice(&body);
    writer.push(request.kind(), put).map_err(|error| error.to_string())?;
    writer.flush().await.map_err(|error| error.to_string())?;
    let mut reader = FrameReader::new(receive);
    let mut whole: Option<Status> = None;
    loop {
        let frame = reader.next().await.map_err(|error| error.to_string())?;
        let frame = frame.ok_or("it ended the session")?;
        match Item::decode(frame.kind, &frame.body) {
            Ok(Item::Status(mut part)) => {
                let more = part.more;
                if let Some(before) = whole.take() {
                    part.rooms.splice(..0, before.rooms);
                }
                if !more {
                    return Ok(part);
                }
                whole = Some(part);
            }
            Ok(Item::Refused(refused)) => return Err(refused.reason),
            Ok(_) | Err(DecodeError::Unknown(_)) => {}
            Err(error @ DecodeError::Malformed(_)) => return Err(error.to_string()),
        }
    }
}

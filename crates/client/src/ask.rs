//! One question to one server, without an account: what it sees of the cluster, whether its disk is
//! sound. It answers also while it takes no clients, and is asked again when it is busy.

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use chatty_core::id::RequestId;
use chatty_core::session::{Code, Item, Plain, Refused, Request, Status, Verified};
use chatty_core::wire::{DecodeError, Wire as _};
use chatty_net::{Endpoint, FrameReader, FrameWriter, Trust};

use crate::cluster::Cluster;

/// What the server at host:port sees.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn status(cluster: &Cluster, addr: &str, limit: Duration) -> Result<Status, String> {
    let mut whole: Option<Status> = None;
    let request = Request::Status(Plain { request: RequestId(1) });
    ask(cluster, addr, limit, &request, |item| {
        let Item::Status(mut part) = item else { return None };
        let more = part.more;
        if let Some(before) = whole.take() {
            part.rooms.splice(..0, before.rooms);
        }
        if more {
            whole = Some(part);
            return None;
        }
        Some(part)
    })
    .await
}

/// Has the server at host:port read everything on its disk again; tells now and then how many
/// events are read. `limit` is for each piece of news.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn verify(
    cluster: &Cluster,
    addr: &str,
    limit: Duration,
    mut progress: impl FnMut(u64),
) -> Result<Verified, String> {
    let request = Request::Verify(Plain { request: RequestId(1) });
    ask(cluster, addr, limit, &request, |item| {
        let Item::Verified(verified) = item else { return None };
        progress(verified.events);
        verified.done.then_some(verified)
    })
    .await
}

async fn ask<T>(
    cluster: &Cluster,
    addr: &str,
    limit: Duration,
    request: &Request,
    take: impl FnMut(Item) -> Option<T>,
) -> Result<T, String> {
    let endpoint = Endpoint::client().map_err(|error| error.to_string())?;
    let trust = Trust::pinned(cluster.authority).map_err(|error| error.to_string())?;
    let answer = ask_at(&endpoint, &trust, addr, limit, request, take).await;
    endpoint.close("");
    // Whoever does not hear the goodbye finds out by itself.
    let _ = endpoint.wait_idle(Duration::from_millis(50)).await;
    answer
}

async fn ask_at<T>(
    endpoint: &Endpoint,
    trust: &Trust,
    addr: &str,
    limit: Duration,
    request: &Request,
    mut take: impl FnMut(Item) -> Option<T>,
) -> Result<T, String> {
    let late = |_| format!("no answer in {} s", limit.as_secs_f64());
    let began = tokio::time::Instant::now();
    let mut body = Vec::new();
    request.encode_body(&mut body);
    let put = |to: &mut BytesMut| to.put_slice(&body);
    let greet = async {
        let mut found = tokio::net::lookup_host(addr).await.map_err(|error| error.to_string())?;
        let addr = found.next().ok_or("it has no address")?;
        let connection =
            endpoint.dial_server(addr, trust, limit).await.map_err(|error| error.to_string())?;
        let (send, receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        let mut writer = FrameWriter::new(send);
        writer.push(request.kind(), put).map_err(|error| error.to_string())?;
        writer.flush().await.map_err(|error| error.to_string())?;
        // The writer's end would end the session.
        Ok::<_, String>((connection, writer, FrameReader::new(receive)))
    };
    let greeted = tokio::time::timeout(limit, greet).await.map_err(late)?;
    let (_connection, mut writer, mut reader) = greeted?;
    loop {
        let frame = tokio::time::timeout(limit, reader.next()).await.map_err(late)?;
        let frame = frame.map_err(|error| error.to_string())?.ok_or("it ended the session")?;
        match Item::decode(frame.kind, &frame.body) {
            Ok(Item::Refused(refused)) => {
                let wait = wait_of(&refused).filter(|wait| began.elapsed() + *wait < limit);
                let Some(wait) = wait else { return Err(refused.reason) };
                tokio::time::sleep(wait).await;
                writer.push(request.kind(), put).map_err(|error| error.to_string())?;
                let flushed = tokio::time::timeout(limit, writer.flush()).await.map_err(late)?;
                flushed.map_err(|error| error.to_string())?;
            }
            Ok(item) => {
                if let Some(answer) = take(item) {
                    return Ok(answer);
                }
            }
            Err(DecodeError::Unknown(_)) => {}
            Err(error @ DecodeError::Malformed(_)) => return Err(error.to_string()),
        }
    }
}

/// When a refused question may be asked again, if it may.
fn wait_of(refused: &Refused) -> Option<Duration> {
    (refused.code == Code::Busy).then(|| Duration::from_millis(refused.retry_ms.into()))
}

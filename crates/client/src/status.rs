//! `status`: every configured server, asked by itself.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chatty_client::{Cluster, safe};
use chatty_core::io::Standing;
use chatty_core::session::Status;
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::Trouble;
use crate::out::{self, Out, Paint};

/// A server has this long to take the client and to answer.
const PATIENCE: Duration = Duration::from_millis(2500);

/// A certificate with fewer days left stands out…
const CERTIFICATE_DAYS: i64 = 30;
/// … and with fewer than these it is urgent: as in the server's log.
const CERTIFICATE_URGENT_DAYS: i64 = 7;

#[derive(Serialize)]
struct ServerObject {
    server: String,
    address: String,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    report: Option<Report>,
}

#[derive(Serialize)]
struct Report {
    disk: String,
    standing: String,
    origin: String,
    uptime_s: u64,
    sessions: u32,
    lag: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_days_left: Option<i64>,
    links: Vec<LinkObject>,
    vector: BTreeMap<String, u64>,
    rooms: Vec<RoomObject>,
}

#[derive(Serialize)]
struct LinkObject {
    server: String,
    state: String,
    rtt_ms: f64,
    behind: u64,
}

#[derive(Serialize)]
struct RoomObject {
    room: String,
    messages: u64,
    digest: String,
}

impl Report {
    fn of(status: &Status) -> Self {
        let link = |link: &chatty_core::session::LinkStatus| LinkObject {
            server: link.server.to_string(),
            state: link.state.to_string(),
            rtt_ms: Duration::from_micros(link.rtt_micros).as_secs_f64() * 1e3,
            behind: link.behind,
        };
        let room = |room: &chatty_core::session::RoomDigest| RoomObject {
            room: room.room.clone(),
            messages: room.messages,
            digest: format!("{:016x}", room.digest),
        };
        Self {
            disk: status.disk.to_string(),
            standing: status.standing.to_string(),
            origin: status.origin.to_string(),
            uptime_s: status.uptime_s,
            sessions: status.sessions,
            lag: status.lag,
            certificate_days_left: status.certificate_ends_ms.map(|ms| days_left(ms, now_ms())),
            links: status.links.iter().map(link).collect(),
            vector: status
                .vector
                .iter()
                .map(|(log, upto)| (log.origin.to_string(), upto))
                .collect(),
            rooms: status.rooms.iter().map(room).collect(),
        }
    }
}

/// Every server in words, in the order of the configuration.
pub async fn texts(cluster: &Cluster) -> Vec<String> {
    let mut texts = Vec::new();
    for one in ask_all(cluster) {
        // A task that failed has nothing to tell.
        if let Ok(object) = one.await {
            texts.push(lines(Paint::None, &object));
        }
    }
    texts
}

fn ask_all(cluster: &Cluster) -> Vec<JoinHandle<ServerObject>> {
    let named = cluster.servers.iter().map(|s| (s.name.to_string(), s.addr.clone()));
    let seeds = cluster.seeds.iter().map(|addr| (addr.clone(), addr.clone()));
    let all = named.chain(seeds);
    all.map(|(name, addr)| tokio::spawn(ask(cluster.clone(), name, addr))).collect()
}

pub async fn run(cluster: &Cluster, out: Out) -> Result<(), Trouble> {
    let mut answered = 0;
    for one in ask_all(cluster) {
        let object = one.await?;
        answered += usize::from(object.state != "down");
        out.put(&object, |paint| lines(paint, &object))?;
    }
    if answered == 0 {
        return Err(Trouble::Say("no server of the cluster answers".into()));
    }
    Ok(())
}

async fn ask(cluster: Cluster, server: String, address: String) -> ServerObject {
    match chatty_client::ask::status(&cluster, &address, PATIENCE).await {
        Ok(status) => ServerObject {
            server: status.server.to_string(),
            address,
            state: status.state.to_string(),
            reason: None,
            report: Some(Report::of(&status)),
        },
        Err(reason) => ServerObject {
            server,
            address,
            state: "down".into(),
            reason: Some(reason),
            report: None,
        },
    }
}

fn lines(paint: Paint, object: &ServerObject) -> String {
    let ServerObject { server, address, state, reason, report } = object;
    let colour = match state.as_str() {
        "ready" => "32",
        "down" => "31",
        _ => "33",
    };
    let mut text = format!("{server:<8} {address:<22} {}", paint.text(colour, state));
    if let Some(reason) = reason {
        text += &paint.quiet(&format!("  {}", safe::one_line(reason)));
    }
    let Some(report) = report else { return text };
    let events: u64 = report.vector.values().sum();
    text += &format!(
        "  up {}, {}, {}, {} behind",
        span(report.uptime_s),
        out::count(report.sessions.into(), "client", "clients"),
        out::count(events, "event", "events"),
        report.lag
    );
    if let Some(days) = report.certificate_days_left {
        text += &format!("\n  {}", certificate(paint, days));
    }
    if report.standing != Standing::Sound.to_string() {
        let what = match report.standing.as_str() {
            "lossy" => "it lost something, and counts for what it has fetched again",
            _ => "it counts for nothing until it is wiped and comes back as a new server",
        };
        text += &paint.text("31", &format!("\n  disk is {}: {what}", report.standing));
    }
    for LinkObject { server, state, rtt_ms, behind } in &report.links {
        let detail = match state.as_str() {
            "down" => String::new(),
            _ => format!("  {rtt_ms:.2} ms, {behind} behind"),
        };
        text += &format!("\n  link to {server:<8} {state}{}", paint.quiet(&detail));
    }
    for RoomObject { room, messages, digest } in &report.rooms {
        let room = safe::one_line(room);
        text += &format!("\n  room {room:<20} {messages:>8} messages  {}", paint.quiet(digest));
    }
    text
}

/// How long a certificate is good, in words; the more urgent, the plainer.
fn certificate(paint: Paint, days: i64) -> String {
    let urgent = |left: &str| paint.text("31", &format!("{left}: renew it now"));
    match days {
        ..0 => urgent("certificate has ended"),
        0 => urgent("certificate ends within a day"),
        1..CERTIFICATE_URGENT_DAYS => urgent(&format!("certificate ends in {}", self::days(days))),
        CERTIFICATE_URGENT_DAYS..CERTIFICATE_DAYS => {
            paint.text("33", &format!("certificate ends in {days} days: renew it"))
        }
        _ => paint.quiet(&format!("certificate good for {days} days")),
    }
}

fn days(days: i64) -> String {
    if days == 1 { "1 day".into() } else { format!("{days} days") }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Whole days until then, below 0 if it is past.
fn days_left(ends_ms: u64, now_ms: u64) -> i64 {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    signed(ends_ms).saturating_sub(signed(now_ms)).div_euclid(86_400_000)
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_certificate_is_told_from_one_that_ends_and_both_from_one_that_is_good() {
        const DAY_MS: u64 = 86_400_000;
        let now = 100 * DAY_MS;
        let left = |ends_ms| days_left(ends_ms, now);
        assert_eq!(left(now - 1), -1, "past is past");
        assert_eq!(left(now - DAY_MS), -1);
        assert_eq!((left(now), left(now + DAY_MS - 1), left(now + DAY_MS)), (0, 0, 1));
        assert_eq!(left(0), -100);

        let words = |days| certificate(Paint::None, days);
        assert_eq!(words(-1), "certificate has ended: renew it now");
        assert_eq!(words(0), "certificate ends within a day: renew it now");
        assert_eq!(words(1), "certificate ends in 1 day: renew it now");
        assert_eq!(words(6), "certificate ends in 6 days: renew it now");
        assert_eq!(words(7), "certificate ends in 7 days: renew it");
        assert_eq!(words(29), "certificate ends in 29 days: renew it");
        assert_eq!(words(30), "certificate good for 30 days");
    }
}

//! `verify`: whether every server's disk is sound, and whether all show the same.

use std::collections::BTreeMap;
use std::time::Duration;

use chatty_client::{Cluster, safe};
use chatty_core::session::Status;
use serde::Serialize;

use crate::Trouble;
use crate::out::Out;

/// A server has this long for each piece of news.
const PATIENCE: Duration = Duration::from_secs(15);
/// Servers that are still talking to each other have this long to come to the same.
const AGREE: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Serialize)]
struct DiskObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    server: &'a str,
    events: u64,
    sound: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct AgreeObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    equal: bool,
    servers: usize,
    rooms: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Compares what the servers show, then has each read its disk again.
pub async fn run(cluster: &Cluster, out: Out) -> Result<(), Trouble> {
    let difference = agreement(cluster, out).await?;
    let mut unsound = Vec::new();
    for (name, addr) in targets(cluster) {
        let tell = |events| crate::out::note(&format!("{name}: {events} events read"));
        let verified = chatty_client::ask::verify(cluster, &addr, PATIENCE, tell).await;
        let (events, reason) = match &verified {
            Ok(verified) => (verified.events, verified.damage.as_deref()),
            Err(why) => (0, Some(why.as_str())),
        };
        let sound = reason.is_none();
        let object = DiskObject { kind: "disk", server: &name, events, sound, reason };
        out.put(&object, |_| match reason {
            None => format!("{name}: {events} events read, all as they were written"),
            Some(why) => format!("{name}: {}", safe::one_line(why)),
        })?;
        if !sound {
            unsound.push(name.clone());
        }
    }
    match (difference, unsound.is_empty()) {
        (None, true) => Ok(()),
        (Some(_), _) => Err(Trouble::Say("the servers do not show the same".into())),
        (None, false) => {
            Err(Trouble::Say(format!("not verified: the disk of {}", unsound.join(", "))))
        }
    }
}

fn targets(cluster: &Cluster) -> Vec<(String, String)> {
    let named = cluster.servers.iter().map(|s| (s.name.to_string(), s.addr.clone()));
    let seeds = cluster.seeds.iter().map(|addr| (addr.clone(), addr.clone()));
    let mut all: Vec<_> = named.collect();
    if all.is_empty() {
        all.extend(seeds);
    }
    all
}

/// Whether all servers show the same, at some moment within [`AGREE`]; the first difference.
async fn agreement(cluster: &Cluster, out: Out) -> Result<Option<String>, Trouble> {
    let began = tokio::time::Instant::now();
    loop {
        let mut all = Vec::new();
        let mut silent = None;
        for (name, addr) in targets(cluster) {
            match chatty_client::ask::status(cluster, &addr, PATIENCE).await {
                Ok(status) => all.push(status),
                Err(why) => silent = Some(format!("{name} does not answer: {why}")),
            }
        }
        let different = silent.clone().or_else(|| first_difference(&all));
        if different.is_some() && silent.is_none() && began.elapsed() < AGREE {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        let rooms = all.first().map_or(0, |status| status.rooms.len());
        let reason = different.as_deref();
        let object = AgreeObject {
            kind: "agreement",
            equal: reason.is_none(),
            servers: all.len(),
            rooms,
            reason,
        };
        out.put(&object, |_| match reason {
            None => format!("{} servers show the same in {rooms} rooms", all.len()),
            Some(why) => safe::one_line(why),
        })?;
        return Ok(different);
    }
}

/// What two servers show differently, in words.
fn first_difference(all: &[Status]) -> Option<String> {
    let (first, rest) = all.split_first()?;
    let rooms = |status: &Status| -> BTreeMap<String, (u64, u64)> {
        status.rooms.iter().map(|r| (r.room.clone(), (r.messages, r.digest))).collect()
    };
    let ours = rooms(first);
    for other in rest {
        let theirs = rooms(other);
        for room in ours.keys().chain(theirs.keys()) {
            let (a, b) = (ours.get(room), theirs.get(room));
            if a != b {
                let say = |held: Option<&(u64, u64)>| match held {
                    Some((messages, digest)) => format!("{messages} messages ({digest:016x})"),
                    None => "nothing".into(),
                };
                return Some(format!(
                    "room {room} differs: {} has {}, {} has {}",
                    first.server,
                    say(a),
                    other.server,
                    say(b)
                ));
            }
        }
    }
    None
}

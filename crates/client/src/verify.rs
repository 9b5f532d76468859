//! `verify`: whether every server's disk is sound, and whether all show the same.

use std::collections::BTreeMap;
use std::time::Duration;

use chatty_client::{Cluster, safe};
use chatty_core::session::Status;
use serde::Serialize;

use crate::Trouble;
use crate::out::{self, Out};

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

/// What is wrong with the cluster as a whole.
#[derive(Debug, Default)]
struct Verdict {
    /// The first difference between two servers that answered.
    difference: Option<String>,
    /// Servers that did not answer, and why.
    silent: BTreeMap<String, String>,
    /// Servers that answered and whose disks are not sound.
    unsound: Vec<String>,
}

impl Verdict {
    /// In words, of so many servers in all; `None` if all is well.
    fn words(&self, servers: usize) -> Option<String> {
        let listed = |names: Vec<&str>| names.join(", ");
        let mut what = Vec::new();
        if self.difference.is_some() {
            what.push("the servers do not show the same".to_owned());
        }
        if self.silent.len() == servers {
            what.push("not verified: no server of the cluster answers".to_owned());
        } else if !self.silent.is_empty() {
            let names = listed(self.silent.keys().map(String::as_str).collect());
            what.push(format!("not verified: no answer of {names}"));
        }
        if !self.unsound.is_empty() {
            let names = listed(self.unsound.iter().map(String::as_str).collect());
            what.push(format!("not verified: the disk of {names}"));
        }
        (!what.is_empty()).then(|| what.join("; "))
    }
}

/// Compares what the servers show, then has each read its disk again.
pub async fn run(cluster: &Cluster, to: Out) -> Result<(), Trouble> {
    let mut verdict = agreement(cluster, to).await?;
    for (name, addr) in targets(cluster) {
        let verified = match verdict.silent.get(&name) {
            Some(why) => Err(why.clone()),
            None => {
                let tell = |events| out::note(&format!("{name}: {events} events read"));
                chatty_client::ask::verify(cluster, &addr, PATIENCE, tell).await
            }
        };
        let (events, reason) = match &verified {
            Ok(verified) => (verified.events, verified.damage.as_deref()),
            Err(why) => (0, Some(why.as_str())),
        };
        let sound = reason.is_none();
        let object = DiskObject { kind: "disk", server: &name, events, sound, reason };
        to.put(&object, |_| match reason {
            None => format!("{name}: {events} events read, all as they were written"),
            Some(why) => format!("{name}: {}", safe::one_line(why)),
        })?;
        if !sound && !verdict.silent.contains_key(&name) {
            verdict.unsound.push(name);
        }
    }
    verdict.words(targets(cluster).len()).map_or(Ok(()), |why| Err(Trouble::Say(why)))
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

/// Whether all servers that answer show the same, at some moment within [`AGREE`] of the first look;
/// who does not answer that one is not asked again.
async fn agreement(cluster: &Cluster, to: Out) -> Result<Verdict, Trouble> {
    let mut verdict = Verdict::default();
    let mut until = None;
    loop {
        let mut all = Vec::new();
        for (name, addr) in targets(cluster) {
            if verdict.silent.contains_key(&name) {
                continue;
            }
            match chatty_client::ask::status(cluster, &addr, PATIENCE).await {
                Ok(status) => all.push(status),
                Err(why) => {
                    verdict.silent.insert(name, why);
                }
            }
        }
        let now = tokio::time::Instant::now();
        let until = *until.get_or_insert(now + AGREE);
        verdict.difference = first_difference(&all);
        if verdict.difference.is_some() && now < until {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        tell_agreement(&verdict, &all, to)?;
        return Ok(verdict);
    }
}

fn same(servers: usize, rooms: usize) -> String {
    let rooms = out::count(rooms as u64, "room", "rooms");
    match servers {
        1 => format!("1 server shows the same in {rooms}"),
        many => format!("{many} servers show the same in {rooms}"),
    }
}

fn tell_agreement(verdict: &Verdict, all: &[Status], to: Out) -> Result<(), Trouble> {
    let (servers, rooms) = (all.len(), all.first().map_or(0, |status| status.rooms.len()));
    let silent = |(name, why): (&String, &String)| format!("{name} does not answer: {why}");
    let wrong: Vec<String> =
        verdict.difference.iter().cloned().chain(verdict.silent.iter().map(silent)).collect();
    let reason = (!wrong.is_empty()).then(|| wrong.join("; "));
    let object = AgreeObject {
        kind: "agreement",
        equal: reason.is_none(),
        servers,
        rooms,
        reason: reason.as_deref(),
    };
    to.put(&object, |_| {
        let mut lines: Vec<_> = wrong.iter().map(|why| safe::one_line(why)).collect();
        if verdict.difference.is_none() && (servers > 1 || wrong.is_empty()) {
            lines.insert(0, same(servers, rooms));
        }
        lines.join("\n")
    })?;
    Ok(())
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
                    Some((count, digest)) => format!("{} ({digest:016x})", out::messages(*count)),
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

#[cfg(test)]
mod tests {
    use chatty_core::id::{Origin, RequestId, ServerId, Slot};
    use chatty_core::io::Standing;
    use chatty_core::session::{RoomDigest, ServerState};
    use chatty_core::vector::Vector;

    use super::*;

    #[test]
    fn one_server_and_one_room_are_no_servers_and_rooms() {
        assert_eq!(same(1, 1), "1 server shows the same in 1 room");
        assert_eq!(same(3, 1), "3 servers show the same in 1 room");
        assert_eq!(same(2, 0), "2 servers show the same in 0 rooms");
    }

    /// What a server shows: rooms, their messages and digests.
    fn shows(server: &str, rooms: &[(&str, u64, u64)]) -> Status {
        let room = |(room, messages, digest): &(&str, u64, u64)| RoomDigest {
            room: (*room).to_owned(),
            messages: *messages,
            digest: *digest,
        };
        Status {
            request: RequestId(1),
            server: Slot::new(server).unwrap(),
            disk: ServerId::new(1),
            origin: Origin::new(1),
            state: ServerState::Ready,
            standing: Standing::Sound,
            links: Vec::new(),
            vector: Vector::new(),
            rooms: rooms.iter().map(room).collect(),
            more: false,
            lag: 0,
            sessions: 0,
            uptime_s: 0,
            certificate_ends_ms: None,
        }
    }

    #[test]
    fn servers_that_show_the_same_do_not_differ() {
        let rooms = [("lobby", 2, 7), ("tea", 1, 9)];
        let all = ["s1", "s2", "s3"].map(|server| shows(server, &rooms));
        assert_eq!(first_difference(&all), None);
        assert_eq!(first_difference(&all[..1]), None);
        assert_eq!(first_difference(&[]), None);
    }

    #[test]
    fn the_first_room_that_two_servers_show_differently_is_named() {
        let first = shows("s1", &[("lobby", 2, 7), ("tea", 1, 9)]);
        let differs = |rooms| {
            let all = [first.clone(), first.clone(), shows("s3", rooms)];
            first_difference(&all).unwrap_or_default()
        };
        assert_eq!(
            differs(&[("lobby", 1, 6), ("tea", 1, 9)]),
            "room lobby differs: s1 has 2 messages (0000000000000007), s3 has 1 message \
             (0000000000000006)"
        );
        assert_eq!(
            differs(&[("lobby", 2, 8), ("tea", 1, 9)]),
            "room lobby differs: s1 has 2 messages (0000000000000007), s3 has 2 messages \
             (0000000000000008)",
            "as many, but others"
        );
        assert_eq!(
            differs(&[("lobby", 2, 7)]),
            "room tea differs: s1 has 1 message (0000000000000009), s3 has nothing"
        );
        assert_eq!(
            differs(&[("lobby", 2, 7), ("tea", 1, 9), ("zoo", 3, 1)]),
            "room zoo differs: s1 has nothing, s3 has 3 messages (0000000000000001)"
        );
    }

    #[test]
    fn what_is_wrong_is_said_as_it_is() {
        let silent = |names: &[&str]| {
            names.iter().map(|name| ((*name).to_owned(), "no answer in 15 s".to_owned())).collect()
        };
        let words = |verdict: Verdict| verdict.words(3);
        assert_eq!(words(Verdict::default()), None);
        let all = Verdict { silent: silent(&["s1", "s2", "s3"]), ..Verdict::default() };
        assert_eq!(words(all).unwrap(), "not verified: no server of the cluster answers");
        let one = Verdict { silent: silent(&["s2"]), ..Verdict::default() };
        assert_eq!(words(one).unwrap(), "not verified: no answer of s2");
        let both = Verdict {
            difference: Some("room lobby differs".into()),
            silent: silent(&["s2"]),
            unsound: vec!["s3".into()],
        };
        assert_eq!(
            words(both).unwrap(),
            "the servers do not show the same; not verified: no answer of s2; not verified: the \
             disk of s3"
        );
    }
}

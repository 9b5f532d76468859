//! What the measurement found, and whether anything was lost or repeated.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Plan;
use super::member::MemberReport;
use super::servers::{Process, Usage};
use super::tally::Histogram;
use crate::Trouble;
use crate::out::{Out, Paint};

#[derive(Serialize)]
struct Latency {
    count: u64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Latency {
    fn of(histogram: &Histogram) -> Self {
        let ms = |micros: u64| std::time::Duration::from_micros(micros).as_secs_f64() * 1e3;
        Self {
            count: histogram.total(),
            p50_ms: ms(histogram.permille(500)),
            p90_ms: ms(histogram.permille(900)),
            p99_ms: ms(histogram.permille(990)),
            max_ms: ms(histogram.max()),
        }
    }
}

#[derive(Serialize)]
struct Found {
    clients: usize,
    rooms: usize,
    members: usize,
    body: usize,
    seconds: f64,
    said: u64,
    acknowledged_per_s: f64,
    delivered_per_s: f64,
    stored: Latency,
    replicated: Latency,
    same_server: Latency,
    other_server: Latency,
    failovers: u64,
    /// The same, by the reason.
    failovers_by_reason: BTreeMap<String, u64>,
    unanswered: usize,
    lost: u64,
    repeated: u64,
    own_cpu_s: f64,
    servers: Vec<Process>,
}

pub fn print(out: Out, plan: &Plan, reports: &[MemberReport], used: &Usage) -> Result<(), Trouble> {
    let merged = |part: fn(&MemberReport) -> &Histogram| {
        let mut sum = Histogram::default();
        reports.iter().for_each(|report| sum.merge(part(report)));
        Latency::of(&sum)
    };
    let sum = |part: fn(&MemberReport) -> u64| reports.iter().map(part).sum::<u64>();
    let per_s = |count: u64| {
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        count / plan.seconds.as_secs_f64()
    };
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for (why, count) in reports.iter().flat_map(|report| &report.lost_servers) {
        *reasons.entry(why.clone()).or_insert(0) += count;
    }
    let found = Found {
        clients: plan.clients,
        rooms: plan.rooms,
        members: plan.members(),
        body: plan.body,
        seconds: plan.seconds.as_secs_f64(),
        said: sum(|report| report.said.values().sum()),
        acknowledged_per_s: per_s(sum(|report| report.acknowledged)),
        delivered_per_s: per_s(sum(|report| report.delivered)),
        stored: merged(|report| &report.stored),
        replicated: merged(|report| &report.replicated),
        same_server: merged(|report| &report.same),
        other_server: merged(|report| &report.other),
        failovers: reasons.values().sum(),
        failovers_by_reason: reasons,
        unanswered: reports.iter().map(|report| report.unanswered.len()).sum(),
        lost: lost(plan, reports),
        repeated: sum(|report| report.repeated),
        own_cpu_s: used.own_cpu_s,
        servers: used.servers.clone(),
    };
    out.put(&found, |paint| lines(paint, plan, &found))?;
    let wrong = [
        (found.lost, "deliveries were lost"),
        (found.repeated, "deliveries were repeated"),
        (u64::try_from(found.unanswered).unwrap_or(u64::MAX), "messages were not acknowledged"),
    ];
    let told: Vec<_> = wrong
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if told.is_empty() { Ok(()) } else { Err(Trouble::Say(told.join(", "))) }
}

/// Acknowledged messages that a member of their room did not get.
fn lost(plan: &Plan, reports: &[MemberReport]) -> u64 {
    let mut said: BTreeMap<usize, Vec<(usize, u64)>> = BTreeMap::new();
    let mut open: BTreeSet<(usize, usize, u64)> = BTreeSet::new();
    for report in reports {
        for (room, count) in &report.said {
            said.entry(*room).or_default().push((report.client, *count));
        }
        open.extend(report.unanswered.iter().map(|(room, n)| (*room, report.client, *n)));
    }
    let mut lost = 0;
    for report in reports {
        for room in plan.rooms_of(report.client) {
            for (sender, count) in said.get(&room).into_iter().flatten() {
                let got = report.got.get(&room).and_then(|got| got.get(sender));
                let missing = |n: &u64| got.is_none_or(|got| !got.has(*n));
                let missing = (0..*count).filter(missing);
                let acknowledged = missing.filter(|n| !open.contains(&(room, *sender, *n)));
                lost += acknowledged.count() as u64;
            }
        }
    }
    lost
}

fn lines(paint: Paint, plan: &Plan, found: &Found) -> String {
    let how = match plan.window {
        Some(window) => format!("closed loop, {window} outstanding each"),
        None => format!("open loop, {} a second", plan.rate),
    };
    let mut text = format!(
        "{} clients, {} senders, {} rooms of {}, {} bytes, {how}, {} s\n",
        found.clients,
        plan.senders(),
        found.rooms,
        found.members,
        found.body,
        found.seconds
    );
    text += &format!(
        "acknowledged {:>10.1} /s\ndelivered    {:>10.1} /s\n",
        found.acknowledged_per_s, found.delivered_per_s
    );
    text += &paint.quiet("latency, ms             p50      p90      p99      max      count\n");
    for (name, latency) in [
        ("stored", &found.stored),
        ("replicated", &found.replicated),
        ("same server", &found.same_server),
        ("other server", &found.other_server),
    ] {
        let Latency { count, p50_ms, p90_ms, p99_ms, max_ms } = latency;
        text += &format!(
            "{name:<18} {p50_ms:>8.2} {p90_ms:>8.2} {p99_ms:>8.2} {max_ms:>8.2} {count:>10}\n"
        );
    }
    for Process { server, cpu_s, rss_mib } in &found.servers {
        text += &format!("{server:<12} {cpu_s:>8.2} s CPU  {rss_mib:>8.1} MiB resident\n");
    }
    text += &format!("clients      {:>8.2} s CPU\n", found.own_cpu_s);
    text += &format!(
        "{} said, {} unanswered, {} lost, {} repeated, {} fail-overs",
        found.said, found.unanswered, found.lost, found.repeated, found.failovers
    );
    for (why, count) in &found.failovers_by_reason {
        text += &format!("\n{count:>12} because: {why}");
    }
    text
}

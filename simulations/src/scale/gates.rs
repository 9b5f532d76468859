//! What must not get worse: the formulas of the broadcast's cost, held against the real core.
//!
//! Each gate measures and says what it found; one that is passed says it too, so that a table of them is
//! worth reading. `chatty-simulations gates` runs them all, and so does a test for each.

use std::num::NonZeroU8;
use std::time::Duration;

use chatty_core::config::{Feeds, Limits, Start, Timing};

use super::memory::Memory;
use super::{Cost, Setting, TEXT_BYTES, measure};

/// A rule of cost.
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub rule: &'static str,
    /// What was found; `Err` if the rule is broken.
    pub check: fn() -> Result<String, String>,
}

/// All of them.
pub const GATES: &[Gate] = &[
    Gate {
        name: "one-feed",
        rule: "N-1 copies of an event, exactly, once prunes have ceased",
        check: one_feed,
    },
    Gate { name: "two-feeds", rule: "N-1 to 2(N-1) copies of an event", check: two_feeds },
    Gate { name: "all-feeds", rule: "N-1 to (N-1)² copies, nobody is pruned", check: all_feeds },
    Gate {
        name: "begin-pruned",
        rule: "a known mesh floods nothing, from the first event on",
        check: begin_pruned,
    },
    Gate {
        name: "few-links",
        rule: "8 links a server: a tree costs N-1 copies and at most 1 % more, and stays whole",
        check: few_links,
    },
    Gate { name: "repair", rule: "without a fault nothing is asked for", check: no_repair },
    Gate {
        name: "have-frames",
        rule: "two Have frames a link and tick and one an event to its own server, at most; no more \
               prefixes in them than that, however much is said",
        check: have_frames,
    },
    Gate {
        name: "bytes",
        rule: "a copy costs 115 bytes beside its text, a Have 31 beside its frame",
        check: bytes,
    },
    Gate {
        name: "memory",
        rule: "three servers hold no more after 100,000 events than after 10,000",
        check: || memory(3, 10_000, 100_000),
    },
    Gate {
        name: "memory-12",
        rule: "12 servers hold no more after 30,000 events than after 15,000",
        check: || memory(12, 15_000, 30_000),
    },
];

const fn feeds(n: u8) -> Feeds {
    match NonZeroU8::new(n) {
        Some(n) => Feeds::Some(n),
        None => Feeds::All,
    }
}

fn calm(servers: usize, feeds: Feeds, start: Start) -> Result<Cost, String> {
    let cost = measure(&Setting::calm(servers, feeds, start, 1))?;
    if !cost.settled {
        return Err(format!("{servers} servers: prunes do not cease"));
    }
    if cost.times.events != cost.traffic.said || cost.traffic.said == 0 {
        return Err(format!("{} of {} events arrived", cost.times.events, cost.traffic.said));
    }
    Ok(cost)
}

/// Meshes of 3, 5 and 25; what each of them must satisfy, and the numbers of it.
fn meshes(
    feeds: Feeds,
    start: Start,
    rule: fn(&Cost, u64) -> bool,
    say: fn(&Cost) -> String,
) -> Result<String, String> {
    let mut found = Vec::new();
    for servers in [3, 5, 25] {
        let cost = calm(servers, feeds, start)?;
        let told = format!("{servers}: {}", say(&cost));
        if !rule(&cost, servers as u64 - 1) {
            return Err(told);
        }
        found.push(told);
    }
    Ok(found.join(", "))
}

fn copies(cost: &Cost) -> String {
    format!("{:.2} copies", cost.per_event(cost.traffic.copies))
}

fn one_feed() -> Result<String, String> {
    let rule = |cost: &Cost, others: u64| cost.traffic.copies == cost.traffic.said * others;
    meshes(feeds(1), Start::Flooded, rule, copies)
}

fn two_feeds() -> Result<String, String> {
    let rule = |cost: &Cost, others: u64| {
        let least = cost.traffic.said * others;
        (least..=2 * least).contains(&cost.traffic.copies)
    };
    meshes(feeds(2), Start::Flooded, rule, copies)
}

fn all_feeds() -> Result<String, String> {
    let rule = |cost: &Cost, others: u64| {
        let least = cost.traffic.said * others;
        let prunes = cost.before.prunes.frames + cost.traffic.prunes.frames;
        (least..=least * others).contains(&cost.traffic.copies) && prunes == 0
    };
    meshes(Feeds::All, Start::Flooded, rule, copies)
}

fn begin_pruned() -> Result<String, String> {
    let say = |cost: &Cost| {
        let first = cost.before.copies as f64 / cost.before.said.max(1) as f64;
        format!("{first:.2} copies at first, {} prunes", cost.before.prunes.frames)
    };
    let one = |cost: &Cost, others: u64| {
        cost.before.copies == cost.before.said * others && cost.before.prunes.frames == 0
    };
    let two = |cost: &Cost, others: u64| {
        let least = cost.before.said * others;
        (least..=2 * least).contains(&cost.before.copies) && cost.before.prunes.frames == 0
    };
    let found = meshes(feeds(1), Start::Pruned, one, say)?;
    Ok(format!("one feed {found}; two {}", meshes(feeds(2), Start::Pruned, two, say)?))
}

fn few_links() -> Result<String, String> {
    let cost = calm(100, feeds(1), Start::Flooded)?;
    let least = cost.traffic.said * 99;
    let found = format!(
        "{}, {} asked for, {:.2} links on average",
        copies(&cost),
        cost.before.wants.frames + cost.traffic.wants.frames,
        cost.hops.mean()
    );
    let whole = cost.before.wants.frames + cost.traffic.wants.frames == 0;
    let within = (least..=least + least / 100).contains(&cost.traffic.copies);
    if whole && within { Ok(found) } else { Err(found) }
}

fn no_repair() -> Result<String, String> {
    let mut events = 0;
    for (servers, feeds, start) in [
        (3, Feeds::All, Start::Flooded),
        (5, feeds(2), Start::Flooded),
        (5, feeds(1), Start::Flooded),
        (25, feeds(2), Start::Pruned),
        (80, feeds(2), Start::Flooded),
    ] {
        // Over few links some prune may come late: this gate does not wait for the last of them.
        let cost = measure(&Setting::calm(servers, feeds, start, 1))?;
        for traffic in [cost.before, cost.traffic] {
            events += traffic.said;
            if traffic.wants.frames + traffic.ranges.frames + traffic.repairs > 0 {
                return Err(format!(
                    "{servers} servers, {feeds:?}: {} asked for, {} copies sent again",
                    traffic.wants.frames, traffic.repairs
                ));
            }
        }
    }
    Ok(format!("{events} events, 0 asked for"))
}

fn have_frames() -> Result<String, String> {
    let (mut found, tick) = (Vec::new(), Timing::default().have_tick);
    for servers in [5, 10] {
        let gap = Duration::from_millis(20); // 50 events a second of each: several in a tick
        let length = Duration::from_secs(3);
        let calm = Setting::calm(servers, feeds(2), Start::Pruned, 1);
        let setting = Setting { gap, length, ..calm };
        let cost = measure(&setting)?;
        let (n, ticks) =
            (servers as u64, cost.setting.length.div_duration_f64(tick).ceil() as u64 + 1);
        // Alone at the tick, or with what goes anyway in its second half.
        let (rounds, acks) = (n * (n - 1) * ticks * 2, (n - 1) * cost.traffic.said);
        let (frames, prefixes) = (rounds + acks, rounds * n + acks);
        let told = format!(
            "{servers}: {} of {frames}, {} prefixes of {prefixes}",
            cost.traffic.have.frames, cost.traffic.haves
        );
        if cost.traffic.have.frames > frames || cost.traffic.haves > prefixes {
            return Err(told);
        }
        found.push(told);
    }
    Ok(found.join(", "))
}

fn bytes() -> Result<String, String> {
    let mut found = Vec::new();
    for servers in [3, 25] {
        let cost = calm(servers, feeds(2), Start::Flooded)?;
        let Cost { traffic, .. } = &cost;
        let copy = traffic.events.bytes as f64 / traffic.copies as f64;
        // Seven bytes a frame: length, kind and count.
        let have =
            (traffic.have.bytes - 7 * traffic.have.frames) as f64 / traffic.haves.max(1) as f64;
        let n = servers as u64;
        let told = format!(
            "{servers}: {copy:.1} a copy, {have:.1} a Have, {:.0} an event in all",
            cost.per_event(traffic.all.bytes)
        );
        let kept = copy <= (TEXT_BYTES + 115) as f64
            && have <= 31.0
            && traffic.haves <= traffic.said * n * (n - 1);
        if !kept {
            return Err(told);
        }
        found.push(told);
    }
    Ok(found.join(", "))
}

/// Bounds that are reached soon, so that growth beyond them shows soon.
fn small() -> Limits {
    Limits { tail_events: 64, recent_lines: 256, recent_mids: 512, ..Limits::default() }
}

fn memory(servers: usize, soon: u64, late: u64) -> Result<String, String> {
    let mut memory = Memory::new(servers, Feeds::DEFAULT, small());
    memory.talk(soon);
    let before = memory.sizes();
    memory.talk(late);
    let after = memory.sizes();
    memory.check()?;
    let most = |sizes: &[usize]| sizes.iter().copied().max().unwrap_or(0);
    let found = format!("{} bytes, then {}", most(&before), most(&after));
    let grown = before.iter().zip(&after).any(|(before, after)| *after > before + before / 50);
    if grown { Err(found) } else { Ok(found) }
}

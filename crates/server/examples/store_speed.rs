//! How fast a batch becomes durable: `cargo run --release -p chatty-server --example store_speed`.
//!
//! Writes messages of 128 bytes in batches, each synced, as three servers with 1000 rooms write
//! them: turn by turn into three logs. First a few thousand batches of 1, 32 and 500 into an empty
//! store; then, with `fill N`, N more messages in batches of 250, a line for every tenth of them,
//! which shows what the store costs as it fills. Prints events a second, the time of a commit, CPU,
//! bytes written to the disk and resident memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chatty_core::event::{Body, Event, Msg};
use chatty_core::id::{AccountId, Log, Mid, Origin, RoomId};
use chatty_core::rng::Rng;
use chatty_core::store::{Batch, Entry, Store};
use chatty_core::time::Hlc;
use chatty_server::store::FjallStore;

/// Servers whose logs are written.
const LOGS: usize = 3;
/// Messages in a batch of the filling.
const FILL_BATCH: usize = 250;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fill = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => 0,
        [word, count] if word == "fill" => count.parse::<usize>()?,
        _ => return Err("usage: store_speed [fill N]".into()),
    };
    let folder = std::env::temp_dir().join(format!("chatty-store-speed-{}", std::process::id()));
    let mut store = FjallStore::open(&folder)?;
    println!("open, idle: {} resident", resident());
    let mut writer = Writer { rng: Rng::new(1), logs: [(0, 0); LOGS], said: 0 };
    for (size, batches) in [(1, 5000), (32, 2000), (500, 400)] {
        measure(&mut store, &mut writer, size, batches)?;
    }
    for _ in 0..10 {
        if fill > 0 {
            measure(&mut store, &mut writer, FILL_BATCH, fill / FILL_BATCH / 10)?;
        }
    }
    drop(store);
    let began = Instant::now();
    FjallStore::open(&folder)?.load()?;
    println!("open again: {:?}; {} resident", began.elapsed(), resident());
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Writes batches and prints what they cost.
fn measure(
    store: &mut FjallStore,
    writer: &mut Writer,
    size: usize,
    batches: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let (cpu, written) = (cpu_ticks(), bytes_written());
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..batches {
        let batch = writer.batch(size);
        let began = Instant::now();
        store.commit(&batch)?;
        times.push(began.elapsed());
    }
    let total: Duration = times.iter().sum();
    times.sort();
    let at = |share: usize| times.get(times.len().saturating_sub(1) * share / 100);
    let events = (size * batches) as f64;
    let rate = events / total.as_secs_f64();
    let micros = (cpu_ticks() - cpu) as f64 * 1e4 / events;
    let bytes = (bytes_written() - written) as f64 / events;
    println!(
        "batch {size:>3} after {:>8}: {rate:>7.0} events/s; commit p50 {:?} p99 {:?} max {:?}; {micros:.1} us CPU, {bytes:.0} bytes written an event; {} resident",
        writer.said - size * batches,
        at(50).copied().unwrap_or_default(),
        at(99).copied().unwrap_or_default(),
        at(100).copied().unwrap_or_default(),
        resident()
    );
    Ok(())
}

struct Writer {
    rng: Rng,
    /// The last number and chain of each log.
    logs: [(u64, u64); LOGS],
    said: usize,
}

impl Writer {
    fn batch(&mut self, size: usize) -> Batch {
        Batch { entries: (0..size).map(|_| self.entry()).collect(), ..Batch::default() }
    }

    fn entry(&mut self) -> Entry {
        let at = self.said % LOGS;
        self.said += 1;
        let ms = 1_700_000_000_000 + self.said as u64 / 5;
        let text: String = (0..128).map(|_| char::from(b'a' + self.rng.below(26) as u8)).collect();
        let body = Body::from(Msg { nick: "somebody".into(), text });
        let [room, account] = [self.rng.below(1000), self.rng.below(3000)].map(u128::from);
        let mid = Mid::at(ms, self.rng.bits128());
        let (seq, chain) = &mut self.logs[at];
        *seq += 1;
        let event = Event {
            seq: *seq,
            hlc: Hlc::from_bits((ms << 16) | (*seq & 0xff)),
            wall_ms: ms,
            room: RoomId::new(room << 80),
            actor: AccountId::new(account << 70),
            mid,
            kind: body.kind(),
            body: body.encode(),
        };
        *chain = event.chain(*chain);
        Entry { log: Log::of(Origin::new(7 + at as u128)), event: Arc::new(event), chain: *chain }
    }
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap_or("unknown").trim().to_owned()
}

/// User and system time of this process in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// Bytes that this process had the disk write, also those not there yet.
fn bytes_written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

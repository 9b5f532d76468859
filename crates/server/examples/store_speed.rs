//! How fast a batch becomes durable: `cargo run --release -p chatty-server --example store_speed`.
//!
//! Writes messages of 128 bytes to 1000 rooms in batches of 1, 32 and 500, each synced, and prints
//! events a second, the time of a commit, CPU and resident memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chatty_core::event::{Body, Event, Msg};
use chatty_core::id::{AccountId, Log, Mid, Origin, RoomId};
use chatty_core::rng::Rng;
use chatty_core::store::{Batch, Entry, Store};
use chatty_core::time::Hlc;
use chatty_server::store::FjallStore;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("chatty-store-speed-{}", std::process::id()));
    let mut store = FjallStore::open(&folder)?;
    println!("open, idle: {} resident", resident());
    let mut writer = Writer { rng: Rng::new(1), seq: 0, chain: 0 };
    for (size, batches) in [(1, 5000), (32, 2000), (500, 400)] {
        let cpu = cpu_ticks();
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..batches {
            let batch = writer.batch(size);
            let began = Instant::now();
            store.commit(&batch)?;
            times.push(began.elapsed());
        }
        let total: Duration = times.iter().sum();
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        let rate = (size * batches) as f64 / total.as_secs_f64();
        let micros = (cpu_ticks() - cpu) as f64 * 1e4 / (size * batches) as f64;
        println!(
            "batch {size:>3}: {rate:>9.0} events/s; commit p50 {:?} p99 {:?} max {:?}; {micros:.1} us CPU an event; {} resident",
            at(50),
            at(99),
            at(100),
            resident()
        );
    }
    drop(store);
    let began = Instant::now();
    FjallStore::open(&folder)?.load()?;
    println!("open again: {:?}; {} resident", began.elapsed(), resident());
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

struct Writer {
    rng: Rng,
    seq: u64,
    chain: u64,
}

impl Writer {
    fn batch(&mut self, size: usize) -> Batch {
        Batch { entries: (0..size).map(|_| self.entry()).collect(), ..Batch::default() }
    }

    fn entry(&mut self) -> Entry {
        self.seq += 1;
        let ms = 1_700_000_000_000 + self.seq / 5;
        let text: String = (0..128).map(|_| char::from(b'a' + self.rng.below(26) as u8)).collect();
        let body = Body::from(Msg { nick: "somebody".into(), text });
        let event = Event {
            seq: self.seq,
            hlc: Hlc::from_bits((ms << 16) | (self.seq & 0xff)),
            wall_ms: ms,
            room: RoomId::new(u128::from(self.rng.below(1000)) << 80),
            actor: AccountId::new(u128::from(self.rng.below(3000)) << 70),
            mid: Mid::at(ms, self.rng.bits128()),
            kind: body.kind(),
            body: body.encode(),
        };
        self.chain = event.chain(self.chain);
        Entry { log: Log::of(Origin::new(7)), event: Arc::new(event), chain: self.chain }
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

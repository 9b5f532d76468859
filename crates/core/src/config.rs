//! Every parameter and every bound, with its unit, its default and where the default comes from.

use std::time::Duration;

use crate::event::Retention;
use crate::frame::Common;
use crate::id::{ClusterId, Generation, Origin, ServerId, Slot};
use crate::session::ServerAddr;
use crate::token::TokenKey;

/// How many links may go on pushing a log to a server before it prunes the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feeds {
    /// Never prune: eager reliable broadcast (Cachin, Guerraoui, Rodrigues, algorithm 3.3).
    All,
    /// So many (1: a tree; 2: a tree and one spare).
    Some(std::num::NonZeroU8),
}

impl Feeds {
    /// One spare: with three servers that is never pruning at all, with more it hides a stuck feed
    /// for N-1 extra sends.
    pub const DEFAULT: Self = Self::Some(std::num::NonZeroU8::MIN.saturating_add(1));

    /// The bound as a number.
    pub fn max(self) -> usize {
        match self {
            Self::All => usize::MAX,
            Self::Some(n) => usize::from(n.get()),
        }
    }
}

/// What a server may take for granted about the others and the links to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Mesh {
    /// Who pushes what before anybody has asked for anything.
    pub start: Start,
    /// What links do to frames.
    pub links: Links,
}

/// Who pushes a log to whom before anybody has asked for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Start {
    /// Everybody to everybody; receivers prune what is too much. Needs to know nothing, and costs
    /// up to two floods for each log.
    #[default]
    Flooded,
    /// The log's own server, and as many spares as there are feeds beyond one, drawn from the
    /// order of the configuration: all servers of it are meant to be linked to each other. Where a
    /// link is missing, `Have` and `Want` find it out and ask another server to push.
    Pruned,
}

/// What links do to frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Links {
    /// A frame arrives, in order, or the link goes down: QUIC.
    #[default]
    Sound,
    /// Frames are lost without a word, and no link ever goes down: bare datagrams. Every frame is
    /// accompanied by a `Have` of all that is held; alone it goes after [`Timing::have_tick`], if it
    /// is news, at once to whoever lacks what was said [`Timing::want_retry_min`] ago, and every
    /// [`Timing::ping_period`] to whoever has not shown for [`Timing::suspect_after`] to have it.
    Lossy,
}

/// Who this server is: fixed for one run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Me {
    /// The cluster.
    pub cluster: ClusterId,
    /// The slot of the configuration.
    pub slot: Slot,
    /// Which certificate of the slot.
    pub generation: Generation,
    /// The disk.
    pub server: ServerId,
    /// This run: new at every process start, and on the disk before the first `Hello`.
    pub origin: Origin,
    /// The run before on this disk and how much of its log the disk holds.
    pub prev: Option<(Origin, u64)>,
    /// host:port.
    pub addr: String,
}

/// What does not change while a server runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// This server.
    pub me: Me,
    /// All servers of the configuration, this one included. The first [`VOTERS_MAX`] vote.
    pub servers: Vec<ServerAddr>,
    /// The cluster's key for session tokens.
    pub token_key: TokenKey,
    /// How many links push each log to this server.
    pub feeds: Feeds,
    /// What may be taken for granted about the others.
    pub mesh: Mesh,
    /// Times.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
    /// How long rooms without a policy of their own keep their messages.
    pub retention: Retention,
}

impl Config {
    /// The voters.
    pub fn voters(&self) -> impl Iterator<Item = &Slot> {
        self.servers.iter().take(VOTERS_MAX).map(|server| &server.name)
    }

    /// What all servers are to have configured alike.
    pub fn common(&self) -> Common {
        Common { voters: self.voters().cloned().collect(), retention: self.retention }
    }

    /// On how many voters' disks an event must be to count as replicated.
    pub fn majority(&self) -> usize {
        self.servers.len().min(VOTERS_MAX) / 2 + 1
    }
}

/// Servers beyond these replicate without a vote.
pub const VOTERS_MAX: usize = 7;

/// Times, all steady but the skews.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// `Have`s travel this long after the fsync, or with another frame in the second half of that:
    /// each tells of all that came in between. 100 ms: at 50 servers 490 frames a second and server.
    pub have_tick: Duration,
    /// The same for the `Have` that a log's own server waits for, because it answers clients by it:
    /// at once by default. With `have_tick` nobody is in a hurry.
    pub ack_tick: Duration,
    /// An announced event that was not pushed is asked for after this. 50 ms on a LAN; twice the
    /// 99th percentile of the round trip on a WAN. Grafting at once pulls duplicates in normal
    /// jitter (Riak's trees).
    pub ihave_timeout: Duration,
    /// A hole before a pushed event is asked for after this. 20 ms on a LAN.
    pub gap_delay: Duration,
    /// A `Want` without an answer is repeated to another link after this, doubling, jittered…
    pub want_retry_min: Duration,
    /// … up to this, for ever while a live link claims the events.
    pub want_retry_max: Duration,
    /// How often one random link is asked whether it holds the same.
    pub digest_period: Duration,
    /// How often every link is pinged.
    pub ping_period: Duration,
    /// A link silent for so long is not waited for any more.
    pub suspect_after: Duration,
    /// A link silent for so long is closed.
    pub down_after: Duration,
    /// A link that the kernel says is dead gets a ping and this long to answer.
    pub probe_timeout: Duration,
    /// Sessions that were lost show as present for so long.
    pub grace: Duration,
    /// Clocks further apart than this many milliseconds are not followed; a server half as far
    /// from the median takes no writes.
    pub max_skew_ms: u64,
    /// A replicated send is answered as stored after this.
    pub ack_timeout: Duration,
    /// An attach waits so long for what the client has seen elsewhere.
    pub attach_wait: Duration,
    /// A duplicate feed is pruned at the second duplicate within this…
    pub prune_window: Duration,
    /// … and at most once in this, for each log and link.
    pub prune_period: Duration,
    /// A session gets a newer token at most this often.
    pub token_period: Duration,
    /// How often rooms are checked for messages that are not to be kept any longer.
    pub floor_period: Duration,
    /// A client that attached less than this ago is not asked to move to an emptier server; zero:
    /// nobody is. Two minutes: a client that must move for other reasons is then not moved twice.
    pub settled: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            have_tick: ms(100),
            ack_tick: ms(0),
            ihave_timeout: ms(50),
            gap_delay: ms(20),
            want_retry_min: ms(100),
            want_retry_max: ms(2000),
            digest_period: ms(5000),
            ping_period: ms(500),
            suspect_after: ms(2000),
            down_after: ms(5000),
            probe_timeout: ms(250),
            grace: ms(30_000),
            max_skew_ms: 2000,
            ack_timeout: ms(2000),
            attach_wait: ms(2000),
            prune_window: ms(10_000),
            prune_period: ms(1000),
            token_period: ms(1000),
            floor_period: ms(3_600_000),
            settled: ms(120_000),
        }
    }
}

/// Bounds, and what happens at each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Events that arrived before their predecessors, a log; full: dropped, asked for later.
    pub buffer_events: usize,
    /// Their bytes, a log; full: dropped, asked for later.
    pub buffer_bytes: usize,
    /// Their bytes over all logs; full: dropped, asked for later.
    pub buffers_bytes: usize,
    /// Newest events of a log kept in memory to answer `Want`s; older ones are read from the disk.
    pub tail_events: usize,
    /// Bytes of not yet sent live frames, a link; full: the queue is dropped and the peer pulls.
    pub live_queue_bytes: usize,
    /// Bytes of not yet sent items, a session; full: lines are dropped, the client reads again.
    pub session_queue_bytes: usize,
    /// Requests of a session waiting behind one that reads the disk; full: refused as busy.
    pub session_requests: usize,
    /// Bytes of those; full: refused as busy. A request longer than its kind allows is refused as
    /// wrong before it waits.
    pub session_request_bytes: usize,
    /// Bytes applied but not on the disk yet; full: sends are refused as busy, pushed events are
    /// dropped and asked for later.
    pub unsaved_bytes: usize,
    /// Bytes of `Range` frames sent for one `Want`.
    pub range_window_bytes: usize,
    /// Newest deliveries kept in memory for sessions that attach.
    pub recent_lines: usize,
    /// A client that missed more events than this, or more bytes of lines than fit its queue, reads
    /// its rooms again.
    pub since_scan: usize,
    /// Message identities kept in memory; older ones are looked up on the disk.
    pub recent_mids: usize,
    /// A server further behind than this many events attaches no clients.
    pub attach_lag: usize,
    /// Messages a second from one account through one server, and so many at once. Other requests
    /// count for more than one message, by what they cost the servers; more are refused as busy, with
    /// the time to wait.
    pub session_rate: u32,
    /// Accounts made a second for clients that come without one…
    pub guest_rate: u32,
    /// … and so many at once; more are refused as busy.
    pub guest_burst: u32,
    /// Accounts in all; beyond, clients without one are refused. Each takes some 300 bytes of memory
    /// on every server, for ever.
    pub accounts: usize,
    /// Rooms in all; beyond, none is made. Each takes some 500 bytes of memory on every server, up
    /// to 2 KiB with its topic.
    pub rooms: usize,
    /// Of those, founded by one account.
    pub rooms_founded: usize,
    /// Conversations in all; beyond, none is begun. Each takes some 500 bytes of memory on every
    /// server, for ever.
    pub conversations: usize,
    /// Of those, begun by one account on one server since that started. (A register does not tell who
    /// began it.)
    pub conversations_each: usize,
    /// Entries of lists (rooms, who, status) gone through a second for all clients together, and so
    /// many at once; more are refused as busy.
    pub list_rate: u32,
    /// Messages a second into one room on one server, and so many at once.
    pub room_rate: u32,
    /// Clients attached at once; more are refused as busy.
    pub sessions: usize,
    /// Waiting direct messages told to a client that attaches, from each person; all together they
    /// fit its queue, and of what does not it is told that there is more.
    pub waiting_lines: usize,
    /// Places of timelines looked at for those, in all conversations together.
    pub waiting_scan: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            buffer_events: 1024,
            buffer_bytes: 4 * MIB,
            buffers_bytes: 64 * MIB,
            tail_events: 4096,
            live_queue_bytes: 8 * MIB,
            session_queue_bytes: MIB,
            session_requests: 1024,
            session_request_bytes: MIB,
            unsaved_bytes: 64 * MIB,
            range_window_bytes: MIB,
            recent_lines: 16_384,
            since_scan: 10_000,
            recent_mids: 262_144,
            attach_lag: 10_000,
            session_rate: 1000,
            guest_rate: 100,
            guest_burst: 2000,
            accounts: 1_000_000,
            rooms: 100_000,
            rooms_founded: 1000,
            conversations: 1_000_000,
            conversations_each: 10_000,
            list_rate: 1_000_000,
            room_rate: 10_000,
            sessions: 20_000,
            waiting_lines: 1000,
            waiting_scan: 100_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_more_than_half_of_at_most_seven_voters() {
        let majorities: Vec<usize> = (1..=9u8)
            .map(|servers| {
                let name = |n: u8| Slot::new(format!("s{n}")).unwrap();
                let server = |n| ServerAddr { name: name(n), addr: String::new() };
                let config = Config {
                    me: Me {
                        cluster: ClusterId::new(1),
                        slot: name(1),
                        generation: 0,
                        server: ServerId::new(1),
                        origin: Origin::new(1),
                        prev: None,
                        addr: String::new(),
                    },
                    servers: (1..=servers).map(server).collect(),
                    token_key: TokenKey::new([0; 32]),
                    feeds: Feeds::DEFAULT,
                    mesh: Mesh::default(),
                    timing: Timing::default(),
                    limits: Limits::default(),
                    retention: Retention::default(),
                };
                let voters: Vec<&Slot> = config.voters().collect();
                let names: Vec<Slot> = (1..=servers.min(7)).map(name).collect();
                assert_eq!(voters, names.iter().collect::<Vec<_>>());
                config.majority()
            })
            .collect();
        assert_eq!(majorities, [1, 2, 2, 3, 3, 4, 4, 4, 4]);
    }

    #[test]
    fn a_log_has_two_feeds_unless_told_otherwise() {
        assert_eq!(Feeds::DEFAULT.max(), 2);
        assert_eq!(Feeds::Some(std::num::NonZeroU8::MIN).max(), 1);
        assert_eq!(Feeds::All.max(), usize::MAX);
        let limits = Limits::default();
        assert_eq!((limits.buffer_bytes, limits.buffers_bytes), (4_194_304, 67_108_864));
        assert_eq!((limits.live_queue_bytes, limits.unsaved_bytes), (8_388_608, 67_108_864));
    }
}

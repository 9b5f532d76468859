//! The file that a server is started with.
//!
//! Every key is explained in the file that `init` writes (`template`). What is wrong is told in
//! one line that names the file, the key and what to do.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chatty_core::config::{Feeds, Limits, Timing};
use chatty_core::event::Retention;
use chatty_core::id::Slot;
use chatty_core::session::ServerAddr;
use serde::{Deserialize, Deserializer, Serialize};

use crate::files::{self, FileError};
use crate::watchdog;

/// A mesh has at most this many servers.
pub const SERVERS_MAX: usize = 64;

/// How often rooms are checked for what is not kept any longer, if nothing is said.
const CHECK_SECONDS: u64 = 3600;

/// MiB of the volume that are left free, if nothing is said: enough for the database to write out
/// what it holds in memory and to merge its largest tables.
const DISK_RESERVE_MIB: u64 = 256;

/// Clients at once from one address, if nothing is said: a quarter of all.
const ADDRESS_SESSIONS: usize = 5000;

/// What waits for a client, a server or the disk may take at least so much: some of the longest
/// messages.
const QUEUE_BYTES_MIN: usize = 64 * 1024;

/// What a server is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    /// This server's slot.
    pub name: Slot,
    /// The UDP address for peers and clients.
    pub listen: SocketAddr,
    /// The folder of the data.
    pub data: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The certificate of the cluster's authority.
    pub authority: PathBuf,
    /// The cluster's key for session tokens.
    pub token_key: PathBuf,
    /// All servers, this one included.
    pub servers: Vec<ServerAddr>,
    /// How many links push each log to this server.
    pub feeds: Feeds,
    /// Bounds.
    pub limits: Limits,
    /// Clients at once from one address; of IPv6, from one network of 64 bits.
    pub address_sessions: usize,
    /// Bytes of the data's volume that are left free: below that, no writes are taken.
    pub disk_reserve: u64,
    /// How long rooms without a policy of their own keep their messages.
    pub retention: Retention,
    /// How often rooms are checked for what is not kept any longer.
    pub floor_period: Duration,
    /// A client is not asked to move to an emptier server for so long; zero: never.
    pub settled: Duration,
    /// The loop may stand still for so long.
    pub watchdog: Duration,
    /// What is logged, and how.
    pub log: LogConfig,
}

impl Config {
    /// Where the others find this server.
    pub fn address(&self) -> &str {
        let own = self.servers.iter().find(|server| server.name == self.name);
        own.map_or("", |server| &server.addr)
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A filter as `tracing-subscriber` reads it.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// An object a line.
    Json,
}

/// Why a configuration is refused. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The text is no TOML, or a key is unknown, missing or of the wrong kind.
    #[error("{}, line {line} ({text:?}): {what}", file.display())]
    Parse {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        line: usize,
        /// What stands there.
        text: String,
        /// What is wrong.
        what: String,
    },
    /// A key has a value that cannot be.
    #[error("{}: {key}: {what}", file.display())]
    Value {
        /// Which file.
        file: PathBuf,
        /// Which key.
        key: &'static str,
        /// What is wrong and what to do.
        what: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    listen: String,
    data: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    authority: PathBuf,
    token_key: PathBuf,
    #[serde(default)]
    feeds: RawFeeds,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    retention: RawRetention,
    #[serde(default)]
    log: RawLog,
    servers: Vec<RawServer>,
}

/// A server of the list, as files name it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawServer {
    pub(crate) name: String,
    pub(crate) addr: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    sessions: Option<usize>,
    address_sessions: Option<usize>,
    attach_lag: Option<usize>,
    session_rate: Option<u32>,
    room_rate: Option<u32>,
    guest_rate: Option<u32>,
    guest_burst: Option<u32>,
    accounts: Option<usize>,
    rooms: Option<usize>,
    rooms_founded: Option<usize>,
    conversations: Option<usize>,
    conversations_each: Option<usize>,
    list_rate: Option<u32>,
    session_queue_kib: Option<usize>,
    live_queue_kib: Option<usize>,
    unsaved_kib: Option<usize>,
    disk_reserve_mib: Option<u64>,
    watchdog_seconds: Option<u32>,
    settled_seconds: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRetention {
    #[serde(default)]
    days: u64,
    #[serde(default)]
    messages: u64,
    check_seconds: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLog {
    level: Option<String>,
    #[serde(default)]
    format: LogFormat,
}

struct RawFeeds(Feeds);

impl Default for RawFeeds {
    fn default() -> Self {
        Self(Feeds::DEFAULT)
    }
}

impl<'de> Deserialize<'de> for RawFeeds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = RawFeeds;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"all\" or a number from 1 to 255")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RawFeeds, E> {
                match text {
                    "all" => Ok(RawFeeds(Feeds::All)),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<RawFeeds, E> {
                let feeds = u8::try_from(number).ok().and_then(NonZeroU8::new);
                let wrong = || E::invalid_value(serde::de::Unexpected::Signed(number), &self);
                feeds.map(|feeds| RawFeeds(Feeds::Some(feeds))).ok_or_else(wrong)
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// Reads and checks a configuration. Relative paths in it begin at its folder.
///
/// # Errors
/// See [`ConfigError`].
pub fn load(file: &Path) -> Result<Config, ConfigError> {
    parse(file, &files::read(file)?)
}

/// Reads a file of ours, with an error that shows the line.
pub(crate) fn from_toml<T: serde::de::DeserializeOwned>(
    file: &Path,
    text: &str,
) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.get(..start).unwrap_or_default().matches('\n').count();
        ConfigError::Parse {
            file: file.to_owned(),
            line: line + 1,
            text: text.lines().nth(line).unwrap_or_default().trim().to_owned(),
            what: error.message().replace('\n', ", "),
        }
    })
}

/// Checks the text of a configuration that is in that file.
///
/// # Errors
/// See [`ConfigError`].
pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
    let raw: Raw = from_toml(file, text)?;
    let wrong = |key, what| Err(ConfigError::Value { file: file.to_owned(), key, what });
    let Ok(name) = Slot::new(raw.name) else {
        return wrong("name", "use 1 to 32 of a-z, 0-9 and '-', as in \"s1\"".into());
    };
    let listen = match raw.listen.parse::<SocketAddr>() {
        Ok(listen) if listen.port() != 0 => listen,
        _ => {
            let what = format!("{:?} is not address:port; use \"0.0.0.0:7400\"", raw.listen);
            return wrong("listen", what);
        }
    };
    let servers = match servers(&raw.servers) {
        Ok(servers) => servers,
        Err(what) => return wrong("servers", what),
    };
    if !servers.iter().any(|server| server.name == name) {
        return wrong("servers", format!("{name} itself is not in the list; add it"));
    }
    let mut limits = Limits::default();
    let given = raw.limits;
    limits.sessions = given.sessions.unwrap_or(limits.sessions);
    limits.attach_lag = given.attach_lag.unwrap_or(limits.attach_lag);
    let address_sessions = given.address_sessions.unwrap_or(ADDRESS_SESSIONS);
    limits.session_rate = given.session_rate.unwrap_or(limits.session_rate);
    limits.room_rate = given.room_rate.unwrap_or(limits.room_rate);
    limits.guest_rate = given.guest_rate.unwrap_or(limits.guest_rate);
    limits.guest_burst = given.guest_burst.unwrap_or(limits.guest_burst);
    limits.accounts = given.accounts.unwrap_or(limits.accounts);
    limits.rooms = given.rooms.unwrap_or(limits.rooms);
    limits.rooms_founded = given.rooms_founded.unwrap_or(limits.rooms_founded);
    limits.conversations = given.conversations.unwrap_or(limits.conversations);
    limits.conversations_each = given.conversations_each.unwrap_or(limits.conversations_each);
    limits.list_rate = given.list_rate.unwrap_or(limits.list_rate);
    let rates = [limits.session_rate, limits.room_rate, limits.guest_rate, limits.list_rate];
    let kib = |given: Option<usize>, usual| given.map_or(usual, |kib| kib.saturating_mul(1024));
    limits.session_queue_bytes = kib(given.session_queue_kib, limits.session_queue_bytes);
    limits.live_queue_bytes = kib(given.live_queue_kib, limits.live_queue_bytes);
    limits.unsaved_bytes = kib(given.unsaved_kib, limits.unsaved_bytes);
    let queues = [limits.session_queue_bytes, limits.live_queue_bytes, limits.unsaved_bytes];
    if queues.iter().any(|bytes| *bytes < QUEUE_BYTES_MIN) {
        let what =
            format!("a queue takes the longest message: {} KiB or more", QUEUE_BYTES_MIN / 1024);
        return wrong("limits", what);
    }
    let most = [
        limits.sessions,
        address_sessions,
        limits.accounts,
        limits.rooms,
        limits.rooms_founded,
        limits.conversations,
        limits.conversations_each,
        limits.attach_lag,
    ];
    if rates.contains(&0) || most.contains(&0) || limits.guest_burst == 0 {
        return wrong("limits", "0 lets nobody in; leave the key out for the default".into());
    }
    let check_seconds = raw.retention.check_seconds.unwrap_or(CHECK_SECONDS);
    if check_seconds == 0 {
        return wrong("retention.check_seconds", "use 1 or more".into());
    }
    let retention = Retention {
        age_ms: raw.retention.days.saturating_mul(86_400_000),
        messages: raw.retention.messages,
    };
    let watchdog =
        given.watchdog_seconds.map_or(watchdog::LIMIT, |s| Duration::from_secs(s.into()));
    if watchdog.is_zero() {
        let what = "0 would end the server at once; leave the key out for the default".into();
        return wrong("limits.watchdog_seconds", what);
    }
    let level = raw.log.level.unwrap_or_else(|| "info".into());
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&level) {
        return wrong("log.level", format!("{error}; use \"info\", \"warn\" or \"debug\""));
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    Ok(Config {
        file: file.to_owned(),
        name,
        listen,
        data: folder.join(raw.data),
        certificate: folder.join(raw.certificate),
        key: folder.join(raw.key),
        authority: folder.join(raw.authority),
        token_key: folder.join(raw.token_key),
        servers,
        feeds: raw.feeds.0,
        limits,
        address_sessions,
        retention,
        floor_period: Duration::from_secs(check_seconds),
        settled: given
            .settled_seconds
            .map_or(Timing::default().settled, |seconds| Duration::from_secs(seconds.into())),
        disk_reserve: given.disk_reserve_mib.unwrap_or(DISK_RESERVE_MIB).saturating_mul(1 << 20),
        watchdog,
        log: LogConfig { level, format: raw.log.format },
    })
}

/// A list of servers, or what is wrong with it.
pub(crate) fn servers(raw: &[RawServer]) -> Result<Vec<ServerAddr>, String> {
    if raw.is_empty() || raw.len() > SERVERS_MAX {
        return Err(format!("a cluster has 1 to {SERVERS_MAX} servers, not {}", raw.len()));
    }
    let mut servers: Vec<ServerAddr> = Vec::new();
    for RawServer { name, addr } in raw {
        let name = Slot::new(name.as_str())
            .map_err(|name| format!("{name:?} is no name; use 1 to 32 of a-z, 0-9 and '-'"))?;
        if !is_address(addr) {
            return Err(format!("the addr {addr:?} of {name} is not host:port"));
        }
        if servers.iter().any(|other| other.name == name || other.addr == *addr) {
            return Err(format!("{name} at {addr} has its name or its address from another one"));
        }
        servers.push(ServerAddr { name, addr: addr.clone() });
    }
    Ok(servers)
}

/// Whether it is host:port; whether the host exists is found out when it is dialled.
fn is_address(addr: &str) -> bool {
    addr.parse::<SocketAddr>().is_ok_and(|addr| addr.port() != 0)
        || addr.rsplit_once(':').is_some_and(|(host, port)| {
            let is_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
            // A number may have a sign, a port may not.
            port.bytes().all(|c| c.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port != 0)
                && !host.is_empty()
                && host.chars().all(is_host)
        })
}

/// The text of a new configuration, every key explained.
pub(crate) fn template(name: &Slot, listen: SocketAddr, servers: &[ServerAddr]) -> String {
    let list: String = servers
        .iter()
        .map(|server| {
            format!("\n[[servers]]\nname = \"{}\"\naddr = \"{}\"\n", server.name, server.addr)
        })
        .collect();
    let Limits {
        sessions,
        session_rate,
        room_rate,
        guest_rate,
        guest_burst,
        accounts,
        rooms,
        rooms_founded,
        conversations,
        conversations_each,
        list_rate,
        session_queue_bytes,
        live_queue_bytes,
        unsaved_bytes,
        attach_lag,
        ..
    } = Limits::default();
    let [session_queue, live_queue, unsaved] =
        [session_queue_bytes, live_queue_bytes, unsaved_bytes].map(|bytes| bytes / 1024);
    let watchdog = watchdog::LIMIT.as_secs();
    let settled = Timing::default().settled.as_secs();
    format!(
        r#"# A chatty server. Check a change with: chatty-server check --config FILE
# Relative paths begin at the folder of this file. A key with a '#' before it shows its default.

# Which of the servers below this one is.
name = "{name}"

# UDP address for everything: other servers and clients. "0.0.0.0:PORT" takes all of IPv4.
listen = "{listen}"

# Where everything is kept. One process at a time. To back it up: chatty-server backup.
data = "data"

# This server's certificate and its key (secret), both from the cluster's authority.
certificate = "server.pem"
key = "server.key"

# The certificate of the cluster's authority. Its key belongs on no server.
authority = "authority.pem"

# The key that session tokens are signed with: secret, the same on all servers.
token_key = "token.key"

# How many links push each new message to this server: 1 costs the least traffic, 2 hides a stuck
# link, "all" never tells a link to stop.
# feeds = 2

[limits]
# Clients attached at once.
# sessions = {sessions}
# Of those, from one address (of IPv6: from one network of 64 bits).
# address_sessions = {ADDRESS_SESSIONS}
# Further behind the others than so many events it attaches no clients: they go to another server.
# attach_lag = {attach_lag}
# Messages a second from one account. Other requests count for more, by what they cost: a list or a
# new name for 20 messages, joining a room for 10, making one for 20 more. What is beyond is refused
# as busy, with the time to wait.
# session_rate = {session_rate}
# Messages a second into one room through this server.
# room_rate = {room_rate}
# Accounts made a second, on this server, for clients that come without one, and so many at once.
# guest_rate = {guest_rate}
# guest_burst = {guest_burst}
# Accounts in all: each takes some 300 bytes of memory on every server, for ever. Beyond, only clients
# that have an account come in.
# accounts = {accounts}
# Rooms in all (up to 2 KiB of memory each on every server), and made by one account.
# rooms = {rooms}
# rooms_founded = {rooms_founded}
# Conversations of two people in all (some 500 bytes of memory each on every server, for ever), and
# begun by one account on this server since it started.
# conversations = {conversations}
# conversations_each = {conversations_each}
# Entries of lists (rooms, who, status) gone through a second for all clients together.
# list_rate = {list_rate}
# KiB that wait in memory for one slow client (beyond, it is told of a gap and reads again), for one
# slow server (beyond, it asks for what it missed), and for the disk (beyond, writes are refused as
# busy, with the time to wait).
# session_queue_kib = {session_queue}
# live_queue_kib = {live_queue}
# unsaved_kib = {unsaved}
# MiB left free on the volume of `data`: below that, writes of clients are refused and reads go on;
# below a quarter of it, so is what other servers have.
# disk_reserve_mib = {DISK_RESERVE_MIB}
# Seconds that the server may do nothing at all before it ends itself (exit code 3), so that it is
# started again.
# watchdog_seconds = {watchdog}
# Seconds that a client stays where it is before it may be asked to move to a server that has clearly
# fewer clients; 0: nobody is asked.
# settled_seconds = {settled}

[retention]
# What rooms keep that have no policy of their own (`chatty keep`); 0: everything, for ever.
# The same on all servers.
# days = 0
# messages = 0
# How often it is looked for what is not kept any longer.
# check_seconds = {CHECK_SECONDS}

[log]
# "error", "warn", "info", "debug", or a filter such as "info,chatty_server=debug".
# level = "info"
# "human", or "json" for an object a line.
# format = "human"

# All servers of the cluster, this one included: the same list, in the same order, on all of them.
# The first seven vote: a message is replicated when most of these have it on disk.
{list}"#,
        list = list.trim_start()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        let server = |n: u16| ServerAddr {
            name: Slot::new(format!("s{n}")).unwrap(),
            addr: format!("127.0.0.1:{}", 7399 + n),
        };
        let listen = "127.0.0.1:7400".parse().unwrap();
        template(&Slot::new("s1").unwrap(), listen, &[server(1), server(2), server(3)])
    }

    fn error(text: &str) -> String {
        parse(Path::new("/etc/chatty/server.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn the_template_is_a_configuration_with_the_defaults() {
        let config = parse(Path::new("/etc/chatty/server.toml"), &text()).unwrap();
        assert_eq!(config.data, Path::new("/etc/chatty/data"));
        assert_eq!(config.address(), "127.0.0.1:7400");
        assert_eq!((config.feeds, config.limits), (Feeds::DEFAULT, Limits::default()));
        assert_eq!(config.servers.len(), 3);
    }

    #[test]
    fn every_commented_key_of_the_template_is_its_default() {
        let keys = [
            "feeds = ",
            "sessions = ",
            "address_sessions = ",
            "attach_lag = ",
            "session_rate = ",
            "room_rate = ",
            "guest_rate = ",
            "guest_burst = ",
            "accounts = ",
            "rooms = ",
            "rooms_founded = ",
            "conversations = ",
            "conversations_each = ",
            "list_rate = ",
            "session_queue_kib = ",
            "live_queue_kib = ",
            "unsaved_kib = ",
            "disk_reserve_mib = ",
            "watchdog_seconds = ",
            "settled_seconds = ",
            "days = ",
            "messages = ",
            "check_seconds = ",
            "level = ",
            "format = ",
        ];
        let mut told = text();
        for key in keys {
            let commented = format!("# {key}");
            assert_eq!(told.matches(&commented).count(), 1, "{key}");
            told = told.replace(&commented, key);
        }
        let parse = |text: &str| parse(Path::new("f"), text).unwrap();
        assert_eq!(parse(&told), parse(&text()));
    }

    #[test]
    fn each_mistake_is_one_line_with_file_and_key() {
        let mistakes = [
            ("listen = ", "lisen = ", "lisen"),
            (
                "listen = \"127.0.0.1:7400\"",
                "listen = \"7400\"",
                "listen: \"7400\" is not address:port",
            ),
            ("name = \"s1\"", "name = \"S1\"", "name: use 1 to 32"),
            ("name = \"s1\"", "name = \"s9\"", "s9 itself is not in the list"),
            ("# feeds = 2", "feeds = 0", "\"all\" or a number from 1 to 255"),
            ("# feeds = 2", "feeds = \"some\"", "\"all\" or a number from 1 to 255"),
            ("# sessions = 20000", "sessions = \"many\"", "sessions"),
            ("# room_rate = 10000", "room_rate = 0", "limits: 0 lets nobody in"),
            ("# watchdog_seconds = 30", "watchdog_seconds = 0", "0 would end the server at once"),
            ("# accounts = 1000000", "accounts = 0", "limits: 0 lets nobody in"),
            ("# attach_lag = 10000", "attach_lag = 0", "limits: 0 lets nobody in"),
            ("# address_sessions = 5000", "address_sessions = 0", "limits: 0 lets nobody in"),
            ("# unsaved_kib = 65536", "unsaved_kib = 0", "limits: a queue takes the longest"),
            ("# format = \"human\"", "format = \"xml\"", "`human` or `json`"),
            ("# level = \"info\"", "level = \"a=b=c\"", "log.level"),
            ("127.0.0.1:7402", "nowhere", "\"nowhere\" of s3 is not host:port"),
            ("127.0.0.1:7402", "127.0.0.1:7401", "from another one"),
            ("data = \"data\"", "", "missing field `data`"),
        ];
        for (right, wrong, told) in mistakes {
            assert!(text().contains(right), "{right}");
            let error = error(&text().replacen(right, wrong, 1));
            assert!(error.starts_with("/etc/chatty/server.toml"), "{error}");
            assert!(error.contains(told) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let good = ["127.0.0.1:1", "[::1]:7400", "chat.example.org:7400", "s1:7400"];
        assert!(good.into_iter().all(is_address));
        let bad =
            ["", "host", "host:", ":7400", "host:0", "host:+7", "host:70000", "a b:1", "::1:7400"];
        assert_eq!(bad.into_iter().find(|addr| is_address(addr)), None);
    }
}

//! Lines on standard error, each with the server's name: for people, or an object a line.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use chatty_core::id::Slot;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::config::{LogConfig, LogFormat};

/// Begins to log. A second call in a process changes nothing.
pub(crate) fn start(name: &Slot, config: &LogConfig) {
    let filter = EnvFilter::try_new(&config.level).unwrap_or_default();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    // An error means that a logger is there.
    let _ = match config.format {
        LogFormat::Human => lines
            .with_ansi(io::stderr().is_terminal())
            .with_timer(Named(name.clone()))
            .with_writer(io::stderr)
            .try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_writer(Objects { head: format!("{{\"server\":\"{name}\",") })
            .try_init(),
    };
}

/// The time, then the name.
struct Named(Slot);

impl FormatTime for Named {
    fn format_time(&self, to: &mut Writer<'_>) -> fmt::Result {
        SystemTime.format_time(to)?;
        write!(to, " {}", self.0)
    }
}

/// Puts the name in front of an object's other fields.
struct Objects {
    head: String,
}

struct Object<'a>(&'a str);

impl<'a> MakeWriter<'a> for Objects {
    type Writer = Object<'a>;
    fn make_writer(&'a self) -> Object<'a> {
        Object(&self.head)
    }
}

impl Write for Object<'_> {
    /// Takes a whole line at once, as it is given one.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match line.strip_prefix(b"{") {
            Some(rest) => io::stderr().write_all(&[self.0.as_bytes(), rest].concat())?,
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

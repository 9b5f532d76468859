//! A chat client that fails over by itself.
//!
//! [`Chat`] attaches to any server of a [`Cluster`], learns the rest, and goes on elsewhere when
//! its server dies or falls silent: what was said is said again under the same name, what was
//! missed is fetched, and the program sees each line once. The protocol is in
//! [`chatty_core::client`]; this crate drives it with sockets, a clock and a file for the account.
//!
//! A bot that answers:
//! ```no_run
//! use chatty_client::{Chat, Cluster, Direct, Event, Options};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let cluster = Cluster::open(".chatty")?;
//!     let options = Options { nick: Some("echo".into()), direct: Direct::Take, ..Options::default() };
//!     let (chat, mut events) = Chat::connect(&cluster, options).await?;
//!     chat.join("lobby", 0).await?;
//!     while let Some(event) = events.next().await {
//!         match event {
//!             Event::Message(message) if message.text.starts_with("!echo ") => {
//!                 let answer = format!("{}: {}", message.nick, &message.text[6..]);
//!                 chat.send("lobby", &answer).await?;
//!             }
//!             Event::Lost { server, why } => eprintln!("{server}: {why}; going on elsewhere"),
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! With [`Options::outbox`] what was said and is not replicated outlives the process: the next one
//! with the same file says it again under the same id, and [`Chat::left`] tells what that is.
//!
//! In reading order:

pub mod cluster;
pub mod identity;
pub mod outbox;
pub mod view;
pub mod driver;
pub mod chat;
pub mod ask;
pub mod safe;

pub use chat::{Chat, ConnectError, Events, History, Left, Options, Start};
pub use chatty_core::client::{Attached, Failure, LostWhy, MessageState, Ticket};
pub use chatty_core::session::{Code, Direct, Level, Mode, Target};
pub use cluster::{Cluster, ClusterError};
pub use identity::IdentityAt;
pub use outbox::{OutboxAt, OutboxError};
pub use view::{Event, Happening, Message, What};

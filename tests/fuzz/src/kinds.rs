//! One real value of every kind that travels or lies on a disk, as the project's own code writes it:
//! what a fuzzer begins with, and what the corpora hold (`corpus/TARGET/kind-…`).
//!
//! A fuzzer finds a kind whose body is long only by luck. So a kind that is added must be added here
//! too: a list of variants that lacks one does not compile, and an ordinary test holds the kinds in
//! the corpora against those that there are.

mod events;
mod frames;
mod items;
mod notes;
mod requests;
mod rows;

use std::collections::BTreeSet;

use chatty_core::event::{Body, Event, Msg, Rank};
use chatty_core::id::{AccountId, Log, Mid, Origin, RoomId};
use chatty_core::io::Standing;
use chatty_core::session::{Item, Request, Target};
use chatty_core::time::{Hlc, Key};
use chatty_core::vector::Vector;
use chatty_core::wire::Wire;

/// All variants of enums without data: one that is missing here does not compile.
macro_rules! every {
    ($($list:ident: $enum:ty = $($variant:ident)*;)*) => {
        $(pub(super) const $list: &[$enum] = {
            const fn _all(one: $enum) {
                match one {
                    $(<$enum>::$variant => {})*
                }
            }
            &[$(<$enum>::$variant),*]
        };)*
    };
}
use every;

/// The name of a variant with data, and all such names: one that is missing does not compile.
macro_rules! named {
    ($enum:ident, $of:ident, $all:ident = $($variant:ident)*) => {
        fn $of(one: &$enum) -> &'static str {
            match one {
                $($enum::$variant { .. } => stringify!($variant),)*
            }
        }
        const $all: &[&str] = &[$(stringify!($variant)),*];
    };
}
use named;

every! {
    RANKS: Rank = Member Op Founder;
    STANDINGS: Standing = Sound Lossy RolledBack;
}

const LOG: Log = Log::of(Origin::new(5));

const PREFIX: &str = "kind-";

/// A value of some kind, as an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Names its file: `kind-`, the kind, and which of its values.
    pub name: String,
    /// What the target is given.
    pub bytes: Vec<u8>,
}

/// The targets whose inputs are of kinds.
pub const TARGETS: &[&str] =
    &["frame", "request", "item", "event", "rows", "database", "client_files"];

/// Whether a file of a corpus is one of these.
#[must_use]
pub fn is_name(file: &str) -> bool {
    file.starts_with(PREFIX)
}

/// One input of each kind, and more where a part of it has several.
///
/// # Panics
/// If the target has no kinds.
pub fn values(target: &str) -> Vec<Kind> {
    match target {
        "frame" => frames::values(),
        "request" => numbered(requests::values()),
        "item" => numbered(items::values()),
        "event" => events::values(),
        "rows" | "database" => rows::values(),
        "client_files" => notes::values(),
        _ => panic!("{target} has no kinds"),
    }
}

/// All kinds there are of a target's inputs.
///
/// # Panics
/// If the target has no kinds.
pub fn known(target: &str) -> BTreeSet<String> {
    match target {
        "frame" => frames::known(),
        "request" => numbers::<Request>(),
        "item" => numbers::<Item>(),
        "event" => events::known(),
        "rows" | "database" => rows::known(),
        "client_files" => notes::known(),
        _ => panic!("{target} has no kinds"),
    }
}

/// Of which kinds an input is; of none unless it is exactly what the project's own code writes.
///
/// # Panics
/// If the target has no kinds.
pub fn of(target: &str, bytes: &[u8]) -> BTreeSet<String> {
    match target {
        "frame" => frames::of(bytes),
        "request" => number_of::<Request>(bytes),
        "item" => number_of::<Item>(bytes),
        "event" => events::of(bytes),
        "rows" | "database" => rows::of(bytes),
        "client_files" => notes::of(bytes),
        _ => panic!("{target} has no kinds"),
    }
}

fn numbers<T: Wire>() -> BTreeSet<String> {
    T::KINDS.iter().map(|(_, name)| (*name).to_owned()).collect()
}

fn name_of<T: Wire>(frame: &T) -> &'static str {
    let named = T::KINDS.iter().find(|(number, _)| *number == frame.kind());
    named.expect("a kind has a name").1
}

fn number_of<T: Wire>(bytes: &[u8]) -> BTreeSet<String> {
    let frame = bytes.split_first().and_then(|(kind, body)| T::decode(*kind, body).ok());
    let written = frame.filter(|frame| write(frame) == bytes);
    written.iter().map(|frame| name_of(frame).to_owned()).collect()
}

/// The byte of its kind and its body, as the decoders' targets take them.
fn write<T: Wire>(frame: &T) -> Vec<u8> {
    let mut bytes = vec![frame.kind()];
    frame.encode_body(&mut bytes);
    bytes
}

/// The first of a kind is called by it, others by their number too.
fn numbered<T: Wire>(frames: Vec<T>) -> Vec<Kind> {
    let named = frames.iter().map(|frame| (name_of(frame).to_owned(), write(frame)));
    count(named.collect())
}

fn count(named: Vec<(String, Vec<u8>)>) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Vec::new();
    for (name, bytes) in named {
        let prefix = format!("{PREFIX}{name}-");
        let nth = kinds.iter().filter(|kind| kind.name.starts_with(&prefix)).count() + 1;
        kinds.push(Kind { name: format!("{prefix}{nth}"), bytes });
    }
    kinds
}

fn account() -> AccountId {
    AccountId::new(2)
}

fn room() -> RoomId {
    RoomId::public("lobby")
}

fn key() -> Key {
    Key { hlc: Hlc::at_ms(5), origin: LOG.origin, seq: 1 }
}

fn vector() -> Vector {
    [(LOG, 3)].into_iter().collect()
}

fn text(text: &str) -> String {
    text.to_owned()
}

/// One of each.
fn targets() -> Vec<Target> {
    named!(Target, name, ALL = Room Nick Account);
    let targets =
        vec![Target::Room(text("lobby")), Target::Nick(text("bob")), Target::Account(account())];
    assert_eq!(targets.iter().map(name).collect::<Vec<_>>(), ALL);
    targets
}

fn event(seq: u64) -> Event {
    event_of(seq, Msg { nick: text("ann"), text: text("hello") }.into())
}

fn event_of(seq: u64, body: Body) -> Event {
    Event {
        seq,
        hlc: Hlc::at_ms(seq),
        wall_ms: seq,
        room: room(),
        actor: AccountId::new(1),
        mid: Mid::at(seq, u128::from(seq)),
        kind: body.kind(),
        body: body.encode(),
    }
}

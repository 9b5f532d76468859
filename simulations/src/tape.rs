//! What a page shows of a run, collected only when somebody wants a page.

use chatty_core::session::{Item, Request};
use chatty_core::time::Time;

use crate::history::Did;
use crate::network::Said;
use crate::world::World;

/// More arrows than this are left out, from the beginning on: a page is to be read by a person.
const ARROWS_MAX: usize = 60_000;

/// Everything drawn of a run.
#[derive(Debug, Default)]
pub struct Tape {
    /// What went from one to another.
    pub arrows: Vec<Arrow>,
    /// Arrows that were left out.
    pub left_out: usize,
    /// What happened at one.
    pub marks: Vec<Mark>,
}

/// Somebody on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A server, or a copy of one.
    Server(usize),
    /// A client.
    Client(usize),
}

/// Something that went from one to another.
#[derive(Debug)]
pub struct Arrow {
    /// Who sent it.
    pub from: Who,
    /// Who got it.
    pub to: Who,
    /// When it left.
    pub sent: Time,
    /// When it arrived.
    pub came: Time,
    /// Its kind.
    pub kind: String,
    /// All of it, for a person.
    pub what: String,
}

/// Something that happened at one.
#[derive(Debug)]
pub struct Mark {
    /// At whom.
    pub who: Who,
    /// When.
    pub at: Time,
    /// What.
    pub what: String,
}

/// The first word of what the debugger says: the name of the variant.
fn kind(words: &str) -> String {
    words.chars().take_while(char::is_ascii_alphanumeric).collect()
}

impl World {
    fn tape_arrow(&mut self, from: Who, to: Who, sent: Time, what: impl FnOnce() -> String) {
        let came = self.time;
        let Some(tape) = &mut self.tape else { return };
        if tape.arrows.len() >= ARROWS_MAX {
            tape.arrows.drain(..ARROWS_MAX / 4);
            tape.left_out += ARROWS_MAX / 4;
        }
        let what = what();
        tape.arrows.push(Arrow { from, to, sent, came, kind: kind(&what), what });
    }

    fn tape_mark(&mut self, who: Who, what: impl FnOnce() -> String) {
        let at = self.time;
        if let Some(tape) = &mut self.tape {
            tape.marks.push(Mark { who, at, what: what() });
        }
    }

    pub(crate) fn tape_said(&mut self, from: usize, to: usize, sent: Time, said: &Said) {
        let what = || match said {
            Said::Frame(frame) => format!("{frame:?}"),
            Said::Unknown(kind, body, _) => format!("Unknown({kind}, {body:?})"),
        };
        self.tape_arrow(Who::Server(from), Who::Server(to), sent, what);
    }

    pub(crate) fn tape_request(
        &mut self,
        person: usize,
        server: usize,
        sent: Time,
        request: &Request,
    ) {
        let what = || format!("{request:?}");
        self.tape_arrow(Who::Client(person), Who::Server(server), sent, what);
    }

    pub(crate) fn tape_item(&mut self, person: usize, server: usize, sent: Time, item: &Item) {
        let what = || format!("{item:?}");
        self.tape_arrow(Who::Server(server), Who::Client(person), sent, what);
    }

    pub(crate) fn tape_did(&mut self, person: usize, did: &Did) {
        if self.tape.is_some() {
            let words = self.history.words(did);
            self.tape_mark(Who::Client(person), || words);
        }
    }

    pub(crate) fn tape_server(&mut self, n: usize, what: &str) {
        self.tape_mark(Who::Server(n), || what.to_string());
    }
}

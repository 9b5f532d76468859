//! What a program asks besides sending, and what becomes of it across fail-overs.
//!
//! Every ask may be repeated without harm (reads read again; opening, closing, naming, kicking,
//! ranking and setting a topic arrive at the same state twice), so an ask without an answer is
//! repeated at the next server until its deadline.

use std::collections::BTreeMap;

use crate::event::{Rank, Retention};
use crate::id::{RequestId, RoomId};
use crate::session::{
    Close, CloseMode, Code, History, Keep, Kick, Mark, Mode, Named, Nick, Open, Page, Participants,
    Plain, Request, Role, RoomList, RoomOpened, Status, Target, Topic, TopicIs, Who,
};
use crate::time::{Key, Time};

use super::io::{Failure, Ticket};

/// Asks waiting for an answer, at most; more are refused as busy.
const ASKS_MAX: usize = 1024;

/// What a program may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Take part in a room, beginning with its last lines.
    Open {
        /// The room's name.
        room: String,
        /// How many lines.
        last: u32,
        /// For good, or while the session lasts.
        mode: Mode,
    },
    /// Stop taking part.
    Close {
        /// The room's name.
        room: String,
        /// Leave it, or only close it here.
        mode: CloseMode,
    },
    /// A page of a timeline.
    History {
        /// Of what.
        of: Target,
        /// Lines below this; `None`: the newest.
        before: Option<Key>,
        /// How many.
        limit: u32,
    },
    /// The rooms.
    Rooms,
    /// A room's participants.
    Who {
        /// The room's name.
        room: String,
    },
    /// What the server sees of the cluster.
    Status,
    /// Ask for (`None`) or set a topic.
    Topic {
        /// The room's name.
        room: String,
        /// The new topic.
        text: Option<String>,
    },
    /// Put somebody out.
    Kick {
        /// The room's name.
        room: String,
        /// Whom.
        nick: String,
        /// May be empty.
        reason: String,
    },
    /// Make somebody op, or not.
    Role {
        /// The room's name.
        room: String,
        /// Whom.
        nick: String,
        /// What he becomes.
        rank: Rank,
    },
    /// Say how long a room's messages are kept.
    Keep {
        /// The room's name.
        room: String,
        /// The policy.
        keep: Retention,
    },
    /// Go by another name.
    Nick {
        /// Which.
        nick: String,
    },
    /// Direct messages have been shown.
    Mark {
        /// Their places.
        shown: Vec<(RoomId, Key)>,
    },
}

impl Ask {
    fn request(&self, request: RequestId) -> Request {
        match self.clone() {
            Self::Open { room, last, mode } => Request::Open(Open { request, room, last, mode }),
            Self::Close { room, mode } => Request::Close(Close { request, room, mode }),
            Self::History { of, before, limit } => {
                Request::History(History { request, of, before, limit })
            }
            Self::Rooms => Request::Rooms(Plain { request }),
            Self::Who { room } => Request::Who(Who { request, room }),
            Self::Status => Request::Status(Plain { request }),
            Self::Topic { room, text } => Request::Topic(Topic { request, room, text }),
            Self::Kick { room, nick, reason } => {
                Request::Kick(Kick { request, room, nick, reason })
            }
            Self::Role { room, nick, rank } => Request::Role(Role { request, room, nick, rank }),
            Self::Keep { room, keep } => Request::Keep(Keep { request, room, keep }),
            Self::Nick { nick } => Request::Nick(Nick { request, nick }),
            Self::Mark { shown } => Request::Mark(Mark { request, shown }),
        }
    }

    /// Whether it does more than tell.
    const fn changes_something(&self) -> bool {
        match self {
            Self::Open { mode, .. } => matches!(mode, Mode::Join),
            Self::Close { mode, .. } => matches!(mode, CloseMode::Leave),
            Self::Topic { text, .. } => text.is_some(),
            Self::Kick { .. }
            | Self::Role { .. }
            | Self::Keep { .. }
            | Self::Nick { .. }
            | Self::Mark { .. } => true,
            Self::History { .. } | Self::Rooms | Self::Who { .. } | Self::Status => false,
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// A room is open.
    Opened(RoomOpened),
    /// A page.
    Page(Page),
    /// The rooms.
    Rooms(RoomList),
    /// The participants.
    Who(Participants),
    /// The name.
    Named(Named),
    /// The topic.
    Topic(TopicIs),
    /// What a server sees.
    Status(Box<Status>),
}

impl Answer {
    /// Appends the next part of a long answer.
    fn extend(&mut self, part: Self) {
        match (self, part) {
            (Self::Rooms(list), Self::Rooms(part)) => list.rooms.extend(part.rooms),
            (Self::Who(list), Self::Who(part)) => list.people.extend(part.people),
            (Self::Status(status), Self::Status(part)) => status.rooms.extend(part.rooms),
            // A part of something else is a server's mistake: what is told last holds.
            (whole, part) => *whole = part,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Unsent,
    Asked,
    Later(Time),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    /// `None` for the client's own.
    ticket: Option<Ticket>,
    ask: Ask,
    deadline: Time,
    stage: Stage,
    /// Whether a server may have done it without saying so.
    doubtful: bool,
    /// What came so far of an answer in parts.
    parts: Option<Answer>,
}

/// Asks without an answer, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Asks {
    open: BTreeMap<RequestId, Asked>,
    /// How many are not [`Stage::Asked`]: most of the time none, and then nothing is searched.
    waiting: usize,
}

impl Asks {
    pub(super) fn submit(
        &mut self,
        request: RequestId,
        ticket: Ticket,
        ask: Ask,
        deadline: Time,
    ) -> Result<(), Failure> {
        if self.open.len() >= ASKS_MAX {
            let reason = "too many requests wait for their answers".into();
            return Err(Failure::Refused(Code::Busy, reason));
        }
        self.insert(request, Some(ticket), ask, deadline);
        Ok(())
    }

    /// An ask of the client's own, whose answer is told to nobody.
    pub(super) fn again(&mut self, request: RequestId, ask: Ask, deadline: Time) {
        self.insert(request, None, ask, deadline);
    }

    fn insert(&mut self, request: RequestId, ticket: Option<Ticket>, ask: Ask, deadline: Time) {
        self.waiting += 1;
        let stage = Stage::Unsent;
        let asked = Asked { ticket, ask, deadline, stage, doubtful: false, parts: None };
        self.open.insert(request, asked);
    }

    /// What may be sent now, oldest first.
    pub(super) fn due(&mut self, now: Time) -> Vec<Request> {
        let mut due = Vec::new();
        if self.waiting == 0 {
            return due;
        }
        for (request, asked) in &mut self.open {
            let ready = match asked.stage {
                Stage::Unsent => true,
                Stage::Later(at) => at <= now,
                Stage::Asked => false,
            };
            if ready {
                asked.stage = Stage::Asked;
                self.waiting -= 1;
                due.push(asked.ask.request(*request));
            }
        }
        due
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.open.values().map(|asked| asked.deadline).min()
    }

    pub(super) fn retry_at(&self) -> Option<Time> {
        if self.waiting == 0 {
            return None;
        }
        let later = |asked: &Asked| match asked.stage {
            Stage::Later(at) => Some(at),
            Stage::Unsent | Stage::Asked => None,
        };
        self.open.values().filter_map(later).min()
    }

    /// A part of an answer; more follow.
    pub(super) fn part(&mut self, request: RequestId, part: Answer) {
        if let Some(asked) = self.open.get_mut(&request) {
            match &mut asked.parts {
                Some(parts) => parts.extend(part),
                none => *none = Some(part),
            }
        }
    }

    /// The last part with those before it.
    pub(super) fn whole(&mut self, request: RequestId, last: Answer) -> Answer {
        match self.open.get_mut(&request).and_then(|asked| asked.parts.take()) {
            Some(mut whole) => {
                whole.extend(last);
                whole
            }
            None => last,
        }
    }

    /// Whether an earlier server may have done it without saying so.
    pub(super) fn is_doubtful(&self, request: RequestId) -> bool {
        self.open.get(&request).is_some_and(|asked| asked.doubtful)
    }

    /// Takes out an ask that was answered: whose it was, and what.
    pub(super) fn answered(&mut self, request: RequestId) -> Option<(Ticket, Ask)> {
        let asked = self.remove(request)?;
        Some((asked.ticket?, asked.ask))
    }

    /// As [`Self::answered`], also for the client's own.
    pub(super) fn taken(&mut self, request: RequestId) -> Option<(Option<Ticket>, Ask)> {
        self.remove(request).map(|asked| (asked.ticket, asked.ask))
    }

    fn remove(&mut self, request: RequestId) -> Option<Asked> {
        let asked = self.open.remove(&request)?;
        if asked.stage != Stage::Asked {
            self.waiting -= 1;
        }
        Some(asked)
    }

    pub(super) fn busy(&mut self, request: RequestId, again: Time) {
        if let Some(asked) = self.open.get_mut(&request) {
            if asked.stage == Stage::Asked {
                self.waiting += 1;
            }
            asked.stage = Stage::Later(again);
        }
    }

    /// The connection is lost: everything goes again.
    pub(super) fn lost(&mut self) {
        for asked in self.open.values_mut() {
            asked.doubtful |= asked.stage == Stage::Asked && asked.ask.changes_something();
            asked.stage = Stage::Unsent;
            asked.parts = None;
        }
        self.waiting = self.open.len();
    }

    /// Takes out what nobody answered in time.
    pub(super) fn expire(&mut self, now: Time) -> Vec<Ticket> {
        let late: Vec<_> = self
            .open
            .iter()
            .filter(|(_, asked)| asked.deadline <= now)
            .map(|(request, _)| *request)
            .collect();
        late.into_iter().filter_map(|request| self.remove(request)?.ticket).collect()
    }

    /// Whose asks are open, and whether a server may have done them.
    pub(super) fn drain(&mut self) -> Vec<(Ticket, bool)> {
        self.lost();
        self.waiting = 0;
        let open = std::mem::take(&mut self.open).into_values();
        open.filter_map(|asked| Some((asked.ticket?, asked.doubtful))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    fn ids(requests: &[Request]) -> Vec<u64> {
        let id = |request: &Request| match request {
            Request::Rooms(plain) => plain.request.0,
            other => panic!("{other:?}"),
        };
        requests.iter().map(id).collect()
    }

    fn asks(n: u64) -> Asks {
        let mut asks = Asks::default();
        for n in 1..=n {
            asks.submit(RequestId(n), Ticket(n), Ask::Rooms, at(1000 * n)).unwrap();
        }
        asks
    }

    #[test]
    fn an_ask_goes_once_and_again_after_the_time_that_a_busy_server_says() {
        let mut asks = asks(3);
        assert_eq!(asks.waiting, 3);
        assert_eq!(ids(&asks.due(at(0))), [1, 2, 3]);
        assert_eq!((asks.waiting, ids(&asks.due(at(0))), asks.retry_at()), (0, vec![], None));
        asks.busy(RequestId(2), at(50));
        asks.busy(RequestId(3), at(70));
        asks.busy(RequestId(3), at(60));
        asks.busy(RequestId(9), at(10));
        assert_eq!((asks.waiting, asks.retry_at()), (2, Some(at(50))));
        assert_eq!(ids(&asks.due(at(49))), [] as [u64; 0]);
        assert_eq!(ids(&asks.due(at(50))), [2]);
        assert_eq!((asks.waiting, asks.retry_at()), (1, Some(at(60))));
        assert_eq!(asks.answered(RequestId(3)).map(|(ticket, _)| ticket), Some(Ticket(3)));
        assert_eq!((asks.waiting, asks.retry_at()), (0, None));
        asks.lost();
        assert_eq!((asks.waiting, ids(&asks.due(at(0)))), (2, vec![1, 2]));
    }

    #[test]
    fn an_ask_without_an_answer_ends_at_its_deadline() {
        let mut asks = asks(2);
        asks.again(RequestId(3), Ask::Rooms, at(500));
        assert_eq!(asks.deadline(), Some(at(500)));
        assert_eq!(asks.expire(at(500)), [], "the client's own: nobody is told");
        assert_eq!(asks.deadline(), Some(at(1000)));
        assert_eq!(asks.expire(at(999)), []);
        assert_eq!(asks.expire(at(1000)), [Ticket(1)]);
        assert_eq!((asks.waiting, asks.drain(), asks.waiting), (1, vec![(Ticket(2), false)], 0));
        assert_eq!((asks.deadline(), asks.waiting), (None, 0));
    }

    #[test]
    fn asks_are_bounded() {
        let mut asks = asks(ASKS_MAX as u64);
        let more = asks.submit(RequestId(0), Ticket(0), Ask::Rooms, at(0));
        assert!(matches!(more, Err(Failure::Refused(Code::Busy, _))));
    }
}

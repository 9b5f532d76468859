//! A history's operations, put where the rules look for them.

use std::collections::{BTreeMap, BTreeSet};

use chatty_core::event::Identity;
use chatty_core::id::{AccountId, RoomId};
use chatty_core::session::Level;
use chatty_core::time::{Key, Time};

use super::{Did, History, Op, Server, Session, Shown, What};

/// A message as its sender knows it.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) room: RoomId,
    /// Where in the history it was said, and when.
    pub(super) index: usize,
    pub(super) at: Time,
    pub(super) answers: Vec<Answer>,
    pub(super) fate: Fate,
}

/// What a sender knows of a message that was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It may have happened.
    Open,
    /// It did not happen.
    Refused,
}

#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) index: usize,
    pub(super) at: Time,
    pub(super) identity: Identity,
    pub(super) key: Option<Key>,
    pub(super) level: Level,
    pub(super) server: Server,
}

impl Sent {
    /// The places that answers named.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.answers.iter().filter_map(|answer| answer.key)
    }

    /// Its identity, once a server has said it.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.answers.first().map(|answer| answer.identity)
    }
}

/// When only some servers reached each other.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub(super) from: Time,
    /// `Time::MAX` in effect, if it was never healed.
    pub(super) until: Option<Time>,
    pub(super) sides: Vec<BTreeSet<Server>>,
}

/// A line that a session was shown, by itself or on a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) index: usize,
    pub(super) at: Time,
    pub(super) session: Session,
    /// Who showed it, as far as is known.
    pub(super) server: Option<Server>,
    pub(super) room: RoomId,
    pub(super) line: Shown,
    pub(super) kind: SightKind,
    /// Whether it was marked as late.
    pub(super) late: bool,
}

/// How a line was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SightKind {
    Told,
    OnPage,
}

/// Everything the rules ask for.
pub(super) struct Facts<'a> {
    pub(super) history: &'a History,
    pub(super) sent: BTreeMap<(Session, u64), Sent>,
    pub(super) sights: Vec<Sight>,
    /// Of each room, the final timeline of each server.
    pub(super) finals: BTreeMap<RoomId, BTreeMap<Server, &'a [Shown]>>,
    /// The place of each message in the final timelines: the smallest, if they differ.
    pub(super) places: BTreeMap<Identity, Shown>,
    /// Which messages are in the final timeline of which server.
    held: BTreeSet<(Identity, Server)>,
    pub(super) cuts: Vec<Cut>,
    /// Where in the history each server lost its disk last.
    pub(super) disks_lost: BTreeMap<Server, usize>,
    pub(super) accounts: BTreeMap<Session, AccountId>,
    /// Which server each session was attached to, from which place in the history on.
    attached: BTreeMap<Session, Vec<(usize, Server)>>,
}

impl<'a> Facts<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let mut facts = Self {
            history,
            sent: BTreeMap::new(),
            sights: Vec::new(),
            finals: BTreeMap::new(),
            places: BTreeMap::new(),
            held: BTreeSet::new(),
            cuts: Vec::new(),
            disks_lost: BTreeMap::new(),
            accounts: BTreeMap::new(),
            attached: BTreeMap::new(),
        };
        for (index, Op { at, what }) in history.ops.iter().enumerate() {
            match what {
                What::Client(session, did) => {
                    if let Did::Attached { account, server, .. } = did {
                        facts.accounts.insert(*session, *account);
                        facts.attached.entry(*session).or_default().push((index, *server));
                    }
                    let server = facts.server_of(*session, index);
                    facts.take(index, *at, *session, server, did);
                }
                What::Cut(sides) => {
                    facts.heal(*at);
                    facts.cuts.push(Cut { from: *at, until: None, sides: sides.clone() });
                }
                What::Healed => facts.heal(*at),
                What::DiskLost(server) => {
                    facts.disks_lost.insert(*server, index);
                }
                What::Final(server, room, lines) => {
                    facts.finals.entry(*room).or_default().insert(*server, lines);
                }
                What::Down(_) | What::Up(_) | What::State(..) => {}
            }
        }
        for (room, timelines) in &facts.finals {
            for (server, lines) in timelines {
                for line in *lines {
                    facts.held.insert((line.identity(*room), *server));
                    let place = facts.places.entry(line.identity(*room)).or_insert(*line);
                    if line.key < place.key {
                        *place = *line;
                    }
                }
            }
        }
        facts
    }

    fn heal(&mut self, at: Time) {
        if let Some(cut) = self.cuts.last_mut() {
            cut.until.get_or_insert(at);
        }
    }

    fn take(
        &mut self,
        index: usize,
        at: Time,
        session: Session,
        server: Option<Server>,
        did: &Did,
    ) {
        let mut sight = |room: RoomId, line: Shown, kind, late| {
            self.sights.push(Sight { index, at, session, server, room, line, kind, late });
        };
        match did {
            Did::Saw { room, line, late } => sight(*room, *line, SightKind::Told, *late),
            Did::Read { room, lines, .. } => {
                for line in lines {
                    sight(*room, *line, SightKind::OnPage, false);
                }
            }
            Did::Sent { ticket, room } => {
                let sent = Sent { room: *room, index, at, answers: Vec::new(), fate: Fate::Open };
                self.sent.insert((session, *ticket), sent);
            }
            Did::Answered { ticket, mid, key, level, server } => {
                let account = self.accounts.get(&session).copied().unwrap_or_default();
                if let Some(sent) = self.sent.get_mut(&(session, *ticket)) {
                    let identity = Identity { room: sent.room, account, mid: *mid };
                    let (key, level, server) = (*key, *level, *server);
                    sent.answers.push(Answer { index, at, identity, key, level, server });
                }
            }
            Did::Refused { ticket, .. } => {
                if let Some(sent) = self.sent.get_mut(&(session, *ticket)) {
                    sent.fate = Fate::Refused;
                }
            }
            Did::Attached { .. }
            | Did::Lost
            | Did::Opened { .. }
            | Did::Closed(_)
            | Did::Sets { .. }
            | Did::Changed { .. }
            | Did::Doubted { .. }
            | Did::Joined { .. }
            | Did::Kicked { .. }
            | Did::Ended => {}
        }
    }

    /// The server that a session was attached to last, there in the history.
    pub(super) fn server_of(&self, session: Session, index: usize) -> Option<Server> {
        let all = self.attached.get(&session)?;
        all.iter().rev().find(|(since, _)| *since <= index).map(|(_, server)| *server)
    }

    /// Whether what a session was shown there may be gone since with the disk of its server.
    pub(super) fn may_be_gone(&self, session: Session, index: usize) -> bool {
        self.server_of(session, index).is_some_and(|of| self.is_disk_lost_after(of, index))
    }

    /// Who a session is, once it is attached.
    pub(super) fn account(&self, session: Session) -> AccountId {
        self.accounts.get(&session).copied().unwrap_or_default()
    }

    /// Whether a server's disk was lost after that place in the history.
    pub(super) fn is_disk_lost_after(&self, server: Server, index: usize) -> bool {
        self.disks_lost.get(&server).is_some_and(|lost| *lost > index)
    }

    /// The servers in whose final timeline of its room that message is not.
    pub(super) fn absent(&self, identity: &Identity) -> Vec<Server> {
        let readers = self.finals.get(&identity.room).into_iter().flat_map(BTreeMap::keys);
        readers.copied().filter(|server| !self.held.contains(&(*identity, *server))).collect()
    }

    /// An acknowledgement of an event that is not there any more, and where a repetition of it is: a
    /// message that is held at several places stands at the smallest. What was only stored on a disk
    /// that was lost does not count.
    pub(super) fn lost_event<'s>(&self, sent: &'s Sent) -> Option<(&'s Answer, Key)> {
        let place = self.places.get(&sent.identity()?)?.key;
        let is_gone = |answer: &&Answer| {
            let excused = answer.level == Level::Stored
                && self.is_disk_lost_after(answer.server, answer.index);
            answer.key.is_some_and(|key| key < place) && !excused
        };
        sent.answers.iter().find(is_gone).map(|answer| (answer, place))
    }

    /// The best level that a server said of a message, with where and by whom.
    pub(super) fn best(sent: &Sent) -> Option<&Answer> {
        sent.answers.iter().max_by_key(|answer| answer.level)
    }

    pub(super) fn server(&self, server: Server) -> &str {
        self.history.servers.get(server).map_or("an unknown server", String::as_str)
    }

    pub(super) fn servers(&self, servers: impl IntoIterator<Item = Server>) -> String {
        servers.into_iter().map(|server| self.server(server)).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn session(&self, session: Session) -> &str {
        self.history.sessions.get(session).map_or("an unknown session", String::as_str)
    }

    pub(super) fn room(&self, room: RoomId) -> String {
        self.history.rooms.get(&room).cloned().unwrap_or_else(|| room.to_string())
    }
}

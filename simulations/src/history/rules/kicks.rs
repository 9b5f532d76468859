//! Who was put out of a room says and hears nothing there.

use std::collections::{BTreeMap, BTreeSet};

use chatty_core::event::Identity;
use chatty_core::id::{AccountId, RoomId};
use chatty_core::time::{Hlc, Key, Time};

use super::Found;
use super::messages::end;
use crate::history::facts::{Facts, Sight, SightKind};
use crate::history::{Did, Op, Rule, Session, What};

/// When somebody was put out of a room, or came in again, and which session was told so.
#[derive(Clone, Copy)]
struct Change {
    session: Session,
    index: usize,
    key: Key,
}

#[derive(Default)]
struct Membership {
    kicks: Vec<Change>,
    joins: Vec<Change>,
    /// Where in the history he was let in, and by what clock: nobody else need have been shown that he
    /// joined.
    let_in: Vec<(usize, Hlc)>,
}

type Members = BTreeMap<(RoomId, AccountId), Membership>;

pub(super) fn kicked_heard(facts: &Facts<'_>, found: &mut Found) {
    let members = members_of(facts);
    told_that_he_is_out(facts, found);
    hears(facts, &members, found);
    says(facts, &members, found);
}

fn members_of(facts: &Facts<'_>) -> Members {
    let mut members = Members::new();
    for (index, Op { what, .. }) in facts.history.ops.iter().enumerate() {
        let What::Client(session, did) = what else { continue };
        let session = *session;
        match did {
            Did::Joined { room, account, key } => {
                let change = Change { session, index, key: *key };
                members.entry((*room, *account)).or_default().joins.push(change);
            }
            Did::Kicked { room, account, key } => {
                let change = Change { session, index, key: *key };
                members.entry((*room, *account)).or_default().kicks.push(change);
            }
            Did::Opened { room, since } => {
                let of = members.entry((*room, facts.account(session))).or_default();
                of.let_in.push((index, *since));
            }
            _ => {}
        }
    }
    members
}

fn told_that_he_is_out(facts: &Facts<'_>, found: &mut Found) {
    let mut out: BTreeMap<(Session, RoomId), Time> = BTreeMap::new();
    for Op { at, what } in &facts.history.ops {
        let What::Client(session, did) = what else { continue };
        match did {
            Did::Closed(room) => {
                out.insert((*session, *room), *at);
            }
            Did::Opened { room, .. } => {
                out.remove(&(*session, *room));
            }
            Did::Saw { room, line, .. } => {
                if let Some(since) = out.get(&(*session, *room)) {
                    let what = format!(
                        "{} was shown {} of {} {} ms after it was told that it is out",
                        facts.session(*session),
                        line.mid,
                        facts.room(*room),
                        at.since(*since).as_millis(),
                    );
                    found.add(Rule::KickedHeard, *at, what);
                }
            }
            _ => {}
        }
    }
}

/// A page of a public room may be read by anybody; what is shown unasked must cease.
fn hears(facts: &Facts<'_>, members: &Members, found: &mut Found) {
    let sessions: BTreeMap<AccountId, BTreeSet<Session>> =
        facts.accounts.iter().fold(BTreeMap::new(), |mut all, (session, account)| {
            all.entry(*account).or_insert_with(BTreeSet::new).insert(*session);
            all
        });
    for sight in facts.sights.iter().filter(|sight| sight.kind == SightKind::Told) {
        let listener = facts.account(sight.session);
        let of_room = members.range((sight.room, AccountId::default())..);
        for ((_, account), of) in of_room.take_while(|((room, _), _)| *room == sight.room) {
            if of.kicks.is_empty() {
                continue;
            }
            let of_account = sessions.get(account).into_iter().flatten();
            if listener != *account {
                // Another hears what he must not.
                let is_out = |session: &Session| of.bars(sight, *session).is_some();
                if of_account.copied().any(|session| is_out(&session)) {
                    found.judges(Rule::KickedHeard);
                }
            } else if let Some((kick, why)) = of.bars(sight, sight.session) {
                let what = format!(
                    "{} was shown {} of {}, {why} his kick at {}",
                    facts.session(sight.session),
                    sight.line.mid,
                    facts.room(sight.room),
                    kick.key,
                );
                found.add(Rule::KickedHeard, sight.at, what);
            }
        }
    }
}

/// A server goes by what is on its disk, so what was said before anybody was shown the kick may stand
/// after it.
fn says(facts: &Facts<'_>, members: &Members, found: &mut Found) {
    let mut said: BTreeMap<Identity, usize> = BTreeMap::new();
    for sent in facts.sent.values() {
        let Some(identity) = sent.identity() else { continue };
        let index = said.entry(identity).or_insert(sent.index);
        *index = (*index).min(sent.index);
    }
    for (identity, place) in &facts.places {
        let Some(said) = said.get(identity).copied() else { continue };
        let says = members.get(&(identity.room, identity.account));
        let kick =
            says.and_then(|of| of.follows(place.key, usize::MAX)).filter(|kick| kick.index < said);
        if let Some(kick) = kick.map(|kick| kick.key) {
            let what = format!(
                "{} of {} was taken from him after his kick at {kick} in the same log",
                identity.mid,
                facts.room(identity.room),
            );
            found.add(Rule::KickedHeard, end(facts), what);
        }
    }
}

impl Membership {
    /// The kick after which a session of his must not be shown that, and why.
    fn bars(&self, sight: &Sight, session: Session) -> Option<(Change, &'static str)> {
        let follows = self.follows(sight.line.key, sight.index);
        let own = || self.was_shown(session, sight.index);
        follows
            .map(|kick| (kick, "which follows in the same log"))
            .or_else(|| own().map(|kick| (kick, "after that session was shown")))
    }

    /// The kick that a line follows in its own log, unless he came in again after it.
    fn follows(&self, line: Key, index: usize) -> Option<Change> {
        let follows = |kick: &&Change| kick.key.origin == line.origin && kick.key < line;
        self.kicks.iter().filter(follows).find(|kick| !self.is_back(kick, index)).copied()
    }

    /// A kick of his that this session was shown before, unless he came in again after it.
    fn was_shown(&self, session: Session, index: usize) -> Option<Change> {
        let shown = |kick: &&Change| kick.session == session && kick.index < index;
        self.kicks.iter().filter(shown).find(|kick| !self.is_back(kick, index)).copied()
    }

    /// Whether he may have come in, before that, at a place above a kick: it may be shown later all the
    /// same.
    fn is_back(&self, kick: &Change, index: usize) -> bool {
        self.joins.iter().any(|join| join.key > kick.key && join.index < index)
            || self.let_in.iter().any(|(at, since)| *since >= kick.key.hlc && *at < index)
    }
}

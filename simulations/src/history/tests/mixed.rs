//! Bad histories of all that is not said in rooms: messages to one person, what is set, pages that are
//! called complete, and people who are put out and come back.

use chatty_core::id::{AccountId, RoomId};
use chatty_core::session::Level;
use chatty_core::time::{Hlc, Time};

use super::super::{Did, History, Op, Rule, Shown, State, Subject, What, check, judge};
use super::{
    ANN, BOB, EVE, ROOM, breaks, complete, did, history, join, key_of, kick, line, opened, saw,
    sent,
};

const ANN_AND_BOB: RoomId = RoomId::new(70);

/// The good history, with Ann's messages to Bob and what else happens at its end.
fn with(mut put_in: Vec<What>) -> History {
    let mut history = history(super::good());
    history.directs = [(ANN_AND_BOB, [AccountId::new(100), AccountId::new(101)])].into();
    history.ops.extend(put_in.drain(..).map(|what| Op { at: Time::from_micros(99_000), what }));
    history
}

#[track_caller]
fn only(found: &History, rule: Rule, words: &str) {
    let found = check(found);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].rule, rule, "{}", found[0]);
    assert!(found[0].to_string().contains(words), "{}", found[0]);
}

fn judged(history: &History, rule: Rule) -> u64 {
    judge(history).judged.get(&rule).copied().unwrap_or_default()
}

#[test]
fn a_message_to_one_person_that_another_is_shown_is_overheard() {
    let direct = Shown { account: AccountId::new(100), ..line(9) };
    let told = |who: usize| {
        let room = ANN_AND_BOB;
        let said = did(ANN, Did::Sent { ticket: 9, room });
        let (mid, key, level) = (direct.mid, Some(direct.key), Level::Stored);
        let answer = did(ANN, Did::Answered { ticket: 9, mid, key, level, server: 0 });
        let shown = did(who, Did::Saw { room, line: direct, late: false });
        let finals = (0..3).map(|server| What::Final(server, room, vec![direct]));
        [said, answer, shown].into_iter().chain(finals).collect()
    };
    let good = with(told(BOB));
    assert_eq!(check(&good), []);
    assert_eq!(judged(&good, Rule::Overheard), 1);
    only(&with(told(EVE)), Rule::Overheard, "eve was shown");
}

#[test]
fn a_message_to_one_person_that_he_is_not_shown_is_missed() {
    let direct = Shown { account: AccountId::new(100), ..line(9) };
    let room = ANN_AND_BOB;
    let (mid, key, level) = (direct.mid, Some(direct.key), Level::Stored);
    let ops = |rest: Vec<What>| {
        let mut ops = vec![
            did(BOB, Did::Opened { room, since: Hlc::default() }),
            did(ANN, Did::Sent { ticket: 9, room }),
            did(ANN, Did::Answered { ticket: 9, mid, key, level, server: 0 }),
        ];
        ops.extend(rest);
        ops.extend((0..3).map(|server| What::Final(server, room, vec![direct])));
        ops
    };
    only(&with(ops(vec![])), Rule::Missed, "bob had");
    let saw = || did(BOB, Did::Saw { room, line: direct, late: false });
    assert_eq!(check(&with(ops(vec![saw()]))), []);
    only(&with(ops(vec![saw(), saw()])), Rule::Duplicated, "bob was shown");
}

#[test]
fn what_was_stored_on_a_disk_that_was_lost_need_not_be_on_a_complete_page() {
    // Ann repeats what went with the disk, after Eve read.
    let said = |lost: usize| {
        let again = Shown { key: key_of(90, 2), account: AccountId::new(100), ..line(9) };
        let answer = |level, key, server| {
            let (mid, key) = (line(9).mid, Some(key));
            did(ANN, Did::Answered { ticket: 9, mid, key, level, server })
        };
        let all = [line(1), line(2), line(3)];
        let mut ops = vec![
            sent(ANN, 9),
            answer(Level::Stored, key_of(80, 1), 0),
            What::DiskLost(lost),
            complete(EVE, 5_000_000, &all),
            answer(Level::Replicated, key_of(90, 2), 1),
            saw(ANN, again),
            saw(BOB, again),
        ];
        let now: Vec<Shown> = all.into_iter().chain([again]).collect();
        ops.extend((0..3).map(|server| What::Final(server, ROOM, now.clone())));
        let mut history = with(ops);
        let from = super::good().len() + 4;
        history.ops[from..].iter_mut().for_each(|op| op.at = Time::from_micros(6_000_000));
        check(&history)
    };
    assert_eq!(said(0), []);
    assert!(said(2).iter().any(|found| found.rule == Rule::Incomplete), "that disk has it");
}

fn topic(value: &str, at: u64) -> What {
    let (subject, key) = (Subject::Topic(ROOM), key_of(at, 1));
    did(BOB, Did::Changed { subject, value: value.into(), key })
}

fn states(topics: [&str; 3]) -> Vec<What> {
    let state = |topic: &str| State { topic: topic.into(), ..State::default() };
    topics.iter().enumerate().map(|(n, topic)| What::State(n, ROOM, state(topic))).collect()
}

fn set(topics: [&str; 3], mut before: Vec<What>) -> History {
    before.extend(states(topics));
    with(before)
}

#[test]
fn what_was_set_last_is_what_it_is_in_the_end_on_all_servers() {
    let told = || vec![topic("new", 60), topic("old", 50)];
    let good = set(["new"; 3], told());
    assert_eq!(check(&good), []);
    assert_eq!(judged(&good, Rule::Shared), 1);
    only(&set(["old"; 3], told()), Rule::Shared, "the topic of lobby is \"old\" in the end");
    only(&set([""; 3], told()), Rule::Shared, "is \"\" in the end");
    only(&set(["new", "new", "old"], told()), Rule::Shared, "s3");
    // Nobody was told of a change that was asked for.
    let asks = || did(ANN, Did::Sets { subject: Subject::Topic(ROOM), value: "newer".into() });
    let asked = || [told(), vec![asks()]].concat();
    assert_eq!(check(&set(["newer"; 3], asked())), []);
    assert_eq!(check(&set(["new"; 3], asked())), []);
    let passed = || [asked(), vec![topic("newer", 55)]].concat();
    only(&set(["newer"; 3], passed()), Rule::Shared, "is \"newer\" in the end");
}

#[test]
fn what_was_set_on_a_disk_that_was_lost_may_be_gone_with_it() {
    let lost = |server: usize| vec![topic("old", 50), topic("new", 60), What::DiskLost(server)];
    assert_eq!(check(&set(["old"; 3], [lost(1), vec![topic("old", 50)]].concat())), []);
    only(&set(["old"; 3], lost(0)), Rule::Shared, "is \"old\" in the end");
}

#[test]
fn a_name_is_the_one_that_was_taken_last_and_members_are_alike() {
    let account = AccountId::new(100);
    let named = |value: &str, at| {
        let (subject, key) = (Subject::Nick(account), key_of(at, 1));
        did(BOB, Did::Changed { subject, value: value.into(), key })
    };
    let in_the_end = |nicks: [Option<&str>; 3]| {
        let state = |nick: &Option<&str>| State {
            members: nick.iter().map(|nick| (account, (*nick).to_owned())).collect(),
            ..State::default()
        };
        let states = nicks.iter().enumerate().map(|(n, nick)| What::State(n, ROOM, state(nick)));
        with([named("annie", 50), named("ann", 60)].into_iter().chain(states).collect())
    };
    assert_eq!(check(&in_the_end([Some("ann"); 3])), []);
    only(&in_the_end([Some("annie"); 3]), Rule::Shared, "\"annie\" in the end");
    only(&in_the_end([Some("ann"), Some("ann"), None]), Rule::Shared, "s3");
}

/// Eve is shown her own kick, which is in another log than what follows.
fn eves_kick() -> What {
    let (account, key) = (AccountId::new(102), key_of(25, 2));
    did(EVE, Did::Kicked { room: ROOM, account, key })
}

#[test]
fn who_was_shown_that_he_is_put_out_is_shown_nothing_more_of_any_log() {
    breaks(Rule::KickedHeard, "after that session was shown", 21, vec![eves_kick(), hears()]);
    super::keeps_all(21, vec![eves_kick(), opened(EVE, 26), hears()]);
    let before = vec![eves_kick(), opened(EVE, 24), hears()];
    breaks(Rule::KickedHeard, "after that session was shown", 21, before);
    // He joined at a place above the kick before it came.
    super::keeps_all(21, vec![join(102, 26), eves_kick(), hears()]);
    super::keeps_all(21, vec![opened(EVE, 26), eves_kick(), hears()]);
    let joins_later = vec![eves_kick(), hears(), join(102, 26), opened(EVE, 26)];
    breaks(Rule::KickedHeard, "after that session was shown", 21, joins_later);
}

#[test]
fn who_came_in_after_a_kick_hears_what_follows_it_though_he_learns_of_it_later() {
    // Ann hears of it at once, Eve's server is cut off: there she leaves and comes in again.
    let knows = || vec![kick(102, 25, 1), opened(EVE, 26)];
    let (account, key) = (AccountId::new(102), key_of(25, 1));
    let hears_of_it = did(EVE, Did::Kicked { room: ROOM, account, key });
    super::keeps_all(21, [knows(), vec![hears_of_it, hears()]].concat());
    let before = vec![opened(EVE, 24), kick(102, 25, 1), hears()];
    breaks(Rule::KickedHeard, "which follows in the same log", 21, before);
}

fn hears() -> What {
    saw(EVE, line(3))
}

#[test]
fn what_others_hear_meanwhile_is_what_a_kick_is_judged_by() {
    let here = |put_in| judged(&super::with(20, put_in), Rule::KickedHeard);
    assert_eq!(here(vec![]), 0);
    assert_eq!(here(vec![kick(102, 25, 1)]), 2, "Ann and Bob are shown a line after it");
    assert_eq!(here(vec![kick(102, 25, 2)]), 0, "it is in another log, and Eve was not shown it");
    assert_eq!(here(vec![eves_kick()]), 2);
    let back = vec![kick(102, 25, 1), opened(EVE, 26)];
    assert_eq!(here(back), 0);
}

#[test]
fn who_comes_in_again_is_shown_what_is_late_as_new() {
    // Bob is shown a line of a later millisecond, leaves, and comes in again before an older one comes.
    let found = |comes_in_again: Option<What>| {
        let newer = super::line_at(5, key_of(1001 << 16, 2));
        let (mid, key, level) = (newer.mid, Some(newer.key), Level::Replicated);
        let answer = did(ANN, Did::Answered { ticket: 5, mid, key, level, server: ANN });
        let mut put_in = vec![sent(ANN, 5), answer, saw(ANN, newer), saw(BOB, newer)];
        put_in.extend(comes_in_again);
        let mut history = super::with(21, put_in);
        let (at, all) = (Time::from_micros(99_000), [line(1), line(2), line(3), newer]);
        history.ops.extend(super::all_read(&all).into_iter().map(|what| Op { at, what }));
        check(&history)
    };
    let without = found(None);
    assert_eq!(without.len(), 1, "{without:?}");
    assert_eq!(without[0].rule, Rule::Unmarked);
    assert_eq!(found(Some(opened(BOB, 0))), []);
}

#[test]
fn what_is_not_said_in_rooms_is_written_too() {
    let subject = Subject::Topic(ROOM);
    let ops = vec![did(ANN, Did::Sets { subject, value: "tea".into() }), topic("tea", 50)];
    let text = with(ops.into_iter().chain(states(["tea"; 3])).collect()).to_string();
    assert!(text.contains("ann: sets the topic of lobby to \"tea\"\n"), "{text}");
    assert!(text.contains("bob: learns that the topic of lobby is \"tea\" since "), "{text}");
    assert!(text.contains("lobby on s3: topic \"tea\", with \n"), "{text}");
}

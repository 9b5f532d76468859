//! One hand-made bad history for each rule: a good one with operations put in that break it.

use std::collections::BTreeSet;
use std::time::Duration;

use chatty_core::id::{AccountId, Mid, Origin, RoomId};
use chatty_core::session::Level;
use chatty_core::time::{Hlc, Key, Time};

use super::{Did, History, Op, Quantiles, Rule, Shown, What, check, figures};

mod mixed;

const ROOM: RoomId = RoomId::new(7);
const ANN: usize = 0;
const BOB: usize = 1;
const EVE: usize = 2;

fn key_of(hlc: u64, origin: u128) -> Key {
    Key { hlc: Hlc::from_bits(hlc), origin: Origin::new(origin), seq: hlc }
}

/// The n-th message, of Ann if n is odd and of Bob if it is even; its place is n.
fn line(n: u64) -> Shown {
    line_at(n, key_of(n * 10, 1))
}

fn line_at(n: u64, key: Key) -> Shown {
    let account = AccountId::new(if n % 2 == 1 { 100 } else { 101 });
    Shown { account, mid: Mid::new(u128::from(n)), key, body: n }
}

fn did(session: usize, did: Did) -> What {
    What::Client(session, did)
}

fn attached(session: usize, server: usize) -> What {
    let account = AccountId::new(100 + session as u128);
    did(session, Did::Attached { account, server, stale: BTreeSet::new() })
}

fn sent(session: usize, n: u64) -> What {
    did(session, Did::Sent { ticket: n, room: ROOM })
}

fn answered(session: usize, n: u64, level: Level) -> What {
    let (mid, key) = (Mid::new(u128::from(n)), Some(line(n).key));
    did(session, Did::Answered { ticket: n, mid, key, level, server: session })
}

/// The room is opened when the server's clock says that.
fn opened(session: usize, clock: u64) -> What {
    did(session, Did::Opened { room: ROOM, since: Hlc::from_bits(clock) })
}

fn saw(session: usize, line: Shown) -> What {
    did(session, Did::Saw { room: ROOM, line, late: false })
}

/// A page asked for at that moment; there are older lines.
fn read(session: usize, asked: u64, lines: &[Shown]) -> What {
    let (asked, lines) = (Time::from_micros(asked), lines.to_vec());
    did(session, Did::Read { room: ROOM, asked, before: None, lines, more: true, complete: false })
}

/// The same, called complete.
fn complete(session: usize, asked: u64, lines: &[Shown]) -> What {
    let (asked, lines) = (Time::from_micros(asked), lines.to_vec());
    let (before, more) = (None, true);
    did(session, Did::Read { room: ROOM, asked, before, lines, more, complete: true })
}

fn all_read(lines: &[Shown]) -> Vec<What> {
    (0..3).map(|server| What::Final(server, ROOM, lines.to_vec())).collect()
}

/// Ann at s1, Bob at s2 and Eve at s3 talk; the operation with index n is at n · 1000 µs.
fn good() -> Vec<What> {
    let mut ops = vec![
        attached(ANN, 0),
        attached(BOB, 1),
        attached(EVE, 2),
        opened(ANN, 0),
        opened(BOB, 0),
        sent(ANN, 1),                               // 5
        answered(ANN, 1, Level::Stored),            // 6
        saw(ANN, line(1)),                          // 7
        saw(BOB, line(1)),                          // 8
        answered(ANN, 1, Level::Replicated),        // 9
        sent(BOB, 2),                               // 10
        answered(BOB, 2, Level::Replicated),        // 11
        read(BOB, 11_000, &[line(1), line(2)]),     // 12
        saw(BOB, line(2)),                          // 13
        saw(ANN, line(2)),                          // 14
        read(ANN, 15_000, &[line(1), line(2)]),     // 15
        What::Cut(vec![[0, 1].into(), [2].into()]), // 16
        sent(ANN, 3),                               // 17
        answered(ANN, 3, Level::Replicated),        // 18
        What::Healed,                               // 19
        saw(ANN, line(3)),                          // 20
        saw(BOB, line(3)),                          // 21
    ];
    ops.extend(all_read(&[line(1), line(2), line(3)]));
    ops
}

fn history(ops: Vec<What>) -> History {
    let at = |(n, what)| Op { at: Time::from_micros(n as u64 * 1000), what };
    History {
        servers: ["s1", "s2", "s3"].map(str::to_owned).into(),
        sessions: ["ann", "bob", "eve"].map(str::to_owned).into(),
        rooms: [(ROOM, "lobby".to_owned())].into(),
        directs: [].into(),
        unshown: [].into(),
        ops: ops.into_iter().enumerate().map(at).collect(),
    }
}

/// The good history with operations put in before the one with that index. What is put in takes
/// no time, so that everything else happens when it did.
fn with(index: usize, put_in: Vec<What>) -> History {
    let mut history = history(good());
    let at = history.ops.get(index).map_or(Time::from_micros(99_000), |op| op.at);
    let put_in = put_in.into_iter().map(|what| Op { at, what });
    history.ops.splice(index..index, put_in);
    history
}

/// These operations, and only because of them, break that rule and no other.
#[track_caller]
fn breaks(rule: Rule, words: &str, index: usize, put_in: Vec<What>) {
    assert_eq!(check(&history(good())), [], "without them all is well");
    let found = check(&with(index, put_in));
    assert!(!found.is_empty(), "nothing was found");
    for violation in &found {
        assert_eq!(violation.rule, rule, "{violation}");
        assert!(violation.to_string().contains(words), "{violation}");
    }
}

#[track_caller]
fn keeps_all(index: usize, put_in: Vec<What>) {
    assert_eq!(check(&with(index, put_in)), []);
}

const END: usize = 25;

#[test]
fn a_good_history_breaks_nothing() {
    assert_eq!(good().len(), END);
    assert_eq!(check(&history(good())), []);
}

#[test]
fn what_a_room_does_not_keep_is_not_missed() {
    let mut history = with(END, all_read(&[line(3)]));
    assert!(!check(&history).is_empty(), "two messages are gone");
    let floor = |ms| [(ROOM, ms)].into();
    history.forget_below(&floor(u64::MAX));
    assert_eq!(check(&history), [], "none is to be kept");
    let mut history = with(END, all_read(&[line(3)]));
    history.forget_below(&floor(0));
    assert_eq!(check(&history), [], "the ids of these are of the year 1970: below any floor");
}

#[test]
fn an_acknowledged_message_that_a_server_does_not_have_is_lost() {
    let both = |level| vec![sent(EVE, 9), answered(EVE, 9, level)];
    breaks(Rule::Lost, "acknowledged as replicated", 15, both(Level::Replicated));
    breaks(Rule::Lost, "is not on s1, s2, s3", 15, both(Level::Stored));
}

#[test]
fn what_was_only_stored_may_go_with_the_disk_and_nothing_else_may() {
    let lost = |level, server| vec![sent(EVE, 9), answered(EVE, 9, level), What::DiskLost(server)];
    keeps_all(15, lost(Level::Stored, EVE));
    breaks(Rule::Lost, "stored", 15, lost(Level::Stored, ANN));
    breaks(Rule::Lost, "replicated", 15, lost(Level::Replicated, EVE));
    let mut before = lost(Level::Stored, EVE);
    before.rotate_right(1);
    breaks(Rule::Lost, "stored", 15, before);
}

#[test]
fn an_acknowledged_event_that_only_its_senders_repetition_replaced_is_lost() {
    // Acknowledged at a place above where the message is in the end.
    let below = |level| {
        let (mid, key) = (line(3).mid, Some(key_of(25, 3)));
        did(ANN, Did::Answered { ticket: 3, mid, key, level, server: 0 })
    };
    breaks(Rule::Lost, "repetition is there", 18, vec![below(Level::Stored)]);
    breaks(Rule::Lost, "repetition is there", 18, vec![below(Level::Replicated)]);
    keeps_all(18, vec![below(Level::Stored), What::DiskLost(0)]);
    let found = figures(&with(18, vec![below(Level::Stored)]));
    assert_eq!((found.repaired, found.replicated_lost), (1, 0));
}

#[test]
fn a_message_shown_twice_to_a_session_is_duplicated() {
    breaks(Rule::Duplicated, "ann was shown", 21, vec![saw(ANN, line(1))]);
    let alias = line_at(1, key_of(11, 2));
    breaks(Rule::Duplicated, "ann was shown", 21, vec![saw(ANN, alias)]);
}

#[test]
fn a_message_twice_on_a_page_or_in_a_timeline_is_duplicated() {
    let alias = line_at(1, key_of(15, 2));
    breaks(Rule::Duplicated, "a page with", 21, vec![read(EVE, 0, &[line(1), alias])]);
    let doubled = all_read(&[line(1), alias, line(2), line(3)]);
    breaks(Rule::Duplicated, "stands twice in lobby on s", END, doubled);
}

#[test]
fn a_line_that_was_shown_and_is_not_there_is_a_dirty_read() {
    breaks(Rule::DirtyRead, "eve was shown", 21, vec![saw(EVE, line(8))]);
    breaks(Rule::DirtyRead, "by s3", 21, vec![read(EVE, 0, &[line(8)])]);
    keeps_all(21, vec![saw(EVE, line(8)), What::DiskLost(2)]);
}

#[test]
fn a_line_that_moves_down_the_timeline_is_out_of_order() {
    let earlier = line_at(3, key_of(5, 2));
    breaks(Rule::Reordered, "eve saw", 21, vec![saw(EVE, earlier)]);
    let same_log = line_at(3, key_of(35, 1));
    breaks(Rule::Reordered, "the same log", 21, vec![saw(EVE, same_log)]);
}

#[test]
fn a_line_of_a_lost_disk_stands_where_its_sender_repeated_it() {
    let earlier = || saw(EVE, line_at(3, key_of(5, 2)));
    keeps_all(21, vec![earlier(), What::DiskLost(2)]);
    breaks(Rule::Reordered, "eve saw", 21, vec![What::DiskLost(2), earlier()]);
}

#[test]
fn a_line_may_move_up_to_another_event_of_its_id() {
    keeps_all(21, vec![saw(EVE, line_at(3, key_of(35, 2)))]);
}

#[test]
fn two_lines_in_one_place_are_out_of_order() {
    let squeezed = line_at(2, line(3).key);
    let both = vec![saw(EVE, line(3)), saw(EVE, Shown { key: line(3).key, ..squeezed })];
    let found = check(&with(21, both));
    assert!(found.iter().all(|v| v.rule == Rule::Reordered), "{found:?}");
    assert!(found.iter().any(|v| v.what.contains("the same place")), "{found:?}");
}

#[test]
fn a_final_timeline_that_does_not_rise_is_out_of_order() {
    let swapped = all_read(&[line(2), line(1), line(3)]);
    breaks(Rule::Reordered, "does not rise", END, swapped);
}

#[test]
fn a_page_without_what_was_answered_before_does_not_read_its_writes() {
    breaks(Rule::ReadYourWrites, "bob asked", 12, vec![read(BOB, 11_500, &[line(1)])]);
    // Asked before the answer, or of a part of the timeline that ends before.
    keeps_all(12, vec![read(BOB, 10_500, &[line(1)])]);
    let (asked, before) = (Time::from_micros(11_500), Some(line(2).key));
    let lines = vec![line(1)];
    let older = Did::Read { room: ROOM, asked, before, lines, more: true, complete: false };
    keeps_all(12, vec![did(BOB, older)]);
}

#[test]
fn a_page_without_what_was_seen_before_is_no_monotonic_read() {
    breaks(Rule::MonotonicReads, "ann asked", 16, vec![read(ANN, 16_000, &[line(1)])]);
    keeps_all(16, vec![read(ANN, 13_500, &[line(1)])]);
}

#[test]
fn a_page_that_is_called_complete_has_what_others_were_answered_before() {
    let (late, asked) = (END, 3_022_000);
    // Eve knows of nothing; the last message is answered at 18.
    breaks(Rule::Incomplete, "eve asked", late, vec![complete(EVE, asked, &[line(1), line(2)])]);
    keeps_all(late, vec![read(EVE, asked, &[line(1), line(2)])]);
    keeps_all(late, vec![complete(EVE, 3_017_000, &[line(1), line(2)])]);
    keeps_all(late, vec![complete(EVE, asked, &[line(1), line(2), line(3)])]);
    // There was more than the page had room for.
    keeps_all(late, vec![complete(EVE, asked, &[line(2), line(3)])]);
    breaks(Rule::Incomplete, "eve asked", late, vec![complete(EVE, asked, &[line(1), line(3)])]);
}

#[test]
fn a_line_shown_below_a_newer_one_without_a_mark_is_not_marked_late() {
    // Before Bob is shown the third message, of millisecond 0, he is shown one of this millisecond.
    let found = |ms: u64, late: bool| {
        let newer = line_at(5, key_of(ms << 16, 2));
        let (mid, key, level) = (newer.mid, Some(newer.key), Level::Replicated);
        let answered = Did::Answered { ticket: 5, mid, key, level, server: ANN };
        let put_in = vec![sent(ANN, 5), did(ANN, answered), saw(ANN, newer), saw(BOB, newer)];
        let mut history = with(21, put_in);
        history.ops[25].what = did(BOB, Did::Saw { room: ROOM, line: line(3), late });
        let (at, all) = (Time::from_micros(99_000), [line(1), line(2), line(3), newer]);
        history.ops.extend(all_read(&all).into_iter().map(|what| Op { at, what }));
        check(&history)
    };
    assert_eq!(found(1000, false), []);
    assert_eq!(found(1001, true), []);
    let broken = found(1001, false);
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert_eq!(broken[0].rule, Rule::Unmarked);
    assert!(broken[0].what.contains("bob was shown"), "{}", broken[0]);
}

#[test]
fn a_server_that_said_stale_may_lack_what_it_named() {
    let account = AccountId::new(100);
    let moved = |origin| {
        let stale = [Origin::new(origin)].into();
        vec![did(ANN, Did::Attached { account, server: 2, stale }), read(ANN, 16_000, &[line(1)])]
    };
    keeps_all(16, moved(1));
    breaks(Rule::MonotonicReads, "ann asked", 16, moved(2));
}

#[test]
fn a_message_above_what_its_writer_had_seen_does_not_follow_its_reads() {
    let reads = |lines: &[Shown]| vec![read(ANN, 16_500, lines)];
    let fourth = Shown { account: AccountId::new(102), ..line(4) };
    let below = eve_said_and_then(Level::Stored, vec![], reads(&[line(1), line(2)]));
    assert_eq!(check(&below), []);
    let above = eve_said_and_then(Level::Stored, vec![], reads(&[line(1), line(2), fourth]));
    let found = check(&above);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].rule, Rule::WritesFollowReads);
    assert!(found[0].what.contains("ann said message 3"), "{}", found[0]);
}

#[test]
fn what_the_attach_called_stale_need_not_be_followed() {
    let fourth = Shown { account: AccountId::new(102), ..line(4) };
    let moves = |lacks: u128| {
        let stale = BTreeSet::from([Origin::new(lacks)]);
        let moved = Did::Attached { account: AccountId::new(100), server: 1, stale };
        let after = vec![read(ANN, 16_500, &[line(1), line(2), fourth]), did(ANN, moved)];
        check(&eve_said_and_then(Level::Stored, vec![], after))
    };
    assert_eq!(moves(1), [], "the log of what it read is stale");
    assert_eq!(moves(2).len(), 1, "another log is");
}

/// The good history, in which Eve says a fourth message during the cut, with more put in before it.
fn eve_said(level: Level, put_in: Vec<What>) -> History {
    eve_said_and_then(level, put_in, vec![])
}

/// The same, with more put in after it.
fn eve_said_and_then(level: Level, before: Vec<What>, after: Vec<What>) -> History {
    let fourth = Shown { account: AccountId::new(102), ..line(4) };
    let mut said = before;
    said.extend([sent(EVE, 4), answered(EVE, 4, level)]);
    said.extend(after);
    let mut history = with(17, said);
    let rest = [saw(ANN, fourth), saw(BOB, fourth)].into_iter();
    let rest = rest.chain(all_read(&[line(1), line(2), line(3), fourth]));
    history.ops.extend(rest.map(|what| Op { at: Time::from_micros(99_000), what }));
    history
}

#[test]
fn replicated_is_not_said_in_a_minority() {
    assert_eq!(check(&eve_said(Level::Stored, vec![])), []);
    let found = check(&eve_said(Level::Replicated, vec![]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].rule, Rule::MinorityReplicated);
    assert!(found[0].what.contains("by s3"), "{}", found[0]);
    // The heal came first.
    assert_eq!(check(&eve_said(Level::Replicated, vec![What::Healed])), []);
}

#[test]
fn timelines_that_are_not_the_same_on_all_servers_diverge() {
    let other = Shown { body: 99, ..line(2) };
    let put_in = vec![What::Final(2, ROOM, vec![line(1), other, line(3)])];
    breaks(Rule::Diverged, "the first difference is line 2", END, put_in);
}

#[test]
fn a_line_shown_with_another_content_diverges() {
    let other = Shown { body: 99, ..line(2) };
    breaks(Rule::Diverged, "another content", 21, vec![saw(EVE, other)]);
}

#[test]
fn who_was_told_that_he_is_out_is_shown_nothing_more() {
    let out = vec![did(EVE, Did::Closed(ROOM)), saw(EVE, line(3))];
    breaks(Rule::KickedHeard, "eve was shown", 21, out);
    let back = vec![did(EVE, Did::Closed(ROOM)), opened(EVE, 0), saw(EVE, line(3))];
    keeps_all(21, back);
}

/// Ann learns of a kick, whose place is `at` in that origin's log.
fn kick(account: u128, at: u64, origin: u128) -> What {
    let (account, key) = (AccountId::new(account), key_of(at, origin));
    did(ANN, Did::Kicked { room: ROOM, account, key })
}

fn join(account: u128, at: u64) -> What {
    let (account, key) = (AccountId::new(account), key_of(at, 1));
    did(EVE, Did::Joined { room: ROOM, account, key })
}

#[test]
fn who_was_kicked_hears_nothing_that_follows_in_the_same_log() {
    let hears = || saw(EVE, line(3));
    keeps_all(21, vec![hears()]);
    breaks(Rule::KickedHeard, "eve was shown", 21, vec![kick(102, 25, 1), hears()]);
    breaks(Rule::KickedHeard, "eve was shown", 21, vec![join(102, 24), kick(102, 25, 1), hears()]);
    // Another server's log, or back in.
    keeps_all(21, vec![kick(102, 25, 2), hears()]);
    keeps_all(21, vec![kick(102, 25, 1), join(102, 26), hears()]);
}

#[test]
fn who_was_kicked_says_nothing_that_follows_in_the_same_log() {
    let found = check(&eve_said(Level::Stored, vec![kick(102, 35, 1)]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].rule, Rule::KickedHeard);
    assert!(found[0].what.contains("was taken from him"), "{}", found[0]);
    let before = eve_said_and_then(Level::Stored, vec![], vec![kick(102, 35, 1)]);
    assert_eq!(check(&before), [], "said before anybody knew of the kick");
    assert_eq!(check(&eve_said(Level::Stored, vec![kick(102, 35, 2)])), []);
    assert_eq!(check(&eve_said(Level::Stored, vec![kick(102, 35, 1), join(102, 36)])), []);
}

#[test]
fn a_line_not_shown_to_who_had_the_room_open_from_the_beginning_is_missed() {
    breaks(Rule::Missed, "eve had lobby open", 4, vec![opened(EVE, 0)]);
    // Opened later, or not there to the end.
    keeps_all(6, vec![opened(EVE, 0)]);
    keeps_all(4, vec![opened(EVE, 0), did(EVE, Did::Ended)]);
}

#[test]
fn a_message_that_nobody_said_is_invented() {
    let nobodys = Shown { account: AccountId::new(109), ..line(4) };
    let found = all_read(&[line(1), line(2), line(3), nobodys]);
    let seen = vec![saw(ANN, nobodys), saw(BOB, nobodys)];
    let put_in: Vec<_> = seen.into_iter().chain(found).collect();
    breaks(Rule::Invented, "nobody said it", END, put_in);
}

#[test]
fn a_message_without_an_answer_may_be_there_and_a_refused_one_may_not() {
    let fourth = Shown { account: AccountId::new(102), ..line(4) };
    let there = |mut before: Vec<What>| {
        before.extend([saw(ANN, fourth), saw(BOB, fourth)]);
        before.extend(all_read(&[line(1), line(2), line(3), fourth]));
        before
    };
    keeps_all(END, there(vec![sent(EVE, 4)]));
    let refused = did(EVE, Did::Refused { ticket: 4, why: "too long".into() });
    breaks(Rule::Invented, "refused", END, there(vec![sent(EVE, 4), refused]));
}

#[test]
fn a_room_that_was_not_read_from_every_server_proves_nothing() {
    let other = RoomId::new(8);
    let spoken = did(EVE, Did::Sent { ticket: 9, room: other });
    breaks(Rule::Unread, "s1, s2, s3", 21, vec![spoken]);
    breaks(Rule::Unread, "s2, s3", 21, vec![What::Final(0, other, vec![])]);
}

#[test]
fn every_rule_is_tested_here_by_name() {
    let these = [include_str!("tests.rs"), include_str!("tests/mixed.rs")].concat();
    for rule in Rule::ALL {
        assert!(these.contains(&format!("Rule::{rule:?}")), "{rule:?}");
    }
}

#[test]
fn figures_count_what_happened() {
    let found = figures(&eve_said(Level::Stored, vec![]));
    assert_eq!((found.sent, found.replicated, found.stored_only), (4, 3, 1));
    assert_eq!((found.refused, found.unknown, found.pages), (0, 0, 2));
    assert_eq!((found.replicated_lost, found.stored_lost), (0, 0));
    assert_eq!(found.shown, 8);
    let lost = figures(&with(15, vec![sent(EVE, 9), answered(EVE, 9, Level::Stored)]));
    assert_eq!((lost.replicated_lost, lost.stored_lost), (0, 1));
}

#[test]
fn figures_tell_the_longest_wait_and_the_longest_silence() {
    let found = figures(&history(good()));
    let ms = Duration::from_millis;
    assert_eq!(found.answered.max, ms(1));
    assert_eq!(found.until_replicated, Quantiles { count: 3, p50: ms(1), p99: ms(4), max: ms(4) });
    // Bob hears nothing from 13 to 21, and the last message is said at 17.
    assert_eq!(found.stalls[&BOB].silence, ms(8));
    assert_eq!(found.stalls[&BOB].answer, ms(1));
    let waits = figures(&with(15, vec![sent(EVE, 9)]));
    assert_eq!(waits.stalls[&EVE].answer, ms(9), "unanswered until the end");
}

#[test]
fn a_history_is_written_a_line_for_each_operation() {
    let text = history(good()).to_string();
    assert!(text.contains("0.005000 s ann: sends 1 to lobby\n"), "{text}");
    assert!(text.contains("0.016000 s cut: s1 s2 | s3\n"), "{text}");
    let lines_of_finals = 9;
    assert_eq!(text.lines().count(), good().len() + lines_of_finals);
}

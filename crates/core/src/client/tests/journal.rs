//! What outlives a client.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::client::{Journal, Note};

fn keeping(journal: Journal) -> Client {
    Client::new(Config { journal: Some(journal), ..config() }, 1)
}

/// Attached to s1; what comes of that is left to be polled.
fn attach(client: &mut Client) -> Conn {
    client.handle_timeout(at(0));
    let (conn, _) = dialed(client);
    accept(client, 0, conn, welcome("s1"));
    conn
}

/// The notes handed over, with their batches, and the messages that left.
fn left(client: &mut Client) -> (Vec<(u64, Vec<Note>)>, Vec<Send>) {
    let (mut notes, mut sends) = (Vec::new(), Vec::new());
    for output in drain(client) {
        match output {
            Output::Keep(batch, noted) => notes.push((batch, noted)),
            Output::Request(_, Request::Send(send)) => sends.push(send),
            _ => {}
        }
    }
    (notes, sends)
}

fn lobby(text: &str) -> (Target, String) {
    (Target::Room("lobby".into()), text.to_owned())
}

#[test]
fn no_message_leaves_before_its_words_and_its_id_are_kept() {
    let mut client = keeping(Journal::default());
    attach(&mut client);
    let (notes, _) = left(&mut client);
    assert_eq!(notes, [(1, vec![Note::Account(ME)])]);

    say(&mut client, 5, "hello");
    let (notes, sends) = left(&mut client);
    assert_eq!(sends, [], "not on disk yet");
    let [(2, noted)] = notes.as_slice() else { panic!("{notes:?}") };
    let (to, text) = lobby("hello");
    let [said, Note::Named { nth: 1, mid }] = noted.as_slice() else { panic!("{noted:?}") };
    assert_eq!(*said, Note::Said { nth: 1, to, text, level: Level::Stored });

    client.handle(at(2), Input::Kept(1));
    assert_eq!(left(&mut client).1, [], "another batch");
    client.handle(at(3), Input::Kept(2));
    let outputs = drain(&mut client);
    assert!(outputs.contains(&Output::Emit(ClientEvent::Kept(vec![Ticket(5)]))), "{outputs:?}");
    let sent = outputs.iter().find_map(|output| match output {
        Output::Request(_, Request::Send(send)) => Some(send.mid),
        _ => None,
    });
    assert_eq!(sent, Some(*mid));
}

#[test]
fn what_was_handed_over_is_told_as_kept_also_after_the_end() {
    let mut client = keeping(Journal::default());
    let conn = attach(&mut client);
    say(&mut client, 5, "hello");
    drain(&mut client);
    client.handle(at(2), Input::Item(conn, refuse(RequestId(0), Code::BadToken)));
    assert!(client.is_ended());
    drain(&mut client);
    client.handle(at(3), Input::Kept(2));
    assert_eq!(drain(&mut client), [Output::Emit(ClientEvent::Kept(vec![Ticket(5)]))]);
}

#[test]
fn a_message_is_struck_out_once_it_is_replicated_and_not_before() {
    let mut client = keeping(Journal::default());
    let conn = attach(&mut client);
    say(&mut client, 5, "hello");
    client.handle(at(2), Input::Kept(2));
    let send = left(&mut client).1.pop().unwrap();
    client.handle(at(3), Input::Item(conn, sent(&send, Level::Stored)));
    assert_eq!(left(&mut client).0, []);
    let mids = vec![(send.mid, 2)];
    client.handle(at(4), Input::Item(conn, Item::Replicated(Replicated { mids })));
    assert_eq!(left(&mut client).0, [(3, vec![Note::Done { nth: 1 }])]);
}

#[test]
fn what_an_earlier_client_left_is_sent_first_and_under_its_ids() {
    let (first, second) = (Mid::at(CLOCK_MS - 90, 1), Mid::at(CLOCK_MS - 80, 2));
    let said = |nth, text| {
        let (to, text) = lobby(text);
        Note::Said { nth, to, text, level: Level::Replicated }
    };
    let notes = [
        Note::Account(ME),
        said(1, "one"),
        said(2, "two"),
        said(4, "four"),
        Note::Named { nth: 1, mid: first },
        Note::Named { nth: 2, mid: second },
        Note::Done { nth: 1 },
    ];
    let mut client = keeping(notes.into_iter().collect());
    say(&mut client, 5, "five");
    let conn = attach(&mut client);
    let (notes, sends) = left(&mut client);
    assert_eq!(
        sends.iter().map(|s| (s.mid, s.text.as_str())).collect::<Vec<_>>(),
        [(second, "two")]
    );
    let (batch, noted) = notes.last().unwrap();
    assert!(noted.iter().any(|note| matches!(note, Note::Named { nth: 4, .. })), "{noted:?}");
    client.handle(at(2), Input::Kept(*batch));
    let rest = left(&mut client).1;
    let texts: Vec<_> = rest.iter().map(|send| send.text.as_str()).collect();
    assert_eq!(texts, ["four", "five"]);
    assert!(second < rest[0].mid && rest[0].mid < rest[1].mid);

    client.handle(at(3), Input::Item(conn, sent(&sends[0], Level::Stored)));
    let ticket = events(&mut client).into_iter().find_map(|event| match event {
        ClientEvent::Message(state) => Some(state.ticket),
        _ => None,
    });
    assert_eq!(ticket, Some(Ticket::restored(2)));
    assert!(ticket.is_some_and(Ticket::is_restored) && !Ticket(5).is_restored());
}

#[test]
fn what_another_account_left_is_never_sent() {
    let (to, text) = lobby("secret");
    let said = Note::Said { nth: 1, to, text, level: Level::Replicated };
    let notes = [Note::Account(AccountId::new(8)), said];
    let mut client = keeping(notes.into_iter().collect());
    attach(&mut client);
    let outputs = drain(&mut client);
    let ended = |output: &Output| matches!(output, Output::Emit(ClientEvent::Ended(Some(_))));
    assert!(outputs.iter().any(ended), "{outputs:?}");
    assert!(!outputs.iter().any(|output| matches!(output, Output::Request(_, Request::Send(_)))));
    assert!(
        !outputs.iter().any(|output| matches!(output, Output::Keep(..))),
        "nothing is struck out"
    );
}

#[test]
fn without_a_disk_messages_go_all_the_same() {
    let mut client = keeping(Journal::default());
    attach(&mut client);
    say(&mut client, 5, "hello");
    assert_eq!(left(&mut client).1, []);
    client.handle(at(2), Input::Unkept("no space".into()));
    let (notes, sends) = left(&mut client);
    assert_eq!((notes.len(), sends.len()), (0, 1));
    say(&mut client, 6, "hello again");
    let (notes, sends) = left(&mut client);
    assert_eq!((notes.len(), sends.len()), (0, 1));
}

/// Servers that take a message or not, answer or not; a client that crashes at any moment and
/// begins again with the notes that were on disk then. Each message that was ever reported as kept
/// is taken under exactly one id.
#[test]
fn whatever_crashes_a_kept_message_is_taken_under_one_id() {
    let (mut crashes, mut resent) = (0, 0);
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut disk: Vec<Vec<Note>> = Vec::new();
        let mut taken: BTreeMap<String, BTreeSet<Mid>> = BTreeMap::new();
        let mut safe: BTreeSet<String> = BTreeSet::new();
        let (mut said, mut now) = (0, 0);
        let restart = |disk: &[Vec<Note>]| keeping(disk.iter().flatten().cloned().collect());
        let mut client = restart(&disk);
        let mut writing: VecDeque<(u64, Vec<Note>)> = VecDeque::new();
        let mut wire: VecDeque<(Conn, Send)> = VecDeque::new();
        let mut texts: BTreeMap<Ticket, String> = BTreeMap::new();
        // While nobody answers, what is said gets no id: that is noted later, by itself.
        let mut dialled = None;
        for step in 0..400 {
            now += rng.below(40);
            let quiet = step >= 300;
            if let Some(conn) = dialled.take_if(|_| quiet || rng.below(6) == 0) {
                accept(&mut client, now, conn, welcome("s1"));
            }
            match rng.below(if quiet { 4 } else { 8 }) {
                0 => client.handle_timeout(at(now)),
                1 => {
                    if let Some((batch, notes)) = writing.pop_front() {
                        disk.push(notes);
                        client.handle(at(now), Input::Kept(batch));
                    }
                }
                2 | 3 => {
                    if let Some((conn, send)) = wire.pop_front() {
                        taken.entry(send.text.clone()).or_default().insert(send.mid);
                        if quiet || rng.below(3) > 0 {
                            client
                                .handle(at(now), Input::Item(conn, sent(&send, Level::Replicated)));
                        }
                    }
                }
                4 | 5 => {
                    said += 1;
                    let (to, text) = lobby(&format!("text {said}"));
                    texts.insert(Ticket(said), text.clone());
                    let (ticket, level) = (Ticket(said), Level::Replicated);
                    let send = Command::Send { ticket, to, text, level };
                    client.handle(at(now), Input::Command(send));
                }
                6 => {
                    let conn = Conn(client.last_conn);
                    wire.clear();
                    client.handle(at(now), Input::Disconnected(conn, "cut".into()));
                }
                _ if rng.below(4) == 0 => {
                    crashes += 1;
                    // What is being written may be on disk already.
                    if let Some((_, notes)) = writing.pop_front().filter(|_| rng.below(2) == 0) {
                        disk.push(notes);
                    }
                    writing.clear();
                    wire.clear();
                    dialled = None;
                    client = restart(&disk);
                    now = 0;
                }
                _ => {}
            }
            while let Some(output) = client.poll_output() {
                match output {
                    Output::Dial(conn, _) => dialled = Some(conn),
                    Output::Request(conn, Request::Send(send)) => wire.push_back((conn, send)),
                    Output::Keep(batch, notes) => writing.push_back((batch, notes)),
                    Output::Emit(ClientEvent::Kept(tickets)) => {
                        safe.extend(tickets.iter().filter_map(|t| texts.get(t).cloned()));
                    }
                    Output::Emit(ClientEvent::Message(state)) => {
                        resent += u64::from(state.ticket.is_restored());
                    }
                    Output::Request(..) | Output::Hangup(_) | Output::Emit(_) => {}
                }
            }
        }
        // Everything is written and answered; a last client sends what an answer lost.
        for round in 0..2000 {
            now += 50;
            if round == 0 {
                client.handle(at(now), Input::Disconnected(Conn(client.last_conn), "cut".into()));
                wire.clear();
            }
            client.handle_timeout(at(now));
            if let Some(conn) = dialled.take() {
                accept(&mut client, now, conn, welcome("s1"));
            }
            if let Some((batch, notes)) = writing.pop_front() {
                disk.push(notes);
                client.handle(at(now), Input::Kept(batch));
            }
            if let Some((conn, send)) = wire.pop_front() {
                taken.entry(send.text.clone()).or_default().insert(send.mid);
                client.handle(at(now), Input::Item(conn, sent(&send, Level::Replicated)));
            }
            while let Some(output) = client.poll_output() {
                match output {
                    Output::Dial(conn, _) => accept(&mut client, now, conn, welcome("s1")),
                    Output::Request(conn, Request::Send(send)) => wire.push_back((conn, send)),
                    Output::Keep(batch, notes) => writing.push_back((batch, notes)),
                    Output::Emit(ClientEvent::Kept(tickets)) => {
                        safe.extend(tickets.iter().filter_map(|t| texts.get(t).cloned()));
                    }
                    _ => {}
                }
            }
            if client.outbox.len() == 0 && writing.is_empty() && wire.is_empty() {
                break;
            }
        }
        assert_eq!(client.outbox.len(), 0, "seed {seed}");
        for text in &safe {
            let mids = taken.get(text).map_or(0, BTreeSet::len);
            assert_eq!(mids, 1, "seed {seed}: {text:?} was taken under {mids} ids");
        }
        assert!(taken.values().all(|mids| mids.len() == 1), "seed {seed}: {taken:?}");
    }
    assert!(crashes > 100 && resent > 100, "{crashes} crashes, {resent} sent again");
}

#[test]
fn notes_that_number_a_message_as_no_client_does_are_none() {
    for (nth, sound) in [(1 << 48, true), ((1 << 48) + 1, false), (u64::MAX, false)] {
        let (to, text) = lobby("one");
        let notes = vec![Note::Said { nth, to, text, level: Level::Stored }];
        let read = Note::decode(&Note::encode(&notes));
        assert_eq!(read.is_some(), sound, "{nth}");
        let mut client = keeping(read.into_iter().flatten().collect());
        say(&mut client, 5, "two");
        attach(&mut client);
    }
}

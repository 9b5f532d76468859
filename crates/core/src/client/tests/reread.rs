//! Reading rooms again after gaps: how far, and what the cursor waits for.

use super::*;

const ROOM: &str = "lobby";

fn gap_in(room: RoomId, with: Option<AccountId>, since: Key) -> Item {
    Item::Gap(Gap { room, since, with })
}

/// The page that is asked for now.
fn asked(client: &mut Client) -> Option<RequestId> {
    requests(client).into_iter().find_map(|request| match request {
        Request::History(history) => Some(history.request),
        _ => None,
    })
}

fn page(request: RequestId, lines: Vec<Line>, more: bool) -> Item {
    Item::Page(Page { request, lines, more, complete: true, unreachable: vec![] })
}

/// A client with the lobby open and a gap in it since the `since`-th line of run 1.
fn gapped(since: u64) -> (Client, Conn) {
    let (mut client, conn) = attached();
    open_lobby(&mut client, conn, vec![]);
    let gap = gap_in(RoomId::public(ROOM), None, line(1, since, since, "").key());
    client.handle(at(3), Input::Item(conn, gap));
    (client, conn)
}

/// Pages of one line each, from line `from` down, until no more are asked for: how many there
/// were, and whether the client said that more was missed.
fn pages_from(from: u64, since: u64, more: impl Fn(u64) -> bool) -> (u64, bool) {
    let (mut client, conn) = gapped(since);
    let mut request = asked(&mut client).expect("the room is read again");
    for nth in 1.. {
        let lines = vec![line(1, from - nth, from - nth, "x")];
        client.handle(at(4), Input::Item(conn, page(request, lines, more(nth))));
        let outputs = drain(&mut client);
        let next = outputs.iter().find_map(|output| match output {
            Output::Request(_, Request::History(history)) => Some(history.request),
            _ => None,
        });
        let Some(next) = next else {
            let notice = |output: &Output| matches!(output, Output::Emit(ClientEvent::Notice(_)));
            return (nth, outputs.iter().any(notice));
        };
        request = next;
    }
    unreachable!("pages without end")
}

#[test]
fn a_gap_is_read_back_to_where_it_began_and_a_hundred_pages_at_most() {
    assert_eq!(pages_from(1000, 990, |_| true), (10, false), "met");
    assert_eq!(pages_from(1000, 1, |nth| nth < 5), (5, false), "the room has no more");
    assert_eq!(pages_from(1000, 1, |_| true), (100, true), "more is missing than that");
    assert_eq!(pages_from(1000, 900, |_| true), (100, false), "met with the last");
    assert_eq!(pages_from(1000, 1, |nth| nth < 100), (100, false), "no more after the last");
}

#[test]
fn the_cursor_waits_for_every_room_that_is_read_again() {
    let (mut client, conn) = gapped(1);
    let first = asked(&mut client).expect("the room is read again");
    let bob = AccountId::new(8);
    let gap = gap_in(RoomId::direct(ME, bob), Some(bob), Key::MIN);
    client.handle(at(3), Input::Item(conn, gap));
    let second = asked(&mut client).expect("and the conversation");
    client.handle(at(4), Input::Item(conn, token(&[(1, 9)])));
    client.handle(at(5), Input::Item(conn, page(first, vec![], false)));
    assert_eq!(client.cursor().len(), 0, "lines of the other may be missing still");
    client.handle(at(6), Input::Item(conn, page(second, vec![], false)));
    assert_eq!(client.cursor().upto(Log::of(Origin::new(1))), 9);
}

#[test]
fn a_room_read_again_without_a_token_meanwhile_proves_no_more_than_before() {
    let (mut client, conn) = gapped(1);
    let request = asked(&mut client).expect("the room is read again");
    client.handle(at(5), Input::Item(conn, page(request, vec![], false)));
    client.handle(at(6), Input::Item(conn, shown(&line(1, 9, 9, "replayed"))));
    assert_eq!(client.cursor().len(), 0, "only a token ends the replay");
}

#[test]
fn a_room_that_is_closed_is_read_no_more_and_the_cursor_goes_on() {
    let (mut client, conn) = gapped(1);
    let request = asked(&mut client).expect("the room is read again");
    client.handle(at(4), Input::Item(conn, token(&[(1, 9)])));
    let room = RoomId::public(ROOM);
    let closed = RoomClosed { room, name: ROOM.into(), why: ClosedWhy::Left };
    client.handle(at(5), Input::Item(conn, Item::RoomClosed(closed)));
    assert_eq!(client.cursor().upto(Log::of(Origin::new(1))), 9);
    drain(&mut client);
    let lines = vec![line(1, 5, 5, "x")];
    client.handle(at(6), Input::Item(conn, page(request, lines, true)));
    assert_eq!(drain(&mut client), []);
}

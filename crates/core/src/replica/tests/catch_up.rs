//! What the log and the state say of a server that catches up.

use super::*;
use crate::event::CHAIN_START;
use crate::frame::Range;

/// What `s2` made, and how far it was sent.
struct Source {
    log: Log,
    sent: u64,
    chain: u64,
}

impl Source {
    const fn new() -> Self {
        Self { log: Log::of(Origin::at(0, 9)), sent: 0, chain: CHAIN_START }
    }

    fn holds(&self, upto: u64) -> Frame {
        let have = Have { log: self.log, upto, chain: 0 };
        Frame::Have(Haves { haves: vec![have] })
    }

    /// The next so many events.
    fn next(&mut self, count: u64) -> Frame {
        let base = self.sent + 1;
        self.sent += count;
        let body = Body::from(Topic { nick: "ann".into(), text: "x".repeat(914) });
        let event = |seq| {
            Arc::new(Event {
                seq,
                hlc: Hlc::default(),
                wall_ms: 0,
                room: RoomId::new(7),
                actor: AccountId::new(8),
                mid: Mid::new(9),
                kind: body.kind(),
                body: body.encode(),
            })
        };
        let events: Vec<Arc<Event>> = (base..=self.sent).map(event).collect();
        self.chain = events.iter().fold(self.chain, |chain, event| event.chain(chain));
        Frame::Range(Range { log: self.log, base, events, chain: self.chain, done: true })
    }
}

fn about(outputs: &[Output]) -> Vec<String> {
    let all = logged(outputs).into_iter().map(|(_, what)| what.to_string());
    all.filter(|what| what.contains("caught up") || what.contains("catch")).collect()
}

/// What is said at that moment about catching up.
fn told(replica: &mut Replica, ms: u64) -> Vec<String> {
    replica.handle_timeout(at(ms));
    about(&outputs(replica))
}

/// Takes events in and makes them durable; gives what is said about catching up.
fn take(replica: &mut Replica, frame: Frame, ms: u64) -> Vec<String> {
    replica.handle(at(ms), Input::Frame(LINK, frame));
    let all = outputs(replica);
    let mut said = about(&all);
    let (token, batch) = persist(&all).expect("it is written");
    said.extend(written(replica, token, &batch, ms));
    said
}

/// A write is done.
fn written(replica: &mut Replica, token: PersistToken, batch: &Batch, ms: u64) -> Vec<String> {
    let outcomes = vec![Outcome::NoMessage; batch.entries.len()];
    let done = Committed { outcomes, ..Committed::default() };
    replica.handle(at(ms), Input::Persisted(token, done));
    told(replica, ms)
}

const BEGUN: &str = "catching up: 20000 events behind; clients are sent to other servers meanwhile";

#[test]
fn a_server_far_behind_tells_its_progress_by_what_is_on_its_disk() {
    let (mut replica, mut source) = (linked(), Source::new());
    outputs(&mut replica);
    replica.handle(at(1000), Input::Frame(LINK, source.holds(20_000)));
    assert_eq!(told(&mut replica, 1000), [BEGUN]);

    // What has come and is on no disk yet counts for nothing, neither for the state.
    replica.handle(at(2000), Input::Frame(LINK, source.next(19_000)));
    assert_eq!((replica.broadcast.lag(), replica.broadcast.missing()), (20_000, 1000));
    assert_eq!(replica.state(), ServerState::CatchingUp);
    let (token, batch) = persist(&outputs(&mut replica)).expect("it is written");
    assert_eq!(told(&mut replica, 5999), [""; 0]);
    // It is looked five times a second.
    let line = "catching up: 0 of 20000 events, 0.0 MB, 0.0 MB/s";
    assert_eq!(told(&mut replica, 6199), [line]);

    // 19,000 events of 1,000 bytes in 10 s; then it is near.
    let ended = written(&mut replica, token, &batch, 11_000);
    assert_eq!(ended, ["caught up: 19000 of 20000 events, 19.0 MB, 1.9 MB/s"]);
    assert_eq!(replica.state(), ServerState::Ready);
    assert_eq!(take(&mut replica, source.next(1000), 12_000), [""; 0], "told once");
}

#[test]
fn progress_is_told_every_five_seconds() {
    let (mut replica, mut source) = (linked(), Source::new());
    replica.handle(at(1000), Input::Frame(LINK, source.holds(20_000)));
    assert_eq!(told(&mut replica, 1000), [BEGUN]);
    let mut said = Vec::new();
    for second in 2..=16 {
        said.extend(take(&mut replica, source.next(1000), second * 1000));
    }
    let line = |mb: u64, speed: u64| {
        format!("catching up: {mb}000 of 20000 events, {mb}.0 MB, 0.{speed} MB/s")
    };
    assert_eq!(said, [line(4, 8), line(9, 9), line(14, 9)], "without what has just come");
    // While it is under way its end is looked for, whether anything happens or not.
    let due = replica.catch_up.next_deadline().expect("a deadline");
    assert!(due <= at(16_200).time);
}

#[test]
fn whoever_is_left_alone_has_not_caught_up() {
    let (mut replica, mut source) = (linked(), Source::new());
    replica.handle(at(1000), Input::Frame(LINK, source.holds(20_000)));
    assert_eq!(told(&mut replica, 1000), [BEGUN]);
    assert_eq!(take(&mut replica, source.next(1000), 2000), [""; 0]);
    replica.handle(at(3000), Input::LinkDown(LINK));
    let what = "no server is linked to catch up from; 1000 events so far";
    assert_eq!(told(&mut replica, 3000), [what]);
    assert_eq!(replica.catch_up.next_deadline(), None);
}

#[test]
fn a_gap_below_the_bound_is_not_told_of() {
    let (mut replica, source) = (linked(), Source::new());
    let lag = replica.config.limits.attach_lag as u64;
    replica.handle(at(1000), Input::Frame(LINK, source.holds(lag)));
    assert_eq!(told(&mut replica, 1000), [""; 0]);
    replica.handle(at(1100), Input::Frame(LINK, source.holds(lag + 1)));
    assert_eq!(told(&mut replica, 1199), [""; 0], "it is looked five times a second");
    assert_eq!(told(&mut replica, 1200).len(), 1);
}

#[test]
fn a_start_that_has_much_to_fetch_or_takes_long_is_told_of() {
    for (missing, begun) in [(1000, 4), (999, 5004)] {
        let mut replica = starting();
        // Who holds which slot is written.
        save(&mut replica);
        let mut source = Source::new();
        let vector = match source.holds(missing) {
            Frame::Have(haves) => Frame::Vector(haves),
            _ => unreachable!(),
        };
        replica.handle(at(4), Input::Frame(LINK, vector));
        assert_eq!(replica.state(), ServerState::CatchingUp);
        if begun > 4 {
            assert_eq!(told(&mut replica, begun - 6), [""; 0], "{missing}");
        }
        let what = format!(
            "catching up: {missing} events behind; clients are sent to other servers meanwhile"
        );
        assert_eq!(told(&mut replica, begun + 200), [what]);
        take(&mut replica, source.next(missing), begun + 1000);
        let whole = told(&mut replica, begun + 1200);
        assert!(whole[0].starts_with(&format!("caught up: {missing} of {missing} events")));
        assert_eq!(replica.state(), ServerState::Ready);
    }
}

#[test]
fn a_start_whose_only_source_is_gone_catches_up_with_nobody() {
    let (mut replica, source) = (starting(), Source::new());
    save(&mut replica);
    let Frame::Have(haves) = source.holds(500) else { unreachable!() };
    replica.handle(at(4), Input::Frame(LINK, Frame::Vector(haves)));
    replica.handle(at(4900), Input::LinkDown(LINK));
    assert_eq!(told(&mut replica, 5200), [""; 0]);
    assert_eq!(replica.state(), ServerState::CatchingUp, "it may come back");
}

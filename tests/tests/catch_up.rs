//! A server that is far behind: what it says, and who serves its clients meanwhile.

use std::fs;

use chatty_tests::{LONG, TestCluster, eventually};

const ROOM: &str = "lobby";
/// Above what a server may be behind and still attach clients, in bytes that take a while.
const MESSAGES: u64 = 12_000;

#[test]
fn a_wiped_server_tells_how_it_catches_up_and_others_serve_its_clients_until_it_is_near() {
    let keys = [
        ("# session_rate = 1000", "session_rate = 100000"),
        ("# attach_lag = 10000", "attach_lag = 1000"),
    ];
    let cluster = TestCluster::up_with(3, &keys);
    let mut flow = cluster.person("writer").on("s1").flow(ROOM);
    for nth in 0..MESSAGES {
        flow.line(&format!("{nth} {}", "abcdefgh".repeat(512)));
    }
    assert!(flow.finish().success(), "{}", flow.said());
    cluster.wait_converged();
    let ann = cluster.person("ann").on("s3");
    assert_eq!(ann.say(ROOM, "before")["server"], "s3");

    let file = cluster.server_dir("s3").join("log");
    let all = || fs::read_to_string(&file).unwrap_or_default();
    let before = all().len();
    let log = || all().split_off(before);
    let said = |what: &str| log().lines().find(|line| line.contains(what)).map(str::to_owned);
    let mut lags = Vec::new();
    std::thread::scope(|scope| {
        let wiped = scope.spawn(|| cluster.ok(&["wipe", "s3"]));
        eventually("s3 says that it begins", LONG, || said("catching up: ").ok_or_else(&log));
        loop {
            let receipt = ann.say(ROOM, "meanwhile");
            let status = cluster.status_of("s3");
            if status["state"] != "catching up" {
                break;
            }
            // It still is, so it was when he was answered.
            assert_ne!(receipt["server"], "s3", "{receipt}");
            lags.push(status["lag"].as_u64().expect("a number"));
        }
        wiped.join().expect("it is wiped");
    });
    assert!(!lags.is_empty(), "nobody was served while it caught up");
    assert!(lags[0] > 0 && lags.last() <= lags.first(), "it falls: {lags:?}");
    eventually("s3 says that it ended", LONG, || said("caught up: ").ok_or_else(&log));

    let events = |line: &str, before: &str, after: &str| -> u64 {
        let number = line.split(before).nth(1).and_then(|rest| rest.split(after).next());
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    let begun = said("catching up: ").expect("it was said");
    assert!(events(&begun, "catching up: ", " events behind") > 0, "{begun}");
    let ended = said("caught up: ").expect("it was said");
    let (done, of) = (events(&ended, "caught up: ", " of "), events(&ended, " of ", " events, "));
    assert!(done <= of && of >= MESSAGES, "{ended}");
    assert!(ended.contains(" MB/s"), "{ended}");
    cluster.wait_converged();
    assert_eq!(ann.say(ROOM, "after")["server"], "s3", "it takes clients again");
}

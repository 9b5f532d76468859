//! A process whose loop stands still ends with the watchdog's exit code and its last words. The
//! process is this test's own program, run again.

use std::process::Command;
use std::time::Duration;

use chatty_server::watchdog::{Doing, EXIT_CODE, Pulse, Watchdog, end_process};

const STALLED: &str = "CHATTY_TEST_STALLED_LOOP";

#[test]
fn a_process_whose_loop_stands_still_ends_itself_and_says_where_it_stood() {
    if std::env::var_os(STALLED).is_some() {
        let pulse = Pulse::default();
        pulse.turn();
        pulse.doing(Doing::Persist);
        let limit = Duration::from_millis(100);
        let _watchdog = Watchdog::start(pulse, limit, end_process).expect("a thread");
        loop {
            std::thread::park();
        }
    }
    let name = "a_process_whose_loop_stands_still_ends_itself_and_says_where_it_stood";
    let ended = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture"])
        .env(STALLED, "yes")
        .output()
        .expect("it runs again");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(EXIT_CODE.into()), "{said}");
    assert!(said.contains("it stands at: output: a batch to the disk's thread"), "{said}");
    assert!(said.contains("The watchdog ends the process"), "{said}");
}

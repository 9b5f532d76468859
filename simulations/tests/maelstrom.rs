//! The broadcast behind Maelstrom's protocol: what it costs, how fast it is, what cuts do to it.

use std::path::Path;
use std::time::Duration;

use chatty_core::time::{Now, Time};
use chatty_simulations::maelstrom::drive::{self, Scenario};
use chatty_simulations::maelstrom::network::Cut;
use chatty_simulations::maelstrom::node::{Node, Options, Said};
use chatty_simulations::maelstrom::processes;
use chatty_simulations::maelstrom::report::Report;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn twenty_five_nodes_need_under_13_messages_an_operation_and_one_hop() {
    let report = drive::run(&Scenario::default());
    assert!(report.is_right(), "{report}");
    assert!(report.messages_per_op() < 13.0, "{report}");
    assert_eq!(report.everywhere.len() as u64, report.broadcasts, "{report}");
    assert!(Report::quantile(&report.everywhere, 50) <= ms(110), "{report}");
    assert!(Report::quantile(&report.everywhere, 100) <= ms(150), "{report}");
}

#[test]
fn five_nodes_need_one_hop_too() {
    let report = drive::run(&Scenario { nodes: 5, ..Scenario::default() });
    assert!(report.is_right(), "{report}");
    assert!(report.messages_per_op() < 2.5, "{report}");
    assert!(Report::quantile(&report.everywhere, 100) <= ms(150), "{report}");
}

#[test]
fn a_cut_loses_nothing_and_is_mended_within_a_second_of_its_heal() {
    for cut in Cut::ALL {
        let length = Duration::from_secs(40);
        let scenario = Scenario { cuts: vec![cut], length, seed: 3, ..Scenario::default() };
        let report = drive::run(&scenario);
        assert!(report.is_right(), "{cut:?}: {report}");
        assert!(report.carried.lost > 0, "{cut:?}: it was in the way of something");
        let slowest = report.slowest_heal(Duration::from_secs(1));
        assert!(slowest.is_some_and(|slowest| slowest <= ms(1000)), "{cut:?}: {report}");
    }
}

/// Nobody notices such a cut before somebody speaks, and the last of each run is followed by silence.
#[test]
fn a_short_cut_where_little_is_said_is_mended_within_a_second_too() {
    let mut heals = 0;
    for seed in 1..=8 {
        let scenario = Scenario {
            nodes: 5,
            rate: 20,
            cuts: Cut::ALL.to_vec(),
            interval: Duration::from_secs(2),
            length: Duration::from_secs(60),
            seed,
            ..Scenario::default()
        };
        let report = drive::run(&scenario);
        assert!(report.is_right(), "{report}");
        heals += report.cuts.iter().filter(|cut| cut.whole >= ms(1000)).count();
        let slowest = report.slowest_heal(ms(1000));
        assert!(slowest.is_some_and(|slowest| slowest <= ms(1000)), "seed {seed}: {report}");
    }
    assert!(heals >= 50, "{heals} heals were followed by a second without a cut");
}

#[test]
fn lost_messages_lose_no_value() {
    let report = drive::run(&Scenario { loss_ppm: 100_000, ..Scenario::default() });
    assert!(report.carried.lost > 0 && report.is_right(), "{report}");
}

#[test]
fn processes_speak_the_same_over_pipes() {
    let program = Path::new(env!("CARGO_BIN_EXE_chatty-maelstrom"));
    let length = Duration::from_secs(2);
    let scenario = Scenario { nodes: 3, rate: 50, length, ..Scenario::default() };
    let report = processes::run(&scenario, program).unwrap();
    assert!(report.is_right(), "{report}");
    assert!(report.broadcasts > 0 && report.carried.servers > 0, "{report}");
}

fn tell(node: &mut Node, line: &str) -> Vec<Said> {
    let now = Now { time: Time::from_micros(1), wall_ms: 1 };
    node.line(now, line);
    node.flush(now);
    std::iter::from_fn(|| node.poll()).collect()
}

#[test]
fn what_is_malformed_is_answered_or_named_and_changes_nothing() {
    let mut node = Node::new(Options::default(), 1);
    let request =
        |body: &str| format!(r#"{{"src":"c1","dest":"n0","body":{{"msg_id":7,{body}}}}}"#);
    let before = tell(&mut node, &request(r#""type":"read""#));
    assert!(
        matches!(&before[..], [Said::Line(line)] if line.contains(r#""code":11"#)),
        "{before:?}"
    );
    let init = request(r#""type":"init","node_id":"n0","node_ids":["n0","n1"]"#);
    let begun = tell(&mut node, &init);
    assert!(matches!(&begun[..], [Said::Line(line)] if line.contains("init_ok")), "{begun:?}");
    for (body, code) in [
        (r#""type":"broadcast""#, 12),
        (r#""type":"topology""#, 12),
        (r#""kind":"read""#, 12),
        (r#""type":"dance""#, 10),
        (r#""type":"init","node_id":"n1","node_ids":["n0","n1"]"#, 22),
        (r#""type":"init","node_id":"n9","node_ids":["n0"]"#, 12),
        (r#""type":"init","node_id":"n0","node_ids":["n0","n0"]"#, 12),
    ] {
        let said = tell(&mut node, &request(body));
        let code = format!(r#""code":{code}"#);
        assert!(
            matches!(&said[..], [Said::Line(line)] if line.contains(&code)),
            "{body}: {said:?}"
        );
    }
    for line in [
        "no json",
        "{}",
        r#"{"src":"n1","dest":"n0","body":{"type":"frames","frames":["0aff"]}}"#,
        r#"{"src":"n7","dest":"n0","body":{"type":"frames","frames":[]}}"#,
        r#"{"src":"n1","dest":"n0","body":{"type":"broadcast"}}"#,
    ] {
        let said = tell(&mut node, line);
        assert!(matches!(&said[..], [Said::Complaint(_)]), "{line}: {said:?}");
    }
    assert_eq!(node.values().len(), 0);
    assert_eq!(tell(&mut node, &request(r#""type":"broadcast","message":5"#)).len(), 2);
    assert_eq!(node.values(), [5]);
}

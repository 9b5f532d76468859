//! The gates of the broadcast's cost, each as a test of its own.

use chatty_simulations::scale::gates::GATES;

fn holds(name: &str) {
    let Some(gate) = GATES.iter().find(|gate| gate.name == name) else {
        panic!("there is no gate {name}")
    };
    if let Err(found) = (gate.check)() {
        panic!("{name} ({}): {found}", gate.rule);
    }
}

macro_rules! gates {
    ($($test:ident = $name:literal,)+) => {
        $(#[test]
        fn $test() {
            holds($name);
        })+

        #[test]
        fn every_gate_is_a_test() {
            let tests = [$($name),+];
            let gates: Vec<&str> = GATES.iter().map(|gate| gate.name).collect();
            assert_eq!(gates, tests);
        }
    };
}

gates! {
    one_feed_costs_a_copy_for_each_other_server = "one-feed",
    two_feeds_cost_at_most_two = "two-feeds",
    all_feeds_cost_at_most_a_flood = "all-feeds",
    a_known_mesh_floods_nothing = "begin-pruned",
    a_tree_over_few_links_stays_whole = "few-links",
    nothing_is_asked_for_without_a_fault = "repair",
    announcements_go_by_the_tick = "have-frames",
    an_event_costs_so_many_bytes = "bytes",
    three_servers_hold_no_more_after_many_events = "memory",
    twelve_servers_hold_no_more_after_many_events = "memory-12",
}

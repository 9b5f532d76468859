//! A server that starts while the others die.

use chatty_simulations::start::the_only_holder_dies;

#[test]
fn a_server_that_starts_does_not_wait_for_what_only_a_dead_one_holds() {
    for seed in 1..=5 {
        let alone = the_only_holder_dies(seed)
            .unwrap_or_else(|failure| panic!("seed {seed}: {} at {:?}", failure.what, failure.at));
        assert!(alone > 0, "the dead one held something alone");
    }
}

//! Register writes that lost are erased, and only when nothing can bring them back.

use chatty_simulations::losing::the_only_winner_is_lost;

#[test]
fn what_lost_to_a_write_that_is_lost_itself_is_there_again() {
    for seed in 1..=5 {
        let erased = the_only_winner_is_lost(seed)
            .unwrap_or_else(|failure| panic!("seed {seed}: {} at {:?}", failure.what, failure.at));
        assert!(erased > 0, "what lost for good is erased on every server");
    }
}

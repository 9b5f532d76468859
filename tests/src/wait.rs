//! Waiting for facts.

use std::time::{Duration, Instant};

/// Far longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);
/// For what is known to come at once.
pub const SHORT: Duration = Duration::from_secs(15);

/// Asks again and again until there is an answer.
///
/// # Panics
/// After `within`: says what did not come, and the last reason why not.
#[track_caller]
pub fn eventually<T>(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> Result<T, String>,
) -> T {
    let until = Instant::now() + within;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) if Instant::now() >= until => {
                panic!("not after {within:?}: {what}\n  the last time: {why}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

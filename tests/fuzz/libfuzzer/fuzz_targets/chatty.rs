//! One program for all targets, so that it is built once: `CHATTY_FUZZ` names the target.

#![no_main]

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<String> = OnceLock::new();
    let name = TARGET.get_or_init(|| std::env::var("CHATTY_FUZZ").expect("CHATTY_FUZZ"));
    chatty_fuzz::run(name, data);
});

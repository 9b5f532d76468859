//! How much memory something takes: counted by the allocator of whatever program this is in.

use std::sync::Mutex;

use peak_alloc::PeakAlloc;

/// Bytes of a mebibyte.
pub const MIB: usize = 1 << 20;

#[global_allocator]
static COUNTED: PeakAlloc = PeakAlloc;

/// One at a time is counted: the allocator does not know who asks.
static COUNTING: Mutex<()> = Mutex::new(());

/// Runs it.
///
/// # Panics
/// If it takes more than so many bytes at any moment, beside what is there already.
pub fn within<T>(bytes_max: usize, run: impl FnOnce() -> T) -> T {
    let _turn = COUNTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    COUNTED.reset_peak_usage();
    let before = COUNTED.current_usage();
    let done = run();
    let took = COUNTED.peak_usage().saturating_sub(before);
    assert!(took <= bytes_max, "{took} bytes were taken, {bytes_max} are allowed");
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_much_is_noticed_though_it_gave_it_back() {
        within(2 * MIB, || drop(vec![1u8; MIB]));
        let over = std::panic::catch_unwind(|| within(MIB, || drop(vec![1u8; 2 * MIB])));
        assert!(over.is_err());
    }
}

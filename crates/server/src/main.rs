//! See the library.

/// A fifth of a busy server's time went into allocating: see `docs/performance.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    chatty_server::cli::main()
}

//! See the library.

fn main() -> std::process::ExitCode {
    chatty_server::cli::main()
}

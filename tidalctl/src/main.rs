//! The command line of tidal.
//!
//! Knows: that there is one. Must not know: any command.

fn main() -> std::process::ExitCode {
    tidalctl::run()
}

//! The `koboshi` program: words in, an exit code out. All it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    koboshi::cli::main()
}

//! The `koboshi` program: words in, an exit code out. All it does is in the library.

use std::process::ExitCode;

/// A storm of ten thousand machines takes what it takes for a minute; this one gives it back within seconds of its end.
#[global_allocator]
static MEMORY: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    koboshi::cli::main()
}

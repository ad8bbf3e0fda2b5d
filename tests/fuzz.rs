//! What strangers may send, a minute for each parser that meets them, guided by where it leads (libFuzzer, with our
//! own crates compiled for it: `tests/fuzz/covered.sh`). They run beside tests that wait more than they compute, and
//! have only the processor that nobody else wants. `make fuzz` and `make soak` go on for as long as one likes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{KOBOSHI, text};

fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")
}

/// A number of libFuzzer's final statistics.
fn stat(log: &str, name: &str) -> u64 {
    let line = log.lines().find_map(|line| line.strip_prefix(&format!("stat::{name}:")));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{name}: {log}"))
}

/// Fuzzes one target for a minute, from its corpus on.
fn a_minute(name: &str) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz");
    let program = Path::new(KOBOSHI).with_file_name(name);
    assert!(program.is_file(), "{} is not there: make covered", program.display());
    let found = tempfile::tempdir().expect("room");
    let crashes = target().join("fuzz/crashes").join(name);
    fs::create_dir_all(&crashes).expect("room");

    // It goes with this test, however that ends.
    let mut fuzzer = Command::new("setpriv");
    fuzzer.args(["--pdeathsig", "KILL", "chrt", "--idle", "0"]).arg(&program);
    fuzzer.args([
        "-max_total_time=60",
        "-timeout=60",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
    ]);
    fuzzer.arg(format!("-artifact_prefix={}/", crashes.display()));
    let dictionary = here.join(format!("{name}.dict"));
    if dictionary.is_file() {
        fuzzer.arg(format!("-dict={}", dictionary.display()));
    }
    let scratch = found.path().join("scratch");
    fs::create_dir(&scratch).expect("room");
    fuzzer.env("TMPDIR", &scratch);
    let kept = found.path().join("corpus");
    fs::create_dir(&kept).expect("room");
    let output = fuzzer.arg(&kept).arg(here.join("corpus").join(name)).output().expect("setpriv");
    let log = text(&output);
    assert!(
        output.status.success(),
        "brought down, by what is in {} now: {log}",
        crashes.display()
    );

    // It was not blind, and has not only read its corpus.
    assert!(
        log.contains("inline 8-bit counters"),
        "compiled without coverage: make covered: {log}"
    );
    let tried = stat(&log, "number_of_executed_units");
    let seeds = fs::read_dir(here.join("corpus").join(name)).expect("a corpus").count();
    assert!(seeds > 0 && tried > seeds as u64, "{tried} inputs from {seeds}");
    println!("{name}: {tried} inputs, {} more kept", stat(&log, "new_units_added"));
}

macro_rules! minutes {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            a_minute(stringify!($name));
        }
    )*};
}

// As the Makefile's STRANGERS.
minutes! { dhcp tftp http http_range cpio tar oci site report menu escape }

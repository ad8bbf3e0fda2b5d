//! Builds `koboshi-init`, the node's PID 1, inside the plain `cargo build` of the appliance.
//!
//! It must be static, small, and the same bytes wherever it is built, so it needs its own profile
//! and flags; only a nested cargo gives it those on stable. `KOBOSHI_INIT=path` takes a ready one.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What the outer cargo sets for its own compilation and must not leak into the inner one: the
/// result would differ between `build`, `clippy` and a coverage run.
const OUTER: [&str; 8] = [
    "RUSTC",
    "RUSTDOC",
    "RUSTFLAGS",
    "CARGO_BUILD",
    "CARGO_PROFILE",
    "CARGO_FEATURE",
    "CARGO_CFG",
    "CARGO_TARGET_DIR",
];

fn main() {
    println!("cargo::rerun-if-env-changed=KOBOSHI_INIT");
    let out = PathBuf::from(var("OUT_DIR")).join("koboshi-init");
    if let Some(given) = env::var_os("KOBOSHI_INIT") {
        println!("cargo::rerun-if-changed={}", Path::new(&given).display());
        copy(Path::new(&given), &out);
        return;
    }
    let here = PathBuf::from(var("CARGO_MANIFEST_DIR"));
    let workspace = here.parent().expect("initramfs/ lies in the workspace").to_owned();
    let shared = ["contract", "duty", "hardware", "room", "survey"];
    let shared = shared.map(|name| format!("initramfs/src/{name}.rs"));
    let whole = ["Cargo.toml", "Cargo.lock", "initramfs/init", "initramfs/src/changes"];
    for source in whole.into_iter().chain(shared.iter().map(String::as_str)) {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    // Beside the outer build's own folders: cargo holds a lock on those, and would wait for itself.
    let folder = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    let target = folder.unwrap_or(out.parent().expect("OUT_DIR")).join("koboshi-init");

    let mut cargo = Command::new(var("CARGO"));
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| OUTER.iter().any(|outer| name.starts_with(outer))) {
            cargo.env_remove(name);
        }
    }
    cargo
        .current_dir(&workspace)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&workspace))
        .env("CARGO_TERM_COLOR", "never")
        .args(["build", "--locked", "--profile", "init", "-p", "koboshi-init", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target);
    let done = match cargo.output() {
        Ok(done) => done,
        Err(e) => fail(&format!("cargo for koboshi-init does not start: {e}")),
    };
    if !done.status.success() {
        fail(&format!("koboshi-init: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr)));
    }
    copy(&target.join(TARGET).join("init/koboshi-init"), &out);
}

fn flags(workspace: &Path) -> OsString {
    let mut flags = OsString::from("-Ctarget-feature=+crt-static");
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    for (path, name) in [(Some(workspace.to_owned()), "/koboshi"), (home, "/cargo")] {
        let Some(path) = path else { continue };
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(path);
        flags.push("=");
        flags.push(name);
    }
    flags
}

fn copy(from: &Path, to: &Path) {
    if let Err(e) = fs::copy(from, to) {
        fail(&format!("koboshi-init from {}: {e}", from.display()));
    }
}

fn var(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| fail(&format!("cargo sets no {name}")))
}

fn fail(why: &str) -> ! {
    eprintln!("{why}");
    exit(1)
}

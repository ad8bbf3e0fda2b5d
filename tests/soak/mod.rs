//! What takes longer than every change should wait for: `make soak`.

mod arrays;
mod consoles;
mod kills;
mod loaders;
mod maintain;
mod nics;
mod outage;
mod roles;
mod setup;
mod storm;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{KOBOSHI, text};

/// `koboshi image build …` of an image beside those of the rack, before it is raised: there is no way to
/// Debian inside of it.
fn build(words: &[&str]) {
    let rack = rack();
    let built = Command::new(KOBOSHI)
        .args(["image", "build", "--publish"])
        .args(words)
        .arg("--state")
        .arg(rack.join("state"))
        .arg("--cache")
        .arg(rack.join("cache"))
        .output()
        .expect("koboshi runs");
    assert!(built.status.success(), "{}", text(&built));
}

/// Where those images are.
fn rack() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rack")
}

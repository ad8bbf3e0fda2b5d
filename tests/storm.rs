//! A small storm against the program as it is: every firmware, losses far beyond what a wire has, and
//! nobody is left behind. (`soak` has a larger one.)

use std::process::Command;

use serde_json::Value;

use crate::world::{KOBOSHI, text};

/// `koboshi lab storm …` to its end: what it found of our appliance.
pub fn storm(words: &[&str]) -> Value {
    let output = Command::new(KOBOSHI)
        .args(["lab", "storm", "--json"])
        .args(words)
        .output()
        .expect("koboshi runs");
    assert!(output.status.success(), "{words:?}: {}", text(&output));
    let found: Value = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
    found[0].clone()
}

#[test]
fn a_hundred_machines_come_up_while_one_packet_in_twenty_is_lost() {
    let found = storm(&[
        "--machines=100",
        "--loss=5%",
        "--doubled=1%",
        "--slow=5%",
        "--within=2s",
        "--speed=10",
        "--root-size=64k",
    ]);
    assert_eq!((&found["up"], &found["failed"]), (&100.into(), &0.into()), "{found}");
    assert!(found["lost"].as_u64().is_some_and(|lost| lost > 10), "packets were lost: {found}");
    let stages = found["stages"].as_array().expect("stages");
    let count = |name: &str| {
        let row = stages.iter().find(|row| row["stage"] == name).expect("a row for each stage");
        row["count"].as_u64().expect("a number")
    };
    // Those with iPXE in their ROM ask once and load nothing.
    assert!((20..100).contains(&count("loader")), "{found}");
    for stage in ["ipxe", "script", "kernel", "initramfs", "root", "up"] {
        assert_eq!(count(stage), 100, "{stage}: {found}");
    }
}

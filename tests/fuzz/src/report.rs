//! The body of `POST /report/<boot-id>`: a report, or an error in words.

#![no_main]

use koboshi_initramfs::contract::{REPORT_MAX, Report};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if body.len() > REPORT_MAX {
        return;
    }
    match serde_json::from_slice::<Report>(body) {
        Ok(report) => {
            let written = serde_json::to_vec(&report).expect("plain data");
            assert_eq!(serde_json::from_slice::<Report>(&written).expect("ours"), report);
        }
        Err(error) => assert!(error.to_string().len() < REPORT_MAX + 1000),
    }
});

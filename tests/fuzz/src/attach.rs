//! What somebody at a line may send as a request, and what a line may tell: read, written and read again it is the
//! same.

#![no_main]

use koboshi_console::attach::{Frame, Notice, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(request) = serde_json::from_str::<Request>(text) {
        let Some(Frame::Control(written)) = Frame::control(&request) else { panic!("{request:?}") };
        assert_eq!(serde_json::from_str::<Request>(&written).ok(), Some(request));
    }
    if let Ok(notice) = serde_json::from_str::<Notice>(text) {
        let Some(Frame::Control(written)) = Frame::control(&notice) else { panic!("{notice:?}") };
        assert_eq!(serde_json::from_str::<Notice>(&written).ok(), Some(notice));
    }
});

//! Of PID 1's ways to a root, those that need no machine of their own.

#[path = "../../../src/root/archive.rs"]
pub mod archive;
#[path = "../../../src/root/fetch.rs"]
pub mod fetch;
#[path = "../../../src/root/pour.rs"]
pub mod pour;
#[path = "../../../src/root/progress.rs"]
pub mod progress;
#[path = "../../../src/root/remove.rs"]
pub mod remove;
#[path = "../../../src/root/tape.rs"]
pub mod tape;
#[path = "../../../src/root/unpack.rs"]
pub mod unpack;

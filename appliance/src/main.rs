//! The koboshi program.
fn main() {}

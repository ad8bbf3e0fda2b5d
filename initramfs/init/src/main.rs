//! koboshi-init
fn main() {}

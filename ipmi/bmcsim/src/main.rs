//! `bmcsim`: simulated BMCs on loopback addresses.

fn main() {}

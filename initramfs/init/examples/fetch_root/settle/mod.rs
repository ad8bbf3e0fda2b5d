//! Reading a tree's links as the tree will.

#[path = "../../../src/settle/intree.rs"]
pub mod intree;

//! Simulated BMCs before peers that share no code with them, and as a program.

mod judged;
mod ours;
mod program;
mod tools;

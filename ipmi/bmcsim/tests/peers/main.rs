//! Simulated BMCs before peers that share no code with them, and as a program.

mod judged;
mod program;
mod tools;

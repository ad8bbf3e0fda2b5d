//! How a version of an image comes to machines, and how it is taken back: trials on single machines, machines
//! that fall back by themselves, versions for one machine alone.
//!
//! `course` remembers how machines do with versions, `books` chooses one for a machine, `verdict` says what
//! becomes of versions. None of them knows a clock, a file or a socket.

pub mod books;
pub mod course;
pub mod verdict;

pub use books::{Because, Books, Choice, Told};
pub use course::Course;
pub use verdict::{Does, Verdict, What};

#[cfg(test)]
mod tests;

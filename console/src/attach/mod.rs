//! One person at one line, by whichever way he came.
//!
//! ```text
//! filter   what of a machine's characters a person's terminal shall see
//! ```

mod filter;

pub use filter::Filter;

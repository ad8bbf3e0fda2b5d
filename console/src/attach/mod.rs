//! One person at one line, by whichever way he came.
//!
//! ```text
//! message   what goes both ways: characters, and JSON for the rest
//! session   the line's side, over whatever carries messages
//! program   the line's side, over bytes and nothing else
//! terminal  the person's side, where he has a terminal
//! filter    what of a machine's characters a person's terminal shall see
//! ```

mod filter;
mod message;
mod program;
mod session;
mod terminal;

pub use filter::Filter;
pub use message::{Frame, Notice, PROTOCOL, Request, Want};
pub use program::program;
pub use session::{Comes, May, attach};
pub use terminal::{Do, Manner, Terminal};

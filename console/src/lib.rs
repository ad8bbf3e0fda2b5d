//! Consoles of machines: lines that are always on, whoever looks.
//!
//! ```text
//! line        one line: kept open for ever, and what becomes of it
//! state       what its events mean: marks for the scrollback, up or down for people
//! scrollback  the last it said, with times and marks
//! viewer      follows one, at its own pace
//! ```
//!
//! ```text
//!  machine ──▶ sol::Console ──▶ Line ──▶ Scrollback ◀── Viewer, Viewer, Viewer …
//! ```
//!
//! A line never waits for anybody who looks: it writes into its scrollback, and viewers read there.

pub mod line;
pub mod scrollback;
mod state;
mod viewer;

pub use line::{Line, NotOpen};
pub use scrollback::{Mark, Piece, What};
pub use state::{State, Status};
pub use viewer::Viewer;

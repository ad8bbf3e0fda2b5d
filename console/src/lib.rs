//! Consoles of machines: lines that are always on, whoever looks.
//!
//! ```text
//! wire        a line while it is open, of whatever kind
//! line        one line: kept open for ever, and what becomes of it
//! thread      what all of them live on
//! pace        when it is opened again, among all others
//! modem       files over a line: XMODEM, YMODEM, ZMODEM
//! operator    who may type
//! sysrq       BREAK and a key, which the kernel hears whatever else is stuck
//! state       what its events mean: marks for the scrollback, up or down for people
//! mark        what happened between its characters: a gap is one, and never silence
//! harmless    what may act on a person's terminal, taken out
//! scrollback  the last it said, with times and marks
//! log         all it said, in files
//! screen      what a terminal would show now
//! viewer      follows one, at its own pace
//! attach      one person at one line, by whichever way he came
//! escape      `~` and a key: what he tells koboshi, and not the machine
//! watch       what people should hear of
//! expect      scripts: what a person would type, and wait for
//! ssh         consoles by SSH
//! ```
//!
//! ```text
//!  machine ──▶ Wire ──▶ Line ──▶ Scrollback ◀── Viewer, Viewer, Viewer …
//! ```
//!
//! A line never waits for anybody who looks: it writes into its scrollback, and viewers read there.

pub mod attach;
pub mod escape;
pub mod expect;
mod harmless;
pub mod line;
pub mod log;
mod mark;
pub mod modem;
pub mod operator;
pub mod pace;
mod screen;
pub mod scrollback;
pub mod ssh;
mod state;
pub mod sysrq;
mod thread;
mod viewer;
pub mod watch;
pub mod wire;

pub use line::{Beside, Handle, Line, Logging};
pub use log::Start;
pub use operator::{Floor, Holder, NotHanded, NotTyped, Operator, Person, Turn, Visitor};
pub use pace::Pace;
pub use screen::{Drawn, Screen};
pub use scrollback::{Mark, Piece, What};
pub use state::{State, Status};
pub use thread::Thread;
pub use viewer::Viewer;
pub use wire::{Cannot, Kind, NotOpen, Operation, Settings, Wire};

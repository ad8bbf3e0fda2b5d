//! ZMODEM: frames that begin with a header; some have data behind it. The receiver says from where on it wants
//! the file, at any time, and the sender goes back there.

mod header;
mod reader;
mod receive;
mod send;

pub use receive::Receiver;
pub use send::Sender;

pub(super) use header::{Header, Kind};
pub(super) use reader::{Item, Reader};

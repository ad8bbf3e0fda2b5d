//! A serial port of this host.
//!
//! ```text
//! settings  which one the site means
//! usb       adapters by serial number and by socket
//! held      who has it; `uucp` who says so
//! port      opened, set, let go
//! marks     BREAK and damaged characters, as the kernel tells of them
//! codec     what goes over it
//! ports     all that this host has
//! ```

mod codec;
#[cfg(test)]
mod fake;
mod held;
mod host;
mod marks;
mod port;
mod ports;
mod settings;
mod usb;
mod uucp;

use std::sync::Arc;

pub use held::Holder;
pub use host::Host;
pub use marks::Marks;
pub use ports::{Listed, ports};
pub use settings::{Place, Port, SPEEDS, Unreadable};

use super::stream::drive;
use super::{NotOpen, Wire};

/// Opens it on this host, as it is known there at the time.
///
/// # Errors
/// Why not: it is not plugged in, another has it, it may not be opened, it cannot be set so.
pub async fn open(host: &Arc<Host>, port: &Port) -> Result<Wire, NotOpen> {
    let (there, wanted) = (host.clone(), port.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let path = match &wanted.place {
            Place::Path(path) => path.clone(),
            Place::Usb(name) => usb::find(&there, name).map_err(|why| match why {
                usb::NoAdapter::Absent(why) => NotOpen::Unplugged(why),
                usb::NoAdapter::Many(why) => NotOpen::Here(why),
            })?,
        };
        port::open(&there, &path, &wanted)
    });
    let opened = opened.await.map_err(|why| NotOpen::Here(why.to_string()))??;
    let open = opened.into_open().map_err(|why| NotOpen::Here(format!("{}: {why}", port.place)))?;
    Ok(drive(open, codec::Serial::new(port.place.to_string(), port.settings.speed)))
}

//! The site file: what machines there are, what seats, and who is meant to sit where. Read before
//! anything boots, and again whenever it changes.
//!
//! ```text
//! load      reads the file and its includes; everything that is wrong at once
//! written/  as written: every key, typed and with its place
//! meant/    as meant: looked up, merged, checked; `Site` is what everybody else sees
//! problem   what is wrong, where, and what to do; `render` draws it
//! reload    what a new file changes, and whether that may be applied now
//! watch     says when a file has changed
//! edit      changes one value and nothing else; `adopt` adds a machine, all of it at once
//! ```

pub mod adopt;
pub mod edit;
mod files;
pub mod hardware;
pub mod hostlist;
pub mod load;
pub mod meant;
pub mod names;
pub mod network;
pub mod origin;
pub mod problem;
pub mod reload;
pub mod render;
pub mod template;
pub mod values;
pub mod watch;
mod written;

#[cfg(test)]
pub(crate) mod tests;

pub use hardware::{Bmc, Cipher, Console, Fence, Outlet, Power, Secret, SwitchPort};
pub use load::{Env, Purpose, SiteFile, Watched, load};
pub use meant::{
    Admin, Class, Consoles, Group, Logs, Machine, Net, Network, NfsRoot, Nobody, Reach, Resolved,
    Role, RootMode, Seat, Site, Subnet, Watch, image_missing,
};
pub use names::{ClassName, GroupName, MachineName, NetworkName, RoleName, SeatName};
pub use network::{Cidr, Pool};
pub use origin::{At, Origin, Source};
pub use problem::{Problem, Problems, Severity};
pub use render::Look;
pub use values::{ImageRef, Lease, RootSize, Serial, Unknown};
pub use written::{
    Bond, DhcpOption, Exclusive, Identify, Kind, Mode, Nics, Place, Route, SeatNet, Takeover,
};

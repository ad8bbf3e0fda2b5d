//! Archives for booting machines: cpio segments, the common initramfs, a kernel's modules.
//!
//! A machine's initramfs is up to four segments, laid end to end in this order:
//! 1. [`microcode`]: plain, from the image, if it has any;
//! 2. [`mod@common`]: `koboshi-init` and the rescue shell, the same for all;
//! 3. [`modules`]: drivers and firmware of the image's kernel;
//! 4. this boot's orders ([`common::orders_segment`]).
//!
//! [`cpio`] writes and reads them, [`compress`] packs them as the kernel can unpack, [`choice`] says
//! which modules are worth their bytes, [`contract`] is what the appliance and PID 1 agree on, and [`changes`] what a
//! running machine tells of its root.

pub mod changes;
pub mod choice;
pub mod common;
pub mod compress;
pub mod contract;
pub mod cpio;
mod depmod;
mod error;
mod inroot;
pub mod microcode;
mod modinfo;
pub mod modules;
mod unpack;

pub use choice::Choice;
pub use common::{INIT, common, hosts_segment, orders_segment};
pub use compress::Compression;
pub use cpio::Archive;
pub use error::Error;
pub use microcode::microcode_segment;
pub use modules::{ModulesSegment, modules_segment, releases};

//! Archives for booting machines: cpio segments, the common initramfs, a kernel's modules.

pub mod contract;

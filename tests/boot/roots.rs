//! Roots that are not unpacked into memory, and disks that keep data.

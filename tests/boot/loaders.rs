//! Loaders that people have: PXELINUX, GRUB.

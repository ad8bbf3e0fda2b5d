//! Memtest86+ under UEFI: it takes its screen from a graphics adapter first (without one, 6.10 says `set_screen_info()
//! failed` and stops), and every server's BMC is one.
//!
//! The order that `boot::maintain` gives a machine with a BIOS, given to one with UEFI: another program is its
//! memory test.

use koboshi::lab::qemu::{Firmware, Spec};

use crate::boot::maintain::{SITE, tests_memory};
use crate::boot::spec;
use crate::world::in_world;

#[test]
fn memtest_draws_its_screen_under_uefi_too() {
    let uefi = Spec { firmware: Firmware::Uefi, graphics: true, ..spec("m07") };
    in_world(SITE, vec![uefi], async |world| tests_memory(world).await);
}

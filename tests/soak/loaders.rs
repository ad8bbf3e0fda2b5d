//! The loaders that `boot::loaders` leaves out: PXELINUX without HTTP, SYSLINUX for UEFI, GRUB for
//! BIOS, and GRUB behind shim, with a spare that waits in it.

use koboshi::lab::qemu::{Firmware, Spec};

use crate::boot::loaders::{SITE, booted, given_a_seat};
use crate::boot::spec;
use crate::world::in_world;

#[test]
fn pxelinux_without_http_and_syslinux_for_uefi() {
    let uefi = Spec { firmware: Firmware::Uefi, ..spec("m24") };
    in_world(SITE, vec![spec("m23"), uefi], async |world| {
        let mut world = world.with_images();
        world.serve().await;
        for machine in ["m23", "m24"] {
            world.machine(machine).power_on().await.expect("power on");
        }
        booted(&world, "m23", "tool3", "pxelinux.0", "115200").await;
        booted(&world, "m24", "tool4", "syslinux.efi", "115200").await;
    });
}

#[test]
fn grub_for_bios_and_behind_shim() {
    let uefi = Spec { firmware: Firmware::Uefi, ..spec("m26") };
    let site = SITE.replace("m26 = \"tool6\"", "m26 = \"spare\"");
    in_world(&site, vec![spec("m25"), uefi], async |world| {
        let mut world = world.with_images();
        world.serve().await;
        for machine in ["m25", "m26"] {
            world.machine(machine).power_on().await.expect("power on");
        }
        given_a_seat(&world, "m26", "tool6").await;
        booted(&world, "m25", "tool5", "grub.pxe", "115200").await;
        booted(&world, "m26", "tool6", "shimx64.efi", "115200").await;
    });
}

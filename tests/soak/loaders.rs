//! The loaders that `boot::loaders` leaves out: PXELINUX without HTTP, SYSLINUX for UEFI, GRUB for
//! BIOS, and GRUB behind shim under Secure Boot. Spares wait in two of them while the appliance is
//! gone for a minute.

use std::time::Duration;

use koboshi::lab::qemu::{Firmware, Spec};

use crate::boot::loaders::{SITE, booted, given_a_seat, waits};
use crate::boot::{MINUTES, spec};
use crate::world::{World, in_world};

#[test]
fn pxelinux_without_http_and_syslinux_for_uefi() {
    let uefi = Spec { firmware: Firmware::Uefi, ..spec("m24") };
    let site = SITE.replace("m23 = \"tool3\"", "m23 = \"spare\"");
    in_world(&site, vec![spec("m23"), uefi], async |world| {
        let mut world = world.with_images();
        world.serve().await;
        for machine in ["m23", "m24"] {
            world.machine(machine).power_on().await.expect("power on");
        }
        booted(&world, "m24", "tool4", "syslinux.efi", "115200").await;
        gone_for_a_minute(&mut world, "m23").await;
        given_a_seat(&world, "m23", "tool3").await;
        booted(&world, "m23", "tool3", "pxelinux.0", "115200").await;
    });
}

#[test]
fn grub_for_bios_and_behind_shim() {
    let uefi = Spec { firmware: Firmware::UefiSecure, ..spec("m26") };
    let site = SITE.replace("m26 = \"tool6\"", "m26 = \"spare\"");
    in_world(&site, vec![spec("m25"), uefi], async |world| {
        let mut world = world.with_images();
        world.serve().await;
        for machine in ["m25", "m26"] {
            world.machine(machine).power_on().await.expect("power on");
        }
        booted(&world, "m25", "tool5", "grub.pxe", "115200").await;
        gone_for_a_minute(&mut world, "m26").await;
        given_a_seat(&world, "m26", "tool6").await;
        booted(&world, "m26", "tool6", "shimx64.efi", "115200").await;
        let mut console = world.machine("m26").viewer();
        console.expect("Secure boot enabled", MINUTES).await.expect("the kernel knows");
    });
}

/// The spare finds its appliance again.
async fn gone_for_a_minute(world: &mut World, spare: &str) {
    let mut console = world.machine(spare).viewer();
    console.expect(&waits(spare), MINUTES).await.expect("it waits");
    world.kill().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut console = world.machine(spare).console().viewer_from_now();
    world.serve().await;
    console.expect(&waits(spare), MINUTES).await.expect("it waits again");
}

//! Loaders other than iPXE, for people who have them: PXELINUX with and without HTTP, SYSLINUX for UEFI, GRUB
//! for UEFI and for BIOS, and GRUB behind shim under Secure Boot. Spares wait in them, in two while the
//! appliance is gone for a minute.

use std::time::Duration;

use koboshi::lab::qemu::{Firmware, Spec};
use serde_json::json;

use crate::boot::{HasShell, MINUTES, spec};
use crate::world::{World, in_world, stages};

/// m21's ROM is iPXE, and is told to start PXELINUX; m22's firmware is EDK2's.
const SITE: &str = r#"
[site]
name = "rack"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.220"

[roles.rescue]
image = "rescue"

[classes.old]
loader = "lpxelinux.0"
serial = "ttyS0,57600"

[machines]
m21 = { class = "old", mac = ["52:54:00:77:00:21"] }
m22 = { mac = ["52:54:00:77:00:22"], loader = "grubnetx64.efi.signed", serial = "ttyS0,38400" }
m23 = { mac = ["52:54:00:77:00:23"], loader = "pxelinux.0" }
m24 = { mac = ["52:54:00:77:00:24"], loader = "syslinux.efi" }
m25 = { mac = ["52:54:00:77:00:25"], loader = "grub.pxe" }
m26 = { mac = ["52:54:00:77:00:26"], loader = "shimx64.efi" }

[seats]
tool1 = { role = "rescue", ip = "10.77.0.31", args = { id = "100", odd = "$x;reboot" } }
tool2 = { role = "rescue", ip = "10.77.0.32", args = { id = "100", odd = "$x;reboot" } }
tool3 = { role = "rescue", ip = "10.77.0.33", args = { id = "100", odd = "$x;reboot" } }
tool4 = { role = "rescue", ip = "10.77.0.34", args = { id = "100", odd = "$x;reboot" } }
tool5 = { role = "rescue", ip = "10.77.0.35", args = { id = "100", odd = "$x;reboot" } }
tool6 = { role = "rescue", ip = "10.77.0.36", args = { id = "100", odd = "$x;reboot" } }

[matrix]
m21 = "tool1"
m22 = "tool2"
m23 = "tool3"
m24 = "tool4"
m25 = "tool5"
m26 = "tool6"
"#;

/// S3, S6, S12, S24: m21 waits as a spare in PXELINUX, is given a seat, starts over and boots into
/// it, with all but the loader by HTTP; m22 boots by GRUB, all by TFTP.
#[test]
fn pxelinux_and_grub_boot_the_same_plan() {
    let uefi = Spec { firmware: Firmware::Uefi, ..spec("m22") };
    let site = SITE.replace("m21 = \"tool1\"", "m21 = \"spare\"");
    in_world(&site, vec![spec("m21"), uefi], async |world| {
        let mut world = world.with_images();
        world.serve().await;
        for machine in ["m21", "m22"] {
            world.machine(machine).power_on().await.expect("power on");
        }
        given_a_seat(&world, "m21", "tool1").await;
        booted(&world, "m22", "tool2", "grubnetx64.efi.signed", "38400").await;
        booted(&world, "m21", "tool1", "lpxelinux.0", "57600").await;
        // The same names by HTTP, for loaders that speak it from the beginning.
        for (name, holds) in [
            ("grub/grub.cfg", "grub.cfg-01-$net_default_mac"),
            ("grub/grub.cfg-01-52-54-00-77-00-22", "koboshi: m22 boots into tool2"),
            ("pxelinux.cfg/01-52-54-00-77-00-22", "koboshi: m22 boots into tool2"),
            ("ldlinux.c32", "ELF"),
        ] {
            let body = world.curl(&format!("http://10.77.0.1:8080/{name}"));
            assert!(body.contains(holds), "{name}: {body}");
        }
        // What their firmware said of itself is remembered.
        assert_eq!(
            (&world.row("m21")["efi"], &world.row("m22")["efi"]),
            (&json!(false), &json!(true))
        );
        let explained = world.ok(&["explain", "m22"]);
        for line in [
            "its firmware, when it last booted: UEFI x86-64 by PXE",
            "then grubnetx64.efi.signed over TFTP",
            "asks for grub/grub.cfg-01-52-54-00-77-00-22",
        ] {
            assert!(explained.contains(line), "{explained}");
        }
    });
}

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

/// A spare says in its loader that it waits, and finds out by itself that it has a seat.
async fn given_a_seat(world: &World, machine: &str, seat: &str) {
    let mut console = world.machine(machine).viewer();
    let waits = waits(machine);
    // Twice: it has asked again.
    console.follow(&[&waits, "asks again in", &waits], MINUTES).await.expect("it waits");
    assert_eq!(world.row(machine)["stage"], "waiting");
    world.ok(&["seat", machine, seat]);
    let restarts = ["there is something to boot now", "restarts the machine"];
    console.follow(&restarts, MINUTES).await.expect("it starts over");
}

/// What a spare says.
fn waits(machine: &str) -> String {
    format!("koboshi: {machine} is a spare and waits for a seat")
}

/// From power-on to its seat by this loader, at this serial speed.
async fn booted(world: &World, machine: &str, seat: &str, loader: &str, speed: &str) {
    let boot = world.up(machine, seat).await;
    let seen = stages(&boot);
    for stage in ["offer", "ack", "loader", "script", "kernel", "initramfs", "init", "up"] {
        assert!(seen.iter().any(|s| s == stage), "{stage} is in {seen:?}");
    }
    let timeline = world.ok(&["boots", machine]);
    assert!(timeline.contains(loader), "{timeline}");
    let mut console = world.machine(machine).viewer();
    let headline = format!("koboshi: {machine} boots into {seat}");
    let script = [headline.as_str(), "fetches the kernel", "Linux version"];
    console.follow(&script, MINUTES).await.expect("the loader speaks on the serial line");
    let mut shell = world.machine(machine).viewer_of_shell().await;
    assert_eq!(shell.run("hostname").await, seat);
    let cmdline = shell.run("cat /proc/cmdline").await;
    for word in [
        &format!("koboshi.seat={seat}"),
        &format!("console=ttyS0,{speed}"),
        "id=100",
        "odd=$x;reboot",
    ] {
        assert!(cmdline.contains(word), "{word} in {cmdline}");
    }
}

//! Loaders other than iPXE, for people who have them: PXELINUX under BIOS, GRUB under UEFI.

use koboshi::lab::qemu::{Firmware, Spec};

use super::{HasShell, MINUTES, spec};
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
tool2 = { role = "rescue", ip = "10.77.0.32", args = { id = "200", odd = "$x;reboot" } }
tool3 = { role = "rescue", ip = "10.77.0.33" }
tool4 = { role = "rescue", ip = "10.77.0.34" }
tool5 = { role = "rescue", ip = "10.77.0.35" }
tool6 = { role = "rescue", ip = "10.77.0.36" }

[matrix]
m21 = "tool1"
m22 = "tool2"
m23 = "tool3"
m24 = "tool4"
m25 = "tool5"
m26 = "tool6"
"#;

/// S3, S6, S24.
#[test]
fn pxelinux_and_grub_boot_the_same_plan() {
    let uefi = Spec { firmware: Firmware::Uefi, ..spec("m22") };
    in_world(SITE, vec![spec("m21"), uefi], async |world| {
        let mut world = world.with_images();
        world.serve().await;
        for machine in ["m21", "m22"] {
            world.machine(machine).power_on().await.expect("power on");
        }
        booted(&world, "m21", "tool1", "lpxelinux.0", "57600").await;
        booted(&world, "m22", "tool2", "grubnetx64.efi.signed", "38400").await;
    });
}

/// From power-on to its seat by this loader, at this serial speed.
async fn booted(world: &World, machine: &str, seat: &str, loader: &str, speed: &str) {
    let boot = world.up(machine, seat).await;
    let seen = stages(&boot);
    for stage in ["offer", "ack", "loader", "script", "kernel", "initramfs", "init", "up"] {
        assert!(seen.iter().any(|s| s == stage), "{stage} is in {seen:?}");
    }
    let timeline = world.ok(&["boots", machine]);
    println!("{timeline}");
    assert!(timeline.contains(loader), "{timeline}");
    let mut console = world.machine(machine).viewer();
    let headline = format!("koboshi: {machine} boots into {seat}");
    let script = [headline.as_str(), "fetches the kernel", "Linux version"];
    console.follow(&script, MINUTES).await.expect("the loader speaks on the serial line");
    let mut shell = world.machine(machine).viewer_of_shell().await;
    assert_eq!(shell.run("hostname").await, seat);
    let cmdline = shell.run("cat /proc/cmdline").await;
    for word in
        [&format!("koboshi.seat={seat}"), &format!("console=ttyS0,{speed}"), "odd=$x;reboot"]
    {
        assert!(cmdline.contains(word), "{word} in {cmdline}");
    }
}

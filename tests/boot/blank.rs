//! Blank machines become their seats: SeaBIOS with its iPXE ROM, undionly.kpxe, OVMF by PXE and HTTP.

use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use koboshi::lab::qemu::{Firmware, Nic, Spec};

use super::{HasShell, MINUTES, spec};
use crate::world::{World, in_world, stages, text};

/// m01 goes by its iPXE ROM, m02 is sent through undionly.kpxe first.
const SITE: &str = r#"
[site]
name = "rack"
domain = "rack.example"
ssh-keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJf0Yt5bGfPzvT5Q5pNqBfQ4sX0bE5mQ8m0q0rJ6yPpK ops"]

[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.220"
ntp = ["10.77.0.1"]
unknown = "own"
netconsole = 6666

[roles.web]
image = "web"

[roles.rescue]
image = "rescue"

[roles.metal]
image = "metal"

[roles.own]
image = "own"

[machines]
m01 = { mac = ["52:54:00:77:00:01"] }
m02 = { mac = ["52:54:00:77:00:02"], loader = "undionly.kpxe", serial = "ttyS0,57600", nics = { boot = "eno1" } }
m03 = { mac = ["52:54:00:77:00:03"] }
m04 = { mac = ["52:54:00:77:00:04"] }
m05 = { mac = ["52:54:00:77:00:05"] }

[seats]
web1 = { role = "web", ip = "10.77.0.11", args = { id = "100" } }
tool1 = { role = "rescue", ip = "10.77.0.21" }
tool3 = { role = "rescue", ip = "10.77.0.23" }
tool4 = { role = "metal", ip = "10.77.0.24" }
web5 = { role = "web", ip = "10.77.0.15" }

[matrix]
m01 = "web1"
m02 = "tool1"
m03 = "tool3"
m04 = "spare"
m05 = "web5"
"#;

/// S1, S4, S6, S8, S10, S18, S19, S20, S24: two blank BIOS machines become two roles; one of them
/// serves on while the appliance is gone; two lines of the matrix are swapped, and so are they.
#[test]
fn blank_machines_become_their_seats_and_swap_them() {
    in_world(SITE, vec![spec("m01"), spec("m02")], async |world| {
        let mut world = world.with_images();
        world.serve().await;
        for machine in ["m01", "m02"] {
            world.machine(machine).power_on().await.expect("power on");
        }
        let tool = world.up("m02", "tool1").await;
        let web = world.up("m01", "web1").await;

        // The ROM of m01 is iPXE and needs no loader; m02 was sent through undionly.kpxe.
        let seen = stages(&web);
        for stage in [
            "offer",
            "ack",
            "script",
            "kernel",
            "initramfs",
            "init",
            "root",
            "root-ready",
            "switching",
            "up",
        ] {
            assert!(seen.iter().any(|s| s == stage), "{stage} is in {seen:?}");
        }
        assert!(!seen.contains(&"loader".to_string()), "{seen:?}");
        assert!(stages(&tool).contains(&"loader".to_string()), "{tool:#}");
        assert!(world.ok(&["boots", "m02"]).contains("undionly.kpxe"));

        // One serial line from loader to kernel and getty (S24), whose prompt the SSH host key may part.
        let mut console = world.machine("m01").viewer();
        console
            .follow(
                &["koboshi: m01 boots into web1", "Linux version", "koboshi:", "12 web1 ttyS0"],
                MINUTES,
            )
            .await
            .expect("the console shows the whole boot");

        assert!(world.curl("http://10.77.0.11/").contains("web1"));
        let mut shell = world.machine("m02").viewer_of_shell().await;
        assert_eq!(shell.run("hostname").await, "tool1");
        let cmdline = shell.run("cat /proc/cmdline").await;
        for word in [
            "koboshi.seat=tool1",
            "koboshi.role=rescue",
            "koboshi.server=http://10.77.0.1:8080",
            "koboshi.boot=",
        ] {
            assert!(cmdline.contains(word), "{word} in {cmdline}");
        }
        // What the site says arrives in the running root: one serial speed (S24), NIC, names, keys.
        assert!(cmdline.contains("console=ttyS0,57600"), "{cmdline}");
        for (command, expected) in [
            ("stty -F /dev/ttyS0", "speed 57600 baud"),
            ("ip -4 addr show eno1", "10.77.0.21/24"),
            ("cat /etc/hosts", "web1.rack.example"),
            ("cat /root/.ssh/authorized_keys", "ssh-ed25519"),
        ] {
            let said = shell.run(command).await;
            assert!(said.contains(expected), "{command}: {said}");
        }
        // What it logs is in its own directory on the appliance, from its kernel's first word on (S15).
        shell.run("logger -t claim -p daemon.err 'said by tool1'").await;
        let said = logged(&world, "m02", "tool1 claim - - - said by tool1").await;
        assert!(said.contains(" daemon.err tcp "), "{said}");
        for words in ["kernel - - [kmsg seq=", "Started nginx.service", "web1 systemd 1"] {
            logged(&world, "m01", words).await;
        }

        // The appliance is gone, and nobody minds (S10).
        world.kill().await;
        shell.run("logger -t claim 'said to nobody'").await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(world.curl("http://10.77.0.11/").contains("web1"));
        assert_eq!(shell.run("hostname").await, "tool1");
        world.serve().await;
        let again = koboshi::ledger::now_ms();
        assert_eq!(world.row("m01")["stage"], "up");
        // Their reports find their way back to the boots that another process opened.
        let deadline = std::time::Instant::now() + Duration::from_secs(90);
        while ["m01", "m02"].iter().any(|m| world.row(m)["heard"].as_u64() < Some(again)) {
            assert!(std::time::Instant::now() < deadline, "no heartbeat:\n{}", world.log());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }

        // What was said meanwhile waited there.
        logged(&world, "m02", "said to nobody").await;
        // A panic, of which no program is left to tell.
        let dying = world.machine("m02").viewer();
        dying
            .send("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger\n")
            .await
            .expect("typed");
        let last = logged(&world, "m02", "Kernel panic - not syncing: sysrq triggered crash").await;
        assert!(last.contains(" netconsole "), "{last}");
        let of_m01 = world.ok(&["log", "m01", "--from", "syslog", "--since", "1h"]);
        assert!(!of_m01.contains("said by tool1") && !of_m01.contains("Kernel panic"), "{of_m01}");

        // Two lines swapped: nothing happens to running machines without a word from us.
        let site = std::fs::read_to_string(&world.site).expect("the site file");
        let swapped = site
            .replace("m01 = \"web1\"", "m01 = \"tool1\"")
            .replace("m02 = \"tool1\"\nm03", "m02 = \"web1\"\nm03");
        std::fs::write(&world.site, swapped).expect("written");
        let waits = world.run(&["reload"]);
        assert_eq!(waits.status.code(), Some(1), "{}", text(&waits));
        world.ok(&["reload", "--accept"]);
        for machine in ["m01", "m02"] {
            world.machine(machine).cycle().await.expect("power cycle");
        }
        world.up("m01", "tool1").await;
        world.up("m02", "web1").await;
        assert_eq!(world.row("m01")["address"], "10.77.0.21");
        assert_eq!(world.row("m02")["address"], "10.77.0.11");
        assert_eq!(world.row("m02")["role"], "web");
        assert!(world.curl("http://10.77.0.11/").contains("web1"));
        let mut shell = world.machine("m01").viewer_of_shell().await;
        assert_eq!(shell.run("hostname").await, "tool1");
        assert!(world.stop().await, "SIGTERM ends it well:\n{}", world.log());
    });
}

/// What a machine logged: the line with these words, once it is there.
async fn logged(world: &World, machine: &str, words: &str) -> String {
    let deadline = std::time::Instant::now() + Duration::from_secs(90);
    loop {
        let folder = world.state.join("syslog").join(machine);
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let text: String =
            files.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default()).collect();
        if let Some(line) = text.lines().find(|line| line.contains(words)) {
            return line.to_string();
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{machine} did not log {words:?}:\n{text}\n{}",
            world.log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// EDK2's own PXE stack (S1, S2); a root that was altered on its way is fetched again, never
/// booted; a spare that waits in its loader boots when it is given a seat (it has an Intel NIC, and
/// boots Debian's kernel for all hardware); a machine nobody knows
/// boots by UEFI HTTP boot the role that `net.unknown` names, of an image taken in from a tar; a machine with too
/// little memory says how much is missing, before it fetches anything, and offers a shell.
#[test]
fn uefi_boots_and_never_boots_an_altered_root() {
    let uefi = Spec { firmware: Firmware::Uefi, ..spec("m03") };
    let small = Spec { memory_mib: 320, ..spec("m05") };
    let http = Spec { firmware: Firmware::UefiHttp, ..spec("m09") };
    let intel = Spec { nic: Nic::E1000e, ..spec("m04") };
    in_world(SITE, vec![uefi, intel, small, http], async |world| {
        let mut world = world.with_images();
        let root = root_blob(&world);
        let whole = std::fs::read(&root).expect("the root's blob");
        // A file of our own in place of the link, one bit of it flipped.
        std::fs::remove_file(&root).expect("unlinked");
        std::fs::write(&root, &whole).expect("copied");
        let mut file = std::fs::OpenOptions::new().write(true).open(&root).expect("opened");
        let middle = whole.len() / 2;
        file.seek(SeekFrom::Start(middle as u64)).expect("sought");
        file.write_all(&[whole[middle] ^ 1]).expect("flipped");
        drop(file);

        world.serve().await;
        let machine = world.machine("m03");
        machine.power_on().await.expect("power on");
        world.machine("m04").power_on().await.expect("power on");
        let mut console = machine.viewer();
        console.expect("koboshi: m03 boots into tool3", MINUTES).await.expect("the script runs");
        console.expect("altered on their way", MINUTES).await.expect("the flipped bit is noticed");
        std::fs::write(&root, &whole).expect("healed");
        let boot = world.up("m03", "tool3").await;
        let seen = stages(&boot);
        for stage in ["offer", "ack", "loader", "script", "trouble", "root-ready", "up"] {
            assert!(seen.iter().any(|s| s == stage), "{stage} is in {seen:?}");
        }
        let timeline = world.ok(&["boots", "m03"]);
        assert!(timeline.contains("asked the size of ipxe.efi"), "{timeline}");
        assert!(timeline.contains(" tries"), "{timeline}");

        let mut spare = world.machine("m04").viewer();
        spare.expect("m04 is a spare and waits for a seat", MINUTES).await.expect("it says so");
        assert_eq!(world.row("m04")["stage"], "waiting");
        world.ok(&["seat", "m04", "tool4"]);
        world.up("m04", "tool4").await;
        assert_eq!(world.row("m04")["address"], "10.77.0.24");
        world.machine("m04").power_off().await.expect("power off");

        world.machine("m05").power_on().await.expect("power on");
        let mut small = world.machine("m05").viewer();
        small.expect("MiB are missing", MINUTES).await.expect("it says how much is missing");
        let deadline = std::time::Instant::now() + MINUTES;
        while world.row("m05")["stage"] != "rescue" {
            assert!(std::time::Instant::now() < deadline, "{}", world.ok(&["boots", "m05"]));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let boot = &world.json(&["boots", "m05"])[0];
        assert!(!stages(boot).contains(&"root".to_string()), "nothing was fetched: {boot:#}");
        let status = world.ok(&["status", "m05"]);
        assert!(status.contains("MiB are missing"), "{status}");
        assert!(status.contains("has no room in its memory: the root takes"), "{status}");
        world.machine("m05").power_off().await.expect("power off");

        // While the appliance runs: it notices the image by itself.
        let tar = own_root(world.rack.dir());
        world.ok(&["image", "import", "own", &tar]);
        world.ok(&["image", "publish", "own"]);
        assert!(world.ok(&["image", "ls"]).contains("own@1"));
        let mut own = world.machine("m09").viewer();
        world.machine("m09").power_on().await.expect("power on");
        let guest = world.up("52:54:00:77:00:09", "").await;
        own.expect("this is own-525400770009", MINUTES).await.expect("its own init ran as PID 1");
        assert_eq!(guest["plan"]["role"], "own");
        let address = guest["address"].as_str().expect("an address");
        assert!(
            address.starts_with("10.77.0.2") && address.len() == "10.77.0.200".len(),
            "{address}"
        );
        let status = world.ok(&["status"]);
        assert!(status.contains("52:54:00:77:00:09"), "{status}");
    });
}

/// The largest layer of the root.
fn root_blob(world: &World) -> std::path::PathBuf {
    let shown = world.json(&["image", "show", "rescue"]);
    let layers = shown["boot"]["layers"].as_array().expect("layers");
    let blob = layers.iter().map(|layer| &layer["blob"]).max_by_key(|blob| blob["size"].as_u64());
    let digest = blob.expect("a layer")["digest"].as_str().expect("a digest").to_string();
    world.state.join("images/blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

/// A root file system as a stranger makes one: a tar with a kernel in /boot, its modules, and an
/// init of its own.
fn own_root(dir: &std::path::Path) -> String {
    let packages =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rack/cache/packages");
    let tar = dir.join("own.tar");
    let script = r#"
        set -eu
        packages=$1 root=$2/own tar=$3
        kernel=$(echo "$packages"/linux-image-*-cloud-*/)
        vmlinuz=$(find "$kernel" -name 'vmlinuz-*' | head -n 1)
        release=${vmlinuz##*/vmlinuz-}
        modules=$(find "$kernel" -type d -path '*lib/modules/*' -name "$release" | head -n 1)
        mkdir -p "$root/boot" "$root/usr/lib/modules" "$root/bin" "$root/sbin" "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp" "$root/etc"
        cp "$vmlinuz" "$root/boot/"
        cp -a "$modules" "$root/usr/lib/modules/"
        cp /bin/busybox "$root/bin/busybox"
        ln -s busybox "$root/bin/sh"
        cat > "$root/sbin/init" <<'INIT'
#!/bin/sh
/bin/busybox echo "this is $(/bin/busybox hostname), PID $$"
while :; do /bin/busybox sleep 60; done
INIT
        chmod 755 "$root/sbin/init"
        tar -C "$root" -cf "$tar" .
    "#;
    let output = std::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .args([&packages, dir, tar.as_path()])
        .output()
        .expect("sh runs");
    assert!(output.status.success(), "{}", text(&output));
    tar.to_str().expect("UTF-8").to_string()
}

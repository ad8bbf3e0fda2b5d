//! Roots that are not unpacked into memory, and data disks: overlay, NFS, labels.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use koboshi::lab::machine::Power;
use koboshi::lab::net::Peer;
use koboshi::lab::qemu::{Bus, Disk, Spec};

use super::{HasShell, MINUTES, spec};
use crate::world::{World, in_world, stages, text};

const OVERLAYS: &str = r#"
[site]
name = "rack"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"

[roles.tool]
image = "rescue"
root = "overlay"
root-size = "48m"

[roles.web]
image = "web"
root = "overlay"

[machines]
m01 = { mac = ["52:54:00:77:00:01"] }
m02 = { mac = ["52:54:00:77:00:02"] }

[seats]
db1 = { role = "tool", ip = "10.77.0.11", disks = { "/data" = "LABEL=db" } }
web1 = { role = "web", ip = "10.77.0.12", disks = { "/var/lib/site" = "SERIAL=site0" } }

[matrix]
m01 = "db1"
m02 = "web1"
"#;

/// An overlay for busybox and for systemd, its squashfs made by the appliance; what is written is
/// bounded, and its end is ENOSPC, not the machine's. A data disk keeps a file over a power cycle; two
/// of one label are refused, one that is gone is waited for, and a boot goes on when it is back.
#[test]
fn overlays_and_data_disks() {
    let two = vec![Disk::new(64, "disk0"), Disk::new(64, "disk1")];
    let site = vec![Disk { bus: Bus::Nvme, ..Disk::new(64, "site0") }];
    let specs = vec![Spec { disks: two, ..spec("m01") }, Spec { disks: site, ..spec("m02") }];
    in_world(OVERLAYS, specs, async |world| {
        let mut world = world.with_images();
        let disk = |name: &str| world.rack.dir().join(name);
        let (first, second) = (disk("m01.disk0"), disk("m01.disk1"));
        for (path, label) in [(&first, "db"), (&second, "db"), (&disk("m02.disk0"), "site")] {
            mke2fs(path, label);
        }
        world.serve().await;
        world.machine("m01").power_on().await.expect("power on");
        world.machine("m02").power_on().await.expect("power on");

        let mut console = world.machine("m01").viewer();
        console.expect("LABEL=db is there 2 times", MINUTES).await.expect("two of a label");
        wait_until(&world, "the trouble is in status", || {
            let status = world.ok(&["status", "m01"]);
            status.contains("2 times: vda") && status.contains("vdb")
        })
        .await;
        console.send("rescue\n").await.expect("typed");
        console.expect("rescue:/# ", MINUTES).await.expect("a shell");
        console.send("dd if=/dev/zero of=/dev/vdb bs=64k count=1; exit\n").await.expect("typed");
        let boot = world.up("m01", "db1").await;
        // Nobody made the squashfs but the appliance, while the machine was on its way.
        let events = world.ok(&["events"]);
        assert!(events.contains("the squashfs of rescue@"), "{events}");
        assert!(stages(&boot).contains(&"trouble".to_string()), "{boot:#}");

        let mut shell = world.machine("m01").viewer_of_shell().await;
        let root = shell.run("grep ' / ' /proc/mounts | grep -v rootfs").await;
        assert!(root.starts_with("overlay / overlay rw"), "{root}");
        let free = shell.run("df -m / | tail -n 1").await;
        assert!(free.split_whitespace().nth(1) == Some("48"), "{free}");
        let full = shell.run("dd if=/dev/zero of=/full bs=1M count=500 2>&1; echo").await;
        assert!(full.contains("No space left"), "{full}");
        assert_eq!(shell.run("hostname; rm /full").await, "db1");
        let mounted = shell.run("grep ' /data ' /proc/mounts; grep /data /etc/fstab").await;
        assert!(mounted.starts_with("/dev/vda /data ext4 rw"), "{mounted}");
        assert!(mounted.contains("/data ext4 defaults 0 0"), "{mounted}");
        shell.run("echo still here > /data/kept; sync").await;

        // systemd takes the overlay and the disk as they are.
        let web = world.up("m02", "web1").await;
        assert!(world.curl("http://10.77.0.12/").contains("web1"));
        let mut systemd = world.machine("m02").viewer_of_shell().await;
        let state =
            systemd.run("systemctl is-system-running; systemctl --failed --no-legend").await;
        assert!(state.starts_with("running"), "{state}\n{web:#}");
        let unit = systemd.run("systemctl show -p ActiveState,What var-lib-site.mount").await;
        assert!(unit.contains("ActiveState=active") && unit.contains("nvme0n1"), "{unit}");
        world.machine("m02").power_off().await.expect("power off");

        // The disk vanishes between two boots, and comes back.
        world.machine("m01").power_off().await.expect("power off");
        let superblock = exchange(&first, &[0; 1024]);
        world.machine("m01").power_on().await.expect("power on");
        let mut console = world.machine("m01").viewer();
        console
            .expect(
                "prepare-disks --disk disk0 --label db`); disks seen: vda (64 MiB, blank)",
                MINUTES,
            )
            .await
            .expect("it says what it waits for");
        wait_until(&world, "the trouble is in status", || {
            world.ok(&["status", "m01"]).contains("LABEL=db for /data is not there")
        })
        .await;
        exchange(&first, &superblock);
        world.up("m01", "db1").await;
        let mut shell = world.machine("m01").viewer_of_shell().await;
        assert_eq!(shell.run("cat /data/kept").await, "still here");
    });
}

const NFS: &str = r#"
[site]
name = "rack"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"

[roles.web]
image = "web"
root = "nfs"
nfs = "10.77.0.9:/web"

[roles.tool]
image = "rescue"
root = "nfs"
nfs = "10.77.0.9:/tool,rw,vers=4.1"

[machines]
m01 = { mac = ["52:54:00:77:00:01"] }
m02 = { mac = ["52:54:00:77:00:02"] }

[seats]
web1 = { role = "web", ip = "10.77.0.11" }
tool1 = { role = "tool", ip = "10.77.0.12" }

[matrix]
m01 = "web1"
m02 = "tool1"
"#;

/// A server that is down, then silent, then there: the boots go on by themselves. A systemd root keeps
/// its root and its address when networkd is restarted; nothing it writes reaches the export. A root
/// that may write finds its file again after a power cycle. The server names the owners of files.
#[test]
fn nfs_roots_wait_for_their_server_and_keep_it() {
    in_world(NFS, vec![spec("m01"), spec("m02")], async |world| {
        let mut world = world.with_images();
        let server = world.rack.wire().peer().expect("a neighbour");
        server.address([10, 77, 0, 9].into(), 24).expect("an address");
        let exports = world.rack.dir().join("exports");
        for (image, name) in [("web", "web"), ("rescue", "tool")] {
            unpack(&world, image, &exports.join(name));
        }
        world.serve().await;
        world.machine("m01").power_on().await.expect("power on");
        world.machine("m02").power_on().await.expect("power on");
        let mut console = world.machine("m01").viewer();
        console.expect("no NFS server runs on 10.77.0.9", MINUTES).await.expect("nobody there");
        world.rack.wire().lose(&server.port, 100).expect("packets are lost");
        let _ganesha = ganesha(&world, &server, &exports).await;
        console.expect("waits for the NFS server 10.77.0.9", MINUTES).await.expect("it hangs");
        let timeline = world.ok(&["boots", "m01"]);
        assert!(timeline.contains("no NFS server runs on 10.77.0.9"), "{timeline}");
        world.rack.wire().heal(&server.port).expect("packets arrive again");

        world.up("m01", "web1").await;
        assert!(world.curl("http://10.77.0.11/").contains("web1"));
        let mut shell = world.machine("m01").viewer_of_shell().await;
        let timeline = world.ok(&["boots", "m01"]);
        assert!(timeline.contains("names its owners (root@localdomain)"), "{timeline}");
        let root = shell.run("grep ' / ' /proc/mounts").await;
        assert!(root.contains("overlay / overlay rw"), "{root}");
        // The server names owners, and the image has nobody who would know their numbers.
        let owners = "stat -c '%U:%G' / /usr/bin/su /etc/shadow /var/mail /var/lib/nginx/body";
        let whose = shell.run(owners).await.replace('\r', "");
        assert_eq!(whose, "root:root\nroot:root\nroot:shadow\nroot:mail\nwww-data:root");
        assert!(shell.run("ls /sbin/request-key 2>&1").await.contains("No such file"));
        let cmdline = shell.run("cat /proc/cmdline").await;
        assert!(cmdline.contains("koboshi.root=nfs:10.77.0.9:/web"), "{cmdline}");
        // What is in no cache has to come from the server.
        let read = "echo 3 > /proc/sys/vm/drop_caches; sha256sum < /usr/sbin/nginx";
        // The kernel says on the console that it dropped them.
        let sum = |said: String| said.lines().last().unwrap_or_default().to_string();
        let before = sum(shell.run(read).await);
        assert!(before.len() >= 64, "{before}");
        for verb in ["restart", "stop", "start"] {
            let said = shell.run(&format!("systemctl {verb} systemd-networkd; echo $?")).await;
            assert!(said.ends_with('0'), "{verb}: {said}");
            assert_eq!(sum(shell.run(read).await), before, "{verb}");
            assert!(world.curl("http://10.77.0.11/").contains("web1"), "{verb}");
        }
        let image = std::fs::read_to_string(exports.join("web/etc/hostname")).unwrap_or_default();
        assert_ne!(image.trim(), "web1", "written above the export, not into it");

        world.up("m02", "tool1").await;
        let mut shell = world.machine("m02").viewer_of_shell().await;
        let root = shell.run("grep ' / nfs4 ' /proc/mounts").await;
        assert!(root.contains("10.77.0.9:/tool / nfs4 rw") && root.contains("vers=4.1"), "{root}");
        assert_eq!(shell.run("echo written > /kept; sync; hostname").await, "tool1");
        world.machine("m02").cycle().await.expect("power cycle");
        world.up("m02", "tool1").await;
        let mut shell = world.machine("m02").viewer_of_shell().await;
        assert_eq!(shell.run("cat /kept").await, "written");

        // Each is a client of its own to the server: the other's coming and going has cost it nothing.
        tokio::time::sleep(Duration::from_secs(15)).await;
        let mut shell = world.machine("m01").viewer_of_shell().await;
        assert_eq!(sum(shell.run(read).await), before);
        // systemd lets go of its root in good order, and in good time.
        let machine = world.machine("m01").clone();
        machine.console().send("systemctl poweroff\n").await.expect("typed");
        let deadline = Instant::now() + Duration::from_secs(90);
        while machine.status().await != Power::Off {
            assert!(Instant::now() < deadline, "{}", machine.console().tail(30));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
}

async fn wait_until(world: &World, what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + MINUTES;
    while !done() {
        assert!(Instant::now() < deadline, "{what}:\n{}\n{}", world.ok(&["status"]), world.log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A file system on a disk of the rack.
pub fn mke2fs(path: &Path, label: &str) {
    let output = std::process::Command::new("/sbin/mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-L", label])
        .arg(path)
        .output()
        .expect("mke2fs (e2fsprogs)");
    assert!(output.status.success(), "{}", text(&output));
}

/// Writes the superblock of a disk of ext4; returns what was there.
fn exchange(path: &Path, superblock: &[u8; 1024]) -> [u8; 1024] {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the disk");
    let mut former = [0; 1024];
    file.read_exact_at(&mut former, 1024).expect("read");
    file.write_all_at(superblock, 1024).expect("written");
    former
}

/// An image's root as a directory to export.
fn unpack(world: &World, image: &str, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    let shown = world.json(&["image", "show", image]);
    for layer in shown["boot"]["layers"].as_array().expect("layers") {
        let digest = layer["blob"]["digest"].as_str().expect("a digest");
        let blobs = world.state.join("images/blobs/sha256");
        let blob = blobs.join(digest.trim_start_matches("sha256:"));
        let tar = |what: &[&str]| {
            let mut command = std::process::Command::new("tar");
            let output = command.arg("--zstd").args(what).arg("-f").arg(&blob).arg("-C").arg(to);
            let output = output.output().expect("tar runs");
            assert!(output.status.success(), "{}", text(&output));
            String::from_utf8(output.stdout).expect("names of ours are UTF-8")
        };
        // What it takes away of those below it.
        for gone in tar(&["-t"]).lines().filter(|name| name.contains("/.wh.")) {
            let gone = to.join(gone.replace("/.wh.", "/"));
            let _ = std::fs::remove_file(&gone).or_else(|_| std::fs::remove_dir_all(&gone));
        }
        tar(&["-xp", "--exclude=.wh.*"]);
    }
}

/// NFS-Ganesha on a neighbour, exporting `/web` and `/tool`.
async fn ganesha(world: &World, server: &Peer, exports: &Path) -> tokio::process::Child {
    let dir = world.rack.dir().join("ganesha");
    let recovery: [PathBuf; 2] = [dir.join("v4recov"), dir.join("v4old")];
    recovery.iter().for_each(|dir| std::fs::create_dir_all(dir).expect("a directory"));
    let export = |id: u32, name: &str| {
        format!(
            "EXPORT {{ Export_Id = {id}; Path = \"{}\"; Pseudo = \"/{name}\"; Access_Type = RW; \
             Squash = No_Root_Squash; SecType = sys; FSAL {{ Name = VFS; }} }}\n",
            exports.join(name).display()
        )
    };
    let config = format!(
        "NFS_CORE_PARAM {{ Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; }}\n\
         NFSv4 {{ RecoveryBackend = \"fs\"; RecoveryRoot = \"{}\"; Grace_Period = 5; Lease_Lifetime = 15; }}\n\
         LOG {{ Default_Log_Level = WARN; }}\n{}{}",
        dir.display(),
        export(1, "web"),
        export(2, "tool"),
    );
    let file = dir.join("ganesha.conf");
    std::fs::write(&file, config).expect("written");
    let mut command = world.rack.command("ganesha.nfsd");
    command.arg("-F").arg("-f").arg(&file).arg("-L").arg(dir.join("log"));
    command.arg("-p").arg(dir.join("pid"));
    server.keeper.spawn(command).await.expect("ganesha.nfsd (nfs-ganesha, nfs-ganesha-vfs)")
}

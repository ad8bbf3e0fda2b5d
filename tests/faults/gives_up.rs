//! A disk that gives up under a running appliance: ext4 makes itself read-only at the first error it does not
//! understand, and no `remount` brings it back, only a check of the disk that nobody has open.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{boot_of, own_mounts, report, site, until};
use crate::wire::{peer, rom, udhcpc};
use crate::world::{in_world, text};

/// A file system of its own over a folder, in a mount namespace of this test.
struct Ext4 {
    image: PathBuf,
    at: PathBuf,
}

impl Ext4 {
    fn make(at: &Path) -> Ext4 {
        fs::create_dir_all(at).expect("a folder");
        let image = at.with_extension("disk");
        let file = fs::File::create(&image).expect("a file");
        file.set_len(64 << 20).expect("a size");
        let disk = Ext4 { image, at: at.to_path_buf() };
        tool("mkfs.ext4", &["-q"], &[&disk.image]);
        disk.mount();
        disk
    }

    /// The kernel lets its loop device go with the mount.
    fn mount(&self) {
        tool("mount", &["-o", "loop"], &[&self.image, &self.at]);
    }

    /// As after an error: what is open for writing stays open, and takes nothing.
    fn gives_up(&self) {
        tool("mount", &["-o", "remount,abort"], &[&self.at]);
    }

    /// What an operator does then.
    fn repair(&self) {
        tool("umount", &[], &[&self.at]);
        let checked = Command::new("e2fsck").args(["-f", "-y"]).arg(&self.image).output();
        let checked = checked.expect("e2fsck runs");
        // 1: it had something to correct.
        assert!(checked.status.code().is_some_and(|code| code < 2), "{}", text(&checked));
        self.mount();
    }
}

impl Drop for Ext4 {
    /// The folder under it is to be removed, and what koboshi noted of the disk, where it had to.
    fn drop(&mut self) {
        let at = self.at.to_string_lossy().trim_matches('/').replace('/', "-");
        let _there_was_nothing = fs::remove_file(format!("/run/koboshi-{at}.failures"));
        let _it_went_with_the_test = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

fn tool(tool: &str, words: &[&str], paths: &[&Path]) {
    let output = Command::new(tool).args(words).args(paths).output().expect("it runs");
    assert!(output.status.success(), "{tool} {words:?}: {}", text(&output));
}

#[test]
fn a_disk_that_gives_up_takes_back_nothing_that_was_acknowledged() {
    own_mounts();
    in_world(&site(), vec![], async |mut world| {
        let disk = Ext4::make(&world.state);
        super::image(&world.state, "rescue");
        world.serve().await;
        let [m01, m02, m03] = ["52:54:00:77:00:01", "52:54:00:77:00:02", "52:54:00:77:00:03"]
            .map(|mac| peer(&world, mac));
        let kept = udhcpc(&m02).expect("an address of the pool");
        assert_eq!(rom(&m01).as_deref(), Some("10.77.0.21"));
        m01.address(Ipv4Addr::new(10, 77, 0, 21), 24).expect("an address");
        let boot = boot_of(&m01, "52:54:00:77:00:01");
        assert_eq!(
            report(&m01, &boot, 1, r#""init","kernel":"6.1","memory_mib":512,"nic":"eth0""#),
            "204"
        );
        disk.gives_up();

        // It serves what needs no writing, acknowledges nothing that does, and says what is wrong.
        assert_eq!(udhcpc(&m01).as_deref(), Some("10.77.0.21"));
        let script = "http://10.77.0.1:8080/boot/52:54:00:77:00:01.ipxe";
        let script = m01.output("curl", &["-sS", "--fail", script]).expect("curl runs");
        assert!(text(&script).contains("#!ipxe"), "{}", text(&script));
        assert_eq!(report(&m01, &boot, 2, r#""up","by":"init""#), "503");
        assert_eq!(udhcpc(&m03), None);
        let status = || text(&world.run(&["status"]));
        until("it says of both", || {
            let said = status();
            said.contains("koboshi.redb cannot be written")
                && said.contains("leases.journal cannot be written")
        })
        .await;
        let said = status();
        assert!(said.contains("findmnt -T") && said.contains("fsck"), "{said}");
        world.kill().await;

        disk.repair();
        world.serve().await;
        // It is written anew at the start, with what was found in it.
        let journal = fs::read(world.state.join("leases.journal")).expect("the journal");
        let known = |mac: &str| String::from_utf8_lossy(&journal).contains(mac);
        assert_eq!(["52:54:00:77:00:02", "52:54:00:77:00:03"].map(known), [true, false]);
        assert_eq!(world.row("m01")["stage"], "init", "{}", world.row("m01"));
        assert_eq!(udhcpc(&m02), Some(kept));
        assert_eq!(report(&m01, &boot, 3, r#""up","by":"init""#), "204");
        assert!(udhcpc(&m03).is_some());
        let whole = super::whole(&world.state);
        assert_eq!(whole, 1);
    });
}

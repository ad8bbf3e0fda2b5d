//! Which disk is meant, among disks of all sorts; and what fstab is told.

use super::*;
use crate::disks::superblock::Found;

fn device(name: &str, kind: Option<Kind>, label: &str) -> Device {
    let uuid = format!("uuid-of-{name}");
    Device {
        name: name.into(),
        size: 1 << 30,
        holds: kind.map(|kind| Found { kind, label: label.into(), uuid }),
        ..Device::default()
    }
}

fn pick(what: &str, devices: &[Device]) -> Result<Option<String>, String> {
    let disk = Disk { at: "/var/lib/mysql".into(), what: what.into() };
    let mapped = |name: &str| (name == "vg/db").then(|| "dm-0".to_owned());
    let found = choose(&disk, &Wanted::parse(what).unwrap(), devices, &mapped)?;
    Ok(found.map(|device| device.name.clone()))
}

#[test]
fn each_way_to_name_a_disk() {
    let mut one = device("sda1", Some(Kind::Ext), "db");
    one.part_label = "data".into();
    one.part_uuid = "abcd-01".into();
    one.serials = vec!["S3R1AL".into(), "naa.5000".into()];
    let all = [device("sdb", None, ""), one, device("dm-0", Some(Kind::Xfs), "log")];
    for what in [
        "LABEL=db",
        "UUID=UUID-of-sda1",
        "PARTLABEL=data",
        "PARTUUID=ABCD-01",
        "SERIAL=S3R1AL",
        "SERIAL=naa.5000",
        "/dev/sda1",
        "/dev/disk/by-label/db",
    ] {
        assert_eq!(pick(what, &all), Ok(Some("sda1".into())), "{what}");
    }
    assert_eq!(pick("/dev/vg/db", &all), Ok(Some("dm-0".into())));
    for what in ["LABEL=none", "SERIAL=s3r1al", "/dev/sda", "LABEL=DB"] {
        assert_eq!(pick(what, &all), Ok(None), "{what}");
    }
    for what in ["", "LABEL=", "db", "/dev/", "/dev/disk/by-id/ata-x", "label=db"] {
        assert_eq!(Wanted::parse(what), None, "{what}");
    }
}

#[test]
fn two_of_a_label_are_refused_by_name() {
    let all = [device("vda", Some(Kind::Ext), "db"), device("vdb", Some(Kind::Xfs), "db")];
    let why = pick("LABEL=db", &all).unwrap_err();
    assert!(why.contains("2 times") && why.contains("vda (") && why.contains("vdb ("), "{why}");
    // Only one of them can be mounted at all.
    let all = [device("vda", Some(Kind::Ext), "db"), device("vdb", Some(Kind::Raid), "db")];
    assert_eq!(pick("LABEL=db", &all), Ok(Some("vda".into())));
}

#[test]
fn a_btrfs_of_two_disks_is_one() {
    let mut all =
        [device("vda", Some(Kind::Btrfs), "pool"), device("vdb", Some(Kind::Btrfs), "pool")];
    assert!(pick("LABEL=pool", &all).is_err(), "two of the same label");
    all[1].holds = all[0].holds.clone();
    assert_eq!(pick("LABEL=pool", &all), Ok(Some("vda".into())));
    // A mirror's halves side by side, without RAID: the same bytes, and yet two.
    let mut all = [device("vda", Some(Kind::Ext), "db"), device("vdb", Some(Kind::Ext), "db")];
    all[1].holds = all[0].holds.clone();
    assert!(pick("LABEL=db", &all).is_err());
}

#[test]
fn what_cannot_be_mounted_is_said() {
    let mut all =
        [device("vda1", None, ""), device("vdb", Some(Kind::Other("LUKS (encrypted)")), "")];
    all[0].part_label = "db".into();
    let why = pick("PARTLABEL=db", &all).unwrap_err();
    assert!(
        why.contains("vda1 (1024 MiB, blank)") && why.contains("nothing is formatted"),
        "{why}"
    );
    assert!(pick("/dev/vdb", &all).unwrap_err().contains("LUKS (encrypted)"));
    // A member waits for the whole.
    let all = [device("vda", Some(Kind::Raid), "db"), device("vdb", Some(Kind::Lvm), "")];
    assert_eq!(pick("LABEL=db", &all), Ok(None));
    assert_eq!(pick("/dev/vdb", &all), Ok(None));
    let disk = Disk { at: "/data".into(), what: "LABEL=db".into() };
    let said = missing(&disk, &all, &["no mdadm".into()]);
    assert_eq!(
        said,
        "LABEL=db for /data is not there; disks seen: vda (1024 MiB, a RAID member LABEL=db), \
         vdb (1024 MiB, an LVM volume); no mdadm"
    );
    assert!(missing(&disk, &[], &[]).ends_with("disks seen: none"));
    // A blank disk of a known serial number could be that one; what holds something, or is part of something, is not.
    let blank = Device { serials: vec!["S3R1AL".into()], ..device("vdc", None, "") };
    let part = Device { disk: Some("vdc".into()), ..blank.clone() };
    let said = missing(&disk, &[all[0].clone(), blank.clone()], &[]);
    let command =
        "`koboshi maintain MACHINE prepare-disks --disk S3R1AL --label db`); disks seen: ";
    assert!(said.contains(command), "{said}");
    let by_uuid = Disk { what: "UUID=1-2".into(), ..disk.clone() };
    for (disk, device) in [(&disk, part), (&by_uuid, blank)] {
        assert!(!missing(disk, &[device], &[]).contains("prepare-disks"));
    }
}

#[test]
fn a_serial_number_is_of_the_disk_and_its_partitions() {
    let serial = |mut device: Device| {
        device.serials = vec!["S1".into()];
        device
    };
    let mut whole = serial(device("sda", None, ""));
    whole.used = true;
    let boot = serial(device("sda1", Some(Kind::Other("FAT")), ""));
    let data = serial(device("sda2", Some(Kind::Ext), "db"));
    let all = [whole, boot, data, serial(device("sda3", Some(Kind::Ext), "log"))];
    assert_eq!(pick("SERIAL=S1", &all[..3]), Ok(Some("sda2".into())));
    let why = pick("SERIAL=S1", &all).unwrap_err();
    assert!(why.contains("sda2") && why.contains("sda3"), "{why}");
}

#[test]
fn fstab_keeps_the_images_lines_and_says_ours_once() {
    let image =
        "# a comment /data\nproc /proc proc defaults 0 0\nLABEL=old /data/ ext3 defaults 0 2\n";
    let disks = [Mounted { source: "UUID=ab".into(), at: "/data".into(), kind: "ext4" }];
    let once = fstab(image, &disks);
    assert_eq!(
        once,
        format!(
            "# a comment /data\nproc /proc proc defaults 0 0\n{MARK}\nUUID=ab /data ext4 defaults 0 0\n"
        )
    );
    assert_eq!(fstab(&once, &disks), once);
    let blank = [Mounted { source: "/dev/vda".into(), at: "/my data".into(), kind: "xfs" }];
    assert!(fstab("", &blank).contains("/my\\040data"));
}

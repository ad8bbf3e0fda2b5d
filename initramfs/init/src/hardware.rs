//! Before the root is fetched: what this machine is made of, read from `/sys` and `/proc`. A machine
//! nobody knows is shown to the operator by it; a known one proves by it that it is still the same.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::contract::REPORT_MAX;
use crate::contract::hardware::{Cpu, Disk, Firmware, Hardware, Port};
use crate::contract::room::Memory;
use crate::net::link;

/// Longest text of one field. A vendor's longest product name has 60 characters.
const TEXT_MAX: usize = 64;
/// Room in a report for what stands around the hardware.
const AROUND: usize = 512;

/// All of it but the BMC, which is asked and not read. `root` is `/`.
pub fn gather(root: &Path) -> Hardware {
    let dmi = |file: &str| line(&root.join("sys/class/dmi/id").join(file));
    let cpuinfo = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let hardware = Hardware {
        vendor: dmi("sys_vendor"),
        product: dmi("product_name"),
        serial: dmi("product_serial"),
        uuid: dmi("product_uuid"),
        board: dmi("board_serial"),
        firmware: Firmware {
            uefi: root.join("sys/firmware/efi").exists(),
            vendor: dmi("bios_vendor"),
            version: dmi("bios_version"),
            date: dmi("bios_date"),
        },
        cpu: cpu(&cpuinfo),
        memory_mib: Memory::parse(&meminfo).total >> 20,
        disks: disks(root),
        nics: ports(root),
        bmc: None,
        left_out: 0,
    };
    fitting(hardware)
}

/// A shelf of 100 disks is cut to what a report holds: cards go last, they are what it is known by.
fn fitting(mut hardware: Hardware) -> Hardware {
    let size = |hardware: &Hardware| serde_json::to_vec(hardware).map_or(0, |json| json.len());
    while size(&hardware) > REPORT_MAX - AROUND {
        if hardware.disks.pop().is_none() && hardware.nics.pop().is_none() {
            break;
        }
        hardware.left_out += 1;
    }
    hardware
}

/// `/proc/cpuinfo`: a paragraph for each thread.
fn cpu(cpuinfo: &str) -> Cpu {
    let mut cpu = Cpu::default();
    let (mut sockets, mut cores) = (BTreeSet::new(), BTreeSet::new());
    for thread in cpuinfo.split("\n\n") {
        let field = |name: &str| {
            let mut lines = thread.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
        };
        if field("processor").is_none() {
            continue;
        }
        cpu.threads += 1;
        // Without these two lines (a virtual machine, arm64) each thread is a core of one socket.
        let socket = field("physical id").unwrap_or("0").to_owned();
        let core = field("core id").or(field("processor")).unwrap_or_default().to_owned();
        if cpu.model.is_empty() {
            cpu.model = plain(field("model name").unwrap_or_default());
        }
        cores.insert((socket.clone(), core));
        sockets.insert(socket);
    }
    cpu.sockets = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
    cpu.cores = u32::try_from(cores.len()).unwrap_or(u32::MAX);
    cpu
}

/// What is a disk: a block device of hardware with a size. An empty card reader and a BMC's virtual
/// drive without an image have none; nvme's paths behind a multipath device are hidden.
pub fn disks(root: &Path) -> Vec<Disk> {
    let mut disks = Vec::new();
    for entry in fs::read_dir(root.join("sys/block")).into_iter().flatten().flatten() {
        let (at, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let sectors: u64 = line(&at.join("size")).parse().unwrap_or(0);
        let optical = name.starts_with("sr");
        if !at.join("device").exists() || sectors == 0 || optical || line(&at.join("hidden")) == "1"
        {
            continue;
        }
        let way = fs::canonicalize(&at).unwrap_or_else(|_| at.clone());
        let vendor = match line(&at.join("device/vendor")) {
            // SATA disks behind the SCSI layer, and virtio's PCI number.
            vendor if vendor == "ATA" || vendor.starts_with("0x") => String::new(),
            vendor => vendor + " ",
        };
        let model = line(&at.join("device/model"));
        disks.push(Disk {
            bus: bus(&name, &way.to_string_lossy()).to_owned(),
            model: plain(format!("{vendor}{model}").trim()),
            serial: serial_of(&at),
            // Sectors of /sys have 512 bytes whatever the disk's own have.
            mib: sectors / 2048,
            rotates: line(&at.join("queue/rotational")) == "1",
            name: plain(&name),
            // NVMe has it at the controller; behind the SCSI layer it is four characters, and SATA's own are more.
            firmware: [at.join("device/firmware_rev"), at.join("device/rev")]
                .iter()
                .map(|path| line(path))
                .find(|word| !word.is_empty())
                .unwrap_or_default(),
        });
    }
    disks.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
    disks
}

/// virtio keeps it on the disk, nvme on the controller, SCSI on page 0x80 of its vital product data.
fn serial_of(at: &Path) -> String {
    for file in ["serial", "device/serial"] {
        let serial = line(&at.join(file));
        if !serial.is_empty() {
            return serial;
        }
    }
    let page = bytes(&at.join("device/vpd_pg80"));
    let length = page.get(2..4).map_or(0, |two| usize::from(u16::from_be_bytes([two[0], two[1]])));
    let serial = page.get(4..).unwrap_or_default();
    let serial = String::from_utf8_lossy(&serial[..length.min(serial.len())]).into_owned();
    match plain(serial.trim_matches(['\0', ' '])) {
        serial if serial.is_empty() => line(&at.join("device/wwid")),
        serial => serial,
    }
}

fn bus(name: &str, way: &str) -> &'static str {
    let passes = |part: &str| way.split('/').any(|step| step.starts_with(part));
    match name {
        _ if name.starts_with("nvme") => "nvme",
        _ if name.starts_with("vd") => "virtio",
        _ if name.starts_with("mmc") => "mmc",
        _ if passes("usb") => "usb",
        _ if passes("ata") => "sata",
        _ => "scsi",
    }
}

/// Ethernet ports of hardware, in the kernel's order.
fn ports(root: &Path) -> Vec<Port> {
    let net = root.join("sys/class/net");
    let cards = link::cards(&net).into_iter();
    let cards = cards.filter(|card| net.join(&card.name).join("device").exists());
    let port = |card: link::Card| {
        let at = net.join(&card.name);
        let last = |link: &str| {
            let target = fs::read_link(at.join(link)).unwrap_or_default();
            let last = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
            plain(&last)
        };
        // A port that is down answers EINVAL.
        let carrier = match line(&at.join("carrier")).as_str() {
            "1" => Some(true),
            "0" => Some(false),
            _ => None,
        };
        // -1, or 2^32 - 1 in older kernels: not known.
        let mbit =
            line(&at.join("speed")).parse().ok().filter(|mbit| (1..10_000_000).contains(mbit));
        Port {
            name: plain(&card.name),
            mac: link::show_mac(&card.mac),
            driver: last("device/driver"),
            slot: last("device"),
            link: carrier,
            mbit: mbit.filter(|_| carrier == Some(true)),
        }
    };
    cards.map(port).collect()
}

/// The first line of a small file; empty if there is none.
fn line(path: &Path) -> String {
    let bytes = bytes(path);
    let text = String::from_utf8_lossy(&bytes);
    plain(text.lines().next().unwrap_or_default().trim_matches([' ', '\t', '\0']))
}

fn bytes(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Not there, not for us, or a device that does not answer: as if it had said nothing.
    let _ = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut bytes));
    bytes
}

/// Firmware's strings have been seen with anything in them.
pub fn plain(text: &str) -> String {
    let fits = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    text.chars().take(TEXT_MAX).map(fits).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::contract::{Phase, Report};

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(files: &[(&str, &[u8])]) -> Machine {
            let machine = Machine(tempfile::tempdir().unwrap());
            for (path, content) in files {
                let path = machine.0.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            machine
        }

        fn link(&self, from: &str, to: &str) {
            let from = self.0.path().join(from);
            fs::create_dir_all(from.parent().unwrap()).unwrap();
            symlink(to, from).unwrap();
        }
    }

    const XEON: &str = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold 6130\nphysical id\t: 0\ncore id\t: 0\n\n\
        processor\t: 1\nmodel name\t: Intel(R) Xeon(R) Gold 6130\nphysical id\t: 0\ncore id\t: 0\n\n\
        processor\t: 2\nmodel name\t: x\nphysical id\t: 1\ncore id\t: 0\n\n";

    #[test]
    fn a_server_is_read() {
        let machine = Machine::new(&[
            ("sys/class/dmi/id/sys_vendor", b"HPE\n"),
            ("sys/class/dmi/id/product_name", b"ProLiant DL360 Gen10\n"),
            ("sys/class/dmi/id/product_serial", b"CZ123 \n"),
            ("sys/class/dmi/id/bios_version", b"U32\x1b[2J\n"),
            ("sys/firmware/efi/fw_platform_size", b"64\n"),
            ("proc/cpuinfo", XEON.as_bytes()),
            ("proc/meminfo", b"MemTotal:       65536000 kB\n"),
            ("sys/block/sda/device/model", b"MZ7LH480        \n"),
            ("sys/block/sda/device/vendor", b"ATA     \n"),
            ("sys/block/sda/device/vpd_pg80", b"\x00\x80\x00\x05S4RFX"),
            ("sys/block/sda/size", b"937703088\n"),
            ("sys/block/sda/queue/rotational", b"0\n"),
            ("sys/block/nvme0n1/device/serial", b"NV1\n"),
            ("sys/block/nvme0n1/device/firmware_rev", b"GDC5602Q\n"),
            ("sys/block/sda/device/rev", b"404Q\n"),
            ("sys/block/nvme0n1/size", b"2097152\n"),
            ("sys/block/sr0/device/model", b"Virtual CD\n"),
            ("sys/block/sr0/size", b"2097151\n"),
            ("sys/block/sdb/device/model", b"Virtual Floppy, empty\n"),
            ("sys/block/sdb/size", b"0\n"),
            ("sys/block/loop0/size", b"100\n"),
            ("sys/class/net/lo/address", b"00:00:00:00:00:00\n"),
            ("sys/class/net/lo/ifindex", b"1\n"),
            ("sys/class/net/eno1/address", b"52:54:00:77:00:01\n"),
            ("sys/class/net/eno1/ifindex", b"2\n"),
            ("sys/class/net/eno1/carrier", b"1\n"),
            ("sys/class/net/eno1/speed", b"10000\n"),
            ("sys/class/net/eno2/address", b"52:54:00:77:00:02\n"),
            ("sys/class/net/eno2/ifindex", b"3\n"),
            ("sys/class/net/eno2/speed", b"-1\n"),
            ("sys/class/net/eno3/address", b"52:54:00:77:00:02\n"),
            ("sys/class/net/eno3/ifindex", b"4\n"),
            ("sys/class/net/eno3/bonding_slave/perm_hwaddr", b"52:54:00:77:00:0B\n"),
            ("pci/0000:03:00.0/x", b""),
        ]);
        for port in ["eno1", "eno2", "eno3"] {
            machine.link(&format!("sys/class/net/{port}/device"), "../../../../pci/0000:03:00.0");
        }
        machine.link("pci/0000:03:00.0/driver", "../drivers/i40e");
        let hardware = gather(machine.0.path());
        assert_eq!(
            (hardware.vendor.as_str(), hardware.product.as_str(), hardware.serial.as_str()),
            ("HPE", "ProLiant DL360 Gen10", "CZ123")
        );
        assert_eq!((hardware.firmware.uefi, hardware.firmware.version.as_str()), (true, "U32?[2J"));
        let cpu = &hardware.cpu;
        assert_eq!((cpu.sockets, cpu.cores, cpu.threads), (2, 2, 3));
        assert_eq!(
            (cpu.model.as_str(), hardware.memory_mib),
            ("Intel(R) Xeon(R) Gold 6130", 64_000)
        );
        let disks: Vec<_> = hardware.disks.iter().map(|d| (&*d.name, &*d.serial, d.mib)).collect();
        assert_eq!(disks, [("sda", "S4RFX", 457_862), ("nvme0n1", "NV1", 1024)]);
        assert_eq!(hardware.disks[0].model, "MZ7LH480");
        let firmware: Vec<_> = hardware.disks.iter().map(|disk| &*disk.firmware).collect();
        assert_eq!(firmware, ["404Q", "GDC5602Q"]);
        let ports: Vec<_> = hardware.nics.iter().map(|p| (&*p.mac, p.link, p.mbit)).collect();
        assert_eq!(
            ports,
            [
                ("52:54:00:77:00:01", Some(true), Some(10_000)),
                ("52:54:00:77:00:02", None, None),
                ("52:54:00:77:00:0b", None, None)
            ]
        );
        assert_eq!((&*hardware.nics[0].driver, &*hardware.nics[0].slot), ("i40e", "0000:03:00.0"));
    }

    #[test]
    fn nothing_and_noise_are_read_too() {
        let empty = Machine::new(&[]);
        assert_eq!(gather(empty.0.path()), Hardware::default());
        let noise: Vec<u8> = (0..=255).cycle().take(9000).collect();
        let odd = Machine::new(&[
            ("sys/class/dmi/id/product_serial", &noise),
            ("proc/cpuinfo", &noise),
            ("sys/block/sda/size", &noise),
            ("sys/block/sdb/size", b"99999999999999999999"),
            ("sys/block/sdc/device/vpd_pg80", b"\x00\x80\xff\xff\x1b]0;x\x07"),
            ("sys/block/sdc/size", b"4096"),
        ]);
        let hardware = gather(odd.0.path());
        assert_eq!((hardware.disks.len(), &*hardware.disks[0].serial), (1, "?]0;x?"));
        assert!(
            serde_json::to_string(&hardware).unwrap().bytes().all(|b| (b' '..=b'~').contains(&b))
        );
    }

    #[test]
    fn a_shelf_of_disks_still_fits_into_a_report() {
        let text = || "x".repeat(TEXT_MAX);
        let disk = Disk {
            model: text(),
            serial: text(),
            firmware: text(),
            name: text(),
            ..Disk::default()
        };
        let port = Port { mac: text(), driver: text(), slot: text(), ..Port::default() };
        let whole =
            Hardware { disks: vec![disk; 100], nics: vec![port; 20], ..Hardware::default() };
        let cut = fitting(whole);
        assert!(cut.left_out > 0 && cut.nics.len() == 20 && !cut.disks.is_empty());
        let phase = Phase::Hardware(Box::new(cut));
        let report = Report { phase, uptime_ms: u64::MAX, seq: u32::MAX };
        let json = serde_json::to_vec(&report).unwrap();
        assert!(json.len() <= REPORT_MAX, "{}", json.len());
        assert_eq!(serde_json::from_slice::<Report>(&json).unwrap(), report);
    }
}

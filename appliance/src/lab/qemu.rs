//! What a machine is made of, and the QEMU command line that makes it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use koboshi_pxe::mac::Mac;

use super::Error;

/// The program that is a machine.
pub const QEMU: &str = "qemu-system-x86_64";

/// QEMU's name of a machine's serial line.
pub const SERIAL: &str = "serial";

const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// With Microsoft's keys in it, as real machines have them, and Secure Boot on.
const OVMF_SECURE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const OVMF_SECURE_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";

/// A machine as ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its name in the rack.
    pub name: String,
    /// Of its boot NIC.
    pub mac: Mac,
    /// What starts it.
    pub firmware: Firmware,
    /// The boot NIC's model.
    pub nic: Nic,
    /// Further NICs on the same wire. They have no ROM: firmware does not boot by them.
    pub more_nics: Vec<Card>,
    /// Memory in MiB. OVMF wants 256 before the kernel sees any.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// Blank disks. They take no room until written and keep what was written.
    pub disks: Vec<Disk>,
    /// Emulation or virtualization.
    pub accel: Accel,
    /// Begins its boot order anew when all of it failed, as a server's set-up can be told to ("Retry
    /// Boot Sequence", "Network Boot Retry"). One that does not waits for a person in the end.
    pub retries: bool,
    /// Where its BMC waits for it, if it has one: what runs on it then has that BMC at `/dev/ipmi0`, and
    /// `NAME.serial` is what its serial port emitted, whoever read it.
    pub bmc: Option<SocketAddr>,
    /// It has a graphics adapter, as a server's BMC is one; nobody looks at it.
    pub graphics: bool,
}

/// What a machine starts from. Its firmware knows no other order than the network alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// The boot NIC.
    #[default]
    Network,
    /// The first disk.
    Disk,
}

/// Which firmware, and by which of its ways it boots from the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS, and iPXE of 2019 as the NIC's option ROM: it announces user class `iPXE` from its
    /// first DISCOVER and fetches HTTP.
    Bios,
    /// OVMF; the NIC has no ROM, so that EDK2's own PXE stack asks: a genuine foreign client.
    Uefi,
    /// OVMF with PXE switched off: EDK2's HTTP boot asks, with vendor class `HTTPClient`.
    UefiHttp,
    /// OVMF by PXE with Secure Boot on: it starts what Microsoft signed, and shim is.
    UefiSecure,
}

impl Firmware {
    /// Its code, and its variables as they leave the factory.
    fn files(self) -> Option<(&'static str, &'static str)> {
        match self {
            Firmware::Bios => None,
            Firmware::Uefi | Firmware::UefiHttp => Some((OVMF_CODE, OVMF_VARS)),
            Firmware::UefiSecure => Some((OVMF_SECURE_CODE, OVMF_SECURE_VARS)),
        }
    }
}

/// A NIC beside the one that boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// Its address.
    pub mac: Mac,
    /// Its model.
    pub model: Nic,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Size in MiB.
    pub mib: u32,
    /// How it is attached.
    pub bus: Bus,
    /// Its serial number, of at most 20 characters.
    pub serial: String,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk: `/dev/vda`.
    Virtio,
    /// NVMe: `/dev/nvme0n1`.
    Nvme,
}

impl Disk {
    /// A virtio disk.
    pub fn new(mib: u32, serial: &str) -> Disk {
        Disk { mib, bus: Bus::Virtio, serial: serial.to_string() }
    }
}

/// Model of a NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nic {
    /// virtio-net-pci.
    Virtio,
    /// Intel 82574L. BIOS only: Debian's OVMF has no driver for it.
    E1000e,
}

impl Nic {
    fn device(self) -> &'static str {
        match self {
            // LACP wants to know how fast its ports are, and virtio knows only what it is told.
            Nic::Virtio => "virtio-net-pci,speed=10000,duplex=full",
            Nic::E1000e => "e1000e",
        }
    }
}

impl Bus {
    fn device(self) -> &'static str {
        match self {
            Bus::Virtio => "virtio-blk-pci",
            Bus::Nvme => "nvme",
        }
    }
}

/// How instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// QEMU's translator: works everywhere, and a kernel is up in 2 s.
    Tcg,
    /// The host's KVM, and TCG where `/dev/kvm` is missing or does not work.
    Kvm,
}

impl Spec {
    /// A BIOS machine with 1 GiB, one processor and one blank disk.
    pub fn new(name: &str, mac: Mac) -> Spec {
        Spec {
            name: name.to_string(),
            mac,
            firmware: Firmware::Bios,
            nic: Nic::Virtio,
            more_nics: Vec::new(),
            memory_mib: 1024,
            cpus: 1,
            disks: vec![Disk::new(1024, "disk0")],
            accel: Accel::Tcg,
            retries: true,
            bmc: None,
            graphics: false,
        }
    }

    /// The system UUID (DHCP option 97, DMI): the same for the same MAC.
    pub fn uuid(&self) -> String {
        let Mac([a, b, c, d, e, f]) = self.mac;
        format!("6b6f626f-7368-4969-8000-{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}")
    }
}

/// Makes the files a machine has in `dir`: blank disks, UEFI variables. What is there stays.
pub fn prepare(spec: &Spec, dir: &Path) -> Result<(), Error> {
    check(spec)?;
    for (number, ordered) in spec.disks.iter().enumerate() {
        let path = disk(spec, dir, number);
        let doing = format!("making {}", path.display());
        let size = u64::from(ordered.mib) << 20;
        fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .and_then(
                |file| if file.metadata()?.len() < size { file.set_len(size) } else { Ok(()) },
            )
            .map_err(Error::io(doing))?;
    }
    if let Some((code, vars)) = spec.firmware.files() {
        for file in [code, vars] {
            if !Path::new(file).exists() {
                return Err(Error::MissingTool { tool: file.into(), package: "ovmf" });
            }
        }
        let path = variables(spec, dir);
        if !path.exists() {
            // Not fs::copy: the packaged file's mode may be read-only.
            let doing = format!("making {}", path.display());
            fs::read(vars).and_then(|vars| fs::write(&path, vars)).map_err(Error::io(doing))?;
        }
    }
    Ok(())
}

fn check(spec: &Spec) -> Result<(), Error> {
    let refuse = |why: &str| Err(Error::Spec { machine: spec.name.clone(), why: why.into() });
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if spec.name.is_empty() || spec.name.starts_with('.') || !spec.name.chars().all(plain) {
        return refuse("a machine's name is made of letters, digits, '-', '_' and '.'");
    }
    if spec.firmware != Firmware::Bios && spec.nic != Nic::Virtio {
        return refuse("OVMF has no driver for an e1000e; give it a virtio NIC");
    }
    if spec.mac.is_multicast() || spec.more_nics.iter().any(|card| card.mac.is_multicast()) {
        return refuse("its MAC address is a group address");
    }
    if spec
        .disks
        .iter()
        .any(|disk| !(1..=20).contains(&disk.serial.len()) || !disk.serial.chars().all(plain))
    {
        return refuse("a disk's serial number is 1 to 20 letters, digits, '-', '_' and '.'");
    }
    Ok(())
}

/// The arguments. `taps` are the ports of the boot NIC and of the further ones, in order. Serial
/// line and monitor are file descriptors 0 and 1, both sockets.
pub fn arguments(spec: &Spec, taps: &[String], dir: &Path, start: Start) -> Vec<String> {
    let mut line: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| line.extend([option.to_string(), value]);
    add("-name", spec.name.clone());
    add("-uuid", spec.uuid());
    // What a machine's sticker says: `LAB-m01`.
    add("-smbios", format!("type=1,manufacturer=koboshi,product=lab,serial=LAB-{}", spec.name));
    if spec.accel == Accel::Kvm {
        add("-accel", "kvm".into());
    }
    add("-accel", "tcg,thread=multi".into());
    add("-cpu", "max".into());
    // graphics=off: SeaBIOS and with it iPXE speak on the serial line (S24), OVMF does anyway.
    // Secure Boot's variables are written from system management mode alone.
    let secure = spec.firmware == Firmware::UefiSecure;
    let smm = if secure { ",smm=on" } else { "" };
    add("-machine", format!("q35,graphics=off{smm}"));
    if secure {
        add("-global", "driver=cfi.pflash01,property=secure,value=on".into());
    }
    add("-m", spec.memory_mib.to_string());
    add("-smp", spec.cpus.to_string());
    add("-display", "none".into());
    add("-vga", if spec.graphics { "std" } else { "none" }.into());
    let witness = dir.join(format!("{}.serial", spec.name));
    let witness = spec.bmc.map(|_| format!(",logfile={},logappend=on", escape(&witness)));
    add("-chardev", format!("socket,id={SERIAL},fd=0{}", witness.unwrap_or_default()));
    add("-serial", format!("chardev:{SERIAL}"));
    add("-chardev", "socket,id=monitor,fd=1".into());
    add("-mon", "chardev=monitor,mode=control".into());
    if let Some(bmc) = spec.bmc {
        let (host, port) = (bmc.ip(), bmc.port());
        add("-chardev", format!("socket,id=bmc,host={host},port={port},reconnect=1"));
        add("-device", "ipmi-bmc-extern,id=bmc0,chardev=bmc".into());
        add("-device", "isa-ipmi-kcs,bmc=bmc0".into());
    }
    // Without reboot-timeout SeaBIOS stops for good when the network gave it nothing. OVMF knows no
    // such setting: see machine.rs.
    let again = if spec.retries { ",reboot-timeout=5000" } else { "" };
    add("-boot", format!("strict=on{again}"));
    for (number, tap) in taps.iter().enumerate() {
        add("-netdev", format!("tap,id=wire{number},ifname={tap},script=no,downscript=no"));
    }
    let rom = if spec.firmware == Firmware::Bios { "" } else { ",romfile=" };
    let model = spec.nic.device();
    let (nic_first, disk_first) = match start {
        Start::Network => (",bootindex=1", ""),
        Start::Disk => ("", ",bootindex=1"),
    };
    add("-device", format!("{model},id=nic,netdev=wire0,mac={}{nic_first}{rom}", spec.mac));
    for (number, card) in spec.more_nics.iter().enumerate() {
        let number = number + 1;
        let (model, mac) = (card.model.device(), card.mac);
        add("-device", format!("{model},id=nic{number},netdev=wire{number},mac={mac},romfile="));
    }
    if let Some((code, _)) = spec.firmware.files() {
        let vars = escape(&variables(spec, dir));
        add("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={code}"));
        add("-drive", format!("if=pflash,unit=1,format=raw,file={vars}"));
        let off = |what| format!("name=opt/org.tianocore/{what},string=n");
        add("-fw_cfg", off("IPv6PXESupport"));
        if spec.firmware == Firmware::UefiHttp {
            add("-fw_cfg", off("IPv4PXESupport"));
        }
    }
    for (number, ordered) in spec.disks.iter().enumerate() {
        let file = escape(&disk(spec, dir, number));
        add("-drive", format!("if=none,id=disk{number},format=raw,cache=unsafe,file={file}"));
        let (bus, serial) = (ordered.bus.device(), &ordered.serial);
        let first = if number == 0 { disk_first } else { "" };
        add("-device", format!("{bus},drive=disk{number},serial={serial}{first}"));
    }
    line.extend(["-nodefaults".to_string(), "-no-user-config".to_string()]);
    line
}

fn disk(spec: &Spec, dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("{}.disk{number}", spec.name))
}

fn variables(spec: &Spec, dir: &Path) -> PathBuf {
    dir.join(format!("{}.vars", spec.name))
}

/// QEMU's option syntax: a comma in a value is written twice.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec::new("m01", Mac([0x52, 0x54, 0, 0x77, 0, 1]))
    }

    #[test]
    fn the_same_mac_has_the_same_uuid() {
        assert_eq!(spec().uuid(), "6b6f626f-7368-4969-8000-525400770001");
    }

    #[test]
    fn only_uefi_machines_lose_their_nic_rom() {
        let dir = Path::new("/rack,1");
        let taps = ["kt0".to_string(), "kt1".to_string()];
        let second = Card { mac: Mac([0x52, 0x54, 0, 0x77, 1, 1]), model: Nic::E1000e };
        let nvme = Disk { bus: Bus::Nvme, ..Disk::new(8, "n1") };
        let bios = Spec { more_nics: vec![second], disks: vec![nvme], ..spec() };
        let bios = arguments(&bios, &taps, dir, Start::Network).join(" ");
        assert!(
            bios.contains("e1000e,id=nic1,netdev=wire1,mac=52:54:00:77:01:01,romfile="),
            "{bios}"
        );
        assert!(bios.contains("nvme,drive=disk0,serial=n1"), "{bios}");
        assert!(!bios.contains("bootindex=1,romfile") && !bios.contains("pflash"), "{bios}");
        assert!(bios.contains("file=/rack,,1/m01.disk0"), "{bios}");
        let uefi = Spec { firmware: Firmware::Uefi, ..spec() };
        let uefi = arguments(&uefi, &taps[..1], dir, Start::Network).join(" ");
        assert!(uefi.contains("romfile= ") && uefi.contains("file=/rack,,1/m01.vars"), "{uefi}");
        assert!(!uefi.contains("IPv4PXESupport"), "{uefi}");
    }

    #[test]
    fn a_machine_with_a_bmc_may_start_from_its_disk() {
        let bmc = Some("10.78.0.11:9002".parse().unwrap());
        let line = |start| {
            arguments(&Spec { bmc, ..spec() }, &["kt0".to_string()], Path::new("/rack"), start)
                .join(" ")
        };
        let network = line(Start::Network);
        assert!(network.contains("host=10.78.0.11,port=9002") && network.contains("isa-ipmi-kcs"));
        assert!(network.contains("fd=0,logfile=/rack/m01.serial"), "{network}");
        assert!(network.contains("52:54:00:77:00:01,bootindex=1"), "{network}");
        assert!(!network.contains("serial=disk0,bootindex"), "{network}");
        let disk = line(Start::Disk);
        assert!(disk.contains("serial=disk0,bootindex=1"), "{disk}");
        assert!(!disk.contains("00:01,bootindex"), "{disk}");
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let e1000e = Spec { firmware: Firmware::Uefi, nic: Nic::E1000e, ..spec() };
        let group = Spec { mac: Mac([1, 0, 0x5e, 0, 0, 1]), ..spec() };
        let disk = Spec { disks: vec![Disk::new(8, "a,b")], ..spec() };
        for bad in [e1000e, group, disk, Spec { name: "../m01".into(), ..spec() }] {
            let error = prepare(&bad, dir.path()).expect_err("refused").to_string();
            assert!(error.starts_with(&bad.name), "{error}");
        }
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }

    #[test]
    fn disks_are_blank_at_first_and_kept_later() {
        let dir = tempfile::tempdir().expect("a directory");
        prepare(&spec(), dir.path()).expect("a disk");
        let disk = dir.path().join("m01.disk0");
        assert_eq!(fs::metadata(&disk).expect("made").len(), 1 << 30);
        let mut file = fs::OpenOptions::new().write(true).open(&disk).expect("made");
        std::io::Write::write_all(&mut file, b"data").expect("room");
        prepare(&spec(), dir.path()).expect("still there");
        let mut head = [0; 4];
        let mut file = fs::File::open(&disk).expect("made");
        std::io::Read::read_exact(&mut file, &mut head).expect("1 GiB");
        assert_eq!(&head, b"data");
    }
}

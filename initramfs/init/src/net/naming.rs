//! What udev would call a NIC. The site file says `eno2` or `enp3s0f1`, as the booted system does;
//! here there is no udev, and the kernel calls it `eth1`. Rules: systemd.net-naming-scheme(7),
//! for what sits on PCI (virtio included).

use std::fs;
use std::path::{Path, PathBuf};

/// SMBIOS numbers above this are firmware's noise.
const ONBOARD_MAX: u32 = 16 * 1024 - 1;

/// The names by onboard index, slot and path, best first. Empty for what is not on PCI.
pub fn names(sys: &Path, card: &str) -> Vec<String> {
    let net = sys.join("class/net").join(card);
    let Some(device) = pci_device(&net.join("device")) else { return Vec::new() };
    let Some(place) = Place::of(&device) else { return Vec::new() };
    let port = port(&net);
    let mut names = Vec::new();
    let onboard = ["acpi_index", "index"].iter().find_map(|file| number(&device.join(file)));
    if let Some(index) = onboard.filter(|index| *index <= ONBOARD_MAX) {
        names.push(format!("eno{index}{port}"));
    }
    let domain = if place.domain > 0 { format!("P{}", place.domain) } else { String::new() };
    let function = place.function(&device);
    if let Some(slot) = slot(sys, &place) {
        names.push(format!("en{domain}s{slot}{function}{port}"));
    }
    names.push(format!("en{domain}p{}s{}{function}{port}", place.bus, place.slot));
    names
}

/// The PCI device behind a NIC, past virtio. A USB adapter's is its controller, which is not it.
fn pci_device(device: &Path) -> Option<PathBuf> {
    let device = fs::canonicalize(device).ok()?;
    let bus = |path: &Path| {
        fs::canonicalize(path.join("subsystem")).ok()?.file_name()?.to_str().map(str::to_owned)
    };
    match bus(&device)?.as_str() {
        "pci" => Some(device),
        "virtio" => device.parent().filter(|at| bus(at).as_deref() == Some("pci")).map(Into::into),
        _ => None,
    }
}

/// `0000:3b:00.1`
struct Place {
    domain: u32,
    bus: u32,
    slot: u32,
    function: u32,
}

impl Place {
    fn of(device: &Path) -> Option<Place> {
        let (rest, function) = device.file_name()?.to_str()?.rsplit_once('.')?;
        let mut parts = rest.split(':');
        let mut hex = || u32::from_str_radix(parts.next()?, 16).ok();
        Some(Place {
            domain: hex()?,
            bus: hex()?,
            slot: hex()?,
            function: u32::from_str_radix(function, 16).ok()?,
        })
    }

    /// `f1`, where the device has several functions.
    fn function(&self, device: &Path) -> String {
        // Bit 7 of the header type: several functions, even if this is the first.
        let several = fs::read(device.join("config"))
            .is_ok_and(|config| config.get(0x0e).is_some_and(|header| header & 0x80 != 0));
        // With ARI the five bits of the slot belong to the function.
        let ari = number(&device.join("ari_enabled")) == Some(1);
        let function = if ari { self.function + self.slot * 8 } else { self.function };
        if function > 0 || several { format!("f{function}") } else { String::new() }
    }
}

/// The number printed on the slot, if firmware tells.
fn slot(sys: &Path, place: &Place) -> Option<u32> {
    let address = format!("{:04x}:{:02x}:{:02x}", place.domain, place.bus, place.slot);
    fs::read_dir(sys.join("bus/pci/slots")).ok()?.flatten().find_map(|slot| {
        let number: u32 = slot.file_name().to_str()?.parse().ok()?;
        let here = fs::read_to_string(slot.path().join("address")).ok()?;
        (number > 0 && here.trim() == address).then_some(number)
    })
}

/// One PCI function with several ports: `np1` where the driver names them, else `d1`.
fn port(net: &Path) -> String {
    let name = fs::read_to_string(net.join("phys_port_name")).unwrap_or_default();
    let name = name.trim();
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return format!("n{name}");
    }
    match number(&net.join("dev_port")) {
        Some(port) if port > 0 => format!("d{port}"),
        _ => String::new(),
    }
}

fn number(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A NIC in a sysfs of our own; `at` is its device's path below `devices`.
    pub(crate) fn card(sys: &Path, name: &str, at: &str, files: &[(&str, &str)]) {
        let device = sys.join("devices").join(at);
        let net = device.join("net").join(name);
        fs::create_dir_all(&net).unwrap();
        for bus in ["pci", "virtio", "usb"] {
            fs::create_dir_all(sys.join("bus").join(bus)).unwrap();
        }
        let mut place = device.clone();
        while place != sys.join("devices") {
            let word = place.file_name().unwrap().to_str().unwrap();
            let bus = match word {
                word if word.starts_with("virtio") => Some("virtio"),
                word if word.contains('.') && word.contains('-') => Some("usb"),
                word if word.contains('.') => Some("pci"),
                _ => None,
            };
            if let Some(bus) = bus {
                let _ = symlink(sys.join("bus").join(bus), place.join("subsystem"));
            }
            place.pop();
        }
        fs::create_dir_all(sys.join("class/net")).unwrap();
        symlink(&device, net.join("device")).unwrap();
        symlink(&net, sys.join("class/net").join(name)).unwrap();
        for (file, text) in files {
            fs::write(net.join(file), format!("{text}\n")).unwrap();
        }
    }

    #[test]
    fn as_udev_names_them() {
        let sys = tempfile::tempdir().unwrap();
        let sys = sys.path();
        let devices = sys.join("devices");
        // A server's onboard pair: two functions, firmware counts them.
        for (name, function) in [("eth0", "0"), ("eth1", "1")] {
            let at = format!("pci0000:00/0000:19:00.{function}");
            card(sys, name, &at, &[("dev_port", "0")]);
            let index = if function == "0" { "1" } else { "2" };
            fs::write(devices.join(&at).join("index"), index).unwrap();
        }
        assert_eq!(names(sys, "eth1"), ["eno2", "enp25s0f1"]);
        assert_eq!(names(sys, "eth0"), ["eno1", "enp25s0"]);
        let mut config = [0; 64];
        config[0x0e] = 0x80;
        fs::write(devices.join("pci0000:00/0000:19:00.0/config"), config).unwrap();
        assert_eq!(names(sys, "eth0"), ["eno1", "enp25s0f0"]);
        // A card in a slot, whose driver names its ports.
        card(sys, "eth2", "pci0000:3a/0000:3b:00.1", &[("phys_port_name", "p1")]);
        let slots = sys.join("bus/pci/slots");
        for (slot, address) in [("3", "0000:3b:00"), ("4", "0000:5e:00"), ("junk", "0000:3b:00")] {
            fs::create_dir_all(slots.join(slot)).unwrap();
            fs::write(slots.join(slot).join("address"), format!("{address}\n")).unwrap();
        }
        assert_eq!(names(sys, "eth2"), ["ens3f1np1", "enp59s0f1np1"]);
        // Two ports on one function, in another domain.
        card(sys, "eth3", "pci0001:00/0001:01:02.0", &[("dev_port", "1")]);
        assert_eq!(names(sys, "eth3"), ["enP1p1s2d1"]);
        // A virtual machine's.
        card(sys, "eth4", "pci0000:00/0000:00:03.0/virtio1", &[]);
        assert_eq!(names(sys, "eth4"), ["enp0s3"]);
    }

    #[test]
    fn what_is_not_on_pci_has_no_such_name() {
        let sys = tempfile::tempdir().unwrap();
        let sys = sys.path();
        card(sys, "usb0", "pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0", &[]);
        fs::create_dir_all(sys.join("class/net/lo")).unwrap();
        for name in ["usb0", "lo", "none", "../../etc"] {
            assert_eq!(names(sys, name), Vec::<String>::new(), "{name}");
        }
        // Firmware's noise in place of a number.
        card(sys, "eth0", "pci0000:00/0000:00:04.0", &[("dev_port", "x"), ("phys_port_name", "")]);
        fs::write(sys.join("devices/pci0000:00/0000:00:04.0/index"), "99999").unwrap();
        assert_eq!(names(sys, "eth0"), ["enp0s4"]);
    }
}

//! Adapters by what does not change when they are pulled and put back: a serial number that is burned in, or
//! the socket that they are in (`1-1.2`: bus 1, port 1, port 2 of the hub that is there). Both are the
//! kernel's, in sysfs; udev's names in /dev/serial are made of the same.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::host::{Host, line};

/// An adapter's port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    /// What the kernel calls it today: `ttyUSB0`.
    pub device: String,
    /// Where it is plugged in: `1-1.2`.
    pub socket: String,
    /// Burned in. Cheap ones have none, or all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Its interface: adapters with many ports have one for each, or …
    pub interface: u8,
    /// … one interface for all, and this is the port's number there.
    pub port: u8,
    /// Maker and model, as it says.
    pub product: String,
}

impl Adapter {
    /// `1-1.2:0.1`, short of what is nought.
    fn is(&self, name: &str, number: Option<(u8, u8)>) -> bool {
        let named = self.socket == name || self.serial.as_deref() == Some(name);
        named && number.is_none_or(|number| number == (self.interface, self.port))
    }
}

/// Every USB adapter's port, by the kernel's names.
pub fn adapters(host: &Host) -> Vec<Adapter> {
    let entries = fs::read_dir(host.sys.join("class/tty")).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries.filter_map(|entry| adapter(&entry.path())).collect();
    all.sort_by(|one, other| {
        let key = |adapter: &Adapter| (adapter.device.len(), adapter.device.clone());
        key(one).cmp(&key(other))
    });
    all
}

/// None: it is none of USB's.
fn adapter(tty: &Path) -> Option<Adapter> {
    let device = tty.file_name()?.to_str()?.to_string();
    let at = fs::canonicalize(tty.join("device")).ok()?;
    // An ACM port's device is the interface itself, others have a device of their own within it.
    let interface = at.ancestors().take(3).find(|at| at.join("bInterfaceNumber").exists())?;
    let usb = interface.parent()?;
    let words = ["manufacturer", "product"].map(|file| line(&usb.join(file)));
    let product = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let number = |path: &Path, radix| u8::from_str_radix(&line(path)?, radix).ok();
    Some(Adapter {
        device,
        socket: usb.file_name()?.to_str()?.to_string(),
        serial: line(&usb.join("serial")),
        interface: number(&interface.join("bInterfaceNumber"), 16)?,
        port: number(&at.join("port_number"), 10).unwrap_or(0),
        product,
    })
}

/// The device that the site means by `usb:NAME`.
///
/// # Errors
/// Why it is none, in words, and whether it may be plugged in yet.
pub(super) fn find(host: &Host, name: &str) -> Result<PathBuf, NoAdapter> {
    let all = adapters(host);
    let with =
        |name: &str, number| all.iter().filter(|one| one.is(name, number)).collect::<Vec<_>>();
    let mut found = with(name, None);
    if let Some((name, number)) = numbered(name).filter(|_| found.is_empty()) {
        found = with(name, Some(number));
    }
    match found.as_slice() {
        [] => Err(NoAdapter::Absent(absent(name, &all))),
        [one] => Ok(host.dev.join(&one.device)),
        many => {
            let names = many.iter().map(|one| format!("usb:{}", unique(one, &all)));
            let names = names.collect::<Vec<_>>().join(", ");
            Err(NoAdapter::Many(format!("usb:{name} is more than one port: {names}")))
        }
    }
}

/// Why no adapter was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAdapter {
    Absent(String),
    Many(String),
}

fn absent(name: &str, all: &[Adapter]) -> String {
    let names = all.iter().take(4).map(|one| format!("usb:{}", unique(one, all)));
    let names = names.collect::<Vec<_>>().join(", ");
    match all.len() {
        0 => format!("usb:{name} is not plugged in, nor is another USB adapter"),
        1..=4 => format!("usb:{name} is not plugged in; {names} is"),
        many => format!("usb:{name} is not plugged in; {names} and {} others are", many - 4),
    }
}

/// `1-1.2:3` and `1-1.2:0.1`: name, interface and port.
fn numbered(name: &str) -> Option<(&str, (u8, u8))> {
    let (name, number) = name.rsplit_once(':')?;
    let (interface, port) = number.split_once('.').unwrap_or((number, "0"));
    Some((name, (interface.parse().ok()?, port.parse().ok()?)))
}

/// The shortest name that is this port's alone: by its serial number if no other has the same.
pub(super) fn unique(one: &Adapter, all: &[Adapter]) -> String {
    let others = || all.iter().filter(|other| other.device != one.device);
    let alone = |serial: &&String| {
        let same =
            |other: &Adapter| other.serial.as_ref() == Some(serial) && other.socket != one.socket;
        !others().any(same) && !serial.contains(['/', '@', '·'])
    };
    let name = one.serial.as_ref().filter(alone).unwrap_or(&one.socket);
    let siblings: Vec<_> = others().filter(|other| other.socket == one.socket).collect();
    match siblings.as_slice() {
        [] => name.clone(),
        _ if siblings.iter().all(|other| other.interface != one.interface) && one.port == 0 => {
            format!("{name}:{}", one.interface)
        }
        _ => format!("{name}:{}.{}", one.interface, one.port),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::wire::serial::fake::host;

    #[test]
    fn by_serial_number_and_by_socket() {
        let (_folder, host) = host();
        for (name, device) in [
            ("FT4QUAD:0", "ttyUSB0"),
            ("FT4QUAD:3", "ttyUSB3"),
            ("1-1.2:3", "ttyUSB3"),
            ("1-1.3:0.1", "ttyUSB10"),
            ("1-1.3:0", "ttyUSB9"),
            ("1-2", "ttyUSB4"),
            ("E660:58", "ttyACM0"),
            ("1-4", "ttyACM0"),
            ("1-4:2", "ttyACM0"),
        ] {
            assert_eq!(find(&host, name), Ok(host.dev.join(device)), "{name}");
        }
        let many = |name: &str| match find(&host, name) {
            Err(NoAdapter::Many(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            many("FT4QUAD"),
            "usb:FT4QUAD is more than one port: usb:FT4QUAD:0, usb:FT4QUAD:1, usb:FT4QUAD:2, usb:FT4QUAD:3"
        );
        assert_eq!(many("0001"), "usb:0001 is more than one port: usb:1-2, usb:1-3");
        for absent in ["FT4QUAD:4", "1-1", "1-9", "", ":", "ttyS0"] {
            assert!(matches!(find(&host, absent), Err(NoAdapter::Absent(_))), "{absent}");
        }
    }

    #[test]
    fn each_port_has_a_name_by_which_it_is_found() {
        let (_folder, host) = host();
        let all = adapters(&host);
        let names: Vec<_> = all.iter().map(|one| unique(one, &all)).collect();
        assert_eq!(names.len(), 9);
        for (name, adapter) in names.iter().zip(&all) {
            assert_eq!(find(&host, name), Ok(host.dev.join(&adapter.device)), "{name}");
        }
        assert_eq!(all.last().map(|one| one.device.as_str()), Some("ttyUSB10"), "{all:?}");
        assert_eq!(all[1].product, "FTDI Quad RS232-HS");
        assert!(all.iter().any(|one| one.product == "UPort ·[2J1250"), "{all:?}");
    }

    #[test]
    fn pulled_and_put_back_it_is_found_under_another_device() {
        let (folder, host) = host();
        fs::remove_dir_all(folder.path().join("class/tty/ttyACM0")).unwrap();
        let Err(NoAdapter::Absent(why)) = find(&host, "E660:58") else { panic!() };
        assert!(why.starts_with("usb:E660:58 is not plugged in; usb:FT4QUAD:0, "), "{why}");
        let tty = folder.path().join("class/tty/ttyACM7");
        fs::create_dir_all(&tty).unwrap();
        let at = "devices/pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.2";
        symlink(folder.path().join(at), tty.join("device")).unwrap();
        assert_eq!(find(&host, "E660:58"), Ok(host.dev.join("ttyACM7")));
    }
}

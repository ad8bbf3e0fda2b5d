//! All serial ports of this host, by the names that the site file may have.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::held::{Holder, holder};
use super::host::{Host, line};
use super::usb;

/// A serial port of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// What the kernel calls it today.
    pub device: PathBuf,
    /// The name that stays, for the site file: `serial:usb:A50285BI@115200` begins with it.
    pub name: String,
    /// Links of udev's that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<PathBuf>,
    /// The kernel's driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// What an adapter says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// Who has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// The kernel itself writes there (`console=` of this host).
    #[serde(default)]
    pub console: bool,
}

/// All of them, by the kernel's names.
pub fn ports(host: &Host) -> Vec<Listed> {
    let adapters = usb::adapters(host);
    let links = links(host);
    let consoles = fs::read_to_string(host.proc.join("consoles")).unwrap_or_default();
    let console = |tty: &str| consoles.lines().any(|line| line.split(' ').next() == Some(tty));
    let entries = fs::read_dir(host.sys.join("class/tty")).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries
        .filter_map(|entry| {
            let tty = entry.file_name().into_string().ok()?;
            let driver = driver(&entry.path())?;
            let device = host.dev.join(&tty);
            let adapter = adapters.iter().find(|adapter| adapter.device == tty);
            let name = adapter.map(|adapter| format!("usb:{}", usb::unique(adapter, &adapters)));
            Some(Listed {
                name: name.unwrap_or_else(|| device.display().to_string()),
                links: links
                    .iter()
                    .filter(|(_, to)| *to == device)
                    .map(|(link, _)| link.clone())
                    .collect(),
                driver: Some(driver),
                product: adapter.map(|adapter| adapter.product.clone()),
                held: holder(host, &device).map(|holder| match holder {
                    Holder::Own => "this process".to_string(),
                    Holder::Other { who, .. } => who,
                }),
                console: console(&tty),
                device,
            })
        })
        .collect();
    all.sort_by(|one, other| {
        let key = |listed: &Listed| (listed.device.as_os_str().len(), listed.device.clone());
        key(one).cmp(&key(other))
    });
    all
}

/// None: there is no hardware. The PC's driver has a handful of names to spare, whose type is 0.
fn driver(tty: &Path) -> Option<String> {
    let device = fs::canonicalize(tty.join("device")).ok()?;
    if line(&tty.join("type")).is_some_and(|kind| kind == "0") {
        return None;
    }
    // Between a port and its UART's driver Linux has two devices of the serial core, since 6.5.
    let drivers = device.ancestors().take(4).map(|at| at.join("driver"));
    let mut drivers = drivers.filter_map(|driver| fs::canonicalize(driver).ok());
    let driver =
        drivers.find(|driver| !driver.components().any(|part| part.as_os_str() == "serial-base"));
    let name = driver.and_then(|driver| Some(driver.file_name()?.to_str()?.to_string()));
    Some(name.unwrap_or_else(|| "?".to_string()))
}

/// Of /dev/serial, and where each leads.
fn links(host: &Host) -> Vec<(PathBuf, PathBuf)> {
    let mut all = Vec::new();
    for folder in ["serial/by-id", "serial/by-path"] {
        for link in fs::read_dir(host.dev.join(folder)).into_iter().flatten().flatten() {
            if let Ok(to) = fs::canonicalize(link.path()) {
                all.push((link.path(), to));
            }
        }
    }
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::serial::fake::host;

    #[test]
    fn each_with_the_name_that_stays_and_who_has_it() {
        let (_folder, host) = host();
        let all = ports(&host);
        let names: Vec<_> = all.iter().map(|one| one.name.as_str()).collect();
        let uart = host.dev.join("ttyS0");
        assert_eq!(names.first().copied(), uart.to_str());
        assert_eq!(names.len(), 10, "no port without hardware, no screen: {names:?}");
        assert_eq!((all[0].driver.as_deref(), all[0].console), (Some("serial"), true));
        assert_eq!((&all[0].held, &all[0].product, all[0].links.len()), (&None, &None, 0));
        let ftdi = all.iter().find(|one| one.device.ends_with("ttyUSB0")).unwrap();
        assert_eq!(ftdi.name, "usb:FT4QUAD:0");
        assert_eq!(ftdi.driver.as_deref(), Some("ftdi_sio"));
        assert_eq!(ftdi.product.as_deref(), Some("FTDI Quad RS232-HS"));
        assert_eq!(ftdi.links, [host.dev.join("serial/by-id/usb-FTDI-if00-port0")]);
        assert_eq!(ftdi.held.as_deref(), Some("agetty (process 812)"));
        assert!(!ftdi.console);
    }

    #[test]
    fn a_host_without_any() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let host = Host { dev: at("dev"), sys: at("sys"), proc: at("proc"), locks: at("locks") };
        assert_eq!(ports(&host), []);
    }
}

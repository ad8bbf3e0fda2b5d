//! The BMC as the machine itself sees it, through the kernel's IPMI driver: at which address would
//! one reach it over the network? Asked once a boot, with little patience: some BMCs take seconds.
//! A set-up asks more of it (`duty::setup`), by the same [`Door`].
//!
//! ```text
//! Get Channel Info    App 42h        channel             -> medium: 4 is 802.3 LAN
//! Get LAN Config      Transport 02h  channel, 3 or 5     -> revision, then address or MAC
//! ```

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ipmi_rs::File;
use ipmi_rs::connection::{
    IpmiConnection, LogicalUnit, Message, NetFn, Request, RequestTargetAddress,
};

use crate::contract::hardware::Bmc;
use crate::net::link::show_mac;

const DEVICES: [&str; 2] = ["/dev/ipmi0", "/dev/ipmi/0"];
/// The interfaces a driver may have found (SMBIOS, ACPI, PCI): without one there is no BMC to ask.
const DRIVERS: [&str; 3] = ["ipmi_si", "ipmi_ssif", "ipmi_powernv"];
const ONE_ANSWER: Duration = Duration::from_millis(800);
/// A BMC that is being restarted answers nothing for minutes: the boot does not wait for it.
const IN_ALL: Duration = Duration::from_secs(3);
/// A driver takes a moment from its module's load to its device.
const DEVICE: Duration = Duration::from_millis(500);

/// Whether a driver for a BMC is there, and so `ipmi_devintf` worth its load.
pub fn expected(sys: &Path) -> bool {
    DRIVERS.iter().any(|driver| sys.join("module").join(driver).exists())
}

/// What the BMC says, if there is one and it answers in time.
pub fn read() -> Option<Bmc> {
    let device = device(DEVICE)?;
    let (tell, told) = mpsc::channel();
    // The driver's own calls cannot be hurried: whoever hangs there hangs alone.
    thread::Builder::new()
        .name("bmc".to_owned())
        .spawn(move || {
            let mut file = File::new(device, ONE_ANSWER).ok();
            let bmc = lan(|netfn, command, data| {
                answer(file.as_mut()?, netfn, command, data.to_vec()).ok()?
            });
            // Nobody waits any more: then it is for nobody.
            let _ = tell.send(bmc);
        })
        .ok()?;
    told.recv_timeout(IN_ALL).ok()?
}

/// The driver's device, as soon as it is there.
pub fn device(patience: Duration) -> Option<&'static Path> {
    let end = Instant::now() + patience;
    loop {
        let found = DEVICES.iter().map(Path::new).find(|path| path.exists());
        if found.is_some() || Instant::now() > end {
            return found;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// One command: its data, or nothing with another completion code than 0.
fn answer(
    file: &mut File,
    netfn: NetFn,
    command: u8,
    data: Vec<u8>,
) -> io::Result<Option<Vec<u8>>> {
    let (code, data) = exchange(file, netfn, command, data)?;
    Ok((code == 0).then_some(data))
}

/// One command: completion code and data.
fn exchange(
    file: &mut File,
    netfn: NetFn,
    command: u8,
    data: Vec<u8>,
) -> io::Result<(u8, Vec<u8>)> {
    let message = Message::new_request(netfn, command, data);
    let mut request = Request::new(message, RequestTargetAddress::Bmc(LogicalUnit::Zero));
    let response = file.send_recv(&mut request)?;
    Ok((response.cc(), response.data().to_vec()))
}

/// The BMC for whoever has more to ask, and may wait for it.
pub struct Door {
    device: &'static Path,
    patience: Duration,
    file: Option<File>,
}

impl Door {
    /// Opened when something is asked. `patience`: for one answer.
    pub fn new(device: &'static Path, patience: Duration) -> Door {
        Door { device, patience, file: None }
    }

    /// One command: completion code and data.
    pub fn ask(&mut self, netfn: NetFn, command: u8, data: &[u8]) -> io::Result<(u8, Vec<u8>)> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => File::new(self.device, self.patience)?,
        };
        let told = exchange(&mut file, netfn, command, data.to_vec())?;
        // After a failure it is opened anew: an answer that comes late would be taken for the next one.
        self.file = Some(file);
        Ok(told)
    }
}

/// The LAN channel's number, address and MAC.
fn lan(mut ask: impl FnMut(NetFn, u8, &[u8]) -> Option<Vec<u8>>) -> Option<Bmc> {
    let (channel, mac) = channel(&mut ask)?;
    let address = ask(NetFn::Transport, 0x02, &[channel, 3, 0, 0]);
    let address = address.and_then(|data| <[u8; 4]>::try_from(data.get(1..)?).ok());
    let address = Ipv4Addr::from(address.unwrap_or_default()).to_string();
    Some(Bmc { channel, address, mac: show_mac(&mac) })
}

/// The first LAN channel that has a MAC, and that: 1 on most, 8 on some Intel boards, 2 on HPE's.
pub fn channel(mut ask: impl FnMut(NetFn, u8, &[u8]) -> Option<Vec<u8>>) -> Option<(u8, [u8; 6])> {
    const LAN: u8 = 4;
    for channel in 1..=11 {
        let info = ask(NetFn::App, 0x42, &[channel]);
        if info.and_then(|info| Some(info.get(1)? & 0x7f)) != Some(LAN) {
            continue;
        }
        let mac = ask(NetFn::Transport, 0x02, &[channel, 5, 0, 0]);
        let mac = mac.and_then(|data| <[u8; 6]>::try_from(data.get(1..)?).ok());
        if let Some(mac) = mac.filter(|mac| *mac != [0; 6] && *mac != [0xff; 6]) {
            return Some((channel, mac));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answers<'a> = &'a [(NetFn, u8, &'a [u8], &'a [u8])];

    fn asked(answers: Answers) -> Option<Bmc> {
        lan(|netfn, command, data| {
            let found = answers.iter().find(|(n, c, d, _)| (*n, *c, *d) == (netfn, command, data));
            found.map(|(.., answer)| answer.to_vec())
        })
    }

    #[test]
    fn the_first_lan_channel_with_a_mac_is_it() {
        let mac: &[u8] = &[0x11, 0x52, 0x54, 0, 0x78, 0, 1];
        let all: Answers = &[
            (NetFn::App, 0x42, &[1], &[1, 0x05, 0x81]), // a serial port
            (NetFn::App, 0x42, &[2], &[2, 0x04, 0x81]),
            (NetFn::Transport, 2, &[2, 5, 0, 0], &[0x11, 0, 0, 0, 0, 0, 0]), // unused
            (NetFn::App, 0x42, &[8], &[8, 0x84, 0x81]),
            (NetFn::Transport, 2, &[8, 5, 0, 0], mac),
            (NetFn::Transport, 2, &[8, 3, 0, 0], &[0x11, 10, 78, 0, 1]),
        ];
        let bmc = asked(all).unwrap();
        assert_eq!((bmc.channel, &*bmc.address, &*bmc.mac), (8, "10.78.0.1", "52:54:00:78:00:01"));
        // Without its address the MAC alone is still evidence.
        assert_eq!(asked(&all[..5]).unwrap().address, "0.0.0.0");
        assert_eq!(asked(&all[..4]), None);
    }

    #[test]
    fn short_and_long_answers_are_none() {
        for info in [&[][..], &[1], &[1, 4]] {
            for mac in [&[][..], &[0x11], &[0x11, 1, 2, 3, 4, 5], &[0x11, 1, 2, 3, 4, 5, 6, 7]] {
                let all: Answers =
                    &[(NetFn::App, 0x42, &[1], info), (NetFn::Transport, 2, &[1, 5, 0, 0], mac)];
                assert_eq!(asked(all), None, "{info:?} {mac:?}");
            }
        }
    }
}

//! What a machine has in its flash, and what that says on the wire. Where a capture is at hand, its
//! very bytes are sent (the files also seed the fuzzers); time-outs are those of the sources.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use koboshi_pxe::Mac;
use koboshi_pxe::dhcp::Packet;
use koboshi_pxe::dhcp::options::code;

const IPXE: &[u8] = include_bytes!("../../tests/fuzz/corpus/dhcp/ipxe-discover");
const EDK2_PXE: &[u8] = include_bytes!("../../tests/fuzz/corpus/dhcp/edk2-pxe-discover");
const EDK2_HTTP: &[u8] = include_bytes!("../../tests/fuzz/corpus/dhcp/edk2-http-discover");

/// What starts when a machine is switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// BIOS with iPXE in the NIC's ROM.
    Rom,
    /// BIOS with a vendor's PXE ROM: `undionly.kpxe` by TFTP, then iPXE.
    Undionly,
    /// UEFI, booting by PXE: `ipxe.efi` by TFTP, then iPXE.
    Edk2,
    /// UEFI, booting by HTTP: `ipxe.efi` by HTTP, then iPXE.
    Http,
}

/// Which program asks for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// A vendor's PXE ROM.
    PxeRom,
    /// UEFI's PXE stack.
    Edk2Pxe,
    /// UEFI's HTTP boot.
    Edk2Http,
    /// iPXE on a BIOS.
    Ipxe,
    /// iPXE on UEFI.
    IpxeEfi,
}

/// How long a DHCP client waits for an answer, and when it takes one.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Milliseconds after each DISCOVER. After the last it gives up.
    pub discover: &'static [u64],
    /// Milliseconds after each REQUEST.
    pub request: &'static [u64],
    /// When an offer is taken.
    pub takes: Takes,
}

/// When an offer is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// The first that names a boot file.
    AtOnce,
    /// Whatever has come when the time-out after the DISCOVER ends.
    AtTimeout,
    /// At once if it says `no-pxedhcp` (175.176); two seconds after the first DISCOVER otherwise.
    UnlessProxy,
}

/// PXE 2.1, 2.2.1: DISCOVER at 4, 8, 16 and 32 s, REQUEST at 1, 2, 3 and 4.
const PXE_ROM: Timing = Timing {
    discover: &[4_000, 8_000, 16_000, 32_000],
    request: &[1_000, 2_000, 3_000, 4_000],
    takes: Takes::AtOnce,
};
/// EDK2, `mPxeDhcpTimeout` of `PxeBcDhcp4.c` and `HttpBootDhcp4.c`, for both messages; it looks at the
/// offers when the time is over.
const EDK2: Timing = Timing {
    discover: &[4_000, 8_000, 16_000, 32_000],
    request: &[4_000, 8_000, 16_000, 32_000],
    takes: Takes::AtTimeout,
};
/// iPXE, `config/dhcp.h`: from 1 s on, doubled, over 10 s it gives up. A REQUEST from a quarter of a second on (seen
/// on the wire, 1.0.0+git-20190125).
const IPXE_TIMING: Timing = Timing {
    discover: &[1_000, 2_000, 4_000, 8_000],
    request: &[250, 500, 1_000, 2_000, 4_000, 8_000],
    takes: Takes::UnlessProxy,
};

/// `DHCP_DISC_PROXY_TIMEOUT_SEC`.
pub const PROXY_WAIT: Duration = Duration::from_secs(2);

impl Firmware {
    /// All of them.
    pub const ALL: [Firmware; 4] =
        [Firmware::Rom, Firmware::Undionly, Firmware::Edk2, Firmware::Http];

    /// Who asks first.
    pub fn speaks(self) -> Speaker {
        match self {
            Firmware::Rom => Speaker::Ipxe,
            Firmware::Undionly => Speaker::PxeRom,
            Firmware::Edk2 => Speaker::Edk2Pxe,
            Firmware::Http => Speaker::Edk2Http,
        }
    }

    /// Who asks once the loader runs.
    pub fn loads(self) -> Speaker {
        match self {
            Firmware::Rom | Firmware::Undionly => Speaker::Ipxe,
            Firmware::Edk2 | Firmware::Http => Speaker::IpxeEfi,
        }
    }

    /// As `--mix` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Firmware::Rom => "rom",
            Firmware::Undionly => "undionly",
            Firmware::Edk2 => "edk2",
            Firmware::Http => "http",
        }
    }
}

impl Speaker {
    /// Its patience.
    pub fn timing(self) -> &'static Timing {
        match self {
            Speaker::PxeRom => &PXE_ROM,
            Speaker::Edk2Pxe | Speaker::Edk2Http => &EDK2,
            Speaker::Ipxe | Speaker::IpxeEfi => &IPXE_TIMING,
        }
    }

    /// iPXE, whatever started it.
    pub fn is_ipxe(self) -> bool {
        matches!(self, Speaker::Ipxe | Speaker::IpxeEfi)
    }

    /// Its DISCOVER for one machine.
    pub fn discover(self, mac: Mac, xid: u32, secs: u16) -> Packet {
        let captured = match self {
            Speaker::Ipxe | Speaker::IpxeEfi => IPXE,
            Speaker::PxeRom | Speaker::Edk2Pxe => EDK2_PXE,
            Speaker::Edk2Http => EDK2_HTTP,
        };
        let mut packet = Packet::decode(captured).expect("a captured DISCOVER reads");
        (packet.xid, packet.secs) = (xid, secs);
        packet.chaddr[..6].copy_from_slice(&mac.0);
        let mut put = |code: u8, value: &[u8]| {
            packet.options.remove(code);
            packet.options.push(code, value);
        };
        match self {
            Speaker::PxeRom => {
                // RFC 4578: BIOS, UNDI 2.1; the ROMs of the time ask for 1,260 bytes at most.
                put(code::MAX_SIZE, &1260u16.to_be_bytes());
                put(code::NDI, &[1, 2, 1]);
                put(code::ARCH, &[0, 0]);
                put(code::VENDOR_CLASS, b"PXEClient:Arch:00000:UNDI:002001");
            }
            Speaker::IpxeEfi => {
                put(code::ARCH, &[0, 7]);
                put(code::VENDOR_CLASS, b"PXEClient:Arch:00007:UNDI:003010");
            }
            _ => {}
        }
        if self.is_ipxe() {
            put(code::CLIENT_ID, &[&[1], &mac.0[..]].concat());
        }
        // A UUID of its own: type 0, and the MAC where vendors put it.
        let mut guid = [0; 17];
        guid[11..].copy_from_slice(&mac.0);
        put(code::GUID, &guid);
        packet
    }
}

/// How many of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix(Vec<(Firmware, u32)>);

/// A mix that does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mix: say for example rom=40,undionly=30,edk2=20,http=10")]
pub struct BadMix(String);

impl Default for Mix {
    fn default() -> Mix {
        Mix(Firmware::ALL.into_iter().zip([40, 30, 20, 10]).collect())
    }
}

impl FromStr for Mix {
    type Err = BadMix;

    fn from_str(text: &str) -> Result<Mix, BadMix> {
        let bad = || BadMix(text.to_string());
        let mut parts = Vec::new();
        for part in text.split(',') {
            let (name, share) = part.split_once('=').unwrap_or((part, "1"));
            let named = |firmware: &Firmware| firmware.as_str() == name.trim();
            let firmware = Firmware::ALL.into_iter().find(named).ok_or_else(bad)?;
            let share = share.trim().parse().ok().filter(|share| *share <= 1_000_000);
            parts.push((firmware, share.ok_or_else(bad)?));
        }
        if parts.iter().all(|(_, share)| *share == 0) { Err(bad()) } else { Ok(Mix(parts)) }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (firmware, share)) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{}={share}", firmware.as_str())?;
        }
        Ok(())
    }
}

impl Mix {
    /// What this machine has: in the proportions said, whatever number of machines.
    pub fn of(&self, draw: u64) -> Firmware {
        let all: u64 = self.0.iter().map(|(_, share)| u64::from(*share)).sum();
        let mut at = draw % all.max(1);
        for (firmware, share) in &self.0 {
            match at.checked_sub(u64::from(*share)) {
                Some(rest) => at = rest,
                None => return *firmware,
            }
        }
        Firmware::Rom
    }
}

#[cfg(test)]
mod tests {
    use koboshi_pxe::dhcp::{Request, Vendor};

    use super::*;

    #[test]
    fn each_is_known_for_what_it_is() {
        let mac = Mac([2, 0, 0, 0, 1, 7]);
        for (speaker, vendor, archs, ipxe) in [
            (Speaker::PxeRom, Vendor::Pxe, 0, false),
            (Speaker::Edk2Pxe, Vendor::Pxe, 7, false),
            (Speaker::Edk2Http, Vendor::Http, 16, false),
            (Speaker::Ipxe, Vendor::Pxe, 0, true),
            (Speaker::IpxeEfi, Vendor::Pxe, 7, true),
        ] {
            let bytes = speaker.discover(mac, 77, 4).encode();
            let request = Request::decode(&bytes).expect("the server reads it");
            assert_eq!((request.mac, request.xid, request.secs), (mac, 77, 4), "{speaker:?}");
            assert_eq!((request.vendor(), request.is_ipxe()), (vendor, ipxe), "{speaker:?}");
            assert_eq!(request.archs, [archs], "{speaker:?}");
            assert!(request.uuid().is_some(), "{speaker:?}");
        }
    }

    #[test]
    fn a_mix_is_drawn_as_said() {
        let mix: Mix = "rom=3, http=1".replace(' ', "").parse().expect("a mix");
        let drawn = (0..400).map(|draw| mix.of(draw));
        assert_eq!(drawn.filter(|firmware| *firmware == Firmware::Http).count(), 100);
        assert_eq!(Mix::default().to_string().parse(), Ok(Mix::default()));
        for bad in ["", "rom=0", "rom=x", "floppy=1", "rom=1,,"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }
}

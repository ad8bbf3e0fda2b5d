//! What a machine's firmware says of itself with its first DISCOVER. It is remembered, because some
//! things have to be known while the machine is off: which loader it will get, and whether "boot by
//! the network next" is to be set with the BMC's EFI bit.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::decide::{Arch, Asks, Client, Facts, told};

/// Firmware as it asked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firmware {
    /// Option 93. The first, if it told several.
    pub arch: Arch,
    /// By which of its ways it asked.
    pub way: Way,
}

/// How firmware boots from the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// PXE.
    Pxe,
    /// UEFI HTTP boot.
    Http,
    /// iPXE in its ROM, or a UEFI or BIOS of which nothing but our iPXE has been heard.
    Ipxe,
}

impl Firmware {
    /// From what opened a boot.
    pub fn of(facts: &Facts) -> Option<Firmware> {
        let Asks::Dhcp { client, archs, .. } = &facts.asks else { return None };
        let way = match client {
            Client::Firmware => Way::Pxe,
            Client::HttpBoot => Way::Http,
            Client::Ipxe => Way::Ipxe,
            Client::System => return None,
        };
        Some(Firmware { arch: *told(archs).first()?, way })
    }

    /// What is to be remembered. iPXE that a PXE ROM loaded opens a boot of its own where it waited
    /// for one: it tells nothing new of the ROM.
    pub fn after(self, last: Option<Firmware>) -> Firmware {
        match last {
            Some(last) if self.way == Way::Ipxe && last.is_efi() == self.is_efi() => last,
            _ => self,
        }
    }

    /// The EFI bit of the BMC's boot flags.
    pub fn is_efi(self) -> bool {
        self.arch != Arch::BIOS
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.way {
            Way::Pxe => "PXE",
            // The architecture's number says it.
            Way::Http => return write!(f, "{}", self.arch),
            Way::Ipxe => "iPXE",
        };
        write!(f, "{} by {way}", self.arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mac;

    fn heard(client: Client, archs: &[Arch]) -> Option<Firmware> {
        let asks = Asks::Dhcp { client, archs: archs.to_vec(), discover: true };
        Firmware::of(&Facts { mac: Mac([2, 0, 0, 0, 0, 1]), asks })
    }

    #[test]
    fn firmware_tells_and_an_operating_system_does_not() {
        let bios = heard(Client::Firmware, &[]).expect("a boot");
        assert!(!bios.is_efi());
        let uefi = heard(Client::Firmware, &[Arch::EFI64]).expect("a boot");
        assert_eq!((uefi.is_efi(), uefi.to_string().as_str()), (true, "UEFI x86-64 by PXE"));
        let http = heard(Client::HttpBoot, &[Arch::HTTP64]).expect("a boot");
        assert_eq!((http.is_efi(), http.to_string().as_str()), (true, "UEFI x86-64 HTTP"));
        assert_eq!(heard(Client::System, &[Arch::EFI64]), None);
        // iPXE says nothing new of the ROM that loaded it, unless the firmware was set up anew.
        let ipxe = heard(Client::Ipxe, &[Arch::BIOS]).expect("a boot");
        assert_eq!(ipxe.after(Some(bios)), bios);
        assert_eq!(ipxe.after(Some(uefi)), ipxe);
        assert_eq!(bios.after(Some(ipxe)), bios);
    }
}

//! Files by name, the same over TFTP and HTTP: loaders, what they read, and blobs. Which machine's
//! orders a name means is in the name; whose boot a transfer moves, the address it goes to says.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::boots::Stage;
use crate::content::{Content, parse_hex};
use crate::desk::Desk;
use crate::loader::{self, EFI64, Language};
use crate::mac::Mac;
use crate::pace::Pauses;
use crate::script::{grub, ipxe};

/// What a name means.
enum Asked {
    /// The same for all machines.
    Autoexec,
    Grub,
    /// One machine's orders for this loader.
    Orders(Language, Mac),
    Blob([u8; 32]),
    /// A loader, or nothing we have.
    Loader,
}

fn asked(name: &str) -> Asked {
    // SYSLINUX for UEFI asks for everything from beside itself.
    let beside = name.strip_prefix(EFI64).unwrap_or(name);
    let orders = |language, mac: &str| match mac.parse() {
        Ok(mac) => Asked::Orders(language, mac),
        Err(_) => Asked::Loader,
    };
    if name == "autoexec.ipxe" {
        Asked::Autoexec
    } else if name == "grub/grub.cfg" {
        Asked::Grub
    } else if let Some(mac) = name.strip_prefix("grub/grub.cfg-01-") {
        orders(Language::Grub, mac)
    } else if let Some(mac) = beside.strip_prefix("pxelinux.cfg/01-") {
        orders(Language::Pxelinux, mac)
    } else if let Some(digest) = beside.strip_prefix("blob/sha256/").and_then(parse_hex) {
        Asked::Blob(digest)
    } else {
        Asked::Loader
    }
}

impl Desk {
    /// A file by name, and nothing that has no name here.
    pub fn file(&self, name: &str, peer: IpAddr) -> Option<Content> {
        let text = match asked(name) {
            Asked::Autoexec => {
                ipxe::autoexec(&self.site().server_for(peer), Pauses::drawn((self.draw)()))
            }
            Asked::Grub => grub::all(),
            Asked::Orders(language, mac) => self.orders(language, mac, peer)?,
            Asked::Blob(digest) => return self.blob(&digest),
            Asked::Loader => return self.site().loaders.get(name).cloned(),
        };
        Some(Content::Bytes(text.into()))
    }

    /// A file was handed over whole. What a stranger reads of a machine's moves nothing.
    pub fn file_sent(&self, peer: SocketAddr, name: &str, how: &str) {
        if matches!(asked(name), Asked::Loader) && self.site().loaders.contains_key(name) {
            self.begins_at(peer.ip(), None);
        }
        let Some(mac) = self.mac_at(peer.ip()) else { return };
        match asked(name) {
            Asked::Orders(_, whose) if whose == mac => {}
            Asked::Orders(_, whose) => self.note(mac, format!("read the orders of {whose}")),
            Asked::Blob(digest) => {
                let part = self.part(mac, &digest);
                let part = part.unwrap_or_else(|| "a blob that its plan does not name".to_string());
                self.blob_moved(mac, &digest, format!("{part}{how}"));
            }
            Asked::Loader if self.site().loaders.contains_key(name) => {
                {
                    let mut inner = self.inner();
                    let Some(boot) = inner.boots.of_mut(mac) else { return };
                    if loader::is_program(name) {
                        boot.loader = Some(name.to_string());
                    } else if boot.stage > Stage::Loader {
                        // PXELINUX loads its modules anew whenever it reads its orders anew.
                        return;
                    }
                }
                self.advance(mac, Stage::Loader, format!("{name}{how}"));
            }
            Asked::Grub => {}
            Asked::Autoexec | Asked::Loader => self.note(mac, format!("{name}{how}")),
        }
    }

    /// A blob begins to travel to this address.
    pub fn blob_sent(&self, peer: IpAddr, digest: &[u8; 32]) {
        if let Some(mac) = self.mac_at(peer) {
            self.blob_moved(mac, digest, String::new());
        }
    }

    fn blob_moved(&self, mac: Mac, digest: &[u8; 32], note: String) {
        let stage = self.inner().boots.of_mut(mac).and_then(|boot| {
            boot.moved = Some(Instant::now());
            boot.fetched(digest)
        });
        if let Some(stage) = stage {
            self.inner().handed_over(mac, stage);
            self.advance(mac, stage, note);
        }
    }

    /// What a machine's plan calls a blob.
    fn part(&self, mac: Mac, digest: &[u8; 32]) -> Option<String> {
        let plan = self.boot_of(mac)?.plan?;
        plan.parts().find(|part| part.sha256 == *digest).map(|part| part.name.clone())
    }

    /// A file's name as a timeline has it: blobs by what they are.
    pub(super) fn called(&self, peer: IpAddr, name: &str) -> String {
        let part = match asked(name) {
            Asked::Blob(digest) => self.mac_at(peer).and_then(|mac| self.part(mac, &digest)),
            _ => None,
        };
        part.unwrap_or_else(|| name.to_string())
    }
}

//! What a loader reads between its own DHCP and the kernel. The plan of a boot is in nobody's
//! language; each file here says it in one. Every one of them tells on the console what happens
//! and what comes next, tries again what failed, and waits where there is nothing to boot.

pub mod grub;
pub mod ipxe;
pub mod pxelinux;

use std::net::Ipv4Addr;

use crate::Mac;
use crate::boots::Plan;
use crate::content::hex;
use crate::loader::Language;
use crate::pace::Pauses;

/// A serial port as loaders know it (S24): they drive it themselves, whatever firmware does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uart {
    /// I/O port. Its number in the BIOS's list may be another than Linux's, this is the same.
    pub port: u16,
    /// Bits a second.
    pub speed: u32,
}

impl Uart {
    /// `ttyS0` to `ttyS3` at a speed that a loader can make. Others are the kernel's alone.
    pub fn of(unit: u8, speed: u32) -> Option<Uart> {
        let port = *[0x3f8, 0x2f8, 0x3e8, 0x2e8].get(usize::from(unit))?;
        (2400..=115_200).contains(&speed).then_some(Uart { port, speed })
    }
}

/// Where a loader reads its orders: all it has to know beside the plan.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// `http://10.77.0.1:8080`
    pub server: &'a str,
    /// Our address, for TFTP.
    pub tftp: Ipv4Addr,
    /// Whose orders they are.
    pub mac: Mac,
    /// The machine's console, if a loader can drive it.
    pub uart: Option<Uart>,
    /// The loader fetches by HTTP.
    pub http: bool,
    /// Its own, so that a rack that fails together does not try again together.
    pub pauses: Pauses,
}

/// A word of the kernel's command line that a loader of this language would not hand on as it is,
/// and why. The site file refuses what iPXE cannot take.
pub fn unfit(language: Language, cmdline: &str) -> Option<(&str, &'static str)> {
    let words = cmdline.split_whitespace();
    let found = |why, bad: fn(&str) -> bool| words.clone().find(|word| bad(word)).map(|w| (w, why));
    let initrd = found("a loader takes it for an archive to fetch", |w| w.starts_with("initrd="));
    initrd.or_else(|| match language {
        Language::Grub => found("GRUB puts a backslash before quotes and backslashes", |word| {
            word.contains(['"', '\'', '\\'])
        }),
        Language::Ipxe | Language::Pxelinux => None,
    })
}

/// What a plan is, in a line for the console.
fn headline(plan: &Plan) -> String {
    format!(
        "koboshi: {} boots into {} (role {}, image {}) at {}",
        plan.machine,
        plan.seat.as_deref().unwrap_or("no seat"),
        plan.role,
        plan.image,
        plan.address
    )
}

/// Address of a blob below a server.
fn blob(digest: &[u8; 32]) -> String {
    format!("blob/sha256/{}", hex(digest))
}

/// KiB of all that the loader fetches beside the kernel.
fn archives(plan: &Plan) -> u64 {
    plan.segments.iter().map(|part| part.size).sum::<u64>() / 1024
}

/// One line: what a person wrote must not become a line of its own.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_loader_would_change_is_named() {
        let fit = |language, text| unfit(language, text).map(|(word, _)| word);
        let quoted = r#"quiet dyndbg="file x.c +p""#;
        assert_eq!(fit(Language::Grub, quoted), Some(r#"dyndbg="file"#));
        assert_eq!(fit(Language::Pxelinux, quoted), None);
        assert_eq!(fit(Language::Pxelinux, "quiet initrd=my.img"), Some("initrd=my.img"));
        assert_eq!(fit(Language::Grub, "quiet $x ;reboot `id` {}"), None);
    }

    #[test]
    fn a_uart_is_one_that_a_loader_can_drive() {
        assert_eq!(Uart::of(1, 57_600), Some(Uart { port: 0x2f8, speed: 57_600 }));
        assert_eq!(Uart::of(4, 115_200), None);
        assert_eq!(Uart::of(0, 1_500_000), None);
    }
}

#[cfg(test)]
mod testing {
    use super::*;
    use crate::boots::Part;

    /// A plan with this command line and these names.
    pub fn plan(cmdline: &str, machine: &str) -> Plan {
        let part = |name: &str, byte| Part { name: name.into(), sha256: [byte; 32], size: 4096 };
        Plan {
            machine: machine.into(),
            seat: Some("web1".into()),
            role: "web".into(),
            hostname: "web1".into(),
            address: Ipv4Addr::new(10, 77, 0, 11),
            image: "web@3".into(),
            digest: None,
            kernel: part("kernel", 1),
            efi: None,
            segments: vec![part("common", 2), part("orders", 3)],
            roots: vec![part("root", 4)],
            cmdline: cmdline.into(),
            revision: 1,
            ticket: None,
            orders: String::new(),
            because: None,
            blobs: Default::default(),
        }
    }

    pub fn place(http: bool) -> Place<'static> {
        Place {
            server: "http://10.77.0.1:8080",
            tftp: Ipv4Addr::new(10, 77, 0, 1),
            mac: Mac([0x52, 0x54, 0, 0x77, 0, 1]),
            uart: Uart::of(0, 57_600),
            http,
            pauses: Pauses::drawn(0),
        }
    }
}

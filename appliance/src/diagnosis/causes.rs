//! What was seen of a boot that went no further, what usually causes it, what to do next. Each row is
//! what somebody once found after hours of looking at the wrong end of the wire.

use koboshi_pxe::boots::Stage;
use koboshi_pxe::desk::said;

use super::console;
use super::course::Standing;
use crate::ops::table::ago;
use crate::store::{BootRecord, Late};

/// Characters of somebody else's words (a file's name, a machine's message) in a sentence.
const QUOTED: usize = 60;

/// A cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// What was seen, and what was not.
    pub seen: String,
    /// What usually causes it, and what to do.
    pub late: Late,
}

/// What TFTP and DHCP have seen of the loader's fetch.
#[derive(Debug, Default)]
struct Evidence<'a> {
    /// Who was given the address last, and the boot file with it.
    client: Client,
    file: Option<&'a str>,
    uefi: bool,
    loader: Loader,
    sized: Option<&'a str>,
    broke_off: Option<(&'a str, &'a str)>,
    fell_silent: Option<(&'a str, &'a str)>,
    refused: Option<&'a str>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Client {
    #[default]
    Firmware,
    HttpBoot,
    Ipxe,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Loader {
    #[default]
    Ipxe,
    /// PXELINUX, GRUB, shim.
    Other,
}

/// The row that fits.
pub fn cause(boot: &BootRecord, standing: Standing<'_>, waited: u64, pace: Option<f64>) -> Cause {
    if let Some(cause) = console::cause(boot, standing) {
        return cause;
    }
    let seen_of = evidence(boot, standing);
    let address = boot.address;
    let machine = &boot.machine;
    let file = seen_of.file.map_or_else(|| "its loader".to_string(), quoted);
    let look = format!("look at {machine}'s console");
    match standing.stage {
        // smee#382: replies that a relay drops or sends from the wrong address.
        Stage::Offer => row(
            format!("was offered {address} and never asked for it"),
            "another DHCP server was quicker, a relay drops our OFFER, or the switch port was still learning",
            "set portfast on the port; look for a second server: tcpdump -ni IF port 67 or port 68",
        ),
        Stage::Ack => loader_fetch(&seen_of, &file, address, &look),
        Stage::Loader if seen_of.client == Client::Ipxe => row(
            "iPXE runs, has its address, and never fetched its script".to_string(),
            "HTTP (net.http-port, 8080) is blocked between them, or the switch port learned too long for iPXE's patience",
            &format!("{look}: iPXE names its error; open the port; set portfast"),
        ),
        // iPXE alone says DHCP again: GRUB and PXELINUX go on with the address that they found.
        Stage::Loader if seen_of.loader != Loader::Ipxe && seen_of.refused.is_some() => row(
            format!(
                "took its loader whole, and then asked for {}, which is not here",
                quoted(seen_of.refused.unwrap_or_default())
            ),
            "the loader's second half is not installed beside it, or is of another version",
            "`koboshi check` names loaders that are not there; [site] loaders = DIR wants all of their files",
        ),
        Stage::Loader if seen_of.loader != Loader::Ipxe => row(
            "took its loader whole, and it asked for nothing".to_string(),
            "Secure Boot refuses it (shim trusts its own distribution's GRUB alone), or its second half is missing",
            &format!("{look}; `koboshi check` names loaders that are not there"),
        ),
        // cobbler#1766: what nobody signed is refused after it was fetched whole.
        Stage::Loader if seen_of.uefi => row(
            "took its loader whole, and iPXE never spoke".to_string(),
            "Secure Boot refuses an unsigned loader, iPXE has no driver for the NIC, or the switch port learns for 30 s",
            &format!("{look} for a Security Violation; try loader = \"snponly.efi\"; set portfast"),
        ),
        Stage::Loader => row(
            "took its loader whole, and iPXE never spoke".to_string(),
            "undionly.kpxe hangs on this NIC's old PXE ROM, or the switch port learns for 30 s as iPXE takes the link over",
            &format!(
                "{look}; set portfast; update the NIC's ROM, or name another loader for its class"
            ),
        ),
        Stage::Script if seen_of.loader != Loader::Ipxe => row(
            "has its loader's configuration and fetched no kernel".to_string(),
            "a person stopped it at its prompt, or the answers to its next question are lost (MTU, a firewall)",
            &look,
        ),
        Stage::Script => row(
            "has its script and fetched no kernel".to_string(),
            "HTTP breaks off for large answers (MTU), or iPXE does not know what its script asks (too old a ROM)",
            &format!("{look}: iPXE names its error, and ipxe.org explains the number"),
        ),
        // warewulf#222: under BIOS all of it has to fit below 4 GiB, below 3 on some.
        Stage::Kernel => row(
            "asked for the kernel and not for all of the initramfs".to_string(),
            "a slow or lossy link, or the loader is out of memory (under BIOS all has to fit below 3 or 4 GiB)",
            &format!(
                "{look} for the progress; a link at 100 Mbit/s half duplex looks like this; else UEFI"
            ),
        ),
        // tinkerbell#453: scripts with somebody else's console= leave this one dark.
        Stage::Initramfs => row(
            "has kernel and initramfs, and koboshi-init has not spoken".to_string(),
            "the kernel panicked, has no driver for the NIC, or its console is another serial port than the one watched",
            &format!(
                "{look}; nothing there: `serial` in the site names another port than the machine has"
            ),
        ),
        Stage::Init => row(
            "koboshi-init runs and has no byte of its root".to_string(),
            "HTTP does not get through under the kernel's driver: VLAN, MTU, duplex, a port that shuts on the new link",
            &format!("{look}: it says what it waits for; type `rescue` there for a shell"),
        ),
        Stage::Root if boot.plan.as_ref().is_some_and(|plan| plan.roots.is_empty()) => row(
            format!("waits for its root from an NFS server for {} now", ago(waited)),
            "the server hangs, or does not export it to this address",
            &format!("{look}: it says what the server answers; type `rescue` there for a shell"),
        ),
        Stage::Root => {
            let usually = pace.map(|pace| format!("; it usually takes {pace:.0} MB/s"));
            let size = boot.plan.as_ref().map_or(0, |plan| plan.root_size()) / 1_000_000;
            row(
                format!(
                    "fetches its root ({size} MB) for {} now{}",
                    ago(waited),
                    usually.unwrap_or_default()
                ),
                "a link that lost its speed (100 Mbit/s, half duplex, a bad cable), or hundreds that fetch at once",
                &format!(
                    "{look}: it shows its rate; compare the port's speed and errors on the switch"
                ),
            )
        }
        Stage::RootReady => row(
            "has its root and does not take it over".to_string(),
            "koboshi-init waits for something of the seat: a disk, a network, an address that somebody else has",
            &format!("{look}: it says what it waits for; type `rescue` there for a shell"),
        ),
        Stage::Switching => row(
            "its role's own init took over and does not say that it is up".to_string(),
            "a service of the role hangs, or the role's network set-up took the address away and no report arrives",
            &format!("{look}: systemctl list-jobs there; ping {address}"),
        ),
        Stage::Up => row(
            format!("was up, and its heartbeats stopped {} ago", ago(waited)),
            "the machine lost power or hangs, its link is gone, or a firewall in the role drops what it sends",
            &format!("ping {address}; {look}; is it powered?"),
        ),
        Stage::Trouble => {
            let said = standing.marks.iter().rev().find(|mark| mark.is_sign());
            row(
                format!(
                    "said {:?} and nothing for {}",
                    quoted(said.map_or("", |mark| mark.note.as_str())),
                    ago(waited)
                ),
                "it lost its link or its power while it tried again, or it hangs",
                &format!("{look}; is it powered?"),
            )
        }
        Stage::Waiting | Stage::Rescue | Stage::Down => {
            row(format!("nothing for {}", ago(waited)), "a person is at work on it", &look)
        }
    }
}

/// It has its address, and the boot file's name with it.
fn loader_fetch(seen: &Evidence<'_>, file: &str, address: std::net::Ipv4Addr, look: &str) -> Cause {
    match seen {
        Evidence { client: Client::Ipxe, .. } => row(
            format!("iPXE has {address} and never fetched its script"),
            "HTTP (net.http-port, 8080) is blocked by a firewall here or on the way",
            &format!("curl the URL in the line above from beside it; {look}: iPXE names its error"),
        ),
        // EDK2 is built without http:// on many servers (edk2#9920 is another way to get no further).
        Evidence { client: Client::HttpBoot, .. } => row(
            "its firmware has an address and never fetched its loader by HTTP".to_string(),
            "HTTP is blocked, or the firmware takes https:// alone (it then says Access Denied at once)",
            &format!("{look}; open net.http-port, or set the firmware to PXE instead of HTTP boot"),
        ),
        Evidence { refused: Some(name), sized: None, .. } => row(
            format!("asked for {}, which is not here, and for nothing else", quoted(name)),
            "another DHCP server's boot file won, or the site names a loader that is not there",
            "`koboshi check` names missing loaders; `koboshi explain` shows the file that we give",
        ),
        // netboot#77: blocks of 1468 bytes and a path that carries less.
        Evidence { fell_silent: Some((name, of)), .. } => row(
            format!("took {} of {} and fell silent", quoted(of), quoted(name)),
            "large UDP packets get lost (MTU, jumbo frames on one side), or a firewall lets port 69 in and no answer out",
            "send 1500 bytes unfragmented: ping -M do -s 1472; TFTP answers come from a port of their own",
        ),
        Evidence { broke_off: Some((name, after)), .. } if !nothing(after) => row(
            format!("began {} and broke off after {}", quoted(name), quoted(after)),
            "the file is larger than the firmware's room for it, large UDP packets get lost, or somebody pressed a key",
            &format!("{look}: PXE-E numbers say which; try the smaller loader = \"snponly.efi\""),
        ),
        // EDK2 asks for tsize, aborts with ERROR 8, and asks again from another port.
        Evidence { sized: Some(name), .. } => row(
            format!("asked the size of {}, aborted, never asked again", quoted(name)),
            "its link flapped, it has no room for a file of that size, or a firewall drops the second question",
            &format!(
                "{look}; each question comes from a new port: allow them all; try loader = \"snponly.efi\""
            ),
        ),
        Evidence { file: None, .. } => row(
            format!("has {address} and was given no boot file"),
            "there is no loader for its architecture, or the site names one that this firmware cannot start",
            "`koboshi explain` with --arch shows which; loader = \"…\" for the machine or its class",
        ),
        // Strict firmware obeys the server that answers as it likes: option 43, header or option 67
        // (netboot#38, pixiecore#21).
        _ => row(
            format!("has its address and never asked for {file}"),
            "a firewall drops TFTP (UDP 69), or the firmware obeys a second server (proxy DHCP) and its boot file",
            &format!(
                "fetch it from beside the machine: tftp SERVER -c get {file}; {look} for PXE-E numbers"
            ),
        ),
    }
}

pub(super) fn row(seen: String, usual: &str, next: &str) -> Cause {
    Cause { seen, late: Late { usual: usual.to_string(), next: next.to_string() } }
}

/// EDK2 aborts at 0 KiB after each question for a size: that is no break.
fn nothing(after: &str) -> bool {
    after.starts_with("0 KiB")
}

/// Of what came since the boot stands there, and of who it is.
fn evidence<'a>(boot: &'a BootRecord, standing: Standing<'a>) -> Evidence<'a> {
    let uefi = boot.marks.first().is_some_and(|mark| mark.note.contains("UEFI"));
    let other = |file: &str| {
        let file = file.rsplit('/').next().unwrap_or(file);
        ["grub", "shim", "pxelinux", "lpxelinux", "syslinux"].iter().any(|of| file.starts_with(of))
    };
    let mut given = boot.marks.iter().filter_map(|mark| Some(mark.note.split_once(said::THEN)?.1));
    let loader = if given.any(other) { Loader::Other } else { Loader::Ipxe };
    let mut seen = Evidence { uefi, loader, ..Evidence::default() };
    for mark in standing.marks.iter().filter(|mark| mark.is_sign()) {
        let note = mark.note.as_str();
        let name = |rest: &'a str| rest.split(": ").next().unwrap_or(rest);
        if let Some(rest) = note.strip_prefix(said::SIZE_ASKED) {
            seen.sized = Some(name(rest));
        } else if let Some(rest) = note.strip_prefix(said::ASKED_FOR) {
            seen.refused = Some(name(rest));
        } else if let Some(found) = note.split_once(said::BROKE_OFF) {
            seen.broke_off = Some(found);
        } else if let Some(found) = note.split_once(said::FELL_SILENT) {
            seen.fell_silent = Some(found);
        } else if let Some((_, to)) = note.split_once(" to ") {
            let (who, file) = to.split_once(said::THEN).unwrap_or((to, ""));
            seen.client = match who {
                _ if who.starts_with(said::IPXE) => Client::Ipxe,
                _ if who.starts_with(said::HTTP_BOOT) => Client::HttpBoot,
                _ => Client::Firmware,
            };
            seen.file = (!file.is_empty()).then_some(file);
        }
    }
    seen
}

/// A stranger's words in a sentence of ours.
pub(super) fn quoted(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { '·' } else { c }).collect();
    match clean.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;

    use koboshi_pxe::desk::{Desk, News, Offer};
    use koboshi_pxe::tftp;

    use super::super::course::standing;
    use super::super::course::tests::boot;
    use super::*;

    fn of(marks: &[(u64, Stage, &str)]) -> Cause {
        let boot = boot(marks);
        cause(&boot, standing(&boot), 134_000, Some(11.0))
    }

    const OFFER: (u64, Stage, &str) = (0, Stage::Offer, "10.77.0.11 to PXE firmware (UEFI x86-64)");
    const BIOS: (u64, Stage, &str) = (0, Stage::Offer, "10.77.0.11 to PXE firmware (BIOS)");
    const ACK: (u64, Stage, &str) = (4, Stage::Ack, "10.77.0.11 to PXE firmware, then ipxe.efi");
    const SENT: (u64, Stage, &str) = (7, Stage::Loader, "ipxe.efi, 1023 KiB in 1.2 s");

    /// A name, a timeline, and what must be said of it: seen, usual, next.
    type Story = (&'static str, Vec<(u64, Stage, &'static str)>, [&'static str; 3]);

    fn stories() -> Vec<Story> {
        let sized = (5, Stage::Ack, "asked the size of ipxe.efi: 1023 KiB");
        let aborted = (5, Stage::Ack, "ipxe.efi broke off after 0 KiB: User aborted the transfer");
        let ipxe = "10.77.0.11 to iPXE, then http://10.77.0.1:8080/boot/x.ipxe";
        vec![
            ("no REQUEST", vec![OFFER], ["never asked for it", "DHCP server", "portfast"]),
            ("no TFTP", vec![OFFER, ACK], ["never asked for ipxe.efi", "UDP 69", "tftp SERVER"]),
            (
                "size alone",
                vec![OFFER, ACK, sized, aborted],
                ["asked the size of ipxe.efi, aborted, never asked again", "firewall", "new port"],
            ),
            (
                "cut",
                vec![
                    OFFER,
                    ACK,
                    sized,
                    aborted,
                    (6, Stage::Ack, "ipxe.efi broke off after 12 KiB: x"),
                ],
                ["broke off after 12 KiB", "large UDP packets", "snponly.efi"],
            ),
            (
                "no answers",
                vec![
                    OFFER,
                    ACK,
                    (30, Stage::Ack, "ipxe.efi: the client fell silent after 0 of 1023 KiB"),
                ],
                ["took 0 of 1023 KiB of ipxe.efi and fell silent", "MTU", "1472"],
            ),
            (
                "another file",
                vec![
                    OFFER,
                    ACK,
                    (6, Stage::Ack, "asked for bootx64.efi: bootx64.efi: no such file"),
                ],
                [
                    "asked for bootx64.efi, which is not here",
                    "another DHCP server",
                    "koboshi check",
                ],
            ),
            (
                "a ROM that is iPXE",
                vec![(0, Stage::Offer, "10.77.0.11 to iPXE (BIOS)"), (1, Stage::Ack, ipxe)],
                ["never fetched its script", "HTTP", "curl"],
            ),
            (
                "HTTP boot",
                vec![
                    (0, Stage::Offer, "10.77.0.11 to UEFI HTTP boot (UEFI x86-64 HTTP)"),
                    (
                        1,
                        Stage::Ack,
                        "10.77.0.11 to UEFI HTTP boot, then http://10.77.0.1:8080/ipxe.efi",
                    ),
                ],
                ["by HTTP", "https://", "http-port"],
            ),
            (
                "no loader",
                vec![OFFER, (4, Stage::Ack, "10.77.0.11 to PXE firmware")],
                ["no boot file", "architecture", "--arch"],
            ),
            (
                "GRUB",
                vec![
                    OFFER,
                    (4, Stage::Ack, "10.77.0.11 to PXE firmware, then grub/shimx64.efi"),
                    (7, Stage::Loader, "grub/shimx64.efi, 930 KiB in 1.2 s"),
                ],
                ["asked for nothing", "shim trusts", "koboshi check"],
            ),
            (
                "half of SYSLINUX",
                vec![
                    OFFER,
                    (4, Stage::Ack, "10.77.0.11 to PXE firmware, then pxelinux.0"),
                    (7, Stage::Loader, "pxelinux.0, 42 KiB in 0.2 s"),
                    (8, Stage::Loader, "asked for ldlinux.c32: ldlinux.c32: no such file"),
                ],
                ["asked for ldlinux.c32, which is not here", "second half", "[site] loaders"],
            ),
            ("refused", vec![OFFER, ACK, SENT], ["never spoke", "Secure Boot", "snponly.efi"]),
            ("UNDI", vec![BIOS, ACK, SENT], ["never spoke", "undionly.kpxe", "portfast"]),
            (
                "iPXE without HTTP",
                vec![OFFER, ACK, SENT, (12, Stage::Ack, ipxe)],
                ["never fetched its script", "HTTP", "portfast"],
            ),
            (
                "script",
                vec![OFFER, (3, Stage::Script, "to 10.77.0.11")],
                ["no kernel", "MTU", "ipxe.org"],
            ),
            ("kernel", vec![OFFER, (3, Stage::Kernel, "")], ["initramfs", "memory", "UEFI"]),
            ("panic", vec![OFFER, (3, Stage::Initramfs, "")], ["not spoken", "panicked", "serial"]),
            ("init", vec![OFFER, (3, Stage::Init, "Linux")], ["no byte", "VLAN", "rescue"]),
            (
                "slow",
                vec![OFFER, (3, Stage::Root, "")],
                ["usually takes 11 MB/s", "duplex", "switch"],
            ),
            ("disk", vec![OFFER, (3, Stage::RootReady, "")], ["take it over", "disk", "rescue"]),
            ("role", vec![OFFER, (3, Stage::Switching, "")], ["says", "service", "10.77.0.11"]),
            (
                "gone",
                vec![OFFER, (3, Stage::Up, "systemd")],
                ["stopped 2 min ago", "power", "ping"],
            ),
            (
                "trouble",
                vec![OFFER, (3, Stage::Trouble, "try 4: no route; next in 8 s")],
                ["try 4: no route", "link", "console"],
            ),
        ]
    }

    #[test]
    fn every_story_has_its_words() {
        for (name, marks, [seen, usual, next]) in stories() {
            let cause = of(&marks);
            let whole = format!("{name}: {cause:#?}");
            // "role" is told by what it does not say.
            assert!(cause.seen.contains(seen) || name == "role", "{whole}");
            assert!(cause.late.usual.contains(usual), "{whole}");
            assert!(cause.late.next.contains(next), "{whole}");
        }
    }

    #[test]
    fn every_sentence_fits_two_lines() {
        let long = "x".repeat(5000);
        let hostile = format!("asked for {long}: {long}");
        let mut all: Vec<Cause> = stories().iter().map(|(_, marks, _)| of(marks)).collect();
        all.push(of(&[OFFER, ACK, (6, Stage::Ack, &hostile)]));
        all.push(of(&[OFFER, (6, Stage::Trouble, &long)]));
        for cause in all {
            for text in [&cause.seen, &cause.late.usual, &cause.late.next] {
                assert!(text.chars().count() <= 170, "{} of {text}", text.chars().count());
                assert!(!text.ends_with('.') && !text.contains('\n'), "{text}");
            }
        }
    }

    proptest::proptest! {
        /// Notes hold what strangers named their files and what machines said.
        #[test]
        fn any_note_makes_a_sentence(
            stage in 0usize..14,
            notes in proptest::collection::vec("(asked the size of |asked for |10.0.0.1 to |[a-z]{0,3}: the client fell silent after |x broke off after )?\\PC{0,200}[\\x00-\\x1f]?", 1..6),
        ) {
            use Stage::*;
            let all = [
                Offer, Ack, Loader, Script, Waiting, Kernel, Initramfs, Init, Root, RootReady,
                Switching, Up, Trouble, Rescue,
            ];
            let mut marks = vec![(0, all[stage], "")];
            marks.extend(notes.iter().map(|note| (1, all[stage], note.as_str())));
            let cause = of(&marks);
            for text in [&cause.seen, &cause.late.usual, &cause.late.next] {
                proptest::prop_assert!(text.chars().count() <= 300, "{}", text);
                proptest::prop_assert!(!text.contains(char::is_control), "{:?}", text);
            }
        }
    }

    /// The words the desk writes are those that are looked for here.
    #[test]
    fn what_the_desk_says_is_understood() {
        let (news, mut heard) = tokio::sync::mpsc::channel(100);
        let desk = desk(news);
        let (mac, address) = (koboshi_pxe::Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 77, 0, 11));
        let subnet = desk.site().subnet_of(address).expect("the site's").clone();
        let offer = Offer { address, subnet, via: None, lender: None };
        let facts = |discover| koboshi_pxe::decide::Facts {
            mac,
            asks: koboshi_pxe::decide::Asks::Dhcp {
                client: koboshi_pxe::decide::Client::Firmware,
                archs: vec![koboshi_pxe::decide::Arch::EFI64],
                discover,
            },
        };
        desk.offered(&facts(true), &offer);
        desk.acked(&facts(false), &offer, Some("ipxe.efi"));
        let peer = SocketAddr::from((address, 2070));
        let name: Arc<str> = "ipxe.efi".into();
        let mut marks = |event: Option<tftp::Event>| {
            if let Some(event) = event {
                desk.tftp_event(&event);
            }
            let mut marks = Vec::new();
            while let Ok(news) = heard.try_recv() {
                if let News::Mark { stage, note, .. } = news {
                    marks.push((stage, note));
                }
            }
            marks
        };
        let begin = marks(None);
        let probed = tftp::Event::Probed { peer, name: name.clone(), size: 1_047_552 };
        let refused = tftp::Event::Refused { peer, name: "x.efi".into(), why: "x.efi: no".into() };
        let silent = tftp::Event::TimedOut { peer, name, bytes: 4096, size: 1_047_552 };
        for (event, expected) in [
            (None, "never asked for ipxe.efi"),
            (Some(probed), "asked the size of ipxe.efi, aborted"),
            (Some(refused), "asked for x.efi, which is not here"),
            (Some(silent), "took 4 of 1023 KiB of ipxe.efi"),
        ] {
            let mut all = begin.clone();
            all.extend(marks(event));
            let all: Vec<_> = all.iter().map(|(stage, note)| (1, *stage, note.as_str())).collect();
            let cause = of(&all);
            assert!(cause.seen.contains(expected), "{expected}: {cause:#?}\n{all:#?}");
        }
    }

    fn desk(news: tokio::sync::mpsc::Sender<News>) -> Desk {
        let text = "[site]\nname = \"rack\"\n[net]\ninterface = \"kb0\"\ncidr = \"10.77.0.0/24\"\n\
                    [roles.web]\nimage = \"web\"\n[machines]\nm01 = { mac = [\"02:00:00:00:00:01\"] }\n\
                    [seats]\nweb1 = { role = \"web\", ip = \"10.77.0.11\" }\n[matrix]\nm01 = \"web1\"\n";
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("site.toml");
        std::fs::write(&path, text).expect("written");
        let env = crate::site::Env::system(crate::site::Purpose::Check);
        let site = crate::site::load(&path, &env).expect("a site");
        let asked = crate::ops::explain::desk_of(&Arc::new(site), dir.path()).expect("a desk");
        let snapshot = asked.site();
        drop(asked);
        Desk::new(Arc::into_inner(snapshot).expect("nobody else has it"), news)
    }
}

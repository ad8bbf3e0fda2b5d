//! The iPXE script of one machine: what its loader does between its own DHCP and the kernel.
//!
//! It says on the console what happens and what comes next, tries each fetch again, and after
//! enough failures starts the machine over: the appliance may be back by then.

pub mod menu;

use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::boots::Plan;
use crate::content::{BootId, hex};
use crate::pace::Pauses;

/// Tries of the whole set of fetches before the machine is restarted.
const TRIES: u32 = 20;

/// The script that boots a plan.
pub fn boot(server: &str, id: BootId, plan: &Plan, pauses: Pauses) -> String {
    let mut text = String::from("#!ipxe\n");
    let seat = plan.seat.as_deref().unwrap_or("no seat");
    // Everything a person wrote passes `plain`: iPXE would expand ${…} and run a second line.
    let _ = writeln!(
        text,
        "echo koboshi: {} boots into {} (role {}, image {}) at {}\necho koboshi: boot {id}",
        plain(&plan.machine),
        plain(seat),
        plain(&plan.role),
        plain(&plan.image),
        plan.address
    );
    if let Some(because) = &plan.because {
        let _ = writeln!(text, "echo koboshi: {}", plain(because));
    }
    tries(&mut text, pauses);
    text.push_str("imgfree\n");
    if let Some(efi) = &plan.efi {
        let cmdline = plain(&plan.cmdline);
        let from = |digest: &[u8; 32]| format!("{server}/blob/sha256/{}", hex(digest));
        let _ = write!(
            text,
            "iseq ${{platform}} efi && goto efi ||\n\
             kernel {} {cmdline} || goto failed\ngoto start\n\
             :efi\nkernel {} {cmdline} || goto failed\n\
             :start\necho koboshi: starts {}; it speaks next\nboot || goto failed\n",
            from(&plan.kernel.sha256),
            from(&efi.sha256),
            plain(&plan.image)
        );
        failed(&mut text, pauses);
        return text;
    }
    let blob = |digest: &[u8; 32]| format!("{server}/blob/sha256/{}", hex(digest));
    // Debian's iPXE (2019) under UEFI hands the kernel no initramfs unless the command line names
    // it; newer ones offer it by LoadFile2, and then the kernel ignores these names.
    let names = plan.segments.iter().map(|part| format!("initrd={}", part.name));
    let names = names.collect::<Vec<_>>().join(" ");
    let _ = writeln!(
        text,
        "echo koboshi: fetches the kernel ({} KiB)\nkernel {} {names} {} || goto failed",
        plan.kernel.size / 1024,
        blob(&plan.kernel.sha256),
        plain(&plan.cmdline)
    );
    for part in &plan.segments {
        let _ = writeln!(text, "initrd --name {} {} || goto failed", part.name, blob(&part.sha256));
    }
    text.push_str(
        "echo koboshi: starts the kernel; koboshi-init speaks next, on the serial line\n\
         boot || goto failed\n",
    );
    failed(&mut text, pauses);
    text
}

/// The script of a machine that has nothing to boot: it says why, asks DHCP again, and again.
pub fn wait(server: &str, mac: &str, says: &str, pauses: Pauses) -> String {
    let again = pauses.again;
    let says = says.lines().map(|line| format!("echo koboshi: {}\n", plain(line)));
    format!(
        "#!ipxe\n{}echo koboshi: asks again in {again} seconds\n:again\nsleep {again}\n\
         dhcp || goto again\nchain --replace {server}/boot/{mac}.ipxe || goto again\n",
        says.collect::<String>()
    )
}

/// The script of a machine whose turn it is not yet: it asks again after so many seconds.
pub fn turn(server: &str, mac: &str, says: &str, seconds: u64, pauses: Pauses) -> String {
    let mut text = format!("#!ipxe\necho koboshi: {}\nsleep {seconds}\n", plain(says));
    tries(&mut text, pauses);
    let _ = writeln!(text, "chain --replace {server}/boot/{mac}.ipxe || goto failed");
    failed(&mut text, pauses);
    text
}

/// `autoexec.ipxe`, the same for every machine: newer iPXE asks for it before anything else.
pub fn autoexec(server: &str, pauses: Pauses) -> String {
    let mut text = String::from("#!ipxe\n");
    tries(&mut text, pauses);
    let _ = writeln!(
        text,
        "isset ${{net0/ip}} || dhcp || goto failed\n\
         chain --replace {server}/boot/${{net0/mac}}.ipxe || goto failed"
    );
    failed(&mut text, pauses);
    text
}

/// Where DHCP sends an iPXE client.
pub fn url(server: Ipv4Addr, port: u16, mac: crate::Mac) -> String {
    format!("http://{server}:{port}/boot/{mac}.ipxe")
}

/// What is tried again after [`failed`]. A loader has no random numbers: its pauses are drawn here, and
/// grow by what was drawn, so that a rack that fails together does not try again together.
fn tries(text: &mut String, pauses: Pauses) {
    let _ = write!(text, "set try:int32 0\nset pause:int32 {}\n:again\n", pauses.first);
}

fn failed(text: &mut String, pauses: Pauses) {
    let more = pauses.more;
    let _ = write!(
        text,
        ":failed\ninc try\niseq ${{try}} {TRIES} && goto over ||\n\
         echo koboshi: that failed (error ${{errno}}); tries again in ${{pause}} seconds, try ${{try}} of {TRIES}\n\
         sleep ${{pause}}\ninc pause {more}\ngoto again\n:over\n\
         echo koboshi: failed {TRIES} times; restarts the machine in 10 seconds\nsleep 10\nreboot\n"
    );
}

/// One line without anything that iPXE's shell would take for its own: `${…}` it expands, a second
/// line is a second command, and so is what follows a word `;`, `||` or `&&`; from a word that
/// begins with `#` on it reads nothing. (The site file refuses these where they would matter.)
fn plain(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let word = |word: &str| match word {
        ";" | "||" | "&&" => ",".to_string(),
        word if word.starts_with('#') => format!("'{word}"),
        word => word.replace("${", "$ {"),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_person_wrote_becomes_a_command() {
        let hostile = "a\nreboot ${net0/ip} || shell ; reboot # rest";
        assert_eq!(plain(hostile), "a reboot $ {net0/ip} , shell , reboot '# rest");
    }

    fn plan() -> Plan {
        let part = |name: &str, byte| crate::boots::Part {
            name: name.into(),
            sha256: [byte; 32],
            size: 4096,
        };
        Plan {
            machine: "m01".into(),
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
            cmdline: "console=ttyS0,115200 id=100".into(),
            revision: 1,
            ticket: None,
            orders: String::new(),
            because: None,
            blobs: Default::default(),
        }
    }

    #[test]
    fn a_boot_names_its_archives_and_tries_again() {
        let plan = plan();
        let text = boot("http://10.77.0.1:8080", BootId([7; 16]), &plan, Pauses::drawn(0));
        let blob = |byte: u8| format!("http://10.77.0.1:8080/blob/sha256/{}", hex(&[byte; 32]));
        for line in [
            "echo koboshi: m01 boots into web1 (role web, image web@3) at 10.77.0.11".to_string(),
            format!(
                "kernel {} initrd=common initrd=orders console=ttyS0,115200 id=100 || goto failed",
                blob(1)
            ),
            format!("initrd --name common {} || goto failed", blob(2)),
            format!("initrd --name orders {} || goto failed", blob(3)),
            "boot || goto failed".to_string(),
            "goto again".to_string(),
            "reboot".to_string(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(
            text.contains("that failed (error ${errno}); tries again in ${pause} seconds"),
            "{text}"
        );
        assert!(!text.contains(&hex(&[4; 32])), "the root is koboshi-init's to fetch");
    }

    /// Runs a script as far as loops go: which command ended it, and how many seconds it slept.
    fn follow(text: &str, fails: impl Fn(&str) -> bool) -> (String, u64) {
        let lines: Vec<&str> = text.lines().collect();
        let label = |name: &str| {
            let at = lines.iter().position(|line| line.strip_prefix(':') == Some(name));
            at.unwrap_or_else(|| panic!("no label {name} in\n{text}"))
        };
        let (mut at, mut slept, mut steps) = (0, 0, 0);
        let (mut tried, mut pause) = (0, 0u64);
        loop {
            steps += 1;
            assert!(steps < 10_000, "it ends\n{text}");
            let line = *lines.get(at).unwrap_or_else(|| panic!("it runs off its end\n{text}"));
            at += 1;
            let (command, otherwise) = line.split_once(" || ").unwrap_or((line, ""));
            let mut words = command.split(' ');
            match (words.next().unwrap_or(""), words.next().unwrap_or("")) {
                ("goto", name) => at = label(name),
                ("sleep", "${pause}") => slept += pause,
                ("sleep", seconds) => slept += seconds.parse::<u64>().expect("a number"),
                ("set", "pause:int32") => pause = words.next().expect("one").parse().expect("one"),
                ("inc", "pause") => {
                    pause += words.next().expect("one").parse::<u64>().expect("one")
                }
                ("inc", "try") => tried += 1,
                ("iseq", _) if tried == TRIES => at = label("over"),
                ("reboot", _) => return (line.to_string(), slept),
                ("kernel" | "initrd" | "dhcp" | "chain" | "boot", _) if fails(command) => {
                    at = label(otherwise.strip_prefix("goto ").expect("a failure leads somewhere"));
                    // A wait for a seat is for ever; a second round has shown that it goes on.
                    if slept > 10_000 {
                        return (line.to_string(), slept);
                    }
                }
                ("boot" | "chain", _) => return (line.to_string(), slept),
                _ => {}
            }
        }
    }

    #[test]
    fn no_script_has_a_dead_end() {
        let (server, mac) = ("http://10.77.0.1:8080", "52:54:00:77:00:06");
        for draw in [0, 6, 0x0106, u64::MAX] {
            let pauses = Pauses::drawn(draw);
            let boot = boot(server, BootId([7; 16]), &plan(), pauses);
            let turn = turn(server, mac, "212 machines boot at once", 14, pauses);
            let auto = autoexec(server, pauses);
            for (text, ends) in [(&boot, "boot"), (&turn, "chain"), (&auto, "chain")] {
                assert!(follow(text, |_| false).0.starts_with(ends), "{text}");
                let (end, slept) = follow(text, |_| true);
                assert_eq!(end, "reboot", "{text}");
                assert!((2 * 60..15 * 60).contains(&slept), "{slept} s of\n{text}");
                // The appliance comes back, or one file comes only once.
                let (end, _) = follow(text, |command| command.contains("initrd --name orders"));
                assert!(end == "reboot" || end.starts_with("chain"), "{text}");
            }
            let wait = wait(server, mac, "m06 is a spare", pauses);
            assert!(follow(&wait, |_| true).1 > 10_000, "a spare waits for as long as it takes");
            assert!(follow(&wait, |command| command == "dhcp").1 > 10_000);
            assert!(follow(&wait, |_| false).0.starts_with("chain"));
        }
        let size = |draw| autoexec(server, Pauses::drawn(draw)).len();
        assert!((0..4096).all(|draw| size(draw) == size(0)), "UEFI asks for the size first");
    }

    #[test]
    fn a_program_instead_of_linux_is_there_for_each_firmware() {
        let efi = crate::boots::Part { name: "memtest".into(), sha256: [9; 32], size: 1 };
        let plan = Plan { efi: Some(efi), segments: vec![], roots: vec![], ..plan() };
        let text = boot("http://10.77.0.1:8080", BootId([7; 16]), &plan, Pauses::drawn(0));
        let kernel =
            |byte| format!("kernel http://10.77.0.1:8080/blob/sha256/{}", hex(&[byte; 32]));
        let order =
            ["iseq ${platform} efi && goto efi ||", &kernel(1), "goto start", ":efi", &kernel(9)];
        let mut rest = text.as_str();
        for line in order {
            rest = rest.split_once(line).unwrap_or_else(|| panic!("{line} in {text}")).1;
        }
        assert!(!text.contains("initrd"), "{text}");
        assert!(follow(&text, |_| false).0.starts_with("boot"), "{text}");
        assert_eq!(follow(&text, |_| true).0, "reboot", "{text}");
    }

    #[test]
    fn a_wait_says_why_and_asks_again() {
        let pauses = Pauses::drawn(0);
        let text = wait("http://10.77.0.1:8080", "52:54:00:77:00:06", "m06 is a spare", pauses);
        assert!(text.starts_with("#!ipxe\necho koboshi: m06 is a spare\n"));
        assert!(text.contains("chain --replace http://10.77.0.1:8080/boot/52:54:00:77:00:06.ipxe"));
    }
}

//! The iPXE script of one machine: what its loader does between its own DHCP and the kernel.
//!
//! It says on the console what happens and what comes next, tries each fetch again, and after
//! enough failures starts the machine over: the appliance may be back by then.

use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::boots::Plan;
use crate::content::{BootId, hex};

/// Tries of the whole set of fetches before the machine is restarted.
const TRIES: u32 = 20;

/// The script that boots a plan.
pub fn boot(server: &str, id: BootId, plan: &Plan) -> String {
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
    text.push_str("set try:int32 0\n:again\nimgfree\n");
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
    failed(&mut text);
    text
}

/// The script of a machine that has nothing to boot: it says why, asks DHCP again, and again.
pub fn wait(server: &str, mac: &str, says: &str) -> String {
    format!(
        "#!ipxe\necho koboshi: {}\necho koboshi: asks again in 15 seconds\n:again\nsleep 15\n\
         dhcp || goto again\nchain --replace {server}/boot/{mac}.ipxe || goto again\n",
        plain(says)
    )
}

/// `autoexec.ipxe`, the same for every machine: newer iPXE asks for it before anything else.
pub fn autoexec(server: &str) -> String {
    let mut text = String::from("#!ipxe\nset try:int32 0\n:again\n");
    let _ = writeln!(
        text,
        "isset ${{net0/ip}} || dhcp || goto failed\n\
         chain --replace {server}/boot/${{net0/mac}}.ipxe || goto failed"
    );
    failed(&mut text);
    text
}

/// Where DHCP sends an iPXE client.
pub fn url(server: Ipv4Addr, port: u16, mac: crate::Mac) -> String {
    format!("http://{server}:{port}/boot/{mac}.ipxe")
}

fn failed(text: &mut String) {
    let _ = write!(
        text,
        ":failed\ninc try\niseq ${{try}} {TRIES} && goto over ||\n\
         echo koboshi: that failed (error ${{errno}}); tries again in 5 seconds, try ${{try}} of {TRIES}\n\
         sleep 5\ngoto again\n:over\n\
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

    #[test]
    fn a_boot_names_its_archives_and_tries_again() {
        let part = |name: &str, byte| crate::boots::Part {
            name: name.into(),
            sha256: [byte; 32],
            size: 4096,
        };
        let plan = Plan {
            machine: "m01".into(),
            seat: Some("web1".into()),
            role: "web".into(),
            hostname: "web1".into(),
            address: Ipv4Addr::new(10, 77, 0, 11),
            image: "web@3".into(),
            kernel: part("kernel", 1),
            segments: vec![part("common", 2), part("orders", 3)],
            root: part("root", 4),
            cmdline: "console=ttyS0,115200 id=100".into(),
            revision: 1,
            orders: String::new(),
            blobs: Default::default(),
        };
        let text = boot("http://10.77.0.1:8080", BootId([7; 16]), &plan);
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
        assert!(text.contains("that failed (error ${errno}); tries again in 5 seconds"), "{text}");
        assert!(!text.contains(&hex(&[4; 32])), "the root is koboshi-init's to fetch");
    }

    #[test]
    fn a_wait_says_why_and_asks_again() {
        let text = wait("http://10.77.0.1:8080", "52:54:00:77:00:06", "m06 is a spare");
        assert!(text.starts_with("#!ipxe\necho koboshi: m06 is a spare\n"));
        assert!(text.contains("chain --replace http://10.77.0.1:8080/boot/52:54:00:77:00:06.ipxe"));
    }
}

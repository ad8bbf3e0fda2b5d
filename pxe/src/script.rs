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

/// One line without anything that iPXE's shell would take for its own.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .replace("${", "$ {")
        .replace("||", "| |")
        .replace("&&", "& &")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_person_wrote_becomes_a_command() {
        assert_eq!(plain("a\nreboot ${net0/ip} || shell"), "a reboot $ {net0/ip} | | shell");
    }

    #[test]
    fn a_wait_says_why_and_asks_again() {
        let text = wait("http://10.77.0.1:8080", "52:54:00:77:00:06", "m06 is a spare");
        assert!(text.starts_with("#!ipxe\necho koboshi: m06 is a spare\n"));
        assert!(text.contains("chain --replace http://10.77.0.1:8080/boot/52:54:00:77:00:06.ipxe"));
    }
}

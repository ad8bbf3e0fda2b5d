//! What a machine's console says of why its boot went no further: where it says something, that is the cause,
//! and what DHCP and TFTP have seen is not.

use koboshi_console::watch::rules::LOGIN;
use koboshi_pxe::boots::Stage;

use super::causes::{Cause, quoted, row};
use super::course::Standing;
use crate::store::{BootRecord, Mark};

/// A rule, what it is taken for, what usually causes it, what to do next.
type Known = (&'static str, &'static str, &'static str, &'static str);

/// The one that explains most comes first: an oops is why a kernel panics, and the panic is why it stands.
const KNOWN: &[Known] = &[
    (
        "kernel-panic",
        "its kernel panicked",
        "no driver for its root or its init, an init that ended, or hardware that fails",
        "the lines before it say which",
    ),
    (
        "emergency-shell",
        "a shell is open on its console",
        "its init could not mount what it wanted: a disk or a network that is not there",
        "type there: journalctl -xb",
    ),
    (
        "lockup",
        "a CPU of it is stuck",
        "a driver that spins, a hypervisor without time for it, or firmware that steals it (SMI)",
        "reset it; a newer kernel or firmware",
    ),
    (
        "kernel-oops",
        "its kernel had a fault",
        "a driver's bug, or memory that fails",
        "reset it; a memory test",
    ),
    (
        "hardware-error",
        "its hardware reports an error",
        "memory, a CPU or a PCIe card that fails",
        "`koboshi sel` has its BMC's log; exchange what it names",
    ),
    (
        "out-of-memory",
        "its kernel ran out of memory",
        "a root in memory that is too large for it, or a service that grows",
        "root-size in its role; a machine with more memory",
    ),
    (
        "grub-rescue",
        "GRUB stands at its prompt",
        "it booted from a disk, and half of a GRUB is there",
        "put the network first: `koboshi bootdev`",
    ),
    (
        "pxe-error",
        "its PXE firmware gave up",
        "no answer from DHCP or TFTP reached it, or the cable is out (PXE-E61)",
        "the number says which; portfast on its port; a firewall before UDP 67 and 69",
    ),
    (
        "ipxe-error",
        "iPXE gave up",
        "its next file did not come: HTTP is blocked, the name is wrong, or the link is down",
        "the page that it names explains the number",
    ),
    (
        "no-boot-device",
        "its firmware found nothing to boot",
        "the network comes behind the disks in its boot order, or is switched off there",
        "`koboshi bootdev`; PXE on for that NIC in its setup",
    ),
    (
        "firmware-error",
        "its firmware stopped and wants a person",
        "an error in its self-test, a memory module, a battery, or Secure Boot",
        "read it there, or press the key that it asks for",
    ),
    ("read-only", "a file system of it is read-only now", "a disk that fails", "dmesg there"),
    (
        "io-error",
        "a disk of it fails",
        "a disk, its cable, or its controller",
        "dmesg there; smartctl -a",
    ),
];

/// The cause by what was seen on its console since the boot stands there.
pub(super) fn cause(boot: &BootRecord, standing: Standing<'_>) -> Option<Cause> {
    let seen = |rule: &str| {
        let mut marks = standing.marks.iter().rev();
        marks.find(|mark| mark.console.as_ref().is_some_and(|seen| seen.rule == rule))
    };
    let machine = &boot.machine;
    let found = KNOWN.iter().find_map(|known| Some((known, seen(known.0)?)));
    if let Some(((rule, what, usual, next), mark)) = found {
        // A machine that ran on for days after an I/O error is not silent by it.
        let ends = ["kernel-panic", "lockup", "kernel-oops", "hardware-error"].contains(rule);
        if standing.stage == Stage::Up && !ends {
            return None;
        }
        let says = format!("{what}: {:?}", quoted(&mark.note));
        let (usual, next) = special(mark).unwrap_or((usual, next));
        return Some(row(says, usual, &format!("{next}; `koboshi console {machine}`")));
    }
    let login = seen(LOGIN).filter(|_| standing.stage == Stage::Switching)?;
    Some(row(
        format!(
            "asks for a login on its console ({:?}) and does not say that it is up",
            quoted(&login.note)
        ),
        "the role's network set-up took the address away, a firewall in it drops its reports, or nothing in it sends them",
        &format!("log in there: `koboshi console {machine}`; ping {}", boot.address),
    ))
}

/// Panics that say their cause.
fn special(mark: &Mark) -> Option<(&'static str, &'static str)> {
    let note = mark.note.as_str();
    if note.contains("Unable to mount root fs") {
        return Some((
            "the kernel got no initramfs, or could not unpack it: cut short, or of another compression",
            "look for \"initramfs unpacking failed\" before it; a loader that ran out of memory cuts it",
        ));
    }
    if note.contains("Attempted to kill init") || note.contains("No working init") {
        return Some((
            "the root's init ended or is for another architecture",
            "the lines before it are its last words; try the image in `koboshi lab`",
        ));
    }
    note.contains("sysrq triggered")
        .then_some(("somebody asked for it (SysRq c)", "`koboshi events` says who had the console"))
}

#[cfg(test)]
mod tests {
    use koboshi_console::watch::Level;

    use super::super::course::standing;
    use super::super::course::tests::boot;
    use super::*;
    use crate::diagnosis::late::Cause;
    use crate::store::OnConsole;

    /// Of a boot that stands there, and whose console said this.
    fn of(stage: Stage, said: &[(&str, &str)]) -> Option<Cause> {
        let mut boot =
            boot(&[(0, Stage::Offer, "10.77.0.11 to PXE firmware (BIOS)"), (9, stage, "")]);
        for (rule, line) in said {
            let seen = Box::new(OnConsole { rule: (*rule).to_string(), level: Level::Error });
            let mark = boot.marks.last().expect("one").clone();
            boot.marks.push(Mark { note: (*line).to_string(), console: Some(seen), ..mark });
        }
        super::cause(&boot, standing(&boot))
    }

    #[test]
    fn a_panic_is_the_cause() {
        let panic = (
            "kernel-panic",
            "[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on x",
        );
        let found = of(Stage::Initramfs, &[("kernel-oops", "Oops: 0"), panic]).expect("a cause");
        assert!(found.seen.starts_with("its kernel panicked: \"[ 1.0] Kernel panic"), "{found:?}");
        assert!(found.late.usual.contains("no initramfs"), "{found:?}");
        assert!(found.late.next.ends_with("`koboshi console m01`"), "{found:?}");
        let whole = super::super::causes::cause(
            &boot(&[(0, Stage::Offer, "")]),
            standing(&boot(&[(0, Stage::Offer, "")])),
            1000,
            None,
        );
        assert!(whole.seen.contains("never asked for it"), "a silent console says nothing");
    }

    #[test]
    fn what_counts_depends_on_where_it_stands() {
        let pxe = ("pxe-error", "PXE-E11: ARP timeout");
        assert!(of(Stage::Ack, &[pxe]).expect("a cause").seen.contains("PXE-E11"));
        let disk = ("io-error", "I/O error, dev sda, sector 1");
        assert!(of(Stage::Switching, &[disk]).is_some());
        assert_eq!(of(Stage::Up, &[disk]), None);
        let login = (LOGIN, "web1 login:");
        assert!(of(Stage::Switching, &[login]).expect("a cause").seen.contains("asks for a login"));
        assert_eq!(of(Stage::Up, &[login]), None);
        assert_eq!(of(Stage::Kernel, &[]), None);
    }
}

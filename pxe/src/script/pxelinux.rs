//! PXELINUX's orders, for BIOS and UEFI: `pxelinux.cfg/01-<mac>`. It has no loops and no variables.
//! What it has is a default that it runs once its prompt has been left alone for a while, and that
//! default can be "read your orders anew".

use std::fmt::Write;

use super::{Place, archives, blob, headline, line};
use crate::boots::Plan;
use crate::content::BootId;
use crate::loader::Language;

/// Linux on x86 takes 2,048 characters, PXELINUX one less. It adds BOOT_IMAGE= with the kernel's
/// name and initrd= with those of all archives.
const CMDLINE_MAX: usize = 2047;

/// Boots a plan; in words if that cannot be said in this language.
pub fn boot(place: &Place<'_>, id: BootId, plan: &Plan) -> Result<String, String> {
    if plan.is_bare() {
        return Err(format!("{} is started by iPXE alone, not by PXELINUX", plan.image));
    }
    if let Some((word, why)) = super::unfit(Language::Pxelinux, &plan.cmdline) {
        return Err(format!("{word:?} cannot be handed to the kernel by PXELINUX: {why}"));
    }
    let from = |digest| match place.http {
        true => format!("{}/{}", place.server, blob(digest)),
        false => blob(digest),
    };
    let kernel = from(&plan.kernel.sha256);
    let archives_at: Vec<String> = plan.segments.iter().map(|part| from(&part.sha256)).collect();
    let initrd = archives_at.join(",");
    let cmdline = line(&plan.cmdline);
    let length =
        cmdline.len() + " BOOT_IMAGE=".len() + kernel.len() + " initrd=".len() + initrd.len();
    if length > CMDLINE_MAX {
        return Err(format!(
            "the kernel's command line would have {length} characters by PXELINUX, which names its files in it; {CMDLINE_MAX} fit: shorten args or cmdline, or boot by another loader"
        ));
    }
    let mut text = opening(place);
    let by = if place.http { "HTTP" } else { "TFTP" };
    let _ = write!(
        text,
        "SAY {}\n\
         SAY koboshi: boot {id}\n\
         SAY koboshi: fetches the kernel ({} KiB) and its archives ({} KiB) by {by}\n\
         DEFAULT koboshi\nPROMPT 0\n",
        line(&headline(plan)),
        plan.kernel.size / 1024,
        archives(plan),
    );
    // If a file does not come it shows its prompt, and after a while the machine's orders are
    // read anew: they may be others by then.
    again(&mut text, place, place.pauses.first);
    let _ =
        write!(text, "LABEL koboshi\n  KERNEL {kernel}\n  INITRD {initrd}\n  APPEND {cmdline}\n");
    Ok(text)
}

/// Says why it does not boot yet, and asks again after so many seconds.
pub fn wait(place: &Place<'_>, says: &str, seconds: u64) -> String {
    let mut text = opening(place);
    for says in says.lines() {
        let _ = writeln!(text, "SAY koboshi: {}", line(says));
    }
    let _ = write!(text, "SAY koboshi: asks again in {seconds} seconds\nDEFAULT again\nPROMPT 1\n");
    again(&mut text, place, seconds);
    text
}

/// PXELINUX cannot ask DHCP again, so a boot begins by the firmware's: the machine starts over.
pub fn restart(place: &Place<'_>) -> String {
    let mut text = opening(place);
    let _ = write!(
        text,
        "SAY koboshi: there is something to boot now\n\
         SAY koboshi: restarts the machine: a boot begins with its firmware\n\
         DEFAULT restart\nPROMPT 0\nLABEL restart\n  COM32 reboot.c32\n"
    );
    text
}

/// CONSOLE 0: firmware that copies its screen to the serial line would show each letter twice.
fn opening(place: &Place<'_>) -> String {
    let uart =
        place.uart.map(|uart| format!("SERIAL {:#x} {}\nCONSOLE 0\n", uart.port, uart.speed));
    format!(
        "# koboshi writes this for {} when it is asked for\n{}",
        place.mac,
        uart.unwrap_or_default()
    )
}

/// TIMEOUT ends with the first key; TOTALTIMEOUT brings back a prompt that somebody left.
fn again(text: &mut String, place: &Place<'_>, seconds: u64) {
    let _ = write!(
        text,
        "TIMEOUT {}\nTOTALTIMEOUT 3000\nONTIMEOUT again\nLABEL again\n  CONFIG {}\n",
        seconds * 10,
        name(place)
    );
}

/// As it asks for it, from beside itself.
fn name(place: &Place<'_>) -> String {
    format!("pxelinux.cfg/01-{}", place.mac.dashed())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{place, plan};
    use super::*;

    #[test]
    fn a_boot_names_its_files_by_the_faster_way_and_one_serial_speed() {
        for (http, prefix) in [(true, "http://10.77.0.1:8080/"), (false, "")] {
            let plan = plan("console=ttyS0,57600 id=100", "m01");
            let text = boot(&place(http), BootId([7; 16]), &plan).expect("it fits");
            let at = |byte: u8| format!("{prefix}{}", blob(&[byte; 32]));
            for line in [
                "SERIAL 0x3f8 57600".to_string(),
                "SAY koboshi: m01 boots into web1 (role web, image web@3) at 10.77.0.11".into(),
                format!("  KERNEL {}", at(1)),
                format!("  INITRD {},{}", at(2), at(3)),
                "  APPEND console=ttyS0,57600 id=100".into(),
                "  CONFIG pxelinux.cfg/01-52-54-00-77-00-01".into(),
            ] {
                assert!(text.lines().any(|found| found == line), "{line}\n{text}");
            }
        }
    }

    #[test]
    fn nothing_a_person_wrote_becomes_a_line() {
        let hostile = "a\nKERNEL evil\r\nSAY b\u{7}";
        let text = boot(&place(true), BootId([7; 16]), &plan("x=1", hostile)).expect("it fits");
        let waits = wait(&place(true), hostile, 15);
        assert!(
            waits.contains("SAY koboshi: a\nSAY koboshi: KERNEL evil\nSAY koboshi: SAY b"),
            "{waits}"
        );
        assert!(text.contains("a KERNEL evil"), "{text}");
        for text in [text, waits] {
            assert!(!text.contains("\nKERNEL") && !text.contains('\r') && !text.contains('\u{7}'));
        }
    }

    #[test]
    fn a_command_line_that_would_be_cut_is_not_sent() {
        let long = format!("a={}", "x".repeat(1800));
        let why = boot(&place(true), BootId([7; 16]), &plan(&long, "m01")).expect_err("too long");
        assert!(why.contains("2047 fit"), "{why}");
        let own = plan("quiet initrd=x", "m01");
        assert!(
            boot(&place(true), BootId([7; 16]), &own).expect_err("its own").contains("initrd=x")
        );
    }
}

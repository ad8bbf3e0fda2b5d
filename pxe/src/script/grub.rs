//! GRUB's orders, for BIOS and UEFI. `grub/grub.cfg` is the same for all machines: a loop that
//! reads the machine's own `grub/grub.cfg-01-<mac>` again and again, until one of them boots. (A
//! GRUB that looks for the machine's file by itself is sent to the loop by it.)

use std::fmt::Write;

use super::{Place, archives, blob, headline, line};
use crate::boots::Plan;
use crate::content::BootId;
use crate::loader::Language;

/// Failures in a row before the machine is restarted, as with iPXE.
const TRIES: usize = 20;

/// `grub/grub.cfg`. GRUB cannot count, but it can write strokes.
pub fn all() -> String {
    let strokes = "x".repeat(TRIES);
    format!(
        "# koboshi: the same for every machine\n\
         set koboshi=loop\nset tries=\n\
         while true; do\n\
         \x20 set pause=5\n\
         \x20 source $prefix/grub.cfg-01-$net_default_mac\n\
         \x20 set tries=x$tries\n\
         \x20 if [ \"$tries\" = {strokes} ]; then\n\
         \x20   echo 'koboshi: failed {TRIES} times; restarts the machine in 10 seconds'\n\
         \x20   sleep 10\n\
         \x20   reboot\n\
         \x20 fi\n\
         \x20 sleep $pause\n\
         done\n"
    )
}

/// Boots a plan; in words if that cannot be said in this language.
pub fn boot(place: &Place<'_>, id: BootId, plan: &Plan) -> Result<String, String> {
    if plan.is_bare() {
        return Err(format!("{} is started by iPXE alone, not by GRUB", plan.image));
    }
    if let Some((word, why)) = super::unfit(Language::Grub, &plan.cmdline) {
        return Err(format!("{word:?} cannot be handed to the kernel by GRUB: {why}"));
    }
    // Debian's signed image has TFTP built in and no HTTP, and under Secure Boot takes no modules.
    let from = |digest| format!("(tftp,{})/{}", place.tftp, blob(digest));
    let words: Vec<String> = plan.cmdline.split_whitespace().map(quoted).collect();
    let initrd: Vec<String> = plan.segments.iter().map(|part| from(&part.sha256)).collect();
    let pause = place.pauses.first;
    let mut text = opening(place);
    let _ = write!(
        text,
        "echo {}\n\
         echo 'koboshi: boot {id}'\n\
         echo 'koboshi: fetches the kernel ({} KiB) by TFTP'\n\
         if linux {} {}; then\n\
         \x20 echo 'koboshi: fetches its archives ({} KiB)'\n\
         \x20 if initrd {}; then\n\
         \x20   echo 'koboshi: starts the kernel; koboshi-init speaks next, on the serial line'\n\
         \x20   boot\n\
         \x20 fi\n\
         fi\n\
         echo 'koboshi: that failed; tries again in {pause} seconds, {TRIES} times at most'\n\
         set pause={pause}\n",
        quoted(&headline(plan)),
        plan.kernel.size / 1024,
        from(&plan.kernel.sha256),
        words.join(" "),
        archives(plan),
        initrd.join(" "),
    );
    Ok(text)
}

/// Says why it does not boot yet, and lets the loop ask again after so many seconds.
pub fn wait(place: &Place<'_>, says: &str, seconds: u64) -> String {
    let mut text = opening(place);
    for says in says.lines() {
        let _ = writeln!(text, "echo {}", quoted(&format!("koboshi: {says}")));
    }
    let _ = write!(
        text,
        "echo 'koboshi: asks again in {seconds} seconds'\nset pause={seconds}\nset tries=\n"
    );
    text
}

/// GRUB's own DHCP does not say that it boots, so a boot begins by the firmware's: the machine
/// starts over.
pub fn restart(place: &Place<'_>) -> String {
    let mut text = opening(place);
    text.push_str(
        "echo 'koboshi: there is something to boot now'\n\
         echo 'koboshi: restarts the machine: a boot begins with its firmware'\nsleep 1\nreboot\n",
    );
    text
}

/// The serial line alone: UEFI that copies its screen to it would show every line twice.
fn opening(place: &Place<'_>) -> String {
    let uart = place.uart.map(|uart| {
        format!(
            "if serial --port={:#x} --speed={}; then\n\
             \x20 terminal_input serial console\n\
             \x20 terminal_output serial\n\
             fi\n",
            uart.port, uart.speed
        )
    });
    format!(
        "# koboshi writes this for {} when it is asked for\n\
         if [ \"$koboshi\" != loop ]; then configfile $prefix/grub.cfg; fi\n{}",
        place.mac,
        uart.unwrap_or_default()
    )
}

/// One word: between single quotes GRUB takes everything as it is, but for a single quote.
fn quoted(text: &str) -> String {
    format!("'{}'", line(text).replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{place, plan};
    use super::*;

    #[test]
    fn a_boot_names_its_files_and_one_serial_speed() {
        let plan = plan("console=ttyS0,57600 id=100 $x ;reboot {a}", "m01");
        let text = boot(&place(true), BootId([7; 16]), &plan).expect("it fits");
        let at = |byte: u8| format!("(tftp,10.77.0.1)/{}", blob(&[byte; 32]));
        for line in [
            "if serial --port=0x3f8 --speed=57600; then".to_string(),
            "echo 'koboshi: m01 boots into web1 (role web, image web@3) at 10.77.0.11'".into(),
            format!(
                "if linux {} 'console=ttyS0,57600' 'id=100' '$x' ';reboot' '{{a}}'; then",
                at(1)
            ),
            format!("  if initrd {} {}; then", at(2), at(3)),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn nothing_a_person_wrote_becomes_a_command() {
        let hostile = "it's\nreboot; $(id) \"x\" \\";
        let text = boot(&place(true), BootId([7; 16]), &plan("x=1", hostile)).expect("it fits");
        let waits = wait(&place(true), hostile, 15);
        let echoed = r#"echo 'koboshi: reboot; $(id) "x" \'"#;
        assert!(waits.lines().any(|line| line == echoed), "{waits}");
        assert!(text.contains(r#"it'\''s reboot; $(id) "x" \"#), "{text}");
        let own = plan(r"path=C:\x", "m01");
        assert!(boot(&place(true), BootId([7; 16]), &own).expect_err("backslash").contains("GRUB"));
    }

    #[test]
    fn a_wait_is_no_failure_and_a_lost_appliance_ends_in_a_restart() {
        assert!(wait(&place(true), "m06 is a spare", 10).ends_with("set pause=10\nset tries=\n"));
        assert!(all().contains("source $prefix/grub.cfg-01-$net_default_mac"));
        assert!(all().contains(&format!("= {} ]", "x".repeat(20))));
    }
}

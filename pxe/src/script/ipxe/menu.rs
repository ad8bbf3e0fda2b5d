//! The menu in iPXE: offered for a second before a machine's own boot, for as long as it waits where
//! it has none. iPXE reads the line, the desk understands it.
//!
//! Debian's iPXE (2019) has `prompt`, `read` and `:uristring`, and no `params` to send a form by.

use std::fmt::Write;

use super::{failed, plain, tries};
use crate::mac::Mac;
use crate::menu::Menu;
use crate::pace::Pauses;

/// How long a machine with something to boot waits for a key: a second of every boot.
const GLANCE_MS: u32 = 1000;
/// How long one waits that will ask on the serial line next: a person has to get there.
const LOOK_MS: u32 = 15_000;

/// A boot's script with the menu before it.
pub fn before_boot(boot: &str, server: &str, mac: Mac, menu: &Menu) -> String {
    let first = match menu.seat {
        Some(_) => format!("prompt --key m --timeout {GLANCE_MS} koboshi: m for the menu"),
        None => format!("prompt --key m --timeout {LOOK_MS} koboshi: m for the menu, here and now"),
    };
    let boot = boot.strip_prefix("#!ipxe\n").unwrap_or(boot);
    format!("#!ipxe\n{first} && goto menu ||\n:go\n{boot}{}", asks(server, mac, menu))
}

/// The script of a machine that has nothing to boot, with the menu while it waits.
pub fn wait(server: &str, mac: Mac, says: &str, menu: &Menu, pauses: Pauses) -> String {
    let again = pauses.again;
    let says = says.lines().map(|line| format!("echo koboshi: {}\n", plain(line)));
    format!(
        "#!ipxe\n{}echo koboshi: asks again in {again} seconds\n:go\n\
         prompt --key m --timeout {again}000 koboshi: m for the menu && goto menu ||\n\
         sleep 1\ndhcp || goto go\nchain --replace {server}/boot/{mac}.ipxe || goto go\n{}",
        says.collect::<String>(),
        asks(server, mac, menu)
    )
}

/// After an answer that was none: why, and the menu again.
pub fn refused(server: &str, mac: Mac, menu: &Menu, why: &str) -> String {
    format!(
        "#!ipxe\necho koboshi: {}\ngoto menu\n:go\n\
         chain --replace {server}/boot/{mac}.ipxe || goto menu\n{}",
        plain(why),
        asks(server, mac, menu)
    )
}

/// After one that was: DHCP once more, which begins the boot that was chosen.
pub fn again(server: &str, mac: Mac, says: &str, pauses: Pauses) -> String {
    let mut text = format!("#!ipxe\necho koboshi: {}\n", plain(says));
    tries(&mut text, pauses);
    let _ = writeln!(
        text,
        "dhcp || goto failed\nchain --replace {server}/boot/{mac}.ipxe || goto failed"
    );
    failed(&mut text, pauses);
    text
}

/// From `:menu` on. Nothing typed: on to `:go`.
fn asks(server: &str, mac: Mac, menu: &Menu) -> String {
    let mut text = String::from(":menu\necho koboshi: what shall this machine be?\n");
    for line in menu.lines() {
        let _ = writeln!(text, "echo koboshi: - {}", plain(&line));
    }
    let nothing = match &menu.seat {
        Some((seat, _)) => format!("just Enter for {}", plain(seat)),
        None => "just Enter to go on waiting".to_string(),
    };
    let _ = write!(
        text,
        "echo koboshi: a name, arguments after it (NAME key=value), or {nothing}\n:ask\n\
         clear words\necho -n koboshi>\nread words || goto go\nisset ${{words}} || goto go\n\
         chain --replace {server}/choose/{mac}?words=${{words:uristring}} ||\n\
         echo koboshi: the appliance does not answer; once more?\ngoto ask\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::menu::Offered;

    const SERVER: &str = "http://10.77.0.1:8080";
    const MAC: Mac = Mac([0x52, 0x54, 0, 0x77, 0, 1]);

    fn menu(seat: Option<&str>) -> Menu {
        let evil = Some("${shell} || reboot\nreboot".to_string());
        let roles = vec![
            Offered { role: "db".into(), trouble: None },
            Offered { role: "old".into(), trouble: evil },
        ];
        Menu { seat: seat.map(|seat| (seat.into(), "web".into())), roles: Arc::new(roles) }
    }

    /// Where every `goto` of a script leads.
    fn labels_are_there(text: &str) {
        for line in text.lines() {
            for jump in line.split("goto ").skip(1) {
                let label = jump.split(' ').next().expect("a word");
                assert!(text.lines().any(|line| line == format!(":{label}")), "{label} of\n{text}");
            }
        }
    }

    #[test]
    fn a_second_before_the_boot_and_nothing_else_of_it_changed() {
        let text = before_boot("#!ipxe\necho boots\nboot\n", SERVER, MAC, &menu(Some("web1")));
        let head = "#!ipxe\nprompt --key m --timeout 1000 koboshi: m for the menu && goto menu ||\n:go\necho boots\nboot\n:menu\n";
        assert!(text.starts_with(head), "{text}");
        for line in [
            "echo koboshi: - web1 (its seat, role web)",
            "echo koboshi: - db",
            "echo koboshi: - old (not now: $ {shell} , reboot reboot)",
            "isset ${words} || goto go",
            "chain --replace http://10.77.0.1:8080/choose/52:54:00:77:00:01?words=${words:uristring} ||",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(before_boot("", SERVER, MAC, &menu(None)).contains("--timeout 15000"));
    }

    #[test]
    fn every_way_leads_somewhere() {
        let (seated, none, pauses) = (menu(Some("web1")), menu(None), Pauses::drawn(7));
        for text in [
            before_boot("#!ipxe\nboot\n", SERVER, MAC, &seated),
            wait(SERVER, MAC, "m01 is a spare", &none, pauses),
            refused(SERVER, MAC, &seated, "no \"x\" here; ${y}\nreboot"),
            again(SERVER, MAC, "role db", pauses),
        ] {
            labels_are_there(&text);
            assert!(
                text.starts_with("#!ipxe\n") && !text.contains("\nreboot\necho koboshi: a name")
            );
        }
        let text = refused(SERVER, MAC, &seated, "no ${y}\nreboot");
        assert!(text.starts_with("#!ipxe\necho koboshi: no $ {y} reboot\ngoto menu\n"), "{text}");
    }
}

//! Over the machine's console: the line is held as an operator holds it, looked at before anything is typed, and
//! typed at only where a shell waits.

use std::time::Duration;

use anyhow::bail;
use koboshi_console::Drawn;
use koboshi_initramfs::changes::{PROGRAM, WORD};
use serde::Serialize;

use super::talk::clean;
use crate::api::Client;
use crate::ops::console::prompt::{Waits, waits};
use crate::ops::console::{Query, Seat};

/// Bytes of a frame: a line of them is lost to each message of the kernel.
pub const FRAME: u32 = 180;
/// Lines that are looked at.
const LAST: usize = 40;
/// Control-U and Enter: to a shell, whatever was half typed there is gone; a pager turns a page, and a
/// program that reads a line gets an empty one.
const PROBE: &[u8] = b"\x15\r";

/// A shell on a busy machine answers within this.
const ANSWERS: Duration = Duration::from_secs(5);

/// Whose screen.
#[derive(Serialize)]
struct Who<'a> {
    who: &'a str,
}

/// Comes to the line, makes sure of a shell there, and starts the program that answers.
///
/// # Errors
/// Somebody else has the line, or something else than a shell waits there.
pub async fn start(client: &Client, machine: &str, take: bool) -> anyhow::Result<Seat> {
    let query = Query { who: machine.to_string(), last: LAST };
    let mut seat = Seat::come(client, &query).await?;
    seat.sit(take).await?;
    match ask(client, machine, &mut seat).await {
        Ok(()) => Ok(seat),
        Err(why) => {
            seat.leave().await;
            Err(why)
        }
    }
}

async fn ask(client: &Client, machine: &str, seat: &mut Seat) -> anyhow::Result<()> {
    seat.quiet().await?;
    let drawn: Drawn = client.get("/console/screen", &Who { who: machine }).await?;
    if fills_the_screen(&drawn.text) {
        bail!(
            "{}",
            wait(machine, "a program that fills the screen (an editor, a pager) runs there")
        );
    }
    let root = match waits(&seat.tail) {
        Waits::Shell { root } => root,
        Waits::Other(why) => bail!("{}", wait(machine, why)),
        Waits::Nobody => {
            seat.tail.clear();
            seat.types(PROBE).await?;
            seat.hears(ANSWERS, |tail| waits(tail) != Waits::Nobody).await?;
            seat.quiet().await?;
            match waits(&seat.tail) {
                Waits::Shell { root } => root,
                Waits::Other(why) => bail!("{}", wait(machine, why)),
                Waits::Nobody => {
                    let tail = String::from_utf8_lossy(&seat.tail);
                    let last = tail.lines().rev().map(clean).find(|line| !line.trim().is_empty());
                    let last =
                        last.map_or("nothing".to_string(), |line| format!("`{}`", line.trim()));
                    let why = format!("no shell answers there; the last it said is {last}");
                    bail!("{}", wait(machine, &why));
                }
            }
        }
    };
    let sudo = if root { "" } else { "sudo -n " };
    // With a blank in front, which shells are told to keep out of their histories.
    seat.types(format!(" {sudo}{PROGRAM} {WORD} {FRAME}\r")).await
}

fn wait(machine: &str, why: &str) -> String {
    format!(
        "{machine}'s console: {why}\n  help: log in as root there (koboshi console {machine}) and leave it at the \
         prompt, or ask by SSH (--via ssh)"
    )
}

/// Why the program does not answer, if a line of the machine's says so.
pub fn gave_up(line: &[u8]) -> Option<String> {
    let text = clean(&String::from_utf8_lossy(line));
    if !text.contains(PROGRAM) && !text.starts_with("sudo: ") {
        return None;
    }
    let old = ["not found", "No such file"].iter().any(|word| text.contains(word));
    if old {
        let why = "the machine keeps no program that knows what changed: it booted with an older koboshi, or \
                   not by koboshi at all";
        return Some(why.to_string());
    }
    let not = ["Permission denied", "password", "not allowed", "not in the sudoers"];
    not.iter().any(|word| text.contains(word)).then(|| {
        format!("only root may ask what has changed ({text}): log in as root there, or let sudo run {PROGRAM}")
    })
}

/// Editors and pagers show it in their last lines, or by a column of tildes.
fn fills_the_screen(text: &[String]) -> bool {
    let tildes = text.iter().filter(|line| line.trim_end() == "~").count();
    let last: Vec<&str> =
        text.iter().rev().map(|line| line.trim()).filter(|line| !line.is_empty()).take(2).collect();
    let words = [
        "-- INSERT --",
        "-- VISUAL --",
        "^X Exit",
        "(END)",
        "--More--",
        "F10Quit",
        "Press q to quit",
    ];
    tildes >= 3 || last.iter().any(|line| words.iter().any(|word| line.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screens_that_are_no_shells() {
        let screen = |text: &str| text.lines().map(str::to_string).collect::<Vec<_>>();
        assert!(fills_the_screen(&screen("listen 80;\n~\n~\n~\n\"nginx.conf\" 3L, 40B")));
        assert!(fills_the_screen(&screen("a\n\n^G Help  ^O Write\n^X Exit  ^R Read")));
        assert!(fills_the_screen(&screen("lines 1-23\n(END)\n\n")));
        assert!(!fills_the_screen(&screen("root@web1:~# ls\n~\na\nroot@web1:~# ")));
    }

    #[test]
    fn why_nobody_answers() {
        let why = |line: &str| gave_up(line.as_bytes());
        assert!(
            why("-bash: /run/koboshi/koboshi-init: No such file or directory")
                .unwrap()
                .contains("older")
        );
        assert!(why("sh: 1: /run/koboshi/koboshi-init: not found").unwrap().contains("older"));
        assert!(why("sudo: a password is required").unwrap().contains("only root"));
        // What was typed comes back first.
        assert_eq!(why("root@web1:~#  /run/koboshi/koboshi-init changes 180"), None);
        assert_eq!(why("[  10.0] usb 1-1: not found"), None);
    }
}

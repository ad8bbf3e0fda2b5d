//! What iPXE is told to do, as far as our scripts and plain ones go: a line a command, `|| goto LABEL`
//! behind it, labels, `set` and `inc` for the pauses. Not iPXE's language, but enough to follow it where
//! every machine of a storm goes.

use std::net::SocketAddrV4;
use std::time::Duration;

/// Lines of a script that are read, and bytes of it.
pub const BYTES_MAX: usize = 64 * 1024;

/// A command that takes time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To fetch the kernel, with its command line.
    Kernel(Url, String),
    /// To fetch a part of the initramfs.
    Initrd(Url),
    /// To start the kernel.
    Boot,
    /// To do nothing for a while.
    Sleep(Duration),
    /// To ask for an address again.
    Dhcp,
    /// To fetch another script and go on with it.
    Chain(Url),
    /// To start over, by the firmware.
    Reboot,
}

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// The server.
    pub server: SocketAddrV4,
    /// The path, with its slash.
    pub path: String,
}

impl Url {
    /// Reads `http://10.77.0.1:8080/path`.
    pub fn read(text: &str) -> Option<Url> {
        let rest = text.strip_prefix("http://")?;
        let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let server = host.parse().ok().or_else(|| Some(SocketAddrV4::new(host.parse().ok()?, 80)));
        Some(Url { server: server?, path: path.to_string() })
    }
}

/// A script under way.
#[derive(Debug, Clone)]
pub struct Script {
    lines: Vec<String>,
    at: usize,
    /// `|| goto` of the step that is being done.
    or_else: Option<String>,
    tries: u32,
    pause: u64,
}

impl Script {
    /// Takes up a script. `None`: iPXE would not start it.
    pub fn read(text: &str) -> Option<Script> {
        let text = text.strip_prefix("#!ipxe")?;
        let lines = text.lines().map(|line| line.trim().to_string()).collect();
        Some(Script { lines, at: 0, or_else: None, tries: 0, pause: 0 })
    }

    /// The next thing to do, after the last one went well. `None`: it ends, and iPXE with it.
    pub fn step(&mut self) -> Option<Step> {
        // A script that goes in circles without doing anything is not one of ours.
        for _ in 0..10_000 {
            let line = self.lines.get(self.at)?.clone();
            self.at += 1;
            let (command, or_else) = match line.split_once("||") {
                Some((command, rest)) => {
                    (command, Some(rest.trim().strip_prefix("goto ").unwrap_or("").to_string()))
                }
                None => (line.as_str(), None),
            };
            self.or_else = or_else;
            let mut words = command.split_whitespace();
            let Some(verb) = words.next() else { continue };
            let rest: Vec<&str> = words.collect();
            let url = || rest.iter().find_map(|word| Url::read(word));
            match (verb, rest.as_slice()) {
                ("kernel", [_, cmdline @ ..]) => {
                    return Some(Step::Kernel(url()?, cmdline.join(" ")));
                }
                ("initrd", _) => return Some(Step::Initrd(url()?)),
                ("chain", _) => return Some(Step::Chain(url()?)),
                ("boot", _) => return Some(Step::Boot),
                ("dhcp", _) => return Some(Step::Dhcp),
                ("reboot", _) => return Some(Step::Reboot),
                ("sleep", [seconds]) => {
                    let seconds = seconds.parse().unwrap_or(self.pause);
                    return Some(Step::Sleep(Duration::from_secs(seconds)));
                }
                ("goto", [label]) => self.goto(label)?,
                ("set", [name, value]) if name.starts_with("pause") => {
                    self.pause = value.parse().unwrap_or(0);
                }
                ("inc", ["pause", more]) => self.pause += more.parse::<u64>().unwrap_or(1),
                ("inc", ["try"]) => self.tries += 1,
                // `iseq ${try} 20 && goto over ||`
                ("iseq", ["${try}", most, "&&", "goto", label])
                    if most.parse() == Ok(self.tries) =>
                {
                    self.goto(label)?;
                }
                _ => {}
            }
        }
        None
    }

    /// The same after the last one failed.
    pub fn failed(&mut self) -> Option<Step> {
        let label = self.or_else.take()?;
        if !label.is_empty() {
            self.goto(&label)?;
        }
        self.step()
    }

    fn goto(&mut self, label: &str) -> Option<()> {
        let found = |line: &String| line.strip_prefix(':') == Some(label);
        self.at = self.lines.iter().position(found)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use koboshi_pxe::pace::Pauses;
    use koboshi_pxe::script::ipxe;
    use proptest::prelude::*;

    use super::*;

    const SERVER: &str = "http://10.77.0.1:8080";

    fn pauses() -> Pauses {
        Pauses { first: 3, more: 2, again: 12 }
    }

    #[test]
    fn a_turn_is_waited_for_and_then_asked_for_again() {
        let text = ipxe::turn(SERVER, "02:00:00:00:00:01", "many boot", 14, pauses());
        let mut script = Script::read(&text).expect("a script");
        assert_eq!(script.step(), Some(Step::Sleep(Duration::from_secs(14))));
        let again = Url::read("http://10.77.0.1:8080/boot/02:00:00:00:00:01.ipxe").expect("a URL");
        assert_eq!(script.step(), Some(Step::Chain(again.clone())));
        // The appliance was away: 3 s, then 5.
        assert_eq!(script.failed(), Some(Step::Sleep(Duration::from_secs(3))));
        assert_eq!(script.step(), Some(Step::Chain(again)));
        assert_eq!(script.failed(), Some(Step::Sleep(Duration::from_secs(5))));
        let mut steps = 0;
        while script.step().is_some_and(|step| step != Step::Reboot) {
            script.failed();
            steps += 1;
            assert!(steps < 100, "it gives up after twenty tries");
        }
    }

    #[test]
    fn plain_scripts_do_too() {
        let text = "#!ipxe\n\nkernel http://10.0.0.1/k a=b c\ninitrd http://10.0.0.1/i\nboot\n";
        let mut script = Script::read(text).expect("a script");
        let url =
            |path: &str| Url { server: "10.0.0.1:80".parse().expect("one"), path: path.into() };
        assert_eq!(script.step(), Some(Step::Kernel(url("/k"), "a=b c".into())));
        assert_eq!(script.step(), Some(Step::Initrd(url("/i"))));
        assert_eq!(script.step(), Some(Step::Boot));
        assert_eq!(script.step(), None);
        assert!(Script::read("<html>").is_none());
    }

    #[test]
    fn a_wait_asks_dhcp_first() {
        let text = ipxe::wait(SERVER, "02:00:00:00:00:01", "a spare", pauses());
        let mut script = Script::read(&text).expect("a script");
        assert_eq!(script.step(), Some(Step::Sleep(Duration::from_secs(12))));
        assert_eq!(script.step(), Some(Step::Dhcp));
        assert_eq!(script.failed(), Some(Step::Sleep(Duration::from_secs(12))));
    }

    proptest! {
        #[test]
        fn no_text_brings_it_down(text in "(kernel|initrd|goto a|:a|set pause 3|inc try|sleep|\\|\\|| |\n|http://1.2.3.4/){0,40}") {
            if let Some(mut script) = Script::read(&format!("#!ipxe\n{text}")) {
                for _ in 0..50 {
                    let _ = script.step();
                    let _ = script.failed();
                }
            }
        }
    }
}

//! What the loader wrote on the kernel's command line: the first thing this machine is told.

use crate::contract::{KEY_BOOT, KEY_ROLE, KEY_ROOT, KEY_SEAT, KEY_SERVER};

/// The words of `/proc/cmdline` that concern us. The last one wins, as with the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cmdline {
    /// `koboshi.server`
    pub server: Option<String>,
    /// `koboshi.boot`
    pub boot: Option<String>,
    /// `koboshi.seat`
    pub seat: Option<String>,
    /// `koboshi.role`
    pub role: Option<String>,
    /// `koboshi.root`
    pub root: Option<String>,
    /// `init=`: what the operator typed instead of `/sbin/init`.
    pub init: Option<String>,
    words: Vec<(String, Option<String>)>,
}

/// Reads a command line as `Documentation/admin-guide/kernel-parameters` tells it: words apart by
/// space, `"` keeps spaces inside, everything after `--` belongs to init.
pub fn parse(text: &str) -> Cmdline {
    let mut line = Cmdline::default();
    for word in words(text) {
        if word == "--" {
            break;
        }
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(value.trim_matches('"').to_owned())),
            None => (word.as_str(), None),
        };
        let slot = match key {
            KEY_SERVER => Some(&mut line.server),
            KEY_BOOT => Some(&mut line.boot),
            KEY_SEAT => Some(&mut line.seat),
            KEY_ROLE => Some(&mut line.role),
            KEY_ROOT => Some(&mut line.root),
            "init" => Some(&mut line.init),
            _ => None,
        };
        if let Some(slot) = slot {
            slot.clone_from(&value);
        }
        line.words.push((key.to_owned(), value));
    }
    line
}

impl Cmdline {
    /// What modprobe would hand the module: every `module.param=value` of the command line.
    /// `-` and `_` are the same letter in module names.
    pub fn module_params(&self, module: &str) -> String {
        let mut params = String::new();
        for (key, value) in &self.words {
            let Some((owner, param)) = key.split_once('.') else { continue };
            if !same_module(owner, module) {
                continue;
            }
            if !params.is_empty() {
                params.push(' ');
            }
            params.push_str(param);
            if let Some(value) = value {
                params.push('=');
                params.push_str(value);
            }
        }
        params
    }

    /// `modprobe.blacklist=a,b`: the operator's way around a driver that hangs.
    pub fn blacklisted(&self, module: &str) -> bool {
        self.words
            .iter()
            .filter(|(key, _)| key == "modprobe.blacklist" || key == "module_blacklist")
            .filter_map(|(_, value)| value.as_deref())
            .flat_map(|list| list.split(','))
            .any(|name| same_module(name, module))
    }
}

fn same_module(one: &str, other: &str) -> bool {
    one.len() == other.len()
        && one
            .bytes()
            .zip(other.bytes())
            .all(|(a, b)| a == b || (a == b'-' && b == b'_') || (a == b'_' && b == b'-'))
}

fn words(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.push(c);
            }
            c if c.is_ascii_whitespace() && !quoted => {
                if !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        all.push(word);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_its_keys_among_the_others() {
        let line = parse(
            "BOOT_IMAGE=vmlinuz koboshi.server=http://10.77.0.1:8080 koboshi.boot=00ff \
             koboshi.seat=web1 koboshi.role=web koboshi.root=sha256:ab console=ttyS0,115200 id=100 quiet\n",
        );
        assert_eq!(line.server.as_deref(), Some("http://10.77.0.1:8080"));
        assert_eq!(line.boot.as_deref(), Some("00ff"));
        assert_eq!(line.seat.as_deref(), Some("web1"));
        assert_eq!(line.role.as_deref(), Some("web"));
        assert_eq!(line.root.as_deref(), Some("sha256:ab"));
        assert_eq!(line.init, None);
    }

    #[test]
    fn last_word_wins_and_two_dashes_end_it() {
        let line = parse("koboshi.seat=a koboshi.seat=b init=/bin/sh -- koboshi.seat=c");
        assert_eq!(line.seat.as_deref(), Some("b"));
        assert_eq!(line.init.as_deref(), Some("/bin/sh"));
    }

    #[test]
    fn quotes_keep_spaces() {
        let line = parse("dyndbg=\"file x +p\" koboshi.seat=\"web 1\"");
        assert_eq!(line.seat.as_deref(), Some("web 1"));
    }

    #[test]
    fn module_parameters_and_blacklist() {
        let line = parse(
            "bnx2x.num_queues=4 virtio-net.napi_tx=0 bnx2x.debug modprobe.blacklist=ixgbe,i40e",
        );
        assert_eq!(line.module_params("bnx2x"), "num_queues=4 debug");
        assert_eq!(line.module_params("virtio_net"), "napi_tx=0");
        assert_eq!(line.module_params("e1000"), "");
        assert!(line.blacklisted("i40e") && !line.blacklisted("e1000"));
    }

    #[test]
    fn nothing_and_noise_are_no_keys() {
        for text in ["", " ", "=", "\"", "koboshi.server", "==koboshi.boot=", "\u{0}\u{1}"] {
            let line = parse(text);
            assert_eq!((line.server, line.boot), (None, None), "{text:?}");
        }
    }
}

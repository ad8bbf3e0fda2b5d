//! Who waits at the end of a line: a shell, or something that must not be typed at. Told by its last line, as a
//! person would tell it.

/// Who waits there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits {
    /// A shell; root's, by its sign.
    Shell {
        /// `#` is root's.
        root: bool,
    },
    /// Something that must not be typed at, in words.
    Other(&'static str),
    /// Nobody can tell.
    Nobody,
}

/// Who waits at the end of what a line said last.
pub fn waits(tail: &[u8]) -> Waits {
    let text = String::from_utf8_lossy(tail);
    // vim, less, top: they have a screen of their own until they leave it.
    let (enters, leaves) = (text.rfind("\x1b[?1049h"), text.rfind("\x1b[?1049l"));
    if enters.is_some_and(|enters| leaves.is_none_or(|leaves| leaves < enters)) {
        return Waits::Other("a program that fills the screen (an editor, a pager) runs there");
    }
    let line = plain(text.rsplit(['\r', '\n']).next().unwrap_or_default());
    let word = line.trim_end();
    let lower = word.to_lowercase();
    if lower.ends_with("login:") {
        return Waits::Other("nobody is logged in there");
    }
    if lower.ends_with("password:") || lower.contains("password for") {
        return Waits::Other("it asks for a password");
    }
    if word.ends_with("(END)") || word.contains("--More--") || word == ":" {
        return Waits::Other("a pager runs there");
    }
    if word.ends_with("grub>")
        || word.ends_with("iPXE>")
        || word.ends_with("boot:")
        || word.ends_with("Shell>")
    {
        return Waits::Other("it is not up: a boot loader or its firmware waits there");
    }
    if word.starts_with("rescue:") || lower.contains("(initramfs)") {
        return Waits::Other("its boot failed: a rescue shell is there");
    }
    if lower.ends_with("[y/n]") || lower.ends_with("(y/n)") || lower.ends_with("[y/n]?") {
        return Waits::Other("a program asks a question there");
    }
    match word.chars().last() {
        Some(sign @ ('#' | '$' | '%')) if line.len() > word.len() => {
            Waits::Shell { root: sign == '#' }
        }
        _ => Waits::Nobody,
    }
}

/// Without colours, titles, bracketed paste.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => match chars.next() {
                Some('[') => {
                    let _rest = chars.find(|c| ('@'..='~').contains(c));
                }
                Some(']') => {
                    let _rest = chars.find(|c| matches!(c, '\x07' | '\\'));
                }
                _ => {}
            },
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_and_what_is_none() {
        for (tail, root) in [
            ("root@m01:~# ", true),
            ("$ ", false),
            ("\r\nm01% ", false),
            ("100% ", false),
            ("/ # ", true),
            ("a\r\n\x1b[?2004h\x1b[01;32mroot\x1b[0m:/# ", true),
            ("\x1b[?1049hvim\x1b[?1049l\r\n/ # ", true),
        ] {
            assert_eq!(waits(tail.as_bytes()), Waits::Shell { root }, "{tail:?}");
        }
        for (tail, word) in [
            ("web1 login: ", "logged in"),
            ("\r\nPassword: ", "password"),
            ("[sudo] password for ops: \x1b[0m", "password"),
            ("lines 1-23\r\n\x1b[7m(END)\x1b[0m", "pager"),
            ("\r\n--More--(12%)", "pager"),
            ("\r\n:", "pager"),
            ("# vi x\r\n\x1b[?1049h\x1b[22;0t~\r\n~ ", "fills the screen"),
            ("grub> ", "boot loader"),
            ("Continue? [y/N]", "question"),
            ("rescue:/# ", "rescue"),
        ] {
            match waits(tail.as_bytes()) {
                Waits::Other(why) => assert!(why.contains(word), "{tail:?}: {why}"),
                other => panic!("{tail:?}: {other:?}"),
            }
        }
        for tail in [
            "",
            "#",
            "=> ",
            "rz waiting to receive.",
            "compiling",
            "root@m01:~# rm -rf /tm",
            "[   12.0] eth0: up",
        ] {
            assert_eq!(waits(tail.as_bytes()), Waits::Nobody, "{tail:?}");
        }
    }
}

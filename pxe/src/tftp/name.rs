//! The file name as ROMs send it, before anything is looked up. Nothing of it ever reaches a file
//! system: the name is a key. All the same no spelling of `..` gets past this file.

/// The name to look up: components joined by single `/`, none of them `.` or `..`, no leading
/// `/`. `None` is a name that nobody honest sends, or none at all.
pub fn clean(raw: &[u8]) -> Option<String> {
    // Several Intel boot ROMs append 0xFF to the name that option 67 gave them, which is no UTF-8.
    let end = raw.iter().rposition(|&byte| byte != 0xff).map_or(0, |last| last + 1);
    let text = std::str::from_utf8(&raw[..end]).ok()?;
    let mut name = String::with_capacity(text.len());
    // Windows' boot manager asks for `\Boot\BCD`, UEFI's PXE for `\EFI\…`; iPXE and GRUB put `//`
    // where a prefix ends in a slash.
    for part in text.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => return None,
            part if part.chars().any(char::is_control) => return None,
            part => {
                if !name.is_empty() {
                    name.push('/');
                }
                name.push_str(part);
            }
        }
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_as_roms_send_them() {
        let table: &[(&[u8], Option<&str>)] = &[
            (b"undionly.kpxe", Some("undionly.kpxe")),
            (b"/undionly.kpxe", Some("undionly.kpxe")),
            (b"//undionly.kpxe", Some("undionly.kpxe")),
            (b"./undionly.kpxe", Some("undionly.kpxe")),
            (b"/././undionly.kpxe", Some("undionly.kpxe")),
            (b"pxelinux.0\xff", Some("pxelinux.0")),
            (b"pxelinux.0\xff\xff", Some("pxelinux.0")),
            (b"\\Boot\\BCD", Some("Boot/BCD")),
            (b".\\Boot/BCD", Some("Boot/BCD")),
            (b"grub//grub.cfg", Some("grub/grub.cfg")),
            (b"pxelinux.cfg/01-52-54-00-77-00-01", Some("pxelinux.cfg/01-52-54-00-77-00-01")),
            (b"...", Some("...")),
            (b"a..b", Some("a..b")),
            (b"..a", Some("..a")),
            ("起.ipxe".as_bytes(), Some("起.ipxe")),
            (b"%2e%2e/x", Some("%2e%2e/x")),
            (b"", None),
            (b"\xff", None),
            (b"/", None),
            (b".", None),
            (b"..", None),
            (b"../etc/shadow", None),
            (b"/../etc/shadow", None),
            (b"..\\etc\\shadow", None),
            (b"a/../../b", None),
            (b"a\\..\\..\\b", None),
            (b"a/..", None),
            (b"a/..\xff", None),
            (b"./..", None),
            (b"\xc0\xae\xc0\xae/x", None),
            (b"a\xffb", None),
            (b"a\nb", None),
            (b"a\x7fb", None),
        ];
        for (raw, wanted) in table {
            assert_eq!(clean(raw).as_deref(), *wanted, "{}", raw.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn nothing_clean_climbs(raw in proptest::collection::vec(
            prop_oneof![Just(b'.'), Just(b'/'), Just(b'\\'), Just(0xff), any::<u8>()], 0..40)) {
            if let Some(name) = clean(&raw) {
                prop_assert!(!name.starts_with('/'));
                prop_assert!(name.split('/').all(|part| !["", ".", ".."].contains(&part)));
                prop_assert!(!name.contains('\\'));
                let again = clean(name.as_bytes());
                prop_assert_eq!(again.as_deref(), Some(name.as_str()));
            }
        }
    }
}

//! What YMODEM's block 0 and ZMODEM's ZFILE say of a file: name, NUL, then in words its length (decimal), the
//! time it was changed and its mode (octal), a serial number, files and bytes that are left.

use super::Outgoing;

/// A name is no longer, in bytes.
const NAME: usize = 200;

/// A file as the other side announces it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announced {
    /// As it came: a stranger's. None: the protocol has none.
    pub name: Option<Vec<u8>>,
    /// Bytes, if it says so.
    pub size: Option<u64>,
    /// When it was changed, Unix seconds, if it says so.
    pub modified: Option<u64>,
}

impl Announced {
    /// As it came. None: without a name, which ends a batch of YMODEM.
    pub(super) fn parse(bytes: &[u8]) -> Option<Announced> {
        let mut fields = bytes.splitn(2, |byte| *byte == 0);
        let name = fields.next().filter(|name| !name.is_empty())?.to_vec();
        let rest = fields.next().unwrap_or_default();
        let rest = rest.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut words = std::str::from_utf8(rest).unwrap_or_default().split_ascii_whitespace();
        let size = words.next().and_then(|word| word.parse().ok());
        let modified = words.next().and_then(|word| u64::from_str_radix(word, 8).ok());
        Some(Announced { name: Some(name), size, modified: modified.filter(|at| *at != 0) })
    }
}

/// As it is announced, NUL at its end. `left`: files and bytes that are left, this one among them.
pub(super) fn announce(file: &Outgoing, left: (usize, u64)) -> Vec<u8> {
    let Outgoing { name, size, modified } = file;
    let (files, bytes) = left;
    let mut says = name.as_bytes().iter().copied().filter(|byte| *byte != 0).collect::<Vec<_>>();
    let most = (0..=NAME.min(says.len())).rev().find(|at| name.is_char_boundary(*at));
    says.truncate(most.unwrap_or_default());
    says.push(0);
    // The mode is that of a plain file, which `rz` takes for "as it is": no ends of line are changed.
    says.extend_from_slice(format!("{size} {modified:o} 100644 0 {files} {bytes}").as_bytes());
    says.push(0);
    says
}

/// The last part of a name, fit for a folder of this host: no folders, no control characters, nothing that means
/// something else to a shell's user. None: nothing is left of it.
pub fn safe_name(name: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(name);
    let base = text.rsplit(['/', '\\']).next().unwrap_or_default();
    let hidden = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let safe = |c: char| if c.is_control() || hidden(c) { '_' } else { c };
    let mut base: String = base.chars().map(safe).collect();
    while base.len() > NAME {
        base.pop();
    }
    let base = base.trim();
    let dots = base.chars().all(|c| c == '.');
    // A name that begins with a dash is an option to whoever lists it with a star.
    let base = base.strip_prefix('-').map_or_else(|| base.to_string(), |rest| format!("_{rest}"));
    (!dots).then_some(base)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_announced_is_understood() {
        let file =
            Outgoing { name: "börse.bin".to_string(), size: 5_000_000, modified: 1_700_000_000 };
        let says = announce(&file, (2, 6_000_000));
        assert_eq!(
            says,
            "börse.bin\x005000000 14524770400 100644 0 2 6000000\0".as_bytes(),
            "{}",
            String::from_utf8_lossy(&says)
        );
        let heard = Announced::parse(&says).unwrap();
        assert_eq!(heard.size, Some(5_000_000));
        assert_eq!(heard.modified, Some(1_700_000_000));
        assert_eq!(heard.name.as_deref(), Some("börse.bin".as_bytes()));
        assert_eq!(Announced::parse(&[0; 128]), None);
        // The least that there is: a name in a block that ends without anything.
        let least = Announced { name: Some(b"x".to_vec()), size: None, modified: None };
        assert_eq!(Announced::parse(b"x"), Some(least.clone()));
        assert_eq!(Announced::parse(b"x\0 99999999999999999999999"), Some(least));
    }

    #[test]
    fn names_are_made_safe() {
        let safe = |name: &str| safe_name(name.as_bytes());
        assert_eq!(safe("vmlinuz").as_deref(), Some("vmlinuz"));
        assert_eq!(safe("/etc/cron.d/evil").as_deref(), Some("evil"));
        assert_eq!(safe(r"C:\boot\x y.img").as_deref(), Some("x y.img"));
        assert_eq!(safe("\x1b]0;x\x07.txt").as_deref(), Some("_]0;x_.txt"));
        assert_eq!(safe("-rf").as_deref(), Some("_rf"));
        assert_eq!(safe("gpj.\u{202e}exe").as_deref(), Some("gpj._exe"));
        for none in ["", ".", "..", "../..", "a/..", "/", " . "] {
            assert_eq!(safe(none), None, "{none:?}");
        }
        assert!(safe(&"ä".repeat(400)).unwrap().len() <= NAME);
    }

    proptest! {
        #[test]
        fn any_name_stays_in_its_folder(name in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(name) = safe_name(&name) {
                prop_assert!(!name.is_empty() && name.len() <= NAME && name != "." && name != "..");
                prop_assert!(!name.contains(['/', '\\', '\0']) && !name.chars().any(char::is_control));
                prop_assert!(std::path::Path::new(&name).file_name().is_some_and(|base| base == name.as_str()));
            }
            let _any_bytes = Announced::parse(&name);
        }
    }
}

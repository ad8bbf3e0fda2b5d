//! Keeps secrets out of whatever people see: what was said and typed is shown a line at a time, with each
//! secret's name in its place.

use std::borrow::Cow;

/// Bytes of a line that is shown; a longer one is shown as several.
const LINE_MAX: usize = 1024;

/// Knows the secrets.
#[derive(Default)]
pub(super) struct Veil {
    /// Name and value; the longest first, as one may begin like another.
    secrets: Vec<(String, Vec<u8>)>,
}

impl Veil {
    /// Of these.
    pub fn new(secrets: impl Iterator<Item = (String, Vec<u8>)>) -> Veil {
        let mut secrets: Vec<_> = secrets.filter(|(_, value)| !value.is_empty()).collect();
        secrets.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        Veil { secrets }
    }

    /// Fit for people: no secrets, no control characters.
    pub fn shown(&self, bytes: &[u8]) -> String {
        let mut bytes = Cow::Borrowed(bytes);
        for (name, value) in &self.secrets {
            if let Some(first) = find(&bytes, value) {
                bytes = Cow::Owned(replaced(&bytes, first, value, format!("[{name}]").as_bytes()));
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut shown = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '\n' => shown.push_str("\\n"),
                '\r' => shown.push_str("\\r"),
                '\t' => shown.push(' '),
                c if c.is_control() => shown.push_str(&format!("\\x{:02x}", u32::from(c))),
                c => shown.push(c),
            }
        }
        shown
    }

    /// Bytes at the end of this that may be the beginning of a secret.
    fn doubtful(&self, bytes: &[u8]) -> usize {
        let begins = |(_, value): &(String, Vec<u8>)| {
            let most = value.len().saturating_sub(1).min(bytes.len());
            (1..=most).rev().find(|many| bytes.ends_with(value.get(..*many).unwrap_or_default()))
        };
        self.secrets.iter().filter_map(begins).max().unwrap_or(0)
    }
}

fn find(bytes: &[u8], value: &[u8]) -> Option<usize> {
    bytes.windows(value.len()).position(|window| window == value)
}

fn replaced(bytes: &[u8], first: usize, value: &[u8], name: &[u8]) -> Vec<u8> {
    let (mut out, mut rest, mut at) = (Vec::new(), bytes, Some(first));
    while let Some(found) = at {
        let (before, behind) = rest.split_at(found);
        out.extend_from_slice(before);
        out.extend_from_slice(name);
        rest = behind.get(value.len()..).unwrap_or_default();
        at = find(rest, value);
    }
    out.extend_from_slice(rest);
    out
}

impl std::fmt::Debug for Veil {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Veil({})", self.secrets.len())
    }
}

/// What was said, to be shown line by line.
#[derive(Debug, Default)]
pub(super) struct Unshown(Vec<u8>);

impl Unshown {
    /// It was said; the lines that are whole by it.
    pub fn push(&mut self, text: &[u8], veil: &Veil) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in text {
            match byte {
                b'\n' => lines.push(veil.shown(&std::mem::take(&mut self.0))),
                byte => self.0.push(*byte),
            }
            if self.0.len() >= LINE_MAX {
                lines.extend(self.settled(veil));
            }
        }
        lines
    }

    /// One character was taken back.
    pub fn pop(&mut self) {
        self.0.pop();
    }

    /// What is there though its line has not ended: all but what may become a secret.
    pub fn settled(&mut self, veil: &Veil) -> Option<String> {
        // A secret of a kilobyte is none; it must not grow for ever.
        let doubtful = veil.doubtful(&self.0);
        let keep = if self.0.len() >= 2 * LINE_MAX { 0 } else { doubtful };
        let rest = self.0.split_off(self.0.len() - keep);
        let settled = std::mem::replace(&mut self.0, rest);
        (!settled.is_empty()).then(|| veil.shown(&settled))
    }

    /// All of it.
    pub fn rest(&mut self, veil: &Veil) -> Option<String> {
        let doubtful = veil.doubtful(&self.0);
        let end = self.0.len() - doubtful;
        let mut shown = veil.shown(self.0.get(..end).unwrap_or_default());
        if doubtful > 0 {
            shown.push('…');
        }
        self.0.clear();
        (!shown.is_empty()).then_some(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_their_names() {
        let secrets = [("A", "pass"), ("B", "password"), ("EMPTY", "")];
        let veil =
            Veil::new(secrets.map(|(name, value)| (name.to_string(), value.into())).into_iter());
        assert_eq!(veil.shown(b"my password, my pass\r\x03"), "my [B], my [A]\\r\\x03");
        assert_eq!(format!("{veil:?}"), "Veil(2)");

        let mut said = Unshown::default();
        assert_eq!(said.push(b"one\nPassword: pass", &veil), ["one"]);
        // It may be the other one still.
        assert_eq!(said.settled(&veil).as_deref(), Some("Password: "));
        assert_eq!(said.push(b"word\n", &veil), ["[B]"]);
        said.push(b"it is pas", &veil);
        assert_eq!(said.rest(&veil).as_deref(), Some("it is …"));
        let many: usize = (0..100).map(|_| said.push(&[b'x'; 1000], &veil).len()).sum();
        assert!(said.0.len() < 2 * LINE_MAX && many > 90, "{many}");
    }
}

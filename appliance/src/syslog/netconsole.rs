//! What a kernel sends by itself (Documentation/networking/netconsole.rst): where it oopses or panics, no
//! program is left to log it.
//!
//! ```text
//! 6,416,1758426,-,ncfrag=0/33;the first part       extended: PRI, number, µs since it started, flags; text
//!  SUBSYSTEM=pci                                   and what it is about
//! 6.1.0-31-amd64,6,416,1758426,-;text              its release before it, if it was told to
//! [   12.345678] usb 1-1: new device               plain: as on the console
//! ```

use super::message::{Facility, Message, Severity, TEXT_MOST, clean};
use super::parse::pri;

/// Lines of one datagram.
const LINES: usize = 64;

/// The messages of one datagram.
pub fn parse(bytes: &[u8]) -> Vec<Message> {
    if let Some(message) = extended(bytes) {
        return vec![message];
    }
    let lines = bytes.split(|byte| matches!(byte, b'\n' | 0)).filter(|line| !line.is_empty());
    lines.take(LINES).map(plain).collect()
}

fn plain(line: &[u8]) -> Message {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (severity, text) = match pri(line) {
        Some((_, severity, text)) => (severity, text),
        // It does not say how grave it is.
        None => (Severity::Notice, line),
    };
    kernel(Facility::KERN, severity, clean(text, TEXT_MOST))
}

fn kernel(facility: Facility, severity: Severity, text: String) -> Message {
    Message { facility, severity, app: Some("kernel".into()), ..Message::bare(text) }
}

fn extended(bytes: &[u8]) -> Option<Message> {
    let end = bytes.iter().take(256).position(|byte| *byte == b';')?;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let mut fields: Vec<&str> = head.split(',').collect();
    if fields.first()?.contains('.') {
        fields.remove(0);
    }
    let [level, number, micros, flags, ..] = fields.as_slice() else { return None };
    if flags.len() != 1 {
        return None;
    }
    let level: u64 = level.parse().ok()?;
    let (number, micros): (u64, u64) = (number.parse().ok()?, micros.parse().ok()?);
    let severity = Severity::of((level & 7) as u8);
    let facility = u8::try_from(level >> 3).ok().and_then(Facility::new).unwrap_or(Facility::KERN);
    let rest = bytes.get(end + 1..)?;
    let text = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = clean(text, TEXT_MOST);
    let text = format!("[{:5}.{:06}] {text}", micros / 1_000_000, micros % 1_000_000);
    let data = Some(format!("[kmsg seq=\"{number}\"]"));
    Some(Message { data, ..kernel(facility, severity, text) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_formats() {
        let [message] =
            &parse(b"2,416,1758426,-;Kernel panic - not syncing: ,;x\n DEVICE=+pci:0\n")[..]
        else {
            panic!("one")
        };
        assert_eq!(message.severity, Severity::Crit);
        assert_eq!(message.text, "[    1.758426] Kernel panic - not syncing: ,;x");
        assert_eq!(message.data.as_deref(), Some("[kmsg seq=\"416\"]"));
        let released = parse(b"6.1.0-31-amd64,30,7,12000000,c,ncfrag=0/9;half");
        assert_eq!(released[0].facility, "daemon".parse().unwrap());
        assert_eq!(released[0].text, "[   12.000000] half");
        let plain = parse(b"[   12.345678] one, two; three\n<3>four\r\n\n");
        let texts: Vec<&str> = plain.iter().map(|message| message.text.as_str()).collect();
        assert_eq!(texts, ["[   12.345678] one, two; three", "four"]);
        assert_eq!((plain[0].severity, plain[1].severity), (Severity::Notice, Severity::Err));
    }

    proptest! {
        #[test]
        fn any_bytes_are_some_messages(bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"6,1;\n -"[..])], 0..200)) {
            prop_assert!(parse(&bytes).len() <= LINES);
        }
    }
}

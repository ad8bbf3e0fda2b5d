//! Messages as the appliance reads them (RFC 5424), of what programs and the kernel wrote.

use std::time::Duration;

use crate::clock;

/// What a program wrote to the socket, or journald for it: `<30>Nov 25 14:03:27 sshd[123]: text`. Its time has no
/// year, no zone and no fraction: it is now.
pub fn program(bytes: &[u8], host: &str, now: Duration) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(['\n', '\0', ' ']);
    let (pri, rest) = pri(text).unwrap_or((13, text));
    let rest = bsd_time(rest).unwrap_or(rest);
    let (app, process, text) = tag(rest).unwrap_or(("-", "-", rest));
    message(pri, now, host, app, process, "-", text)
}

/// A record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg): `6,416,1758426,-;text`, and lines of what it is
/// about. It was said when the kernel's clock says so.
pub fn kernel(bytes: &[u8], host: &str, now: Duration, uptime: Duration) -> Option<String> {
    let record = String::from_utf8_lossy(bytes);
    let (head, text) = record.split_once(';')?;
    let mut fields = head.split(',');
    let pri: u16 = fields.next()?.parse().ok()?;
    let number: u64 = fields.next()?.parse().ok()?;
    let at = Duration::from_micros(fields.next()?.parse().ok()?);
    let text = text.lines().next().unwrap_or_default();
    let then = now.saturating_sub(uptime.saturating_sub(at));
    let data = format!("[kmsg seq=\"{number}\"]");
    let said = format!("[{:5}.{:06}] {text}", at.as_secs(), at.subsec_micros());
    // What programs wrote to it begins as in a log: systemd, before there is a journal.
    match (pri >> 3, tag(text)) {
        (1.., Some((app, process, text))) => {
            Some(message(pri, then, host, app, process, &data, text))
        }
        _ => Some(message(pri, then, host, "kernel", "-", &data, &said)),
    }
}

/// What found no room.
pub fn dropped(many: u64, host: &str, now: Duration) -> String {
    let text = format!("{many} messages found no room while the appliance did not take them");
    message(5 << 3 | 4, now, host, "koboshi-init", "-", "-", &text)
}

fn message(
    pri: u16,
    at: Duration,
    host: &str,
    app: &str,
    process: &str,
    data: &str,
    text: &str,
) -> String {
    let at = clock::stamp(at);
    let host = if host.is_empty() || host.contains(' ') { "-" } else { host };
    format!("<{pri}>1 {at} {host} {app} {process} - {data} {text}")
}

fn pri(text: &str) -> Option<(u16, &str)> {
    let (number, rest) = text.strip_prefix('<')?.split_once('>')?;
    let number = number.parse().ok().filter(|number| *number < 192)?;
    Some((number, rest))
}

/// Behind `Nov 25 14:03:27 `.
fn bsd_time(text: &str) -> Option<&str> {
    let (time, rest) = text.split_at_checked(16)?;
    let bytes = time.as_bytes();
    let colons = bytes.get(9) == Some(&b':') && bytes.get(12) == Some(&b':');
    (colons && bytes.get(3) == Some(&b' ') && bytes.get(15) == Some(&b' ')).then_some(rest)
}

/// `sshd[123]: text`
fn tag(text: &str) -> Option<(&str, &str, &str)> {
    let (tag, rest) = text.split_once(": ").or_else(|| Some((text.strip_suffix(':')?, "")))?;
    let (app, process) = match tag.strip_suffix(']').and_then(|tag| tag.split_once('[')) {
        Some((app, process)) => (app, process),
        None => (tag, "-"),
    };
    let word = |text: &str| {
        !text.is_empty() && text.len() <= 48 && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    (word(app) && word(process)).then_some((app, process, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_millis(1_764_079_407_123);

    #[test]
    fn programs() {
        for (wrote, sent) in [
            ("<30>Nov 25 14:03:27 sshd[123]: Accepted\n", "<30>1 T m01 sshd 123 - - Accepted"),
            ("<78>Nov  5 14:03:27 CRON[9]: (root) CMD: x", "<78>1 T m01 CRON 9 - - (root) CMD: x"),
            ("<13>app: x", "<13>1 T m01 app - - - x"),
            ("<13>no tag at all", "<13>1 T m01 - - - - no tag at all"),
            ("no header\0", "<13>1 T m01 - - - - no header"),
            ("<999>x", "<13>1 T m01 - - - - <999>x"),
            ("<13>\u{e9}t\u{e9}: x", "<13>1 T m01 - - - - \u{e9}t\u{e9}: x"),
            ("", "<13>1 T m01 - - - - "),
        ] {
            let sent = sent.replace(" T ", " 2025-11-25T14:03:27.123000Z ");
            assert_eq!(program(wrote.as_bytes(), "m01", NOW), sent, "{wrote}");
        }
    }

    #[test]
    fn the_kernel_and_who_writes_to_it() {
        let up = Duration::from_secs(10);
        let said = |record: &str| kernel(record.as_bytes(), "m01", NOW, up);
        assert_eq!(
            said("6,416,1758426,-;pci 0000:00:1f.2: x\n SUBSYSTEM=pci\n").unwrap(),
            "<6>1 2025-11-25T14:03:18.881426Z m01 kernel - - [kmsg seq=\"416\"] [    1.758426] pci 0000:00:1f.2: x"
        );
        assert_eq!(
            said("30,9,9000000,-;systemd[1]: Started x").unwrap(),
            "<30>1 2025-11-25T14:03:26.123000Z m01 systemd 1 - [kmsg seq=\"9\"] Started x"
        );
        for odd in ["", ";", "x,1,2,-;y", "6,1;y", "6,1,2,-"] {
            assert_eq!(said(odd), None, "{odd}");
        }
    }

    #[test]
    fn any_bytes() {
        let mut bytes = b"<30>Nov 25 14:03:27 sshd[123]: 6,416,17,-;\xff\xc3".to_vec();
        for seed in 0..5000u32 {
            let at = (seed as usize * 7919) % bytes.len();
            bytes[at] = (seed.wrapping_mul(2_654_435_761) >> 11) as u8;
            let _any = program(&bytes[at / 2..], "m01", NOW);
            let _any = kernel(&bytes, "m01", NOW, NOW);
        }
    }
}

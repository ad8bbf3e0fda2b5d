//! Messages as they are seen on wires.

use proptest::prelude::*;

use super::*;

fn now() -> Timestamp {
    "2026-11-25T14:03:30Z".parse().unwrap()
}

/// All of a message but its text, and the text.
fn told(bytes: &[u8]) -> (String, String) {
    let message = parse(bytes, now());
    let mut text = format!("{}.{}", message.facility, message.severity.as_str());
    for word in [message.time, message.host, message.app, message.procid, message.msgid] {
        text += &format!(" {}", word.as_deref().unwrap_or("-"));
    }
    text += &message.data.map(|data| format!(" {data}")).unwrap_or_default();
    (text, message.text)
}

#[test]
fn as_rfc_5424_has_it() {
    for (bytes, head, text) in [
        (
            // 6.5, example 1
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed",
            "auth.crit 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47",
            "'su root' failed",
        ),
        (
            "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time",
            "local4.notice 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 -",
            "%% It's time",
        ),
        (
            r#"<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [exampleSDID@32473 iut="3" a="x\"]y"][ex@1] An event"#,
            r#"local4.notice 2003-10-11T22:14:15.003Z h evntslog - ID47 [exampleSDID@32473 iut="3" a="x\"]y"][ex@1]"#,
            "An event",
        ),
        ("<0>1 - - - - - -", "kern.emerg - - - - -", ""),
        ("<13>1 - h a - - [never ends", "user.notice - h a - -", "[never ends"),
        // No such message by its time: as text, whole.
        ("<13>1 yesterday h a - - - x", "user.notice - - - - -", "1 yesterday h a - - - x"),
    ] {
        assert_eq!(told(bytes.as_bytes()), (head.to_string(), text.to_string()), "{bytes}");
    }
}

#[test]
fn as_others_have_it() {
    for (bytes, head, text) in [
        (
            "<34>Oct 11 22:14:15 mymachine su: 'su root' failed\n",
            "auth.crit 2026-10-11T22:14:15 mymachine su - -",
            "'su root' failed",
        ),
        // logger, rsyslog
        (
            "<13>Nov  5 14:03:27 m01 sshd[123]: hello  world",
            "user.notice 2026-11-05T14:03:27 m01 sshd 123 -",
            "hello  world",
        ),
        (
            "<30>2026-11-25T14:03:27.003216+09:00 m01 systemd[1]: Started x.",
            "daemon.info 2026-11-25T14:03:27.003216+09:00 m01 systemd 1 -",
            "Started x.",
        ),
        // busybox and whoever writes as to /dev/log
        ("<30>Nov 25 14:03:27 sshd[123]: x", "daemon.info 2026-11-25T14:03:27 - sshd 123 -", "x"),
        (
            "<6>Nov 25 14:03:27 kernel: [1.5] eth0",
            "kern.info 2026-11-25T14:03:27 - kernel - -",
            "[1.5] eth0",
        ),
        (
            "<78>Nov 25 14:03:27 m01 CRON[9]: (root) CMD (x)",
            "cron.info 2026-11-25T14:03:27 m01 CRON 9 -",
            "(root) CMD (x)",
        ),
        (
            "<14>Nov 25 14:03:27 last message repeated 3 times",
            "user.info 2026-11-25T14:03:27 - - - -",
            "last message repeated 3 times",
        ),
        // No year near this one has that day.
        ("<14>Feb 29 00:00:00 m01 a: x", "user.info - - - - -", "Feb 29 00:00:00 m01 a: x"),
        // Cisco
        (
            "<189>237: *Mar  1 18:46:11.123: %SYS-5-CONFIG_I: Configured by console",
            "local7.notice 2026-03-01T18:46:11.123 - %SYS-5-CONFIG_I - -",
            "Configured by console",
        ),
        (
            "<187>24: sw1: Nov 25 14:03:27 JST: %LINK-3-UPDOWN: Interface Gi0/1, changed state to down",
            "local7.err 2026-11-25T14:03:27 sw1 %LINK-3-UPDOWN - -",
            "Interface Gi0/1, changed state to down",
        ),
        (
            "<166>Nov 25 2026 14:03:27 asa1 : %ASA-6-302013: Built",
            "local4.info 2026-11-25T14:03:27 asa1 %ASA-6-302013 - -",
            "Built",
        ),
        ("<14>Nov 25 14:03:27 2025 m01 a: x", "user.info 2025-11-25T14:03:27 m01 a - -", "x"),
        ("<14>2026-11-25 14:03:27 m01 a: x", "user.info 2026-11-25T14:03:27 m01 a - -", "x"),
        // A BMC
        (
            "<132>Nov 25 14:03:27 idrac-7H Severity: Critical, Category: System Health",
            "local0.warning 2026-11-25T14:03:27 idrac-7H Severity - -",
            "Critical, Category: System Health",
        ),
        // Hardly anything
        ("<13>sshd[9]: x", "user.notice - - sshd 9 -", "x"),
        ("<13>http://example/ is down", "user.notice - - - - -", "http://example/ is down"),
        ("no header at all", "user.notice - - - - -", "no header at all"),
        ("<192>x", "user.notice - - - - -", "<192>x"),
        ("<1234>x", "user.notice - - - - -", "<1234>x"),
        ("<>x", "user.notice - - - - -", "<>x"),
        ("<13>", "user.notice - - - - -", ""),
        ("", "user.notice - - - - -", ""),
    ] {
        assert_eq!(told(bytes.as_bytes()), (head.to_string(), text.to_string()), "{bytes}");
    }
    let (_, text) = told(b"<13>Nov 25 14:03:27 m01 a: \xff\x1b[2J\x00");
    assert_eq!(text, "#377#033[2J");
}

#[test]
fn a_year_is_the_last_such() {
    let at = |now: &str, bytes: &str| parse(bytes.as_bytes(), now.parse().unwrap()).time.unwrap();
    let january = "2027-01-01T00:00:01Z";
    assert_eq!(at(january, "<14>Dec 31 23:59:59 m01 a: x"), "2026-12-31T23:59:59");
    assert_eq!(at("2026-12-31T23:59:59Z", "<14>Jan  1 00:00:03 m01 a: x"), "2027-01-01T00:00:03");
}

proptest! {
    #[test]
    fn any_bytes_are_a_message(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"<13>1 Nov 25:[]\"\\-T."[..])], 0..300),
        head in prop::sample::select(&["", "<13>", "<13>1 ", "<13>1 - - - - - [", "<13>Nov 25 14:03:27 ", "<13>7: *Nov 25 ", "<13>2026-11-25 "][..]),
    ) {
        let mut whole = head.as_bytes().to_vec();
        whole.extend(&bytes);
        let message = parse(&whole, now());
        // Whatever it was, its line is read back as it was written.
        let entry = crate::syslog::Entry { at: 1, way: crate::syslog::Way::Udp, message };
        let line = entry.line();
        prop_assert_eq!(crate::syslog::Entry::read(line.trim_end_matches('\n')), Some(entry));
    }
}

//! Private keys: PEM (RFC 7468, RFC 1421) and what looks like it, DER, PuTTY, age, OpenPGP,
//! WireGuard, Java keystores, PKCS #12.

use super::accounts::distinct;
use super::markers::{Found, Window};
use super::rules::{GCP_KEY, KEYSTORE, PRIVATE_KEY, VPN_KEY};
use super::scan::Hit;

/// A key shorter than this in base64 is a word in a program: Ed25519 in PKCS #8 takes 64.
const BODY_MIN: usize = 40;

/// At ` PRIVATE KEY`, before which a PEM label stands.
pub(super) fn pem(window: &Window<'_>) -> Option<Found> {
    let begin = window.before.windows(5).rposition(|part| part == b"BEGIN")?;
    let label = &window.before[begin + 5..];
    let dashes = window.before[..begin].trim_ascii_end();
    if !dashes.ends_with(b"----") || label.len() > 20 || label.contains(&b'\n') {
        return None;
    }
    let rest = window.rest.strip_prefix(b" PRIVATE KEY")?;
    let rest = rest.strip_prefix(b" BLOCK").unwrap_or(rest);
    let body = rest.strip_prefix(b"----")?;
    let body = past_ends(body.strip_prefix(b"-").unwrap_or(body));
    let (key, escaped) = base64(body);
    let looks = match label.trim_ascii() {
        b"OPENSSH" => key.starts_with(b"b3BlbnNzaC1rZXktdjE"),
        // DER of a SEQUENCE; with Proc-Type before it, anything at all.
        b"PGP" | b"SSH2 ENCRYPTED" => true,
        _ => key.starts_with(b"M") || body.starts_with(b"Proc-Type"),
    };
    if !looks || key.len() < BODY_MIN || distinct(&key) < 12 {
        return None;
    }
    let google = escaped && window.before.windows(13).any(|part| part == b"\"private_key\"");
    let rule = if google { &GCP_KEY } else { &PRIVATE_KEY };
    let note = match label.trim_ascii() {
        b"" => None,
        label => Some(format!("{}", String::from_utf8_lossy(label))),
    };
    Some(Found { rule, note: if google { None } else { note }, evidence: key })
}

/// Past blanks and line ends, also those written `\n` in JSON, C and shell.
fn past_ends(mut rest: &[u8]) -> &[u8] {
    loop {
        rest = rest.trim_ascii_start();
        match ends(rest) {
            Some(skip) => rest = &rest[skip..],
            None => return rest,
        }
    }
}

/// `\n`, `\r`, `\\n` as text.
fn ends(rest: &[u8]) -> Option<usize> {
    let slashes = rest.iter().take(2).take_while(|c| **c == b'\\').count();
    (slashes > 0 && matches!(rest.get(slashes), Some(b'n' | b'r'))).then_some(slashes + 1)
}

/// The base64 up to the dashes of the end, headers left out, and whether it was written on one
/// line with `\n` in it.
fn base64(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut key = Vec::new();
    let mut escaped = false;
    while let Some(c) = rest.first() {
        if let Some(skip) = ends(rest) {
            escaped = true;
            rest = &rest[skip..];
            continue;
        }
        match c {
            b'\n' | b'\r' | b' ' | b'\t' | b'"' | b'+' | b'/' | b'=' | b'\'' | b',' => {}
            c if c.is_ascii_alphanumeric() => {}
            // `Proc-Type: 4,ENCRYPTED`, `DEK-Info: …`, `Version: GnuPG`: the whole line.
            b':' | b'-' if !rest.starts_with(b"---") => {
                let begin = key.iter().rposition(|c| *c == b'\n').map_or(0, |at| at + 1);
                key.truncate(begin);
                let line = rest.iter().position(|c| *c == b'\n').unwrap_or(rest.len());
                rest = &rest[line..];
                continue;
            }
            _ => break,
        }
        key.push(*c);
        rest = &rest[1..];
    }
    key.retain(|c| c.is_ascii_alphanumeric() || b"+/=".contains(c));
    (key, escaped)
}

/// OpenVPN's `tls-auth`, `tls-crypt` and `secret`: hexadecimal lines after the mark.
pub(super) fn openvpn(window: &Window<'_>) -> Option<Found> {
    let body = window.rest.strip_prefix(b"OpenVPN Static key V1-----")?;
    let key: Vec<u8> = body
        .iter()
        .copied()
        .take_while(|c| c.is_ascii_hexdigit() || c.is_ascii_whitespace())
        .filter(u8::is_ascii_hexdigit)
        .collect();
    (key.len() >= 256).then_some(Found { rule: &VPN_KEY, note: None, evidence: key })
}

/// PuTTY's .ppk, versions 1 to 3.
pub(super) fn putty(window: &Window<'_>) -> Option<Found> {
    let rest = window.rest.strip_prefix(b"PuTTY-User-Key-File-")?;
    let [b'1'..=b'9', b':', b' ', ..] = rest else { return None };
    let at = rest.windows(14).position(|part| part == b"Private-Lines:")?;
    let evidence = rest[at..].iter().copied().take(4096).collect();
    Some(Found { rule: &PRIVATE_KEY, note: Some("PuTTY".to_owned()), evidence })
}

/// age-keygen(1): bech32, in capitals.
pub(super) fn age(window: &Window<'_>) -> Option<Found> {
    let key = &window.rest.get(..74)?;
    let more = window.rest.get(74).is_some_and(u8::is_ascii_alphanumeric);
    let fits = |c: &u8| c.is_ascii_uppercase() || c.is_ascii_digit();
    let whole = !more && key[16..].iter().all(fits) && distinct(&key[16..]) >= 10;
    let note = Some("age".to_owned());
    whole.then(|| Found { rule: &PRIVATE_KEY, note, evidence: key.to_vec() })
}

/// `PrivateKey = …` of wg(8), systemd.netdev(5) and NetworkManager: 32 bytes in base64.
pub(super) fn wireguard(window: &Window<'_>) -> Option<Found> {
    let name = window.rest.iter().take(13).take_while(|c| c.is_ascii_alphabetic() || **c == b'-');
    let rest = window.rest[name.count()..].trim_ascii_start();
    let rest = rest.strip_prefix(b"=").or_else(|| rest.strip_prefix(b":"))?.trim_ascii_start();
    let key = bare_wireguard(rest)?;
    Some(Found { rule: &VPN_KEY, note: Some("WireGuard".to_owned()), evidence: key.to_vec() })
}

/// Such a key at the beginning of `rest`.
pub(super) fn bare_wireguard(rest: &[u8]) -> Option<&[u8]> {
    let key = rest.get(..44)?;
    let fits = |c: &u8| c.is_ascii_alphanumeric() || b"+/".contains(c);
    let more = rest.get(44).is_some_and(|c| fits(c) || *c == b'=');
    (key[..43].iter().all(fits) && key[43] == b'=' && !more && distinct(key) >= 12).then_some(key)
}

/// What the first bytes of a file tell: DER, Java's keystores. `size` is the whole file's.
pub(super) fn binary(head: &[u8], size: u64) -> Option<Hit> {
    let whole = |rule, note: &str| Some(Hit::line(rule, 0, head).of(note.as_bytes()));
    match head {
        [0xfe, 0xed, 0xfe, 0xed, ..] if jks(head) => whole(&KEYSTORE, "Java"),
        [0xce, 0xce, 0xce, 0xce, ..] if jks(head) => whole(&KEYSTORE, "Java, JCEKS"),
        [0x30, ..] => {
            let (begin, inside) = der(head)?;
            if begin as u64 + inside != size {
                return None;
            }
            match &head[begin..] {
                // PFX: version 3, then a ContentInfo (RFC 7292, 4).
                [2, 1, 3, 0x30, ..] if pkcs12(head) => whole(&KEYSTORE, "PKCS #12"),
                // PKCS #8: version, then an AlgorithmIdentifier (RFC 5208, RFC 5958).
                [2, 1, 0 | 1, 0x30, _, 6, ..] => whole(&PRIVATE_KEY, "DER"),
                // RSAPrivateKey: version, then the modulus (RFC 8017, A.1.2).
                [2, 1, 0, 2, 0x81 | 0x82, ..] => whole(&PRIVATE_KEY, "DER, RSA"),
                // ECPrivateKey: version 1, then the key (RFC 5915).
                [2, 1, 1, 4, 0x20..=0x42, ..] => whole(&PRIVATE_KEY, "DER, EC"),
                _ => None,
            }
        }
        // OpenPGP: a secret key packet (RFC 9580, 5.5.1.3), in the old and the new format.
        [0x94 | 0x95 | 0xc5, ..] if openpgp(head) => whole(&PRIVATE_KEY, "OpenPGP"),
        _ => None,
    }
}

/// Where a SEQUENCE's inside begins, and its length.
fn der(head: &[u8]) -> Option<(usize, u64)> {
    let first = *head.get(1)?;
    if first < 0x80 {
        return Some((2, u64::from(first)));
    }
    let count = usize::from(first & 0x7f);
    let bytes = head.get(2..2 + count).filter(|_| (1..=4).contains(&count))?;
    Some((2 + count, bytes.iter().fold(0, |length, byte| length << 8 | u64::from(*byte))))
}

/// Whether the shrouded or the bare key bag is among its bags; stores of trusted certificates have
/// none. Tools encrypt the certificates and leave the bags of keys, encrypted each, in sight.
fn pkcs12(head: &[u8]) -> bool {
    let bag = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1];
    head.windows(11).any(|part| part[..10] == bag && matches!(part[10], 1 | 2))
}

/// Whether any entry is a key: Debian's /etc/ssl/certs/java/cacerts is such a store of
/// certificates alone.
fn jks(head: &[u8]) -> bool {
    let word = |at: usize| {
        head.get(at..at + 4)?.try_into().ok().map(|bytes| u32::from_be_bytes(bytes) as usize)
    };
    let short = |at: usize| {
        head.get(at..at + 2)?.try_into().ok().map(|bytes| usize::from(u16::from_be_bytes(bytes)))
    };
    let entries = || {
        let (version, count) = (word(4)?, word(8)?);
        let mut at = 12;
        for _ in 0..count {
            let tag = word(at)?;
            if tag != 2 {
                return Some(true);
            }
            // Alias, then the time in eight bytes.
            at += 4 + 2 + short(at + 4)? + 8;
            if version == 2 {
                at += 2 + short(at)?;
            }
            at = at.checked_add(4 + word(at)?)?;
        }
        Some(false)
    };
    entries().unwrap_or(false)
}

fn openpgp(head: &[u8]) -> bool {
    let Some(lead) = head.first() else { return false };
    let at = match (lead, head.get(1)) {
        (0x94, _) => 2,
        (0x95, _) => 3,
        (_, Some(0..192)) => 2,
        (_, Some(192..224)) => 3,
        _ => return false,
    };
    // Version, four bytes of time, an algorithm that exists.
    let time = head.get(at + 1..at + 5).and_then(|time| time.try_into().ok());
    let made = time.map_or(0, u32::from_be_bytes);
    matches!(head.get(at), Some(4..=6))
        && (800_000_000..2_500_000_000).contains(&made)
        && matches!(head.get(at + 5), Some(1..=3 | 16..=22 | 25..=28))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str, needle: &str) -> Option<Found> {
        let at = text.find(needle).unwrap();
        let (before, rest) = text.as_bytes().split_at(at);
        pem(&Window { path: b"", before, rest })
    }

    const BODY: &str = "MC4CAQAwBQYDK2VwBCIEIFxZ4yJmVbB8GwqLrT5cK7eYp3uQhN0vXsD1fAoRzEt9";

    #[test]
    fn pem_needs_a_key_in_it() {
        let key = |label: &str, body: &str| {
            format!(
                "-----BEGIN {label}PRIVATE KEY-----\n{body}\n-----END {label}PRIVATE KEY-----\n"
            )
        };
        let found = |text: &str| window(text, " PRIVATE KEY").map(|found| found.rule.id);
        assert_eq!(found(&format!("x {}", key("", BODY))), Some("private-key"));
        assert_eq!(found(&key("RSA ", BODY)), Some("private-key"));
        assert_eq!(found(&key("ENCRYPTED ", BODY)), Some("private-key"));
        let old = format!("Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,01AB\n\nq{BODY}");
        assert_eq!(found(&key("RSA ", &old)), Some("private-key"));
        let openssh = format!("b3BlbnNzaC1rZXktdjEAAAAABG5vbmU{BODY}");
        assert_eq!(found(&key("OPENSSH ", &openssh)), Some("private-key"));
        assert_eq!(found(&key("OPENSSH ", BODY)), None);
        let json = format!(
            "{{\"private_key\": \"-----BEGIN PRIVATE KEY-----\\n{BODY}\\n-----END PRIVATE KEY-----\\n\"}}"
        );
        assert_eq!(found(&json), Some("gcp-key"));
        for none in ["", "...", "MIIEvQIBADANBg...", "%s", &"M".repeat(64), "example"] {
            assert_eq!(found(&key("", none)), None, "{none}");
        }
        assert_eq!(found("-----BEGIN CERTIFICATE----- and a PRIVATE KEY-----\nMC4C"), None);
    }

    #[test]
    fn the_same_key_is_the_same_evidence_however_it_is_written() {
        let one = window(&format!("-----BEGIN PRIVATE KEY-----\n{BODY}\n-----END"), " PRIVATE");
        let (left, right) = BODY.split_at(32);
        let text = format!("-----BEGIN PRIVATE KEY-----\\n{left}\\n{right}\\n-----END");
        assert_eq!(one.unwrap().evidence, window(&text, " PRIVATE").unwrap().evidence);
    }

    #[test]
    fn keystores_of_certificates_alone_are_none() {
        let entry = |tag: u8| {
            let mut bytes = vec![0, 0, 0, tag, 0, 2, b'c', b'a'];
            bytes.extend([0; 8]);
            bytes.extend([0, 5]);
            bytes.extend(b"X.509");
            bytes.extend([0, 0, 0, 3, 1, 2, 3]);
            bytes
        };
        let store = |tags: &[u8]| {
            let mut bytes = vec![0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, tags.len() as u8];
            tags.iter().for_each(|tag| bytes.extend(entry(*tag)));
            bytes
        };
        assert!(binary(&store(&[2, 2]), 99).is_none());
        assert_eq!(binary(&store(&[2, 1]), 99).unwrap().rule.id, "keystore");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_harm(bytes: Vec<u8>, lead in 0usize..8) {
            let magic: [&[u8]; 8] = [
                b"", &[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2], &[0xce, 0xce, 0xce, 0xce], &[0x30],
                &[0x30, 0x82], &[0x95], &[0xc5], &[0x94],
            ];
            let head = [magic[lead], &bytes].concat();
            binary(&head, head.len() as u64);
            let window = Window { path: b"", before: b"-----BEGIN", rest: &bytes };
            pem(&window);
            age(&window);
            wireguard(&window);
            openvpn(&window);
            putty(&window);
            super::super::accounts::crypt(&bytes);
            super::super::accounts::ldap(&bytes);
            super::super::accounts::argon2(&bytes);
        }
    }
}

//! Accounts: passwd(5), shadow(5), gshadow(5) and their backups, htpasswd, former passwords.

use super::rules::{EMPTY_PASSWORD, PASSWORD_HASH};
use super::scan::Hit;
use super::text::lines;

/// shadow(5), and passwd(5) where the second field is not yet `x`.
pub(super) fn accounts(bytes: &[u8]) -> Vec<Hit> {
    let mut hits = Vec::new();
    for (at, line) in lines(bytes) {
        let mut fields = line.split(|c| *c == b':');
        let (Some(user), Some(field)) = (fields.next(), fields.next()) else { continue };
        // `+::::::` of NIS, and what is no account.
        if user.is_empty() || b"+-#".contains(&user[0]) {
            continue;
        }
        match told(field) {
            Field::Hash(hash) => hits.push(Hit::line(&PASSWORD_HASH, at, hash).of(user)),
            Field::Empty => hits.push(Hit::line(&EMPTY_PASSWORD, at, line).of(user)),
            Field::None => {}
        }
    }
    hits
}

/// gshadow(5), group(5): an empty field is the rule there, and lets nobody in.
pub(super) fn groups(bytes: &[u8]) -> Vec<Hit> {
    accounts(bytes).into_iter().filter(|hit| hit.rule == &PASSWORD_HASH).collect()
}

/// `user:hash`, the hash in any form Apache, nginx or dovecot know.
pub(super) fn htpasswd(bytes: &[u8]) -> Vec<Hit> {
    lines(bytes)
        .filter(|(_, line)| !line.starts_with(b"#"))
        .filter_map(|(at, line)| {
            let colon = line.iter().position(|c| *c == b':')?;
            let (user, rest) = (&line[..colon], line.get(colon + 1..)?);
            (!user.is_empty() && rest.len() >= 8)
                .then(|| Hit::line(&PASSWORD_HASH, at, rest).of(user))
        })
        .collect()
}

enum Field<'a> {
    None,
    Empty,
    /// Without the `!` of a locked account.
    Hash(&'a [u8]),
}

fn told(field: &[u8]) -> Field<'_> {
    if field.is_empty() {
        return Field::Empty;
    }
    // `passwd -l` puts a `!` before the hash, and leaves the hash.
    let locked = field.iter().take_while(|c| **c == b'!').count();
    match &field[locked..] {
        b"" | b"x" => Field::None,
        [b'*', ..] => Field::None,
        // `!locked`, `!unset`: words people write where a hash would be.
        rest if locked > 0 && rest.len() < 13 && !rest.starts_with(b"$") => Field::None,
        rest => Field::Hash(rest),
    }
}

/// The lengths of what crypt(5) appends after its last `$`, by prefix.
const CRYPT: &[(&[u8], usize)] = &[
    (b"$1$", 22),
    (b"$apr1$", 22),
    (b"$2a$", 53),
    (b"$2b$", 53),
    (b"$2y$", 53),
    (b"$5$", 43),
    (b"$6$", 86),
    (b"$7$", 43),
    (b"$y$", 43),
    (b"$gy$", 43),
];

/// A hash as crypt(5) writes it, whole, at the beginning of `rest`: how long it is.
pub(super) fn crypt(rest: &[u8]) -> Option<usize> {
    let fits = |c: &u8| c.is_ascii_alphanumeric() || b"./".contains(c);
    let (prefix, length) = CRYPT.iter().find(|(prefix, _)| rest.starts_with(prefix))?;
    let mut at = prefix.len();
    // Parameters and salt, each ended by a `$`; bcrypt has its salt in the hash.
    for part in 0..3 {
        let word = rest[at..].iter().take(90).take_while(|c| fits(c) || **c == b'=').count();
        let ends = rest.get(at + word).copied();
        if ends == Some(b'$') && word <= 86 && part < 2 {
            at += word + 1;
            continue;
        }
        let various = distinct(&rest[at..at + word]) >= 10;
        return (word == *length && at > prefix.len() && various).then_some(at + word);
    }
    None
}

/// `{SSHA}` and its kin (RFC 2307): the scheme, then at least a SHA-1 in base64.
pub(super) fn ldap(rest: &[u8]) -> Option<usize> {
    let end = rest.iter().take(12).position(|c| *c == b'}')? + 1;
    let fits = |c: &u8| c.is_ascii_alphanumeric() || b"+/=".contains(c);
    let hash = rest[end..].iter().take(200).take_while(|c| fits(c)).count();
    (hash >= 28 && distinct(&rest[end..end + hash]) >= 10).then_some(end + hash)
}

/// `$argon2id$v=19$m=65536,t=3,p=4$salt$hash`.
pub(super) fn argon2(rest: &[u8]) -> Option<usize> {
    let fits = |c: &u8| c.is_ascii_alphanumeric() || b"$+/=,-".contains(c);
    let whole = rest.iter().take(300).take_while(|c| fits(c)).count();
    let parts: Vec<&[u8]> = rest[..whole].split(|c| *c == b'$').collect();
    let hash = parts.get(5)?;
    (parts.len() == 6 && hash.len() >= 20 && distinct(hash) >= 10).then_some(whole)
}

/// How many different bytes: `xxxxxxxx` and `12345678` are somebody's example.
pub(super) fn distinct(bytes: &[u8]) -> usize {
    let mut seen = [false; 256];
    bytes.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    seen.iter().filter(|seen| **seen).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA512: &str = "$6$1Yx0sW7yq8$Tq2Wf3yL9pQxq0bH7rKzJm5uVnCeXaS1dGfHjKlQwErTyUiOp0ZxCvBnMaSdFgHjKlQwErTyUiOpZxCvBnMaS.";
    const YESCRYPT: &str =
        "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7";

    fn users(hits: Vec<Hit>) -> Vec<(&'static str, String)> {
        hits.into_iter().map(|hit| (hit.rule.id, hit.note.unwrap())).collect()
    }

    #[test]
    fn shadow_tells_hashes_from_marks() {
        let text = format!(
            "root:{SHA512}:19000:0:99999:7:::\ndaemon:*:19000::::::\na:!:1::::::\nb:!!:1::::::\n\
             c:!*:1::::::\nd:x:1::::::\ne:*LK*:1::::::\nf:!locked:1::::::\ng::1::::::\n\
             h:!{YESCRYPT}:1::::::\ni:aBcDeFgHiJkLm:1::::::\n+::::::::\n\nbroken\n"
        );
        let found = users(accounts(text.as_bytes()));
        let expected = [
            ("password-hash", "root"),
            ("empty-password", "g"),
            ("password-hash", "h"),
            ("password-hash", "i"),
        ];
        assert_eq!(found, expected.map(|(rule, user)| (rule, user.to_owned())));
        assert!(groups(b"adm:*::\nstaff:!::a,b\nold:::\n").is_empty());
        assert_eq!(groups(format!("wheel:{SHA512}::\n").as_bytes()).len(), 1);
        assert!(accounts(b"root:x:0:0:root:/root:/bin/sh\n").is_empty());
    }

    #[test]
    fn hashes_are_known_by_their_whole_form() {
        let bcrypt = "$2y$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";
        let rounds = SHA512.replacen("$6$", "$6$rounds=5000$", 1);
        for hash in [SHA512, YESCRYPT, bcrypt, &rounds] {
            assert_eq!(crypt(format!("{hash}:1:").as_bytes()), Some(hash.len()), "{hash}");
            assert_eq!(crypt(hash.as_bytes()), Some(hash.len()), "{hash}");
            assert_eq!(crypt(format!("{hash}a").as_bytes()), None, "{hash}");
            assert_eq!(crypt(&hash.as_bytes()[..hash.len() - 1]), None, "{hash}");
        }
        for bad in ["$1$2", "$6$", "$6$salt$", "$1$$2$$3$", &format!("$6$salt${}", "x".repeat(86))]
        {
            assert_eq!(crypt(bad.as_bytes()), None, "{bad}");
        }
        assert!(ldap(b"{SSHA}DkMTwBl+a/3DQTxCYEApdUtNXGgdUac3 ").is_some());
        assert!(ldap(b"{SSHA}").is_none() && ldap(b"{SSHA").is_none());
        let argon = b"$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG";
        assert_eq!(argon2(argon), Some(argon.len()));
        assert!(argon2(b"$argon2id$v=%d$m=%d").is_none());
    }

    #[test]
    fn htpasswd_lines() {
        let text =
            b"# users\nadmin:$apr1$zUVqRg1Y$0123456789abcdefghijk.\nold:aBcDeFgHiJkLm\nbad\n:x\n";
        assert_eq!(users(htpasswd(text)).len(), 2);
    }
}

//! Files of logins that are not `key = value`: netrc, pgpass, npmrc, JSON, passwords in addresses.

use super::rules::{LOGIN, URL_PASSWORD};
use super::scan::Hit;
use super::text::{meant, settings};

/// netrc(5): words, over as many lines as one likes.
pub(super) fn netrc(bytes: &[u8]) -> Vec<Hit> {
    let mut hits = Vec::new();
    let mut after = false;
    for (at, line) in settings(bytes) {
        for word in line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            if std::mem::replace(&mut after, word == b"password") && meant(word) {
                hits.push(Hit::line(&LOGIN, at, word));
                after = false;
            }
        }
    }
    hits
}

/// `host:port:database:user:password`, with `\:` for a colon.
pub(super) fn pgpass(line: &[u8]) -> bool {
    let mut fields = 1;
    let mut escaped = false;
    for c in line {
        match c {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b':' => fields += 1,
            _ => {}
        }
    }
    fields == 5 && !line.ends_with(b":")
}

/// `//registry/:_authToken=…`, `_auth=…`, `_password=…`; `${NPM_TOKEN}` is filled at run time.
pub(super) fn npmrc(line: &[u8]) -> bool {
    let names: [&[u8]; 3] = [b"_authToken", b"_auth", b"_password"];
    let Some(equal) = line.iter().position(|c| *c == b'=') else { return false };
    let (name, said) = (line[..equal].trim_ascii(), line[equal + 1..].trim_ascii());
    let bare = said.strip_prefix(b"\"").unwrap_or(said);
    names.iter().any(|known| name.ends_with(known)) && meant(bare)
}

/// Every `"key": "text"`, wherever it stands.
pub(super) fn json<'a>(bytes: &'a [u8], key: &str) -> impl Iterator<Item = (usize, &'a [u8])> {
    let quoted = [b"\"", key.as_bytes(), b"\""].concat();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = bytes.get(at..)?;
            let found = rest.windows(quoted.len()).position(|part| part == quoted)?;
            let begin = at + found;
            at = begin + quoted.len();
            let said = bytes[at..].trim_ascii_start().strip_prefix(b":");
            if let Some(text) = said.and_then(|said| said.trim_ascii_start().strip_prefix(b"\"")) {
                return Some((begin, text.split(|c| *c == b'"').next().unwrap_or_default()));
            }
        }
    })
}

/// The password in `scheme://user:password@host`.
pub(super) fn url_password(line: &[u8]) -> Option<&[u8]> {
    let scheme = line.windows(3).position(|part| part == b"://")?;
    let rest = &line[scheme + 3..];
    let end = rest.iter().position(|c| c.is_ascii_whitespace() || b"/\"'<>,;)`".contains(c));
    let authority = &rest[..end.unwrap_or(rest.len())];
    let at = authority.iter().rposition(|c| *c == b'@')?;
    let account = &authority[..at];
    let colon = account.iter().position(|c| *c == b':')?;
    let (user, password) = (&account[..colon], &account[colon + 1..]);
    let examples: [&[u8]; 8] =
        [b"pass", b"passwd", b"pwd", b"pw", b"secret", b"user", b"username", b"login"];
    let is_example = |word: &[u8]| examples.iter().any(|e| word.eq_ignore_ascii_case(e));
    (meant(user) && meant(password) && !is_example(user) && !is_example(password))
        .then_some(password)
}

/// Such passwords in a configuration file.
pub(super) fn url_passwords(bytes: &[u8]) -> Vec<Hit> {
    settings(bytes)
        .filter_map(|(at, line)| Some(Hit::line(&URL_PASSWORD, at, url_password(line)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netrc_in_one_line_or_many() {
        assert_eq!(
            netrc(b"machine a login b password c3\nmachine d login e\n  password f4\n").len(),
            2
        );
        assert_eq!(netrc(b"# password x\nmachine a login b\n").len(), 0);
    }

    #[test]
    fn pgpass_of_five_fields() {
        assert!(pgpass(b"*:5432:db:me:a\\:b"));
        assert!(!pgpass(b"*:5432:db:me:") && !pgpass(b"a:b:c:d") && !pgpass(b""));
    }

    #[test]
    fn addresses_with_passwords() {
        let line = b"Acquire::http::Proxy \"http://proxy:s3cret@10.0.0.1:3128/\";";
        assert_eq!(url_password(line), Some(&b"s3cret"[..]));
        for none in [
            "http://10.0.0.1:3128/",
            "http://user:password@host",
            "http://$USER:$PASS@host",
            "mail me://a@b",
            "http://a/b:c@d",
            "://",
            "",
        ] {
            assert_eq!(url_password(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn json_strings_on_one_line() {
        let text = br#"{"a": {"auth" : "x"}, "auth":"y", "auth": {}, "auths": "z"}"#;
        let found: Vec<_> = json(text, "auth").map(|(_, text)| text).collect();
        assert_eq!(found, [b"x", b"y"]);
    }
}

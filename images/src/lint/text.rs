//! Lines of configuration files, and values that are somebody's and no example's.

/// The lines that are not blank, with where each begins; neither their ends nor blanks around them.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut begin = 0;
    bytes.split(|c| *c == b'\n').filter_map(move |line| {
        let at = begin;
        begin += line.len() + 1;
        let trimmed = line.trim_ascii();
        (!trimmed.is_empty()).then_some((at, trimmed))
    })
}

/// The lines that are no comment of `#`, `;`, `//` or `!`.
pub(super) fn settings(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    lines(bytes).filter(|(_, line)| {
        !matches!(line.first(), Some(b'#' | b';' | b'!')) && !line.starts_with(b"//")
    })
}

/// The value of `key` on this line: `key = value`, `key: value`, `key value`, `"key": "value",`,
/// `<key>value</key>`, in any case, quotes taken off. `None` where the key is another or the value
/// is none of anybody's.
pub(super) fn value<'a>(line: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let line = line.strip_prefix(b"export ").unwrap_or(line);
    let open = |c: &u8| b"\"'<- {".contains(c);
    let line = &line[line.iter().take_while(|c| open(c)).count()..];
    let (head, rest) = line.split_at_checked(key.len())?;
    if !head.eq_ignore_ascii_case(key.as_bytes()) {
        return None;
    }
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
    let bare = rest.trim_ascii_start();
    let said = match bare.first()? {
        b'=' | b':' | b'>' => bare[1..].trim_ascii_start(),
        // Only what a blank parts from its key.
        _ if bare.len() < rest.len() => bare,
        _ => return None,
    };
    let said = match said.first()? {
        quote @ (b'"' | b'\'') => said[1..].split(|c| c == quote).next().unwrap_or_default(),
        _ => {
            let end = said.iter().position(|c| c.is_ascii_whitespace() || b"<,".contains(c));
            // A value may begin with these; then it is a placeholder, told below.
            &said[..end.filter(|end| *end > 0).unwrap_or(said.len())]
        }
    };
    meant(said).then_some(said)
}

/// Whether a value is one, and not a hole to be filled.
pub(super) fn meant(value: &[u8]) -> bool {
    let holes: [&[u8]; 8] =
        [b"null", b"none", b"true", b"false", b"yes", b"no", b"changeme", b"password"];
    let masked = |c: &u8| b"xX*.-_".contains(c);
    !value.is_empty()
        && !b"<$%{[@".contains(&value[0])
        && !value.iter().all(masked)
        && !holes.iter().any(|hole| value.eq_ignore_ascii_case(hole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_dialect() {
        for line in [
            "password=s3cret",
            "password = \"s3cret\"",
            "  password : 's3cret' ".trim(),
            "PASSWORD s3cret # the old one",
            "\"password\": \"s3cret\",",
            "{\"password\":\"s3cret\"}",
            "- password: s3cret",
            "<password>s3cret</password>",
            "export PASSWORD=s3cret",
        ] {
            assert_eq!(value(line.as_bytes(), "password"), Some(&b"s3cret"[..]), "{line}");
        }
        for line in [
            "passwords=s3cret",
            "password",
            "password=",
            "password = \"\"",
            "password: <secret>",
            "password=$PASS",
            "password={{ pass }}",
            "password=********",
            "password: null",
            "my password is s3cret",
        ] {
            assert_eq!(value(line.as_bytes(), "password"), None, "{line}");
        }
    }

    #[test]
    fn lines_know_where_they_begin() {
        let found: Vec<_> = lines(b"\n a \r\n#b\n\nc").collect();
        assert_eq!(found, [(1, &b"a"[..]), (6, b"#b"), (10, b"c")]);
        assert_eq!(settings(b"#a\n;b\n//c\nd").count(), 1);
    }
}

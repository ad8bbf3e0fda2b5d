//! Tokens that say by their form what they are: a prefix, then so many letters of an alphabet.

use super::accounts::distinct;
use super::markers::{Found, Window};
use super::rules::{AWS_KEY, AZURE_KEY, GCP_KEY, Rule, TOKEN};

/// Letters a token is made of.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// Letters and digits.
    Alnum,
    /// Those, `_` and `-`: base64 for addresses.
    Url,
    /// `Url` with `.` between parts.
    Dotted,
    /// Capitals and digits.
    Upper,
    /// Hexadecimal, lower case.
    Hex,
    /// base64.
    Base64,
}

/// How one issuer writes its tokens.
pub(super) struct Token {
    pub(super) prefix: &'static [u8],
    of: Of,
    /// Letters after the prefix: at least, at most.
    least: usize,
    most: usize,
    rule: &'static Rule,
    issuer: &'static str,
}

const fn token(
    prefix: &'static [u8],
    of: Of,
    (least, most): (usize, usize),
    rule: &'static Rule,
    issuer: &'static str,
) -> Token {
    Token { prefix, of, least, most, rule, issuer }
}

pub(super) static TOKENS: &[Token] = &[
    token(b"AKIA", Of::Upper, (16, 16), &AWS_KEY, "access key"),
    token(b"ASIA", Of::Upper, (16, 16), &AWS_KEY, "access key for some hours"),
    token(b"AIza", Of::Url, (35, 35), &GCP_KEY, "API key"),
    token(b"GOCSPX-", Of::Url, (28, 28), &GCP_KEY, "OAuth client"),
    token(b"AccountKey=", Of::Base64, (86, 88), &AZURE_KEY, "storage account"),
    token(b"SharedAccessKey=", Of::Base64, (42, 88), &AZURE_KEY, "service bus"),
    token(b"ghp_", Of::Alnum, (36, 255), &TOKEN, "GitHub"),
    token(b"gho_", Of::Alnum, (36, 255), &TOKEN, "GitHub"),
    token(b"ghu_", Of::Alnum, (36, 255), &TOKEN, "GitHub"),
    token(b"ghs_", Of::Alnum, (36, 255), &TOKEN, "GitHub"),
    token(b"ghr_", Of::Alnum, (36, 255), &TOKEN, "GitHub"),
    token(b"github_pat_", Of::Url, (82, 82), &TOKEN, "GitHub"),
    token(b"glpat-", Of::Dotted, (20, 300), &TOKEN, "GitLab"),
    token(b"gldt-", Of::Url, (20, 60), &TOKEN, "GitLab deploy token"),
    token(b"glrt-", Of::Dotted, (20, 300), &TOKEN, "GitLab runner"),
    token(b"xoxb-", Of::Url, (24, 255), &TOKEN, "Slack"),
    token(b"xoxp-", Of::Url, (24, 255), &TOKEN, "Slack"),
    token(b"xoxa-", Of::Url, (24, 255), &TOKEN, "Slack"),
    token(b"xoxr-", Of::Url, (24, 255), &TOKEN, "Slack"),
    token(b"xoxs-", Of::Url, (24, 255), &TOKEN, "Slack"),
    token(b"xapp-", Of::Url, (40, 255), &TOKEN, "Slack"),
    token(b"hvs.", Of::Url, (24, 255), &TOKEN, "Vault"),
    token(b"hvb.", Of::Url, (24, 300), &TOKEN, "Vault batch token"),
    token(b"sk_live_", Of::Alnum, (24, 255), &TOKEN, "Stripe"),
    token(b"rk_live_", Of::Alnum, (24, 255), &TOKEN, "Stripe"),
    token(b"npm_", Of::Alnum, (36, 36), &TOKEN, "npm"),
    token(b"pypi-AgEI", Of::Url, (50, 400), &TOKEN, "PyPI"),
    token(b"dckr_pat_", Of::Url, (27, 36), &TOKEN, "Docker Hub"),
    token(b"dop_v1_", Of::Hex, (64, 64), &TOKEN, "DigitalOcean"),
    token(b"SG.", Of::Dotted, (66, 66), &TOKEN, "SendGrid"),
    token(b"hf_", Of::Alnum, (34, 40), &TOKEN, "Hugging Face"),
    token(b"sk-proj-", Of::Url, (40, 255), &TOKEN, "OpenAI"),
    token(b"sk-ant-", Of::Url, (80, 255), &TOKEN, "Anthropic"),
    token(b"tskey-", Of::Url, (20, 100), &TOKEN, "Tailscale"),
    token(b"glsa_", Of::Url, (41, 41), &TOKEN, "Grafana"),
    token(b"shpat_", Of::Hex, (32, 32), &TOKEN, "Shopify"),
    token(b"pul-", Of::Hex, (40, 40), &TOKEN, "Pulumi"),
];

impl Of {
    fn fits(self, c: u8) -> bool {
        match self {
            Of::Alnum => c.is_ascii_alphanumeric(),
            Of::Url => c.is_ascii_alphanumeric() || c == b'_' || c == b'-',
            Of::Dotted => c.is_ascii_alphanumeric() || b"_-.".contains(&c),
            Of::Upper => c.is_ascii_uppercase() || c.is_ascii_digit(),
            Of::Hex => c.is_ascii_digit() || (b'a'..=b'f').contains(&c),
            Of::Base64 => c.is_ascii_alphanumeric() || b"+/=".contains(&c),
        }
    }
}

/// A token of this kind at the beginning of the window.
pub(super) fn look(token: &Token, window: &Window<'_>) -> Option<Found> {
    let body = window.rest.strip_prefix(token.prefix)?;
    let count = body.iter().take(token.most + 1).take_while(|c| token.of.fits(**c)).count();
    let Token { least, most, rule, issuer, .. } = token;
    let next = body.get(count).copied();
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let apart = !window.before.last().is_some_and(|c| word(*c) || b"/+-".contains(c))
        && !next.is_some_and(|c| word(c) || (count == *most && token.of.fits(c)));
    let body = &body[..count];
    // `EXAMPLE`: as Amazon's manuals have it.
    let example = body.windows(7).any(|part| part.eq_ignore_ascii_case(b"example"));
    // A run of words joined by dashes is a name, not a token.
    let digits = body.iter().any(u8::is_ascii_digit);
    let fits = (*least..=*most).contains(&count) && apart && digits && !example;
    (fits && distinct(body) >= 9).then(|| Found {
        rule,
        note: Some((*issuer).to_owned()),
        evidence: window.rest[..token.prefix.len() + count].to_vec(),
    })
}

/// `aws_secret_access_key = …`, in any of its spellings: 40 letters of base64.
pub(super) fn aws_secret(window: &Window<'_>) -> Option<Found> {
    let name = window.rest.iter().take(24).take_while(|c| c.is_ascii_alphabetic() || **c == b'_');
    let rest = &window.rest[name.count()..];
    let skip = rest.iter().take(8).take_while(|c| b"\"': =\t".contains(c)).count();
    let value = rest.get(skip..skip + 40).filter(|_| skip > 0)?;
    let more = rest.get(skip + 40).is_some_and(|c| Of::Base64.fits(*c));
    let whole = value.iter().all(|c| Of::Base64.fits(*c)) && !more && distinct(value) >= 16;
    let example = value.windows(7).any(|part| part == b"EXAMPLE");
    let note = Some("secret key".to_owned());
    (whole && !example).then(|| Found { rule: &AWS_KEY, note, evidence: value.to_vec() })
}

/// Azure's client secrets: three letters, `8Q~`, and 34 more.
pub(super) fn azure_client(window: &Window<'_>) -> Option<Found> {
    let fits = |c: &u8| c.is_ascii_alphanumeric() || b"_~.-".contains(c);
    let before = window.before.len().checked_sub(3).map(|at| &window.before[at..])?;
    let body = window.rest.get(3..37)?;
    let more = window.rest.get(37).is_some_and(fits);
    let whole = before.iter().chain(body).all(fits) && !more && distinct(body) >= 12;
    let note = Some("client secret".to_owned());
    whole.then(|| Found { rule: &AZURE_KEY, note, evidence: [before, b"8Q~", body].concat() })
}

/// `hooks.slack.com/services/T…/B…/…`: who knows the address may write.
pub(super) fn slack_hook(window: &Window<'_>) -> Option<Found> {
    let path = window.rest.strip_prefix(b"hooks.slack.com/services/")?;
    let end = path.iter().take(120).take_while(|c| Of::Alnum.fits(**c) || **c == b'/').count();
    let path = &path[..end];
    let mut parts = path.split(|c| *c == b'/');
    let [Some([b'T', ..]), Some([b'B', ..]), Some(key), None] =
        [parts.next(), parts.next(), parts.next(), parts.next()]
    else {
        return None;
    };
    let note = Some("Slack webhook".to_owned());
    (key.len() >= 20 && distinct(key) >= 9).then(|| Found {
        rule: &TOKEN,
        note,
        evidence: path.to_vec(),
    })
}

/// A signed JSON Web Token (RFC 7519), outside of /usr.
pub(super) fn jwt(window: &Window<'_>) -> Option<Found> {
    if window.path.starts_with(b"usr/") && !window.path.starts_with(b"usr/local/") {
        return None;
    }
    let end = window.rest.iter().take_while(|c| Of::Dotted.fits(**c)).count();
    let whole = &window.rest[..end];
    let mut parts = whole.split(|c| *c == b'.');
    let [Some(_), Some(claims), Some(signature), None] =
        [parts.next(), parts.next(), parts.next(), parts.next()]
    else {
        return None;
    };
    let note = Some("JWT".to_owned());
    (claims.starts_with(b"eyJ") && signature.len() >= 43 && distinct(signature) >= 16)
        .then(|| Found { rule: &TOKEN, note, evidence: whole.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Option<&'static str> {
        TOKENS.iter().find_map(|token| {
            let prefix = std::str::from_utf8(token.prefix).unwrap();
            let at = text.find(prefix)?;
            let (before, rest) = text.as_bytes().split_at(at);
            look(token, &Window { path: b"", before, rest }).map(|found| found.rule.id)
        })
    }

    #[test]
    fn tokens_of_their_issuers() {
        // Put together here, so that nobody's scanner takes this file for a leak.
        let join = |prefix: &str, body: &str| format!("x = \"{prefix}{body}\"\n");
        let body = "q7Xb2LmZ9RtYcV4nPwK8sDfGhJ3aE5uT6iOoQxZ1";
        assert_eq!(id(&join("AKIA", "Q3EGRPQ5XUA2IB7Z")), Some("aws-key"));
        assert_eq!(id(&join("ghp_", &body[..36])), Some("token"));
        assert_eq!(id(&join("glpat-", &body[..20])), Some("token"));
        assert_eq!(id(&join("xoxb-", "2345678901-2345678901-AbCdEfGhIjKlMnOp")), Some("token"));
        assert_eq!(id(&join("hvs.", body)), Some("token"));
        for none in [
            join("AKIA", "IOSFODNN7EXAMPLE"),
            join("AKIA", "Q3EGRPQ5XUA2IB7ZZ"),
            join("ghp_", &"x".repeat(36)),
            join("ghp_", &body[..35]),
            join("npm_", &body[..37]),
            format!("lib{}", join("ghp_", &body[..36]).replace("x = \"", "a")),
            join("glsa_", "some_ordinary_name_of_a_function_in_a_lib"),
        ] {
            assert_eq!(id(&none), None, "{none}");
        }
    }

    #[test]
    fn secrets_that_stand_beside_their_names() {
        let window = |text: &'static str, at: usize| {
            let (before, rest) = text.as_bytes().split_at(at);
            Window { path: b"root/x", before, rest }
        };
        let text = "aws_secret_access_key = q7Xb2LmZ9RtYcV4nPwK8sDfGhJ3aE5uT6iOoQxZ1\n";
        assert!(aws_secret(&window(text, 0)).is_some());
        assert!(aws_secret(&window("SecretAccessKey: %s", 0)).is_none());
        assert!(azure_client(&window("a1b8Q~q7Xb2LmZ9RtYcV4nPwK8sDfGhJ3aE5uT6i", 3)).is_some());
        assert!(azure_client(&window("8Q~", 0)).is_none());
        let hook = "hooks.slack.com/services/T0ABCDEF1/B0ABCDEF2/q7Xb2LmZ9RtYcV4nPwK8sDfG";
        assert!(slack_hook(&window(hook, 0)).is_some());
        let jwt_text = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrIn0.q7Xb2LmZ9RtYcV4nPwK8sDfGhJ3aE5uT6iOoQxZ1q7Xb2LmZ9R";
        assert!(jwt(&window(jwt_text, 0)).is_some());
        let system = Window { path: b"usr/lib/x", before: b"", rest: jwt_text.as_bytes() };
        assert!(jwt(&system).is_none());
    }
}

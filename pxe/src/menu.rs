//! The menu of a machine's console: what the site offers, and what a person typed. A name from the
//! list, then arguments as `key=value`: `db id=100`. Whatever is typed, nothing is chosen by it that
//! the site does not offer.

use std::sync::Arc;

/// Characters of an answer: iPXE's line editor takes 1,023, the kernel's command line 2,047.
pub const WORDS_MAX: usize = 512;
/// Arguments of an answer.
const ARGS_MAX: usize = 32;

/// A role on the menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Its name.
    pub role: String,
    /// Why it cannot be booted now, if it cannot.
    pub trouble: Option<String>,
}

/// What one machine is offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Menu {
    /// Its own seat and that seat's role: what it becomes if nobody chooses.
    pub seat: Option<(String, String)>,
    /// Roles it may become instead, without the seat's name or address.
    pub roles: Arc<Vec<Offered>>,
}

/// What somebody chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What the machine becomes.
    pub becomes: Becomes,
    /// Arguments for its kernel's command line.
    pub args: Vec<(String, String)>,
}

/// What a machine becomes by a choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Becomes {
    /// What the matrix says, with other arguments.
    Seat,
    /// This role, as a guest: an address of the pool, a name made from its MAC.
    Role(String),
}

impl Menu {
    /// The lines of the menu.
    pub fn lines(&self) -> Vec<String> {
        let seat = self.seat.iter().map(|(seat, role)| format!("{seat} (its seat, role {role})"));
        let roles = self.roles.iter().map(|offered| match &offered.trouble {
            None => offered.role.clone(),
            Some(why) => format!("{} (not now: {why})", offered.role),
        });
        seat.chain(roles).collect()
    }

    /// Understands an answer, or says why it is none.
    pub fn understand(&self, words: &str) -> Result<Choice, String> {
        if words.len() > WORDS_MAX {
            let long = words.len();
            return Err(format!("{long} characters are too many; {WORDS_MAX} are read"));
        }
        if let Some(odd) = words.chars().find(|c| !matches!(c, ' '..='~' | '\t')) {
            return Err(format!(
                "{:?} cannot be part of an answer",
                odd.escape_default().to_string()
            ));
        }
        let mut words = words.split_whitespace();
        let becomes = match (words.next(), &self.seat) {
            (None, Some(_)) => Becomes::Seat,
            (None, None) => return Err(format!("nothing was typed; there is {}", self.names())),
            (Some(word), Some((seat, _))) if word == seat => Becomes::Seat,
            (Some(word), _) => self.role(word)?,
        };
        let mut args: Vec<(String, String)> = Vec::new();
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                return Err(format!("{word:?} is not understood: arguments are key=value"));
            };
            if !is_argument(key) {
                return Err(format!(
                    "{key:?} is not a name for an argument: letters, digits, '.', '_' and '-', and not koboshi's own"
                ));
            }
            if not_for_ipxe(value).is_some() || !fits_cmdline(value) {
                return Err(format!("{value:?} cannot stand on a kernel command line"));
            }
            if args.iter().any(|(other, _)| other == key) {
                return Err(format!("{key} is given twice"));
            }
            args.push((key.to_string(), value.to_string()));
        }
        match args.len() {
            0..=ARGS_MAX => Ok(Choice { becomes, args }),
            many => Err(format!("{many} arguments are too many; {ARGS_MAX} are read")),
        }
    }

    fn role(&self, word: &str) -> Result<Becomes, String> {
        match self.roles.iter().find(|offered| offered.role == word) {
            Some(Offered { trouble: None, role }) => Ok(Becomes::Role(role.clone())),
            Some(Offered { trouble: Some(why), role }) => {
                Err(format!("{role} cannot be booted now: {why}"))
            }
            None => {
                let word: String = word.chars().take(40).collect();
                Err(format!("no {word:?} here; there is {}", self.names()))
            }
        }
    }

    fn names(&self) -> String {
        let seat = self.seat.iter().map(|(seat, _)| seat.as_str());
        let roles = self.roles.iter().map(|offered| offered.role.as_str());
        let names: Vec<&str> = seat.chain(roles).collect();
        if names.is_empty() { "nothing".to_string() } else { names.join(", ") }
    }
}

impl Choice {
    /// `role db, id=100`
    pub fn says(&self) -> String {
        let becomes = match &self.becomes {
            Becomes::Seat => "its seat".to_string(),
            Becomes::Role(role) => format!("role {role}"),
        };
        let args = self.args.iter().map(|(key, value)| format!(", {key}={value}"));
        std::iter::once(becomes).chain(args).collect()
    }
}

/// Whether an argument may be called so.
pub fn is_argument(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && !name.starts_with("koboshi.") && name.chars().all(fits)
}

/// A word of the kernel command line that the loader's script would act upon.
pub fn not_for_ipxe(text: &str) -> Option<&str> {
    text.split_whitespace().find(|word| {
        matches!(*word, ";" | "||" | "&&") || word.starts_with('#') || word.contains("${")
    })
}

/// Whether a value can stand on a kernel command line, which knows quotes but no way to escape one.
pub fn fits_cmdline(value: &str) -> bool {
    !value.chars().any(|c| c == '"' || c.is_control())
}

/// `%20` in a query, as iPXE's `:uristring` writes it; `+` is a plus. Bytes that are no text become
/// something that no answer can hold.
pub fn decode(query: &str) -> String {
    let mut bytes = Vec::with_capacity(query.len());
    let mut rest = query.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let mut digit = || (ahead.next()? as char).to_digit(16);
        match (byte == b'%').then(|| Some(digit()? * 16 + digit()?)).flatten() {
            Some(value) => {
                bytes.push(value as u8);
                rest = ahead;
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn menu(seat: Option<&str>) -> Menu {
        let offered = |role: &str, trouble: Option<&str>| Offered {
            role: role.into(),
            trouble: trouble.map(str::to_string),
        };
        let roles = vec![offered("db", None), offered("old", Some("its image is missing"))];
        Menu { seat: seat.map(|seat| (seat.into(), "web".into())), roles: Arc::new(roles) }
    }

    #[test]
    fn answers_are_understood() {
        for (words, seat, said) in [
            ("db id=100", None, "role db, id=100"),
            ("  db\tid=100 x.y-z=  ", None, "role db, id=100, x.y-z="),
            ("db a=b=c", None, "role db, a=b=c"),
            ("", Some("web1"), "its seat"),
            ("web1 id=2", Some("web1"), "its seat, id=2"),
            ("db", Some("web1"), "role db"),
        ] {
            assert_eq!(menu(seat).understand(words).unwrap().says(), said, "{words}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused_in_words() {
        let many: String = (0..33).map(|n| format!(" k{n}=1")).collect();
        for (words, seat, why) in [
            ("", None, "nothing was typed; there is db, old"),
            ("web1", None, "no \"web1\" here; there is db, old"),
            ("web", Some("web1"), "no \"web\" here; there is web1, db, old"),
            ("old", None, "old cannot be booted now: its image is missing"),
            ("db quiet", None, "\"quiet\" is not understood: arguments are key=value"),
            ("db koboshi.root=sha256:00", None, "\"koboshi.root\" is not a name for an argument"),
            ("db =1", None, "\"\" is not a name for an argument"),
            ("db a=\"b", None, "cannot stand on a kernel command line"),
            ("db a=${net0/ip}", None, "cannot stand on a kernel command line"),
            ("db a=#", None, "cannot stand on a kernel command line"),
            ("db a=1 a=2", None, "a is given twice"),
            ("db\u{1b}[2J", None, "\"\\\\u{1b}\" cannot be part of an answer"),
            ("db é=1", None, "cannot be part of an answer"),
            (&format!("db{many}"), None, "33 arguments are too many"),
            (&"x".repeat(10_000), None, "10000 characters are too many; 512 are read"),
        ] {
            let said = menu(seat).understand(words).expect_err(words);
            assert!(said.contains(why), "{said} should have {why}");
            assert!(said.len() < 1000 && !said.chars().any(char::is_control), "{said}");
        }
    }

    #[test]
    fn a_query_is_decoded_as_ipxe_encodes() {
        for (query, text) in [
            ("db%20id%3D100", "db id=100"),
            ("a+b", "a+b"),
            ("%", "%"),
            ("%2", "%2"),
            ("%zz%41", "%zzA"),
            ("%1b[2J", "\u{1b}[2J"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(decode(query), text, "{query}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_an_answer_or_an_error(query in ".{0,700}") {
            let menu = menu(Some("web1"));
            match menu.understand(&decode(&query)) {
                Ok(choice) => for (key, value) in &choice.args {
                    prop_assert!(is_argument(key) && fits_cmdline(value));
                    prop_assert!(!value.contains(char::is_whitespace));
                },
                Err(why) => prop_assert!(why.len() < 2000 && !why.chars().any(char::is_control)),
            }
        }
    }
}

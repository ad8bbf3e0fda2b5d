//! Names of machines, seats, roles. A machine's and a seat's name becomes a host name, a seat's and a
//! role's goes onto a kernel command line: what is not safe there is refused here, once.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A value that is not what it should be, and what it should be like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Malformed {
    /// What is wrong, naming the value.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Malformed {
    pub(super) fn new(message: impl Into<String>) -> Malformed {
        Malformed { message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Malformed {
        self.help = Some(help.into());
        self
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Malformed;
            fn from_str(text: &str) -> Result<$name, Malformed> {
                $check(text, $what)?;
                Ok($name(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Malformed;
            fn try_from(text: String) -> Result<$name, Malformed> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.to_string()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name!(
    /// A piece of hardware.
    MachineName, "machine", host_name
);
name!(
    /// A service identity.
    SeatName, "seat", seat_name
);
name!(
    /// What a seat runs.
    RoleName, "role", role_name
);
name!(
    /// What machines of one model share.
    ClassName, "class", free_name
);
name!(
    /// A further network.
    NetworkName, "network", host_name
);
name!(
    /// Some machines by one name.
    GroupName, "group", group_name
);

/// RFC 1123 section 2.1, lower case, one label.
fn host_name(text: &str, what: &str) -> Result<(), Malformed> {
    let shown: String = text.chars().take(70).collect();
    if text.is_empty() {
        return Err(Malformed::new(format!("a {what}'s name is empty")));
    }
    if text.len() > 63 {
        return Err(Malformed::new(format!("{shown:?} is too long for a {what}'s name"))
            .help("a name has at most 63 letters"));
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        let mended: String = text
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
            .collect();
        let mended = mended.trim_matches('-');
        let also = if mended.is_empty() { String::new() } else { format!(", like {mended:?}") };
        return Err(Malformed::new(format!("{shown:?} is not a name for a {what}"))
            .help(format!("a name has only a-z, 0-9 and -{also}")));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(Malformed::new(format!("{shown:?} is not a name for a {what}"))
            .help("a name neither begins nor ends with -"));
    }
    Ok(())
}

fn seat_name(text: &str, what: &str) -> Result<(), Malformed> {
    if text == "spare" {
        return Err(Malformed::new("no seat can be called \"spare\"")
            .help("in the matrix, \"spare\" is a machine that is free to take over any seat"));
    }
    host_name(text, what)
}

fn role_name(text: &str, what: &str) -> Result<(), Malformed> {
    if ["ignore", "discover", "menu"].contains(&text) {
        return Err(Malformed::new(format!("no role can be called {text:?}"))
            .help(format!("`unknown = {text:?}` means something else in [net]")));
    }
    group_name(text, what)
}

fn group_name(text: &str, what: &str) -> Result<(), Malformed> {
    if text == "all" {
        return Err(Malformed::new(format!("no {what} can be called \"all\""))
            .help("@all is every machine there is"));
    }
    host_name(text, what)
}

/// Classes are called after models: `PowerEdge_R640`.
fn free_name(text: &str, what: &str) -> Result<(), Malformed> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if text.is_empty() || text.len() > 63 || !text.bytes().all(fits) {
        let shown: String = text.chars().take(70).collect();
        return Err(Malformed::new(format!("{shown:?} is not a name for a {what}"))
            .help("1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-'"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_as_a_host_name() {
        for good in ["m01", "a", "web-1", "0", &"x".repeat(63)] {
            assert!(good.parse::<MachineName>().is_ok(), "{good}");
        }
        for bad in ["", "M01", "m_1", "m.1", "-m", "m-", "m 1", "ü", "m\u{0}", &"x".repeat(64)] {
            assert!(bad.parse::<MachineName>().is_err(), "{bad}");
        }
        let bad = "Web_01".parse::<SeatName>().unwrap_err();
        assert_eq!(bad.message, "\"Web_01\" is not a name for a seat");
        assert_eq!(bad.help.as_deref(), Some("a name has only a-z, 0-9 and -, like \"web-01\""));
    }

    #[test]
    fn words_with_a_meaning_are_no_names() {
        assert!("spare".parse::<SeatName>().is_err());
        assert!("discover".parse::<RoleName>().is_err());
        assert!("all".parse::<GroupName>().is_err());
        assert!("PowerEdge_R640.v2".parse::<ClassName>().is_ok());
    }
}

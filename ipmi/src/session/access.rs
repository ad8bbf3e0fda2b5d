//! Where a BMC is, who we are to it, and how far we go with it: all that an operator may say of it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::crypto::{Kg, Password, Suite};
use crate::error::Error;
use crate::quirks::Quirks;
use crate::wire::rmcp;
use crate::wire::v15::Auth;

/// How a BMC is reached.
#[derive(Debug, Clone)]
pub struct Access {
    /// Its address, or a name that resolves to it.
    pub host: String,
    /// 623 but for simulators and forwarded ports.
    pub port: u16,
    /// The account, at most 16 bytes; empty is the null user.
    pub user: String,
    /// Of the account.
    pub password: Password,
    /// The BMC's own key, where one is set.
    pub kg: Option<Kg>,
    /// How packets are proved and hidden.
    pub cipher: Cipher,
    /// Which of the two protocols.
    pub version: Version,
    /// What is asked for; a BMC that refuses it is asked for less.
    pub privilege: Privilege,
    /// What its firmware is known to do otherwise.
    pub quirks: Quirks,
    /// How long it is waited for.
    pub patience: Patience,
    /// How many commands may be on the way at once: two, as OpenIPMI's library has it; many firmwares drop
    /// more. [`Quirk::OneAtATime`](crate::quirks::Quirk::OneAtATime) makes it one.
    pub at_once: usize,
}

impl Access {
    /// With everything else as it usually is.
    pub fn new(host: impl Into<String>, user: impl Into<String>, password: Password) -> Access {
        Access {
            host: host.into(),
            port: rmcp::PORT,
            user: user.into(),
            password,
            kg: None,
            cipher: Cipher::Auto,
            version: Version::Auto,
            privilege: Privilege::Admin,
            quirks: Quirks::NONE,
            patience: Patience::default(),
            at_once: 2,
        }
    }

    /// Whether it makes sense, before anything is sent.
    ///
    /// # Errors
    /// [`Error::Invalid`]: a name of more than 16 bytes, a cipher suite that is not known, one of IPMI 2.0
    /// asked of IPMI 1.5.
    pub fn check(&self) -> Result<(), Error> {
        if self.user.len() > 16 {
            return Err(Error::Invalid(format!(
                "the account {} has a name of more than 16 bytes, which IPMI does not know",
                self.user
            )));
        }
        match (self.cipher, self.version) {
            (Cipher::Suite(id), _) if Suite::by_id(id).is_none() => Err(Error::Invalid(format!(
                "cipher suite {id} is not one of 0, 1, 2, 3, 15, 16 and 17"
            ))),
            (Cipher::Suite(id), Version::V15) => Err(Error::Invalid(format!(
                "cipher suite {id} is one of IPMI 2.0, and IPMI 1.5 is asked for"
            ))),
            (Cipher::Legacy(_), Version::V20) => {
                Err(Error::Invalid("IPMI 2.0 knows cipher suites by number".to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// How packets are proved and hidden: as a site writes it, `auto`, a number, or what IPMI 1.5 knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cipher {
    /// 17, then 3; under IPMI 1.5, MD5.
    #[default]
    Auto,
    /// This cipher suite and no other.
    Suite(u8),
    /// IPMI 1.5 with this.
    Legacy(Auth),
}

impl FromStr for Cipher {
    type Err = Error;

    fn from_str(word: &str) -> Result<Cipher, Error> {
        let known = |id: &u8| Suite::by_id(*id).is_some();
        Ok(match word {
            "auto" => Cipher::Auto,
            "none" => Cipher::Legacy(Auth::None),
            "md5" => Cipher::Legacy(Auth::Md5),
            "password" => Cipher::Legacy(Auth::Password),
            _ => Cipher::Suite(word.parse().ok().filter(known).ok_or_else(|| {
                Error::Invalid(format!(
                    "\"{word}\" is no cipher: auto, one of 0, 1, 2, 3, 15, 16 and 17, or md5, password and none of IPMI 1.5"
                ))
            })?),
        })
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cipher::Auto => f.write_str("auto"),
            Cipher::Suite(id) => write!(f, "{id}"),
            Cipher::Legacy(Auth::None) => f.write_str("none"),
            Cipher::Legacy(Auth::Md5) => f.write_str("md5"),
            Cipher::Legacy(Auth::Password) => f.write_str("password"),
        }
    }
}

/// Which of the two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Version {
    /// 2.0; 1.5 only where the BMC says that it has nothing else.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// IPMI 1.5.
    #[serde(rename = "1.5")]
    V15,
    /// IPMI 2.0.
    #[serde(rename = "2.0")]
    V20,
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(word: &str) -> Result<Version, Error> {
        match word {
            "auto" => Ok(Version::Auto),
            "1.5" => Ok(Version::V15),
            "2.0" => Ok(Version::V20),
            _ => Err(Error::Invalid(format!("\"{word}\" is no version: auto, 1.5 or 2.0"))),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::Auto => "auto",
            Version::V15 => "1.5",
            Version::V20 => "2.0",
        })
    }
}

/// What a session may do (§6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privilege {
    /// Read.
    User,
    /// Power, boot device, Serial over LAN on many boards.
    Operator,
    /// Everything.
    #[default]
    Admin,
}

impl Privilege {
    /// Its number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Privilege::User => 2,
            Privilege::Operator => 3,
            Privilege::Admin => 4,
        }
    }

    /// The next one down.
    pub fn less(self) -> Option<Privilege> {
        match self {
            Privilege::Admin => Some(Privilege::Operator),
            Privilege::Operator => Some(Privilege::User),
            Privilege::User => None,
        }
    }
}

impl FromStr for Privilege {
    type Err = Error;

    fn from_str(word: &str) -> Result<Privilege, Error> {
        match word {
            "user" => Ok(Privilege::User),
            "operator" => Ok(Privilege::Operator),
            "admin" => Ok(Privilege::Admin),
            _ => {
                Err(Error::Invalid(format!("\"{word}\" is no privilege: user, operator or admin")))
            }
        }
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Privilege::User => "user",
            Privilege::Operator => "operator",
            Privilege::Admin => "admin",
        })
    }
}

/// How long a BMC is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a session to open, and for one command's answer, all retries included.
    pub total: Duration,
    /// Until something is sent again for the first time; the next waits are twice as long each, up to four
    /// times this.
    pub first: Duration,
    /// Nothing was heard for so long in mid-session, though asked: the session is taken for lost, and a new
    /// one opened.
    pub suspect: Duration,
    /// A session that nobody needs is closed after this.
    pub linger: Duration,
    /// A session that somebody needs is kept alive so often. BMCs end sessions after 60 s, give or take 3
    /// (§6.12.15).
    pub keep_alive: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            total: Duration::from_secs(15),
            first: Duration::from_millis(500),
            suspect: Duration::from_secs(5),
            linger: Duration::from_secs(5),
            keep_alive: Duration::from_secs(20),
        }
    }
}

impl Patience {
    /// The wait after so many tries.
    pub(crate) fn wait(&self, tries: u32) -> Duration {
        self.first * (1 << tries.min(2))
    }
}

/// What was found out about a BMC, and holds for its next session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Learned {
    /// 1.5: it says that it has nothing else.
    pub version: Version,
    /// The cipher suite that was agreed on when nobody asked for one by number. Nothing weaker is taken
    /// afterwards.
    pub suite: Option<u8>,
    /// What it needs beyond the site file.
    pub quirks: Quirks,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_there_and_back() {
        for word in ["auto", "3", "17", "0", "md5", "none", "password"] {
            assert_eq!(word.parse::<Cipher>().unwrap().to_string(), word);
        }
        for word in ["4", "sha1", "", "256"] {
            assert!(word.parse::<Cipher>().is_err(), "{word}");
        }
        for word in ["auto", "1.5", "2.0"] {
            assert_eq!(word.parse::<Version>().unwrap().to_string(), word);
        }
        for word in ["user", "operator", "admin"] {
            assert_eq!(word.parse::<Privilege>().unwrap().to_string(), word);
        }
    }

    #[test]
    fn nonsense_is_told_before_anything_is_sent() {
        let mut access = Access::new("h", "admin", Password::new("x").unwrap());
        assert_eq!(access.check(), Ok(()));
        access.cipher = Cipher::Suite(17);
        access.version = Version::V15;
        assert!(access.check().is_err());
        access.version = Version::V20;
        assert_eq!(access.check(), Ok(()));
        access.cipher = Cipher::Legacy(Auth::Md5);
        assert!(access.check().is_err());
        access.version = Version::Auto;
        access.user = "a-name-of-17-byte".to_string();
        assert!(access.check().is_err());
    }
}

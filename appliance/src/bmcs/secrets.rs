//! Passwords and keys of BMCs: read when they are needed, from a file, the environment or a terminal. They
//! are never an argument, never logged, and wiped when dropped.

use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use koboshi_ipmi::{Kg, Password};
use zeroize::Zeroizing;

use crate::site::Secret;

/// Bytes of a file that is said to hold a secret.
const FILE_MAX: u64 = 4096;

/// Why there is no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSecret {
    /// The file cannot be read.
    #[error("{file}: {why}")]
    File {
        /// Which.
        file: String,
        /// The system's word.
        why: String,
    },
    /// There is no such variable in our environment.
    #[error("the variable {0} is not set")]
    Env(String),
    /// It does not fit.
    #[error("{0}")]
    Unfit(String),
}

/// A password from where the site says it is kept.
pub fn password(kept: &Secret) -> Result<Password, NoSecret> {
    let text = match kept {
        Secret::File(path) => file(path)?,
        Secret::Env(name) => {
            Zeroizing::new(std::env::var(name).map_err(|_| NoSecret::Env(name.clone()))?)
        }
    };
    Password::new(&text).map_err(|error| NoSecret::Unfit(error.to_string()))
}

/// A BMC's own key: as text, or as `0x` and hexadecimal digits.
pub fn kg(path: &Path) -> Result<Kg, NoSecret> {
    let text = file(path)?;
    let unfit = |why: String| NoSecret::Unfit(format!("{}: {why}", path.display()));
    let bytes = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        None => Zeroizing::new(text.as_bytes().to_vec()),
        Some(digits) => {
            let pair = |at: usize| {
                let pair = digits.get(at..at + 2)?;
                u8::from_str_radix(pair, 16).ok()
            };
            let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(pair).collect();
            Zeroizing::new(bytes.ok_or_else(|| unfit("not hexadecimal".to_string()))?)
        }
    };
    Kg::new(&bytes).map_err(|error| unfit(error.to_string()))
}

/// The first line of a file.
pub fn file(path: &Path) -> Result<Zeroizing<String>, NoSecret> {
    let no = |why: std::io::Error| NoSecret::File {
        file: path.display().to_string(),
        why: why.to_string(),
    };
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(no)?;
    file.take(FILE_MAX).read_to_string(&mut text).map_err(no)?;
    let line = text.split('\n').next().unwrap_or_default();
    Ok(Zeroizing::new(line.strip_suffix('\r').unwrap_or(line).to_string()))
}

/// What is careless about a file that holds a secret.
pub fn careless(path: &Path) -> Option<&'static str> {
    let mode = std::fs::metadata(path).ok()?.mode();
    match mode {
        _ if mode & 0o004 != 0 => Some("everybody on this host may read it"),
        _ if mode & 0o022 != 0 => Some("others than its owner may change it"),
        _ => None,
    }
}

/// Asks whoever sits at the terminal. `None`: nobody does.
pub fn ask(prompt: &str) -> std::io::Result<Option<Zeroizing<String>>> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    eprint!("{prompt}: ");
    std::io::stderr().flush()?;
    let before = tcgetattr(&stdin)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let mut line = Zeroizing::new(String::new());
    let read = stdin.read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &before)?;
    eprintln!();
    read?;
    let typed = line.trim_end_matches(['\r', '\n']);
    Ok(Some(Zeroizing::new(typed.to_string())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_are_the_first_line_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bmc.pw");
        for (text, line) in
            [("s3cret\n", "s3cret"), ("s3cret\r\nmore", "s3cret"), ("a b", "a b"), ("", "")]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(file(&path).unwrap().as_str(), line);
        }
        std::fs::write(&path, "x".repeat(21)).unwrap();
        let no = password(&Secret::File(path)).unwrap_err();
        assert!(no.to_string().contains("at most 20"), "{no}");
        assert!(!no.to_string().contains("xxx"));
        let no = password(&Secret::File(dir.path().join("none"))).unwrap_err();
        assert!(no.to_string().contains("none: No such file"), "{no}");
        let no = password(&Secret::Env("KOBOSHI_NOT_SET".into())).unwrap_err();
        assert_eq!(no.to_string(), "the variable KOBOSHI_NOT_SET is not set");
    }

    #[test]
    fn keys_are_text_or_hexadecimal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kg");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            kg(&path)
        };
        assert!(read("twenty bytes at most").is_ok());
        assert!(read("0x00112233445566778899aabbccddeeff00112233\n").is_ok());
        for bad in ["0x0", "0xzz", "0x00112233445566778899aabbccddeeff0011223344", "0xé0"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_that_others_read_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bmc.pw");
        std::fs::write(&path, "s3cret").unwrap();
        for (mode, careless_there) in [(0o600, false), (0o640, false), (0o644, true), (0o660, true)]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(careless(&path).is_some(), careless_there, "{mode:o}");
        }
    }
}

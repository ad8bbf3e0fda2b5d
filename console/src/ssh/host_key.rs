//! The key by which people know that they talk to us: made once, kept for ever.
//!
//! It lies beside its public half, as `ssh-keygen` writes them: `ssh-keygen -lf host_ed25519.pub` shows the same
//! fingerprint.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{HashAlg, PrivateKey};

const NAME: &str = "host_ed25519";

/// The key and what people compare.
pub struct HostKey {
    pub(super) private: PrivateKey,
    /// `SHA256:…`, as OpenSSH asks about it.
    pub fingerprint: String,
    /// `ssh-ed25519 AAAA…`, as it stands in `known_hosts`.
    pub public: String,
}

impl HostKey {
    /// The one that is in this folder. Where there is none it is made, and the folder too.
    ///
    /// # Errors
    /// It cannot be read or written, or others can read it.
    pub fn at(folder: &Path) -> io::Result<HostKey> {
        let path = folder.join(NAME);
        let private = match fs::read(&path) {
            Ok(text) => {
                if fs::metadata(&path)?.mode() & 0o077 != 0 {
                    return Err(io::Error::other(format!(
                        "others may have read {}: remove it, and a new one is made (or `chmod 600` it, if nobody did)",
                        path.display()
                    )));
                }
                let wrong = |why| io::Error::other(format!("{}: {why}", path.display()));
                PrivateKey::from_openssh(text).map_err(wrong)?
            }
            Err(why) if why.kind() == ErrorKind::NotFound => make(folder, &path)?,
            Err(why) => {
                return Err(io::Error::new(why.kind(), format!("{}: {why}", path.display())));
            }
        };
        let public = private.public_key();
        let fingerprint = public.fingerprint(HashAlg::Sha256).to_string();
        let public = public.to_openssh().map_err(io::Error::other)?;
        Ok(HostKey { private, fingerprint, public })
    }
}

fn make(folder: &Path, path: &Path) -> io::Result<PrivateKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    let private = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    let text = private.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    let public = private.public_key().to_openssh().map_err(io::Error::other)?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    write(&path.with_extension("pub"), 0o644, format!("{public}\n").as_bytes())?;
    write(path, 0o600, text.as_bytes())?;
    Ok(private)
}

/// Whole or not at all: a key that was cut off by a power failure would be nobody's.
fn write(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_added_extension("new");
    if let Err(why) = fs::remove_file(&new)
        && why.kind() != ErrorKind::NotFound
    {
        return Err(why);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_and_nobody_else_reads_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = dir.path().join("ssh");
        let key = HostKey::at(&folder).unwrap();
        let again = HostKey::at(&folder).unwrap();
        assert_eq!((&key.fingerprint, &key.public), (&again.fingerprint, &again.public));
        assert!(key.public.starts_with("ssh-ed25519 AAAA"));
        let file = folder.join(NAME);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
        let public = fs::read_to_string(folder.join("host_ed25519.pub")).unwrap();
        assert_eq!(public.trim_end(), key.public);

        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let why = HostKey::at(&folder).err().unwrap().to_string();
        assert!(why.contains("chmod 600"), "{why}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        assert!(HostKey::at(&folder).is_err(), "a key that is broken is not replaced in silence");
    }
}

//! A BMC's records on disk: one file a BMC, written whole and renamed into place, of use only as long as the
//! controller is the same and says that its repository did not change (IPMI §33.9's times). A file that
//! cannot be read is as good as none.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tracing::debug;

use super::{Cache, Info, Records};

/// What must be the same for records to be still true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Get Device ID's answer: a new firmware brings new records, on some without new times.
    pub device: Vec<u8>,
    /// What the controller says of its own sensors, where it has no repository.
    pub population: Vec<u8>,
    /// The machine's GUID, or nothing.
    pub guid: Vec<u8>,
    /// What the repository says of itself.
    pub info: Option<Info>,
}

const MAGIC: &[u8] = b"koboshi-sdr 1\n";

impl Key {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        part(&mut out, &self.device);
        part(&mut out, &self.population);
        part(&mut out, &self.guid);
        if let Some(info) = self.info {
            part(&mut out, &info.count.to_le_bytes());
            part(&mut out, &info.added.to_le_bytes());
            part(&mut out, &info.erased.to_le_bytes());
        }
        Sha256::digest(out).to_vec()
    }
}

fn part(out: &mut Vec<u8>, bytes: &[u8]) {
    // Records have at most 260 bytes, answers less.
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend(length.to_le_bytes());
    out.extend(bytes.iter().take(usize::from(length)));
}

/// The records, if the file is of this key.
pub async fn read(cache: Cache, key: Key) -> Option<Records> {
    let read = tokio::task::spawn_blocking(move || {
        let bytes = fs::read(path(&cache)).ok()?;
        let records = decode(&bytes, &key);
        if records.is_none() {
            debug!(
                name = cache.name,
                "its sensor records are another's, old or damaged: read anew"
            );
        }
        records
    });
    read.await.ok().flatten()
}

/// Keeps them. What goes wrong costs the time that the cache would have saved, and nothing else.
pub async fn write(cache: Cache, key: Key, records: Records) {
    let written = tokio::task::spawn_blocking(move || {
        fs::create_dir_all(&cache.directory)?;
        let path = path(&cache);
        replace(&path, &encode(&key, &records))
    });
    if let Ok(Err(error)) = written.await {
        debug!(%error, "sensor records are not kept");
    }
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut number = [0; 4];
    getrandom::fill(&mut number).map_err(std::io::Error::other)?;
    let new = path.with_extension(format!("new{:08x}", u32::from_le_bytes(number)));
    let written = fs::File::create_new(&new)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _gone_already_or_no_matter = fs::remove_file(&new);
    }
    written
}

/// `10.0.0.1:623` becomes `10.0.0.1_3a623.sdr`: nothing in a name leads out of the directory.
fn path(cache: &Cache) -> PathBuf {
    let name: String = cache
        .name
        .bytes()
        .enumerate()
        .map(|(at, byte)| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
            b'.' if at != 0 => ".".to_owned(),
            byte => format!("_{byte:02x}"),
        })
        .collect();
    cache.directory.join(format!("{name}.sdr"))
}

fn encode(key: &Key, records: &Records) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    part(&mut out, &key.encode());
    for record in &records.records {
        part(&mut out, record);
    }
    let sum = Sha256::digest(&out);
    out.extend(sum);
    out
}

fn decode(bytes: &[u8], key: &Key) -> Option<Records> {
    let (content, sum) = bytes.split_last_chunk::<32>()?;
    if Sha256::digest(content)[..] != sum[..] {
        return None;
    }
    let mut rest = content.strip_prefix(MAGIC)?;
    let mut parts = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (part, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        parts.push(part.to_vec());
        rest = after;
    }
    let records = parts.split_off(1.min(parts.len()));
    let same = rest.is_empty() && parts.first().is_some_and(|part| *part == key.encode());
    same.then(|| Records { records, notes: Vec::new(), complete: true })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Key {
        let info = Some(Info { count: 2, added: 7, erased: 8 });
        Key { device: vec![1, 2, 3], population: Vec::new(), guid: vec![9; 16], info }
    }

    #[test]
    fn of_this_key_and_of_no_other() {
        let records = Records {
            records: vec![vec![1; 64], vec![2; 40]],
            complete: true,
            ..Records::default()
        };
        let bytes = encode(&key(), &records);
        assert_eq!(decode(&bytes, &key()), Some(records));
        assert_eq!(decode(&bytes, &Key { info: None, ..key() }), None);
        assert_eq!(decode(&bytes, &Key { guid: vec![8; 16], ..key() }), None);
        assert_eq!(decode(&bytes, &Key { population: vec![1], ..key() }), None);
        assert_eq!(decode(&bytes[..bytes.len() - 1], &key()), None);
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            assert_eq!(decode(&bytes, &key()), None);
        }
    }

    #[test]
    fn names_stay_in_the_directory() {
        let path = |name: &str| {
            let cache = Cache { directory: "/var/cache/sdr".into(), name: name.to_owned() };
            path(&cache).display().to_string()
        };
        assert_eq!(path("10.0.0.1:623"), "/var/cache/sdr/10.0.0.1_3a623.sdr");
        assert_eq!(path("../x"), "/var/cache/sdr/_2e._2fx.sdr");
        assert_eq!(path("fe80::1%eth0"), "/var/cache/sdr/fe80_3a_3a1_25eth0.sdr");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&bytes, &key()), None);
        }

        /// Even with a sum that is right.
        #[test]
        fn any_parts(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = [MAGIC, &bytes].concat();
            let sum = Sha256::digest(&bytes);
            bytes.extend(sum);
            prop_assert_eq!(decode(&bytes, &key()), None);
        }
    }
}

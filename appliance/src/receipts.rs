//! Receipts: what was done to a machine and its disks, signed, so that it can be shown to whoever asks years later and
//! far from here.
//!
//! A receipt is a file of JSON: `{"receipt": {…}, "key": "…", "signature": "…"}`. The signature (Ed25519, RFC
//! 8032, in hexadecimal) is over the text of `receipt` with sorted names and without white space, in UTF-8: what
//! `jq -cS .receipt` prints without its newline. The key is made when it is first needed and never leaves its file.
//!
//! It proves who wrote the receipt, and that it is as it was written. What the machine said of its disks it said
//! itself; the receipt tells apart who saw what.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use koboshi_initramfs::contract::Survey;
use koboshi_initramfs::contract::duty::{Duty, Prepared, Wiped};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A receipt is read into memory: 1,000 disks take a megabyte.
const RECEIPT_MAX: u64 = 16 << 20;
/// What an Ed25519 key is in a SubjectPublicKeyInfo (RFC 8410 §4), before its 32 bytes.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What is signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// How it is to be read: `koboshi receipt 1`.
    pub format: String,
    /// The site.
    pub site: String,
    /// The machine's name there.
    pub machine: String,
    /// What was ordered: `wipe`.
    pub duty: String,
    /// The order, with all that was asked for.
    pub order: Option<Duty>,
    /// Its number.
    pub ticket: u64,
    /// Who ordered it.
    pub operator: String,
    /// When, RFC 3339.
    pub ordered: String,
    /// The boot that did it.
    pub boot: String,
    /// When that reported first.
    pub began: String,
    /// When it said that it was done.
    pub ended: String,
    /// As it was ordered.
    pub well: bool,
    /// In words.
    pub result: String,
    /// Who the machine said it was: vendor, product, serial number, UUID.
    pub says_it_is: Vec<String>,
    /// Each disk that was to be wiped, by the machine's own word.
    pub disks: Vec<Wiped>,
    /// Each disk that was to get a file system, by the machine's own word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prepared: Vec<Prepared>,
    /// What a set-up found, by the machine's own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survey: Option<Survey>,
    /// Who saw what.
    pub witnesses: Vec<String>,
}

/// A receipt as it lies on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signed {
    /// What is signed. As a value: what a later koboshi adds is signed too.
    pub receipt: Value,
    /// The public key that it can be verified with, in hexadecimal: whether that is ours, the reader knows.
    pub key: String,
    /// In hexadecimal.
    pub signature: String,
}

/// Where receipts lie, and the key they are signed with.
#[derive(Debug, Clone)]
pub struct Receipts {
    dir: PathBuf,
    key: PathBuf,
}

impl Receipts {
    /// Those of a state directory.
    pub fn of(state: &Path) -> Receipts {
        Receipts { dir: state.join("receipts"), key: state.join("receipt.key") }
    }

    /// Signs one and writes it. Says its name.
    pub fn write(&self, receipt: &Receipt) -> io::Result<String> {
        let pair = self.pair()?;
        let value = serde_json::to_value(receipt)?;
        let signature = hex(pair.sign(canonical(&value).as_bytes()).as_ref());
        let key = hex(pair.public_key().as_ref());
        let signed = Signed { receipt: value, key, signature };
        let fits = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let machine: String = receipt.machine.chars().map(fits).collect();
        let name = format!("{:06}-{machine}-{}", receipt.ticket, receipt.duty);
        fs::create_dir_all(&self.dir)?;
        let path = self.dir.join(format!("{name}.json"));
        whole(&path, 0o644, (serde_json::to_string_pretty(&signed)? + "\n").as_bytes())?;
        Ok(name)
    }

    /// All names, the oldest first.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let names = names.filter_map(|name| name.strip_suffix(".json").map(str::to_string));
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        Ok(names)
    }

    /// One by its name.
    pub fn read(&self, name: &str) -> io::Result<Signed> {
        if name.contains('/') || name.starts_with('.') {
            return Err(io::ErrorKind::NotFound.into());
        }
        read(&self.dir.join(format!("{name}.json")))
    }

    /// The public key, as PEM (RFC 8410).
    pub fn public_pem(&self) -> io::Result<String> {
        let pair = self.pair()?;
        Ok(pem(pair.public_key().as_ref()))
    }

    /// The key, made now if there is none.
    fn pair(&self) -> io::Result<Ed25519KeyPair> {
        let bytes = match fs::read(&self.key) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
                let made =
                    made.map_err(|_| io::Error::other("the system has no random numbers"))?;
                whole(&self.key, 0o600, made.as_ref())?;
                made.as_ref().to_vec()
            }
            bytes => bytes?,
        };
        Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| {
            let what = format!("{} is no key of ours", self.key.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    }
}

/// A receipt from a file, wherever it lies.
pub fn read(path: &Path) -> io::Result<Signed> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, RECEIPT_MAX), &mut bytes)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("no receipt: {error}")))
}

/// Whether a receipt is as the holder of this key wrote it; in words if not.
pub fn verify(signed: &Signed, key: &[u8; 32]) -> Result<(), String> {
    let own = bytes_of(&signed.key);
    if own.as_deref() != Some(key) {
        return Err("it was signed with another key than this one".to_string());
    }
    let signature = bytes_of(&signed.signature).ok_or("its signature is no hexadecimal number")?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(canonical(&signed.receipt).as_bytes(), &signature)
        .map_err(|_| "the signature does not fit: it was changed after it was signed".to_string())
}

/// The key in a PEM file, or in hexadecimal.
pub fn public_key(text: &str) -> Result<[u8; 32], String> {
    let text = text.trim();
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let bytes = match text.starts_with("-----") {
        true => BASE64
            .decode(&body)
            .ok()
            .and_then(|der| der.strip_prefix(&SPKI[..]).map(<[u8]>::to_vec)),
        false => bytes_of(text),
    };
    let key = bytes.and_then(|bytes| bytes.try_into().ok());
    key.ok_or_else(|| "that is no public key of Ed25519, as PEM or in hexadecimal".to_string())
}

/// Names sorted, no white space: the same text for the same values, whoever writes it.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut names: Vec<&String> = map.keys().collect();
            names.sort();
            let parts = names.into_iter().filter_map(|name| {
                Some(format!("{}:{}", Value::String(name.clone()), canonical(map.get(name)?)))
            });
            format!("{{{}}}", parts.collect::<Vec<_>>().join(","))
        }
        Value::Array(all) => {
            format!("[{}]", all.iter().map(canonical).collect::<Vec<_>>().join(","))
        }
        plain => plain.to_string(),
    }
}

/// A file that is there whole or not at all.
fn whole(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.new"));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        let digits = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
        u8::from_str_radix(pair, 16).ok().filter(|_| digits)
    };
    digits.map(byte).collect()
}

/// PEM of a public key.
fn pem(key: &[u8]) -> String {
    let der = [&SPKI[..], key].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&der))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    use super::*;

    fn receipt() -> Receipt {
        let disk =
            Wiped { name: "vda".into(), serial: "VD-07".into(), wiped: true, ..Wiped::default() };
        Receipt {
            format: "koboshi receipt 1".into(),
            site: "fukuoka-1".into(),
            machine: "m07".into(),
            duty: "wipe".into(),
            order: None,
            ticket: 12,
            operator: "root".into(),
            ordered: "2026-11-26T00:00:00Z".into(),
            boot: "00".repeat(16),
            began: "2026-11-26T00:01:00Z".into(),
            ended: "2026-11-26T00:09:00Z".into(),
            well: true,
            result: "its disk is wiped: \"vda\" é".into(),
            says_it_is: vec!["LAB-m07".into()],
            disks: vec![disk],
            prepared: Vec::new(),
            survey: None,
            witnesses: Vec::new(),
        }
    }

    fn key(signed: &Signed) -> [u8; 32] {
        public_key(&signed.key).unwrap()
    }

    #[test]
    fn what_was_signed_verifies_and_what_was_changed_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let receipts = Receipts::of(dir.path());
        assert_eq!(receipts.names().unwrap(), Vec::<String>::new());
        let name = receipts.write(&receipt()).unwrap();
        assert_eq!(name, "000012-m07-wipe");
        assert_eq!(receipts.names().unwrap().len(), 1);
        let mode = fs::metadata(dir.path().join("receipt.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let signed = receipts.read(&name).unwrap();
        let ours = public_key(&receipts.public_pem().unwrap()).unwrap();
        assert_eq!(verify(&signed, &ours), Ok(()));
        assert_eq!(serde_json::from_value::<Receipt>(signed.receipt.clone()).unwrap(), receipt());
        // The key is the same ever after.
        assert_eq!(key(&receipts.read(&receipts.write(&receipt()).unwrap()).unwrap()), ours);

        let mut other = signed.clone();
        other.receipt["disks"][0]["serial"] = "VD-08".into();
        assert!(verify(&other, &ours).unwrap_err().contains("changed"));
        let mut other = signed.clone();
        other.receipt["more"] = 1.into();
        assert!(verify(&other, &ours).is_err());
        for bad in ["", "zz", &"00".repeat(64)] {
            let other = Signed { signature: bad.to_string(), ..signed.clone() };
            assert!(verify(&other, &ours).is_err(), "{bad}");
        }
        let elsewhere = tempfile::tempdir().unwrap();
        let strangers = Receipts::of(elsewhere.path());
        let theirs = strangers.read(&strangers.write(&receipt()).unwrap()).unwrap();
        assert!(verify(&theirs, &ours).unwrap_err().contains("another key"));
        assert_eq!(verify(&theirs, &key(&theirs)), Ok(()));
        for odd in ["../receipt", ".hidden", "gone"] {
            assert!(receipts.read(odd).is_err());
        }
    }

    /// OpenSSL is the judge: whoever has the receipt and the public key needs no koboshi.
    #[test]
    fn others_can_verify_it() {
        let dir = tempfile::tempdir().unwrap();
        let receipts = Receipts::of(dir.path());
        let signed = receipts.read(&receipts.write(&receipt()).unwrap()).unwrap();
        let put = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let pem = put("key.pem", receipts.public_pem().unwrap().as_bytes());
        let text = put("text", canonical(&signed.receipt).as_bytes());
        let signature = put("signature", &bytes_of(&signed.signature).unwrap());
        let verified = |text: &Path| {
            let mut openssl = Command::new("openssl");
            openssl.args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"]).arg(&pem);
            openssl.arg("-in").arg(text).arg("-sigfile").arg(&signature);
            openssl.stdout(Stdio::null()).status().expect("openssl").success()
        };
        assert!(verified(&text));
        assert!(!verified(&put("other", b"{}")));
    }

    #[test]
    fn a_key_is_read_as_it_is_written() {
        for last in [0u8, 0xff, 0x3e] {
            let key = [last; 32];
            assert_eq!(public_key(&pem(&key)), Ok(key));
            assert_eq!(public_key(&hex(&key)), Ok(key));
        }
        for bad in ["", "00", "-----BEGIN PUBLIC KEY-----\nAAAA\n", "ssh-ed25519 AAAA", "é"] {
            assert!(public_key(bad).is_err(), "{bad}");
        }
        let value: Value =
            serde_json::from_str(r#"{"b":[1,{"d":2,"c":"\n\"é"}],"a":null}"#).unwrap();
        assert_eq!(canonical(&value), "{\"a\":null,\"b\":[1,{\"c\":\"\\n\\\"é\",\"d\":2}]}");
    }
}

//! A root file system of a page, the archives made of it, and a store to import them into.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use koboshi_images::{Digest, Error, Fault, ImportOptions, Imported, Store, import};
use tempfile::TempDir;

pub const RELEASE: &str = "6.1.0-99-test";

/// A directory for one test, with a store in it.
pub struct Bench {
    pub dir: TempDir,
    pub store: Store,
}

impl Bench {
    pub fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("images")).unwrap();
        Bench { dir, store }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A root that boots as far as an import can tell.
    pub fn root(&self) -> PathBuf {
        let root = self.path("root");
        fs::create_dir(&root).unwrap();
        for (name, text) in base_files() {
            let path = root.join(&name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        }
        fs::set_permissions(root.join("usr/sbin/init"), PermissionsExt::from_mode(0o755)).unwrap();
        for dir in ["lib", "sbin"] {
            symlink(format!("usr/{dir}"), root.join(dir)).unwrap();
        }
        root
    }

    pub fn import(&self, source: &Path) -> Result<Imported, Error> {
        import(&self.store, "web", source, &ImportOptions::default(), &mut |_| ())
    }

    /// Imports bytes as a file.
    pub fn import_bytes(&self, bytes: &[u8]) -> Result<Imported, Error> {
        let path = self.path("archive");
        fs::write(&path, bytes).unwrap();
        self.import(&path)
    }

    /// The plain tar of the newest version's root.
    pub fn root_tar(&self) -> Vec<u8> {
        let root = self.store.show("web").unwrap().boot.layers[0].blob;
        let packed = fs::File::open(self.store.blob_path(&root.digest)).unwrap();
        zstd::decode_all(packed).unwrap()
    }

    /// The plain tars of the layers that machines fetch.
    pub fn layer_tars(&self, image: &str) -> Vec<Vec<u8>> {
        let layers = self.store.show(image).unwrap().boot.layers;
        let tar = |digest| fs::File::open(self.store.blob_path(digest)).unwrap();
        layers.iter().map(|layer| zstd::decode_all(tar(&layer.blob.digest)).unwrap()).collect()
    }

    /// What a machine makes of them: path → all that is said of it.
    pub fn merged(&self, image: &str) -> BTreeMap<String, String> {
        let mut root: BTreeMap<String, String> = BTreeMap::new();
        for tar in self.layer_tars(image) {
            for (path, said) in told(&tar) {
                let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
                let gone = name.strip_prefix(".wh.").map(|name| match dir {
                    "" => name.to_owned(),
                    dir => format!("{dir}/{name}"),
                });
                let over = gone.as_ref().unwrap_or(&path);
                if gone.is_some() || !said.starts_with("Directory") {
                    let below = format!("{over}/");
                    root.retain(|path, _| path != over && !path.starts_with(&below));
                }
                if gone.is_none() {
                    root.insert(path, said);
                }
            }
        }
        root
    }

    /// Nothing in the store but the empty layout.
    pub fn assert_clean(&self) {
        let left = |dir: &str| -> Vec<String> {
            let names = fs::read_dir(self.store.dir().join(dir)).unwrap();
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        assert_eq!(left("tmp"), Vec::<String>::new(), "left in tmp");
        assert_eq!(left("blobs/sha256"), Vec::<String>::new(), "left among the blobs");
        assert!(self.store.list().unwrap().is_empty());
    }
}

/// Members of a plain tar in order: path, and type, mode, owner, device, link, content, attributes.
pub fn told(tar: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(tar);
    let each = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let header = entry.header().clone();
        let link = entry.link_name().unwrap().map(|link| link.display().to_string());
        let device = header.device_major().unwrap().zip(header.device_minor().unwrap());
        let pax = entry.pax_extensions().unwrap().into_iter().flatten();
        let mut xattrs: Vec<String> = pax
            .map(|record| record.unwrap())
            .filter(|record| record.key_bytes().starts_with(b"SCHILY.xattr"))
            .map(|record| format!("{}={:?}", record.key().unwrap(), record.value_bytes()))
            .collect();
        xattrs.sort();
        let said = format!(
            "{:?} {:o} {}:{} {device:?} {link:?} {} {xattrs:?}",
            header.entry_type(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            Digest::of(&bytes)
        );
        (path, said)
    });
    each.collect()
}

/// What every root of these tests holds beside its links.
pub fn base_files() -> Vec<(String, Vec<u8>)> {
    let modules = format!("usr/lib/modules/{RELEASE}");
    [
        (format!("boot/vmlinuz-{RELEASE}"), b"a kernel".to_vec()),
        (format!("boot/config-{RELEASE}"), b"CONFIG_RD_ZSTD=y\n".to_vec()),
        (format!("{modules}/kernel/drivers/net/virtio_net.ko"), b"a module".to_vec()),
        (format!("{modules}/modules.dep"), b"kernel/drivers/net/virtio_net.ko:\n".to_vec()),
        (format!("{modules}/modules.alias"), b"alias virtio:d00000001v* virtio_net\n".to_vec()),
        ("usr/sbin/init".to_owned(), b"#!/bin/sh\n".to_vec()),
        ("etc/hostname".to_owned(), b"web\n".to_vec()),
        ("var/big".to_owned(), (0..600_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect()),
    ]
    .into()
}

/// A tar in the making that holds the base files; hostile members go on top.
pub fn base_tar() -> tar::Builder<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in base_files() {
        member(&mut builder, &name, tar::EntryType::Regular, "", &bytes);
    }
    member(&mut builder, "lib", tar::EntryType::Symlink, "usr/lib", b"");
    member(&mut builder, "sbin", tar::EntryType::Symlink, "usr/sbin", b"");
    builder
}

/// A member with a name as it is, however hostile: at most 100 bytes of it.
pub fn member(
    builder: &mut tar::Builder<Vec<u8>>,
    name: &str,
    kind: tar::EntryType,
    link: &str,
    bytes: &[u8],
) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(bytes.len() as u64);
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    builder.append(&header, bytes).unwrap();
}

/// Runs a program of the host that Debian always has.
pub fn run(program: &str, args: &[&str], dir: &Path) {
    let out = Command::new(program)
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; `make setup` installs it"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {said}");
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The fault of a source that was refused.
pub fn fault(result: Result<Imported, Error>) -> Fault {
    match result {
        Err(Error::Source { fault, .. }) => fault,
        Err(other) => panic!("another error: {other}"),
        Ok(imported) => panic!("{} was imported", imported.version),
    }
}

//! A store in memory, a root that boots as far as an import can tell, and archives of it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;

use koboshi_images::{Digest, ImportOptions, Limits, Modules, Store, import};
use tar::{Builder, EntryType, Header};

use crate::folder;

/// Imports into one store before it is emptied.
const IMPORTS: u32 = 50;

/// The store that archives are imported into.
pub struct Bench {
    dir: PathBuf,
    store: Store,
    taken: u32,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench::new());
}

impl Bench {
    /// Lends this thread's.
    pub fn with(what: impl FnOnce(&mut Bench)) {
        BENCH.with_borrow_mut(what);
    }

    fn new() -> Bench {
        let dir = folder().join("images");
        let _ = fs::remove_dir_all(&dir);
        let store = Store::open(&dir).expect("an empty store");
        Bench { dir, store, taken: 0 }
    }

    /// Imports an archive within small limits.
    pub fn import(&mut self, archive: &[u8]) {
        let path = folder().join("archive");
        fs::write(&path, archive).expect("room in the folder");
        let limits =
            Limits { unpacked: 4 << 20, entries: 500, words: 1 << 20, ..Limits::default() };
        let modules = [Modules::All, Modules::None][archive.len() / 512 % 2];
        let options = ImportOptions { level: 1, limits, modules, ..ImportOptions::default() };
        let taken = import(&self.store, "web", &path, &options, &mut |_| ());
        match &taken {
            Ok(imported) => {
                self.store.verify(&imported.version).expect("an image just taken in is whole");
                let root = imported.version.boot.layers[0].blob.digest;
                sound(File::open(self.store.blob_path(&root)).expect("a blob"));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let left = fs::read_dir(self.dir.join("tmp")).expect("the store").count();
        assert_eq!(left, 0, "left behind by an import");
        self.taken += u32::from(taken.is_ok());
        if self.taken == IMPORTS {
            *self = Bench::new();
        }
    }
}

/// Whether others can read the root that machines will fetch, and no name of it leaves the root.
fn sound(packed: File) {
    let plain = zstd::decode_all(packed).expect("what we packed");
    let mut dirs = BTreeSet::new();
    for entry in tar::Archive::new(&plain[..]).entries().expect("a tar") {
        let entry = entry.expect("a header of ours");
        let path = entry.path_bytes();
        let path = path.strip_suffix(b"/").unwrap_or(&path);
        assert!(path.split(|c| *c == b'/').all(|part| !matches!(part, b"" | b"..")));
        if let Some(end) = path.iter().rposition(|c| *c == b'/') {
            assert!(dirs.contains(&path[..end]), "a name before its directory");
        }
        if entry.header().entry_type().is_dir() {
            dirs.insert(path.to_vec());
        }
    }
}

/// Sets the checksum of each block right that looks like a header.
pub fn mend(archive: &mut [u8]) {
    for block in archive.as_chunks_mut::<512>().0 {
        if &block[257..262] == b"ustar" {
            let mut header = Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
}

/// The smallest root that is taken in.
pub fn root() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    let modules = "usr/lib/modules/6.1.0-99-test";
    for (name, text) in [
        ("boot/vmlinuz-6.1.0-99-test", "a kernel"),
        (&format!("{modules}/modules.dep"), "kernel/drivers/net/virtio_net.ko:\n"),
        (&format!("{modules}/kernel/drivers/net/virtio_net.ko"), "a module"),
        ("usr/sbin/init", "#!/bin/sh\n"),
        ("etc/hostname", "web\n"),
    ] {
        append(&mut tar, name, EntryType::Regular, "", text.as_bytes());
    }
    append(&mut tar, "lib", EntryType::Symlink, "usr/lib", b"");
    append(&mut tar, "sbin", EntryType::Symlink, "usr/sbin", b"");
    tar.into_inner().expect("memory")
}

/// An OCI archive of that root and one layer over it.
pub fn oci_archive(layer: &[u8]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    let mut blob = |bytes: &[u8], kind: &str| {
        let digest = Digest::of(bytes);
        append(&mut tar, &format!("blobs/sha256/{}", digest.hex()), EntryType::Regular, "", bytes);
        serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": digest.to_string(),
            "size": bytes.len(),
        })
    };
    let config =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let config = blob(config, "config.v1+json");
    let layers = [blob(&root(), "layer.v1.tar"), blob(layer, "layer.v1.tar")];
    let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers});
    let manifest = blob(manifest.to_string().as_bytes(), "manifest.v1+json");
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]}).to_string();
    let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;
    append(&mut tar, "oci-layout", EntryType::Regular, "", layout.as_bytes());
    append(&mut tar, "index.json", EntryType::Regular, "", index.as_bytes());
    tar.into_inner().expect("memory")
}

/// An image as a stranger describes it, in an archive: `@C` and `@L` of the manifest stand for what describes the
/// configuration and a sound layer, `@M` of the index for what describes the manifest.
pub fn oci_described(config: &str, manifest: &str, index: &str) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    let mut blob = |bytes: &[u8], kind: &str| {
        let digest = Digest::of(bytes);
        append(&mut tar, &format!("blobs/sha256/{}", digest.hex()), EntryType::Regular, "", bytes);
        let size = bytes.len();
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}}}"#
        )
    };
    let config = blob(config.as_bytes(), "config.v1+json");
    let layer = blob(&root(), "layer.v1.tar");
    let manifest = manifest.replace("@C", &config).replace("@L", &layer);
    let manifest = blob(manifest.as_bytes(), "manifest.v1+json");
    let index = index.replace("@M", &manifest);
    let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;
    append(&mut tar, "oci-layout", EntryType::Regular, "", layout.as_bytes());
    append(&mut tar, "index.json", EntryType::Regular, "", index.as_bytes());
    tar.into_inner().expect("memory")
}

fn append(tar: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, link: &str, bytes: &[u8]) {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(bytes.len() as u64);
    if !link.is_empty() {
        header.set_link_name(link).expect("a short name");
    }
    tar.append_data(&mut header, name, bytes).expect("memory");
}

//! Images made of layers, in OCI's and docker's wrapping.

use std::collections::BTreeMap;
use std::fs;

use koboshi_images::{Digest, Fault};
use serde_json::{Value, json};
use tar::EntryType::{Directory, Regular, Symlink};

use crate::fixture::{Bench, base_tar, fault, gzip, member};

/// An OCI layout in memory: path → bytes.
pub struct Layout {
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Layout {
    pub fn new(layers: &[(&str, Vec<u8>)]) -> Layout {
        let mut layout = Layout { files: BTreeMap::new() };
        layout.files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        let image = layout.image("amd64", layers);
        layout.index(&[image]);
        layout
    }

    pub fn blob(&mut self, kind: &str, bytes: Vec<u8>) -> Value {
        let digest = Digest::of(&bytes);
        let found = json!({"mediaType": kind, "digest": digest, "size": bytes.len()});
        self.files.insert(format!("blobs/sha256/{}", digest.hex()), bytes);
        found
    }

    pub fn image(&mut self, arch: &str, layers: &[(&str, Vec<u8>)]) -> Value {
        let config = json!({"architecture": arch, "os": "linux"}).to_string();
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.into_bytes());
        let layers: Vec<Value> =
            layers.iter().map(|(kind, bytes)| self.blob(kind, bytes.clone())).collect();
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
        self.blob("application/vnd.oci.image.manifest.v1+json", manifest.into_bytes())
    }

    pub fn index(&mut self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        self.files.insert("index.json".into(), index.into_bytes());
    }

    pub fn archive(&self) -> Vec<u8> {
        archive(self.files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])))
    }

    pub fn write(&self, dir: &std::path::Path) {
        for (name, bytes) in &self.files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

fn archive<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        member(&mut builder, name, Regular, "", bytes);
    }
    builder.into_inner().unwrap()
}

fn base() -> Vec<u8> {
    base_tar().into_inner().unwrap()
}

/// A second layer: one file new, one gone, one directory emptied, one path through a link.
fn changes() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    member(&mut builder, "etc/.wh.hostname", Regular, "", b"");
    member(&mut builder, "etc/motd", Regular, "", b"hello");
    member(&mut builder, "var/new", Regular, "", b"new");
    member(&mut builder, "var/.wh..wh..opq", Regular, "", b"");
    member(&mut builder, "lib/through-the-link", Regular, "", b"x");
    builder.into_inner().unwrap()
}

#[test]
fn an_oci_archive_of_one_layer_is_the_same_image_as_its_tar() {
    let bench = Bench::new();
    let first = bench.import_bytes(&base()).unwrap();
    let zstd = zstd::encode_all(&base()[..], 3).unwrap();
    for (kind, layer) in [
        ("application/vnd.oci.image.layer.v1.tar", base()),
        ("application/vnd.oci.image.layer.v1.tar+gzip", gzip(&base())),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip(&base())),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstd.clone()),
        // What it says it is and what it is need not agree.
        ("application/vnd.oci.image.layer.v1.tar+gzip", zstd),
    ] {
        let layout = Layout::new(&[(kind, layer)]);
        let again = bench.import_bytes(&layout.archive()).unwrap();
        assert_eq!(again.version.digest, first.version.digest, "{kind}");
        let again = bench.import_bytes(&gzip(&layout.archive())).unwrap();
        assert!(!again.new, "{kind}, the archive compressed");
        let dir = tempfile::tempdir().unwrap();
        layout.write(dir.path());
        assert!(!bench.import(dir.path()).unwrap().new, "{kind}, as a directory");
    }
}

#[test]
fn layers_lie_over_one_another() {
    let bench = Bench::new();
    let kind = "application/vnd.oci.image.layer.v1.tar";
    bench.import_bytes(&Layout::new(&[(kind, base()), (kind, changes())]).archive()).unwrap();
    let names: Vec<String> = bench.merged("web").into_keys().collect();
    for (name, there) in [
        ("etc/hostname", false),
        ("etc/motd", true),
        ("var/new", true),
        ("var/big", false),
        ("usr/lib/through-the-link", true),
    ] {
        assert_eq!(names.iter().any(|found| found == name), there, "{name} in {names:?}");
    }
}

#[test]
fn the_image_for_this_machine_is_chosen() {
    let bench = Bench::new();
    let layer = [("application/vnd.oci.image.layer.v1.tar", base())];
    let other = [("application/vnd.oci.image.layer.v1.tar", changes())];
    let mut layout = Layout::new(&[]);
    let for_platform = |mut found: Value, arch: &str| {
        found["platform"] = json!({"architecture": arch, "os": "linux"});
        found
    };
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let (ours, theirs) = (layout.image(arch, &layer), layout.image("s390x", &other));
    let mut attestation = layout.image("unknown", &[]);
    attestation["platform"] = json!({"architecture": "unknown", "os": "unknown"});
    let list = json!({"schemaVersion": 2, "manifests": [
        for_platform(theirs.clone(), "s390x"), for_platform(ours.clone(), arch), attestation]});
    let list =
        layout.blob("application/vnd.oci.image.index.v1+json", list.to_string().into_bytes());
    layout.index(&[list]);
    bench.import_bytes(&layout.archive()).unwrap();

    layout.index(&[for_platform(theirs.clone(), "s390x")]);
    assert!(fault(bench.import_bytes(&layout.archive())).to_string().contains("linux/s390x"));
    layout.index(&[ours, theirs]);
    assert!(fault(bench.import_bytes(&layout.archive())).to_string().contains("several images"));
}

#[test]
fn every_blob_is_checked() {
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let layout = Layout::new(&[(kind, gzip(&base()))]);
    let blobs: Vec<String> =
        layout.files.keys().filter(|name| name.starts_with("blobs/")).cloned().collect();
    assert_eq!(blobs.len(), 3);
    let bench = Bench::new();
    for name in blobs {
        let mut bent = Layout { files: layout.files.clone() };
        let bytes = bent.files.get_mut(&name).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let refused = fault(bench.import_bytes(&bent.archive()));
        assert!(matches!(refused, Fault::Blob { .. }), "{name} bent: {refused}");
        bent.files.get_mut(&name).unwrap().pop();
        let refused = fault(bench.import_bytes(&bent.archive()));
        assert!(matches!(refused, Fault::Blob { .. }), "{name} cut: {refused}");
        bent.files.remove(&name);
        let refused = fault(bench.import_bytes(&bent.archive()));
        assert!(refused.to_string().contains("missing"), "{name} gone: {refused}");
    }
    bench.assert_clean();
}

#[test]
fn manifests_that_lie_are_refused() {
    let bench = Bench::new();
    let mut layout = Layout::new(&[]);
    let nested = (0..8).fold(json!({"schemaVersion": 2, "manifests": []}), |inner, _| {
        let blob =
            layout.blob("application/vnd.oci.image.index.v1+json", inner.to_string().into_bytes());
        json!({"schemaVersion": 2, "manifests": [blob]})
    });
    for index in [
        json!(null),
        json!({"schemaVersion": 2}),
        json!({"schemaVersion": 2, "manifests": [{"digest": "sha256:../../../../etc/shadow", "size": 3}]}),
        json!({"schemaVersion": 2, "manifests": [{"digest": "sha512:00", "size": 3}]}),
        json!({"schemaVersion": 2, "manifests": [{"digest": Digest::of(b"x"), "size": u64::MAX}]}),
        json!({"schemaVersion": 2, "manifests": [{"digest": Digest::of(b"x"), "size": -1}]}),
        nested,
    ] {
        layout.files.insert("index.json".into(), index.to_string().into_bytes());
        fault(bench.import_bytes(&layout.archive()));
    }
    layout.files.insert("index.json".into(), b"[[[[".repeat(10_000));
    fault(bench.import_bytes(&layout.archive()));
    let mut escape = tar::Builder::new(Vec::new());
    member(&mut escape, ".wh...", Regular, "", b"");
    let layer = ("application/vnd.oci.image.layer.v1.tar", escape.into_inner().unwrap());
    fault(bench.import_bytes(&Layout::new(&[layer]).archive()));
    bench.assert_clean();
}

#[test]
fn a_docker_archive_is_read_and_checked() {
    let (first, second) = (base(), changes());
    let config = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&first), Digest::of(&second)]}});
    let manifest = json!([{"Config": "c.json", "RepoTags": ["web:1"], "Layers": ["1/layer.tar", "2/layer.tar"]}]);
    let (config, manifest) = (config.to_string(), manifest.to_string());
    let make = |second: &[u8]| {
        let mut builder = tar::Builder::new(Vec::new());
        member(&mut builder, "c.json", Regular, "", config.as_bytes());
        member(&mut builder, "0", Directory, "", b"");
        member(&mut builder, "0/real.tar", Regular, "", &first);
        // Layers met twice are links in the archives of older engines.
        member(&mut builder, "1/layer.tar", Symlink, "../0/real.tar", b"");
        member(&mut builder, "2/layer.tar", Regular, "", second);
        member(&mut builder, "manifest.json", Regular, "", manifest.as_bytes());
        builder.into_inner().unwrap()
    };
    let bench = Bench::new();
    let refused = fault(bench.import_bytes(&make(&first)));
    assert!(matches!(refused, Fault::Blob { .. }), "{refused}");
    bench.import_bytes(&make(&second)).unwrap();
    assert!(bench.merged("web").contains_key("etc/motd"));
}

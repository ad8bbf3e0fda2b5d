//! The OCI image format, as much of it as a store of system images needs.
//!
//! Our own few structs: the bytes of a manifest are its name, so its maps must come out in one
//! order, and the annotations of the usual crate are hash maps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Digest;

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Artifact type of the manifest that holds what is booted beside the root.
pub(crate) const BOOT: &str = "application/vnd.koboshi.boot.v1";
pub(crate) const KERNEL: &str = "application/vnd.koboshi.kernel.v1";
pub(crate) const MICROCODE: &str = "application/vnd.koboshi.microcode.v1.cpio";
pub(crate) const MODULES: &str = "application/vnd.koboshi.modules.v1.cpio";
/// Artifact type of the manifest that holds a root's squashfs.
pub(crate) const SQUASHED: &str = "application/vnd.koboshi.squashed.v1";
pub(crate) const SQUASHFS: &str = "application/vnd.koboshi.root.v1.squashfs";

/// Artifact type of the manifest that holds what is allowed in an image.
pub(crate) const ALLOWANCES: &str = "application/vnd.koboshi.allowances.v1";
pub(crate) const ALLOWANCES_JSON: &str = "application/vnd.koboshi.allowances.v1+json";

/// The standard's own annotations.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(crate) const CREATED: &str = "org.opencontainers.image.created";

/// Ours, on descriptors of index.json.
pub(crate) const A_NAME: &str = "dev.koboshi.name";
pub(crate) const A_VERSION: &str = "dev.koboshi.version";
pub(crate) const A_PUBLISHED: &str = "dev.koboshi.published";
/// When it became the version of its name that machines boot; on one version of each name.
pub(crate) const A_CURRENT: &str = "dev.koboshi.current";
/// The version that machines booted before this one was published.
pub(crate) const A_FORMER: &str = "dev.koboshi.former";
/// When somebody said that it is to be kept, who, and why.
pub(crate) const A_PINNED: &str = "dev.koboshi.pinned";
pub(crate) const A_PINNED_BY: &str = "dev.koboshi.pinned.by";
pub(crate) const A_PINNED_WHY: &str = "dev.koboshi.pinned.why";
/// A version on trial and its terms, why one was withdrawn, machines that boot it whatever the others do, and
/// its test in the virtual rack. JSON each.
pub(crate) const A_TRIAL: &str = "dev.koboshi.trial";
pub(crate) const A_WITHDRAWN: &str = "dev.koboshi.withdrawn";
pub(crate) const A_MACHINES: &str = "dev.koboshi.machines";
pub(crate) const A_TESTED: &str = "dev.koboshi.tested";
/// Ours, on index.json itself: the acts of its last change, for the log.
pub(crate) const A_ACTS: &str = "dev.koboshi.acts";
pub(crate) const A_PARENT: &str = "dev.koboshi.parent";
pub(crate) const A_AUTHOR: &str = "dev.koboshi.author";
pub(crate) const A_REASON: &str = "dev.koboshi.reason";
/// Ours, on the image's manifest: digest of the boot manifest.
pub(crate) const A_BOOT: &str = "dev.koboshi.boot";
/// Ours, on a layer that is no part of the root: what it is instead.
pub(crate) const A_LAYER: &str = "dev.koboshi.layer";
/// What lies in /boot: without it an image that came back from a registry would have no kernel.
pub(crate) const LAYER_BOOT: &str = "boot";
/// Ours, on the root layer: what it takes in memory, and its inodes.
pub(crate) const A_UNPACKED: &str = "dev.koboshi.unpacked";
pub(crate) const A_INODES: &str = "dev.koboshi.inodes";
/// Ours, on a squashfs's manifest and its descriptor: digest of the root layer it was made from.
pub(crate) const A_SQUASHFS_OF: &str = "dev.koboshi.squashfs-of";
/// Ours, on the descriptor of allowances: the image they are of.
pub(crate) const A_ALLOWED_IN: &str = "dev.koboshi.allowed-in";
/// Ours, on the boot manifest.
pub(crate) const A_RELEASE: &str = "dev.koboshi.kernel.release";

/// Ours, on index.json: the highest number that a version of this name had which is removed since. No
/// number is given twice, or nobody knew what a machine booted.
pub(crate) fn last_key(name: &str) -> String {
    format!("dev.koboshi.last.{name}")
}

/// Largest index, manifest or configuration read into memory.
pub(crate) const DOCUMENT_MAX: u64 = 4 << 20;

pub(crate) type Annotations = BTreeMap<String, String>;

/// Points at a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    /// Text: strangers also use sha512.
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty")]
    pub(crate) annotations: Annotations,
    /// `urls`, `data` and whatever else others wrote, kept as it was.
    #[serde(flatten)]
    pub(crate) rest: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(flatten)]
    pub(crate) rest: BTreeMap<String, serde_json::Value>,
}

/// `index.json`, or a list of one image's platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty")]
    pub(crate) annotations: Annotations,
    #[serde(flatten)]
    pub(crate) rest: BTreeMap<String, serde_json::Value>,
}

/// An image, or an artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty")]
    pub(crate) annotations: Annotations,
}

/// The image configuration: nothing in it depends on when or by whom the image was imported.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) config: ContainerConfig,
    pub(crate) rootfs: RootFs,
}

/// How a container engine would run it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ContainerConfig {
    #[serde(default)]
    pub(crate) cmd: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) diff_ids: Vec<Digest>,
}

impl Index {
    pub(crate) fn empty() -> Index {
        Index {
            schema_version: 2,
            media_type: INDEX.to_owned(),
            manifests: Vec::new(),
            annotations: Annotations::new(),
            rest: BTreeMap::new(),
        }
    }
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: digest.to_string(),
            size,
            platform: None,
            artifact_type: None,
            annotations: Annotations::new(),
            rest: BTreeMap::new(),
        }
    }

    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Descriptor {
        self.annotations.insert(key.to_owned(), value.to_string());
        self
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }
}

/// The bytes of a document, the same for the same value.
pub(crate) fn to_bytes(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("string keys and plain values always make JSON")
}

/// The host's architecture as OCI names it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

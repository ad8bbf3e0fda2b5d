//! Names and versions of images: `web` has versions 1, 2, 3 …, some of them published, and machines
//! boot one of those. All of it is annotations in `index.json`.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use crate::oci::{self, Descriptor, Index, Manifest};
use crate::publish::{Pin, current};
use crate::squash::squashed;
use crate::store::Store;
use crate::trial::Marks;
use crate::{Digest, Error};

/// Bytes in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Their name.
    pub digest: Digest,
    /// How many.
    pub size: u64,
}

/// What a machine loads to become an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootable {
    /// Image name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// The kernel.
    pub kernel: Blob,
    /// What `uname -r` will say.
    pub kernel_release: String,
    /// Segments of the initramfs that belong to the image, in the order they must be loaded:
    /// microcode, if it has any, comes first and before every other segment of the boot.
    pub segments: Vec<Blob>,
    /// How many of `segments` are microcode: 0 or 1.
    pub microcode: usize,
    /// Of the image's manifest.
    pub digest: Digest,
    /// The root file system in layers, the lowest first.
    pub layers: Vec<Layer>,
}

/// One layer of a root: what it adds to those below it, and what it takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// A tar, compressed with zstd.
    pub blob: Blob,
    /// Bytes of memory it takes once unpacked.
    pub unpacked: u64,
    /// Names in it.
    pub inodes: u64,
    /// The same layer as a squashfs, if it was made.
    pub squashfs: Option<Blob>,
}

impl Bootable {
    /// Bytes of memory the root takes once unpacked, at most: what a layer replaces is counted twice.
    pub fn unpacked(&self) -> u64 {
        self.layers.iter().map(|layer| layer.unpacked).sum()
    }

    /// Names in the root, at most.
    pub fn inodes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.inodes).sum()
    }

    /// Bytes of the layers as they are fetched.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.blob.size).sum()
    }

    /// The layers as squashfs, if all of them were made.
    pub fn squashed(&self) -> Option<Vec<Blob>> {
        self.layers.iter().map(|layer| layer.squashfs).collect()
    }
}

/// One version of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Image name.
    pub name: String,
    /// Counts from 1 for each name.
    pub version: u32,
    /// Of its OCI manifest: the same for the same content.
    pub digest: Digest,
    /// When it was imported.
    #[serde(serialize_with = "timestamp")]
    pub created: Timestamp,
    /// When it was published, if it was.
    #[serde(serialize_with = "maybe_timestamp")]
    pub published: Option<Timestamp>,
    /// It is what machines boot.
    pub current: bool,
    /// What machines booted before it was published.
    pub former: Option<u32>,
    /// Somebody wants it to be kept.
    pub pinned: Option<Pin>,
    /// How it comes to machines.
    #[serde(flatten)]
    pub marks: Marks,
    /// The version it replaced as the newest, or was made from.
    pub parent: Option<Digest>,
    /// Who made it.
    pub author: Option<String>,
    /// What for.
    pub reason: Option<String>,
    /// What a machine loads.
    pub boot: Bootable,
    /// Layers that no machine fetches, though they belong to the image.
    pub beside: Vec<Blob>,
}

/// `web`, or `web@3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageRef {
    /// Image name.
    pub name: String,
    /// This version and no other.
    pub version: Option<u32>,
}

/// Whether a name can be an image's.
pub fn check_name(name: &str) -> Result<(), Error> {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    let begins = name.bytes().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if begins && name.len() <= 64 && name.bytes().all(fits) {
        Ok(())
    } else {
        Err(Error::BadName(name.chars().take(100).collect()))
    }
}

impl FromStr for ImageRef {
    type Err = Error;
    fn from_str(text: &str) -> Result<ImageRef, Error> {
        let bad = || Error::BadRef(text.chars().take(100).collect());
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => {
                let digits = version.bytes().all(|c| c.is_ascii_digit());
                let number = version.parse().ok().filter(|version| digits && *version > 0);
                (name, Some(number.ok_or_else(bad)?))
            }
            None => (text, None),
        };
        check_name(name)?;
        Ok(ImageRef { name: name.to_owned(), version })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl Store {
    /// One version: the newest there is for `web`, published or not.
    pub fn show(&self, reference: &str) -> Result<Version, Error> {
        let wanted: ImageRef = reference.parse()?;
        let index = self.index()?;
        let found = pick(&index.manifests, &wanted)?;
        self.version(&index, found)
    }

    /// What a machine boots: for `web` the version that was published last, or gone back to since;
    /// for `web@3` that version, for whoever names it means it.
    pub fn resolve(&self, reference: &str) -> Result<Bootable, Error> {
        let wanted: ImageRef = reference.parse()?;
        let index = self.index()?;
        let mut found = pick(&index.manifests, &wanted)?;
        if wanted.version.is_none() {
            let current = current(&index.manifests, &wanted.name);
            found = current.ok_or_else(|| Error::NothingPublished(wanted.name.clone()))?.1;
        }
        Ok(self.version(&index, found)?.boot)
    }

    /// Rehashes every blob of a version.
    pub fn verify(&self, version: &Version) -> Result<(), Error> {
        version.blobs().iter().try_for_each(|blob| self.verify_blob(blob))
    }

    /// Reads what a descriptor of the index stands for.
    pub(crate) fn version(&self, index: &Index, found: &Descriptor) -> Result<Version, Error> {
        let path = self.dir().join("index.json");
        let wrong = |what: &str| Error::Store { path: path.clone(), what: what.to_owned() };
        let (name, version) = identity(found).ok_or_else(|| wrong("an image without a name"))?;
        let digest: Digest = found.digest.parse().map_err(|bad| wrong(&format!("{bad}")))?;
        let image: Manifest = self.document(&digest)?;
        let damaged = |what: &str| Error::Damaged { digest, what: what.to_owned() };
        let (roots, beside): (Vec<_>, Vec<_>) =
            image.layers.iter().partition(|layer| layer.get(oci::A_LAYER).is_none());
        if roots.is_empty() {
            return Err(damaged("an image of ours has a root"));
        }
        let layers = roots.into_iter().map(|layer| {
            let figure = |key| layer.get(key).and_then(|text| text.parse::<u64>().ok());
            Ok(Layer {
                blob: blob(layer)?,
                unpacked: figure(oci::A_UNPACKED).ok_or_else(|| damaged("no unpacked size"))?,
                inodes: figure(oci::A_INODES).ok_or_else(|| damaged("no count of inodes"))?,
                squashfs: squashed(self, index, &layer.digest),
            })
        });
        let layers = layers.collect::<Result<Vec<_>, Error>>()?;
        let boot_digest: Digest = image
            .annotations
            .get(oci::A_BOOT)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| damaged("it names nothing to boot"))?;
        let boot: Manifest = self.document(&boot_digest)?;
        let of_type = |kind: &str| {
            boot.layers.iter().find(|layer| layer.media_type == kind).map(blob).transpose()
        };
        let kernel = of_type(oci::KERNEL)?.ok_or_else(|| damaged("it has no kernel"))?;
        let microcode = of_type(oci::MICROCODE)?;
        let modules = of_type(oci::MODULES)?;
        let created = found.get(oci::CREATED).and_then(|text| text.parse().ok());
        Ok(Version {
            name: name.to_owned(),
            version,
            digest,
            created: created.ok_or_else(|| wrong("an image without its time"))?,
            published: found.get(oci::A_PUBLISHED).and_then(|text| text.parse().ok()),
            current: current(&index.manifests, name).is_some_and(|(now, _)| now == version),
            former: found.get(oci::A_FORMER).and_then(|text| text.parse().ok()),
            pinned: Pin::of(found),
            marks: Marks::of(found),
            parent: found.get(oci::A_PARENT).and_then(|text| text.parse().ok()),
            author: found.get(oci::A_AUTHOR).map(str::to_owned),
            reason: found.get(oci::A_REASON).map(str::to_owned),
            beside: beside.into_iter().map(blob).collect::<Result<_, _>>()?,
            boot: Bootable {
                name: name.to_owned(),
                version,
                kernel,
                kernel_release: boot
                    .annotations
                    .get(oci::A_RELEASE)
                    .cloned()
                    .ok_or_else(|| damaged("its kernel has no release"))?,
                microcode: usize::from(microcode.is_some()),
                segments: microcode.into_iter().chain(modules).collect(),
                digest,
                layers,
            },
        })
    }
}

impl Version {
    /// Every large blob of it.
    pub fn blobs(&self) -> Vec<Blob> {
        let boot = &self.boot;
        let layers = boot.layers.iter().flat_map(|layer| [Some(layer.blob), layer.squashfs]);
        let parts = [boot.kernel].into_iter().chain(boot.segments.iter().copied());
        parts.chain(layers.flatten()).chain(self.beside.iter().copied()).collect()
    }
}

/// The newest version of a name.
pub(crate) fn newest<'a>(all: &'a [Descriptor], name: &str) -> Option<(u32, &'a Descriptor)> {
    versions(all, name).max_by_key(|(version, _)| *version)
}

pub(crate) fn versions<'a>(
    all: &'a [Descriptor],
    name: &str,
) -> impl Iterator<Item = (u32, &'a Descriptor)> {
    all.iter().filter_map(move |found| {
        identity(found).filter(|(found, _)| *found == name).map(|(_, version)| (version, found))
    })
}

pub(crate) fn pick<'a>(all: &'a [Descriptor], wanted: &ImageRef) -> Result<&'a Descriptor, Error> {
    let name = &wanted.name;
    let (newest, found) = newest(all, name).ok_or_else(|| Error::NoSuchImage(name.clone()))?;
    let Some(version) = wanted.version else { return Ok(found) };
    versions(all, name)
        .find(|(number, _)| *number == version)
        .map(|(_, found)| found)
        .ok_or_else(|| Error::NoSuchVersion { name: name.clone(), version, newest })
}

/// Others keep images in a layout too: what lacks our annotations is theirs.
pub(crate) fn identity(found: &Descriptor) -> Option<(&str, u32)> {
    Some((found.get(oci::A_NAME)?, found.get(oci::A_VERSION)?.parse().ok()?))
}

fn blob(found: &Descriptor) -> Result<Blob, Error> {
    let digest = found.digest.parse().map_err(|_| Error::BadRef(found.digest.clone()))?;
    Ok(Blob { digest, size: found.size })
}

pub(crate) fn timestamp<S: Serializer>(time: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(time)
}

fn maybe_timestamp<S: Serializer>(time: &Option<Timestamp>, out: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => out.collect_str(time),
        None => out.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_read_back_and_the_rest_is_refused() {
        for text in ["web", "web@3", "db-1.2_x", "0@4294967295"] {
            assert_eq!(text.parse::<ImageRef>().unwrap().to_string(), text);
        }
        let long = "a".repeat(65);
        for bad in [
            "",
            "@",
            "@3",
            "web@",
            "web@0",
            "web@+1",
            "web@-1",
            "web@4294967296",
            "web@1@2",
            "Web",
            "-web",
            "../web",
            "web/x",
            "we b",
            "wéb",
            "web:3",
            &long,
        ] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }
}

//! Images made of layers: OCI layouts and archives, docker archives. Every blob is checked against
//! its digest before a byte of it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::Digest;
use crate::content::{Content, Span};
use crate::digest::Hashing;
use crate::error::{Fault, shown};
use crate::import::Progress;
use crate::oci::{self, Descriptor, Index, Manifest};
use crate::source::untar::{self, End, Entry};
use crate::source::{Limits, Reading};
use crate::stack::{Came, DEPTH_MAX, Known, Source, Stage, Whole};
use crate::tree::{Kind, Tree, normalise};

/// An image of many platforms points at lists of lists; nobody nests deeper.
const NESTING_MAX: usize = 4;
/// More layers than any engine stacks.
const LAYERS_MAX: usize = 512;

/// Where blobs come from.
enum Blobs<'a> {
    Archive(&'a Tree),
    Dir(&'a Path),
}

/// A directory in OCI layout.
pub(super) fn layout_dir(dir: &Path, reading: &mut Reading<'_>) -> Result<Source, Fault> {
    oci(&Blobs::Dir(dir), reading)
}

/// A tar of such a directory.
pub(super) fn oci_archive(archive: &Tree, reading: &mut Reading<'_>) -> Result<Source, Fault> {
    oci(&Blobs::Archive(archive), reading)
}

fn oci(blobs: &Blobs<'_>, reading: &mut Reading<'_>) -> Result<Source, Fault> {
    let index: Index = parse("index.json", &blobs.file("index.json")?)?;
    let chosen = choose(blobs, index, 0)?;
    let manifest: Manifest = blobs.document(&chosen)?;
    let config: BTreeMap<String, serde_json::Value> = blobs.document(&manifest.config)?;
    if let Some(arch) = config.get("architecture").and_then(|value| value.as_str())
        && arch != oci::architecture()
    {
        reading.warnings.push(format!("the image is for {arch}, not {}", oci::architecture()));
    }
    bounded(manifest.layers.len())?;
    let of_boot = |layer: &Descriptor| layer.get(oci::A_LAYER) == Some(oci::LAYER_BOOT);
    let roots = manifest.layers.iter().filter(|layer| !of_boot(layer)).count();
    let mut stages = Stages::new(reading.limits, roots);
    let mut boot = None;
    for layer in &manifest.layers {
        if layer.media_type.contains("encrypted") {
            return Err(Fault::Unsupported { what: "a layer is encrypted".to_owned() });
        }
        let packed = blobs.get(layer)?;
        let tar = reading.spool.plain(&packed, &reading.limits, reading.progress)?;
        apply(&mut stages.tree, &tar, reading)?;
        // One of ours says how much memory it takes: then it may be just what we would make.
        let came = match (layer.get(oci::A_UNPACKED), &layer.media_type[..]) {
            (Some(_), oci::LAYER_ZSTD) => Some(Came { packed, diff_id: digest(&tar)? }),
            _ => None,
        };
        if of_boot(layer) {
            boot = came;
        } else {
            stages.keep(came);
        }
    }
    let whole = manifest.annotations.contains_key(oci::A_BOOT).then(|| -> Result<_, Fault> {
        let (manifest, config) = (blobs.bytes(&chosen)?, blobs.bytes(&manifest.config)?);
        Ok(Whole { manifest, config, boot })
    });
    Ok(stages.finish(whole.transpose()?, reading))
}

/// The trees of an image's layers, as many as are kept apart.
struct Stages {
    tree: Tree,
    kept: Vec<Stage>,
    /// Names in all of them.
    names: usize,
    /// Layers there are, and how many were seen.
    layers: usize,
    seen: usize,
    merged: bool,
}

impl Stages {
    fn new(limits: Limits, layers: usize) -> Stages {
        let tree = Tree::new(limits);
        Stages { tree, kept: Vec::new(), names: 0, layers, seen: 0, merged: false }
    }

    /// A layer is applied. Each costs memory until the image is made, and the machine a mount: the
    /// last has all that would be too much.
    fn keep(&mut self, came: Option<Came>) {
        self.seen += 1;
        self.names += self.tree.len();
        let last = self.seen == self.layers;
        if !last && (self.kept.len() + 1 >= DEPTH_MAX || self.names > self.tree.limits().entries) {
            self.merged = true;
            return;
        }
        let came = came.filter(|_| !self.merged);
        self.kept.push(Stage { tree: self.tree.clone(), came });
    }

    fn finish(mut self, whole: Option<Whole>, reading: &mut Reading<'_>) -> Source {
        if self.merged {
            let (layers, kept) = (self.layers, self.kept.len());
            reading.warnings.push(format!(
                "its {layers} layers became {kept}: the uppermost are one, and are not shared with \
                 other images"
            ));
        }
        // An image without any layer is an empty root, and what that lacks is said later.
        if self.kept.is_empty() {
            self.kept.push(Stage { tree: self.tree, came: None });
        }
        let base = Tree::new(reading.limits);
        Source { known: Known::default(), base, stages: self.kept, whole }
    }
}

/// `docker save`: paths of layers in manifest.json, digests of the unpacked layers in the
/// configuration.
pub(super) fn docker_archive(archive: &Tree, reading: &mut Reading<'_>) -> Result<Source, Fault> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Image {
        config: String,
        layers: Vec<String>,
    }
    #[derive(serde::Deserialize)]
    struct Config {
        rootfs: RootFs,
    }
    #[derive(serde::Deserialize)]
    struct RootFs {
        diff_ids: Vec<String>,
    }
    let blobs = Blobs::Archive(archive);
    let images: Vec<Image> = parse("manifest.json", &blobs.file("manifest.json")?)?;
    let [image] = &images[..] else {
        let what = format!("holds {} images; save the one you mean alone", images.len());
        return Err(Fault::Unsupported { what });
    };
    let config: Config = parse(&image.config, &blobs.file(&image.config)?)?;
    bounded(image.layers.len())?;
    if config.rootfs.diff_ids.len() != image.layers.len() {
        let what = "its configuration counts other layers than its manifest".to_owned();
        return Err(Fault::Malformed { what });
    }
    let mut stages = Stages::new(reading.limits, image.layers.len());
    for (layer, diff_id) in image.layers.iter().zip(&config.rootfs.diff_ids) {
        let tar = reading.spool.plain(&blobs.file(layer)?, &reading.limits, reading.progress)?;
        check(&tar, diff_id)?;
        apply(&mut stages.tree, &tar, reading)?;
        stages.keep(None);
    }
    Ok(stages.finish(None, reading))
}

fn bounded(layers: usize) -> Result<(), Fault> {
    if layers > LAYERS_MAX {
        return Err(Fault::TooLarge { what: format!("{layers} layers") });
    }
    Ok(())
}

/// The one image for this kind of machine.
fn choose(blobs: &Blobs<'_>, index: Index, depth: usize) -> Result<Descriptor, Fault> {
    let arch = oci::architecture();
    let is_image = |found: &&Descriptor| {
        found.artifact_type.is_none()
            && found.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == arch)
    };
    let mut fitting: Vec<&Descriptor> = index.manifests.iter().filter(is_image).collect();
    // The same image under several names.
    fitting.sort_by_key(|found| &found.digest);
    fitting.dedup_by_key(|found| &found.digest);
    let [found] = fitting[..] else {
        let what = if fitting.is_empty() {
            let named = index.manifests.iter().filter_map(|found| found.platform.as_ref());
            let have: Vec<String> =
                named.take(8).map(|p| format!("{}/{}", p.os, p.architecture)).collect();
            format!("holds no image for linux/{arch} (there: {})", have.join(", "))
        } else {
            let names: Vec<&str> =
                fitting.iter().filter_map(|found| found.get(oci::REF_NAME)).take(8).collect();
            format!("holds several images ({}); copy out the one you mean", names.join(", "))
        };
        return Err(Fault::Unsupported { what });
    };
    if found.media_type == oci::INDEX || found.media_type == oci::DOCKER_LIST {
        if depth == NESTING_MAX {
            return Err(Fault::Malformed { what: "indexes within indexes".to_owned() });
        }
        return choose(blobs, blobs.document(found)?, depth + 1);
    }
    Ok(found.clone())
}

/// Lays a layer over a tree.
pub(super) fn apply(tree: &mut Tree, tar: &Span, reading: &mut Reading<'_>) -> Result<(), Fault> {
    tree.next_layer();
    let progress = &mut *reading.progress;
    untar::each(tar, End::Digested, &mut |Entry { name, member }| {
        let base = name.iter().rposition(|c| *c == b'/').map_or(0, |at| at + 1);
        // OCI image spec, layer.md, "Whiteouts".
        match name[base..].strip_prefix(b".wh.") {
            Some(b".wh..opq") => tree.opaque(&name[..base]),
            // aufs's own bookkeeping.
            Some(rest) if rest.starts_with(b".wh.") => Ok(()),
            Some(b"" | b"." | b"..") => {
                Err(Fault::Name { entry: shown(&name), why: "it removes nothing" })
            }
            Some(rest) => tree.whiteout(&[&name[..base], rest].concat()),
            None => {
                tree.add(&name, member)?;
                if tree.len().is_multiple_of(1000) {
                    progress(Progress::Reading { entries: tree.len() as u64 });
                }
                Ok(())
            }
        }
    })
}

/// A layer without those below it. A hard link to a file of theirs brings no bytes of its own.
pub(super) fn alone(tar: &Span, limits: Limits) -> Result<(Tree, BTreeSet<Vec<u8>>), Fault> {
    let (mut tree, mut gone) = (Tree::new(limits), BTreeSet::new());
    untar::each(tar, End::Digested, &mut |Entry { name, member }| {
        let base = name.iter().rposition(|c| *c == b'/').map_or(0, |at| at + 1);
        match name[base..].strip_prefix(b".wh.") {
            // All of a directory: what is in it now is of this layer.
            Some(b".wh..opq") => {
                gone.insert(normalise(&name[..base])?);
            }
            Some(rest) if rest.starts_with(b".wh.") => {}
            Some(rest) => {
                gone.insert(normalise(&[&name[..base], rest].concat())?);
            }
            None => match tree.add(&name, member) {
                Err(Fault::Link { .. }) => {}
                other => return other,
            },
        }
        Ok(())
    })?;
    Ok((tree, gone))
}

impl Blobs<'_> {
    /// A file of the archive, by its path.
    fn file(&self, name: &str) -> Result<Span, Fault> {
        let missing =
            || Fault::Malformed { what: format!("{} is missing", shown(name.as_bytes())) };
        match self {
            Blobs::Archive(tree) => {
                match tree.resolve(name.as_bytes()).map(|found| &found.1.kind) {
                    Some(Kind::File(Content::Span(span))) => Ok(span.clone()),
                    _ => Err(missing()),
                }
            }
            Blobs::Dir(dir) => {
                let path = dir.join(name);
                if !path.is_file() {
                    return Err(missing());
                }
                Ok(Span::whole(File::open(path)?)?)
            }
        }
    }

    /// A blob, its bytes checked.
    fn get(&self, wanted: &Descriptor) -> Result<Span, Fault> {
        let digest: Digest = wanted
            .digest
            .parse()
            .map_err(|bad| Fault::Unsupported { what: format!("{bad}; only sha256 is read") })?;
        let blob =
            |what: &str| Fault::Blob { digest: wanted.digest.clone(), what: what.to_owned() };
        let span =
            self.file(&format!("blobs/sha256/{}", digest.hex())).map_err(|fault| match fault {
                Fault::Malformed { .. } => blob("it is missing"),
                other => other,
            })?;
        if span.len != wanted.size {
            return Err(blob(&format!("{} bytes instead of {}", span.len, wanted.size)));
        }
        check(&span, &wanted.digest)?;
        Ok(span)
    }

    fn bytes(&self, wanted: &Descriptor) -> Result<Vec<u8>, Fault> {
        Ok(Content::Span(self.get(wanted)?).read(oci::DOCUMENT_MAX)?)
    }

    fn document<T: DeserializeOwned>(&self, wanted: &Descriptor) -> Result<T, Fault> {
        if wanted.size > oci::DOCUMENT_MAX {
            return Err(Fault::TooLarge {
                what: format!("{} of {} bytes", wanted.digest, wanted.size),
            });
        }
        parse(&wanted.digest, &self.get(wanted)?)
    }
}

fn parse<T: DeserializeOwned>(name: &str, span: &Span) -> Result<T, Fault> {
    let name = shown(name.as_bytes());
    if span.len > oci::DOCUMENT_MAX {
        return Err(Fault::TooLarge { what: format!("{name} of {} bytes", span.len) });
    }
    let mut bytes = Vec::new();
    span.reader().read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Fault::Malformed { what: format!("{name}: {error}") })
}

/// Whether the bytes have this digest.
fn check(span: &Span, wanted: &str) -> Result<(), Fault> {
    let found = digest(span)?.to_string();
    if found != wanted {
        let digest = shown(wanted.as_bytes());
        return Err(Fault::Blob { digest, what: format!("its bytes are {found}") });
    }
    Ok(())
}

fn digest(span: &Span) -> Result<Digest, Fault> {
    let mut hashing = Hashing::new(io::sink());
    io::copy(&mut io::BufReader::with_capacity(1 << 18, span.reader()), &mut hashing)?;
    Ok(hashing.finish().1)
}

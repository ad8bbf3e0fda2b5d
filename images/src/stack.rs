//! An image in the making as a stack of layers: which of them the store has, which came in our own
//! form and stay as they are, and which are packed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::content::{Content, Span};
use crate::error::{Error, Fault};
use crate::import::Progress;
use crate::layer::{Delta, between};
use crate::oci::{self, Config, Descriptor, Manifest};
use crate::pack::{self, Packed};
use crate::staging::Staging;
use crate::store::Store;
use crate::tree::{Kind, Tree};
use crate::version::{Blob, Version};
use crate::{Digest, Modules};

/// Layers of a root at most: a machine mounts as many when it stacks them, and each is a request.
pub(crate) const DEPTH_MAX: usize = 24;

/// What an image is made of, the lowest first.
#[derive(Debug)]
pub(crate) struct Source {
    /// What of it the store has already.
    pub(crate) known: Known,
    /// The tree that `known` makes.
    pub(crate) base: Tree,
    /// What comes above it; where there is nothing, the base is the image.
    pub(crate) stages: Vec<Stage>,
    /// The image these layers were, for whoever gives it back unchanged.
    pub(crate) whole: Option<Whole>,
}

/// A root once one more layer lies on it.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) tree: Tree,
    /// The layer as it came.
    pub(crate) came: Option<Came>,
}

/// A layer of somebody else's, perhaps one that was ours before.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    /// Compressed with zstd.
    pub(crate) packed: Span,
    /// Of the plain tar.
    pub(crate) diff_id: Digest,
}

/// Documents of an image as they came.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    /// Its layer of /boot.
    pub(crate) boot: Option<Came>,
}

/// Parts of an image that lie in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Layers of the root.
    pub(crate) layers: Vec<Packed>,
    pub(crate) boot: Option<KnownBoot>,
}

/// What is booted beside a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownBoot {
    /// Of the boot manifest, as the index has it.
    pub(crate) manifest: Descriptor,
    /// The layer of /boot, if there is anything in it.
    pub(crate) layer: Option<Packed>,
    /// Of the kernel.
    pub(crate) release: String,
    /// Modules of the initramfs, where somebody is to know.
    #[serde(default)]
    pub(crate) modules: Vec<String>,
}

impl From<Tree> for Source {
    fn from(tree: Tree) -> Source {
        let base = Tree::new(tree.limits());
        let stages = vec![Stage { tree, came: None }];
        Source { known: Known::default(), base, stages, whole: None }
    }
}

impl Source {
    /// The root as it will be.
    pub(crate) fn root(&self) -> &Tree {
        self.stages.last().map_or(&self.base, |stage| &stage.tree)
    }

    /// The same, alone.
    pub(crate) fn into_root(mut self) -> Tree {
        self.stages.pop().map_or(self.base, |stage| stage.tree)
    }

    /// Every tree of it.
    pub(crate) fn trees(&mut self) -> impl Iterator<Item = &mut Tree> {
        std::iter::once(&mut self.base).chain(self.stages.iter_mut().map(|stage| &mut stage.tree))
    }

    /// What the base boots, if nothing above it touches kernel, modules or firmware. `boots` are the
    /// contents of /boot of each tree; `keep` is what the root is to keep of the modules.
    pub(crate) fn same_boot(
        &self,
        boots: &[Tree],
        keep: Modules,
    ) -> Result<Option<KnownBoot>, Fault> {
        let (Some(known), [first, .., last]) = (&self.known.boot, boots) else {
            return Ok(self.known.boot.clone());
        };
        let pruned_by = keep != Modules::Boot || !known.modules.is_empty();
        let same = pruned_by
            && between(first, last)?.is_empty()
            && !touches_boot(&self.base, self.root())?;
        Ok(same.then(|| known.clone()))
    }

    /// Packs what is not there. For every stage: the layers up to it.
    pub(crate) fn pack(
        &self,
        staging: &mut Staging<'_>,
        there: &Packs,
        level: i32,
        fault: &dyn Fn(Fault) -> Error,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Vec<Packed>>, Error> {
        let empty = Tree::new(self.base.limits());
        // Too deep already: one layer is made of all of it.
        let deep = self.known.layers.len() >= DEPTH_MAX;
        let (mut base, mut layers) =
            if deep { (&empty, Vec::new()) } else { (&self.base, self.known.layers.clone()) };
        let mut upto = Vec::new();
        for (at, stage) in self.stages.iter().enumerate() {
            let last = at + 1 == self.stages.len();
            if !last && (deep || layers.len() + 1 >= DEPTH_MAX) {
                upto.push(layers.clone());
                continue;
            }
            let delta = between(base, &stage.tree).map_err(fault)?;
            if !delta.is_empty() || (last && layers.is_empty()) {
                let came = stage.came.as_ref();
                // Nobody else's layer is looked for where there is one alone.
                let look = came.is_some() || self.stages.len() > 1;
                layers.push(if look {
                    there.or_pack(staging, &delta, came, level, fault, progress)?
                } else {
                    packed(staging, &delta, level, fault, progress)?
                });
            }
            base = &stage.tree;
            upto.push(layers.clone());
        }
        Ok(upto)
    }
}

/// Layers of all images of a store, by the digest of their plain tars.
#[derive(Debug, Default)]
pub(crate) struct Packs(BTreeMap<Digest, Packed>);

impl Packs {
    pub(crate) fn of(store: &Store) -> Result<Packs, Error> {
        let mut packs = Packs::default();
        for found in store.index()?.manifests {
            let Ok(digest) = found.digest.parse() else { continue };
            // What is none of ours, or is damaged, brings nothing.
            let Ok(layers) = layers(store, &digest) else { continue };
            packs.0.extend(layers.into_iter().map(|(_, packed)| (packed.diff_id, packed)));
        }
        packs.0.retain(|_, packed| {
            let layers = vec![packed.clone()];
            Known { layers, boot: None }.missing(store).is_none()
        });
        Ok(packs)
    }

    /// The layer as it came if we would make the same of it, else as the store has it, else packed.
    pub(crate) fn or_pack(
        &self,
        staging: &mut Staging<'_>,
        delta: &Delta<'_>,
        came: Option<&Came>,
        level: i32,
        fault: &dyn Fn(Fault) -> Error,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Packed, Error> {
        let (diff_id, unpacked, inodes) = pack::figures(delta, &mut |_| ()).map_err(fault)?;
        if let Some(came) = came.filter(|came| came.diff_id == diff_id) {
            let Blob { digest, size } = staging.content(&Content::Span(came.packed.clone()))?;
            return Ok(Packed { digest, size, diff_id, unpacked, inodes });
        }
        match self.0.get(&diff_id) {
            Some(packed) => Ok(packed.clone()),
            None => packed(staging, delta, level, fault, progress),
        }
    }
}

fn packed(
    staging: &mut Staging<'_>,
    delta: &Delta<'_>,
    level: i32,
    fault: &dyn Fn(Fault) -> Error,
    progress: &mut dyn FnMut(Progress),
) -> Result<Packed, Error> {
    let (file, path) = staging.file("layer")?;
    let (file, packed) = pack::pack(delta, level, file, progress).map_err(fault)?;
    staging.keep(file, &path, Blob { digest: packed.digest, size: packed.size })?;
    Ok(packed)
}

impl Known {
    /// All of a version.
    pub(crate) fn version(store: &Store, version: &Version) -> Result<Known, Error> {
        let damaged = |what: &str| Error::Damaged { digest: version.digest, what: what.to_owned() };
        let (boot, root): (Vec<_>, Vec<_>) = layers(store, &version.digest)?
            .into_iter()
            .partition(|(layer, _)| layer.get(oci::A_LAYER).is_some());
        let image: Manifest = store.document(&version.digest)?;
        let boot_digest = image.annotations.get(oci::A_BOOT);
        let manifest = store
            .index()?
            .manifests
            .into_iter()
            .find(|found| Some(&found.digest) == boot_digest)
            .ok_or_else(|| damaged("what it boots is not in the index"))?;
        let layer = boot.into_iter().map(|(_, packed)| packed).next();
        let release = version.boot.kernel_release.clone();
        let boot = Some(KnownBoot { manifest, layer, release, modules: Vec::new() });
        Ok(Known { layers: root.into_iter().map(|(_, packed)| packed).collect(), boot })
    }

    /// What of it an import does not bring itself.
    pub(crate) fn borrowed(self, staging: &Staging<'_>) -> Known {
        let brought = |digest: &str| digest.parse().is_ok_and(|digest| staging.holds(&digest));
        let boot = self.boot.as_ref();
        let layers = self.layers.iter().chain(boot.and_then(|boot| boot.layer.as_ref()));
        let layers = layers.filter(|layer| !staging.holds(&layer.digest)).cloned().collect();
        let boot = self.boot.clone().filter(|boot| !brought(&boot.manifest.digest));
        Known { layers, boot: boot.map(|boot| KnownBoot { layer: None, ..boot }) }
    }

    /// A part that is no longer in the store, or is cut short.
    pub(crate) fn missing(&self, store: &Store) -> Option<Digest> {
        let boot = self.boot.as_ref();
        let layers = self.layers.iter().chain(boot.and_then(|boot| boot.layer.as_ref()));
        let mut parts: Vec<(Digest, u64)> =
            layers.map(|layer| (layer.digest, layer.size)).collect();
        if let Some(boot) = boot {
            // A digest that is none came from a cache somebody wrote into.
            let digest = boot.manifest.digest.parse().unwrap_or(Digest([0; 32]));
            let Ok(manifest) = store.document::<Manifest>(&digest) else { return Some(digest) };
            let beside = manifest.layers.iter().chain([&manifest.config]);
            parts.extend(beside.filter_map(|part| Some((part.digest.parse().ok()?, part.size))));
        }
        let there = |digest: &Digest, size: u64| {
            std::fs::metadata(store.blob_path(digest)).is_ok_and(|meta| meta.len() == size)
        };
        parts.into_iter().find(|(digest, size)| !there(digest, *size)).map(|(digest, _)| digest)
    }
}

/// The layers of an image of ours with what is said of them.
fn layers(store: &Store, image: &Digest) -> Result<Vec<(Descriptor, Packed)>, Error> {
    let damaged = |what: &str| Error::Damaged { digest: *image, what: what.to_owned() };
    let manifest: Manifest = store.document(image)?;
    let config = manifest.config.digest.parse().map_err(|_| damaged("it has no configuration"))?;
    let config: Config = store.document(&config)?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(damaged("its configuration counts other layers than its manifest"));
    }
    let each = manifest.layers.into_iter().zip(diff_ids).map(|(layer, diff_id)| {
        let figure = |key| layer.get(key).and_then(|text| text.parse::<u64>().ok());
        let packed = Packed {
            digest: layer.digest.parse().map_err(|_| damaged("a layer has no digest"))?,
            size: layer.size,
            diff_id,
            unpacked: figure(oci::A_UNPACKED).ok_or_else(|| damaged("no unpacked size"))?,
            inodes: figure(oci::A_INODES).ok_or_else(|| damaged("no count of inodes"))?,
        };
        Ok((layer, packed))
    });
    each.collect()
}

/// Whether what lies above a base changes its modules, its firmware, or the link to its kernel.
fn touches_boot(base: &Tree, root: &Tree) -> Result<bool, Fault> {
    let delta = between(base, root)?;
    let inside = |path: &[u8]| {
        let path = path.strip_prefix(b"usr/").unwrap_or(path);
        path.starts_with(b"lib/modules/")
            || path.starts_with(b"lib/firmware/")
            || matches!(path, b"lib" | b"lib/modules" | b"lib/firmware" | b"boot" | b"vmlinuz")
    };
    let is_dir = |tree: &Tree, path: &[u8]| {
        tree.get(path).is_some_and(|inode| matches!(inode.kind, Kind::Dir))
    };
    let gone = delta.gone.iter().map(Vec::as_slice);
    let mut names = gone.chain(delta.entries.iter().map(|(path, ..)| *path));
    // A directory in both has another time at most.
    Ok(names.any(|path| inside(path) && !(is_dir(base, path) && is_dir(root, path))))
}

//! `koboshi image import NAME PATH`: from whatever the operator has to a version in the store.

use std::io::ErrorKind;
use std::path::Path;

use jiff::Timestamp;

use crate::Digest;
use crate::boot;
use crate::error::{Error, Fault};
use crate::kernel;
use crate::layer::{self, Delta};
use crate::log::{self, Act, By};
use crate::manifest;
use crate::modules::{self, Modules};
use crate::oci::{self, Descriptor, Index};
use crate::source::{self, Limits, Reading, Spool};
use crate::stack::{Known, KnownBoot, Packs, Source};
use crate::staging::Staging;
use crate::store::Store;
use crate::tree::{Kind, Member, Tree};
use crate::version::{Version, check_name, newest};

/// How an image is imported.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Who made it.
    pub author: Option<String>,
    /// What for.
    pub reason: Option<String>,
    /// How it came to be, for the log: `import`, `build`, …
    pub act: &'static str,
    /// What it was made from; else the newest version of the name.
    pub parent: Option<Digest>,
    /// zstd's, for the root.
    pub level: i32,
    /// Which of the kernel's modules the root keeps; the initramfs brings its own.
    pub modules: Modules,
    /// What an archive may claim.
    pub limits: Limits,
}

impl Default for ImportOptions {
    fn default() -> ImportOptions {
        // zstd 6: 8 % smaller than 3 on a Debian root of 430 MB, for 7 processor seconds instead of
        // 2; a root is packed once and fetched by every machine of its role.
        ImportOptions {
            author: None,
            reason: None,
            act: "import",
            parent: None,
            level: 6,
            modules: Modules::All,
            limits: Limits::default(),
        }
    }
}

/// How far an import or a build is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A step of a build begins, or says something.
    Step(String),
    /// A compressed archive is being unpacked.
    Unpacking {
        /// Bytes so far.
        bytes: u64,
    },
    /// The source is being read.
    Reading {
        /// Names so far.
        entries: u64,
    },
    /// Blobs come from a registry.
    Fetching {
        /// Bytes so far.
        done: u64,
        /// Of how many.
        total: u64,
    },
    /// Blobs go to a registry.
    Sending {
        /// Bytes so far.
        done: u64,
        /// Of how many.
        total: u64,
    },
    /// The kernel's modules are being packed.
    Modules {
        /// Kernel release.
        release: String,
    },
    /// The root is being made a squashfs.
    Squashing {
        /// Bytes so far.
        done: u64,
        /// Of about how many.
        total: u64,
    },
    /// The root is being packed.
    Packing {
        /// Bytes so far.
        done: u64,
        /// Of how many.
        total: u64,
    },
}

/// What an import did.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The version.
    pub version: Version,
    /// False: the newest version had the very same content, and no other was made.
    pub new: bool,
    /// Worth telling the operator.
    pub warnings: Vec<String>,
}

/// Imports a root file system with its kernel: a directory, a tar (plain or compressed with gzip,
/// zstd or xz), an OCI or docker archive, or an OCI layout.
pub fn import(
    store: &Store,
    name: &str,
    source: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Imported, Error> {
    import_tree(store, name, source, options, progress, &mut |reading| {
        source::read(source, reading)
    })
}

/// Imports whatever `read` brings; `source` is its name in messages.
pub(crate) fn import_tree(
    store: &Store,
    name: &str,
    source: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress),
    read: &mut dyn FnMut(&mut Reading<'_>) -> Result<Source, Error>,
) -> Result<Imported, Error> {
    import_stack(store, name, source, options, progress, read).map(|(imported, _)| imported)
}

/// The same, and for every stage of the source what of it lies in the store now.
pub(crate) fn import_stack(
    store: &Store,
    name: &str,
    source: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress),
    read: &mut dyn FnMut(&mut Reading<'_>) -> Result<Source, Error>,
) -> Result<(Imported, Vec<Known>), Error> {
    // A full disk is the store's misfortune, not the source's fault.
    import_inner(store, name, source, options, progress, read).map_err(|error| match error {
        Error::Source { fault: Fault::Io(source), .. } if is_full(&source) => Error::Io {
            what: format!("writing to the image store {}", store.dir().display()),
            source,
        },
        other => other,
    })
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn import_inner(
    store: &Store,
    name: &str,
    source: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress),
    read: &mut dyn FnMut(&mut Reading<'_>) -> Result<Source, Error>,
) -> Result<(Imported, Vec<Known>), Error> {
    check_name(name)?;
    let mut staging = Staging::begin(store)?;
    let fault = Error::source(source);
    let work = staging.dir().to_owned();
    let mut reading = Reading {
        spool: Spool::new(&work),
        limits: options.limits,
        warnings: Vec::new(),
        progress: &mut *progress,
    };
    let mut made = read(&mut reading)?;
    let mut warnings = reading.warnings;
    let root = made.root().clone();
    let left_out: Vec<_> = made.trees().map(layer::unspeakable).collect();
    warnings.extend(left_out.into_iter().next_back().unwrap_or_default());
    let boots: Vec<Tree> = made.trees().map(layer::take_boot).collect();
    // The layer of /boot will lie below all others, whichever of them brought it: from the lowest on, the
    // directory is as the highest has it.
    let top = made.root().get(b"boot").filter(|top| matches!(top.kind, Kind::Dir)).cloned();
    let nothing_below = made.known.layers.is_empty();
    if let Some(top) = top {
        for tree in made.trees().skip(usize::from(nothing_below)) {
            if tree.get(b"boot").is_none_or(|there| matches!(there.kind, Kind::Dir)) {
                tree.add(b"boot", Member::Inode(top.clone())).map_err(&fault)?;
            }
        }
    }
    let packs = if made.stages.len() > 1 { Packs::of(store)? } else { Packs::default() };
    let boot = match made.same_boot(&boots, options.modules).map_err(&fault)? {
        Some(boot) => boot,
        None => {
            let kernel = kernel::find(&root).map_err(&fault)?;
            kernel::check_init(&root).map_err(&fault)?;
            let release = kernel.release.clone();
            progress(Progress::Modules { release });
            let segments = boot::segments(&root, &kernel, &work).map_err(&fault)?;
            warnings.extend(segments.warnings());
            let manifest = manifest::boot(&mut staging, &kernel, &segments)?;
            let layer = match &boots[..] {
                [.., last] if last.len() > 0 => {
                    let came = made.whole.as_ref().and_then(|whole| whole.boot.as_ref());
                    let delta = Delta::whole(last);
                    Some(packs.or_pack(
                        &mut staging,
                        &delta,
                        came,
                        options.level,
                        &fault,
                        progress,
                    )?)
                }
                _ => None,
            };
            KnownBoot { manifest, layer, release: kernel.release, modules: segments.paths }
        }
    };
    kernel::check_init(&root).map_err(&fault)?;
    made.trees()
        .for_each(|tree| modules::prune(tree, &boot.release, options.modules, &boot.modules));
    let upto = made.pack(&mut staging, &packs, options.level, &fault, progress)?;
    let layers = upto.last().unwrap_or(&made.known.layers).clone();
    let image = manifest::image(&mut staging, &boot, &layers, made.whole.as_ref())?;

    let with_boot = |layers| Known { layers, boot: Some(boot.clone()) };
    let borrowed = with_boot(layers).borrowed(&staging);
    let (new, descriptor) = staging.commit(|index| {
        if let Some(digest) = borrowed.missing(store) {
            let what = "it was removed meanwhile: do it again".to_owned();
            return Err(Error::Damaged { digest, what });
        }
        Ok(enter(index, name, image, boot.manifest.clone(), options))
    })?;
    let version = store.version(&store.index()?, &descriptor)?;
    Ok((Imported { version, new, warnings }, upto.into_iter().map(with_boot).collect()))
}

/// Gives the image its number in the index, unless the newest version is the very same.
fn enter(
    index: &mut Index,
    name: &str,
    image: Descriptor,
    boot: Descriptor,
    options: &ImportOptions,
) -> (bool, (bool, Descriptor)) {
    let last = newest(&index.manifests, name);
    if let Some((_, last)) = last.filter(|(_, last)| last.digest == image.digest) {
        return (false, (false, last.clone()));
    }
    let removed = index.annotations.get(&oci::last_key(name)).and_then(|text| text.parse().ok());
    let version = last.map_or(0, |(version, _)| version).max(removed.unwrap_or(0)) + 1;
    let parent = match options.parent {
        Some(parent) => Some(parent.to_string()),
        None => last.map(|(_, last)| last.digest.clone()),
    };
    let mut image = image
        .with(oci::REF_NAME, format!("{name}:{version}"))
        .with(oci::CREATED, Timestamp::now())
        .with(oci::A_NAME, name)
        .with(oci::A_VERSION, version);
    let said = [
        (oci::A_PARENT, parent),
        (oci::A_AUTHOR, options.author.clone()),
        (oci::A_REASON, options.reason.clone()),
    ];
    for (key, value) in said {
        if let Some(value) = value {
            image = image.with(key, value);
        }
    }
    // Listed too, or tools that clear away what the index does not lead to would take it.
    if !index.manifests.iter().any(|found| found.digest == boot.digest) {
        index.manifests.push(boot);
    }
    index.manifests.push(image.clone());
    let by = By { author: options.author.clone(), reason: options.reason.clone() };
    log::note(index, Act::named(options.act, name, version, image.digest.parse().ok(), &by));
    (true, (true, image))
}

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
use crate::modules::{self, Modules};
use crate::oci::{self, Annotations, Config, ContainerConfig, Descriptor, Index, Manifest, RootFs};
use crate::pack::{self, Packed};
use crate::source::{self, Limits, Reading, Spool};
use crate::staging::Staging;
use crate::store::Store;
use crate::tree::Tree;
use crate::version::{Blob, Version, check_name, newest};

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
    read: &mut dyn FnMut(&mut Reading<'_>) -> Result<Tree, Error>,
) -> Result<Imported, Error> {
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
    read: &mut dyn FnMut(&mut Reading<'_>) -> Result<Tree, Error>,
) -> Result<Imported, Error> {
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
    let mut tree = read(&mut reading)?;
    let mut warnings = reading.warnings;
    let kernel = kernel::find(&tree).map_err(&fault)?;
    kernel::check_init(&tree).map_err(&fault)?;

    progress(Progress::Modules { release: kernel.release.clone() });
    let segments = boot::segments(&tree, &kernel, &work).map_err(&fault)?;
    if let [first, second @ ..] = &segments.firmware_missing[..] {
        let more = second.first().map(|second| format!(", {second}")).unwrap_or_default();
        warnings.push(format!(
            "{} firmware files that its drivers name are not in the image ({first}{more} …): install \
             Debian's firmware-… packages into the root if the hardware needs them",
            segments.firmware_missing.len()
        ));
    }
    let kernel_blob = staging.content(&kernel.content)?;
    let microcode = segments.microcode.as_deref().map(|bytes| staging.bytes(bytes)).transpose()?;
    let packed = staging.bytes(&segments.modules)?;
    let descriptor = Descriptor::new(oci::MODULES, packed.digest, packed.size)
        .with("dev.koboshi.modules", segments.paths.len())
        .with("dev.koboshi.firmware", segments.firmware_count)
        .with(oci::A_UNPACKED, segments.modules_unpacked);
    let boot = boot_manifest(&mut staging, &kernel.release, kernel_blob, microcode, descriptor)?;

    modules::prune(&mut tree, &kernel.release, options.modules, &segments.paths);
    warnings.extend(layer::unspeakable(&mut tree));
    layer::take_boot(&mut tree);
    let (file, path) = staging.file("root")?;
    let (file, root) =
        pack::pack(&Delta::whole(&tree), options.level, file, progress).map_err(&fault)?;
    staging.keep(file, &path, Blob { digest: root.digest, size: root.size })?;
    let image = image_manifest(&mut staging, &[root], &boot)?;

    let (new, descriptor) = staging.commit(|index| Ok(enter(index, name, image, boot, options)))?;
    let version = store.version(&store.index()?, &descriptor)?;
    Ok(Imported { version, new, warnings })
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
    let version = last.map_or(0, |(version, _)| version) + 1;
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

fn boot_manifest(
    staging: &mut Staging<'_>,
    release: &str,
    kernel: Blob,
    microcode: Option<Blob>,
    modules: Descriptor,
) -> Result<Descriptor, Error> {
    let empty = staging.bytes(b"{}")?;
    let kernel = Descriptor::new(oci::KERNEL, kernel.digest, kernel.size);
    let microcode = microcode.map(|blob| Descriptor::new(oci::MICROCODE, blob.digest, blob.size));
    let manifest = Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST.to_owned(),
        artifact_type: Some(oci::BOOT.to_owned()),
        config: Descriptor::new(oci::EMPTY, empty.digest, empty.size),
        layers: [kernel].into_iter().chain(microcode).chain([modules]).collect(),
        annotations: Annotations::from([(oci::A_RELEASE.to_owned(), release.to_owned())]),
    };
    let blob = staging.bytes(&oci::to_bytes(&manifest))?;
    let mut descriptor = Descriptor::new(oci::MANIFEST, blob.digest, blob.size);
    descriptor.artifact_type = manifest.artifact_type;
    Ok(descriptor)
}

/// An ordinary image; only an annotation leads to what koboshi boots beside it.
fn image_manifest(
    staging: &mut Staging<'_>,
    layers: &[Packed],
    boot: &Descriptor,
) -> Result<Descriptor, Error> {
    let config = Config {
        architecture: oci::architecture().to_owned(),
        os: "linux".to_owned(),
        config: ContainerConfig { cmd: vec!["/sbin/init".to_owned()] },
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: layers.iter().map(|layer| layer.diff_id).collect(),
        },
    };
    let config = staging.bytes(&oci::to_bytes(&config))?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST.to_owned(),
        artifact_type: None,
        config: Descriptor::new(oci::CONFIG, config.digest, config.size),
        layers: layers
            .iter()
            .map(|layer| {
                Descriptor::new(oci::LAYER_ZSTD, layer.digest, layer.size)
                    .with(oci::A_UNPACKED, layer.unpacked)
                    .with(oci::A_INODES, layer.inodes)
            })
            .collect(),
        annotations: Annotations::from([(oci::A_BOOT.to_owned(), boot.digest.clone())]),
    };
    let blob = staging.bytes(&oci::to_bytes(&manifest))?;
    let mut descriptor = Descriptor::new(oci::MANIFEST, blob.digest, blob.size);
    descriptor.platform = Some(oci::Platform {
        architecture: oci::architecture().to_owned(),
        os: "linux".to_owned(),
        rest: Default::default(),
    });
    Ok(descriptor)
}

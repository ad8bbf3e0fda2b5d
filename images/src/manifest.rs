//! The documents of an image: the manifest of its layers, and that of what is booted beside them.

use crate::boot::Segments;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::oci::{self, Annotations, Config, ContainerConfig, Descriptor, Manifest, RootFs};
use crate::pack::Packed;
use crate::stack::{KnownBoot, Whole};
use crate::staging::Staging;
use crate::version::Blob;

/// Kernel, microcode and modules of an image, as an artefact of their own.
pub(crate) fn boot(
    staging: &mut Staging<'_>,
    kernel: &Kernel,
    segments: &Segments,
) -> Result<Descriptor, Error> {
    let blob = staging.content(&kernel.content)?;
    let of_kernel = Descriptor::new(oci::KERNEL, blob.digest, blob.size);
    let microcode = segments.microcode.as_deref().map(|bytes| staging.bytes(bytes)).transpose()?;
    let microcode = microcode.map(|blob| Descriptor::new(oci::MICROCODE, blob.digest, blob.size));
    let packed = staging.bytes(&segments.modules)?;
    let modules = Descriptor::new(oci::MODULES, packed.digest, packed.size)
        .with("dev.koboshi.modules", segments.paths.len())
        .with("dev.koboshi.firmware", segments.firmware_count)
        .with(oci::A_UNPACKED, segments.modules_unpacked);
    let empty = staging.bytes(b"{}")?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST.to_owned(),
        artifact_type: Some(oci::BOOT.to_owned()),
        config: Descriptor::new(oci::EMPTY, empty.digest, empty.size),
        layers: [of_kernel].into_iter().chain(microcode).chain([modules]).collect(),
        annotations: Annotations::from([(oci::A_RELEASE.to_owned(), kernel.release.clone())]),
    };
    let blob = staging.bytes(&oci::to_bytes(&manifest))?;
    let mut descriptor = Descriptor::new(oci::MANIFEST, blob.digest, blob.size);
    descriptor.artifact_type = manifest.artifact_type;
    Ok(descriptor)
}

/// An ordinary image; only annotations tell the layer of /boot from those of the root, and lead to
/// what koboshi boots beside them. One that came with just these layers stays as it came: its
/// digest is known elsewhere.
pub(crate) fn image(
    staging: &mut Staging<'_>,
    boot: &KnownBoot,
    layers: &[Packed],
    came: Option<&Whole>,
) -> Result<Descriptor, Error> {
    let blob = match came.filter(|whole| is_made_of(whole, boot, layers)) {
        Some(whole) => {
            staging.bytes(&whole.config)?;
            staging.bytes(&whole.manifest)?
        }
        None => made(staging, boot, layers)?,
    };
    let mut descriptor = Descriptor::new(oci::MANIFEST, blob.digest, blob.size);
    descriptor.platform = Some(oci::Platform {
        architecture: oci::architecture().to_owned(),
        os: "linux".to_owned(),
        rest: Default::default(),
    });
    Ok(descriptor)
}

fn made(staging: &mut Staging<'_>, boot: &KnownBoot, layers: &[Packed]) -> Result<Blob, Error> {
    let all = || boot.layer.iter().chain(layers);
    let config = Config {
        architecture: oci::architecture().to_owned(),
        os: "linux".to_owned(),
        config: ContainerConfig { cmd: vec!["/sbin/init".to_owned()] },
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: all().map(|layer| layer.diff_id).collect(),
        },
    };
    let config = staging.bytes(&oci::to_bytes(&config))?;
    let described = |layer: &Packed| {
        Descriptor::new(oci::LAYER_ZSTD, layer.digest, layer.size)
            .with(oci::A_UNPACKED, layer.unpacked)
            .with(oci::A_INODES, layer.inodes)
    };
    let of_boot =
        boot.layer.iter().map(|layer| described(layer).with(oci::A_LAYER, oci::LAYER_BOOT));
    let manifest = Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST.to_owned(),
        artifact_type: None,
        config: Descriptor::new(oci::CONFIG, config.digest, config.size),
        layers: of_boot.chain(layers.iter().map(described)).collect(),
        annotations: Annotations::from([(oci::A_BOOT.to_owned(), boot.manifest.digest.clone())]),
    };
    staging.bytes(&oci::to_bytes(&manifest))
}

/// Whether an image that came is one of ours with these layers, which boots the same.
fn is_made_of(whole: &Whole, boot: &KnownBoot, layers: &[Packed]) -> bool {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&whole.manifest) else { return false };
    let ours = |found: &Descriptor| {
        found.media_type == oci::LAYER_ZSTD
            && [oci::A_UNPACKED, oci::A_INODES]
                .iter()
                .all(|key| found.get(key).is_some_and(|figure| figure.parse::<u64>().is_ok()))
    };
    let all = boot.layer.iter().chain(layers).map(|layer| (layer.digest.to_string(), layer.size));
    let of_boot = |found: &Descriptor| found.get(oci::A_LAYER) == Some(oci::LAYER_BOOT);
    manifest.media_type == oci::MANIFEST
        && manifest.annotations.get(oci::A_BOOT) == Some(&boot.manifest.digest)
        && manifest.layers.iter().all(ours)
        && all.eq(manifest.layers.iter().map(|layer| (layer.digest.clone(), layer.size)))
        && manifest.layers.iter().enumerate().all(|(at, layer)| {
            of_boot(layer) == (at == 0 && boot.layer.is_some())
                && of_boot(layer) == layer.get(oci::A_LAYER).is_some()
        })
        && serde_json::from_slice::<Config>(&whole.config).is_ok_and(|config| {
            config.rootfs.diff_ids.iter().eq(boot.layer.iter().chain(layers).map(|l| &l.diff_id))
        })
}

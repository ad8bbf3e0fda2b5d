//! `koboshi image squash IMAGE`: a squashfs of each layer of the root, for roles with `root = "overlay"`.
//!
//! A form of the same layer, made from its packed tar by mksquashfs and kept beside it: whoever has
//! the tar's digest finds it, also from another image with the very same layer. What is gone in a
//! layer is a name in its tar, and a device in its squashfs.

mod marks;

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use crate::digest::Hashing;
use crate::error::Error;
use crate::import::Progress;
use crate::oci::{self, Annotations, Descriptor, Index, Manifest};
use crate::staging::Staging;
use crate::store::Store;
use crate::version::{Blob, Layer, Version};

const TOOL: &str = "mksquashfs";
const STEP: &str = "squashing the root";

/// Makes the squashfs of a version's root; says whether there was none before.
pub fn squash(
    store: &Store,
    reference: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Version, bool), Error> {
    let version = store.show(reference)?;
    let without: Vec<Layer> =
        version.boot.layers.iter().filter(|layer| layer.squashfs.is_none()).copied().collect();
    for layer in &without {
        squash_layer(store, layer, progress)?;
    }
    Ok((store.show(&version.to_string())?, !without.is_empty()))
}

fn squash_layer(
    store: &Store,
    layer: &Layer,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Error> {
    // A bit that rotted in the store would get a digest of its own here, and be believed.
    store.verify_blob(&layer.blob)?;
    let mut staging = Staging::begin(store)?;
    let path = staging.dir().join("squashfs");
    // mksquashfs leaves the tar's own top out, and gives the one it makes the time of its making:
    // twice the same root is two squashfs that differ in those four bytes.
    let mut command = Command::new(TOOL);
    command
        .arg("-")
        .arg(&path)
        .args(["-tar", "-comp", "zstd", "-noappend", "-no-progress", "-quiet"])
        .args(["-root-mode", "0755", "-root-uid", "0", "-root-gid", "0"]);
    run(store, layer, command, progress)?;
    let file = File::open(&path).map_err(Error::io("opening", &path))?;
    let mut hashing = Hashing::new(io::sink());
    io::copy(&mut io::BufReader::with_capacity(1 << 18, &file), &mut hashing)
        .map_err(Error::io("reading", &path))?;
    let (_, digest, size) = hashing.finish();
    let blob = staging.keep(file, &path, Blob { digest, size })?;
    let root = layer.blob.digest.to_string();
    let entry = manifest(&mut staging, blob, &root)?.with(oci::A_SQUASHFS_OF, &root);
    staging.commit(|index| {
        let known = index.manifests.iter().any(|found| found.digest == entry.digest);
        if !known {
            index.manifests.push(entry);
        }
        Ok((!known, ()))
    })
}

/// The squashfs of the root with this digest, if the index leads to one and it is there: one that
/// is not whole is as good as none, and making it once more heals it.
pub(crate) fn squashed(store: &Store, index: &Index, root: &str) -> Option<Blob> {
    let ours = |found: &&Descriptor| found.get(oci::A_SQUASHFS_OF) == Some(root);
    let found = index.manifests.iter().rev().find(ours)?;
    let manifest: Manifest = store.document(&found.digest.parse().ok()?).ok()?;
    let layer = manifest.layers.first()?;
    let blob = Blob { digest: layer.digest.parse().ok()?, size: layer.size };
    let there = std::fs::metadata(store.blob_path(&blob.digest)).map(|meta| meta.len());
    (there.ok() == Some(blob.size)).then_some(blob)
}

/// Feeds the plain tar to mksquashfs, and waits for it.
fn run(
    store: &Store,
    layer: &Layer,
    mut command: Command,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Error> {
    let path = store.blob_path(&layer.blob.digest);
    let packed = File::open(&path).map_err(Error::io("opening", &path))?;
    let mut tar = zstd::stream::read::Decoder::new(packed).map_err(Error::io("reading", &path))?;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::MissingTool { tool: TOOL.to_owned(), package: "squashfs-tools".to_owned() }
            }
            _ => Error::Io { what: format!("starting {TOOL}"), source: error },
        })?;
    let mut stdin = child.stdin.take().expect("stdin was asked to be a pipe");
    let mut stderr = child.stderr.take().expect("stderr was asked to be a pipe");
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        // It warns of each attribute it does not know; the rest of a flood is of no use.
        let _ = (&mut stderr).take(64 * 1024).read_to_end(&mut said);
        let _ = io::copy(&mut stderr, &mut io::sink());
        String::from_utf8_lossy(&said).trim().to_owned()
    });
    let fed = feed(&mut tar, &mut stdin, layer.unpacked, progress);
    drop(stdin);
    let status = child.wait().map_err(|source| Error::Io { what: STEP.to_owned(), source })?;
    let said = said.join().unwrap_or_default();
    if !status.success() {
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(8)..].join("\n");
        return Err(Error::Build {
            step: STEP.to_owned(),
            what: format!("{TOOL}: {status}\n{last}"),
        });
    }
    fed.map_err(|source| Error::Io { what: STEP.to_owned(), source })
}

fn feed(
    tar: &mut impl Read,
    to: &mut impl Write,
    total: u64,
    progress: &mut dyn FnMut(Progress),
) -> io::Result<()> {
    marks::devices(tar, to)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut done = 0;
    loop {
        let length = match tar.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..length])?;
        done += length as u64;
        progress(Progress::Squashing { done: done.min(total), total });
    }
}

fn manifest(staging: &mut Staging<'_>, squashfs: Blob, root: &str) -> Result<Descriptor, Error> {
    let empty = staging.bytes(b"{}")?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST.to_owned(),
        artifact_type: Some(oci::SQUASHED.to_owned()),
        config: Descriptor::new(oci::EMPTY, empty.digest, empty.size),
        layers: vec![Descriptor::new(oci::SQUASHFS, squashfs.digest, squashfs.size)],
        annotations: Annotations::from([(oci::A_SQUASHFS_OF.to_owned(), root.to_owned())]),
    };
    let blob = staging.bytes(&oci::to_bytes(&manifest))?;
    let mut descriptor = Descriptor::new(oci::MANIFEST, blob.digest, blob.size);
    descriptor.artifact_type = manifest.artifact_type;
    Ok(descriptor)
}

//! `koboshi image pull`: the blobs of an image come into a directory beside the store, one by one
//! and whole, and then the image is imported from there like any OCI layout: nothing half is ever
//! in the store, and what is there already is not fetched.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use ureq::http::StatusCode;

use super::client::{Client, header};
use super::reference::{Named, Remote};
use super::{MANIFESTS, Options};
use crate::digest::Hashing;
use crate::import::{ImportOptions, Imported, Progress, import};
use crate::oci::{self, Descriptor, Index, Manifest};
use crate::store::Store;
use crate::version::Blob;
use crate::{Digest, Error};

/// Lists in lists.
const NESTING_MAX: usize = 3;
/// More layers than any engine stacks.
const LAYERS_MAX: usize = 512;
/// Broken off as often without a byte of progress, a download is given up.
const TRIES: u32 = 4;
/// A download nobody went on with is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(7 * 24 * 3600);

/// Fetches an image and imports it as the next version of `name`.
pub fn pull(
    store: &Store,
    name: &str,
    remote: &Remote,
    how: &Options,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Imported, Error> {
    crate::check_name(name)?;
    let mut client = Client::new(remote, how, "pull")?;
    progress(Progress::Step(format!("asks {} for the image", remote.host)));
    let (manifest, bytes) = find(&mut client, remote, options)?;
    let parsed: Manifest = parse(&client, &bytes)?;
    let blobs = wanted(&client, &parsed, options)?;

    let dir = store.dir().join("pull");
    fs::create_dir_all(&dir).map_err(Error::io("making", &dir))?;
    forget(&dir);
    let work = tempfile::Builder::new()
        .prefix("layout-")
        .tempdir_in(&dir)
        .map_err(Error::io("making a directory in", &dir))?;
    let layout = work.path().join("blobs/sha256");
    fs::create_dir_all(&layout).map_err(Error::io("making", &layout))?;
    let total = blobs.iter().map(|blob| blob.size).sum();
    let mut done = 0;
    let mut fetched = Vec::new();
    for blob in &blobs {
        let to = layout.join(blob.digest.hex());
        if to.exists() {
            continue;
        }
        // A copy in the store may have rotted: the import reads every byte again and says so.
        let here = store.blob_path(&blob.digest);
        if fs::metadata(&here).is_ok_and(|meta| meta.len() == blob.size) && same(&here, blob) {
            fs::hard_link(&here, &to).map_err(Error::io("linking", &here))?;
        } else {
            let path = fetch(&mut client, &dir, blob, &mut |bytes| {
                progress(Progress::Fetching { done: done + bytes, total });
            })?;
            fs::hard_link(&path, &to).map_err(Error::io("linking", &path))?;
            fetched.push(path);
        }
        done += blob.size;
    }
    let index = Index { manifests: vec![manifest.clone()], ..Index::empty() };
    let digest: Digest = manifest.digest.parse().map_err(|_| client.error("names no digest"))?;
    for (path, bytes) in [
        (work.path().join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        (work.path().join("index.json"), oci::to_bytes(&index)),
        (layout.join(digest.hex()), bytes),
    ] {
        fs::write(&path, bytes).map_err(Error::io("writing", &path))?;
    }
    let said = || Some(format!("pulled from {remote}, {}", manifest.digest));
    let options = ImportOptions { reason: options.reason.clone().or_else(said), ..options.clone() };
    let imported = import(store, name, work.path(), &options, progress)?;
    for path in fetched {
        // The next pull would have it again, and forget it in a week.
        let _ = fs::remove_file(path);
    }
    Ok(imported)
}

/// The manifest for this kind of machine, its bytes checked against whatever named it.
fn find(
    client: &mut Client,
    remote: &Remote,
    options: &ImportOptions,
) -> Result<(Descriptor, Vec<u8>), Error> {
    let mut reference = remote.reference();
    let mut by = match &remote.what {
        Named::Digest(digest) => Some((*digest, None)),
        Named::Tag(_) => None,
    };
    for _ in 0..NESTING_MAX {
        let (response, bytes) = client.document(&format!("manifests/{reference}"), MANIFESTS)?;
        let found = Digest::of(&bytes);
        let size = bytes.len() as u64;
        if let Some((digest, length)) = by
            && (digest != found || length.is_some_and(|length| length != size))
        {
            return Err(client.error(format!("gives another manifest for {digest}: {found}")));
        }
        // Said for a tag as well: a proxy's page of HTML has none, and a bent one another.
        if let Some(said) = header(&response, "docker-content-digest")
            && said.parse::<Digest>().is_ok_and(|said| said != found)
        {
            return Err(client.error(format!("says {said} and gives {found}")));
        }
        let value: serde_json::Value = parse(client, &bytes)?;
        let text = |key: &str| value.get(key).and_then(|value| value.as_str()).map(str::to_owned);
        if value.get("schemaVersion").and_then(serde_json::Value::as_u64) != Some(2) {
            return Err(client.error(format!(
                "gives a manifest for {reference} that is neither docker's schema 2 nor OCI's: push \
                 the image once more with a tool of today"
            )));
        }
        let media_type = text("mediaType").or_else(|| header(&response, "content-type"));
        let is_list = value.get("manifests").is_some();
        if !is_list {
            let media_type = media_type.unwrap_or_else(|| oci::MANIFEST.to_owned());
            return Ok((Descriptor::new(&media_type, found, size), bytes));
        }
        let list: Index = parse(client, &bytes)?;
        let next = choose(client, &list)?;
        let digest: Digest = next
            .digest
            .parse()
            .map_err(|bad| client.error(format!("{bad}; only sha256 is read")))?;
        if next.size > oci::DOCUMENT_MAX.min(options.limits.unpacked) {
            return Err(client.error(format!("names a manifest of {} bytes", next.size)));
        }
        by = Some((digest, Some(next.size)));
        reference = digest.to_string();
    }
    Err(client.error("has lists within lists within lists"))
}

/// The one of a list that is for this kind of machine.
fn choose<'a>(client: &Client, list: &'a Index) -> Result<&'a Descriptor, Error> {
    let arch = oci::architecture();
    let fits = |found: &&Descriptor| {
        found.artifact_type.is_none()
            && found.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == arch)
    };
    list.manifests.iter().find(fits).ok_or_else(|| {
        let named = list.manifests.iter().filter_map(|found| found.platform.as_ref());
        let there: Vec<String> = named
            .take(8)
            .map(|p| crate::error::shown(format!("{}/{}", p.os, p.architecture).as_bytes()))
            .collect();
        client.error(format!("has no image for linux/{arch} (there: {})", there.join(", ")))
    })
}

/// The blobs of an image, what cannot be one refused.
fn wanted(
    client: &Client,
    manifest: &Manifest,
    options: &ImportOptions,
) -> Result<Vec<Blob>, Error> {
    if manifest.layers.len() > LAYERS_MAX {
        return Err(client.error(format!("names an image of {} layers", manifest.layers.len())));
    }
    if manifest.config.size > oci::DOCUMENT_MAX {
        return Err(
            client.error(format!("names a configuration of {} bytes", manifest.config.size))
        );
    }
    let mut total = 0u64;
    let mut blobs = Vec::new();
    for found in std::iter::once(&manifest.config).chain(&manifest.layers) {
        // Layers that lie at an address of somebody else's.
        if found.rest.contains_key("urls") || found.media_type.contains("foreign") {
            return Err(
                client.error("has a layer that lies elsewhere (foreign); it is not fetched")
            );
        }
        if found.media_type.contains("encrypted") {
            return Err(client.error("has an encrypted layer"));
        }
        let digest = found
            .digest
            .parse()
            .map_err(|bad| client.error(format!("{bad}; only sha256 is read")))?;
        total = total.saturating_add(found.size);
        blobs.push(Blob { digest, size: found.size });
    }
    if total > options.limits.unpacked {
        return Err(client.error(format!(
            "names an image of {total} bytes; at most {} are fetched",
            options.limits.unpacked
        )));
    }
    Ok(blobs)
}

/// Fetches one blob into `dir`, from where an earlier download broke off; its path.
fn fetch(
    client: &mut Client,
    dir: &Path,
    blob: &Blob,
    progress: &mut dyn FnMut(u64),
) -> Result<PathBuf, Error> {
    let path = dir.join(blob.digest.hex());
    let part = dir.join(format!("{}.part", blob.digest.hex()));
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&part)
        .map_err(Error::io("making", &part))?;
    // Two pulls of the same layer: the second waits, and finds it whole.
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|error| Error::io("locking", &part)(error.into()))?;
    if fs::metadata(&path).is_ok_and(|meta| meta.len() == blob.size) && same(&path, blob) {
        return Ok(path);
    }
    let mut failed = 0;
    loop {
        let have = file.metadata().map_err(Error::io("reading", &part))?.len().min(blob.size);
        file.set_len(have).map_err(Error::io("writing", &part))?;
        if have < blob.size {
            let outcome = go_on(client, &mut file, &part, have, blob, progress);
            let now = file.metadata().map_err(Error::io("reading", &part))?.len();
            match outcome {
                Ok(()) => {}
                Err(Broken::Off(error)) => {
                    failed = if now > have { 0 } else { failed + 1 };
                    if failed >= TRIES {
                        return Err(error);
                    }
                    std::thread::sleep(Duration::from_millis(200) * failed);
                    continue;
                }
                Err(Broken::Bad(error)) => {
                    let _ = fs::remove_file(&part);
                    return Err(error);
                }
            }
        }
        let digest = hash(&mut file).map_err(Error::io("reading", &part))?;
        if digest != blob.digest {
            let _ = fs::remove_file(&part);
            return Err(client.error(format!("gives other bytes for {}: {digest}", blob.digest)));
        }
        file.sync_all().map_err(Error::io("writing", &part))?;
        fs::rename(&part, &path).map_err(Error::io("renaming", &part))?;
        return Ok(path);
    }
}

/// Why a download ended early.
enum Broken {
    /// The connection: another try may go on from here.
    Off(Error),
    /// What came is not what was asked for.
    Bad(Error),
}

/// Asks for the rest of a blob, and appends it.
fn go_on(
    client: &mut Client,
    file: &mut File,
    part: &Path,
    have: u64,
    blob: &Blob,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Broken> {
    let url = client.url(&format!("blobs/{}", blob.digest));
    let range = format!("bytes={have}-");
    let ranged = [("range", range.as_str())];
    let headers = if have > 0 { &ranged[..] } else { &[] };
    let mut response = client.send("GET", &url, headers, None).map_err(Broken::Off)?;
    let begin = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let said = header(&response, "content-range").unwrap_or_default();
            if !said.starts_with(&format!("bytes {have}-")) {
                return Err(Broken::Bad(client.error(format!("gives another range: {said}"))));
            }
            have
        }
        // It gives all of it, whatever was asked for.
        StatusCode::OK => 0,
        // What is here is no part of it, to the registry.
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let again = client.error("gives no range of a blob");
            file.set_len(0).map_err(|error| Broken::Bad(Error::io("writing", part)(error)))?;
            return Err(Broken::Off(again));
        }
        status if status.is_server_error() => {
            let what = format!("blob {}: {status}", blob.digest);
            return Err(Broken::Off(client.error(what)));
        }
        _ => {
            let what = format!("blob {}", blob.digest);
            let error = client.check(&mut response, &what).err();
            return Err(Broken::Bad(
                error.unwrap_or_else(|| client.error("answers what is no blob")),
            ));
        }
    };
    let length = header(&response, "content-length").and_then(|text| text.parse::<u64>().ok());
    if let Some(length) = length.filter(|length| begin + length != blob.size) {
        let what = format!("gives {} bytes for {} of {}", begin + length, blob.digest, blob.size);
        return Err(Broken::Bad(client.error(what)));
    }
    let disk = |error| Broken::Bad(Error::io("writing", part)(error));
    file.set_len(begin).map_err(disk)?;
    file.seek(SeekFrom::Start(begin)).map_err(disk)?;
    let mut at = begin;
    let mut reader = response.body_mut().with_config().limit(u64::MAX).reader();
    let mut buf = vec![0u8; 1 << 17];
    loop {
        match reader.read(&mut buf) {
            Ok(0) if at == blob.size => return Ok(()),
            Ok(0) => {
                let what = format!("broke off at byte {at} of {}", blob.digest);
                return Err(Broken::Off(client.error(what)));
            }
            Ok(got) => {
                at += got as u64;
                if at > blob.size {
                    let what = format!("gives more than {} bytes for {}", blob.size, blob.digest);
                    return Err(Broken::Bad(client.error(what)));
                }
                file.write_all(&buf[..got]).map_err(disk)?;
                progress(at);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                let what = format!("broke off at byte {at} of {}: {error}", blob.digest);
                return Err(Broken::Off(client.error(what)));
            }
        }
    }
}

fn hash(file: &mut File) -> std::io::Result<Digest> {
    file.seek(SeekFrom::Start(0))?;
    let mut hashing = Hashing::new(std::io::sink());
    std::io::copy(&mut std::io::BufReader::with_capacity(1 << 18, file), &mut hashing)?;
    Ok(hashing.finish().1)
}

/// Whether a file has the bytes of a blob.
fn same(path: &Path, blob: &Blob) -> bool {
    File::open(path).and_then(|mut file| hash(&mut file)).is_ok_and(|found| found == blob.digest)
}

/// Lets go of downloads nobody went on with, and of layouts of pulls that were killed.
fn forget(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let old = entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|time| {
            SystemTime::now().duration_since(time).is_ok_and(|age| age > FORGOTTEN)
        });
        let path = entry.path();
        if old && path.is_dir() {
            let _ = fs::remove_dir_all(&path);
        } else if old {
            let _ = fs::remove_file(&path);
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(client: &Client, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| client.error(format!("gives what is no manifest: {error}")))
}

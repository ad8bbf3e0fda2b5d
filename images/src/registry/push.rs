//! `koboshi image push`: what the registry lacks of an image is sent, the manifest last, byte for
//! byte as the store has it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use ureq::http::StatusCode;

use super::Options;
use super::client::{Client, header};
use super::reference::{Named, Remote};
use crate::import::Progress;
use crate::oci::{self, Manifest};
use crate::store::Store;
use crate::version::Blob;
use crate::{Digest, Error};

/// Larger blobs are sent in pieces of this size: proxies bound what one request may hold.
const PIECE: u64 = 64 << 20;

/// Sends a version (`web` for the newest, or `web@3`); the digest of its manifest.
pub fn push(
    store: &Store,
    reference: &str,
    remote: &Remote,
    how: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Digest, Error> {
    let version = store.show(reference)?;
    let image: Manifest = store.document(&version.digest)?;
    let path = store.blob_path(&version.digest);
    let bytes = std::fs::read(&path).map_err(Error::io("reading", &path))?;
    let mut client = Client::new(remote, how, "pull,push")?;
    if let Named::Digest(digest) = remote.what
        && digest != version.digest
    {
        return Err(client.error(format!("{version} is {}, not {digest}", version.digest)));
    }
    let blobs = std::iter::once(&image.config).chain(&image.layers);
    let blobs = blobs
        .map(|found| {
            let digest = found.digest.parse().map_err(|_| Error::BadRef(found.digest.clone()))?;
            Ok(Blob { digest, size: found.size })
        })
        .collect::<Result<Vec<Blob>, Error>>()?;
    let total = blobs.iter().map(|blob| blob.size).sum();
    let mut done = 0;
    for blob in &blobs {
        // A bit that rotted here would be refused there, after all of it was sent.
        store.verify_blob(blob)?;
        if !has(&mut client, blob)? {
            send(&mut client, store, blob, &mut |bytes| {
                progress(Progress::Sending { done: done + bytes, total });
            })?;
        }
        done += blob.size;
        progress(Progress::Sending { done, total });
    }
    let url = client.url(&format!("manifests/{}", remote.reference()));
    let media_type = if image.media_type.is_empty() { oci::MANIFEST } else { &image.media_type };
    let length = bytes.len() as u64;
    let mut response = client.send(
        "PUT",
        &url,
        &[("content-type", media_type)],
        Some(&mut || Ok((Box::new(&bytes[..]), length))),
    )?;
    client.check(&mut response, &format!("manifests/{}", remote.reference()))?;
    if let Some(said) = header(&response, "docker-content-digest")
        && said.parse::<Digest>().is_ok_and(|said| said != version.digest)
    {
        return Err(client.error(format!("took {} for {said}", version.digest)));
    }
    Ok(version.digest)
}

/// Whether the repository has a blob already.
fn has(client: &mut Client, blob: &Blob) -> Result<bool, Error> {
    let url = client.url(&format!("blobs/{}", blob.digest));
    let mut response = client.send("HEAD", &url, &[], None)?;
    if response.status() == StatusCode::NOT_FOUND {
        return Ok(false);
    }
    client.check(&mut response, &format!("blobs/{}", blob.digest))?;
    Ok(true)
}

/// OCI distribution spec, "Pushing Blobs": in one request, or in pieces.
fn send(
    client: &mut Client,
    store: &Store,
    blob: &Blob,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let path = store.blob_path(&blob.digest);
    let what = format!("blobs/{}", blob.digest);
    let start = client.url("blobs/uploads/");
    let mut response =
        client.send("POST", &start, &[], Some(&mut || Ok((Box::new(std::io::empty()), 0))))?;
    client.check(&mut response, &what)?;
    // Mounted from another repository of the registry, unasked.
    if response.status() == StatusCode::CREATED {
        return Ok(());
    }
    let mut url = location(client, &start, &response)?;
    let piece = |from: u64, length: u64| -> std::io::Result<(Box<dyn Read>, u64)> {
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(from))?;
        Ok((Box::new(file.take(length)), length))
    };
    let mut sent = 0;
    if blob.size > PIECE {
        while sent < blob.size {
            let length = PIECE.min(blob.size - sent);
            let range = format!("{sent}-{}", sent + length - 1);
            let headers =
                [("content-type", "application/octet-stream"), ("content-range", range.as_str())];
            let mut response =
                client.send("PATCH", &url, &headers, Some(&mut || piece(sent, length)))?;
            client.check(&mut response, &what)?;
            url = location(client, &url, &response)?;
            sent += length;
            progress(sent);
        }
    }
    let mark = if url.contains('?') { '&' } else { '?' };
    let last = format!("{url}{mark}digest={}", super::auth::encoded(&blob.digest.to_string()));
    let headers = [("content-type", "application/octet-stream")];
    let rest = blob.size - sent;
    let mut response = client.send("PUT", &last, &headers, Some(&mut || piece(sent, rest)))?;
    client.check(&mut response, &what)
}

fn location(
    client: &Client,
    from: &str,
    response: &ureq::http::Response<ureq::Body>,
) -> Result<String, Error> {
    let to = header(response, "location").ok_or_else(|| client.error("names no upload"))?;
    client.join(from, &to)
}

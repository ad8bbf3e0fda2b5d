//! Where a role's root comes from: its image's archive or squashfs, or a server's export. What is not
//! there yet keeps the role's machines waiting, with words.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use koboshi_images::{Bootable, Store as Images, Track};
use koboshi_initramfs::contract::{Blob, Root, Source};
use koboshi_pxe::Content;

use crate::plan::Ready;
use crate::site::{NfsRoot, Role, RootMode, Site};

/// A name server that does not answer must not hold up a reload for longer.
const LOOK_UP: Duration = Duration::from_secs(3);
/// Of memory, for the root of an order.
const DUTY_SIZE: &str = "80%";

/// A role's image with its blobs and its root, or in words what is missing.
pub fn ready(images: &Images, role: &Role) -> Result<Ready, String> {
    ready_as(images, role, &role.image.value.to_string())
}

/// The same with another version of its image.
pub fn ready_as(images: &Images, role: &Role, reference: &str) -> Result<Ready, String> {
    let resolved = images.resolve(reference);
    let image = resolved.map_err(|error| format!("{error} ({})", images.dir().display()))?;
    let reference = format!("{}@{}", image.name, image.version);
    let from = match &role.root {
        RootMode::Ram => {
            let layers = image.layers.iter().map(|layer| blob(&layer.blob)).collect();
            Source::Archive { layers, unpacked: image.unpacked() }
        }
        RootMode::Overlay => match image.squashed() {
            Some(squashed) => Source::Squashfs { layers: squashed.iter().map(blob).collect() },
            None => return Err(waits_for_squashfs(&reference)),
        },
        RootMode::Nfs(text) => {
            let nfs = NfsRoot::of(text);
            let server = address(nfs.host)?;
            let (path, options) = (nfs.path.to_string(), nfs.options.clone());
            Source::Nfs { server, path, options, read_only: nfs.read_only }
        }
    };
    let root = Root {
        image: reference,
        tmpfs: role.root_size.to_string(),
        digest: image.digest.to_string(),
        from,
        files: Vec::new(),
    };
    // Only what its machines fetch: an image's archives are not served for its squashfs.
    let rooted = match &role.root {
        RootMode::Ram => image.layers.iter().map(|layer| layer.blob).collect(),
        RootMode::Overlay => image.squashed().unwrap_or_default(),
        RootMode::Nfs(_) => Vec::new(),
    };
    Ok(Ready { blobs: blobs(images, &image, rooted), image, root })
}

/// Where the blobs lie that a machine fetches.
fn blobs(
    images: &Images,
    image: &Bootable,
    rooted: Vec<koboshi_images::Blob>,
) -> HashMap<[u8; 32], Content> {
    let blobs = [image.kernel].into_iter().chain(image.segments.iter().copied()).chain(rooted);
    let file = |blob: koboshi_images::Blob| {
        let path = Arc::new(images.blob_path(&blob.digest));
        (blob.digest.0, Content::File { path, size: blob.size })
    };
    blobs.map(file).collect()
}

/// The image of an order for one boot: it needs no role in the site file.
pub fn for_duty(images: &Images, name: &str) -> Result<Ready, String> {
    let image = images.resolve(name).map_err(|error| {
        format!(
            "{error}: `koboshi image build {name} --publish` makes the one that comes with koboshi"
        )
    })?;
    let layers = image.layers.iter().map(|layer| blob(&layer.blob)).collect();
    let root = Root {
        image: format!("{}@{}", image.name, image.version),
        tmpfs: DUTY_SIZE.to_string(),
        digest: image.digest.to_string(),
        from: Source::Archive { layers, unpacked: image.unpacked() },
        files: Vec::new(),
    };
    let rooted: Vec<_> = image.layers.iter().map(|layer| layer.blob).collect();
    Ok(Ready { blobs: blobs(images, &image, rooted), image, root })
}

fn blob(blob: &koboshi_images::Blob) -> Blob {
    let sha256 = blob.digest.hex();
    Blob { path: format!("/blob/sha256/{sha256}"), sha256, size: blob.size }
}

fn waits_for_squashfs(reference: &str) -> String {
    format!(
        "the squashfs of {reference} is not made yet: the appliance makes it by itself, or \
         `koboshi image squash {reference}` does and says what keeps it"
    )
}

/// Images that roles of this site want a squashfs of and that have none: `web@3`.
pub fn unsquashed(site: &Site, images: &Images) -> BTreeSet<String> {
    let overlays = site.roles.values().filter(|role| role.root == RootMode::Overlay);
    let tracks = images.tracks().unwrap_or_default();
    let references = overlays.flat_map(|role| {
        let image = &role.image.value;
        let track = tracks.get(&image.name).filter(|_| image.version.is_none());
        // What all boot comes first.
        let others = track.map(Track::others).unwrap_or_default();
        let others = others.into_iter().map(|version| format!("{}@{version}", image.name));
        std::iter::once(image.to_string()).chain(others).collect::<Vec<_>>()
    });
    let booted = references.filter_map(|reference| images.resolve(&reference).ok());
    let without = booted.filter(|image: &Bootable| image.squashed().is_none());
    without.map(|image| format!("{}@{}", image.name, image.version)).collect()
}

/// Names of NFS servers in the site, with the addresses they have now.
pub fn servers(site: &Site) -> Vec<(String, Option<Ipv4Addr>)> {
    let named = site.roles.values().filter_map(|role| match &role.root {
        RootMode::Nfs(text) => Some(NfsRoot::of(text).host.to_string()),
        RootMode::Ram | RootMode::Overlay => None,
    });
    let names: BTreeSet<String> = named.filter(|host| host.parse::<Ipv4Addr>().is_err()).collect();
    names.into_iter().map(|host| (host.clone(), address(&host).ok())).collect()
}

/// A server's address. Booting machines look no names up: it is done for them, when the site is read.
fn address(host: &str) -> Result<Ipv4Addr, String> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let (send, found) = mpsc::channel();
    let name = host.to_string();
    std::thread::spawn(move || {
        let looked_up = (name.as_str(), 0).to_socket_addrs();
        // Nobody may be waiting any more.
        let _ = send.send(looked_up.map(|all| all.map(|address| address.ip()).collect::<Vec<_>>()));
    });
    match found.recv_timeout(LOOK_UP) {
        Ok(Ok(all)) => all
            .iter()
            .find_map(|ip| match ip {
                std::net::IpAddr::V4(ip) => Some(*ip),
                std::net::IpAddr::V6(_) => None,
            })
            .ok_or_else(|| format!("the NFS server {host} has no IPv4 address")),
        Ok(Err(error)) => Err(format!(
            "the NFS server {host} has no address ({error}): write its address, or put it into \
             /etc/hosts of this host"
        )),
        Err(_) => Err(format!("the name of the NFS server {host} is not resolved within 3 s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_nfs_root_is_read_only_unless_it_says_rw() {
        let of = |text: &'static str| {
            let NfsRoot { host, path, options, read_only } = NfsRoot::of(text);
            (host, path, options, read_only)
        };
        let meant = |options: &str, read_only| ("nas", "/srv/web", options.to_string(), read_only);
        assert_eq!(of("nas:/srv/web"), meant("", true));
        assert_eq!(of("nas:/srv/web,rw,vers=4.2"), meant("vers=4.2", false));
        assert_eq!(of("nas:/srv/web,,soft,ro,timeo=50"), meant("soft,timeo=50", true));
    }

    #[test]
    fn servers_have_addresses_or_a_reason() {
        assert_eq!(address("10.77.0.9"), Ok(Ipv4Addr::new(10, 77, 0, 9)));
        assert_eq!(address("localhost"), Ok(Ipv4Addr::LOCALHOST));
        let why = address("no-such-host.invalid").unwrap_err();
        assert!(why.contains("no-such-host.invalid"), "{why}");
    }
}

//! `docker://host[:port]/repository[:tag|@digest]`, as skopeo(1) writes where an image is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::{Digest, Error};

/// Where an image is in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Host, with the port if one is given.
    pub host: String,
    /// Repository.
    pub repository: String,
    /// Tag or digest.
    pub what: Named,
}

/// Which image of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// By a name that may come to mean another image.
    Tag(String),
    /// By its bytes.
    Digest(Digest),
}

impl FromStr for Remote {
    type Err = Error;
    fn from_str(text: &str) -> Result<Remote, Error> {
        let bad = |why: &str| Error::Registry {
            host: text.chars().take(200).collect(),
            what: format!("{why}: say docker://host[:port]/repository[:tag|@sha256:…]"),
        };
        let rest = text.strip_prefix("docker://").ok_or_else(|| bad("is no registry's address"))?;
        let (host, path) = rest.split_once('/').ok_or_else(|| bad("names no repository"))?;
        let of_host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        if host.is_empty() || host.len() > 255 || !host.chars().all(of_host) {
            return Err(bad("names no host"));
        }
        let (repository, what) = match path.split_once('@') {
            // `repository:tag@digest`: the digest is what counts.
            Some((name, digest)) => {
                let name = name.split_once(':').map_or(name, |(name, _)| name);
                let digest = digest.parse().map_err(|_| bad("names no digest of sha256"))?;
                (name, Named::Digest(digest))
            }
            None => match path.split_once(':') {
                Some((name, tag)) => (name, Named::Tag(tag.to_owned())),
                None => (path, Named::Tag("latest".to_owned())),
            },
        };
        // OCI distribution spec, "Pulling manifests": names and tags.
        let part = |part: &str| {
            let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
            part.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric()) && part.bytes().all(fits)
        };
        if repository.len() > 255 || !repository.split('/').all(part) {
            return Err(bad(
                "names no repository (lower-case letters, digits, `.`, `_`, `-`, `/`)",
            ));
        }
        if let Named::Tag(tag) = &what {
            let fits = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
            if tag.is_empty()
                || tag.len() > 128
                || !tag.bytes().all(fits)
                || b".-".contains(&tag.as_bytes()[0])
            {
                return Err(bad("names no tag"));
            }
        }
        Ok(Remote { host: host.to_owned(), repository: repository.to_owned(), what })
    }
}

impl Remote {
    /// The tag or digest, as a path has it.
    pub(super) fn reference(&self) -> String {
        match &self.what {
            Named::Tag(tag) => tag.clone(),
            Named::Digest(digest) => digest.to_string(),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Remote { host, repository, what } = self;
        match what {
            Named::Tag(tag) => write!(f, "docker://{host}/{repository}:{tag}"),
            Named::Digest(digest) => write!(f, "docker://{host}/{repository}@{digest}"),
        }
    }
}

/// Host without its port.
pub(super) fn bare(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(bare, _)| bare),
    }
}

/// Whether it is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = bare(host);
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_and_the_rest_is_refused() {
        let digest = Digest::of(b"");
        for text in [
            "docker://registry.example/web:3".to_owned(),
            "docker://127.0.0.1:5000/a/b-c/d_e:v1.0".to_owned(),
            "docker://[::1]:5000/web:latest".to_owned(),
            format!("docker://r.example:443/web@{digest}"),
        ] {
            assert_eq!(text.parse::<Remote>().unwrap().to_string(), text);
        }
        let plain: Remote = "docker://r.example/web".parse().unwrap();
        assert_eq!(plain.what, Named::Tag("latest".to_owned()));
        let both: Remote = format!("docker://r.example/web:3@{digest}").parse().unwrap();
        assert_eq!(both.what, Named::Digest(digest));
        for bad in [
            "",
            "web",
            "docker://",
            "docker://host",
            "docker:///web",
            "docker://user@host/web",
            "docker://host/Web",
            "docker://host/../web",
            "docker://host/web//x",
            "docker://host/web:",
            "docker://host/web:a b",
            "docker://host/web:-x",
            "docker://host/web@sha512:00",
            "docker://ho st/web",
            "docker://host/web?x=1",
            "http://host/web",
        ] {
            assert!(bad.parse::<Remote>().is_err(), "{bad}");
        }
    }

    #[test]
    fn loopback_is_known() {
        for host in ["localhost:5000", "127.46.3.1", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "10.0.0.1:5000", "r.example"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}

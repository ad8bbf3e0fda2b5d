//! Images in registries (OCI distribution specification 1.1, Docker Registry v2): `reference` says
//! where, `auth` who we are, `client` asks, `pull` and `push` do it.
//!
//! A registry is a stranger: every byte is checked against a digest, every answer is bounded, and
//! what it must not know goes to no other host.

mod auth;
mod client;
mod pull;
mod push;
mod reference;

use std::path::PathBuf;

pub use pull::pull;
pub use push::push;
pub use reference::{Named, Remote};

/// Manifests we can read, and lists of them.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

/// How to reach a registry.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A file with a line `user:password`, or an auth.json; else podman's and docker's own.
    pub creds_file: Option<PathBuf>,
    /// Certificates to trust instead of the world's, in PEM.
    pub ca: Option<PathBuf>,
    /// Without TLS.
    pub plain_http: bool,
}

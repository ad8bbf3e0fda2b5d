//! What can go wrong with an image, said so that the operator knows what to do next.

use std::io;
use std::path::{Path, PathBuf};

use crate::Digest;

/// Why an operation on images failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host would not read or write.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// What the host said.
        source: io::Error,
    },
    /// The archive or directory to import is not fit to be an image.
    #[error("{}: {fault}", path.display())]
    Source {
        /// What was to be imported.
        path: PathBuf,
        /// What is wrong with it.
        fault: Fault,
    },
    /// What a running machine says of its root is not fit to be an image.
    #[error("the machine that booted {version}: {fault}")]
    Machine {
        /// What it booted.
        version: String,
        /// What is wrong with what it says.
        fault: Fault,
    },
    /// A machine is as its image has it.
    #[error("nothing has changed on {0}")]
    NothingChanged(String),
    /// A machine and another version have changed the same.
    #[error(
        "{theirs} has changed what the machine changed too since {ours}: {}{}; leave that out with --path, or \
         lay the changes above {ours} with --anyway",
        paths.iter().take(5).cloned().collect::<Vec<_>>().join(", "),
        if paths.len() > 5 { format!(" and {} more", paths.len() - 5) } else { String::new() }
    )]
    Conflict {
        /// The other version.
        theirs: String,
        /// What the machine booted.
        ours: String,
        /// Paths that both changed.
        paths: Vec<String>,
    },
    /// A name nobody could give in a site file.
    #[error(
        "`{0}` is not an image name: lower-case letters, digits, `-`, `_` and `.`, beginning with \
         a letter or digit, at most 64"
    )]
    BadName(String),
    /// A reference that is neither `web` nor `web@3`.
    #[error("`{0}` is not an image: say `web` or `web@3`")]
    BadRef(String),
    /// No image of that name.
    #[error("no image `{0}` in the store")]
    NoSuchImage(String),
    /// The image is there, this version is not.
    #[error("image `{name}` has no version {version}; the newest is {newest}")]
    NoSuchVersion {
        /// Image name.
        name: String,
        /// Version asked for.
        version: u32,
        /// Newest there is.
        newest: u32,
    },
    /// No version of the image is published.
    #[error("no version of `{0}` is published: `koboshi image publish {0}`")]
    NothingPublished(String),
    /// There is nothing to go back to.
    #[error(
        "{name}@{current} is the first version of {name} that was published: publish another one with \
         `koboshi image publish {name}@N` (`koboshi image ls` lists them)"
    )]
    NoFormer {
        /// Image name.
        name: String,
        /// What machines boot.
        current: u32,
    },
    /// A version cannot be given to those machines alone.
    #[error("{name}: {why}")]
    Trial {
        /// Image name.
        name: String,
        /// Why, and what to do.
        why: String,
    },
    /// Going back to where nobody was.
    #[error(
        "{name}@{version} was never published, so there is no going back to it: `koboshi image \
         publish {name}@{version}`"
    )]
    NeverPublished {
        /// Image name.
        name: String,
        /// Version asked for.
        version: u32,
    },
    /// Somebody needs it.
    #[error("{image} is in use and stays: {why}")]
    InUse {
        /// `web@3`
        image: String,
        /// By whom, in words.
        why: String,
    },
    /// The layout on disk says something we cannot follow.
    #[error("image store {}: {what}", path.display())]
    Store {
        /// File at fault.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A blob's bytes are not what its name promises.
    #[error("blob {digest} is damaged: {what}")]
    Damaged {
        /// The blob.
        digest: Digest,
        /// How.
        what: String,
    },
    /// Secrets that nobody answers for.
    #[error("{0}")]
    Lint(Box<crate::Report>),
    /// A registry answers what we cannot use, or not at all.
    #[error("registry {host}: {what}")]
    Registry {
        /// Host, with its port.
        host: String,
        /// What it does, and what to try.
        what: String,
    },
    /// A recipe that cannot be read.
    #[error(transparent)]
    Recipe(#[from] crate::BadRecipe),
    /// A step of a build failed.
    #[error("{step}: {what}")]
    Build {
        /// Which step.
        step: String,
        /// What it said.
        what: String,
    },
    /// A program of the host is missing.
    #[error("{tool} is not installed: `apt install {package}`, or `make setup` in the source tree")]
    MissingTool {
        /// Program.
        tool: String,
        /// Debian package that holds it.
        package: String,
    },
}

/// What is wrong with an archive or directory.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Neither directory nor any archive we read.
    #[error(
        "is neither a directory nor a tar (plain, gzip, zstd, xz), nor an OCI or docker archive"
    )]
    Unknown,
    /// A name that would leave the tree.
    #[error("`{entry}` would lie outside the image: a name must not hold `..`")]
    Escape {
        /// As in the archive.
        entry: String,
    },
    /// A name no Linux file system takes.
    #[error("`{entry}` is not a file name: {why}")]
    Name {
        /// As in the archive.
        entry: String,
        /// Which rule.
        why: &'static str,
    },
    /// A hard link to nothing, or out of the tree.
    #[error("`{entry}` is a hard link to `{target}`, {why}")]
    Link {
        /// As in the archive.
        entry: String,
        /// Where it points.
        target: String,
        /// What is wrong with that.
        why: &'static str,
    },
    /// A parent that is no directory, or links without end.
    #[error("`{entry}`: {why}")]
    Parent {
        /// As in the archive.
        entry: String,
        /// What stands in the way.
        why: String,
    },
    /// The archive ends before its end.
    #[error("is cut short: {what}")]
    Cut {
        /// What is missing.
        what: String,
    },
    /// Bytes that are no tar header, JSON, …
    #[error("is damaged: {what}")]
    Malformed {
        /// Where and what.
        what: String,
    },
    /// More than the bounds allow: a bomb, or bounds too low.
    #[error("is too large: {what}")]
    TooLarge {
        /// Which bound, with the figure.
        what: String,
    },
    /// Something the format allows and we do not read.
    #[error("{what}")]
    Unsupported {
        /// What it is.
        what: String,
    },
    /// A blob of an OCI archive is not what its name says.
    #[error("blob {digest} is damaged: {what}")]
    Blob {
        /// As the manifest has it.
        digest: String,
        /// How.
        what: String,
    },
    /// Changed while it was being read.
    #[error("`{entry}` changed while it was read")]
    Changed {
        /// The file.
        entry: String,
    },
    /// Nothing to boot.
    #[error(
        "no kernel in /boot (vmlinuz-<release>): install one into the root before importing it; \
         for Debian that is the package linux-image-amd64 or linux-image-cloud-amd64"
    )]
    NoKernel,
    /// A kernel whose release nobody can tell.
    #[error("kernel `{kernel}`: its release is neither in its name nor in its header")]
    NoRelease {
        /// Path in the tree.
        kernel: String,
    },
    /// The kernel's modules are not there.
    #[error(
        "kernel {release} has no modules in /usr/lib/modules/{release}{}",
        if others.is_empty() { String::new() } else { format!(" (there: {})", others.join(", ")) }
    )]
    NoModules {
        /// Kernel release.
        release: String,
        /// Releases that do have modules.
        others: Vec<String>,
    },
    /// Modules without their index.
    #[error(
        "/usr/lib/modules/{release}/modules.dep is missing: run `depmod -b ROOT {release}` before \
         importing"
    )]
    NoModulesDep {
        /// Kernel release.
        release: String,
    },
    /// Nothing to run as PID 1.
    #[error("no /sbin/init: {why}; a system image needs one (Debian: systemd-sysv)")]
    NoInit {
        /// Missing, or what it is instead.
        why: String,
    },
    /// The kernel's modules could not be turned into an archive.
    #[error("modules of kernel {release}: {why}")]
    Modules {
        /// Kernel release.
        release: String,
        /// As the archiver said.
        why: String,
    },
    /// Reading failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Error {
    pub(crate) fn io(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let what = format!("{what} {}", path.display());
        move |source| Error::Io { what, source }
    }

    pub(crate) fn source(path: &Path) -> impl Fn(Fault) -> Error {
        let path = path.to_owned();
        move |fault| Error::Source { path: path.clone(), fault }
    }
}

/// Bytes of a stranger's name as text for a message, short and without control characters.
pub(crate) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(200)]);
    let mut out: String = text
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    if name.len() > 200 {
        out.push('…');
    }
    out
}

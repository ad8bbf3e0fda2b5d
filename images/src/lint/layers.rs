//! An image of the store, layer by layer: a secret in a lower layer is fetched by every machine,
//! whatever the layers above it take away.
//!
//! What a layer holds is known by its digest, so it is looked through once: what was found is kept
//! in `lint/`, under the digest and the text of this linter.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::{Finding, Report, Severity, quoted, scan};
use crate::content::Span;
use crate::import::Progress;
use crate::oci::Manifest;
use crate::source::{self, Limits, Reading, Spool};
use crate::store::Store;
use crate::tree::{Kind, Tree};
use crate::version::{Blob, Version};
use crate::{Digest, Error};

/// The linter's own text: another one finds other things.
static SELF: LazyLock<Digest> = LazyLock::new(|| {
    Digest::of(
        concat!(
            include_str!("accounts.rs"),
            include_str!("keys.rs"),
            include_str!("logins.rs"),
            include_str!("markers.rs"),
            include_str!("modes.rs"),
            include_str!("places.rs"),
            include_str!("rules.rs"),
            include_str!("scan.rs"),
            include_str!("text.rs"),
            include_str!("tokens.rs"),
        )
        .as_bytes(),
    )
});

/// What was found in a layer.
#[derive(Serialize, Deserialize)]
struct Kept {
    linter: Digest,
    findings: Vec<Finding>,
}

/// Larger than what any layer's findings take: one that says so is not read.
const KEPT_MAX: u64 = 64 << 20;

impl Store {
    /// Looks a version through: the newest there is for `web`, or `web@3`.
    pub fn lint(
        &self,
        reference: &str,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Report, Error> {
        let version = self.show(reference)?;
        self.lint_version(&version, progress)
    }

    /// An error that tells all of them, if there are secrets in a version that nobody answers for:
    /// whatever lets a machine boot it asks here first.
    pub(crate) fn gate(&self, version: &Version) -> Result<(), Error> {
        let report = self.lint_version(version, &mut |_| ())?;
        if report.stops() { Err(Error::Lint(Box::new(report))) } else { Ok(()) }
    }

    /// Looks this version through.
    pub(crate) fn lint_version(
        &self,
        version: &Version,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Report, Error> {
        let image: Manifest = self.document(&version.digest)?;
        let damaged = |what: String| Error::Damaged { digest: version.digest, what };
        let layers = image
            .layers
            .iter()
            .map(|layer| {
                let digest = layer.digest.parse().map_err(|bad| damaged(format!("{bad}")))?;
                Ok(Blob { digest, size: layer.size })
            })
            .collect::<Result<Vec<Blob>, Error>>()?;
        let mut findings: Vec<Finding> = Vec::new();
        for (at, layer) in layers.iter().enumerate() {
            let found = self.lint_layer(layer, progress)?;
            if !findings.is_empty() {
                self.hide(&layer.digest, &mut findings, progress)?;
            }
            findings.extend(found.into_iter().map(|finding| Finding { layer: at + 1, ..finding }));
        }
        // The same thing carried from layer to layer is told once, where it lies on top.
        let mut seen = BTreeSet::new();
        findings.reverse();
        findings.retain(|f| seen.insert((f.path.clone(), f.rule.id, f.evidence.0)));
        // What another layer has put right is right; only secrets stay read.
        findings.retain(|f| !(f.hidden && f.rule.severity == Severity::Risk));
        findings.sort_by(|a, b| {
            (a.rule.severity, &a.path, a.rule.id).cmp(&(b.rule.severity, &b.path, b.rule.id))
        });
        let allowances = self.allowances(&version.name)?;
        for finding in &mut findings {
            finding.allowed = allowances.iter().find(|one| one.covers(finding)).cloned();
        }
        Ok(Report { image: version.to_string(), digest: version.digest, findings })
    }

    /// What is in a layer, from what was kept of the last look, or by a look.
    fn lint_layer(
        &self,
        layer: &Blob,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Finding>, Error> {
        let kept = self.dir().join("lint").join(format!("{}.json", layer.digest.hex()));
        let known = File::open(&kept).ok().and_then(|file| {
            let mut bytes = Vec::new();
            file.take(KEPT_MAX).read_to_end(&mut bytes).ok()?;
            serde_json::from_slice::<Kept>(&bytes).ok().filter(|kept| kept.linter == *SELF)
        });
        if let Some(known) = known {
            return Ok(known.findings);
        }
        // What is kept under a digest must be of those bytes.
        self.verify_blob(layer)?;
        let (tree, _) = self.layer(&layer.digest, progress)?;
        let findings = scan::scan(&tree)?;
        // Where this cannot be kept, the next look takes as long as this one.
        let _ = self.keep(&kept, &Kept { linter: *SELF, findings: findings.clone() });
        Ok(findings)
    }

    fn keep(&self, path: &PathBuf, kept: &Kept) -> std::io::Result<()> {
        let dir = self.dir().join("lint");
        fs::create_dir_all(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let old = entry?.path();
            let blob = old.file_stem().map(|hex| self.blobs().join(hex));
            if blob.is_some_and(|blob| !blob.exists()) {
                let _ = fs::remove_file(&old);
            }
        }
        let mut file = tempfile::NamedTempFile::new_in(&dir)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }

    /// The names of a layer alone, its whiteouts apart.
    fn layer(
        &self,
        layer: &Digest,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Tree, BTreeSet<Vec<u8>>), Error> {
        let path = self.blob_path(layer);
        let packed = File::open(&path).and_then(Span::whole);
        let packed = packed.map_err(Error::io("reading", &path))?;
        // Of unnamed files there: nothing to clear away, however this ends.
        let work = self.tmp();
        let mut reading = Reading {
            spool: Spool::new(&work),
            limits: Limits::default(),
            warnings: Vec::new(),
            progress,
        };
        source::alone(&packed, &mut reading).map_err(Error::source(&path))
    }

    /// Marks what this layer takes away, or has anew.
    fn hide(
        &self,
        layer: &Digest,
        findings: &mut [Finding],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let (tree, gone) = self.layer(layer, progress)?;
        let shown = |path: &[u8]| format!("/{}", quoted(path));
        let has: BTreeSet<String> = tree.iter().map(|(path, ..)| shown(path)).collect();
        // Where a directory was and something else is now, nothing is below it.
        let no_dirs = tree.iter().filter(|(.., inode)| !matches!(inode.kind, Kind::Dir));
        let gone: BTreeSet<String> =
            no_dirs.map(|(path, ..)| shown(path)).chain(gone.iter().map(|p| shown(p))).collect();
        for finding in findings {
            let above = finding.path.match_indices('/').map(|(at, _)| &finding.path[..at]);
            let taken = above.chain([&finding.path[..]]).any(|path| gone.contains(path));
            finding.hidden |= taken || has.contains(&finding.path);
        }
        Ok(())
    }
}

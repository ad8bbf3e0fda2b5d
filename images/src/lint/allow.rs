//! What somebody answers for: found, looked at, and meant to be in the image.
//!
//! An allowance is bound to what was found, by its digest: another key at the same path is found
//! again. It is the name's, so the next version of the image has it too. All of a name's are one
//! artefact of the layout, which the index leads to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Finding;
use crate::log::{self, Act, By};
use crate::oci::{self, Annotations, Descriptor, Index, Manifest};
use crate::staging::Staging;
use crate::store::Store;
use crate::version::check_name;
use crate::{Digest, Error};

/// That something found in an image is meant to be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// The rule that found it.
    pub rule: String,
    /// Where it lies, as the finding has it.
    pub path: String,
    /// Of what was found.
    pub evidence: Digest,
    /// Who allowed it.
    #[serde(default)]
    pub who: Option<String>,
    /// When.
    pub when: Timestamp,
    /// Why.
    pub why: String,
    /// The version it was found in.
    pub version: u32,
}

impl Allowance {
    /// Whether this is what was allowed.
    pub(crate) fn covers(&self, finding: &Finding) -> bool {
        self.rule == finding.rule.id
            && self.path == finding.path
            && self.evidence == finding.evidence
    }
}

impl Store {
    /// What is allowed in an image.
    pub fn allowances(&self, name: &str) -> Result<Vec<Allowance>, Error> {
        check_name(name)?;
        let index = self.index()?;
        let Some(found) = index.manifests.iter().find(|found| is_of(found, name)) else {
            return Ok(Vec::new());
        };
        let digest = found.digest.parse().map_err(|_| Error::BadRef(found.digest.clone()))?;
        let manifest: Manifest = self.document(&digest)?;
        let damaged = |what: &str| Error::Damaged { digest, what: what.to_owned() };
        let list = manifest.layers.first().ok_or_else(|| damaged("it holds no list"))?;
        let list = list.digest.parse().map_err(|_| damaged("its list has no digest"))?;
        self.document(&list)
    }

    /// Allows what `rule` found at `path` in a version (`web` for the newest). Every finding there
    /// is asked for again when it changes. `None`: nothing of the kind is there.
    pub fn allow(
        &self,
        reference: &str,
        rule: &str,
        path: &str,
        by: &By,
    ) -> Result<Option<Allowance>, Error> {
        let version = self.show(reference)?;
        let report = self.lint_version(&version, &mut |_| ())?;
        let path = format!("/{}", path.trim_start_matches('/'));
        let found = report.findings.iter().find(|f| f.rule.id == rule && f.path == path);
        let Some(found) = found else { return Ok(None) };
        let new = Allowance {
            rule: rule.to_owned(),
            path,
            evidence: found.evidence,
            who: by.author.clone(),
            when: Timestamp::now(),
            why: by.reason.clone().unwrap_or_default(),
            version: version.version,
        };
        let act = Act::on("allow", &version, &said(by, rule, &new.path));
        self.change(act, &|all| {
            all.retain(|old| !old.covers(found));
            all.push(new.clone());
        })?;
        Ok(Some(new))
    }

    /// Takes allowances back; says how many there were.
    pub fn disallow(&self, name: &str, rule: &str, path: &str, by: &By) -> Result<usize, Error> {
        let path = format!("/{}", path.trim_start_matches('/'));
        let is_it = |one: &Allowance| one.rule == rule && one.path == path;
        let count = self.allowances(name)?.iter().filter(|one| is_it(one)).count();
        if count > 0 {
            let act = Act::on("disallow", &self.show(name)?, &said(by, rule, &path));
            self.change(act, &|all| all.retain(|one| !is_it(one)))?;
        }
        Ok(count)
    }

    fn change(&self, act: Act, edit: &dyn Fn(&mut Vec<Allowance>)) -> Result<(), Error> {
        let name = &act.image;
        // Whoever came between is seen at the commit, and this is done once more.
        loop {
            let before = self.entry(&self.index()?, name);
            let mut all = self.allowances(name)?;
            edit(&mut all);
            let mut staging = Staging::begin(self)?;
            let after = manifest(&mut staging, name, &all)?;
            let done = staging.commit(|index| {
                let same = self.entry(index, name) == before;
                if same {
                    index.manifests.retain(|found| !is_of(found, name));
                    index.manifests.push(after);
                    log::note(index, act.clone());
                }
                Ok((same, same))
            })?;
            if done {
                return Ok(());
            }
        }
    }

    fn entry(&self, index: &Index, name: &str) -> Option<String> {
        index.manifests.iter().find(|found| is_of(found, name)).map(|found| found.digest.clone())
    }
}

/// As it stands in the log: what, and why.
fn said(by: &By, rule: &str, path: &str) -> By {
    let why = by.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    By { author: by.author.clone(), reason: Some(format!("{rule} at {path}{why}")) }
}

fn is_of(found: &Descriptor, name: &str) -> bool {
    found.get(oci::A_ALLOWED_IN) == Some(name)
}

fn manifest(staging: &mut Staging<'_>, name: &str, all: &[Allowance]) -> Result<Descriptor, Error> {
    let empty = staging.bytes(b"{}")?;
    let list = staging.bytes(&oci::to_bytes(&all))?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST.to_owned(),
        artifact_type: Some(oci::ALLOWANCES.to_owned()),
        config: Descriptor::new(oci::EMPTY, empty.digest, empty.size),
        layers: vec![Descriptor::new(oci::ALLOWANCES_JSON, list.digest, list.size)],
        annotations: Annotations::new(),
    };
    let blob = staging.bytes(&oci::to_bytes(&manifest))?;
    let mut descriptor =
        Descriptor::new(oci::MANIFEST, blob.digest, blob.size).with(oci::A_ALLOWED_IN, name);
    descriptor.artifact_type = manifest.artifact_type;
    Ok(descriptor)
}

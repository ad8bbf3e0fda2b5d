//! Which version machines boot: publishing one, going back to a former one, and keeping one for good.
//!
//! The descriptor with `dev.koboshi.current` is the one; a store of before it has none, and there the
//! newest published version is. All that changes together changes in one writing of the index.

use jiff::Timestamp;

use crate::Error;
use crate::log::{self, Act, By};
use crate::oci::{self, Descriptor, Index};
use crate::store::Store;
use crate::version::{ImageRef, Version, check_name, pick, versions};

impl Store {
    /// Makes a version, the newest if none is named, the one that machines boot. Twice is once.
    pub fn publish(&self, name: &str, version: Option<u32>, by: &By) -> Result<Version, Error> {
        check_name(name)?;
        let wanted = ImageRef { name: name.to_owned(), version };
        // Looked through before the lock is taken: what it holds cannot change, and this takes a while.
        let candidate = self.show(&wanted.to_string())?;
        if !candidate.current {
            self.gate(&candidate)?;
        }
        let wanted = ImageRef { version: Some(candidate.version), ..wanted };
        let held = self.lock()?;
        let mut index = self.index()?;
        let found = self.version(&index, pick(&index.manifests, &wanted)?)?;
        if !found.current {
            self.whole(&found)?;
            let former = current(&index.manifests, name).map(|(number, _)| number);
            move_current(&mut index, name, found.version, |entry, now| {
                let published = entry.annotations.entry(oci::A_PUBLISHED.to_owned());
                published.or_insert_with(|| now.clone());
                entry.annotations.remove(oci::A_WITHDRAWN);
                if let Some(former) = former {
                    entry.annotations.insert(oci::A_FORMER.to_owned(), former.to_string());
                }
            });
            log::note(&mut index, Act { former, ..Act::on("publish", &found, by) });
            self.write_index(&held, &index)?;
        }
        self.one(&index, name, found.version)
    }

    /// Lets machines boot again what they booted before the current version was published, or
    /// another version that was published once.
    pub fn rollback(&self, name: &str, to: Option<u32>, by: &By) -> Result<Version, Error> {
        check_name(name)?;
        let held = self.lock()?;
        let mut index = self.index()?;
        pick(&index.manifests, &ImageRef { name: name.to_owned(), version: to })?;
        let (now, _) = current(&index.manifests, name)
            .ok_or_else(|| Error::NothingPublished(name.to_owned()))?;
        let to = match to {
            Some(to) => to,
            None => former(&index.manifests, name)
                .ok_or_else(|| Error::NoFormer { name: name.to_owned(), current: now })?,
        };
        let found = self.one(&index, name, to)?;
        if found.published.is_none() {
            return Err(Error::NeverPublished { name: name.to_owned(), version: to });
        }
        if !found.current {
            self.whole(&found)?;
            move_current(&mut index, name, to, |_, _| ());
            log::note(&mut index, Act { former: Some(now), ..Act::on("rollback", &found, by) });
            self.write_index(&held, &index)?;
        }
        self.one(&index, name, to)
    }

    /// Keeps a version whatever becomes of the others.
    pub fn pin(&self, name: &str, version: u32, by: &By) -> Result<Version, Error> {
        self.mark(name, version, Act::named("pin", name, version, None, by), |entry| {
            let said = [
                (oci::A_PINNED, Some(Timestamp::now().to_string())),
                (oci::A_PINNED_BY, by.author.clone()),
                (oci::A_PINNED_WHY, by.reason.clone()),
            ];
            for (key, value) in said {
                entry.annotations.remove(key);
                entry.annotations.extend(value.map(|value| (key.to_owned(), value)));
            }
            true
        })
    }

    /// Lets go of a version that was to be kept.
    pub fn unpin(&self, name: &str, version: u32, by: &By) -> Result<Version, Error> {
        self.mark(name, version, Act::named("unpin", name, version, None, by), |entry| {
            let keys = [oci::A_PINNED, oci::A_PINNED_BY, oci::A_PINNED_WHY];
            let was = entry.annotations.contains_key(oci::A_PINNED);
            entry.annotations.retain(|key, _| !keys.contains(&key.as_str()));
            was
        })
    }

    /// Changes what is said of a version; `change` says whether anything is another.
    fn mark(
        &self,
        name: &str,
        version: u32,
        act: Act,
        change: impl Fn(&mut Descriptor) -> bool,
    ) -> Result<Version, Error> {
        check_name(name)?;
        let held = self.lock()?;
        let mut index = self.index()?;
        let digest = self.one(&index, name, version)?.digest;
        if change(entry_of(&mut index, name, version)?) {
            log::note(&mut index, Act { digest: Some(digest), ..act });
            self.write_index(&held, &index)?;
        }
        self.one(&index, name, version)
    }

    pub(crate) fn one(&self, index: &Index, name: &str, version: u32) -> Result<Version, Error> {
        let wanted = ImageRef { name: name.to_owned(), version: Some(version) };
        self.version(index, pick(&index.manifests, &wanted)?)
    }

    /// A version whose parts are not all there must not reach a machine.
    pub(crate) fn whole(&self, version: &Version) -> Result<(), Error> {
        for blob in version.blobs() {
            let there = std::fs::metadata(self.blob_path(&blob.digest)).map(|meta| meta.len());
            if there.ok() != Some(blob.size) {
                let what = "it is missing or cut short".to_owned();
                return Err(Error::Damaged { digest: blob.digest, what });
            }
        }
        Ok(())
    }
}

/// The version of a name that machines boot.
pub(crate) fn current<'a>(all: &'a [Descriptor], name: &str) -> Option<(u32, &'a Descriptor)> {
    let published = || versions(all, name).filter(|(_, f)| f.get(oci::A_PUBLISHED).is_some());
    let since = |found: &Descriptor| found.get(oci::A_CURRENT)?.parse::<Timestamp>().ok();
    let marked = published().filter_map(|(number, found)| Some((since(found)?, number, found)));
    match marked.max_by_key(|(since, number, _)| (*since, *number)) {
        Some((_, number, found)) => Some((number, found)),
        None => published().max_by_key(|(number, _)| *number),
    }
}

/// What machines booted before the current version was published.
pub(crate) fn former(all: &[Descriptor], name: &str) -> Option<u32> {
    let (now, found) = current(all, name)?;
    let published = || versions(all, name).filter(|(_, f)| f.get(oci::A_PUBLISHED).is_some());
    if let Some(former) = found.get(oci::A_FORMER).and_then(|text| text.parse().ok())
        && published().any(|(number, _)| number == former)
    {
        return Some(former);
    }
    // It was removed, or published before anybody wrote it down.
    published().map(|(number, _)| number).filter(|number| *number < now).max()
}

fn move_current(index: &mut Index, name: &str, to: u32, also: impl Fn(&mut Descriptor, &String)) {
    let now = Timestamp::now().to_string();
    for entry in &mut index.manifests {
        match crate::version::identity(entry) {
            Some((found, number)) if found == name => {
                if number == to {
                    entry.annotations.insert(oci::A_CURRENT.to_owned(), now.clone());
                    also(entry, &now);
                } else {
                    entry.annotations.remove(oci::A_CURRENT);
                }
            }
            _ => {}
        }
    }
}

/// A version's entry in the index, to be changed.
pub(crate) fn entry_of<'a>(
    index: &'a mut Index,
    name: &str,
    version: u32,
) -> Result<&'a mut Descriptor, Error> {
    let newest = crate::version::newest(&index.manifests, name).map_or(0, |(newest, _)| newest);
    let mut all = index.manifests.iter_mut();
    all.find(|entry| crate::version::identity(entry) == Some((name, version)))
        .ok_or_else(|| Error::NoSuchVersion { name: name.to_owned(), version, newest })
}

/// Who wants a version to be kept, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Pin {
    /// Since when.
    #[serde(serialize_with = "crate::version::timestamp")]
    pub at: Timestamp,
    /// Who.
    pub by: Option<String>,
    /// Why.
    pub why: Option<String>,
}

impl Pin {
    pub(crate) fn of(found: &Descriptor) -> Option<Pin> {
        let text = |key| found.get(key).map(str::to_owned);
        let at = found.get(oci::A_PINNED)?;
        // Kept, even if the time somebody wrote there is none.
        let at = at.parse().unwrap_or(Timestamp::UNIX_EPOCH);
        Some(Pin { at, by: text(oci::A_PINNED_BY), why: text(oci::A_PINNED_WHY) })
    }
}

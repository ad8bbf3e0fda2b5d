//! The root of a machine that runs, against the version it booted (S16): what it lists becomes changes, what it sends
//! of their contents becomes a tree, and that the next version of the image.
//!
//! A machine's bytes are a stranger's, as an archive's are: names are checked by the tree, sizes are bounded, and
//! what came is compared with what was announced.

mod choose;
mod compare;
mod left_out;
mod sent;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read;
use std::path::Path;

use koboshi_initramfs::changes::listing::Kind;
use koboshi_initramfs::changes::{Header, Manner};

use crate::content::Content;
use crate::diff::{self, Diff, NoText};
use crate::error::{Error, Fault, shown};
use crate::import::{ImportOptions, Imported, Progress, import_tree};
use crate::layer::between;
use crate::lint::{self, Report};
use crate::source::{Limits, Reading, Spool};
use crate::stack::{Known, Source, Stage};
use crate::staging::Staging;
use crate::store::Store;
use crate::tree::{self, Inode, Member, Meta, Tree};
use crate::version::Version;

use choose::choose;
use compare::{Became, Change, compare, parents, same, xattrs};
use sent::decoder;

pub use choose::Chosen;

/// Debian's list of packages, of which a diff tells in words.
const PACKAGES: &[u8] = b"var/lib/dpkg/status";

/// A running machine's root, as far as it is known.
pub struct Live<'s> {
    store: &'s Store,
    version: Version,
    base: Tree,
    /// Its folder keeps what was unpacked and what came.
    staging: Staging<'s>,
    limits: Limits,
    changes: Vec<Change>,
    left_out: BTreeMap<&'static str, u64>,
    /// By the entry's number.
    contents: HashMap<u32, Content>,
    unread: u64,
}

/// What a machine is to be asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Entries by their numbers in the listing, in ascending order.
    pub entries: Vec<u32>,
    /// Bytes of these files.
    pub bytes: u64,
}

/// What a version came to that was made of a machine.
#[derive(Debug)]
pub struct Committed {
    /// The version.
    pub imported: Imported,
    /// The one it lies above.
    pub onto: Version,
}

impl<'s> Live<'s> {
    /// Of a machine that booted this version.
    ///
    /// # Errors
    /// The version's layers cannot be read.
    pub fn of(
        store: &'s Store,
        version: Version,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Live<'s>, Error> {
        let staging = Staging::begin(store)?;
        let limits = Limits::default();
        let base = tree_of(store, &version, &staging, limits, progress)?;
        let (contents, left_out) = (HashMap::new(), BTreeMap::new());
        let changes = Vec::new();
        Ok(Live { store, version, base, staging, limits, changes, left_out, contents, unread: 0 })
    }

    /// The version it booted.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Where what comes may be kept; gone with this.
    pub fn folder(&self) -> &Path {
        self.staging.dir()
    }

    /// Takes the machine's listing, as it came, and of it what is meant.
    ///
    /// # Errors
    /// It is damaged, or nothing has changed at one of the paths.
    pub fn list(
        &mut self,
        header: &Header,
        listing: impl Read,
        chosen: &Chosen,
    ) -> Result<(), Error> {
        let fault = |fault| self.fault(fault);
        if header.root == Manner::Nfs {
            let what = "its root is a server's: what is written there stays there".to_owned();
            return Err(fault(Fault::Unsupported { what }));
        }
        let plain = decoder(listing).map_err(|error| fault(Fault::Io(error)))?;
        let compared = compare(&self.base, header.root, plain, &self.limits).map_err(fault)?;
        let new = |path: &[u8]| self.base.get(path).is_none();
        let (changes, left_out) = choose(compared.changes, chosen, new).map_err(fault)?;
        (self.changes, self.left_out, self.unread) = (changes, left_out, compared.unread);
        Ok(())
    }

    /// How many changes are meant.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many are left out, by why.
    pub fn left_out(&self) -> &BTreeMap<&'static str, u64> {
        &self.left_out
    }

    /// Of how many names the machine could read nothing.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// What is to be fetched: all of it, or, with bounds, files of so many bytes each and together.
    pub fn wanted(&self, bounds: Option<(u64, u64)>) -> Wanted {
        let mut wanted = Wanted::default();
        for change in &self.changes {
            let Became::Is(number, node) = &change.became else { continue };
            let Kind::File(size) = node.kind else { continue };
            if let Some((each, together)) = bounds
                && (size > each || wanted.bytes.saturating_add(size) > together)
            {
                continue;
            }
            wanted.entries.push(*number);
            wanted.bytes = wanted.bytes.saturating_add(size);
        }
        wanted
    }

    /// Takes what the machine sent of what was wanted, as it came.
    ///
    /// # Errors
    /// It is damaged, or something else than was announced: that changed meanwhile.
    pub fn fill(&mut self, sent: impl Read) -> Result<(), Error> {
        let (contents, changed) = self.take(sent).map_err(|fault| self.fault(fault))?;
        if let [first, ..] = &changed[..] {
            let entry = match changed.len() {
                1 => first.clone(),
                many => format!("{first}` and {} others `", many - 1),
            };
            return Err(self.fault(Fault::Changed { entry }));
        }
        self.contents = contents;
        Ok(())
    }

    /// How the machine differs from its version. Of what was not fetched no lines are told.
    ///
    /// # Errors
    /// What came cannot be read.
    pub fn diff(&self) -> Result<Diff, Error> {
        let new = self.apply(self.base.clone(), true).map_err(|fault| self.fault(fault))?;
        let read = Error::io("reading what came in", self.staging.dir());
        let mut diff = diff::compare(&self.base, &new).map_err(read)?;
        let unknown: HashSet<String> =
            self.unknown().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        if unknown.contains(&*String::from_utf8_lossy(PACKAGES)) {
            diff.packages.clear();
        }
        for change in diff.changes.iter_mut().filter(|change| unknown.contains(&change.path)) {
            if change.text.take().is_some() || change.no_text.is_some() {
                change.no_text = Some(NoText::Large);
            }
        }
        Ok(diff)
    }

    /// What should not be in an image, of what is meant, and what of it is allowed in the image of this name.
    ///
    /// # Errors
    /// What came cannot be read.
    pub fn lint(&self, name: &str) -> Result<Report, Error> {
        let alone = self.apply(Tree::new(self.limits), false).map_err(|fault| self.fault(fault))?;
        let mut findings = lint::tree(&alone)?;
        let allowances = self.store.allowances(name)?;
        for finding in &mut findings {
            finding.allowed = allowances.iter().find(|one| one.covers(finding)).cloned();
        }
        Ok(Report { image: name.to_owned(), digest: self.version.digest, findings })
    }

    /// Makes the next version of it, above the version it booted or another one of the image.
    ///
    /// # Errors
    /// Nothing has changed, or the other version has changed the same.
    pub fn commit(
        &self,
        name: &str,
        onto: Option<&Version>,
        machine: &str,
        options: &ImportOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Committed, Error> {
        if self.is_empty() {
            return Err(Error::NothingChanged(machine.to_owned()));
        }
        let onto = onto.unwrap_or(&self.version).clone();
        let base = match onto.digest == self.version.digest {
            true => self.base.clone(),
            false => {
                let other = tree_of(self.store, &onto, &self.staging, self.limits, progress)?;
                let both = self.both(&other).map_err(|fault| self.fault(fault))?;
                if !both.is_empty() {
                    let (theirs, ours) = (onto.to_string(), self.version.to_string());
                    return Err(Error::Conflict { theirs, ours, paths: both });
                }
                other
            }
        };
        let tree = self.apply(base.clone(), false).map_err(|fault| self.fault(fault))?;
        let known = Known::version(self.store, &onto)?;
        let options = ImportOptions { parent: Some(onto.digest), act: "commit", ..options.clone() };
        let mut source =
            Some(Source { known, base, stages: vec![Stage { tree, came: None }], whole: None });
        let place = format!("what changed on {machine}");
        let imported =
            import_tree(self.store, name, Path::new(&place), &options, progress, &mut |_| {
                source.take().ok_or_else(|| Error::NothingChanged(machine.to_owned()))
            })?;
        Ok(Committed { imported, onto })
    }

    /// Paths that are other both here and in another version.
    fn both(&self, other: &Tree) -> Result<Vec<String>, Fault> {
        let theirs = between(&self.base, other)?;
        let gone: HashSet<&[u8]> = theirs.gone.iter().map(Vec::as_slice).collect();
        // Directories on the way to what changed stand in a layer too.
        let is_way = |path: &[u8]| {
            let dir = |tree: &Tree| {
                tree.get(path).is_some_and(|inode| matches!(inode.kind, tree::Kind::Dir))
            };
            dir(&self.base) && dir(other)
        };
        let written = theirs.entries.iter().map(|(path, ..)| *path);
        let written: BTreeSet<&[u8]> = written.filter(|path| !is_way(path)).collect();
        let taken =
            |path: &[u8]| gone.contains(path) || parents(path).any(|dir| gone.contains(dir));
        let below = |path: &[u8]| {
            let prefix = [path, b"/"].concat();
            written.range(&prefix[..]..).next().is_some_and(|other| other.starts_with(&prefix))
        };
        let meet = |change: &&Change| {
            let path = &change.path[..];
            // What both made the same is no quarrel.
            let agreed = holds(other, change);
            let flat = matches!(&change.became, Became::Is(_, node) if node.kind != Kind::Dir);
            let replaced = parents(path).any(|dir| written.contains(dir) && !is_dir(other, dir));
            !agreed
                && (written.contains(path)
                    || taken(path)
                    || replaced
                    || (flat || matches!(change.became, Became::Gone)) && below(path))
        };
        Ok(self
            .changes
            .iter()
            .filter(meet)
            .map(|change| format!("/{}", shown(&change.path)))
            .collect())
    }

    /// Paths that are in another version as the machine has them.
    ///
    /// # Errors
    /// The version's layers cannot be read.
    pub fn held_by(
        &self,
        other: &Version,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<String>, Error> {
        let other = tree_of(self.store, other, &self.staging, self.limits, progress)?;
        let held = self.changes.iter().filter(|change| holds(&other, change));
        Ok(held.map(|change| format!("/{}", shown(&change.path))).collect())
    }

    /// The tree with the changes in it. What was not fetched is zeros, where that is good enough.
    fn apply(&self, mut tree: Tree, blank: bool) -> Result<Tree, Fault> {
        for change in self.changes.iter().filter(|change| matches!(change.became, Became::Gone)) {
            tree.remove(&change.path);
        }
        let mut names: HashMap<u64, &[u8]> = HashMap::new();
        for change in &self.changes {
            let Became::Is(number, node) = &change.became else { continue };
            if node.inode != 0
                && let Some(first) = names.get(&node.inode)
            {
                tree.add(&change.path, Member::HardLink(first.to_vec()))?;
                continue;
            }
            let kind = match &node.kind {
                Kind::Dir => tree::Kind::Dir,
                Kind::Symlink(target) => tree::Kind::Symlink(target.clone().into_boxed_slice()),
                Kind::Char(major, minor) => tree::Kind::Char { major: *major, minor: *minor },
                Kind::Block(major, minor) => tree::Kind::Block { major: *major, minor: *minor },
                Kind::Fifo => tree::Kind::Fifo,
                Kind::Socket => continue,
                Kind::File(size) => tree::Kind::File(match self.contents.get(number) {
                    Some(content) => content.clone(),
                    None if *size == 0 => Content::Empty,
                    None if blank => Content::Sparse { size: *size, pieces: Vec::new() },
                    None => {
                        let what = format!("`{}` was not fetched", shown(&change.path));
                        return Err(Fault::Malformed { what });
                    }
                }),
            };
            let own = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
            let meta = Meta {
                mode: node.mode,
                uid: node.uid,
                gid: node.gid,
                mtime: u64::try_from(node.mtime).unwrap_or(0),
                xattrs: xattrs(node).map(own).collect(),
            };
            if node.inode != 0 {
                names.insert(node.inode, &change.path);
            }
            tree.add(&change.path, Member::Inode(Inode { meta, kind }))?;
        }
        Ok(tree)
    }

    /// Files that were not fetched.
    fn unknown(&self) -> impl Iterator<Item = &[u8]> {
        self.changes.iter().filter_map(|change| match &change.became {
            Became::Is(number, node) => {
                let unknown = matches!(node.kind, Kind::File(size) if size > 0)
                    && !self.contents.contains_key(number);
                unknown.then_some(&change.path[..])
            }
            Became::Gone => None,
        })
    }

    fn fault(&self, fault: Fault) -> Error {
        Error::Machine { version: self.version.to_string(), fault }
    }
}

/// Whether a tree has what was changed.
fn holds(tree: &Tree, change: &Change) -> bool {
    match (tree.get(&change.path), &change.became) {
        (None, Became::Gone) => true,
        (Some(inode), Became::Is(_, node)) => same(inode, node),
        _ => false,
    }
}

fn is_dir(tree: &Tree, path: &[u8]) -> bool {
    tree.get(path).is_some_and(|inode| matches!(inode.kind, tree::Kind::Dir))
}

fn tree_of(
    store: &Store,
    version: &Version,
    staging: &Staging<'_>,
    limits: Limits,
    progress: &mut dyn FnMut(Progress),
) -> Result<Tree, Error> {
    let spool = Spool::new(staging.dir());
    let mut reading = Reading { spool, limits, warnings: Vec::new(), progress };
    store.tree(version, &mut reading)
}

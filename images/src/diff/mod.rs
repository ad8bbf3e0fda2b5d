//! How two root file systems differ, for people: names added, removed, renamed and changed; of
//! those owner, mode, type, size, link, device, attributes and bytes; the lines of small texts; the
//! Debian packages. Times alone are counted and not listed: every rebuild touches thousands.

mod packages;
mod renames;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::content::Content;
use crate::tree::{Inode, Kind, Tree};

pub use packages::Package;
pub use text::NoText;

/// Changes that are listed; the rest is counted.
const LISTED: usize = 200_000;
/// Longest attribute shown whole.
const XATTR_SHOWN: usize = 256;

/// How two trees differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Debian packages that came, went or have another version.
    pub packages: Vec<Package>,
    /// By path.
    pub changes: Vec<Change>,
    /// Of all of them.
    pub counts: Counts,
}

/// How much differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Names that came.
    pub added: u64,
    /// Names that went.
    pub removed: u64,
    /// Names that stayed, with something else behind them.
    pub changed: u64,
    /// Files that have another name and the same bytes.
    pub renamed: u64,
    /// Names of which nothing but the time differs; they are not listed.
    pub touched: u64,
    /// Changes that are not listed either: there are too many.
    pub unlisted: u64,
    /// Bytes of files before, where something differs.
    pub bytes_before: u64,
    /// Bytes of files after.
    pub bytes_after: u64,
    /// Lines of texts that are not shown, for those of others were enough.
    pub texts_unlisted: u64,
}

/// One name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Without a leading `/`; bytes that are no UTF-8 are U+FFFD.
    pub path: String,
    /// What became of it.
    pub what: What,
    /// The name it had, if it was renamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// In what it differs, if it was there and is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<Aspect>,
    /// As it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Facts>,
    /// As it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Facts>,
    /// Its lines as a unified diff, from the first `@@` on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Why there are none, where bytes differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_text: Option<NoText>,
}

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It came.
    Added,
    /// It went.
    Removed,
    /// It has another name.
    Renamed,
    /// Something else is behind it.
    Changed,
}

/// In what two inodes differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// File, directory, …
    Type,
    /// Permission bits.
    Mode,
    /// User or group.
    Owner,
    /// Bytes of a file, and so perhaps its size.
    Content,
    /// What a symbolic link points at.
    Target,
    /// Numbers of a device.
    Device,
    /// Extended attributes: capabilities, ACLs.
    Xattrs,
    /// How many names it has.
    Links,
}

/// What an inode is, but for its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// `file`, `dir`, `symlink`, `char`, `block`, `fifo`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The twelve permission bits; written in octal.
    #[serde(serialize_with = "octal")]
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// What a symbolic link points at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Major and minor number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
    /// Names a file has, where they are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<u32>,
    /// Extended attributes: as text, or `0x…` as getfattr writes them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
}

/// A name with what is behind it, and how many names that has.
#[derive(Clone, Copy)]
struct Entry<'t> {
    path: &'t [u8],
    inode: &'t Inode,
    links: u32,
}

/// Compares two trees. Reads the bytes of files that have the same size in both.
pub(crate) fn compare(old: &Tree, new: &Tree) -> io::Result<Diff> {
    let (mut gone, mut came) = (Vec::new(), Vec::new());
    let mut both = Vec::new();
    let mut counts = Counts::default();
    let (links_before, links_after) = (links(old), links(new));
    let mut before = entries(old, &links_before).peekable();
    let mut after = entries(new, &links_after).peekable();
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(old), Some(new)) => old.path.cmp(new.path),
        };
        match order {
            std::cmp::Ordering::Less => gone.extend(before.next()),
            std::cmp::Ordering::Greater => came.extend(after.next()),
            std::cmp::Ordering::Equal => {
                let (Some(old), Some(new)) = (before.next(), after.next()) else { break };
                let differs = differs(&old, &new)?;
                if !differs.is_empty() {
                    both.push((old, new, differs));
                } else if old.inode.meta.mtime != new.inode.meta.mtime {
                    counts.touched += 1;
                }
            }
        }
    }
    let renamed = renames::pair(&mut gone, &mut came)?;
    let mut found: Vec<Pair> = Vec::with_capacity(gone.len() + came.len() + both.len());
    found.extend(gone.into_iter().map(|old| Pair::new(What::Removed, Some(old), None)));
    found.extend(came.into_iter().map(|new| Pair::new(What::Added, None, Some(new))));
    for (old, new) in renamed {
        let differs = differs(&old, &new)?;
        found.push(Pair { differs, ..Pair::new(What::Renamed, Some(old), Some(new)) });
    }
    for (old, new, differs) in both {
        found.push(Pair { differs, ..Pair::new(What::Changed, Some(old), Some(new)) });
    }
    found.sort_by_key(|pair| pair.path());

    let mut diff = Diff { packages: packages::compare(old, new)?, ..Diff::default() };
    let mut texts = text::Texts::default();
    for pair in found {
        counts.count(&pair);
        if diff.changes.len() >= LISTED {
            counts.unlisted += 1;
            continue;
        }
        diff.changes.push(pair.told(&mut texts)?);
    }
    counts.texts_unlisted = texts.left_out;
    diff.counts = counts;
    Ok(diff)
}

/// A change before it is put into words.
struct Pair<'t> {
    what: What,
    old: Option<Entry<'t>>,
    new: Option<Entry<'t>>,
    differs: Vec<Aspect>,
}

impl<'t> Pair<'t> {
    fn new(what: What, old: Option<Entry<'t>>, new: Option<Entry<'t>>) -> Pair<'t> {
        Pair { what, old, new, differs: Vec::new() }
    }

    fn path(&self) -> &'t [u8] {
        self.new.or(self.old).map_or(b"", |entry| entry.path)
    }

    fn told(self, texts: &mut text::Texts) -> io::Result<Change> {
        let lossy = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let content = |entry: &Option<Entry<'t>>| match entry.map(|entry| &entry.inode.kind) {
            Some(Kind::File(content)) => Some(content),
            _ => None,
        };
        let (old, new) = (content(&self.old), content(&self.new));
        let written = match self.what {
            What::Added => new.is_some(),
            What::Changed => {
                self.differs.iter().any(|d| matches!(d, Aspect::Content | Aspect::Type))
            }
            // What went is in the version before, and what was renamed is the same.
            What::Removed | What::Renamed => false,
        };
        let shy = [self.old, self.new].into_iter().flatten().any(|entry| is_private(entry.inode));
        let (text, no_text) = match written && (old.is_some() || new.is_some()) {
            false => (None, None),
            true if shy => (None, Some(NoText::Private)),
            true => match texts.between(old, new)? {
                Ok(text) => (Some(text), None),
                Err(why) => (None, Some(why)),
            },
        };
        Ok(Change {
            path: lossy(self.path()),
            what: self.what,
            from: self.old.filter(|_| self.what == What::Renamed).map(|old| lossy(old.path)),
            differs: self.differs,
            before: self.old.map(|entry| Facts::of(&entry)),
            after: self.new.map(|entry| Facts::of(&entry)),
            text,
            no_text,
        })
    }
}

impl Counts {
    fn count(&mut self, pair: &Pair<'_>) {
        let size = |entry: &Option<Entry<'_>>| match entry.map(|entry| &entry.inode.kind) {
            Some(Kind::File(content)) => content.size(),
            _ => 0,
        };
        self.bytes_before = self.bytes_before.saturating_add(size(&pair.old));
        self.bytes_after = self.bytes_after.saturating_add(size(&pair.new));
        *match pair.what {
            What::Added => &mut self.added,
            What::Removed => &mut self.removed,
            What::Renamed => &mut self.renamed,
            What::Changed => &mut self.changed,
        } += 1;
    }
}

/// Keys and password hashes are in files that not everybody may read: their lines stay there.
fn is_private(inode: &Inode) -> bool {
    matches!(inode.kind, Kind::File(_)) && inode.meta.mode & 0o004 == 0
}

fn links(tree: &Tree) -> HashMap<usize, u32> {
    let mut links = HashMap::new();
    for (_, number, inode) in tree.iter() {
        if matches!(inode.kind, Kind::File(_)) {
            *links.entry(number).or_insert(0) += 1;
        }
    }
    links
}

fn entries<'t>(tree: &'t Tree, links: &HashMap<usize, u32>) -> impl Iterator<Item = Entry<'t>> {
    tree.iter().map(|(path, number, inode)| {
        let links = links.get(&number).copied().unwrap_or(1);
        Entry { path, inode, links }
    })
}

fn differs(old: &Entry<'_>, new: &Entry<'_>) -> io::Result<Vec<Aspect>> {
    let mut found = Vec::new();
    let mut note = |differs: bool, aspect| {
        if differs {
            found.push(aspect);
        }
    };
    let (before, after) = (&old.inode.meta, &new.inode.meta);
    let is_link = matches!(new.inode.kind, Kind::Symlink(_));
    note(kind(&old.inode.kind) != kind(&new.inode.kind), Aspect::Type);
    // A symbolic link's mode means nothing, and archivers write what they like.
    note(before.mode != after.mode && !is_link, Aspect::Mode);
    note((before.uid, before.gid) != (after.uid, after.gid), Aspect::Owner);
    match (&old.inode.kind, &new.inode.kind) {
        (Kind::File(old), Kind::File(new)) => note(!same(old, new)?, Aspect::Content),
        (Kind::Symlink(old), Kind::Symlink(new)) => note(old != new, Aspect::Target),
        (old, new) => note(kind(old) == kind(new) && device(old) != device(new), Aspect::Device),
    }
    note(before.xattrs != after.xattrs, Aspect::Xattrs);
    note(old.links != new.links && kind(&old.inode.kind) == kind(&new.inode.kind), Aspect::Links);
    Ok(found)
}

/// Whether two files hold the same bytes.
fn same(old: &Content, new: &Content) -> io::Result<bool> {
    if old.size() != new.size() {
        return Ok(false);
    }
    if let (Content::Span(old), Content::Span(new)) = (old, new)
        && Arc::ptr_eq(&old.file, &new.file)
        && old.start == new.start
    {
        return Ok(true);
    }
    let (mut old, mut new) = (old.open()?, new.open()?);
    let (mut one, mut other) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let (got, also) = (fill(&mut old, &mut one)?, fill(&mut new, &mut other)?);
        if one.get(..got) != other.get(..also) {
            return Ok(false);
        }
        if got < one.len() {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the end is there.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match reader.read(&mut buffer[at..]) {
            Ok(0) => break,
            Ok(got) => at += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::Dir => "dir",
        Kind::File(_) => "file",
        Kind::Symlink(_) => "symlink",
        Kind::Char { .. } => "char",
        Kind::Block { .. } => "block",
        Kind::Fifo => "fifo",
    }
}

fn device(kind: &Kind) -> Option<(u32, u32)> {
    match kind {
        Kind::Char { major, minor } | Kind::Block { major, minor } => Some((*major, *minor)),
        _ => None,
    }
}

impl Facts {
    fn of(entry: &Entry<'_>) -> Facts {
        let Inode { meta, kind: what } = entry.inode;
        let xattrs = meta.xattrs.iter();
        Facts {
            kind: kind(what),
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            size: match what {
                Kind::File(content) => Some(content.size()),
                _ => None,
            },
            target: match what {
                Kind::Symlink(target) => Some(String::from_utf8_lossy(target).into_owned()),
                _ => None,
            },
            device: device(what),
            links: (entry.links > 1).then_some(entry.links),
            xattrs: xattrs
                .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value_of(value)))
                .collect(),
        }
    }
}

/// An attribute's value as text, or in hexadecimal.
fn value_of(value: &[u8]) -> String {
    use std::fmt::Write as _;
    let text = std::str::from_utf8(value).ok();
    let short = &value[..value.len().min(XATTR_SHOWN)];
    let more = if value.len() > short.len() { "…" } else { "" };
    match text.filter(|text| text.chars().all(|c| !c.is_control()) && more.is_empty()) {
        Some(text) => text.to_owned(),
        None => {
            let hex = short.iter().fold(String::from("0x"), |mut hex, byte| {
                // A String takes any text.
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            hex + more
        }
    }
}

fn octal<S: Serializer>(mode: &u32, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(&format_args!("{mode:04o}"))
}

#[cfg(test)]
mod tests;

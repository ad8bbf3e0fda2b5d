//! A folder of files as it is now: bounded, sorted, nothing followed. All that is wrong in it is said at once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use koboshi_initramfs::contract::FILES_MAX;
use minijinja::Environment;
use sha2::{Digest, Sha256};

use super::pack::{Archive, pack};
use super::render::{self, ENDING};
use super::{Member, What};

/// Files of one folder.
const MOST: usize = 4096;
/// Folders within each other.
const DEEPEST: usize = 32;
/// Mounted over when the machine boots: what is put there would be gone.
const MOUNTED: [&str; 4] = ["dev", "proc", "run", "sys"];

/// What is in it.
#[derive(Debug, Default)]
pub struct Folder {
    /// All that is no template.
    pub(super) fixed: Option<Archive>,
    /// Templates, by the names they become; their contents are in `templates`.
    pub(super) filled: Vec<Member>,
    pub(super) templates: Environment<'static>,
    /// Where it is.
    pub(super) path: PathBuf,
    /// How many files, and their bytes.
    pub files: usize,
    /// Together.
    pub bytes: u64,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    /// In which file, or of which folder.
    pub path: PathBuf,
    /// Its text and the line in it, from 1, where that says more.
    pub line: Option<(String, usize)>,
    /// What.
    pub what: String,
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.line {
            Some((_, line)) => write!(f, "{}:{line}: {}", self.path.display(), self.what),
            None => write!(f, "{}: {}", self.path.display(), self.what),
        }
    }
}

/// What a look at a folder has found.
#[derive(Debug, Default)]
pub struct Found {
    /// What is in it.
    pub folder: Folder,
    /// Digest of names, modes and contents, 64 hex digits.
    pub digest: String,
    /// What is wrong.
    pub bad: Vec<Bad>,
    /// It, and those below: where files may come.
    pub folders: Vec<PathBuf>,
    /// Files that were looked at.
    pub files: Vec<PathBuf>,
}

/// Reads a folder.
pub fn read(path: &Path) -> Found {
    let mut found = Found::default();
    let mut walk = Walk { top: path, found: &mut found, members: BTreeMap::new(), bytes: 0 };
    walk.folder(path, "", 0);
    let members = walk.members;
    found.folder.path = path.to_path_buf();
    found.folder.files = members.len();
    let mut hash = Sha256::new();
    let (mut fixed, mut texts) = (Vec::new(), Vec::new());
    for (name, (template, member)) in members {
        let content = match &member.what {
            What::Bytes(bytes) => bytes.as_ref(),
            What::Link(target) => target.as_bytes(),
        };
        found.folder.bytes += content.len() as u64;
        let kind = matches!(member.what, What::Link(_));
        let facts = (name.as_str(), &template, member.mode, kind, content.len());
        hash.update(format!("{facts:?}\0"));
        hash.update(content);
        match template {
            Some(template) => {
                texts.push((template, content.to_vec()));
                found.folder.filled.push(member);
            }
            None => fixed.push(member),
        }
    }
    found.digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    found.folder.templates = render::environment();
    for (name, text) in texts {
        let file = path.join(&name);
        match String::from_utf8(text) {
            Err(_) => found.bad.push(Bad {
                path: file,
                line: None,
                what: "a template, and no UTF-8 text".to_string(),
            }),
            Ok(text) => {
                let added = found.folder.templates.add_template_owned(name, text.clone());
                found.bad.extend(added.err().map(|error| render::bad(&file, &text, &error)));
            }
        }
    }
    found.folder.fixed = pack(&fixed);
    if found.bad.is_empty() && found.folder.files > 0 {
        found.bad = secrets(path);
    }
    found
}

/// What an image would not be published for. There is no list of what is allowed all the same: whatever has to be
/// there belongs into an image, where somebody answers for it.
fn secrets(path: &Path) -> Vec<Bad> {
    let bad = |path: PathBuf, what: String| Bad { path, line: None, what };
    let findings = match koboshi_images::lint(path, &std::env::temp_dir()) {
        Ok(findings) => findings,
        Err(error) => {
            return vec![bad(
                path.to_path_buf(),
                format!("not looked through for secrets: {error}"),
            )];
        }
    };
    let kept = |finding: &&koboshi_images::Finding| {
        finding.stops() && !finding.path.split('/').any(left_behind)
    };
    let told = |finding: &koboshi_images::Finding| {
        let line = finding.line.map(|line| format!(", line {line}")).unwrap_or_default();
        let rule = finding.rule;
        let what = format!("{}{line}: {} ({})", rule.what, rule.why, rule.todo);
        bad(path.join(finding.path.trim_start_matches('/')), what)
    };
    findings.iter().filter(kept).map(told).collect()
}

struct Walk<'a> {
    top: &'a Path,
    found: &'a mut Found,
    /// By the name in the root: the template it comes from, if it does.
    members: BTreeMap<String, (Option<String>, Member)>,
    bytes: u64,
}

impl Walk<'_> {
    fn bad(&mut self, path: &Path, what: impl Into<String>) {
        // One is enough of what is wrong with a thousand.
        if self.found.bad.len() < 20 {
            self.found.bad.push(Bad { path: path.to_path_buf(), line: None, what: what.into() });
        }
    }

    fn folder(&mut self, path: &Path, within: &str, depth: usize) {
        self.found.folders.push(path.to_path_buf());
        if depth > DEEPEST {
            return self.bad(path, format!("more than {DEEPEST} folders within each other"));
        }
        let entries = match fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(error) => {
                let what = match error.kind() {
                    std::io::ErrorKind::NotFound => "this folder does not exist".to_string(),
                    _ => format!("this folder cannot be read: {error}"),
                };
                return self.bad(path, what);
            }
        };
        let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                self.bad(&path, "its name is not UTF-8");
                continue;
            };
            if left_behind(name) {
                continue;
            }
            if name.chars().any(char::is_control) {
                self.bad(&path, "its name holds a control character");
                continue;
            }
            let whole = format!("{within}{name}");
            if MOUNTED.contains(&whole.as_str()) {
                self.bad(&path, format!("/{whole} is mounted over when a machine boots"));
                continue;
            }
            self.entry(&path, whole, depth);
        }
    }

    fn entry(&mut self, path: &Path, name: String, depth: usize) {
        let meta = match fs::symlink_metadata(path) {
            Ok(meta) => meta,
            Err(error) => return self.bad(path, error.to_string()),
        };
        if meta.is_dir() {
            return self.folder(path, &format!("{name}/"), depth + 1);
        }
        self.found.files.push(path.to_path_buf());
        let what = if meta.is_symlink() {
            match fs::read_link(path).map(|target| target.into_os_string().into_string()) {
                Ok(Ok(target)) => What::Link(target),
                Ok(Err(_)) => return self.bad(path, "it leads to a name that is not UTF-8"),
                Err(error) => return self.bad(path, error.to_string()),
            }
        } else if meta.is_file() {
            let room = FILES_MAX.saturating_sub(self.bytes);
            let mut bytes = Vec::new();
            let opened = File::open(path);
            let read = opened.and_then(|file| file.take(room + 1).read_to_end(&mut bytes));
            if let Err(error) = read {
                return self.bad(path, format!("cannot be read: {error}"));
            }
            self.bytes += bytes.len() as u64;
            if self.bytes > FILES_MAX {
                let most = FILES_MAX >> 20;
                let what = format!(
                    "its files are larger than {most} MiB together: what is large belongs into the image"
                );
                let top = self.top;
                self.bytes = 0;
                return self.bad(top, what);
            }
            What::Bytes(bytes.into())
        } else {
            return self.bad(path, "neither a file nor a link nor a folder");
        };
        if self.members.len() >= MOST {
            let top = self.top;
            return self.bad(top, format!("more than {MOST} files"));
        }
        let template = name.strip_suffix(ENDING).filter(|_| matches!(what, What::Bytes(_)));
        let becomes = template.unwrap_or(&name).to_string();
        let template = template.is_some().then(|| name.clone());
        let mtime = u64::try_from(meta.mtime()).unwrap_or(0);
        // Nobody but root changes a machine's files, and none of them gives its rights away.
        let mode = meta.permissions().mode() & 0o755;
        let member = Member { path: becomes.clone(), mode, mtime, what };
        if self.members.insert(becomes, (template, member)).is_some() {
            self.bad(path, format!("there twice: with {ENDING} and without"));
        }
    }
}

/// What editors and version control keep beside files.
fn left_behind(name: &str) -> bool {
    name == ".git"
        || name.ends_with('~')
        || name.starts_with(".#")
        || (name.starts_with('.') && name.ends_with(".swp"))
}

/// What it holds, for people.
impl std::fmt::Display for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files = if self.files == 1 { "file" } else { "files" };
        write!(f, "{} {files}, {} bytes", self.files, self.bytes)?;
        match self.filled.len() {
            0 => Ok(()),
            1 => write!(f, ", 1 of them a template"),
            many => write!(f, ", {many} of them templates"),
        }
    }
}

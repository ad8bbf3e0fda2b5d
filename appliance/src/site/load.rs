//! Reading the site file and what it includes, when the appliance starts, when a file changes and when
//! the operator asks `check`. A file that is half saved, huge, binary or gone is a problem with a name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};
use toml::de::DeTable;

use super::files;
use super::meant::{self, Site};
use super::origin::{At, Origin, Source};
use super::problem::{Problem, Problems};
use super::written::Written;

/// No site file is larger: 100,000 machines take 12 MB.
pub const LARGEST: u64 = 16 << 20;
/// All files of a site together.
const LARGEST_SITE: u64 = 64 << 20;
/// So many files, so deep.
const MOST_FILES: usize = 4096;
const DEEPEST: usize = 16;
/// Looking for every syntax error costs memory per error; in a file larger than this only the first is said.
const EVERY_ERROR: usize = 1 << 20;
/// As many problems are drawn.
const FIRST_PLACES: usize = 60;

/// What the file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To work by it on this machine, now.
    Serve,
    /// To look at it, perhaps on another machine.
    Check,
}

/// What must be known of this machine to understand the file.
pub struct Env<'a> {
    /// The IPv4 addresses of an interface with their prefix lengths; none if there is no such interface.
    pub interface_network: &'a dyn Fn(&str) -> Vec<(Ipv4Addr, u8)>,
    /// Why it is read.
    pub purpose: Purpose,
}

impl Env<'static> {
    /// This machine as it is now.
    pub fn system(purpose: Purpose) -> Env<'static> {
        Env { interface_network: &system_networks, purpose }
    }
}

/// The addresses of an interface of this machine, in the kernel's order.
pub fn system_networks(interface: &str) -> Vec<(Ipv4Addr, u8)> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    all.filter(|one| one.interface_name == interface)
        .filter_map(|one| {
            let address = one.address?.as_sockaddr_in()?.ip();
            let mask = one.netmask?.as_sockaddr_in()?.ip();
            Some((address, mask.to_bits().leading_ones() as u8))
        })
        .collect()
}

/// A file of the site and the sha256 of what was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it was.
    pub hash: [u8; 32],
}

/// What a change of the site would be a change of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// The files that were read, or should have been.
    pub files: BTreeSet<PathBuf>,
    /// The folders they are in, and those in which an include looks.
    pub folders: BTreeSet<PathBuf>,
    /// The includes, as absolute as they are known.
    pub globs: BTreeSet<String>,
}

impl Watched {
    /// Would a change of this file be a change of the site?
    pub fn concerns(&self, path: &Path) -> bool {
        self.files.contains(path)
            || self.globs.iter().any(|pattern| {
                glob::Pattern::new(pattern)
                    .is_ok_and(|pattern| pattern.matches_path_with(path, GLOB))
            })
    }
}

/// `*` never reaches into folders, nor to the hidden files that editors leave behind.
const GLOB: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Reads a site. Everything that is wrong comes back at once; warnings come with the site.
pub fn load(path: &Path, env: &Env) -> Result<Site, Problems> {
    let gathered = gather(path);
    let mut problems = gathered.problems;
    problems.watch(gathered.watched.clone());
    if gathered.broken {
        // Half a file: what it refers to may stand in the other half.
        return Err(problems.sorted());
    }
    let mut site = meant::build(gathered.written, &gathered.root, env, &mut problems);
    let mut watched = gathered.watched;
    files::read(&mut site, &mut watched, &mut problems);
    problems.watch(watched.clone());
    let problems = problems.sorted();
    if problems.has_errors() {
        return Err(problems);
    }
    Ok(Site { files: gathered.files, watched, warnings: problems, ..site })
}

/// The files, read and understood one by one.
pub(super) struct Gathered {
    pub written: Written,
    pub files: Vec<SiteFile>,
    pub watched: Watched,
    pub problems: Problems,
    /// The beginning of the first file: for what has no better place.
    pub root: Origin,
    /// A file is not TOML, or not there.
    pub broken: bool,
}

/// Reads all files. The parser bounds brackets to 80 and the dots of a key to 80, but each of the one
/// may hold the other: 6,400 tables within each other, which are dropped by recursion. No file of ours
/// is like that; one that is gets an error and not the end of the process, so there is room for it.
pub(super) fn gather(path: &Path) -> Gathered {
    const ROOM: usize = 64 << 20;
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name("site".into()).stack_size(ROOM);
        match reader.spawn_scoped(scope, || gather_here(path)).map(|reader| reader.join()) {
            Ok(Ok(gathered)) => gathered,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => gather_here(path),
        }
    })
}

fn gather_here(path: &Path) -> Gathered {
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let shown = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let empty = Source::new(path.to_path_buf(), shown, String::new(), 0);
    let mut reading = Reading {
        folder,
        total: 0,
        seen: BTreeSet::new(),
        out: Gathered {
            written: Written::default(),
            files: Vec::new(),
            watched: Watched::default(),
            problems: Problems::default(),
            root: empty.origin(0..0),
            broken: false,
        },
    };
    let from = reading.out.root.clone();
    reading.file(path, &from, &mut Vec::new());
    reading.out
}

struct Reading {
    folder: PathBuf,
    total: u64,
    /// Files by their real path: two includes may find the same one.
    seen: BTreeSet<PathBuf>,
    out: Gathered,
}

impl Reading {
    fn broken(&mut self, problem: Problem) {
        self.out.broken = true;
        self.out.problems.push(problem);
    }

    /// One file, then what it includes. `from` is where it was asked for.
    fn file(&mut self, path: &Path, from: &Origin, chain: &mut Vec<PathBuf>) {
        watch_file(&mut self.out.watched, path);
        let first = chain.is_empty();
        let shown = match path.strip_prefix(&self.folder) {
            Ok(inside) if !inside.as_os_str().is_empty() => inside.display().to_string(),
            _ => path.display().to_string(),
        };
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(why) => {
                let message = format!("the site file {} {why}", path.display());
                return self
                    .broken(Problem::error("unreadable", from, message).label("asked for here"));
            }
        };
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        if let Some(parent) = real.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.out.watched.folders.insert(parent.to_path_buf());
            self.out.watched.files.insert(real.clone());
        }
        if chain.contains(&real) {
            let message = format!("{shown} includes itself");
            return self
                .broken(Problem::error("include-cycle", from, message).label("round and round"));
        }
        if !self.seen.insert(real.clone()) {
            return;
        }
        self.total += bytes.len() as u64;
        if self.total > LARGEST_SITE || self.out.files.len() >= MOST_FILES || chain.len() >= DEEPEST
        {
            let message = format!(
                "the site has too many files: at most {MOST_FILES}, {} MiB together, {DEEPEST} deep",
                LARGEST_SITE >> 20
            );
            return self
                .broken(Problem::error("too-large", from, message).label("this is one too many"));
        }
        let hash = Sha256::digest(&bytes).into();
        self.out.files.push(SiteFile { path: path.to_path_buf(), hash });
        let order = self.out.files.len() as u32 - 1;
        let source = match text(bytes) {
            Ok(text) => Source::new(path.to_path_buf(), shown, text, order),
            Err(bad) => {
                let source = Source::new(path.to_path_buf(), shown, bad.shown, order);
                let problem =
                    Problem::error(bad.code, &source.origin(bad.at..bad.at + 1), bad.message);
                return self.broken(problem.label("here").help(bad.help));
            }
        };
        if first {
            self.out.root = source.origin(0..0);
        }
        let include = self.understand(&source);
        chain.push(real);
        for pattern in include {
            self.include(&source, &pattern, chain);
        }
        chain.pop();
    }

    /// Parses a file and takes it in.
    fn understand(&mut self, source: &Arc<Source>) -> Vec<At<String>> {
        let text = source.text();
        let (table, errors) = match text.len() <= EVERY_ERROR {
            true => DeTable::parse_recoverable(text),
            false => match DeTable::parse(text) {
                Ok(table) => (table, Vec::new()),
                Err(error) => (toml::Spanned::new(0..0, DeTable::new()), vec![error]),
            },
        };
        let mut only_doubles = true;
        for (number, error) in errors.iter().enumerate() {
            // Where something stood first is looked up for those that are shown; each costs a look
            // at the whole file.
            let look = number < FIRST_PLACES;
            let problem = syntax(source, error, look.then_some(table.get_ref()));
            only_doubles &= problem.code == "written-twice";
            self.out.problems.push(problem);
        }
        if !errors.is_empty() {
            self.out.broken |= !only_doubles;
        }
        if only_doubles {
            return self.out.written.read(source, table.get_ref(), &mut self.out.problems);
        }
        Vec::new()
    }

    fn include(&mut self, source: &Arc<Source>, pattern: &At<String>, chain: &mut Vec<PathBuf>) {
        let folder = source.path().parent().unwrap_or(Path::new(""));
        // A folder's own name may hold a `[`.
        let inside = glob::Pattern::escape(&folder.to_string_lossy());
        let whole = match Path::new(&pattern.value).is_absolute() || inside.is_empty() {
            true => pattern.value.clone(),
            false => format!("{inside}/{}", pattern.value),
        };
        let is_glob = pattern.value.contains(['*', '?', '[']);
        if !is_glob {
            return self.file(&folder.join(&pattern.value), &pattern.origin, chain);
        }
        let base = fixed_part(folder, &pattern.value);
        self.out.watched.folders.insert(base);
        self.out.watched.globs.insert(whole.clone());
        let found = match glob::glob_with(&whole, GLOB) {
            Ok(found) => found,
            Err(bad) => {
                let message =
                    format!("{:?} is not a pattern for files: {}", pattern.value, bad.msg);
                let problem = Problem::error("include", &pattern.origin, message);
                return self
                    .broken(problem.label("this pattern").help("like \"machines.d/*.toml\""));
            }
        };
        for path in found.take(MOST_FILES + 1) {
            match path {
                // A pattern that finds the very file it stands in means the others.
                Ok(path) if fs::canonicalize(&path).is_ok_and(|real| chain.contains(&real)) => {}
                Ok(path) => self.file(&path, &pattern.origin, chain),
                Err(error) => {
                    let message =
                        format!("{} cannot be read: {}", error.path().display(), error.error());
                    let problem = Problem::error("unreadable", &pattern.origin, message);
                    self.broken(problem.label("included here"));
                }
            }
        }
    }
}

fn watch_file(watched: &mut Watched, path: &Path) {
    watched.files.insert(path.to_path_buf());
    let folder = path.parent().unwrap_or(Path::new(""));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    watched.folders.insert(folder.to_path_buf());
}

/// The folder a pattern looks in, as far as it is certain.
fn fixed_part(folder: &Path, pattern: &str) -> PathBuf {
    let certain = Path::new(pattern)
        .components()
        .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']));
    let base = folder.join(certain.collect::<PathBuf>());
    if base.as_os_str().is_empty() { PathBuf::from(".") } else { base }
}

/// The bytes of a regular file that is not too large; never more than that in memory.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let about = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist".to_string(),
        _ => format!("cannot be read: {error}"),
    };
    // Before it is opened: opening a pipe would wait for its writer.
    let meta = fs::metadata(path).map_err(about)?;
    if !meta.is_file() {
        let kind = if meta.is_dir() { "a folder" } else { "a device, a socket or a pipe" };
        return Err(format!("is {kind}, not a regular file"));
    }
    let too_large = || format!("is larger than {} MiB", LARGEST >> 20);
    if meta.len() > LARGEST {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
        .map_err(about)?;
    if bytes.len() as u64 > LARGEST { Err(too_large()) } else { Ok(bytes) }
}

struct BadText {
    code: &'static str,
    message: String,
    help: &'static str,
    at: usize,
    shown: String,
}

/// UTF-8 without NULs.
fn text(bytes: Vec<u8>) -> Result<String, BadText> {
    let nul = bytes.iter().position(|byte| *byte == 0);
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let byte = error.as_bytes()[at];
            return Err(BadText {
                code: "utf-8",
                message: format!("this is not UTF-8 text (byte 0x{byte:02x} at offset {at})"),
                help: "save the file as UTF-8",
                at,
                shown: String::from_utf8_lossy(error.as_bytes()).into_owned(),
            });
        }
    };
    if let Some(at) = nul {
        return Err(BadText {
            code: "nul",
            message: format!("the file holds NUL bytes, the first at offset {at}"),
            help: "the file was cut off in a crash, or is not text: restore it from a copy",
            at,
            shown: text,
        });
    }
    Ok(text)
}

/// What the parser said, in our words and with both places where there are two.
fn syntax(source: &Arc<Source>, error: &toml::de::Error, table: Option<&DeTable>) -> Problem {
    let end = source.text().len();
    let span = error.span().unwrap_or(end..end);
    let origin = source.origin(span.clone());
    if error.message() != "duplicate key" {
        let message = format!("this is not TOML: {}", error.message());
        let problem =
            Problem::error("syntax", &origin, message).label("not understood from here on");
        let bare = ["string values must be quoted", "invalid float", "invalid integer"];
        if bare.iter().any(|words| error.message().contains(words)) {
            return problem.help("text and addresses stand in quotation marks: key = \"value\"");
        }
        let open = ["unclosed", "missing comma", "missing key"];
        return match open.iter().any(|words| error.message().contains(words)) {
            true => problem.help("perhaps a {, a [ or a quotation mark further up is not closed"),
            false => problem,
        };
    }
    let key = origin.text().to_string();
    let problem = Problem::error("written-twice", &origin, format!("{key} is written twice"))
        .label("written again here")
        .help("keep one of the two; a half-finished edit may have left both");
    let first = table.and_then(|table| {
        first_header(source, &origin).or_else(|| first_key(source.text(), table, span.start, &key))
    });
    match first {
        Some(first) => problem.also(&source.origin(first), "first written here"),
        None => problem,
    }
}

/// The same `[header]`, further up.
fn first_header(source: &Arc<Source>, origin: &Origin) -> Option<std::ops::Range<usize>> {
    fn bare(line: &str) -> &str {
        line.split('#').next().unwrap_or("").trim()
    }
    let header = bare(origin.line_text());
    if !header.starts_with('[') {
        return None;
    }
    let line =
        (1..origin.line()).find(|line| bare(&source.text()[source.line_range(*line)]) == header)?;
    Some(source.line_range(line))
}

/// The nearest key of that name before this place, not within an inline table that this is not in.
fn first_key(
    text: &str,
    table: &DeTable,
    before: usize,
    name: &str,
) -> Option<std::ops::Range<usize>> {
    let name = name.trim_matches(['"', '\'']);
    let mut best: Option<std::ops::Range<usize>> = None;
    for (key, value) in table {
        if key.get_ref() == name && key.span().start < before {
            best = best.into_iter().chain([key.span()]).max_by_key(|span| span.start);
        }
        let inner: Vec<&DeTable> = match value.get_ref() {
            toml::de::DeValue::Table(inner) => vec![inner],
            toml::de::DeValue::Array(array) => {
                array.iter().filter_map(|value| value.get_ref().as_table()).collect()
            }
            _ => continue,
        };
        for inner in inner {
            let inline = text[value.span()].starts_with('{');
            if inline && !value.span().contains(&before) {
                continue;
            }
            if let Some(found) = first_key(text, inner, before, name) {
                best = best.into_iter().chain([found]).max_by_key(|span| span.start);
            }
        }
    }
    best
}

impl Serialize for SiteFile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let hash: String = self.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut out = serializer.serialize_struct("SiteFile", 2)?;
        out.serialize_field("path", &self.path)?;
        out.serialize_field("sha256", &hash)?;
        out.end()
    }
}

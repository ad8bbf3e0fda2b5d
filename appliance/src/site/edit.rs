//! Changing one value of the site file from a command: `seat`, later `takeover`. Comments,
//! order and everything else stay; two who edit at once wait for each other; an editor who saved in
//! between is noticed; and after a power cut the file is the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use toml_edit::{DocumentMut, Item, Key, Table, TableLike, Value};

use super::hostlist;
use super::load::{gather, read};
use super::names::MachineName;
use super::problem::Problems;
use super::template;
use super::written::Place;

/// So long an edit waits for another one.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The file it stood in.
    pub file: PathBuf,
    /// The value before, as written; none if there was none.
    pub was: Option<String>,
    /// sha256 of the file before.
    pub before: [u8; 32],
    /// sha256 of the file now.
    pub after: [u8; 32],
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file is not well as it is.
    #[error("the site file has errors, mend them first:\n{0}")]
    Site(Problems),
    /// Somebody else is at it.
    #[error("{} is locked: another command edits the site file", .0.display())]
    Locked(PathBuf),
    /// It was saved by somebody else while we worked on it.
    #[error("{} was changed by somebody else just now; try again", .0.display())]
    Raced(PathBuf),
    /// A host-list key that cannot be taken apart.
    #[error("{machine} is part of the line {key:?} in {}, which cannot be split: {why}; write the machines of that line out", .file.display())]
    Shared {
        /// Whose line it would be.
        machine: MachineName,
        /// The key.
        key: String,
        /// Its file.
        file: PathBuf,
        /// What is in the way.
        why: String,
    },
    /// The table is something else.
    #[error("{what} in {} is not a table", .file.display())]
    NotATable {
        /// The key.
        what: String,
        /// Its file.
        file: PathBuf,
    },
    /// What the files system said.
    #[error("{}: {why}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        why: String,
    },
}

/// Gives a machine a place in the matrix. `site` is the first file; the line may stand in an included
/// one. Where a host-list key covers the machine, that key gives it up and it gets a line of its own.
pub fn set_place(site: &Path, machine: &MachineName, place: &Place) -> Result<Edited, EditError> {
    let _lock = Lock::take(site)?;
    let before = matrix(site)?;
    let (file, key) = match before.rows.iter().find(|(name, ..)| name == machine) {
        Some((_, _, file, key)) => (file.clone(), Some(key.clone())),
        None => (before.matrix_file.clone().unwrap_or_else(|| site.to_path_buf()), None),
    };
    let edited = change(
        &file,
        |document| {
            let matrix = table(document, &["matrix"], &file)?;
            let value = Value::from(place.to_string());
            match &key {
                Some(key) if hostlist::is_list(key) => {
                    split(matrix, key, machine, value).map_err(|why| EditError::Shared {
                        machine: machine.clone(),
                        key: key.clone(),
                        file: file.clone(),
                        why,
                    })
                }
                _ => Ok(put(matrix, machine.as_str(), value)),
            }
        },
        |text| {
            // Whatever was done, nobody else's place may have changed by it.
            let after = rows_of(text).ok_or("the result could not be read back")?;
            let mut wanted: Vec<(String, String)> = before
                .rows
                .iter()
                .filter(|(name, _, from, _)| *from == file && name != machine)
                .map(|(name, place, ..)| (name.to_string(), place.clone()))
                .collect();
            wanted.push((machine.to_string(), place.to_string()));
            wanted.sort();
            if wanted == after {
                Ok(())
            } else {
                Err("other machines would be touched".to_string())
            }
        },
    )?;
    Ok(edited)
}

/// Sets one value in one file: `["machines", "m07", "protected"]`. Missing tables are made.
pub fn set_value(
    site: &Path,
    file: &Path,
    keys: &[&str],
    value: Value,
) -> Result<Edited, EditError> {
    let _lock = Lock::take(site)?;
    let (last, parents) = keys.split_last().ok_or_else(|| EditError::NotATable {
        what: "an empty path".into(),
        file: file.to_path_buf(),
    })?;
    change(
        file,
        |document| Ok(put(table(document, parents, file)?, last, value.clone())),
        |text| text.parse::<DocumentMut>().map(drop).map_err(|error| error.message().to_string()),
    )
}

/// Held while a site is edited. The lock file stays: removing it would let two in.
pub(super) struct Lock(#[expect(dead_code, reason = "closing it gives the lock back")] File);

impl Lock {
    pub(super) fn take(site: &Path) -> Result<Lock, EditError> {
        let mut name = site.file_name().unwrap_or_default().to_os_string();
        name.push(".lock");
        let path = site.with_file_name(name);
        let io =
            |error: std::io::Error| EditError::Io { path: path.clone(), why: error.to_string() };
        let options =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o644).clone();
        let file = options.open(&path).map_err(io)?;
        let end = Instant::now() + PATIENCE;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(file)),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(Errno::WOULDBLOCK) => return Err(EditError::Locked(path)),
                Err(error) => return Err(io(error.into())),
            }
        }
    }
}

/// The matrix as it stands: machine, place, file, key.
struct Matrix {
    rows: Vec<(MachineName, String, PathBuf, String)>,
    matrix_file: Option<PathBuf>,
}

fn matrix(site: &Path) -> Result<Matrix, EditError> {
    let gathered = gather(site);
    if gathered.broken || gathered.problems.has_errors() {
        return Err(EditError::Site(gathered.problems.sorted()));
    }
    let mut rows: Vec<_> = gathered.written.matrix.iter().collect();
    rows.sort_by_key(|(_, row)| row.origin.order());
    let matrix_file = rows.last().map(|(_, row)| row.origin.file().to_path_buf());
    let rows = rows.into_iter().map(|(machine, row)| {
        let key = row.key.text().trim().trim_matches(['"', '\'']).to_string();
        (machine.clone(), row.place.to_string(), row.key.file().to_path_buf(), key)
    });
    Ok(Matrix { rows: rows.collect(), matrix_file })
}

/// The lines of one file's matrix, sorted.
pub(super) fn rows_of(text: &str) -> Option<Vec<(String, String)>> {
    let document: DocumentMut = text.parse().ok()?;
    let mut rows = Vec::new();
    if let Some(matrix) = document.get("matrix").and_then(Item::as_table_like) {
        for (key, value) in matrix.iter() {
            let value = value.as_str()?;
            match hostlist::is_list(key) {
                false => rows.push((key.to_string(), value.to_string())),
                true => {
                    for host in hostlist::expand(key).ok()? {
                        let filled = template::fill(value, &host.numbers, false).ok()?;
                        rows.push((host.name, filled));
                    }
                }
            }
        }
    }
    rows.sort();
    Some(rows)
}

/// Reads, changes, checks, and puts in place.
pub(super) fn change(
    file: &Path,
    edit: impl FnOnce(&mut DocumentMut) -> Result<Option<String>, EditError>,
    check: impl FnOnce(&str) -> Result<(), String>,
) -> Result<Edited, EditError> {
    let io = |why: String| EditError::Io { path: file.to_path_buf(), why };
    // A link stays a link: what it points to is replaced.
    let file = fs::canonicalize(file).map_err(|error| io(error.to_string()))?;
    let bytes = read(&file).map_err(|why| io(format!("the file {why}")))?;
    let before: [u8; 32] = Sha256::digest(&bytes).into();
    let text = String::from_utf8(bytes).map_err(|_| io("is not UTF-8 text".into()))?;
    let (mark, body) = match text.strip_prefix('\u{feff}') {
        Some(body) => ("\u{feff}", body),
        None => ("", text.as_str()),
    };
    let crlf = body.contains("\r\n");
    let body = if crlf { body.replace("\r\n", "\n") } else { body.to_string() };
    let mut document: DocumentMut =
        body.parse().map_err(|error: toml_edit::TomlError| io(error.to_string()))?;
    let was = edit(&mut document)?;
    let changed = document.to_string();
    check(&changed).map_err(io)?;
    let changed = if crlf { changed.replace('\n', "\r\n") } else { changed };
    let changed = format!("{mark}{changed}");
    let after: [u8; 32] = Sha256::digest(&changed).into();
    if after != before {
        replace(&file, changed.as_bytes(), before)?;
    }
    Ok(Edited { file, was, before, after })
}

/// The table at a path, made if it is missing.
pub(super) fn table<'d>(
    document: &'d mut DocumentMut,
    keys: &[&str],
    file: &Path,
) -> Result<&'d mut dyn TableLike, EditError> {
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for (depth, key) in keys.iter().enumerate() {
        let item = table.entry(key).or_insert_with(|| {
            let mut made = Table::new();
            made.set_implicit(depth + 1 < keys.len());
            Item::Table(made)
        });
        table = item.as_table_like_mut().ok_or_else(|| EditError::NotATable {
            what: keys[..=depth].join("."),
            file: file.to_path_buf(),
        })?;
    }
    Ok(table)
}

/// Sets a value; its comment stays. Hands back the former one, as written.
pub(super) fn put(table: &mut dyn TableLike, key: &str, mut value: Value) -> Option<String> {
    if let Some(item) = table.get_mut(key) {
        let was = match item.as_value() {
            Some(old) => old.clone().decorated("", "").to_string(),
            None => item.to_string(),
        };
        if let Some(old) = item.as_value() {
            *value.decor_mut() = old.decor().clone();
        }
        *item = Item::Value(value);
        return Some(was);
    }
    table.insert(key, Item::Value(value));
    None
}

/// Takes a machine out of a host-list key and gives it a line of its own behind it.
fn split(
    table: &mut dyn TableLike,
    key: &str,
    machine: &MachineName,
    value: Value,
) -> Result<Option<String>, String> {
    let hosts = hostlist::expand(key).map_err(|bad| bad.to_string())?;
    let covered = table.get(key).and_then(Item::as_str).ok_or("its value is not a string")?;
    let brackets = hosts.iter().map(|host| host.numbers.len()).max().unwrap_or(0);
    if brackets > 1 && template::asks(covered) {
        return Err("its value counts by several brackets".into());
    }
    let whose = hosts.iter().find(|host| host.name == machine.as_str());
    let was = whose.and_then(|host| template::fill(covered, &host.numbers, false).ok());
    let rest = hostlist::fold(
        hosts.iter().map(|host| host.name.as_str()).filter(|name| *name != machine.as_str()),
    );
    let old: Vec<(Key, Item)> = {
        let names: Vec<String> = table.iter().map(|(name, _)| name.to_string()).collect();
        let mut taken = Vec::new();
        for name in names {
            let decor = table.key(&name).cloned();
            let item = table.remove(&name).unwrap_or(Item::None);
            taken.push((decor.unwrap_or_else(|| Key::new(&name)), item));
        }
        taken
    };
    for (old_key, item) in old {
        if old_key.get() != key {
            insert(table, &old_key, item);
            continue;
        }
        if !rest.is_empty() {
            // One name left, or one range: `{n}` still needs its bracket.
            let rest = bracketed(&rest, item.as_str().is_some_and(template::asks));
            let renamed = Key::new(rest).with_leaf_decor(old_key.leaf_decor().clone());
            insert(table, &renamed, item);
            insert(table, &Key::new(machine.as_str()), Item::Value(value.clone()));
        } else {
            let own = Key::new(machine.as_str()).with_leaf_decor(old_key.leaf_decor().clone());
            insert(table, &own, Item::Value(value.clone()));
        }
    }
    Ok(was)
}

fn insert(table: &mut dyn TableLike, key: &Key, item: Item) {
    table.entry_format(key).or_insert(item);
}

/// `m03` as `m[03]`, so that `{n}` has a number: fold writes a single name without its bracket.
fn bracketed(list: &str, counts: bool) -> String {
    if !counts {
        return list.to_string();
    }
    let mut out = Vec::new();
    let mut depth = 0;
    let parts = list.split(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    for part in parts {
        let end = part.bytes().rposition(|b| b.is_ascii_digit()).map(|at| at + 1);
        match end {
            Some(end) if !part.contains('[') => {
                let start =
                    part[..end].bytes().rposition(|b| !b.is_ascii_digit()).map_or(0, |at| at + 1);
                out.push(format!("{}[{}]{}", &part[..start], &part[start..end], &part[end..]));
            }
            _ => out.push(part.to_string()),
        }
    }
    out.join(",")
}

/// Written beside, brought to disk, renamed over, and the folder brought to disk: a power cut leaves
/// the one or the other.
fn replace(file: &Path, bytes: &[u8], before: [u8; 32]) -> Result<(), EditError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let io =
        |error: std::io::Error| EditError::Io { path: file.to_path_buf(), why: error.to_string() };
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // Hidden, so that no include finds it.
    let beside = file.with_file_name(format!(".{name}.{}.{count}.new", std::process::id()));
    let meta = fs::metadata(file).map_err(io)?;
    let write = || -> std::io::Result<()> {
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        out.write_all(bytes)?;
        // Another owner's file stays theirs where we may say so.
        let _ = std::os::unix::fs::fchown(&out, Some(meta.uid()), Some(meta.gid()));
        out.set_permissions(fs::Permissions::from_mode(meta.mode() & 0o7777))?;
        out.sync_all()
    };
    let done = write().map_err(io).and_then(|()| {
        let now = read(file).map_err(|_| EditError::Raced(file.to_path_buf()))?;
        if <[u8; 32]>::from(Sha256::digest(&now)) != before {
            return Err(EditError::Raced(file.to_path_buf()));
        }
        fs::rename(&beside, file).map_err(io)
    });
    if done.is_err() {
        let _ = fs::remove_file(&beside);
    }
    done?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let site = dir.path().join("site.toml");
        (dir, site)
    }

    fn seat(site: &Path, machine: &str, place: &str) -> Result<Edited, EditError> {
        set_place(site, &machine.parse().unwrap(), &place.parse().unwrap())
    }

    const SITE: &str = "\
# the whole house
[machines]   # hardware
m01 = {}

[matrix]     # who sits where
# front
m02 = \"web2\"   # since May
m01 = \"web1\"

# last word
";

    #[test]
    fn one_value_changes_and_nothing_else() {
        let (_dir, site) = folder(&[("site.toml", SITE)]);
        let edited = seat(&site, "m02", "spare").unwrap();
        assert_eq!(edited.was.as_deref(), Some("\"web2\""));
        let now = fs::read_to_string(&site).unwrap();
        assert_eq!(now, SITE.replace("m02 = \"web2\"", "m02 = \"spare\""));
        assert_ne!(edited.before, edited.after);
        let again = seat(&site, "m02", "spare").unwrap();
        assert_eq!((again.before, again.after), (edited.after, edited.after), "nothing to do");
    }

    #[test]
    fn windows_files_stay_windows_files() {
        let text = format!("\u{feff}{}", SITE.replace('\n', "\r\n"));
        let (_dir, site) = folder(&[("site.toml", &text)]);
        seat(&site, "m01", "web9").unwrap();
        let now = fs::read_to_string(&site).unwrap();
        assert_eq!(now, text.replace("web1", "web9"));
    }

    #[test]
    fn a_machine_without_a_line_gets_one() {
        let (_dir, site) = folder(&[("site.toml", SITE)]);
        let edited = seat(&site, "m03", "web3").unwrap();
        assert_eq!(edited.was, None);
        let now = fs::read_to_string(&site).unwrap();
        assert_eq!(now, SITE.replace("m01 = \"web1\"\n", "m01 = \"web1\"\nm03 = \"web3\"\n"));
        let (_dir, site) = folder(&[("site.toml", "[machines]\nm01 = {}\n")]);
        seat(&site, "m01", "spare").unwrap();
        let now = fs::read_to_string(&site).unwrap();
        assert_eq!(now, "[machines]\nm01 = {}\n\n[matrix]\nm01 = \"spare\"\n");
    }

    #[test]
    fn the_line_is_found_in_an_included_file() {
        let main = "[site]\ninclude = \"d/*.toml\"\n[matrix]\nm01 = \"web1\"\n";
        let rack = "# rack\n[matrix]\nm02 = \"web2\" # there\n";
        let (dir, site) = folder(&[("site.toml", main), ("d/rack.toml", rack)]);
        let edited = seat(&site, "m02", "web3").unwrap();
        assert_eq!(edited.file, fs::canonicalize(dir.path().join("d/rack.toml")).unwrap());
        assert_eq!(fs::read_to_string(&edited.file).unwrap(), rack.replace("web2", "web3"));
        assert_eq!(fs::read_to_string(&site).unwrap(), main);
        let names: Vec<_> = fs::read_dir(dir.path().join("d")).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_host_list_gives_a_machine_up() {
        for (line, machine, now) in [
            (
                "\"m[01-04]\" = \"web{n}\" # all\n",
                "m02",
                "\"m[01,03-04]\" = \"web{n}\" # all\nm02 = \"spare\"\n",
            ),
            ("\"m[01-02]\" = \"web{n}\"\n", "m02", "\"m[01]\" = \"web{n}\"\nm02 = \"spare\"\n"),
            ("\"m01,m02\" = \"spare\"\n", "m01", "m02 = \"spare\"\nm01 = \"spare\"\n"),
            ("\"m[07]\" = \"web{n}\"\n", "m07", "m07 = \"spare\"\n"),
        ] {
            let text = format!("[matrix]\nx = \"a\"\n# rack\n{line}z = \"b\"\n");
            let (_dir, site) = folder(&[("site.toml", &text)]);
            let edited = seat(&site, machine, "spare").unwrap();
            let want = format!("[matrix]\nx = \"a\"\n# rack\n{now}z = \"b\"\n");
            assert_eq!(fs::read_to_string(&site).unwrap(), want);
            assert!(edited.was.is_some());
        }
        let (_dir, site) = folder(&[("site.toml", "[matrix]\n\"r[1-2]m[1-2]\" = \"w{n1}{n2}\"\n")]);
        let said = seat(&site, "r1m2", "spare").unwrap_err().to_string();
        assert!(
            said.contains("r1m2 is part of the line \"r[1-2]m[1-2]\"")
                && said.contains("write the machines of that line out"),
            "{said}"
        );
    }

    #[test]
    fn every_shape_of_a_matrix_can_be_edited() {
        for (text, want) in [
            ("matrix = { m01 = \"a\", m02 = \"b\" }\n", "matrix = { m01 = \"c\", m02 = \"b\" }\n"),
            ("matrix.m01 = \"a\"\n", "matrix.m01 = \"c\"\n"),
            ("[matrix]\n\"m01\" = 'a'\n", "[matrix]\n\"m01\" = \"c\"\n"),
        ] {
            let (_dir, site) = folder(&[("site.toml", text)]);
            seat(&site, "m01", "c").unwrap();
            assert_eq!(fs::read_to_string(&site).unwrap(), want);
        }
    }

    #[test]
    fn a_broken_file_is_not_touched() {
        let (_dir, site) = folder(&[("site.toml", "[matrix\nm01 = \"a\"\n")]);
        assert!(matches!(seat(&site, "m01", "b"), Err(EditError::Site(_))));
        assert_eq!(fs::read_to_string(&site).unwrap(), "[matrix\nm01 = \"a\"\n");
        assert!(matches!(
            seat(Path::new("/nowhere/site.toml"), "m01", "b"),
            Err(EditError::Io { .. })
        ));
    }

    #[test]
    fn an_editor_who_was_faster_is_noticed() {
        let (_dir, site) = folder(&[("site.toml", SITE)]);
        let raced = replace(&site, b"ours", Sha256::digest(b"what we read").into());
        assert!(matches!(raced, Err(EditError::Raced(_))));
        assert_eq!(fs::read_to_string(&site).unwrap(), SITE);
        assert_eq!(fs::read_dir(site.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn two_at_once_lose_nothing() {
        let rows: String = (0..8).map(|n| format!("m{n} = \"spare\"\n")).collect();
        let (_dir, site) = folder(&[("site.toml", &format!("[matrix]\n{rows}"))]);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let site = &site;
                scope.spawn(move || seat(site, &format!("m{n}"), &format!("web{n}")).unwrap());
            }
        });
        let now = fs::read_to_string(&site).unwrap();
        assert_eq!(
            now,
            (0..8).fold("[matrix]\n".to_string(), |t, n| t + &format!("m{n} = \"web{n}\"\n"))
        );
    }

    #[test]
    fn mode_and_link_survive() {
        let (dir, site) = folder(&[("real.toml", SITE)]);
        let real = dir.path().join("real.toml");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real.toml", &site).unwrap();
        seat(&site, "m01", "web5").unwrap();
        assert!(site.is_symlink() && fs::read_to_string(&real).unwrap().contains("web5"));
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o640);
    }

    #[test]
    fn any_value_can_be_set() {
        let (_dir, site) = folder(&[("site.toml", SITE)]);
        set_value(&site, &site, &["machines", "m01", "protected"], true.into()).unwrap();
        set_value(&site, &site, &["net", "unknown"], "discover".into()).unwrap();
        let now = fs::read_to_string(&site).unwrap();
        assert!(now.contains("m01 = { protected = true }\n"), "{now}");
        assert!(now.contains("[net]\nunknown = \"discover\"\n"), "{now}");
        assert!(matches!(
            set_value(&site, &site, &["matrix", "m01", "x"], true.into()),
            Err(EditError::NotATable { .. })
        ));
    }
}

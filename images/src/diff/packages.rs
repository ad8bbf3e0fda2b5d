//! Which Debian packages two roots have, by `var/lib/dpkg/status` (dpkg(1), deb-control(5)): a new
//! version of an image is mostly new versions of those.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use crate::tree::{Kind, Tree};

const STATUS: &[u8] = b"var/lib/dpkg/status";
/// A full desktop's is 5 MB.
const STATUS_MAX: u64 = 64 << 20;

/// A package that came, went or has another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Its name; with the architecture where it is there for several.
    pub name: String,
    /// The version it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The version it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Compares what is installed. A root without dpkg has no packages.
pub(super) fn compare(old: &Tree, new: &Tree) -> io::Result<Vec<Package>> {
    let (old, mut new) = (installed(old)?, installed(new)?);
    let mut found = Vec::new();
    for (name, before) in old {
        let after = new.remove(&name);
        if after.as_ref() != Some(&before) {
            found.push(Package { name, before: Some(before), after });
        }
    }
    let came = new.into_iter();
    found.extend(came.map(|(name, after)| Package { name, before: None, after: Some(after) }));
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn installed(tree: &Tree) -> io::Result<BTreeMap<String, String>> {
    let Some((_, inode)) = tree.resolve(STATUS) else { return Ok(BTreeMap::new()) };
    match &inode.kind {
        Kind::File(content) if content.size() <= STATUS_MAX => {
            Ok(parse(&String::from_utf8_lossy(&content.read(STATUS_MAX)?)))
        }
        _ => Ok(BTreeMap::new()),
    }
}

/// The installed packages of a status file, with their versions.
fn parse(status: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for paragraph in status.split("\n\n") {
        let field = |wanted: &str| {
            let lines = paragraph.lines().filter(|line| !line.starts_with([' ', '\t']));
            let mut fields = lines.filter_map(|line| line.split_once(':'));
            fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, text)| text.trim())
        };
        // `deinstall ok config-files` is a package that went and left its configuration.
        let there = field("Status").is_some_and(|status| status.ends_with(" installed"));
        if let (true, Some(name), Some(version)) = (there, field("Package"), field("Version")) {
            found.insert((name, field("Architecture").unwrap_or("")), version);
        }
    }
    let mut several: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, _) in found.keys() {
        *several.entry(name).or_insert(0) += 1;
    }
    let full = |name: &str, architecture: &str| match several.get(name) {
        Some(count) if *count > 1 => format!("{name}:{architecture}"),
        _ => name.to_owned(),
    };
    found.iter().map(|((name, arch), version)| (full(name, arch), (*version).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_installed_is_read_as_dpkg_means_it() {
        let status = "Package: nginx\nStatus: install ok installed\nArchitecture: amd64\n\
            Version: 1.26.3-3\nDescription: server\n Version: not a field\n\n\
            Package: vim\nStatus: deinstall ok config-files\nVersion: 9\n\n\
            Package: libc6\nStatus: hold ok installed\nArchitecture: amd64\nVersion: 2.41\n\n\
            Package: libc6\nStatus: install ok installed\nArchitecture: i386\nVersion: 2.41\n";
        let found: Vec<(String, String)> = parse(status).into_iter().collect();
        let want = [("libc6:amd64", "2.41"), ("libc6:i386", "2.41"), ("nginx", "1.26.3-3")];
        assert_eq!(found, want.map(|(name, version)| (name.to_owned(), version.to_owned())));
    }

    proptest! {
        #[test]
        fn any_status_file_is_read(text in "([A-Za-z]{0,8}:? ?[ -~é]{0,12}\n{0,2}){0,20}") {
            parse(&text);
        }
    }
}

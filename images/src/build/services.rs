//! Units enabled as `systemctl enable` would (systemd.unit(5), "[Install] Section Options"), without
//! a systemd to do it: links in /etc/systemd/system.

use crate::tree::{Kind, Tree};

/// Where units lie, as systemd looks for them.
const DIRS: [&str; 3] = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
/// Debian's largest unit has 4 KiB.
const UNIT_MAX: u64 = 256 << 10;

/// A link to make, and what it points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) path: String,
    pub(super) target: String,
}

/// The links that enable a unit.
pub(super) fn enable(tree: &Tree, name: &str) -> Result<Vec<Link>, String> {
    let name = if name.contains('.') { name.to_owned() } else { format!("{name}.service") };
    // `serial-getty@ttyS0.service` is an instance of `serial-getty@.service`.
    let (stem, kind) = name.rsplit_once('.').unwrap_or((&name, ""));
    let (file, instance) = match stem.split_once('@') {
        Some((before, instance)) => (format!("{before}@.{kind}"), Some(instance)),
        None => (name.clone(), None),
    };
    let (path, text) = DIRS
        .iter()
        .find_map(|dir| {
            let path = format!("{dir}/{file}");
            match &tree.resolve(path.as_bytes())?.1.kind {
                Kind::File(content) => Some((path, content.read(UNIT_MAX).ok()?)),
                _ => None,
            }
        })
        .ok_or_else(|| format!("no unit {file} in the root: is its package among the packages?"))?;
    let text = String::from_utf8_lossy(&text);
    let install = Install::read(&text);
    let name = match (instance, &install.default) {
        (Some(""), Some(default)) => file.replace("@.", &format!("@{default}.")),
        (Some(""), None) => return Err(format!("{file} needs an instance, as in NAME@INSTANCE")),
        _ => name,
    };
    let target = format!("/{path}");
    let beside = |dir: &str, kind: &str| Link {
        path: format!("/etc/systemd/system/{dir}.{kind}/{name}"),
        target: target.clone(),
    };
    let wants = install.wanted_by.iter().map(|dir| beside(dir, "wants"));
    let requires = install.required_by.iter().map(|dir| beside(dir, "requires"));
    let aliases = install
        .alias
        .iter()
        .filter(|alias| **alias != name)
        .map(|alias| Link { path: format!("/etc/systemd/system/{alias}"), target: target.clone() });
    let mut links: Vec<Link> = wants.chain(requires).chain(aliases).collect();
    if links.is_empty() {
        return Err(format!("{file} says nothing of how it is enabled ([Install])"));
    }
    let slash = |link: &Link| link.path.matches('/').count() > 5 || link.path.contains("/../");
    if links.iter().any(slash) {
        return Err(format!("{file}: its [Install] holds paths"));
    }
    links.dedup();
    Ok(links)
}

#[derive(Default)]
struct Install {
    wanted_by: Vec<String>,
    required_by: Vec<String>,
    alias: Vec<String>,
    default: Option<String>,
}

impl Install {
    fn read(text: &str) -> Install {
        let mut install = Install::default();
        let mut inside = false;
        // A line that ends with a backslash goes on in the next.
        for line in text.replace("\\\n", " ").lines().map(str::trim) {
            if line.starts_with('[') {
                inside = line == "[Install]";
            }
            let Some((key, value)) = line.split_once('=').filter(|_| inside) else { continue };
            let mut words = value.split_whitespace().map(str::to_owned);
            match key.trim() {
                "WantedBy" => install.wanted_by.extend(words),
                "RequiredBy" => install.required_by.extend(words),
                "Alias" => install.alias.extend(words),
                "DefaultInstance" => install.default = words.next_back(),
                _ => {}
            }
        }
        install
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::source::Limits;
    use crate::source::spool::spooled;
    use crate::tree::{Inode, Member, Meta};

    fn tree(units: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new(Limits::default());
        for (path, text) in units {
            let kind = Kind::File(Content::Span(spooled(text.as_bytes())));
            let inode = Inode { meta: Meta::default(), kind };
            tree.add(path.as_bytes(), Member::Inode(inode)).unwrap();
        }
        tree
    }

    fn paths(tree: &Tree, name: &str) -> Vec<(String, String)> {
        enable(tree, name).unwrap().into_iter().map(|link| (link.path, link.target)).collect()
    }

    #[test]
    fn units_are_linked_as_systemctl_does() {
        let tree = tree(&[
            ("lib/systemd/system/nginx.service", "[Install]\nWantedBy=multi-user.target\n"),
            (
                "usr/lib/systemd/system/serial-getty@.service",
                "[Unit]\nAlias=no.service\n[Install]\nWantedBy=getty.target \\\n  x.target\nRequiredBy = y.target",
            ),
            ("etc/systemd/system/own.timer", "[Install]\nAlias=other.timer own.timer\n"),
        ]);
        let link = |path: &str, target: &str| {
            (format!("/etc/systemd/system/{path}"), format!("/{target}"))
        };
        let nginx = "lib/systemd/system/nginx.service";
        assert_eq!(paths(&tree, "nginx"), [link("multi-user.target.wants/nginx.service", nginx)]);
        let getty = "usr/lib/systemd/system/serial-getty@.service";
        assert_eq!(
            paths(&tree, "serial-getty@ttyS1.service"),
            [
                link("getty.target.wants/serial-getty@ttyS1.service", getty),
                link("x.target.wants/serial-getty@ttyS1.service", getty),
                link("y.target.requires/serial-getty@ttyS1.service", getty),
            ]
        );
        let own = "etc/systemd/system/own.timer";
        assert_eq!(paths(&tree, "own.timer"), [link("other.timer", own)]);
    }

    #[test]
    fn what_cannot_be_enabled_is_said() {
        let tree = tree(&[
            ("lib/systemd/system/static.service", "[Service]\nWantedBy=x.target\n"),
            ("lib/systemd/system/t@.service", "[Install]\nWantedBy=x.target\n"),
            ("lib/systemd/system/d@.service", "[Install]\nWantedBy=x.target\nDefaultInstance=1"),
            ("lib/systemd/system/evil.service", "[Install]\nAlias=../../../etc/passwd\n"),
        ]);
        for (name, says) in [
            ("static", "[Install]"),
            ("none", "no unit none.service"),
            ("t@.service", "needs an instance"),
            ("evil", "paths"),
        ] {
            let said = enable(&tree, name).unwrap_err();
            assert!(said.contains(says), "{name}: {said}");
        }
        let links = enable(&tree, "d@.service").unwrap();
        assert!(links[0].path.ends_with("x.target.wants/d@1.service"));
    }
}

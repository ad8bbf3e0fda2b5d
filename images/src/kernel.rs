//! Which kernel an image boots: found in the tree's `/boot`, together with its release, its
//! configuration, and the proof that its modules came along.

use std::cmp::Ordering;
use std::io;

use crate::content::Content;
use crate::error::{Fault, shown};
use crate::tree::{Kind, Tree};

/// The largest of Debian's kernels has 8 MB; with everything built in some reach 60.
const KERNEL_MAX: u64 = 512 << 20;
const CONFIG_MAX: u64 = 4 << 20;

/// The kernel of a tree.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// `6.1.0-32-amd64`: what `uname -r` will say.
    pub(crate) release: String,
    pub(crate) content: Content,
    /// Text of `/boot/config-<release>`, if it is there.
    pub(crate) config: Option<String>,
}

/// Finds the kernel: the one `/vmlinuz` or `/boot/vmlinuz` points at, for somebody chose it; else
/// the newest in `/boot`; else the newest that lies with its modules.
pub(crate) fn find(tree: &Tree) -> Result<Kernel, Fault> {
    let with_modules = releases(tree);
    let (path, content) = pick(tree, &with_modules).ok_or(Fault::NoKernel)?;
    let release = release(&path, &content, &with_modules)?;
    if !with_modules.contains(&release) {
        return Err(Fault::NoModules { release, others: with_modules });
    }
    let dep = format!("lib/modules/{release}/modules.dep");
    let has_dep = ["", "usr/"].iter().any(|root| {
        tree.resolve([root, &dep[..]].concat().as_bytes())
            .is_some_and(|(_, inode)| matches!(inode.kind, Kind::File(_)))
    });
    if !has_dep {
        return Err(Fault::NoModulesDep { release });
    }
    let config = [format!("boot/config-{release}"), format!("lib/modules/{release}/config")]
        .iter()
        .find_map(|path| file(tree, path.as_bytes()))
        .and_then(|config| config.read(CONFIG_MAX).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(Kernel { release, content, config })
}

/// Whether there is something for the kernel to run.
pub(crate) fn check_init(tree: &Tree) -> Result<(), Fault> {
    let why = match tree.resolve(b"sbin/init") {
        None if tree.get(b"sbin/init").is_some() => "it is a link to nothing",
        None => "it is missing",
        Some((_, inode)) => match &inode.kind {
            Kind::File(content) if content.size() == 0 => "it is empty",
            Kind::File(_) if inode.meta.mode & 0o111 == 0 => "it is not executable",
            Kind::File(_) => return Ok(()),
            _ => "it is not a program",
        },
    };
    Err(Fault::NoInit { why: why.to_owned() })
}

/// Releases with modules, in the order of versions.
fn releases(tree: &Tree) -> Vec<String> {
    let mut found: Vec<String> = [&b"usr/lib/modules"[..], b"lib/modules"]
        .iter()
        .filter_map(|dir| tree.resolve(dir))
        .flat_map(|(dir, _)| {
            let mut names = tree.children(&dir);
            names.retain(|name| {
                let path = [&dir[..], b"/", name].concat();
                tree.get(&path).is_some_and(|inode| matches!(inode.kind, Kind::Dir))
            });
            names
        })
        .filter_map(|name| String::from_utf8(name).ok())
        .collect();
    found.sort_by(|a, b| by_version(a, b));
    found.dedup();
    found
}

fn pick(tree: &Tree, with_modules: &[String]) -> Option<(String, Content)> {
    for link in ["vmlinuz", "boot/vmlinuz", "boot/Image"] {
        if let Some((path, inode)) = tree.resolve(link.as_bytes())
            && let Kind::File(content) = &inode.kind
        {
            return Some((String::from_utf8(path).ok()?, content.clone()));
        }
    }
    let mut kernels: Vec<(String, Content)> = tree
        .resolve(b"boot")
        .map(|(boot, _)| tree.children(&boot))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|name| String::from_utf8(name).ok())
        .filter(|name| suffix(name).is_some())
        .filter_map(|name| {
            Some((format!("boot/{name}"), file(tree, format!("boot/{name}").as_bytes())?))
        })
        .collect();
    // One without modules, newer or not, is a leftover of a package half removed.
    kernels.sort_by(|(a, _), (b, _)| {
        let fits = |path: &str| {
            path.rsplit('/')
                .next()
                .and_then(suffix)
                .is_some_and(|r| with_modules.iter().any(|m| m == r))
        };
        fits(a).cmp(&fits(b)).then_with(|| by_version(a, b))
    });
    kernels.pop().or_else(|| {
        // Fedora, Arch: the kernel lies with its modules.
        with_modules.iter().rev().find_map(|release| {
            let path = format!("lib/modules/{release}/vmlinuz");
            let paths = [path.clone(), format!("usr/{path}")];
            paths
                .into_iter()
                .find_map(|path| file(tree, path.as_bytes()).map(|found| (path, found)))
        })
    })
}

fn file(tree: &Tree, path: &[u8]) -> Option<Content> {
    match &tree.resolve(path)?.1.kind {
        Kind::File(content) if content.size() > 0 && content.size() <= KERNEL_MAX => {
            Some(content.clone())
        }
        _ => None,
    }
}

/// `vmlinuz-6.1.0-32-amd64` → `6.1.0-32-amd64`
fn suffix(name: &str) -> Option<&str> {
    let release = ["vmlinuz-", "vmlinux-", "Image-"].iter().find_map(|p| name.strip_prefix(p))?;
    (!release.is_empty() && !release.ends_with(".old") && !release.contains("rescue"))
        .then_some(release)
}

fn release(path: &str, content: &Content, with_modules: &[String]) -> Result<String, Fault> {
    let mut parts = path.rsplit('/');
    let name = parts.next().unwrap_or_default();
    let named = suffix(name).or_else(|| parts.next().filter(|_| path.contains("lib/modules/")));
    let sound =
        |release: &&str| !release.is_empty() && !release.starts_with('.') && release.len() < 128;
    if let Some(named) = named.filter(sound)
        && with_modules.iter().any(|release| release == named)
    {
        return Ok(named.to_owned());
    }
    let said = said_by_header(content);
    match (said.as_deref().or(named), with_modules) {
        (Some(release), _) if sound(&release) => Ok(release.to_owned()),
        // A nameless kernel and one set of modules: they belong together.
        (None, [only]) => Ok(only.clone()),
        _ => Err(Fault::NoRelease { kernel: shown(path.as_bytes()) }),
    }
}

/// The release in an x86 kernel's own header (Documentation/arch/x86/boot.rst, kernel_version).
fn said_by_header(content: &Content) -> Option<String> {
    let mut head = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(content.open().ok()?, 1 << 16), &mut head).ok()?;
    if head.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let pointer = u16::from_le_bytes(head.get(0x20e..0x210)?.try_into().ok()?);
    let text = head.get(usize::from(pointer) + 0x200..)?;
    let end = text.iter().take(128).position(|c| matches!(c, 0 | b' '))?;
    std::str::from_utf8(&text[..end]).ok().filter(|text| !text.contains('/')).map(str::to_owned)
}

/// Numbers as numbers, the rest as text; `6.1.0-9` before `6.1.0-32`, `6.1-rc1` before `6.1`.
fn by_version(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (runs(a).into_iter(), runs(b).into_iter());
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (Some(rest), None) => {
                return if is_rc(rest) { Ordering::Less } else { Ordering::Greater };
            }
            (None, Some(rest)) => {
                return if is_rc(rest) { Ordering::Greater } else { Ordering::Less };
            }
            (Some(a), Some(b)) => {
                let number = |run: &str| run.starts_with(|c: char| c.is_ascii_digit());
                match (number(a), number(b)) {
                    (true, true) => {
                        let [x, y] = [a, b].map(|run| run.trim_start_matches('0'));
                        x.len().cmp(&y.len()).then_with(|| x.cmp(y))
                    }
                    (false, false) => is_rc(b).cmp(&is_rc(a)).then_with(|| a.cmp(b)),
                    (x, y) => x.cmp(&y),
                }
            }
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn is_rc(run: &str) -> bool {
    run.trim_start_matches(['-', '~', '.']).starts_with("rc")
}

/// Runs of digits and of others, in turn.
fn runs(text: &str) -> Vec<&str> {
    let mut runs = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        runs.push(run);
        rest = after;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Limits;
    use crate::source::spool::spooled;
    use crate::tree::{Inode, Member, Meta};

    fn tree(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new(Limits::default());
        let meta = Meta { mode: 0o755, ..Meta::default() };
        for (name, bytes) in files {
            let kind = Kind::File(Content::Span(spooled(bytes)));
            let inode = Inode { meta: meta.clone(), kind };
            tree.add(name.as_bytes(), Member::Inode(inode)).unwrap();
        }
        for (name, target) in links {
            let inode = Inode { meta: meta.clone(), kind: Kind::Symlink(target.as_bytes().into()) };
            tree.add(name.as_bytes(), Member::Inode(inode)).unwrap();
        }
        tree
    }

    fn dep(release: &str) -> String {
        format!("usr/lib/modules/{release}/modules.dep")
    }

    #[test]
    fn the_newest_by_version_not_by_letter() {
        let order =
            ["5.10.0-9", "6.1-rc2", "6.1-rc10", "6.1", "6.1.0-9-amd64", "6.1.0-32-amd64", "6.10.1"];
        for pair in order.windows(2) {
            assert_eq!(by_version(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(by_version(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        let (nine, thirty_two) = (dep("6.1.0-9-amd64"), dep("6.1.0-32-amd64"));
        let files = [
            ("boot/vmlinuz-6.1.0-9-amd64", &b"nine"[..]),
            ("boot/vmlinuz-6.1.0-32-amd64", b"thirty-two"),
            ("boot/vmlinuz-6.1.0-40-amd64", b"left behind, without modules"),
            ("boot/config-6.1.0-32-amd64", b"CONFIG_RD_ZSTD=y"),
            (&nine, b""),
            (&thirty_two, b""),
        ];
        let kernel = find(&tree(&files, &[])).unwrap();
        assert_eq!(kernel.release, "6.1.0-32-amd64");
        assert_eq!(kernel.config.as_deref(), Some("CONFIG_RD_ZSTD=y"));
        let chosen = find(&tree(&files, &[("vmlinuz", "boot/vmlinuz-6.1.0-9-amd64")])).unwrap();
        assert_eq!(chosen.release, "6.1.0-9-amd64");
        let dangling = find(&tree(&files, &[("boot/vmlinuz", "vmlinuz-1")])).unwrap();
        assert_eq!(dangling.release, "6.1.0-32-amd64");
    }

    #[test]
    fn a_nameless_kernel_says_its_release_itself() {
        let mut image = vec![0u8; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        image[0x300..0x30e].copy_from_slice(b"6.9.1-own (me)");
        let (own, other) = (dep("6.9.1-own"), dep("6.9.2"));
        let files = [("boot/vmlinuz", &image[..]), (&own, b""), (&other, b"")];
        assert_eq!(find(&tree(&files, &[])).unwrap().release, "6.9.1-own");
        // Not x86: then there must be one set of modules only.
        let files = [("boot/vmlinuz", &b"arm"[..]), (&own, b""), (&other, b"")];
        assert!(matches!(find(&tree(&files, &[])), Err(Fault::NoRelease { .. })));
        let files = [("boot/vmlinuz", &b"arm"[..]), (&own, b"")];
        assert_eq!(find(&tree(&files, &[])).unwrap().release, "6.9.1-own");
        image[0x20e..0x210].copy_from_slice(&[0xff; 2]);
        assert_eq!(said_by_header(&Content::Span(spooled(&image))), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let kernel = ("boot/vmlinuz-6.1", &b"kernel"[..]);
        let other = dep("6.2");
        assert!(matches!(find(&tree(&[], &[])), Err(Fault::NoKernel)));
        let fault = find(&tree(&[kernel, (&other, b"")], &[])).unwrap_err();
        assert!(fault.to_string().ends_with("/usr/lib/modules/6.1 (there: 6.2)"), "{fault}");
        let bare = "usr/lib/modules/6.1/kernel/a.ko";
        let fault = find(&tree(&[kernel, (bare, b"x")], &[])).unwrap_err();
        assert!(fault.to_string().contains("`depmod -b ROOT 6.1`"), "{fault}");
    }

    #[test]
    fn a_kernel_beside_its_modules_is_found() {
        let (fedora, dep) = ("usr/lib/modules/6.11-fc/vmlinuz", dep("6.11-fc"));
        let kernel = find(&tree(&[(fedora, b"kernel"), (&dep, b"")], &[])).unwrap();
        assert_eq!(kernel.release, "6.11-fc");
    }

    #[test]
    fn init_must_be_a_program() {
        let systemd = ("lib/systemd/systemd", &b"elf"[..]);
        let link = |target| [("sbin/init", target)];
        assert!(check_init(&tree(&[systemd], &link("/lib/systemd/systemd"))).is_ok());
        assert!(check_init(&tree(&[systemd], &link("../lib/systemd/systemd"))).is_ok());
        for (tree, why) in [
            (tree(&[], &[]), "missing"),
            (tree(&[], &link("/gone")), "link to nothing"),
            (tree(&[("sbin/init/x", b"x")], &[]), "not a program"),
            (tree(&[("sbin/init", b"")], &[]), "empty"),
        ] {
            assert!(check_init(&tree).unwrap_err().to_string().contains(why), "{why}");
        }
    }
}

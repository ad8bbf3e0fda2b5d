//! The roots that recipes begin with, and what is done inside of them: busybox as one program,
//! Debian by mmdebstrap, and packages and commands in a root that is there.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::notes::Key;
use crate::content::{Content, Span};
use crate::debian::{Debian, Unpacked, run};
use crate::error::{Error, Fault};
use crate::import::Progress;
use crate::layer::Delta;
use crate::recipe::{Kernel, Recipe};
use crate::source::{self, Limits, Reading};
use crate::tree::{Inode, Kind, Member, Meta, Tree};

/// The kernel's package, laid out as the root wants it, with its modules' index.
pub(super) fn kernel(
    debian: &Debian,
    kernel: &Kernel,
    progress: &mut dyn FnMut(Progress),
) -> Result<Unpacked, Error> {
    debian.package(&kernel.package(), progress, &mut |root| {
        let usr = root.join("usr/lib");
        fs::create_dir_all(&usr).map_err(Error::io("making", &usr))?;
        // Until Debian 12 kernels say /lib; in a root that is a link to /usr/lib.
        if root.join("lib/modules").is_dir() {
            let (from, to) = (root.join("lib/modules"), usr.join("modules"));
            fs::rename(&from, &to).map_err(Error::io("renaming", &from))?;
            let lib = root.join("lib");
            fs::remove_dir_all(&lib).map_err(Error::io("removing", &lib))?;
        }
        let doc = root.join("usr/share");
        if doc.is_dir() {
            fs::remove_dir_all(&doc).map_err(Error::io("removing", &doc))?;
        }
        let modules = usr.join("modules");
        for entry in fs::read_dir(&modules).map_err(Error::io("reading", &modules))? {
            let entry = entry.map_err(Error::io("reading", &modules))?;
            let base = root.join("usr");
            // depmod appends lib/modules itself.
            let mut command = Command::new(depmod());
            command.arg("-b").arg(&base).arg(entry.file_name());
            run(&mut command, "indexing the kernel's modules", "kmod")?;
        }
        Ok(())
    })
}

/// A user's PATH often lacks the directory depmod is in.
fn depmod() -> &'static str {
    ["/usr/sbin/depmod", "/sbin/depmod"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("depmod")
}

/// Lays a kernel's package over a root, in the place of whatever kernel it has.
pub(super) fn lay_kernel(
    tree: &mut Tree,
    kernel: &Unpacked,
    reading: &mut Reading<'_>,
) -> Result<(), Error> {
    for dir in [&b"usr/lib/modules"[..], b"lib/modules", b"boot"] {
        let Some((dir, _)) = tree.resolve(dir) else { continue };
        let old: Vec<Vec<u8>> = tree.below(&dir).map(|(path, ..)| path.to_vec()).collect();
        old.iter().for_each(|path| tree.remove(path));
    }
    for link in [&b"vmlinuz"[..], b"vmlinuz.old", b"initrd.img", b"initrd.img.old"] {
        tree.remove(link);
    }
    source::overlay(tree, &kernel.dir, reading)
}

/// One program, and links to it.
pub(super) fn busybox(
    debian: &Debian,
    recipe: &Recipe,
    reading: &mut Reading<'_>,
) -> Result<(Tree, String), Error> {
    let unpacked = debian.package("busybox-static", reading.progress, &mut |_| Ok(()))?;
    let program = ["bin/busybox", "usr/bin/busybox"]
        .iter()
        .map(|path| unpacked.dir.join(path))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::Build {
            step: format!("recipe {}", recipe.name),
            what: format!("{} holds no busybox", unpacked.id),
        })?;
    let listed =
        run(Command::new(&program).arg("--list-full"), "asking busybox", "busybox-static")?;
    let tree = busybox_tree(&program, &listed, reading.limits).map_err(Error::source(&program))?;
    Ok((tree, unpacked.id))
}

fn busybox_tree(program: &Path, applets: &str, limits: Limits) -> Result<Tree, Fault> {
    let mut tree = Tree::new(limits);
    let mut add = |path: &str, mode: u32, kind: Kind| {
        let meta = Meta { mode, ..Meta::default() };
        tree.add(path.as_bytes(), Member::Inode(Inode { meta, kind }))
    };
    for dir in ["dev", "etc", "mnt", "proc", "run", "sys", "usr/bin", "usr/sbin", "usr/lib", "var"]
    {
        add(dir, 0o755, Kind::Dir)?;
    }
    add("root", 0o700, Kind::Dir)?;
    add("tmp", 0o1777, Kind::Dir)?;
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("var/run", "../run"),
        ("etc/mtab", "../proc/self/mounts"),
    ] {
        add(link, 0o777, Kind::Symlink(target.as_bytes().into()))?;
    }
    let file = File::open(program)?;
    add("usr/bin/busybox", 0o755, Kind::File(Content::Span(Span::whole(file)?)))?;
    for path in applets.lines().filter(|path| !path.ends_with("/busybox")) {
        let name = path.trim_start_matches('/');
        // `linuxrc` lies at the top; nothing asks for it since 2.4 kernels.
        if name.contains('/') {
            add(name, 0o777, Kind::Symlink(b"/usr/bin/busybox"[..].into()))?;
        }
    }
    Ok(tree)
}

/// Where roots are kept between builds.
pub(super) struct Roots<'a> {
    pub(super) debian: &'a Debian,
    pub(super) recipe: &'a Recipe,
    pub(super) dir: PathBuf,
}

impl Roots<'_> {
    /// A root of Debian's packages, at most a day old, and what names it.
    pub(super) fn packages(&self, reading: &mut Reading<'_>) -> Result<(Tree, Vec<u8>), Error> {
        let recipe = self.recipe;
        let key = Key::new(0).and(
            "packages",
            &[self.debian.sources().as_bytes(), recipe.packages.join(" ").as_bytes()],
        );
        self.kept("packages", key, reading, &mut |out, _, reading| {
            (reading.progress)(Progress::Step(format!("mmdebstrap {}", recipe.suite)));
            self.debian.root(&recipe.packages, out, reading.progress)
        })
    }

    /// The recipe's packages in a root that is there.
    pub(super) fn packages_above(
        &self,
        tree: &Tree,
        base: Key,
        reading: &mut Reading<'_>,
    ) -> Result<(Tree, Vec<u8>), Error> {
        let recipe = self.recipe;
        if tree.resolve(b"usr/bin/apt-get").is_none() {
            return Err(Error::Build {
                step: format!("recipe {}", recipe.name),
                what: "it has packages, and the image it is layered on has no apt-get".to_owned(),
            });
        }
        let key = base.and(
            "packages",
            &[self.debian.sources().as_bytes(), recipe.packages.join(" ").as_bytes()],
        );
        self.kept("packages", key, reading, &mut |out, work, reading| {
            (reading.progress)(Progress::Step(format!(
                "apt-get install, above {}",
                recipe.from.as_deref().unwrap_or("the base")
            )));
            let packed = self.export(tree, work)?;
            self.debian.within(&packed, &recipe.packages, &[], out, reading.progress)
        })
        .and_then(|(made, named)| Ok((self.returned(tree, made)?, named)))
    }

    /// The recipe's commands in a root.
    pub(super) fn commands(
        &self,
        tree: &Tree,
        base: Key,
        reading: &mut Reading<'_>,
    ) -> Result<(Tree, Vec<u8>), Error> {
        let lines = &self.recipe.commands;
        let key = base.and("commands", &[lines.join("\0").as_bytes()]);
        self.kept("commands", key, reading, &mut |out, work, reading| {
            (reading.progress)(Progress::Step("running the recipe's commands".to_owned()));
            let packed = self.export(tree, work)?;
            self.debian.within(&packed, &[], lines, out, reading.progress)
        })
        .and_then(|(made, named)| Ok((self.returned(tree, made)?, named)))
    }

    /// A tar that was made before and is young enough, or is made now. What names it is the same as
    /// long as it is.
    fn kept(
        &self,
        step: &str,
        key: Key,
        reading: &mut Reading<'_>,
        make: &mut dyn FnMut(&Path, &Path, &mut Reading<'_>) -> Result<(), Error>,
    ) -> Result<(Tree, Vec<u8>), Error> {
        let name = format!("{}-{step}", self.recipe.name);
        let tar = self.dir.join(format!("{name}-{}.tar", key.hex()));
        fs::create_dir_all(&self.dir).map_err(Error::io("making", &self.dir))?;
        if self.debian.young(&tar) {
            let said = format!("using the {step} of {} built before", self.recipe.name);
            (reading.progress)(Progress::Step(said));
        } else {
            let work = tempfile::Builder::new()
                .prefix(".build-")
                .tempdir_in(&self.dir)
                .map_err(Error::io("making a directory in", &self.dir))?;
            // In mmdebstrap's user namespace the caller is another user.
            fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755))
                .map_err(Error::io("changing", work.path()))?;
            let made = work.path().join("root.tar");
            make(&made, work.path(), reading)?;
            fs::rename(&made, &tar).map_err(Error::io("renaming", &made))?;
            forget_others(&self.dir, &name, &tar);
        }
        let meta = fs::metadata(&tar).map_err(Error::io("reading", &tar))?;
        let mut named = tar.clone().into_os_string().into_encoded_bytes();
        let modified = meta.modified().map_err(Error::io("reading", &tar))?;
        named.extend(format!("{modified:?} {}", meta.len()).bytes());
        Ok((source::read(&tar, reading)?.into_root(), named))
    }

    /// A root as a tar, for those that work inside of it, without what only its machine needs.
    fn export(&self, tree: &Tree, work: &Path) -> Result<PathBuf, Error> {
        let mut inside = tree.clone();
        for (path, ..) in tree.iter().filter(|(path, ..)| is_left_here(path)) {
            inside.forget(path);
        }
        let path = work.join("inside.tar");
        let out = File::create(&path).map_err(Error::io("making", &path))?;
        crate::pack::plain(&Delta::whole(&inside), out).map_err(Error::source(&path))?;
        Ok(path)
    }

    /// A root that comes back from there, with what it was spared.
    fn returned(&self, tree: &Tree, mut made: Tree) -> Result<Tree, Error> {
        let fault = Error::source(Path::new(&self.recipe.name));
        let mut first: std::collections::HashMap<usize, Vec<u8>> = Default::default();
        for (path, inode, node) in tree.iter().filter(|(path, ..)| is_left_here(path)) {
            let member = match first.get(&inode) {
                Some(first) => Member::HardLink(first.clone()),
                None => Member::Inode(node.clone()),
            };
            first.entry(inode).or_insert_with(|| path.to_vec());
            made.add(path, member).map_err(&fault)?;
        }
        Ok(made)
    }
}

/// Devices, which not everybody may make; kernel and modules, which are no concern of packages; and
/// the resolver, which mmdebstrap lends to the root.
fn is_left_here(path: &[u8]) -> bool {
    let below = |dir: &[u8]| path.strip_prefix(dir).is_some_and(|rest| !rest.is_empty());
    below(b"dev/") || below(b"usr/lib/modules/") || below(b"boot/") || path == b"etc/resolv.conf"
}

/// A recipe that is being worked on leaves a root for each of its texts: only the last is kept.
fn forget_others(roots: &Path, name: &str, kept: &Path) {
    let Ok(entries) = fs::read_dir(roots) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path != kept) {
        let of_this = path.file_name().and_then(|file| file.to_str()).and_then(|file| {
            file.strip_prefix(name)?.strip_prefix('-')?.strip_suffix(".tar").map(str::len)
        });
        if of_this == Some(16) {
            // Whoever reads it right now has it open, and keeps it until then.
            let _ = fs::remove_file(path);
        }
    }
}

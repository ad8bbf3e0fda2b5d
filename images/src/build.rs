//! `koboshi image build RECIPE`: a recipe becomes a version in the store.
//!
//! The kernel is laid over the root in memory, as a package unpacked into the cache: a build of
//! `rescue` touches nothing of the host, and neither base needs the privilege to make devices.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::content::{Content, Span};
use crate::debian::{Debian, Unpacked, run};
use crate::error::{Error, Fault};
use crate::import::{ImportOptions, Imported, Progress, import_tree};
use crate::recipe::{Base, Kernel, Recipe};
use crate::source::{self, Limits, Reading};
use crate::store::Store;
use crate::tree::{Inode, Kind, Member, Meta, Tree};
use crate::{Digest, Modules};

/// How a recipe is built.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Where package lists, packages and roots are kept for the next build.
    pub cache: PathBuf,
    /// The image it becomes, instead of the recipe's own name.
    pub name: Option<String>,
    /// Another kernel than the recipe's.
    pub kernel: Option<Kernel>,
    /// No modules in the root, whatever the recipe says.
    pub slim: bool,
    /// Another mirror than deb.debian.org.
    pub mirror: Option<String>,
    /// Fetch everything anew; else lists and roots of the last day are used again.
    pub fresh: bool,
    /// As for an import.
    pub import: ImportOptions,
}

impl BuildOptions {
    /// Everything as the recipe says.
    pub fn new(cache: impl Into<PathBuf>) -> BuildOptions {
        BuildOptions {
            cache: cache.into(),
            name: None,
            kernel: None,
            slim: false,
            mirror: None,
            fresh: false,
            import: ImportOptions::default(),
        }
    }
}

/// Builds a shipped recipe by name, or one of your own by path.
pub fn build(
    store: &Store,
    recipe: &str,
    options: &BuildOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Imported, Error> {
    let mut recipe = Recipe::load(recipe)?;
    if let Some(kernel) = &options.kernel {
        recipe = recipe.with_kernel(kernel.clone())?;
    }
    let name = options.name.clone().unwrap_or_else(|| recipe.name.clone());
    let cache =
        std::path::absolute(&options.cache).map_err(Error::io("finding", &options.cache))?;
    fs::create_dir_all(&cache).map_err(Error::io("making", &cache))?;
    let debian = Debian::new(&cache, &recipe, options.mirror.as_deref(), !options.fresh);
    let kernel = kernel(&debian, &recipe.kernel, progress)?;
    let modules = if options.slim { Modules::None } else { recipe.modules };
    let mut import = ImportOptions { modules, act: "build", ..options.import.clone() };
    let said = || format!("built from recipe {}, {}", recipe.name, kernel.id);
    import.reason = import.reason.or_else(|| Some(said()));
    let root = match recipe.base {
        Base::Busybox => busybox(&debian, &recipe, progress)?,
        Base::Debian => debian_root(&debian, &recipe, &cache, options.mirror.as_deref(), progress)?,
    };
    let source = PathBuf::from(format!("recipe {}", recipe.name));
    import_tree(store, &name, &source, &import, progress, &mut |reading| {
        let mut tree = match &root {
            Root::Tar(tar) => source::read(tar, reading)?.root().clone(),
            Root::Busybox(program, applets) => {
                busybox_tree(program, applets, reading.limits).map_err(Error::source(program))?
            }
        };
        source::overlay(&mut tree, &kernel.dir, reading)?;
        files(&recipe, &mut tree, reading).map_err(Error::source(&source))?;
        Ok(tree.into())
    })
}

enum Root {
    Tar(PathBuf),
    /// The program, and the paths it answers to.
    Busybox(PathBuf, Vec<String>),
}

/// The kernel's package, laid out as the root wants it, with its modules' index.
fn kernel(
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

fn busybox(
    debian: &Debian,
    recipe: &Recipe,
    progress: &mut dyn FnMut(Progress),
) -> Result<Root, Error> {
    let unpacked = debian.package("busybox-static", progress, &mut |_| Ok(()))?;
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
    Ok(Root::Busybox(program, listed.lines().map(str::to_owned).collect()))
}

fn busybox_tree(program: &Path, applets: &[String], limits: Limits) -> Result<Tree, Fault> {
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
    for path in applets.iter().filter(|path| !path.ends_with("/busybox")) {
        let name = path.trim_start_matches('/');
        // `linuxrc` lies at the top; nothing asks for it since 2.4 kernels.
        if name.contains('/') {
            add(name, 0o777, Kind::Symlink(b"/usr/bin/busybox"[..].into()))?;
        }
    }
    Ok(tree)
}

/// mmdebstrap's root, at most a day old.
fn debian_root(
    debian: &Debian,
    recipe: &Recipe,
    cache: &Path,
    mirror: Option<&str>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Root, Error> {
    let fault = |fault| Error::source(Path::new(&format!("recipe {}", recipe.name)))(fault);
    let mut key = format!("{}\n{}\n", recipe.text, mirror.unwrap_or_default()).into_bytes();
    for file in &recipe.files {
        key.extend(
            file.bytes(&recipe.dir)
                .map_err(Error::io("reading a file of", Path::new(&recipe.name)))?,
        );
    }
    let hash = &Digest::of(&key).hex()[..16];
    let roots = cache.join("roots");
    fs::create_dir_all(&roots).map_err(Error::io("making", &roots))?;
    let tar = roots.join(format!("{}-{hash}.tar", recipe.name));
    if debian.young(&tar) {
        progress(Progress::Step(format!("using the root of {} built before", recipe.name)));
        return Ok(Root::Tar(tar));
    }
    let work = tempfile::Builder::new()
        .prefix(".build-")
        .tempdir_in(&roots)
        .map_err(Error::io("making a directory in", &roots))?;
    // In mmdebstrap's user namespace the caller is another user.
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755))
        .map_err(Error::io("changing", work.path()))?;
    let overlay = work.path().join("files.tar");
    let mut tree = Tree::new(Limits::default());
    recipe_files(recipe, &mut tree, work.path()).map_err(fault)?;
    let mut out = File::create(&overlay).map_err(Error::io("making", &overlay))?;
    crate::pack::overlay(&tree, &mut out).map_err(fault)?;
    let made = work.path().join("root.tar");
    progress(Progress::Step(format!("mmdebstrap {}", recipe.suite)));
    debian.root(recipe, &overlay, &made, progress)?;
    fs::rename(&made, &tar).map_err(Error::io("renaming", &made))?;
    forget_others(&roots, &recipe.name, &tar);
    Ok(Root::Tar(tar))
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

/// The recipe's files, and what must not be the building host's.
fn files(recipe: &Recipe, tree: &mut Tree, reading: &mut Reading<'_>) -> Result<(), Fault> {
    let spool = reading.spool.dir().to_owned();
    // Names, resolvers and ids come with the boot. An empty machine-id is made at boot, where
    // `uninitialized` would make systemd ask questions on the console.
    for (path, text) in
        [("etc/hostname", "localhost\n"), ("etc/machine-id", ""), ("etc/resolv.conf", "")]
    {
        add_file(tree, path, 0o644, text.as_bytes(), &spool)?;
    }
    recipe_files(recipe, tree, &spool)
}

fn recipe_files(recipe: &Recipe, tree: &mut Tree, spool: &Path) -> Result<(), Fault> {
    for file in &recipe.files {
        let path = file.path.trim_start_matches('/');
        if let Some(target) = &file.link {
            let meta = Meta { mode: 0o777, ..Meta::default() };
            let kind = Kind::Symlink(target.as_bytes().into());
            tree.add(path.as_bytes(), Member::Inode(Inode { meta, kind }))?;
            continue;
        }
        let mode = file.mode_bits().map_err(|what| Fault::Malformed { what })?;
        add_file(tree, path, mode, &file.bytes(&recipe.dir)?, spool)?;
    }
    Ok(())
}

fn add_file(
    tree: &mut Tree,
    path: &str,
    mode: u32,
    bytes: &[u8],
    spool: &Path,
) -> Result<(), Fault> {
    let meta = Meta { mode, ..Meta::default() };
    let content = if bytes.is_empty() {
        Content::Empty
    } else {
        let mut file = tempfile::tempfile_in(spool)?;
        std::io::Write::write_all(&mut file, bytes)?;
        Content::Span(Span::whole(file)?)
    };
    tree.add(path.as_bytes(), Member::Inode(Inode { meta, kind: Kind::File(content) }))
}

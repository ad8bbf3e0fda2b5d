//! `koboshi image build RECIPE`: a recipe becomes a version in the store.
//!
//! It is made in steps, each a layer: the packages, or the image it is layered on; the kernel; what
//! the recipe puts over them. A step whose layer an earlier build packed is not packed again, and a
//! recipe of files alone runs nothing at all. The kernel is laid over the root in memory, as a
//! package unpacked into the cache: a build of `rescue` touches nothing of the host, and neither base
//! needs the privilege to make devices.

mod accounts;
mod dress;
mod notes;
mod root;
mod services;

use std::fs;
use std::path::{Path, PathBuf};

use self::notes::{Key, Notes};
use self::root::Roots;
use crate::debian::{Debian, Unpacked};
use crate::error::Error;
use crate::import::{ImportOptions, Imported, Progress, import_stack};
use crate::recipe::{Base, Kernel, Recipe};
use crate::source::Reading;
use crate::stack::{Known, Source, Stage};
use crate::store::Store;
use crate::tree::Tree;
use crate::version::{ImageRef, Version};
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
    let base = match &recipe.from {
        Some(from) => Some(base_image(store, from, options, progress)?),
        None => None,
    };
    if let Some(kernel) = &options.kernel {
        recipe = recipe.with_kernel(kernel.clone())?;
    }
    let name = options.name.clone().unwrap_or_else(|| recipe.name.clone());
    let cache =
        std::path::absolute(&options.cache).map_err(Error::io("finding", &options.cache))?;
    fs::create_dir_all(&cache).map_err(Error::io("making", &cache))?;
    let debian = Debian::new(&cache, &recipe, options.mirror.as_deref(), !options.fresh);
    let kernel = match &recipe.kernel {
        Some(kernel) => Some(root::kernel(&debian, kernel, progress)?),
        None => None,
    };
    // The image it is layered on may have it already.
    let kernel = kernel
        .filter(|kernel| base.as_ref().is_none_or(|base| !kernel.is_of(&base.boot.kernel_release)));
    let modules = if options.slim { Modules::None } else { recipe.modules };
    let mut import = ImportOptions { modules, act: "build", ..options.import.clone() };
    if import.reason.is_none() {
        let on = base.as_ref().map(|base| format!(", on {base}")).unwrap_or_default();
        let with = kernel.as_ref().map(|kernel| format!(", {}", kernel.id)).unwrap_or_default();
        import.reason = Some(format!("built from recipe {}{on}{with}", recipe.name));
    }
    let mut making = Making {
        store,
        recipe: &recipe,
        kernel,
        debian: &debian,
        cache: &cache,
        import: &import,
        keys: Vec::new(),
    };
    let source = PathBuf::from(format!("recipe {}", recipe.name));
    let notes = Notes::in_cache(&cache);
    let (imported, upto) =
        import_stack(store, &name, &source, &import, progress, &mut |reading| {
            making.source(base.as_ref(), &notes, reading)
        })?;
    for (key, known) in making.keys.iter().zip(&upto) {
        notes.write(*key, known);
    }
    Ok(imported)
}

/// The image a recipe is layered on; a shipped one that is not there is built first.
fn base_image(
    store: &Store,
    from: &str,
    options: &BuildOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Version, Error> {
    let wanted: ImageRef = from.parse()?;
    let shipped = crate::shipped().iter().any(|(name, _)| *name == wanted.name);
    match store.show(from) {
        Ok(version) if !(options.fresh && shipped && wanted.version.is_none()) => {
            return Ok(version);
        }
        Ok(_) => {}
        Err(Error::NoSuchImage(_)) if shipped && wanted.version.is_none() => {}
        Err(error) => return Err(error),
    }
    progress(Progress::Step(format!("building {from} first: this is layered on it")));
    let import = ImportOptions { reason: None, parent: None, ..options.import.clone() };
    let options = BuildOptions { name: None, slim: false, import, ..options.clone() };
    Ok(build(store, &wanted.name, &options, progress)?.version)
}

struct Making<'a> {
    store: &'a Store,
    recipe: &'a Recipe,
    kernel: Option<Unpacked>,
    debian: &'a Debian,
    cache: &'a Path,
    import: &'a ImportOptions,
    /// Of the stages that are handed over.
    keys: Vec<Key>,
}

impl Making<'_> {
    /// The stages of the recipe, those left out that were packed before.
    fn source(
        &mut self,
        base: Option<&Version>,
        notes: &Notes,
        reading: &mut Reading<'_>,
    ) -> Result<Source, Error> {
        let mut known = Known::default();
        let mut lowest = Tree::new(reading.limits);
        let mut start = Key::new(self.import.level);
        if let Some(version) = base {
            let said = format!("reading {version}");
            (reading.progress)(Progress::Step(said));
            lowest = self.store.tree(version, reading)?;
            known = Known::version(self.store, version)?;
            start = start.and("from", &[&version.digest.0]);
        }
        let steps = self.steps(&lowest, start, reading)?;
        // The last step that was packed before, and what comes after it.
        let mut after = 0;
        for (at, (key, _)) in steps.iter().enumerate().rev() {
            if let Some(found) = notes.find(*key, self.store) {
                (known, after) = (found, at + 1);
                break;
            }
        }
        let mut stages = Vec::new();
        for (at, (key, tree)) in steps.into_iter().enumerate() {
            if at < after {
                lowest = tree;
                continue;
            }
            self.keys.push(key);
            stages.push(Stage { tree, came: None });
        }
        Ok(Source { known, base: lowest, stages, whole: None })
    }

    /// Every step's root, with its name.
    fn steps(
        &self,
        lowest: &Tree,
        start: Key,
        reading: &mut Reading<'_>,
    ) -> Result<Vec<(Key, Tree)>, Error> {
        let recipe = self.recipe;
        let roots = Roots { debian: self.debian, recipe, dir: self.cache.join("roots") };
        let source = format!("recipe {}", recipe.name);
        let fault = Error::source(Path::new(&source));
        let removed = format!("{:?}", recipe.remove);
        let mut steps: Vec<(Key, Tree)> = Vec::new();
        let mut key = start;
        let mut step = |key: Key, mut tree: Tree| {
            tree.age(recipe.epoch, lowest);
            steps.push((key, tree.clone()));
            tree
        };
        let mut tree = match recipe.base {
            Some(Base::Busybox) => {
                let (tree, id) = root::busybox(self.debian, recipe, reading)?;
                key = key.and("busybox", &[id.as_bytes()]);
                step(key, tree)
            }
            Some(Base::Debian) => {
                let (mut tree, named) = roots.packages(reading)?;
                dress::take_away(recipe, &mut tree).map_err(&fault)?;
                key = key.and("packages", &[&named, removed.as_bytes()]);
                step(key, tree)
            }
            None => lowest.clone(),
        };
        if let Some(kernel) = &self.kernel {
            let modules = format!("{:?}", self.import.modules);
            root::lay_kernel(&mut tree, kernel, reading)?;
            key = key.and("kernel", &[kernel.id.as_bytes(), modules.as_bytes()]);
            tree = step(key, tree);
        }
        if recipe.base.is_none() && !recipe.packages.is_empty() {
            let (mut made, named) = roots.packages_above(&tree, key, reading)?;
            dress::take_away(recipe, &mut made).map_err(&fault)?;
            key = key.and("packages", &[&named, removed.as_bytes()]);
            tree = step(key, made);
        }
        let spool = reading.spool.dir().to_owned();
        dress::dress(recipe, &mut tree, &spool).map_err(&fault)?;
        key = key.and("files", &[&self.dressed()?]);
        if !recipe.commands.is_empty() {
            tree.age(recipe.epoch, lowest);
            let (made, named) = roots.commands(&tree, key, reading)?;
            key = key.and("commands", &[&named]);
            tree = made;
            dress::identity(recipe, &mut tree, &spool).map_err(&fault)?;
        }
        step(key, tree);
        Ok(steps)
    }

    /// All that a dressing is made of.
    fn dressed(&self) -> Result<Vec<u8>, Error> {
        let recipe = self.recipe;
        let mut all = format!(
            "{:?} {:?} {:?} {:?} {}",
            recipe.remove, recipe.services, recipe.users, recipe.files, recipe.epoch
        )
        .into_bytes();
        for file in &recipe.files {
            let bytes = file.bytes(&recipe.dir);
            let bytes = bytes.map_err(Error::io("reading a file of", Path::new(&recipe.name)))?;
            all.extend(Digest::of(&bytes).0);
        }
        Ok(all)
    }
}

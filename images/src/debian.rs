//! Debian's archive, for builds: package lists of the recipe's suite kept apart from the host's
//! own, single packages unpacked without being installed, and whole roots by mmdebstrap.
//!
//! A kernel is never installed: its package wants an initrd made, which no machine of ours boots.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use crate::error::Error;
use crate::import::Progress;
use crate::recipe::Recipe;

const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Package lists and roots younger than this are used again.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// A suite of Debian's archive, with a place for what was fetched from it.
pub(crate) struct Debian {
    cache: PathBuf,
    suite: String,
    sources: Vec<String>,
    /// Whether anything fetched before may be used again.
    reuse: bool,
    updated: Cell<bool>,
    /// Seconds since 1970.
    epoch: u64,
}

/// A package unpacked.
pub(crate) struct Unpacked {
    pub(crate) dir: PathBuf,
    /// `linux-image-6.1.0-32-amd64_6.1.129-1_amd64`
    pub(crate) id: String,
}

impl Unpacked {
    /// Whether it is the kernel of this release.
    pub(crate) fn is_of(&self, release: &str) -> bool {
        self.dir.join("usr/lib/modules").join(release).is_dir()
    }
}

/// Hooks of mmdebstrap's package.
const MERGED_USR: &str = "/usr/share/mmdebstrap/hooks/maybe-merged-usr";

impl Debian {
    pub(crate) fn new(cache: &Path, recipe: &Recipe, mirror: Option<&str>, reuse: bool) -> Debian {
        let (suite, parts) = (&recipe.suite, recipe.components.join(" "));
        let from = mirror.unwrap_or(MIRROR);
        let mut sources = vec![format!("deb [signed-by={KEYRING}] {from} {suite} {parts}")];
        // Unstable has neither; a mirror of one's own may not carry them.
        if mirror.is_none() && !matches!(suite.as_str(), "sid" | "unstable" | "experimental") {
            sources.push(format!("deb [signed-by={KEYRING}] {from} {suite}-updates {parts}"));
            sources.push(format!("deb [signed-by={KEYRING}] {SECURITY} {suite}-security {parts}"));
        }
        Debian {
            cache: cache.to_owned(),
            suite: suite.clone(),
            sources,
            reuse,
            updated: Cell::new(false),
            epoch: recipe.epoch,
        }
    }

    /// Fetches a package and unpacks it, following a metapackage to what it depends on. `finish`
    /// sees the directory before anyone else may use it.
    pub(crate) fn package(
        &self,
        name: &str,
        progress: &mut dyn FnMut(Progress),
        finish: &mut dyn FnMut(&Path) -> Result<(), Error>,
    ) -> Result<Unpacked, Error> {
        let _one_at_a_time = self.lock()?;
        self.update(progress)?;
        let mut name = name.to_owned();
        let mut id = String::new();
        for _ in 0..3 {
            let about = self.show(&name)?;
            id = format!("{name}_{}_{}", about.version.replace(':', "%3a"), about.arch);
            match about.real_kernel(&name) {
                Some(real) => name = real,
                None => break,
            }
        }
        let kept = self.cache.join("packages").join(&id);
        if kept.is_dir() {
            return Ok(Unpacked { dir: kept, id });
        }
        progress(Progress::Step(format!("fetching {name}")));
        let packages = self.cache.join("packages");
        fs::create_dir_all(&packages).map_err(Error::io("making", &packages))?;
        let work = tempfile::Builder::new()
            .prefix(".fetch-")
            .tempdir_in(&packages)
            .map_err(Error::io("making a directory in", &packages))?;
        let step = format!("fetching {name}");
        run(self.apt("apt-get").args(["download", &name]).current_dir(work.path()), &step, "apt")?;
        let deb = fs::read_dir(work.path())
            .map_err(Error::io("reading", work.path()))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.extension().is_some_and(|end| end == "deb"))
            .ok_or_else(|| failed(&step, "apt-get download left no package behind"))?;
        let root = work.path().join("root");
        let step = format!("unpacking {name}");
        run(Command::new("dpkg-deb").arg("--extract").args([&deb, &root]), &step, "dpkg")?;
        finish(&root)?;
        match fs::rename(&root, &kept) {
            Ok(()) => {}
            // Another build was quicker.
            Err(_) if kept.is_dir() => {}
            Err(error) => return Err(Error::io("renaming", &root)(error)),
        }
        Ok(Unpacked { dir: kept, id })
    }

    /// What a root was made from.
    pub(crate) fn sources(&self) -> String {
        self.sources.join("\n")
    }

    /// A whole root as a tar.
    pub(crate) fn root(
        &self,
        packages: &[String],
        tar: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let mut command = self.mmdebstrap("minbase");
        command.arg(format!("--include={}", packages.join(",")));
        // Nobody reads manuals on a machine that lives in memory.
        for left_out in
            ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"]
        {
            command.arg(format!("--dpkgopt=path-exclude={left_out}"));
        }
        command.arg("--dpkgopt=path-include=/usr/share/doc/*/copyright");
        // A root whose /usr is merged from the beginning does without `usrmerge`, which would bring 47 MB of
        // Perl with it.
        if Path::new(MERGED_USR).is_dir() {
            command.arg(format!("--hook-dir={MERGED_USR}"));
        }
        // The compiled hardware database is complete without its sources.
        command.arg("--customize-hook=rm -rf \"$1\"/usr/lib/udev/hwdb.d");
        self.finish(command, tar, progress)
    }

    /// Packages installed and commands run in a root that is there, which comes out as another tar.
    pub(crate) fn within(
        &self,
        root: &Path,
        packages: &[String],
        lines: &[String],
        tar: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let mut command = self.mmdebstrap("custom");
        command.arg(format!("--setup-hook=tar-in {} /", quoted(&root.to_string_lossy())));
        // The setup before wrote what the root's own files are laid over.
        for left_out in ["doc", "man", "locale", "info"] {
            command.arg(format!("--dpkgopt=path-exclude=/usr/share/{left_out}/*"));
        }
        command.arg("--dpkgopt=path-include=/usr/share/doc/*/copyright");
        if packages.is_empty() {
            command.arg("--skip=update");
        } else {
            let install = "chroot \"$1\" apt-get install --yes --no-install-recommends --quiet";
            command.arg(format!("--customize-hook={install} {}", packages.join(" ")));
        }
        for line in lines {
            command.arg(format!("--customize-hook=chroot \"$1\" /bin/sh -ec {}", quoted(line)));
        }
        self.finish(command, tar, progress)
    }

    fn mmdebstrap(&self, variant: &str) -> Command {
        let mut command = Command::new("mmdebstrap");
        command.args(["--mode=auto", "--format=tar"]).arg(format!("--variant={variant}"));
        command.arg(format!("--architectures={}", crate::oci::architecture()));
        // No file is younger, and what is made while packages are installed has this time.
        command.env("SOURCE_DATE_EPOCH", self.epoch.to_string());
        command
    }

    fn finish(
        &self,
        mut command: Command,
        tar: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        command.arg(&self.suite).arg(tar).args(&self.sources);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(missing("mmdebstrap", "mmdebstrap"))?;
        let stderr = child.stderr.take().expect("stderr was asked to be a pipe");
        let mut last = Vec::new();
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if let Some(said) = line.strip_prefix("I: ") {
                progress(Progress::Step(said.to_owned()));
            }
            last.push(line);
            if last.len() > 12 {
                last.remove(0);
            }
        }
        let status = child.wait().map_err(Error::io("waiting for", Path::new("mmdebstrap")))?;
        if !status.success() {
            return Err(failed("mmdebstrap", &last.join("\n")));
        }
        Ok(())
    }

    /// A file of the cache, if it is young enough to be used again.
    pub(crate) fn young(&self, path: &Path) -> bool {
        let age = |path: &Path| {
            SystemTime::now()
                .duration_since(fs::metadata(path)?.modified()?)
                .map_err(std::io::Error::other)
        };
        self.reuse && age(path).is_ok_and(|age| age < FRESH)
    }

    /// apt refuses to run beside itself; a second build waits for the first, and finds its fetching
    /// done.
    fn lock(&self) -> Result<File, Error> {
        let path = self.dir().join("build.lock");
        fs::create_dir_all(self.dir()).map_err(Error::io("making", &self.dir()))?;
        let file = File::create(&path).map_err(Error::io("making", &path))?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| Error::io("locking", &path)(error.into()))?;
        Ok(file)
    }

    fn update(&self, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
        let dir = self.dir();
        let stamp = dir.join("updated");
        if self.updated.replace(true) || self.young(&stamp) {
            return Ok(());
        }
        progress(Progress::Step(format!("fetching the package lists of {}", self.suite)));
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).map_err(Error::io("making", &part))?;
        }
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).map_err(Error::io("writing", &path))
        };
        write("sources.list", self.sources.join("\n") + "\n")?;
        write("status", String::new())?;
        // Without the option apt calls a mirror that does not answer a warning, and ends well.
        let update = ["-q", "-o", "APT::Update::Error-Mode=any", "update"];
        let step = format!("fetching package lists from {}", self.sources.join("; "));
        run(self.apt("apt-get").args(update), &step, "apt")?;
        write("updated", String::new())
    }

    /// Lists of different sources do not mix.
    fn dir(&self) -> PathBuf {
        let id = crate::Digest::of(self.sources.join("\n").as_bytes()).hex();
        self.cache.join("apt").join(format!("{}-{}", self.suite, &id[..12]))
    }

    /// apt, blind to the host's packages and sources, though not to its proxy.
    fn apt(&self, program: &str) -> Command {
        let dir = self.dir();
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        let mut command = Command::new(program);
        let options = [
            ("Dir::State", dir.join("state")),
            ("Dir::State::status", dir.join("status")),
            ("Dir::Cache", dir.join("cache")),
            ("Dir::Etc::SourceList", dir.join("sources.list")),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
            ("Dir::Etc::Preferences", PathBuf::from("/dev/null")),
            ("Dir::Etc::PreferencesParts", PathBuf::from("/dev/null")),
        ];
        for (key, path) in options {
            command.arg("-o").arg(format!("{key}={}", path.display()));
        }
        command.args(["-o", &format!("APT::Architecture={}", crate::oci::architecture())]);
        command.args(["-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3"]);
        // The _apt user cannot write below a private directory.
        command.args(["-o", "APT::Sandbox::User=root"]);
        command.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn show(&self, name: &str) -> Result<About, Error> {
        let step = format!("looking for {name}");
        let mut command = self.apt("apt-cache");
        let out = run(command.args(["show", "--no-all-versions", name]), &step, "apt")?;
        let field = |key: &str| {
            out.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned())
        };
        let need = |key: &str| {
            field(key).ok_or_else(|| failed(&step, &format!("apt-cache gives no {key}")))
        };
        Ok(About {
            version: need("Version:")?,
            arch: need("Architecture:")?,
            depends: field("Depends:").unwrap_or_default(),
        })
    }
}

/// What apt knows of a package.
struct About {
    version: String,
    arch: String,
    depends: String,
}

impl About {
    /// `linux-image-amd64` → `linux-image-6.1.0-32-amd64`
    fn real_kernel(&self, name: &str) -> Option<String> {
        let parts = self
            .depends
            .split([',', '|'])
            .map(|part| part.split([' ', '(']).find(|word| !word.is_empty()));
        let kernel = |word: &&str| {
            word.strip_prefix("linux-image-")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        parts.flatten().find(|word| kernel(word) && *word != name).map(str::to_owned)
    }
}

/// Runs a program to its end; its last lines are the error.
pub(crate) fn run(command: &mut Command, step: &str, package: &str) -> Result<String, Error> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let out = command.stdin(Stdio::null()).output().map_err(missing(&tool, package))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        let lines: Vec<&str> = said.trim_end().lines().collect();
        let last = lines[lines.len().saturating_sub(8)..].join("\n");
        return Err(failed(step, &format!("{tool}: {}\n{last}", out.status)));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn failed(step: &str, what: &str) -> Error {
    Error::Build { step: step.to_owned(), what: what.trim().to_owned() }
}

fn missing(tool: &str, package: &str) -> impl FnOnce(std::io::Error) -> Error {
    let (tool, package) = (tool.to_owned(), package.to_owned());
    move |error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::MissingTool { tool, package },
        _ => Error::Io { what: format!("starting {tool}"), source: error },
    }
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metapackage_leads_to_its_kernel() {
        let about = |depends: &str| About {
            version: String::new(),
            arch: String::new(),
            depends: depends.to_owned(),
        };
        let real = about("linux-image-6.1.0-32-cloud-amd64 (= 6.1.129-1)")
            .real_kernel("linux-image-cloud-amd64");
        assert_eq!(real.as_deref(), Some("linux-image-6.1.0-32-cloud-amd64"));
        let kernel = about(
            "kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool",
        );
        assert_eq!(kernel.real_kernel("linux-image-6.1.0-32-amd64"), None);
    }

    #[test]
    fn a_command_reaches_the_shell_as_it_is() {
        assert_eq!(quoted("echo 'a' $b"), r"'echo '\''a'\'' $b'");
    }
}

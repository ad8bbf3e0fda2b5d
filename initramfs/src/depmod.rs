//! What depmod knows of a kernel's modules: `modules.dep`, `modules.softdep`, `modules.weakdep`,
//! `modules.alias`, as kmod's own modprobe reads them.
//!
//! Module names are written with `_` where files may have `-`. A soft dependency names a module or
//! an alias (`softdep btrfs pre: sha256`), and an alias may stand for several modules, of which the
//! fastest the processor has will load and the others refuse.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::Error;
use crate::inroot::Root;
use crate::unpack::without_ending;

/// Debian's full kernel: 0.5 MB of dependencies, 1.3 MB of aliases, 4,000 modules.
const TEXT_MAX: u64 = 32 << 20;
const MODULES_MAX: usize = 50_000;
/// The deepest honest module (nfsv4, cxgb4i) leans on some thirty others.
const CLOSURE_MAX: usize = 512;
const DEPTH_MAX: usize = 64;

/// All modules of one kernel.
#[derive(Debug, Default)]
pub(crate) struct Depmod {
    /// By name, `-` as `_`.
    pub(crate) modules: BTreeMap<String, Module>,
    /// Pattern and module, in depmod's order.
    pub(crate) aliases: Vec<(String, String)>,
}

#[derive(Debug, Default)]
pub(crate) struct Module {
    /// Below `modules/<release>/`, as in the image: `kernel/fs/nfs/nfs.ko.xz`.
    pub(crate) path: String,
    hard: Vec<String>,
    pre: Vec<String>,
    post: Vec<String>,
    weak: Vec<String>,
}

impl Depmod {
    /// Reads the files in `dir`, which ends in the release.
    pub(crate) fn read(root: &Root, dir: &str, release: &str) -> Result<Self, Error> {
        let text = |file: &'static str| -> Result<Option<String>, Error> {
            let Some(bytes) = root.read(&format!("{dir}/{file}"), TEXT_MAX)? else {
                return Ok(None);
            };
            let text = String::from_utf8(bytes).map_err(|e| {
                let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
                let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                Error::Depmod { file, line, why: "not text".into() }
            })?;
            Ok(Some(text))
        };
        let dep = text("modules.dep")?
            .ok_or_else(|| Error::NoModulesDep { release: release.to_owned() })?;
        Self::parse(
            &dep,
            &text("modules.softdep")?.unwrap_or_default(),
            &text("modules.weakdep")?.unwrap_or_default(),
            &text("modules.alias")?.unwrap_or_default(),
        )
    }

    pub(crate) fn parse(dep: &str, soft: &str, weak: &str, alias: &str) -> Result<Self, Error> {
        let mut all = Self::default();
        for (number, line) in lines(dep) {
            let wrong = |why: String| Error::Depmod { file: "modules.dep", line: number, why };
            let (path, deps) = line.split_once(':').ok_or_else(|| wrong("no colon".into()))?;
            let (name, path) = named(path).map_err(wrong)?;
            // modprobe loads them from the last to the first.
            let hard = deps.split_whitespace().rev().map(|dep| named(dep).map(|(name, _)| name));
            let hard = hard.collect::<Result<_, _>>().map_err(wrong)?;
            all.modules.insert(name, Module { path, hard, ..Module::default() });
            if all.modules.len() > MODULES_MAX {
                return Err(wrong(format!("more than {MODULES_MAX} modules")));
            }
        }
        for (_, line) in lines(alias) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["alias", pattern, name] = words[..] {
                let name = normal(name);
                if all.modules.contains_key(&name) {
                    all.aliases.push((pattern.to_owned(), name));
                }
            }
        }
        let mut exact: HashMap<String, Vec<String>> = HashMap::new();
        for (pattern, name) in &all.aliases {
            exact.entry(normal(pattern)).or_default().push(name.clone());
        }
        for (_, line) in lines(soft) {
            let mut words = line.split_whitespace().skip(1);
            let Some(name) = words.next().map(normal) else { continue };
            let (mut pre, mut post, mut now) = (Vec::new(), Vec::new(), None);
            for word in words {
                match (word, now) {
                    ("pre:", _) => now = Some(false),
                    ("post:", _) => now = Some(true),
                    (word, Some(false)) => pre.extend(all.resolve(word, &exact)),
                    (word, Some(true)) => post.extend(all.resolve(word, &exact)),
                    // `softdep cifs gcm`: modprobe ignores it too.
                    (_, None) => {}
                }
            }
            pre.retain(|before| !all.leans_on(before, &name));
            if let Some(module) = all.modules.get_mut(&name) {
                module.pre.extend(pre);
                module.post.extend(post);
            }
        }
        for (_, line) in lines(weak) {
            let mut words = line.split_whitespace().skip(1);
            let Some(name) = words.next().map(normal) else { continue };
            let weak: Vec<String> = words.flat_map(|word| all.resolve(word, &exact)).collect();
            if let Some(module) = all.modules.get_mut(&name) {
                module.weak.extend(weak);
            }
        }
        Ok(all)
    }

    /// A soft dependency's modules; none if it is built into the kernel or does not exist.
    fn resolve(&self, word: &str, exact: &HashMap<String, Vec<String>>) -> Vec<String> {
        let name = normal(word);
        if self.modules.contains_key(&name) {
            return vec![name];
        }
        exact.get(&name).cloned().unwrap_or_default()
    }

    /// Whether loading `name` would load `other`. A soft dependency that closes a circle is dropped
    /// (modprobe does the same, later); so is one on a module that leans on half the kernel.
    fn leans_on(&self, name: &str, other: &str) -> bool {
        let (mut open, mut seen, mut budget) = (vec![name], HashSet::new(), 4096u32);
        while let Some(name) = open.pop() {
            if name == other {
                return true;
            }
            let Some(module) = self.modules.get(name).filter(|_| seen.insert(name)) else {
                continue;
            };
            for dep in module.pre.iter().chain(&module.hard) {
                let Some(left) = budget.checked_sub(1) else { return true };
                budget = left;
                open.push(dep);
            }
        }
        false
    }

    /// All that must be loaded before a module, in the order of loading, itself not among it.
    pub(crate) fn before(&self, name: &str) -> Result<Vec<String>, Error> {
        let mut walk = Walk { all: self, order: Vec::new(), seen: HashSet::new() };
        if !walk.visit(name, 0) {
            let module = name.to_owned();
            return Err(Error::TooManyDependencies { module, limit: CLOSURE_MAX });
        }
        walk.order.pop();
        Ok(walk.order.into_iter().map(str::to_owned).collect())
    }

    /// The chosen modules and all they may need: dependencies, soft ones before and after, weak.
    pub(crate) fn closure<'a>(&'a self, chosen: impl Iterator<Item = &'a str>) -> HashSet<&'a str> {
        let mut all = HashSet::new();
        let mut open: Vec<&str> = chosen.collect();
        while let Some(name) = open.pop() {
            let Some(module) = self.modules.get(name) else { continue };
            if all.insert(name) {
                let kinds = [&module.hard, &module.pre, &module.post, &module.weak];
                open.extend(kinds.into_iter().flatten().map(String::as_str));
            }
        }
        all
    }

    /// Modules to load once `name` and those before it are in.
    pub(crate) fn after<'a>(&'a self, name: &'a str, before: &'a [String]) -> Vec<&'a str> {
        let names = before.iter().map(String::as_str).chain([name]);
        names
            .filter_map(|name| self.modules.get(name))
            .flat_map(|m| &m.post)
            .map(String::as_str)
            .collect()
    }
}

struct Walk<'a> {
    all: &'a Depmod,
    order: Vec<&'a str>,
    seen: HashSet<&'a str>,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, name: &str, depth: usize) -> bool {
        let Some((name, module)) = self.all.modules.get_key_value(name) else { return true };
        if !self.seen.insert(name) {
            return true;
        }
        if depth > DEPTH_MAX || self.seen.len() > CLOSURE_MAX {
            return false;
        }
        let well = module.pre.iter().chain(&module.hard).all(|dep| self.visit(dep, depth + 1));
        self.order.push(name);
        well
    }
}

/// `kernel/net/e1000-e.ko.xz` is the module `e1000_e` at that path.
fn named(path: &str) -> Result<(String, String), String> {
    // Old depmods wrote absolute paths.
    let path = match path.find("/kernel/") {
        Some(at) if path.starts_with('/') => &path[at + 1..],
        _ => path.trim(),
    };
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = without_ending(file).strip_suffix(".ko");
    let stem = stem.ok_or_else(|| format!("{path:?} is no module"))?;
    let sound = |c: char| c.is_ascii_graphic() && c != ',' && c != '\\';
    if stem.is_empty() || !path.chars().all(sound) || path.split('/').any(|part| part == "..") {
        return Err(format!("{path:?} is no module's path"));
    }
    Ok((normal(stem), path.to_owned()))
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().map(str::trim).enumerate().map(|(n, line)| (n + 1, line));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/net/core/failover.ko:
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko
kernel/crypto/crc32c_generic.ko:
kernel/arch/x86/crypto/crc32c-intel.ko:
kernel/lib/libcrc32c.ko:
kernel/fs/btrfs/btrfs.ko: kernel/lib/libcrc32c.ko
kernel/drivers/char/ipmi/ipmi_msghandler.ko:
kernel/drivers/char/ipmi/ipmi_devintf.ko: kernel/drivers/char/ipmi/ipmi_msghandler.ko
kernel/drivers/char/ipmi/ipmi_si.ko: kernel/drivers/char/ipmi/ipmi_msghandler.ko
";
    const SOFT: &str = "\
# Soft dependencies extracted from modules themselves.
softdep libcrc32c pre: crc32c
softdep btrfs pre: crypto-crc32c not-a-module
softdep ipmi_msghandler post: ipmi_devintf
softdep btrfs gcm
softdep
softdep nobody pre: failover
";
    const ALIAS: &str = "\
# Aliases extracted from modules themselves.
alias crypto-crc32c crc32c_intel
alias crc32c crc32c_intel
alias crypto-crc32c crc32c_generic
alias crc32c crc32c_generic
alias virtio:d00000001v* virtio_net
alias virtio:d00000002v* not_there
alias broken
";

    #[test]
    fn the_order_of_loading() {
        let all = Depmod::parse(DEP, SOFT, "", ALIAS).expect("sound");
        let before = |name| all.before(name).expect("small").join(" ");
        assert_eq!(before("virtio_net"), "failover net_failover");
        assert_eq!(before("failover"), "");
        assert_eq!(before("libcrc32c"), "crc32c_intel crc32c_generic");
        assert_eq!(before("btrfs"), "crc32c_intel crc32c_generic libcrc32c");
        assert_eq!(before("ipmi_si"), "ipmi_msghandler");
        assert_eq!(all.after("ipmi_si", &["ipmi_msghandler".into()]), ["ipmi_devintf"]);
        assert_eq!(all.modules["virtio_net"].path, "kernel/drivers/net/virtio_net.ko.xz");
        assert_eq!(all.aliases.len(), 5);
        let mut closure: Vec<_> =
            all.closure(["ipmi_si", "nobody"].into_iter()).into_iter().collect();
        closure.sort_unstable();
        assert_eq!(closure, ["ipmi_devintf", "ipmi_msghandler", "ipmi_si"]);
    }

    #[test]
    fn circles_end() {
        let dep = "a.ko: b.ko\nb.ko: a.ko\nc.ko:\nd.ko: c.ko\n";
        let soft = "softdep c pre: d\nsoftdep a pre: a\n";
        let all = Depmod::parse(dep, soft, "", "").expect("sound");
        assert_eq!(all.before("a").expect("small"), ["b"]);
        assert_eq!(all.before("d").expect("small"), ["c"]);
        assert_eq!(
            all.before("c").expect("small"),
            [""; 0],
            "a hard dependency goes before a soft one"
        );
    }

    #[test]
    fn a_chain_without_end_is_refused() {
        let dep: String = (0..5000).map(|n| format!("m{n}.ko: m{}.ko\n", n + 1)).collect();
        let all = Depmod::parse(&dep, "", "", "").expect("sound");
        all.before("m0").expect_err("too deep");
        assert!(all.before("m4990").is_ok());
        let wide: String = (0..5000).map(|n| format!(" m{n}.ko")).collect();
        let each: String = (0..5000).map(|n| format!("m{n}.ko:\n")).collect();
        let all = Depmod::parse(&format!("x.ko:{wide}\n{each}"), "", "", "").expect("sound");
        all.before("x").expect_err("too many");
    }

    #[test]
    fn strange_lines() {
        for (line, why) in [
            ("kernel/a.ko", "no colon"),
            ("kernel/a.txt:", "no module"),
            ("kernel/../../etc/a.ko:", "no module's path"),
            ("kernel/a,b.ko:", "no module's path"),
            ("kernel/a b.ko:", "no module's path"),
            ("kernel/.ko:", "no module's path"),
            ("kernel/a.ko: /etc/passwd", "no module"),
        ] {
            let e = Depmod::parse(&format!("kernel/ok.ko:\n{line}\n"), "", "", "").expect_err(line);
            let text = e.to_string();
            assert!(text.starts_with("modules.dep line 2") && text.contains(why), "{text}");
        }
        let old = "/lib/modules/2.6.18/kernel/fs/a.ko: /lib/modules/2.6.18/kernel/fs/b.ko\n";
        let all = Depmod::parse(old, "", "", "").expect("old");
        assert_eq!(all.modules["a"].path, "kernel/fs/a.ko");
    }
}

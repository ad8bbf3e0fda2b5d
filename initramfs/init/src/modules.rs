//! Drivers: which device asks for which module, and in what order they are loaded.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::cmdline::Cmdline;
use crate::console::say;
use crate::contract::{ALIASES_LIST, MODULES_LIST};

/// `MODULE_INIT_COMPRESSED_FILE`, since Linux 5.17: the kernel unpacks `.ko.xz` itself.
const COMPRESSED: i32 = 4;

/// What the initramfs carries.
#[derive(Debug, Default)]
pub struct Modules {
    known: HashMap<String, Module>,
    aliases: Vec<(String, String)>,
    tried: HashSet<String>,
    seen: HashSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Module {
    path: String,
    deps: Vec<String>,
}

impl Modules {
    /// Reads the two lists (formats: `MODULES_LIST`, `ALIASES_LIST`). Lines that do not fit are skipped.
    pub fn parse(list: &str, aliases: &str) -> Modules {
        let known = list.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, path) = (words.next()?, words.next()?);
            let deps = words.next().unwrap_or_default();
            let deps = deps.split(',').filter(|dep| !dep.is_empty()).map(canonical).collect();
            Some((canonical(name), Module { path: path.to_owned(), deps }))
        });
        let aliases = aliases.lines().filter_map(|line| {
            let (pattern, name) = line.trim().rsplit_once(char::is_whitespace)?;
            Some((pattern.trim_end().to_owned(), canonical(name)))
        });
        Modules { known: known.collect(), aliases: aliases.collect(), ..Modules::default() }
    }

    /// What this initramfs carries.
    pub fn at_hand() -> Modules {
        let list = |path: &str| fs::read_to_string(Path::new("/").join(path)).unwrap_or_default();
        Modules::parse(&list(MODULES_LIST), &list(ALIASES_LIST))
    }

    /// How many modules there are to choose from.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Loads what devices not seen before ask for; says how many modules that took.
    /// Loading a bus driver brings up new devices, so this is called until it answers 0.
    pub fn coldplug(&mut self, sys: &Path, line: &Cmdline) -> usize {
        let mut wanted: Vec<String> = Vec::new();
        for alias in modaliases(sys) {
            if self.seen.insert(alias.clone()) {
                wanted.push(alias);
            }
        }
        // NICs first: a RAID controller may take half a minute to wake, and nothing waits for it.
        wanted.sort_by_key(|alias| !is_nic(alias));
        wanted.iter().map(|alias| self.load_for(alias, line)).sum()
    }

    /// Loads what the kernel itself asks for: a module's name, or an alias.
    pub fn request(&mut self, wanted: &str, line: &Cmdline) -> usize {
        self.load(wanted, line) + self.load_for(wanted, line)
    }

    /// Loads one module by name, if it is here, with what it needs.
    pub fn load(&mut self, name: &str, line: &Cmdline) -> usize {
        self.load_with(name, "", line)
    }

    /// The same with parameters of our own; those of the command line come after and win.
    pub fn load_with(&mut self, name: &str, own: &str, line: &Cmdline) -> usize {
        let mut loaded = 0;
        let wanted = canonical(name);
        for name in self.order(&wanted) {
            if !self.tried.insert(name.clone()) || line.blacklisted(&name) {
                continue;
            }
            let Some(module) = self.known.get(&name) else { continue };
            let own = if name == wanted { own } else { "" };
            let params = format!("{own} {}", line.module_params(&name));
            match insert(&module.path, params.trim()) {
                Ok(()) => loaded += 1,
                // No such device: a driver's way to say that it was not meant after all.
                Err(Errno::EXIST | Errno::NODEV) => {}
                Err(errno) => say(format!("module {name} does not load: {}", reason(errno))),
            }
        }
        loaded
    }

    fn load_for(&mut self, alias: &str, line: &Cmdline) -> usize {
        let names: Vec<String> = self
            .aliases
            .iter()
            .filter(|(pattern, _)| glob(pattern.as_bytes(), alias.as_bytes()))
            .map(|(_, name)| name.clone())
            .collect();
        names.iter().map(|name| self.load(name, line)).sum()
    }

    /// The module and all below it, deepest first. A list with a loop in it ends too.
    fn order(&self, name: &str) -> Vec<String> {
        let mut order = Vec::new();
        let mut entered = HashSet::new();
        let mut stack = vec![(name.to_owned(), false)];
        while let Some((name, done)) = stack.pop() {
            if done {
                order.push(name);
                continue;
            }
            let Some(module) = self.known.get(&name) else { continue };
            if !entered.insert(name.clone()) {
                continue;
            }
            stack.push((name, true));
            stack.extend(module.deps.iter().rev().map(|dep| (dep.clone(), false)));
        }
        order
    }
}

/// `fnmatch` as modprobe uses it: `*`, `?`, `[a-f]`. Time is bounded by the product of both lengths.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last `*` was and how much it has eaten: nothing before it needs trying again.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if let Some(next) = one(pattern, p, text[t]) {
            p = next;
            t += 1;
        } else if let Some((at, eaten)) = star {
            star = Some((at, eaten + 1));
            p = at + 1;
            t = eaten + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// Matches one character; the place in the pattern after it.
fn one(pattern: &[u8], p: usize, c: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => {
            let Some(len) = pattern[p + 1..].iter().position(|&b| b == b']') else {
                return (c == b'[').then_some(p + 1);
            };
            let set = &pattern[p + 1..p + 1 + len];
            let hit =
                set.contains(&c) || set.windows(3).any(|w| w[1] == b'-' && w[0] <= c && c <= w[2]);
            hit.then_some(p + len + 2)
        }
        literal => (literal == c).then_some(p + 1),
    }
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// PCI class 02 is network; virtio device 1 is a NIC, vmbus and xen name theirs.
fn is_nic(alias: &str) -> bool {
    (alias.starts_with("pci:") && alias.contains("bc02"))
        || alias.starts_with("virtio:d00000001")
        || alias.starts_with("vmbus:635161f8")
        || alias == "xen:vif"
}

fn modaliases(sys: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let list = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    for bus in list(&sys.join("bus")) {
        for device in list(&bus.path().join("devices")) {
            let Ok(alias) = fs::read_to_string(device.path().join("modalias")) else { continue };
            let alias = alias.trim();
            if !alias.is_empty() {
                all.push(alias.to_owned());
            }
        }
    }
    all
}

fn insert(path: &str, params: &str) -> Result<(), Errno> {
    // ISDIR is what no module answers: the file is missing, not one of its symbols.
    let file = File::open(path).map_err(|_| Errno::ISDIR)?;
    let params = CString::new(params).map_err(|_| Errno::INVAL)?;
    let flags = if path.ends_with(".ko") { 0 } else { COMPRESSED };
    rustix::system::finit_module(&file, &params, flags)
}

fn reason(errno: Errno) -> String {
    match errno {
        Errno::ISDIR => "its file is not in the initramfs".to_owned(),
        // As modprobe translates it; the kernel's log names the symbol.
        Errno::NOENT => "unknown symbol, a module it needs is missing".to_owned(),
        Errno::NOEXEC => "it is of another kernel".to_owned(),
        errno => io::Error::from(errno).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline;

    #[test]
    fn globs_as_modprobe_does() {
        let table = [
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("virtio:d00000001v*", "virtio:d00000002v00001AF4", false),
            (
                "pci:v00008086d0000100Esv*sd*bc*sc*i*",
                "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00",
                true,
            ),
            (
                "pci:v*d*sv*sd*bc01sc06i01*",
                "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01",
                true,
            ),
            (
                "pci:v*d*sv*sd*bc01sc06i01*",
                "pci:v00008086d00002922sv00001AF4sd00001100bc01sc07i01",
                false,
            ),
            ("usb:v0B95p772[0-9A]d*", "usb:v0B95p7720d0001", true),
            ("usb:v0B95p772[0-9A]d*", "usb:v0B95p772Ad0001", true),
            ("usb:v0B95p772[0-9A]d*", "usb:v0B95p772Bd0001", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*", "", false),
            ("**a**", "xxa", true),
            ("[", "[", true),
            ("[ab", "a", false),
            ("a[]b", "ab", false),
        ];
        for (pattern, text, meant) in table {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), meant, "{pattern} {text}");
        }
    }

    #[test]
    fn a_glob_of_stars_ends() {
        let pattern = "*a".repeat(60);
        let text = "a".repeat(59) + &"b".repeat(4000);
        assert!(!glob(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn dependencies_come_first_and_loops_end() {
        let modules = Modules::parse(
            "virtio-net /m/virtio_net.ko net_failover,virtio\nnet_failover /m/net_failover.ko failover\n\
             failover /m/failover.ko\nvirtio /m/virtio.ko \na /m/a.ko b\nb /m/b.ko a\nbroken\n\n",
            "virtio:d00000001v* virtio_net\nnonsense\n",
        );
        assert_eq!(
            modules.order("virtio_net"),
            ["failover", "net_failover", "virtio", "virtio_net"]
        );
        assert_eq!(modules.order("a"), ["b", "a"]);
        assert!(modules.order("absent").is_empty());
        assert_eq!(modules.len(), 6);
        assert_eq!(modules.aliases, [("virtio:d00000001v*".to_owned(), "virtio_net".to_owned())]);
    }

    #[test]
    fn each_device_asks_once_and_a_missing_file_is_no_end() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("bus/virtio/devices/virtio0");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("modalias"), "virtio:d00000001v00001AF4\n").unwrap();
        let mut modules = Modules::parse(
            "virtio_net /nonexistent/virtio_net.ko",
            "virtio:d00000001v* virtio_net",
        );
        let line = cmdline::parse("");
        assert_eq!(modules.coldplug(sys.path(), &line), 0);
        assert!(modules.tried.contains("virtio_net"));
        assert_eq!(modules.seen.len(), 1);
        assert_eq!(modules.coldplug(sys.path(), &line), 0);
    }
}

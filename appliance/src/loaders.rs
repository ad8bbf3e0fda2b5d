//! The loaders a machine's firmware starts, and what they fetch for themselves: from the
//! distribution's packages, or from the directory the site names. Read once at each reading of the
//! site, so a package upgrade in the middle of a transfer changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::fs;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use koboshi_pxe::{Content, loader, script};

use crate::plan::argument;
use crate::site::{Origin, Problem, Problems, Site};

/// Names that may be asked for, the package each comes with, and the file it keeps there.
const KNOWN: &[(&str, &str, &str)] = &[
    ("undionly.kpxe", "ipxe", "/usr/lib/ipxe/undionly.kpxe"),
    ("undionly.kpxe", "ipxe", "/usr/share/ipxe/undionly.kpxe"),
    ("ipxe.efi", "ipxe", "/usr/lib/ipxe/ipxe.efi"),
    ("ipxe.efi", "ipxe", "/usr/share/ipxe/ipxe-x86_64.efi"),
    ("snponly.efi", "ipxe", "/usr/lib/ipxe/snponly.efi"),
    ("snponly.efi", "ipxe", "/usr/share/ipxe/ipxe-snponly-x86_64.efi"),
    ("pxelinux.0", "pxelinux", "/usr/lib/PXELINUX/pxelinux.0"),
    ("lpxelinux.0", "pxelinux", "/usr/lib/PXELINUX/lpxelinux.0"),
    ("syslinux.efi", "syslinux-efi", "/usr/lib/SYSLINUX.EFI/efi64/syslinux.efi"),
    (
        "grubnetx64.efi.signed",
        "grub-efi-amd64-signed",
        "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
    ),
    ("shimx64.efi", "shim-signed", "/usr/lib/shim/shimx64.efi.signed"),
    ("mmx64.efi", "shim-signed", "/usr/lib/shim/mmx64.efi.signed"),
    // No package of Debian 12 for amd64 has a loader for arm64; these are where those of arm64 and
    // of other distributions keep theirs.
    ("snponly-arm64.efi", "", "/usr/lib/ipxe/snponly-arm64.efi"),
    ("snponly-arm64.efi", "", "/usr/lib/ipxe/arm64/snponly.efi"),
    ("snponly-arm64.efi", "", "/usr/share/ipxe/arm64-efi/snponly.efi"),
    ("ipxe-arm64.efi", "", "/usr/lib/ipxe/ipxe-arm64.efi"),
    ("ipxe-arm64.efi", "", "/usr/share/ipxe/arm64-efi/ipxe.efi"),
    ("grubnetaa64.efi.signed", "", "/usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed"),
    ("shimaa64.efi", "", "/usr/lib/shim/shimaa64.efi.signed"),
];
/// Modules that PXELINUX asks for beside itself. Those for UEFI have the same names.
const MODULES: &[(&str, &str)] =
    &[("", "/usr/lib/syslinux/modules/bios"), (loader::EFI64, "/usr/lib/syslinux/modules/efi64")];
/// One file under another name as well: what shim starts, and where SYSLINUX for UEFI lives.
const ALSO: &[(&str, &str)] = &[
    ("grubnetx64.efi.signed", "grubx64.efi"),
    ("grubnetaa64.efi.signed", "grubaa64.efi"),
    ("syslinux.efi", "efi64/syslinux.efi"),
];
/// Started where nobody names another: missed even if nobody does.
const DEFAULTS: &[&str] = &["undionly.kpxe", "ipxe.efi"];
/// Folders of the site's directory whose files are served too, under the folder's name.
const FOLDERS: &[&str] =
    &["", "efi64/", "grub/", "grub/x86_64-efi/", "grub/i386-pc/", "grub/arm64-efi/", "grub/fonts/"];

/// GRUB for BIOS is in no package as a file to boot by PXE: it is put together from its modules.
const GRUB_PXE: &str = "grub.pxe";
const GRUB_PXE_PACKAGE: &str = "grub-pc-bin";
const GRUB_PXE_MODULES: &[&str] = &[
    "pxe",
    "tftp",
    "net",
    "normal",
    "linux",
    "configfile",
    "echo",
    "sleep",
    "test",
    "true",
    "reboot",
    "serial",
    "terminal",
    "minicmd",
    "gzio",
];

/// No loader is larger; a mistaken link to a disk image is not read into memory.
const MAX: u64 = 16 << 20;
/// All of a directory of loaders, which is held in memory.
const TOTAL_MAX: usize = 128 << 20;
/// Files of one folder: GRUB has 300 modules.
const FILES_MAX: usize = 512;

/// The loaders that are there, and a sentence for each that should be and is not. Every file of
/// the site's directory is one, by its name, and goes before the packages' own.
pub fn find(site: &Site) -> (HashMap<String, Content>, Vec<String>) {
    let dir = site.loaders.as_ref().map(|dir| dir.value.as_path());
    let named = named(site);
    let (mut loaders, mut missing) = gather(dir);
    if named.contains_key(GRUB_PXE) && !loaders.contains_key(GRUB_PXE) {
        match grub_pxe() {
            Ok(image) => drop(loaders.insert(GRUB_PXE.to_string(), Content::Bytes(image))),
            Err(why) => missing.push(format!("the loader {GRUB_PXE} could not be made: {why}")),
        }
    }
    let wanted = DEFAULTS.iter().map(|file| (*file, None)).chain(named);
    let mut absent = BTreeMap::new();
    for (file, origin) in wanted.filter(|(file, _)| !loaders.contains_key(*file)) {
        absent.insert(file, origin);
    }
    for (file, origin) in absent {
        let line = origin.map(|origin| format!("{origin}: ")).unwrap_or_default();
        let package = match package(file) {
            Some(package) => format!("install the package {package}, or name"),
            None => "name".to_string(),
        };
        missing.push(format!(
            "{line}the loader {file} is not there: {package} a folder that has it with [site] loaders"
        ));
    }
    (loaders, missing)
}

/// The package that brings a loader.
pub fn package(file: &str) -> Option<&'static str> {
    let called = |name: &str| name == file || loader::path(name) == file;
    let known = KNOWN.iter().find(|(name, ..)| called(name)).map(|(_, package, _)| *package);
    let made = (file == GRUB_PXE).then_some(GRUB_PXE_PACKAGE);
    known.or(made).filter(|package| !package.is_empty())
}

/// Words for the kernel that the loader a machine is given by name would change: the machine waits
/// and says so, rather than boot with other words than were written.
pub fn unfit(site: &Site, found: &mut Problems) {
    let mut said = BTreeSet::new();
    for (name, machine) in &site.machines {
        let Some((_, seat)) = site.seat_of(name) else { continue };
        let role = site.role_of(seat).map(|(_, role)| &role.value);
        let file = site.loader(Some(machine), role).value.unwrap_or("iPXE");
        let args = seat.args.iter().map(|(key, text)| (argument(key, &text.value), &text.origin));
        let cmdline = role.and_then(|role| role.cmdline.as_ref());
        let words = cmdline.map(|words| (words.value.clone(), &words.origin));
        for (text, origin) in args.chain(words) {
            let Some((word, why)) = script::unfit(loader::language(file), &text) else { continue };
            if !said.insert((origin.to_string(), word.to_string())) {
                continue;
            }
            let message = format!("{word:?} cannot be handed to the kernel by {file}: {why}");
            let problem = Problem::warning("loader", origin, message);
            let help = format!(
                "{name} waits instead of booting: choose another word, or a loader that is iPXE"
            );
            found.push(problem.label("not for this loader").help(help));
        }
    }
}

/// Loaders that machines are given by name, and the line that does.
fn named(site: &Site) -> BTreeMap<&str, Option<&Origin>> {
    let machines = site.machines.iter().filter_map(|(name, machine)| {
        let role = site.seat_of(name).and_then(|(_, seat)| site.role_of(seat));
        let named = site.loader(Some(machine), role.map(|(_, role)| &role.value));
        Some((named.value?, named.origin))
    });
    machines.collect()
}

fn gather(dir: Option<&Path>) -> (HashMap<String, Content>, Vec<String>) {
    let mut loaders = HashMap::new();
    let mut trouble = Vec::new();
    if let Some(dir) = dir {
        let mut total = 0;
        for folder in FOLDERS {
            let files = match fs::read_dir(dir.join(folder)) {
                Ok(files) => files,
                Err(error) if folder.is_empty() => {
                    trouble.push(format!("the folder of [site] loaders: {error}"));
                    break;
                }
                Err(_) => continue,
            };
            for file in files.flatten().take(FILES_MAX) {
                let name = file.file_name().into_string().ok();
                let Some((name, bytes)) = name.zip(read(&file.path())) else { continue };
                total += bytes.len();
                if total > TOTAL_MAX {
                    let bound = TOTAL_MAX >> 20;
                    trouble.push(format!("the folder of [site] loaders holds more than {bound} MiB: the rest of it is not served"));
                    break;
                }
                loaders.insert(format!("{folder}{name}"), Content::Bytes(bytes));
            }
        }
    }
    for (name, _, place) in KNOWN {
        if !loaders.contains_key(*name)
            && let Some(bytes) = read(Path::new(place))
        {
            loaders.insert((*name).to_string(), Content::Bytes(bytes));
        }
    }
    for (folder, place) in MODULES {
        for file in fs::read_dir(place).into_iter().flatten().flatten().take(FILES_MAX) {
            let Ok(name) = file.file_name().into_string() else { continue };
            let name = format!("{folder}{name}");
            let module = [".c32", ".e64"].iter().any(|end| name.ends_with(end));
            if module
                && !loaders.contains_key(&name)
                && let Some(bytes) = read(&file.path())
            {
                loaders.insert(name, Content::Bytes(bytes));
            }
        }
    }
    for (name, also) in ALSO {
        if let Some(content) = loaders.get(*name).cloned() {
            loaders.entry((*also).to_string()).or_insert(content);
        }
    }
    (loaders, trouble)
}

/// Puts GRUB for BIOS together: a tenth of a second, and nothing of this host's own GRUB in it.
fn grub_pxe() -> Result<Bytes, String> {
    let need = format!("install the package {GRUB_PXE_PACKAGE}");
    let failed = |error: &dyn Display| format!("grub-mkimage: {error}; {need}");
    // It syncs what it writes, which a pipe does not take.
    let mut image = rustix::fs::memfd_create("grub.pxe", rustix::fs::MemfdFlags::CLOEXEC)
        .map(fs::File::from)
        .map_err(|error| failed(&error))?;
    let output = Command::new("grub-mkimage")
        .args(["-O", "i386-pc-pxe", "-p", "/grub"])
        .args(GRUB_PXE_MODULES)
        .stdin(Stdio::null())
        .stdout(image.try_clone().map_err(|error| failed(&error))?)
        .output()
        .map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr).trim()));
    }
    let mut bytes = Vec::new();
    image.rewind().and_then(|()| image.read_to_end(&mut bytes)).map_err(|error| failed(&error))?;
    if bytes.is_empty() { Err(failed(&"it wrote nothing")) } else { Ok(bytes.into()) }
}

fn read(path: &Path) -> Option<Bytes> {
    let size = fs::metadata(path).ok().filter(|meta| meta.is_file())?.len();
    (0 < size && size <= MAX).then(|| fs::read(path).ok())?.map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_ones_own_goes_first_and_holds_any_name() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("my.efi"), b"mine").expect("written");
        fs::write(dir.path().join("ipxe.efi"), b"newer").expect("written");
        fs::write(dir.path().join("grubnetx64.efi.signed"), b"grub").expect("written");
        fs::write(dir.path().join("empty.efi"), b"").expect("written");
        for folder in ["folder", "grub", "efi64"] {
            fs::create_dir(dir.path().join(folder)).expect("made");
            fs::write(dir.path().join(folder).join("own.c32"), folder).expect("written");
        }
        let (loaders, _) = gather(Some(dir.path()));
        let bytes = |name: &str| match loaders.get(name) {
            Some(Content::Bytes(bytes)) => bytes.to_vec(),
            _ => Vec::new(),
        };
        assert_eq!(bytes("my.efi"), b"mine");
        assert_eq!(bytes("ipxe.efi"), b"newer");
        assert_eq!(bytes("grubx64.efi"), b"grub", "what shim starts is the same file");
        assert_eq!(bytes("grub/own.c32"), b"grub");
        assert_eq!(bytes("efi64/own.c32"), b"efi64");
        for absent in ["empty.efi", "folder", "own.c32", "folder/own.c32"] {
            assert!(!loaders.contains_key(absent), "{absent}");
        }
        let (_, missing) = gather(Some(&dir.path().join("nowhere")));
        assert!(missing[0].contains("the folder of [site] loaders"), "{missing:?}");
    }

    fn site(machine: &str) -> Site {
        let text = format!(
            r#"
            [site]
            name = "rack"
            [net]
            interface = "eth1"
            cidr = "10.77.0.0/24"
            [roles.web]
            image = "web"
            cmdline = "quiet dyndbg=\"file x.c +p\""
            [machines]
            m01 = {{ mac = ["52:54:00:77:00:01"]{machine} }}
            [seats]
            web1 = {{ role = "web", ip = "10.77.0.11", args = {{ motd = "a b" }} }}
            [matrix]
            m01 = "web1"
            "#
        );
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("site.toml");
        fs::write(&path, text).expect("written");
        let purpose = crate::site::load::Purpose::Check;
        let env = crate::site::Env { interface_network: &|_| Vec::new(), purpose };
        crate::site::load(&path, &env).expect("a site")
    }

    #[test]
    fn what_a_named_loader_cannot_do_is_a_warning_with_its_line() {
        let said = |site: &Site| {
            let mut found = Problems::default();
            unfit(site, &mut found);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(said(&site("")).is_empty(), "iPXE hands quotes on");
        assert!(said(&site(", loader = \"lpxelinux.0\"")).is_empty());
        let grub = said(&site(", loader = \"grubnetx64.efi.signed\""));
        assert_eq!(grub.len(), 2, "{grub:?}");
        assert!(grub[0].contains("site.toml:13") && grub[0].contains("motd="), "{grub:?}");

        let (_, missing) = find(&site(", loader = \"nowhere.efi\""));
        let line = "site.toml:11: the loader nowhere.efi is not there: name a folder";
        assert!(missing.iter().any(|text| text.contains(line)), "{missing:?}");
        let (loaders, missing) = find(&site(", loader = \"grub.pxe\""));
        assert!(loaders.contains_key("grub.pxe") && missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn each_loader_of_the_packages_has_its_modules() {
        let (loaders, _) = gather(None);
        for file in [
            "undionly.kpxe",
            "lpxelinux.0",
            "ldlinux.c32",
            "reboot.c32",
            "libcom32.c32",
            "efi64/syslinux.efi",
            "efi64/ldlinux.e64",
            "efi64/reboot.c32",
            "efi64/libcom32.c32",
            "grubnetx64.efi.signed",
            "shimx64.efi",
            "grubx64.efi",
            "mmx64.efi",
        ] {
            assert!(loaders.contains_key(file), "{file}: `make setup` installs it");
        }
        assert!(!loaders.contains_key("ldlinux.e64"));
        let image = grub_pxe().expect("grub-pc-bin is installed: `make setup`");
        assert!((50_000..400_000).contains(&image.len()), "{} bytes", image.len());
    }
}

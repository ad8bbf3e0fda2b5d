//! Software RAID and LVM: put together by the image's own tools, run in the new root, where members
//! are seen and the disk that is wanted is not. Arrays whole at first; one that lacks a disk is started
//! only when its disks have had their time to appear. Nothing is created, grown or repaired.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::console::say;
use crate::disks::devices::Device;
use crate::disks::superblock::Kind;
use crate::errand;
use crate::settle::intree::Tree;

/// Until then an array that lacks a disk may only be waiting for it.
const DEGRADED_AFTER: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);
const BOUND: [&str; 4] = ["dev", "proc", "sys", "run"];

/// What is done for which members.
struct Tool {
    kind: Kind,
    what: &'static str,
    programs: [&'static str; 2],
    package: &'static str,
    module: &'static str,
}

const MDADM: Tool = Tool {
    kind: Kind::Raid,
    what: "members of a software RAID",
    programs: ["/sbin/mdadm", "/usr/sbin/mdadm"],
    package: "mdadm",
    module: "md_mod",
};
const LVM: Tool = Tool {
    kind: Kind::Lvm,
    what: "volumes of LVM",
    programs: ["/sbin/vgchange", "/usr/sbin/vgchange"],
    package: "lvm2",
    module: "dm_mod",
};

/// Remembers what was tried for which members: the same again would end the same way.
#[derive(Debug, Default)]
pub struct Assembler {
    tried: BTreeSet<String>,
}

/// What a step did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// A tool was run: look again.
    pub changed: bool,
    /// What would be needed, in words.
    pub lacks: Vec<String>,
}

impl Assembler {
    /// Runs what has not been run for these members yet. `load` brings a module.
    pub fn step(
        &mut self,
        tree: &Tree,
        devices: &[Device],
        waited: Duration,
        load: &mut dyn FnMut(&str),
    ) -> Made {
        let mut made = Made::default();
        let degraded = waited >= DEGRADED_AFTER;
        for (tool, args, late) in [
            (&MDADM, &["--assemble", "--scan", "--no-degraded"][..], false),
            (&MDADM, &["--assemble", "--scan"], true),
            (&LVM, &["-a", "y"], false),
        ] {
            let members = members(devices, tool.kind);
            if members.is_empty() || (late && !degraded) {
                continue;
            }
            let Some(program) = tool.programs.iter().copied().find(|path| tree.has(path)) else {
                let lack = format!(
                    "{} are there ({members}), and the image has no {} to put them together: install \
                     the package {} into it",
                    tool.what, tool.programs[0], tool.package
                );
                if !made.lacks.contains(&lack) {
                    made.lacks.push(lack);
                }
                continue;
            };
            if !self.tried.insert(format!("{program} {args:?} {members}")) {
                continue;
            }
            if late {
                say("not all of their disks came: arrays are started without them");
            }
            say(format!("{} on {members}: {program} {}", tool.what, args.join(" ")));
            load(tool.module);
            if let Err(why) = run(&tree.0, program, args) {
                say(why);
            }
            // An array that was not started keeps its disks: the missing one could not join it, nor
            // could it be started without.
            let waiting =
                if tool.kind == Kind::Raid { not_started(Path::new("/sys")) } else { Vec::new() };
            for array in waiting {
                if let Err(why) = run(&tree.0, program, &["--stop", &array]) {
                    say(why);
                }
            }
            made.changed = true;
        }
        made
    }
}

/// Arrays that lack a disk and wait: `/dev/md127`.
fn not_started(sys: &Path) -> Vec<String> {
    let all = fs::read_dir(sys.join("class/block")).into_iter().flatten().flatten();
    let waits = |place: &Path| {
        fs::read_to_string(place.join("md/array_state"))
            .is_ok_and(|state| state.trim() == "inactive")
    };
    let names = all.filter(|entry| waits(&entry.path())).map(|entry| entry.file_name());
    names.map(|name| format!("/dev/{}", name.to_string_lossy())).collect()
}

/// Their names, those that nothing is built on yet.
fn members(devices: &[Device], kind: Kind) -> String {
    let free = |device: &&Device| {
        !device.used && device.holds.as_ref().is_some_and(|found| found.kind == kind)
    };
    let names: Vec<&str> = devices.iter().filter(free).map(|device| device.name.as_str()).collect();
    names.join(" ")
}

/// Runs a program of the root in the root, with our devices bound into it meanwhile.
fn run(root: &Path, program: &str, args: &[&str]) -> Result<(), String> {
    let mut bound = Vec::new();
    for name in BOUND {
        let place = root.join(name);
        let _ = fs::create_dir_all(&place);
        match mount_bind(format!("/{name}"), &place) {
            Ok(()) => bound.push(place),
            Err(errno) => say(format!("/{name} is not in the root for {program}: {errno}")),
        }
    }
    let ended = wait_for(root, program, args);
    for place in bound.iter().rev() {
        let _ = unmount(place, UnmountFlags::DETACH);
    }
    ended
}

fn wait_for(root: &Path, program: &str, args: &[&str]) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{program} does not run: {error}");
    let mut errand = errand::in_root(root, program, args).map_err(failed)?;
    loop {
        if let Some(ended) = errand.ended().map_err(failed)? {
            for line in ended.said.lines().take(8) {
                say(format!("  {line}"));
            }
            return if ended.well {
                Ok(())
            } else {
                Err(format!("{program} did not do all of it"))
            };
        }
        if errand.age() > PATIENCE {
            errand.give_up();
            return Err(format!("{program} has not ended after {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disks::superblock::Found;

    fn device(name: &str, kind: Kind, used: bool) -> Device {
        let holds = Some(Found { kind, label: String::new(), uuid: String::new() });
        Device { name: name.into(), size: 1 << 30, used, holds, ..Device::default() }
    }

    #[test]
    fn arrays_that_wait_are_told_from_those_that_run() {
        let sys = tempfile::tempdir().unwrap();
        for (name, state) in [("md126", "inactive\n"), ("md127", "clean\n")] {
            let place = sys.path().join("class/block").join(name).join("md");
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("array_state"), state).unwrap();
        }
        fs::create_dir_all(sys.path().join("class/block/sda")).unwrap();
        assert_eq!(not_started(sys.path()), ["/dev/md126"]);
        assert!(not_started(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn an_image_without_the_tool_is_told_by_package() {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree(root.path().to_owned());
        let devices = [
            device("sda", Kind::Raid, false),
            device("sdb", Kind::Raid, false),
            device("sdc", Kind::Lvm, true),
            device("sdd", Kind::Ext, false),
        ];
        let made = Assembler::default().step(&tree, &devices, Duration::from_secs(60), &mut |_| ());
        assert!(!made.changed);
        let [lack] = &made.lacks[..] else { panic!("{:?}", made.lacks) };
        assert!(
            lack.contains("(sda sdb)") && lack.ends_with("the package mdadm into it"),
            "{lack}"
        );
        assert_eq!(
            Assembler::default().step(&tree, &devices[3..], Duration::ZERO, &mut |_| ()),
            Made::default()
        );
    }
}

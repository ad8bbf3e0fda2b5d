//! Which of the kernel's modules the root itself keeps. The initramfs brings those that lead to the
//! root; what is plugged in, mounted or filtered later, the running system loads for itself, and
//! the root lies in memory: Debian's whole set takes 400 MB of it.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::tree::{Kind, Tree};

/// The kernel's modules in the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Modules {
    /// As they came.
    #[default]
    All,
    /// Without what no rack has: sound, radio, cameras, graphics.
    Servers,
    /// Those of the initramfs only: wired networks, disks, file systems.
    Boot,
    /// None.
    None,
}

/// Folders below `kernel/` that [`Modules::Servers`] leaves out.
const DESKTOP: [&str; 19] = [
    "sound",
    "drivers/accel",
    "drivers/bluetooth",
    "drivers/comedi",
    "drivers/gnss",
    "drivers/gpu/drm/amd",
    "drivers/gpu/drm/i915",
    "drivers/gpu/drm/nouveau",
    "drivers/gpu/drm/radeon",
    "drivers/gpu/drm/xe",
    "drivers/iio",
    "drivers/isdn",
    "drivers/media",
    "drivers/net/wireless",
    "drivers/nfc",
    "drivers/staging",
    "net/bluetooth",
    "net/mac80211",
    "net/wireless",
];

/// Takes out of the tree what `keep` does not want. `boot` are the paths in the initramfs's segment,
/// as `/lib/modules/<release>/….ko`.
pub(crate) fn prune(tree: &mut Tree, release: &str, keep: Modules, boot: &[String]) {
    let Some(dir) = ["usr/lib/modules", "lib/modules"]
        .iter()
        .find_map(|dir| Some(tree.resolve(format!("{dir}/{release}").as_bytes())?.0))
    else {
        return;
    };
    let prefix = format!("/lib/modules/{release}/");
    let boot: BTreeSet<&[u8]> =
        boot.iter().filter_map(|path| path.strip_prefix(&prefix)).map(str::as_bytes).collect();
    let wanted = |path: &[u8]| match keep {
        Modules::All => true,
        Modules::None => false,
        Modules::Servers => !DESKTOP.iter().any(|folder| {
            path.strip_prefix(b"kernel/")
                .and_then(|path| path.strip_prefix(folder.as_bytes()))
                .is_some_and(|rest| rest.first() == Some(&b'/'))
        }),
        // In the segment a module is unpacked, in the root it may be `.ko.xz`.
        Modules::Boot => {
            let end = path.windows(3).rposition(|part| part == b".ko").map(|at| at + 3);
            end.is_none_or(|end| boot.contains(&path[..end]))
        }
    };
    let skip = dir.len() + 1;
    let unwanted: Vec<Vec<u8>> = tree
        .below(&dir)
        .filter(|(path, _, inode)| !matches!(inode.kind, Kind::Dir) && !wanted(&path[skip..]))
        .map(|(path, ..)| path.to_vec())
        .collect();
    for path in unwanted {
        tree.remove(&path);
    }
    // Empty folders tell nobody anything.
    let folders = tree
        .below(&dir)
        .filter(|(_, _, inode)| matches!(inode.kind, Kind::Dir))
        .map(|(path, ..)| path.to_vec());
    let folders: Vec<Vec<u8>> = std::iter::once(dir.clone()).chain(folders).collect();
    for path in folders.into_iter().rev() {
        if keep != Modules::All && tree.below(&path).next().is_none() {
            tree.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::source::Limits;
    use crate::tree::{Inode, Member, Meta};

    #[test]
    fn the_root_keeps_what_is_asked_for() {
        let dir = "usr/lib/modules/6.1";
        let boot = ["/lib/modules/6.1/kernel/drivers/net/e1000.ko".to_owned()];
        let [net, sound, soundcore, wifi, dep] = [
            "kernel/drivers/net/e1000.ko.xz",
            "kernel/sound/core/snd.ko",
            "kernel/soundcore.ko",
            "kernel/drivers/net/wireless/iwl.ko",
            "modules.dep",
        ];
        for (keep, want) in [
            (Modules::All, &[net, sound, soundcore, wifi, dep][..]),
            (Modules::Servers, &[net, soundcore, dep]),
            (Modules::Boot, &[net, dep]),
            (Modules::None, &[]),
        ] {
            let mut tree = Tree::new(Limits::default());
            let inode = Inode { meta: Meta::default(), kind: Kind::File(Content::Empty) };
            let other = "usr/lib/modules/6.2/kernel/sound/snd.ko";
            for path in [net, sound, soundcore, wifi, dep] {
                let path = format!("{dir}/{path}");
                tree.add(path.as_bytes(), Member::Inode(inode.clone())).unwrap();
            }
            tree.add(other.as_bytes(), Member::Inode(inode)).unwrap();
            prune(&mut tree, "6.1", keep, &boot);
            for path in [net, sound, soundcore, wifi, dep] {
                let there = tree.get(format!("{dir}/{path}").as_bytes()).is_some();
                assert_eq!(there, want.contains(&path), "{keep:?} {path}");
            }
            assert_eq!(tree.get(dir.as_bytes()).is_some(), keep != Modules::None);
            assert_eq!(
                tree.get(format!("{dir}/kernel/sound").as_bytes()).is_some(),
                keep == Modules::All
            );
            assert!(tree.get(other.as_bytes()).is_some(), "another kernel's are not ours to take");
        }
    }
}

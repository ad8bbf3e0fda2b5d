//! What the appliance under a storm serves: a site of so many machines and seats, and stand-ins for
//! kernel, initramfs, root and loaders. They are of the sizes asked for and of noise, which nothing makes
//! smaller on the way; nothing runs them.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::dice::Dice;
use crate::drive::mac;

/// The name of image and role.
pub const IMAGE: &str = "paper";
/// The address of the server.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Network bits.
pub const PREFIX: u8 = 16;
/// Machines have addresses from here on.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 77, 4, 0);
/// Most machines: up to 10.77.253.255.
pub const MOST: u32 = 64_000;
/// All addresses that machines have, as blocks.
pub const BLOCKS: [&str; 6] = [
    "10.77.4.0/22",
    "10.77.8.0/21",
    "10.77.16.0/20",
    "10.77.32.0/19",
    "10.77.64.0/18",
    "10.77.128.0/17",
];
/// Names of loaders that are stood in for.
pub const LOADERS: [&str; 2] = ["undionly.kpxe", "ipxe.efi"];
const RELEASE: &str = "6.1.0-0-paper";

/// Sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Of each loader.
    pub loader: u64,
    /// Of the kernel.
    pub kernel: u64,
    /// Of the part of the initramfs that comes with the image.
    pub initrd: u64,
    /// Of the root.
    pub root: u64,
}

/// The address of a machine's seat, by its number.
pub fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST) + number)
}

/// The site file: every machine has a seat of its own. Where strangers come too there is a pool for them, and a
/// role.
pub fn site(machines: u32, interface: &str, loaders: &Path, strangers: bool) -> String {
    let strangers = match strangers {
        true => format!("pool = \"10.77.2.0-10.77.3.255\"\nunknown = \"{IMAGE}\"\n"),
        false => String::new(),
    };
    let mut text = format!(
        "[site]\nname = \"storm\"\nloaders = \"{}\"\n\n[net]\ninterface = \"{interface}\"\n\
         cidr = \"10.77.0.0/{PREFIX}\"\n{strangers}\n[roles.{IMAGE}]\nimage = \"{IMAGE}\"\n\n[machines]\n",
        loaders.display()
    );
    let each = |line: &dyn Fn(u32) -> String| (0..machines).map(line).collect::<String>();
    text += &each(&|n| format!("m{n:05} = {{ mac = [\"{}\"] }}\n", mac(n)));
    text += "\n[seats]\n";
    text += &each(&|n| format!("s{n:05} = {{ role = \"{IMAGE}\", ip = \"{}\" }}\n", address(n)));
    text += "\n[matrix]\n";
    text += &each(&|n| format!("m{n:05} = \"s{n:05}\"\n"));
    text
}

/// A root that an import takes for one that boots.
pub fn root(at: &Path, sizes: &Sizes) -> io::Result<()> {
    let modules = format!("usr/lib/modules/{RELEASE}");
    let module = format!("{modules}/kernel/drivers/net/virtio_net.ko");
    for (name, bytes) in [
        (format!("boot/vmlinuz-{RELEASE}"), noise(sizes.kernel, 1)),
        (format!("boot/config-{RELEASE}"), b"CONFIG_RD_ZSTD=y\n".to_vec()),
        (module, noise(sizes.initrd, 2)),
        (format!("{modules}/modules.dep"), b"kernel/drivers/net/virtio_net.ko:\n".to_vec()),
        (format!("{modules}/modules.alias"), b"alias virtio:d00000001v* virtio_net\n".to_vec()),
        ("usr/sbin/init".to_string(), b"#!/bin/sh\n".to_vec()),
        ("srv/paper".to_string(), noise(sizes.root, 3)),
    ] {
        let path = at.join(name);
        fs::create_dir_all(path.parent().unwrap_or(at))?;
        fs::write(&path, bytes)?;
    }
    fs::set_permissions(at.join("usr/sbin/init"), fs::Permissions::from_mode(0o755))?;
    for dir in ["lib", "sbin"] {
        std::os::unix::fs::symlink(format!("usr/{dir}"), at.join(dir))?;
    }
    Ok(())
}

/// Stand-ins for loaders.
pub fn loaders(at: &Path, size: u64) -> io::Result<()> {
    fs::create_dir_all(at)?;
    LOADERS.iter().try_for_each(|name| fs::write(at.join(name), noise(size, 4)))
}

/// Bytes that do not compress.
pub fn noise(size: u64, seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed, 0);
    let mut bytes = Vec::with_capacity(size as usize + 8);
    while (bytes.len() as u64) < size {
        bytes.extend_from_slice(&dice.draw().to_le_bytes());
    }
    bytes.truncate(size as usize);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_a_line_in_each_table() {
        let text = site(3, "kb0", Path::new("/tmp/l"), false);
        for line in [
            "m00002 = { mac = [\"02:6b:73:00:00:02\"] }",
            "s00002 = { role = \"paper\", ip = \"10.77.4.2\" }",
            "m00002 = \"s00002\"",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("unknown"));
        assert!(site(3, "kb0", Path::new("/tmp/l"), true).contains("unknown = \"paper\""));
        assert_eq!(address(MOST - 1), Ipv4Addr::new(10, 77, 253, 255));
    }

    #[test]
    fn noise_is_as_long_as_asked_and_differs() {
        assert_eq!((noise(0, 1).len(), noise(1001, 1).len()), (0, 1001));
        assert_ne!(noise(100, 1), noise(100, 2));
    }
}

//! Who may write, and who runs with whose rights.

use super::rules::{CAPABILITY, Rule, SETUID, WORLD_WRITABLE};
use crate::tree::{Inode, Kind, Meta};

/// Programs that Debian 12 and 13 ship setuid or setgid, by their last name: the directories have
/// moved (/bin, /usr/lib/*/) and the names have not.
const SETUID_SHIPPED: &[&str] = &[
    "Xorg.wrap",
    "at",
    "bsd-write",
    "bwrap",
    "chage",
    "chfn",
    "chrome-sandbox",
    "chsh",
    "crontab",
    "dbus-daemon-launch-helper",
    "dma",
    "dma-mbox-create",
    "dmcrypt-get-device",
    "doas",
    "dotlockfile",
    "exim4",
    "expiry",
    "firejail",
    "fusermount",
    "fusermount3",
    "gpasswd",
    "kismet_cap_linux_wifi",
    "locate",
    "lockfile",
    "lppasswd",
    "mail-lock",
    "mail-touchlock",
    "mail-unlock",
    "mlocate",
    "mount",
    "mount.cifs",
    "mount.davfs",
    "mount.ecryptfs_private",
    "mount.nfs",
    "mtr-packet",
    "newgidmap",
    "newgrp",
    "newuidmap",
    "ntfs-3g",
    "pam_extrausers_chkpwd",
    "pam_timestamp_check",
    "passwd",
    "ping",
    "pkexec",
    "plocate",
    "polkit-agent-helper-1",
    "postdrop",
    "postqueue",
    "pppd",
    "procmail",
    "pt_chown",
    "screen",
    "sendmail",
    "smtpctl",
    "snap-confine",
    "spice-client-glib-usb-acl-helper",
    "ssh-agent",
    "ssh-keysign",
    "su",
    "sudo",
    "sudoedit",
    "suexec",
    "traceroute6.iputils",
    "umount",
    "unix_chkpwd",
    "userhelper",
    "utempter",
    "vmware-user-suid-wrapper",
    "wall",
    "write",
    "write.ul",
    "sensible-mda",
    "suexec-custom",
    "suexec-pristine",
    "auth_pam_tool",
];

/// Programs that Debian gives capabilities.
const CAPABLE_SHIPPED: &[&str] = &[
    "arping",
    "clockdiff",
    "dumpcap",
    "fping",
    "gnome-keyring-daemon",
    "gst-ptp-helper",
    "mtr-packet",
    "newgidmap",
    "newuidmap",
    "nethogs",
    "ping",
    "rcp",
    "rlogin",
    "rsh",
    "snap-confine",
    "systemd-detect-virt",
    "traceroute6.iputils",
    "vlock-main",
];

/// What permissions tell, in words: `mode 4755, owner 0:0`.
pub(super) fn modes(path: &[u8], inode: &Inode) -> Vec<(&'static Rule, String)> {
    let Meta { mode, uid, gid, xattrs, .. } = &inode.meta;
    let mut found = Vec::new();
    let said = || format!("mode {mode:04o}, owner {uid}:{gid}");
    // The sticky bit is what makes /tmp bearable.
    let open = match inode.kind {
        Kind::File(_) => mode & 0o002 != 0,
        Kind::Dir => mode & 0o002 != 0 && mode & 0o1000 == 0,
        // /dev/null and its like are meant for all; a link's mode means nothing.
        _ => false,
    };
    if open {
        found.push((&WORLD_WRITABLE, said()));
    }
    if !matches!(inode.kind, Kind::File(_)) {
        return found;
    }
    let name = path.rsplit(|c| *c == b'/').next().unwrap_or(path);
    let among = |list: &[&str]| {
        path.starts_with(b"usr/local/")
            || !path
                .split(|c| *c == b'/')
                .any(|part| matches!(part, b"bin" | b"sbin" | b"lib" | b"libexec"))
            || !list.iter().any(|known| known.as_bytes() == name)
    };
    // setgid without leave to execute was mandatory locking, once.
    let setgid = mode & 0o2010 == 0o2010;
    if (mode & 0o4000 != 0 || setgid) && among(SETUID_SHIPPED) {
        found.push((&SETUID, said()));
    }
    if xattrs.contains_key(&b"security.capability"[..]) && among(CAPABLE_SHIPPED) {
        found.push((&CAPABILITY, said()));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::content::Content;

    fn ids(path: &str, mode: u32, kind: Kind, attr: &str) -> Vec<&'static str> {
        let mut xattrs = BTreeMap::new();
        if !attr.is_empty() {
            xattrs.insert(attr.as_bytes().to_vec(), vec![1]);
        }
        let meta = Meta { mode, xattrs, ..Meta::default() };
        let inode = Inode { meta, kind };
        modes(path.as_bytes(), &inode).into_iter().map(|(rule, _)| rule.id).collect()
    }

    #[test]
    fn what_debian_ships_so_is_no_surprise() {
        let file = || Kind::File(Content::Empty);
        let none: [&str; 0] = [];
        assert_eq!(ids("usr/bin/sudo", 0o4755, file(), ""), none);
        assert_eq!(ids("bin/ping", 0o755, file(), "security.capability"), none);
        assert_eq!(ids("usr/local/bin/sudo", 0o4755, file(), ""), ["setuid"]);
        assert_eq!(ids("home/a/su", 0o4755, file(), ""), ["setuid"]);
        assert_eq!(ids("usr/bin/bash", 0o4755, file(), ""), ["setuid"]);
        assert_eq!(ids("usr/bin/vim", 0o2755, file(), ""), ["setuid"]);
        assert_eq!(ids("usr/bin/python3", 0o755, file(), "security.capability"), ["capability"]);
        assert_eq!(ids("usr/bin/python3", 0o755, file(), "user.note"), none);
        assert_eq!(ids("var/mail", 0o2775, Kind::Dir, ""), none);
        assert_eq!(ids("tmp", 0o1777, Kind::Dir, ""), none);
        assert_eq!(ids("srv/drop", 0o777, Kind::Dir, ""), ["world-writable"]);
        assert_eq!(ids("etc/x", 0o666, file(), ""), ["world-writable"]);
        assert_eq!(ids("dev/null", 0o666, Kind::Char { major: 1, minor: 3 }, ""), none);
        assert_eq!(ids("bin", 0o777, Kind::Symlink(b"usr/bin"[..].into()), ""), none);
    }
}

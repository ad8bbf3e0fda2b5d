//! SSH host keys: none is in an image, where whoever fetches images would have them too. The machine makes
//! its own before sshd starts, and shows the public half on its console, where the appliance reads it: who
//! else is on the network cannot write there.

use std::io;

use crate::settle::intree::Tree;

const UNITS: &str = "etc/systemd/system";
const MAKE: &str = "koboshi-ssh-host-keys.service";
const SHOW: &str = "koboshi-ssh-host-keys-shown.service";

/// Ed25519, because every client of the last ten years knows it, and it costs no time to make. Keys that are there
/// (made by the image's own units, or kept on a server) stay. Before basic.target, which waits for sockets: a
/// service behind it that has to be there before one of them would be a cycle.
const MAKE_TEXT: &str = r#"# koboshi: written at boot
[Unit]
Description=SSH host key of this machine
DefaultDependencies=no
Requires=sysinit.target
After=sysinit.target
Before=ssh.service sshd.service ssh.socket sshd.socket sshd-keygen@ed25519.service shutdown.target
Conflicts=shutdown.target
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -C "" -f /etc/ssh/ssh_host_ed25519_key
"#;

/// `idle`: when systemd has said all it has to say. An empty line first, since a prompt may stand there. Each line
/// is one write, and so is not torn by a getty's.
const SHOW_TEXT: &str = r#"# koboshi: written at boot
[Unit]
Description=SSH host keys of this machine, shown on its console
After=koboshi-ssh-host-keys.service sshd-keygen.target

[Service]
Type=idle
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for type in ed25519 ecdsa; do file=/etc/ssh/ssh_host_$${type}_key.pub; [ -s $$file ] && read -r kind key rest < $$file && printf "\\nkoboshi: ssh host key %%s %%s\\n" $$kind $$key > /dev/console; done; exit 0'
"#;

/// Writes the units into an image with systemd and OpenSSH's server. The path of the keys is that of every
/// distribution.
pub fn units(tree: &Tree) -> io::Result<()> {
    let sshd = tree.has("usr/sbin/sshd") || tree.has("usr/bin/sshd");
    let systemd = tree.has("usr/lib/systemd/systemd") || tree.has("lib/systemd/systemd");
    if !(sshd && systemd && tree.has("usr/bin/ssh-keygen")) {
        return Ok(());
    }
    for (name, text) in [(MAKE, MAKE_TEXT), (SHOW, SHOW_TEXT)] {
        tree.write(&format!("{UNITS}/{name}"), text, 0o644)?;
        let wanted = format!("{UNITS}/multi-user.target.wants/{name}");
        tree.link(&wanted, &format!("/{UNITS}/{name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_an_image_with_a_server_is_told_of_keys() {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree(root.path().to_owned());
        let put = |path: &str| tree.write(path, "", 0o755).unwrap();
        put("usr/lib/systemd/systemd");
        put("usr/bin/ssh-keygen");
        units(&tree).unwrap();
        assert!(!tree.has(UNITS), "a client makes no host keys");
        put("usr/sbin/sshd");
        units(&tree).unwrap();
        for unit in [MAKE, SHOW] {
            let wanted = format!("{UNITS}/multi-user.target.wants/{unit}");
            assert_eq!(tree.link_target(&wanted), Some(format!("/{UNITS}/{unit}")));
            assert!(tree.read(&wanted).contains("[Service]"));
        }
    }

    /// systemd's quoting undone, the line is a shell's: it shows types and keys, and no comments.
    #[test]
    fn the_line_on_the_console_is_the_public_key() {
        let line = SHOW_TEXT.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let script =
            line.strip_prefix("/bin/sh -c '").and_then(|line| line.strip_suffix('\'')).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (at, console) = (dir.path().to_str().unwrap(), dir.path().join("console"));
        let script = script.replace("$$", "$").replace("%%", "%").replace(r"\\", r"\");
        let script = script.replace("/etc/ssh", at).replace("> /dev/console", ">> $CONSOLE");
        fs::write(dir.path().join("ssh_host_ed25519_key.pub"), "ssh-ed25519 AAAAC3 root@web1\n")
            .unwrap();
        let status = Command::new("/bin/sh")
            .args(["-c", &script])
            .env("CONSOLE", &console)
            .status()
            .unwrap();
        assert!(status.success());
        let said = fs::read_to_string(&console).unwrap();
        assert_eq!(said, "\nkoboshi: ssh host key ssh-ed25519 AAAAC3\n");
    }
}

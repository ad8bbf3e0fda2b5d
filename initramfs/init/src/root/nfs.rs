//! A root on a server: mounted by the kernel's own client, in a child that can be given up. A server
//! that hangs or refuses is asked again for as long as it takes, and the console says what is missing.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::MountFlags;

use crate::backoff;
use crate::cmdline::Cmdline;
use crate::console::say;
use crate::errand;
use crate::modules::Modules;
use crate::mounts::{self, LOWER, NEW_ROOT};
use crate::root::archive::{NoRoot, Ready};
use crate::root::fetch::{Event, Listener};

/// Longer than a server's grace period after its restart may keep a client waiting in one call.
const PATIENCE: Duration = Duration::from_secs(30);
const WORD_AFTER: Duration = Duration::from_secs(5);
const VERSIONS: [&str; 4] = ["4.2", "4.1", "4.0", "3"];

/// What is mounted.
#[derive(Debug, Clone, Copy)]
pub struct Export<'a> {
    /// Whose.
    pub server: Ipv4Addr,
    /// What it exports.
    pub path: &'a str,
    /// As `mount -o` takes them.
    pub options: &'a str,
    /// Mounted below an overlay, and never written.
    pub read_only: bool,
    /// Our address, where the server calls back (NFS 4.0).
    pub own: Ipv4Addr,
}

impl Export<'_> {
    /// `10.77.0.9:/srv/web`
    pub fn name(&self) -> String {
        format!("{}:{}", self.server, self.path)
    }
}

/// Mounts until it is mounted: at the root's place, or below it if nothing is to be written.
pub fn mount_root(
    export: &Export<'_>,
    modules: &mut Modules,
    line: &Cmdline,
    listener: Listener<'_>,
) -> Result<Ready<()>, NoRoot> {
    for module in ["nfs", "nfsv4", "nfsv3"] {
        modules.load(module, line);
    }
    let (asked, flags) = options(export.options);
    let flags = if export.read_only { flags | MountFlags::RDONLY } else { flags };
    let target = if export.read_only { LOWER } else { NEW_ROOT };
    say(format!("root {} by NFS", export.name()));
    for failures in 1.. {
        listener(Event::Begun { attempt: failures });
        let begun = Instant::now();
        let mut why = String::new();
        for version in &versions(&asked) {
            mounts::clear()
                .map_err(|error| NoRoot::Unusable(format!("no place for the root: {error}")))?;
            let data = data(export, &asked, version);
            match one_try(export, target, flags, &data, listener)? {
                Ok(()) => {
                    let said = if version.is_empty() { "as its options say" } else { version };
                    say(format!("root {} mounted, NFS {said}", export.name()));
                    return Ok(Ready { took: begun.elapsed(), attempts: failures, made: () });
                }
                Err(Refusal { why: words, other_version, hopeless }) => {
                    if hopeless {
                        return Err(NoRoot::Unusable(words));
                    }
                    // The newest version's answer says most: an old one may only find no portmapper.
                    if why.is_empty() {
                        why = words;
                    }
                    if !other_version {
                        break;
                    }
                }
            }
        }
        let wait = backoff::pause(failures, backoff::random());
        if !listener(Event::Failed { attempt: failures, why, wait }) {
            return Err(NoRoot::Stopped);
        }
    }
    Err(NoRoot::Stopped)
}

/// Why a mount did not come about.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    why: String,
    /// Another version of the protocol may do.
    other_version: bool,
    /// No server can change it.
    hopeless: bool,
}

fn one_try(
    export: &Export<'_>,
    target: &str,
    flags: MountFlags,
    data: &str,
    listener: Listener<'_>,
) -> Result<Result<(), Refusal>, NoRoot> {
    let name = export.name();
    let unusable = |error: std::io::Error| NoRoot::Unusable(format!("no mount begins: {error}"));
    let mut mount = errand::mount(&name, target, "nfs", flags, data).map_err(unusable)?;
    let mut said = false;
    loop {
        if let Some(ended) = mount.ended().map_err(unusable)? {
            return Ok(match ended.refused {
                _ if ended.well => Ok(()),
                Some(errno) => Err(refusal(export, Errno::from_raw_os_error(errno))),
                None => Err(Refusal {
                    why: format!("the mount of {name} ended by itself {}", ended.said),
                    other_version: false,
                    hopeless: false,
                }),
            });
        }
        if mount.age() > WORD_AFTER && !said {
            said = true;
            let most = PATIENCE.as_secs();
            say(format!(
                "waits for the NFS server {} ({most} s; 'rescue' for a shell)",
                export.server
            ));
        }
        if mount.age() > PATIENCE {
            mount.give_up();
            let why = format!("the NFS server {} does not answer", export.server);
            return Ok(Err(Refusal { why, other_version: false, hopeless: false }));
        }
        if !listener(Event::Waits(Duration::from_millis(200))) {
            mount.give_up();
            return Err(NoRoot::Stopped);
        }
    }
}

fn refusal(export: &Export<'_>, errno: Errno) -> Refusal {
    let Export { server, path, own, .. } = export;
    let why = match errno {
        Errno::CONNREFUSED => format!("no NFS server runs on {server} (connection refused)"),
        Errno::TIMEDOUT => format!("the NFS server {server} does not answer"),
        Errno::HOSTUNREACH | Errno::NETUNREACH => {
            format!("there is no way to the NFS server {server} (gateway? cable?)")
        }
        Errno::NOENT => format!("the NFS server {server} exports no {path}"),
        Errno::ACCESS | Errno::PERM => {
            format!("the NFS server {server} does not let {own} at {path} (its list of exports)")
        }
        Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::PROTO => {
            format!("the NFS server {server} speaks no version of NFS that was asked for")
        }
        Errno::NODEV => "this image's kernel has no NFS client in its initramfs".to_owned(),
        Errno::INVAL => {
            format!("the kernel does not take the NFS options {:?} (or not {path})", export.options)
        }
        other => {
            format!("{} does not mount: {}", export.name(), std::io::Error::from(other))
        }
    };
    Refusal {
        why,
        // A kernel built without 4.2 calls it invalid.
        other_version: matches!(
            errno,
            Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::PROTO | Errno::INVAL
        ),
        hopeless: errno == Errno::NODEV,
    }
}

/// The versions to try, in order; one empty one if the options name theirs.
fn versions(options: &[&str]) -> Vec<&'static str> {
    let names = |option: &&str| {
        let key = option.split('=').next().unwrap_or_default();
        matches!(key, "vers" | "nfsvers" | "minorversion" | "v3" | "v4" | "v4.0" | "v4.1" | "v4.2")
    };
    if options.iter().any(names) { vec![""] } else { VERSIONS.to_vec() }
}

/// What the kernel's client reads. There is no statd here, so NFS 3 locks on this machine only.
fn data(export: &Export<'_>, options: &[&str], version: &str) -> String {
    let third =
        version == "3" || options.iter().any(|o| matches!(*o, "vers=3" | "nfsvers=3" | "v3"));
    let mut all = vec![format!("addr={}", export.server)];
    if !version.is_empty() {
        all.push(format!("vers={version}"));
    }
    if third {
        all.extend(["nolock", "proto=tcp", "mountproto=tcp"].map(str::to_owned));
        all.push(format!("mountaddr={}", export.server));
    } else {
        all.push(format!("clientaddr={}", export.own));
    }
    all.extend(options.iter().map(|option| (*option).to_owned()));
    all.join(",")
}

/// Options apart: those of every mount are flags to the kernel, those of mount(8) mean nothing here.
fn options(text: &str) -> (Vec<&str>, MountFlags) {
    let mut flags = MountFlags::empty();
    let mut own = Vec::new();
    for option in text.split(',').filter(|option| !option.is_empty()) {
        match option {
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "defaults" | "ro" | "rw" | "suid" | "dev" | "exec" | "atime" | "async" | "auto"
            | "noauto" | "nofail" | "_netdev" | "nouser" => {}
            _ => own.push(option),
        }
    }
    (own, flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(options: &str) -> Export<'_> {
        Export {
            server: Ipv4Addr::new(10, 77, 0, 9),
            path: "/srv/web",
            options,
            read_only: true,
            own: Ipv4Addr::new(10, 77, 0, 11),
        }
    }

    #[test]
    fn what_the_kernel_is_told() {
        let told = |text: &str, version: &str| data(&export(text), &options(text).0, version);
        assert_eq!(told("", "4.2"), "addr=10.77.0.9,vers=4.2,clientaddr=10.77.0.11");
        assert_eq!(
            told("noatime,soft,_netdev", "3"),
            "addr=10.77.0.9,vers=3,nolock,proto=tcp,mountproto=tcp,mountaddr=10.77.0.9,soft"
        );
        assert_eq!(
            told("vers=3,port=2049,lock", ""),
            "addr=10.77.0.9,nolock,proto=tcp,mountproto=tcp,mountaddr=10.77.0.9,vers=3,port=2049,lock"
        );
        let (own, flags) = options("ro,nosuid,,nodev,rsize=65536");
        assert_eq!(own, ["rsize=65536"]);
        assert_eq!(flags, MountFlags::NOSUID | MountFlags::NODEV);
    }

    #[test]
    fn versions_are_tried_unless_one_is_named() {
        assert_eq!(versions(&["soft"]), VERSIONS);
        for named in ["vers=4", "nfsvers=3", "v4.1", "minorversion=1"] {
            assert_eq!(versions(&[named]), [""]);
        }
    }

    #[test]
    fn refusals_in_words() {
        let of = |errno| refusal(&export(""), errno);
        assert!(of(Errno::CONNREFUSED).why.contains("no NFS server runs on 10.77.0.9"));
        assert!(of(Errno::ACCESS).why.contains("does not let 10.77.0.11 at /srv/web"));
        assert!(of(Errno::PROTONOSUPPORT).other_version && !of(Errno::ACCESS).other_version);
        assert!(of(Errno::NODEV).hopeless && !of(Errno::TIMEDOUT).hopeless);
    }
}

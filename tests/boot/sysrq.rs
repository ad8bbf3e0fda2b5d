//! SysRq b by BREAK into a Linux guest, over telnet, over Serial over LAN and over a serial line: the program as it is
//! typed sends it, the guest's own kernel takes the BREAK from its UART, and reboots.
//!
//! Real are guests, kernels and UARTs (QEMU's 16550, whose `telnet` character device makes a BREAK of IAC BRK), and the
//! appliance. The BMC is bmcsim. The serial line is a pseudo-terminal, as no other two ends of a line are to be had on
//! one host, and those carry no BREAK: a bridge stands where the wire would be, sees by `strace` the appliance tell
//! its port to say BREAK (TIOCSBRK), and says it to the guest.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use koboshi_bmcsim::config::Serial;
use koboshi_bmcsim::{Config, Sim};
use koboshi_ipmi::Password;
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::world::{KOBOSHI, World, in_world};

/// Far beyond what anything here takes: a guest is up within seconds.
const CEILING: Duration = Duration::from_secs(60);
const IAC: u8 = 255;
const BRK: u8 = 243;
const PASSWORD: &str = "open-sesame-42";

/// What the guests run: it says again and again which boot it is.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo 1 > /proc/sys/kernel/sysrq
while :; do
    echo \"boot $(/bin/busybox cat /proc/sys/kernel/random/boot_id) is up\"
    /bin/busybox sleep 1
done
";

/// A Linux of the rack's own kernel, with a program or two in memory.
struct Guests {
    kernel: PathBuf,
    initramfs: PathBuf,
    running: Vec<Child>,
}

impl Guests {
    fn new(folder: &Path) -> Guests {
        let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rack/cache/packages");
        let below = |folder: &Path, part: &str| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let mut paths = entries.map(|entry| entry.path());
            paths.find(|path| path.to_string_lossy().contains(part))
        };
        let kernel =
            below(&packages, "-cloud-").and_then(|cloud| below(&cloud.join("boot"), "vmlinuz"));
        let kernel = kernel.expect("a kernel, which `make rack-images` fetches");
        let root = folder.join("guest");
        for folder in ["bin", "proc"] {
            std::fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static");
        std::fs::write(root.join("init"), INIT).expect("written");
        let initramfs = folder.join("guest.cpio");
        let pack = "chmod +x init && find . | cpio --quiet -o -H newc > ../guest.cpio";
        let packed =
            std::process::Command::new("sh").args(["-c", pack]).current_dir(&root).status();
        assert!(packed.expect("sh runs").success(), "cpio packs");
        Guests { kernel, initramfs, running: Vec::new() }
    }

    /// One whose serial port is at this address.
    async fn start(&mut self, world: &World, line: SocketAddr) {
        let mut command = world.rack.command("qemu-system-x86_64");
        let machine = ["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"];
        command.args(machine).args(["-machine", "q35", "-cpu", "max", "-m", "256"]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initramfs);
        command.args(["-append", "console=ttyS0,115200 quiet"]);
        let (host, port) = (line.ip(), line.port());
        let line = format!("socket,id=line,host={host},port={port},server=on,wait=off,telnet=on");
        command.args(["-chardev", &line, "-serial", "chardev:line"]);
        self.running.push(world.rack.spawn(command).await.expect("QEMU runs"));
    }
}

/// A serial line of this host with the guest's UART at its other end.
struct Wire {
    path: String,
    guest: Arc<Mutex<TcpStream>>,
}

impl Wire {
    async fn lay(to: SocketAddr) -> Wire {
        // No child of ours, and not we, may have its near end: whoever has it is told to the appliance.
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let pty = posix_openpt(flags).expect("a pseudo-terminal");
        grantpt(&pty).and_then(|()| unlockpt(&pty)).expect("it is ours");
        let path = ptsname_r(&pty).expect("its name");
        let far = pty.as_fd().try_clone_to_owned().expect("a descriptor");
        let begun = Instant::now();
        let guest = loop {
            match TcpStream::connect(to) {
                Ok(guest) => break guest,
                Err(why) => assert!(begun.elapsed() < CEILING, "{why}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let mut from_guest = guest.try_clone().expect("a descriptor");
        let guest = Arc::new(Mutex::new(guest));
        let mut to_line = std::fs::File::from(far);
        let mut from_line = to_line.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            let (mut bytes, mut skip) = ([0; 4096], 0);
            while let Ok(read @ 1..) = from_guest.read(&mut bytes) {
                // QEMU negotiates, and else says no IAC here.
                let text: Vec<u8> = bytes[..read]
                    .iter()
                    .filter(|byte| {
                        if **byte == IAC {
                            skip = 3;
                        }
                        skip = u8::saturating_sub(skip, 1);
                        skip == 0 && **byte != IAC
                    })
                    .copied()
                    .collect();
                if to_line.write_all(&text).is_err() {
                    break;
                }
            }
        });
        let typed = guest.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let Ok(read @ 1..) = from_line.read(&mut bytes) else {
                    // Nobody is at the line yet.
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                };
                let mut guest = typed.lock().unwrap_or_else(PoisonError::into_inner);
                if guest.write_all(&bytes[..read]).is_err() {
                    break;
                }
            }
        });
        Wire { path, guest }
    }

    /// From now on what the appliance does to its port is seen. What was seen is counted.
    async fn watch(&self, world: &World) -> (Child, Arc<Mutex<Vec<String>>>) {
        let mut command = world.rack.command("strace");
        command.args(["-f", "-y", "-e", "trace=ioctl", "-p", &world.pid().to_string()]);
        let mut strace = world.rack.spawn(piped(command)).await.expect("strace runs");
        let mut lines = BufReader::new(strace.stderr.take().expect("a pipe")).lines();
        // It says so when it is there.
        let attached = lines.next_line().await.expect("it can be read").unwrap_or_default();
        assert!(attached.contains("attached"), "{attached}");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (guest, path, kept) = (self.guest.clone(), self.path.clone(), seen.clone());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains(&path) && line.contains("TIOCSBRK") {
                    let mut guest = guest.lock().unwrap_or_else(PoisonError::into_inner);
                    guest.write_all(&[IAC, BRK]).expect("the guest's port takes it");
                }
                if line.contains(&path) && line.contains("BRK") {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            }
        });
        (strace, seen)
    }
}

fn piped(mut command: tokio::process::Command) -> tokio::process::Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// What a machine says, in a file.
struct Said(PathBuf, Child);

impl Said {
    async fn of(world: &World, machine: &str) -> Said {
        let path = world.state.join(format!("{machine}.said"));
        let mut command = world.rack.command(KOBOSHI);
        command.args(["console", machine, "--watch", "--state"]).arg(&world.state);
        let file = std::fs::File::create(&path).expect("a file");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a descriptor")).stderr(file);
        Said(path, world.rack.spawn(command).await.expect("koboshi runs"))
    }

    /// The boot that it says last, once it is another one than `before`.
    async fn boot(&mut self, before: &str) -> String {
        let begun = Instant::now();
        loop {
            let text = std::fs::read(&self.0).expect("it is there");
            let text = String::from_utf8_lossy(&text).into_owned();
            let mut boots = text.rmatch_indices(" is up").filter_map(|(at, _)| {
                let boot = text.get(at.checked_sub(36)?..at)?;
                text.get(..at - 36)?.ends_with("boot ").then(|| boot.to_string())
            });
            match boots.next() {
                Some(boot) if boot != before => return boot,
                _ => assert!(
                    begun.elapsed() < CEILING,
                    "{}: not another than {before:?}: {text}",
                    self.0.display()
                ),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[test]
fn a_guest_is_rebooted_over_each_kind_of_line_that_has_a_break() {
    in_world("", vec![], async |mut world| {
        let folder = world.site.parent().expect("a folder").to_path_buf();
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let (telnet, sol, serial) = (at(4001), at(4002), at(4003));
        let mut guests = Guests::new(&folder);
        for line in [telnet, sol, serial] {
            guests.start(&world, line).await;
        }
        let wire = Wire::lay(serial).await;
        let password = Password::new(PASSWORD).expect("short enough");
        let config =
            Config { serial: Serial::Telnet(sol), ..Config::with_admin("admin", password) };
        let bmc = Sim::start(config).expect("a BMC");
        std::fs::write(folder.join("bmc.pw"), PASSWORD).expect("written");
        let site = format!(
            r#"
[site]
name = "sysrq"
[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.250"
[defaults.bmc]
user = "admin"
password-file = "bmc.pw"
[machines]
m01 = {{ console = "telnet:{telnet}" }}
m02 = {{ console = "sol", bmc = {{ host = "127.0.0.1", port = {port} }} }}
m03 = {{ console = "serial:{path}@115200" }}
"#,
            port = bmc.addr().port(),
            path = wire.path,
        );
        std::fs::write(&world.site, site).expect("written");
        world.serve().await;
        let begun = Instant::now();
        while world.json(&["console"]).to_string().matches(r#""state":"up""#).count() < 3 {
            assert!(begun.elapsed() < CEILING, "{}\n{}", world.ok(&["console"]), world.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut said = Vec::new();
        for machine in ["m01", "m02", "m03"] {
            let mut says = Said::of(&world, machine).await;
            let boot = says.boot("").await;
            said.push((machine, says, boot));
        }
        let (mut strace, seen) = wire.watch(&world).await;
        for (machine, ..) in &said {
            let told = world.ok(&["console", machine, "--sysrq", "b"]);
            assert!(told.starts_with(&format!("{machine}: SysRq b: reboot at once")), "{told}");
        }
        for (_, says, before) in &mut said {
            says.boot(before).await;
        }
        strace.start_kill().expect("it runs");
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
        assert!(seen.contains("TIOCSBRK") && seen.contains("TIOCCBRK"), "{seen}");
        let events = world.ok(&["events"]);
        assert!(events.contains("m03 root sends SysRq b over its console"), "{events}");
        for (_, says, _) in &mut said {
            says.1.kill().await.expect("it is killed");
        }
        for guest in &mut guests.running {
            guest.kill().await.expect("it is killed");
        }
        assert!(world.stop().await);
    });
}

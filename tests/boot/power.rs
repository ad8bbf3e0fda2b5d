//! A machine whose every button is pressed by its BMC, and whose serial line is read over Serial over LAN alone.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use koboshi::lab::bmc::{Account, Bmcs};
use koboshi::lab::machine::Power;
use koboshi::lab::qemu::Spec;
use koboshi_ipmi::commands::{boot, chassis};
use koboshi_ipmi::sol::{Console, Event, Options, Typist};
use koboshi_ipmi::{Access, Bmc, Password};

use super::{MINUTES, spec};
use crate::world::{World, in_world};

const SITE: &str = r#"
[site]
name = "rack"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.220"

[roles.metal]
image = "metal"

[defaults.bmc]
user = "admin"
password-file = "bmc.pw"

[machines]
m01 = { mac = ["52:54:00:77:00:01"], bmc = "10.78.0.11" }

[seats]
tool1 = { role = "metal", ip = "10.77.0.21" }

[matrix]
m01 = "tool1"
"#;

const PASSWORD: &str = "open-sesame-42";

fn account() -> Account {
    Account {
        machine: "m01".into(),
        listen: SocketAddr::from(([10, 78, 0, 11], 623)),
        mac: None,
        user: "admin".into(),
        password: Password::new(PASSWORD).expect("it is short"),
        kg: None,
        suite: None,
    }
}

/// All that came over Serial over LAN, in order.
struct Read {
    bytes: Arc<Mutex<Vec<u8>>>,
    typist: Typist,
}

impl Read {
    fn of(mut console: Console) -> Read {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (typist, kept) = (console.typist(), Arc::clone(&bytes));
        tokio::spawn(async move {
            while let Some(event) = console.recv().await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Event::Data { bytes, .. } => kept.extend_from_slice(&bytes),
                    // Whatever is missing is missed by the comparison.
                    other => eprintln!("after {} bytes: {other:?}", kept.len()),
                }
            }
        });
        Read { bytes, typist }
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a text behind the first `from` bytes; where it ends.
    async fn expect(&self, text: &str, from: usize) -> usize {
        let begun = Instant::now();
        loop {
            let read = self.bytes();
            let rest = read.get(from..).unwrap_or_default();
            if let Some(at) = rest.windows(text.len()).position(|part| part == text.as_bytes()) {
                return from + at + text.len();
            }
            let tail = &rest[rest.len().saturating_sub(2000)..];
            assert!(begun.elapsed() < MINUTES, "{text:?}: {}", String::from_utf8_lossy(tail));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What came out of QEMU's serial port, over all the times it was started: as the rack's own console took it from
/// QEMU's socket, and as QEMU itself wrote it down.
fn emitted(world: &World) -> (Vec<u8>, Vec<u8>) {
    let read = |name| std::fs::read(world.rack.dir().join(name)).expect("a log");
    (read("m01.console"), read("m01.serial"))
}

/// QEMU's log without its repetitions: a character that its socket had no room for at first is written down
/// when it is tried and again when it is sent.
fn once(log: &[u8], sent: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(log.len());
    for byte in log {
        if out.last() != Some(byte) || sent.get(out.len()) == Some(byte) {
            out.push(*byte);
        }
    }
    out
}

fn same(read: &[u8], emitted: &[u8]) {
    let agree = read.iter().zip(emitted).take_while(|(read, emitted)| read == emitted).count();
    let around = |bytes: &[u8]| {
        let from = agree.saturating_sub(100).min(bytes.len());
        String::from_utf8_lossy(&bytes[from..bytes.len().min(agree + 200)]).into_owned()
    };
    assert!(
        read == emitted,
        "{} bytes of {}, the same up to {agree}: {:?} for {:?}",
        read.len(),
        emitted.len(),
        around(read),
        around(emitted)
    );
}

/// Switched on, netbooted, reset, booted from disk and switched off by IPMI alone (S28); what was read over
/// Serial over LAN meanwhile is what QEMU's serial port emitted, from the first byte to the last.
#[test]
fn a_machine_lives_by_its_bmc() {
    let system = Some(account().system_interface());
    in_world(SITE, vec![Spec { bmc: system, ..spec("m01") }], async |world| {
        let mut world = world.with_images();
        let secret = world.site.parent().unwrap_or(Path::new("/")).join("bmc.pw");
        std::fs::write(&secret, PASSWORD).expect("written");
        let _bmcs = Bmcs::plug_in(&world.rack, vec![account()]).expect("a BMC");
        world.serve().await;
        let password = Password::new(PASSWORD).expect("it is short");
        let bmc = Bmc::new(Access::new("10.78.0.11", "admin", password));
        let console = bmc.sol(Options::default()).await.expect("Serial over LAN, the machine off");
        let read = Read::of(console);
        assert_eq!(world.machine("m01").status().await, Power::Off);

        world.ok(&["power", "m01", "on"]);
        assert!(matches!(world.machine("m01").status().await, Power::On(_)));
        assert!(chassis::status(&bmc).await.expect("it answers").power);
        let booted = world.up("m01", "tool1").await;
        let prompt = read.expect("# ", read.expect("Linux version", 0).await).await;

        // The guest's kernel talks to the same BMC, by the host's own interface.
        let told = world.json(&["explain", "m01"]);
        assert_eq!(told["hardware"]["bmc"]["address"], "10.78.0.11", "{told:#}");
        assert_eq!(told["hardware"]["bmc"]["mac"], "52:54:00:78:00:01", "{told:#}");

        // What is typed arrives; a BREAK does, and the kernel takes the key after it for SysRq.
        read.typist.send("echo typed over $((600+23))\r").await.expect("it is open");
        let typed = read.expect("typed over 623", prompt).await;
        read.typist.operate(koboshi_ipmi::sol::Operation::Break).await.expect("it is open");
        read.typist.send("h").await.expect("it is open");
        let helped = read.expect("sysrq: HELP", typed).await;

        world.ok(&["power", "m01", "reset"]);
        let again = read.expect("Linux version", helped).await;
        read.expect("# ", again).await;
        let second = world.up("m01", "tool1").await;
        assert_ne!(second["id"], booted["id"], "{second:#}");

        world.ok(&["power", "m01", "off"]);
        assert_eq!(world.machine("m01").status().await, Power::Off);

        // For one start the firmware goes to the disk, which is blank.
        world.ok(&["bootdev", "m01", "disk"]);
        let off = read.bytes().len();
        world.ok(&["power", "m01", "on"]);
        read.expect("Booting from Hard Disk", off).await;
        assert!(!boot::get(&bmc).await.expect("flags").is_override(), "it is used up");
        world.ok(&["power", "m01", "off"]);
        assert!(!chassis::status(&bmc).await.expect("it answers").power);
        let said = world.ok(&["power", "m01", "status"]);
        assert!(said.contains("m01") && said.contains("off"), "{said}");

        let (port, log) = emitted(&world);
        let begun = Instant::now();
        while read.bytes().len() < port.len() && begun.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        same(&read.bytes(), &port);
        same(&once(&log, &port), &port);
        assert!(port.len() > 20_000, "two boots are more than {} bytes", port.len());
        bmc.close().await;
    });
}

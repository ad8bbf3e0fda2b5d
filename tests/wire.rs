//! The appliance on a network with reference clients: udhcpc, curl, atftp and tftp-hpa, and a
//! client of our own where the moment between two packets matters.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use koboshi::lab::net::Peer;
use tokio::io::AsyncBufReadExt;

use crate::world::{World, in_world, text};

/// Three machines, a seat, and a pool of one address.
pub const SITE: &str = r#"
[site]
name = "wire"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.200"

[roles.rescue]
image = "rescue"

[machines]
m01 = { mac = ["52:54:00:77:00:01"] }
m02 = { mac = ["52:54:00:77:00:02"] }
m03 = { mac = ["52:54:00:77:00:03"] }

[seats]
tool1 = { role = "rescue", ip = "10.77.0.21" }

[matrix]
m01 = "tool1"
m02 = "spare"
m03 = "spare"
"#;

/// A neighbour with this MAC.
pub fn peer(world: &World, mac: &str) -> Peer {
    let peer = world.rack.wire().peer().expect("a peer on the wire");
    let set = peer.output("ip", &["link", "set", "eth0", "address", mac]).expect("ip runs");
    assert!(set.status.success(), "{}", text(&set));
    peer
}

/// What udhcpc was given, if anything.
pub fn udhcpc(peer: &Peer) -> Option<String> {
    asks(peer, &[])
}

/// The same for a boot ROM: option 60 makes it one.
pub fn rom(peer: &Peer) -> Option<String> {
    asks(peer, &["-V", "PXEClient:Arch:00000:UNDI:002001"])
}

fn asks(peer: &Peer, more: &[&str]) -> Option<String> {
    let mut words = vec!["-i", "eth0", "-n", "-q", "-f", "-t", "4", "-T", "1", "-s", "/bin/true"];
    words.extend(more);
    let output = peer.output("udhcpc", &words).expect("udhcpc runs: `make setup` installs it");
    let said = text(&output);
    let rest = said.split("lease of ").nth(1)?;
    Some(rest.split(' ').next().unwrap_or_default().to_string())
}

#[test]
fn udhcpc_gets_its_seats_address_and_a_stranger_gets_silence() {
    in_world(SITE, vec![], async |mut world| {
        world.serve().await;
        assert_eq!(udhcpc(&peer(&world, "52:54:00:77:00:01")).as_deref(), Some("10.77.0.21"));
        assert_eq!(udhcpc(&peer(&world, "52:54:00:99:99:99")), None);
        let counted = world.rack.output(
            "curl",
            &[
                "-sS",
                "--unix-socket",
                world.state.join("koboshi.sock").to_str().expect("UTF-8"),
                "http://koboshi/api/v1/counters",
            ],
        );
        let counted = text(&counted.expect("curl runs"));
        assert!(
            counted.contains("\"malformed\":0") && counted.contains("\"discovers\":"),
            "{counted}"
        );
        let events = world.ok(&["events"]);
        assert!(events.contains("unknown-machine  52:54:00:99:99:99"), "{events}");

        // One line of the matrix (S20), and the next exchange follows it. The MAC is the same.
        let refused = world.run(&["seat", "m02", "tool1"]);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(text(&refused).contains("koboshi seat m01 spare"), "{}", text(&refused));
        // Somebody follows the events meanwhile.
        let state = world.state.to_str().expect("UTF-8").to_string();
        let mut follow = world.rack.command(crate::world::KOBOSHI);
        follow
            .args(["events", "-f", "--json", "--state", &state])
            .stdout(std::process::Stdio::piped());
        let mut follow = world.rack.spawn(follow).await.expect("koboshi events -f");
        let told = follow.stdout.take().expect("a pipe");
        let mut told = tokio::io::BufReader::new(told).lines();
        world.ok(&["seat", "m01", "spare"]);
        world.ok(&["seat", "m02", "tool1"]);
        let mut reloads = 0;
        while reloads < 2 {
            let line = tokio::time::timeout(Duration::from_secs(20), told.next_line()).await;
            let line = line.expect("told in time").expect("read").expect("it goes on");
            let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            reloads += usize::from(event["kind"] == "reload");
        }
        follow.kill().await.expect("killed");
        assert_eq!(udhcpc(&peer(&world, "52:54:00:77:00:02")).as_deref(), Some("10.77.0.21"));
    });
}

/// `exclusive = "probe"`: the machine that waits has its seat as soon as nobody answers there.
#[test]
fn a_seat_that_needs_no_fence_moves_once_nobody_answers_at_its_address() {
    let site = SITE
        .replace(r#"ip = "10.77.0.21""#, r#"ip = "10.77.0.21", exclusive = "probe""#)
        .replace("10.77.0.200-10.77.0.200", "10.77.0.200-10.77.0.210");
    in_world(&site, vec![], async |world| {
        let mut world = world.with_images();
        world.serve().await;
        let (one, two) = (peer(&world, "52:54:00:77:00:01"), peer(&world, "52:54:00:77:00:02"));
        assert_eq!(rom(&one).as_deref(), Some("10.77.0.21"));
        one.address(Ipv4Addr::new(10, 77, 0, 21), 24).expect("an address");
        let curl = |words: &[&str]| {
            let output = one.output("curl", &[&["-sS", "--fail"], words].concat());
            text(&output.expect("curl runs"))
        };
        let script = curl(&["http://10.77.0.1:8080/boot/52:54:00:77:00:01.ipxe"]);
        let boot = script.split("koboshi.boot=").nth(1).expect("a plan");
        let report = format!("http://10.77.0.1:8080/report/{}", &boot[..32]);
        let up = r#"{"phase":{"phase":"up","by":"init"},"uptime_ms":1,"seq":1}"#;
        curl(&["-d", up, &report]);
        assert_eq!(world.row("m01")["stage"], "up", "{script}");
        world.ok(&["seat", "m01", "spare", "--accept"]);
        let said = world.ok(&["seat", "m02", "tool1"]);
        assert!(said.contains("waits for tool1, which m01 holds"), "{said}");
        // It asks and asks, and m01 answers ARP.
        for _ in 0..3 {
            let given = rom(&two).expect("an address to wait at");
            assert!(given.starts_with("10.77.0.20"), "{given}");
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        assert_eq!(world.row("m02")["held_by"], "m01");
        let gone = one.output("ip", &["addr", "flush", "dev", "eth0"]).expect("ip runs");
        assert!(gone.status.success(), "{}", text(&gone));
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while rom(&two).as_deref() != Some("10.77.0.21") {
            assert!(std::time::Instant::now() < deadline, "{}", world.ok(&["events"]));
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let events = world.ok(&["events"]);
        let moved = "tool1 is free of m01: nobody answers at 10.77.0.21: it moves from m01 to m02";
        assert!(events.contains(moved), "{events}");
    });
}

/// Without a pool there is nowhere to wait at: no answer, and an event says what to do.
#[test]
fn who_waits_and_has_no_address_to_wait_at_is_told_of() {
    let site = SITE.replace(r#"pool = "10.77.0.200-10.77.0.200""#, "");
    in_world(&site, vec![], async |mut world| {
        world.serve().await;
        assert_eq!(rom(&peer(&world, "52:54:00:77:00:01")).as_deref(), Some("10.77.0.21"));
        world.ok(&["seat", "m01", "spare"]);
        world.ok(&["seat", "m02", "tool1"]);
        assert_eq!(rom(&peer(&world, "52:54:00:77:00:02")), None);
        let events = world.ok(&["events"]);
        assert!(events.contains("m02 waits for tool1, which m01 holds"), "{events}");
        assert!(events.contains(r#"add pool = "FIRST-LAST""#), "{events}");
    });
}

#[test]
fn an_address_is_never_given_twice_over_kill_9() {
    in_world(SITE, vec![], async |mut world| {
        world.serve().await;
        // m02 is offered the pool's only address and does not take it up yet.
        let late = peer(&world, "52:54:00:77:00:02");
        let offered = late.keeper.run(|| {
            let client = Client::new([0x52, 0x54, 0, 0x77, 0, 2]);
            // A bridge's port may still be coming up: like any client it asks again.
            let mut offers = (0..3).filter_map(|_| {
                client.send(1, None);
                client.hear()
            });
            offers.next().expect("an offer")
        });
        let (kind, address) = offered.expect("the peer's thread lives");
        assert_eq!((kind, address), (2, Ipv4Addr::new(10, 77, 0, 200)));

        // The appliance dies between OFFER and ACK; afterwards m03 asks first.
        world.kill().await;
        world.serve().await;
        assert_eq!(udhcpc(&peer(&world, "52:54:00:77:00:03")).as_deref(), Some("10.77.0.200"));
        let answer = late.keeper.run(move || {
            let client = Client::new([0x52, 0x54, 0, 0x77, 0, 2]);
            client.send(3, Some(address));
            client.hear()
        });
        let answer = answer.expect("the peer's thread lives");
        assert!(!matches!(answer, Some((5, _))), "m02 must not be given m03's address: {answer:?}");

        // And what was acknowledged is remembered over another death.
        world.kill().await;
        world.serve().await;
        assert_eq!(udhcpc(&peer(&world, "52:54:00:77:00:02")), None, "the pool is empty");
    });
}

#[test]
fn only_what_is_meant_to_be_read_can_be_read() {
    in_world(SITE, vec![], async |mut world| {
        world.serve().await;
        let stranger = peer(&world, "52:54:00:99:99:99");
        stranger.address(Ipv4Addr::new(10, 77, 0, 99), 24).expect("an address");
        let curl = |path: &str, more: &[&str]| {
            let url = format!("http://10.77.0.1:8080{path}");
            let mut words = vec!["-sS", "--path-as-is", "--max-time", "10", "-w", "\n%{http_code}"];
            words.extend(more);
            words.push(&url);
            String::from_utf8_lossy(&stranger.output("curl", &words).expect("curl runs").stdout)
                .into_owned()
        };
        for path in [
            "/",
            "/boot/",
            "/boot/../../etc/passwd",
            "/boot/%2e%2e/site.toml",
            "/blob/sha256/",
            "/blob/sha256/00",
            "/blob/sha256/..%2f..%2fsite.toml",
            "/report/abc",
            "/api/v1/status",
        ] {
            let said = curl(path, &[]);
            assert!(said.ends_with("\n404") || said.ends_with("\n405"), "{path}: {said}");
        }
        let loader = curl("/ipxe.efi", &["-I"]);
        assert!(loader.contains("200 OK") && loader.contains("content-length: "), "{loader}");
        let script = curl("/boot/52:54:00:77:00:01.ipxe", &[]);
        assert!(script.starts_with("#!ipxe") && script.ends_with("\n200"), "{script}");
        let report = curl(&format!("/report/{}", "0".repeat(32)), &["-d", "{}"]);
        assert!(report.ends_with("\n404"), "{report}");
        let large = curl(&format!("/report/{}", "0".repeat(32)), &["-d", &"x".repeat(100_000)]);
        assert!(large.ends_with("\n413"), "{large}");

        let dir = tempfile::tempdir().expect("a directory");
        let fetch = |name: &str| {
            let to = dir.path().join("got");
            let to = to.to_str().expect("UTF-8");
            let words = ["--get", "-r", name, "-l", to, "10.77.0.1"];
            let output = stranger.output("atftp", &words).expect("atftp runs: `make setup`");
            std::fs::read(to).ok().filter(|bytes| output.status.success() && !bytes.is_empty())
        };
        let loader = fetch("undionly.kpxe").expect("the loader can be read");
        let own = std::fs::read("/usr/lib/ipxe/undionly.kpxe").expect("the package ipxe is there");
        assert!(loader == own, "atftp read the very file");
        for name in [
            "etc/passwd",
            "../../../../etc/passwd",
            "..\\..\\etc\\passwd",
            "/etc/passwd",
            "site.toml",
        ] {
            std::fs::remove_file(dir.path().join("got")).unwrap_or(());
            assert_eq!(fetch(name), None, "{name}");
        }
    });
}

#[test]
fn a_site_file_that_breaks_while_running_changes_nothing() {
    in_world(SITE, vec![], async |mut world| {
        world.serve().await;
        let good = std::fs::read_to_string(&world.site).expect("the site");
        let m01 = peer(&world, "52:54:00:77:00:01");
        let broken = [
            (good.replace("10.77.0.21", "10.99.0.21"), 2),
            (good.replace("[matrix]", "[matrix"), 2),
            ("\0".repeat(100), 2),
            // Half saved it is valid TOML, and would drop machines: that waits to be accepted.
            (good[..good.find("m02 =").expect("the line is there")].to_string(), 1),
        ];
        for (broken, code) in broken {
            std::fs::write(&world.site, broken).expect("written");
            let refused = world.run(&["reload"]);
            assert_eq!(refused.status.code(), Some(code), "{}", text(&refused));
        }
        std::fs::remove_file(&world.site).expect("deleted");
        assert_eq!(world.run(&["reload"]).status.code(), Some(2));
        assert_eq!(udhcpc(&m01).as_deref(), Some("10.77.0.21"), "the former site is in force");

        // Written anew it is taken up without a word from anybody (close-write plus a second).
        std::fs::write(&world.site, good.replace("10.77.0.21", "10.77.0.22")).expect("written");
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while udhcpc(&m01).as_deref() != Some("10.77.0.22") {
            assert!(std::time::Instant::now() < deadline, "{}", world.log());
        }
        assert!(world.stop().await, "{}", world.log());
    });
}

/// udhcpc, atftp, tftp-hpa and curl against the program while one packet in twenty is lost, each
/// way. (perfdhcp does the same to the DHCP service alone, in `dhcp_peers`.)
#[test]
fn clients_get_all_of_it_while_one_packet_in_twenty_is_lost() {
    in_world(SITE, vec![], async |world| {
        let mut world = world.with_images();
        world.serve().await;
        let wire = world.rack.wire();
        let m01 = peer(&world, "52:54:00:77:00:01");
        wire.lose(&m01.port, 5).expect("nft: `make setup` installs it");
        for _ in 0..5 {
            let given = (0..3).find_map(|_| udhcpc(&m01));
            assert_eq!(given.as_deref(), Some("10.77.0.21"));
        }
        m01.address(Ipv4Addr::new(10, 77, 0, 21), 24).expect("an address");

        let dir = tempfile::tempdir().expect("a directory");
        let to = dir.path().join("got");
        let to = to.to_str().expect("UTF-8");
        // A lost block costs these clients seconds each: the large file only goes by windows.
        let windows = ["--option", "blksize 1428", "--option", "windowsize 16"];
        let windowed =
            [&["atftp"], &windows[..], &["--get", "-r", "ipxe.efi", "-l", to, "10.77.0.1"]]
                .concat();
        let clients: [&[&str]; 3] = [
            &["atftp", "--get", "-r", "undionly.kpxe", "-l", to, "10.77.0.1"],
            &windowed,
            &["tftp", "-m", "binary", "10.77.0.1", "-c", "get", "undionly.kpxe", to],
        ];
        for words in clients {
            let fetch = || {
                std::fs::remove_file(to).unwrap_or(());
                m01.output(words[0], &words[1..]).expect("it runs: `make setup`")
            };
            let mut output = fetch();
            // atftp gives up where its first acknowledgement is lost and the OACK comes again, as it
            // must (RFC 2347): not to be helped from here.
            for _ in 0..5 {
                if text(&output).contains("unexpected OACK") {
                    output = fetch();
                }
            }
            let got = std::fs::read(to).unwrap_or_default();
            let file = if words.contains(&"ipxe.efi") { "ipxe.efi" } else { "undionly.kpxe" };
            let own = std::fs::read(format!("/usr/lib/ipxe/{file}")).expect("the package ipxe");
            assert!(got == own, "{words:?}: {} bytes\n{}", got.len(), text(&output));
        }

        let shown = world.json(&["image", "show", "rescue"]);
        let digest = shown["boot"]["kernel"]["digest"].as_str().expect("a digest");
        let hex = digest.trim_start_matches("sha256:");
        let url = format!("http://10.77.0.1:8080/blob/sha256/{hex}");
        let output = m01.output("curl", &["-sS", "--max-time", "120", "-o", to, &url]);
        let output = output.expect("curl runs");
        assert!(output.status.success(), "{}", text(&output));
        let blob = world.state.join("images/blobs/sha256").join(hex);
        assert!(std::fs::read(to).expect("fetched") == std::fs::read(blob).expect("the blob"));
        assert!(wire.lost(&m01.port).expect("nft counts") > 3, "packets were lost at all");
    });
}

/// Two interfaces, a relayed network and one of BMCs: udhcpc gets on each what belongs there, through
/// ISC's relay agent where there is one.
#[test]
fn each_network_gets_its_own_and_bmcs_their_addresses() {
    const MANY: &str = r#"
[site]
name = "many"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"

[[net.subnet]]
relay = "10.79.0.1"
cidr = "10.79.0.0/24"
gateway = "10.79.0.1"
pool = "10.79.0.200-10.79.0.210"

[[net.subnet]]
interface = "kb2"
cidr = "10.78.0.0/24"
kind = "bmc"
pool = "10.78.0.200-10.78.0.210"

[roles.rescue]
image = "rescue"

[machines]
m01 = { mac = ["52:54:00:77:00:01"], bmc = { host = "10.78.0.11", mac = "52:54:00:78:00:01" } }
m02 = { mac = ["52:54:00:77:00:02"] }

[seats]
near1 = { role = "rescue", ip = "10.77.0.21" }
far1 = { role = "rescue", ip = "10.79.0.21" }

[matrix]
m01 = "near1"
m02 = "far1"
"#;
    in_world(MANY, vec![], async |mut world| {
        let wire = world.rack.wire();
        let (near, beyond) = (Ipv4Addr::new(10, 77, 0, 254), Ipv4Addr::new(10, 79, 0, 1));
        let far = wire.far("kb1", near, beyond, 24).expect("a second wire");
        wire.segment("kb2").expect("a third wire");
        let address = ["addr", "add", "10.78.0.1/24", "dev", "kb2"];
        assert!(world.rack.output("ip", &address).expect("ip runs").status.success());
        let _relay = far.relay(Ipv4Addr::new(10, 77, 0, 1)).await.expect("dhcrelay: `make setup`");
        world.serve().await;
        let wire = world.rack.wire();
        let plugged = |mac: &str, far_side: bool| {
            let peer = peer(&world, mac);
            match far_side {
                true => far.plug(wire, &peer.port).expect("plugged in"),
                false => {
                    let moved = ["link", "set", &peer.port, "master", "kb2"];
                    assert!(world.rack.output("ip", &moved).expect("ip runs").status.success());
                }
            }
            peer
        };
        let given = |peer: &Peer| (0..3).find_map(|_| udhcpc(peer));
        assert_eq!(given(&peer(&world, "52:54:00:77:00:01")).as_deref(), Some("10.77.0.21"));
        assert_eq!(given(&plugged("52:54:00:77:00:02", true)).as_deref(), Some("10.79.0.21"));
        // In the wrong network: an address of the pool, and an event.
        let lost = given(&plugged("52:54:00:77:00:01", true)).expect("one of the pool");
        assert!(lost.starts_with("10.79.0.2"), "{lost}");
        assert_eq!(given(&plugged("52:54:00:78:00:01", false)).as_deref(), Some("10.78.0.11"));
        let stranger = given(&plugged("52:54:00:78:00:99", false)).expect("one of the pool");
        assert!(stranger.starts_with("10.78.0.2"), "{stranger}");
        let events = world.ok(&["events"]);
        assert!(
            events.contains("unknown-bmc") && events.contains("a BMC nobody knows"),
            "{events}"
        );
        let bmc = world.ok(&["explain", "52:54:00:78:00:01"]);
        assert!(bmc.contains("the BMC of m01") && bmc.contains("10.78.0.11, for ever"), "{bmc}");
    });
}

/// A DHCP client that stops between two packets.
pub struct Client {
    socket: UdpSocket,
    pub mac: [u8; 6],
}

impl Client {
    pub fn new(mac: [u8; 6]) -> Client {
        let socket = UdpSocket::bind("0.0.0.0:68").expect("port 68 of the peer");
        socket.set_broadcast(true).expect("broadcast");
        socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
        Client { socket, mac }
    }

    /// DISCOVER (1) or REQUEST (3) for an address, with the broadcast flag.
    pub fn send(&self, kind: u8, address: Option<Ipv4Addr>) {
        let mut packet = vec![0u8; 240];
        packet[..4].copy_from_slice(&[1, 1, 6, 0]);
        packet[4..8].copy_from_slice(&[7, 7, 7, kind]);
        packet[10] = 0x80;
        packet[28..34].copy_from_slice(&self.mac);
        packet[236..240].copy_from_slice(&[99, 130, 83, 99]);
        packet.extend([53, 1, kind]);
        if let Some(address) = address {
            packet.extend([50, 4]);
            packet.extend(address.octets());
            packet.extend([54, 4, 10, 77, 0, 1]);
        }
        packet.push(255);
        packet.resize(300, 0);
        // No route is needed: SO_BINDTODEVICE would do, a route to the broadcast address does too.
        std::process::Command::new("ip")
            .args(["route", "replace", "255.255.255.255", "dev", "eth0"])
            .status()
            .expect("ip runs");
        self.socket.send_to(&packet, "255.255.255.255:67").expect("sent");
    }

    /// The next message to us: its kind and address.
    pub fn hear(&self) -> Option<(u8, Ipv4Addr)> {
        let mut packet = [0u8; 1500];
        loop {
            let (size, _) = self.socket.recv_from(&mut packet).ok()?;
            if size < 243 || packet[28..34] != self.mac {
                continue;
            }
            let [a, b, c, d] = [packet[16], packet[17], packet[18], packet[19]];
            // Ours puts option 53 first.
            assert_eq!(packet[240..242], [53, 1]);
            return Some((packet[242], Ipv4Addr::new(a, b, c, d)));
        }
    }
}

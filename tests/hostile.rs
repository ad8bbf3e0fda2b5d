//! One machine on the wire that means harm, and honest ones beside it: those of a storm, and reference clients.
//! Each attack alone is a test of the state machine that it is against; here they come together, against the
//! program as it is. (`docs/hostile.md`)

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use koboshi_storm::enemy::{Attack, Enemy, Target};
use koboshi_storm::siege::{self, Siegework};
use koboshi_storm::wire::Wire;
use tokio_util::sync::CancellationToken;

use crate::storm::storm;
use crate::wire::{self, peer, rom};
use crate::world::{in_world, text};

/// A larger pool, and strangers have a part of it.
fn site() -> String {
    wire::SITE.replace(
        "pool = \"10.77.0.200-10.77.0.200\"",
        "pool = \"10.77.0.100-10.77.0.180\"\nunknown = \"rescue\"",
    )
}

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The NIC of the appliance in every world.
const SERVER_MAC: &str = "52:54:00:77:ff:01";
const SEAT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 21);

#[test]
fn a_storm_comes_up_beside_an_enemy_that_does_all_it_can() {
    let found = storm(&[
        "--machines=60",
        "--within=2s",
        "--speed=10",
        "--root-size=64k",
        "--loss=0%",
        "--slow=0%",
        "--enemy=500",
    ]);
    assert_eq!((&found["up"], &found["failed"]), (&60.into(), &0.into()), "{found}");
    assert_eq!(found["rounds"], 0, "no firmware had to begin again: {found}");
    assert!(found["enemy"]["frames"].as_u64().is_some_and(|sent| sent > 5000), "{found}");
    let said = found["hostile"].to_string();
    for kind in
        ["strangers: ", "unknown: ", "conflicts: ", "forged: ", "tftp: ", "http: ", "reports: "]
    {
        assert!(said.contains(kind), "status names {kind}{said}");
    }
}

/// Attacks from a neighbour until told to stop.
fn enemy(
    world: &crate::world::World,
    attacks: &'static [Attack],
    victims: Vec<(koboshi_pxe::Mac, Ipv4Addr)>,
    stop: &CancellationToken,
) -> tokio::task::JoinHandle<Siegework> {
    let (its, stop) = (peer(world, "52:54:00:99:99:66"), stop.clone());
    tokio::task::spawn_blocking(move || {
        let attacked = its.keeper.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let wire = Wire::open("eth0").expect("a packet socket");
                let server = (SERVER_MAC.parse().expect("a MAC"), SERVER);
                let target = Target { server, victims, file: "undionly.kpxe".into() };
                let enemy = Enemy::new(target, wire.mac, attacks, 1000, 7);
                siege::run(enemy, &wire, None, stop.cancelled()).await.expect("it sends")
            })
        });
        attacked.expect("the enemy's thread lives")
    })
}

#[test]
fn what_is_sent_in_others_names_or_by_nobody_costs_them_nothing() {
    in_world(&site(), vec![], async |world| {
        let mut world = world.with_images();
        world.serve().await;
        // m01 boots and is up.
        let one = peer(&world, "52:54:00:77:00:01");
        assert_eq!(rom(&one).as_deref(), Some("10.77.0.21"));
        one.address(SEAT, 24).expect("an address");
        let curl = |words: &[&str]| {
            let output =
                one.output("curl", &[&["-sS", "--fail", "--max-time", "10"], words].concat());
            text(&output.expect("curl runs"))
        };
        let script = curl(&["http://10.77.0.1:8080/boot/52:54:00:77:00:01.ipxe"]);
        let id = script.split("koboshi.boot=").nth(1).expect("a plan")[..32].to_string();
        let report = format!("http://10.77.0.1:8080/report/{id}");
        let up = r#"{"phase":{"phase":"up","by":"init"},"uptime_ms":1,"seq":1}"#;
        curl(&["-d", up, &report]);
        assert_eq!(world.row("m01")["stage"], "up", "{script}");

        let stop = CancellationToken::new();
        // The enemy goes with this test, however that ends.
        let _goes = stop.clone().drop_guard();
        let victims = vec![("52:54:00:77:00:01".parse().expect("a MAC"), SEAT)];
        let attack = enemy(&world, &[Attack::Starve, Attack::Forge], victims, &stop);
        tokio::time::sleep(Duration::from_secs(6)).await;

        // The pool is not dry: a spare is served, and m01 has its timeline, its seat and its boot.
        for mac in ["52:54:00:77:00:02", "52:54:00:77:00:03"] {
            // Firmware asks for a minute.
            let spare = peer(&world, mac);
            let given = (0..10).find_map(|_| rom(&spare)).unwrap_or_default();
            assert!(
                given.starts_with("10.77.0.1"),
                "{mac} gets {given:?}: {}",
                world.ok(&["events"])
            );
        }
        let heartbeat = up.replace("\"seq\":1", "\"seq\":2");
        curl(&["-d", &heartbeat, &report]);
        let boots = world.json(&["boots", "m01"]);
        assert_eq!(boots[0]["id"], id.as_str(), "{boots}");
        assert_eq!(world.row("m01")["stage"], "up");
        let explained = world.ok(&["explain", "m01"]);
        assert!(explained.contains("hostile wire, forged: 52:54:00:77:00:01"), "{explained}");

        // Its files come meanwhile, by TFTP and HTTP.
        let dir = tempfile::tempdir().expect("a directory");
        let to = dir.path().join("got");
        let to = to.to_str().expect("UTF-8");
        let words = ["--get", "-r", "undionly.kpxe", "-l", to, "10.77.0.1"];
        let got = one.output("atftp", &words).expect("atftp runs: `make setup`");
        assert!(got.status.success(), "{}", text(&got));
        let own = std::fs::read("/usr/lib/ipxe/undionly.kpxe").expect("the package ipxe is there");
        assert!(std::fs::read(to).is_ok_and(|bytes| bytes == own), "atftp read the very file");

        stop.cancel();
        let done = attack.await.expect("it ends");
        assert!(done.frames > 5000 && done.offers > 10, "{done:?}");
        let leases = world.ok(&["status"]);
        assert!(leases.contains("WARNING: hostile wire, strangers: "), "{leases}");
    });
}

#[test]
fn a_source_that_takes_no_file_gets_few_datagrams_and_a_flood_of_words_leaves_room() {
    in_world(&site(), vec![], async |mut world| {
        world.serve().await;
        let victim = peer(&world, "52:54:00:99:99:90");
        victim.address(Ipv4Addr::new(10, 77, 0, 90), 24).expect("an address");
        let heard = tokio::task::spawn_blocking(move || {
            victim.keeper.run(|| {
                let sockets: Vec<UdpSocket> =
                    (0..100).map(|_| UdpSocket::bind("10.77.0.90:0").expect("a socket")).collect();
                let begun = Instant::now();
                let ask = b"\0\x01undionly.kpxe\0octet\0blksize\x001468\0windowsize\x0064\0";
                for _ in 0..10 {
                    for socket in &sockets {
                        socket.send_to(ask, "10.77.0.1:69").expect("sent");
                    }
                    // An ERROR is never answered.
                    sockets[0].send_to(b"\0\x05\0\0x\0", "10.77.0.1:69").expect("sent");
                }
                let (mut datagrams, mut bytes) = (0_u64, 0);
                let mut buffer = [0; 2000];
                while begun.elapsed() < Duration::from_secs(8) {
                    for socket in &sockets {
                        socket.set_nonblocking(true).expect("a socket");
                        while let Ok((many, _)) = socket.recv_from(&mut buffer) {
                            (datagrams, bytes) = (datagrams + 1, bytes + many);
                        }
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                // Eight requests on credit, and one more in ten seconds; eight answers to one that is repeated.
                let most = 8 * (8 + 1 + begun.elapsed().as_secs() / 10);
                (datagrams, bytes, most)
            })
        });
        // Meanwhile somebody floods the log, and m01 has something to say.
        let (noisy, one) = (peer(&world, "52:54:00:99:99:91"), peer(&world, "52:54:00:77:00:01"));
        noisy.address(Ipv4Addr::new(10, 77, 0, 91), 24).expect("an address");
        one.address(SEAT, 24).expect("an address");
        let flood = tokio::task::spawn_blocking(move || {
            noisy.keeper.run(|| {
                let socket = UdpSocket::bind("10.77.0.91:0").expect("a socket");
                for number in 0..12_000 {
                    let text = format!("<13>1 - ../host{number} ghost - - - {}", "x".repeat(100));
                    socket.send_to(text.as_bytes(), "10.77.0.1:514").expect("sent");
                    if number % 100 == 0 {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            })
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        let says = one.keeper.run(|| {
            let socket = UdpSocket::bind("10.77.0.21:0").expect("a socket");
            socket.send_to(b"<13>1 - m01 honest - - - I am here", "10.77.0.1:514").expect("sent");
        });
        says.expect("m01's thread lives");
        flood.await.expect("it ends").expect("the noisy one's thread lives");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !text(&world.run(&["log", "m01", "--from", "syslog"])).contains("I am here") {
            assert!(Instant::now() < deadline, "{}", world.ok(&["events"]));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let (datagrams, bytes, most) =
            heard.await.expect("it ends").expect("the victim's thread lives");
        assert!(
            (1..=most).contains(&datagrams) && bytes < 6400,
            "{datagrams} datagrams, {bytes} bytes"
        );
        let status = world.ok(&["status"]);
        for kind in ["tftp", "syslog"] {
            assert!(
                status.contains(&format!("WARNING: hostile wire, {kind}: ")),
                "{kind}: {status}"
            );
        }
        let kept = std::fs::read_dir(world.state.join("syslog/unknown")).expect("strangers' logs");
        assert_eq!(kept.count(), 1, "a sender is an address, whatever host it says it is");
    });
}

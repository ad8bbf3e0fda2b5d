//! What machines log, by reference senders: util-linux' logger, busybox' syslogd, a kernel's datagram. No machine boots.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use koboshi::lab::net::Peer;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::wire::peer;
use crate::world::{KOBOSHI, World, in_world, text};

const CEILING: Duration = Duration::from_secs(30);

const SITE: &str = r#"
[site]
name = "logs"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"
netconsole = 6666

[networks.svc]
vlan = 20
cidr = "10.20.0.0/24"

[logs]
size = "256k"
total = "4m"

[roles.rescue]
image = "rescue"

[machines]
m01 = { mac = ["52:54:00:77:00:01"] }
m02 = { mac = ["52:54:00:77:00:02"] }

[seats]
tool1 = { role = "rescue", ip = "10.77.0.21" }
tool2 = { role = "rescue", ip = "10.77.0.22" }

[matrix]
m01 = "tool1"
m02 = "tool2"
"#;

/// A sender with this address.
fn sender(world: &World, mac: &str, address: &str) -> Peer {
    let peer = peer(world, mac);
    sh(&peer, &format!("ip addr add {address}/24 dev eth0 && ip link set eth0 up"));
    peer
}

fn sh(peer: &Peer, script: &str) {
    let output = peer.output("bash", &["-c", script]).expect("bash runs");
    assert!(output.status.success(), "{script}: {}", text(&output));
}

/// All that is kept in a directory.
fn kept(world: &World, place: &str) -> String {
    let folder = world.state.join("syslog").join(place);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files.iter().map(|path| std::fs::read_to_string(path).expect("UTF-8")).collect()
}

/// The line with this text, once it is there.
async fn line(world: &World, place: &str, with: &str) -> String {
    let begun = Instant::now();
    loop {
        let kept = kept(world, place);
        if let Some(line) = kept.lines().find(|line| line.contains(with)) {
            return line.to_string();
        }
        let tail: Vec<&str> = kept.lines().rev().take(20).collect();
        assert!(begun.elapsed() < CEILING, "no {with:?} of {place}: {tail:?}\n{}", world.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn what_machines_log_is_in_a_directory_for_each_by_the_address_it_came_from() {
    in_world(SITE, vec![], async |mut world| {
        world.serve().await;
        let m01 = sender(&world, "52:54:00:77:00:01", "10.77.0.21");
        let m02 = sender(&world, "52:54:00:77:00:02", "10.77.0.22");
        let stranger = sender(&world, "52:54:00:99:99:99", "10.77.0.99");

        let logger = "logger --server 10.77.0.1 --port 514";
        sh(&m01, &format!("{logger} --udp --rfc3164 -t nginx -p daemon.err 'by 3164'"));
        sh(&m01, &format!("{logger} --udp --rfc5424 --msgid M7 -t app -p local3.info 'by 5424'"));
        sh(&m01, &format!("{logger} --tcp --octet-count -t app -p user.crit 'counted octets'"));
        sh(&m01, &format!("{logger} --tcp --rfc3164 -t app -p user.info \"a line's end\""));
        // It claims to be another, and is not asked.
        sh(&m01, "printf '<13>1 - m02 liar - - - I am m02' > /dev/udp/10.77.0.1/514");
        sh(
            &m02,
            "printf '2,416,1758426,-;Kernel panic - not syncing: test' > /dev/udp/10.77.0.1/6666",
        );
        sh(&stranger, "printf 'rubbish \\xff\\x1b[2J' > /dev/udp/10.77.0.1/514");
        let syslogd = "mount -t tmpfs none /dev && (busybox syslogd -n -O /tmp/none -R 10.77.0.1:514 & \
                       until [ -S /dev/log ]; do sleep 0.1; done; \
                       busybox logger -t cron -p cron.notice 'from busybox'; sleep 0.5; kill %1)";
        let output = m02.output("unshare", &["--mount", "bash", "-mc", syslogd]).expect("unshare");
        assert!(text(&output).contains("exit status: 0"), "{}", text(&output));

        for (place, with, wanted) in [
            ("m01", "by 3164", " daemon.err udp 20"),
            ("m01", "by 5424", " local3.info udp 20"),
            ("m01", "counted octets", " user.crit tcp 20"),
            ("m01", "a line's end", " user.info tcp 20"),
            ("m01", "I am m02", " user.notice udp - m02 liar - - - "),
            (
                "m02",
                "Kernel panic",
                " kern.crit netconsole - - kernel - - [kmsg seq=\"416\"] [    1.758426]",
            ),
            ("m02", "from busybox", " cron.notice udp 20"),
            ("unknown/10.77.0.99", "rubbish", " user.notice udp - - - - - - rubbish #377#033[2J"),
        ] {
            let line = line(&world, place, with).await;
            assert!(line.contains(wanted), "{place}: {line}");
        }
        assert!(
            line(&world, "m01", "by 5424").await.contains(" app - M7 [timeQuality "),
            "{}",
            kept(&world, "m01")
        );
        assert_eq!(
            (kept(&world, "m01").lines().count(), kept(&world, "m02").lines().count()),
            (5, 2)
        );

        // As it is asked for.
        let shown = world.ok(&["log", "m01", "--priority", "err"]);
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(
            shown.lines().next().is_some_and(|line| line.ends_with("daemon.err nginx: by 3164")),
            "{shown}"
        );
        let shown =
            world.ok(&["log", "@all", "--from", "syslog", "--grep", "panic|liar", "--json"]);
        let rows: Vec<serde_json::Value> =
            shown.lines().map(|row| serde_json::from_str(row).expect("JSON")).collect();
        let machines: Vec<&str> = rows.iter().filter_map(|row| row["machine"].as_str()).collect();
        assert_eq!(machines, ["m01", "m02"], "{shown}");
        assert_eq!(rows[0]["syslog"]["host"], "m02");
        assert_eq!(rows[1]["syslog"]["way"], "netconsole");
        let shown = world.ok(&["log", "10.77.0.99", "--from", "syslog"]);
        assert!(shown.ends_with("rubbish #377#033[2J\n"), "{shown}");
        assert_eq!(world.ok(&["log", "m01", "--from", "all", "-n", "2"]).lines().count(), 2);
        let begun = Instant::now();
        while !world
            .ok(&["events"])
            .contains("m02 logs kern.crit: kernel: [    1.758426] Kernel panic")
        {
            assert!(begun.elapsed() < CEILING, "{}", world.ok(&["events"]));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }

        // Somebody follows while one storms: the other loses nothing, and what is dropped is counted.
        let mut follow = world.rack.command(KOBOSHI);
        follow.args([
            "log",
            "m01,m02",
            "--from",
            "syslog",
            "-n",
            "0",
            "-f",
            "--grep",
            "meanwhile|dropped",
        ]);
        follow.arg("--state").arg(&world.state).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut follow = world.rack.spawn(follow).await.expect("koboshi log -f");
        let mut told = BufReader::new(follow.stdout.take().expect("a pipe")).lines();
        let storm = "exec 3> /dev/udp/10.77.0.1/514; for i in {1..30000}; do echo \"<13>storm $i\" >&3; done";
        sh(&m02, storm);
        sh(&m01, &format!("{logger} --udp -t app meanwhile"));
        let mut seen = [false; 2];
        while seen != [true; 2] {
            let next = tokio::time::timeout(CEILING, told.next_line()).await.expect("in time");
            let next = next.expect("read").expect("it goes on");
            seen[0] |= next.starts_with("m01: ") && next.ends_with("app: meanwhile");
            seen[1] |=
                next.starts_with("m02: ") && next.contains("messages of 10.77.0.22 were dropped");
        }
        follow.kill().await.expect("killed");
        let note = world.row("m02")["notes"].to_string();
        assert!(note.contains("log messages were dropped"), "{note}");
        assert!(size(&world.state.join("syslog/m02")) <= 256 << 10);
        assert!(kept(&world, "m02").contains("storm 4000"), "{}", kept(&world, "m02"));

        // The machine that takes the seat over has what is said from its address from then on.
        world.ok(&["seat", "m01", "spare"]);
        world.ok(&["seat", "m02", "tool1"]);
        sh(&m01, &format!("{logger} --udp -t app 'said in the seat of another'"));
        line(&world, "m02", "said in the seat of another").await;

        // `kill -9` loses no more than the last moment, and the files are read without an appliance.
        world.kill().await;
        let shown = world.ok(&["log", "m01", "--from", "syslog"]);
        assert!(shown.contains("app: meanwhile"), "{shown}");
        world.serve().await;
        sh(&m01, &format!("{logger} --tcp --octet-count -t app 'after the restart'"));
        line(&world, "m02", "after the restart").await;
        assert!(world.stop().await);
    });
}

fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("it is there").flatten();
    entries.map(|entry| entry.metadata().expect("a file").len()).sum()
}

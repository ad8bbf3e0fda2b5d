//! The shipped roles that are not booted at every change: a load balancer, and a database on a disk.

use std::process::Stdio;
use std::time::{Duration, Instant};

use koboshi::lab::keeper;
use koboshi::lab::net::Peer;
use koboshi::lab::qemu::{Disk, Spec};

use super::build;
use crate::boot::roots::mke2fs;
use crate::boot::{HasShell, MINUTES, Shell, spec};
use crate::world::{World, in_world};

const SITE: &str = r#"
[site]
name = "rack"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"

[roles.lb]
image = "lb"

[roles.db]
image = "db"

[machines]
m01 = { mac = ["52:54:00:77:00:01"] }
m02 = { mac = ["52:54:00:77:00:02"] }

[seats.lb1]
role = "lb"
ip = "10.77.0.11"
args = { vip = "10.77.0.100/24", port = 80, real = "10.77.0.21,10.77.0.22", priority = 150, vrid = 51, scheduler = "rr" }

[seats.db1]
role = "db"
ip = "10.77.0.12"
disks = { "/var/lib/mysql" = "LABEL=db" }

[matrix]
m01 = "lb1"
m02 = "db1"
"#;

/// The balancer has the address of its seat and hands connections to both servers, and to one alone when
/// the other does not answer. The database is made on an empty disk, and a row is still there after the
/// power was cut. A seat without what its role needs has neither, and its console says what is missing.
#[test]
fn a_balancer_balances_and_a_database_keeps() {
    for role in ["lb", "db"] {
        build(&[role, "--kernel", "cloud"]);
    }
    let disks = vec![Disk::new(768, "data0")];
    let database = Spec { memory_mib: 2048, disks, ..spec("m02") };
    in_world(SITE, vec![spec("m01"), database], async |world| {
        let mut world = world.with_images();
        for image in ["lb", "db"] {
            let found = world.json(&["image", "lint", image, "--all"]);
            assert_eq!(found["findings"].as_array().map(Vec::len), Some(0), "{found:#}");
        }
        mke2fs(&world.rack.dir().join("m02.disk0"), "db");
        let first = server(&world, 21).await;
        let mut second = server(&world, 22).await;
        world.serve().await;
        let (m01, m02) = (world.machine("m01").clone(), world.machine("m02").clone());
        m01.power_on().await.expect("power on");
        m02.power_on().await.expect("power on");

        world.up("m01", "lb1").await;
        let mut balancer = m01.viewer_of_shell().await;
        until(&mut balancer, "ip -4 -o addr show", &["10.77.0.100/24"], &[]).await;
        let both = ["TCP  10.77.0.100:80 rr", "-> 10.77.0.21:80", "-> 10.77.0.22:80"];
        until(&mut balancer, "ipvsadm -Ln", &both, &[]).await;
        let pages: String = (0..4).map(|_| world.curl("http://10.77.0.100/")).collect();
        assert!(pages.contains("of 21") && pages.contains("of 22"), "{pages}");
        second.1.kill().await.expect("a server is killed");
        until(&mut balancer, "ipvsadm -Ln", &both[..2], &both[2..]).await;
        let pages: String = (0..4).map(|_| world.curl("http://10.77.0.100/")).collect();
        assert!(pages.contains("of 21") && !pages.contains("of 22"), "{pages}");
        running(&mut balancer).await;

        world.up("m02", "db1").await;
        let mut console = m02.viewer();
        console.expect("a database is made", MINUTES).await.expect("it says what it does");
        let mut database = m02.viewer_of_shell().await;
        until(&mut database, "systemctl is-active mariadb", &["\nactive"], &[]).await;
        running(&mut database).await;
        let rows = "create database shop; create table shop.part (name text); \
                    insert into shop.part values ('still here')";
        let said = database.run(&format!("mariadb -e \"{rows}\"; echo ended $?")).await;
        assert!(said.ends_with("ended 0"), "{said}");
        let stranger = database.run("su -s /bin/sh -c 'mariadb -e \"select 1\"' nobody 2>&1").await;
        assert!(stranger.contains("Access denied"), "{stranger}");
        let at = m02.console().end();
        m02.cycle().await.expect("power cycle");
        m02.console().viewer_at(at).expect("login: root", MINUTES * 2).await.expect("it is back");
        let mut database = m02.viewer_of_shell().await;
        until(&mut database, "systemctl is-active mariadb", &["\nactive"], &[]).await;
        let kept = database.run("mariadb -N -e 'select name from shop.part'").await;
        assert!(kept.contains("still here"), "{kept}");
        let said = database.run("journalctl -b -u koboshi-db --no-pager").await;
        assert!(!said.contains("a database is made"), "{said}");

        // What the seats forget to say.
        let site = SITE
            .replace(", vrid = 51", "")
            .replace("disks = { \"/var/lib/mysql\" = \"LABEL=db\" }", "");
        std::fs::write(&world.site, site).expect("written");
        world.ok(&["reload", "--accept"]);
        let mut consoles = [m01.console().viewer_from_now(), m02.console().viewer_from_now()];
        m01.cycle().await.expect("power cycle");
        m02.cycle().await.expect("power cycle");
        let said = ["the seat has no arg vrid", "no disk is mounted at /var/lib/mysql"];
        for (console, said) in consoles.iter_mut().zip(said) {
            console.expect(said, MINUTES * 2).await.expect(said);
        }
        for machine in [&m01, &m02] {
            machine.viewer().expect("login: root", MINUTES).await.expect("a shell all the same");
        }
        let mut balancer = m01.viewer_of_shell().await;
        // The kernel may have something to say on the console still.
        let state =
            format!("\n{}", balancer.run("systemctl is-active keepalived; ipvsadm -Ln").await);
        assert!(state.contains("\ninactive") && !state.contains("10.77.0"), "{state}");
        let mut database = m02.viewer_of_shell().await;
        let state = database.run("systemctl is-active mariadb; ls -A /var/lib/mysql").await;
        let state = format!("\n{state}");
        assert!(state.contains("\ninactive") && !state.contains("ibdata"), "{state}");
        drop(first);
    });
}

/// Roles that want something of their seats are proven in the rack with what their seats would say.
#[test]
fn images_of_roles_are_tested_with_what_seats_say() {
    for role in ["lb", "db"] {
        build(&[role, "--kernel", "cloud"]);
    }
    let lb = ["vip=10.77.0.100/24", "port=80", "real=10.77.0.21", "priority=150", "vrid=51"];
    let lb: Vec<&str> = lb.iter().flat_map(|arg| ["--arg", arg]).collect();
    let db =
        ["--memory", "2g", "--disk", "768m:db:/var/lib/mysql", "--expect", "a database is made"];
    for (image, words) in [("lb", &lb[..]), ("db", &db)] {
        let mut koboshi = std::process::Command::new(crate::world::KOBOSHI);
        koboshi
            .args(["image", "test", image, "--state"])
            .arg(super::rack().join("state"))
            .args(words);
        let output = koboshi.output().expect("koboshi runs");
        let said = crate::world::text(&output);
        assert!(output.status.success() && said.contains("(systemd running)"), "{said}");
    }
}

/// A web server behind the balancer, and its process. It has the balanced address for itself, and tells
/// nobody.
async fn server(world: &World, last: u8) -> (Peer, tokio::process::Child) {
    let peer = world.rack.wire().peer().expect("a neighbour");
    peer.address([10, 77, 0, last].into(), 24).expect("an address");
    let quiet = "cd /proc/sys/net/ipv4/conf/all && echo 1 > arp_ignore && echo 2 > arp_announce && \
                 ip link set lo up && ip address add 10.77.0.100/32 dev lo";
    let output = peer.output("sh", &["-c", quiet]).expect("sh runs");
    assert!(output.status.success(), "{}", crate::world::text(&output));
    let pages = world.rack.dir().join(format!("pages{last}"));
    std::fs::create_dir(&pages).expect("a directory");
    std::fs::write(pages.join("index.html"), format!("the page of {last}\n")).expect("written");
    let mut httpd = keeper::bound("busybox");
    httpd.args(["httpd", "-f", "-p", "80", "-h"]).arg(&pages).stderr(Stdio::null());
    let child = peer.keeper.spawn(httpd).await.expect("busybox (busybox-static)");
    (peer, child)
}

/// Asks until all of one is in the answer, and nothing of the other.
async fn until(shell: &mut Shell, command: &str, with: &[&str], without: &[&str]) {
    let deadline = Instant::now() + MINUTES;
    loop {
        let said = format!("\n{}", shell.run(command).await);
        if with.iter().all(|one| said.contains(one))
            && !without.iter().any(|one| said.contains(one))
        {
            return;
        }
        assert!(Instant::now() < deadline, "{command}: {said}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// No unit of systemd has failed.
async fn running(shell: &mut Shell) {
    let state =
        shell.run("systemctl is-system-running --wait; systemctl --failed --no-legend").await;
    assert!(format!("\n{state}").contains("\nrunning"), "{state}");
}

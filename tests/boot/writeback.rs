//! Hatena's flow (S16): something is changed on a machine that runs, found to be changed, made the next version of
//! its image, and booted by another machine; and taken back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use koboshi::lab::bmc::{Account, Bmcs};
use koboshi_ipmi::Password;
use serde_json::Value;
use tokio::process::Child;

use super::{HasShell, MINUTES, spec};
use crate::world::{KOBOSHI, World, in_world, text};

const SITE: &str = r#"
[site]
name = "rack"
ssh-keys = ["@KEY@"]

[net]
interface = "kb0"
cidr = "10.77.0.0/24"

[roles.over]
image = "web"
root = "overlay"

[roles.web]
image = "web"

[defaults.bmc]
user = "admin"
password-file = "bmc.pw"

[machines]
m01 = { mac = ["52:54:00:77:00:01"], bmc = "10.78.0.11", console = "sol" }
m02 = { mac = ["52:54:00:77:00:02"], bmc = "10.78.0.12", console = "sol" }

[seats]
web1 = { role = "over", ip = "10.77.0.11" }
web2 = { role = "web", ip = "10.77.0.12" }

[matrix]
m01 = "web1"
m02 = "web2"
"#;

const PASSWORD: &str = "open-sesame-42";

fn account(machine: &str, host: u8) -> Account {
    Account {
        machine: machine.into(),
        listen: SocketAddr::from(([10, 78, 0, host], 623)),
        mac: None,
        user: "admin".into(),
        password: Password::new(PASSWORD).expect("it is short"),
        kg: None,
        suite: None,
    }
}

/// An operator's key, and the agent that has it.
struct Agent {
    socket: PathBuf,
    _program: Child,
}

impl Agent {
    /// Also writes the key into the site file.
    async fn of(world: &World) -> Agent {
        let dir = world.site.parent().unwrap_or(Path::new("/"));
        let (key, socket) = (dir.join("key"), dir.join("agent"));
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f"])
            .arg(&key)
            .status();
        assert!(made.expect("ssh-keygen runs").success());
        let public = std::fs::read_to_string(key.with_extension("pub")).expect("a public key");
        std::fs::write(&world.site, SITE.replace("@KEY@", public.trim())).expect("written");
        let mut command = world.rack.command("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null());
        let agent = Agent { _program: world.rack.spawn(command).await.expect("it starts"), socket };
        let begun = Instant::now();
        let add = || {
            std::process::Command::new("ssh-add")
                .arg("-q")
                .arg(&key)
                .env("SSH_AUTH_SOCK", &agent.socket)
                .output()
        };
        while !add().expect("ssh-add runs").status.success() {
            assert!(begun.elapsed() < Duration::from_secs(20), "no agent");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        agent
    }

    /// Runs `koboshi` as somebody who has it, or, without one, as somebody who has no key.
    fn run(agent: Option<&Agent>, world: &World, words: &[&str]) -> Output {
        let socket = agent.map_or(Path::new("/dev/null"), |agent| &agent.socket);
        let socket = format!("SSH_AUTH_SOCK={}", socket.display());
        let state = world.state.to_str().expect("UTF-8");
        let all = [&[&socket, KOBOSHI][..], words, &["--state", state]].concat();
        world.rack.output("env", &all).expect("env runs")
    }
}

/// The status of a page.
fn status(world: &World, url: &str) -> String {
    let words = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20", url];
    let output = world.rack.output("curl", &words).expect("curl runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Until it is up in another boot than before.
async fn boot_again(world: &World, machine: &str, seat: &str) {
    let former = world.up(machine, seat).await["id"].clone();
    world.machine(machine).cycle().await.expect("power cycle");
    let begun = Instant::now();
    while world.up(machine, seat).await["id"] == former {
        assert!(begun.elapsed() < MINUTES, "{}", world.ok(&["boots", machine]));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// `what path` of every change.
fn changes(told: &Value) -> Vec<String> {
    let changes = told["changes"].as_array().expect("changes").iter();
    let words = |change: &Value| {
        let word = |key: &str| change[key].as_str().expect("a word").to_string();
        format!("{} {}", word("what"), word("path"))
    };
    changes.map(words).collect()
}

#[test]
fn a_change_made_by_hand_is_the_next_version_and_goes_back() {
    in_world(SITE, vec![spec("m01"), spec("m02")], async |world| {
        let mut world = world.with_images();
        let dir = world.site.parent().unwrap_or(Path::new("/")).to_path_buf();
        std::fs::write(dir.join("bmc.pw"), PASSWORD).expect("written");
        let agent = Agent::of(&world).await;
        let accounts = vec![account("m01", 11), account("m02", 12)];
        let _bmcs = Bmcs::plug_in(&world.rack, accounts).expect("BMCs");
        world.serve().await;
        let begun = Instant::now();
        while world
            .json(&["console"])
            .as_array()
            .expect("lines")
            .iter()
            .any(|line| line["state"] != "up")
        {
            assert!(begun.elapsed() < MINUTES, "{}", world.ok(&["console"]));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let first = world.json(&["image", "show", "web"])["version"].as_u64().expect("a number");
        world.machine("m01").power_on().await.expect("power on");
        world.machine("m02").power_on().await.expect("power on");
        world.up("m01", "web1").await;
        world.up("m02", "web2").await;

        // By which way each is asked: one over its console, the other by SSH, its host key known from its console.
        let ask = |machine: &str| {
            let words = ["image", "diff", "--json", "--machine", machine];
            let output = match machine {
                "m01" => world.run(&[&words[..], &["--via", "console"]].concat()),
                _ => Agent::run(Some(&agent), &world, &words),
            };
            assert!(output.status.success(), "{}", text(&output));
            serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
        };

        // Nobody's hands: what machines write by themselves is left out, on either kind of root.
        for (machine, root, via) in [("m01", "overlay", "console"), ("m02", "ram", "ssh")] {
            let told = ask(machine);
            assert_eq!((&told["root"], &told["via"]), (&root.into(), &via.into()), "{told:#}");
            assert_eq!(changes(&told), Vec::<String>::new(), "{told:#}");
            assert!(told["left_out"]["written at boot by koboshi"].as_u64() > Some(0), "{told:#}");
        }

        // Hands, on both.
        let by_hand = "echo '<h1>by hand</h1>' > /var/www/html/hand.html; rm /etc/motd; \
                       sed -i s/Seat/Chair/ /usr/local/sbin/koboshi-page; chmod 700 /srv; \
                       ln -s hand.html /var/www/html/link.html; echo $?";
        for machine in ["m01", "m02"] {
            let mut shell = world.machine(machine).viewer_of_shell().await;
            assert_eq!(shell.run(by_hand).await, "0");
            let told = ask(machine);
            let meant = [
                "removed etc/motd",
                "changed srv",
                "changed usr/local/sbin/koboshi-page",
                "added var/www/html/hand.html",
                "added var/www/html/link.html",
            ];
            assert_eq!(changes(&told), meant, "{told:#}");
            let page = &told["changes"][2]["text"];
            let lines = page.as_str().expect("lines");
            assert!(lines.contains("-<p>Seat <b>") && lines.contains("+<p>Chair <b>"), "{lines}");
        }

        // The line is a shell's again, nobody has it, and what must not be typed at is not.
        let mut shell = world.machine("m01").viewer_of_shell().await;
        assert_eq!(shell.run("hostname").await, "web1");
        assert!(world.json(&["console"])[0]["holder"].is_null());
        world.machine("m01").console().send("cat\n").await.expect("typed");
        let refused = world.run(&["image", "diff", "--machine", "m01", "--via", "console"]);
        assert!(
            !refused.status.success() && text(&refused).contains("no shell answers"),
            "{}",
            text(&refused)
        );
        world.machine("m01").console().send("\x03").await.expect("typed");
        // Who has no key goes over the console, if he may; by SSH nothing is asked back.
        let words = ["image", "diff", "--machine", "m02"];
        let refused = Agent::run(None, &world, &[&words[..], &["--via", "ssh"]].concat());
        assert!(
            !refused.status.success() && text(&refused).contains("Permission denied"),
            "{}",
            text(&refused)
        );
        let shown = Agent::run(None, &world, &words);
        assert!(shown.status.success() && text(&shown).contains("not by SSH"), "{}", text(&shown));
        assert!(text(&shown).contains("+ var/www/html/hand.html"), "{}", text(&shown));

        let commit = [
            "image",
            "commit",
            "web",
            "--machine",
            "m01",
            "--path",
            "/var/www",
            "--path",
            "/etc/motd",
        ];
        let unasked = world.run(&commit);
        assert!(text(&unasked).contains("--yes"), "{}", text(&unasked));
        let said =
            world.ok(&[&commit[..], &["--reason", "a page", "--yes", "--via", "console"]].concat());
        let second = format!("web@{}", first + 1);
        assert!(said.contains(&format!("{second}: one layer")), "{said}");
        let shown = world.json(&["image", "show", &second]);
        assert_eq!(shown["reason"], "a page", "{shown:#}");
        assert!(shown["parent"].is_string(), "{shown:#}");
        world.ok(&["image", "publish", &second]);

        // The machine is not asked to be committed for what is there already.
        let told = ask("m01");
        assert_eq!(told["held"]["image"], second.as_str(), "{told:#}");
        assert_eq!(told["held"]["paths"].as_array().map(Vec::len), Some(3), "{told:#}");

        // Another machine of the image boots it, and has what was committed and nothing else.
        boot_again(&world, "m02", "web2").await;
        assert!(world.curl("http://10.77.0.12/hand.html").contains("by hand"));
        assert!(world.curl("http://10.77.0.12/link.html").contains("by hand"));
        assert!(world.curl("http://10.77.0.12/").contains("Seat <b>web2"));
        let mut shell = world.machine("m02").viewer_of_shell().await;
        assert_eq!(shell.run("test -e /etc/motd; echo $?").await, "1");

        // Who booted the former version is not laid over the newer one unasked.
        let again = [&commit[..], &["--yes", "--via", "console"]].concat();
        let refused = world.run(&again);
        assert!(text(&refused).contains("--onto"), "{}", text(&refused));

        world.ok(&["image", "rollback", "web"]);
        boot_again(&world, "m02", "web2").await;
        assert_eq!(status(&world, "http://10.77.0.12/hand.html"), "404");
        assert_eq!(status(&world, "http://10.77.0.12/"), "200");
    });
}

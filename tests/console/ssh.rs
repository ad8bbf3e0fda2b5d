//! Consoles by SSH as the site file says it: where it listens, whom it lets in, and what a key may do where.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};

use crate::world::{World, in_world, text};

/// Far beyond what anything here takes.
const CEILING: Duration = Duration::from_secs(30);

fn site(folder: &Path) -> String {
    format!(
        r#"
[site]
name = "ssh"
[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.250"
[admin]
ssh = "127.46.22.1:2222"
[console]
authorized-keys = "console.keys"
[roles.web]
image = "web"
[machines]
m01 = {{ mac = ["52:54:00:77:00:01"], console = "unix:{at}/m01.sock" }}
sw1 = {{ console = "unix:{at}/sw1.sock" }}
[groups]
rack1 = "m01"
[seats]
web1 = {{ role = "web", ip = "10.77.0.11" }}
[matrix]
m01 = "web1"
"#,
        at = folder.display()
    )
}

/// People with keys of their own.
struct People {
    folder: PathBuf,
}

impl People {
    fn new(world: &World, names: &[&str]) -> People {
        let folder = world.site.parent().expect("a folder").to_path_buf();
        for name in names {
            let path = folder.join(name).display().to_string();
            let words = ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", &path];
            let made = world.rack.output("ssh-keygen", &words).expect("ssh-keygen runs");
            assert!(made.status.success(), "{}", text(&made));
        }
        People { folder }
    }

    /// The line of somebody's key, with these options.
    fn line(&self, name: &str, options: &str) -> String {
        let public = std::fs::read_to_string(self.folder.join(format!("{name}.pub")));
        format!("{options} {}", public.expect("a key"))
    }

    fn let_in(&self, lines: &[String]) {
        let new = self.folder.join("console.keys.new");
        std::fs::write(&new, lines.concat()).expect("written");
        std::fs::rename(new, self.folder.join("console.keys")).expect("renamed");
    }

    fn words(&self, name: &str, who: &str, words: &[&str]) -> Vec<String> {
        let (key, known) = (self.folder.join(name), self.folder.join("known_hosts"));
        let key = key.display().to_string();
        let mut all = ["-F", "none", "-T", "-p", "2222", "-i", &key].map(str::to_string).to_vec();
        for option in [
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
        ] {
            all.extend(["-o".to_string(), option.to_string()]);
        }
        all.extend(["-o".to_string(), format!("UserKnownHostsFile={}", known.display())]);
        all.push(format!("{who}@127.46.22.1"));
        all.extend(words.iter().map(ToString::to_string));
        all
    }

    fn ssh(&self, world: &World, name: &str, who: &str, words: &[&str]) -> Output {
        let words = self.words(name, who, words);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        world.rack.output("ssh", &words).expect("ssh runs")
    }
}

async fn hears(machine: &mut UnixStream, expected: &str) {
    let mut heard = vec![0; expected.len()];
    let read = tokio::time::timeout(CEILING, machine.read_exact(&mut heard)).await;
    read.expect("it is typed").expect("the line is open");
    assert_eq!(String::from_utf8_lossy(&heard), expected);
}

async fn event(world: &World, part: &str) {
    let begun = Instant::now();
    loop {
        let events = world.ok(&["events", "-n", "1000"]);
        if events.contains(part) {
            return;
        }
        assert!(begun.elapsed() < CEILING, "no {part:?} in {events}\n{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn keys_have_the_rights_that_the_site_gives_them() {
    in_world("", vec![], async |mut world| {
        let folder = world.site.parent().expect("a folder").to_path_buf();
        std::fs::write(&world.site, site(&folder)).expect("written");
        let listen = |name: &str| UnixListener::bind(folder.join(name)).expect("a socket");
        let (m01, sw1) = (listen("m01.sock"), listen("sw1.sock"));
        world.serve().await;
        let mut m01 = m01.accept().await.expect("it comes").0;
        let _sw1 = sw1.accept().await.expect("it comes").0;
        let people = People::new(&world, &["alice", "bob", "carol", "eve"]);

        // Nobody is let in, and that is said; the key to compare is there from the beginning.
        event(&world, "nobody can log in by SSH").await;
        let shown = world.ok(&["console", "--fingerprint"]);
        let public = world.state.join("ssh/host_ed25519.pub").display().to_string();
        let listed = world.rack.output("ssh-keygen", &["-lf", &public]).expect("it runs");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let fingerprint = listed.split_whitespace().nth(1).expect("SHA256:…").to_string();
        assert!(shown.contains(&fingerprint), "{shown} {listed}");
        let known = shown.lines().find_map(|line| line.strip_prefix("for known_hosts: "));
        std::fs::write(folder.join("known_hosts"), known.expect("a line")).expect("written");
        assert_eq!(people.ssh(&world, "alice", "m01", &[]).status.code(), Some(255));

        // As soon as the file is there they are.
        people.let_in(&[
            people.line("alice", ""),
            people.line("bob", "watch=\"@rack1\""),
            people.line("carol", "type=\"web1\""),
            people.line("eve", "watch=\"@all!@rack9\""),
            people.line("eve", "comand=\"id\""),
        ]);
        let list = people.ssh(&world, "alice", "consoles", &[]);
        let list = text(&list);
        assert!(list.contains("m01") && list.contains("sw1"), "{list}");
        let list = text(&people.ssh(&world, "bob", "consoles", &[]));
        assert!(list.contains("m01") && !list.contains("sw1"), "{list}");
        let list = text(&people.ssh(&world, "eve", "consoles", &[]));
        assert!(
            list.contains("no consoles that eve may look at"),
            "what is to be left out is not known: {list}"
        );
        event(&world, "line 5: the option `comand` is not known").await;

        let refused = people.ssh(&world, "bob", "sw1", &[]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            text(&refused).contains("bob may not look at sw1's console (line 2 of"),
            "{refused:?}"
        );
        let unknown = people.ssh(&world, "bob", "m99", &[]);
        assert!(text(&unknown).contains("there is no console \"m99\""), "{unknown:?}");
        let unknown = people.ssh(&world, "alice", "m0", &[]);
        assert!(text(&unknown).contains("neither a machine nor a seat"), "{unknown:?}");

        // A seat is its machine. One types; the other one looks, and is told.
        m01.write_all(b"web1 login: ").await.expect("the appliance reads");
        let mut carol = world.rack.command("ssh");
        carol.args(people.words("carol", "web1", &[])).stdin(Stdio::piped());
        let mut carol = world.rack.spawn(carol).await.expect("ssh runs");
        let mut typing = carol.stdin.take().expect("a pipe");
        typing.write_all(b"root\r").await.expect("ssh reads");
        hears(&mut m01, "root\r").await;
        let mut bob = world.rack.command("ssh");
        bob.args(people.words("bob", "m01", &["last", "5"])).stdin(Stdio::piped());
        bob.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut bob = world.rack.spawn(bob).await.expect("ssh runs");
        let mut says = vec![0; "web1 login: ".len()];
        bob.stdout.as_mut().expect("a pipe").read_exact(&mut says).await.expect("the last lines");
        bob.stdin.take().expect("a pipe").write_all(b"x").await.expect("ssh reads");
        let mut why = String::new();
        let read = bob.stderr.as_mut().expect("a pipe").read_to_string(&mut why);
        tokio::time::timeout(CEILING, read).await.expect("it ends").expect("text");
        assert!(why.contains("may not type here (line 2"), "{why}");
        assert!(!bob.wait().await.expect("it ends").success());
        typing.write_all(b"!").await.expect("ssh reads");
        drop(typing);
        hears(&mut m01, "!").await;
        assert!(carol.wait().await.expect("it ends").success());
        event(&world, "carol is at its console by SSH from 127.0.0.1").await;

        // There and nowhere else.
        for elsewhere in ["127.0.0.1:2222", "10.77.0.1:2222"] {
            assert!(TcpStream::connect(elsewhere).await.is_err(), "{elsewhere}");
        }
        // The next process has the same key.
        assert!(world.stop().await);
        world.serve().await;
        let again = people.ssh(&world, "alice", "consoles", &[]);
        assert!(again.status.success(), "{again:?}\n{}", world.log());
        assert!(world.stop().await);
    });
}

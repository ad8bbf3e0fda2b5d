//! A root of several layers that was pulled from a registry, in memory and as a stack of squashfs; files of role and seat over it; who a machine is:
//! its machine id, and the SSH host key that it shows on its console.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use koboshi::lab::machine::Machine;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

use super::{HasShell, MINUTES, spec};
use crate::world::{World, in_world, text};

fn site(root: &str, folder: &Path, key: &str) -> String {
    format!(
        r#"
[site]
name = "rack"
ssh-keys = ["{key}"]

[net]
interface = "kb0"
cidr = "10.77.0.0/24"

[roles.stack]
image = "stack"
root = "{root}"
files = "files/stack"

[roles.web]
image = "web"

[machines]
m01 = {{ mac = ["52:54:00:77:00:01"] }}
m02 = {{ mac = ["52:54:00:77:00:02"], console = "unix:{at}/m02.sock" }}

[seats]
tool1 = {{ role = "stack", ip = "10.77.0.11", args = {{ shard = 7 }}, files = "files/tool1" }}
web1 = {{ role = "web", ip = "10.77.0.12" }}

[matrix]
m01 = "tool1"
m02 = "web1"
"#,
        at = folder.display()
    )
}

/// What layers took away is gone, what they replaced is as the highest has it, and the files of the site file lie
/// over them, in both kinds of root. A machine without a word from anybody has a machine id that lasts and a host
/// key that `ssh` believes by what its console said.
#[test]
fn layers_and_files_and_who_it_is() {
    in_world("", vec![spec("m01"), spec("m02")], async |world| {
        let mut world = world.with_images();
        let folder = world.site.parent().expect("a folder").to_path_buf();
        let put = |name: &str, text: &str| {
            let path = folder.join("files").join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        put("stack/etc/shard.j2", "{{ seat }} on {{ machine }} has {{ args.shard }}\n");
        put("stack/etc/motd", "of the role\n");
        put("tool1/etc/motd", "of the seat\n");
        // Over a link of the root's: /bin leads to /usr/bin.
        put("tool1/bin/hello", "#!/bin/sh\necho hello\n");
        let hello = folder.join("files/tool1/bin/hello");
        std::fs::set_permissions(&hello, PermissionsExt::from_mode(0o755)).expect("a program");
        let id = folder.join("id");
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
            .arg(&id)
            .output();
        let made = made.expect("ssh-keygen (openssh-client)");
        assert!(made.status.success(), "{}", text(&made));
        let key = std::fs::read_to_string(id.with_extension("pub")).expect("a key");
        let path = world.site.clone();
        let write = |root: &str| {
            std::fs::write(&path, site(root, &folder, key.trim())).expect("written");
        };
        write("ram");
        stack(&world, &folder.join("stack")).await;
        let console = UnixListener::bind(folder.join("m02.sock")).expect("a socket");
        tokio::spawn(wire(world.machine("m02").clone(), console));
        world.serve().await;
        let explained = world.ok(&["explain", "m01"]);
        assert!(explained.contains("files"), "{explained}");
        world.machine("m01").power_on().await.expect("power on");
        world.machine("m02").power_on().await.expect("power on");

        let in_ram = world.up("m01", "tool1").await;
        as_it_should_be(&world, "tmpfs").await;
        write("overlay");
        world.ok(&["reload"]);
        world.machine("m01").cycle().await.expect("power cycle");

        let first = world.up("m02", "web1").await;
        let hosts = known(&world).await;
        let row = world.json(&["export", "known-hosts", "--host", "web1"]);
        assert_eq!(
            (&row[0]["machine"], &row[0]["seat"]),
            (&json!("m02"), &json!("web1")),
            "{row:#}"
        );
        let file = folder.join("known_hosts");
        std::fs::write(&file, &hosts).expect("written");
        let mut machine_id = String::new();
        for host in ["web1", "10.77.0.12"] {
            machine_id = ssh(
                &world,
                &file,
                &id,
                host,
                "cat /etc/machine-id; systemctl --failed --no-legend",
            );
            assert_eq!(machine_id.len(), 32, "{machine_id}");
        }
        // Another machine with that address is not believed.
        let (at, mut wrong) = (hosts.find(" AAAA").expect("a key") + 40, hosts.clone());
        wrong.replace_range(at..=at, if &hosts[at..=at] == "x" { "y" } else { "x" });
        std::fs::write(&file, wrong).expect("written");
        let refused = run_ssh(&world, &file, &id, "web1", "true");
        assert!(text(&refused).contains("IDENTIFICATION HAS CHANGED"), "{}", text(&refused));

        up_anew(&world, "m01", "tool1", &in_ram).await;
        as_it_should_be(&world, "overlay").await;

        let former = hosts;
        world.machine("m02").cycle().await.expect("power cycle");
        up_anew(&world, "m02", "web1", &first).await;
        let hosts = known(&world).await;
        assert_ne!(hosts, former, "each boot has a key of its own");
        std::fs::write(&file, hosts).expect("written");
        let again = ssh(&world, &file, &id, "web1", "cat /etc/machine-id");
        assert_eq!(again, machine_id);
    });
}

/// Up by another boot than this one.
async fn up_anew(world: &World, machine: &str, seat: &str, former: &Value) {
    let deadline = Instant::now() + MINUTES;
    while world.up(machine, seat).await["id"] == former["id"] {
        assert!(Instant::now() < deadline, "{}", world.ok(&["boots", machine]));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What a machine says, to the appliance.
async fn wire(machine: Machine, console: UnixListener) {
    let (mut line, _) = console.accept().await.expect("the appliance comes");
    let mut said = machine.console().stream(0);
    loop {
        if line.write_all(&said.next().await).await.is_err() {
            return;
        }
    }
}

/// The known_hosts file, once there is something in it.
async fn known(world: &World) -> String {
    let deadline = Instant::now() + MINUTES;
    loop {
        let hosts = world.ok(&["export", "known-hosts"]);
        if !hosts.is_empty() {
            assert!(hosts.starts_with("m02,web1,10.77.0.12 ssh-ed25519 "), "{hosts}");
            return hosts;
        }
        let tail = world.machine("m02").console().tail(40);
        assert!(Instant::now() < deadline, "{tail}\n{}", world.ok(&["events"]));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn run_ssh(
    world: &World,
    known: &Path,
    id: &Path,
    host: &str,
    command: &str,
) -> std::process::Output {
    let words = [
        format!("UserKnownHostsFile={}", known.display()),
        "GlobalKnownHostsFile=/dev/null".to_string(),
        "StrictHostKeyChecking=yes".to_string(),
        "BatchMode=yes".to_string(),
        "ConnectTimeout=20".to_string(),
        format!("HostKeyAlias={host}"),
        "HostName=10.77.0.12".to_string(),
    ];
    let mut all = vec!["-F", "/dev/null", "-i", id.to_str().expect("UTF-8")];
    words.iter().for_each(|word| all.extend(["-o", word.as_str()]));
    all.extend(["root@web", command]);
    world.rack.output("ssh", &all).expect("ssh (openssh-client)")
}

fn ssh(world: &World, known: &Path, id: &Path, host: &str, command: &str) -> String {
    let output = run_ssh(world, known, id, host, command);
    assert!(output.status.success(), "ssh {host}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

async fn as_it_should_be(world: &World, root: &str) {
    let mut shell = world.machine("m01").viewer_of_shell().await;
    let mounted = shell.run("grep ' / ' /proc/mounts | grep -v rootfs").await;
    assert!(mounted.contains(&format!(" / {root} rw")), "{mounted}");
    for (command, says) in [
        ("cat /etc/two", "three"),
        ("cat /srv/kept", "of the second layer"),
        ("cd /srv; find * | sort; cd", "file\nfile/inner\nkept\ntree\ntree/new"),
        ("ls /etc/shadow 2>&1", "ls: /etc/shadow: No such file or directory"),
        ("stat -c '%a %u:%g' /srv/tree /srv/kept", "711 0:0\n640 1:2"),
        ("ls -a /srv /etc /srv/tree | grep -c wh", "0"),
        ("cat /etc/motd /etc/shard", "of the seat\ntool1 on m01 has 7"),
        ("hello; ls -ld /bin | cut -c 1", "hello\nl"),
    ] {
        let said = shell.run(command).await.replace('\r', "");
        assert_eq!(said, says, "{command} ({root})");
    }
}

/// rescue as it was made, its kernel, and two layers above: imported from an OCI layout.
async fn stack(world: &World, to: &Path) {
    let boot = &world.json(&["image", "show", "rescue"])["boot"];
    let blob = |digest: &Value| -> Vec<u8> {
        let digest = digest.as_str().expect("a digest").trim_start_matches("sha256:");
        let path = world.state.join("images/blobs/sha256").join(digest);
        std::fs::read(path).expect("a blob")
    };
    let mut layers: Vec<Vec<u8>> = boot["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .map(|layer| zstd::decode_all(&blob(&layer["blob"]["digest"])[..]).expect("zstd"))
        .collect();
    let below = layers.len();
    let kernel = format!("boot/vmlinuz-{}", boot["kernel_release"].as_str().expect("a release"));
    let kernel_bytes = blob(&boot["kernel"]["digest"]);
    layers.push(tar(&[
        ("boot/", 0o755, (0, 0), b""),
        (&kernel, 0o644, (0, 0), &kernel_bytes),
        ("etc/", 0o755, (0, 0), b""),
        ("etc/two", 0o644, (0, 0), b"two\n"),
        ("srv/", 0o755, (0, 0), b""),
        ("srv/kept", 0o640, (1, 2), b"of the second layer\n"),
        ("srv/file", 0o644, (0, 0), b"a file here, a directory above\n"),
        ("srv/tree/", 0o755, (0, 0), b""),
        ("srv/tree/old", 0o644, (0, 0), b"old\n"),
    ]));
    layers.push(tar(&[
        ("etc/", 0o755, (0, 0), b""),
        ("etc/.wh.shadow", 0o644, (0, 0), b""),
        ("etc/two", 0o644, (0, 0), b"three\n"),
        ("srv/", 0o755, (0, 0), b""),
        ("srv/.wh.tree", 0o644, (0, 0), b""),
        ("srv/tree/", 0o711, (0, 0), b""),
        ("srv/tree/new", 0o644, (0, 0), b"new\n"),
        ("srv/file/", 0o755, (0, 0), b""),
        ("srv/file/inner", 0o644, (0, 0), b"inner\n"),
    ]));
    layout(to, &layers);
    world.ok(&["image", "import", "made", to.to_str().expect("UTF-8")]);
    // By way of Debian's registry: what boots was pulled.
    let _registry = registry(world, &to.with_extension("registry")).await;
    let there = "docker://127.0.0.1:5000/team/stack:1";
    world.ok(&["image", "push", "made", there, "--plain-http"]);
    world.ok(&["image", "pull", "stack", there, "--plain-http", "--publish"]);
    let [made, pulled] = ["made", "stack"].map(|name| world.json(&["image", "show", name]));
    assert_eq!(made["digest"], pulled["digest"], "{pulled:#}");
    let layers = &pulled["boot"]["layers"];
    assert_eq!(layers.as_array().map(Vec::len), Some(below + 2), "{layers:#}");
}

/// docker-registry, in the rack's own network.
async fn registry(world: &World, at: &Path) -> tokio::process::Child {
    std::fs::create_dir(at).expect("a folder");
    let config = at.join("config.yml");
    let text = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: \
         127.0.0.1:5000\n",
        at.display()
    );
    std::fs::write(&config, text).expect("written");
    let mut command = world.rack.command("docker-registry");
    command.arg("serve").arg(&config).kill_on_drop(true);
    let log = std::fs::File::create(at.join("log")).expect("a log");
    command.stdout(std::process::Stdio::null()).stderr(log);
    let child = world.rack.spawn(command).await.expect("docker-registry: `make setup` installs it");
    let begun = Instant::now();
    let answers = || {
        let asked = world.rack.output("curl", &["-sf", "http://127.0.0.1:5000/v2/"]);
        asked.is_ok_and(|said| said.status.success())
    };
    while !answers() {
        assert!(begun.elapsed() < Duration::from_secs(30), "docker-registry does not answer");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    child
}

/// Name (a directory's ends in a slash), mode, owner and group, content.
type Member<'a> = (&'a str, u32, (u64, u64), &'a [u8]);

fn tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, (uid, gid), content) in members {
        let mut header = tar::Header::new_gnu();
        let is_dir = path.ends_with('/');
        header.set_entry_type(if is_dir {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(*mode);
        header.set_uid(*uid);
        header.set_gid(*gid);
        header.set_mtime(1_795_000_000);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, *content).expect("into memory");
    }
    tar.into_inner().expect("in memory")
}

/// An OCI layout of one image.
fn layout(to: &Path, layers: &[Vec<u8>]) {
    let mut blobs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut add = |kind: &str, bytes: Vec<u8>| {
        let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let size = bytes.len();
        blobs.insert(hex.clone(), bytes);
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{hex}"), "size": size})
    };
    let layers: Vec<Value> =
        layers.iter().map(|layer| add("layer.v1.tar", layer.clone())).collect();
    let diffs: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}});
    let config = add("config.v1+json", config.to_string().into_bytes());
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let manifest = add("manifest.v1+json", manifest.to_string().into_bytes());
    let dir: PathBuf = to.join("blobs/sha256");
    std::fs::create_dir_all(&dir).expect("made");
    blobs.iter().for_each(|(hex, bytes)| std::fs::write(dir.join(hex), bytes).expect("written"));
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(to.join("index.json"), index.to_string()).expect("written");
    std::fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
}

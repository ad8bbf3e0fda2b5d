//! A version that is no good meets one machine and goes away by itself; a good one comes to all.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use super::{HasShell, MINUTES, spec};
use crate::world::{World, in_world, text};

const SITE: &str = r#"
[site]
name = "rack"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"

[roles.tool]
image = "rescue"
failures = 2

[machines]
m01 = { mac = ["52:54:00:77:00:01"] }
m02 = { mac = ["52:54:00:77:00:02"] }

[seats]
tool1 = { role = "tool", ip = "10.77.0.11" }
tool2 = { role = "tool", ip = "10.77.0.12" }

[matrix]
m01 = "tool1"
m02 = "tool2"
"#;

/// An init that exits at once: the machine panics, restarts, panics once more, and its third start is the version
/// that all boot. The appliance is killed meanwhile. Nobody else sees that version; the next, which is good, is
/// for all once the machine stayed up with it, but not for one that is pinned.
#[test]
fn a_bad_version_goes_by_itself_and_a_good_one_comes_to_all() {
    in_world(SITE, vec![spec("m01"), spec("m02")], async |world| {
        let mut world = world.with_images();
        let first = newest(&world);
        let (bad, good) = (first + 1, first + 2);
        let root = world.rack.dir().join("root");
        let init = unpack(&world, &root);
        breaks(&init);
        import(&world, &root);
        world.serve().await;
        let refused = world.run(&["image", "publish", "rescue", "--canary", "m99"]);
        assert!(!refused.status.success(), "{}", text(&refused));
        let bad_name = format!("rescue@{bad}");
        world.ok(&["image", "publish", &bad_name, "--canary", "m01", "--stay", "20s"]);
        // Nobody gives it to all by mistake.
        let refused = world.run(&["image", "publish", "rescue"]);
        assert!(text(&refused).contains("is on trial on m01"), "{}", text(&refused));

        world.machine("m01").power_on().await.expect("power on");
        world.machine("m02").power_on().await.expect("power on");
        let mut console = world.machine("m01").console().viewer();
        console.expect("is on trial on this machine", MINUTES).await.expect("it says so");
        console.expect("this one is no good", MINUTES).await.expect("the bad init");
        world.kill().await;
        world.serve().await;
        console.expect("this one is no good", MINUTES).await.expect("once more");
        console.expect(&format!("image rescue@{first}) at"), MINUTES).await.expect("the former");
        up_with(&world, "m01", &format!("rescue@{first}")).await;
        let said = wait_for(&world, &format!("rescue@{bad} is withdrawn")).await;
        assert!(said.contains("on m01: 2 boots, the last: it started anew"), "{said}");
        let listed = world.ok(&["image", "ls"]);
        assert!(
            listed.contains(&format!("rescue@{bad} was withdrawn: on m01: 2 boots")),
            "{listed}"
        );
        let status = world.ok(&["status", "m01"]);
        assert!(status.contains(&format!("rescue@{bad} was withdrawn; 2 boots")), "{status}");
        up_with(&world, "m02", &format!("rescue@{first}")).await;
        assert_eq!(images(&world, "m02"), [format!("rescue@{first}")]);
        assert_eq!(
            images(&world, "m01"),
            [bad_name.clone(), bad_name.clone(), format!("rescue@{first}")]
        );

        std::fs::remove_file(&init).expect("the bad one");
        std::os::unix::fs::symlink("/usr/bin/busybox", &init).expect("a link");
        std::fs::write(root.join("etc/good"), "good\n").expect("written");
        import(&world, &root);
        world.ok(&["image", "pin", &format!("rescue@{first}"), "--machine", "m02"]);
        world.ok(&["image", "publish", "rescue", "--canary", "m01", "--stay", "20s"]);
        world.machine("m01").cycle().await.expect("power cycle");
        up_with(&world, "m01", &format!("rescue@{good}")).await;
        let status = world.ok(&["status", "m01"]);
        assert!(status.contains(&format!("rescue@{good} is on trial on this machine")), "{status}");
        wait_for(&world, &format!("rescue@{good} is for all machines now")).await;
        let mut shell = world.machine("m01").viewer_of_shell().await;
        assert_eq!(shell.run("cat /etc/good").await, "good");

        let explained = world.ok(&["explain", "m02"]);
        assert!(explained.contains(&format!("pinned to rescue@{first}")), "{explained}");
        world.ok(&["image", "unpin", "rescue", "--machine", "m02"]);
        let is_current = format!("rescue@{good} is what machines boot");
        let deadline = Instant::now() + MINUTES;
        while !world.ok(&["explain", "m02"]).contains(&is_current) {
            assert!(Instant::now() < deadline, "{}", world.ok(&["explain", "m02"]));
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    });
}

fn newest(world: &World) -> u64 {
    world.json(&["image", "show", "rescue"])["version"].as_u64().expect("a number")
}

/// Versions that a machine was given, the oldest first.
fn images(world: &World, machine: &str) -> Vec<String> {
    let boots = world.json(&["boots", machine, "-n", "20"]);
    let boots = boots.as_array().expect("boots").iter().rev();
    let image = |boot: &Value| boot["plan"]["image"].as_str().expect("an image").to_string();
    boots.map(image).collect()
}

/// Waits until a machine is up with this version.
async fn up_with(world: &World, machine: &str, image: &str) {
    let deadline = Instant::now() + MINUTES;
    loop {
        let boots = world.json(&["boots", machine, "-n", "1"]);
        if boots[0]["stage"] == "up" && boots[0]["plan"]["image"] == image {
            return;
        }
        assert!(Instant::now() < deadline, "{image}: {boots:#}\n{}", world.log());
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

async fn wait_for(world: &World, what: &str) -> String {
    let deadline = Instant::now() + MINUTES;
    loop {
        let events = world.ok(&["events"]);
        if let Some(line) = events.lines().find(|line| line.contains(what)) {
            return line.to_string();
        }
        assert!(Instant::now() < deadline, "{what}:\n{events}\n{}", world.log());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

fn import(world: &World, root: &Path) {
    let path = root.to_str().expect("a path of ours is UTF-8");
    world.ok(&["image", "import", "rescue", path]);
}

/// An init that exits at once.
fn breaks(init: &Path) {
    std::fs::remove_file(init).expect("an init");
    std::fs::write(init, "#!/bin/sh\necho this one is no good\nexit 1\n").expect("written");
    std::fs::set_permissions(init, PermissionsExt::from_mode(0o755)).expect("a program");
}

/// The rescue image's root with its kernel, to be changed. Returns its init.
fn unpack(world: &World, to: &Path) -> PathBuf {
    std::fs::create_dir_all(to).expect("a directory");
    let shown = world.json(&["image", "show", "rescue"]);
    let boot = &shown["boot"];
    let blob = |digest: &Value| {
        let digest = digest.as_str().expect("a digest").trim_start_matches("sha256:");
        world.state.join("images/blobs/sha256").join(digest)
    };
    for layer in boot["layers"].as_array().expect("layers") {
        let mut tar = std::process::Command::new("tar");
        tar.args(["--zstd", "-xpf"]).arg(blob(&layer["blob"]["digest"])).arg("-C").arg(to);
        let output = tar.output().expect("tar runs");
        assert!(output.status.success(), "{}", text(&output));
    }
    let release = boot["kernel_release"].as_str().expect("a release");
    let kernel = to.join(format!("boot/vmlinuz-{release}"));
    std::fs::copy(blob(&boot["kernel"]["digest"]), kernel).expect("the kernel");
    to.join("usr/sbin/init")
}

/// An image is tested before metal sees it: one that panics does not pass, and is not published where only what
/// was tested is; one that comes up passes, with what its console has to show and a script on it.
#[test]
fn an_image_is_tested_in_the_rack() {
    in_world(SITE, vec![spec("m01")], async |world| {
        let world = world.with_images();
        let root = world.rack.dir().join("root");
        let init = unpack(&world, &root);
        let good = newest(&world);
        breaks(&init);
        import(&world, &root);
        let refused = world.run(&["image", "test", "rescue", "--json"]);
        let proof: Value = serde_json::from_slice(&refused.stdout).expect("JSON");
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert_eq!(proof["why"], "its kernel panicked", "{proof:#}");
        assert!(proof["console"].to_string().contains("this one is no good"), "{proof:#}");
        let refused = world.run(&["image", "publish", "rescue", "--tested"]);
        assert!(text(&refused).contains("is not tested"), "{}", text(&refused));

        let script = world.rack.dir().join("name.expect");
        std::fs::write(
            &script,
            "send \"\\r\"\nexpect \"# \"\nsend \"hostname\\r\"\nexpect \"test1\"\n",
        )
        .expect("written");
        let script = script.to_str().expect("a path of ours is UTF-8");
        let (good, state) = (format!("rescue@{good}"), world.state.join("test"));
        let words = ["image", "test", &good, "--expect", "koboshi rescue: test1", "--run", script];
        let said = world.ok(&words);
        assert!(said.contains(&format!("{good} is up after")), "{said}");
        world.ok(&["image", "publish", &good, "--tested"]);
        let left: Vec<_> = std::fs::read_dir(&state).expect("a directory").collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

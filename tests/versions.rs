//! Versions of images on the command line, from the first import to the last `rm`: with a store alone, and
//! beside an appliance whose machines need some of them. The kernel of these images is a word of text;
//! nothing boots it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use koboshi::lab::net::Peer;
use serde_json::{Value, json};

use crate::wire::{peer, rom};
use crate::world::{World, in_world, text};

const SITE: &str = r#"
[site]
name = "versions"

[net]
interface = "kb0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.200"

[roles.web]
image = "web"

[roles.old]
image = "web@1"

[machines]
m01 = { mac = ["52:54:00:77:00:01"] }
m02 = { mac = ["52:54:00:77:00:02"] }

[seats]
web1 = { role = "web", ip = "10.77.0.21" }
old1 = { role = "old", ip = "10.77.0.22" }

[matrix]
m01 = "web1"
m02 = "old1"
"#;

/// A root with this page in it, as far as an import can tell one that boots.
fn root(dir: &Path, page: &str) -> PathBuf {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let root = dir.join("root");
    let _former = std::fs::remove_dir_all(&root);
    let modules = "usr/lib/modules/6.1.0-9-test";
    for (name, bytes) in [
        ("boot/vmlinuz-6.1.0-9-test", "a kernel"),
        ("boot/config-6.1.0-9-test", "CONFIG_RD_ZSTD=y\n"),
        (&format!("{modules}/kernel/drivers/net/virtio_net.ko"), "a module"),
        (&format!("{modules}/modules.dep"), "kernel/drivers/net/virtio_net.ko:\n"),
        (&format!("{modules}/modules.alias"), "alias virtio:d00000001v* virtio_net\n"),
        ("usr/sbin/init", "#!/bin/sh\n"),
        ("srv/www/index.html", page),
        ("etc/secret", page),
    ] {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        std::fs::write(&path, bytes).expect("written");
    }
    let mode = |name: &str, mode| {
        let mode = PermissionsExt::from_mode(mode);
        std::fs::set_permissions(root.join(name), mode).expect("a mode");
    };
    mode("usr/sbin/init", 0o755);
    mode("srv/www/index.html", 0o644);
    mode("etc/secret", 0o600);
    for dir in ["lib", "sbin"] {
        symlink(format!("usr/{dir}"), root.join(dir)).expect("a link");
    }
    root
}

impl World {
    /// Takes in a version with this page.
    fn import(&self, page: &str) {
        let root = root(&self.state, page);
        let path = root.to_str().expect("UTF-8");
        self.ok(&["image", "import", "web", path, "--reason", page.trim()]);
    }

    /// What a command that has to fail says.
    fn refused(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}", text(&output));
        text(&output)
    }
}

#[test]
fn versions_come_and_go_by_hand() {
    in_world(SITE, vec![], async |world| {
        for page in ["one\nsame\n", "two\nsame\n", "three\nsame\n"] {
            world.import(page);
            world.ok(&["image", "publish", "web", "--reason", "as planned"]);
        }
        let told = world.ok(&["image", "diff", "web", "--color", "always"]);
        assert!(told.contains("web@2 → web@3"), "{told}");
        assert!(told.contains("~ srv/www/index.html"), "{told}");
        assert!(told.contains("\x1b[31m-two\x1b[m") && told.contains("\x1b[32m+three"), "{told}");
        assert!(
            told.contains("etc/secret") && told.contains("not everybody may read it"),
            "{told}"
        );
        assert_eq!(told.matches("two").count(), 1, "a secret's lines are not shown: {told}");
        let plain = world.ok(&["image", "diff", "web@1", "web@3", "--stat"]);
        assert!(plain.contains("/srv/www") && !plain.contains('\x1b'), "{plain}");
        let found = world.json(&["image", "diff", "web@3", "web@1"]);
        let page = found["changes"].as_array().expect("changes").iter();
        let page: Vec<&Value> = page.filter(|c| c["path"] == "srv/www/index.html").collect();
        assert_eq!(page[0]["differs"], json!(["content"]));
        assert_eq!(page[0]["text"], "@@ -1,2 +1,2 @@\n-three\n+one\n same\n");

        let said = world.ok(&["image", "rollback", "web", "--reason", "five hundreds"]);
        assert!(said.starts_with("web@2 is what machines boot now, and no longer web@3"), "{said}");
        let said = world.refused(&["image", "rollback", "web", "--to", "9"]);
        assert!(said.contains("the newest is 3"), "{said}");
        let acts = world.json(&["image", "log", "web"]);
        let last = acts.as_array().and_then(|acts| acts.last()).expect("an act");
        assert_eq!((&last["act"], &last["version"]), (&json!("rollback"), &json!(2)));
        assert_eq!((&last["former"], &last["reason"]), (&json!(3), &json!("five hundreds")));
        assert!(world.ok(&["image", "log"]).contains("five hundreds"));

        world.ok(&["image", "pin", "web@1", "--reason", "the auditors'"]);
        assert!(
            world.refused(&["image", "rm", "web@1"]).contains("in use and stays: it is pinned")
        );
        let shown = world.ok(&["image", "show", "web@3"]);
        assert!(shown.contains("parent     web@2  sha256:"), "{shown}");
        assert!(shown.contains("in use     no"), "{shown}");
        let dry = world.ok(&["image", "gc", "--keep", "0", "--dry-run"]);
        assert!(dry.contains("would go: web@3"), "{dry}");
        let gone = world.json(&["image", "gc", "--keep", "0"]);
        assert_eq!(gone["versions"], json!(["web@3"]));
        world.import("four\n");
        let rows = world.json(&["image", "ls", "web"]);
        let state = |row: &Value| {
            let pinned = !row["pinned"].is_null();
            (row["version"].as_u64(), row["current"].as_bool(), pinned)
        };
        let states: Vec<_> = rows.as_array().expect("rows").iter().map(state).collect();
        assert_eq!(
            states,
            [
                (Some(1), Some(false), true),
                (Some(2), Some(true), false),
                (Some(4), Some(false), false)
            ],
            "no number is given twice"
        );
        assert!(rows[1]["disk"]["own"].as_u64() > Some(0), "{rows:#}");
        let listed = world.ok(&["image", "ls"]);
        assert!(listed.contains("published, pinned"), "{listed}");
    });
}

/// Waits until a command says this.
async fn says(world: &World, words: &[&str], wanted: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let said = text(&world.run(words));
        if said.contains(wanted) {
            return said;
        }
        assert!(Instant::now() < deadline, "{words:?} does not say {wanted:?}:\n{said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn boots(client: &Peer) {
    assert!(rom(client).is_some(), "a boot ROM is given an address");
}

#[test]
fn what_machines_boot_stays_and_is_remembered() {
    in_world(SITE, vec![], async |mut world| {
        world.import("one\n");
        world.import("two\n");
        world.ok(&["image", "publish", "web@2"]);
        world.serve().await;
        let (m01, m02) = (peer(&world, "52:54:00:77:00:01"), peer(&world, "52:54:00:77:00:02"));
        boots(&m01);
        boots(&m02);
        says(&world, &["image", "ls"], "1: m01").await;
        let first = world.json(&["boots", "m01", "--history"]);
        let into = &first["boots"][0];
        let digest = world.json(&["image", "show", "web@2"])["digest"].clone();
        assert_eq!((&into["image"], &into["digest"]), (&json!("web@2"), &digest));
        let before = jiff::Timestamp::now().to_string();

        world.import("three\n");
        world.ok(&["image", "publish", "web"]);
        let drifted = says(&world, &["status", "--drifted"], "1 machine has drifted: m01").await;
        assert!(drifted.contains("web@2, and web@3 from the next boot on"), "{drifted}");
        assert!(!drifted.contains("m02"), "its role says web@1: {drifted}");
        assert_eq!(world.row("m01")["drifted"], "web@3");
        let rows = world.json(&["status", "--drifted"]);
        assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows:#}");

        let said = world.refused(&["image", "rm", "web@2"]);
        assert!(said.contains("m01 is on its way to it"), "{said}");
        let said = world.refused(&["image", "rm", "web@1"]);
        assert!(said.contains("role old boots it; m02 is on its way to it"), "{said}");
        // A dead appliance's word counts.
        world.kill().await;
        assert!(world.refused(&["image", "rm", "web@2"]).contains("m01"));
        world.serve().await;
        assert!(world.refused(&["image", "rm", "web@2"]).contains("m01"));

        // Who has its loader and asks again was switched off and on, if it is its loader that it asks for.
        m01.address(Ipv4Addr::new(10, 77, 0, 21), 24).expect("an address");
        let loads = || {
            let loader = ["--get", "-r", "undionly.kpxe", "-l", "/dev/null", "10.77.0.1"];
            let fetched = m01.output("atftp", &loader).expect("atftp runs: `make setup`");
            assert!(fetched.status.success(), "{}", text(&fetched));
        };
        loads();
        boots(&m01);
        loads();
        says(&world, &["status", "--drifted"], "every machine runs what it would boot").await;
        let then = world.ok(&["boots", "m01", "--at", &before]);
        assert!(then.contains(": web@2 (role web, web1)"), "{then}");
        assert!(then.contains("when it booted web@3 (role web, web1)"), "{then}");
        assert!(then.contains(digest.as_str().expect("a digest")), "{then}");
        let early = world.ok(&["boots", "m01", "--at", "2020-01-01"]);
        assert!(early.contains("nothing is known of m01 before"), "{early}");
        // A minute after nobody needs it any more.
        let gone = says(&world, &["image", "rm", "web@2"], "is removed").await;
        assert!(gone.contains("web@2 is removed"), "{gone}");
        let then = world.json(&["boots", "m01", "--at", &before]);
        assert_eq!(then["boots"][0]["image"], "web@2", "what it booted is known without the image");
    });
}

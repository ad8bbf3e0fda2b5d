//! What must not be in an image: planted, found, refused, and answered for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use koboshi_images::{By, Error, Finding, Report, Severity, lint};

use crate::fixture::{Bench, gzip, run};

/// Of a key made for this test and used nowhere.
pub fn key() -> String {
    let body = "MC4CAQAwBQYDK2VwBCIEIFxZ4yJmVbB8GwqLrT5cK7eYp3uQhN0vXsD1fAoRzEt9";
    // Put together here, so that nobody's scanner takes this file for a leak.
    format!("-----BEGIN {0}-----\n{body}\n-----END {0}-----\n", "PRIVATE KEY")
}

fn plant(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn refused(bench: &Bench) -> Report {
    match bench.store.publish("web", None, &By::default()) {
        Err(Error::Lint(report)) => *report,
        other => panic!("published: {other:?}"),
    }
}

fn places(findings: &[Finding]) -> Vec<(&str, &str)> {
    findings.iter().map(|f| (f.rule.id, f.path.as_str())).collect()
}

#[test]
fn a_private_key_a_password_hash_and_a_token_each_stop_a_publish() {
    let hash = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7";
    let token = ["ghp", "_", "q7Xb2LmZ9RtYcV4nPwK8sDfGhJ3aE5uT6iOo"].concat();
    for (path, text, rule, line) in [
        ("srv/app/tls.pem", format!("# ours\n{}", key()), "private-key", 2),
        ("etc/shadow", format!("daemon:*:1::::::\nroot:{hash}:19000::::::\n"), "password-hash", 2),
        ("opt/app/settings.py", format!("\n\nTOKEN = '{token}'\n"), "token", 3),
    ] {
        let bench = Bench::new();
        let root = bench.root();
        plant(&root, path, &text);
        bench.import(&root).unwrap();
        let report = refused(&bench);
        assert_eq!(places(&report.findings), [(rule, &*format!("/{path}"))]);
        assert_eq!(report.findings[0].line, Some(line));
        assert!(bench.store.show("web").unwrap().published.is_none(), "not published");
        assert!(matches!(bench.store.resolve("web"), Err(Error::NothingPublished(_))));
        let said = report.to_string();
        for wanted in [path, rule, "web@1 is not published", "koboshi image allow web", "→"] {
            assert!(said.contains(wanted), "{wanted} in: {said}");
        }
        let json = serde_json::to_string(&report).unwrap();
        for secret in [&key()[30..60], hash, &token] {
            assert!(!said.contains(secret) && !json.contains(secret), "tells the secret");
        }
    }
}

#[test]
fn a_root_without_secrets_is_published_with_its_risks_told() {
    let bench = Bench::new();
    let root = bench.root();
    plant(&root, "etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    plant(&root, "etc/shadow", "root:*:1::::::\nadm:!:1::::::\nbin:!!:1::::::\nsys:!*:1::::::\n");
    plant(&root, "srv/open", "x");
    fs::set_permissions(root.join("srv/open"), PermissionsExt::from_mode(0o666)).unwrap();
    plant(&root, "opt/tool", "x");
    fs::set_permissions(root.join("opt/tool"), PermissionsExt::from_mode(0o4755)).unwrap();
    plant(&root, "usr/share/doc/ssl/examples/key.pem", &key());
    bench.import(&root).unwrap();
    assert!(bench.store.publish("web", None, &By::default()).unwrap().published.is_some());
    let report = bench.store.lint("web@1", &mut |_| ()).unwrap();
    assert!(!report.stops());
    let risks: Vec<_> = report.open(Severity::Risk).map(|f| (f.rule.id, &*f.path)).collect();
    let expected = [
        ("machine-id", "/etc/machine-id"),
        ("setuid", "/opt/tool"),
        ("world-writable", "/srv/open"),
    ];
    assert_eq!(risks, expected);
}

#[test]
fn what_is_allowed_stays_so_until_it_changes() {
    let bench = Bench::new();
    let root = bench.root();
    plant(&root, "srv/a key.pem", &key());
    bench.import(&root).unwrap();
    refused(&bench);
    let allow = |path: &str, rule: &str| {
        let by = By { author: Some("ann".into()), reason: Some("of the test site".into()) };
        bench.store.allow("web", rule, path, &by).unwrap()
    };
    assert!(
        allow("srv/other", "private-key").is_none() && allow("srv/a key.pem", "token").is_none()
    );
    let allowed = allow("srv/a key.pem", "private-key").unwrap();
    assert_eq!((allowed.who.as_deref(), allowed.version), (Some("ann"), 1));
    bench.store.publish("web", None, &By::default()).unwrap();

    // The next version has the same key still, in another place of the file, and more beside it.
    plant(&root, "srv/a key.pem", &format!("# a comment\n{}", key()));
    plant(&root, "etc/motd", "hello");
    bench.import(&root).unwrap();
    bench.store.publish("web", None, &By::default()).unwrap();
    let report = bench.store.lint("web", &mut |_| ()).unwrap();
    let why = report.findings[0].allowed.as_ref().map(|one| one.why.as_str());
    assert_eq!(why, Some("of the test site"));

    // Another key at the same path is another finding.
    plant(&root, "srv/a key.pem", &key().replace("FxZ4yJmV", "Vm3yZ4xF"));
    bench.import(&root).unwrap();
    assert_eq!(places(&refused(&bench).findings), [("private-key", "/srv/a key.pem")]);

    let log = bench.store.log(Some("web")).unwrap();
    let act = log.acts.iter().find(|act| act.act == "allow").unwrap();
    let said = "private-key at /srv/a key.pem: of the test site";
    assert_eq!((act.author.as_deref(), act.reason.as_deref()), (Some("ann"), Some(said)));

    // Allowances of one image are no other's, and can be taken back.
    assert!(bench.store.allowances("db").unwrap().is_empty());
    assert_eq!(
        bench.store.disallow("web", "private-key", "/srv/a key.pem", &By::default()).unwrap(),
        1
    );
    assert!(bench.store.allowances("web").unwrap().is_empty());
    assert!(bench.store.lint("web@2", &mut |_| ()).unwrap().stops());
}

#[test]
fn a_layer_is_looked_through_once() {
    let bench = Bench::new();
    let root = bench.root();
    plant(&root, "root/.bash_history", "mysql -ps3cret\n");
    bench.import(&root).unwrap();
    let first = refused(&bench);
    // Without its blob only what was kept can answer.
    let layer = bench.store.show("web").unwrap().boot.layers[0].blob.digest;
    let kept = bench.store.dir().join("lint").join(format!("{}.json", layer.hex()));
    assert!(kept.is_file());
    fs::remove_file(bench.store.blob_path(&layer)).unwrap();
    assert_eq!(bench.store.lint("web", &mut |_| ()).unwrap(), first);
    // What another linter kept, or what is no answer at all, is asked for anew.
    for text in
        ["", "{}", "null", &fs::read_to_string(&kept).unwrap().replacen("sha256:", "sha256:0", 1)]
    {
        fs::write(&kept, text).unwrap();
        assert!(bench.store.lint("web", &mut |_| ()).is_err(), "{text}");
    }
}

#[test]
fn names_of_any_bytes_are_told_in_one_line() {
    use std::os::unix::ffi::OsStrExt;
    let bench = Bench::new();
    let root = bench.root();
    let name = std::ffi::OsStr::from_bytes(b"a\n\x1b[2J\xff\\.pem");
    fs::write(root.join(name), key()).unwrap();
    bench.import(&root).unwrap();
    let report = refused(&bench);
    let path = "/a\\x0a\\x1b[2J\\xff\\\\.pem";
    assert_eq!(places(&report.findings), [("private-key", path)]);
    assert!(bench.store.allow("web", "private-key", path, &By::default()).unwrap().is_some());
    bench.store.publish("web", None, &By::default()).unwrap();
}

#[test]
fn a_tree_that_is_no_image_is_looked_through_too() {
    let bench = Bench::new();
    let dir = bench.path("files");
    plant(&dir, "etc/app.conf", &format!("cert inline\n{}", key()));
    symlink("/nowhere", dir.join("etc/link")).unwrap();
    let found = lint(&dir, bench.dir.path()).unwrap();
    assert_eq!(places(&found), [("private-key", "/etc/app.conf")]);
    run("tar", &["-cf", "files.tar", "-C", "files", "."], bench.dir.path());
    let tar = bench.path("files.tar");
    fs::write(bench.path("files.tar.gz"), gzip(&fs::read(&tar).unwrap())).unwrap();
    for archive in [tar, bench.path("files.tar.gz")] {
        assert_eq!(lint(&archive, bench.dir.path()).unwrap(), found);
    }
    assert!(lint(&bench.path("nothing"), bench.dir.path()).is_err());
}

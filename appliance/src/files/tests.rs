//! Folders as people write them, with their slips.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;

fn facts() -> Facts {
    Facts {
        site: "rack".into(),
        seat: Some("web1".into()),
        role: "web".into(),
        machine: "m01".into(),
        hostname: "web1".into(),
        domain: "dc.example".into(),
        address: Some([10, 77, 0, 11].into()),
        addresses: BTreeMap::from([("svc".to_string(), [10, 20, 0, 21].into())]),
        args: BTreeMap::from([("id".to_string(), "100".to_string())]),
    }
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }
    dir
}

fn good(path: &Path) -> Files {
    let found = read(path);
    assert_eq!(found.bad, [], "{:?}", found.bad);
    let source = crate::site::Source::new("site.toml".into(), "site.toml".into(), String::new(), 0);
    let folder = At::new(path.to_path_buf(), source.origin(0..0));
    Files { folder, digest: found.digest, read: Arc::new(found.folder) }
}

/// Name, mode, content or target.
fn unpacked(archive: &Archive) -> Vec<(String, u32, String)> {
    let tar = zstd::decode_all(archive.bytes.as_ref()).expect("zstd");
    let mut tar = tar::Archive::new(tar.as_slice());
    let entries = tar.entries().expect("a tar").map(|entry| {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        let mode = entry.header().mode().expect("a mode");
        let mut text = String::new();
        match entry.link_name().expect("read") {
            Some(target) => text = format!("-> {}", target.display()),
            None => {
                entry.read_to_string(&mut text).expect("text");
            }
        }
        (path, mode, text)
    });
    entries.collect()
}

#[test]
fn files_as_they_are_and_templates_filled_in() {
    let long = format!("srv/{}/page.html.j2", "n".repeat(120));
    let dir = folder(&[
        ("etc/motd", "hello {{ seat }}\n"),
        ("usr/local/bin/run", "#!/bin/sh\n"),
        (
            "etc/app.conf.j2",
            "{% if args.id %}\nid = {{ args.id }}\n{% endif %}\n{{ seat }} {{ role }} {{ machine }} \
             {{ hostname }}.{{ domain }} {{ address }} {{ addresses.svc }} {{ site }}\n",
        ),
        (&long, "<b>{{ \"<&>\" }}</b>"),
        ("etc/motd~", "an editor's"),
        (".git/config", "[core]"),
    ]);
    symlink("/usr/share/zoneinfo/UTC", dir.path().join("etc/localtime")).expect("a link");
    let run = dir.path().join("usr/local/bin/run");
    fs::set_permissions(run, fs::Permissions::from_mode(0o4775)).expect("set");
    fs::set_permissions(dir.path().join("etc/motd"), fs::Permissions::from_mode(0o664))
        .expect("set");
    let files = good(dir.path());
    assert_eq!(files.read.to_string(), "5 files, 225 bytes, 2 of them templates");
    let archives = files.archives(&facts()).expect("filled in");
    let [fixed, filled] = &archives[..] else { panic!("{archives:?}") };
    assert_eq!(
        unpacked(fixed),
        [
            ("etc/localtime".into(), 0o755, "-> /usr/share/zoneinfo/UTC".into()),
            ("etc/motd".into(), 0o644, "hello {{ seat }}\n".into()),
            ("usr/local/bin/run".into(), 0o755, "#!/bin/sh\n".to_string()),
        ]
    );
    let filled_in = unpacked(filled);
    let conf = "id = 100\nweb1 web m01 web1.dc.example 10.77.0.11 10.20.0.21 rack\n";
    assert_eq!(filled_in[0], ("etc/app.conf".to_string(), 0o644, conf.to_string()));
    assert_eq!(filled_in[1].0, long.trim_end_matches(".j2"));
    assert_eq!(filled_in[1].2, "<b><&></b>", "a configuration file is no HTML");
    // The same files, the same bytes; another seat shares what is not filled in.
    assert_eq!(good(dir.path()).archives(&facts()).expect("again"), archives);
    let other = Facts { seat: Some("web2".into()), ..facts() };
    let others = files.archives(&other).expect("filled in");
    assert!(others[0] == archives[0] && others[1] != archives[1]);
    let before = files.digest;
    fs::write(dir.path().join("etc/motd"), "hello {{ seat }}!").expect("written");
    assert_ne!(good(dir.path()).digest, before);
}

#[test]
fn a_mistake_has_its_file_and_line() {
    let says = |name: &str, text: &str| {
        let dir = folder(&[(name, text)]);
        let found = read(dir.path());
        let Some(bad) = found.bad.first().cloned() else {
            let folder = At::new(dir.path().into(), good(dir.path()).folder.origin);
            let files = Files { folder, digest: found.digest, read: Arc::new(found.folder) };
            let bad = files.archives(&facts()).expect_err(text);
            return bad.to_string().replace(&dir.path().display().to_string(), "");
        };
        bad.to_string().replace(&dir.path().display().to_string(), "")
    };
    let large = format!("{{% for a in range(2000) %}}{}{{% endfor %}}", "x".repeat(10_000));
    let table = [
        ("a.j2", "one\n{{ seat", "/a.j2:2: syntax error"),
        ("etc/a.j2", "one\ntwo\n{{ args.nothing }}\n", "/etc/a.j2:3: undefined value"),
        ("a.j2", "{{ hostnam }}", "/a.j2:1: undefined value"),
        ("a.j2", "{{ seat|nofilter }}", "/a.j2:1: unknown filter"),
        ("a.j2", "{% include \"b\" %}", "/a.j2:1: "),
        (
            "a.j2",
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
            "too many steps",
        ),
        ("a.j2", &large, "larger than 16 MiB"),
        ("run/a", "", "/run: /run is mounted over"),
    ];
    for (name, text, word) in table {
        let said = says(name, text);
        assert!(said.contains(word), "{text}: {said}");
    }
}

#[test]
fn what_is_no_file_and_what_is_too_much() {
    let dir = folder(&[("a", ""), ("a.j2", "")]);
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
    let said = read(dir.path()).bad.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(said.contains("there twice") && said.contains("neither a file"), "{said}");
    let large = folder(&[]);
    for name in ["one", "two"] {
        let file = fs::File::create(large.path().join(name)).expect("made");
        file.set_len(9 << 20).expect("sized");
    }
    let found = read(large.path());
    assert!(found.bad[0].what.contains("larger than 16 MiB together"), "{:?}", found.bad);
    let found = read(&large.path().join("nothing"));
    assert!(found.bad[0].what.contains("does not exist"), "{:?}", found.bad);
    // An empty folder is one.
    let empty = folder(&[]);
    assert_eq!(good(empty.path()).archives(&facts()).expect("nothing"), []);
}

/// Whoever reaches the provisioning network can fetch them.
#[test]
fn a_secret_is_refused() {
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n-----END OPENSSH PRIVATE KEY-----\n";
    let shadow = "root:$6$saltsalt$QKVyzZVEhzdNyHWcTJMrl2MNJ5JLFh0WvSh3cHLJNSy4EYrcmS6g6kzb8CmdWo0QWtZ0P0PyUtWpTwVYNwNDt/:19000:0:99999:7:::\n";
    for (name, text) in [("etc/ssh/ssh_host_ed25519_key", key), ("etc/shadow", shadow)] {
        let dir = folder(&[(name, text)]);
        let bad = read(dir.path()).bad;
        assert!(!bad.is_empty() && bad[0].path == dir.path().join(name), "{name}: {bad:?}");
    }
    let dir = folder(&[(".git/key", key), ("etc/motd", "hello")]);
    assert_eq!(read(dir.path()).bad, []);
}

//! A machine that runs, played: what it lists and sends becomes the next version.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read};

use koboshi_images::{Chosen, Digest, Error, Fault, ImportOptions, Live, Store};
use koboshi_initramfs::changes::contents::Contents;
use koboshi_initramfs::changes::listing::{Entry, Kind, Node, Touched, What, Writer};
use koboshi_initramfs::changes::{Header, Manner, PROTOCOL};

use crate::fixture::Bench;
use crate::lint;

/// What a machine says of its root.
#[derive(Clone)]
struct Machine {
    root: Manner,
    names: BTreeMap<String, What>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Machine {
    /// One that booted the newest `web` and changed nothing.
    fn ram(bench: &Bench) -> Machine {
        let names =
            bench.merged("web").into_keys().map(|path| path.trim_start_matches("./").to_owned());
        let names = names.filter(|path| !path.is_empty() && path != ".");
        let names = names.map(|path| (path, What::Same)).collect();
        Machine { root: Manner::Ram, names, files: BTreeMap::new() }
    }

    fn overlay() -> Machine {
        Machine { root: Manner::Overlay, names: BTreeMap::new(), files: BTreeMap::new() }
    }

    fn node(mut self, path: &str, kind: Kind, mode: u32) -> Machine {
        let node = Node {
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 1_700_000_000,
            inode: 0,
            touched: Touched::Since,
            opaque: false,
            sha256: None,
            xattrs: Vec::new(),
        };
        self.names.insert(path.to_owned(), What::Node(node));
        self
    }

    fn file(mut self, path: &str, bytes: &[u8], mode: u32) -> Machine {
        self = self.node(path, Kind::File(bytes.len() as u64), mode);
        self.with(path, |node| node.sha256 = Some(Digest::of(bytes).0));
        self.files.insert(path.to_owned(), bytes.to_vec());
        self
    }

    fn with(&mut self, path: &str, change: impl FnOnce(&mut Node)) {
        match self.names.get_mut(path) {
            Some(What::Node(node)) => change(node),
            other => panic!("{path}: {other:?}"),
        }
    }

    fn says(mut self, path: &str, what: What) -> Machine {
        self.names.insert(path.to_owned(), what);
        self
    }

    fn without(mut self, path: &str) -> Machine {
        self.names.retain(|name, _| name != path && !name.starts_with(&format!("{path}/")));
        self
    }

    fn header(&self) -> Header {
        Header {
            protocol: PROTOCOL,
            image: "web@1".to_owned(),
            key: String::new(),
            root: self.root,
            hostname: "web1".to_owned(),
            boot: String::new(),
            speed: 0,
        }
    }

    fn listing(&self) -> Vec<u8> {
        let (mut writer, mut plain) = (Writer::default(), Vec::new());
        for (path, what) in &self.names {
            writer.put(&Entry { path: path.clone().into_bytes(), what: what.clone() }, &mut plain);
        }
        writer.end(0, &mut plain);
        zstd::encode_all(&plain[..], 3).unwrap()
    }

    fn sends(&self, picks: &[u32]) -> Vec<u8> {
        let nodes: Vec<&String> = self
            .names
            .iter()
            .filter(|(_, what)| matches!(what, What::Node(_)))
            .map(|(path, _)| path)
            .collect();
        let open = |pick: u32| {
            let bytes = self
                .files
                .get(nodes[pick as usize])
                .cloned()
                .ok_or(std::io::ErrorKind::NotFound)?;
            Ok(Box::new(Cursor::new(bytes)) as Box<dyn Read>)
        };
        let mut plain = Vec::new();
        Contents::new(picks.iter().copied(), open).read_to_end(&mut plain).unwrap();
        zstd::encode_all(&plain[..], 3).unwrap()
    }

    /// Everything a commit needs.
    fn live<'s>(&self, store: &'s Store, image: &str, chosen: &Chosen) -> Result<Live<'s>, Error> {
        let mut live = Live::of(store, store.show(image)?, &mut |_| ())?;
        live.list(&self.header(), &self.listing()[..], chosen)?;
        let wanted = live.wanted(None);
        live.fill(&self.sends(&wanted.entries)[..])?;
        Ok(live)
    }
}

fn bench() -> Bench {
    let bench = Bench::new();
    let root = bench.root();
    for (path, text) in [
        ("etc/nginx/nginx.conf", "worker_processes 1;\n"),
        ("etc/nginx/mime.types", "types {}\n"),
        ("usr/share/doc/a/copyright", "a\n"),
        ("usr/share/doc/b/copyright", "b\n"),
        ("etc/old", "old\n"),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    bench.import(&root).unwrap();
    bench
}

fn commit(live: &Live<'_>, onto: Option<&str>, store: &Store) -> Result<String, Error> {
    let onto = onto.map(|onto| store.show(onto)).transpose()?;
    let options = ImportOptions { reason: Some("as on m01".to_owned()), ..Default::default() };
    let done = live.commit("web", onto.as_ref(), "m01", &options, &mut |_| ())?;
    Ok(done.imported.version.to_string())
}

fn fault(result: Result<Live<'_>, Error>) -> String {
    match result.err() {
        Some(Error::Machine { fault, .. }) => fault.to_string(),
        Some(other) => panic!("another error: {other}"),
        None => panic!("it was taken"),
    }
}

#[test]
fn what_changed_in_memory_is_the_next_version() {
    let bench = bench();
    let store = &bench.store;
    let before = bench.merged("web@1");
    let machine = Machine::ram(&bench)
        .file("etc/nginx/nginx.conf", b"worker_processes 8;\n", 0o644)
        .file("etc/nginx/mime.types", b"types {}\n", 0o644)
        .node("srv", Kind::Dir, 0o755)
        .node("srv/www", Kind::Dir, 0o750)
        .file("srv/www/page", b"<h1>new</h1>\n", 0o640)
        .node("srv/www/link", Kind::Symlink(b"page".to_vec()), 0o777)
        .node("var/log", Kind::Dir, 0o755)
        .file("var/log/syslog", b"noise\n", 0o640)
        .node("srv/sock", Kind::Socket, 0o755)
        .says("usr/share/doc/a", What::Covered)
        .without("usr/share/doc/a/copyright")
        .without("etc/old");
    let live = machine.live(store, "web@1", &Chosen::default()).unwrap();
    let left: Vec<_> = live.left_out().iter().map(|(why, many)| (*why, *many)).collect();
    assert_eq!(left, [("logs", 2), ("sockets", 1)]);
    let diff = live.diff().unwrap();
    let mut told: Vec<String> =
        diff.changes.iter().map(|change| format!("{:?} {}", change.what, change.path)).collect();
    let meant = [
        "Removed etc/old",
        "Changed etc/nginx/nginx.conf",
        "Added srv",
        "Added srv/www",
        "Added srv/www/link",
        "Added srv/www/page",
    ];
    told.sort();
    let mut meant = meant.map(str::to_owned).to_vec();
    meant.sort();
    assert_eq!(told, meant, "touched, covered and of /boot is not changed");
    let lines = diff.changes.iter().find_map(|change| change.text.as_deref()).unwrap();
    assert!(
        lines.contains("-worker_processes 1;") && lines.contains("+worker_processes 8;"),
        "{lines}"
    );

    assert_eq!(commit(&live, None, store).unwrap(), "web@2");
    let (one, two) = (store.show("web@1").unwrap(), store.show("web@2").unwrap());
    assert_eq!(two.parent, Some(one.digest));
    assert_eq!(
        two.boot.layers[..1],
        one.boot.layers[..],
        "one layer more, and the others as they are"
    );
    assert_eq!(two.boot.layers.len(), 2);
    assert_eq!(two.boot.kernel, one.boot.kernel);
    let after = bench.merged("web@2");
    assert!(after["srv/www/page"].contains(&Digest::of(b"<h1>new</h1>\n").to_string()));
    assert!(
        after["srv/www/page"].starts_with("Regular 640 ") && after["srv/www"].contains(" 750 ")
    );
    assert!(!after.contains_key("etc/old") && !after.contains_key("var/log/syslog"));
    let same = before.iter().filter(|(path, said)| after.get(*path) == Some(said)).count();
    assert!(same >= before.len() - 4, "{same} of {}", before.len());
    assert!(bench.merged("web@1") == before, "the former one stays");
    let acts = store.log(Some("web")).unwrap().acts;
    let last = acts.last().unwrap();
    assert_eq!((last.act.as_str(), last.reason.as_deref()), ("commit", Some("as on m01")));
}

#[test]
fn an_upper_directory_takes_away_what_it_hides() {
    let bench = bench();
    let mut machine = Machine::overlay()
        .says("etc/nginx", What::Gone)
        .node("usr/share/doc", Kind::Dir, 0o755)
        .node("usr", Kind::Dir, 0o755)
        .node("usr/share", Kind::Dir, 0o755)
        .file("usr/share/doc/new", b"new\n", 0o644)
        .file("etc/old", b"old\n", 0o600);
    machine.with("usr/share/doc", |node| node.opaque = true);
    machine.with("etc/old", |node| {
        node.xattrs = vec![
            (b"security.capability".to_vec(), vec![1, 0, 0, 2]),
            (b"security.selinux".to_vec(), b"x".to_vec()),
        ]
    });
    let live = machine.live(&bench.store, "web", &Chosen::default()).unwrap();
    commit(&live, None, &bench.store).unwrap();
    let after = bench.merged("web@2");
    let below: Vec<&String> =
        after.keys().filter(|path| path.starts_with("usr/share/doc/")).collect();
    assert_eq!(below, ["usr/share/doc/new"]);
    assert!(!after.keys().any(|path| path.starts_with("etc/nginx")));
    assert!(after["etc/old"].contains("600") && after["etc/old"].contains("security.capability"));
    assert!(!after["etc/old"].contains("selinux"));
    assert!(after.contains_key("var/big"));

    // A file where a directory was.
    let machine = Machine::overlay().file("usr/share", b"flat\n", 0o644);
    let live = machine.live(&bench.store, "web@1", &Chosen::default()).unwrap();
    assert_eq!(commit(&live, None, &bench.store).unwrap(), "web@3");
    let after = bench.merged("web@3");
    assert!(after["usr/share"].starts_with("Regular"));
    assert!(!after.keys().any(|path| path.starts_with("usr/share/")));
}

#[test]
fn paths_choose_and_whoever_names_a_log_means_it() {
    let bench = bench();
    let machine = Machine::ram(&bench)
        .file("etc/nginx/nginx.conf", b"worker_processes 8;\n", 0o644)
        .node("var/log", Kind::Dir, 0o755)
        .file("var/log/access.log", b"GET /\n", 0o640)
        .node("srv", Kind::Dir, 0o700)
        .node("srv/www", Kind::Dir, 0o750)
        .file("srv/www/page", b"page\n", 0o640)
        .file("srv/other", b"other\n", 0o640);
    let chosen = |paths: &[&str], all| Chosen {
        paths: paths.iter().map(ToString::to_string).collect(),
        all,
    };
    let paths = |chosen: &Chosen| {
        let live = machine.live(&bench.store, "web", chosen).unwrap();
        let diff = live.diff().unwrap();
        let mut paths: Vec<String> = diff.changes.into_iter().map(|change| change.path).collect();
        paths.sort();
        paths
    };
    assert_eq!(paths(&chosen(&["/etc/nginx/"], false)), ["etc/nginx/nginx.conf"]);
    assert_eq!(paths(&chosen(&["var/log"], false)), ["var/log", "var/log/access.log"]);
    assert_eq!(paths(&chosen(&["/srv/www/page"], false)), ["srv", "srv/www", "srv/www/page"]);
    assert_eq!(paths(&chosen(&[], true)).len(), 7);
    assert_eq!(paths(&chosen(&["/"], false)).len(), 5);
    let none = machine.live(&bench.store, "web", &chosen(&["/opt"], false));
    assert_eq!(fault(none), "nothing has changed at /opt");
}

#[test]
fn what_another_version_changed_too_is_a_conflict() {
    let bench = bench();
    let store = &bench.store;
    let one = Machine::overlay().file("etc/nginx/nginx.conf", b"worker_processes 2;\n", 0o644);
    let live = one.live(store, "web@1", &Chosen::default()).unwrap();
    assert_eq!(commit(&live, None, store).unwrap(), "web@2");

    let other = Machine::overlay().file("srv/page", b"page\n", 0o644).says("etc/old", What::Gone);
    let live = other.live(store, "web@1", &Chosen::default()).unwrap();
    assert_eq!(commit(&live, Some("web@2"), store).unwrap(), "web@3");
    let merged = bench.merged("web@3");
    assert!(merged.contains_key("srv/page") && !merged.contains_key("etc/old"));
    let meant = Digest::of(b"worker_processes 2;\n").to_string();
    assert!(merged["etc/nginx/nginx.conf"].contains(&meant), "what the other one changed stays");
    assert_eq!(store.show("web@3").unwrap().parent, Some(store.show("web@2").unwrap().digest));

    for quarrel in [
        Machine::overlay().file("etc/nginx/nginx.conf", b"worker_processes 4;\n", 0o644),
        Machine::overlay().says("etc/nginx", What::Gone),
        Machine::overlay().file("etc/nginx", b"flat\n", 0o644),
    ] {
        let live = quarrel.live(store, "web@1", &Chosen::default()).unwrap();
        match commit(&live, Some("web@3"), store) {
            Err(Error::Conflict { paths, theirs, .. }) => {
                assert_eq!(theirs, "web@3");
                assert!(paths.iter().any(|path| path.starts_with("/etc/nginx")), "{paths:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    // Who made the first change sees that it is in the newer version.
    let live = one.live(store, "web@1", &Chosen::default()).unwrap();
    let held = |image: &str| live.held_by(&store.show(image).unwrap(), &mut |_| ()).unwrap();
    assert_eq!(held("web@3"), ["/etc/nginx/nginx.conf"]);
    assert_eq!(held("web@1"), Vec::<String>::new());
    // Both have taken it away.
    let agreed = Machine::overlay().says("etc/old", What::Gone).file("srv/two", b"2", 0o644);
    let live = agreed.live(store, "web@1", &Chosen::default()).unwrap();
    assert_eq!(commit(&live, Some("web@3"), store).unwrap(), "web@4");
    let nothing = Machine::overlay().live(store, "web@1", &Chosen::default()).unwrap();
    assert!(matches!(commit(&nothing, None, store), Err(Error::NothingChanged(_))));
}

#[test]
fn a_machine_that_lies_makes_no_version() {
    let bench = bench();
    let store = &bench.store;
    let all = Chosen::default();
    let unknown = Machine::overlay().says("etc/never", What::Same);
    assert!(fault(unknown.live(store, "web", &all)).contains("booted something else"));
    let out = Machine::overlay().file("../../evil", b"x", 0o644);
    assert!(fault(out.live(store, "web", &all)).contains("outside the image"));
    let mut grown = Machine::overlay().file("srv/a", b"aaaa", 0o644).file("srv/b", b"bbbb", 0o644);
    grown.files.insert("srv/a".to_owned(), b"aaaaaaaaaa".to_vec());
    assert!(fault(grown.live(store, "web", &all)).contains("`srv/a` changed while it was read"));
    grown.files.insert("srv/a".to_owned(), b"AAAA".to_vec());
    assert!(fault(grown.live(store, "web", &all)).contains("`srv/a` changed while it was read"));
    grown.files.remove("srv/a");
    assert!(fault(grown.live(store, "web", &all)).contains("`srv/a` changed while it was read"));

    let machine = Machine::overlay().file("srv/a", b"aaaa", 0o644).file("var/log/x", b"x", 0o644);
    let mut live = Live::of(store, store.show("web").unwrap(), &mut |_| ()).unwrap();
    let listing = machine.listing();
    for cut in [0, listing.len() / 2, listing.len() - 1] {
        assert!(live.list(&machine.header(), &listing[..cut], &all).is_err(), "{cut}");
    }
    live.list(&machine.header(), &listing[..], &all).unwrap();
    assert!(live.diff().is_ok(), "without contents there are no lines");
    assert!(commit(&live, None, store).is_err(), "and no version");
    // Entry 1 was not asked for.
    match live.fill(&machine.sends(&[1])[..]) {
        Err(Error::Machine { fault: Fault::Malformed { what }, .. }) => {
            assert!(what.contains("nobody asked"))
        }
        other => panic!("{other:?}"),
    }
    let sent = machine.sends(&live.wanted(None).entries);
    assert!(live.fill(&sent[..sent.len() - 1]).is_err());
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn secrets_are_found_before_there_is_a_version() {
    let bench = bench();
    let machine = Machine::overlay().file("srv/key", lint::key().as_bytes(), 0o600);
    let live = machine.live(&bench.store, "web", &Chosen::default()).unwrap();
    let report = live.lint("web").unwrap();
    assert!(report.stops() && report.findings[0].path == "/srv/key", "{report:?}");
    let clean = Machine::overlay().file("srv/page", b"page\n", 0o644);
    let live = clean.live(&bench.store, "web", &Chosen::default()).unwrap();
    assert!(!live.lint("web").unwrap().stops());
}

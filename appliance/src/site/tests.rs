//! Whole site files: good ones read as they are meant, bad ones say everything that is wrong.

use std::net::Ipv4Addr;
use std::path::Path;

use super::*;

/// A machine with eth1 and nothing else.
pub(crate) fn eth1(interface: &str) -> Vec<(Ipv4Addr, u8)> {
    match interface {
        "eth1" => vec![(Ipv4Addr::new(10, 77, 0, 1), 24)],
        _ => Vec::new(),
    }
}

pub(crate) fn load_text(text: &str) -> Result<Site, Problems> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("site.toml");
    std::fs::write(&path, text).unwrap();
    load(&path, &Env { interface_network: &eth1, purpose: Purpose::Serve })
}

pub(crate) fn site(text: &str) -> Site {
    load_text(text).unwrap_or_else(|problems| panic!("{}", problems.render(Look::Plain)))
}

fn data() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/site")
}

/// `KOBOSHI_BLESS=1` writes what is said now into the expected texts; read the difference before it is kept.
#[test]
fn every_bad_file_says_everything_that_is_wrong() {
    let bless = std::env::var_os("KOBOSHI_BLESS").is_some();
    let mut files: Vec<_> = std::fs::read_dir(data().join("bad"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    files.sort();
    assert!(files.len() >= 16, "the bad files are gone: {files:?}");
    let mut wrong = Vec::new();
    for path in files {
        let problems = load(&path, &Env { interface_network: &eth1, purpose: Purpose::Serve })
            .expect_err(&format!("{} is bad", path.display()));
        let folder = format!("{}/", path.parent().unwrap().display());
        let said = problems.render(Look::Plain).replace(&folder, "");
        let expected = path.with_extension("txt");
        if bless {
            std::fs::write(&expected, &said).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{} says:\n{said}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_whole_format_reads_as_it_is_meant() {
    let site = load(
        &data().join("good/design.toml"),
        &Env { interface_network: &eth1, purpose: Purpose::Serve },
    );
    let site = site.unwrap_or_else(|problems| panic!("{}", problems.render(Look::Plain)));
    assert!(site.warnings.is_empty(), "{}", site.warnings);
    assert_eq!((site.name.as_str(), site.domain.as_deref()), ("fukuoka-1", Some("dc.example")));
    assert_eq!(site.files.len(), 2);
    assert_eq!((site.machines.len(), site.seats.len(), site.matrix.len()), (8, 5, 6));

    let name = |text: &str| text.parse::<MachineName>().unwrap();
    let m01 = &site.machines[&name("m01")];
    let (seat, web1) = site.seat_of(&name("m01")).unwrap();
    assert_eq!(
        (seat.as_str(), web1.ip.as_ref().unwrap().to_string()),
        ("web1", "10.77.0.11".into())
    );
    let args: Vec<String> = web1.args.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(args, ["debug=true", "id=100", "n=3"]);
    assert_eq!(m01.boot_nic(), Some("eno1"));
    let bmc = m01.bmc.as_ref().unwrap();
    assert_eq!((bmc.host.as_str(), bmc.cipher), ("10.78.0.11", Cipher::Suite(17)));
    assert_eq!(bmc.quirks, ["sol-port"]);
    assert_eq!(bmc.password.as_ref().unwrap().value, Secret::File(data().join("good/bmc.pw")));
    let m02 = site.machines[&name("m02")].bmc.as_ref().unwrap();
    assert_eq!(m02.user.as_ref().unwrap().value, "root");
    let (mac, whose) = site.by_bmc_mac.first_key_value().unwrap();
    assert_eq!((mac.to_string().as_str(), whose.as_str()), ("52:54:00:78:00:12", "m02"));

    // S24: the machine's word, its class's, the role's, or the usual one.
    let web = &site.roles["web"];
    let db = &site.roles["db"];
    let serial = |machine: &str, role: &Role| {
        let resolved = site.serial(site.machines.get(machine).map(|m| &m.value), Some(role));
        let line = resolved.origin.map(ToString::to_string).unwrap_or_default();
        format!("{} {line}", resolved.value)
    };
    assert_eq!(serial("m01", web), "ttyS1,115200 design.toml:48");
    assert_eq!(serial("m03", web), "ttyS0,9600 design.toml:72");
    assert_eq!(serial("m02", web), "ttyS0,57600 design.toml:58");
    assert_eq!(serial("m02", db), "ttyS0,115200 ");
    assert_eq!(site.loader(Some(m01), Some(web)).value, Some("snponly.efi"));
    assert_eq!(site.loader(site.machines.get("m02").map(|m| &m.value), Some(web)).value, None);

    // Host-list keys, and what `{n}` makes of them.
    let m05 = &site.machines[&name("m05")];
    assert_eq!(m05.macs[0].to_string(), "52:54:00:77:00:05");
    assert_eq!(m05.bmc.as_ref().unwrap().host.value, "10.78.0.15");
    let (front, seat) = site.seat_of(&name("m04")).unwrap();
    assert_eq!(
        (front.as_str(), seat.ip.as_ref().unwrap().to_string()),
        ("front04", "10.79.0.4".into())
    );
    assert_eq!(site.matrix[&name("m05")].value, Place::Spare);
    assert_eq!(site.matrix[&name("m05")].origin.to_string(), "design.toml:90");

    // Who is who, and which line says so.
    let mac = "52-54-00-77-01-02".parse().unwrap();
    let (found, machine) = site.machine_by_mac(mac).unwrap();
    assert_eq!((found.as_str(), machine.origin.to_string()), ("m02", "design.toml:71".into()));
    assert_eq!(site.by_mac[&mac].origin.column(), 37);
    let (holder, _) = site.machine_of(&"far".parse().unwrap()).unwrap();
    assert_eq!(holder.as_str(), "m90");
    assert_eq!(site.matrix[holder].origin.to_string(), "machines.d/rack9.toml:9");
    assert_eq!(site.by_address[&Ipv4Addr::new(10, 77, 0, 21)].as_str(), "db1");
    assert_eq!(site.net.unknown_at.as_ref().unwrap().origin.to_string(), "design.toml:18");
    let menu = site.net.menu.as_ref().unwrap();
    assert_eq!(
        (menu[0].value.as_str(), menu[0].origin.to_string().as_str()),
        ("rescue", "machines.d/rack9.toml:12")
    );
    let images: Vec<String> =
        site.images_used().iter().map(|(image, at)| format!("{image} {at}")).collect();
    assert_eq!(images, ["db@3 design.toml:61", "rescue design.toml:65", "web design.toml:54"]);

    let consoles = &site.consoles;
    assert_eq!(
        (consoles.log_size, consoles.idle.as_secs(), consoles.keystrokes),
        (8 << 20, 300, true)
    );
    let raid = &consoles.watch[0];
    assert_eq!(
        (raid.level, raid.origin.to_string().as_str()),
        (koboshi_console::watch::Level::Error, "machines.d/rack9.toml:19")
    );
    assert_eq!(raid.machines.as_ref().unwrap(), &[name("m90"), name("m01")]);

    // Subnets: the shorthand first; the others take its name servers.
    assert_eq!(site.subnets.len(), 3);
    assert_eq!(site.subnets[0].own, Some(Ipv4Addr::new(10, 77, 0, 1)));
    assert_eq!(site.subnets[0].options[&43].value.0, [1, 4, 10, 77, 0, 1]);
    assert_eq!(site.subnets[1].reach, Reach::Relay(vec![Ipv4Addr::new(10, 79, 0, 1)]));
    assert_eq!(site.subnets[1].dns, [Ipv4Addr::new(10, 77, 0, 1)]);
    assert_eq!(site.subnets[1].routes.len(), 2);
    assert_eq!(site.subnets[2].kind, Kind::Bmc);
    assert_eq!(site.subnet_of(Ipv4Addr::new(10, 79, 0, 4)).unwrap().mtu, Some(9000));

    // WHO.
    let who = |text: &str| site.who(text).map(hostlist::fold).map_err(|nobody| nobody.to_string());
    assert_eq!(who("@most").as_deref(), Ok("m[01-05],vm1"));
    assert_eq!(who("@web").as_deref(), Ok("m[01,03-04,90]"));
    assert_eq!(who("db1,m01,m02").as_deref(), Ok("m[01-02]"));
    assert_eq!(who("@all!@rack2").as_deref(), Ok("m[01-02,90],sw1"));
    assert_eq!(
        who("m0l").unwrap_err(),
        "\"m0l\" is neither a machine nor a seat; did you mean \"m01\"?"
    );
    assert!(who("@racks").unwrap_err().contains("did you mean \"rack1\"?"));

    let json = serde_json::to_value(&site).unwrap();
    assert_eq!(json["matrix"]["m05"], "spare");
    assert_eq!(json["subnets"][0]["cidr"], "10.77.0.0/24");
    assert_eq!(json["machines"]["m01"]["console"], "sol");
}

#[test]
fn the_keys_that_the_whole_format_leaves_out_are_known_too() {
    let text = std::fs::read_to_string(data().join("good/design.toml")).unwrap();
    let text = text.replace("machines.d/*", "none/*");
    for (from, to) in [
        ("[site]", "[site]\nloaders = \"/srv/loaders\""),
        ("user = \"admin\"", "user = \"admin\"\nkg-file = \"kg\"\nport = 624\ncipher = \"auto\""),
        ("password-file = \"bmc.pw\"", "password-env = \"PW\""),
        ("user = \"root\"", "user = \"root\", target = 4"),
        (
            "http-port",
            "domain = \"pxe.example\"\nmtu = 1500\nroutes = []\nkind = \"boot\"\nhttp-port",
        ),
        ("cmdline = \"quiet\"", "loader = \"ipxe.efi\""),
        (
            "[classes.r640]",
            "[classes.r640]\nconsole = \"exec:x\"\nfence = \"bmc\"\npower = \"exec:x\"\nquirks = \"a\"\nprotected = true",
        ),
        ("vlan = 20", "vlan = 20\nmtu = 9000"),
        ("svc = { ip = \"10.20.0.21\", on = \"bond0\" }", "svc = \"10.20.0.21\""),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from} is there");
        site(&changed);
    }
}

#[test]
fn logs_of_machines_are_received_and_bounded_unless_the_site_says_otherwise() {
    let plain = site(SMALL);
    assert_eq!((plain.net.syslog, plain.net.netconsole), (Some(514), None));
    assert_eq!((plain.logs.size, plain.logs.total), (16 << 20, 4 << 30));
    let net = SMALL.replace("eth1\"\n", "eth1\"\nsyslog = 0\nnetconsole = 6666\n");
    let own = site(&format!("{net}[logs]\nsize = \"1m\"\ntotal = \"64m\"\n"));
    assert_eq!((own.net.syslog, own.net.netconsole), (None, Some(6666)));
    assert_eq!((own.logs.size, own.logs.total), (1 << 20, 64 << 20));
    let less = errors(&format!("{SMALL}[logs]\ntotal = \"1m\"\nsizes = 1\n"));
    assert!(less.contains("total is less than the size that one machine's"), "{less}");
    assert!(less.contains("sizes"), "{less}");
}

const SMALL: &str = "[net]\ninterface = \"eth1\"\n[roles.web]\nimage = \"web\"\n";

fn errors(text: &str) -> String {
    match load_text(text) {
        Ok(site) => format!("fine: {}", site.warnings),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn whatever_an_editor_leaves_in_the_file() {
    let machine = "[machines]\nm01 = { mac = \"52:54:00:77:00:01\" }\n";
    let text = format!("{SMALL}{machine}");
    assert_eq!(site(&format!("\u{feff}{text}")).machines.len(), 1, "a byte order mark");
    let crlf = site(&text.replace('\n', "\r\n"));
    assert_eq!(crlf.machines.values().next().unwrap().origin.to_string(), "site.toml:6");
    assert_eq!(errors(""), "fine: ");

    let bad = |bytes: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.toml");
        std::fs::write(&path, bytes).unwrap();
        load(&path, &Env { interface_network: &eth1, purpose: Purpose::Serve })
            .unwrap_err()
            .to_string()
    };
    let nuls = [text.as_bytes(), &[0; 4096]].concat();
    assert!(
        bad(&nuls).starts_with("site.toml:7:1: the file holds NUL bytes, the first at offset"),
        "{}",
        bad(&nuls)
    );
    let latin = b"[site]\nname = \"F\xfcrth\"\n";
    assert!(
        bad(latin).starts_with("site.toml:2:10: this is not UTF-8 text (byte 0xfc at offset 16)"),
        "{}",
        bad(latin)
    );
    assert_eq!(errors("[site]\nname = \"a\\u0000b\""), "site.toml:2:8: name holds a NUL character");
    assert!(bad(&vec![0xff; 100_000]).contains("not UTF-8"));
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let env = Env { interface_network: &eth1, purpose: Purpose::Serve };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("site.toml");
    let said = || load(&path, &env).unwrap_err().to_string();
    assert!(said().ends_with("site.toml does not exist"), "{}", said());
    std::fs::create_dir(&path).unwrap();
    assert!(said().ends_with("is a folder, not a regular file"), "{}", said());
    std::fs::remove_dir(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(said().contains("a pipe, not a regular file"), "{}", said());
    std::fs::remove_file(&path).unwrap();
    // 100 MB that take no room on the disk, and must take none in memory.
    std::fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    assert!(said().ends_with("is larger than 16 MiB"), "{}", said());
    let text = load(&path, &env).unwrap_err().render(Look::Plain);
    assert!(text.contains("is larger than 16 MiB"), "{text}");
}

#[test]
fn deep_nesting_ends_in_an_error() {
    let key = vec!["a"; 79].join(".");
    for text in [
        format!("a = {}", "[".repeat(10_000)),
        format!("a = {}", "{a=".repeat(10_000)),
        format!("[{}]", vec!["a"; 100_000].join(".")),
        format!("{} = 1", vec!["a"; 100_000].join(".")),
        // Each within its own bound, together 6,000 tables deep.
        format!("{key}={}1{}", format!("{{{key}=").repeat(78), "}".repeat(78)),
    ] {
        assert!(!errors(&text).starts_with("fine"), "{}", &text[..20]);
    }
}

#[test]
fn a_file_of_errors_is_cut_short() {
    let many: String = (0..5000).map(|n| format!("x{n} = 1\n")).collect();
    let problems = load_text(&many).unwrap_err();
    assert_eq!((problems.len(), problems.dropped()), (1000, 4000));
    let text = problems.render(Look::Plain);
    assert!(text.contains("… and 4940 more\n1000 errors"), "{}", &text[text.len() - 100..]);
    let line = format!(
        "{SMALL}[machines]\nm01 = {{ mac = \"52:54:00:77:00:01\", x = \"{}\" }}",
        "y".repeat(1 << 20)
    );
    assert!(
        load_text(&line).unwrap_err().render(Look::Plain).len() < 5000,
        "a long line is clipped"
    );
    let escape = "[site]\nbell = \"\u{1b}[2J\"\n";
    assert!(!load_text(escape).unwrap_err().render(Look::Plain).contains('\u{1b}'));
}

#[test]
fn secrets_are_not_repeated() {
    let problems = load(
        &data().join("bad/secret.toml"),
        &Env { interface_network: &eth1, purpose: Purpose::Serve },
    )
    .unwrap_err();
    let json = serde_json::to_string(&problems).unwrap();
    for said in
        [problems.to_string(), problems.render(Look::Plain), problems.render(Look::Fancy(80)), json]
    {
        assert!(!said.contains("hunter2") && !said.contains("b3BlbnNza"), "{said}");
    }
}

#[test]
fn programs_get_the_same_as_json() {
    let problems = load_text("[site]\nnmae = \"x\"\n").unwrap_err();
    let json = serde_json::to_value(&problems).unwrap();
    let one = &json[0];
    assert!(one["file"].as_str().unwrap().ends_with("/site.toml"));
    assert_eq!(
        (&one["line"], &one["column"], &one["severity"]),
        (&2.into(), &1.into(), &"error".into())
    );
    assert_eq!(
        (&one["code"], &one["message"]),
        (&"unknown-key".into(), &"[site] has no key \"nmae\"".into())
    );
    assert_eq!(
        (&one["label"], &one["help"]),
        (&"unknown key".into(), &"did you mean \"name\"?".into())
    );
}

#[test]
fn looking_at_a_site_of_another_machine_only_warns() {
    let text =
        SMALL.replace("eth1", "eth9") + "[seats]\nw = { role = \"web\", ip = \"10.1.2.3\" }\n";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("site.toml");
    std::fs::write(&path, &text).unwrap();
    let env = |purpose| Env { interface_network: &eth1, purpose };
    assert!(load(&path, &env(Purpose::Serve)).is_err());
    let site = load(&path, &env(Purpose::Check)).unwrap();
    assert_eq!(site.warnings.len(), 1, "{}", site.warnings);
    std::fs::write(&path, text.replace("[roles", "cidr = \"10.1.2.0/24\"\n[roles")).unwrap();
    let site = load(&path, &env(Purpose::Check)).unwrap();
    assert_eq!((site.subnets.len(), site.subnets[0].own), (1, None));
}

#[test]
fn this_machine_is_asked_for_its_addresses() {
    assert_eq!(load::system_networks("lo"), [(Ipv4Addr::LOCALHOST, 8)]);
    assert!(load::system_networks("no-such-nic").is_empty());
}

#[test]
fn strangers_need_a_pool() {
    let text = SMALL.replace("eth1\"", "eth1\"\nunknown = \"discover\"");
    let text = format!("{text}\n[roles.rescue]\nimage = \"rescue\"\n");
    assert!(
        errors(&text).starts_with("fine: site.toml:3:11: warning: machines we do not know"),
        "{}",
        errors(&text)
    );
    let pool = text.replace("discover\"", "discover\"\npool = \"10.77.0.8-10.77.0.9\"");
    assert_eq!(errors(&pool), "fine: ");
}

#[test]
fn a_bmc_has_no_seats_address() {
    let text = format!(
        "{SMALL}[seats]\nw = {{ role = \"web\", ip = \"10.77.0.7\" }}\n[machines]\nm = {{ bmc = \"10.77.0.7\" }}\n"
    );
    assert_eq!(errors(&text), "site.toml:8:13: BMC 10.77.0.7 of m has the address of seat w");
}

#[test]
fn beside_another_dhcp_server_a_seat_needs_no_address() {
    let seat = "[seats]\nw = { role = \"web\" }\n";
    assert_eq!(
        errors(&format!("{SMALL}{seat}")),
        "site.toml:6:1: seat w has no ip (ip = \"ADDRESS\"; only beside somebody else's DHCP server (mode = \"proxy\") it may be left out)"
    );
    let proxy = SMALL.replace("eth1\"", "eth1\"\nmode = \"proxy\"");
    assert_eq!(errors(&format!("{proxy}{seat}")), "fine: ");
}

#[test]
fn an_image_that_is_missing_is_said_like_everything_else() {
    let site = site(SMALL);
    let (image, origin) = site.images_used().remove(0);
    let problems = Problems::from(image_missing(&image, &origin, &["wep".to_string()]));
    let text = problems.render(Look::Plain);
    assert!(text.contains("x image web does not exist\n   ,-[site.toml:4:9]\n"), "{text}");
    assert!(text.contains("did you mean \"wep\"?"), "{text}");
}

#[test]
fn names_over_several_files_are_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("m.d");
    std::fs::create_dir(&folder).unwrap();
    let main = dir.path().join("site.toml");
    std::fs::write(&main, format!("[site]\nname = \"a\"\ninclude = [\"m.d/*.toml\", \"m.d/b.toml\", \"none/*.toml\"]\n{SMALL}[machines]\nm01 = {{}}\n")).unwrap();
    std::fs::write(
        folder.join("a.toml"),
        "[site]\nname = \"b\"\n[machines]\nm01 = {}\n[net]\ninterface = \"eth2\"\n",
    )
    .unwrap();
    std::fs::write(folder.join("b.toml"), "[machines]\nm02 = {}\n").unwrap();
    std::fs::write(folder.join(".hidden.toml"), "broken =").unwrap();
    let env = Env { interface_network: &eth1, purpose: Purpose::Serve };
    let problems = load(&main, &env).unwrap_err();
    let said: Vec<String> = problems
        .iter()
        .map(|problem| format!("{} {}, {}", problem.origin, problem.message, problem.related[0].1))
        .collect();
    assert_eq!(
        said,
        [
            "m.d/a.toml:2 the site's name is set twice, site.toml:2",
            "m.d/a.toml:4 machine m01 is written twice, site.toml:9",
            "m.d/a.toml:6 interface is set twice, site.toml:5",
        ]
    );
    std::fs::write(folder.join("a.toml"), "[machines]\nm03 = {}\n").unwrap();
    let site = load(&main, &env).unwrap();
    assert_eq!((site.machines.len(), site.files.len()), (3, 3));
    let watched: Vec<_> =
        site.watched.folders.iter().filter(|folder| folder.starts_with(dir.path())).collect();
    assert_eq!(watched, [dir.path(), &folder, &dir.path().join("none")]);
    assert!(site.watched.concerns(&folder.join("new.toml")));
    assert!(!site.watched.concerns(&folder.join(".new.toml")));
    assert!(!site.watched.concerns(&folder.join("deep/new.toml")));
}

#[test]
fn a_half_saved_file_is_an_error_or_a_smaller_site() {
    let text = std::fs::read_to_string(data().join("good/design.toml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("site.toml");
    let env = Env { interface_network: &eth1, purpose: Purpose::Serve };
    let mut fine = 0;
    for end in 0..=text.len() {
        std::fs::write(&path, &text.as_bytes()[..end]).unwrap();
        match load(&path, &env) {
            Ok(site) => fine += usize::from(site.machines.len() <= 7),
            // A few are drawn as well, all would take a minute.
            Err(problems) if end % 23 == 0 => assert!(!problems.render(Look::Plain).is_empty()),
            Err(problems) => assert!(problems.has_errors()),
        }
    }
    assert!(
        fine > 0,
        "a cut at the end of a line is valid TOML: that is what the rules of reload are for"
    );
}

mod mutated {
    use super::*;
    use proptest::prelude::*;

    fn files() -> Vec<String> {
        let mut all = vec![std::fs::read_to_string(data().join("good/design.toml")).unwrap()];
        for entry in std::fs::read_dir(data().join("bad")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                all.push(std::fs::read_to_string(path).unwrap());
            }
        }
        all.sort();
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_change_of_any_byte_is_survived(
            which in any::<proptest::sample::Index>(),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
            ) {
            let files = files();
            let mut bytes = which.get(&files).clone().into_bytes();
            for (at, byte, how) in changes {
                if bytes.len() < 2 {
                    break;
                }
                let at = at.index(bytes.len());
                let piece = [b"[".as_slice(), b"{n}", b"\"", b"\n", b"=", b",", b"{", b"}", b"0", b"."][usize::from(byte) % 10];
                match how {
                    0 => bytes[at] = byte,
                    1 => drop(bytes.remove(at)),
                    2 => drop(bytes.splice(at..at, piece.iter().copied())),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("site.toml");
            std::fs::write(&path, &bytes).unwrap();
            if let Err(problems) = load(&path, &Env { interface_network: &eth1, purpose: Purpose::Check }) {
                prop_assert!(problems.has_errors());
                let _ = problems.render(Look::Plain);
                let _ = serde_json::to_string(&problems).unwrap();
            }
        }
    }
}

#[test]
fn ten_thousand_machines_are_checked() {
    use std::fmt::Write;
    let mut text = String::from(
        "[net]\ninterface = \"eth1\"\ncidr = \"10.64.0.0/10\"\n[roles.web]\nimage = \"web\"\n[classes.c]\nserial = \"ttyS1,115200\"\n",
    );
    let (mut machines, mut seats, mut matrix) =
        (String::from("[machines]\n"), String::from("[seats]\n"), String::from("[matrix]\n"));
    for n in 0..10_000 {
        let (high, low) = (n / 250, n % 250 + 2);
        writeln!(machines, "m{n:05} = {{ class = \"c\", mac = [\"52:54:00:77:{high:02x}:{low:02x}\"], bmc = \"10.20.{high}.{low}\", console = \"sol\" }}").unwrap();
        writeln!(
            seats,
            "web{n} = {{ role = \"web\", ip = \"10.77.{high}.{low}\", args = {{ id = \"{n}\" }} }}"
        )
        .unwrap();
        writeln!(matrix, "m{n:05} = \"web{n}\"").unwrap();
    }
    text += &(machines + &seats + &matrix);
    let began = std::time::Instant::now();
    let site = site(&text);
    println!("10,000 machines, {} kB: {:?}", text.len() >> 10, began.elapsed());
    assert_eq!(
        (site.machines.len(), site.by_mac.len(), site.seated.len()),
        (10_000, 10_000, 10_000)
    );
    let began = std::time::Instant::now();
    let other = super::tests::site(&text.replace("web9999\"", "spare\""));
    let changes = reload::diff(&site, &other);
    println!("read again and compared: {:?}", began.elapsed());
    assert_eq!(changes.moves.len(), 1);
    assert_eq!(reload::judge(&changes, &|_| false), reload::Verdict::Apply);
}

/// What is odd about a BMC's settings is said, and keeps no machine from booting.
#[test]
fn a_bmcs_quirks_and_weak_ciphers_are_told_of() {
    let warned = |bmc: &str| {
        let text = format!(
            "[site]\nname = \"rack\"\n[net]\ninterface = \"eth1\"\npool = \"10.77.0.200-10.77.0.210\"\n\
             [machines]\nm01 = {{ mac = \"52:54:00:77:00:01\", bmc = {{ host = \"10.78.0.1\", {bmc} }} }}\n"
        );
        let site = site(&text);
        let name: MachineName = "m01".parse().unwrap();
        let bmc = site.machines[&name].bmc.clone().unwrap();
        (bmc, site.warnings.iter().map(Problem::whole_message).collect::<Vec<_>>())
    };
    let (bmc, said) = warned("quirks = [\"sol-port\"], cipher = 17, version = \"1.5\"");
    assert_eq!((bmc.version, said), (koboshi_ipmi::Version::V15, Vec::new()));
    let (bmc, said) = warned("quirks = [\"sol-prot\"]");
    assert_eq!(bmc.quirks, ["sol-prot"]);
    assert!(said[0].contains("no BMC has the quirk \"sol-prot\""), "{said:?}");
    for (suite, why) in [
        (0, "asks for no password"),
        (1, "lets anybody on the way switch machines"),
        (2, "sends consoles in the clear"),
        (15, "lets anybody on the way switch machines"),
        (16, "sends consoles in the clear"),
    ] {
        let (bmc, said) = warned(&format!("cipher = {suite}"));
        assert_eq!(bmc.cipher, Cipher::Suite(suite));
        assert!(said.len() == 1 && said[0].contains(why), "{suite}: {said:?}");
    }
    let bad = "[site]\nname = \"rack\"\n[machines]\nm01 = { bmc = { host = \"h\", version = \"3.0\" } }\n";
    assert!(load_text(bad).is_err());
}

/// Files of roles and seats are read with the site: a slip in a template refuses it, by the template's own line,
/// and a change of a file is a change of the site.
#[test]
fn files_are_part_of_the_site() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put(
        "site.toml",
        r#"
[net]
interface = "eth1"
cidr = "10.77.0.0/24"
[roles.web]
image = "web"
files = "files/web"
[machines]
m01 = { mac = ["52:54:00:77:00:01"] }
[seats]
web1 = { role = "web", ip = "10.77.0.11", args = { id = 7 }, files = "files/web1/" }
web2 = { role = "web", ip = "10.77.0.12" }
[matrix]
m01 = "web1"
"#,
    );
    let read = || {
        let env = Env { interface_network: &eth1, purpose: Purpose::Serve };
        load(&dir.path().join("site.toml"), &env)
    };
    let says = |problems: Problems| {
        problems.render(Look::Plain).replace(&dir.path().display().to_string(), "SITE")
    };
    let missing = says(read().unwrap_err());
    assert!(missing.contains("files/web: this folder does not exist"), "{missing}");
    assert!(missing.contains("files/web1/: this folder does not exist"), "{missing}");

    put("files/web/etc/id.j2", "one line\nid = {{ args.id }}\n");
    put("files/web1/etc/motd", "hello\n");
    let bad = says(read().unwrap_err());
    for part in ["SITE/files/web/etc/id.j2", "undefined value", "id = {{ args.id }}", "seat web2"] {
        assert!(bad.contains(part), "{part} in {bad}");
    }
    put("files/web/etc/id.j2", "id = {{ args.id or machine }}\n");
    let site = read().unwrap();
    let role = site.roles.values().next().unwrap();
    assert_eq!(role.files.as_ref().unwrap().read.files, 1);
    assert!(site.watched.concerns(&dir.path().join("files/web/etc/id.j2")));
    assert!(site.watched.concerns(&dir.path().join("files/web1/some/new")));
    assert!(site.watched.folders.contains(&dir.path().join("files/web/etc")));

    assert!(reload::diff(&site, &read().unwrap()).is_empty());
    put("files/web1/etc/motd", "good evening\n");
    let changes = reload::diff(&site, &read().unwrap());
    assert!(changes.to_string().contains("seat web1: files.digest"), "{changes}");
    assert_eq!(reload::judge(&changes, &|_| true), reload::Verdict::Apply);
}

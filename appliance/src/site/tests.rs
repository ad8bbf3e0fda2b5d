//! Whole site files: good ones read as they are meant, bad ones say everything that is wrong.

mod format;
mod mutated;

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

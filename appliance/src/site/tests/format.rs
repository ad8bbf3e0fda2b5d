//! Every key of the format, read as it is meant.

use super::*;

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

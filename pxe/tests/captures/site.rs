//! The rack that was captured (`tests/captures/site.toml`), with images and loaders of a few bytes.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use koboshi_pxe::boots::{Part, Plan};
use koboshi_pxe::content::parse_hex;
use koboshi_pxe::decide::{Entry, Exclusive, Known, Place, Seat, Unknown};
use koboshi_pxe::desk::{Freeze, Kind, Network, Reach, Snapshot};
use koboshi_pxe::dhcp::Subnet;
use koboshi_pxe::script::Uart;
use koboshi_pxe::{BootId, Content, Mac};

use crate::pcap::SERVER;

/// Each machine, and the loader that its site file names. The first has the MAC that ends in 01 and 10.77.0.11.
pub const MACHINES: [(&str, Option<&str>); 10] = [
    ("ipxe-rom", None),
    ("undionly", Some("undionly.kpxe")),
    ("edk2-pxe", None),
    ("edk2-http", None),
    ("snponly", Some("snponly.efi")),
    ("grub", Some("grubnetx64.efi.signed")),
    ("shim", Some("shimx64.efi")),
    ("pxelinux", Some("pxelinux.0")),
    ("syslinux-efi", Some("syslinux.efi")),
    ("udhcpc", None),
];

const LOADERS: [&str; 10] = [
    "undionly.kpxe",
    "ipxe.efi",
    "snponly.efi",
    "grubnetx64.efi.signed",
    "shimx64.efi",
    "grubx64.efi",
    "pxelinux.0",
    "ldlinux.c32",
    "efi64/syslinux.efi",
    "efi64/ldlinux.e64",
];

/// What a file holds: its name again and again, four blocks of 1468 bytes, the last one short. Blobs have two names.
pub fn holds(name: &str) -> Bytes {
    let name = name.find("blob/").and_then(|at| name.get(at..)).unwrap_or(name);
    name.bytes().chain(*b"\n").cycle().take(4500).collect()
}

/// The site, with all the blobs that somebody asks for.
pub fn snapshot(blobs: &[String]) -> Snapshot {
    let mut subnet = Subnet::new(SERVER, Ipv4Addr::new(10, 77, 0, 0), 24);
    subnet.gateway = Some(SERVER);
    subnet.dns = vec![SERVER];
    subnet.domain = Some("rack.example".into());
    let reach = Reach::Wire { interface: "kb0".into() };
    let network = Network { subnet: Arc::new(subnet), reach, kind: Kind::Boot };
    let machines = MACHINES.iter().zip(1..).map(|((name, loader), number)| {
        let mac = Mac([0x52, 0x54, 0, 0x77, 0, number]);
        let seat = Seat {
            name: format!("s{number}"),
            role: "rescue".into(),
            address: Some(Ipv4Addr::new(10, 77, 0, 10 + number)),
            exclusive: Exclusive::Fence,
            trouble: None,
        };
        let (name, place) = (name.to_string(), Place::Seat(seat));
        let loader = loader.map(str::to_string);
        (mac, Arc::new(Known { name, macs: vec![mac], place, loader }))
    });
    let content = |name: &str| Content::Bytes(holds(name));
    Snapshot {
        revision: 1,
        networks: vec![network],
        seats: (11..=20).map(|last| Ipv4Addr::new(10, 77, 0, last)).collect(),
        bmcs: HashMap::new(),
        proxy: false,
        http_port: 8080,
        machines: machines.collect(),
        unknown: Arc::new(Unknown::Ignore),
        menu: None,
        loaders: LOADERS.iter().map(|name| (name.to_string(), content(name))).collect(),
        blobs: blobs
            .iter()
            .map(|hex| (parse_hex(hex).expect("a digest"), content(&format!("blob/sha256/{hex}"))))
            .collect(),
        freeze: Arc::new(Plans),
    }
}

struct Plans;

impl Freeze for Plans {
    fn freeze(
        &self,
        _: Mac,
        entry: &Entry,
        id: BootId,
        address: Ipv4Addr,
        _: &Subnet,
    ) -> Result<Plan, String> {
        let Entry::Known(known) = entry else { return Err("nobody's".into()) };
        let Place::Seat(seat) = &known.place else { return Err("no seat".into()) };
        let part = |name: &str, byte| Part { name: name.into(), sha256: [byte; 32], size: 4500 };
        Ok(Plan {
            machine: known.name.clone(),
            seat: Some(seat.name.clone()),
            role: seat.role.clone(),
            hostname: seat.name.clone(),
            address,
            image: "rescue@1".into(),
            digest: None,
            because: None,
            kernel: part("kernel", 1),
            efi: None,
            segments: vec![part("common", 2), part("orders", 3)],
            roots: vec![part("root", 4)],
            cmdline: format!("koboshi.boot={id} koboshi.seat={}", seat.name),
            revision: 1,
            ticket: None,
            orders: String::new(),
            blobs: Vec::new(),
        })
    }

    fn uart(&self, _: &Entry) -> Option<Uart> {
        Uart::of(0, 115_200)
    }

    fn image(&self, _: &str, _: &str) -> Option<String> {
        Some("rescue@1".into())
    }
}

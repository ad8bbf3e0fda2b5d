//! Whole boots on a clock that nobody waits for, against as much of a server as they need.

use koboshi_pxe::dhcp::options::code;
use koboshi_pxe::dhcp::packet::BOOTREPLY;
use koboshi_pxe::dhcp::{MessageType, Request, Vendor};

use super::*;
use crate::firmware::Firmware;

const SERVER: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 77, 0, 1));
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 4, 0);
const MAC: Mac = Mac([2, 0, 0, 0, 9, 9]);
const LOADER: usize = 30_000;
const SCRIPT: &str = "#!ipxe\nset try:int32 0\nset pause:int32 2\n:again\nimgfree\n\
    kernel http://10.77.0.1:8080/kernel koboshi.server=http://10.77.0.1:8080 koboshi.boot=ab \
    koboshi.root=sha256:cd || goto failed\n\
    initrd --name a http://10.77.0.1:8080/a || goto failed\n\
    initrd --name b http://10.77.0.1:8080/b || goto failed\nboot || goto failed\n\
    :failed\ninc try\niseq ${try} 20 && goto over ||\nsleep ${pause}\ninc pause 1\ngoto again\n\
    :over\nsleep 10\nreboot\n";

struct World {
    machine: Machine,
    now: Duration,
    dice: Dice,
    /// Of a million, each way; of questions over HTTP too.
    loses: u32,
    doubles: u32,
    /// Scripts that say to wait.
    turns: u32,
    /// What was asked over HTTP, in order.
    asked: Vec<String>,
    silent: bool,
    window: usize,
}

impl World {
    fn new(firmware: Firmware, loses: u32, doubles: u32, seed: u64) -> World {
        let on = Duration::from_secs(3);
        let spec = Spec { number: 9, mac: MAC, firmware, on, reads: None };
        World {
            machine: Machine::new(spec, seed, 1.0),
            now: Duration::ZERO,
            dice: Dice::new(seed, 99),
            loses,
            doubles,
            turns: 0,
            asked: Vec::new(),
            silent: false,
            window: 1,
        }
    }

    /// Until it is up, or lost.
    fn run(&mut self) -> &Log {
        let mut out = Vec::new();
        for _ in 0..200_000 {
            if self.machine.is_over() {
                return &self.machine.log;
            }
            if out.is_empty() {
                let deadline = self.machine.deadline().expect("it waits for something");
                assert!(deadline >= self.now, "the clock goes forwards");
                self.now = deadline;
                self.machine.on_deadline(self.now, &mut out);
            }
            for effect in std::mem::take(&mut out) {
                let lost = self.dice.chance(self.loses);
                match effect {
                    Effect::Fetch(ask) => {
                        self.asked.push(format!("{} {}", ask.method, ask.url.path));
                        let answer =
                            if lost { Err("no answer".to_string()) } else { Ok(self.http(&ask)) };
                        self.now +=
                            if lost { ask.patience.silence } else { Duration::from_millis(1) };
                        self.machine.answered(answer, self.now, &mut out);
                    }
                    Effect::Send { from, to, payload } if !lost && !self.silent => {
                        for (port, answer) in self.datagrams(from.1, to.2, &payload) {
                            let copies = 1 + u32::from(self.dice.chance(self.doubles));
                            for _ in 0..copies {
                                if !self.dice.chance(self.loses) {
                                    let to = if port == 67 { 68 } else { from.1 };
                                    let from = (SERVER.0, SERVER.1, port);
                                    let heard = Heard { from, port: to, payload: &answer };
                                    self.machine.heard(heard, self.now, &mut out);
                                }
                            }
                        }
                    }
                    Effect::Send { .. } | Effect::HangUp => {}
                }
            }
        }
        panic!("it goes on for ever: {:?}", self.machine.log);
    }

    fn http(&mut self, ask: &Ask) -> Answer {
        let mut body = Vec::new();
        if ask.url.path.ends_with(".ipxe") {
            let text = match self.turns.checked_sub(1) {
                Some(left) => {
                    self.turns = left;
                    format!(
                        "#!ipxe\nsleep 7\nchain --replace http://10.77.0.1:8080{}\n",
                        ask.url.path
                    )
                }
                None => SCRIPT.to_string(),
            };
            body = text.into_bytes();
        }
        Answer { status: 200, bytes: body.len() as u64, body }
    }

    fn datagrams(&mut self, from: u16, to: u16, payload: &[u8]) -> Vec<(u16, Vec<u8>)> {
        if to == 67 {
            let request = Request::decode(payload).expect("DHCP");
            let file = match (request.is_ipxe(), request.vendor(), request.archs.as_slice()) {
                (true, ..) => "http://10.77.0.1:8080/boot/m.ipxe",
                (_, Vendor::Http, _) => "http://10.77.0.1:8080/ipxe.efi",
                (_, _, [7]) => "ipxe.efi",
                _ => "undionly.kpxe",
            };
            let kind = match request.kind {
                MessageType::Discover => MessageType::Offer,
                _ => MessageType::Ack,
            };
            let mut packet = Packet::decode(payload).expect("DHCP");
            (packet.op, packet.yiaddr, packet.options) = (BOOTREPLY, ADDRESS, Default::default());
            packet.options.push(code::MESSAGE_TYPE, &[kind as u8]);
            packet.options.push(code::SERVER_ID, &SERVER.1.octets());
            packet.options.push(code::BOOT_FILE, file.as_bytes());
            packet.options.push(code::IPXE, &[176, 1, 1]);
            let class =
                if request.vendor() == Vendor::Http { &b"HTTPClient"[..] } else { b"PXEClient" };
            packet.options.push(code::VENDOR_CLASS, class);
            return vec![(67, packet.encode())];
        }
        let serves = from ^ 0x8000;
        let blksize = self.machine.spec.firmware == Firmware::Edk2;
        let blksize = if blksize { 1468 } else { 1456 };
        match payload[1] {
            1 => {
                let text = String::from_utf8_lossy(payload).into_owned();
                let mut oack = format!("blksize\0{blksize}\0");
                if text.contains("tsize") {
                    oack += &format!("tsize\0{LOADER}\0");
                }
                self.window = 1;
                if text.contains("windowsize") {
                    oack += "windowsize\x004\0";
                    self.window = 4;
                }
                vec![(serves, [&[0, 6], oack.as_bytes()].concat())]
            }
            4 => {
                let have = usize::from(u16::from_be_bytes([payload[2], payload[3]]));
                let block = |block: usize| {
                    let from = (block - 1) * blksize;
                    let size = LOADER.checked_sub(from)?.min(blksize);
                    let [high, low] = (block as u16).to_be_bytes();
                    Some((serves, [&[0, 3, high, low], vec![0; size].as_slice()].concat()))
                };
                (have + 1..=have + self.window).filter_map(block).collect()
            }
            _ => vec![],
        }
    }
}

#[test]
fn each_firmware_boots_its_own_way() {
    for (firmware, stages) in [
        (Firmware::Rom, &Stage::ALL[2..]),
        (Firmware::Undionly, &Stage::ALL[..]),
        (Firmware::Edk2, &Stage::ALL[..]),
        (Firmware::Http, &Stage::ALL[..]),
    ] {
        let mut world = World::new(firmware, 0, 0, 1);
        let log = world.run().clone();
        assert_eq!(log.lost, None, "{firmware:?}");
        let passed: Vec<Stage> =
            Stage::ALL.into_iter().filter(|stage| log.of(*stage).done.is_some()).collect();
        assert_eq!(passed, stages, "{firmware:?}");
        assert!(Stage::ALL.iter().all(|stage| log.of(*stage).again == 0), "{log:?}");
        let done: Vec<_> = passed.iter().map(|stage| log.of(*stage).done).collect();
        assert!(done.is_sorted(), "{firmware:?}: {done:?}");
        let http = ["HEAD /ipxe.efi", "GET /ipxe.efi"];
        assert_eq!(world.asked.starts_with(&http.map(String::from)), firmware == Firmware::Http);
        let rest = [
            "GET /boot/m.ipxe",
            "GET /kernel",
            "GET /a",
            "GET /b",
            "POST /report/ab",
            "POST /report/ab",
            "POST /report/ab",
            "GET /blob/sha256/cd",
            "POST /report/ab",
            "POST /report/ab",
            "POST /report/ab",
        ];
        assert!(world.asked.ends_with(&rest.map(String::from)), "{:?}", world.asked);
    }
}

#[test]
fn all_come_up_however_much_is_lost_or_doubled() {
    for firmware in Firmware::ALL {
        for seed in 0..30 {
            let mut world = World::new(firmware, 50_000, 100_000, seed);
            let log = world.run();
            assert!(log.of(Stage::Up).done.is_some(), "{firmware:?} {seed}: {log:?}");
        }
    }
}

#[test]
fn it_waits_for_its_turn_and_that_is_no_failure() {
    let mut world = World::new(Firmware::Rom, 0, 0, 4);
    world.turns = 3;
    let log = world.run();
    assert_eq!((log.turns, log.rounds, log.of(Stage::Script).again), (3, 0, 0));
    let script = log.of(Stage::Script);
    let waited = script.done.expect("in the end") - script.begun.expect("at first");
    assert!((21..22).contains(&waited.as_secs()), "{waited:?}");
}

#[test]
fn where_nobody_answers_it_gives_up_in_the_end() {
    let mut world = World::new(Firmware::Undionly, 0, 0, 4);
    world.silent = true;
    let log = world.run();
    assert_eq!((log.rounds, log.lost.as_deref()), (ROUNDS, Some("no address")));
    let asked = log.of(Stage::Address);
    assert_eq!((asked.again, asked.third), (3 * ROUNDS, ROUNDS));
}

#[test]
fn the_same_seed_is_the_same_storm() {
    let story = |seed| {
        let mut world = World::new(Firmware::Edk2, 100_000, 50_000, seed);
        let log = world.run();
        (log.of(Stage::Up).done, log.of(Stage::Loader).again)
    };
    assert_eq!(story(3), story(3));
    assert_ne!(story(3), story(4));
}

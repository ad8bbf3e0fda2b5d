//! Sensors, event log, inventory and DCMI of `bmcsim`: our client, ipmitool and FreeIPMI must read the same from it,
//! value by value. And our client reads what OpenIPMI's `sdrcomp` and `ipmi_sim` made.

mod peers;

use std::net::SocketAddr;
use std::time::Instant;

use koboshi_bmcsim::bridge::Style;
use koboshi_bmcsim::{Config, Sim, sensor as simulated};
use koboshi_ipmi::commands::sdr::{self, Cache, Repository};
use koboshi_ipmi::commands::sel::{self, Follower, describe};
use koboshi_ipmi::commands::sensor::{self, Options, Reading, State};
use koboshi_ipmi::commands::{dcmi, fru};
use koboshi_ipmi::quirks::{Quirk, Quirks};
use koboshi_ipmi::session::Access;
use koboshi_ipmi::{Bmc, Password};
use peers::ipmi_sim::IpmiSim;
use peers::tool::run;
use peers::{PASSWORD, Place, USER};

/// A simulated BMC and who asks it.
struct Bench {
    sim: Sim,
    place: Place,
    bmc: Bmc,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Config)) -> Bench {
        let listen = SocketAddr::V4(peers::somewhere());
        let mut config = Config::with_admin(USER, Password::new(PASSWORD).unwrap());
        config.listen = listen;
        change(&mut config);
        let sim = Sim::start(config).unwrap();
        Bench { sim, place: Place::new(), bmc: ours(listen) }
    }

    async fn repository(&self) -> Repository {
        sdr::load(&self.bmc, None).await.unwrap()
    }

    async fn readings(&self) -> Vec<Reading> {
        let options = Options { thresholds: true, ..Options::default() };
        sensor::read_all(&self.bmc, &self.repository().await, options).await.unwrap()
    }

    async fn ipmitool(&self, words: &[&str]) -> String {
        let (host, port) = (self.sim.addr().ip().to_string(), self.sim.addr().port().to_string());
        let password = self.place.path("password").display().to_string();
        let access =
            ["-I", "lanplus", "-C", "17", "-H", &host, "-p", &port, "-U", USER, "-f", &password];
        run("ipmitool", access.iter().chain(words)).await.ok()
    }

    async fn freeipmi(&self, program: &str, words: &[&str]) -> String {
        let conf = self.place.path("freeipmi.conf").display().to_string();
        let cache = self.place.dir().display().to_string();
        let access = [
            format!("--hostname={}", self.sim.addr()),
            format!("--config-file={conf}"),
            "--driver-type=LAN_2_0".to_owned(),
            "--cipher-suite-id=17".to_owned(),
        ];
        let cached = [format!("--sdr-cache-directory={cache}"), "--quiet-cache".to_owned()];
        let cached: &[String] = if program == "ipmi-dcmi" { &[] } else { &cached };
        let words = words.iter().map(|word| (*word).to_owned());
        run(program, access.iter().chain(cached).cloned().chain(words)).await.ok()
    }
}

fn ours(at: SocketAddr) -> Bmc {
    let mut access = Access::new(at.ip().to_string(), USER, Password::new(PASSWORD).unwrap());
    access.port = at.port();
    Bmc::new(access)
}

/// What all three say of a sensor: name, value, the six thresholds from the lower non-recoverable to the upper
/// non-recoverable one, and how bad it is.
type Row = (String, Option<f64>, [Option<f64>; 6], Option<u8>);

fn our_rows(readings: &[Reading]) -> Vec<Row> {
    let row = |reading: &Reading| {
        let t = &reading.thresholds;
        let thresholds = [
            t.lower_non_recoverable,
            t.lower_critical,
            t.lower_non_critical,
            t.upper_non_critical,
            t.upper_critical,
            t.upper_non_recoverable,
        ];
        let bad = match reading.state {
            State::Ok => Some(0),
            State::NonCritical => Some(1),
            State::Critical => Some(2),
            State::NonRecoverable => Some(3),
            _ => None,
        };
        (reading.name.clone(), reading.value, thresholds, bad)
    };
    readings.iter().map(row).collect()
}

fn numbers(columns: &[&str]) -> [Option<f64>; 6] {
    let mut numbers = columns.iter().map(|column| column.trim().parse().ok());
    std::array::from_fn(|_| numbers.next().flatten())
}

/// `Fan 1,420.000,RPM,cr,na,480.000,780.000,na,na,na`.
fn ipmitool_rows(text: &str) -> Vec<Row> {
    let row = |line: &str| {
        let columns: Vec<&str> = line.split(',').collect();
        let bad = match columns[3] {
            "ok" => Some(0),
            "nc" => Some(1),
            "cr" => Some(2),
            "nr" => Some(3),
            // A discrete sensor's states, or nothing.
            _ => None,
        };
        (columns[0].to_owned(), columns[1].parse().ok(), numbers(&columns[4..]), bad)
    };
    text.lines().map(row).collect()
}

/// `5,Fan 1,Fan,Critical,420.00,RPM,N/A,480.00,780.00,N/A,N/A,N/A,'At or Below …'`.
fn freeipmi_rows(text: &str) -> Vec<Row> {
    let row = |line: &str| {
        let columns: Vec<&str> = line.split(',').collect();
        let bad = match columns[3] {
            "Nominal" => Some(0),
            "Warning" => Some(1),
            "Critical" => Some(2),
            _ => None,
        };
        (columns[1].to_owned(), columns[4].parse().ok(), numbers(&columns[6..12]), bad)
    };
    text.lines().map(row).collect()
}

/// The same but for the digits that somebody prints.
fn assert_alike(ours: &[Row], theirs: &[Row], who: &str) {
    let close = |one: Option<f64>, other: Option<f64>| match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() < 0.006,
        (one, other) => one == other,
    };
    assert_eq!(ours.len(), theirs.len(), "{who}: {theirs:?}");
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours.0, theirs.0, "{who}");
        // What is no number to us (a discrete sensor) is 0x1 to ipmitool, or N/A.
        assert!(close(ours.1, theirs.1), "{who}: {ours:?} and {theirs:?}");
        for (one, other) in ours.2.iter().zip(theirs.2) {
            assert!(close(*one, other), "{who}: {ours:?} and {theirs:?}");
        }
        if let (Some(one), Some(other)) = (ours.3, theirs.3) {
            // FreeIPMI has no word beyond critical, and calls what is not critical nominal.
            let one = if who == "FreeIPMI" { [0, 0, 2, 2][usize::from(one)] } else { one };
            assert_eq!(one, other, "{who}: {ours:?} and {theirs:?}");
        }
    }
}

const SENSORS: [&str; 4] = [
    "--comma-separated-output",
    "--no-header-output",
    "--output-sensor-thresholds",
    "--output-sensor-state",
];

async fn sensors_are_read_alike(change: impl FnOnce(&mut Config)) {
    let bench = Bench::new(change);
    bench.sim.with(|bmc| {
        assert!(simulated::set(bmc, "CPU Temp", 97.0));
        assert!(simulated::set(bmc, "Fan 1", 720.0));
        assert!(simulated::set(bmc, "Inlet Temp", -3.0));
        assert!(simulated::assert(bmc, "PSU 1", 0b1001));
    });
    let readings = bench.readings().await;
    // ipmitool sleeps for seconds over each reservation that it loses.
    bench.sim.with(|bmc| bmc.faults.set("sdr-lost=off").unwrap());
    let rows = our_rows(&readings);
    assert_eq!(rows[1].1, Some(97.0));
    assert_eq!(readings[6].words, ["present", "input lost (AC/DC)"]);
    assert_eq!(readings[6].state, State::Critical);
    assert_alike(&rows, &ipmitool_rows(&bench.ipmitool(&["-c", "sensor"]).await), "ipmitool");
    let theirs = freeipmi_rows(&bench.freeipmi("ipmi-sensors", &SENSORS).await);
    // FreeIPMI takes sensors of another logical unit than 0 for those of another controller, and reads them not.
    let ours = rows.len().min(255);
    assert_alike(&rows[..ours], &theirs[..ours], "FreeIPMI");
}

#[tokio::test]
async fn sensors() {
    sensors_are_read_alike(|config| config.sensors = 12).await;
}

/// More than one logical unit has numbers for.
#[tokio::test]
async fn three_hundred_sensors() {
    sensors_are_read_alike(|config| config.sensors = 300).await;
}

#[tokio::test]
async fn records_in_parts_whose_reservation_is_lost() {
    sensors_are_read_alike(|config| {
        config.faults.set("sdr-most=22").unwrap();
        config.faults.set("sdr-lost=17").unwrap();
    })
    .await;
}

/// Less than a record is returned, and nobody says so.
#[tokio::test]
async fn records_cut_short() {
    let bench = Bench::new(|config| config.faults.set("sdr-short=18").unwrap());
    let rows = our_rows(&bench.readings().await);
    bench.sim.with(|bmc| bmc.faults.set("sdr-short=off").unwrap());
    assert_alike(&rows, &ipmitool_rows(&bench.ipmitool(&["-c", "sensor"]).await), "ipmitool");
}

/// What is not there, not scanned or not known now is told apart, and costs nobody else.
#[tokio::test]
async fn sensors_without_a_reading() {
    let bench = Bench::new(|_| {});
    bench.sim.with(|bmc| {
        bmc.sensors.named("Fan 2").unwrap().refuses = Some(koboshi_ipmi::Completion::NOT_PRESENT);
        bmc.sensors.named("12V").unwrap().scanning = false;
        bmc.sensors.named("CPU Temp").unwrap().available = false;
    });
    let readings = bench.readings().await;
    let state = |name: &str| readings.iter().find(|r| r.name == name).map(|r| (r.state, r.value));
    assert_eq!(state("Fan 2"), Some((State::NotPresent, None)));
    assert_eq!(state("12V"), Some((State::ScanningDisabled, None)));
    assert_eq!(state("CPU Temp"), Some((State::Unavailable, None)));
    assert_eq!(state("Fan 1"), Some((State::Ok, Some(4200.0))));
    // They have no reading for these either.
    let rows = ipmitool_rows(&bench.ipmitool(&["-c", "sensor"]).await);
    for name in ["Fan 2", "12V", "CPU Temp"] {
        assert!(rows.iter().any(|row| row.0 == name && row.1.is_none()), "{name}: {rows:?}");
    }
}

/// What firmware does to its own records: an end that is none, a last record that does not come, a count of one
/// more, and a bit that lies.
#[tokio::test]
async fn records_and_sensors_as_firmware_has_them() {
    for fault in ["sdr-endless", "sdr-last", "sdr-count"] {
        let bench = Bench::new(|config| config.faults.set(fault).unwrap());
        let cache = Cache { directory: bench.place.path("sdr"), name: fault.to_owned() };
        let repository = sdr::load(&bench.bmc, Some(&cache)).await.unwrap();
        assert_eq!(repository.sensors.len(), 8, "{fault}");
        assert_eq!(repository.notes.is_empty(), fault == "sdr-count", "{repository:?}");
        assert!(sdr::load(&bench.bmc, Some(&cache)).await.unwrap().cached, "{fault}");
    }
    let bench = Bench::new(|config| config.faults.set("sensor-scanning").unwrap());
    let repository = bench.repository().await;
    for (quirks, state) in
        [(Quirks::NONE, State::ScanningDisabled), (Quirks::of(&[Quirk::SensorScanning]), State::Ok)]
    {
        let options = Options::of(quirks);
        let readings = sensor::read_all(&bench.bmc, &repository, options).await.unwrap();
        assert!(readings.iter().all(|reading| reading.state == state), "{readings:?}");
    }
}

/// Sensors of other controllers, one of which is there: asked only where they are wanted.
#[tokio::test]
async fn sensors_behind_the_bmc() {
    for style in [Style::Follows, Style::Embedded, Style::Queued] {
        let bench = Bench::new(|config| config.sensors = 2);
        bench.sim.with(|bmc| {
            bmc.bridge.style = style;
            let mut record = koboshi_bmcsim::sdr::of_sensor(&bmc.sensors.all[0]);
            for (owner, number) in [(0x82, 1), (0x82, 2), (0x84, 1), (0x84, 2)] {
                (record[5], record[7]) = (owner, number);
                bmc.sdr.add(record.clone(), 1);
            }
        });
        let repository = bench.repository().await;
        let read = async |satellites| {
            let options = Options { satellites, ..Options::default() };
            let readings = sensor::read_all(&bench.bmc, &repository, options).await.unwrap();
            readings[2..].iter().map(|r| (r.state, r.value)).collect::<Vec<_>>()
        };
        assert_eq!(read(false).await, [(State::Elsewhere, None); 4]);
        let there = (State::Ok, Some(33.0));
        let elsewhere = (State::Elsewhere, None);
        assert_eq!(
            read(true).await,
            [there, (State::Failed, None), elsewhere, elsewhere],
            "{style:?}"
        );
    }
}

#[tokio::test]
async fn the_cache_holds_until_a_record_is_added() {
    let bench = Bench::new(|_| {});
    let cache = Cache { directory: bench.place.path("sdr"), name: bench.sim.addr().to_string() };
    let load = async || sdr::load(&bench.bmc, Some(&cache)).await.unwrap();
    assert!(!load().await.cached);
    let again = load().await;
    assert!(again.cached && again.sensors.len() == 8 && again.frus.len() == 2);
    bench.sim.with(|bmc| {
        let new = simulated::Sensor::discrete(77, "Intrusion", 0x05, 0);
        let record = koboshi_bmcsim::sdr::of_sensor(&new);
        bmc.sensors.all.push(new);
        let later = bmc.sdr.added + 1;
        bmc.sdr.add(record, later);
    });
    let renewed = load().await;
    assert!(!renewed.cached && renewed.sensors.iter().any(|sensor| sensor.name == "Intrusion"));
}

/// Id, sensor, whether it began, and the reading that triggered.
type Line = (u16, String, bool, Option<f64>);

#[tokio::test]
async fn the_event_log() {
    let bench = Bench::new(|_| {});
    let mut follower = Follower::from_now(&bench.bmc).await.unwrap();
    bench.sim.with(|bmc| {
        simulated::set(bmc, "CPU Temp", 97.0);
        simulated::set(bmc, "Fan 1", 420.0);
        simulated::set(bmc, "CPU Temp", 60.0);
        simulated::assert(bmc, "PSU 1", 0b1001);
    });
    let repository = bench.repository().await;
    let log = sel::list(&bench.bmc).await.unwrap();
    assert_eq!(log.entries.len(), 7);
    assert_eq!(sel::info(&bench.bmc).await.unwrap().entries, 7);
    assert_eq!(follower.poll(&bench.bmc).await.unwrap(), log);
    let told: Vec<_> = log.entries.iter().map(|entry| describe(entry, Some(&repository))).collect();
    let ours: Vec<Line> = told
        .iter()
        .map(|told| (told.id, told.sensor.clone(), told.asserted == Some(true), told.reading))
        .collect();
    // `2,11/25/26,18:29:13 UTC,Temperature CPU Temp,Upper Critical going high,Asserted,Reading 97 > Threshold 95 …`
    let text = bench.ipmitool(&["-c", "sel", "elist"]).await;
    let theirs: Vec<Line> = text
        .lines()
        .map(|line| {
            let columns: Vec<&str> = line.split(',').collect();
            let id = u16::from_str_radix(columns[0], 16).unwrap();
            let sensor = &told[usize::from(id) - 1].sensor;
            assert!(columns[3].ends_with(sensor.as_str()), "{line}: {sensor}");
            let reading = columns.get(6).and_then(|text| text.split(' ').nth(1)?.parse().ok());
            (id, sensor.clone(), columns[5] == "Asserted", reading)
        })
        .collect();
    assert_eq!(ours, theirs);
    // `2,Nov-25-2026,18:29:13,CPU Temp,Temperature,Critical,Upper Critical - going high ; Sensor Reading = 97.00 C ; …`
    let words = ["--comma-separated-output", "--no-header-output", "--output-event-state"];
    let text = bench.freeipmi("ipmi-sel", &words).await;
    assert_eq!(text.lines().count(), 7, "{text}");
    for (line, told) in text.lines().zip(&told) {
        let columns: Vec<&str> = line.split(',').collect();
        assert_eq!((columns[0], columns[3]), (told.id.to_string().as_str(), told.sensor.as_str()));
        let plain = |text: &str| text.to_lowercase().replace([' ', '-', ','], "");
        let event = columns[6].split(';').next().unwrap();
        assert!(plain(event).ends_with(&plain(&told.event)), "{event} is {}", told.event);
    }
    // Their clear is ours, too.
    sel::clear(&bench.bmc).await.unwrap();
    assert!(sel::list(&bench.bmc).await.unwrap().entries.is_empty());
    assert_eq!(bench.ipmitool(&["sel", "list"]).await, "");
    bench.sim.with(|bmc| simulated::set(bmc, "CPU Temp", 99.0));
    assert_eq!(follower.poll(&bench.bmc).await.unwrap().entries.len(), 2);
}

/// Supermicro's events name no generator of its records; the number and the type still tell.
#[tokio::test]
async fn events_of_a_generator_that_there_is_not() {
    let bench = Bench::new(|config| config.faults.set("sel-generator").unwrap());
    bench.sim.with(|bmc| simulated::set(bmc, "CPU Temp", 97.0));
    let repository = bench.repository().await;
    let log = sel::list(&bench.bmc).await.unwrap();
    let told = describe(&log.entries[1], Some(&repository));
    assert_eq!(told.sensor, "CPU Temp");
    assert_eq!(told.detail.as_deref(), Some("reading 97 °C, threshold 95 °C"));
}

#[tokio::test]
async fn the_clock() {
    let bench = Bench::new(|_| {});
    bench.sim.with(|bmc| bmc.sel.ahead = 7200);
    let clock = sel::clock::read(&bench.bmc).await.unwrap();
    assert!((clock.ahead - 7200.0).abs() < 2.0 && clock.is_off(), "{clock:?}");
    bench.ipmitool(&["sel", "time", "set", "now"]).await;
    let clock = sel::clock::read(&bench.bmc).await.unwrap();
    assert!(clock.ahead.abs() < 5.0, "{clock:?}");
    bench.sim.with(|bmc| bmc.sel.ahead = -1_000_000_000);
    assert!(!sel::clock::set(&bench.bmc).await.unwrap().is_off());
}

#[tokio::test]
async fn inventory() {
    let bench = Bench::new(|_| {});
    let repository = bench.repository().await;
    let found = fru::all(&bench.bmc, Some(&repository)).await.unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|found| found.notes.is_empty()), "{found:?}");
    let (board, supply) = (&found[0], &found[1]);
    let chassis = board.chassis.as_ref().unwrap();
    let product = board.product.as_ref().unwrap();
    let main = board.board.as_ref().unwrap();
    let fields = [
        &chassis.part,
        &chassis.serial,
        &main.manufacturer,
        &main.name,
        &main.serial,
        &main.part,
        &product.name,
        &product.part,
        &product.version,
        &product.serial,
        &product.custom[0],
        &supply.board.as_ref().unwrap().serial,
    ];
    let theirs = bench.ipmitool(&["fru", "print"]).await;
    let theirs_too = bench.freeipmi("ipmi-fru", &[]).await;
    for field in fields {
        assert!(!field.is_empty() && theirs.contains(field.as_str()), "{field} in {theirs}");
        assert!(theirs_too.contains(field.as_str()), "{field} in {theirs_too}");
    }
    assert_eq!(main.made, Some(1_767_225_600));
    assert!(theirs.contains("Thu Jan  1 00:00:00 2026"), "{theirs}");
    assert_eq!(supply.records[0].summary, "500 W");
    assert!(theirs_too.contains("Overall Capacity: 500 Watts"), "{theirs_too}");
    // In small parts, and in words.
    bench.sim.with(|bmc| {
        bmc.faults.set("sdr-most=17").unwrap();
        bmc.fru.words = true;
    });
    let again = fru::one(&bench.bmc, 0).await.unwrap();
    assert_eq!(fru::Inventory { name: board.name.clone(), entity: board.entity, ..again }, *board);
}

#[tokio::test]
async fn power_by_dcmi() {
    let bench = Bench::new(|config| config.on = true);
    let power = dcmi::power(&bench.bmc).await.unwrap();
    assert_eq!((power.current, power.maximum, power.active), (212, 300, true));
    let theirs = bench.ipmitool(&["dcmi", "power", "reading"]).await;
    assert!(theirs.contains("212 Watts") && theirs.contains("300 Watts"), "{theirs}");
    let theirs = bench.freeipmi("ipmi-dcmi", &["--get-system-power-statistics"]).await;
    assert!(theirs.contains(": 212 Watts") && theirs.contains("Active"), "{theirs}");
    bench.sim.with(|bmc| bmc.dcmi.present = false);
    let none = dcmi::power(&bench.bmc).await.unwrap_err();
    assert_eq!(none, koboshi_ipmi::Error::Unsupported("DCMI"));
}

/// Records that `sdrcomp` encoded (names of six bits a character among them), sensors, events and FRU data of
/// OpenIPMI.
#[tokio::test]
async fn what_ipmi_sim_has() {
    let sim = IpmiSim::start().await;
    let bmc = ours(SocketAddr::V4(sim.at()));
    let repository = sdr::load(&bmc, None).await.unwrap();
    let readings = sensor::read_all(&bmc, &repository, Options::default()).await.unwrap();
    for (name, value) in IpmiSim::sensors() {
        let found = readings.iter().find(|reading| reading.name == name);
        let found = found.unwrap_or_else(|| panic!("{name} in {readings:?}"));
        assert!((found.value.unwrap() - value).abs() < 1e-6, "{found:?} for {value}");
        assert_eq!(found.state, State::Ok, "{found:?}");
    }
    let event = sel::Event {
        time: sel::Stamp(0),
        generator: [0x20, 0],
        revision: 4,
        sensor_type: 1,
        number: 1,
        deasserted: false,
        event_type: 1,
        data: [0x57, 0x50, 0x60],
    };
    let before = sel::list(&bmc).await.unwrap().entries.len();
    let mut follower = Follower::from_now(&bmc).await.unwrap();
    let id = sel::add(&bmc, event.encode()).await.unwrap();
    let new = follower.poll(&bmc).await.unwrap();
    assert_eq!(new.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id]);
    let told = describe(&new.entries[0], Some(&repository));
    assert_eq!(
        (told.sensor.as_str(), told.event.as_str()),
        ("CPU Temp", "upper non-critical, going high")
    );
    assert_eq!(told.detail.as_deref(), Some("reading 80 °C, threshold 96 °C"));
    assert_eq!(sel::list(&bmc).await.unwrap().entries.len(), before + 1);
    sel::clear(&bmc).await.unwrap();
    assert!(sel::list(&bmc).await.unwrap().entries.is_empty());
    assert!(!sel::clock::set(&bmc).await.unwrap().is_off());
    let inventory = fru::one(&bmc, 0).await.unwrap();
    let (board, product) = (inventory.board.unwrap(), inventory.product.unwrap());
    assert_eq!([board.manufacturer, board.name, board.serial, board.part], peers::fru::BOARD[..4]);
    assert_eq!(
        (product.name.as_str(), product.asset.as_str()),
        (peers::fru::PRODUCT[1], peers::fru::PRODUCT[5])
    );
    assert_eq!(inventory.notes, [""; 0]);
    assert!(dcmi::power(&bmc).await.is_err());
}

/// One session's worth of a machine with 200 sensors, cold and warm, beside ipmitool. What is asserted leaves a busy
/// machine room; what was measured is printed.
#[tokio::test]
async fn two_hundred_sensors_in_less_time() {
    let bench = Bench::new(|config| config.sensors = 200);
    let began = Instant::now();
    bench.ipmitool(&["sdr", "list"]).await;
    let theirs = began.elapsed();
    let cache = Cache { directory: bench.place.path("sdr"), name: "bmc".into() };
    let mut took = Vec::new();
    for _ in 0..2 {
        let bmc = ours(bench.sim.addr());
        let began = Instant::now();
        let repository = sdr::load(&bmc, Some(&cache)).await.unwrap();
        let readings = sensor::read_all(&bmc, &repository, Options::default()).await.unwrap();
        assert_eq!(readings.iter().filter(|reading| reading.state == State::Ok).count(), 200);
        took.push(began.elapsed());
        bmc.close().await;
    }
    println!("200 sensors: ipmitool {theirs:?}, cold {:?}, warm {:?}", took[0], took[1]);
    assert!(took[1] < theirs, "{took:?} {theirs:?}");
}

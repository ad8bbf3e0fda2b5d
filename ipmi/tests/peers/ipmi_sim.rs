//! `ipmi_sim` of OpenIPMI: the BMC that others wrote.
//!
//! Its hardware is files: a `chassis_control` program and a `lan_config_program` read and write one file a setting,
//! and note what they were told in `told`. The machine's serial line is a [`Line`]; a [`Vm`] stands for the machine
//! where the watchdog wants one to reset. It stops reading its command
//! file at the first line it does not like and then listens nowhere, without a word; numbers are decimal unless
//! they begin with `0x`.

use std::fmt::Write;
use std::net::SocketAddrV4;
use std::path::Path;

use tokio::process::Child;

use super::line::Line;
use super::vm::Vm;
use super::{PASSWORD, Place, USER, fru, somewhere, tool, until_it_answers};

/// A running one.
pub struct IpmiSim {
    place: Place,
    at: SocketAddrV4,
    line: Line,
    vm: Vm,
    _child: Child,
}

/// The state of a piece of hardware, and its first value.
const HARDWARE: [(&str, &str); 12] = [
    ("power", "0"),
    ("boot", "default"),
    ("reset", "0"),
    ("shutdown", "0"),
    ("ip_addr", "10.78.0.9"),
    ("ip_addr_src", "static"),
    ("mac_addr", "52:54:00:78:00:09"),
    ("subnet_mask", "255.255.255.0"),
    ("default_gw_ip_addr", "10.78.0.1"),
    ("default_gw_mac_addr", "52:54:00:78:00:01"),
    ("backup_gw_ip_addr", "0.0.0.0"),
    ("backup_gw_mac_addr", "00:00:00:00:00:00"),
];

/// One sensor of the reference BMC: number, name, type, unit, M and R exponent, raw reading.
const SENSORS: [(u8, &str, &str, &str, i32, i32, u8); 3] = [
    (1, "CPU Temp", "Temperature", "degrees_C", 1, 0, 0x30),
    (2, "Fan 1", "Fan", "RPM", 50, 0, 100),
    (3, "Rail 12V", "Voltage", "Volts", 5, -2, 240),
];

impl IpmiSim {
    /// Starts it and waits until it answers.
    pub async fn start() -> IpmiSim {
        let place = Place::new();
        let at = somewhere();
        let line = Line::open(somewhere()).await;
        let system = somewhere();
        let hardware = place.path("hardware");
        std::fs::create_dir(&hardware).expect("a folder");
        for (name, value) in HARDWARE {
            std::fs::write(hardware.join(name), value).expect("room");
        }
        let control = place.script("control", &script(&hardware));
        let guid = "6b6f626f736849690080525400780009";
        let conf = format!(
            r#"name "sim"
set_working_mc 0x20
startlan 1
  addr {} {}
  priv_limit admin
  allowed_auths_callback none md5 straight
  allowed_auths_user none md5 straight
  allowed_auths_operator none md5 straight
  allowed_auths_admin none md5 straight
  guid {guid}
  lan_config_program "{control} lan"
endlan
chassis_control "{control} chassis"
serial 15 {} {} codec VM
sol "telnet:{}:{}" 115200
user 2 true "{USER}" "{PASSWORD}" admin 10 none md5 straight
user 3 true "guest" "{PASSWORD}" user 10 none md5 straight
user 4 false "former" "{PASSWORD}" admin 10 none md5 straight
"#,
            at.ip(),
            at.port(),
            system.ip(),
            system.port(),
            line.at().ip(),
            line.at().port(),
            control = control.display(),
        );
        let conf = place.write("lan.conf", conf);
        let emulation = place.write("sim.emu", emulation());
        let state = place.path("state/ipmi_sim/sim");
        std::fs::create_dir_all(&state).expect("a folder");
        let records = place.write("records", records());
        let compiled = state.join("sdr.20.main");
        tool::run("sdrcomp", [Path::new("-o"), &compiled, &records]).await.ok();
        let log = place.path("log");
        let file = std::fs::File::create(&log).expect("room");
        let mut command = tool::bound("ipmi_sim");
        command.arg("-n").arg("-c").arg(conf).arg("-f").arg(emulation);
        command.arg("-s").arg(place.path("state"));
        command.stdout(file.try_clone().expect("a descriptor")).stderr(file);
        let child = command.spawn().expect("setpriv (util-linux) runs");
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        until_it_answers(at, said).await;
        let vm = Vm::plug_in(system).await;
        let sim = IpmiSim { place, at, line, vm, _child: child };
        sim.line.connected().await;
        sim
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddrV4 {
        self.at
    }

    /// The test's folder.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The machine's end of the serial line.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// What its hardware was told, in order: `power 1`, `reset 1`, `boot pxe`, `ip_addr 10.78.0.7`.
    pub fn told(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.place.path("hardware/told")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The machine, for what the BMC does to it without being told.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Its sensors, by name: value and unit as ipmitool writes it.
    pub fn sensors() -> Vec<(&'static str, f64)> {
        let value = |m: i32, r: i32, raw: u8| f64::from(m * i32::from(raw)) * 10f64.powi(r);
        SENSORS.iter().map(|(_, name, _, _, m, r, raw)| (*name, value(*m, *r, *raw))).collect()
    }

    /// What it printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.place.path("log")).unwrap_or_default()
    }
}

/// The program behind both of its hooks: `control KIND get|set|check NAME [VALUE] …`.
fn script(hardware: &Path) -> String {
    format!(
        r#"#!/bin/sh
cd '{}' || exit 1
shift
operation=$1
shift
case $operation in
get) for name in "$@"; do echo "$name:$(cat "$name")"; done ;;
set) while [ $# -gt 1 ]; do
        echo "$1 $2" >> told
        echo "$2" > "$1"
        shift 2
    done ;;
esac
"#,
        hardware.display()
    )
}

fn emulation() -> String {
    let mut text = String::from(
        "mc_setbmc 0x20\n\
         mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
         mc_add 0x82 0 no-device-sdrs 0x42 7 5 0x9f 0x1234 0xabc\n\
         mc_enable 0x82\n\
         sel_enable 0x20 1000 0x0a\n\
         sensor_add 0x20 0 0 35 0x6f event-only\n\
         sensor_set_event_support 0x20 0 0 enable scanning per-state \
         000000000001111 000000000000000 000000000001111 000000000000000\n",
    );
    for (number, _, kind, _, _, _, raw) in SENSORS {
        let kind = match kind {
            "Temperature" => 1,
            "Voltage" => 2,
            _ => 4,
        };
        let all = "000111111000000";
        let _ = write!(
            text,
            "sensor_add 0x20 0 {number} {kind} 0x01\n\
             sensor_set_value 0x20 0 {number} {raw} 0\n\
             sensor_set_threshold 0x20 0 {number} settable 111000 0xfe 0xfa 0xf8 0 0 0\n\
             sensor_set_event_support 0x20 0 {number} enable scanning per-state {all} {all} {all} {all}\n"
        );
    }
    let fru = fru::bytes();
    let bytes: Vec<String> = fru.iter().map(|byte| format!("{byte:#04x}")).collect();
    let _ =
        write!(text, "mc_add_fru_data 0x20 0 {} data {}\nmc_enable 0x20\n", 256, bytes.join(" "));
    text
}

/// Sensor data records for `sdrcomp`.
fn records() -> String {
    let mut text = String::from(
        "sdr type 18\n device_slave_address 0x20\n device_channel_number 0\n chassis true\n\
         fru_inventory true\n sel true\n sdr true\n sensor true\n entity_id system_board\n\
         entity_instance 1\n id_string \"IPMI sim\"\nendsdr\n",
    );
    for (number, name, kind, unit, m, r, _) in SENSORS {
        let _ = write!(
            text,
            "sdr type 1\n sensor_owner_id 0x20\n sensor_owner_lun 0\n channel_number 0\n\
             sensor_number {number}\n entity_id system_board\n entity_instance 1\n\
             sensor_type {kind}\n init_scanning true\n init_sensor_type true\n\
             default_sensor_scan_on true\n event_reading_type_code 1\n\
             analog_data_format unsigned\n rate_unit none\n modifier_unit none\n\
             percentage false\n base_unit {unit}\n modifier_unit_code unspecified\n\
             linearization linear\n m {m}\n tolerance 0\n b 0\n accuracy 1\n accuracy_exp 0\n\
             sensor_direction input\n r_exp {r}\n b_exp 0\n sensor_maximum 255\n\
             sensor_minimum 0\n id_string \"{name}\"\nendsdr\n"
        );
    }
    text
}

//! Power, and what a power button does to the machine behind the BMC.
//!
//! IPMI 2.0 §28.1–28.3 (capabilities, status, control), §28.9 (power cycle interval), §28.11 (restart cause).
//!
//! The machine is a flag in memory, or a process that the driver starts and kills by the [`Order`]s left here;
//! a process that ends by itself is a machine that switched itself off ([`exited`]).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use koboshi_ipmi::{Completion, Response};

use crate::bmc::Bmc;
use crate::boot;
use crate::config::{Config, Host};
use crate::dispatch::{Asked, ok, refuse};

/// Power and what belongs to it.
#[derive(Debug, Clone)]
pub struct Chassis {
    /// Whether the machine is on.
    pub on: bool,
    /// What it does when mains power comes back: 0 stays off, 1 as before, 2 on.
    pub policy: u8,
    /// Whether the last power-on was a command's doing.
    pub by_command: bool,
    /// Why the machine started last.
    pub cause: Cause,
    /// The identify light, as its handler keeps it: 0 off, 1 for a time, 2 until told otherwise.
    pub identify: u8,
    /// How long a power cycle leaves it off.
    pub interval: Duration,
    /// How long the operating system in memory takes to shut down.
    pub shutdown: Duration,
    /// What was done to it, the latest last; at most [`REMEMBERED`].
    pub acts: VecDeque<Act>,
    /// What the machine booted from each time it started, as [`Chassis::acts`].
    pub boots: VecDeque<Option<&'static str>>,
    /// What the driver is to do to the process, in order.
    pub orders: VecDeque<Order>,
    later: Option<(Instant, Later)>,
    /// There is a process.
    is_process: bool,
    /// … and it can be reset without being started anew.
    in_place: bool,
}

/// Acts that are remembered.
pub const REMEMBERED: usize = 64;

/// What can be done to a machine (table 28-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Off at once.
    Off,
    /// On.
    On,
    /// Off, and on again after the interval.
    Cycle,
    /// Started again without power going away.
    Reset,
    /// A diagnostic interrupt.
    Diag,
    /// The operating system is asked to shut down.
    Soft,
}

/// Why a machine started (table 28-11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nobody knows.
    Unknown = 0,
    /// A chassis command.
    Command = 1,
    /// The watchdog fired.
    Watchdog = 4,
    /// Mains power came back.
    Restored = 6,
}

/// What the driver is to do to the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Start it, with this for a boot device.
    Start(Option<&'static str>),
    /// Kill it.
    Kill,
    /// Reset it in place.
    Reset,
    /// Press its power button for a moment.
    Shutdown,
    /// Send it a diagnostic interrupt.
    Interrupt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Later {
    Off,
    On,
}

impl Chassis {
    /// Off, or started because mains power came.
    pub fn new(config: &Config, _now: Instant) -> Chassis {
        let has_monitor = matches!(&config.host, Host::Process { monitor: Some(_), .. });
        let mut chassis = Chassis {
            on: config.on,
            policy: 1,
            by_command: false,
            cause: Cause::Unknown,
            identify: 0,
            interval: Duration::from_secs(1),
            shutdown: Duration::from_millis(500),
            acts: VecDeque::new(),
            boots: VecDeque::new(),
            orders: VecDeque::new(),
            later: None,
            is_process: config.host != Host::Memory,
            in_place: config.vm.is_some() || has_monitor || config.host == Host::Elsewhere,
        };
        if chassis.on {
            chassis.cause = Cause::Restored;
            chassis.order(Order::Start(None));
            chassis.boots.push_back(None);
        }
        chassis
    }

    fn order(&mut self, order: Order) {
        if self.is_process {
            self.orders.push_back(order);
        }
    }
}

fn remember<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() == REMEMBERED {
        list.pop_front();
    }
    list.push_back(item);
}

/// Does it, as a button or the watchdog would; refuses what makes no sense while the machine is off.
pub fn act(bmc: &mut Bmc, act: Act, cause: Cause, now: Instant) -> Completion {
    let on = bmc.chassis.on;
    match act {
        Act::On if on => {}
        Act::On => start(bmc, cause),
        Act::Off if on => stop(bmc),
        Act::Off => bmc.chassis.later = None,
        _ if !on => return Completion::NOT_NOW,
        Act::Cycle => {
            stop(bmc);
            bmc.chassis.cause = cause;
            bmc.chassis.later = Some((now + bmc.chassis.interval, Later::On));
        }
        Act::Reset => reset(bmc, cause),
        Act::Diag => bmc.chassis.order(Order::Interrupt),
        Act::Soft if bmc.chassis.is_process => bmc.chassis.order(Order::Shutdown),
        Act::Soft => bmc.chassis.later = Some((now + bmc.chassis.shutdown, Later::Off)),
    }
    remember(&mut bmc.chassis.acts, act);
    Completion::OK
}

fn start(bmc: &mut Bmc, cause: Cause) {
    let device = boot::chosen(bmc);
    let chassis = &mut bmc.chassis;
    chassis.on = true;
    chassis.later = None;
    chassis.by_command = cause == Cause::Command;
    chassis.cause = cause;
    remember(&mut chassis.boots, device);
    chassis.order(Order::Start(device));
}

fn stop(bmc: &mut Bmc) {
    bmc.chassis.on = false;
    bmc.chassis.later = None;
    bmc.chassis.order(Order::Kill);
}

fn reset(bmc: &mut Bmc, cause: Cause) {
    let device = boot::chosen(bmc);
    let chassis = &mut bmc.chassis;
    chassis.later = None;
    chassis.cause = cause;
    remember(&mut chassis.boots, device);
    // QEMU takes its boot order when it starts: for another one it has to be started again.
    if chassis.in_place && device.is_none() {
        chassis.order(Order::Reset);
    } else {
        chassis.order(Order::Kill);
        chassis.order(Order::Start(device));
    }
}

/// The process ended by itself: the machine switched itself off, or never came up.
pub fn exited(bmc: &mut Bmc) {
    bmc.chassis.on = false;
}

/// Lets fire what is due.
pub fn poll(bmc: &mut Bmc, now: Instant) {
    let Some((_, later)) = bmc.chassis.later.take_if(|(at, _)| *at <= now) else { return };
    match later {
        Later::Off => stop(bmc),
        Later::On => {
            let cause = bmc.chassis.cause;
            start(bmc, cause);
        }
    }
}

/// When something is due.
pub fn deadline(bmc: &Bmc) -> Option<Instant> {
    bmc.chassis.later.map(|(at, _)| at)
}

/// Answers for power.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    match (asked.command, asked.data) {
        (0x00, _) => ok([0x00, 0x20, 0x20, 0x20, 0x20]),
        (0x01, _) => ok(status(&bmc.chassis)),
        (0x02, [control, ..]) => {
            let wanted = match control & 0x0f {
                0 => Act::Off,
                1 => Act::On,
                2 => Act::Cycle,
                3 => Act::Reset,
                4 => Act::Diag,
                5 => Act::Soft,
                _ => return refuse(Completion::INVALID_FIELD),
            };
            match act(bmc, wanted, Cause::Command, asked.now) {
                Completion::OK => ok([]),
                completion => refuse(completion),
            }
        }
        (0x07, _) => ok([bmc.chassis.cause as u8, asked.channel]),
        (0x0b, [seconds, ..]) => {
            bmc.chassis.interval = Duration::from_secs(u64::from(*seconds));
            ok([])
        }
        (0x02 | 0x0b, []) => refuse(Completion::LENGTH_INVALID),
        _ => None,
    }
}

/// Table 28-3.
fn status(chassis: &Chassis) -> [u8; 4] {
    [
        (chassis.policy & 3) << 5 | u8::from(chassis.on),
        u8::from(chassis.by_command) << 4,
        0x40 | (chassis.identify & 3) << 4,
        0,
    ]
}

#[cfg(test)]
mod tests {
    use koboshi_ipmi::{NetFn, Request};

    use super::*;

    fn control(bmc: &mut Bmc, number: u8, now: Instant) -> Completion {
        bmc.ask(&Request::new(NetFn::CHASSIS, 2, [number]), now).completion
    }

    fn is_on(bmc: &mut Bmc, now: Instant) -> bool {
        bmc.ask(&Request::new(NetFn::CHASSIS, 1, []), now).data[0] & 1 == 1
    }

    #[test]
    fn on_soft_cycle_off_in_memory() {
        let now = Instant::now();
        let mut bmc = Bmc::new(Config::default(), now);
        assert_eq!(control(&mut bmc, 3, now), Completion::NOT_NOW);
        assert_eq!(control(&mut bmc, 1, now), Completion::OK);
        assert!(is_on(&mut bmc, now));
        assert_eq!(control(&mut bmc, 5, now), Completion::OK);
        assert!(is_on(&mut bmc, now), "an operating system takes its time");
        let due = bmc.deadline().unwrap();
        bmc.poll(due);
        assert!(!is_on(&mut bmc, due));
        control(&mut bmc, 1, due);
        control(&mut bmc, 2, due);
        assert!(!is_on(&mut bmc, due));
        bmc.poll(due + bmc.chassis.interval);
        assert!(is_on(&mut bmc, due));
        control(&mut bmc, 0, due);
        assert!(!is_on(&mut bmc, due));
        assert_eq!(bmc.chassis.acts, [Act::On, Act::Soft, Act::On, Act::Cycle, Act::Off]);
        assert!(bmc.chassis.orders.is_empty());
        assert_eq!(control(&mut bmc, 9, due), Completion::INVALID_FIELD);
    }

    #[test]
    fn a_process_gets_orders() {
        let now = Instant::now();
        let host = Host::Process { start: "qemu".into(), monitor: Some("qmp".into()) };
        let mut bmc = Bmc::new(Config { host, ..Config::default() }, now);
        for number in [1, 3, 5, 4, 0] {
            control(&mut bmc, number, now);
        }
        let due =
            [Order::Start(None), Order::Reset, Order::Shutdown, Order::Interrupt, Order::Kill];
        assert_eq!(bmc.chassis.orders, due);
        control(&mut bmc, 1, now);
        exited(&mut bmc);
        assert!(!is_on(&mut bmc, now), "it switched itself off");
    }
}

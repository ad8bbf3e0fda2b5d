//! Power, and what the chassis says of itself.
//!
//! IPMI 2.0 §28.2 and table 28-3 (status), §28.3 and table 28-4 (control).

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::busy;
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{Completion, NetFn, Request};
use crate::wire::{Malformed, take};

/// Get Chassis Status.
pub const STATUS: u8 = 0x01;
/// Chassis Control.
pub const CONTROL: u8 = 0x02;
/// What the machine does when mains power comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restore {
    /// It stays off.
    Off,
    /// As it was.
    Previous,
    /// It starts.
    On,
    /// The BMC does not know.
    Unknown,
}

impl Restore {
    /// Its number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Restore::Off => 0,
            Restore::Previous => 1,
            Restore::On => 2,
            Restore::Unknown => 3,
        }
    }

    fn from_number(number: u8) -> Restore {
        match number & 3 {
            0 => Restore::Off,
            1 => Restore::Previous,
            2 => Restore::On,
            _ => Restore::Unknown,
        }
    }
}

/// The identify light.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Light {
    /// Dark.
    Off,
    /// Lit, for a while.
    Temporary,
    /// Lit until told otherwise.
    On,
}

/// Which front panel buttons are dead, and which may be made so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FrontPanel {
    /// The power button does nothing.
    pub power_disabled: bool,
    /// The reset button does nothing.
    pub reset_disabled: bool,
    /// The diagnostic interrupt button does nothing.
    pub diag_disabled: bool,
    /// The standby button does nothing.
    pub standby_disabled: bool,
    /// Bits 0 to 3: power, reset, diag, standby may be disabled.
    pub may_disable: u8,
}

/// Get Chassis Status (table 28-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ChassisStatus {
    /// The machine is on.
    pub power: bool,
    /// It was shut down because of a power overload.
    pub overload: bool,
    /// An interlock (an open lid) keeps it off.
    pub interlock: bool,
    /// The main power system has a fault.
    pub power_fault: bool,
    /// The power could not be switched as told.
    pub control_fault: bool,
    /// What it does after a power failure.
    pub restore: Restore,
    /// The last change of power was one of these (they may all be false).
    pub last: LastPower,
    /// The chassis was opened.
    pub intrusion: bool,
    /// The front panel is locked.
    pub locked: bool,
    /// A drive has a fault.
    pub drive_fault: bool,
    /// Cooling or a fan has a fault.
    pub cooling_fault: bool,
    /// The identify light, where the BMC tells.
    pub identify: Option<Light>,
    /// Buttons, where the BMC tells.
    pub front_panel: Option<FrontPanel>,
}

/// What changed the power last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LastPower {
    /// Mains power failed.
    pub mains: bool,
    /// An overload.
    pub overload: bool,
    /// An interlock.
    pub interlock: bool,
    /// A power fault.
    pub fault: bool,
    /// An IPMI command switched it on.
    pub command: bool,
}

fn bit(byte: u8, number: u8) -> bool {
    byte >> number & 1 != 0
}

impl ChassisStatus {
    /// From an answer's data.
    pub fn decode(mut data: &[u8]) -> Result<ChassisStatus, Malformed> {
        let [now, last, misc] = take(&mut data, "a chassis status of less than 3 bytes")?;
        Ok(ChassisStatus {
            power: bit(now, 0),
            overload: bit(now, 1),
            interlock: bit(now, 2),
            power_fault: bit(now, 3),
            control_fault: bit(now, 4),
            restore: Restore::from_number(now >> 5),
            last: LastPower {
                mains: bit(last, 0),
                overload: bit(last, 1),
                interlock: bit(last, 2),
                fault: bit(last, 3),
                command: bit(last, 4),
            },
            intrusion: bit(misc, 0),
            locked: bit(misc, 1),
            drive_fault: bit(misc, 2),
            cooling_fault: bit(misc, 3),
            identify: bit(misc, 6).then_some(match misc >> 4 & 3 {
                0 => Light::Off,
                1 => Light::Temporary,
                _ => Light::On,
            }),
            front_panel: data.first().map(|panel| FrontPanel {
                power_disabled: bit(*panel, 0),
                reset_disabled: bit(*panel, 1),
                diag_disabled: bit(*panel, 2),
                standby_disabled: bit(*panel, 3),
                may_disable: panel >> 4,
            }),
        })
    }

    /// What is wrong with it, in words; nothing in a healthy one.
    pub fn complaints(&self) -> Vec<&'static str> {
        [
            (self.overload, "power overload"),
            (self.interlock, "interlock open"),
            (self.power_fault, "power fault"),
            (self.control_fault, "the power could not be switched"),
            (self.intrusion, "the chassis was opened"),
            (self.locked, "front panel locked"),
            (self.drive_fault, "drive fault"),
            (self.cooling_fault, "cooling fault"),
        ]
        .into_iter()
        .filter_map(|(is, words)| is.then_some(words))
        .collect()
    }
}

/// Whether the machine is on, and how it is.
pub async fn status(bmc: &impl Controller) -> Result<ChassisStatus, Error> {
    let data = busy::call(bmc, &Request::new(NetFn::CHASSIS, STATUS, [])).await?;
    Ok(ChassisStatus::decode(&data)?)
}

/// What is done to the power (table 28-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// Off at once.
    Off,
    /// On.
    On,
    /// Off for at least a second, then on.
    Cycle,
    /// The reset line.
    Reset,
    /// A diagnostic interrupt (NMI): the operating system dumps, if it was told to.
    Diag,
    /// As if the power button were pressed shortly: the operating system shuts down.
    Soft,
}

impl Control {
    /// Its number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Control::Off => 0,
            Control::On => 1,
            Control::Cycle => 2,
            Control::Reset => 3,
            Control::Diag => 4,
            Control::Soft => 5,
        }
    }

    /// From its number.
    pub fn from_number(number: u8) -> Option<Control> {
        [Control::Off, Control::On, Control::Cycle, Control::Reset, Control::Diag, Control::Soft]
            .into_iter()
            .find(|control| control.number() == number & 0x0f)
    }

    /// Asks for it.
    pub fn request(self) -> Request {
        Request::new(NetFn::CHASSIS, CONTROL, [self.number()])
    }

    /// How the power reads once it is done; `None` where it stays as it is, or comes back by itself.
    pub fn ends_as(self) -> Option<bool> {
        match self {
            Control::Off | Control::Soft => Some(false),
            Control::On => Some(true),
            Control::Cycle | Control::Reset | Control::Diag => None,
        }
    }
}

/// What came of a control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Controlled {
    /// The BMC took it; the power may read otherwise for seconds yet (see [`until`]).
    Accepted,
    /// The machine was as wanted: on that is to be on, off that is to be off.
    Already,
}

/// Does something to the power. Firmware that refuses what is so already ("on" of a machine that is on) is
/// read back: to the operator that is well. A control is never sent twice by this procedure.
pub async fn control(bmc: &impl Controller, control: Control) -> Result<Controlled, Error> {
    let request = control.request();
    let (netfn, command) = (request.netfn, request.command);
    let completion = match bmc.ask(request).await {
        // The question or its answer was lost, and it may have been done: the power tells.
        Err(error @ Error::Uncertain { .. }) => {
            let wanted = control.ends_as().ok_or(error.clone())?;
            let done = status(bmc).await.is_ok_and(|status| status.power == wanted);
            return if done { Ok(Controlled::Accepted) } else { Err(error) };
        }
        answer => answer?.completion,
    };
    if completion == Completion::OK {
        return Ok(Controlled::Accepted);
    }
    if let Some(wanted) = control.ends_as()
        && completion != Completion::PRIVILEGE
        && status(bmc).await.is_ok_and(|status| status.power == wanted)
    {
        return Ok(Controlled::Already);
    }
    Err(Error::Refused { netfn, command, completion })
}

/// What was read while waiting for the power.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waited {
    /// It read as wanted after so long.
    Reads(ChassisStatus, Duration),
    /// It still read otherwise at the end.
    Still(ChassisStatus),
}

/// Reads the power until it is as wanted, for as long as `patience`: a fence's evidence, and what `power on`
/// shows as progress. Silence is waited out (a BMC that shares the host's NIC loses its link when the power
/// changes) and is never evidence: if the last reading failed, that error is the outcome.
pub async fn until(bmc: &impl Controller, on: bool, patience: Duration) -> Result<Waited, Error> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(200);
    loop {
        let read = status(bmc).await;
        match &read {
            Ok(status) if status.power == on => {
                return Ok(Waited::Reads(*status, begun.elapsed()));
            }
            Err(error) if !error.is_passing() => return Err(error.clone()),
            _ => {}
        }
        let left = patience.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return read.map(Waited::Still);
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 3 / 2).min(Duration::from_secs(2));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::script::{Script, ok, refuse};

    fn ask_status() -> Request {
        Request::new(NetFn::CHASSIS, STATUS, [])
    }

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..8)) {
            prop_assert_eq!(ChassisStatus::decode(&data).is_ok(), data.len() >= 3);
        }
    }

    #[test]
    fn every_bit_has_its_place() {
        let status = ChassisStatus::decode(&[0x41, 0x10, 0x60, 0xf1]).unwrap();
        assert!(status.power && status.last.command && status.complaints().is_empty());
        assert_eq!((status.restore, status.identify), (Restore::On, Some(Light::On)));
        assert!(status.front_panel.unwrap().power_disabled);
        let status = ChassisStatus::decode(&[0x1e, 0x0f, 0x0f]).unwrap();
        assert_eq!(status.complaints().len(), 8);
        assert_eq!((status.front_panel, status.identify), (None, None));
    }

    #[tokio::test]
    async fn on_that_is_on_is_well_and_a_cycle_of_one_that_is_off_is_not() {
        let bmc = Script::new([
            (Control::On.request(), refuse(0xd5)),
            (ask_status(), ok([0x01, 0, 0])),
            (Control::Cycle.request(), refuse(0xd5)),
            (Control::Off.request(), refuse(0xc0)),
            (ask_status(), ok([0x01, 0, 0])),
            (Control::Soft.request(), refuse(0xd4)),
        ]);
        assert_eq!(control(&bmc, Control::On).await, Ok(Controlled::Already));
        let error = control(&bmc, Control::Cycle).await.unwrap_err();
        assert!(error.to_string().contains("can only be switched on"), "{error}");
        let error = control(&bmc, Control::Off).await.unwrap_err();
        assert_eq!(error.completion(), Some(Completion::NODE_BUSY));
        assert!(control(&bmc, Control::Soft).await.is_err());
        bmc.finish();
    }

    #[tokio::test]
    async fn an_answer_that_is_lost_and_the_power_that_tells() {
        let uncertain = || Err(Error::Uncertain { waited: Duration::from_secs(5) });
        let bmc = Script::new([
            (Control::Off.request(), uncertain()),
            (ask_status(), ok([0x00, 0, 0])),
            (Control::Off.request(), uncertain()),
            (ask_status(), ok([0x01, 0, 0])),
            (Control::Cycle.request(), uncertain()),
        ]);
        assert_eq!(control(&bmc, Control::Off).await, Ok(Controlled::Accepted));
        assert!(control(&bmc, Control::Off).await.is_err());
        assert!(control(&bmc, Control::Cycle).await.is_err());
        bmc.finish();
    }

    #[tokio::test]
    async fn power_is_read_until_it_is_off_and_silence_is_no_evidence() {
        let lost = || Err(Error::Lost { waited: Duration::from_secs(1) });
        let bmc = Script::new([
            (ask_status(), ok([0x01, 0, 0])),
            (ask_status(), lost()),
            (ask_status(), ok([0x00, 0, 0])),
        ]);
        let waited = until(&bmc, false, Duration::from_secs(60)).await.unwrap();
        assert!(matches!(waited, Waited::Reads(status, _) if !status.power));
        bmc.finish();

        let bmc = Script::new([(ask_status(), lost())]);
        assert!(until(&bmc, false, Duration::ZERO).await.is_err());
        let bmc = Script::new([(ask_status(), ok([0x01, 0, 0]))]);
        let waited = until(&bmc, false, Duration::ZERO).await.unwrap();
        assert!(matches!(waited, Waited::Still(status) if status.power));
    }
}

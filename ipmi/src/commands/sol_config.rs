//! How a BMC does Serial over LAN: whether at all, for whom, how fast, and how patiently.
//!
//! IPMI 2.0 §26.2–26.3 and table 26-5.

use std::time::Duration;

use serde::Serialize;

use super::channel::Limit;
use super::parameters::{Setting, Table};
use crate::controller::Controller;
use crate::error::Error;

const ENABLE: u8 = 1;
const AUTHENTICATION: u8 = 2;
const ACCUMULATE: u8 = 3;
const RETRY: u8 = 4;
const SPEED_KEPT: u8 = 5;
const SPEED: u8 = 6;
const PAYLOAD_CHANNEL: u8 = 7;
const PAYLOAD_PORT: u8 = 8;

/// Bits a second of the host's serial port, as numbers on the wire (table 26-5, parameters 5 and 6).
const SPEEDS: [(u8, u32); 5] = [(6, 9600), (7, 19200), (8, 38400), (9, 57600), (10, 115_200)];

/// How fast the BMC thinks that the host's serial port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speed {
    /// As the serial channel is set.
    Channel,
    /// So many bits a second.
    Bits(u32),
    /// A number without a meaning.
    Reserved(u8),
}

impl Speed {
    fn number(self) -> Option<u8> {
        match self {
            Speed::Channel => Some(0),
            Speed::Bits(bits) => SPEEDS.iter().find(|known| known.1 == bits).map(|known| known.0),
            Speed::Reserved(_) => None,
        }
    }

    fn from_number(number: u8) -> Speed {
        match number & 0x0f {
            0 => Speed::Channel,
            number => SPEEDS
                .iter()
                .find(|known| known.0 == number)
                .map_or(Speed::Reserved(number), |known| Speed::Bits(known.1)),
        }
    }
}

impl Serialize for Speed {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Speed::Channel => to.serialize_str("channel"),
            Speed::Bits(bits) => to.serialize_u32(*bits),
            Speed::Reserved(_) => to.serialize_str("reserved"),
        }
    }
}

/// What a BMC tells of its settings; `None` is not told. OpenBMC has neither of the speeds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SolSettings {
    /// It does Serial over LAN.
    pub enabled: Option<bool>,
    /// It takes characters only encrypted.
    pub force_encryption: Option<bool>,
    /// It takes characters only authenticated.
    pub force_authentication: Option<bool>,
    /// The least privilege of who may use it.
    pub privilege: Option<Limit>,
    /// It waits so long for more characters before it sends, in steps of 5 ms.
    #[serde(rename = "accumulate-ms", serialize_with = "milliseconds")]
    pub accumulate: Option<Duration>,
    /// It sends at once from so many characters on.
    pub threshold: Option<u8>,
    /// It sends a packet again so many times, 7 at most.
    pub retries: Option<u8>,
    /// After so long, in steps of 10 ms. Firmware with 0 here repeats without end or pause.
    #[serde(rename = "retry-interval-ms", serialize_with = "milliseconds")]
    pub retry_interval: Option<Duration>,
    /// Speed after its next restart.
    pub speed_kept: Option<Speed>,
    /// Speed in force.
    pub speed: Option<Speed>,
    /// The channel it is on. Not to be set.
    pub payload_channel: Option<u8>,
    /// The UDP port it is at. Not to be set.
    pub payload_port: Option<u16>,
}

fn milliseconds<S: serde::Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    value.map(|value| u64::try_from(value.as_millis()).unwrap_or(u64::MAX)).serialize(to)
}

impl SolSettings {
    /// Takes in a parameter's datum; bytes that are missing are not told.
    fn take(&mut self, parameter: u8, data: &[u8]) {
        let first = data.first().copied();
        let second = data.get(1).copied();
        let steps = |step: u64| move |count: u8| Duration::from_millis(step * u64::from(count));
        match parameter {
            ENABLE => self.enabled = first.map(|on| on & 1 != 0),
            AUTHENTICATION => {
                self.force_encryption = first.map(|byte| byte & 0x80 != 0);
                self.force_authentication = first.map(|byte| byte & 0x40 != 0);
                self.privilege = first.map(Limit::from_number);
            }
            ACCUMULATE => {
                self.accumulate = first.map(steps(5));
                self.threshold = second;
            }
            RETRY => {
                self.retries = first.map(|count| count & 7);
                self.retry_interval = second.map(steps(10));
            }
            SPEED_KEPT => self.speed_kept = first.map(Speed::from_number),
            SPEED => self.speed = first.map(Speed::from_number),
            PAYLOAD_CHANNEL => self.payload_channel = first.map(|channel| channel & 0x0f),
            PAYLOAD_PORT => {
                self.payload_port = data.first_chunk().map(|port| u16::from_le_bytes(*port));
            }
            _ => {}
        }
    }
}

/// How a channel does Serial over LAN.
pub async fn get(bmc: &impl Controller, channel: u8) -> Result<SolSettings, Error> {
    let mut settings = SolSettings::default();
    for parameter in ENABLE..=PAYLOAD_PORT {
        if let Some(data) = Table::sol(channel).read_if_known(bmc, parameter, 0, 0).await? {
            settings.take(parameter, &data);
        }
    }
    if settings == SolSettings::default() {
        return Err(Error::Unsupported("Serial over LAN"));
    }
    Ok(settings)
}

fn steps(duration: Duration, step: u128) -> Result<u8, Error> {
    u8::try_from(duration.as_millis() / step)
        .map_err(|_| Error::Invalid(format!("at most {} ms", 255 * step)))
}

/// Sets what is `Some` and differs from `now`, and reads it back. What shares a byte with it is taken from
/// `now`, which [`get`] gave.
///
/// # Errors
/// [`Error::NotKept`] if it reads back otherwise: firmware of OpenBMC takes some and keeps nothing.
pub async fn set(
    bmc: &impl Controller,
    channel: u8,
    now: &SolSettings,
    wanted: &SolSettings,
) -> Result<SolSettings, Error> {
    if wanted.payload_channel.is_some() || wanted.payload_port.is_some() {
        return Err(Error::Invalid("channel and port of Serial over LAN follow the LAN's".into()));
    }
    let merged = SolSettings {
        enabled: wanted.enabled.or(now.enabled),
        force_encryption: wanted.force_encryption.or(now.force_encryption),
        force_authentication: wanted.force_authentication.or(now.force_authentication),
        privilege: wanted.privilege.or(now.privilege),
        accumulate: wanted.accumulate.or(now.accumulate),
        threshold: wanted.threshold.or(now.threshold),
        retries: wanted.retries.or(now.retries),
        retry_interval: wanted.retry_interval.or(now.retry_interval),
        speed_kept: wanted.speed_kept.or(now.speed_kept),
        speed: wanted.speed.or(now.speed),
        ..*now
    };
    let mut settings = Vec::new();
    for parameter in ENABLE..=SPEED {
        let data = encode(&merged, parameter)?;
        if data != encode(now, parameter)? {
            settings.push(Setting::must(parameter, data));
        }
    }
    if settings.is_empty() {
        return Ok(*now);
    }
    Table::sol(channel).change(bmc, &settings).await?;
    let reads = get(bmc, channel).await?;
    for setting in &settings {
        if encode(&reads, setting.parameter)? != setting.data {
            let reads = words(&reads, setting.parameter);
            return Err(Error::NotKept { what: "a setting of Serial over LAN", reads });
        }
    }
    Ok(reads)
}

/// A parameter's datum; empty where nothing is known of it.
fn encode(settings: &SolSettings, parameter: u8) -> Result<Vec<u8>, Error> {
    let flag = |flag: Option<bool>, bit: u8| u8::from(flag == Some(true)) << bit;
    let speed = |speed: Option<Speed>| match speed {
        None | Some(Speed::Reserved(_)) => Ok(Vec::new()),
        Some(speed) => match speed.number() {
            Some(number) => Ok(vec![number]),
            None => Err(Error::Invalid(
                "speeds of Serial over LAN are 9600, 19200, 38400, 57600 and 115200".into(),
            )),
        },
    };
    Ok(match parameter {
        ENABLE => settings.enabled.map(u8::from).into_iter().collect(),
        AUTHENTICATION => match settings.privilege {
            None => Vec::new(),
            Some(privilege) => vec![
                flag(settings.force_encryption, 7)
                    | flag(settings.force_authentication, 6)
                    | privilege.number(),
            ],
        },
        ACCUMULATE => match (settings.accumulate, settings.threshold) {
            (Some(accumulate), Some(threshold)) => vec![steps(accumulate, 5)?, threshold],
            _ => Vec::new(),
        },
        RETRY => match (settings.retries, settings.retry_interval) {
            (Some(retries), _) if retries > 7 => {
                return Err(Error::Invalid("Serial over LAN retries 7 times at most".into()));
            }
            (Some(retries), Some(interval)) => vec![retries, steps(interval, 10)?],
            _ => Vec::new(),
        },
        SPEED_KEPT => speed(settings.speed_kept)?,
        SPEED => speed(settings.speed)?,
        _ => Vec::new(),
    })
}

fn words(settings: &SolSettings, parameter: u8) -> String {
    match parameter {
        ENABLE => format!("enabled {:?}", settings.enabled),
        AUTHENTICATION => format!(
            "{}, encryption forced {:?}, authentication forced {:?}",
            settings.privilege.map_or("unset", Limit::name),
            settings.force_encryption,
            settings.force_authentication
        ),
        ACCUMULATE => {
            format!("accumulates {:?}, threshold {:?}", settings.accumulate, settings.threshold)
        }
        RETRY => format!("retries {:?} after {:?}", settings.retries, settings.retry_interval),
        SPEED_KEPT => format!("speed after a restart {:?}", settings.speed_kept),
        _ => format!("speed {:?}", settings.speed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::script::{Script, ok, refuse};
    use crate::message::{Request, Response};

    type Step = (Request, Result<Response, Error>);

    fn read(parameter: u8, data: &[u8]) -> Step {
        let mut answer = vec![0x11];
        answer.extend(data);
        (Table::sol(1).get_request(parameter, 0, 0), ok(answer))
    }

    fn whole(retry: [u8; 2]) -> Vec<Step> {
        let unknown = |parameter| (Table::sol(1).get_request(parameter, 0, 0), refuse(0x80));
        vec![
            read(1, &[1]),
            read(2, &[0xc2]),
            read(3, &[12, 96]),
            read(4, &retry),
            unknown(5),
            unknown(6),
            read(7, &[1]),
            read(8, &[0x6f, 0x02]),
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_and_back(parameter in 1u8..=8, data in prop::collection::vec(any::<u8>(), 0..4)) {
            let mut settings = SolSettings::default();
            settings.take(parameter, &data);
            let bytes = encode(&settings, parameter).unwrap();
            let mut again = SolSettings::default();
            again.take(parameter, &bytes);
            prop_assert!(bytes.is_empty() || again == settings);
        }
    }

    #[tokio::test]
    async fn one_setting_changes_its_byte_and_leaves_its_neighbour() {
        let written = Table::sol(1).set_request(4, &[7, 20]);
        let progress = |state| (Table::sol(1).set_request(0, &[state]), ok([]));
        let mut steps = whole([7, 0]);
        steps.extend([progress(1), (written, ok([])), progress(2), progress(0)]);
        steps.extend(whole([7, 20]));
        let bmc = Script::new(steps);
        let now = get(&bmc, 1).await.unwrap();
        assert_eq!((now.retry_interval, now.payload_port), (Some(Duration::ZERO), Some(623)));
        assert_eq!((now.privilege, now.speed), (Some(Limit::User), None));
        let wanted = SolSettings {
            retry_interval: Some(Duration::from_millis(200)),
            ..SolSettings::default()
        };
        let reads = set(&bmc, 1, &now, &wanted).await.unwrap();
        assert_eq!(reads.retry_interval, wanted.retry_interval);
        bmc.finish();
    }

    #[tokio::test]
    async fn nonsense_and_nothing_are_not_sent() {
        let bmc = Script::new([]);
        let now = SolSettings { retries: Some(7), ..SolSettings::default() };
        assert_eq!(set(&bmc, 1, &now, &now).await, Ok(now));
        for wrong in [
            SolSettings { speed: Some(Speed::Bits(1200)), ..now },
            SolSettings { payload_port: Some(1), ..now },
            SolSettings { retries: Some(8), ..now },
        ] {
            assert!(set(&bmc, 1, &now, &wrong).await.is_err(), "{wrong:?}");
        }
    }
}

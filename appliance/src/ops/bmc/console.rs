//! How a BMC does Serial over LAN, and changing that.

use std::time::Duration;

use koboshi_ipmi::commands::channel::{self, Limit};
use koboshi_ipmi::commands::sol_config::{self, SolSettings, Speed};
use serde::{Deserialize, Serialize};

use super::named;
use crate::bmcs::Lent;
use crate::ops::many::{Failure, Said};

/// What changes; nothing, if nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SolChange {
    /// Whether it does it at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Bits a second of the host's serial port, now and after a restart of the BMC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<u32>,
    /// How often a packet is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u8>,
    /// After how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_interval: Option<Duration>,
    /// Whether it refuses sessions that do not encrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_encryption: Option<bool>,
}

impl SolChange {
    /// Nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == SolChange::default()
    }

    pub(super) async fn apply(&self, bmc: &Lent) -> Result<Said, Failure> {
        let channel = channel::lan(bmc).await?;
        let mut settings = sol_config::get(bmc, channel).await?;
        if !self.is_empty() {
            let speed = self.speed.map(Speed::Bits);
            let wanted = SolSettings {
                enabled: self.enabled,
                // Firmware of OpenBMC knows no speed: what is not told cannot be set.
                speed: speed.filter(|_| settings.speed.is_some()),
                speed_kept: speed.filter(|_| settings.speed_kept.is_some()),
                retries: self.retries,
                retry_interval: self.retry_interval,
                force_encryption: self.force_encryption,
                ..SolSettings::default()
            };
            if speed.is_some() && wanted.speed.is_none() && wanted.speed_kept.is_none() {
                return Err(Failure::new("failed", "this BMC does not set the speed")
                    .help("it follows the host's serial port: set that in the firmware set-up"));
            }
            settings = sol_config::set(bmc, channel, &settings, &wanted).await?;
        }
        Ok(said(&settings))
    }
}

fn said(settings: &SolSettings) -> Said {
    let or = |told: Option<String>| told.unwrap_or_else(|| "-".to_string());
    let word = match settings.enabled {
        Some(true) => "enabled",
        Some(false) => "disabled",
        None => "not told",
    };
    let retries = settings.retries.zip(settings.retry_interval);
    let cells = [
        or(settings.privilege.map(|privilege: Limit| privilege.name().to_string())),
        or(settings
            .force_encryption
            .map(|forced| if forced { "forced" } else { "optional" }.into())),
        or(settings.speed.or(settings.speed_kept).map(|speed| named(&speed))),
        or(retries.map(|(count, every)| format!("{count} every {} ms", every.as_millis()))),
        or(settings.payload_port.map(|port| port.to_string())),
    ];
    Said::line(word, cells, serde_json::to_value(settings).unwrap_or_default())
}

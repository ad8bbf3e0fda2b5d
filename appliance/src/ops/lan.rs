//! `koboshi lan m01`: a BMC's own network, and changing it. Whoever takes its address away, or puts it into
//! another VLAN, does not hear the answer: that is said, and is no failure.

use std::net::Ipv4Addr;

use koboshi_ipmi::commands::channel;
use koboshi_ipmi::commands::lan::{self, LanSettings, Source};
use koboshi_ipmi::commands::lan_set::{self, Changed, LanChange};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::many::{Deed, Failure, On, Operation, Said};

/// What changes; nothing, if nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Query {
    /// The channel; none: the one it is reached by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<u8>,
    /// Its address is lent by DHCP, or (false) its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Its mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Ipv4Addr>,
    /// Its gateway; 0.0.0.0 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// Its VLAN; 0 is untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The priority of what it sends in a VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan_priority: Option<u8>,
}

impl Query {
    fn change(&self) -> Option<LanChange> {
        let nothing = Query { channel: self.channel, ..Query::default() };
        if *self == nothing {
            return None;
        }
        Some(LanChange {
            source: self.dhcp.map(|dhcp| if dhcp { Source::Dhcp } else { Source::Static }),
            address: self.address,
            mask: self.mask,
            gateway: self.gateway.map(|gateway| (!gateway.is_unspecified()).then_some(gateway)),
            vlan: self.vlan.map(|id| (id != 0).then_some(id)),
            vlan_priority: self.vlan_priority,
            ..LanChange::default()
        })
    }

    fn says(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.dhcp.map(|dhcp| if dhcp { "DHCP" } else { "static" }.to_string()));
        parts.extend(self.address.map(|address| format!("address {address}")));
        parts.extend(self.mask.map(|mask| format!("mask {mask}")));
        parts.extend(self.gateway.map(|gateway| format!("gateway {gateway}")));
        parts.extend(self.vlan.map(|id| match id {
            0 => "no VLAN".to_string(),
            id => format!("VLAN {id}"),
        }));
        parts.extend(self.vlan_priority.map(|priority| format!("priority {priority}")));
        format!("lan set {}", parts.join(", "))
    }
}

impl Operation for Query {
    const NAME: &'static str = "lan";

    fn headings(&self) -> &'static [&'static str] {
        match self.change() {
            None => &[
                "SOURCE",
                "ADDRESS        ",
                "MASK           ",
                "GATEWAY        ",
                "VLAN",
                "MAC              ",
                "SUITES",
            ],
            Some(_) => &["RESULT     ", "NOTE"],
        }
    }

    fn deed(&self) -> Option<Deed> {
        self.change().map(|_| Deed::of_bmc(self.says()))
    }

    fn check(&self, machines: usize) -> Result<(), String> {
        match self.address {
            Some(address) if machines > 1 => {
                Err(format!("{machines} BMCs cannot all have {address}: one machine at a time"))
            }
            _ => Ok(()),
        }
    }

    async fn run(&self, on: &On) -> Result<Said, Failure> {
        let bmc = on.bmc()?;
        let channel = match self.channel {
            Some(channel) => channel,
            None => channel::lan(&bmc).await?,
        };
        let Some(change) = self.change() else { return Ok(said(&lan::get(&bmc, channel).await?)) };
        let (word, note, settings) = match lan_set::set(&bmc, channel, &change).await? {
            Changed::Nothing => ("as before", "it was set so already", None),
            Changed::Done(settings) => ("changed", "", Some(settings)),
            Changed::Silent => (
                "went silent",
                "as a BMC does whose address or VLAN changes: look for it at its new place, and mend the site file",
                None,
            ),
        };
        Ok(Said::line(word, [note.to_string()], json!({ "lan": settings, "result": word })))
    }
}

fn said(lan: &LanSettings) -> Said {
    let or = |text: Option<String>| text.unwrap_or_else(|| "-".to_string());
    let source = match lan.source {
        Some(Source::Static) => "static",
        Some(Source::Dhcp) => "DHCP",
        Some(Source::Bios) => "BIOS",
        Some(Source::Unspecified | Source::Other) => "other",
        None => "-",
    };
    let suites = lan.suites.iter().map(|one| one.suite.to_string()).collect::<Vec<_>>();
    let cells = vec![
        source.to_string(),
        or(lan.address.map(|address| address.to_string())),
        or(lan.mask.map(|mask| mask.to_string())),
        or(lan.gateway.map(|gateway| gateway.to_string())),
        or(lan.vlan.map(|id| id.to_string())),
        or(lan.mac.map(|mac| mac.to_string())),
        suites.join(","),
    ];
    let data = serde_json::to_value(lan).unwrap_or_default();
    Said { word: source.to_string(), cells: vec![cells], data }
}

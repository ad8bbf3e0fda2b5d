//! Changing where a BMC is in the network, possibly from under the session that asks for it.
//!
//! IPMI 2.0 §23.1. Order matters: firmware takes no address while the source is DHCP, and what cuts the
//! session (source, address, VLAN) comes last, so that the rest is in place by then.

use std::net::Ipv4Addr;

use serde::Serialize;

use super::channel::Limit;
use super::lan::{self, Arp, LanSettings, Source, SuiteLimit};
use super::parameters::{Setting, Table};
use crate::controller::Controller;
use crate::error::Error;

/// What is to be otherwise; `None` stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LanChange {
    /// Where the address is from.
    pub source: Option<Source>,
    /// The address; makes it a static one unless `source` says otherwise.
    pub address: Option<Ipv4Addr>,
    /// Its mask.
    pub mask: Option<Ipv4Addr>,
    /// Default gateway; `Some(None)` is none.
    pub gateway: Option<Option<Ipv4Addr>>,
    /// Backup gateway; `Some(None)` is none.
    pub backup_gateway: Option<Option<Ipv4Addr>>,
    /// VLAN, 1 to 4094; `Some(None)` is untagged.
    pub vlan: Option<Option<u16>>,
    /// Its priority, 0 to 7.
    pub vlan_priority: Option<u8>,
    /// ARP by itself.
    pub arp: Option<Arp>,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Changed {
    /// It was so already: nothing was written.
    Nothing,
    /// It reads back as wanted.
    Done(Box<LanSettings>),
    /// The BMC went silent over it, as it does when its own address or VLAN changes: it is to be looked for
    /// where it was sent.
    Silent,
}

impl LanChange {
    /// Whether it makes sense, before anything is sent.
    pub fn check(&self, now: &LanSettings) -> Result<(), Error> {
        let wrong = |text: &str| Err(Error::Invalid(text.into()));
        let dhcp = self.source == Some(Source::Dhcp);
        if dhcp && (self.address.is_some() || self.mask.is_some()) {
            return wrong("with DHCP the address and its mask come from there");
        }
        if matches!(self.source, Some(Source::Unspecified | Source::Other)) {
            return wrong("an address is static, by DHCP or from the BIOS");
        }
        if self.vlan.flatten().is_some_and(|id| !(1..=4094).contains(&id)) {
            return wrong("VLANs are 1 to 4094");
        }
        if self.vlan_priority.is_some_and(|priority| priority > 7) {
            return wrong("priorities are 0 to 7");
        }
        let Some(address) = self.address else { return Ok(()) };
        if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
            return wrong("that is no address for a BMC");
        }
        let Some(mask) = self.mask.or(now.mask).filter(|mask| !mask.is_unspecified()) else {
            return wrong("the BMC has no mask yet: give one with the address");
        };
        let mask = mask.to_bits();
        if mask.leading_ones() + mask.trailing_zeros() != 32 {
            return wrong("that is no mask");
        }
        let gateway = self.gateway.unwrap_or(now.gateway);
        if self.gateway.is_some()
            && gateway.is_some_and(|gateway| (gateway.to_bits() ^ address.to_bits()) & mask != 0)
        {
            return wrong("the gateway is not in the subnet of the address");
        }
        Ok(())
    }

    /// Parameters that change, in the order they are written.
    fn settings(&self, now: &LanSettings) -> Vec<Setting> {
        let source = self.source.or(self.address.map(|_| Source::Static));
        let source = source
            .filter(|source| now.source != Some(*source))
            .map(|source| Setting::must(lan::SOURCE, [source.number()]));
        let to_static = self.source != Some(Source::Dhcp);
        // Who turns static may forget what DHCP gave it: then even the same address is written.
        let turns = source.is_some() && to_static;
        let address = |parameter, wanted: Option<Ipv4Addr>, now: Option<Ipv4Addr>| {
            wanted
                .filter(|wanted| turns || Some(*wanted) != now)
                .map(|wanted| Setting::must(parameter, wanted.octets()))
        };
        let gateway = |parameter, wanted: Option<Option<Ipv4Addr>>, now: Option<Ipv4Addr>| {
            wanted.filter(|wanted| *wanted != now).map(|wanted| {
                let wanted = wanted.unwrap_or(Ipv4Addr::UNSPECIFIED);
                Setting::must(parameter, wanted.octets())
            })
        };
        let arp = self.arp.filter(|arp| now.arp != Some(*arp)).map(|arp| {
            Setting::must(lan::ARP, [u8::from(arp.answers) << 1 | u8::from(arp.announces)])
        });
        let priority = self
            .vlan_priority
            .filter(|priority| now.vlan_priority != Some(*priority))
            .map(|priority| Setting::must(lan::VLAN_PRIORITY, [priority]));
        let vlan = self.vlan.filter(|vlan| *vlan != now.vlan).map(|vlan| {
            let bits = vlan.map_or(0, |id| 0x8000 | id);
            Setting::must(lan::VLAN, bits.to_le_bytes())
        });
        let (first, last) = if to_static { (source, None) } else { (None, source) };
        [
            first,
            address(lan::MASK, self.mask, now.mask),
            gateway(lan::GATEWAY, self.gateway, now.gateway),
            gateway(lan::BACKUP_GATEWAY, self.backup_gateway, now.backup_gateway),
            arp,
            priority,
            address(lan::ADDRESS, self.address, now.address),
            last,
            vlan,
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn is_in(&self, reads: &LanSettings) -> Result<(), Error> {
        let kept = |what, wanted: Option<String>, reads: Option<String>| match wanted {
            Some(wanted) if reads.as_ref() != Some(&wanted) => {
                Err(Error::NotKept { what, reads: reads.unwrap_or_else(|| "none".into()) })
            }
            _ => Ok(()),
        };
        let text = |address: Option<Ipv4Addr>| address.map(|address| address.to_string());
        let or_none = |address: Option<Ipv4Addr>| text(address).unwrap_or_else(|| "none".into());
        let vlan = |id: Option<u16>| id.map_or("none".into(), |id| id.to_string());
        kept(
            "the source of its address",
            self.source.map(|source| format!("{source:?}").to_lowercase()),
            reads.source.map(|source| format!("{source:?}").to_lowercase()),
        )?;
        kept("the address", text(self.address), text(reads.address))?;
        kept("the mask", text(self.mask), text(reads.mask))?;
        kept("the gateway", self.gateway.map(or_none), Some(or_none(reads.gateway)))?;
        kept(
            "the backup gateway",
            self.backup_gateway.map(or_none),
            Some(or_none(reads.backup_gateway)),
        )?;
        kept("the VLAN", self.vlan.map(vlan), Some(vlan(reads.vlan)))?;
        kept(
            "the VLAN's priority",
            self.vlan_priority.map(|priority| priority.to_string()),
            reads.vlan_priority.map(|priority| priority.to_string()),
        )
    }
}

/// Whether a parameter moves the BMC out of reach, if it is the LAN one is talking over.
fn cuts(setting: &Setting) -> bool {
    matches!(setting.parameter, lan::SOURCE | lan::ADDRESS | lan::VLAN)
}

fn is_silence(error: &Error) -> bool {
    use Error::{Lost, Network, Uncertain, Unreachable};
    matches!(error, Lost { .. } | Uncertain { .. } | Unreachable { .. } | Network(_))
}

/// Changes LAN settings of a channel, as one change where the BMC knows how, and reads them back.
///
/// # Errors
/// [`Error::Invalid`] before anything is sent; [`Error::NotKept`] if it reads back otherwise. Silence after
/// something that may move the BMC is no error: [`Changed::Silent`].
pub async fn set(bmc: &impl Controller, channel: u8, change: &LanChange) -> Result<Changed, Error> {
    let now = lan::basic(bmc, channel).await?;
    change.check(&now)?;
    let settings = change.settings(&now);
    if settings.is_empty() {
        return Ok(Changed::Nothing);
    }
    let may_cut = settings.iter().any(cuts);
    let outcome = async {
        Table::lan(channel).change(bmc, &settings).await?;
        lan::basic(bmc, channel).await
    };
    match outcome.await {
        Err(error) if may_cut && is_silence(&error) => Ok(Changed::Silent),
        Err(error) => Err(error),
        Ok(reads) => {
            change.is_in(&reads)?;
            Ok(Changed::Done(Box::new(reads)))
        }
    }
}

/// Sets how far sessions of a cipher suite may go ([`Limit::Unset`]: not at all), and reads it back.
pub async fn limit_suite(
    bmc: &impl Controller,
    channel: u8,
    suite: u8,
    limit: Limit,
) -> Result<Vec<SuiteLimit>, Error> {
    let mut suites = lan::suites(bmc, channel).await?;
    let Some(one) = suites.iter_mut().find(|one| one.suite == suite) else {
        return Err(Error::Invalid(format!("the BMC does not list cipher suite {suite}")));
    };
    one.limit = limit;
    let mut data = [0u8; 9];
    for (byte, pair) in data.iter_mut().skip(1).zip(suites.chunks(2)) {
        let nibble = |place: usize| pair.get(place).map_or(0, |one| one.limit.number());
        *byte = nibble(1) << 4 | nibble(0);
    }
    let settings = [Setting::must(lan::SUITE_LIMITS, data)];
    Table::lan(channel).change(bmc, &settings).await?;
    let reads = lan::suites(bmc, channel).await?;
    if reads != suites {
        let now = reads.iter().find(|one| one.suite == suite);
        let reads = now.map_or("none".into(), |one| one.limit.name().into());
        return Err(Error::NotKept { what: "the limit of the cipher suite", reads });
    }
    Ok(reads)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::commands::lan::tests::{Step, answers};
    use crate::commands::script::{Script, ok, refuse};

    fn write(parameter: u8, data: &[u8]) -> Step {
        (Table::lan(1).set_request(parameter, data), ok([]))
    }

    fn at(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, 0, last)
    }

    #[tokio::test]
    async fn a_new_address_cuts_the_session_and_that_is_told() {
        let lost = || Err(Error::Lost { waited: Duration::from_secs(5) });
        let mut steps = answers(&[(lan::SOURCE, &[2])]);
        steps.extend([
            write(0, &[1]),
            write(lan::SOURCE, &[1]),
            write(lan::MASK, &[255, 255, 255, 0]),
            write(lan::GATEWAY, &[10, 78, 0, 254]),
            (Table::lan(1).set_request(lan::ADDRESS, &[10, 78, 0, 2]), lost()),
        ]);
        let bmc = Script::new(steps);
        let change = LanChange {
            address: Some(at(2)),
            mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            gateway: Some(Some(at(254))),
            ..LanChange::default()
        };
        assert_eq!(set(&bmc, 1, &change).await, Ok(Changed::Silent));
        bmc.finish();
        // A gateway moves nobody: silence over it is an error.
        let mut steps = answers(&[]);
        steps.push((Table::lan(1).set_request(0, &[1]), lost()));
        let change = LanChange { gateway: Some(Some(at(254))), ..LanChange::default() };
        assert!(set(&Script::new(steps), 1, &change).await.is_err());
    }

    #[tokio::test]
    async fn a_vlan_is_set_read_back_and_taken_away() {
        let mut steps = answers(&[]);
        steps.extend([
            write(0, &[1]),
            write(lan::VLAN_PRIORITY, &[5]),
            write(lan::VLAN, &[0xe8, 0x83]),
            write(0, &[2]),
            write(0, &[0]),
        ]);
        steps.extend(answers(&[(lan::VLAN, &[0xe8, 0x83]), (lan::VLAN_PRIORITY, &[5])]));
        let bmc = Script::new(steps);
        let change =
            LanChange { vlan: Some(Some(1000)), vlan_priority: Some(5), ..LanChange::default() };
        let changed = set(&bmc, 1, &change).await.unwrap();
        assert!(matches!(changed, Changed::Done(lan) if lan.vlan == Some(1000)));
        bmc.finish();

        let mut steps = answers(&[(lan::VLAN, &[0xe8, 0x83])]);
        steps.extend([write(0, &[1]), write(lan::VLAN, &[0, 0]), write(0, &[2]), write(0, &[0])]);
        steps.extend(answers(&[(lan::VLAN, &[0xe8, 0x83])]));
        let bmc = Script::new(steps);
        let change = LanChange { vlan: Some(None), ..LanChange::default() };
        let error = set(&bmc, 1, &change).await.unwrap_err();
        assert!(error.to_string().contains("the VLAN and keeps another: 1000"), "{error}");
        bmc.finish();
    }

    #[tokio::test]
    async fn what_is_so_already_is_not_written_and_nonsense_neither() {
        let same = LanChange { address: Some(at(1)), vlan: Some(None), ..LanChange::default() };
        assert_eq!(set(&Script::new(answers(&[])), 1, &same).await, Ok(Changed::Nothing));
        let none = LanChange::default;
        for wrong in [
            LanChange { source: Some(Source::Dhcp), address: Some(at(1)), ..none() },
            LanChange { source: Some(Source::Other), ..none() },
            LanChange { vlan: Some(Some(0)), ..none() },
            LanChange { vlan: Some(Some(4095)), ..none() },
            LanChange { vlan_priority: Some(8), ..none() },
            LanChange { address: Some(Ipv4Addr::BROADCAST), ..none() },
            LanChange { address: Some(at(2)), mask: Some(Ipv4Addr::new(255, 0, 255, 0)), ..none() },
            LanChange {
                address: Some(at(2)),
                gateway: Some(Some(Ipv4Addr::new(10, 79, 0, 1))),
                ..none()
            },
        ] {
            let outcome = set(&Script::new(answers(&[])), 1, &wrong).await;
            assert!(matches!(outcome, Err(Error::Invalid(_))), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn cipher_suite_0_is_shut() {
        let read = |parameter, data: &[u8]| -> Step {
            (Table::lan(1).get_request(parameter, 0, 0), ok([&[0x11], data].concat()))
        };
        let three = |limits: &[u8]| {
            [
                read(lan::SUITE_COUNT, &[3]),
                read(lan::SUITES, &[0, 0, 3, 17]),
                read(lan::SUITE_LIMITS, limits),
            ]
        };
        let mut steps = three(&[0, 0x44, 0x04, 0, 0, 0, 0, 0, 0]).to_vec();
        steps.extend([
            (Table::lan(1).set_request(0, &[1]), refuse(0x80)),
            write(lan::SUITE_LIMITS, &[0, 0x40, 0x04, 0, 0, 0, 0, 0, 0]),
        ]);
        steps.extend(three(&[0, 0x40, 0x04, 0, 0, 0, 0, 0, 0]));
        let bmc = Script::new(steps);
        let suites = limit_suite(&bmc, 1, 0, Limit::Unset).await.unwrap();
        assert_eq!(suites[0].limit, Limit::Unset);
        bmc.finish();
        let bmc = Script::new(three(&[0, 0x44, 0x04]));
        assert!(limit_suite(&bmc, 1, 8, Limit::Unset).await.is_err());
    }
}

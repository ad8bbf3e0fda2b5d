//! Giving a BMC its place in the network, from within: nobody's session is cut by it, so it goes in the order that
//! firmware likes best, and is read back at the end. What is so already is not written.
//!
//! IPMI 2.0 §23.1 and table 23-4. Firmware takes no address while its source is DHCP; some is deaf for seconds after
//! each change, tells the old for as long, or knows no "set in progress" (0x80), or has one left behind by somebody
//! who died (0x81).

use std::net::Ipv4Addr;
use std::time::Duration;

use ipmi_rs::connection::NetFn;

use super::controller::{ADDRESS, Failure, GATEWAY, MASK, SOURCE, VLAN, Wire, lan};
use crate::contract::duty::BmcPlace;
use crate::contract::survey::{Lan, Source};

const SET_LAN: u8 = 0x01;
/// Set in progress, and what it can be (table 23-4, parameter 0).
const PROGRESS: u8 = 0;
const COMPLETE: u8 = 0;
const BEGUN: u8 = 1;
const COMMIT: u8 = 2;
const IN_PROGRESS: u8 = 0x81;
const UNSUPPORTED: u8 = 0x80;

const MOMENT: Duration = Duration::from_secs(1);
/// Tries at a parameter that is refused.
const TRIES: usize = 5;
/// Reads until what was written is told.
const READS: usize = 30;
/// Of those, for an address that somebody has to lend first.
const LENDS: usize = 10;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was there already: nothing was written.
    Same(Lan),
    /// It reads back as wanted.
    Moved(Lan),
}

/// A parameter on its way.
struct Setting {
    what: &'static str,
    number: u8,
    data: Vec<u8>,
}

fn setting(what: &'static str, number: u8, data: impl Into<Vec<u8>>) -> Setting {
    Setting { what, number, data: data.into() }
}

/// The mask of so many network bits.
fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0))
}

/// What differs, in the order in which it is written.
fn settings(wanted: &BmcPlace, now: &Lan) -> Vec<Setting> {
    let mut all = Vec::new();
    let source = if wanted.address.is_some() { Source::Static } else { Source::Dhcp };
    let turns = now.source != source;
    if turns {
        all.push(setting("its source", SOURCE, [if source == Source::Static { 1 } else { 2 }]));
    }
    if let Some(address) = wanted.address {
        // Who turns static may forget what DHCP gave it: then even the same is written.
        if turns || now.address != Some(address) {
            all.push(setting("the address", ADDRESS, address.octets()));
        }
        if turns || now.mask != Some(mask(wanted.prefix)) {
            all.push(setting("the mask", MASK, mask(wanted.prefix).octets()));
        }
        if let Some(gateway) =
            wanted.gateway.filter(|gateway| turns || now.gateway != Some(*gateway))
        {
            all.push(setting("the gateway", GATEWAY, gateway.octets()));
        }
    }
    let vlan = |id: u16| (id != 0).then_some(id);
    if let Some(id) = wanted.vlan.filter(|id| vlan(*id) != now.vlan) {
        let bits = vlan(id).map_or(0, |id| 0x8000 | (id & 0x0fff));
        all.push(setting("the VLAN", VLAN, bits.to_le_bytes()));
    }
    all
}

/// Puts the BMC there. In words why not, and what was written before that.
pub fn set(wire: &mut Wire, channel: u8, wanted: &BmcPlace) -> Result<Outcome, String> {
    let read = |wire: &mut Wire| lan(wire, channel).map_err(|error| error.to_string());
    let now = read(wire)?;
    let settings = settings(wanted, &now);
    if settings.is_empty() {
        return Ok(Outcome::Same(now));
    }
    let guarded = begin(wire, channel).map_err(|error| error.to_string())?;
    let mut written = Vec::new();
    let mut failed = None;
    for one in &settings {
        if let Err(error) = write(wire, channel, one) {
            failed = Some(format!("{} could not be set: {error}", one.what));
            break;
        }
        written.push(one.what);
    }
    if guarded {
        // Most have no roll-back and refuse "commit": then it holds already.
        for state in [COMMIT, COMPLETE].into_iter().skip(usize::from(failed.is_some())) {
            let _ = wire.call(NetFn::Transport, SET_LAN, &[channel, PROGRESS, state]);
        }
    }
    if let Some(why) = failed {
        return Err(match written.as_slice() {
            [] => format!("{why}; nothing was changed"),
            some => format!("{why}; {} changed already", some.join(", ")),
        });
    }
    // Those that are deaf for a while are asked again; only the last word counts.
    let mut told = read(wire);
    for n in 0..READS {
        match told.as_ref().map(|lan| (self::settings(wanted, lan).is_empty(), lan.address)) {
            Ok((true, Some(_))) => break,
            Ok((true, None)) if n >= LENDS => break,
            _ => {}
        }
        wire.pause(MOMENT);
        told = read(wire);
    }
    let told = told.map_err(|error| format!("it was written, and not read back: {error}"))?;
    match self::settings(wanted, &told).as_slice() {
        [] => Ok(Outcome::Moved(told)),
        other => {
            let what: Vec<&str> = other.iter().map(|one| one.what).collect();
            Err(format!("it takes {} and keeps another: {}", what.join(", "), shown(&told)))
        }
    }
}

/// Whether "in progress" is ours; not where the BMC has no such thing.
fn begin(wire: &mut Wire, channel: u8) -> Result<bool, Failure> {
    let say =
        |wire: &mut Wire, state| wire.call(NetFn::Transport, SET_LAN, &[channel, PROGRESS, state]);
    for _ in 0..TRIES {
        match say(wire, BEGUN) {
            Ok(_) => return Ok(true),
            Err(Failure::Refused(IN_PROGRESS)) => wire.pause(MOMENT),
            Err(Failure::Refused(_)) => return Ok(false),
            Err(silent) => return Err(silent),
        }
    }
    // Its owner is dead: nobody holds it for seconds.
    let _ = say(wire, COMPLETE);
    match say(wire, BEGUN) {
        Err(silent @ Failure::Silent(_)) => Err(silent),
        begun => Ok(begun.is_ok()),
    }
}

/// One parameter. Right after a change of the source many refuse the address, for a moment.
fn write(wire: &mut Wire, channel: u8, one: &Setting) -> Result<(), Failure> {
    let data = [&[channel, one.number], &one.data[..]].concat();
    let mut tries = 1..TRIES;
    loop {
        let told = wire.call(NetFn::Transport, SET_LAN, &data);
        match told {
            Ok(_) => return Ok(()),
            Err(Failure::Refused(UNSUPPORTED)) => return Err(Failure::Refused(UNSUPPORTED)),
            Err(failure) if tries.next().is_none() => return Err(failure),
            Err(_) => wire.pause(MOMENT),
        }
    }
}

/// `10.78.0.7/24 (static), gateway 10.78.0.1, VLAN 78`
pub fn shown(lan: &Lan) -> String {
    let bits = lan.mask.map_or(0, |mask| mask.to_bits().count_ones());
    let source = match lan.source {
        Source::Unknown => "of unknown source",
        Source::Static => "static",
        Source::Dhcp => "by DHCP",
        Source::Bios => "by the firmware",
    };
    let mut text = match lan.address {
        Some(address) => format!("{address}/{bits} ({source})"),
        None => format!("no address yet ({source})"),
    };
    if let Some(gateway) = lan.gateway {
        text.push_str(&format!(", gateway {gateway}"));
    }
    if let Some(vlan) = lan.vlan {
        text.push_str(&format!(", VLAN {vlan}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::controller::tests::Fake;
    use super::*;

    const AT: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 7);
    const GATE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

    fn there() -> BmcPlace {
        BmcPlace { address: Some(AT), prefix: 24, gateway: Some(GATE), vlan: None }
    }

    /// What came of it, and how long was waited.
    fn set_of(fake: &mut Fake, wanted: &BmcPlace) -> (Result<Outcome, String>, Duration) {
        let mut waited = Duration::ZERO;
        let mut pause = |span| waited += span;
        let mut ask = |netfn, command, data: &[u8]| fake.ask(netfn, command, data);
        let outcome = set(&mut Wire::new(&mut ask, &mut pause), 2, wanted);
        (outcome, waited)
    }

    fn numbers(fake: &Fake) -> Vec<(u8, u8)> {
        fake.set.iter().map(|(number, data)| (*number, data[0])).collect()
    }

    #[test]
    fn from_dhcp_to_an_address_of_its_own_and_then_nothing() {
        let mut fake = Fake::new();
        let (outcome, _) = set_of(&mut fake, &there());
        let Ok(Outcome::Moved(lan)) = outcome else { panic!("{outcome:?}") };
        assert_eq!((lan.source, lan.address, lan.gateway), (Source::Static, Some(AT), Some(GATE)));
        assert_eq!(shown(&lan), "10.78.0.7/24 (static), gateway 10.78.0.1");
        let written =
            [(0, 1), (SOURCE, 1), (ADDRESS, 10), (MASK, 255), (GATEWAY, 10), (0, 2), (0, 0)];
        assert_eq!(numbers(&fake), written);
        fake.set.clear();
        let (outcome, waited) = set_of(&mut fake, &there());
        assert!(matches!(outcome, Ok(Outcome::Same(_))), "{outcome:?}");
        assert!(fake.set.is_empty() && waited.is_zero());
        // One thing alone is written alone.
        let (outcome, _) = set_of(&mut fake, &BmcPlace { vlan: Some(1000), ..there() });
        assert!(matches!(outcome, Ok(Outcome::Moved(Lan { vlan: Some(1000), .. }))), "{outcome:?}");
        assert_eq!(numbers(&fake), [(0, 1), (VLAN, 0xe8), (0, 2), (0, 0)]);
        fake.set.clear();
        let (outcome, _) = set_of(&mut fake, &BmcPlace { vlan: Some(0), ..there() });
        assert!(matches!(outcome, Ok(Outcome::Moved(Lan { vlan: None, .. }))), "{outcome:?}");
    }

    #[test]
    fn back_to_dhcp() {
        let mut fake = Fake::new();
        fake.lan[2].1 = vec![1];
        let wanted = BmcPlace { address: None, prefix: 0, gateway: None, vlan: None };
        let (outcome, _) = set_of(&mut fake, &wanted);
        assert!(matches!(outcome, Ok(Outcome::Moved(Lan { source: Source::Dhcp, .. }))));
        assert_eq!(numbers(&fake), [(0, 1), (SOURCE, 2), (0, 2), (0, 0)]);
        // It has no address yet: that is waited for a little, and is no failure.
        let mut fake = Fake::new();
        (fake.lan[1].1, fake.lan[2].1) = (vec![0; 4], vec![1]);
        let (outcome, waited) = set_of(&mut fake, &wanted);
        let Ok(Outcome::Moved(lan)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(shown(&lan), "no address yet (by DHCP)");
        assert_eq!(waited, MOMENT * 10);
    }

    #[test]
    fn firmware_that_needs_a_moment_gets_it() {
        // The address is refused right after the source, the rest is told late.
        let mut fake = Fake { refuses: vec![(ADDRESS, 0xd5, 3)], slow: 12, ..Fake::new() };
        let (outcome, waited) = set_of(&mut fake, &there());
        assert!(matches!(outcome, Ok(Outcome::Moved(_))), "{outcome:?}");
        assert!(waited >= MOMENT * 3, "{waited:?}");
        // Without "set in progress", and with one that a dead man left.
        for code in [UNSUPPORTED, 0xc1] {
            let mut fake = Fake { refuses: vec![(0, code, 9)], ..Fake::new() };
            assert!(matches!(set_of(&mut fake, &there()).0, Ok(Outcome::Moved(_))));
            assert_eq!(fake.set[0].0, SOURCE);
        }
        let mut fake = Fake { refuses: vec![(0, IN_PROGRESS, TRIES)], ..Fake::new() };
        assert!(matches!(set_of(&mut fake, &there()).0, Ok(Outcome::Moved(_))));
        assert_eq!(numbers(&fake)[..2], [(0, 0), (0, 1)], "it was ended for him");
    }

    #[test]
    fn what_is_refused_is_told_with_what_was_done_before() {
        let mut fake = Fake { refuses: vec![(MASK, 0xcc, 99)], ..Fake::new() };
        let why = set_of(&mut fake, &there()).0.unwrap_err();
        assert!(why.contains("the mask could not be set: the BMC refuses it (0xcc)"), "{why}");
        assert!(why.contains("its source, the address changed already"), "{why}");
        assert_eq!(numbers(&fake).last(), Some(&(0, 0)), "in progress is over all the same");
        // It says yes, and does nothing.
        let mut fake = Fake { slow: 1000, ..Fake::new() };
        let (outcome, waited) = set_of(&mut fake, &there());
        let why = outcome.unwrap_err();
        assert!(why.contains("keeps another: 192.168.0.120/24 (by DHCP)"), "{why}");
        assert!(waited >= MOMENT * 30);
        let mut fake = Fake { silent: true, ..Fake::new() };
        assert!(set_of(&mut fake, &there()).0.unwrap_err().contains("does not answer"));
    }

    #[test]
    fn masks() {
        for (prefix, text) in [(0, "0.0.0.0"), (24, "255.255.255.0"), (32, "255.255.255.255")] {
            assert_eq!(mask(prefix).to_string(), text);
        }
        assert_eq!(mask(255).to_string(), "255.255.255.255");
    }
}

//! Faults by name: as the command line, control lines and help have them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use koboshi_ipmi::NetFn;

use super::{Faults, Mischief};

/// Names and what they take, for help.
pub const NAMES: &[(&str, &str)] = &[
    ("dead", "answers nothing"),
    ("loss=PERCENT", "datagrams lost, each way (loss-in, loss-out: one way)"),
    ("dup=PERCENT", "datagrams doubled, each way (dup-in, dup-out)"),
    ("reorder=PERCENT", "datagrams overtaken by the next, each way (reorder-in, reorder-out)"),
    ("slow=MILLISECONDS", "answers late"),
    ("single", "loses what comes while an answer is late"),
    ("no-ping", "does not answer RMCP pings"),
    ("ignore=NETFN:COMMAND", "takes no notice of a command (hexadecimal)"),
    ("ignore-cipher-suites", "the same for Get Channel Cipher Suites"),
    ("mute=NETFN:COMMAND", "carries a command out without answering"),
    ("busy=N", "the next N requests meet \"node busy\""),
    ("checksums", "wrong IPMB checksums"),
    ("no-v2-bit", "refuses the 2.0 bit of Get Channel Authentication Capabilities"),
    ("misleading", "says \"insufficient resources\" of a cipher suite it refuses"),
    ("full", "no session slot is free"),
    ("downgrade=SUITE", "agrees to this cipher suite whatever is asked for"),
    ("opensesspriv", "hashes keys with the privilege of Open Session"),
    ("no-name-bit", "hashes keys with the role of RAKP 1 less its name-only bit"),
    ("rakp2-length=BYTES", "the code of RAKP 2 is longer by so much, or shorter"),
    ("once", "takes no RAKP message twice"),
    ("sixteen", "keeps 16 bytes of passwords"),
    ("pad-names", "knows accounts only by names of 16 bytes"),
    ("no-name-only", "refuses to look an account up by its name alone"),
    ("wrong-capabilities", "lists authentication types of IPMI 1.5 that it does not take"),
    ("zero-session", "IPMI 1.5: its packets carry session id 0"),
    ("unexpected-auth", "IPMI 1.5: codes without meaning where none are agreed on"),
    ("force-per-message", "IPMI 1.5: no codes are agreed on, and packets without them dropped"),
    ("big-endian", "IPMI 1.5: counts packets in the other byte order"),
    ("sdr-most=BYTES", "refuses larger reads of records"),
    ("sdr-short=BYTES", "returns no more of a record than that"),
    ("sdr-lost=N", "loses the reservation every N reads"),
    ("sdr-endless", "its last record leads back to the first"),
    ("sdr-last", "gives up on its last record"),
    ("sdr-count", "says that it has a record more than it has"),
    ("sensor-scanning", "says that its sensors are not scanned, and reads them"),
    ("sel-generator", "events name a generator that there is not"),
    ("sol-port=PORT", "says that SOL is there"),
    ("sol-port-swapped", "says SOL's port with its bytes swapped"),
    ("sol-size=BYTES", "says this of SOL's payload size"),
    ("sol-skip=N", "skips a SOL sequence number every N packets"),
    ("sol-deaf", "SOL carries nothing"),
    ("sol-silent-theft", "who loses SOL to another is not told"),
    ("sol-repeats", "repeats SOL packets without end"),
    ("sol-no-status", "does not know Get Payload Activation Status"),
    ("sol-alerts", "activates SOL only where alerts are deferred"),
    ("sol-no-instances", "says that it has no instance of SOL"),
    ("sol-acks-once", "acknowledges a SOL packet once, and no repetition of it"),
    ("sol-part=CHARACTERS", "takes no more than this of a SOL packet"),
];

/// A fault that is none, or a value that it does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoFault(String);

impl fmt::Display for NoFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoFault {}

impl Faults {
    /// Sets one by `name` or `name=value`; a flag takes `off` for a value.
    pub fn set(&mut self, text: &str) -> Result<(), NoFault> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (text.trim(), None),
        };
        let flag = || match value {
            None | Some("on") => Ok(true),
            Some("off") => Ok(false),
            Some(value) => Err(NoFault(format!("{name} is a flag: {value} is neither on nor off"))),
        };
        match name {
            "dead" => self.dead = flag()?,
            "loss" => self.both(name, value, |side| &mut side.loss)?,
            "loss-in" => self.inbound.loss = percent(name, value)?,
            "loss-out" => self.outbound.loss = percent(name, value)?,
            "dup" => self.both(name, value, |side| &mut side.duplicates)?,
            "dup-in" => self.inbound.duplicates = percent(name, value)?,
            "dup-out" => self.outbound.duplicates = percent(name, value)?,
            "reorder" => self.both(name, value, |side| &mut side.reordering)?,
            "reorder-in" => self.inbound.reordering = percent(name, value)?,
            "reorder-out" => self.outbound.reordering = percent(name, value)?,
            "single" => self.single = flag()?,
            "slow" => self.slow = Duration::from_millis(number(name, value)?),
            "no-ping" => self.no_ping = flag()?,
            "ignore" => self.ignored.push(command(name, value)?),
            "ignore-cipher-suites" => match flag()? {
                true => self.ignored.push((NetFn::APP, 0x54)),
                false => self.ignored.retain(|ignored| *ignored != (NetFn::APP, 0x54)),
            },
            "mute" => self.unanswered.push(command(name, value)?),
            "busy" => self.busy = number(name, value)?,
            "checksums" => self.checksums = flag()?,
            "no-v2-bit" => self.no_v2_bit = flag()?,
            "misleading" => self.misleading = flag()?,
            "full" => self.full = flag()?,
            "downgrade" => self.downgrade = option(name, value)?,
            "opensesspriv" => self.opensesspriv = flag()?,
            "no-name-bit" => self.no_name_bit = flag()?,
            "rakp2-length" => self.rakp2_length = number(name, value)?,
            "once" => self.once = flag()?,
            "sixteen" => self.sixteen = flag()?,
            "pad-names" => self.pad_names = flag()?,
            "no-name-only" => self.no_name_only = flag()?,
            "wrong-capabilities" => self.wrong_capabilities = flag()?,
            "zero-session" => self.legacy.zero_session = flag()?,
            "unexpected-auth" => self.legacy.unexpected_auth = flag()?,
            "force-per-message" => self.legacy.force_per_message = flag()?,
            "big-endian" => self.legacy.big_endian = flag()?,
            "sdr-most" => self.sdr_most = option(name, value)?,
            "sdr-short" => self.sdr_short = option(name, value)?,
            "sdr-lost" => self.sdr_lost = option(name, value)?,
            "sdr-endless" => self.sdr_endless = flag()?,
            "sdr-last" => self.sdr_last = flag()?,
            "sdr-count" => self.sdr_count = flag()?,
            "sensor-scanning" => self.sensor_scanning = flag()?,
            "sel-generator" => self.sel_generator = flag()?,
            "sol-port" => self.sol_port = option(name, value)?,
            "sol-port-swapped" => self.sol_port_swapped = flag()?,
            "sol-size" => self.sol_size = option(name, value)?,
            "sol-skip" => self.sol_skip = option(name, value)?,
            "sol-deaf" => self.sol_deaf = flag()?,
            "sol-silent-theft" => self.sol_silent_theft = flag()?,
            "sol-repeats" => self.sol_repeats = flag()?,
            "sol-no-status" => self.sol_no_status = flag()?,
            "sol-alerts" => self.sol_alerts = flag()?,
            "sol-no-instances" => self.sol_no_instances = flag()?,
            "sol-acks-once" => self.sol_acks_once = flag()?,
            "sol-part" => self.sol_part = option(name, value)?,
            _ => return Err(NoFault(format!("there is no fault {name:?}"))),
        }
        Ok(())
    }

    fn both(
        &mut self,
        name: &str,
        value: Option<&str>,
        field: impl Fn(&mut Mischief) -> &mut f32,
    ) -> Result<(), NoFault> {
        let percent = percent(name, value)?;
        *field(&mut self.inbound) = percent;
        *field(&mut self.outbound) = percent;
        Ok(())
    }
}

fn number<T: FromStr>(name: &str, value: Option<&str>) -> Result<T, NoFault> {
    let value = value.ok_or_else(|| NoFault(format!("{name} takes a number")))?;
    value.parse().map_err(|_| NoFault(format!("{name}={value} is not a number that it takes")))
}

fn option<T: FromStr>(name: &str, value: Option<&str>) -> Result<Option<T>, NoFault> {
    match value {
        Some("off") => Ok(None),
        _ => number(name, value).map(Some),
    }
}

fn percent(name: &str, value: Option<&str>) -> Result<f32, NoFault> {
    let percent: f32 = number(name, value)?;
    match (0.0..=100.0).contains(&percent) {
        true => Ok(percent),
        false => Err(NoFault(format!("{name}={percent} is no percentage"))),
    }
}

fn command(name: &str, value: Option<&str>) -> Result<(NetFn, u8), NoFault> {
    let refused = || NoFault(format!("{name} takes NETFN:COMMAND in hexadecimal, as 06:54"));
    let (netfn, command) = value.and_then(|value| value.split_once(':')).ok_or_else(refused)?;
    let byte = |text: &str| u8::from_str_radix(text.trim_start_matches("0x"), 16);
    let netfn = byte(netfn).map_err(|_| refused())?;
    Ok((NetFn(netfn), byte(command).map_err(|_| refused())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_help_shows_is_taken() {
        for (text, _) in NAMES {
            let text = match text.split_once('=') {
                Some((name, "NETFN:COMMAND")) => format!("{name}=06:54"),
                Some((name, _)) => format!("{name}=7"),
                None => (*text).to_owned(),
            };
            let mut faults = Faults::default();
            faults.set(&text).unwrap();
            assert_ne!(faults, Faults::default(), "{text}");
        }
        let mut faults = Faults::default();
        for wrong in ["lost", "loss", "loss=200", "dead=maybe", "ignore=54", "sdr-most=x"] {
            assert!(faults.set(wrong).is_err(), "{wrong}");
        }
        faults.set("dead").unwrap();
        faults.set("dead=off").unwrap();
        assert_eq!(faults, Faults::default());
    }
}

//! What a BMC does wrong, and how often: each fault is one that boards in the field have.
//!
//! Chance comes from the seed, so that the same traffic meets the same mischief.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use koboshi_ipmi::NetFn;

/// All faults; the default is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    /// Answers nothing at all.
    pub dead: bool,
    /// What happens to datagrams on their way in.
    pub inbound: Mischief,
    /// What happens to datagrams on their way out.
    pub outbound: Mischief,
    /// Answers so much later than it could.
    pub slow: Duration,

    /// Does not answer pings (OpenBMC by a build option; Intel, Wiwynn).
    pub no_ping: bool,
    /// Commands that it takes no notice of: Get Channel Cipher Suites on iLO 4.
    pub ignored: Vec<(NetFn, u8)>,
    /// Commands that it carries out without answering: Close Session on Cisco's, reset on many.
    pub unanswered: Vec<(NetFn, u8)>,
    /// How many more requests meet "node busy".
    pub busy: u32,
    /// IPMB checksums are wrong (Supermicro X9).
    pub checksums: bool,

    /// Refuses the bit that asks for 2.0 data in Get Channel Authentication Capabilities.
    pub no_v2_bit: bool,
    /// Says "insufficient resources" of a cipher suite that it refuses (Intel M50CYP).
    pub misleading: bool,
    /// All session slots are taken by somebody else.
    pub full: bool,
    /// Whatever is asked for, it agrees to this cipher suite: somebody in between, or firmware gone wrong.
    pub downgrade: Option<u8>,
    /// Hashes keys with the privilege of Open Session in place of RAKP 1's role (Supermicro X8DT*).
    pub opensesspriv: bool,
    /// Hashes keys with RAKP 1's privilege without its bit for look-ups by name alone (Intel).
    pub no_name_bit: bool,
    /// The code of RAKP 2 is so many bytes too long, or too short (Supermicro H8QME).
    pub rakp2_length: i8,
    /// Takes no RAKP message twice: an answer that was lost is lost.
    pub once: bool,
    /// Keeps 16 bytes of passwords (Intel).
    pub sixteen: bool,

    /// Refuses to return more bytes than this of a record at once.
    pub sdr_most: Option<u8>,
    /// Returns no more bytes than this of a record, whatever is asked for.
    pub sdr_short: Option<u8>,
    /// Loses the reservation every so many reads.
    pub sdr_lost: Option<u32>,

    /// Says that SOL is at this port (ASUS).
    pub sol_port: Option<u16>,
    /// Says SOL's port with its bytes swapped (Supermicro X8DTH).
    pub sol_port_swapped: bool,
    /// Says that SOL payloads have this size both ways (Supermicro X8DT*: nonsense).
    pub sol_size: Option<u16>,
    /// Skips a sequence number every so many SOL packets: their characters are lost.
    pub sol_skip: Option<u32>,
    /// The session lives, but no character comes or goes (Intel SR1520ML).
    pub sol_deaf: bool,
    /// Who loses SOL to another is not told (Dell R610).
    pub sol_silent_theft: bool,
    /// Retry interval of 0: repeats what is not acknowledged without end (OpenBMC).
    pub sol_repeats: bool,
    /// Does not know Get Payload Activation Status (Supermicro X8SIL).
    pub sol_no_status: bool,
    /// Says that it has no instance of SOL (Dell M605, M610, M915).
    pub sol_no_instances: bool,
    /// Acknowledges a SOL packet once, and drops its repetitions without a word (OpenBMC).
    pub sol_acks_once: bool,
    /// Takes no more characters than this of a SOL packet.
    pub sol_part: Option<u8>,
}

/// What happens to datagrams in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mischief {
    /// Percent that get lost.
    pub loss: f32,
    /// Percent that come twice.
    pub duplicates: f32,
    /// Percent that come after the next one.
    pub reordering: f32,
}

impl Mischief {
    /// Whether everything arrives once and in order.
    pub fn is_none(&self) -> bool {
        *self == Mischief::default()
    }
}

/// Names and what they take, for help.
pub const NAMES: &[(&str, &str)] = &[
    ("dead", "answers nothing"),
    ("loss=PERCENT", "datagrams lost, each way (loss-in, loss-out: one way)"),
    ("dup=PERCENT", "datagrams doubled, each way (dup-in, dup-out)"),
    ("reorder=PERCENT", "datagrams overtaken by the next, each way (reorder-in, reorder-out)"),
    ("slow=MILLISECONDS", "answers late"),
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
    ("sdr-most=BYTES", "refuses larger reads of records"),
    ("sdr-short=BYTES", "returns no more of a record than that"),
    ("sdr-lost=N", "loses the reservation every N reads"),
    ("sol-port=PORT", "says that SOL is there"),
    ("sol-port-swapped", "says SOL's port with its bytes swapped"),
    ("sol-size=BYTES", "says this of SOL's payload size"),
    ("sol-skip=N", "skips a SOL sequence number every N packets"),
    ("sol-deaf", "SOL carries nothing"),
    ("sol-silent-theft", "who loses SOL to another is not told"),
    ("sol-repeats", "repeats SOL packets without end"),
    ("sol-no-status", "does not know Get Payload Activation Status"),
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
            "sdr-most" => self.sdr_most = option(name, value)?,
            "sdr-short" => self.sdr_short = option(name, value)?,
            "sdr-lost" => self.sdr_lost = option(name, value)?,
            "sol-port" => self.sol_port = option(name, value)?,
            "sol-port-swapped" => self.sol_port_swapped = flag()?,
            "sol-size" => self.sol_size = option(name, value)?,
            "sol-skip" => self.sol_skip = option(name, value)?,
            "sol-deaf" => self.sol_deaf = flag()?,
            "sol-silent-theft" => self.sol_silent_theft = flag()?,
            "sol-repeats" => self.sol_repeats = flag()?,
            "sol-no-status" => self.sol_no_status = flag()?,
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

/// Chance that comes out the same each time (splitmix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// Of this seed.
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// True so many times of a hundred.
    pub fn percent(&mut self, percent: f32) -> bool {
        if percent <= 0.0 {
            return false;
        }
        (self.next() % 100_000) as f32 / 1000.0 < percent
    }
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

    #[test]
    fn chance_is_fair_and_the_same_again() {
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            (0..10_000).map(|_| chance.percent(10.0)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        let hits = draw(7).into_iter().filter(|hit| *hit).count();
        assert!((800..1200).contains(&hits), "{hits}");
    }
}

//! What firmware does otherwise than the specification says: one flag a machine, each with the board that
//! made it necessary. Some are learned ([`Quirk::is_learned`]), others must be in the site file, because
//! trying them unasked would cost security or time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! quirks {
    ($($quirk:ident = $name:literal, $learned:literal, $why:literal;)*) => {
        /// One deviation from the specification.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Quirk {
            $(#[doc = $why] $quirk,)*
        }

        impl Quirk {
            /// All of them.
            pub const ALL: &[Quirk] = &[$(Quirk::$quirk),*];

            /// As the site file spells it.
            pub fn name(self) -> &'static str {
                match self { $(Quirk::$quirk => $name,)* }
            }

            /// What it is for, in a sentence that names the firmware.
            pub fn why(self) -> &'static str {
                match self { $(Quirk::$quirk => $why,)* }
            }

            /// Whether it is found out by trying, so that nobody needs to write it.
            pub fn is_learned(self) -> bool {
                match self { $(Quirk::$quirk => $learned,)* }
            }
        }
    };
}

quirks! {
    OpenPrivilege = "open-privilege", true,
        "Takes the privilege without the look-up bit into its proofs: Intel boards, which ipmitool knows as intelplus.";
    Password16 = "password-16", true,
        "Keeps 16 bytes of a longer password: Intel boards of the SE7520 line, and accounts made under IPMI 1.5.";
    NoNameOnly = "no-name-only", true,
        "Refuses the look-up of an account by its name alone, without a privilege: early iLO and Sun ILOM.";
    PadNames = "pad-names", false,
        "Wants account names filled up to 16 bytes: Intel SE7520AF2.";
    NoChecksum = "no-checksum", false,
        "Computes the checksums within messages wrongly: Supermicro X9SCM-iiF, X9DRi-F and X9DRFR. Taken unasked where the session signs its packets.";
    UnexpectedAuth = "unexpected-auth", false,
        "Sends authentication codes of no meaning where IPMI 1.5 agreed on none: Dell PowerEdge 2850 and SC1425.";
    ForcePerMessage = "force-per-message", false,
        "Says that IPMI 1.5 messages need no authentication and drops those without: IBM eServer 325.";
    NoCapabilities = "no-capabilities", false,
        "Lists authentication types of IPMI 1.5 that are not those it takes: Asus P5M2, Intel SR1520ML, HPE iLO 4.";
    BigEndianSequence = "big-endian-sequence", false,
        "Counts IPMI 1.5 packets in the other byte order: Sun Fire 2100 and 4100 with early ILOM.";
    ZeroSession = "zero-session", false,
        "Puts session id 0 on the packets of an open IPMI 1.5 session: Tyan S2882 with M3289.";
    SolPort = "sol-port", true,
        "Tells the port of Serial over LAN in the wrong byte order, or a wrong one: Supermicro X8DTH-iF, Asus P5M2.";
    SolSize = "sol-size", true,
        "Tells payload sizes of Serial over LAN that make no sense: Supermicro X8DT*, Asus P5M2.";
    SolStatus = "sol-status", true,
        "Does not know Get Payload Activation Status: Supermicro X8SIL-F.";
    SolDeferAlerts = "sol-defer-alerts", false,
        "Activates Serial over LAN only where alerts by the serial port wait meanwhile: Intel Windmill, Quanta Winterfell, Wiwynn.";
    SolAcksOnce = "sol-acks-once", true,
        "Acknowledges what is typed once, and drops its repetitions without a word: OpenBMC.";
    OneAtATime = "one-at-a-time", false,
        "Loses a request that comes while it works on another; two are on the way otherwise.";
    SensorScanning = "sensor-scanning", false,
        "Says that sensors are not scanned, and reads them: Dell PowerEdge 2900, 2950, R410 and R610.";
    SolSkipInstances = "sol-instances", true,
        "Says that it has no instance of Serial over LAN and has one: Dell M605, M610 and M915.";
}

/// Which deviations a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Quirks(u32);

impl Quirks {
    /// None.
    pub const NONE: Quirks = Quirks(0);

    /// These.
    pub fn of(quirks: &[Quirk]) -> Quirks {
        quirks.iter().fold(Quirks::NONE, |all, quirk| all.with(*quirk))
    }

    /// One more.
    #[must_use]
    pub fn with(self, quirk: Quirk) -> Quirks {
        Quirks(self.0 | 1 << quirk as u32)
    }

    /// Those of both.
    #[must_use]
    pub fn and(self, other: Quirks) -> Quirks {
        Quirks(self.0 | other.0)
    }

    /// Whether it is among them.
    pub fn has(self, quirk: Quirk) -> bool {
        self.0 & 1 << quirk as u32 != 0
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = Quirk> {
        Quirk::ALL.iter().copied().filter(move |quirk| self.has(*quirk))
    }
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no quirk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no quirk \"{0}\"; known are {names}", names = Quirk::ALL.iter().map(|quirk| quirk.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownQuirk(pub String);

impl FromStr for Quirk {
    type Err = UnknownQuirk;

    fn from_str(word: &str) -> Result<Quirk, UnknownQuirk> {
        let found = Quirk::ALL.iter().copied().find(|quirk| quirk.name() == word);
        found.ok_or_else(|| UnknownQuirk(word.to_string()))
    }
}

impl fmt::Display for Quirks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Quirk::name).collect();
        f.write_str(&names.join(" "))
    }
}

impl Serialize for Quirks {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().map(Quirk::name))
    }
}

impl<'de> Deserialize<'de> for Quirks {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Quirks, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        let quirks = names.iter().map(|name| name.parse()).collect::<Result<Vec<_>, _>>();
        quirks.map(|quirks| Quirks::of(&quirks)).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_there_and_back() {
        for quirk in Quirk::ALL {
            assert_eq!(quirk.name().parse(), Ok(*quirk));
            assert!(quirk.why().ends_with('.') && Quirks::of(&[*quirk]).has(*quirk));
        }
        let two = Quirks::of(&[Quirk::SolPort, Quirk::Password16]);
        assert_eq!(two.to_string(), "password-16 sol-port");
        assert_eq!(two.iter().count(), 2);
        assert!(
            "opensesspriv".parse::<Quirk>().unwrap_err().to_string().contains("open-privilege")
        );
    }
}

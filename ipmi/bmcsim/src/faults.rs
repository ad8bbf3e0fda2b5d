//! What a BMC does wrong, and how often: each fault is one that boards in the field have.
//!
//! Chance comes from the seed, so that the same traffic meets the same mischief.

pub mod chance;
pub mod names;

use std::time::Duration;

use koboshi_ipmi::NetFn;

pub use chance::Chance;
pub use names::{NAMES, NoFault};

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
    /// What comes while an answer is late is lost.
    pub single: bool,

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
    /// Knows accounts only by names of 16 bytes (Intel SE7520AF2).
    pub pad_names: bool,
    /// Refuses to look an account up by its name alone (early iLO, Sun ILOM).
    pub no_name_only: bool,
    /// Lists authentication types of IPMI 1.5 that it does not take, and not those that it does (Asus P5M2).
    pub wrong_capabilities: bool,
    /// What it does wrong in sessions of IPMI 1.5.
    pub legacy: Legacy,

    /// Refuses to return more bytes than this of a record at once.
    pub sdr_most: Option<u8>,
    /// Returns no more bytes than this of a record, whatever is asked for.
    pub sdr_short: Option<u8>,
    /// Loses the reservation every so many reads.
    pub sdr_lost: Option<u32>,
    /// Marks no end of its records: the last one leads back to the first (Inspur).
    pub sdr_endless: bool,
    /// Gives up on its last record (Dell FC830).
    pub sdr_last: bool,
    /// Says that it has one record more than it has (Fujitsu RX).
    pub sdr_count: bool,
    /// Says that its sensors are not scanned (Dell PowerEdge 2950, R610).
    pub sensor_scanning: bool,
    /// Events name a generator that there is not (Supermicro).
    pub sel_generator: bool,

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
    /// Activates SOL only where alerts by the serial port wait meanwhile (Intel Windmill).
    pub sol_alerts: bool,
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

/// What goes wrong in sessions of IPMI 1.5: fixed when a session is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Legacy {
    /// Packets of an open session carry session id 0 (Tyan S2882).
    pub zero_session: bool,
    /// No authentication is agreed on, and codes come that mean nothing (Dell PowerEdge 2850).
    pub unexpected_auth: bool,
    /// No authentication is agreed on, and packets without it are dropped (IBM eServer 325).
    pub force_per_message: bool,
    /// Packets are counted in the other byte order (Sun Fire 4100).
    pub big_endian: bool,
}

impl Legacy {
    /// Whether it says that messages of a session need no authentication.
    pub fn says_unauthenticated(&self) -> bool {
        self.unexpected_auth || self.force_per_message
    }

    /// A session's number as it is written.
    pub fn order(&self, number: u32) -> u32 {
        if self.big_endian { number.swap_bytes() } else { number }
    }
}

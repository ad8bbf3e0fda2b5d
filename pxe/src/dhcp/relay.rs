//! Option 82, the relay agent's own word (RFC 3046): through which port of which switch a machine
//! asked, and on which network it stands where the agent's address does not say. Evidence, never
//! authority: any machine in the rack can write a packet that looks relayed.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// RFC 3046 2.0.
const CIRCUIT_ID: u8 = 1;
const REMOTE_ID: u8 = 2;
/// RFC 3527.
const LINK_SELECTION: u8 = 5;
/// Bytes of an id that are kept. Switches write `Gi1/0/7`, a VLAN and a port, or a MAC.
const ID_MAX: usize = 64;

/// What an agent added, as far as we read it. The option itself goes back whole, whatever is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayInfo {
    /// The port it came in by, as the agent calls it.
    pub circuit: Option<String>,
    /// The agent, or the machine, as the agent calls it.
    pub remote: Option<String>,
    /// The network the machine stands in, where it is not that of giaddr.
    pub link: Option<Ipv4Addr>,
    /// A sub-option runs past the end, or the link is no address: what it says of networks counts
    /// for nothing.
    pub malformed: bool,
}

impl RelayInfo {
    /// Reads the sub-options. The first of a kind counts.
    pub fn read(option: &[u8]) -> RelayInfo {
        let mut info = RelayInfo::default();
        let mut rest = option;
        while let [code, length, tail @ ..] = rest {
            let Some((value, tail)) = tail.split_at_checked(usize::from(*length)) else { break };
            match *code {
                CIRCUIT_ID => drop(info.circuit.get_or_insert_with(|| shown(value))),
                REMOTE_ID => drop(info.remote.get_or_insert_with(|| shown(value))),
                LINK_SELECTION => match value.as_array::<4>() {
                    Some(link) => drop(info.link.get_or_insert(Ipv4Addr::from(*link))),
                    None => info.malformed = true,
                },
                _ => {}
            }
            rest = tail;
        }
        info.malformed |= !rest.is_empty();
        info
    }
}

/// Text where it is text, else hexadecimal; never more than a line of it.
fn shown(id: &[u8]) -> String {
    let cut = &id[..id.len().min(ID_MAX)];
    // Some switches end their text with a NUL.
    let text = cut.strip_suffix(&[0]).unwrap_or(cut);
    let mut shown = match std::str::from_utf8(text) {
        Ok(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') => {
            text.to_string()
        }
        _ => cut.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
    };
    if cut.len() < id.len() {
        shown.push('…');
    }
    shown
}

/// By which way a machine's first word came, where a relay brought it: kept with its boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Via {
    /// The agent (giaddr).
    pub relay: Ipv4Addr,
    /// Its circuit-id: the port of the switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<String>,
    /// Its remote-id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "relay {}", self.relay)?;
        if let Some(circuit) = &self.circuit {
            write!(f, ", circuit {circuit}")?;
        }
        if let Some(remote) = &self.remote {
            write!(f, ", remote {remote}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sub(code: u8, value: &[u8]) -> Vec<u8> {
        [&[code, value.len() as u8], value].concat()
    }

    #[test]
    fn what_switches_write() {
        for (circuit, said) in [
            (&b"Gi1/0/7"[..], "Gi1/0/7"),
            (b"eth0 port 7\0", "eth0 port 7"),
            // Cisco: type, length, VLAN, module, port.
            (&[0, 4, 0, 20, 1, 7], "00:04:00:14:01:07"),
            (b"", ""),
            (b"\x1b[2J", "1b:5b:32:4a"),
            ("küche".as_bytes(), "6b:c3:bc:63:68:65"),
        ] {
            let option =
                [sub(1, circuit), sub(2, &[2, 0, 0, 0, 0, 1]), sub(5, &[10, 79, 0, 0])].concat();
            let info = RelayInfo::read(&option);
            assert_eq!(info.circuit.as_deref(), Some(said));
            assert_eq!(info.remote.as_deref(), Some("02:00:00:00:00:01"));
            assert_eq!(info.link, Some(Ipv4Addr::new(10, 79, 0, 0)));
            assert!(!info.malformed);
        }
    }

    #[test]
    fn a_whole_option_of_255_bytes_is_kept_to_a_line() {
        let info = RelayInfo::read(&sub(1, &[b'x'; 253]));
        assert_eq!(info.circuit, Some("x".repeat(64) + "…"));
        let info = RelayInfo::read(&sub(1, &[0xff; 253]));
        assert_eq!(info.circuit.map(|text| text.chars().count()), Some(64 * 3));
        assert_eq!(RelayInfo::read(&[]), RelayInfo::default());
    }

    #[test]
    fn what_is_cut_or_no_address_counts_for_nothing() {
        for option in [
            &[1u8][..],
            &[1, 5, b'a'],
            &[5, 3, 10, 79, 0],
            &[5, 0],
            &[1, 1, b'a', 9],
            &sub(5, &[10, 79, 0, 0, 1]),
        ] {
            assert!(RelayInfo::read(option).malformed, "{option:?}");
        }
        let twice = [sub(5, &[10, 79, 0, 0]), sub(5, &[10, 80, 0, 0])].concat();
        assert_eq!(RelayInfo::read(&twice).link, Some(Ipv4Addr::new(10, 79, 0, 0)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_shown_on_one_short_line(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let info = RelayInfo::read(&bytes);
            for shown in [info.circuit, info.remote].into_iter().flatten() {
                prop_assert!(shown.chars().count() <= 3 * ID_MAX);
                prop_assert!(shown.chars().all(|c| !c.is_control()));
            }
        }
    }
}

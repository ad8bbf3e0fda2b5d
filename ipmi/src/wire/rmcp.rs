//! RMCP, the four bytes before everything else, and ASF's ping, which asks whether a BMC is there.
//!
//! ASF 2.0 §3.2.2 (header), §3.2.4.1 and §3.2.4.3 (presence ping and pong); IPMI 2.0 §13.1–13.2.
//! A BMC need not answer pings: on OpenBMC it is a build option, and boards of Intel and Wiwynn never do.

use super::{Malformed, take};

/// The UDP port of a BMC.
pub const PORT: u16 = 623;

const VERSION: u8 = 0x06;
const NO_ACK: u8 = 0xff;
const CLASS_ASF: u8 = 0x06;
const CLASS_IPMI: u8 = 0x07;
const IANA_ASF: [u8; 4] = [0x00, 0x00, 0x11, 0xbe];
const PING: u8 = 0x80;
const PONG: u8 = 0x40;

/// The header of every IPMI datagram.
pub const IPMI: [u8; 4] = [VERSION, 0, NO_ACK, CLASS_IPMI];

/// What stands behind an RMCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rmcp<'a> {
    /// A session wrapper of IPMI: see [`super::v15`] and [`super::v20`].
    Ipmi(&'a [u8]),
    /// Is there a BMC?
    Ping {
        /// Repeated by the answer.
        tag: u8,
    },
    /// There is.
    Pong {
        /// Of the ping.
        tag: u8,
        /// Whether it says that it speaks IPMI.
        ipmi: bool,
    },
}

impl<'a> Rmcp<'a> {
    /// From a datagram.
    pub fn decode(datagram: &'a [u8]) -> Result<Rmcp<'a>, Malformed> {
        let mut rest = datagram;
        let [version, _, sequence, class] = take(&mut rest, "a datagram of less than 4 bytes")?;
        if version != VERSION {
            return Err(Malformed("not RMCP"));
        }
        // Bit 7 of the class marks an RMCP acknowledge, which IPMI never asks for.
        match class {
            CLASS_IPMI => Ok(Rmcp::Ipmi(rest)),
            CLASS_ASF => asf(rest),
            _ if sequence != NO_ACK => Err(Malformed("an RMCP acknowledge")),
            _ => Err(Malformed("an RMCP class that is neither ASF nor IPMI")),
        }
    }
}

fn asf(mut rest: &[u8]) -> Result<Rmcp<'_>, Malformed> {
    let short = "an ASF message that is cut";
    if take(&mut rest, short)? != IANA_ASF {
        return Err(Malformed("an ASF message of another enterprise"));
    }
    let [kind, tag, _, length] = take(&mut rest, short)?;
    match kind {
        PING => Ok(Rmcp::Ping { tag }),
        PONG if length >= 9 => {
            let body: [u8; 9] = take(&mut rest, short)?;
            Ok(Rmcp::Pong { tag, ipmi: body[8] & 0x80 != 0 })
        }
        PONG => Err(Malformed(short)),
        _ => Err(Malformed("an ASF message that is neither ping nor pong")),
    }
}

/// A presence ping.
pub fn ping(tag: u8) -> Vec<u8> {
    let mut out = vec![VERSION, 0, NO_ACK, CLASS_ASF];
    out.extend(IANA_ASF);
    out.extend([PING, tag, 0, 0]);
    out
}

/// The answer of a BMC that speaks IPMI.
pub fn pong(tag: u8) -> Vec<u8> {
    let mut out = vec![VERSION, 0, NO_ACK, CLASS_ASF];
    out.extend(IANA_ASF);
    out.extend([PONG, tag, 0, 16]);
    out.extend(IANA_ASF);
    out.extend([0, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0, 0]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_and_pongs() {
        assert_eq!(Rmcp::decode(&ping(7)), Ok(Rmcp::Ping { tag: 7 }));
        assert_eq!(Rmcp::decode(&pong(7)), Ok(Rmcp::Pong { tag: 7, ipmi: true }));
        assert_eq!(Rmcp::decode(&[6, 0, 0xff, 7, 1, 2]), Ok(Rmcp::Ipmi(&[1, 2])));
        for cut in 0..21 {
            assert!(Rmcp::decode(&pong(7)[..cut]).is_err(), "{cut}");
        }
        assert!(Rmcp::decode(&[5, 0, 0xff, 7]).is_err());
    }
}

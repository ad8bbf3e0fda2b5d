//! XMODEM and YMODEM: numbered blocks of 128 or 1,024 bytes, each answered before the next one is sent.
//!
//! The receiver begins: `C` asks for blocks with a CRC, NAK for blocks with a sum. YMODEM's block 0 says what the
//! file is, and an empty one that there is no other.

mod receive;
mod send;

pub use receive::Receiver;
pub use send::Sender;

use super::crc::{crc16, sum};

const SOH: u8 = 0x01;
const STX: u8 = 0x02;
const EOT: u8 = 0x04;
const ACK: u8 = 0x06;
const NAK: u8 = 0x15;
const CAN: u8 = 0x18;
/// Fills the last block.
const FILLING: u8 = 0x1a;
/// Asks for blocks with a CRC.
const CRC: u8 = b'C';

/// Bytes of a block.
const SMALL: usize = 128;
/// Bytes of a large block.
const LARGE: usize = 1024;

/// What guards a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    Sum,
    Crc,
}

impl Guard {
    /// Bytes behind the data.
    fn len(self) -> usize {
        match self {
            Guard::Sum => 1,
            Guard::Crc => 2,
        }
    }
}

/// A block as it is sent, filled up.
fn block(number: u8, data: &[u8], size: usize, guard: Guard, filling: u8) -> Vec<u8> {
    let mut block = Vec::with_capacity(size + 5);
    block.extend([if size == SMALL { SOH } else { STX }, number, !number]);
    block.extend_from_slice(data);
    block.resize(size + 3, filling);
    let all = block.get(3..).unwrap_or_default();
    match guard {
        Guard::Sum => block.push(sum(all)),
        Guard::Crc => block.extend(crc16(all).to_be_bytes()),
    }
    block
}

/// Number and data of what came behind SOH or STX. None: it is damaged.
fn open(rest: &[u8], guard: Guard) -> Option<(u8, &[u8])> {
    let (head, rest) = rest.split_at_checked(2)?;
    let (data, check) = rest.split_at_checked(rest.len().checked_sub(guard.len())?)?;
    let [number, inverse] = *head else { return None };
    let whole = match guard {
        Guard::Sum => check == [sum(data)],
        Guard::Crc => check == crc16(data).to_be_bytes(),
    };
    (whole && inverse == !number).then_some((number, data))
}

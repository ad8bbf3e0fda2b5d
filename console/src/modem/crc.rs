//! Sums: the CRC of 16 bits of XMODEM (polynomial 0x1021, begun with 0, highest bit first), the CRC-32 of ZMODEM
//! (as of Ethernet), the sum of XMODEM's first days.

const TABLE_16: [u16; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = (n as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

/// XMODEM's CRC.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ TABLE_16[usize::from((crc >> 8) as u8 ^ *byte)])
}

/// XMODEM's sum.
pub fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// A CRC-32 that grows with what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crc32(u32);

impl Crc32 {
    /// Of nothing.
    pub fn new() -> Crc32 {
        Crc32(0)
    }

    /// And of these.
    pub fn and(self, bytes: &[u8]) -> Crc32 {
        let mut sum = crc32fast::Hasher::new_with_initial(self.0);
        sum.update(bytes);
        Crc32(sum.finalize())
    }

    /// Its value.
    pub fn value(self) -> u32 {
        self.0
    }
}

/// Of all of this.
pub fn crc32(bytes: &[u8]) -> u32 {
    Crc32::new().and(bytes).value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_catalogue() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(Crc32::new().and(b"1234").and(b"56789").value(), 0xcbf4_3926);
        assert_eq!(sum(b"\xff\x02"), 1);
    }
}

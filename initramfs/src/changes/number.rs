//! Numbers of seven bits a byte, the lowest first, the highest bit saying that more come (LEB128).

/// Ten bytes hold 64 bits.
const BYTES_MAX: usize = 10;

/// Writes one.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads one, byte by byte; nothing where it has no end.
pub(super) fn take<E>(mut next: impl FnMut() -> Result<u8, E>) -> Result<Option<u64>, E> {
    let mut number = 0_u64;
    for at in 0..BYTES_MAX {
        let byte = next()?;
        let bits = u64::from(byte & 0x7f);
        if at == BYTES_MAX - 1 && bits > 1 {
            return Ok(None);
        }
        number |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// Signed numbers with the small ones short: 0, -1, 1, -2 …
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// And back.
pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            let mut from = bytes.iter().copied();
            assert_eq!(take(|| from.next().ok_or(())), Ok(Some(number)));
            assert_eq!(from.next(), None);
        }
        for number in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
        let mut endless = std::iter::repeat(0xff);
        assert_eq!(take(|| endless.next().ok_or(())), Ok(None));
    }
}

//! A request as an operator types it: "0x06 0x01", network function, command, data.

use crate::error::Error;
use crate::message::{NetFn, Request};

/// Most data of a request that fits into a LAN message.
const LONGEST: usize = 240;

/// From words: hexadecimal with `0x`, else decimal (as ipmitool reads them). A logical unit stands behind
/// the network function after a dot: "0x04.1".
pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Request, Error> {
    let [function, command, data @ ..] = words else {
        return Err(Error::Invalid("a request is NETFN COMMAND [DATA…]".into()));
    };
    let function = function.as_ref();
    let (function, lun) = match function.split_once('.') {
        Some((function, lun)) => (byte(function)?, byte(lun)?),
        None => (byte(function)?, 0),
    };
    if function > 0x3f || function & 1 != 0 {
        return Err(Error::Invalid(format!("{function:#04x} is no network function that asks")));
    }
    if lun > 3 {
        return Err(Error::Invalid("logical units are 0 to 3".into()));
    }
    if data.len() > LONGEST {
        return Err(Error::Invalid(format!("a request carries {LONGEST} bytes at most")));
    }
    let data = data.iter().map(|word| byte(word.as_ref())).collect::<Result<Vec<u8>, _>>()?;
    Ok(Request::new(NetFn(function), byte(command.as_ref())?, data).lun(lun))
}

fn byte(word: &str) -> Result<u8, Error> {
    let parsed = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) if !digits.starts_with('+') => u8::from_str_radix(digits, 16),
        Some(_) => u8::from_str_radix("", 16),
        None => word.parse(),
    };
    parsed.map_err(|_| Error::Invalid(format!("{word:?} is no byte (0 to 255, 0x00 to 0xff)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_operators_type_them() {
        let request = parse(&["0x06", "0x01"]).unwrap();
        assert_eq!(request, Request::new(NetFn::APP, 1, []));
        let request = parse(&["0x0.1", "8", "0x03", "0X1f", "255"]).unwrap();
        assert_eq!(request, Request::new(NetFn::CHASSIS, 8, [3, 0x1f, 255]).lun(1));
        for wrong in [
            &["6"][..],
            &[],
            &["7", "1"],
            &["0x40", "1"],
            &["6.4", "1"],
            &["6", "256"],
            &["6", "0x"],
            &["6", "0x+1"],
            &["6", "-1"],
            &["6", "1", "zwei"],
        ] {
            assert!(matches!(parse(wrong), Err(Error::Invalid(_))), "{wrong:?}");
        }
        assert!(parse(&["1"; 300]).is_err());
    }
}

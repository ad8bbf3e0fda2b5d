//! How a serial port is set, wherever it is: `115200`, `9600,7e1`, `115200,8n1,rtscts`.

use std::fmt;
use std::str::FromStr;

/// Speed, shape of a character, and what holds back who sends too fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bits a second.
    pub speed: u32,
    /// Bits of a character: 5 to 8.
    pub bits: u8,
    /// What is made of them for a check.
    pub parity: Parity,
    /// Stop bits: 1 or 2.
    pub stop: u8,
    /// None: not said.
    pub flow: Option<Flow>,
}

/// A character's parity bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// It has none.
    None,
    /// It makes the number of ones odd.
    Odd,
    /// It makes it even.
    Even,
}

/// Flow control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Nothing is held back.
    None,
    /// By wires of its own.
    RtsCts,
    /// By the characters DC1 and DC3, which then cannot be typed.
    XonXoff,
}

impl Settings {
    /// 8 bits, no parity, one stop bit, as nearly every port is.
    pub fn at(speed: u32) -> Settings {
        Settings { speed, bits: 8, parity: Parity::None, stop: 1, flow: None }
    }
}

/// It does not say how a port is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a port is set like 115200, 9600,7e1 or 115200,8n1,rtscts (or xonxoff, or noflow)")]
pub struct NoSettings;

impl FromStr for Settings {
    type Err = NoSettings;

    fn from_str(text: &str) -> Result<Settings, NoSettings> {
        let mut parts = text.split(',');
        let speed = parts.next().unwrap_or_default();
        let digits = !speed.is_empty() && speed.bytes().all(|byte| byte.is_ascii_digit());
        let speed = speed.parse().ok().filter(|speed| digits && *speed > 0).ok_or(NoSettings)?;
        let mut settings = Settings::at(speed);
        let mut part = parts.next();
        if let Some(shape) = part
            && let [bits @ b'5'..=b'8', parity, stop @ b'1'..=b'2'] = shape.as_bytes()
        {
            settings.bits = bits - b'0';
            settings.stop = stop - b'0';
            settings.parity = match parity {
                b'n' | b'N' => Parity::None,
                b'o' | b'O' => Parity::Odd,
                b'e' | b'E' => Parity::Even,
                _ => return Err(NoSettings),
            };
            part = parts.next();
        }
        settings.flow = match part {
            None => None,
            Some("noflow") => Some(Flow::None),
            Some("rtscts") => Some(Flow::RtsCts),
            Some("xonxoff") => Some(Flow::XonXoff),
            Some(_) => return Err(NoSettings),
        };
        if parts.next().is_some() { Err(NoSettings) } else { Ok(settings) }
    }
}

/// What goes without saying is not said: `115200` is 8 bits, no parity, one stop bit.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { speed, bits, parity, stop, flow } = self;
        write!(f, "{speed}")?;
        if (*bits, *parity, *stop) != (8, Parity::None, 1) {
            let parity = match parity {
                Parity::None => 'n',
                Parity::Odd => 'o',
                Parity::Even => 'e',
            };
            write!(f, ",{bits}{parity}{stop}")?;
        }
        match flow {
            None => Ok(()),
            Some(Flow::None) => f.write_str(",noflow"),
            Some(Flow::RtsCts) => f.write_str(",rtscts"),
            Some(Flow::XonXoff) => f.write_str(",xonxoff"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_read_back_as_they_print() {
        for good in [
            "115200",
            "9600,7e1",
            "19200,8n2",
            "300,5o1,noflow",
            "115200,rtscts",
            "9600,7e2,xonxoff",
        ] {
            assert_eq!(
                good.parse::<Settings>().map(|settings| settings.to_string()),
                Ok(good.to_string())
            );
        }
        assert_eq!("115200,8n1".parse(), Ok(Settings::at(115_200)));
        assert_eq!("115200,8N1".parse(), Ok(Settings::at(115_200)));
        for bad in [
            "",
            "fast",
            "0",
            "+9600",
            "9600,",
            "9600,8x1",
            "9600,9n1",
            "9600,8n3",
            "9600,8n1,",
            "9600,rts",
            "9600,8n1,rtscts,8n1",
            "9600,rtscts,8n1",
            "99999999999",
        ] {
            assert_eq!(bad.parse::<Settings>(), Err(NoSettings), "{bad}");
        }
    }
}

//! What a host told its BMC about itself: its name, its operating system, its BIOS.
//!
//! IPMI 2.0 §22.14a–22.14b (system info parameters).

use super::parameters::{Setting, Table};
use crate::controller::Controller;
use crate::error::Error;

/// Parts of a string of system information: 16 bytes each (§22.14).
const PARTS: u8 = 17;

/// System information that is a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemString {
    /// Revision of the BIOS.
    Firmware,
    /// The host's name.
    Name,
    /// The operating system it usually runs.
    PrimaryOs,
    /// The operating system it runs now.
    Os,
}

impl SystemString {
    fn parameter(self) -> u8 {
        match self {
            SystemString::Firmware => 1,
            SystemString::Name => 2,
            SystemString::PrimaryOs => 3,
            SystemString::Os => 4,
        }
    }
}

/// What the host told the BMC about itself. `None` if it never did, or the BMC does not keep it.
pub async fn get(bmc: &impl Controller, which: SystemString) -> Result<Option<String>, Error> {
    let table = Table::system();
    let Some(first) = table.read_if_known(bmc, which.parameter(), 0, 0).await? else {
        return Ok(None);
    };
    // The number of the part, encoding, length, then characters.
    let [_, _encoding, length, characters @ ..] = first.as_slice() else { return Ok(None) };
    let length = usize::from(*length);
    let mut text = characters.to_vec();
    for part in 1..PARTS {
        if text.len() >= length {
            break;
        }
        match table.read_if_known(bmc, which.parameter(), part, 0).await?.as_deref() {
            Some([_, characters @ ..]) if !characters.is_empty() => text.extend(characters),
            _ => break,
        }
    }
    text.truncate(length);
    let text = String::from_utf8_lossy(&text);
    let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
    Ok((!text.trim().is_empty()).then(|| text.trim().to_owned()))
}

/// Tells the BMC something about its host; at most 255 bytes.
pub async fn set(bmc: &impl Controller, which: SystemString, text: &str) -> Result<(), Error> {
    let length = u8::try_from(text.len())
        .map_err(|_| Error::Invalid("system information holds 255 bytes".into()))?;
    let mut bytes = vec![0, length];
    bytes.extend(text.as_bytes());
    let settings: Vec<Setting> = (0u8..)
        .zip(bytes.chunks(16))
        .map(|(part, chunk)| {
            let mut data = vec![part];
            data.extend(chunk);
            data.resize(17, 0);
            Setting::must(which.parameter(), data)
        })
        .collect();
    Table::system().change(bmc, &settings).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::script::{Script, ok, refuse};

    #[tokio::test]
    async fn a_name_is_told_in_parts_of_sixteen() {
        let table = Table::system();
        let mut first = vec![0, 0, 15];
        first.extend(b"abcdefghijklmn");
        let mut second = vec![1, b'o'];
        second.resize(17, 0);
        let bmc = Script::new([
            (table.set_request(0, &[1]), refuse(0x80)),
            (table.set_request(2, &first), ok([])),
            (table.set_request(2, &second), ok([])),
        ]);
        set(&bmc, SystemString::Name, "abcdefghijklmno").await.unwrap();
        bmc.finish();
    }
}

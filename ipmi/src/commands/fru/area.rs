//! The areas of FRU data (FRU Storage Definition §8 header, §10 chassis, §11 board, §12 product, §13 fields).
//! A field that runs over its area's end is cut; what is missing is empty.

use serde::Serialize;

use crate::commands::sdr::text::Coding;
use crate::message::checksum;
use crate::wire::Malformed;

/// Bytes of the common header.
pub const HEADER: usize = 8;

/// Where areas begin, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offsets {
    /// Chassis.
    pub chassis: Option<usize>,
    /// Board.
    pub board: Option<usize>,
    /// Product.
    pub product: Option<usize>,
    /// Multirecords.
    pub multi: Option<usize>,
}

/// The chassis area.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Chassis {
    /// As SMBIOS names it.
    pub kind: String,
    /// Part number.
    pub part: String,
    /// Serial number.
    pub serial: String,
    /// Further fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub custom: Vec<String>,
}

/// The board area.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Board {
    /// When it was made, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made: Option<u64>,
    /// Who made it.
    pub manufacturer: String,
    /// What it is called.
    pub name: String,
    /// Serial number.
    pub serial: String,
    /// Part number.
    pub part: String,
    /// Further fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub custom: Vec<String>,
}

/// The product area.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Product {
    /// Who made it.
    pub manufacturer: String,
    /// What it is called.
    pub name: String,
    /// Part or model number.
    pub part: String,
    /// Version.
    pub version: String,
    /// Serial number.
    pub serial: String,
    /// What its owner calls it.
    pub asset: String,
    /// Further fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub custom: Vec<String>,
}

/// Where the areas are, and what is odd about the header.
pub fn header(bytes: &[u8]) -> Result<(Offsets, Option<&'static str>), Malformed> {
    let Some(b) = bytes.first_chunk::<HEADER>() else {
        return Err(Malformed("FRU data of less than 8 bytes"));
    };
    // Erased EEPROMs, and SPD in place of FRU data.
    if b.iter().all(|byte| *byte == 0xff) || b.iter().all(|byte| *byte == 0) {
        return Err(Malformed("it is empty"));
    }
    if b[0] & 15 != 1 {
        return Err(Malformed("these are no FRU data"));
    }
    let offset = |eights: u8| (eights != 0).then_some(usize::from(eights) * 8);
    let note = (checksum(b) != 0).then_some("the checksum of the header is wrong");
    let offsets = Offsets {
        chassis: offset(b[2]),
        board: offset(b[3]),
        product: offset(b[4]),
        multi: offset(b[5]),
    };
    Ok((offsets, note))
}

/// Fields one after the other, up to the byte 0xC1 that ends them.
struct Fields<'a> {
    rest: &'a [u8],
    english: bool,
}

impl Fields<'_> {
    /// The next one. `None`: there are no more.
    fn next(&mut self) -> Option<String> {
        let (type_length, rest) = self.rest.split_first()?;
        if *type_length == 0xc1 {
            self.rest = &[];
            return None;
        }
        let length = usize::from(type_length & 0x3f).min(rest.len());
        let (bytes, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(Coding::of_fru(*type_length, self.english).read(bytes).trim().to_owned())
    }

    fn field(&mut self) -> String {
        self.next().unwrap_or_default()
    }

    fn custom(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).filter(|field| !field.is_empty()).collect()
    }
}

/// The fields from a byte of an area on. The area's last byte, its checksum, follows them.
fn fields(area: &[u8], from: usize, english: bool) -> Fields<'_> {
    Fields { rest: area.get(from..).unwrap_or_default(), english }
}

/// Language codes: 0 and 25 are English, others write two bytes a character.
fn is_english(area: &[u8]) -> bool {
    matches!(area.get(2), Some(0 | 25) | None)
}

/// From its area.
pub fn chassis(area: &[u8]) -> Chassis {
    let mut fields = fields(area, 3, true);
    let kind = usize::from(area.get(2).copied().unwrap_or(0) & 0x7f);
    Chassis {
        kind: CHASSIS.get(kind).copied().unwrap_or("unknown").to_owned(),
        part: fields.field(),
        serial: fields.field(),
        custom: fields.custom(),
    }
}

/// From its area.
pub fn board(area: &[u8]) -> Board {
    let mut fields = fields(area, 6, is_english(area));
    let made = area.get(3..6).and_then(|bytes| match bytes {
        [a, b, c] => Some(u32::from_le_bytes([*a, *b, *c, 0])),
        _ => None,
    });
    let (manufacturer, name) = (fields.field(), fields.field());
    let (serial, part) = (fields.field(), fields.field());
    let _file_id_of_whoever_wrote_it = fields.next();
    Board {
        // Minutes since 1996; 0 is unspecified.
        made: made.filter(|made| *made != 0).map(|made| 820_454_400 + u64::from(made) * 60),
        manufacturer,
        name,
        serial,
        part,
        custom: fields.custom(),
    }
}

/// From its area.
pub fn product(area: &[u8]) -> Product {
    let mut fields = fields(area, 3, is_english(area));
    let (manufacturer, name, part) = (fields.field(), fields.field(), fields.field());
    let (version, serial, asset) = (fields.field(), fields.field(), fields.field());
    let _file_id_of_whoever_wrote_it = fields.next();
    Product { manufacturer, name, part, version, serial, asset, custom: fields.custom() }
}

/// SMBIOS chassis types (DSP0134 §7.4.1).
const CHASSIS: [&str; 37] = [
    "unspecified",
    "other",
    "unknown",
    "desktop",
    "low profile desktop",
    "pizza box",
    "mini tower",
    "tower",
    "portable",
    "laptop",
    "notebook",
    "hand held",
    "docking station",
    "all in one",
    "sub notebook",
    "space-saving",
    "lunch box",
    "main server chassis",
    "expansion chassis",
    "sub-chassis",
    "bus expansion chassis",
    "peripheral chassis",
    "RAID chassis",
    "rack mount chassis",
    "sealed-case PC",
    "multi-system chassis",
    "CompactPCI",
    "AdvancedTCA",
    "blade",
    "blade enclosure",
    "tablet",
    "convertible",
    "detachable",
    "IoT gateway",
    "embedded PC",
    "mini PC",
    "stick PC",
];

//! Who a BMC is, and whether it is well.
//!
//! IPMI 2.0 §20.1 (Get Device ID), §20.4 (self test), §20.8 and §22.14 (GUIDs).

use koboshi_ipmi::Response;

use crate::bmc::Bmc;
use crate::config::Config;
use crate::dispatch::{Asked, ok};
use crate::session;

/// What it says of itself. Quirks go by maker and product.
#[derive(Debug, Clone)]
pub struct Device {
    /// The machine's GUID, as RAKP 2 and Get System GUID send it.
    pub guid: [u8; 16],
    /// The maker's number at IANA (20 bits).
    pub manufacturer: u32,
    /// The maker's number of the product.
    pub product: u16,
    /// Major and minor revision of the firmware, the minor one in BCD.
    pub firmware: [u8; 2],
    /// Result of the self test: 0x55 is "well".
    pub self_test: [u8; 2],
}

impl Device {
    /// Made from the seed.
    pub fn new(config: &Config) -> Device {
        let seed = config.seed.to_be_bytes();
        let mut guid = *b"koboshi\0\0\0\0\0\0\0\0\0";
        guid[8..].copy_from_slice(&seed);
        // A random GUID by its version and variant (RFC 4122), in IPMI's order: last byte first.
        guid[6] = 0x40;
        guid.reverse();
        Device {
            guid,
            manufacturer: 0,
            product: 0x0b05,
            firmware: [0x01, 0x00],
            self_test: [0x55, 0x00],
        }
    }
}

/// Answers Get Device ID, Get Self Test Results, and for the GUIDs.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    let device = &bmc.device;
    match asked.command {
        0x01 => {
            let [major, minor] = device.firmware;
            let maker = device.manufacturer.to_le_bytes();
            let product = device.product.to_le_bytes();
            // Device id 0x20 with SDRs, IPMI 2.0, and all of chassis, FRU, SEL, SDR and sensors.
            let mut id = vec![0x20, 0x81, major & 0x7f, minor, 0x02, 0x8f];
            id.extend_from_slice(&maker[..3]);
            id.extend(product);
            id.extend([0; 4]);
            ok(id)
        }
        // Cold and warm: it is back at once, but for its sessions.
        0x02 | 0x03 => {
            session::reset(bmc, asked.session);
            ok([])
        }
        0x04 => ok(device.self_test),
        0x08 | 0x37 => ok(device.guid),
        _ => None,
    }
}

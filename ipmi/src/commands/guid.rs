//! Sixteen bytes that name a machine, in whichever order they come.
//!
//! IPMI 2.0 §20.8 (last byte first), SMBIOS §7.2.1 (numbers with the low byte first), RFC 4122 (as written).

use std::fmt;

use serde::{Serialize, Serializer};

/// In what order a GUID's bytes were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// As SMBIOS tables have them: three numbers with the low byte first, then bytes.
    Smbios,
    /// As IPMI would have them (§20.8): the last byte first.
    Ipmi,
    /// As they are written.
    Network,
}

/// Sixteen bytes that name a machine or a BMC.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// As they are written, if they were sent in this order.
    pub fn read(&self, order: Order) -> [u8; 16] {
        let mut bytes = self.0;
        match order {
            Order::Network => {}
            Order::Ipmi => bytes.reverse(),
            Order::Smbios => {
                bytes[..4].reverse();
                bytes[4..6].reverse();
                bytes[6..8].reverse();
            }
        }
        bytes
    }

    /// The order that makes a UUID of them: version 1 to 5, and its variant if it can be had. Most firmware
    /// sends SMBIOS's, whatever IPMI says; that is taken too where no order makes one.
    pub fn order(&self) -> Order {
        let orders = [Order::Smbios, Order::Ipmi, Order::Network];
        let has = |order: &Order, variant: bool| {
            let bytes = self.read(*order);
            (1..=5).contains(&(bytes[6] >> 4)) && (!variant || bytes[8] >> 6 == 0b10)
        };
        let by = |variant| orders.into_iter().find(|order| has(order, variant));
        by(true).or_else(|| by(false)).unwrap_or(Order::Smbios)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.read(self.order()).iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Guid {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_guid_in_three_orders() {
        let text = "12345678-9abc-4def-8123-456789abcdef";
        let bytes = [
            0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0x4d, 0xef, 0x81, 0x23, 0x45, 0x67, 0x89, 0xab,
            0xcd, 0xef,
        ];
        for order in [Order::Network, Order::Smbios, Order::Ipmi] {
            let sent = Guid(Guid(bytes).read(order));
            assert_eq!((sent.order(), sent.to_string().as_str()), (order, text));
        }
        assert_eq!(Guid([0; 16]).order(), Order::Smbios);
        // A version without a variant, as some makers count up.
        let mut bytes = [0; 16];
        bytes[9] = 0x40;
        assert_eq!(Guid(bytes).order(), Order::Ipmi);
    }
}

//! A reading's byte as a number: y = L[(M·x + B·10^K1)·10^K2] (IPMI §36.3; linearizations of table 43-1,
//! byte 24).

use super::units::{Format, Units};

/// What turns bytes into numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conversion {
    /// How a byte holds x.
    pub format: Format,
    /// L, by its number. 0x70 and above: M, B and exponents differ by reading.
    pub linearization: u8,
    /// Ten bits, signed.
    pub m: i16,
    /// Ten bits, signed.
    pub b: i16,
    /// K1, four bits, signed.
    pub b_exponent: i8,
    /// K2, four bits, signed.
    pub exponent: i8,
}

impl Conversion {
    /// From the six bytes M to exponents, as records and Get Sensor Reading Factors (§35.5) have them.
    pub fn decode(units: Units, linearization: u8, factors: [u8; 6]) -> Conversion {
        let [m, m_tolerance, b, b_accuracy, _, exponents] = factors;
        Conversion {
            format: units.format(),
            linearization: linearization & 0x7f,
            m: ten_bits(m, m_tolerance),
            b: ten_bits(b, b_accuracy),
            b_exponent: four_bits(exponents & 15),
            exponent: four_bits(exponents >> 4),
        }
    }

    /// The six bytes again; tolerance and accuracy are 0.
    pub fn encode(&self) -> [u8; 6] {
        let [m, m_high] = self.m.to_le_bytes();
        let [b, b_high] = self.b.to_le_bytes();
        let exponents = (self.exponent as u8) << 4 | self.b_exponent as u8 & 15;
        [m, m_high << 6, b, b_high << 6, 0, exponents]
    }

    /// Whether the factors must be asked for, for each reading.
    pub fn is_nonlinear(&self) -> bool {
        self.linearization >= 0x70
    }

    /// What this byte means. `None`: not a number, or one without a value (1/0, the logarithm of −1).
    pub fn value(&self, raw: u8) -> Option<f64> {
        let x = match self.format {
            Format::Unsigned => f64::from(raw),
            Format::Ones if raw & 0x80 != 0 => -f64::from(!raw),
            Format::Ones => f64::from(raw),
            Format::Twos => f64::from(raw as i8),
            Format::None => return None,
        };
        let b = f64::from(self.b) * power_of_ten(self.b_exponent);
        let linear = (f64::from(self.m) * x + b) * power_of_ten(self.exponent);
        let value = match self.linearization {
            1 => linear.ln(),
            2 => linear.log10(),
            3 => linear.log2(),
            4 => linear.exp(),
            5 => 10f64.powf(linear),
            6 => linear.exp2(),
            7 => linear.recip(),
            8 => linear * linear,
            9 => linear * linear * linear,
            10 => linear.sqrt(),
            11 => linear.cbrt(),
            _ => linear,
        };
        value.is_finite().then_some(value)
    }

    /// The byte nearest to a value, by trying them all: every linearization is then its own inverse.
    pub fn raw(&self, value: f64) -> Option<u8> {
        let off = |raw: u8| self.value(raw).map(|at| (at - value).abs());
        let byte = (0..=255u8)
            .filter(|raw| off(*raw).is_some())
            .min_by(|a, b| off(*a).partial_cmp(&off(*b)).unwrap_or(std::cmp::Ordering::Equal));
        byte.filter(|_| self.m != 0)
    }

    /// Decimal places that a step of the reading is worth, at most 3.
    pub fn places(&self) -> usize {
        if self.linearization != 0 {
            return 2;
        }
        let step = f64::from(self.m).abs() * power_of_ten(self.exponent);
        // 0.1 is not quite 10⁻¹.
        (0..3usize).find(|places| step * 10f64.powi(*places as i32) > 0.999).unwrap_or(3)
    }
}

fn power_of_ten(exponent: i8) -> f64 {
    10f64.powi(i32::from(exponent))
}

fn ten_bits(low: u8, high: u8) -> i16 {
    // The two upper bits lie in bits 7:6.
    (i16::from_le_bytes([low, high >> 6]) << 6) >> 6
}

fn four_bits(nibble: u8) -> i8 {
    ((nibble << 4) as i8) >> 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn linear(m: i16, b: i16, b_exponent: i8, exponent: i8) -> Conversion {
        Conversion { format: Format::Unsigned, linearization: 0, m, b, b_exponent, exponent }
    }

    #[test]
    fn formats() {
        let of = |flags| {
            Conversion::decode(
                Units { flags, base: 1, modifier: 0 },
                0,
                linear(1, 0, 0, 0).encode(),
            )
        };
        assert_eq!(of(0x00).value(0xff), Some(255.0));
        assert_eq!(of(0x40).value(0xfe), Some(-1.0));
        assert_eq!(of(0x40).value(0x80), Some(-127.0));
        assert_eq!(of(0x80).value(0xff), Some(-1.0));
        assert_eq!(of(0x80).value(0x80), Some(-128.0));
        assert_eq!(of(0xc0).value(1), None);
    }

    #[test]
    fn factors_are_signed() {
        // 12 V of a Dell R630: M 112, B 0, exponent −3.
        let volts = linear(112, 0, 0, -3);
        assert!((volts.value(107).unwrap() - 11.984).abs() < 1e-9);
        assert_eq!(volts.places(), 1);
        assert_eq!(linear(-512, 511, -8, 7), {
            let bytes = linear(-512, 511, -8, 7).encode();
            Conversion::decode(Units::default(), 0, bytes)
        });
        assert_eq!(linear(1, -50, 0, 0).value(20), Some(-30.0));
        assert_eq!(linear(1, 1, 2, 0).value(5), Some(105.0));
        assert_eq!(linear(1, 0, 0, -1).places(), 1);
        assert_eq!(linear(6, 0, 0, -3).places(), 3);
        assert_eq!(linear(60, 0, 0, 0).places(), 0);
    }

    #[test]
    fn linearizations_by_number() {
        let value =
            |linearization| Conversion { linearization, ..linear(1, 0, 0, 0) }.value(8).unwrap();
        let about =
            |number, wanted: f64| assert!((value(number) - wanted).abs() < 1e-3, "{number}");
        about(1, 2.0794);
        about(2, 0.90309);
        about(3, 3.0);
        about(4, 2980.958);
        about(5, 1e8);
        about(6, 256.0);
        about(7, 0.125);
        about(8, 64.0);
        about(9, 512.0);
        about(10, 2.8284);
        about(11, 2.0);
        assert_eq!(Conversion { linearization: 7, ..linear(1, 0, 0, 0) }.value(0), None);
        assert_eq!(Conversion { linearization: 1, ..linear(1, 0, 0, 0) }.value(0), None);
    }

    proptest! {
        #[test]
        fn any_factors(flags: u8, linearization: u8, factors: [u8; 6], raw: u8) {
            let units = Units { flags, base: 1, modifier: 0 };
            let conversion = Conversion::decode(units, linearization, factors);
            prop_assert!((-512..=511).contains(&conversion.m));
            prop_assert!((-8..=7).contains(&conversion.exponent));
            prop_assert!(conversion.value(raw).is_none_or(f64::is_finite));
            prop_assert!(conversion.places() <= 3);
        }

        /// The byte of a byte's value is worth as much.
        #[test]
        fn back_again(factors: [u8; 6], linearization in 0u8..12, raw: u8) {
            let conversion = Conversion::decode(Units::default(), linearization, factors);
            if let (Some(value), Some(back)) =
                (conversion.value(raw), conversion.value(raw).and_then(|v| conversion.raw(v)))
            {
                prop_assert_eq!(conversion.value(back), Some(value));
            }
        }
    }
}

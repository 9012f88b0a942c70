//! Amounts as text in reasons and warnings.

use std::fmt;

/// Bytes with a unit: `1.5 GiB`.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_048_576 => return write!(f, "{} bytes", self.0),
            1_048_576..1_073_741_824 => (1_048_576, "MiB"),
            _ => (1_073_741_824, "GiB"),
        };
        let tenths = u128::from(self.0) * 10 / unit;
        match tenths % 10 {
            0 => write!(f, "{} {name}", tenths / 10),
            tenth => write!(f, "{}.{tenth} {name}", tenths / 10),
        }
    }
}

/// A number of things: `1 node`, `3 nodes`.
pub(crate) struct Count<N>(pub(crate) N, pub(crate) &'static str);

impl<N: fmt::Display + PartialEq + From<u8>> fmt::Display for Count<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, noun) = self;
        let plural = if *number == N::from(1) { "" } else { "s" };
        write!(f, "{number} {noun}{plural}")
    }
}

/// Percent as a factor: 125 is `1.25`, 200 is `2`.
pub(crate) struct Factor(pub(crate) u32);

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.0 / 100, self.0 % 100);
        match (hundredths / 10, hundredths % 10) {
            (0, 0) => write!(f, "{whole}"),
            (tenth, 0) => write!(f, "{whole}.{tenth}"),
            (tenth, hundredth) => write!(f, "{whole}.{tenth}{hundredth}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_cut_to_a_tenth_of_their_unit() {
        for (bytes, text) in [
            (2, "2 bytes"),
            (512 << 20, "512 MiB"),
            (3 << 29, "1.5 GiB"),
            (8 << 30, "8 GiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn factors_lose_their_last_zeros() {
        for (percent, text) in [(125, "1.25"), (150, "1.5"), (100, "1"), (105, "1.05")] {
            assert_eq!(Factor(percent).to_string(), text);
        }
    }
}

//! Decayed weights in eight bytes.
//!
//! Knows: the arithmetic of sums of positive terms. Must not know: edges, items, clocks.
//!
//! A weight is a forward-decayed sum (see `decay`), packed so that integers compare as weights do:
//!
//! ```text
//! exponent + 4096: 24 bits | fraction: 40 bits, below an implied 1; all zero is zero
//! ```
//!
//! With half-lives of an hour or more, and infinite ones, the exponent of any time and any sum fits.
//! One addition is off by 2^-41 of the sum at most, so a sum of n terms by n · 2^-41: a billion pairs
//! are exact to half a thousandth, a million to a millionth. Sums are formed in integers, in log
//! order, so two that were fed alike are the same bits.

use crate::codec::{DecodeError, Reader};
use crate::decay::{Decay, Factor, Sum, scale};

const FRACTION_BITS: u32 = 40;
const ONE: u64 = 1 << FRACTION_BITS;
/// Exponents down to this below zero: a weight that a caller gives may be as small as an `f32` gets.
const BIAS: i64 = 4096;
/// Guard bits of an addition.
const GUARD: u32 = 20;
/// Exponents that are read are below this; what is added to them cannot overflow 24 bits.
const EXPONENT_END: i64 = 1 << 23;

const DOUBLE_FRACTION_BITS: u32 = 52;

/// A sum of terms that are all above zero, or zero. Its order is that of the decayed sums at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Weight(u64);

impl Weight {
    pub(crate) const ZERO: Self = Self(0);

    /// A decayed sum that is above zero, rounded to the nearest weight.
    pub(super) fn of(sum: Sum) -> Self {
        assert!(sum.is_positive(), "weights are above zero");
        let fraction = sum.mantissa.to_bits() & ((1 << DOUBLE_FRACTION_BITS) - 1);
        const DROPPED: u32 = DOUBLE_FRACTION_BITS - FRACTION_BITS;
        let rounded = (fraction + (1 << (DROPPED - 1))) >> DROPPED;
        let biased = i64::from(sum.exponent) + BIAS;
        assert!((1..EXPONENT_END + BIAS).contains(&biased), "weights have 24 bits of exponent");
        // A fraction that is rounded up to 1 moves the exponent up by itself.
        Self(((biased as u64) << FRACTION_BITS) + rounded)
    }

    /// The bits, for a page.
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// The weight of [`bits`](Self::bits).
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let weight = Self(reader.u64()?);
        let is_normal = (ONE..((EXPONENT_END + BIAS) as u64) << FRACTION_BITS).contains(&weight.0);
        if weight == Self::ZERO || is_normal {
            Ok(weight)
        } else {
            Err(DecodeError::Malformed("a weight out of normal form"))
        }
    }

    const fn exponent(self) -> i64 {
        (self.0 >> FRACTION_BITS) as i64 - BIAS
    }

    const fn significand(self) -> u64 {
        ONE | (self.0 & (ONE - 1))
    }

    /// This sum and a term, rounded to the nearest weight.
    #[inline]
    #[must_use]
    pub(super) fn plus(self, term: Self) -> Self {
        let (large, small) = if self >= term { (self, term) } else { (term, self) };
        let distance = (large.0 >> FRACTION_BITS) - (small.0 >> FRACTION_BITS);
        if small == Self::ZERO || distance > u64::from(FRACTION_BITS + 2) {
            return large;
        }
        let sum = (large.significand() << GUARD) + ((small.significand() << GUARD) >> distance);
        let carry = sum >> (FRACTION_BITS + 1 + GUARD);
        let shift = GUARD + carry as u32;
        let rounded = (sum + (1 << (shift - 1))) >> shift;
        Self((((large.0 >> FRACTION_BITS) + carry) << FRACTION_BITS) + (rounded - ONE))
    }

    /// The decayed sum at the time of `now`.
    #[inline]
    pub(crate) fn at(self, now: &Decay) -> f64 {
        if self == Self::ZERO {
            return 0.0;
        }
        let fraction = (self.0 & (ONE - 1)) << (DOUBLE_FRACTION_BITS - FRACTION_BITS);
        let mantissa = f64::from_bits((1023 << DOUBLE_FRACTION_BITS) | fraction);
        scale(mantissa * now.inverse_fraction(), self.exponent() - now.exponent())
    }

    /// Whether it is more than 2^48 terms of the time `now` add up to.
    pub(super) fn is_beyond(self, now: Factor) -> bool {
        self > Self::of(now.weighted((1u64 << 48) as f64))
    }

    /// What so many terms of the time `now` add up to; zero for none.
    pub(super) fn of_terms(terms: u64, now: Factor) -> Self {
        if terms == 0 { Self::ZERO } else { Self::of(now.weighted(terms as f64)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Timestamp;
    use crate::schema::HalfLife;
    use proptest::prelude::*;
    use std::time::Duration;

    fn half_life() -> HalfLife {
        HalfLife::from_duration(Duration::from_secs(3_600)).expect("a valid half-life")
    }

    fn at(seconds: u64) -> Weight {
        Weight::of(Factor::at(Timestamp::from_secs(seconds), half_life()).weighted(1.0))
    }

    proptest! {
        #[test]
        fn a_sum_is_that_of_doubles_within_its_bound(times in prop::collection::vec(0u64..400_000, 1..400)) {
            let now = Timestamp::from_secs(1_600_400_000);
            let decay = Decay::at(now, half_life());
            let (mut weight, mut sum) = (Weight::ZERO, Sum::ZERO);
            for &time in &times {
                let time = 1_600_000_000 + time;
                weight = weight.plus(at(time));
                sum = sum.plus(Factor::at(Timestamp::from_secs(time), half_life()).weighted(1.0));
            }
            let error = (weight.at(&decay) / sum.at(decay) - 1.0).abs();
            prop_assert!(error <= (times.len() as f64 + 1.0) / f64::from(1u32 << 20) / f64::from(1u32 << 21) + 1e-13, "{error:e}");
        }

        #[test]
        fn order_is_the_order_of_sums(left in 1e-30..1e30f64, right in 1e-30..1e30f64) {
            let now = Factor::at(Timestamp::from_secs(1_600_000_000), half_life());
            let (l, r) = (now.weighted(left), now.weighted(right));
            if (left / right - 1.0).abs() > 1e-11 {
                prop_assert_eq!(Weight::of(l).cmp(&Weight::of(r)), l.compare(r));
            }
        }

        #[test]
        fn what_was_encoded_is_decoded(seconds in 0u64..18_000_000_000) {
            let weight = at(seconds);
            let bytes = weight.bits().to_le_bytes();
            prop_assert_eq!(Weight::decode(&mut Reader::new(&bytes)), Ok(weight));
        }
    }

    #[test]
    fn the_last_time_and_the_smallest_float_fit() {
        let end = Factor::at(Timestamp::from_nanos(u64::MAX), half_life());
        let last = Weight::of_terms(u64::MAX, end);
        assert!(last.plus(last) > last);
        let infinite = Factor::at(Timestamp::EPOCH, HalfLife::INFINITE);
        let smallest = Weight::of(infinite.weighted(f64::from(f32::from_bits(1))));
        assert!(smallest > Weight::ZERO);
        let largest = Weight::of(infinite.weighted(f64::from(f32::MAX)));
        assert_eq!(largest.plus(smallest), largest);
        assert_eq!(smallest.plus(largest), largest);
    }

    #[test]
    fn a_million_equal_terms_are_a_million_within_a_millionth() {
        let now = Timestamp::from_secs(1_600_001_234);
        let mut sum = Weight::ZERO;
        (0..1_000_000).for_each(|_| sum = sum.plus(at(1_600_001_234)));
        let total = sum.at(&Decay::at(now, half_life()));
        assert!((total / 1e6 - 1.0).abs() < 1e-6, "{total}");
    }
}

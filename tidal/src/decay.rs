//! Forward decay without a landmark.
//!
//! Knows: the arithmetic of decayed sums, of scores and of edges alike. Must not know: items, columns,
//! clocks.
//!
//! With half-life h, write an event's time as t = q·h + r in integers. Under forward decay (Cormode,
//! Shkapenyuk, Srivastava and Xu, "Forward decay: a practical time decay model for streaming
//! systems", ICDE 2009) an event of weight w adds w · 2^(t/h) = w · 2^(r/h) · 2^q to its sum, and the
//! decayed score at time T is that sum times 2^(-T/h). A sum is kept as mantissa and exponent, so
//! neither 1970 nor 700 half-lives of silence underflow; additions commute but for rounding; and two
//! sums under one half-life compare the same at every T.
//!
//! The exponential is computed here and not by the platform, so that a replay on another machine gives
//! the same bits.

use std::cmp::Ordering;

use crate::ids::Timestamp;
use crate::schema::HalfLife;

/// 2^(k/64), correctly rounded.
const POWERS: [u64; 64] = [
    0x3ff0_0000_0000_0000,
    0x3ff0_2c9a_3e77_8061,
    0x3ff0_59b0_d315_8574,
    0x3ff0_8745_1875_9bc8,
    0x3ff0_b558_6cf9_890f,
    0x3ff0_e3ec_32d3_d1a2,
    0x3ff1_1301_d012_5b51,
    0x3ff1_429a_aea9_2de0,
    0x3ff1_72b8_3c7d_517b,
    0x3ff1_a35b_eb6f_cb75,
    0x3ff1_d487_3168_b9aa,
    0x3ff2_063b_8862_8cd6,
    0x3ff2_387a_6e75_6238,
    0x3ff2_6b45_65e2_7cdd,
    0x3ff2_9e9d_f51f_dee1,
    0x3ff2_d285_a6e4_030b,
    0x3ff3_06fe_0a31_b715,
    0x3ff3_3c08_b264_16ff,
    0x3ff3_71a7_373a_a9cb,
    0x3ff3_a7db_34e5_9ff7,
    0x3ff3_dea6_4c12_3422,
    0x3ff4_160a_21f7_2e2a,
    0x3ff4_4e08_6061_892d,
    0x3ff4_86a2_b5c1_3cd0,
    0x3ff4_bfda_d536_2a27,
    0x3ff4_f9b2_769d_2ca7,
    0x3ff5_342b_569d_4f82,
    0x3ff5_6f47_36b5_27da,
    0x3ff5_ab07_dd48_5429,
    0x3ff5_e76f_15ad_2148,
    0x3ff6_247e_b03a_5585,
    0x3ff6_6238_8255_2225,
    0x3ff6_a09e_667f_3bcd,
    0x3ff6_dfb2_3c65_1a2f,
    0x3ff7_1f75_e8ec_5f74,
    0x3ff7_5feb_5642_67c9,
    0x3ff7_a114_73eb_0187,
    0x3ff7_e2f3_36cf_4e62,
    0x3ff8_2589_994c_ce13,
    0x3ff8_68d9_9b44_92ed,
    0x3ff8_ace5_422a_a0db,
    0x3ff8_f1ae_9915_7736,
    0x3ff9_3737_b0cd_c5e5,
    0x3ff9_7d82_9fde_4e50,
    0x3ff9_c491_82a3_f090,
    0x3ffa_0c66_7b5d_e565,
    0x3ffa_5503_b23e_255d,
    0x3ffa_9e6b_5579_fdbf,
    0x3ffa_e89f_995a_d3ad,
    0x3ffb_33a2_b84f_15fb,
    0x3ffb_7f76_f2fb_5e47,
    0x3ffb_cc1e_904b_c1d2,
    0x3ffc_199b_dd85_529c,
    0x3ffc_67f1_2e57_d14b,
    0x3ffc_b720_dcef_9069,
    0x3ffd_072d_4a07_897c,
    0x3ffd_5818_dcfb_a487,
    0x3ffd_a9e6_03db_3285,
    0x3ffd_fc97_337b_9b5f,
    0x3ffe_502e_e78b_3ff6,
    0x3ffe_a4af_a2a4_90da,
    0x3ffe_fa1b_ee61_5a27,
    0x3fff_5076_5b6e_4540,
    0x3fff_a7c1_819e_90d8,
];

/// ln(2)^n / n! for n = 1 to 5, correctly rounded: the Taylor series of 2^x around 0.
const TAYLOR: [u64; 5] = [
    0x3fe6_2e42_fefa_39ef,
    0x3fce_bfbd_ff82_c58f,
    0x3fac_6b08_d704_a0c0,
    0x3f83_b2ab_6fba_4e77,
    0x3f55_d87f_e78a_6731,
];

/// 2^x for 0 <= x < 1, within 1 ulp: a table step of 1/64 and five terms, whose remainder is below
/// 4e-17 for |f| <= 1/128.
fn exp2_fraction(x: f64) -> f64 {
    let nearest = (x * 64.0 + 0.5) as usize;
    let f = x - nearest as f64 / 64.0;
    let [c1, c2, c3, c4, c5] = TAYLOR.map(f64::from_bits);
    let series = f * (c1 + f * (c2 + f * (c3 + f * (c4 + f * c5))));
    match POWERS.get(nearest) {
        Some(&power) => f64::from_bits(power) + f64::from_bits(power) * series,
        None => 2.0 + 2.0 * series,
    }
}

/// value · 2^exponent, 0 or infinite beyond the range of a double.
#[inline]
pub(crate) fn scale(value: f64, exponent: i64) -> f64 {
    match exponent {
        -1022..=1023 => value * power_of_two(exponent),
        -2044..=-1023 => value * power_of_two(-1022) * power_of_two(exponent + 1022),
        1024..=2046 => value * power_of_two(1023) * power_of_two(exponent - 1023),
        ..-2044 => value * 0.0,
        2047.. => value * f64::INFINITY,
    }
}

const fn power_of_two(exponent: i64) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// A time under one half-life: 2^(t/h) as a fraction in [1, 2) and a power of two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Factor {
    fraction: f64,
    exponent: i32,
}

impl Factor {
    /// 2^(t/h); 1 for a half-life that is infinite.
    pub(crate) fn at(time: Timestamp, half_life: HalfLife) -> Self {
        let Some(h) = half_life.as_nanos() else {
            return Self { fraction: 1.0, exponent: 0 };
        };
        let (q, r) = (time.as_nanos() / h, time.as_nanos() % h);
        let exponent = i32::try_from(q).expect("half-lives are 10 s at least");
        Self { fraction: exp2_fraction(r as f64 / h as f64), exponent }
    }

    /// What an event of this weight at this time adds to a sum.
    pub(crate) fn weighted(self, weight: f64) -> Sum {
        Sum::normal(weight * self.fraction, self.exponent)
    }
}

/// The exponents of sums: a time has at most 2^64 ns / 10 s half-lives, the exponent of a weight or
/// of what a cancellation leaves is far above -1000.
const EXPONENTS: std::ops::RangeInclusive<i32> = -1_000..=2_000_000_000;

/// No weight is above 2^333, which is more than 1e100.
const LARGEST_WEIGHT_BITS: i64 = 333;

/// A decayed sum, relative to no moment: mantissa · 2^exponent, with 1 <= |mantissa| < 2, or zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sum {
    pub(crate) mantissa: f64,
    pub(crate) exponent: i32,
}

impl Sum {
    pub(crate) const ZERO: Self = Self { mantissa: 0.0, exponent: 0 };

    /// Brings value · 2^exponent into normal form. `value` is finite and not subnormal.
    #[inline]
    fn normal(value: f64, exponent: i32) -> Self {
        const FIELD: u64 = 0x7ff << 52;
        if value == 0.0 {
            return Self::ZERO;
        }
        let bits = value.to_bits();
        let binary = ((bits & FIELD) >> 52) as i32 - 1023;
        let mantissa = f64::from_bits((bits & !FIELD) | (1023 << 52));
        Self { mantissa, exponent: exponent + binary }
    }

    /// Whether it is in the form that every sum here has.
    pub(crate) fn is_normal(self) -> bool {
        let is_zero = self.mantissa.to_bits() == 0 && self.exponent == 0;
        is_zero || ((1.0..2.0).contains(&self.mantissa.abs()) && EXPONENTS.contains(&self.exponent))
    }

    /// This sum and a term. The one with the smaller exponent is scaled down, which loses only what
    /// is below the rounding of the other.
    #[inline]
    #[must_use]
    pub(crate) fn plus(self, term: Self) -> Self {
        if self.mantissa == 0.0 {
            return term;
        }
        if term.mantissa == 0.0 {
            return self;
        }
        let (large, small) =
            if self.exponent >= term.exponent { (self, term) } else { (term, self) };
        let distance = i64::from(large.exponent) - i64::from(small.exponent);
        if distance > 1000 {
            return large;
        }
        let value = large.mantissa + small.mantissa * power_of_two(-distance);
        Self::normal(value, large.exponent)
    }

    /// The decayed score at the time of `now`.
    #[inline]
    pub(crate) fn at(self, now: Decay) -> f64 {
        scale(self.mantissa * now.inverse_fraction, i64::from(self.exponent) - now.exponent)
    }

    /// Whether the score is above zero, at any time.
    pub(crate) fn is_positive(self) -> bool {
        self.mantissa > 0.0
    }

    /// Whether time that is set back from `before` to `now` lifts the score beyond what weights add up to:
    /// beyond 2^48 times one, unless it was there before and is of large weights; or beyond 2^48 times the
    /// largest one, whatever it was. Such a sum was made by events of a time that never was, and has lost to
    /// rounding what else was in it.
    pub(crate) fn is_lifted(self, before: Factor, now: Factor) -> bool {
        let above = |at: Factor| i64::from(self.exponent) - i64::from(at.exponent);
        let is_beyond = above(now) > 48 && above(before) <= 48;
        self.mantissa != 0.0 && (is_beyond || above(now) > 48 + LARGEST_WEIGHT_BITS)
    }

    /// Orders by score; the same at any time.
    #[inline]
    pub(crate) fn compare(self, other: Self) -> Ordering {
        let rank = |sum: Self| match sum.mantissa.partial_cmp(&0.0) {
            Some(Ordering::Greater) => i64::from(sum.exponent) + (1 << 40),
            Some(Ordering::Less) => -i64::from(sum.exponent) - (1 << 40),
            _ => 0,
        };
        rank(self).cmp(&rank(other)).then(self.mantissa.total_cmp(&other.mantissa))
    }
}

/// The divisor of a read: 2^(now/h), turned into a multiplication once for any number of sums.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decay {
    inverse_fraction: f64,
    exponent: i64,
}

impl Decay {
    /// Scores as of `now`.
    pub(crate) fn at(now: Timestamp, half_life: HalfLife) -> Self {
        let factor = Factor::at(now, half_life);
        Self { inverse_fraction: 1.0 / factor.fraction, exponent: i64::from(factor.exponent) }
    }

    /// What a mantissa is multiplied by.
    pub(crate) const fn inverse_fraction(&self) -> f64 {
        self.inverse_fraction
    }

    /// What is taken from an exponent.
    pub(crate) const fn exponent(&self) -> i64 {
        self.exponent
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the platform's exp2 is what ours is compared with")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn half_life(seconds: u64) -> HalfLife {
        HalfLife::from_duration(Duration::from_secs(seconds)).expect("a valid half-life")
    }

    #[test]
    fn the_exponential_is_within_two_ulps_of_the_platforms() {
        for i in 0..1_000_000 {
            let x = f64::from(i) / 1e6;
            let ours = exp2_fraction(x);
            let theirs = x.exp2();
            let ulps = (ours.to_bits() as i64 - theirs.to_bits() as i64).abs();
            assert!(ulps <= 2, "2^{x}: {ours:e} and {theirs:e}");
        }
    }

    #[test]
    fn an_event_is_exact_700_half_lives_later() {
        let h = half_life(1_800);
        let written = Timestamp::from_secs(1_700_000_000);
        let sum = Factor::at(written, h).weighted(3.0);
        let later = written.saturating_add(Duration::from_secs(1_800 * 700));
        let expected = scale(3.0, -700);
        assert!((sum.at(Decay::at(later, h)) / expected - 1.0).abs() < 1e-13);
    }

    #[test]
    fn a_zero_weight_changes_nothing_however_late() {
        let h = half_life(10);
        let old = Factor::at(Timestamp::from_secs(100), h).weighted(5.0);
        let zero = Factor::at(Timestamp::from_secs(10_000_000), h).weighted(0.0);
        assert_eq!(old.plus(zero), old);
        assert_eq!(zero.plus(old), old);
    }

    proptest! {
        #[test]
        fn a_sum_equals_brute_force_within_1e9th_of_the_absolute_sum(
            events in prop::collection::vec((-100.0..100.0f64, 0u64..5_000_000), 1..60),
            h in 10u64..1_000_000,
        ) {
            let base = 1_600_000_000;
            let half = half_life(h);
            let now = base + 5_000_000;
            let mut sum = Sum::ZERO;
            let (mut brute, mut absolute) = (0.0, 0.0);
            for &(weight, at) in &events {
                sum = sum.plus(Factor::at(Timestamp::from_secs(base + at), half).weighted(weight));
                let decayed = (-((now - base - at) as f64) / h as f64).exp2() * weight;
                brute += decayed;
                absolute += decayed.abs();
            }
            let score = sum.at(Decay::at(Timestamp::from_secs(now), half));
            prop_assert!((score - brute).abs() <= 1e-9 * absolute + f64::MIN_POSITIVE);
        }

        #[test]
        fn order_is_the_order_of_scores_at_any_time(
            left in -100.0..100.0f64, right in -100.0..100.0f64, gap in 0u64..1_000,
        ) {
            let half = half_life(100);
            let l = Factor::at(Timestamp::from_secs(1_000_000), half).weighted(left);
            let r = Factor::at(Timestamp::from_secs(1_000_000 + gap), half).weighted(right);
            let now = Decay::at(Timestamp::from_secs(1_002_000), half);
            let (ls, rs) = (l.at(now), r.at(now));
            if (ls - rs).abs() > 1e-9 {
                prop_assert_eq!(l.compare(r), ls.partial_cmp(&rs).expect("finite"));
            }
        }
    }
}

//! Half-lives: how fast a score forgets.
//!
//! Knows: which half-lives are accepted and why. Must not know: how a decayed sum is kept.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use crate::error::{Error, Result};

/// How the default score of a signal forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecaySpec {
    /// A weight is worth half after every `half_life`: 0.5^(age / half_life).
    Exponential {
        /// 10 seconds to 100 years; [`Duration::MAX`] means that nothing decays.
        half_life: Duration,
    },
    /// Nothing decays: the score is the plain sum of weights, its half-life infinite.
    None,
}

impl DecaySpec {
    /// The half-life of this decay.
    pub(super) fn half_life(self) -> Result<HalfLife> {
        match self {
            Self::Exponential { half_life } => HalfLife::from_duration(half_life),
            Self::None => Ok(HalfLife::INFINITE),
        }
    }
}

/// A half-life in whole nanoseconds, or infinite. Finite ones order by length, infinite is last.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HalfLife(Option<NonZeroU64>);

/// The age of any event is below 2^64 ns, and a score keeps the count of half-lives since the epoch
/// in an `i32`.
const MIN_NS: u64 = 10 * 1_000_000_000;
const MAX_NS: u64 = 100 * 36_525 * 864 * 1_000_000_000;

const _: () = assert!(u64::MAX / MIN_NS < i32::MAX as u64, "the exponent of a score overflows");

impl HalfLife {
    /// Nothing decays.
    pub const INFINITE: Self = Self(None);

    /// The shortest finite half-life: 10 seconds. Times reach 2^64 nanoseconds and a score counts
    /// half-lives in 32 bits, so anything below 8.6 seconds could overflow.
    pub const MIN: Duration = Duration::from_nanos(MIN_NS);

    /// The longest finite half-life: 100 years of 365.25 days. Beyond it, say infinite.
    pub const MAX: Duration = Duration::from_nanos(MAX_NS);

    /// The half-life of this length; [`Duration::MAX`] is [`INFINITE`](Self::INFINITE).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] when it is finite and not between [`MIN`](Self::MIN) and
    /// [`MAX`](Self::MAX).
    pub fn from_duration(length: Duration) -> Result<Self> {
        if length == Duration::MAX {
            return Ok(Self::INFINITE);
        }
        u64::try_from(length.as_nanos()).ok().and_then(Self::from_nanos).ok_or_else(|| {
            let reason = format!(
                "{length:?} is outside 10 seconds to 100 years; for no decay use DecaySpec::None \
                 or Duration::MAX"
            );
            Error::invalid("half-life", reason)
        })
    }

    /// The finite half-life of `nanos` nanoseconds, if it is in range.
    pub(super) fn from_nanos(nanos: u64) -> Option<Self> {
        if (MIN_NS..=MAX_NS).contains(&nanos) {
            NonZeroU64::new(nanos).map(Some).map(Self)
        } else {
            None
        }
    }

    /// Its length in nanoseconds; `None` when it is infinite.
    pub const fn as_nanos(self) -> Option<u64> {
        match self.0 {
            Some(nanos) => Some(nanos.get()),
            None => None,
        }
    }

    /// Nothing decays.
    pub const fn is_infinite(self) -> bool {
        self.0.is_none()
    }

    /// Its length; [`Duration::MAX`] when it is infinite, as [`from_duration`](Self::from_duration)
    /// reads it.
    pub const fn as_duration(self) -> Duration {
        match self.0 {
            Some(nanos) => Duration::from_nanos(nanos.get()),
            None => Duration::MAX,
        }
    }
}

impl PartialOrd for HalfLife {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HalfLife {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_duration().cmp(&other.as_duration())
    }
}

impl fmt::Display for HalfLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [
            (86_400_000_000_000, "d"),
            (3_600_000_000_000, "h"),
            (60_000_000_000, "min"),
            (1_000_000_000, "s"),
        ];
        let Some(nanos) = self.as_nanos() else { return f.write_str("infinite") };
        match UNITS.iter().find(|(unit_ns, _)| nanos % unit_ns == 0) {
            Some((unit_ns, unit)) => write!(f, "{}{unit}", nanos / unit_ns),
            None => write!(f, "{nanos}ns"),
        }
    }
}

impl fmt::Debug for HalfLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HalfLife({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_lives_outside_ten_seconds_to_a_century_are_refused() {
        let nano = Duration::from_nanos(1);
        assert!(HalfLife::from_duration(HalfLife::MIN).is_ok());
        assert!(HalfLife::from_duration(HalfLife::MIN - nano).is_err());
        assert!(HalfLife::from_duration(HalfLife::MAX).is_ok());
        assert!(HalfLife::from_duration(HalfLife::MAX + nano).is_err());
        assert!(HalfLife::from_duration(Duration::MAX - nano).is_err());
        assert!(HalfLife::from_duration(Duration::ZERO).is_err());
    }

    #[test]
    fn the_longest_duration_is_infinite_both_ways_and_sorts_last() {
        let infinite = HalfLife::from_duration(Duration::MAX).expect("accepted");
        assert!(infinite.is_infinite());
        assert_eq!(infinite.as_duration(), Duration::MAX);
        assert!(HalfLife::from_duration(HalfLife::MAX).expect("accepted") < infinite);
        assert_eq!(DecaySpec::None.half_life().expect("accepted"), infinite);
    }

    #[test]
    fn half_lives_read_in_the_largest_whole_unit() {
        let shown = |ns| HalfLife::from_nanos(ns).expect("in range").to_string();
        assert_eq!(shown(1_800_000_000_000), "30min");
        assert_eq!(shown(86_400_000_000_000), "1d");
        assert_eq!(shown(90_000_000_000), "90s");
        assert_eq!(shown(10_000_000_001), "10000000001ns");
        assert_eq!(HalfLife::INFINITE.to_string(), "infinite");
    }
}

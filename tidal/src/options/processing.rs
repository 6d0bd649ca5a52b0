//! How long processors may work on one session.
//!
//! Knows: durations, and how they grow with a session. Must not know: what a processor is.

use std::time::Duration;

use super::sessions::{LONGEST, WAITS};

/// How long processors may work on one session before it counts as stuck.
///
/// ```
/// use std::time::Duration;
/// use tidaldb::ProcessingTimeout;
///
/// const MIN: Duration = Duration::from_secs(60);
/// let timeout = ProcessingTimeout::Scaled { base: 30 * MIN, per_1k_records: MIN, max: 90 * MIN };
/// assert_eq!(timeout.of(0), 30 * MIN);
/// assert_eq!(timeout.of(10_500), 40 * MIN + MIN / 2);
/// assert_eq!(timeout.of(1_000_000), 90 * MIN);
/// assert_eq!(ProcessingTimeout::from(30 * MIN), ProcessingTimeout::Fixed(30 * MIN));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProcessingTimeout {
    /// As long for each; 10 ms to 31 days.
    Fixed(Duration),
    /// Longer for a session that has more in it: `min(base + per_1k_records · records / 1000, max)`.
    Scaled {
        /// That of an empty session; 10 ms to `max`.
        base: Duration,
        /// What 1,000 records add: signals and annotations, late ones among them. More than 0.
        per_1k_records: Duration,
        /// That of the longest; up to 31 days.
        max: Duration,
    },
}

impl Default for ProcessingTimeout {
    /// [Fixed](Self::Fixed), 30 min.
    fn default() -> Self {
        Self::Fixed(Duration::from_secs(30 * 60))
    }
}

impl From<Duration> for ProcessingTimeout {
    fn from(fixed: Duration) -> Self {
        Self::Fixed(fixed)
    }
}

impl ProcessingTimeout {
    /// That of a session with so many records.
    pub fn of(self, records: u64) -> Duration {
        match self {
            Self::Fixed(timeout) => timeout,
            Self::Scaled { base, per_1k_records, max } => {
                let added_ns =
                    per_1k_records.as_nanos().saturating_mul(u128::from(records)) / 1_000;
                let added_ns = u64::try_from(added_ns).unwrap_or(u64::MAX);
                base.saturating_add(Duration::from_nanos(added_ns)).min(max)
            }
        }
    }

    /// That of an empty session, which no other one's is below.
    pub fn smallest(self) -> Duration {
        self.of(0)
    }

    /// That of the largest sessions, which no other one's is above.
    pub const fn largest(self) -> Duration {
        match self {
            Self::Fixed(longest) | Self::Scaled { max: longest, .. } => longest,
        }
    }

    pub(super) fn is_sound(self) -> bool {
        match self {
            Self::Fixed(timeout) => (*WAITS.start()..=LONGEST).contains(&timeout),
            Self::Scaled { base, per_1k_records, max } => {
                !per_1k_records.is_zero()
                    && per_1k_records <= LONGEST
                    && (*WAITS.start()..=max).contains(&base)
                    && max <= LONGEST
            }
        }
    }

    /// Where it begins, whether it is scaled or not.
    pub(super) const fn base_mut(&mut self) -> &mut Duration {
        match self {
            Self::Fixed(base) | Self::Scaled { base, .. } => base,
        }
    }

    /// What is added for 1,000 records, and the maximum. It is scaled from here on.
    pub(super) fn scale_mut(&mut self) -> (&mut Duration, &mut Duration) {
        if let Self::Fixed(base) = *self {
            *self = Self::Scaled { base, per_1k_records: Duration::ZERO, max: LONGEST };
        }
        match self {
            Self::Scaled { per_1k_records, max, .. } => (per_1k_records, max),
            Self::Fixed(_) => unreachable!("it was just scaled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_grows_with_the_records_to_its_maximum_in_whole_nanoseconds() {
        let ns = Duration::from_nanos;
        let scaled =
            ProcessingTimeout::Scaled { base: ns(100), per_1k_records: ns(7), max: ns(150) };
        let of = [0, 142, 143, 1_000, 7_142, 7_143, u64::MAX].map(|records| scaled.of(records));
        assert_eq!(of, [100, 100, 101, 107, 149, 150, 150].map(ns));
        assert_eq!((scaled.smallest(), scaled.largest()), (ns(100), ns(150)));
        let longest = Duration::MAX;
        let vast =
            ProcessingTimeout::Scaled { base: longest, per_1k_records: longest, max: longest };
        assert_eq!(vast.of(u64::MAX), longest, "it saturates");
        assert_eq!(ProcessingTimeout::Fixed(ns(3)).of(u64::MAX), ns(3));
    }
}

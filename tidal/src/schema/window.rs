//! Windows: over how long events are counted, and how finely.
//!
//! Knows: grains and bucket counts. Must not know: how buckets are kept.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};

/// A window in event time over which events are counted.
///
/// A window of `n` buckets of grain `g` holds the events whose bucket ⌊t/g⌋ is the current one or
/// one of the `n − 1` before it; so it spans between `n − 1` and `n` grains.
///
/// | window | text | grain | buckets | velocity |
/// |---|---|---|---|---|
/// | `OneHour` | `1h` | 1 min | 60 | yes |
/// | `TwentyFourHours` | `24h` | 15 min | 96 | yes |
/// | `SevenDays` | `7d` | 2 h | 84 | yes |
/// | `ThirtyDays` | `30d` | 8 h | 90 | no |
/// | `AllTime` | `all` | none | none | no |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// The last hour.
    OneHour,
    /// The last 24 hours.
    TwentyFourHours,
    /// The last seven days.
    SevenDays,
    /// The last thirty days.
    ThirtyDays,
    /// Everything ever accepted; every signal counts it, declared or not.
    AllTime,
}

impl Window {
    /// Every window, the shortest first.
    pub const ALL: [Self; 5] =
        [Self::OneHour, Self::TwentyFourHours, Self::SevenDays, Self::ThirtyDays, Self::AllTime];

    /// The windows that are made of buckets, the shortest first: all but [`AllTime`](Self::AllTime).
    pub const BUCKETED: [Self; 4] =
        [Self::OneHour, Self::TwentyFourHours, Self::SevenDays, Self::ThirtyDays];

    /// The width of one bucket in minutes; `None` for all time.
    pub const fn grain_minutes(self) -> Option<u32> {
        match self {
            Self::OneHour => Some(1),
            Self::TwentyFourHours => Some(15),
            Self::SevenDays => Some(120),
            Self::ThirtyDays => Some(480),
            Self::AllTime => None,
        }
    }

    /// The number of buckets; `None` for all time.
    pub const fn buckets(self) -> Option<u32> {
        match self {
            Self::OneHour => Some(60),
            Self::TwentyFourHours => Some(96),
            Self::SevenDays => Some(84),
            Self::ThirtyDays => Some(90),
            Self::AllTime => None,
        }
    }

    /// The length of the window; `None` for all time.
    pub const fn span(self) -> Option<Duration> {
        match (self.grain_minutes(), self.buckets()) {
            (Some(grain), Some(buckets)) => {
                Some(Duration::from_secs(60 * grain as u64 * buckets as u64))
            }
            _ => None,
        }
    }

    /// Whether a velocity can be declared over this window.
    ///
    /// Velocity compares the count of the last `w` with the count of the `w` before, so it needs a
    /// history of `2w`. History ends with the longest window, at 30 days: 30-day velocity would
    /// double what every cell may have to keep, for a trend that few would call one.
    pub const fn has_velocity(self) -> bool {
        matches!(self, Self::OneHour | Self::TwentyFourHours | Self::SevenDays)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::OneHour => "1h",
            Self::TwentyFourHours => "24h",
            Self::SevenDays => "7d",
            Self::ThirtyDays => "30d",
            Self::AllTime => "all",
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Window {
    type Err = Error;

    /// Reads `1h`, `24h`, `7d`, `30d` or `all`.
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|window| window.name() == text).ok_or_else(|| {
            Error::invalid("window", format!("{text:?} is not one of 1h, 24h, 7d, 30d, all"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_spans_what_its_name_says() {
        let hours = |window: Window| window.span().map(|span| span.as_secs() / 3600);
        assert_eq!(Window::ALL.map(hours), [Some(1), Some(24), Some(7 * 24), Some(30 * 24), None]);
    }

    #[test]
    fn every_grain_is_a_multiple_of_the_finer_ones() {
        let grains: Vec<u32> =
            Window::BUCKETED.into_iter().filter_map(Window::grain_minutes).collect();
        assert_eq!(grains, [1, 15, 120, 480]);
        assert!(grains.windows(2).all(|pair| pair[1] % pair[0] == 0));
    }

    #[test]
    fn the_history_that_velocity_needs_lies_within_the_longest_window() {
        let longest = Window::ThirtyDays.span().expect("bucketed");
        for window in Window::BUCKETED {
            let fits = window.span().expect("bucketed") * 2 <= longest;
            assert_eq!(window.has_velocity(), fits, "{window}");
        }
    }

    #[test]
    fn windows_are_read_as_they_are_shown() {
        for window in Window::ALL {
            assert_eq!(window.to_string().parse::<Window>().expect("parses"), window);
        }
        assert!("1d".parse::<Window>().is_err());
    }
}

//! Values of flags: durations, windows, cohorts.
//!
//! Knows: how people write them. Must not know: what the engine calls them.

use std::fmt;
use std::time::Duration;

/// A window that the engine counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// The last hour.
    Hour,
    /// The last 24 hours.
    Day,
    /// The last 7 days.
    Week,
    /// The last 30 days.
    Month,
    /// Everything.
    All,
}

impl Span {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Hour, "1h"),
        (Self::Day, "24h"),
        (Self::Week, "7d"),
        (Self::Month, "30d"),
        (Self::All, "all"),
    ];
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = Self::ALL[*self as usize];
        f.write_str(name)
    }
}

/// # Errors
///
/// A sentence that names the windows there are.
pub(crate) fn parse_span(text: &str) -> Result<Span, String> {
    let name = if text == "1d" { "24h" } else { text };
    Span::ALL
        .iter()
        .find(|(_, known)| *known == name)
        .map(|(span, _)| *span)
        .ok_or_else(|| "the windows are 1h, 24h, 7d, 30d and all".to_owned())
}

const UNITS: [(&str, u64); 6] = [
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
    ("w", 7 * 86_400 * 1_000_000_000),
];

/// A duration such as `30m`, `24h`, `7d`, `1h30m`, `500ms`.
///
/// # Errors
///
/// A sentence, when it is none, is zero, or is longer than 584 years.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let refused = || "write durations like 500ms, 30m, 24h, 7d or 1h30m".to_owned();
    let mut rest = text;
    let mut total_ns: u64 = 0;
    while !rest.is_empty() {
        let digits_end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
        let (digits, tail) = rest.split_at(digits_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let (_, unit_ns) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?;
        let count: u64 = digits.parse().map_err(|_| refused())?;
        total_ns = count
            .checked_mul(*unit_ns)
            .and_then(|part_ns| total_ns.checked_add(part_ns))
            .ok_or_else(|| "longer than 584 years".to_owned())?;
        rest = next;
    }
    if total_ns == 0 { Err(refused()) } else { Ok(Duration::from_nanos(total_ns)) }
}

/// A half-life: a duration, or `inf` for a sum that never decays.
///
/// # Errors
///
/// As [`parse_duration`].
pub(crate) fn parse_half_life(text: &str) -> Result<Duration, String> {
    if text == "inf" { Ok(Duration::MAX) } else { parse_duration(text) }
}

/// `count` with its thousands set apart: `1,234,567`.
pub(crate) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of what takes an s when there are several: `1 session`, `2,000 sessions`.
pub(crate) fn counted(count: u64, one: &str) -> String {
    format!("{} {one}{}", thousands(count), if count == 1 { "" } else { "s" })
}

/// `size_bytes` in the unit that keeps it below 1024: `1.5 MiB`.
pub(crate) fn size(size_bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if size_bytes < 1 << 10 {
        return format!("{size_bytes} B");
    }
    let mut amount = size_bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be printed as 1024.0 belongs to the next unit.
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, seconds) in [
            ("30m", 1_800),
            ("24h", 86_400),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("1h30m", 5_400),
            ("90s", 90),
            ("1d12h", 129_600),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "0h", "h", "24", "1.5h", "-1h", "1 h", "1y", "99999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_duration("300000d").is_err(), "past the range of nanoseconds");
    }

    #[test]
    fn a_half_life_may_be_infinite() {
        assert_eq!(parse_half_life("inf"), Ok(Duration::MAX));
        assert_eq!(parse_half_life("30m"), Ok(Duration::from_secs(1_800)));
        assert!(parse_half_life("never").is_err());
    }

    #[test]
    fn every_window_reads_back_from_its_own_name() {
        for (span, name) in Span::ALL {
            assert_eq!(parse_span(name), Ok(span));
            assert_eq!(span.to_string(), name);
        }
        assert_eq!(parse_span("1d"), Ok(Span::Day));
        assert!(parse_span("2h").is_err());
    }

    #[test]
    fn sizes_stay_below_1024_of_their_unit() {
        for (size_bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (64 << 20, "64.0 MiB"),
            (5 << 40, "5.0 TiB"),
            (5 << 50, "5120.0 TiB"),
        ] {
            assert_eq!(size(size_bytes), text, "{size_bytes}");
        }
    }

    #[test]
    fn thousands_are_set_apart_from_the_right() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }
}

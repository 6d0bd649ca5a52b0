//! Points in time as text, both ways, without rounding.
//!
//! Knows: epoch numbers in several units, RFC 3339, the calendar. Must not know: what the time is
//! of, nor what time it is now.

use clap::ValueEnum;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// How a column writes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimeUnit {
    /// Seconds since 1970, a fraction is welcome
    S,
    /// Milliseconds since 1970
    Ms,
    /// Microseconds since 1970
    Us,
    /// Nanoseconds since 1970
    Ns,
    /// Text such as 2020-06-16T20:01:58.5Z
    Rfc3339,
}

impl TimeUnit {
    /// Nanoseconds since the epoch.
    ///
    /// # Errors
    ///
    /// A sentence, when the text is no time, is before 1970, or is after the year 2554.
    pub(crate) fn parse(self, text: &str) -> Result<u64, String> {
        match self {
            Self::S => parse_decimal(text, 9),
            Self::Ms => parse_decimal(text, 6),
            Self::Us => parse_decimal(text, 3),
            Self::Ns => parse_decimal(text, 0),
            Self::Rfc3339 => parse_rfc3339(text),
        }
    }
}

/// A point given by hand: RFC 3339, or seconds since the epoch.
///
/// # Errors
///
/// A sentence, when it is neither.
pub(crate) fn parse_point(text: &str) -> Result<u64, String> {
    let looks_like_a_date = text.get(4..5) == Some("-");
    if looks_like_a_date { parse_rfc3339(text) } else { TimeUnit::S.parse(text) }
}

/// The number `text` times 10^`shift`, exactly; digits finer than that are cut off.
///
/// Floats are not used on the way: a double holds epoch seconds to about 200 ns only.
fn parse_decimal(text: &str, shift: i32) -> Result<u64, String> {
    let refused = || format!("time {text:?} is not a number");
    let out_of_range = || format!("time {text:?} is after the year 2554: is --time-unit right?");
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            (mantissa, exponent.parse::<i16>().map_err(|_| refused())?.into())
        }
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits {
        return Err(refused());
    }
    // The decimal point stands after this many digits once the number is scaled.
    let point = i32::try_from(whole.len()).map_err(|_| refused())? + exponent + shift;
    let mut nanos: u64 = 0;
    let digits = whole.bytes().chain(fraction.bytes()).map(|byte| u64::from(byte - b'0'));
    let padded = digits.chain(std::iter::repeat(0)).take(usize::try_from(point).unwrap_or(0));
    for digit in padded {
        nanos = nanos
            .checked_mul(10)
            .and_then(|nanos| nanos.checked_add(digit))
            .ok_or_else(out_of_range)?;
    }
    if negative && nanos > 0 {
        return Err(format!("time {text:?} is before 1970"));
    }
    Ok(nanos)
}

fn parse_rfc3339(text: &str) -> Result<u64, String> {
    let refused =
        || format!("time {text:?} is not like 2020-06-16T20:01:58Z or 2020-06-16T22:01:58+02:00");
    let date_time = text.get(..19).ok_or_else(refused)?;
    let shape_holds = date_time.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        10 => matches!(byte, b'T' | b't' | b' '),
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    });
    if !shape_holds {
        return Err(refused());
    }
    let number = |from: usize, to: usize| date_time[from..to].parse::<u64>().map_err(|_| refused());
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let in_range = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour <= 23
        && minute <= 59
        // A leap second is written :60 and is the first second of the next minute here.
        && second <= 60;
    if !in_range {
        return Err(format!("time {text:?} names a day or an hour that does not exist"));
    }
    let (fraction, offset) = split_fraction(&text[19..]).ok_or_else(refused)?;
    let nanos = parse_decimal(&format!("0.{fraction}0"), 9)?;
    let offset_s = parse_offset(offset).ok_or_else(refused)?;
    if year < 1970 {
        return Err(format!("time {text:?} is before 1970"));
    }
    let local_s =
        days_since_epoch(year, month, day) * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second;
    local_s
        .checked_add_signed(-offset_s)
        .ok_or_else(|| format!("time {text:?} is before 1970"))?
        .checked_mul(NANOS_PER_SECOND)
        .and_then(|at| at.checked_add(nanos))
        .ok_or_else(|| format!("time {text:?} is after the year 2554"))
}

/// What follows the seconds, parted into the digits of a fraction (maybe none) and the offset.
fn split_fraction(rest: &str) -> Option<(&str, &str)> {
    let Some(after_point) = rest.strip_prefix('.') else { return Some(("", rest)) };
    let end = after_point.find(|c: char| !c.is_ascii_digit())?;
    (end > 0).then(|| after_point.split_at(end))
}

/// Seconds east of UTC.
fn parse_offset(offset: &str) -> Option<i64> {
    if matches!(offset, "Z" | "z") {
        return Some(0);
    }
    let (sign, digits) = match offset.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = digits.split_once(':')?;
    let two_digits = |part: &str| {
        (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| part.parse::<i64>().ok())
            .flatten()
    };
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date in 1970 or later.
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let whole_years = (year.max(1970) - 1970) * 365 + leap_days(year.max(1) - 1) - leap_days(1969);
    let whole_months: u64 = (1..month).map(|month| days_in_month(year, month)).sum();
    whole_years + whole_months + day - 1
}

/// A span of time in its two largest units, such as `3d 4h` or `31m`.
pub(crate) fn format_span(span_ns: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let mut left = span_ns / 1_000_000_000;
    let parts = UNITS.iter().filter_map(|(unit, len)| {
        let count = left / len;
        left %= len;
        (count > 0).then(|| format!("{count}{unit}"))
    });
    let parts: Vec<String> = parts.take(2).collect();
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// `at_ns` as people read it, in UTC, to the second: `2020-06-16 20:01:58Z`.
pub(crate) fn format_point(at_ns: u64) -> String {
    let seconds = at_ns / NANOS_PER_SECOND;
    let mut days = seconds / SECONDS_PER_DAY;
    let mut year = 1970;
    loop {
        let length = 365 + u64::from(is_leap(year));
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let mut month = 1;
    while days >= days_in_month(year, month) {
        days -= days_in_month(year, month);
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_two_units() {
        for (span_s, told) in
            [(0, "0s"), (59, "59s"), (1_860, "31m"), (273_600, "3d 4h"), (86_401, "1d 1s")]
        {
            assert_eq!(format_span(span_s * 1_000_000_000 + 999), told);
        }
    }

    #[test]
    fn decimal_seconds_become_nanoseconds_without_rounding() {
        let cases = [
            ("1592337718.0", 1_592_337_718_000_000_000),
            ("1592337718", 1_592_337_718_000_000_000),
            ("1592337718.123456789", 1_592_337_718_123_456_789),
            ("1592337718.1234567899", 1_592_337_718_123_456_789),
            ("1.592337718e9", 1_592_337_718_000_000_000),
            ("1.5923377181E+9", 1_592_337_718_100_000_000),
            ("15923377185e-1", 1_592_337_718_500_000_000),
            (".5", 500_000_000),
            ("7.", 7_000_000_000),
            ("+7", 7_000_000_000),
            ("0", 0),
            ("-0.0", 0),
            ("18446744073.709551615", u64::MAX),
        ];
        for (text, expected) in cases {
            assert_eq!(TimeUnit::S.parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn each_unit_scales_by_its_own_power() {
        assert_eq!(TimeUnit::Ms.parse("1592337718001.5"), Ok(1_592_337_718_001_500_000));
        assert_eq!(TimeUnit::Us.parse("1592337718000001"), Ok(1_592_337_718_000_001_000));
        assert_eq!(TimeUnit::Ns.parse("1592337718000000001"), Ok(1_592_337_718_000_000_001));
        assert_eq!(TimeUnit::Ns.parse("5.9"), Ok(5));
    }

    #[test]
    fn what_is_no_time_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "not a number"),
            (".", "not a number"),
            ("1,5", "not a number"),
            ("0x10", "not a number"),
            ("1e", "not a number"),
            ("NaN", "not a number"),
            ("1e99999", "not a number"),
            ("-1", "before 1970"),
            ("18446744073.709551616", "2554"),
            ("1592337718000", "2554"),
            ("1e400", "2554"),
        ] {
            let error = TimeUnit::S.parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn rfc3339_offsets_and_fractions_are_exact() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2020-06-16T20:01:58Z", 1_592_337_718_000_000_000),
            ("2020-06-16t22:01:58.25+02:00", 1_592_337_718_250_000_000),
            ("2020-06-16 14:31:58.000000001-05:30", 1_592_337_718_000_000_001),
            ("2000-02-29T00:00:00Z", 951_782_400_000_000_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
            ("2554-07-21T23:34:33.709551615Z", u64::MAX),
        ] {
            assert_eq!(TimeUnit::Rfc3339.parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn rfc3339_refuses_days_that_do_not_exist_and_times_without_an_offset() {
        for text in [
            "2021-02-29T00:00:00Z",
            "2021-13-01T00:00:00Z",
            "2021-00-01T00:00:00Z",
            "2021-01-01T24:00:00Z",
            "2021-01-01T00:00:00",
            "2021-01-01T00:00:00.Z",
            "2021-01-01T00:00:00+0200",
            "2021-01-01",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "0000-01-01T00:00:00Z",
            "2554-07-21T23:34:33.709551616Z",
            "2020-06-16T20:01:5éZ",
        ] {
            assert!(TimeUnit::Rfc3339.parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn formatting_undoes_parsing_for_every_day_of_four_centuries() {
        for day in 0..(400 * 366) {
            let at_ns = day * SECONDS_PER_DAY * NANOS_PER_SECOND + 3_723 * NANOS_PER_SECOND;
            assert_eq!(parse_point(&format_point(at_ns)), Ok(at_ns));
        }
    }

    #[test]
    fn a_point_given_by_hand_may_be_a_date_or_epoch_seconds() {
        assert_eq!(parse_point("1592337718.5"), Ok(1_592_337_718_500_000_000));
        assert_eq!(parse_point("2020-06-16T20:01:58Z"), Ok(1_592_337_718_000_000_000));
    }
}

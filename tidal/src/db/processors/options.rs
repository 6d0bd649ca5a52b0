//! How a processor is run.
//!
//! Knows: numbers, and which of them make sense. Must not know: who obeys them.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::codec::{Hasher, Purpose};
use crate::error::{Error, Result};
use crate::ids::{SessionId, duration_nanos};
use crate::options::SessionConfig;
use crate::record::RegisterProcessor;

/// When a processor runs, and how often it tries. Change the fields you need:
///
/// ```
/// use std::time::Duration;
/// use tidaldb::ProcessorOptions;
///
/// let mut options = ProcessorOptions::default();
/// options.cadence = Duration::from_secs(60);
/// options.required = false;
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ProcessorOptions {
    /// How long after the beginning of one run the next one begins; 10 ms to 31 days. Default: 15 min.
    pub cadence: Duration,
    /// Whether sessions wait for it before they settle. It is part of the registration, which outlives
    /// the process: a required processor that is registered no more holds up sessions until it is
    /// [unregistered](crate::Sessions::unregister). Default: `true`.
    pub required: bool,
    /// When a session that could not be processed is tried again.
    pub retry: RetryPolicy,
    /// How long a run goes on to begin with further sessions; without end if `None`. Default: 150 s.
    pub time_budget: Option<Duration>,
    /// How many sessions a run tries at most; no limit if `None`. Default: `None`.
    pub max_sessions_per_run: Option<NonZeroU32>,
    /// After how long a call is asked to stop, by [`should_stop`](crate::SessionView::should_stop); up to
    /// the smallest [`processing_timeout`](SessionConfig::processing_timeout). `None`, the default: 15 min, or
    /// that time-out where it is shorter.
    pub attempt_timeout: Option<Duration>,
}

impl Default for ProcessorOptions {
    fn default() -> Self {
        Self {
            cadence: Duration::from_secs(15 * 60),
            required: true,
            retry: RetryPolicy::default(),
            time_budget: Some(Duration::from_secs(150)),
            max_sessions_per_run: None,
            attempt_timeout: None,
        }
    }
}

/// When a session that could not be processed is tried again.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// After the first attempt, the second …; the last one is repeated. Not empty; each at most 31 days.
    /// Default: 5, 15, 30, 60, 120 min.
    pub delays: Vec<Duration>,
    /// By how much of itself a delay is longer or shorter, so that what failed together is not tried
    /// again together; 0 to below 1. It depends on the processor, the session and the attempt alone.
    /// Default: 0.1.
    pub jitter: f64,
    /// After how many attempts a session is given up. Default: 5.
    pub max_attempts: NonZeroU32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let minutes = [5, 15, 30, 60, 120].map(|minutes| Duration::from_secs(minutes * 60));
        Self { delays: minutes.to_vec(), jitter: 0.1, max_attempts: MAX_ATTEMPTS }
    }
}

const MAX_ATTEMPTS: NonZeroU32 = NonZeroU32::new(5).expect("5 is not 0");

/// After how long a call is asked to stop, unless it has less time.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// The longest cadence and the longest delay.
pub(super) const LONGEST: Duration = Duration::from_secs(31 * 86_400);

impl RetryPolicy {
    /// How long after an attempt, counted from 1, the next one is.
    pub(super) fn delay(&self, processor: &str, session: SessionId, attempt: u32) -> Duration {
        let last = self.delays.len().saturating_sub(1);
        let at = (attempt.saturating_sub(1) as usize).min(last);
        let delay_ns = duration_nanos(self.delays.get(at).copied().unwrap_or_default());
        let hash = Hasher::new(Purpose::Jitter)
            .update(&session.get().to_le_bytes())
            .update(&attempt.to_le_bytes())
            .update(processor.as_bytes())
            .finish();
        let [a, b, c, d, ..] = hash;
        // From -1 to just below 1, in steps that are exact.
        let share = f64::from(i32::from_le_bytes([a, b, c, d])) / 2_147_483_648.0;
        let moved_ns = delay_ns as f64 * (1.0 + self.jitter * share);
        Duration::from_nanos(moved_ns as u64)
    }

    /// Whether an attempt, counted from 1, is the last one.
    pub(super) const fn is_last(&self, attempt: u32) -> bool {
        attempt >= self.max_attempts.get()
    }
}

impl ProcessorOptions {
    /// After how long a call is asked to stop.
    pub(super) fn stops_after(&self, sessions: &SessionConfig) -> Duration {
        let by_default = || ATTEMPT_TIMEOUT.min(sessions.processing_timeout.smallest());
        self.attempt_timeout.unwrap_or_else(by_default)
    }

    /// Refuses options that make no sense, naming the field.
    pub(super) fn validate(&self, sessions: &SessionConfig) -> Result<()> {
        let delays = &self.retry.delays;
        let rules = [
            (
                "cadence",
                (Duration::from_millis(10)..=LONGEST).contains(&self.cadence),
                "it must be 10 ms to 31 days",
            ),
            ("retry.delays", !delays.is_empty(), "there must be one at least"),
            (
                "retry.delays",
                delays.iter().all(|delay| *delay <= LONGEST),
                "each must be 31 days at most",
            ),
            (
                "retry.jitter",
                (0.0..1.0).contains(&self.retry.jitter),
                "it must be 0 or more, and below 1",
            ),
            (
                "time_budget",
                self.time_budget.is_none_or(|budget| !budget.is_zero()),
                "it must not be 0: say None for no limit",
            ),
            (
                "attempt_timeout",
                self.attempt_timeout != Some(Duration::ZERO),
                "it must not be 0: say None for the default",
            ),
            (
                "attempt_timeout",
                self.attempt_timeout.is_none_or(|it| it <= sessions.processing_timeout.smallest()),
                "it must not be longer than the smallest SessionConfig::processing_timeout",
            ),
        ];
        match rules.into_iter().find(|(_, sound, _)| !sound) {
            Some((field, _, reason)) => Err(Error::invalid(field, reason)),
            None => Ok(()),
        }
    }
}

/// Refuses a name that no processor may have.
pub(super) fn check_processor_name(name: &str) -> Result<()> {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    let sizes = 1..=RegisterProcessor::NAME_SIZE_BYTES_MAX;
    if sizes.contains(&name.len()) && name.bytes().all(is_plain) {
        return Ok(());
    }
    let reason = format!("{name:?} is refused: it must be 1 to 64 of a-z, 0-9, _ and -");
    Err(Error::invalid("processor name", reason))
}

/// What one run is to do differently.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunOptions {
    /// Sessions that are to be tried again later are tried now.
    pub ignore_backoff: bool,
    /// Only this session.
    pub only: Option<SessionId>,
    /// How long it goes on to begin with further sessions; `None`: as long as the processor's options
    /// say.
    pub time_budget: Option<Duration>,
    /// How many sessions it tries at most; `None`: as many as the processor's options say.
    pub max_sessions: Option<NonZeroU32>,
}

impl RunOptions {
    /// A run as the processor's options say.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sessions that are to be tried again later are tried now.
    #[must_use]
    pub const fn ignoring_backoff(mut self) -> Self {
        self.ignore_backoff = true;
        self
    }

    /// Only this session.
    #[must_use]
    pub const fn only(mut self, session: SessionId) -> Self {
        self.only = Some(session);
        self
    }

    /// How long it goes on to begin with further sessions.
    #[must_use]
    pub const fn time_budget(mut self, budget: Duration) -> Self {
        self.time_budget = Some(budget);
        self
    }

    /// How many sessions it tries at most.
    #[must_use]
    pub const fn max_sessions(mut self, sessions: NonZeroU32) -> Self {
        self.max_sessions = Some(sessions);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_those_of_the_policy_give_or_take_the_jitter_and_the_same_each_time() {
        let policy = RetryPolicy::default();
        let mut seen = std::collections::BTreeSet::new();
        for (attempt, minutes) in
            [(1, 5.0), (2, 15.0), (3, 30.0), (4, 60.0), (5, 120.0), (9, 120.0)]
        {
            for session in (1..50).map(SessionId::new) {
                let delay = policy.delay("usage", session, attempt);
                let of_policy = delay.as_secs_f64() / (minutes * 60.0);
                assert!((0.9..=1.1).contains(&of_policy), "{delay:?} after attempt {attempt}");
                assert_eq!(delay, policy.delay("usage", session, attempt));
                seen.insert(delay);
            }
        }
        assert!(seen.len() > 290, "only {} different delays of 294", seen.len());
        let exact = RetryPolicy { jitter: 0.0, ..policy };
        assert_eq!(exact.delay("usage", SessionId::new(1), 2), Duration::from_secs(900));
    }

    #[test]
    fn every_rule_of_options_names_the_field_that_breaks_it() {
        type Break = fn(&mut ProcessorOptions);
        let broken: [(&str, Break); 9] = [
            ("cadence", |o| o.cadence = Duration::ZERO),
            ("cadence", |o| o.cadence = Duration::MAX),
            ("retry.delays", |o| o.retry.delays.clear()),
            ("retry.delays", |o| o.retry.delays.push(Duration::MAX)),
            ("retry.jitter", |o| o.retry.jitter = 1.0),
            ("retry.jitter", |o| o.retry.jitter = f64::NAN),
            ("time_budget", |o| o.time_budget = Some(Duration::ZERO)),
            ("attempt_timeout", |o| o.attempt_timeout = Some(Duration::ZERO)),
            ("attempt_timeout", |o| o.attempt_timeout = Some(Duration::from_secs(1_801))),
        ];
        let sessions = SessionConfig::default();
        ProcessorOptions::default().validate(&sessions).expect("the defaults are sound");
        for (field, spoil) in broken {
            let mut options = ProcessorOptions::default();
            spoil(&mut options);
            match options.validate(&sessions) {
                Err(Error::InvalidArgument { what, .. }) => assert_eq!(what, field),
                other => panic!("{field} is not refused: {other:?}"),
            }
        }
    }

    #[test]
    fn a_call_is_asked_to_stop_after_15_min_or_a_shorter_time_out_unless_it_is_told_otherwise() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let mut sessions = SessionConfig::default();
        let mut options = ProcessorOptions::default();
        for (timeout, expected) in [(30, 15), (15, 15), (14, 14), (1, 1)] {
            sessions.processing_timeout = minutes(timeout).into();
            options.validate(&sessions).expect("the defaults fit any time-out");
            assert_eq!(options.stops_after(&sessions), minutes(expected));
        }
        sessions.processing_timeout = minutes(60).into();
        options.attempt_timeout = Some(minutes(60));
        options.validate(&sessions).expect("as long as the time-out");
        assert_eq!(options.stops_after(&sessions), minutes(60));
    }

    #[test]
    fn names_of_processors_are_plain() {
        let long = "x".repeat(64);
        for name in ["usage", "a", "0_-z", &long] {
            check_processor_name(name).expect("a plain name");
        }
        for name in ["", "Usage", "a b", "ü", "a/b", &"x".repeat(65)] {
            assert!(check_processor_name(name).is_err(), "{name:?}");
        }
    }
}

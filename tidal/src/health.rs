//! Whether a database is well: rules over what is known of it.
//!
//! Knows: what is worth saying, how grave it is, what to do about it. Must not know: where what it judges
//! comes from, who asks.
//!
//! A rule is a pure function of [`Observed`], so it is tested without a database. Grave is only what loses
//! or refuses writes, or what keeps a user waiting; what a host cannot help at once (a processor's own
//! service is down) is a warning and never more.

#[cfg(test)]
mod oracle;
mod rules;
#[cfg(test)]
mod tests;

pub(crate) use rules::{
    BusyObserved, ClockObserved, CursorObserved, FAILED_COUNTED, FAILED_IS_NEWS_FOR,
    FailedObserved, JournalObserved, LastOpen, Observed, OldestWaiting, ProcessorObserved,
    SessionsObserved, StoreObserved, Task, report,
};

use std::fmt;
use std::time::Duration;

use crate::ids::{SessionId, Timestamp};

/// How grave one finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is wrong with the database.
    Info,
    /// It cannot be told, and the detail says why. Neither well nor ill.
    Unknown,
    /// Something is late or has failed, and will be tried again; what was acknowledged is safe.
    Warning,
    /// Writes are refused, or sessions are stuck.
    Critical,
}

impl Severity {
    /// The word for it, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The headline of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Overall {
    /// No check warns.
    Healthy,
    /// A check warns.
    Degraded,
    /// A check is critical.
    Critical,
}

impl Overall {
    /// The word for it, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Overall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a database is well, at one moment; from [`TidalDb::health`](crate::TidalDb::health).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HealthReport {
    /// The headline: what the gravest check makes of it.
    pub overall: Overall,
    /// The engine's time at which it was looked.
    pub at: Timestamp,
    /// Every rule that applies, in a fixed order, also those that found nothing.
    pub checks: Vec<Check>,
    /// The numbers that the rules read.
    pub metrics: HealthMetrics,
    /// The processors that there are, in the order in which they came.
    pub processors: Vec<ProcessorHealth>,
    /// From when on work on a session counts as long, and as too long.
    pub thresholds: HealthThresholds,
}

impl HealthReport {
    /// What some checks make of the whole: critical with one that is, degraded with one that warns. What is
    /// only worth knowing, and what cannot be told, does not change it.
    pub fn roll_up(checks: &[Check]) -> Overall {
        match checks.iter().map(|check| check.severity).max() {
            Some(Severity::Critical) => Overall::Critical,
            Some(Severity::Warning) => Overall::Degraded,
            _ => Overall::Healthy,
        }
    }

    /// The checks that are not as they should be, the gravest first.
    pub fn findings(&self) -> Vec<&Check> {
        let mut found: Vec<&Check> =
            self.checks.iter().filter(|check| check.severity > Severity::Ok).collect();
        found.sort_by_key(|check| std::cmp::Reverse(check.severity));
        found
    }
}

/// What one rule found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Check {
    /// The rule, such as `journal.checkpoint`.
    pub rule: &'static str,
    /// The processor, task, store or cursor that it is about, where there are several.
    pub subject: Option<String>,
    /// How grave it is.
    pub severity: Severity,
    /// A sentence that names who or what is concerned.
    pub detail: String,
    /// What to do next; `None` where nothing is to be done.
    pub hint: Option<String>,
    /// The numbers behind the sentence.
    pub facts: Facts,
}

/// The numbers behind a check.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Facts {
    /// There are none.
    None,
    /// How far a processor is behind what is there for it.
    Lag {
        /// When the newest session that waits for it was over.
        newest_input: Timestamp,
        /// When it last saw a session that it then finished; `None` before the first.
        newest_observed: Option<Timestamp>,
        /// How far the one is behind the other.
        lag: Duration,
        /// How far it may be.
        grace: Duration,
    },
    /// A session that waits, or is worked on, for too long.
    Waiting {
        /// Which one.
        session: SessionId,
        /// How long.
        age: Duration,
        /// How long it may.
        grace: Duration,
        /// How often its processor has tried.
        attempts: u32,
        /// What kept the last attempt from succeeding.
        last_error: Option<String>,
    },
    /// How many there are, and from how many on it is said.
    Count {
        /// How many there are.
        value: u64,
        /// More than this is too many.
        threshold: u64,
    },
    /// How long ago something last happened that ought to happen often.
    Age {
        /// How long ago.
        age: Duration,
        /// How long it may be.
        allowed: Duration,
    },
}

/// From when on work on a session counts as long, and as too long; `None`: never, as in a database where events
/// advance time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthThresholds {
    /// The first level of [`SessionConfig::warn_after`](crate::SessionConfig::warn_after).
    pub warn_after: Option<Duration>,
    /// That of an empty session, from
    /// [`SessionConfig::processing_timeout`](crate::SessionConfig::processing_timeout).
    pub processing_timeout: Option<Duration>,
    /// [`SessionConfig::long_running_max`](crate::SessionConfig::long_running_max).
    pub long_running_max: u64,
}

/// A processor, as of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessorHealth {
    /// Its name.
    pub name: String,
    /// How many sessions it has yet to see, those that it is to try once more among them. What had settled
    /// and left memory before it was registered is not counted.
    pub waiting: u64,
    /// How many sessions it has given up.
    pub quarantined: u64,
    /// How long the attempt has run that is running now.
    pub running_for: Option<Duration>,
    /// How long ago its last run ended; `None` before the first, and where events advance time.
    pub last_finished_age: Option<Duration>,
    /// How many of its runs have ended without success since one did; see
    /// [`jobs`](crate::Sessions::jobs).
    pub consecutive_failures: u32,
}

/// The numbers that the rules read, as of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HealthMetrics {
    /// Sessions that nobody has noticed an end of.
    pub sessions_open: u64,
    /// Sessions that a processor is working on at this moment.
    pub sessions_processing: u64,
    /// Of those, how many for longer than the first level of [`warn_after`](crate::SessionConfig::warn_after).
    pub sessions_long_running: u64,
    /// Of those, how many for longer than the
    /// [`processing_timeout`](crate::SessionConfig::processing_timeout) of the session.
    pub sessions_stuck: u64,
    /// Sessions that processors have given up, each counted once for each of them.
    pub attempts_quarantined: u64,
    /// Size of the log, in bytes.
    pub log_size_bytes: u64,
    /// How long the newest checkpoint has lacked an operation, in milliseconds; 0 when it lacks none.
    pub checkpoint_lag_ms: u64,
}

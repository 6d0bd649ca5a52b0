//! How a session ended.
//!
//! Knows: causes, and what an end rests on. Must not know: when a session ends, and who says so.

use std::fmt;

use crate::ids::{SessionId, Timestamp};

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct End {
    /// Where the session ends: the first moment that is no longer part of it.
    pub at: Timestamp,
    /// Why.
    pub cause: EndCause,
    /// What `at` rests on.
    pub evidence: EndEvidence,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndCause {
    /// Its holder closed it.
    Closed,
    /// Nothing happened in it for longer than its policy's idle time-out.
    IdleTimeout,
    /// It reached its policy's maximum duration.
    MaxDuration,
    /// Another session began in its lane.
    Superseded {
        /// The session that took its place.
        by: SessionId,
    },
    /// It was open when the database was opened, and the open policy ends such sessions.
    OrphanRecovered,
    /// The database was closed, and the close policy ends what is open.
    Shutdown,
    /// An operator ended it.
    Forced {
        /// The operator's words.
        reason: String,
    },
}

impl EndCause {
    /// Whether time alone ended it: such an end is true from the session's deadline on, whether or not
    /// anyone has noticed.
    pub const fn is_time_driven(&self) -> bool {
        matches!(self, Self::IdleTimeout | Self::MaxDuration)
    }

    /// The word for it, in lower case, as exports have it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::IdleTimeout => "idle_timeout",
            Self::MaxDuration => "max_duration",
            Self::Superseded { .. } => "superseded",
            Self::OrphanRecovered => "orphan_recovered",
            Self::Shutdown => "shutdown",
            Self::Forced { .. } => "forced",
        }
    }
}

/// What the time of an end rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndEvidence {
    /// Somebody said so at that moment.
    Explicit,
    /// The latest moment that a record of the session reaches to.
    Record {
        /// The record, by the number of its operation.
        record: u64,
    },
    /// No record of the session lies in it: it is taken to have lasted as long as its policy says of
    /// empty ones.
    Fallback {
        /// Whether something ended it sooner.
        clamped: bool,
    },
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ns, {}", self.at.as_nanos(), self.cause)
    }
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by its holder"),
            Self::IdleTimeout => f.write_str("idle for longer than its policy allows"),
            Self::MaxDuration => f.write_str("at its maximum duration"),
            Self::Superseded { by } => write!(f, "superseded by session {by}"),
            Self::OrphanRecovered => f.write_str("open at a start that ends open sessions"),
            Self::Shutdown => f.write_str("with the database, which was closed"),
            Self::Forced { reason } => write!(f, "by an operator: {reason}"),
        }
    }
}

//! What is told of sessions.
//!
//! Knows: the words. Must not know: where anything lies.

use super::event::FailCause;
use crate::end::End;
use crate::ids::{EntityId, Fence, SessionId, Timestamp, UserId};

/// How a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// It is open, and somebody of this incarnation holds it, or has held it.
    Active,
    /// It was open when the database was opened, and nobody has resumed it yet.
    Restored {
        /// The engine time at which the database was opened.
        since: Timestamp,
    },
    /// It has ended, and takes late records, or waits for those who process it.
    Ended(End),
    /// It has ended, and its processing was given up. What is in it stays, and it may be requeued.
    Failed {
        /// How it ended.
        end: End,
        /// Why it was given up.
        cause: FailCause,
        /// When, in engine time.
        at: Timestamp,
    },
    /// It has ended for good.
    Settled(End),
    /// It has ended for good, and its records are gone.
    Pruned(End),
}

impl SessionState {
    /// Whether it is open.
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Active | Self::Restored { .. })
    }

    /// The word for it, in lower case, as exports have it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Restored { .. } => "restored",
            Self::Ended(_) => "ended",
            Self::Failed { .. } => "failed",
            Self::Settled(_) => "settled",
            Self::Pruned(_) => "pruned",
        }
    }

    /// How it ended, if it did.
    pub const fn end(&self) -> Option<&End> {
        match self {
            Self::Active | Self::Restored { .. } => None,
            Self::Ended(end)
            | Self::Failed { end, .. }
            | Self::Settled(end)
            | Self::Pruned(end) => Some(end),
        }
    }
}

/// What is known of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// The session.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// What the user's software called itself at the start.
    pub agent: String,
    /// The name of its policy.
    pub policy: String,
    /// How it is.
    pub state: SessionState,
    /// The engine time at which it began.
    pub started_at: Timestamp,
    /// The engine time of the last signal, annotation, heartbeat or extension.
    pub last_activity_at: Timestamp,
    /// The last moment at which it is not over; `None` once it has ended.
    pub deadline: Option<Timestamp>,
    /// How many records it has, or had before it was pruned.
    pub records: u64,
    /// Signals that came while it was open.
    pub signals: u64,
    /// Annotations, those of signals included.
    pub annotations: u64,
    /// Signals that came after its end.
    pub late: u64,
    /// A hash of its content: of user, agent, policy and start (as it was, whatever a reset of the clock
    /// made of it), and of every record in order. It changes with the content, and with nothing else.
    pub content_hash: [u8; 32],
    /// Who holds it; of one that has ended nobody does, and both numbers are 0.
    pub fence: Fence,
}

/// A record of a session.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SessionRecord {
    /// The number of the operation that brought it: a later one has a larger number.
    pub number: u64,
    /// When it happened, as its writer says.
    pub at: Timestamp,
    /// The engine time at which it came.
    pub arrived_at: Timestamp,
    /// What it is about.
    pub entity: EntityId,
    /// What it says.
    pub content: SessionContent,
}

/// What a record of a session says.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SessionContent {
    /// A signal.
    Signal {
        /// Its name.
        signal: String,
        /// What it added to decayed scores.
        weight: f64,
        /// For how long after its time it went on.
        span: std::time::Duration,
        /// What was noted with it.
        annotation: Option<String>,
        /// Whether it came after the end of the session.
        late: bool,
    },
    /// A note.
    Annotation(String),
}

//! What happened to sessions, for those who want to be told.
//!
//! Knows: the words. Must not know: who listens.

use std::fmt;
use std::time::Duration;

use crate::end::End;
use crate::ids::{SessionId, UserId, spoken};
use crate::record::{EventFilter, EventKind};
use crate::seq::Seq;

/// Something that happened to a session. It is in the log before anyone is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// It began.
    Started {
        /// The session.
        id: SessionId,
    },
    /// It was open when the database was opened, and may be resumed.
    Restored {
        /// The session.
        id: SessionId,
    },
    /// Somebody holds it from now on, and nobody else does.
    Resumed {
        /// The session.
        id: SessionId,
    },
    /// It ended. Where time ended it, this is when that was noticed; where the clock is set back after
    /// that, and no operation had come since, it is open again, and will end once more.
    Ended {
        /// The session.
        id: SessionId,
        /// How.
        end: End,
    },
    /// It takes no late records any more, and every processor that it waits for is done with it. Where the
    /// clock is set back after that, and no operation had come since, it takes late records again, and
    /// will settle once more.
    Settled {
        /// The session.
        id: SessionId,
    },
    /// Its records are gone.
    Pruned {
        /// The session.
        id: SessionId,
    },
    /// Processors have been busy with it for long: longer than a level of
    /// [`warn_after`](crate::SessionConfig::warn_after). This is told once for each level and piece of work,
    /// and before the work is given up; where several levels are over by the time somebody looks, the
    /// highest is told alone. A piece of work goes on until nobody is busy with the session whose attempt is as
    /// old, and ends with the process. Nothing has changed, and there is nothing that has to be done.
    Warned {
        /// The session.
        id: SessionId,
        /// Which level, from 1 on.
        level: u8,
        /// For how long its oldest attempt had been going on.
        busy_for: Duration,
    },
    /// Its processing was given up. What is in it stays, and it may be requeued.
    ///
    /// Sessions that are given up by one pass of the sweeper, or by one plan, are in one frame of the log: their
    /// events have one [`Seq`](crate::Seq) and are published together. Whoever alerts somebody groups by it.
    Failed {
        /// The session.
        id: SessionId,
        /// Why.
        cause: FailCause,
    },
    /// It is processed anew, as if nobody had tried before.
    Requeued {
        /// The session.
        id: SessionId,
    },
    /// A processor could not work on it, and will try again.
    ProcessorFailed {
        /// The session.
        id: SessionId,
        /// The name of the processor.
        processor: String,
        /// Which attempt it was, from 1 on.
        attempt: u32,
        /// What went wrong.
        error: String,
    },
    /// A processor could not work on it, and will not try again unless it is requeued.
    Quarantined {
        /// The session.
        id: SessionId,
        /// The name of the processor.
        processor: String,
        /// What went wrong.
        error: String,
    },
    /// Some events were left out, because they were not taken fast enough.
    Lagged {
        /// How many.
        dropped: u64,
    },
}

/// Why the processing of a session was given up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailCause {
    /// It took too long.
    TimedOut {
        /// How long it may take.
        after: Duration,
        /// Nobody had to ask.
        automatic: bool,
    },
    /// An operator gave it up.
    Reset {
        /// Who.
        by: String,
        /// The operator's words.
        reason: String,
    },
    /// A processor that it waits for has failed for the last time.
    Quarantined {
        /// The name of the processor.
        processor: String,
    },
}

impl fmt::Display for FailCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { after, .. } => write!(f, "timed out after {}", spoken(*after)),
            Self::Reset { by, reason } if reason.is_empty() => write!(f, "reset by {by}"),
            Self::Reset { by, reason } => write!(f, "reset by {by}: {reason}"),
            Self::Quarantined { processor } => write!(f, "given up by processor {processor:?}"),
        }
    }
}

/// An event, and where in the log it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Happened {
    pub(crate) seq: Seq,
    /// Whose session it is.
    pub(crate) user: UserId,
    pub(crate) event: SessionEvent,
}

impl Happened {
    /// Whether a filter lets it through.
    pub(crate) fn passes(&self, filter: &EventFilter) -> bool {
        let kind = match self.event {
            SessionEvent::Started { .. } => EventKind::Started,
            SessionEvent::Restored { .. } => EventKind::Restored,
            SessionEvent::Resumed { .. } => EventKind::Resumed,
            SessionEvent::Ended { .. } => EventKind::Ended,
            SessionEvent::Settled { .. } => EventKind::Settled,
            SessionEvent::Pruned { .. } => EventKind::Pruned,
            SessionEvent::Failed { .. } => EventKind::Failed,
            SessionEvent::Requeued { .. } => EventKind::Requeued,
            SessionEvent::ProcessorFailed { .. } => EventKind::ProcessorFailed,
            SessionEvent::Quarantined { .. } => EventKind::Quarantined,
            SessionEvent::Warned { .. } => EventKind::Warned,
            // Nobody is kept from hearing that something is missing.
            SessionEvent::Lagged { .. } => return true,
        };
        self.session().is_some_and(|session| filter.lets(kind, self.user, session))
    }

    /// The session that it is about, if it is about one.
    pub(crate) const fn session(&self) -> Option<SessionId> {
        match self.event {
            SessionEvent::Started { id }
            | SessionEvent::Restored { id }
            | SessionEvent::Resumed { id }
            | SessionEvent::Ended { id, .. }
            | SessionEvent::Settled { id }
            | SessionEvent::Pruned { id }
            | SessionEvent::Failed { id, .. }
            | SessionEvent::Requeued { id }
            | SessionEvent::ProcessorFailed { id, .. }
            | SessionEvent::Quarantined { id, .. }
            | SessionEvent::Warned { id, .. } => Some(id),
            SessionEvent::Lagged { .. } => None,
        }
    }
}

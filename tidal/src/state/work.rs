//! The work that is going on.
//!
//! Knows: which attempts are running, and what their sessions have at stake. Must not know: what is done about
//! those that take long.
//!
//! The lock of attempts is let go before that of sessions is taken.

use std::time::Duration;

use super::State;
use crate::ids::{ProcessorId, SessionId, Timestamp};
use crate::options::ProcessingTimeout;
use crate::sessions::Stake;

/// An attempt that is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) since: Timestamp,
    pub(crate) processor: ProcessorId,
    pub(crate) session: SessionId,
    pub(crate) stake: Stake,
    /// How many records are in the session; `None` if it has left memory.
    records: Option<u64>,
}

impl Work {
    /// How long the work may take. Nobody waits for a session that has left memory, and its records lie on a
    /// disk, which nothing here reads: it may take as long as the largest.
    pub(crate) fn timeout(&self, timeout: ProcessingTimeout) -> Duration {
        self.records.map_or(timeout.largest(), |records| timeout.of(records))
    }
}

impl State {
    /// The attempts that are running, those first that have been for the longest. Walks no other rows.
    pub(crate) fn work(&self, now: Timestamp) -> Vec<Work> {
        let mut running = self.processors.running(self.header().incarnation);
        running.sort_unstable();
        let stakes = self.sessions.stakes(&running, &self.declared().schema, now);
        let work = |((since, processor, session), (stake, records))| Work {
            since,
            processor,
            session,
            stake,
            records,
        };
        running.into_iter().zip(stakes).map(work).collect()
    }
}

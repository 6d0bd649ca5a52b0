//! Answers to writes.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::view::DatabaseAddress;
use crate::engine::Pending;
use crate::error::Result;
use crate::ids::EntityId;
use crate::seq::Seq;
use crate::state::Reply;

/// What became of a write that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the state.
    Applied,
    /// Its source had it already; nothing changed.
    AlreadyApplied {
        /// The last position of the source that is applied.
        stored: u64,
    },
}

/// The acknowledgement of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Its position in the log.
    pub seq: Seq,
    /// What became of it.
    pub outcome: Outcome,
    /// Events that were left out, because their ids had been seen before.
    pub duplicates: u32,
}

/// A write on its way: wait for it, or await it.
///
/// Dropping a ticket does not undo the write; only its answer is lost.
#[must_use = "the write is acknowledged only once the ticket says so"]
pub struct Ticket {
    pending: Pending<(Seq, Reply)>,
    /// The database that will answer: its writer waits while this thread has a view of it.
    of: DatabaseAddress,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl Ticket {
    pub(super) const fn new(pending: Pending<(Seq, Reply)>, of: DatabaseAddress) -> Self {
        Self { pending, of }
    }

    /// Blocks until the write is acknowledged or refused.
    ///
    /// # Errors
    ///
    /// - [`Overlap`](crate::Error::Overlap), [`Gap`](crate::Error::Gap): the source is elsewhere;
    ///   nothing was written.
    /// - [`TooLarge`](crate::Error::TooLarge): a cohort family is full; nothing was written.
    /// - [`TooFarAhead`](crate::Error::TooFarAhead), [`ClockJumped`](crate::Error::ClockJumped):
    ///   nothing was written.
    /// - [`Io`](crate::Error::Io), [`DiskFull`](crate::Error::DiskFull) and their relatives when the
    ///   log failed under this write: whether it survived is known after reopening.
    /// - [`Stopped`](crate::Error::Stopped): the log failed before.
    /// - [`InvalidArgument`](crate::Error::InvalidArgument) within a view of the same database, for
    ///   which the writer waits; the write goes on.
    pub fn wait(self) -> Result<Ack> {
        self.of.expect_no_view()?;
        self.pending.wait().map(ack_of)
    }

    /// As [`wait`](Self::wait), for a record that is answered with more than that it is applied.
    pub(super) fn wait_for_reply(self) -> Result<(Seq, Reply)> {
        self.pending.wait()
    }

    /// As [`wait`](Self::wait), for a record that asks for ids.
    pub(super) fn wait_for_ids(self) -> Result<Vec<EntityId>> {
        self.wait_for_reply().map(|(_, reply)| match reply {
            Reply::Interned(ids) => ids,
            _ => Vec::new(),
        })
    }
}

fn ack_of((seq, reply): (Seq, Reply)) -> Ack {
    match reply {
        Reply::Applied { duplicates } => Ack { seq, outcome: Outcome::Applied, duplicates },
        Reply::AlreadyApplied { stored } => {
            Ack { seq, outcome: Outcome::AlreadyApplied { stored }, duplicates: 0 }
        }
        Reply::Changed { duplicates, .. } => Ack { seq, outcome: Outcome::Applied, duplicates },
        Reply::Interned(_)
        | Reply::Created(_)
        | Reply::Started(_)
        | Reply::Touched { .. }
        | Reply::Ended(_)
        | Reply::Swept(_)
        | Reply::Registered { .. }
        | Reply::Begun { .. }
        | Reply::Committed(_)
        | Reply::Decided(_) => Ack { seq, outcome: Outcome::Applied, duplicates: 0 },
    }
}

impl Future for Ticket {
    type Output = Result<Ack>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.pending).poll(context).map(|answer| answer.map(ack_of))
    }
}

//! Sessions: the calls.
//!
//! Knows: the calls, and what of them needs no state to be refused. Must not know: when a session ends.

mod drive;
mod events;
mod export;
mod handle;
mod json;
mod list;
pub(super) mod look;
mod prune;
mod pruner;
pub(super) mod read;
mod signal;
mod sweep;

pub use drive::DriveReport;
pub use events::{DeliveredEvent, EventCursor};
pub use handle::{CloseError, SessionHandle};
pub use list::SessionFilter;
pub use prune::{Applied, PlannedPrune, PrunePlan, Retention, SkipReason};
pub(super) use pruner::{INTERVAL as PRUNE_INTERVAL, Pruner};
pub use signal::SessionSignal;
pub use sweep::{PlannedSweep, SweepChange, SweepPlan, SweepReport};

use super::TidalDb;

/// The sessions of a database; from [`TidalDb::sessions`].
#[derive(Debug, Clone, Copy)]
pub struct Sessions<'db> {
    pub(super) db: &'db TidalDb,
}

impl TidalDb {
    /// What there is to ask of sessions, and to do about them, beside what their holders do.
    pub const fn sessions(&self) -> Sessions<'_> {
        Sessions { db: self }
    }
}

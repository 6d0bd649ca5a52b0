//! Signals: decayed scores, windowed counts, velocity, top lists.
//!
//! Knows: what a signal means to the cells of its item, and how they are read. Must not know: the
//! log, users, names of cohorts, clocks, files.

mod arena;
mod buckets;
mod cell;
mod decay;
mod grains;
mod ledger;
mod read;
mod top;

pub(crate) use cell::Spec;
pub(crate) use grains::READ_LAG;
pub(crate) use ledger::{Column, ColumnIndex, Ledger, Run};
pub(crate) use read::{Ranking, SignalView};

pub use crate::ids::SignalTypeId;

/// What checkpoints are known by.
pub mod checkpoint {
    pub use crate::table::CheckpointMeta;
}

/// What velocity adds to both counts before dividing them, so that one event after none is no trend:
/// `(count(last w) + 10) / (count(w before) + 10)`.
pub const VELOCITY_PRIOR: f64 = 10.0;

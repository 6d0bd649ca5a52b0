//! Signals: decayed scores, windowed counts, velocity, top lists.
//!
//! Knows: what a signal means to the cells of its item, and how they are read. Must not know: the
//! log, users, names of cohorts, clocks, files.

mod arena;
mod buckets;
mod cell;
mod grains;
mod ledger;
mod read;
mod standalone;
mod top;

use crate::ids::Timestamp;
use crate::options::FUTURE_SKEW_MAX;

pub(crate) use cell::Spec;
pub(crate) use grains::READ_LAG;
pub(crate) use ledger::{Column, ColumnIndex, Ledger, Run};
pub(crate) use read::{Ranking, SignalView};

pub use crate::ids::SignalTypeId;
pub use standalone::CohortSignalLedger;

/// What checkpoints are known by.
pub mod checkpoint {
    pub use crate::table::CheckpointMeta;
}

/// The sizes of a weight that is not zero: smaller ones could be lost to rounding at the edge of a
/// double's range, larger ones could overflow a sum.
pub(crate) const WEIGHT_SIZES: std::ops::RangeInclusive<f64> = 1e-100..=1e100;

/// Whether a sum can take this weight: 0, or one of a size that no rounding loses and no sum of 2^48
/// overflows by. NaN is none.
#[inline]
pub(crate) fn is_weight(weight: f64) -> bool {
    weight == 0.0 || WEIGHT_SIZES.contains(&weight.abs())
}

/// Whether cells can count an event of this weight and time at this engine time. The writer lets no
/// other into the log.
#[inline]
pub(crate) fn is_countable(weight: f64, at: Timestamp, engine_time: Timestamp) -> bool {
    is_weight(weight) && at <= engine_time.saturating_add(FUTURE_SKEW_MAX)
}

/// What velocity adds to both counts before dividing them, so that one event after none is no trend:
/// `(count(last w) + 10) / (count(w before) + 10)`.
pub const VELOCITY_PRIOR: f64 = 10.0;

//! Limits and policies, with their units and defaults.
//!
//! Knows: numbers. Must not know: who obeys them.

mod processing;
mod sessions;

pub use processing::ProcessingTimeout;
pub use sessions::{ClosePolicy, OnConflict, OpenPolicy, Runtime, SessionConfig};

use std::time::Duration;

/// When an acknowledged operation is safe, and from what.
///
/// | acknowledged with | process killed | OS crashed | power lost |
/// |---|---|---|---|
/// | `Sync` | kept | kept | kept |
/// | `Os { sync_every }` | kept | may lose the last `sync_every` | may lose the last `sync_every` |
///
/// Whatever is lost is a suffix: the state is always the result of a prefix of the accepted
/// operations, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Acknowledged after `fdatasync` of the log.
    #[default]
    Sync,
    /// Acknowledged after the write to the operating system, synced at most this much later.
    Os {
        /// The longest time between the write and the sync that makes it durable.
        sync_every: Duration,
    },
}

/// Which clock stamps engine time. Chosen at creation, stored in the database, and never mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeSource {
    /// The injected clock: `max(clock, last stamp)`, never backwards, over restarts too.
    #[default]
    Clock,
    /// The events: engine time advances with each accepted event, so that an old log's windows,
    /// expiry and rankings live in the log's own time.
    Events,
}

/// Every limit and policy of an engine. Change the fields you need:
///
/// ```
/// use tidaldb::Options;
///
/// let mut options = Options::default();
/// options.checkpoint_log_bytes = 16 << 20;
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How operations are acknowledged unless the call says otherwise. Default: [`Durability::Sync`].
    pub durability: Durability,
    /// Size at which the log rolls to a new segment, in bytes. 2 KiB to 1 GiB: a segment is read into
    /// memory when the database is opened.
    /// Default: 64 MiB.
    pub segment_size_bytes: u64,
    /// A checkpoint starts after this much log, in bytes. Default: 64 MiB.
    pub checkpoint_log_bytes: u64,
    /// A checkpoint starts at the latest this long after the first change since the last one.
    /// Default: 60 s.
    pub checkpoint_interval: Duration,
    /// Checkpoint pages are written at most this fast, in bytes per second; 0 is unpaced.
    /// Default: 64 MiB/s.
    pub checkpoint_bytes_per_s: u64,
    /// After so long without an operation a mark is appended, which proves that the last group was
    /// synced; until then rot in that group looks like a torn tail. Default: 50 ms.
    pub mark_after: Duration,
    /// An event may be at most this far ahead of engine time. Default: 5 min; at most 2 h.
    pub max_future_skew: Duration,
    /// The wall clock may run ahead of the monotonic clock by at most this much between two
    /// operations before writes are refused. Default: 1 h.
    pub max_clock_jump: Duration,
    /// With [`TimeSource::Events`], one event may advance engine time by at most this much.
    /// Default: 31 days.
    pub max_event_jump: Duration,
    /// Event ids are remembered for this long, in engine time. Default: 24 h.
    pub event_id_horizon: Duration,
    /// Largest absolute weight of a signal. Default: 1e12.
    pub weight_max: f64,
    /// Longest name (signal, cohort, source, attribute and metadata key), in bytes. Default: 256.
    pub name_size_bytes_max: usize,
    /// Longest text of the dictionary, in bytes. Default: 1 KiB.
    pub text_size_bytes_max: usize,
    /// Metadata of one item or attributes of one user, keys and values together, in bytes.
    /// Default: 64 KiB.
    pub metadata_size_bytes_max: usize,
    /// Events in one batch. Default: 100,000.
    pub batch_len_max: usize,
    /// Bytes of operations that may wait for the writer before callers are held back.
    /// Default: 64 MiB.
    pub queue_size_bytes_max: usize,
    /// Items in one collection. Default: 100,000.
    pub collection_items_max: usize,
    /// Collections of one owner. Default: 1,000.
    pub collections_per_owner_max: usize,
    /// Longest name of a collection, in bytes. Default: 256.
    pub collection_name_size_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            segment_size_bytes: 64 << 20,
            checkpoint_log_bytes: 64 << 20,
            checkpoint_interval: Duration::from_secs(60),
            checkpoint_bytes_per_s: 64 << 20,
            mark_after: Duration::from_millis(50),
            max_future_skew: Duration::from_secs(300),
            max_clock_jump: Duration::from_secs(3_600),
            max_event_jump: Duration::from_secs(31 * 86_400),
            event_id_horizon: Duration::from_secs(86_400),
            weight_max: 1e12,
            name_size_bytes_max: 256,
            text_size_bytes_max: 1 << 10,
            metadata_size_bytes_max: 64 << 10,
            batch_len_max: 100_000,
            queue_size_bytes_max: 64 << 20,
            collection_items_max: 100_000,
            collections_per_owner_max: 1_000,
            collection_name_size_bytes_max: 256,
        }
    }
}

/// The largest `max_future_skew`: a cell's windows span their own length and this.
pub(crate) const FUTURE_SKEW_MAX: Duration = Duration::from_secs(2 * 3_600);

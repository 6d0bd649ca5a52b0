//! State that survives.
//!
//! Knows: rows in slots in pages, which page changed since which store last saw it, cold rows that
//! wait for the stores. Must not know: what a row means, files, threads.

mod cold;
mod hashing;
#[cfg(all(test, shuttle))]
mod races;
mod slab;
mod stored;

pub(crate) use cold::{ColdCut, ColdRow, ColdTable, PendingRows};
pub(crate) use hashing::{hash_text, hash_u64, hash_u128};
pub(crate) use slab::{Row, Slab, Slot, Table};
pub(crate) use stored::{put_pages, restore_pages};

use std::fmt;

use crate::codec::{DecodeError, Hash, Hasher};
use crate::ids::Timestamp;

/// Which of the two checkpoint stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum StoreSlot {
    A = 0,
    B = 1,
}

impl StoreSlot {
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// The name of a table on disk: what kind of rows, and which part of that kind (a ledger has one
/// table per cohort and signal).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TableId {
    pub(crate) kind: u8,
    pub(crate) part: u64,
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}/{}", self.kind, self.part)
    }
}

/// One page as a checkpoint stores it: the rows of a fixed range of slots, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageImage {
    pub(crate) page: u32,
    pub(crate) bytes: Vec<u8>,
}

/// The shape of a table at a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableCut {
    /// Rows at the cut.
    pub(crate) rows: u64,
    /// Pages at the cut: 0 up to this number, without the end.
    pub(crate) pages: u32,
    /// How many of them the store does not have as they were at the cut.
    pub(crate) owed: u32,
}

/// What a checkpoint and a restore see of a table, whatever its rows are. One cut at a time.
///
/// `begin_cut` is called by the writer between two groups; from then on the table hands out every
/// page that the store lacked, *as it was at the cut*, while the writer goes on.
pub(crate) trait DurableTable: Send + Sync {
    fn id(&self) -> TableId;

    /// Freezes what `store` lacks. Costs a pass over one byte per page.
    fn begin_cut(&self, store: StoreSlot) -> TableCut;

    /// Appends up to `pages_max` pages of the cut to `out`; false when there are no more.
    fn take_pages(&self, pages_max: usize, out: &mut Vec<PageImage>) -> bool;

    /// Ends the cut: what was frozen is the store's now, or owed again.
    fn end_cut(&self, store: StoreSlot, committed: bool);

    /// The store has nothing of this table any more: it is owed every page.
    fn owe_all(&self, store: StoreSlot);

    /// Makes room for what a manifest announces, in a table that is still empty.
    fn begin_restore(&self, cut: TableCut) -> Result<(), DecodeError>;

    /// Puts a page's rows where they were. The bytes have been verified, but may still be malformed.
    fn restore_page(&self, page: u32, bytes: &[u8]) -> Result<(), DecodeError>;

    /// Ends the restore: rows must be as announced; derived parts are rebuilt; `owed` says for
    /// each store whether it is owed every page (true) or has exactly these (false).
    fn end_restore(&self, rows: u64, owed: [bool; 2]) -> Result<(), DecodeError>;
}

/// What a table shows of itself beside what checkpoints see.
pub(crate) trait StateTable: DurableTable {
    /// Feeds the rows to `digest`, in key order, as they count at `now`.
    fn digest(&self, now: Timestamp, digest: &mut Hasher);

    fn size(&self) -> TableSize;

    /// Checks the invariants; the sentence says which one is broken.
    fn check(&self) -> Result<(), String>;
}

/// How much a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TableSize {
    pub(crate) rows: u64,
    /// Memory, the index and everything beside the rows included.
    pub(crate) size_bytes: u64,
}

/// What a checkpoint is about.
///
/// `checkpoint()` computes the hash and ignores what the caller put there; `restore()` checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckpointMeta {
    /// Engine time of the checkpoint, in nanoseconds since the epoch.
    pub checkpoint_time_ns: u64,
    /// The last frame of the log that the checkpoint contains.
    pub wal_sequence: u64,
    /// BLAKE3 root over the hashes of the pages.
    pub payload_hash: [u8; 32],
}

const _: () = assert!(size_of::<Hash>() == 32);

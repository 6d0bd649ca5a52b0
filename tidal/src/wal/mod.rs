//! The log: the only truth.
//!
//! Knows: frames, segments, positions, and where a log that a crash left behind ends. Must not know:
//! what a frame says, who waits for it, what a checkpoint holds.
//!
//! - `frame`: one operation as bytes; verifies alone.
//! - `segment`: one file of frames, its header and its seal.
//! - `scan`: reads every segment and says what is there; decides nothing, writes nothing.
//! - `tail`: decides where the log ends (the tail rule) and makes it ready for appending.
//! - `log`: appends, syncs, rolls, truncates.
//!
//! # What proves that a position was synced
//!
//! K, the highest position proven synced, is the highest of
//!
//! - the synced-through mark of any frame header that verifies, wherever it lies: it was a fact
//!   when the header was built, and facts of this kind stay true;
//! - the first sequence of any segment header that verifies, less one: a segment is created only
//!   after everything before it was synced;
//! - the last sequence of any seal that verifies: a segment is synced before it is sealed;
//! - the sequence of any verified checkpoint: the log is synced through it before its first byte
//!   goes out.
//!
//! A bad or missing frame above K is what a crash may leave: the log ends there. At or below K it is
//! damage, and the log refuses to open.
//!
//! # What the disk is trusted with
//!
//! A write may be lost, or torn at any sector of 512 bytes, until a sync that covers it has returned;
//! a write next to synced bytes leaves those alone; a rename is atomic. After a failed sync nothing
//! is believed about what it covered, although it can be read.

mod frame;
mod log;
mod report;
mod salvage;
mod scan;
mod segment;
mod tail;
#[cfg(test)]
mod tests;

pub(crate) use frame::{FrameBody, FrameHash, GENESIS};
pub(crate) use log::{Log, LogOptions, SyncDone, SyncJob};
pub(crate) use report::LogReport;
pub(crate) use salvage::{Salvaged, salvage};
pub(crate) use scan::Scan;
pub(crate) use tail::Tail;

//! Checkpoints: a cut of all tables at one sequence, written to two stores that take turns.
//!
//! Knows: pages, cold rows, epochs, manifests, which store is newest. Must not know: files, what a
//! page or row means, when a checkpoint is due.
//!
//! - `keys`: what lies under which key, and how it is sealed;
//! - `manifest`: what makes the pages and rows of a store a checkpoint;
//! - `sum`: how the rows of a cold table are proven complete;
//! - `cut`: what the writer froze, and who is told how it ended;
//! - `write`: one checkpoint, from a cut to a synced manifest;
//! - `read`: verify a store, and restore from it;
//! - `merge`: rows of a store and those that wait, in one order;
//! - `turn`: who has both stores to himself;
//! - `pair`: the two stores, their failures, and reads of cold rows.
//!
//! A store holds at all times at least one whole checkpoint, once it has one: pages and rows go
//! under keys of a new epoch, count when the manifest of that epoch is synced, and only then is what
//! they supersede removed. Whatever lies beside the newest manifest's pages and rows is a leftover
//! of a checkpoint that was interrupted; it never counts, and the next one removes it first.

mod cut;
mod keys;
mod manifest;
mod merge;
mod pair;
mod read;
mod sum;
mod turn;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use cut::{Cut, Position};
pub(crate) use manifest::Manifest;
pub(crate) use merge::waiting_rows;
pub(crate) use pair::{Loaded, SlotState, StorePair};
pub(crate) use read::Loader;
pub(crate) use sum::ColdSum;

//! A consistent cut of all tables, for a checkpoint.

use std::sync::Arc;

use crate::checkpoint::{Cut, Position};
use crate::state::State;
use crate::table::{DurableTable, StoreSlot};
use crate::wal::FrameHash;

/// A cut, and how far the log and the operations were at it.
pub(crate) struct CutOff {
    pub(crate) cut: Cut,
    /// The log's byte counter at the cut.
    pub(crate) log_bytes: u64,
    /// The state's operation counter at the cut.
    pub(crate) operations: u64,
}

impl CutOff {
    /// Cuts all tables for `store`. Called by the writer, between two groups.
    pub(super) fn take(
        state: &State,
        store: StoreSlot,
        frame_hash: FrameHash,
        log_bytes: u64,
    ) -> Self {
        let header = state.header();
        let at = Position { seq: header.applied, frame_hash, time: header.engine_time };
        let tables = state.tables().into_iter().map(|table| table as Arc<dyn DurableTable>);
        let cut = Cut::begin(store, at, state.encode_header(), tables, state.cold_tables());
        Self { cut, log_bytes, operations: header.operations }
    }
}

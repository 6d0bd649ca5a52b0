//! A consistent cut of all tables, for a checkpoint.

use std::sync::Arc;

use crate::checkpoint::Cut;
use crate::state::State;
use crate::table::StoreSlot;
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
    pub(crate) fn take(state: &State, store: StoreSlot, frame_hash: FrameHash, log_bytes: u64) -> Self {
        let header = state.header();
        let tables = state.tables().into_iter().map(|table| {
            let shape = table.begin_cut(store);
            (table, shape)
        });
        let cold = state.cold_tables().into_iter().map(|table| {
            let rows = table.begin_cut(store);
            (Arc::clone(&table), rows)
        });
        let cut = Cut {
            seq: header.applied,
            frame_hash,
            time: header.engine_time,
            state_header: state.encode_header(),
            tables: tables.collect(),
            cold: cold.collect(),
        };
        Self { cut, log_bytes, operations: header.operations }
    }
}

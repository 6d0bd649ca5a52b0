//! A cut: what the writer froze for one store between two groups.
//!
//! Knows: that every table which was told of a cut must be told how it ended. Must not know: stores.

use std::sync::Arc;

use crate::ids::Timestamp;
use crate::seq::Seq;
use crate::table::{ColdCut, ColdTable, DurableTable, StoreSlot, TableCut};

/// Where in the log a cut was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The last frame that was applied.
    pub(crate) seq: Seq,
    /// Its hash.
    pub(crate) frame_hash: [u8; 16],
    /// The engine time at it.
    pub(crate) time: Timestamp,
}

/// All tables as they were at one position of the log, as far as one store lacks them.
///
/// A cut that is dropped without [`commit`](Self::commit) is owed again.
pub(crate) struct Cut {
    pub(super) store: StoreSlot,
    pub(super) at: Position,
    pub(super) state_header: Vec<u8>,
    pub(super) tables: Vec<(Arc<dyn DurableTable>, TableCut)>,
    pub(super) cold: Vec<(Arc<ColdTable>, ColdCut)>,
    committed: bool,
}

impl Cut {
    /// Freezes what `store` lacks of all tables. The caller is the writer, between two groups.
    pub(crate) fn begin(
        store: StoreSlot,
        at: Position,
        state_header: Vec<u8>,
        tables: impl IntoIterator<Item = Arc<dyn DurableTable>>,
        cold: impl IntoIterator<Item = Arc<ColdTable>>,
    ) -> Self {
        let tables = tables.into_iter().map(|table| {
            let cut = table.begin_cut(store);
            (table, cut)
        });
        let cold = cold.into_iter().map(|table| {
            let cut = table.begin_cut(store);
            (table, cut)
        });
        let (tables, cold) = (tables.collect(), cold.collect());
        Self { store, at, state_header, tables, cold, committed: false }
    }

    /// The store that it was made for.
    pub(crate) const fn store(&self) -> StoreSlot {
        self.store
    }

    /// Where in the log it was made.
    pub(crate) const fn at(&self) -> Position {
        self.at
    }

    /// Tells all tables that the store has what was frozen.
    pub(super) fn commit(mut self) {
        self.committed = true;
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        for (table, _) in &self.tables {
            table.end_cut(self.store, self.committed);
        }
        for (table, _) in &self.cold {
            table.end_cut(self.store, self.committed);
        }
    }
}

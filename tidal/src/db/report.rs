//! What a database says about itself.

use std::sync::Arc;

use super::TidalDb;
use crate::checkpoint::{SlotState, StorePair};
use crate::ids::Timestamp;
use crate::seq::Seq;
use crate::table::{StateTable, StoreSlot, TableSize};

/// Sizes and positions of an open database.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The database's name: 128 random bits in hexadecimal.
    pub database: String,
    /// How often it was opened.
    pub incarnation: u64,
    /// The time the last operation was stamped with.
    pub engine_time: Timestamp,
    /// Whether events advance engine time.
    pub event_time: bool,
    /// The last frame appended.
    pub appended: Seq,
    /// The last frame that survives a power cut.
    pub durable: Seq,
    /// The last frame that reads see.
    pub applied: Seq,
    /// How many frames were operations.
    pub operations: u64,
    /// Size of the log's segments, in bytes.
    pub log_size_bytes: u64,
    /// The checkpoint stores; none for an ephemeral database.
    pub stores: Vec<StoreStatus>,
    /// Cells: (item, signal, scope) triples that something counted for.
    pub cells: u64,
    /// Memory of the cells, their indexes and top lists, in bytes.
    pub cells_size_bytes: u64,
    /// Users.
    pub users: u64,
    /// Memory of users and cohorts, in bytes.
    pub users_size_bytes: u64,
    /// Texts in the dictionary.
    pub texts: u64,
    /// Memory of the dictionary, in bytes.
    pub texts_size_bytes: u64,
    /// Collections.
    pub collections: u64,
    /// Memory of collections and their items, in bytes.
    pub collections_size_bytes: u64,
    /// Sessions that nobody has noticed an end of.
    pub sessions_open: u64,
    /// Memory of sessions that are open or take late records, of rates and of cursors, in bytes.
    pub sessions_size_bytes: u64,
    /// Memory of sources, event ids, hidden items and co-engagement, in bytes.
    pub other_size_bytes: u64,
    /// Rows that wait for the checkpoint stores, in bytes.
    pub cold_pending_size_bytes: u64,
}

/// A checkpoint store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStatus {
    /// `a` or `b`.
    pub name: &'static str,
    /// The number of its checkpoint, counted over both stores; zero when it has none.
    pub epoch: u64,
    /// The last frame in its checkpoint; zero when it has none.
    pub seq: Seq,
    /// Why it is out of use, until it is rebuilt.
    pub failure: Option<String>,
}

impl Status {
    /// Memory per cell, its index included, in bytes; `None` without cells.
    pub fn cell_size_bytes(&self) -> Option<f64> {
        (self.cells > 0).then(|| self.cells_size_bytes as f64 / self.cells as f64)
    }
}

fn store_statuses(stores: &StorePair) -> Vec<StoreStatus> {
    let status = |(slot, state): (StoreSlot, SlotState)| {
        let (epoch, seq, failure) = match state {
            SlotState::Empty => (0, Seq::ZERO, None),
            SlotState::Healthy { epoch, seq } => (epoch.get(), seq, None),
            SlotState::Failed { reason } => (0, Seq::ZERO, Some(reason.to_string())),
        };
        StoreStatus { name: slot.name(), epoch, seq, failure }
    };
    StoreSlot::BOTH.into_iter().zip(stores.state()).map(status).collect()
}

fn total(tables: &[Arc<dyn StateTable>]) -> TableSize {
    tables.iter().map(|table| table.size()).fold(TableSize::default(), |sum, size| TableSize {
        rows: sum.rows + size.rows,
        size_bytes: sum.size_bytes + size.size_bytes,
    })
}

impl TidalDb {
    /// Sizes and positions.
    pub fn status(&self) -> Status {
        let header = self.state.header();
        let cells = total(&self.state.ledger.tables());
        let users = self.state.users.table().size();
        let texts = self.state.dictionary.table().size();
        let others =
            [self.state.sources.table(), self.state.event_ids.table(), self.state.hidden.table()];
        let others = total(&others).size_bytes + self.co_engagement().size_bytes();
        Status {
            database: self.database.to_string(),
            incarnation: header.incarnation,
            engine_time: header.engine_time,
            event_time: header.event_time,
            appended: self.positions.appended(),
            durable: self.positions.synced(),
            applied: self.positions.applied(),
            operations: header.operations,
            log_size_bytes: self.positions.log_size_bytes(),
            stores: self.stores.as_ref().map(|stores| store_statuses(stores)).unwrap_or_default(),
            cells: cells.rows,
            cells_size_bytes: cells.size_bytes,
            users: users.rows,
            users_size_bytes: users.size_bytes + self.state.cohorts.table().size().size_bytes,
            texts: texts.rows,
            texts_size_bytes: texts.size_bytes,
            collections: self.state.collections.rows().size().rows,
            collections_size_bytes: total(&self.state.collections.tables()).size_bytes,
            sessions_open: self.state.sessions.open_len() as u64,
            sessions_size_bytes: total(&self.state.sessions.tables()).size_bytes
                + self.state.deliveries.table().size().size_bytes,
            other_size_bytes: others,
            cold_pending_size_bytes: self
                .state
                .cold_tables()
                .iter()
                .map(|table| table.pending_size_bytes())
                .sum(),
        }
    }
}

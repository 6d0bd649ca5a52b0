//! Loading a state from a checkpoint store.
//!
//! Knows: what a checkpoint hands over, and which table takes it. Must not know: what is in a page.

use std::collections::HashMap;
use std::sync::Arc;

use crate::checkpoint::{Loaded, Loader, Manifest};
use crate::error::{Error, Result};
use crate::state::State;
use crate::table::{StateTable, TableCut, TableId};

/// A state that is being loaded.
#[derive(Default)]
pub(crate) struct StateLoader {
    state: Option<State>,
    tables: HashMap<TableId, (Arc<dyn StateTable>, u64)>,
    /// Cold rows that the store which is not loaded lacks: table, key, row.
    owed_rows: Vec<(u8, u64, Option<Vec<u8>>)>,
}

impl Loader for StateLoader {
    fn begin(&mut self, manifest: &Manifest) -> Result<()> {
        let what = |e: crate::codec::DecodeError| e.of("the header of a checkpoint");
        let state = State::from_header(&manifest.state_header).map_err(what)?;
        if state.header().applied != manifest.seq {
            return Err(Error::corrupt("a manifest", "its state stands at another sequence"));
        }
        self.tables.clear();
        self.owed_rows.clear();
        for (&id, entry) in &manifest.tables {
            let damaged = |e: crate::codec::DecodeError| e.of(id.to_string());
            let table = state.table(id).map_err(damaged)?;
            let cut = TableCut { rows: entry.rows, pages: entry.pages, owed: 0 };
            table.begin_restore(cut).map_err(damaged)?;
            self.tables.insert(id, (table, entry.rows));
        }
        self.state = Some(state);
        Ok(())
    }

    fn page(&mut self, table: TableId, page: u32, bytes: &[u8]) -> Result<()> {
        let Some((restored, _)) = self.tables.get(&table) else {
            return Err(Error::corrupt(table.to_string(), "has pages but no entry"));
        };
        restored.restore_page(page, bytes).map_err(|e| e.of(format!("page {page} of {table}")))
    }

    fn owed_row(&mut self, table: u8, key: u64, row: Option<&[u8]>) -> Result<()> {
        self.owed_rows.push((table, key, row.map(<[u8]>::to_vec)));
        Ok(())
    }
}

impl StateLoader {
    /// The state, once the store it came from has been read to the end.
    pub(crate) fn finish(self, loaded: &Loaded) -> Result<State> {
        let state = self.state.expect("what was loaded had a beginning");
        for (id, (table, rows)) in &self.tables {
            table.end_restore(*rows, loaded.pages_owed).map_err(|e| e.of(id.to_string()))?;
        }
        state.end_restore().map_err(|e| e.of("a checkpoint"))?;
        for (table, key, row) in self.owed_rows {
            let cold = state.cold_tables().into_iter().find(|cold| cold.id() == table);
            let cold = cold.ok_or_else(|| {
                Error::corrupt(format!("cold table {table}"), "this version does not know it")
            })?;
            cold.restore_owed(key, row.as_deref(), loaded.slot.other());
        }
        for cold in state.cold_tables() {
            cold.end_restore(loaded.based);
        }
        Ok(state)
    }
}

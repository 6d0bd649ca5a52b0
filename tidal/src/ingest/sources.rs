//! The stored position of every source.
//!
//! A row in a page: name (length varint, UTF-8) | position u64.

use std::sync::Arc;

use crate::codec::{DecodeError, Put, Reader};
use crate::error::{Error, Result};
use crate::record::SourceRange;
use crate::table::{Row, Slot, StateTable, Table, TableId, hash_text};

#[derive(Debug)]
struct SourceRow {
    name: Box<str>,
    stored: u64,
}

impl Row for SourceRow {
    type Key = str;
    type Side = ();

    fn key(&self) -> &str {
        &self.name
    }

    fn hash(key: &str) -> u64 {
        hash_text(key)
    }

    fn encode(&self, _: Slot, (): &(), out: &mut Vec<u8>) {
        out.put_bytes(self.name.as_bytes());
        out.put_u64(self.stored);
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, (): &mut ()) -> Result<Self, DecodeError> {
        Ok(Self { name: reader.str()?.into(), stored: reader.u64()? })
    }

    fn heap_size_bytes(&self) -> usize {
        self.name.len()
    }

    fn side_size_bytes((): &()) -> usize {
        0
    }
}

/// What a batch from a source is, given what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceStep {
    /// All of it is new.
    New,
    /// All of it is applied already, the source through `stored`.
    AlreadyApplied { stored: u64 },
}

/// The sources that were ever applied.
pub(crate) struct Sources {
    table: Arc<Table<SourceRow>>,
}

impl Sources {
    /// The kind of table on disk.
    pub(crate) const KIND: u8 = 6;

    pub(crate) fn new() -> Self {
        Self { table: Arc::new(Table::new(TableId { kind: Self::KIND, part: 0 }, ())) }
    }

    /// The last applied position of a source.
    pub(crate) fn stored(&self, name: &str) -> Option<u64> {
        self.table.read().get(name).map(|row| row.stored)
    }

    /// What a batch is. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Overlap`] when part of it is applied already; [`Error::Gap`] when a contiguous
    /// source leaves positions out.
    pub(crate) fn step(&self, batch: &SourceRange<'_>) -> Result<SourceStep> {
        let Some(stored) = self.stored(batch.name) else { return Ok(SourceStep::New) };
        if batch.last <= stored {
            return Ok(SourceStep::AlreadyApplied { stored });
        }
        if batch.first <= stored {
            return Err(Error::Overlap { source_name: batch.name.to_owned(), stored });
        }
        if batch.contiguous && batch.first > stored + 1 {
            return Err(Error::Gap { source_name: batch.name.to_owned(), stored });
        }
        Ok(SourceStep::New)
    }

    /// Moves a source to the end of a batch that [`step`](Self::step) called new.
    pub(crate) fn advance(&self, batch: &SourceRange<'_>) {
        self.table.write().put(SourceRow { name: batch.name.into(), stored: batch.last });
    }

    pub(crate) fn table(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.table) as Arc<dyn StateTable>
    }
}

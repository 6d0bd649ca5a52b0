//! The dictionary: texts and the ids that stand for them.
//!
//! Ids are given in log order, so a replay gives the same ones. They start at 2^52: far above the
//! dense numbers that callers choose themselves, and still exact in a double.
//!
//! A row in a page: number u32 | text (length varint, UTF-8).

use std::sync::Arc;

use crate::codec::{DecodeError, Put, Reader};
use crate::ids::EntityId;
use crate::table::{Row, Slab, Slot, StateTable, Table, TableId, hash_text};

const FIRST_ID: u64 = 1 << 52;

#[derive(Debug)]
struct TextRow {
    number: u32,
    text: Arc<str>,
}

/// Texts by number, derived from the rows.
type ByNumber = Vec<Arc<str>>;

impl Row for TextRow {
    type Key = str;
    type Side = ByNumber;

    fn key(&self) -> &str {
        &self.text
    }

    fn hash(key: &str) -> u64 {
        hash_text(key)
    }

    fn encode(&self, _: Slot, _: &ByNumber, out: &mut Vec<u8>) {
        out.put_u32(self.number);
        out.put_bytes(self.text.as_bytes());
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, _: &mut ByNumber) -> Result<Self, DecodeError> {
        Ok(Self { number: reader.u32()?, text: reader.str()?.into() })
    }

    fn rebuild(slab: &mut Slab<Self>) -> Result<(), DecodeError> {
        let mut rows: Vec<_> =
            slab.iter().map(|(_, row)| (row.number, Arc::clone(&row.text))).collect();
        rows.sort_unstable();
        if rows.iter().enumerate().any(|(i, (number, _))| *number as usize != i) {
            return Err(DecodeError::Malformed("a hole in the numbers of texts"));
        }
        *slab.side_mut() = rows.into_iter().map(|(_, text)| text).collect();
        Ok(())
    }

    fn heap_size_bytes(&self) -> usize {
        self.text.len() + 2 * size_of::<usize>()
    }

    fn side_size_bytes(side: &ByNumber) -> usize {
        side.capacity() * size_of::<Arc<str>>()
    }
}

/// Texts and their ids.
pub(crate) struct Dictionary {
    table: Arc<Table<TextRow>>,
}

impl Dictionary {
    /// The kind of table on disk.
    pub(crate) const KIND: u8 = 5;

    pub(crate) fn new() -> Self {
        Self { table: Arc::new(Table::new(TableId { kind: Self::KIND, part: 0 }, Vec::new())) }
    }

    /// The id of a text, if it has one.
    pub(crate) fn find(&self, text: &str) -> Option<EntityId> {
        self.table.read().get(text).map(|row| id_of(row.number))
    }

    /// The ids of many texts.
    pub(crate) fn find_all(&self, texts: &[&str]) -> Vec<Option<EntityId>> {
        let slab = self.table.read();
        texts.iter().map(|text| slab.get(text).map(|row| id_of(row.number))).collect()
    }

    /// The text of an id.
    pub(crate) fn text(&self, id: EntityId) -> Option<Arc<str>> {
        let number = usize::try_from(id.get().checked_sub(FIRST_ID)?).ok()?;
        self.table.read().side().get(number).cloned()
    }

    /// The ids of all texts; those without one get the next.
    pub(crate) fn intern(&self, texts: &[&str]) -> Vec<EntityId> {
        let mut slab = self.table.write();
        let intern = |text: &&str| match slab.get(text) {
            Some(row) => id_of(row.number),
            None => {
                let number = u32::try_from(slab.len()).expect("a table holds fewer than 2^32 rows");
                let text: Arc<str> = (*text).into();
                slab.side_mut().push(Arc::clone(&text));
                slab.insert_new(TextRow { number, text });
                id_of(number)
            }
        };
        texts.iter().map(intern).collect()
    }

    pub(crate) fn table(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.table) as Arc<dyn StateTable>
    }
}

const fn id_of(number: u32) -> EntityId {
    EntityId::new(FIRST_ID + number as u64)
}

//! What lies under which key of a store.
//!
//! Knows: the keys, and that everything is sealed for its key and its database. Must not know: what
//! is sealed, stores.
//!
//! ```text
//! manifest   1 u8 | epoch u64
//! page       2 u8 | table kind u8 | table part u64 | page u32 | epoch u64
//! cold row   3 u8 | table u8 | key u64 | epoch u64
//! ```
//!
//! Big-endian, so that the order of keys is the order of numbers. Every key ends with the epoch of
//! the checkpoint that wrote it: nothing is overwritten in place, and the versions of one thing lie
//! side by side, oldest first.

use std::fmt;

use crate::codec::{self, DecodeError, Hash, Kind, Reader};
use crate::ids::DatabaseId;
use crate::table::TableId;

/// The number of a checkpoint. Both stores count together, so that the epochs of both are in the
/// order of their cuts; 0 is "before the first".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Epoch(u64);

impl Epoch {
    pub(crate) const ZERO: Self = Self(0);
    /// After the last.
    pub(crate) const MAX: Self = Self(u64::MAX);

    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    pub(crate) const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(number) => Self(number),
            None => panic!("there is no further epoch"),
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What all manifests' keys begin with.
pub(super) const MANIFESTS: &[u8] = &[1];
/// What all pages' keys begin with.
pub(super) const PAGES: &[u8] = &[2];
/// What all cold rows' keys begin with.
pub(super) const ROWS: &[u8] = &[3];

const EPOCH_BYTES: usize = 8;

/// The newest layout of each kind of payload.
pub(super) const VERSION_MAX: u16 = 1;

/// A key taken apart into the thing it names and the epoch of this version of it.
pub(super) fn split(key: &[u8]) -> Result<(&[u8], Epoch), DecodeError> {
    let Some((thing, epoch)) = key.split_last_chunk::<EPOCH_BYTES>() else {
        return Err(DecodeError::Short { missing: EPOCH_BYTES - key.len() });
    };
    Ok((thing, Epoch(u64::from_be_bytes(*epoch))))
}

pub(super) fn manifest_key(epoch: Epoch) -> Vec<u8> {
    [MANIFESTS, &epoch.0.to_be_bytes()].concat()
}

/// One version of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageKey {
    pub(super) table: TableId,
    pub(super) page: u32,
    pub(super) epoch: Epoch,
}

impl PageKey {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        [
            PAGES,
            &[self.table.kind],
            &self.table.part.to_be_bytes(),
            &self.page.to_be_bytes(),
            &self.epoch.0.to_be_bytes(),
        ]
        .concat()
    }

    pub(super) fn from_bytes(key: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(key);
        expect_tag(&mut reader, PAGES)?;
        let table = TableId { kind: reader.u8()?, part: u64::from_be_bytes(reader.array()?) };
        let page = u32::from_be_bytes(reader.array()?);
        let epoch = Epoch(u64::from_be_bytes(reader.array()?));
        reader.end()?;
        Ok(Self { table, page, epoch })
    }
}

/// One version of one row of a cold table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowKey {
    pub(super) table: u8,
    pub(super) key: u64,
    pub(super) epoch: Epoch,
}

impl RowKey {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        [row_versions(self.table, self.key).as_slice(), &self.epoch.0.to_be_bytes()].concat()
    }

    pub(super) fn from_bytes(key: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(key);
        expect_tag(&mut reader, ROWS)?;
        let table = reader.u8()?;
        let row = u64::from_be_bytes(reader.array()?);
        let epoch = Epoch(u64::from_be_bytes(reader.array()?));
        reader.end()?;
        Ok(Self { table, key: row, epoch })
    }
}

/// What the keys of all rows of a cold table begin with.
pub(super) fn rows_of(table: u8) -> Vec<u8> {
    [ROWS, &[table]].concat()
}

/// What the keys of all versions of one cold row begin with.
pub(super) fn row_versions(table: u8, key: u64) -> Vec<u8> {
    [ROWS, &[table], &key.to_be_bytes()].concat()
}

fn expect_tag(reader: &mut Reader<'_>, tag: &[u8]) -> Result<(), DecodeError> {
    match reader.take(tag.len())? == tag {
        true => Ok(()),
        false => Err(DecodeError::Malformed("a key of another kind")),
    }
}

/// Seals a payload for its key.
pub(super) fn seal(db: &DatabaseId, kind: Kind, key: &[u8], payload: &[u8]) -> (Vec<u8>, Hash) {
    codec::seal(kind, VERSION_MAX, &[db.as_bytes(), key], payload)
}

/// The payload that was sealed for this key of this database, and its hash.
pub(super) fn open<'a>(
    db: &DatabaseId,
    kind: Kind,
    key: &[u8],
    sealed: &'a [u8],
) -> Result<(&'a [u8], Hash), DecodeError> {
    let (version, payload, hash) = codec::open(kind, VERSION_MAX, &[db.as_bytes(), key], sealed)?;
    match version {
        VERSION_MAX => Ok((payload, hash)),
        _ => Err(DecodeError::Malformed("a version that no writer makes")),
    }
}

const TOMBSTONE: &[u8] = &[0];
const PRESENT: u8 = 1;

/// The payload of a cold row: 1 and its bytes, or 0 where it was deleted.
pub(super) fn row_payload(row: Option<&[u8]>) -> Vec<u8> {
    row.map_or_else(|| TOMBSTONE.to_vec(), |bytes| [&[PRESENT], bytes].concat())
}

/// The row in a payload that [`row_payload`] made.
pub(super) fn row_of_payload(payload: &[u8]) -> Result<Option<&[u8]>, DecodeError> {
    match payload {
        TOMBSTONE => Ok(None),
        [PRESENT, bytes @ ..] => Ok(Some(bytes)),
        _ => Err(DecodeError::Malformed("neither a row nor a deletion")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_sort_by_thing_then_epoch() {
        let mut keys = Vec::new();
        for part in [0, 1, 256] {
            for page in [0, 255, 256] {
                for epoch in [1, 255, 256].map(Epoch::new) {
                    let key = PageKey { table: TableId { kind: 3, part }, page, epoch };
                    assert_eq!(PageKey::from_bytes(&key.to_bytes()), Ok(key));
                    assert_eq!(split(&key.to_bytes()).map(|(_, epoch)| epoch), Ok(epoch));
                    keys.push(key.to_bytes());
                }
            }
        }
        assert!(keys.is_sorted());
        let row = RowKey { table: 9, key: u64::MAX, epoch: Epoch::new(7) };
        assert_eq!(RowKey::from_bytes(&row.to_bytes()), Ok(row));
        assert!(row.to_bytes().starts_with(&row_versions(9, u64::MAX)));
    }

    #[test]
    fn keys_of_any_other_length_or_kind_are_refused() {
        let page = PageKey { table: TableId { kind: 3, part: 4 }, page: 5, epoch: Epoch::new(6) };
        let row = RowKey { table: 9, key: 8, epoch: Epoch::new(7) };
        for len in 0..page.to_bytes().len() {
            assert!(PageKey::from_bytes(&page.to_bytes()[..len]).is_err(), "length {len}");
        }
        assert!(PageKey::from_bytes(&[page.to_bytes(), vec![0]].concat()).is_err());
        assert!(RowKey::from_bytes(&[row.to_bytes(), vec![0]].concat()).is_err());
        assert!(RowKey::from_bytes(&page.to_bytes()[..18]).is_err());
    }

    #[test]
    fn an_empty_row_is_not_a_deletion() {
        for row in [None, Some(&b""[..]), Some(b"\0"), Some(b"row")] {
            assert_eq!(row_of_payload(&row_payload(row)), Ok(row));
        }
        assert!(row_of_payload(b"").is_err());
        assert!(row_of_payload(&[0, 0]).is_err());
        assert!(row_of_payload(&[2]).is_err());
    }
}

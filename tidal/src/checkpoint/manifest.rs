//! The manifest: what makes the pages and rows of a store a checkpoint.
//!
//! Knows: what a checkpoint must say of itself. Must not know: pages, stores, files.
//!
//! Payload: [`v1::Manifest`] in bincode, in an envelope of kind `Manifest` sealed for its key. The
//! version of the envelope is the format.

use std::collections::BTreeMap;

use super::keys::{self, Epoch};
use super::sum::ColdSum;
use crate::codec::{self, DecodeError, Hash, Kind};
use crate::ids::{DatabaseId, Timestamp};
use crate::seq::Seq;
use crate::table::{CheckpointMeta, TableId};

/// What a checkpoint is, and how to tell that it is complete and current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) epoch: Epoch,
    /// The last frame of the log that it contains.
    pub(crate) seq: Seq,
    /// The hash of that frame.
    pub(crate) frame_hash: [u8; 16],
    /// The engine time at it.
    pub(crate) time: Timestamp,
    /// The epoch of the other store's newest checkpoint when this one was written, 0 if it had none.
    /// A store that is found before the epoch its fellow saw has gone back in time.
    pub(crate) other_epoch: Epoch,
    /// The store remembers the deletions of cold rows that are newer than this epoch.
    pub(crate) deletions_after: Epoch,
    /// How many those are, and the sum of their hashes.
    pub(crate) deletions: ColdSum,
    /// The small things of the state, which only the state can read.
    pub(crate) state_header: Vec<u8>,
    pub(crate) tables: BTreeMap<TableId, TableEntry>,
    pub(crate) cold: BTreeMap<u8, ColdSum>,
}

/// What a manifest says of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableEntry {
    pub(crate) rows: u64,
    pub(crate) pages: u32,
    pub(crate) meta: CheckpointMeta,
}

/// The first layout. Never edited: a change is a new one beside it.
mod v1 {
    use crate::codec::{Decode, Encode};

    #[derive(Encode, Decode)]
    pub(super) struct Manifest {
        pub(super) epoch: u64,
        pub(super) seq: u64,
        pub(super) frame_hash: [u8; 16],
        pub(super) time_ns: u64,
        pub(super) other_epoch: u64,
        pub(super) deletions_after: u64,
        pub(super) deletions: u64,
        pub(super) deletions_sum: [u8; 32],
        pub(super) state_header: Vec<u8>,
        /// Ascending by kind and part.
        pub(super) tables: Vec<Table>,
        /// Ascending by table.
        pub(super) cold: Vec<Cold>,
    }

    #[derive(Encode, Decode)]
    pub(super) struct Table {
        pub(super) kind: u8,
        pub(super) part: u64,
        pub(super) rows: u64,
        pub(super) pages: u32,
        pub(super) checkpoint_time_ns: u64,
        pub(super) wal_sequence: u64,
        pub(super) payload_hash: [u8; 32],
    }

    #[derive(Encode, Decode)]
    pub(super) struct Cold {
        pub(super) table: u8,
        pub(super) rows: u64,
        pub(super) sum: [u8; 32],
    }
}

impl Manifest {
    /// The count and sum of a cold table; one that is not named is empty.
    pub(crate) fn cold_sum(&self, table: u8) -> ColdSum {
        self.cold.get(&table).copied().unwrap_or_default()
    }

    /// The key it lies under and the sealed bytes, which have been read back: once the log is truncated
    /// by a manifest, nothing but it leads to the state.
    ///
    /// # Errors
    ///
    /// Any [`DecodeError`], when it could not be read back.
    pub(super) fn seal(&self, db: &DatabaseId) -> Result<(Vec<u8>, Vec<u8>), DecodeError> {
        let key = keys::manifest_key(self.epoch);
        let payload = codec::to_unread_bytes(&self.to_v1())?;
        let (sealed, _): (Vec<u8>, Hash) = keys::seal(db, Kind::Manifest, &key, &payload);
        match Self::open(db, &key, &sealed)? == *self {
            true => Ok((key, sealed)),
            false => Err(DecodeError::Malformed("reads back as another manifest")),
        }
    }

    /// The manifest that was sealed for this key of this database.
    pub(super) fn open(db: &DatabaseId, key: &[u8], sealed: &[u8]) -> Result<Self, DecodeError> {
        let (payload, _) = keys::open(db, Kind::Manifest, key, sealed)?;
        let manifest = Self::from_v1(codec::from_sealed_bytes(payload)?)?;
        match keys::manifest_key(manifest.epoch) == key {
            true => Ok(manifest),
            false => Err(DecodeError::Malformed("names another epoch than its key")),
        }
    }

    fn to_v1(&self) -> v1::Manifest {
        let tables = self.tables.iter().map(|(id, entry)| v1::Table {
            kind: id.kind,
            part: id.part,
            rows: entry.rows,
            pages: entry.pages,
            checkpoint_time_ns: entry.meta.checkpoint_time_ns,
            wal_sequence: entry.meta.wal_sequence,
            payload_hash: entry.meta.payload_hash,
        });
        let cold = self.cold.iter().map(|(&table, cold)| v1::Cold {
            table,
            rows: cold.rows,
            sum: cold.sum,
        });
        v1::Manifest {
            epoch: self.epoch.get(),
            seq: self.seq.get(),
            frame_hash: self.frame_hash,
            time_ns: self.time.as_nanos(),
            other_epoch: self.other_epoch.get(),
            deletions_after: self.deletions_after.get(),
            deletions: self.deletions.rows,
            deletions_sum: self.deletions.sum,
            state_header: self.state_header.clone(),
            tables: tables.collect(),
            cold: cold.collect(),
        }
    }

    fn from_v1(disk: v1::Manifest) -> Result<Self, DecodeError> {
        let is_ordered = disk.tables.is_sorted_by(|l, r| (l.kind, l.part) < (r.kind, r.part))
            && disk.cold.is_sorted_by(|l, r| l.table < r.table);
        if !is_ordered {
            return Err(DecodeError::Malformed("names its tables out of order"));
        }
        if disk.seq == u64::MAX || disk.epoch == u64::MAX {
            return Err(DecodeError::Malformed("a position that no log reaches"));
        }
        if disk.tables.iter().any(|table| table.wal_sequence != disk.seq) {
            return Err(DecodeError::Malformed("has tables that stand at different sequences"));
        }
        let tables = disk.tables.into_iter().map(|table| {
            let meta = CheckpointMeta {
                checkpoint_time_ns: table.checkpoint_time_ns,
                wal_sequence: table.wal_sequence,
                payload_hash: table.payload_hash,
            };
            let id = TableId { kind: table.kind, part: table.part };
            (id, TableEntry { rows: table.rows, pages: table.pages, meta })
        });
        let cold = disk
            .cold
            .into_iter()
            .map(|cold| (cold.table, ColdSum { rows: cold.rows, sum: cold.sum }));
        Ok(Self {
            epoch: Epoch::new(disk.epoch),
            seq: Seq::new(disk.seq),
            frame_hash: disk.frame_hash,
            time: Timestamp::from_nanos(disk.time_ns),
            other_epoch: Epoch::new(disk.other_epoch),
            deletions_after: Epoch::new(disk.deletions_after),
            deletions: ColdSum { rows: disk.deletions, sum: disk.deletions_sum },
            state_header: disk.state_header,
            tables: tables.collect(),
            cold: cold.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Put;

    const DB: DatabaseId = DatabaseId::new([7; 16]);

    fn manifest() -> Manifest {
        let meta =
            CheckpointMeta { checkpoint_time_ns: 5, wal_sequence: 42, payload_hash: [3; 32] };
        Manifest {
            epoch: Epoch::new(9),
            seq: Seq::new(42),
            frame_hash: [1; 16],
            time: Timestamp::from_nanos(5),
            other_epoch: Epoch::new(8),
            deletions_after: Epoch::new(7),
            deletions: ColdSum { rows: 6, sum: [5; 32] },
            state_header: b"header".to_vec(),
            tables: [(TableId { kind: 1, part: 2 }, TableEntry { rows: 10, pages: 3, meta })]
                .into(),
            cold: [(4, ColdSum { rows: 1, sum: [2; 32] })].into(),
        }
    }

    #[test]
    fn a_manifest_comes_back_from_its_own_key_and_database_only() {
        let (key, sealed) = manifest().seal(&DB).unwrap();
        assert_eq!(Manifest::open(&DB, &key, &sealed), Ok(manifest()));
        assert!(Manifest::open(&DatabaseId::new([8; 16]), &key, &sealed).is_err());
        assert!(Manifest::open(&DB, &keys::manifest_key(Epoch::new(10)), &sealed).is_err());
    }

    #[test]
    fn the_layout_is_the_one_that_was_promised() {
        let mut expected = Vec::new();
        [9, 42].iter().for_each(|&field| expected.put_u64(field));
        expected.extend([1; 16]);
        [5, 8, 7, 6].iter().for_each(|&field| expected.put_u64(field));
        expected.extend([5; 32]);
        expected.put_u64(6);
        expected.extend(b"header");
        expected.put_u64(1);
        expected.put_u8(1);
        [2, 10].iter().for_each(|&field| expected.put_u64(field));
        expected.put_u32(3);
        [5, 42].iter().for_each(|&field| expected.put_u64(field));
        expected.extend([3; 32]);
        expected.put_u64(1);
        expected.put_u8(4);
        expected.put_u64(1);
        expected.extend([2; 32]);
        assert_eq!(codec::to_sealed_bytes(&manifest().to_v1()), Ok(expected));
    }

    /// A manifest of so many tables.
    fn naming(tables: u64) -> Manifest {
        let meta =
            CheckpointMeta { checkpoint_time_ns: 5, wal_sequence: 42, payload_hash: [3; 32] };
        let entry = TableEntry { rows: 10, pages: 3, meta };
        let tables = (0..tables).map(|part| (TableId { kind: 1, part }, entry)).collect();
        Manifest { tables, ..manifest() }
    }

    #[test]
    fn a_manifest_of_more_tables_than_64_mib_hold_comes_back() {
        let manifest = naming(1_200_000);
        let (key, sealed) = manifest.seal(&DB).unwrap();
        assert!(Manifest::open(&DB, &key, &sealed) == Ok(manifest));
    }

    #[test]
    fn a_manifest_whose_tables_stand_at_different_sequences_is_neither_written_nor_read() {
        let mut bad = manifest();
        bad.tables.values_mut().for_each(|entry| entry.meta.wal_sequence = 41);
        assert!(bad.seal(&DB).is_err());
        let key = keys::manifest_key(bad.epoch);
        let payload = codec::to_sealed_bytes(&bad.to_v1()).unwrap();
        let (sealed, _) = keys::seal(&DB, Kind::Manifest, &key, &payload);
        assert!(Manifest::open(&DB, &key, &sealed).is_err());
    }
}

//! One checkpoint, from a cut to a synced manifest.
//!
//! Knows: the order in which things go out. Must not know: whose turn it is, what becomes of a store
//! that fails, threads.
//!
//! 1. What an interrupted checkpoint left is removed; a store without a checkpoint is emptied.
//! 2. Pages and cold rows go out under the new epoch, in batches. A store that is new first gets a
//!    copy of the other's cold rows, under the same keys.
//! 3. The manifest goes out in a batch of its own that is synced: now the checkpoint counts.
//! 4. What it supersedes is removed, by the caller's leave, when readers know of the new epoch.
//!
//! **Deletions are remembered.** The deletion of a cold row is a version like any other. It stays
//! until the other store has a checkpoint of a later epoch: if the process dies before that, the
//! older store learns from the newer one what it lacks, deletions included.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cut::Cut;
use super::keys::{self, Epoch, PageKey, RowKey};
use super::manifest::{Manifest, TableEntry};
use super::read::{self, Directory, PageEntry, StoreImage};
use super::sum::ColdSum;
use crate::codec::Kind;
use crate::error::Result;
use crate::fault::{CrashPoint, Faults};
use crate::ids::DatabaseId;
use crate::seq::Seq;
use crate::storage::{StorageEngine, WriteOp};
use crate::table::{
    CheckpointMeta, ColdRow, DurableTable, PageImage, StoreSlot, TableCut, TableId,
};

/// A table hands out pages under its lock, so few at a time.
const TAKE_PAGES_MAX: usize = 16;
/// A batch is written when it has this many changes (few in tests, which stop after each) …
const BATCH_OPS_MAX: usize = if cfg!(test) { 3 } else { 64 };
/// … or this many bytes.
const BATCH_BYTES_MAX: u64 = 4 << 20;

/// What a checkpoint wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) store: StoreSlot,
    pub(crate) epoch: Epoch,
    pub(crate) seq: Seq,
    pub(crate) pages: u64,
    /// Cold rows, those copied from the other store included.
    pub(crate) rows: u64,
    pub(crate) size_bytes: u64,
}

/// The store that a checkpoint goes to, and what must be known of the other.
pub(super) struct Target {
    pub(super) engine: Arc<dyn StorageEngine>,
    pub(super) image: Option<Arc<StoreImage>>,
    pub(super) other: Other,
    /// The epoch to write: newer than all that either store holds.
    pub(super) epoch: Epoch,
    pub(super) faults: Faults,
}

/// The other store.
pub(super) struct Other {
    /// It and its checkpoint, if it can be read and has one.
    pub(super) source: Option<(Arc<dyn StorageEngine>, Arc<StoreImage>)>,
    /// Deletions up to this epoch need not be remembered for it.
    pub(super) knows_deletions_to: Epoch,
}

/// A failure, and the store it is a failure of.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store that was written; what is in it now is unknown.
    Target(crate::Error),
    /// The other one, while it was read from.
    Source(crate::Error),
}

type Outcome<T> = std::result::Result<T, Failure>;

/// A checkpoint whose manifest is synced.
pub(super) struct Committed {
    pub(super) image: StoreImage,
    /// What may be removed now, in this order.
    pub(super) superseded: Vec<Vec<u8>>,
    pub(super) written: Written,
}

/// Writes steps 1 to 3 of a checkpoint; `pace` is told how many bytes each batch had.
pub(super) fn write_checkpoint(
    db: &DatabaseId,
    target: &Target,
    cut: &Cut,
    pace: &mut dyn FnMut(u64),
) -> Outcome<Committed> {
    let mut run = Run {
        db,
        target,
        epoch: target.epoch,
        out: Batches::new(target.engine.as_ref(), &target.faults, pace),
        superseded: Vec::new(),
        pages: 0,
        rows: 0,
    };
    let faults = &target.faults;
    run.clean().map_err(Failure::Target)?;
    faults.reach(CrashPoint::CheckpointCleaned);
    let (tables, directory) = run.write_tables(cut).map_err(Failure::Target)?;
    faults.reach(CrashPoint::PagesWritten);
    let (cold, tombstones) = run.write_cold(cut)?;
    let other_epoch =
        target.other.source.as_ref().map_or(Epoch::ZERO, |(_, image)| image.manifest.epoch);
    let mut deletions = ColdSum::default();
    for (&(table, key), &epoch) in &tombstones {
        deletions.add_deletion(table, key, epoch);
    }
    let manifest = Manifest {
        epoch: target.epoch,
        seq: cut.at.seq,
        frame_hash: cut.at.frame_hash,
        time: cut.at.time,
        other_epoch,
        deletions_after: target.other.knows_deletions_to,
        deletions,
        state_header: cut.state_header.clone(),
        tables,
        cold,
    };
    run.write_manifest(manifest, directory, tombstones, cut.store).map_err(Failure::Target)
}

/// Removes keys in batches, in order.
pub(super) fn remove(
    engine: &dyn StorageEngine,
    keys: Vec<Vec<u8>>,
    pace: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut out = Batches::new(engine, &Faults::NONE, pace);
    keys.into_iter().try_for_each(|key| out.push(WriteOp::Delete { key }))?;
    out.flush()
}

/// Copies a checkpoint and all that its store has beside it into a store that has nothing: what lies
/// sealed under a key is the same in every store of this database. The manifest goes last, as ever.
pub(super) fn copy(
    db: &DatabaseId,
    from: &dyn StorageEngine,
    manifest: &Manifest,
    into: &dyn StorageEngine,
) -> Result<()> {
    let mut no_pace = |_| ();
    let mut out = Batches::new(into, &Faults::NONE, &mut no_pace);
    for prefix in [keys::PAGES, keys::ROWS] {
        from.scan(prefix, &mut |key, sealed| {
            out.push(WriteOp::Put { key: key.to_vec(), value: sealed.to_vec() })
        })?;
    }
    out.flush()?;
    let (key, value) = manifest.seal(db).map_err(|e| e.of("a manifest"))?;
    out.push(WriteOp::Put { key, value })?;
    out.flush()
}

struct Batches<'a> {
    engine: &'a dyn StorageEngine,
    faults: &'a Faults,
    pace: &'a mut dyn FnMut(u64),
    ops: Vec<WriteOp>,
    bytes: u64,
    total: u64,
}

impl<'a> Batches<'a> {
    fn new(
        engine: &'a dyn StorageEngine,
        faults: &'a Faults,
        pace: &'a mut dyn FnMut(u64),
    ) -> Self {
        Self { engine, faults, pace, ops: Vec::new(), bytes: 0, total: 0 }
    }

    fn push(&mut self, op: WriteOp) -> Result<()> {
        self.bytes += match &op {
            WriteOp::Put { key, value } => (key.len() + value.len()) as u64,
            WriteOp::Delete { key } => key.len() as u64,
        };
        self.ops.push(op);
        match self.ops.len() >= BATCH_OPS_MAX || self.bytes >= BATCH_BYTES_MAX {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Every batch is synced: left to the manifest's sync they would reach the disk in one burst, and
    /// each sync of the log would wait behind it.
    fn flush(&mut self) -> Result<()> {
        if self.ops.is_empty() {
            return Ok(());
        }
        self.engine.write_batch_synced(std::mem::take(&mut self.ops))?;
        self.faults.reach(CrashPoint::CheckpointBatchWritten);
        let bytes = std::mem::take(&mut self.bytes);
        self.total += bytes;
        (self.pace)(bytes);
        Ok(())
    }
}

type Tombstones = BTreeMap<(u8, u64), Epoch>;

struct Run<'a> {
    db: &'a DatabaseId,
    target: &'a Target,
    epoch: Epoch,
    out: Batches<'a>,
    superseded: Vec<Vec<u8>>,
    pages: u64,
    rows: u64,
}

impl Run<'_> {
    fn clean(&mut self) -> Result<()> {
        match &self.target.image {
            Some(image) => {
                for key in &image.leftovers {
                    self.out.push(WriteOp::Delete { key: key.clone() })?;
                }
            }
            None => {
                let Self { target, out, .. } = self;
                for prefix in [keys::MANIFESTS, keys::PAGES, keys::ROWS] {
                    target.engine.scan(prefix, &mut |key, _| {
                        out.push(WriteOp::Delete { key: key.to_vec() })
                    })?;
                }
            }
        }
        self.out.flush()
    }

    fn write_tables(&mut self, cut: &Cut) -> Result<(BTreeMap<TableId, TableEntry>, Directory)> {
        let mut tables = BTreeMap::new();
        let mut directory = Directory::new();
        for (table, table_cut) in &cut.tables {
            let id = table.id();
            let (entries, root) = self.write_table(table.as_ref(), *table_cut)?;
            let meta = CheckpointMeta {
                checkpoint_time_ns: cut.at.time.as_nanos(),
                wal_sequence: cut.at.seq.get(),
                payload_hash: root,
            };
            let entry = TableEntry { rows: table_cut.rows, pages: table_cut.pages, meta };
            assert!(tables.insert(id, entry).is_none(), "{id} is in the cut twice");
            directory.insert(id, entries);
        }
        if let Some(image) = &self.target.image {
            for (&id, entries) in image.directory.iter().filter(|(id, _)| !tables.contains_key(id))
            {
                self.supersede_pages(id, 0, entries);
            }
        }
        Ok((tables, directory))
    }

    fn write_table(
        &mut self,
        table: &dyn DurableTable,
        cut: TableCut,
    ) -> Result<(Arc<Vec<PageEntry>>, [u8; 32])> {
        let id = table.id();
        let image = self.target.image.as_deref();
        assert!(
            image.is_some() || cut.owed == cut.pages,
            "a store without a checkpoint is owed every page of {id}"
        );
        let known = image.and_then(|image| Some((image.directory.get(&id)?, image)));
        if let Some((entries, image)) = known
            && cut.owed == 0
            && entries.len() == cut.pages as usize
        {
            return Ok((Arc::clone(entries), image.manifest.tables[&id].meta.payload_hash));
        }
        let mut entries = known.map_or_else(Vec::new, |(entries, _)| entries.to_vec());
        if let Some(gone) = entries.get(cut.pages as usize..) {
            self.supersede_pages(id, cut.pages, gone);
        }
        let missing = PageEntry { epoch: Epoch::ZERO, hash: [0; 32] };
        entries.resize(cut.pages as usize, missing);
        let mut taken = 0;
        let mut pages = Vec::with_capacity(TAKE_PAGES_MAX);
        let mut is_more = true;
        while is_more {
            is_more = table.take_pages(TAKE_PAGES_MAX, &mut pages);
            taken += pages.len();
            for page in pages.drain(..) {
                self.write_page(id, page, &mut entries)?;
            }
        }
        assert_eq!(taken, cut.owed as usize, "{id} hands out what it owes");
        assert!(entries.iter().all(|entry| *entry != missing), "{id} never handed out a page");
        let root = read::root(&entries);
        Ok((Arc::new(entries), root))
    }

    fn write_page(
        &mut self,
        table: TableId,
        image: PageImage,
        entries: &mut [PageEntry],
    ) -> Result<()> {
        let PageImage { page, bytes } = image;
        let count = entries.len();
        let Some(entry) = entries.get_mut(page as usize) else {
            panic!("{table} handed out page {page} of {count}");
        };
        assert_ne!(entry.epoch, self.epoch, "{table} handed out page {page} twice");
        if entry.epoch != Epoch::ZERO {
            self.superseded.push(PageKey { table, page, epoch: entry.epoch }.to_bytes());
        }
        let key = PageKey { table, page, epoch: self.epoch }.to_bytes();
        let (value, hash) = keys::seal(self.db, Kind::Page, &key, &bytes);
        *entry = PageEntry { epoch: self.epoch, hash };
        self.pages += 1;
        self.out.push(WriteOp::Put { key, value })
    }

    fn supersede_pages(&mut self, table: TableId, first: u32, gone: &[PageEntry]) {
        let keys = (first..)
            .zip(gone)
            .map(|(page, entry)| PageKey { table, page, epoch: entry.epoch }.to_bytes());
        self.superseded.extend(keys);
    }

    fn write_cold(&mut self, cut: &Cut) -> Outcome<(BTreeMap<u8, ColdSum>, Tombstones)> {
        let is_new = self.target.image.is_none();
        let mut owed = BTreeMap::new();
        for (table, cold_cut) in &cut.cold {
            let id = table.id();
            assert!(cold_cut.whole || !is_new, "a store without a checkpoint has taken no rows");
            let is_first = owed.insert(id, cold_cut.rows()).is_none();
            assert!(is_first, "cold table {id} is in the cut twice");
        }
        let (mut sums, mut tombstones) = match &self.target.image {
            Some(image) => (image.manifest.cold.clone(), image.tombstones.clone()),
            None => (self.copy_rows(&owed)?, Tombstones::new()),
        };
        for (table, rows) in owed {
            let sum = sums.entry(table).or_default();
            for (key, row) in rows {
                self.write_row(table, key, row.as_deref(), sum, &mut tombstones)
                    .map_err(Failure::Target)?;
            }
        }
        Ok((sums, self.forget_tombstones(tombstones)))
    }

    /// Writes a row, and counts it in and its predecessor in this store out.
    fn write_row(
        &mut self,
        table: u8,
        key: u64,
        row: Option<&[u8]>,
        sum: &mut ColdSum,
        tombstones: &mut Tombstones,
    ) -> Result<()> {
        if let Some(image) = &self.target.image {
            let engine = self.target.engine.as_ref();
            let epoch = image.manifest.epoch;
            let before = read::newest_row(engine, self.db, table, key, epoch, &mut |_, _| ())?;
            if let Some((row_key, before)) = before {
                self.superseded.push(row_key.to_bytes());
                if let Some(before) = before {
                    sum.remove(table, key, &before);
                }
            }
        }
        match row {
            Some(row) => {
                sum.add(table, key, row);
                tombstones.remove(&(table, key));
            }
            None => {
                tombstones.insert((table, key), self.epoch);
            }
        }
        let row_key = RowKey { table, key, epoch: self.epoch }.to_bytes();
        let (value, _) = keys::seal(self.db, Kind::Row, &row_key, &keys::row_payload(row));
        self.rows += 1;
        self.out.push(WriteOp::Put { key: row_key, value })
    }

    /// Copies the rows of the other store's checkpoint that are not in the cut. Keys and envelopes
    /// stay as they are: the epoch that a row got there is older than the one the other store stands
    /// at, as it must be for a row that it has.
    fn copy_rows(
        &mut self,
        owed: &BTreeMap<u8, BTreeMap<u64, ColdRow>>,
    ) -> Outcome<BTreeMap<u8, ColdSum>> {
        let Some((source, image)) = &self.target.other.source else { return Ok(BTreeMap::new()) };
        let mut found: BTreeMap<u8, ColdSum> = BTreeMap::new();
        let mut copied: BTreeMap<u8, ColdSum> = BTreeMap::new();
        let mut write_error = None;
        let Self { db, out, rows, .. } = self;
        let outcome = read::each_newest(
            source.as_ref(),
            keys::ROWS,
            image.manifest.epoch,
            &mut |_, _| (),
            &mut |key, sealed| {
                let (RowKey { table, key: row_key, .. }, row) = read::open_row(db, key, sealed)?;
                let Some(row) = row else { return Ok(()) };
                found.entry(table).or_default().add(table, row_key, row);
                if owed.get(&table).is_some_and(|rows| rows.contains_key(&row_key)) {
                    return Ok(());
                }
                copied.entry(table).or_default().add(table, row_key, row);
                *rows += 1;
                let op = WriteOp::Put { key: key.to_vec(), value: sealed.to_vec() };
                out.push(op).inspect_err(|error| write_error = Some(error.clone()))
            },
        );
        if let Some(error) = write_error {
            return Err(Failure::Target(error));
        }
        outcome
            .and_then(|()| read::expect_sums(&image.manifest, &found))
            .map_err(Failure::Source)?;
        self.target.faults.reach(CrashPoint::RowsCopied);
        Ok(copied)
    }

    /// Lets go of the deletions that the other store knows of; returns the others.
    fn forget_tombstones(&mut self, mut tombstones: Tombstones) -> Tombstones {
        let known_to = self.target.other.knows_deletions_to;
        // Older versions first: a deletion must not go before what it deletes.
        tombstones.retain(|&(table, key), &mut epoch| {
            let is_known = epoch <= known_to;
            if is_known {
                self.superseded.push(RowKey { table, key, epoch }.to_bytes());
            }
            !is_known
        });
        tombstones
    }

    fn write_manifest(
        mut self,
        manifest: Manifest,
        directory: Directory,
        tombstones: Tombstones,
        store: StoreSlot,
    ) -> Result<Committed> {
        self.out.flush()?;
        self.target.faults.reach(CrashPoint::ManifestDue);
        let (key, value) = manifest.seal(self.db).map_err(|e| e.of("a manifest"))?;
        self.out.push(WriteOp::Put { key, value })?;
        self.out.flush()?;
        self.target.faults.reach(CrashPoint::ManifestCommitted);
        if let Some(image) = &self.target.image {
            self.superseded.push(keys::manifest_key(image.manifest.epoch));
        }
        let written = Written {
            store,
            epoch: self.epoch,
            seq: manifest.seq,
            pages: self.pages,
            rows: self.rows,
            size_bytes: self.out.total,
        };
        let image = StoreImage {
            epoch_max: self.epoch,
            manifest,
            directory,
            tombstones,
            leftovers: Vec::new(),
        };
        Ok(Committed { image, superseded: self.superseded, written })
    }
}

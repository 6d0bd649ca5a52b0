//! Verify a store, and restore from it.
//!
//! Knows: which versions belong to a checkpoint, and how they prove to be complete and current. Must
//! not know: where what it reads goes, the other store.
//!
//! A version belongs to the checkpoint of epoch E when it is the newest one of its page or row that
//! is not newer than E. Each must open under its key; the pages of a table must be all of 0 to n and
//! have the root that the manifest names, the rows of a cold table its count and sum, and so must the
//! deletions that the store remembers. So a value that was damaged, moved, removed, or is stale makes
//! the store one that does not hold.
//!
//! Strict on purpose: a manifest that does not open condemns the store even if an older one would,
//! because the log was perhaps truncated by the newer one, and because a bit that rotted in one
//! place is a reason to rebuild the rest. The other store is there for that.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::keys::{self, Epoch, PageKey, RowKey};
use super::manifest::Manifest;
use super::sum::ColdSum;
use crate::codec::{Hash, Hasher, Kind, Purpose};
use crate::error::{Error, Result};
use crate::ids::DatabaseId;
use crate::storage::{EachPair, StorageEngine};
use crate::table::TableId;

/// A page of a checkpoint: which version it is, and the hash of its envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageEntry {
    pub(super) epoch: Epoch,
    pub(super) hash: Hash,
}

/// The pages of each table that has any, in order.
pub(super) type Directory = BTreeMap<TableId, Arc<Vec<PageEntry>>>;

/// A checkpoint that holds, and what its store has beside it.
#[derive(Debug)]
pub(crate) struct StoreImage {
    pub(crate) manifest: Manifest,
    pub(super) directory: Directory,
    /// The rows that are deleted and whose deletion the store still remembers.
    pub(super) tombstones: BTreeMap<(u8, u64), Epoch>,
    /// The keys of interrupted checkpoints and of removals that were not finished.
    pub(super) leftovers: Vec<Vec<u8>>,
    /// The newest epoch of any key.
    pub(super) epoch_max: Epoch,
}

/// What a restore hands to the state. Bytes have been verified one by one, but whether they are all
/// there shows only at the end: what was loaded counts when the store has been read to the end.
pub(crate) trait Loader {
    /// Begins a restore from nothing; what an earlier one loaded is thrown away.
    ///
    /// # Errors
    ///
    /// What the state finds wrong with the manifest.
    fn begin(&mut self, manifest: &Manifest) -> Result<()>;

    /// A page of a table.
    ///
    /// # Errors
    ///
    /// What the table finds wrong with it.
    fn page(&mut self, table: TableId, page: u32, bytes: &[u8]) -> Result<()>;

    /// A cold row that the older store lacks, or `None` where it was deleted.
    ///
    /// # Errors
    ///
    /// What the state finds wrong with it.
    fn owed_row(&mut self, table: u8, key: u64, row: Option<&[u8]>) -> Result<()>;
}

/// Where a store's content goes while it is verified.
pub(crate) struct Sink<'a> {
    /// Takes all pages.
    pub(crate) loader: &'a mut dyn Loader,
    /// The other store's epoch: rows that are newer than this are owed to it. `None` when it has no
    /// checkpoint and must be given everything.
    pub(crate) rows_after: Option<Epoch>,
}

/// The newest manifest of a store, after what is read has been made to survive a power cut. The
/// keys of the manifests that it supersedes are returned beside it.
///
/// # Errors
///
/// [`Error::Corrupt`] when any manifest does not open; [`Error::FormatTooNew`]; what the engine fails
/// with.
pub(super) fn newest_manifest(
    engine: &dyn StorageEngine,
    db: &DatabaseId,
) -> Result<Option<(Manifest, Vec<Vec<u8>>)>> {
    engine.sync()?;
    let mut newest: Option<Manifest> = None;
    let mut superseded = Vec::new();
    engine.scan(keys::MANIFESTS, &mut |key, sealed| {
        let manifest = Manifest::open(db, key, sealed).map_err(|e| e.of("a manifest"))?;
        // Keys ascend by epoch.
        if let Some(older) = newest.replace(manifest) {
            superseded.push(keys::manifest_key(older.epoch));
        }
        Ok(())
    })?;
    Ok(newest.map(|manifest| (manifest, superseded)))
}

/// Verifies a store from its newest manifest to the last row; `None` when it has no manifest.
///
/// # Errors
///
/// [`Error::Corrupt`] when anything that the manifest names is damaged, missing or stale;
/// [`Error::FormatTooNew`]; what the engine fails with.
pub(crate) fn read_store(
    engine: &dyn StorageEngine,
    db: &DatabaseId,
) -> Result<Option<StoreImage>> {
    let Some((manifest, superseded)) = newest_manifest(engine, db)? else { return Ok(None) };
    read_image(engine, db, manifest, superseded, None).map(Some)
}

/// As [`read_store`], of one that is read while others go on: `beat` is called with every page.
pub(super) fn read_store_beating(
    engine: &dyn StorageEngine,
    db: &DatabaseId,
    beat: &mut dyn FnMut(),
) -> Result<Option<StoreImage>> {
    let Some((manifest, superseded)) = newest_manifest(engine, db)? else { return Ok(None) };
    let into = Sink { loader: &mut Beating(beat), rows_after: Some(Epoch::ZERO) };
    read_image(engine, db, manifest, superseded, Some(into)).map(Some)
}

/// Loads nothing.
struct Beating<'a>(&'a mut dyn FnMut());

impl Loader for Beating<'_> {
    fn begin(&mut self, _: &Manifest) -> Result<()> {
        Ok(())
    }

    fn page(&mut self, _: TableId, _: u32, _: &[u8]) -> Result<()> {
        (self.0)();
        Ok(())
    }

    fn owed_row(&mut self, _: u8, _: u64, _: Option<&[u8]>) -> Result<()> {
        (self.0)();
        Ok(())
    }
}

/// Reads and verifies all that a manifest names, and hands it on if asked to.
///
/// # Errors
///
/// As [`read_store`], and what the loader refuses.
pub(super) fn read_image(
    engine: &dyn StorageEngine,
    db: &DatabaseId,
    manifest: Manifest,
    superseded: Vec<Vec<u8>>,
    mut into: Option<Sink<'_>>,
) -> Result<StoreImage> {
    if let Some(into) = &mut into {
        into.loader.begin(&manifest)?;
    }
    let mut image = StoreImage {
        epoch_max: manifest.epoch,
        manifest,
        directory: Directory::new(),
        tombstones: BTreeMap::new(),
        leftovers: superseded,
    };
    read_pages(engine, db, &mut image, &mut into)?;
    read_rows(engine, db, &mut image, &mut into)?;
    Ok(image)
}

fn read_pages(
    engine: &dyn StorageEngine,
    db: &DatabaseId,
    image: &mut StoreImage,
    into: &mut Option<Sink<'_>>,
) -> Result<()> {
    let StoreImage { manifest, directory, leftovers, epoch_max, .. } = image;
    let mut found: BTreeMap<TableId, Vec<PageEntry>> = BTreeMap::new();
    // Borrowed by both closures, one call at a time.
    let leftovers = std::cell::RefCell::new(leftovers);
    let mut pass_over = |key: &[u8], epoch: Epoch| {
        *epoch_max = (*epoch_max).max(epoch);
        leftovers.borrow_mut().push(key.to_vec());
    };
    each_newest(engine, keys::PAGES, manifest.epoch, &mut pass_over, &mut |key, sealed| {
        let page_key = PageKey::from_bytes(key).map_err(|e| e.of("a page's key"))?;
        let PageKey { table, page, epoch } = page_key;
        if manifest.tables.get(&table).is_none_or(|entry| page >= entry.pages) {
            leftovers.borrow_mut().push(key.to_vec());
            return Ok(());
        }
        let (payload, hash) = keys::open(db, Kind::Page, key, sealed)
            .map_err(|e| e.of(format!("page {page} of {table}")))?;
        let entries = found.entry(table).or_default();
        if entries.len() != page as usize {
            return Err(Error::corrupt(format!("page {} of {table}", entries.len()), "is missing"));
        }
        entries.push(PageEntry { epoch, hash });
        match into {
            Some(into) => into.loader.page(table, page, payload),
            None => Ok(()),
        }
    })?;
    for (&table, entry) in &manifest.tables {
        let entries = found.remove(&table).unwrap_or_default();
        if entries.len() != entry.pages as usize {
            let detail = format!("has {} of {} pages", entries.len(), entry.pages);
            return Err(Error::corrupt(table.to_string(), detail));
        }
        if root(&entries) != entry.meta.payload_hash {
            return Err(Error::corrupt(table.to_string(), "has a page that is stale"));
        }
        directory.insert(table, Arc::new(entries));
    }
    Ok(())
}

fn read_rows(
    engine: &dyn StorageEngine,
    db: &DatabaseId,
    image: &mut StoreImage,
    into: &mut Option<Sink<'_>>,
) -> Result<()> {
    let StoreImage { manifest, tombstones, leftovers, epoch_max, .. } = image;
    let mut found: BTreeMap<u8, ColdSum> = BTreeMap::new();
    let mut deletions = ColdSum::default();
    // Borrowed by both closures, one call at a time.
    let leftovers = std::cell::RefCell::new(leftovers);
    let mut pass_over = |key: &[u8], epoch: Epoch| {
        *epoch_max = (*epoch_max).max(epoch);
        leftovers.borrow_mut().push(key.to_vec());
    };
    each_newest(engine, keys::ROWS, manifest.epoch, &mut pass_over, &mut |stored_key, sealed| {
        let (RowKey { table, key, epoch }, row) = open_row(db, stored_key, sealed)?;
        match row {
            Some(row) => found.entry(table).or_default().add(table, key, row),
            None if epoch > manifest.deletions_after => {
                deletions.add_deletion(table, key, epoch);
                tombstones.insert((table, key), epoch);
            }
            // Forgotten, but the removal was interrupted. What it deletes is a leftover before it.
            None => leftovers.borrow_mut().push(stored_key.to_vec()),
        }
        match into {
            Some(Sink { loader, rows_after: Some(after) }) if epoch > *after => {
                loader.owed_row(table, key, row)
            }
            _ => Ok(()),
        }
    })?;
    if deletions != manifest.deletions {
        return Err(Error::corrupt("the memory of deleted rows", "is not whole"));
    }
    expect_sums(manifest, &found)
}

/// Refuses cold tables that do not have the rows that the manifest counted.
pub(super) fn expect_sums(manifest: &Manifest, found: &BTreeMap<u8, ColdSum>) -> Result<()> {
    for &table in manifest.cold.keys().chain(found.keys()) {
        let (named, found) =
            (manifest.cold_sum(table), found.get(&table).copied().unwrap_or_default());
        if named == found {
            continue;
        }
        let detail = match named.rows == found.rows {
            true => "has a row that is stale".to_owned(),
            false => format!("has {} of {} rows", found.rows, named.rows),
        };
        return Err(Error::corrupt(format!("cold table {table}"), detail));
    }
    Ok(())
}

/// The row in a stored value, verified.
pub(super) fn open_row<'a>(
    db: &DatabaseId,
    key: &[u8],
    sealed: &'a [u8],
) -> Result<(RowKey, Option<&'a [u8]>)> {
    let row_key = RowKey::from_bytes(key).map_err(|e| e.of("a cold row's key"))?;
    let row = keys::open(db, Kind::Row, key, sealed)
        .and_then(|(payload, _)| keys::row_of_payload(payload))
        .map_err(|e| e.of(format!("row {} of cold table {}", row_key.key, row_key.table)))?;
    Ok((row_key, row))
}

/// The newest version up to `epoch` of one cold row, with its key; a deletion is a version too.
pub(super) fn newest_row(
    engine: &dyn StorageEngine,
    db: &DatabaseId,
    table: u8,
    key: u64,
    epoch: Epoch,
    pass_over: &mut dyn FnMut(&[u8], Epoch),
) -> Result<Option<(RowKey, Option<Vec<u8>>)>> {
    let mut newest = None;
    let versions = keys::row_versions(table, key);
    each_newest(engine, &versions, epoch, pass_over, &mut |key, sealed| {
        let (row_key, row) = open_row(db, key, sealed)?;
        newest = Some((row_key, row.map(<[u8]>::to_vec)));
        Ok(())
    })?;
    Ok(newest)
}

/// Calls `each` with every row of a cold table from a key on, as of `epoch`, in ascending order of keys,
/// until it says that it has enough.
pub(super) fn each_row_from(
    engine: &dyn StorageEngine,
    db: &DatabaseId,
    table: u8,
    from: u64,
    epoch: Epoch,
    each: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<()> {
    let range = (&*keys::rows_of(table), &*keys::row_versions(table, from));
    let mut has_enough = false;
    let scanned = each_newest_from(engine, range, epoch, &mut |_, _| (), &mut |key, sealed| {
        let (RowKey { key, .. }, row) = open_row(db, key, sealed)?;
        has_enough = row.is_some_and(|row| each(key, row).is_break());
        // A scan ends early with an error alone; nobody sees this one.
        if has_enough { Err(Error::Closed) } else { Ok(()) }
    });
    if has_enough { Ok(()) } else { scanned }
}

/// Calls `each` with the newest version up to `epoch` of everything whose key starts with `prefix`,
/// in ascending order of keys, and `pass_over` with the keys of all other versions.
pub(super) fn each_newest(
    engine: &dyn StorageEngine,
    prefix: &[u8],
    epoch: Epoch,
    pass_over: &mut dyn FnMut(&[u8], Epoch),
    each: &mut EachPair<'_>,
) -> Result<()> {
    each_newest_from(engine, (prefix, prefix), epoch, pass_over, each)
}

/// As [`each_newest`], of what starts with a prefix and lies at a key or behind it.
fn each_newest_from(
    engine: &dyn StorageEngine,
    (prefix, start): (&[u8], &[u8]),
    epoch: Epoch,
    pass_over: &mut dyn FnMut(&[u8], Epoch),
    each: &mut EachPair<'_>,
) -> Result<()> {
    // The newest version so far of the thing that the scan is at.
    let mut held: Option<(Vec<u8>, Vec<u8>)> = None;
    engine.scan_from(prefix, start, &mut |key, value| {
        let (thing, version) = keys::split(key).map_err(|e| e.of("a key"))?;
        if version > epoch {
            pass_over(key, version);
            return Ok(());
        }
        if let Some((held_key, held_value)) = held.take() {
            let (held_thing, held_version) = keys::split(&held_key).map_err(|e| e.of("a key"))?;
            match held_thing == thing {
                true => pass_over(&held_key, held_version),
                false => each(&held_key, &held_value)?,
            }
        }
        held = Some((key.to_vec(), value.to_vec()));
        Ok(())
    })?;
    held.map_or(Ok(()), |(key, value)| each(&key, &value))
}

/// The root over a table's pages.
pub(super) fn root(entries: &[PageEntry]) -> Hash {
    let mut hasher = Hasher::new(Purpose::Root);
    for entry in entries {
        hasher.update(&entry.epoch.get().to_le_bytes()).update(&entry.hash);
    }
    hasher.finish()
}

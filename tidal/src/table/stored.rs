//! A table on its own in a storage engine, for surfaces that stand alone.
//!
//! Knows: pages under keys of the caller's, each in an envelope, and the root over their hashes. Must
//! not know: what a row means, checkpoints of a database.
//!
//! A page lies at `prefix | page u32 BE`. The caller commits all pages and what it knows of them in one
//! batch, so a crash leaves the batch before or this one.

use super::{DurableTable, StoreSlot, TableCut};
use crate::codec::{self, Hasher, Kind};
use crate::error::{Error, Result};
use crate::storage::{StorageEngine, WriteOp};

const VERSION: u16 = 1;

/// Puts every page of a table into the batch; the shape of the table.
pub(crate) fn put_pages(
    table: &dyn DurableTable,
    prefix: &[u8],
    root: &mut Hasher,
    ops: &mut Vec<WriteOp>,
) -> TableCut {
    table.owe_all(StoreSlot::A);
    let cut = table.begin_cut(StoreSlot::A);
    let mut pages = Vec::new();
    while table.take_pages(usize::MAX, &mut pages) {}
    table.end_cut(StoreSlot::A, true);
    pages.sort_unstable_by_key(|image| image.page);
    for image in pages {
        let key = key_of(prefix, image.page);
        let (value, hash) = codec::seal(Kind::Page, VERSION, &[&key], &image.bytes);
        root.update(&hash);
        ops.push(WriteOp::Put { key, value });
    }
    cut
}

/// Restores an empty table of this shape from what [`put_pages`] put; `what` names it in errors.
///
/// # Errors
///
/// [`Corrupt`](Error::Corrupt) when a page is missing or damaged, or the rows are not as announced; what
/// the storage fails with.
pub(crate) fn restore_pages(
    table: &dyn DurableTable,
    shape: TableCut,
    storage: &(impl StorageEngine + ?Sized),
    prefix: &[u8],
    root: &mut Hasher,
    what: &str,
) -> Result<()> {
    table.begin_restore(shape).map_err(|e| e.of(what))?;
    for page in 0..shape.pages {
        let key = key_of(prefix, page);
        let missing = || Error::corrupt(what, format!("page {page} is missing"));
        let sealed = storage.get(&key)?.ok_or_else(missing)?;
        let (_, payload, hash) =
            codec::open(Kind::Page, VERSION, &[&key], &sealed).map_err(|e| e.of(what))?;
        root.update(&hash);
        table.restore_page(page, payload).map_err(|e| e.of(what))?;
    }
    table.end_restore(shape.rows, [true; 2]).map_err(|e| e.of(what))
}

fn key_of(prefix: &[u8], page: u32) -> Vec<u8> {
    [prefix, &page.to_be_bytes()].concat()
}

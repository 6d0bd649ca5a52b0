//! Rows of a cold table in ascending order, out of a store and of those that wait.
//!
//! Knows: that what waits supersedes what the store has, and is looked at in parts. Must not know: stores,
//! which checkpoint is the newest.

use std::collections::btree_map;
use std::iter::Peekable;
use std::ops::ControlFlow;

use crate::error::Result;
use crate::table::{ColdRow, ColdTable, PendingRows};

/// A row of a cold table under its key.
pub(crate) type KeyedRow = (u64, Vec<u8>);

/// The rows that wait in a cold table from a key on, in ascending order, at most `limit` of them: all
/// there are where there is no store.
pub(crate) fn waiting_rows(table: &ColdTable, from: u64, limit: usize) -> Vec<(u64, Vec<u8>)> {
    let page = |from, limit| Ok(Merge::new(table, from, limit).finish());
    pages(from, limit, page).expect("memory can be read")
}

/// Rows in ascending order, and from where on there may be more.
pub(super) struct Page {
    rows: Vec<KeyedRow>,
    next: Option<u64>,
}

/// Asks for pages from a key on until there are `limit` rows, or no more.
pub(super) fn pages(
    from: u64,
    limit: usize,
    mut page: impl FnMut(u64, usize) -> Result<Page>,
) -> Result<Vec<KeyedRow>> {
    let (mut rows, mut next) = (Vec::new(), Some(from));
    while let Some(from) = next
        && rows.len() < limit
    {
        let found = page(from, limit - rows.len())?;
        rows.extend(found.rows);
        next = found.next;
    }
    Ok(rows)
}

/// How many waiting rows are looked at in each layer for a page: many may be deletions. Tests have few
/// rows, and want many pages.
const PENDING_PER_PAGE_MIN: usize = if cfg!(test) { 2 } else { 1_024 };

/// Rows of a store, in ascending order, and those that wait and supersede them.
pub(super) struct Merge {
    waiting: Peekable<btree_map::IntoIter<u64, ColdRow>>,
    /// More may wait behind this key.
    through: u64,
    rows: Vec<KeyedRow>,
    limit: usize,
}

impl Merge {
    pub(super) fn new(table: &ColdTable, from: u64, limit: usize) -> Self {
        let PendingRows { rows, through } =
            table.pending_from(from, limit.max(PENDING_PER_PAGE_MIN));
        Self { waiting: rows.into_iter().peekable(), through, rows: Vec::new(), limit }
    }

    pub(super) fn has_enough(&self) -> bool {
        self.rows.len() >= self.limit
    }

    /// Takes the next row of the store, after all that wait before it.
    pub(super) fn stored(&mut self, key: u64, row: &[u8]) -> ControlFlow<()> {
        if key > self.through {
            return ControlFlow::Break(());
        }
        self.take_waiting(|waiting| waiting < key);
        let superseded = self.waiting.peek().is_some_and(|&(waiting, _)| waiting == key);
        if !superseded && !self.has_enough() {
            self.rows.push((key, row.to_vec()));
        }
        if self.has_enough() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    pub(super) fn finish(mut self) -> Page {
        self.take_waiting(|_| true);
        Page { rows: self.rows, next: self.through.checked_add(1) }
    }

    fn take_waiting(&mut self, is_next: impl Fn(u64) -> bool) {
        while !self.has_enough()
            && let Some((key, row)) = self.waiting.next_if(|&(key, _)| is_next(key))
        {
            // A deletion supersedes what the store has, and is nothing itself.
            self.rows.extend(row.map(|row| (key, row.to_vec())));
        }
    }
}

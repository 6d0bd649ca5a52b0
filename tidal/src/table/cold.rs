//! Cold tables: rows that are read from the stores, and wait in memory only until both have them.
//!
//! Knows: which rows a store has not taken yet. Must not know: stores, what a row means, threads.
//!
//! New rows go into the *active* map. A cut freezes it into a *layer*, in O(1), so that the writer
//! goes on in a new one. A layer is owed to each store that has not committed a checkpoint with it;
//! one that is owed to nobody is dropped. A store takes all layers that it is owed at once, so the
//! layers it is owed are always the newest ones; a row that waits in a layer therefore has every
//! newer version of itself waiting too, and "the newest layer wins" is right for each store.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::StoreSlot;
use crate::sync::RwLock;

/// What waits for a store under a key: a row, or `None` where it was deleted.
pub(crate) type ColdRow = Option<Arc<[u8]>>;

type Rows = BTreeMap<u64, ColdRow>;

/// What a waiting row costs beside its bytes: the map's entry with its slack, the counters.
const ROW_OVERHEAD_BYTES: u64 = 64;

/// Rows keyed by a number, whose home are the checkpoint stores.
#[derive(Debug)]
pub(crate) struct ColdTable {
    id: u8,
    waiting: RwLock<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    active: Rows,
    active_size_bytes: u64,
    /// Oldest first.
    layers: Vec<Layer>,
    /// For each store: it has every row that does not wait for it. A store that was not there
    /// before has nothing, whatever is owed to it.
    based: [bool; 2],
    /// The store that the cut in progress is for.
    cut: Option<StoreSlot>,
}

#[derive(Debug, Clone)]
struct Layer {
    rows: Arc<Rows>,
    size_bytes: u64,
    owed: [bool; 2],
}

/// Rows that wait, from a key on.
#[derive(Debug)]
pub(crate) struct PendingRows {
    /// The newest version of each, in ascending order.
    pub(crate) rows: BTreeMap<u64, ColdRow>,
    /// These are all that wait through this key; the largest one there is if no row waits behind.
    pub(crate) through: u64,
}

/// The rows of a cold table that a store lacked at a cut.
#[derive(Debug)]
pub(crate) struct ColdCut {
    /// Oldest first.
    layers: Vec<Arc<Rows>>,
    /// The store has nothing of this table: rows that do not wait must come from the other store.
    pub(crate) whole: bool,
}

impl ColdCut {
    /// The rows in ascending order of keys, the newest version of each.
    pub(crate) fn rows(&self) -> BTreeMap<u64, ColdRow> {
        newest_rows(self.layers.iter().map(Arc::as_ref))
    }
}

impl ColdTable {
    /// An empty table that no store has seen.
    pub(crate) fn new(id: u8) -> Self {
        Self { id, waiting: RwLock::default() }
    }

    /// The number that names the table on disk.
    pub(crate) const fn id(&self) -> u8 {
        self.id
    }

    /// Sets a row, or deletes it.
    pub(crate) fn put(&self, key: u64, row: Option<Vec<u8>>) {
        let row: ColdRow = row.map(Arc::from);
        let mut waiting = self.waiting.write();
        waiting.active_size_bytes += size_bytes(&row);
        if let Some(replaced) = waiting.active.insert(key, row) {
            waiting.active_size_bytes -= size_bytes(&replaced);
        }
    }

    /// What waits under a key; `Some(None)` is a deletion. Where nothing waits, both stores have
    /// what there is.
    pub(crate) fn pending(&self, key: u64) -> Option<ColdRow> {
        let waiting = self.waiting.read();
        waiting
            .active
            .get(&key)
            .cloned()
            .or_else(|| waiting.layers.iter().rev().find_map(|layer| layer.rows.get(&key).cloned()))
    }

    /// The memory that waiting rows take, in bytes.
    pub(crate) fn pending_size_bytes(&self) -> u64 {
        let waiting = self.waiting.read();
        waiting.active_size_bytes + waiting.layers.iter().map(|layer| layer.size_bytes).sum::<u64>()
    }

    /// The rows that wait for `store`, or for any store where it is `None`.
    pub(crate) fn pending_rows(&self, store: Option<StoreSlot>) -> BTreeMap<u64, ColdRow> {
        let waiting = self.waiting.read();
        let layers = waiting
            .layers
            .iter()
            .filter(|layer| store.is_none_or(|store| layer.owed[store as usize]))
            .map(|layer| layer.rows.as_ref());
        newest_rows(layers.chain([&waiting.active]))
    }

    /// The rows that wait under a key of `from` or later, at most `count_max` of each layer.
    pub(crate) fn pending_from(&self, from: u64, count_max: usize) -> PendingRows {
        let waiting = self.waiting.read();
        let (mut newest, mut through) = (Rows::new(), u64::MAX);
        for rows in waiting.layers.iter().map(|layer| layer.rows.as_ref()).chain([&waiting.active])
        {
            let mut rows = rows.range(from..);
            let first = rows.by_ref().take(count_max);
            newest.extend(first.map(|(&key, row)| (key, row.clone())));
            if let Some((&next, _)) = rows.next() {
                through = through.min(next - 1);
            }
        }
        drop(waiting);
        // What lies beyond is not the newest version perhaps, or not all there is.
        newest.retain(|&key, _| key <= through);
        PendingRows { rows: newest, through }
    }

    /// Freezes what `store` lacks. O(1) but for a handful of layers.
    ///
    /// # Panics
    ///
    /// When the last cut has not ended.
    pub(crate) fn begin_cut(&self, store: StoreSlot) -> ColdCut {
        let mut waiting = self.waiting.write();
        assert!(waiting.cut.is_none(), "one cut of a cold table at a time");
        waiting.cut = Some(store);
        waiting.freeze();
        ColdCut {
            layers: waiting
                .layers
                .iter()
                .filter(|layer| layer.owed[store as usize])
                .map(|layer| Arc::clone(&layer.rows))
                .collect(),
            whole: !waiting.based[store as usize],
        }
    }

    /// Ends the cut: its rows are the store's now, or still owed.
    ///
    /// # Panics
    ///
    /// When no cut for `store` was begun.
    pub(crate) fn end_cut(&self, store: StoreSlot, committed: bool) {
        let mut waiting = self.waiting.write();
        assert_eq!(waiting.cut.take(), Some(store), "the cut that ends is the one that was begun");
        if committed {
            // Layers are made by cuts alone, so every layer there is belonged to this one.
            waiting.layers.iter_mut().for_each(|layer| layer.owed[store as usize] = false);
            waiting.layers.retain(|layer| layer.owed != [false, false]);
            waiting.based[store as usize] = true;
        }
        drop(waiting);
        self.merge_layers();
    }

    /// The store has nothing of this table any more.
    pub(crate) fn owe_all(&self, store: StoreSlot) {
        let mut waiting = self.waiting.write();
        waiting.based[store as usize] = false;
        waiting.layers.iter_mut().for_each(|layer| layer.owed[store as usize] = true);
    }

    /// A row that the other store has and `store` lacks, found at open.
    pub(crate) fn restore_owed(&self, key: u64, row: Option<&[u8]>, store: StoreSlot) {
        let row: ColdRow = row.map(Arc::from);
        let added_bytes = size_bytes(&row);
        let mut waiting = self.waiting.write();
        assert!(waiting.active.is_empty(), "rows are restored before any is put");
        let mut owed = [false; 2];
        owed[store as usize] = true;
        if waiting.layers.last().is_none_or(|layer| layer.owed != owed) {
            waiting.layers.push(Layer { rows: Arc::default(), size_bytes: 0, owed });
        }
        let layer = waiting.layers.last_mut().expect("a layer was just made sure of");
        layer.size_bytes += added_bytes;
        if let Some(replaced) = Arc::make_mut(&mut layer.rows).insert(key, row) {
            layer.size_bytes -= size_bytes(&replaced);
        }
    }

    /// Ends the restore: says of each store whether it has a checkpoint that holds.
    pub(crate) fn end_restore(&self, stores_based: [bool; 2]) {
        self.waiting.write().based = stores_based;
    }

    /// Merges neighbours that are owed alike until each is more than twice as large as the next, so
    /// that their number grows with the logarithm of the rows while a store is away, and each row
    /// is copied that often at most. The copying is done beside the lock.
    fn merge_layers(&self) {
        loop {
            let found = self.waiting.read().mergeable();
            let Some((index, older, newer)) = found else { return };
            let merged = older.merged_with(&newer);
            let mut waiting = self.waiting.write();
            let is_unchanged = waiting
                .layers
                .get(index + 1)
                .is_some_and(|next| next.is_same(&newer) && waiting.layers[index].is_same(&older));
            if is_unchanged {
                waiting.layers.splice(index..=index + 1, [merged]);
            }
        }
    }
}

impl Waiting {
    fn freeze(&mut self) {
        if self.active.is_empty() {
            return;
        }
        self.layers.push(Layer {
            rows: Arc::new(std::mem::take(&mut self.active)),
            size_bytes: std::mem::take(&mut self.active_size_bytes),
            owed: [true, true],
        });
    }

    fn mergeable(&self) -> Option<(usize, Layer, Layer)> {
        let index = self.layers.windows(2).rposition(|pair| {
            pair[0].owed == pair[1].owed && pair[0].rows.len() <= 2 * pair[1].rows.len()
        })?;
        Some((index, self.layers[index].clone(), self.layers[index + 1].clone()))
    }
}

impl Layer {
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rows, &other.rows) && self.owed == other.owed
    }

    fn merged_with(&self, newer: &Self) -> Self {
        let mut rows = Rows::clone(&self.rows);
        let mut size = self.size_bytes + newer.size_bytes;
        for (&key, row) in newer.rows.iter() {
            if let Some(replaced) = rows.insert(key, row.clone()) {
                size -= size_bytes(&replaced);
            }
        }
        Self { rows: Arc::new(rows), size_bytes: size, owed: self.owed }
    }
}

fn size_bytes(row: &ColdRow) -> u64 {
    ROW_OVERHEAD_BYTES + row.as_ref().map_or(0, |bytes| bytes.len() as u64)
}

/// The newest version of each row; `layers` oldest first.
fn newest_rows<'a>(layers: impl Iterator<Item = &'a Rows>) -> BTreeMap<u64, ColdRow> {
    let mut newest = BTreeMap::new();
    for rows in layers {
        newest.extend(rows.iter().map(|(&key, row)| (key, row.clone())));
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::StoreSlot::{A, B};
    use super::*;

    fn row(text: &str) -> ColdRow {
        Some(Arc::from(text.as_bytes()))
    }

    fn put(table: &ColdTable, key: u64, text: &str) {
        table.put(key, Some(text.as_bytes().to_vec()));
    }

    fn checkpoint(table: &ColdTable, store: StoreSlot) -> Vec<(u64, ColdRow)> {
        let rows = table.begin_cut(store).rows().into_iter().collect();
        table.end_cut(store, true);
        rows
    }

    #[test]
    fn a_row_waits_until_both_stores_have_it() {
        let table = ColdTable::new(1);
        put(&table, 7, "x");
        assert_eq!(checkpoint(&table, A), [(7, row("x"))]);
        assert_eq!(table.pending(7), Some(row("x")));
        assert_eq!(checkpoint(&table, A), [], "a store takes a row once");
        assert_eq!(table.pending(7), Some(row("x")));
        assert_eq!(checkpoint(&table, B), [(7, row("x"))]);
        assert_eq!(table.pending(7), None);
        assert_eq!(table.pending_size_bytes(), 0);
    }

    #[test]
    fn a_store_takes_the_newest_version_and_the_cut_does_not_see_what_comes_later() {
        let table = ColdTable::new(1);
        put(&table, 1, "old");
        assert_eq!(checkpoint(&table, A), [(1, row("old"))]);
        table.put(1, None);
        let cut = table.begin_cut(B);
        put(&table, 1, "later");
        assert_eq!(cut.rows().into_iter().collect::<Vec<_>>(), [(1, None)]);
        table.end_cut(B, true);
        assert_eq!(table.pending(1), Some(row("later")));
        assert_eq!(checkpoint(&table, A), [(1, row("later"))]);
        assert_eq!(checkpoint(&table, B), [(1, row("later"))]);
        assert_eq!(table.pending(1), None);
    }

    #[test]
    fn a_part_of_what_waits_ends_where_the_newest_versions_are_not_all_known() {
        let table = ColdTable::new(1);
        [1, 5, 9].into_iter().for_each(|key| put(&table, key, "old"));
        checkpoint(&table, A);
        [2, 3, 5].into_iter().for_each(|key| put(&table, key, "new"));
        let part = |from, count_max| {
            let found = table.pending_from(from, count_max);
            let keys: Vec<u64> = found.rows.into_keys().collect();
            (keys, found.through)
        };
        // Of 5 the old version is all that was looked at.
        assert_eq!(part(0, 2), (vec![1, 2, 3], 4));
        assert_eq!(part(0, 3), (vec![1, 2, 3, 5, 9], u64::MAX));
        assert_eq!(part(4, 1), (vec![5], 8));
        assert_eq!(part(10, 1), (vec![], u64::MAX));
        assert_eq!(table.pending_from(5, 1).rows[&5], row("new"));
    }

    #[test]
    fn a_failed_cut_is_owed_again() {
        let table = ColdTable::new(1);
        put(&table, 1, "x");
        drop(table.begin_cut(A));
        table.end_cut(A, false);
        put(&table, 2, "y");
        assert_eq!(checkpoint(&table, A), [(1, row("x")), (2, row("y"))]);
    }

    #[test]
    fn a_store_that_is_new_is_told_that_it_needs_all() {
        let table = ColdTable::new(1);
        assert!(table.begin_cut(A).whole);
        table.end_cut(A, true);
        assert!(!table.begin_cut(A).whole);
        table.end_cut(A, true);
        put(&table, 1, "x");
        checkpoint(&table, A);
        table.owe_all(A);
        let cut = table.begin_cut(A);
        assert!(cut.whole);
        assert_eq!(cut.rows().len(), 1, "what the other store lacks cannot be copied from there");
        table.end_cut(A, true);
    }

    #[test]
    fn layers_stay_few_while_a_store_is_away_and_no_row_is_lost() {
        let table = ColdTable::new(1);
        for round in 0..1_000_u64 {
            for key in 0..4 {
                put(&table, round * 3 + key, &round.to_string());
            }
            assert_eq!(checkpoint(&table, A).len(), 4);
            let layers = table.waiting.read().layers.len();
            assert!(layers <= 12, "{layers} layers after {round} rounds");
        }
        let rows = checkpoint(&table, B);
        assert_eq!(rows.len(), 3_001);
        for (key, found) in rows {
            // The last key of a round is written again as the first of the next one.
            assert_eq!(found, row(&(key / 3).min(999).to_string()), "key {key}");
        }
        assert_eq!(table.pending_size_bytes(), 0);
    }

    #[test]
    fn memory_is_counted_once_per_waiting_version() {
        let table = ColdTable::new(1);
        for text in ["a longer text", "short"] {
            put(&table, 1, text);
        }
        assert_eq!(table.pending_size_bytes(), ROW_OVERHEAD_BYTES + 5);
        checkpoint(&table, A);
        put(&table, 1, "xy");
        checkpoint(&table, A);
        assert_eq!(table.pending_size_bytes(), ROW_OVERHEAD_BYTES + 2, "merging drops the older");
    }

    #[test]
    fn rows_restored_for_one_store_are_taken_by_that_store_alone() {
        let table = ColdTable::new(1);
        table.restore_owed(1, Some(b"x"), B);
        table.restore_owed(2, None, B);
        table.end_restore([true, true]);
        assert_eq!(checkpoint(&table, A), []);
        assert_eq!(checkpoint(&table, B), [(1, row("x")), (2, None)]);
        assert_eq!(table.pending(1), None);
    }
}

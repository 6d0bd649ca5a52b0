//! A table that is written beside checkpoints, under every schedule that shuttle finds.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::StoreSlot::{A, B};
use super::{
    DurableTable, PageImage, Row, Slab, Slot, StateTable, StoreSlot, Table, TableCut, TableId,
};
use crate::codec::{DecodeError, Put, Reader};
use crate::sync::{Mutex, explore, thread};

const PAGE_ROWS: usize = 64;

#[derive(Debug, Clone, PartialEq)]
struct Numbers {
    key: u64,
    value: u64,
}

impl Row for Numbers {
    type Key = u64;
    type Side = ();

    fn key(&self) -> &u64 {
        &self.key
    }

    fn hash(key: &u64) -> u64 {
        super::hash_u64(*key)
    }

    fn encode(&self, _: Slot, (): &(), out: &mut Vec<u8>) {
        out.put_u64(self.key);
        out.put_u64(self.value);
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, (): &mut ()) -> Result<Self, DecodeError> {
        Ok(Self { key: reader.u64()?, value: reader.u64()? })
    }

    fn side_size_bytes((): &()) -> usize {
        0
    }
}

/// The rows by slot, as plainly as they can be kept.
#[derive(Default, Clone)]
struct Model(BTreeMap<Slot, Numbers>);

impl Model {
    fn pages(&self) -> usize {
        self.0.last_key_value().map_or(0, |(&slot, _)| slot as usize / PAGE_ROWS + 1)
    }

    /// A page as the head of `slab.rs` says that it lies on disk.
    fn page(&self, page: usize) -> Vec<u8> {
        let first = (page * PAGE_ROWS) as Slot;
        let mut live = 0u64;
        let mut rows = Vec::new();
        for (slot, row) in self.0.range(first..first + PAGE_ROWS as Slot) {
            live |= 1 << (slot - first);
            row.encode(*slot, &(), &mut rows);
        }
        [live.to_le_bytes().to_vec(), rows].concat()
    }
}

struct World {
    table: Table<Numbers>,
    /// Held for a change and for the beginning of a cut, which in an engine are one thread's.
    model: Mutex<Model>,
}

impl World {
    fn with_rows(rows: u64) -> Self {
        let id = TableId { kind: 9, part: 0 };
        let world = Self { table: Table::new(id, ()), model: Mutex::default() };
        (0..rows).for_each(|key| world.put(key, key));
        world
    }

    fn put(&self, key: u64, value: u64) {
        let mut model = self.model.lock();
        let row = Numbers { key, value };
        let mut slab: crate::sync::RwLockWriteGuard<'_, Slab<Numbers>> = self.table.write();
        slab.put(row.clone());
        let slot = slab.find(&key).expect("it was just put");
        model.0.insert(slot, row);
    }

    fn remove(&self, key: u64) {
        let mut model = self.model.lock();
        let (slot, _) = self.table.write().remove(&key).expect("it is there");
        model.0.remove(&slot);
    }

    fn begin_cut(&self, store: StoreSlot) -> (TableCut, Model) {
        let model = self.model.lock();
        (self.table.begin_cut(store), model.clone())
    }
}

/// What a store has of the table.
#[derive(Default)]
struct Store(BTreeMap<u32, Vec<u8>>);

impl Store {
    /// Writes a checkpoint, as far as `pages_max` pages; says whether it was all of it.
    fn checkpoint(&mut self, world: &World, store: StoreSlot, pages_max: usize) {
        let (cut, at_cut) = world.begin_cut(store);
        let mut taken: Vec<PageImage> = Vec::new();
        let mut is_more = true;
        while is_more && taken.len() < pages_max {
            is_more = world.table.take_pages(1, &mut taken);
        }
        if taken.len() >= pages_max {
            return world.table.end_cut(store, false);
        }
        assert_eq!(taken.len(), cut.owed as usize, "each page that was owed, once");
        self.0.extend(taken.into_iter().map(|page| (page.page, page.bytes)));
        world.table.end_cut(store, true);
        assert!(cut.pages as usize >= at_cut.pages());
        assert_eq!(cut.rows, at_cut.0.len() as u64);
        for page in 0..cut.pages {
            let stored = &self.0[&page];
            assert!(
                *stored == at_cut.page(page as usize),
                "page {page} is not as it was at the cut"
            );
        }
    }
}

#[test]
fn stores_get_every_page_as_it_was_at_the_cut_while_a_writer_changes_them() {
    explore(2_000, || {
        // Two pages with one vacancy: the second row that is new begins a page.
        let world = Arc::new(World::with_rows(2 * PAGE_ROWS as u64 - 1));
        let writing = Arc::clone(&world);
        let writer = thread::spawn(move || {
            for round in 1..4 {
                writing.put(3, 1_000 + round);
                writing.put(100, 2_000 + round);
                writing.put(5_000 + round, 0);
                writing.remove(60 + round);
            }
        });
        let mut stores = [Store::default(), Store::default()];
        let all = usize::MAX;
        for (store, pages_max) in [(A, all), (B, 1), (B, all), (A, 2), (A, all), (B, all)] {
            stores[store as usize].checkpoint(&world, store, pages_max);
        }
        writer.join().expect("the writer ends well");
        world.table.check().expect("the table is sound");
        // Whatever the schedule was, now each store can be brought up to date.
        for store in StoreSlot::BOTH {
            stores[store as usize].checkpoint(&world, store, all);
            stores[store as usize].checkpoint(&world, store, all);
        }
    });
}

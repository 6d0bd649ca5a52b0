//! A database in small: a list of operations as its log, two tables, two cold tables, two stores.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fakes::{FakeTable, Pairs, TestEngine};
use crate::checkpoint::keys::Epoch;
use crate::checkpoint::write::Written;
use crate::checkpoint::{ColdSum, Cut, Loaded, Loader, Manifest, Position, SlotState, StorePair};
use crate::error::{Error, Result};
use crate::ids::{DatabaseId, Timestamp};
use crate::seq::Seq;
use crate::storage::StorageEngine;
use crate::table::StoreSlot::{self, A, B};
use crate::table::{ColdTable, DurableTable, TableCut, TableId};

pub(super) const DB: DatabaseId = DatabaseId::new([7; 16]);
const TABLES: [TableId; 3] =
    [TableId { kind: 1, part: 0 }, TableId { kind: 1, part: 300 }, TableId { kind: 2, part: 0 }];
const COLD_TABLES: [u8; 2] = [1, 9];

#[derive(Debug, Clone)]
pub(super) enum Op {
    Page { table: usize, page: usize, bytes: Vec<u8> },
    Shrink { table: usize, pages: usize },
    Row { table: usize, key: u64, row: Option<Vec<u8>> },
}

/// Deterministic numbers (xorshift, Marsaglia 2003).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    pub(super) fn op(&mut self) -> Op {
        let bytes = |random: &mut Self| {
            let len = random.below(9);
            (0..len).map(|_| random.below(256) as u8).collect::<Vec<u8>>()
        };
        match self.below(20) {
            0 => Op::Shrink { table: self.below(2) as usize, pages: self.below(4) as usize },
            1..8 => Op::Page {
                table: self.below(2) as usize,
                page: self.below(6) as usize,
                bytes: bytes(self),
            },
            kind => Op::Row {
                table: self.below(2) as usize,
                key: self.below(12),
                row: (kind < 15).then(|| bytes(self)),
            },
        }
    }
}

/// The tables; what the state room will be.
pub(super) struct State {
    pub(super) tables: Vec<Arc<FakeTable>>,
    pub(super) cold: Vec<Arc<ColdTable>>,
}

impl State {
    fn new() -> Self {
        Self {
            tables: TABLES.iter().map(|&id| Arc::new(FakeTable::new(id))).collect(),
            cold: COLD_TABLES.iter().map(|&id| Arc::new(ColdTable::new(id))).collect(),
        }
    }

    fn apply(&self, op: &Op) {
        match op.clone() {
            Op::Page { table, page, bytes } => self.tables[table].set(page, bytes),
            Op::Shrink { table, pages } => self.tables[table].shrink(pages),
            Op::Row { table, key, row } => self.cold[table].put(key, row),
        }
    }
}

/// What the operations make of a database without any store.
#[derive(Default, PartialEq, Eq, Debug)]
struct Model {
    pages: [Vec<Vec<u8>>; 3],
    rows: BTreeMap<(u8, u64), Vec<u8>>,
}

impl Model {
    fn of(ops: &[Op]) -> Self {
        let mut model = Self::default();
        for op in ops {
            match op.clone() {
                Op::Page { table, page, bytes } => {
                    let pages = &mut model.pages[table];
                    let page = page.min(pages.len());
                    match pages.get_mut(page) {
                        Some(there) => *there = bytes,
                        None => pages.push(bytes),
                    }
                }
                Op::Shrink { table, pages } => model.pages[table].truncate(pages),
                Op::Row { table, key, row } => {
                    let key = (COLD_TABLES[table], key);
                    match row {
                        Some(row) => model.rows.insert(key, row),
                        None => model.rows.remove(&key),
                    };
                }
            }
        }
        model
    }
}

pub(super) struct World {
    pub(super) ops: Vec<Op>,
    pub(super) state: State,
    pub(super) engines: [Arc<TestEngine>; 2],
    pub(super) pair: StorePair,
}

pub(super) fn dynamic(engine: &Arc<TestEngine>) -> Arc<dyn StorageEngine> {
    Arc::clone(engine) as Arc<dyn StorageEngine>
}

impl World {
    pub(super) fn new() -> Self {
        let engines = [(); 2].map(|()| TestEngine::with(Pairs::new()));
        let pair = StorePair::fresh(DB, engines.each_ref().map(dynamic));
        Self { ops: Vec::new(), state: State::new(), engines, pair }
    }

    pub(super) fn apply(&mut self, op: Op) {
        self.state.apply(&op);
        self.ops.push(op);
    }

    pub(super) fn apply_random(&mut self, random: &mut Random, count: usize) {
        (0..count).for_each(|_| self.apply(random.op()));
    }

    pub(super) fn put(&mut self, table: usize, key: u64, text: &str) {
        self.apply(Op::Row { table, key, row: Some(text.as_bytes().to_vec()) });
    }

    pub(super) fn delete(&mut self, table: usize, key: u64) {
        self.apply(Op::Row { table, key, row: None });
    }

    pub(super) fn set_page(&mut self, table: usize, page: usize, text: &str) {
        self.apply(Op::Page { table, page, bytes: text.as_bytes().to_vec() });
    }

    pub(super) fn cut(&self, store: StoreSlot) -> Cut {
        let at = Position {
            seq: Seq::new(self.ops.len() as u64),
            frame_hash: [self.ops.len() as u8; 16],
            time: Timestamp::from_secs(self.ops.len() as u64),
        };
        let tables = self.state.tables.iter().map(|t| Arc::clone(t) as Arc<dyn DurableTable>);
        Cut::begin(store, at, b"header".to_vec(), tables, self.state.cold.iter().cloned())
    }

    pub(super) fn try_checkpoint(&self) -> Result<Written> {
        let target = self.pair.target().expect("a store's turn");
        let turn = self.pair.begin_checkpoint(&mut || ());
        self.pair.checkpoint(&turn, self.cut(target), &mut |_| ())
    }

    pub(super) fn checkpoint(&self) -> Written {
        self.try_checkpoint().unwrap()
    }

    /// Puts a new store in the place of one that is lost.
    pub(super) fn replace(&mut self, slot: StoreSlot) {
        let engine = TestEngine::with(Pairs::new());
        self.pair.replace(slot, dynamic(&engine)).unwrap();
        self.engines[slot as usize] = engine;
        self.state.tables.iter().for_each(|table| table.owe_all(slot));
        self.state.cold.iter().for_each(|table| table.owe_all(slot));
    }

    /// Everything must be as the operations say: pages, rows, sums, wherever they are read from.
    pub(super) fn check(&self) {
        let model = Model::of(&self.ops);
        for (table, pages) in self.state.tables.iter().zip(&model.pages) {
            assert_eq!(table.pages(), *pages, "{}", table.id());
        }
        for table in &self.state.cold {
            let mut sum = ColdSum::default();
            for key in 0..16 {
                let expected = model.rows.get(&(table.id(), key));
                let found = self.pair.row(table, key).unwrap();
                assert_eq!(found.as_ref(), expected, "row {key} of cold table {}", table.id());
                expected.iter().for_each(|row| sum.add(table.id(), key, row));
            }
            assert_eq!(self.pair.cold_sum(table).unwrap(), sum, "cold table {}", table.id());
            for (from, limit) in [(0, 20), (0, 3), (2, 1), (5, 0), (5, 4), (11, 20), (12, 20)] {
                let expected = model.rows.range((table.id(), from)..(table.id() + 1, 0));
                let expected = expected.take(limit).map(|(&(_, key), row)| (key, row.clone()));
                let found = self.pair.rows_from(table, from, limit).unwrap();
                assert!(expected.eq(found), "{limit} of cold table {} from {from}", table.id());
            }
        }
    }

    /// The process ends here; another one opens what lies in `engines`.
    pub(super) fn reopen(&self, engines: [Arc<TestEngine>; 2]) -> World {
        self.reopen_with(engines.each_ref().map(|engine| Ok(dynamic(engine))), engines)
    }

    pub(super) fn reopen_with(
        &self,
        found: [Result<Arc<dyn StorageEngine>>; 2],
        engines: [Arc<TestEngine>; 2],
    ) -> World {
        let mut loading = Loading::default();
        let (pair, loaded) = StorePair::open(DB, found, &mut loading).unwrap();
        let Some(loaded) = loaded else {
            // The log has everything from the first operation on.
            let engines = [(); 2].map(|()| TestEngine::with(Pairs::new()));
            let pair = StorePair::fresh(DB, engines.each_ref().map(dynamic));
            let state = State::new();
            self.ops.iter().for_each(|op| state.apply(op));
            return World { ops: self.ops.clone(), state, engines, pair };
        };
        let state = loading.finish(&loaded);
        let from = loaded.image.manifest.seq.get() as usize;
        self.ops[from..].iter().for_each(|op| state.apply(op));
        let mut world = World { ops: self.ops.clone(), state, engines, pair };
        world.replace_failed();
        world
    }

    pub(super) fn replace_failed(&mut self) {
        for slot in StoreSlot::BOTH {
            if matches!(self.pair.state()[slot as usize], SlotState::Failed { .. }) {
                self.replace(slot);
            }
        }
    }

    /// What would be there after a restart from these stores, and after each of two more checkpoints
    /// from each store alone.
    pub(super) fn check_reopen(&self, engines: [Arc<TestEngine>; 2]) {
        let world = self.reopen(engines);
        world.check();
        for _ in 0..2 {
            let written = world.checkpoint();
            world.check();
            let mut alone =
                world.engines.each_ref().map(|engine| TestEngine::with(engine.snapshot()));
            alone[written.store.other() as usize] = TestEngine::with(Pairs::new());
            world.reopen(alone).check();
        }
        world.check_no_leftovers();
    }

    /// Each store has one manifest, its pages and rows, and deletions that the other does not know.
    pub(super) fn check_no_leftovers(&self) {
        let model = Model::of(&self.ops);
        for engine in &self.engines {
            let count = |tag| engine.snapshot().keys().filter(|key| key[0] == tag).count();
            let image = crate::checkpoint::read::read_store(engine.as_ref(), &DB).unwrap().unwrap();
            assert_eq!(image.leftovers, Vec::<Vec<u8>>::new());
            assert_eq!(count(1), 1, "manifests");
            assert_eq!(count(2), model.pages.iter().map(Vec::len).sum::<usize>(), "pages");
            assert_eq!(count(3), model.rows.len() + image.tombstones.len(), "rows");
        }
    }
}

/// A world whose stores both have a checkpoint, at different sequences.
pub(super) fn settled(seed: u64) -> World {
    let mut random = Random(seed);
    let mut world = World::new();
    for _ in 0..3 {
        world.apply_random(&mut random, 25);
        world.checkpoint();
    }
    world
}

pub(super) fn copies(world: &World) -> [Arc<TestEngine>; 2] {
    world.engines.each_ref().map(|engine| TestEngine::with(engine.snapshot()))
}

pub(super) fn epochs(world: &World) -> [Epoch; 2] {
    world.pair.state().map(|state| match state {
        SlotState::Healthy { epoch, .. } => epoch,
        _ => Epoch::ZERO,
    })
}

/// What the engine will do with what it is handed.
#[derive(Default)]
pub(super) struct Loading {
    pub(super) begun: Option<Manifest>,
    pages: BTreeMap<TableId, Vec<Vec<u8>>>,
    rows: Vec<(u8, u64, Option<Vec<u8>>)>,
}

impl Loader for Loading {
    fn begin(&mut self, manifest: &Manifest) -> Result<()> {
        assert_eq!(manifest.state_header, b"header");
        *self = Self { begun: Some(manifest.clone()), ..Self::default() };
        Ok(())
    }

    fn page(&mut self, table: TableId, page: u32, bytes: &[u8]) -> Result<()> {
        let pages = self.pages.entry(table).or_default();
        assert_eq!(pages.len(), page as usize, "pages come in order");
        pages.push(bytes.to_vec());
        Ok(())
    }

    fn owed_row(&mut self, table: u8, key: u64, row: Option<&[u8]>) -> Result<()> {
        self.rows.push((table, key, row.map(<[u8]>::to_vec)));
        Ok(())
    }
}

impl Loading {
    fn finish(mut self, loaded: &Loaded) -> State {
        let manifest = &loaded.image.manifest;
        assert_eq!(self.begun.as_ref(), Some(manifest));
        let state = State::new();
        for table in &state.tables {
            let entry = manifest.tables[&table.id()];
            let cut = TableCut { rows: entry.rows, pages: entry.pages, owed: 0 };
            table.begin_restore(cut).unwrap();
            for (page, bytes) in self.pages.remove(&table.id()).into_iter().flatten().enumerate() {
                table.restore_page(page as u32, &bytes).unwrap();
            }
            table.end_restore(entry.rows, loaded.pages_owed).unwrap();
        }
        for (id, key, row) in self.rows {
            let table = state.cold.iter().find(|table| table.id() == id).unwrap();
            table.restore_owed(key, row.as_deref(), loaded.slot.other());
        }
        state.cold.iter().for_each(|table| table.end_restore(loaded.based));
        state
    }
}

/// An error of a store, as opening it gives one.
pub(super) fn lost() -> Result<Arc<dyn StorageEngine>> {
    Err(Error::Store("lost".to_owned()))
}

pub(super) const BOTH: [StoreSlot; 2] = [A, B];

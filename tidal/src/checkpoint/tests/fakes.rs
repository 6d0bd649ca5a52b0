//! An engine and a table for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::codec::DecodeError;
use crate::error::{Error, Result};
use crate::storage::{EachPair, StorageEngine, WriteOp};
use crate::sync::Mutex;
use crate::table::{DurableTable, PageImage, StoreSlot, TableCut, TableId};

type Decoded = std::result::Result<(), DecodeError>;

pub(super) type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store in memory that remembers its batches, and fails when told to.
#[derive(Default)]
pub(super) struct TestEngine {
    pub(super) pairs: Mutex<Arc<Pairs>>,
    pub(super) batches: Mutex<Vec<Vec<WriteOp>>>,
    fails_at: Mutex<Option<Fault>>,
    /// What the next scan fails with.
    unread: Mutex<Option<Error>>,
    pub(super) syncs: AtomicUsize,
    /// Runs once, before the next scan looks.
    before_scan: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// The batch of this number fails, and all after it.
#[derive(Clone)]
struct Fault {
    batch: usize,
    /// Whether it is there nevertheless.
    is_applied: bool,
    error: Error,
}

impl TestEngine {
    pub(super) fn with(pairs: Pairs) -> Arc<Self> {
        Arc::new(Self { pairs: Mutex::new(Arc::new(pairs)), ..Self::default() })
    }

    /// What happens between a reader's look at the slots and its look into this store.
    pub(super) fn before_next_scan(&self, meanwhile: impl FnOnce() + Send + 'static) {
        *self.before_scan.lock() = Some(Box::new(meanwhile));
    }

    pub(super) fn snapshot(&self) -> Pairs {
        Pairs::clone(&self.pairs.lock())
    }

    /// The next batch but `count` fails.
    pub(super) fn fail_after(&self, count: usize, is_applied: bool) {
        self.fail_after_with(count, is_applied, Error::Store("injected".to_owned()));
    }

    /// The next batch but `count` fails like this.
    pub(super) fn fail_after_with(&self, count: usize, is_applied: bool, error: Error) {
        let batch = self.batches.lock().len() + count;
        *self.fails_at.lock() = Some(Fault { batch, is_applied, error });
    }

    /// The next scan fails.
    pub(super) fn fail_next_scan(&self, error: Error) {
        *self.unread.lock() = Some(error);
    }

    fn apply(&self, ops: &[WriteOp]) {
        apply(Arc::make_mut(&mut self.pairs.lock()), ops);
    }
}

/// What a batch makes of a store's pairs.
pub(super) fn apply(pairs: &mut Pairs, ops: &[WriteOp]) {
    for op in ops {
        match op.clone() {
            WriteOp::Put { key, value } => pairs.insert(key, value),
            WriteOp::Delete { key } => pairs.remove(&key),
        };
    }
}

impl StorageEngine for TestEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.pairs.lock().get(key).cloned())
    }

    fn scan_from(&self, prefix: &[u8], start: &[u8], each: &mut EachPair<'_>) -> Result<()> {
        let meanwhile = self.before_scan.lock().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        if let Some(error) = self.unread.lock().take() {
            return Err(error);
        }
        let pairs = Arc::clone(&self.pairs.lock());
        pairs
            .range(prefix.max(start).to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .try_for_each(|(key, value)| each(key, value))
    }

    fn write_batch(&self, ops: Vec<WriteOp>) -> Result<()> {
        let mut batches = self.batches.lock();
        if let Some(fault) = self.fails_at.lock().clone()
            && batches.len() >= fault.batch
        {
            if fault.is_applied && batches.len() == fault.batch {
                self.apply(&ops);
                batches.push(ops);
            }
            return Err(fault.error);
        }
        self.apply(&ops);
        batches.push(ops);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A table whose rows are the bytes of its pages.
pub(super) struct FakeTable {
    id: TableId,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    pages: Vec<Vec<u8>>,
    owed: [BTreeSet<u32>; 2],
    cut: Option<OpenCut>,
}

struct OpenCut {
    store: StoreSlot,
    owed: BTreeSet<u32>,
    pages: Vec<PageImage>,
}

impl FakeTable {
    pub(super) fn new(id: TableId) -> Self {
        Self { id, inner: Mutex::default() }
    }

    pub(super) fn pages(&self) -> Vec<Vec<u8>> {
        self.inner.lock().pages.clone()
    }

    /// Sets a page, or adds one behind the last.
    pub(super) fn set(&self, page: usize, bytes: Vec<u8>) {
        let mut inner = self.inner.lock();
        let page = page.min(inner.pages.len());
        if page == inner.pages.len() {
            inner.pages.push(Vec::new());
        }
        inner.pages[page] = bytes;
        inner.owed.iter_mut().for_each(|owed| {
            owed.insert(page as u32);
        });
    }

    pub(super) fn shrink(&self, pages: usize) {
        let mut inner = self.inner.lock();
        inner.pages.truncate(pages);
        inner.owed.iter_mut().for_each(|owed| owed.retain(|&page| (page as usize) < pages));
    }

    pub(super) fn restore(&self, pages: Vec<Vec<u8>>, owed: [bool; 2]) {
        self.inner.lock().pages = pages;
        for store in StoreSlot::BOTH {
            if owed[store as usize] {
                self.owe_all(store);
            }
        }
    }
}

fn rows_of(pages: &[Vec<u8>]) -> u64 {
    pages.iter().map(|page| page.len() as u64).sum()
}

impl DurableTable for FakeTable {
    fn id(&self) -> TableId {
        self.id
    }

    fn begin_cut(&self, store: StoreSlot) -> TableCut {
        let mut inner = self.inner.lock();
        assert!(inner.cut.is_none());
        let owed = std::mem::take(&mut inner.owed[store as usize]);
        let pages: Vec<_> = owed
            .iter()
            .rev()
            .map(|&page| PageImage { page, bytes: inner.pages[page as usize].clone() })
            .collect();
        let cut = TableCut {
            rows: rows_of(&inner.pages),
            pages: inner.pages.len() as u32,
            owed: owed.len() as u32,
        };
        inner.cut = Some(OpenCut { store, owed, pages });
        cut
    }

    fn take_pages(&self, pages_max: usize, out: &mut Vec<PageImage>) -> bool {
        let mut inner = self.inner.lock();
        let pages = &mut inner.cut.as_mut().unwrap().pages;
        let kept = pages.len().saturating_sub(pages_max);
        out.extend(pages.drain(kept..).rev());
        !pages.is_empty()
    }

    fn end_cut(&self, store: StoreSlot, committed: bool) {
        let mut inner = self.inner.lock();
        let cut = inner.cut.take().unwrap();
        assert_eq!(cut.store, store);
        let pages = inner.pages.len();
        if !committed {
            inner.owed[store as usize].extend(cut.owed);
            inner.owed[store as usize].retain(|&page| (page as usize) < pages);
        }
    }

    fn owe_all(&self, store: StoreSlot) {
        let mut inner = self.inner.lock();
        inner.owed[store as usize] = (0..inner.pages.len() as u32).collect();
    }

    fn begin_restore(&self, _: TableCut) -> Decoded {
        Ok(())
    }

    fn restore_page(&self, page: u32, bytes: &[u8]) -> Decoded {
        let mut inner = self.inner.lock();
        assert_eq!(inner.pages.len(), page as usize);
        inner.pages.push(bytes.to_vec());
        Ok(())
    }

    fn end_restore(&self, rows: u64, stores_owed: [bool; 2]) -> Decoded {
        let pages = std::mem::take(&mut self.inner.lock().pages);
        assert_eq!(rows_of(&pages), rows);
        self.restore(pages, stores_owed);
        Ok(())
    }
}

//! What lies on the simulated disk, before and after a power cut.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

use tidaldb::storage::WriteOp;

const SECTOR_BYTES: usize = 512;

/// Decides for one unsynced change after the other whether it survives.
pub(super) type Judge<'a> = &'a mut dyn FnMut() -> bool;

#[derive(Debug, Clone)]
pub(super) enum Node {
    File(File),
    Dir(Dir),
    Store(Store),
}

impl Node {
    /// Loses power: what is not durable is brought to the disk or lost.
    pub(super) fn settle(&mut self, survives: Judge<'_>) {
        match self {
            Self::File(file) => {
                file.settle(survives);
                file.now = Arc::clone(&file.durable);
            }
            Self::Dir(dir) => {
                dir.settle(survives);
                dir.now.clone_from(&dir.durable);
            }
            Self::Store(store) => store.settle(survives),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    pub(super) now: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    pending: Vec<FileChange>,
}

#[derive(Debug, Clone)]
enum FileChange {
    Write { offset: usize, bytes: Arc<[u8]> },
    Len(usize),
}

impl File {
    /// A file whose content is durable.
    pub(super) fn durable(content: Vec<u8>) -> Self {
        let content = Arc::new(content);
        Self { now: Arc::clone(&content), durable: content, pending: Vec::new() }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        Arc::make_mut(&mut self.now).resize(len, 0);
        self.pending.push(FileChange::Len(len));
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if end > self.now.len() {
            self.set_len(end);
        }
        Arc::make_mut(&mut self.now)[offset..end].copy_from_slice(bytes);
        self.pending.push(FileChange::Write { offset, bytes: bytes.into() });
    }

    /// Brings those pending changes to the disk for which `survives` says so: sizes, and sectors.
    pub(super) fn settle(&mut self, survives: Judge<'_>) {
        if self.pending.is_empty() {
            return;
        }
        let durable = Arc::make_mut(&mut self.durable);
        for change in std::mem::take(&mut self.pending) {
            match change {
                FileChange::Len(len) if survives() => durable.resize(len, 0),
                FileChange::Len(_) => {}
                FileChange::Write { offset, bytes } => {
                    let end = offset + bytes.len();
                    for sector in offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
                        let start = offset.max(sector * SECTOR_BYTES);
                        let stop = durable.len().min(end).min((sector + 1) * SECTOR_BYTES);
                        if survives() && start < stop {
                            let piece = &bytes[start - offset..stop - offset];
                            durable[start..stop].copy_from_slice(piece);
                        }
                    }
                }
            }
        }
    }
}

/// Names changed by one operation: all of them, or none.
type NameChange = Vec<(OsString, Option<usize>)>;

#[derive(Debug, Clone, Default)]
pub(super) struct Dir {
    /// Names, and the nodes they name.
    pub(super) now: BTreeMap<OsString, usize>,
    durable: BTreeMap<OsString, usize>,
    pending: Vec<NameChange>,
}

impl Dir {
    pub(super) fn change(&mut self, change: NameChange) {
        apply(&mut self.now, &change);
        self.pending.push(change);
    }

    /// A change that is durable at once: damage, or what was there before the story begins.
    pub(super) fn change_durably(&mut self, change: &NameChange) {
        apply(&mut self.now, change);
        apply(&mut self.durable, change);
    }

    pub(super) fn settle(&mut self, survives: Judge<'_>) {
        for change in std::mem::take(&mut self.pending) {
            if survives() {
                apply(&mut self.durable, &change);
            }
        }
    }
}

fn apply(names: &mut BTreeMap<OsString, usize>, change: &NameChange) {
    for (name, node) in change {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}

/// The pairs of a store.
pub(super) type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a store holds, and what of it is durable.
#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    pub(super) now: Arc<Pairs>,
    pub(super) durable: Arc<Pairs>,
    pending: Vec<Arc<Vec<WriteOp>>>,
    /// What was durable before, the oldest first.
    pub(super) past: Vec<Arc<Pairs>>,
    /// Whether it is so damaged that it does not open.
    pub(super) is_unopenable: bool,
}

impl Store {
    pub(super) fn write(&mut self, batch: Vec<WriteOp>) {
        apply_batch(Arc::make_mut(&mut self.now), &batch);
        self.pending.push(Arc::new(batch));
    }

    /// Damage: holds something else, durably; nothing is on its way any more.
    pub(super) fn replace(&mut self, pairs: Arc<Pairs>) {
        (self.now, self.durable) = (Arc::clone(&pairs), pairs);
        self.pending.clear();
    }

    /// Makes a prefix of the pending batches durable, up to the first that does not survive; forgets
    /// the others.
    pub(super) fn sync(&mut self, survives: Judge<'_>) {
        if self.pending.is_empty() {
            return;
        }
        self.past.push(Arc::clone(&self.durable));
        let durable = Arc::make_mut(&mut self.durable);
        for batch in std::mem::take(&mut self.pending) {
            if !survives() {
                break;
            }
            apply_batch(durable, &batch);
        }
    }

    fn settle(&mut self, survives: Judge<'_>) {
        self.sync(survives);
        self.now = Arc::clone(&self.durable);
    }
}

fn apply_batch(pairs: &mut Pairs, batch: &[WriteOp]) {
    for op in batch {
        match op.clone() {
            WriteOp::Put { key, value } => pairs.insert(key, value),
            WriteOp::Delete { key } => pairs.remove(&key),
        };
    }
}

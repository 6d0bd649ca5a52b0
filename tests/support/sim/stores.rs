//! Checkpoint stores on the simulated disk.
//!
//! Batches are atomic and in order; of those that were not synced any prefix survives a power cut.
//! After a write or sync that failed a store takes no more of them until it is opened again, and what it
//! did is unknown.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidaldb::storage::{
    Disk, EachPair, OpenFailure, StorageEngine, Stores, WriteOp, create_staged, open_marked,
};
use tidaldb::{Error, Result};

use super::disk::{Op, SimDisk};
use super::nodes::Pairs;

/// Stores on a simulated disk.
#[derive(Debug, Clone)]
pub struct SimStores {
    disk: SimDisk,
}

impl SimStores {
    /// Stores on this disk.
    pub const fn on(disk: SimDisk) -> Self {
        Self { disk }
    }

    /// Damage: the store shows what it held so many syncs ago, or nothing if it is not so old.
    pub fn roll_back(&self, path: &Path, syncs: usize) -> bool {
        let rolled = self.disk.with_store(path, |store| {
            let at = store.past.len().checked_sub(syncs);
            let pairs = at.and_then(|at| store.past.get(at)).cloned();
            let was = pairs.is_some();
            store.replace(pairs.unwrap_or_default());
            was
        });
        rolled.is_ok_and(|was| was)
    }

    /// Damage: the store lost everything, and opens.
    pub fn empty(&self, path: &Path) -> bool {
        self.set(path, Pairs::default())
    }

    /// Damage: the store does not open.
    pub fn break_down(&self, path: &Path) -> bool {
        self.disk.with_store(path, |store| store.is_unopenable = true).is_ok()
    }

    /// Damage: one bit of one pair is flipped, `at` says which. False when there is no such pair.
    pub fn flip(&self, path: &Path, at: u64) -> bool {
        let Some(mut pairs) = self.pairs(path) else { return false };
        let bits: u64 = pairs.values().map(|value| value.len() as u64 * 8).sum();
        let Some(mut bit) = at.checked_rem(bits) else { return false };
        for value in pairs.values_mut() {
            let size_bits = value.len() as u64 * 8;
            if bit < size_bits {
                value[(bit / 8) as usize] ^= 1 << (bit % 8);
                break;
            }
            bit -= size_bits;
        }
        self.set(path, pairs)
    }

    /// Damage: one store is replaced by a copy of another.
    pub fn copy(&self, from: &Path, to: &Path) -> bool {
        self.pairs(from).is_some_and(|pairs| self.set(to, pairs))
    }

    /// Damage: two stores change places.
    pub fn swap(&self, one: &Path, other: &Path) -> bool {
        let (Some(a), Some(b)) = (self.pairs(one), self.pairs(other)) else { return false };
        self.set(one, b) && self.set(other, a)
    }

    fn pairs(&self, path: &Path) -> Option<Pairs> {
        self.disk.with_store(path, |store| Pairs::clone(&store.now)).ok()
    }

    fn set(&self, path: &Path, pairs: Pairs) -> bool {
        self.disk.with_store(path, |store| store.replace(Arc::new(pairs))).is_ok()
    }
}

fn failed(action: &'static str, path: &Path, error: &io::Error) -> Error {
    Error::Store(format!("could not {action} {}: {error}", path.display()))
}

impl Stores for SimStores {
    fn create(&self, disk: &dyn Disk, path: &Path) -> Result<Arc<dyn StorageEngine>> {
        create_staged(disk, path, |stage| {
            self.disk.create_store(stage).map_err(|error| failed("create", stage, &error))
        })?;
        self.open(disk, path).map_err(|failure| failure.into_error(path))
    }

    fn open(&self, disk: &dyn Disk, path: &Path) -> Result<Arc<dyn StorageEngine>, OpenFailure> {
        let check = || match disk.exists(path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(OpenFailure::Missing),
            Err(error) => Err(OpenFailure::Unavailable(failed("look at", path, &error))),
        };
        open_marked(disk, path, check, || {
            let node = self.disk.find_store(path);
            let node = node.map_err(|e| OpenFailure::Damaged(failed("open", path, &e)))?;
            if self.disk.look_at_store(node, |store| store.is_unopenable) {
                let error = io::Error::other("it is damaged");
                return Err(OpenFailure::Damaged(failed("open", path, &error)));
            }
            let stopped = AtomicBool::new(false);
            let path = path.to_owned();
            Ok(Arc::new(SimStore { disk: self.disk.clone(), path, node, stopped }) as _)
        })
    }
}

/// An open store.
struct SimStore {
    disk: SimDisk,
    path: PathBuf,
    node: usize,
    stopped: AtomicBool,
}

impl SimStore {
    fn pairs(&self) -> Arc<Pairs> {
        self.disk.look_at_store(self.node, |store| Arc::clone(&store.now))
    }

    fn check(&self) -> Result<()> {
        if self.stopped.load(Ordering::SeqCst) {
            return Err(Error::Store("it takes no writes until it is reopened".to_owned()));
        }
        Ok(())
    }

    /// A disk that is full says nothing about the store, but for a sync, which leaves nobody knows what.
    fn or_stop(&self, op: Op, outcome: io::Result<()>) -> Result<()> {
        outcome.map_err(|error| {
            self.stopped.store(true, Ordering::SeqCst);
            match (op, error.kind()) {
                (Op::StoreWrite, io::ErrorKind::StorageFull) => {
                    Error::DiskFull { action: "write to", path: self.path.clone() }
                }
                _ => Error::Store(format!("a simulated store failed: {error}")),
            }
        })
    }
}

impl StorageEngine for SimStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.pairs().get(key).cloned())
    }

    fn scan_from(&self, prefix: &[u8], start: &[u8], each: &mut EachPair<'_>) -> Result<()> {
        self.pairs()
            .range(prefix.max(start).to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .try_for_each(|(key, value)| each(key, value))
    }

    fn write_batch(&self, ops: Vec<WriteOp>) -> Result<()> {
        self.check()?;
        let again = ops.clone();
        let written = self.disk.store_op(
            Op::StoreWrite,
            self.node,
            |store| store.write(ops),
            |store, random| {
                if random.one_in(2) {
                    store.write(again);
                }
            },
        );
        self.or_stop(Op::StoreWrite, written)
    }

    fn sync(&self) -> Result<()> {
        self.check()?;
        let synced = self.disk.store_op(
            Op::StoreSync,
            self.node,
            |store| store.sync(&mut || true),
            |store, random| store.sync(&mut || random.one_in(2)),
        );
        self.or_stop(Op::StoreSync, synced)
    }
}

//! The two checkpoint stores as directories: opened, moved aside, made anew.
//!
//! Knows: where they lie, and what to do about one that does not open. Must not know: what is in
//! them.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::place::Place;
use crate::clock::Stopwatch;
use crate::engine::Keeper;
use crate::error::{Error, Result};
use crate::fault::CrashPoint;
use crate::storage::{
    Anchored, EachPair, Machine, OpenFailure, StorageEngine, WriteOp, aside_path, forget_opens,
    is_left_alone, move_aside,
};
use crate::sync::Mutex;
use crate::table::StoreSlot;

/// How long a store that is to be moved aside may still be read by someone.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Opens and replaces stores.
pub(super) struct StoreKeeper {
    machine: Machine,
    anchor: Arc<Anchored>,
    paths: [PathBuf; 2],
    /// The stores that are open; one must be closed before its directory is moved.
    open: Mutex<[Weak<Alive>; 2]>,
}

impl StoreKeeper {
    pub(super) fn new(place: &Place) -> Self {
        Self {
            machine: place.machine.clone(),
            anchor: Arc::clone(&place.anchor),
            paths: StoreSlot::BOTH.map(|slot| place.store_path(slot)),
            open: Mutex::default(),
        }
    }

    /// Opens both. One that is missing or damaged, or whose open did not return twice, comes as an
    /// error.
    ///
    /// # Errors
    ///
    /// What keeps a store from being opened that is no damage: locked, no permission, a full disk.
    pub(super) fn open_all(&self) -> Result<[Result<Arc<dyn StorageEngine>>; 2]> {
        let [a, b] = StoreSlot::BOTH.map(|slot| self.open_one(slot));
        let (mut a, mut b) = (a?, b?);
        // Two kills during opens look like two aborts: with no other store to rely on, try again.
        if matches!(a, Err(Failed::Skipped(_))) && b.is_err() {
            a = self.open_again(StoreSlot::A)?;
        }
        if matches!(b, Err(Failed::Skipped(_))) && a.is_err() {
            b = self.open_again(StoreSlot::B)?;
        }
        Ok([a, b].map(|opened| match opened {
            Ok(engine) => Ok(engine),
            Err(Failed::Damaged(error) | Failed::Skipped(error)) => Err(error),
        }))
    }

    /// Forgets the aborts for which stores are left alone: they may have been kills. Whether there was
    /// such a store.
    pub(super) fn forget_aborts(&self) -> Result<bool> {
        let mut forgotten = false;
        for path in &self.paths {
            if is_left_alone(&*self.machine.disk, path)? {
                forget_opens(&*self.machine.disk, path)?;
                forgotten = true;
            }
        }
        Ok(forgotten)
    }

    /// Whether there is no store to be moved aside.
    pub(super) fn is_missing(&self, slot: StoreSlot) -> Result<bool> {
        let path = &self.paths[slot as usize];
        self.machine
            .disk
            .exists(path)
            .map(|exists| !exists)
            .map_err(|e| Error::io("look at", path, e))
    }

    /// Where a store that was moved aside lies.
    pub(super) fn aside(&self, slot: StoreSlot) -> PathBuf {
        aside_path(&self.paths[slot as usize])
    }

    fn open_again(&self, slot: StoreSlot) -> Result<Attempt> {
        forget_opens(&*self.machine.disk, &self.paths[slot as usize])?;
        self.open_one(slot)
    }

    fn open_one(&self, slot: StoreSlot) -> Result<Attempt> {
        let path = &self.paths[slot as usize];
        match self.machine.stores.open(&*self.machine.disk, path) {
            Ok(engine) => Ok(Ok(self.note(slot, engine))),
            Err(OpenFailure::Unavailable(error)) => Err(error),
            // Made anew only once the log shows that nothing is lost with it: a database that is
            // refused stays as it was.
            Err(missing @ OpenFailure::Missing) => {
                Ok(Err(Failed::Damaged(missing.into_error(path))))
            }
            Err(OpenFailure::Damaged(error)) => Ok(Err(Failed::Damaged(error))),
            Err(skipped @ OpenFailure::SkippedAfterTwoAborts) => {
                Ok(Err(Failed::Skipped(skipped.into_error(path))))
            }
        }
    }

    fn create(&self, slot: StoreSlot) -> Result<Arc<dyn StorageEngine>> {
        let Machine { disk, stores, .. } = &self.machine;
        let engine = stores.create(&**disk, &self.paths[slot as usize])?;
        Ok(self.note(slot, engine))
    }

    fn note(&self, slot: StoreSlot, engine: Arc<dyn StorageEngine>) -> Arc<dyn StorageEngine> {
        let alive = Arc::new(Alive);
        self.open.lock()[slot as usize] = Arc::downgrade(&alive);
        Arc::new(Watched { engine, _alive: alive })
    }

    fn is_open(&self, slot: StoreSlot) -> bool {
        self.open.lock()[slot as usize].strong_count() > 0
    }

    fn wait_closed(&self, slot: StoreSlot) -> Result<()> {
        let since = Stopwatch::start();
        while self.is_open(slot) {
            if since.elapsed() > CLOSE_WITHIN {
                let reason = format!("store {} is still being read; it is kept", slot.name());
                return Err(Error::Store(reason));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Keeper for StoreKeeper {
    fn is_in_place(&self) -> Result<bool> {
        let in_place = self.anchor.is_in_place();
        in_place.map_err(|e| Error::io("look at", &self.paths[StoreSlot::A as usize], e))
    }

    fn reopen(&self, slot: StoreSlot) -> Result<Option<Arc<dyn StorageEngine>>> {
        self.wait_closed(slot)?;
        Ok(self.open_one(slot)?.ok())
    }

    fn replace(&self, slot: StoreSlot) -> Result<Arc<dyn StorageEngine>> {
        self.wait_closed(slot)?;
        self.machine.faults.reach(CrashPoint::ReplacementBegun);
        if !self.is_missing(slot)? {
            move_aside(&*self.machine.disk, &self.paths[slot as usize])?;
        }
        self.machine.faults.reach(CrashPoint::StoreMovedAside);
        let engine = self.create(slot)?;
        self.machine.faults.reach(CrashPoint::StoreMade);
        Ok(engine)
    }
}

/// That a store is open.
#[derive(Debug)]
struct Alive;

/// A store that says when it is closed. The last holder of a store closes it, which takes a while: its
/// threads end, and until then they write to its directory, by whatever name. Nobody counts as holder
/// meanwhile; but the fields of this one go in their order, so `_alive` is there until the store is closed.
struct Watched {
    engine: Arc<dyn StorageEngine>,
    _alive: Arc<Alive>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl StorageEngine for Watched {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.engine.get(key)
    }

    fn scan_from(&self, prefix: &[u8], start: &[u8], each: &mut EachPair<'_>) -> Result<()> {
        self.engine.scan_from(prefix, start, each)
    }

    fn write_batch(&self, ops: Vec<WriteOp>) -> Result<()> {
        self.engine.write_batch(ops)
    }

    fn write_batch_synced(&self, ops: Vec<WriteOp>) -> Result<()> {
        self.engine.write_batch_synced(ops)
    }

    fn sync(&self) -> Result<()> {
        self.engine.sync()
    }
}

/// A store, or why it is none.
type Attempt = Result<Arc<dyn StorageEngine>, Failed>;

enum Failed {
    Damaged(Error),
    Skipped(Error),
}

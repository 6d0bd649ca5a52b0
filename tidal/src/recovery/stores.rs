//! The two checkpoint stores as directories: opened, moved aside, made anew.
//!
//! Knows: where they lie, and what to do about one that does not open. Must not know: what is in
//! them.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::place::Place;
use super::report::OpenReport;
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::storage::{
    Disk, FjallBackend, OpenFailure, StorageEngine, aside_path, forget_opens, move_aside,
};
use crate::sync::Mutex;
use crate::table::StoreSlot;

/// How long a store that is to be moved aside may still be read by someone.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Opens and replaces stores.
pub(super) struct StoreKeeper {
    disk: Arc<dyn Disk>,
    paths: [PathBuf; 2],
    /// The stores that are open; one must be closed before its directory is moved.
    open: Mutex<[Weak<FjallBackend>; 2]>,
}

impl StoreKeeper {
    pub(super) fn new(place: &Place) -> Self {
        Self {
            disk: Arc::clone(&place.disk),
            paths: StoreSlot::BOTH.map(|slot| place.store_path(slot)),
            open: Mutex::new([Weak::new(), Weak::new()]),
        }
    }

    /// Opens both. One that is missing is made; one that is damaged, or whose open did not return
    /// twice, comes as an error.
    ///
    /// # Errors
    ///
    /// What keeps a store from being opened that is no damage: locked, no permission, a full disk.
    pub(super) fn open_all(
        &self,
        report: &mut OpenReport,
    ) -> Result<[Result<Arc<dyn StorageEngine>>; 2]> {
        let [a, b] = StoreSlot::BOTH.map(|slot| self.open_one(slot));
        let (mut a, mut b) = (a?, b?);
        // Two kills during opens look like two aborts: with no other store to rely on, try again.
        if matches!(a, Err(Failed::Skipped(_))) && b.is_err() {
            a = self.open_again(StoreSlot::A)?;
        }
        if matches!(b, Err(Failed::Skipped(_))) && a.is_err() {
            b = self.open_again(StoreSlot::B)?;
        }
        for (slot, opened) in StoreSlot::BOTH.iter().zip([&a, &b]) {
            if let Ok((_, true)) = opened {
                report.made_store(*slot);
            }
        }
        Ok([a, b].map(|opened| match opened {
            Ok((engine, _)) => Ok(engine as Arc<dyn StorageEngine>),
            Err(Failed::Damaged(error) | Failed::Skipped(error)) => Err(error),
        }))
    }

    /// Moves a store aside and makes a new one in its place.
    pub(super) fn replace(&self, slot: StoreSlot) -> Result<Arc<dyn StorageEngine>> {
        self.wait_closed(slot)?;
        let path = &self.paths[slot as usize];
        let exists = self.disk.exists(path).map_err(|e| Error::io("look at", path, e))?;
        if exists {
            move_aside(&*self.disk, path)?;
        }
        self.create(slot).map(|engine| engine as Arc<dyn StorageEngine>)
    }

    /// Where a store that was moved aside lies.
    pub(super) fn aside(&self, slot: StoreSlot) -> PathBuf {
        aside_path(&self.paths[slot as usize])
    }

    fn open_again(&self, slot: StoreSlot) -> Result<Attempt> {
        forget_opens(&*self.disk, &self.paths[slot as usize])?;
        self.open_one(slot)
    }

    fn open_one(&self, slot: StoreSlot) -> Result<Attempt> {
        let path = &self.paths[slot as usize];
        match FjallBackend::open(&*self.disk, path) {
            Ok(engine) => Ok(Ok((self.note(slot, engine), false))),
            Err(OpenFailure::Missing) => Ok(Ok((self.create(slot)?, true))),
            Err(OpenFailure::Unavailable(error)) => Err(error),
            Err(OpenFailure::Damaged(error)) => Ok(Err(Failed::Damaged(error))),
            Err(skipped @ OpenFailure::SkippedAfterTwoAborts) => {
                Ok(Err(Failed::Skipped(skipped.into_error(path))))
            }
        }
    }

    fn create(&self, slot: StoreSlot) -> Result<Arc<FjallBackend>> {
        let engine = FjallBackend::create(&*self.disk, &self.paths[slot as usize])?;
        Ok(self.note(slot, engine))
    }

    fn note(&self, slot: StoreSlot, engine: FjallBackend) -> Arc<FjallBackend> {
        let engine = Arc::new(engine);
        self.open.lock()[slot as usize] = Arc::downgrade(&engine);
        engine
    }

    fn wait_closed(&self, slot: StoreSlot) -> Result<()> {
        let since = Stopwatch::start();
        while self.open.lock()[slot as usize].strong_count() > 0 {
            if since.elapsed() > CLOSE_WITHIN {
                let reason = format!("store {} is still being read; it is kept", slot.name());
                return Err(Error::Store(reason));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// A store, and whether it was just made; or why it is none.
type Attempt = Result<(Arc<FjallBackend>, bool), Failed>;

enum Failed {
    Damaged(Error),
    Skipped(Error),
}

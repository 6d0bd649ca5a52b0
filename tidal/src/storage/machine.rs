//! What a database runs on.
//!
//! Knows: that there are files, stores and crash points. Must not know: which ones, or what for.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use super::opening::{begin_open, forget_opens};
use super::place::{parent, stage_path, wipe_stages};
use super::{Disk, FjallBackend, RealDisk, StorageEngine};
use crate::error::{Error, Result};
use crate::fault::Faults;

/// Files, stores and crash points. The default is the operating system's files, fjall, and no plan.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where tidal's own files lie.
    pub disk: Arc<dyn Disk>,
    /// What checkpoint stores are.
    pub stores: Arc<dyn Stores>,
    /// What happens at crash points.
    pub faults: Faults,
}

impl Default for Machine {
    fn default() -> Self {
        Self { disk: Arc::new(RealDisk), stores: Arc::new(FjallStores), faults: Faults::NONE }
    }
}

/// A kind of checkpoint store.
pub trait Stores: Send + Sync + Debug {
    /// Creates an empty store at `path`, where nothing lies yet, in a directory that exists, and
    /// opens it. After a crash at any moment the store is there and whole, or it is not there.
    ///
    /// # Errors
    ///
    /// What keeps it from being made, also that something lies at `path`.
    fn create(&self, disk: &dyn Disk, path: &Path) -> Result<Arc<dyn StorageEngine>>;

    /// Opens the store at `path`.
    ///
    /// # Errors
    ///
    /// See [`OpenFailure`], whose variants say what to do.
    fn open(&self, disk: &dyn Disk, path: &Path) -> Result<Arc<dyn StorageEngine>, OpenFailure>;
}

/// Stores of fjall.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FjallStores;

impl Stores for FjallStores {
    fn create(&self, disk: &dyn Disk, path: &Path) -> Result<Arc<dyn StorageEngine>> {
        Ok(Arc::new(FjallBackend::create(disk, path)?))
    }

    fn open(&self, disk: &dyn Disk, path: &Path) -> Result<Arc<dyn StorageEngine>, OpenFailure> {
        Ok(Arc::new(FjallBackend::open(disk, path)?))
    }
}

/// Why a store did not open, told apart by what to do about it.
#[derive(Debug)]
pub enum OpenFailure {
    /// Nothing lies there: create it.
    Missing,
    /// The last two opens did not return: move it aside unopened. If it is the last store left,
    /// forgetting those opens lets it be tried again.
    SkippedAfterTwoAborts,
    /// Something else is in the way (lock, permissions, space, file handles). This says nothing about
    /// the store, which must stay where it is.
    Unavailable(Error),
    /// The store is damaged: move it aside.
    Damaged(Error),
}

impl OpenFailure {
    /// The failure as an error, for a caller that can do nothing about it.
    pub fn into_error(self, path: &Path) -> Error {
        match self {
            Self::Missing => Error::corrupt(store_name(path), "it is missing"),
            Self::SkippedAfterTwoAborts => Error::corrupt(
                store_name(path),
                "the last two attempts to open it ended the process, so it was not opened",
            ),
            Self::Unavailable(error) | Self::Damaged(error) => error,
        }
    }
}

/// The store at `path`, in a sentence.
pub(super) fn store_name(path: &Path) -> String {
    format!("the checkpoint store {}", path.display())
}

/// Makes a store at `path`, where nothing lies yet, in a directory that exists: `build` makes it at
/// another place, closed and synced down to its own directory, and then it gets its name.
///
/// # Errors
///
/// What `build` fails with, what the file system refuses, and [`Store`](Error::Store) when something
/// lies at `path`. What is then left of the stage, the next open or create wipes.
pub fn create_staged(
    disk: &dyn Disk,
    path: &Path,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    if disk.exists(path).map_err(|source| Error::io("look at", path, source))? {
        let path = path.display();
        return Err(Error::Store(format!("cannot create {path}: something lies there")));
    }
    wipe_stages(disk, path)?;
    forget_opens(disk, path)?;
    let stage = stage_path(path);
    build(&stage)?;
    disk.rename(&stage, path).map_err(|source| Error::io("create", path, source))?;
    let dir = parent(path);
    disk.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))
}

/// Opens the store at `path`: `check` says whether it may be tried at all, and a mark on disk counts
/// the calls of `open` that never returned.
///
/// # Errors
///
/// What `check` and `open` say; [`SkippedAfterTwoAborts`](OpenFailure::SkippedAfterTwoAborts).
pub fn open_marked<T>(
    disk: &dyn Disk,
    path: &Path,
    check: impl FnOnce() -> Result<(), OpenFailure>,
    open: impl FnOnce() -> Result<T, OpenFailure>,
) -> Result<T, OpenFailure> {
    wipe_stages(disk, path).map_err(OpenFailure::Unavailable)?;
    check()?;
    if !begin_open(disk, path).map_err(OpenFailure::Unavailable)? {
        return Err(OpenFailure::SkippedAfterTwoAborts);
    }
    let opened = open();
    forget_opens(disk, path).map_err(OpenFailure::Unavailable)?;
    opened
}

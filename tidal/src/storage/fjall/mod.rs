//! The checkpoint store: fjall, fenced in.
//!
//! Knows: everything of fjall that tidal relies on, and how to keep clear of the rest. Must not know:
//! what is stored, or that there are two stores.
//!
//! The rules, each of which keeps clear of something measured:
//!
//! - One keyspace, so that a store that lost it lost its manifest as well, which is noticed.
//! - Creation is staged and its directories are synced here, since fjall's own creation survives
//!   neither a kill nor a power cut.
//! - Nothing is opened that fjall would create, or that is known to end the process.
//! - Every write is a batch with checked keys: an empty key, inserted directly, makes a store
//!   unopenable for good.
//! - One lock around every commit and around taking a snapshot: a snapshot taken during a commit may
//!   hold half of it.
//! - Writes wait here for room, and for a limited time. fjall's own waits never end when its only
//!   worker has died, and it lets a memtable grow while that worker is busy.
//! - What fails or panics while writing leaves an unknown outcome: the store takes no more writes
//!   until it is reopened. fjall syncs once more when dropped, so even what "failed" may be there.
//!
//! On disk, in the store's directory, fjall's own: `version`, `lock`, `<n>.jnl`, `keyspaces/<n>/…`.

mod failure;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ::fjall::{
    AbstractTree, Database, Guard, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode,
    Readable,
};

use super::machine::{create_staged, open_marked, store_name};
use super::{Disk, EachPair, KEY_SIZE_BYTES, OpenFailure, StorageEngine, WriteOp, check_limits};
use crate::error::{Error, Result};
use crate::sync::Mutex;

use self::failure::{Fault, caught};

/// The one keyspace.
const KEYSPACE: &str = "tidal";

/// The memtable size at which it is sealed and flushed.
const MEMTABLE_SIZE_BYTES: u64 = 8 << 20;

/// Blocks in memory: the store is read at open, and row by row for cold rows.
const CACHE_SIZE_BYTES: u64 = 8 << 20;

/// The least that fjall accepts.
const JOURNALS_SIZE_BYTES_MAX: u64 = 64 << 20;

/// Open files of one store; two stores and the log must fit into the usual limit of 1,024.
const OPEN_FILES_MAX: usize = 128;

/// Sealed memtables at which a write waits. fjall waits without end from 4, and its worker may seal
/// one during a commit.
const SEALED_MEMTABLES_MAX: usize = 3;

/// Runs of the first level at which a write waits. fjall waits without end from 30.
const FIRST_LEVEL_RUNS_MAX: usize = 16;

/// How long a waiting write sleeps before it looks again.
const ROOM_POLL: Duration = Duration::from_millis(1);

/// How often it looks before the store counts as failed: a minute.
const ROOM_POLLS_MAX: u32 = 60_000;

/// A checkpoint store on disk.
///
/// [`write_batch`](StorageEngine::write_batch) hands its batch to the operating system: it survives
/// the process, and a power cut once a [`sync`](StorageEngine::sync) or a
/// [`write_batch_synced`](StorageEngine::write_batch_synced) has returned. After the first write or
/// sync that fails, all later ones are refused; reads go on. A read of a single key may see a batch
/// shortly before the call that commits it returns; a scan sees whole batches only.
pub(crate) struct FjallBackend {
    /// Before the database, whose drop waits for the worker; both go together, because a keyspace
    /// that outlives its database keeps the lock and hangs when it is full.
    keyspace: Keyspace,
    database: Database,
    path: PathBuf,
    /// The commit lock, and the failure that stopped writing, once there is one.
    stopped: Mutex<Option<String>>,
}

impl fmt::Debug for FjallBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallBackend").field("path", &self.path).finish_non_exhaustive()
    }
}

impl FjallBackend {
    /// Creates an empty store at `path`, where nothing lies yet, in a directory that exists, and
    /// opens it. After a crash at any moment the store is there and whole, or it is not there.
    ///
    /// # Errors
    ///
    /// What the file system refuses, or [`Store`](Error::Store) when something lies at `path` or
    /// fjall fails. What is then left of the stage, the next open or create wipes.
    pub(crate) fn create(disk: &dyn Disk, path: &Path) -> Result<Self> {
        create_staged(disk, path, |stage| {
            // Built and closed, then opened and closed: what gets the name is known to open.
            for open_or_build in [build, open_existing] {
                caught(|| open_or_build(stage))
                    .map_err(|fault| fault.into_error("create", path))?;
            }
            sync_dirs(disk, stage)
        })?;
        Self::open(disk, path).map_err(|failure| failure.into_error(path))
    }

    /// Opens the store at `path`.
    ///
    /// # Errors
    ///
    /// See [`OpenFailure`], whose variants say what to do.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> std::result::Result<Self, OpenFailure> {
        let open = || caught(|| open_existing(path)).map_err(|fault| fault.into_open_failure(path));
        let (database, keyspace) = open_marked(disk, path, || check_layout(disk, path), open)?;
        Ok(Self { keyspace, database, path: path.to_owned(), stopped: Mutex::new(None) })
    }

    fn commit(&self, ops: Vec<WriteOp>, is_synced: bool) -> Result<()> {
        check_limits(&ops)?;
        self.write("write to", || {
            self.make_room()?;
            // The sync is a step of its own: one that fails says more than a write that does.
            let mut batch = OwnedWriteBatch::with_capacity(self.database.clone(), ops.len())
                .durability(Some(PersistMode::Buffer));
            for op in ops {
                match op {
                    WriteOp::Put { key, value } => batch.insert(&self.keyspace, key, value),
                    WriteOp::Delete { key } => batch.remove(&self.keyspace, key),
                }
            }
            batch.commit()?;
            if is_synced { self.persist() } else { Ok(()) }
        })
    }

    fn persist(&self) -> std::result::Result<(), Fault> {
        self.database.persist(PersistMode::SyncAll).map_err(Fault::of_sync)
    }

    /// Waits until a batch can be committed without meeting a wait of fjall's own.
    fn make_room(&self) -> std::result::Result<(), Fault> {
        let tree = &self.keyspace.tree;
        if tree.active_memtable().size() > MEMTABLE_SIZE_BYTES {
            self.keyspace.rotate_memtable()?;
        }
        for _ in 0..ROOM_POLLS_MAX {
            let has_room = tree.sealed_memtable_count() < SEALED_MEMTABLES_MAX
                && tree.l0_run_count() < FIRST_LEVEL_RUNS_MAX;
            if has_room {
                return Ok(());
            }
            // Fails when the worker has: then there will never be room.
            self.database.persist(PersistMode::Buffer)?;
            thread::sleep(ROOM_POLL);
        }
        Err(Fault::Stalled)
    }

    /// Runs `write` alone, unless writing has stopped; its failure stops it.
    fn write(
        &self,
        action: &'static str,
        write: impl FnOnce() -> std::result::Result<(), Fault>,
    ) -> Result<()> {
        let mut stopped = self.stopped.lock();
        if let Some(reason) = &*stopped {
            return Err(Error::Store(format!(
                "{} takes no writes until it is reopened, since one failed and its outcome is \
                 unknown: {reason}",
                self.path.display()
            )));
        }
        caught(write).map_err(|fault| {
            let error = fault.into_error(action, &self.path);
            *stopped = Some(error.to_string());
            error
        })
    }

    fn read<T>(
        &self,
        action: &'static str,
        read: impl FnOnce() -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        caught(read).map_err(|fault| fault.into_error(action, &self.path))
    }
}

impl StorageEngine for FjallBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if !KEY_SIZE_BYTES.contains(&key.len()) {
            return Ok(None);
        }
        self.read("read from", || Ok(self.keyspace.get(key)?.map(|value| value.to_vec())))
    }

    fn scan_from(&self, prefix: &[u8], start: &[u8], each: &mut EachPair<'_>) -> Result<()> {
        if prefix.len() > *KEY_SIZE_BYTES.end() {
            return Ok(());
        }
        // No key is longer than the limit, so none lies between a longer start and its beginning:
        // only a key that equals that beginning has to be kept out.
        let start = prefix.max(start);
        let from = &start[..start.len().min(*KEY_SIZE_BYTES.end())];
        let end = end_of(prefix);
        if end.as_deref().is_some_and(|end| end <= from) {
            return Ok(());
        }
        let mut pairs = self.read("read from", || {
            let snapshot = {
                let _no_commit = self.stopped.lock();
                self.database.snapshot()
            };
            let first = if from.is_empty() { Bound::Unbounded } else { Bound::Included(from) };
            let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            Ok(snapshot.range::<&[u8], _>(&self.keyspace, (first, end)))
        })?;
        let mut next =
            || self.read("read from", || Ok(pairs.next().map(Guard::into_inner).transpose()?));
        while let Some((key, value)) = next()? {
            if &*key >= start {
                each(&key, &value)?;
            }
        }
        Ok(())
    }

    fn write_batch(&self, ops: Vec<WriteOp>) -> Result<()> {
        self.commit(ops, false)
    }

    fn write_batch_synced(&self, ops: Vec<WriteOp>) -> Result<()> {
        if ops.is_empty() {
            // fjall does not sync for an empty batch.
            return self.sync();
        }
        self.commit(ops, true)
    }

    fn sync(&self) -> Result<()> {
        self.write("sync", || self.persist())
    }
}

/// The first key after all that start with `prefix`; `None` when no key is.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

type Opened = (Database, Keyspace);

/// Opens what lies at `path`.
fn open_existing(path: &Path) -> std::result::Result<Opened, Fault> {
    let database = open_database(path)?;
    if !database.keyspace_exists(KEYSPACE) {
        return Err(Fault::Emptied);
    }
    let keyspace = database.keyspace(KEYSPACE, keyspace_options)?;
    Ok((database, keyspace))
}

/// Creates a store at `path`, without regard for crashes.
fn build(path: &Path) -> std::result::Result<Opened, Fault> {
    let database = open_database(path)?;
    let keyspace = database.keyspace(KEYSPACE, keyspace_options)?;
    Ok((database, keyspace))
}

fn open_database(path: &Path) -> ::fjall::Result<Database> {
    Database::builder(path)
        .cache_size(CACHE_SIZE_BYTES)
        .worker_threads(1)
        .max_cached_files(Some(OPEN_FILES_MAX))
        .max_journaling_size(JOURNALS_SIZE_BYTES_MAX)
        .open()
}

fn keyspace_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_SIZE_BYTES)
}

/// Refuses what fjall would silently create anew, or end the process over.
fn check_layout(disk: &dyn Disk, path: &Path) -> std::result::Result<(), OpenFailure> {
    let damaged = |detail: String| OpenFailure::Damaged(Error::corrupt(store_name(path), detail));
    let looked = |source: std::io::Error| match source.kind() {
        ErrorKind::NotADirectory => damaged("a file lies where a directory should".to_owned()),
        _ => OpenFailure::Unavailable(Error::io("look at", path, source)),
    };
    if !disk.exists(path).map_err(looked)? {
        return Err(OpenFailure::Missing);
    }
    let keyspaces = path.join("keyspaces");
    for needed in [path.join("version"), path.join("lock"), keyspaces.clone()] {
        if !disk.exists(&needed).map_err(looked)? {
            return Err(damaged(format!("{} is missing", needed.display())));
        }
    }
    let has_journal = disk
        .list_dir(path)
        .map_err(looked)?
        .iter()
        .any(|file| file.extension().is_some_and(|extension| extension == "jnl"));
    if !has_journal {
        return Err(damaged("it has no journal".to_owned()));
    }
    for keyspace in disk.list_dir(&keyspaces).map_err(looked)? {
        let name = keyspace.file_name().and_then(|name| name.to_str());
        if name.is_none_or(|name| name.parse::<u64>().is_err()) {
            return Err(damaged(format!("{} does not belong there", keyspace.display())));
        }
        // Without it fjall would delete the keyspace, tables and all.
        let current = keyspace.join("current");
        if !disk.exists(&current).map_err(looked)? {
            return Err(damaged(format!("{} is missing", current.display())));
        }
    }
    Ok(())
}

/// Syncs the directories of a store at rest, which fjall does not.
fn sync_dirs(disk: &dyn Disk, path: &Path) -> Result<()> {
    let keyspaces = path.join("keyspaces");
    let listed =
        disk.list_dir(&keyspaces).map_err(|source| Error::io("list", &keyspaces, source))?;
    for keyspace in listed {
        sync_dir(disk, &keyspace.join("tables"))?;
        sync_dir(disk, &keyspace)?;
    }
    sync_dir(disk, &keyspaces)?;
    sync_dir(disk, path)
}

fn sync_dir(disk: &dyn Disk, path: &Path) -> Result<()> {
    disk.sync_dir(path).map_err(|source| Error::io("sync", path, source))
}

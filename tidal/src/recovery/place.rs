//! The directory of a database.
//!
//! Knows: which files lie in it, and that it is one. Must not know: what is in the log or the stores.
//!
//! ```text
//! LOCK        held while a process has the database open
//! identity    an envelope: format version; payload: database id 16
//! reserve     1 MiB of zeros, removed by an open, so that a full disk can be reopened
//! log/        segments
//! store/a  store/b   checkpoint stores, each an independent database
//! ```
//!
//! `identity` is what makes a directory a database. It is written first, under a temporary name, so
//! that a crash during creation leaves either nothing of value or a database without frames.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::codec::{Hasher, Kind, Purpose, open, seal, truncated};
use crate::error::{Error, Result};
use crate::fault::CrashPoint;
use crate::ids::{DatabaseId, Timestamp};
use crate::storage::{Anchored, Disk, Machine, system_random};
use crate::table::StoreSlot;
use crate::wal::{Log, LogOptions};

const FORMAT: u16 = 1;
const RESERVE_BYTES: usize = 1 << 20;

/// The largest identity file that is read.
const IDENTITY_BYTES: usize = 12 + 16 + 32;

/// A locked database directory.
pub(super) struct Place {
    /// Its disk changes nothing once the directory is another one.
    pub(super) machine: Machine,
    pub(super) anchor: Arc<Anchored>,
    root: PathBuf,
    pub(super) lock: Box<dyn Send + Sync>,
    pub(super) database: DatabaseId,
    /// Whether this open made it a database.
    pub(super) created: bool,
}

impl Place {
    /// Locks a directory, and makes it a database if it is empty or missing.
    pub(super) fn open(mut machine: Machine, root: &Path) -> Result<Self> {
        let disk = Arc::clone(&machine.disk);
        let identity = root.join("identity");
        if !disk.exists(&identity).map_err(|e| Error::io("look at", &identity, e))? {
            make_dirs(&*disk, root)?;
        }
        // A link may lead elsewhere later.
        let root = &*disk.canonical(root).map_err(|e| Error::io("look at", root, e))?;
        let at = |name: &str| root.join(name);
        let found = disk.list_dir(root).map_err(|e| Error::io("list", root, e))?;
        refuse_foreign(root, &found)?;
        let lock_path = at("LOCK");
        let lock = disk.try_lock(&lock_path).map_err(|e| Error::io("lock", &lock_path, e))?;
        let lock = lock.ok_or_else(|| Error::Locked { path: root.to_owned() })?;
        machine.faults.reach(CrashPoint::DirectoryLocked);
        let anchor = Anchored::to(disk, lock_path.clone());
        let anchor = Arc::new(anchor.map_err(|e| Error::io("look at", &lock_path, e))?);
        machine.disk = Arc::clone(&anchor) as Arc<dyn Disk>;
        let (database, created) = match read_identity(&*machine.disk, &at("identity"))? {
            Some(database) => (database, false),
            None => (create_identity(&machine, root, random_id())?, true),
        };
        let place = Self { machine, anchor, root: root.to_owned(), lock, database, created };
        place.make_dir("store")?;
        Ok(place)
    }

    /// Makes a directory, where nothing lies yet, the database of this name, and locks it.
    pub(super) fn create(machine: Machine, root: &Path, database: DatabaseId) -> Result<Self> {
        machine.disk.create_dir(root).map_err(|e| Error::io("create", root, e))?;
        create_identity(&machine, root, database)?;
        Self::open(machine, root)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn log_dir(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(super) fn store_path(&self, store: StoreSlot) -> PathBuf {
        self.root.join("store").join(store.name())
    }

    /// Gives the reserved space back to the disk. A failure only means that there is none.
    pub(super) fn free_reserve(&self) {
        let _ = self.machine.disk.remove_file(&self.root.join("reserve"));
    }

    /// Reserves space again. Without it a full disk may not be reopened before space is made.
    pub(super) fn fill_reserve(&self) {
        let path = self.root.join("reserve");
        let fill = || -> io::Result<()> {
            let file = self.machine.disk.create_file(&path)?;
            file.write_at(0, &vec![0; RESERVE_BYTES])?;
            file.sync()
        };
        if let Err(error) = fill() {
            tracing::warn!(%error, path = %path.display(), "no space could be reserved");
            let _ = self.machine.disk.remove_file(&path);
        }
    }

    /// Makes the log of a database that has none yet, under a temporary name first: a log that is
    /// there is always whole.
    pub(super) fn create_log_if_missing(&self, options: LogOptions) -> Result<()> {
        let Machine { disk, faults, .. } = &self.machine;
        let (log, temporary) = (self.log_dir(), self.root.join("log.tmp"));
        if disk.exists(&log).map_err(|e| Error::io("look at", &log, e))? {
            return Ok(());
        }
        disk.remove_dir_all(&temporary).map_err(|e| Error::io("remove", &temporary, e))?;
        drop(Log::create(Arc::clone(disk), temporary.clone(), self.database, options)?);
        faults.reach(CrashPoint::LogStaged);
        disk.rename(&temporary, &log).map_err(|e| Error::io("create", &log, e))?;
        disk.sync_dir(&self.root).map_err(|e| Error::io("sync", &self.root, e))?;
        faults.reach(CrashPoint::LogNamed);
        Ok(())
    }

    fn make_dir(&self, name: &str) -> Result<()> {
        let path = self.root.join(name);
        self.machine.disk.create_dir(&path).map_err(|e| Error::io("create", &path, e))?;
        self.machine.disk.sync_dir(&self.root).map_err(|e| Error::io("sync", &self.root, e))
    }
}

/// Makes a directory and its missing parents, durably.
fn make_dirs(disk: &dyn Disk, path: &Path) -> Result<()> {
    let here = Path::new(".");
    let parent =
        path.parent().map(|parent| if parent.as_os_str().is_empty() { here } else { parent });
    let sync_entry = || parent.map_or(Ok(()), |parent| disk.sync_dir(parent));
    let failed = |error| Error::io("sync", parent.unwrap_or(path), error);
    if disk.exists(path).map_err(|e| Error::io("look at", path, e))? {
        // Whoever made it may have died before its name was durable. Where others' directories cannot
        // be synced, it is theirs.
        return match sync_entry() {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            synced => synced.map_err(failed),
        };
    }
    if let Some(parent) = parent {
        make_dirs(disk, parent)?;
    }
    disk.create_dir(path).map_err(|e| Error::io("create", path, e))?;
    sync_entry().map_err(failed)
}

/// A directory without an identity must have nothing in it but what an interrupted creation leaves:
/// a database whose identity was lost is not overwritten by a new one.
fn refuse_foreign(root: &Path, found: &[PathBuf]) -> Result<()> {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names: Vec<String> = found.iter().map(name).collect();
    if names.iter().any(|name| name == "identity") {
        return Ok(());
    }
    match names.iter().find(|name| *name != "LOCK" && *name != "identity.tmp") {
        None => Ok(()),
        Some(other) => Err(Error::NotADatabase {
            path: root.to_owned(),
            reason: format!("it has no identity file, but {other:?}"),
        }),
    }
}

/// The name of the database in a directory, which may be open: it never changes.
///
/// # Errors
///
/// [`NotADatabase`](Error::NotADatabase), [`Corrupt`](Error::Corrupt), [`Io`](Error::Io).
pub(crate) fn identity_of(disk: &dyn Disk, root: &Path) -> Result<DatabaseId> {
    let reason = "it has no identity file";
    read_identity(disk, &root.join("identity"))?
        .ok_or_else(|| Error::NotADatabase { path: root.to_owned(), reason: reason.to_owned() })
}

fn read_identity(disk: &dyn Disk, path: &Path) -> Result<Option<DatabaseId>> {
    let bytes = match disk.read_file(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path, error)),
    };
    let what = || path.display().to_string();
    if bytes.len() > IDENTITY_BYTES {
        return Err(Error::corrupt(what(), "it is too long"));
    }
    let (_, payload, _) = open(Kind::Identity, FORMAT, &[], &bytes).map_err(|e| e.of(what()))?;
    let bits = payload.try_into().map_err(|_| Error::corrupt(what(), "it is too short"))?;
    Ok(Some(DatabaseId::new(bits)))
}

fn create_identity(machine: &Machine, root: &Path, database: DatabaseId) -> Result<DatabaseId> {
    let Machine { disk, faults, .. } = machine;
    let (bytes, _) = seal(Kind::Identity, FORMAT, &[], database.as_bytes());
    let (temporary, path) = (root.join("identity.tmp"), root.join("identity"));
    let write = || -> io::Result<()> {
        if disk.exists(&temporary)? {
            disk.remove_file(&temporary)?;
        }
        let file = disk.create_file(&temporary)?;
        file.write_at(0, &bytes)?;
        file.sync()?;
        faults.reach(CrashPoint::IdentityWritten);
        disk.rename(&temporary, &path)?;
        disk.sync_dir(root)
    };
    write().map_err(|e| Error::io("create", &path, e))?;
    faults.reach(CrashPoint::IdentityNamed);
    Ok(database)
}

/// 128 bits that no other database has.
pub(super) fn random_id() -> DatabaseId {
    use std::hash::{BuildHasher, RandomState};
    id_of(&Origin {
        hashed: [0; 2].map(|number: u64| RandomState::new().hash_one(number)),
        process: std::process::id(),
        now: SystemClock::new().now(),
        system: system_random(),
    })
}

/// What tells one creation from another. None is enough by itself: the standard library seeds a thread's
/// hashers from the operating system's randomness once, and processes that were forked from one share
/// them; two containers share the numbers of their processes; two machines the time; and the system may have
/// nothing to give.
struct Origin {
    hashed: [u64; 2],
    process: u32,
    now: Timestamp,
    system: Option<[u8; 16]>,
}

fn id_of(origin: &Origin) -> DatabaseId {
    let mut hasher = Hasher::new(Purpose::Identity);
    for part in origin.hashed {
        hasher.update(&part.to_le_bytes());
    }
    hasher.update(&origin.process.to_le_bytes()).update(&origin.now.as_nanos().to_le_bytes());
    hasher.update(&origin.system.unwrap_or_default());
    DatabaseId::new(truncated(&hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_have_the_same_identity_only_if_all_of_their_origin_is() {
        let now = Timestamp::from_secs(5);
        let of = |hashed, process, now, system| id_of(&Origin { hashed, process, now, system });
        let ids = [
            of([1, 2], 3, now, Some([4; 16])),
            of([1, 3], 3, now, Some([4; 16])),
            of([1, 2], 4, now, Some([4; 16])),
            of([1, 2], 3, Timestamp::from_nanos(now.as_nanos() + 1), Some([4; 16])),
            of([1, 2], 3, now, Some([5; 16])),
            of([1, 2], 3, now, None),
        ];
        assert_eq!(ids[0], of([1, 2], 3, now, Some([4; 16])));
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[..at].contains(id), "case {at}");
        }
    }
}

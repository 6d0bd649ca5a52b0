//! Looking at a database without touching it.

use std::fmt;
use std::path::Path;

use super::TidalDb;
use super::builder::{Builder, absolute};
use crate::error::{Error, Result};
use crate::recovery::OpenReport;
use crate::storage::{Disk, RealDisk, copy_tree, expect_free};
use crate::verify::VerifyReport;

/// What opening a database would find and do, and whether all of it verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// What opening the copy found and did.
    pub opened: OpenReport,
    /// What verifying the opened copy found.
    pub verified: VerifyReport,
    /// The digest of its state; `None` when something is broken.
    pub digest: Option<[u8; 32]>,
}

impl Inspection {
    /// Whether nothing is broken and nothing needed repair.
    pub fn is_sound(&self) -> bool {
        self.opened.repairs.is_empty() && self.verified.is_sound()
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.opened)?;
        self.verified.fmt(f)
    }
}

impl TidalDb {
    /// Says what opening the database at `path` would find and do, and verifies all of it, on a copy:
    /// opening repairs, and the checkpoint stores write when they are opened. The database must not
    /// be open; it is locked meanwhile. The copy is made at `scratch`, where nothing may lie yet, and
    /// is left there.
    ///
    /// # Errors
    ///
    /// [`Locked`](Error::Locked); [`NotADatabase`](Error::NotADatabase) when nothing lies at `path`;
    /// [`InvalidArgument`](Error::InvalidArgument) when something lies at `scratch`, or it lies in the
    /// database; what keeps the copy from being made; and every failure that opening would end with,
    /// such as [`CorruptLog`](Error::CorruptLog).
    pub fn inspect(path: &Path, scratch: &Path) -> Result<Inspection> {
        Self::builder().with_data_dir(path).inspect(scratch)
    }
}

impl Builder {
    /// As [`TidalDb::inspect`], of an open with the clock, schema, options and sessions that were said:
    /// [`sessions_restored`](OpenReport::sessions_restored) and
    /// [`sessions_ended`](OpenReport::sessions_ended) are what that open would do to sessions.
    ///
    /// ```no_run
    /// # use std::path::Path;
    /// # use tidaldb::{OpenPolicy, SessionConfig, TidalDb};
    /// let mut sessions = SessionConfig::default();
    /// sessions.on_open = OpenPolicy::EndAll;
    /// let builder = TidalDb::builder().with_data_dir("database").with_sessions(sessions);
    /// let would = builder.inspect(Path::new("scratch"))?;
    /// println!("{} sessions would end", would.opened.sessions_ended.len());
    /// # Ok::<(), tidaldb::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`TidalDb::inspect`] and of [`open`](Self::open).
    pub fn inspect(self, scratch: &Path) -> Result<Inspection> {
        let (path, scratch) = (&*absolute(self.directory()?)?, &*absolute(scratch)?);
        let _held = copy_locked(path, scratch, scratch)?;
        let db = self.of_copy(scratch).open()?;
        let verified = db.verify()?;
        let digest = if verified.is_sound() { Some(db.state_digest()?) } else { None };
        Ok(Inspection { opened: db.open_report().clone(), verified, digest })
    }
}

/// Locks the database at `path` and copies it to `copy`, which is to be called `target` in the end; it
/// stays locked while the guard lives.
pub(super) fn copy_locked(path: &Path, target: &Path, copy: &Path) -> Result<Box<dyn Send + Sync>> {
    let disk = RealDisk;
    let lock_path = path.join("LOCK");
    if !disk.exists(&lock_path).map_err(|e| Error::io("look at", &lock_path, e))? {
        let reason = "it has no lock file".to_owned();
        return Err(Error::NotADatabase { path: path.to_owned(), reason });
    }
    let lock = disk.try_lock(&lock_path).map_err(|e| Error::io("lock", &lock_path, e))?;
    let held = lock.ok_or_else(|| Error::Locked { path: path.to_owned() })?;
    expect_free(&disk, path, target)?;
    copy_tree(&disk, path, copy)?;
    Ok(held)
}

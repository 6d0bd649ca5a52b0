//! Looking at a database without touching it.

use std::fmt;
use std::path::Path;

use super::TidalDb;
use super::builder::{Builder, absolute};
use crate::error::{Error, Result};
use crate::recovery::{self, OpenReport};
use crate::storage::{Disk, RealDisk, Stage, copy_tree, expect_free};
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

impl TidalDb {
    /// The name of the database at `path`, as [`Status::database`](crate::Status::database) has it: to tell
    /// which one it is before it is opened. It may be open, and nothing is locked or written.
    ///
    /// # Errors
    ///
    /// [`NotADatabase`](Error::NotADatabase); [`Corrupt`](Error::Corrupt), [`Io`](Error::Io) when its
    /// identity cannot be read.
    pub fn identity(path: &Path) -> Result<String> {
        recovery::identity_of(&RealDisk, path).map(|database| database.to_string())
    }

    /// Copies the database at `path`, byte by byte, to `target`, where nothing may lie yet. It must not be
    /// open, and is locked meanwhile. The copy is whole and durable when it gets its name; what a killed
    /// process leaves beside it, as `target.tmp-stage`, the next copy, salvage or backup to there removes.
    ///
    /// It says nothing about whether the database is sound: [`inspect`](Self::inspect) the copy. Both have
    /// the same identity: only one of the two should be written to.
    ///
    /// # Errors
    ///
    /// [`Locked`](Error::Locked), also while something else is made for `target`;
    /// [`NotADatabase`](Error::NotADatabase) when nothing lies at `path`;
    /// [`InvalidArgument`](Error::InvalidArgument) when something lies at `target`, or at `target.tmp-stage`
    /// and is not what a killed copy left there, when `target` lies in the database, or the database in
    /// that stage; what keeps the copy from being made. Nothing lies at `target` then.
    pub fn copy(path: &Path, target: &Path) -> Result<()> {
        let (path, target) = (&*absolute(path)?, &*absolute(target)?);
        let _held = locked(path)?;
        let stage = Stage::beside(path, target)?;
        copy_tree(&RealDisk, path, &stage.database())?;
        stage.give_name()
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
        let (_held, db) = self.copied(scratch)?;
        let verified = db.verify()?;
        let digest = if verified.is_sound() { Some(db.state_digest()?) } else { None };
        Ok(Inspection { opened: db.open_report().clone(), verified, digest })
    }

    /// Opens a copy of the database, for whoever wants to look at it and change nothing: an open appends
    /// a frame, may end sessions, and repairs. What is read is what an open of the database itself would
    /// find; a [`ManualClock`](crate::ManualClock) at the [epoch](crate::schema::Timestamp::EPOCH) leaves
    /// its time, and so its sessions, as they were.
    ///
    /// The database must not be open; it is locked while it is copied, and free when this returns. The
    /// copy is made at `scratch`, where nothing may lie yet, and is left there. It is
    /// [driven by hand](crate::Runtime::Manual), and has the same identity: what is written to it is lost
    /// to the original.
    ///
    /// ```no_run
    /// # use std::path::Path;
    /// # use tidaldb::{SessionFilter, TidalDb};
    /// let copy = TidalDb::builder().with_data_dir("database").open_copy(Path::new("scratch"))?;
    /// for session in copy.sessions().list(&SessionFilter::new())? {
    ///     println!("{} of user {}", session.id, session.user);
    /// }
    /// # Ok::<(), tidaldb::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Locked`](Error::Locked); [`NotADatabase`](Error::NotADatabase) when nothing lies at the
    /// directory; [`InvalidArgument`](Error::InvalidArgument) when something lies at `scratch`, or it lies
    /// in the database; what keeps the copy from being made; those of [`open`](Self::open).
    pub fn open_copy(self, scratch: &Path) -> Result<TidalDb> {
        let (_held, db) = self.copied(scratch)?;
        Ok(db)
    }

    /// An open copy, and what keeps its original locked.
    fn copied(self, scratch: &Path) -> Result<(Box<dyn Send + Sync>, TidalDb)> {
        let (path, scratch) = (&*absolute(self.directory()?)?, &*absolute(scratch)?);
        let held = locked(path)?;
        expect_free(path, scratch)?;
        copy_tree(&RealDisk, path, scratch)?;
        Ok((held, self.of_copy(scratch).open()?))
    }
}

/// Locks the database at `path` while the guard lives.
pub(super) fn locked(path: &Path) -> Result<Box<dyn Send + Sync>> {
    let disk = RealDisk;
    let lock_path = path.join("LOCK");
    if !disk.exists(&lock_path).map_err(|e| Error::io("look at", &lock_path, e))? {
        let reason = "it has no lock file".to_owned();
        return Err(Error::NotADatabase { path: path.to_owned(), reason });
    }
    let lock = disk.try_lock(&lock_path).map_err(|e| Error::io("lock", &lock_path, e))?;
    lock.ok_or_else(|| Error::Locked { path: path.to_owned() })
}

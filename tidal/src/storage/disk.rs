//! The seam to the file system, for tidal's own files.
//!
//! Everything that must survive goes through [`Disk`], so that a simulated one can lose, tear or
//! refuse any of it. Paths are whatever the caller made of the database directory.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file system.
pub(crate) trait Disk: Send + Sync + Debug {
    /// Creates an empty file that must not exist yet, open for reading and writing.
    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// The whole content of a file; never writes.
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The paths in a directory, sorted.
    fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Whether something lies there.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Creates a directory whose parent exists; one that is there already is no error.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames a file or directory, replacing a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all in it; one that is not there is no error.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the entries of a directory survive a power cut.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes an exclusive lock on a file, created if missing, held until the guard is dropped.
    /// `None` when someone else holds it.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;
}

/// An open file of a [`Disk`]; positions are byte offsets.
pub(crate) trait DiskFile: Send + Sync + Debug {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// The size in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends (with zeros) to `size_bytes`.
    fn set_len(&self, size_bytes: u64) -> io::Result<()>;
    /// Makes content and size survive a power cut (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
}

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RealDisk;

//! The seam to the file system, for tidal's own files.
//!
//! Everything that must survive goes through [`Disk`], so that a simulated one can lose, tear or
//! refuse any of it. Paths are whatever the caller made of the database directory.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file system.
pub trait Disk: Send + Sync + Debug {
    /// Creates an empty file that must not exist yet, open for reading and writing.
    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// The whole content of a file; never writes.
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The paths in a directory, sorted; [`NotADirectory`](ErrorKind::NotADirectory) for a file.
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

    /// The path of something that exists, by no link.
    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    /// What tells a file from any other that there is, whatever it is called; `None` where nothing does.
    fn file_id(&self, path: &Path) -> io::Result<Option<FileId>> {
        let _ = path;
        Ok(None)
    }
}

/// The numbers of a device and of a file on it.
pub type FileId = (u64, u64);

/// An open file of a [`Disk`]; positions are byte offsets.
pub trait DiskFile: Send + Sync + Debug {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts or extends (with zeros) to `size_bytes`.
    fn set_len(&self, size_bytes: u64) -> io::Result<()>;
    /// Makes content and size survive a power cut (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
}

/// Sixteen random bytes of the operating system, where it has a file of them.
pub(crate) fn system_random() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).ok()?;
    Some(bytes)
}

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

#[expect(clippy::disallowed_methods, reason = "this is where files are seen")]
impl Disk for RealDisk {
    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort_unstable();
        Ok(paths)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            outcome => outcome,
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(LockGuard(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn file_id(&self, path: &Path) -> io::Result<Option<FileId>> {
        let metadata = fs::metadata(path)?;
        Ok(Some((metadata.dev(), metadata.ino())))
    }
}

/// A file of [`RealDisk`].
#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, size_bytes: u64) -> io::Result<()> {
        self.0.set_len(size_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// A held lock. It is given back explicitly, because a child that was just forked shares the file
/// until it calls exec, and closing our end alone would leave the lock with it.
struct LockGuard(File);

impl Drop for LockGuard {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "could not give back a file lock; closing the file does");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_a_second_one_of_the_same_process_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = RealDisk.try_lock(&path).unwrap();
        assert!(held.is_some());
        assert!(RealDisk.try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(RealDisk.try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn locking_keeps_what_the_file_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        RealDisk.create_file(&path).unwrap().write_at(0, b"owner").unwrap();
        let _held = RealDisk.try_lock(&path).unwrap().unwrap();
        assert_eq!(RealDisk.read_file(&path).unwrap(), b"owner");
    }

    #[test]
    fn writes_land_at_their_offset_and_set_len_cuts_and_extends_with_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = RealDisk.create_file(&path).unwrap();
        file.write_at(3, b"def").unwrap();
        file.write_at(0, b"abc").unwrap();
        file.sync().unwrap();
        assert_eq!(RealDisk.read_file(&path).unwrap().len(), 6);
        file.set_len(4).unwrap();
        file.set_len(5).unwrap();
        assert_eq!(RealDisk.read_file(&path).unwrap(), b"abcd\0");
        RealDisk.open_file(&path).unwrap().write_at(4, b"e").unwrap();
        assert_eq!(RealDisk.read_file(&path).unwrap(), b"abcde");
    }

    #[test]
    fn create_file_refuses_what_exists_and_open_file_what_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let missing = RealDisk.open_file(&path).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        RealDisk.create_file(&path).unwrap();
        let existing = RealDisk.create_file(&path).unwrap_err();
        assert_eq!(existing.kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn directories_are_listed_sorted_created_twice_and_removed_twice() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        RealDisk.create_dir(&inner).unwrap();
        RealDisk.create_dir(&inner).unwrap();
        for name in ["b", "c", "a"] {
            RealDisk.create_file(&inner.join(name)).unwrap();
        }
        assert!(RealDisk.create_dir(&inner.join("a")).is_err(), "a file is not a directory");
        let listed = RealDisk.list_dir(&inner).unwrap();
        assert_eq!(listed, ["a", "b", "c"].map(|name| inner.join(name)));
        let not_a_dir = RealDisk.list_dir(&inner.join("a")).unwrap_err();
        assert_eq!(not_a_dir.kind(), ErrorKind::NotADirectory);
        RealDisk.sync_dir(&inner).unwrap();
        RealDisk.remove_dir_all(&inner).unwrap();
        RealDisk.remove_dir_all(&inner).unwrap();
        assert!(!RealDisk.exists(&inner).unwrap());
    }

    #[test]
    fn rename_replaces_a_file_of_that_name() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("new"), dir.path().join("old"));
        RealDisk.create_file(&from).unwrap().write_at(0, b"new").unwrap();
        RealDisk.create_file(&to).unwrap().write_at(0, b"old!").unwrap();
        RealDisk.rename(&from, &to).unwrap();
        assert_eq!(RealDisk.read_file(&to).unwrap(), b"new");
        assert!(!RealDisk.exists(&from).unwrap());
        RealDisk.remove_file(&to).unwrap();
        assert!(!RealDisk.exists(&to).unwrap());
    }
}

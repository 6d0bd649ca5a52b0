//! The mark around each open of a store.
//!
//! Knows: how many opens of a store in a row did not return. Must not know: why, or what a store is.
//!
//! fjall can end the process on some damage, where no error and no panic can be caught. So a synced
//! file says "being opened" before it is asked, and goes when it has answered. A store whose last
//! open did not return gets one more try, because a kill or a power cut looks the same.
//!
//! On disk, for a store at `x`: `x.opening`, one ASCII digit, the number of opens in a row that began
//! and have not returned, 1 or 2. Empty: an open that had not begun. Anything else counts as 1, since
//! a try too many costs less than a store.

use std::path::{Path, PathBuf};

use super::Disk;
use super::place::{beside, parent};
use crate::error::{Error, Result};

/// How many opens in a row may fail to return before a store is left alone.
const ABORTED_OPENS_MAX: u8 = 2;

/// Where the mark of the store at `store` lies.
fn mark_path(store: &Path) -> PathBuf {
    beside(store, ".opening")
}

/// Marks, durably, that an open of the store at `store` begins; every way in which it returns must
/// end in [`forget_opens`]. False when as many opens as may did not return: then it must not begin.
pub(super) fn begin_open(disk: &dyn Disk, store: &Path) -> Result<bool> {
    let mark = mark_path(store);
    let aborted = aborted_opens(disk, &mark)?;
    if aborted >= ABORTED_OPENS_MAX {
        return Ok(false);
    }
    if aborted > 0 {
        tracing::warn!(store = %store.display(), "the last open of this store did not return");
    }
    if let Err(source) = write_mark(disk, &mark, aborted + 1) {
        // An open that did not begin, as on a full disk, must not count as one that did not return.
        if aborted == 0 {
            let _ = disk.remove_file(&mark);
        }
        return Err(Error::io("mark", &mark, source));
    }
    Ok(true)
}

/// Whether the store at `store` is left alone, because too many opens in a row did not return.
///
/// # Errors
///
/// What the file system refuses.
pub(crate) fn is_left_alone(disk: &dyn Disk, store: &Path) -> Result<bool> {
    Ok(aborted_opens(disk, &mark_path(store))? >= ABORTED_OPENS_MAX)
}

/// Forgets that opens of the store at `store` did not return: because one has, or because the store
/// is the last one left and must be tried again.
///
/// # Errors
///
/// What the file system refuses.
pub(crate) fn forget_opens(disk: &dyn Disk, store: &Path) -> Result<()> {
    let mark = mark_path(store);
    let exists = disk.exists(&mark).map_err(|source| Error::io("look at", &mark, source))?;
    if exists {
        disk.remove_file(&mark)
            .and_then(|()| disk.sync_dir(parent(&mark)))
            .map_err(|source| Error::io("remove", &mark, source))?;
    }
    Ok(())
}

fn aborted_opens(disk: &dyn Disk, mark: &Path) -> Result<u8> {
    let exists = disk.exists(mark).map_err(|source| Error::io("look at", mark, source))?;
    if !exists {
        return Ok(0);
    }
    let digits = disk.read_file(mark).map_err(|source| Error::io("read", mark, source))?;
    Ok(match digits.as_slice() {
        b"" => 0,
        b"2" => 2,
        _ => 1,
    })
}

fn write_mark(disk: &dyn Disk, mark: &Path, opens: u8) -> std::io::Result<()> {
    let file = if disk.exists(mark)? { disk.open_file(mark)? } else { disk.create_file(mark)? };
    file.write_at(0, &[b'0' + opens])?;
    file.set_len(1)?;
    file.sync()?;
    disk.sync_dir(parent(mark))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;
    use crate::storage::{DiskFile, RealDisk};

    /// A disk that syncs no directory.
    #[derive(Debug)]
    struct Unsyncable;

    impl Disk for Unsyncable {
        fn create_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
            RealDisk.create_file(path)
        }

        fn open_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
            RealDisk.open_file(path)
        }

        fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
            RealDisk.read_file(path)
        }

        fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
            RealDisk.list_dir(path)
        }

        fn exists(&self, path: &Path) -> io::Result<bool> {
            RealDisk.exists(path)
        }

        fn create_dir(&self, path: &Path) -> io::Result<()> {
            RealDisk.create_dir(path)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            RealDisk.rename(from, to)
        }

        fn remove_file(&self, path: &Path) -> io::Result<()> {
            RealDisk.remove_file(path)
        }

        fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
            RealDisk.remove_dir_all(path)
        }

        fn sync_dir(&self, _: &Path) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
            RealDisk.try_lock(path)
        }
    }

    #[test]
    fn the_third_open_in_a_row_is_refused_when_two_did_not_return() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("a");
        assert!(begin_open(&RealDisk, &store).unwrap());
        assert_eq!(RealDisk.read_file(&mark_path(&store)).unwrap(), b"1");
        assert!(begin_open(&RealDisk, &store).unwrap());
        assert_eq!(RealDisk.read_file(&mark_path(&store)).unwrap(), b"2");
        assert!(!begin_open(&RealDisk, &store).unwrap());
        assert!(!begin_open(&RealDisk, &store).unwrap(), "refusing is not forgetting");
        forget_opens(&RealDisk, &store).unwrap();
        assert!(begin_open(&RealDisk, &store).unwrap());
    }

    #[test]
    fn an_open_that_returned_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("a");
        for _ in 0..5 {
            assert!(begin_open(&RealDisk, &store).unwrap());
            forget_opens(&RealDisk, &store).unwrap();
        }
        assert_eq!(RealDisk.list_dir(dir.path()).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn an_open_that_could_not_be_marked_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("a");
        for _ in 0..5 {
            assert!(begin_open(&Unsyncable, &store).is_err());
        }
        assert!(begin_open(&RealDisk, &store).unwrap());
        assert_eq!(RealDisk.read_file(&mark_path(&store)).unwrap(), b"1");
    }

    #[test]
    fn an_empty_mark_counts_nothing_and_a_damaged_one_counts_once() {
        for (content, expected) in [(&b""[..], &b"1"[..]), (b"\x7f", b"2"), (b"12", b"2")] {
            let dir = tempfile::tempdir().unwrap();
            let store = dir.path().join("a");
            RealDisk.create_file(&mark_path(&store)).unwrap().write_at(0, content).unwrap();
            assert!(begin_open(&RealDisk, &store).unwrap());
            assert_eq!(RealDisk.read_file(&mark_path(&store)).unwrap(), expected, "{content:?}");
        }
    }
}

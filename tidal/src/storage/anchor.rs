//! A directory that stays the one it was.
//!
//! Knows: which file an open database holds locked, and that its name must lead to it. Must not know: what
//! else lies there.
//!
//! Everything goes by path. If the directory is moved while a process has it open, and another one, such as
//! a copy that was restored, gets its name, then what that process creates, renames and removes would hit
//! the other one. So before each of those it is asked whether the lock file is the one that is held. Files
//! that are open already are where they were, wherever that is now.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::FileId;
use super::{Disk, DiskFile};

/// Why nothing is written any more.
pub(crate) const DISPLACED: &str =
    "the directory of the database was moved or replaced while it was open";

/// A disk that refuses to change what lies under the names of a directory that is another one by now.
#[derive(Debug)]
pub(crate) struct Anchored {
    disk: Arc<dyn Disk>,
    lock_file: PathBuf,
    /// `None` where files cannot be told apart: then nothing is refused.
    id: Option<FileId>,
}

impl Anchored {
    /// The disk with the directory of a lock file that is held.
    ///
    /// # Errors
    ///
    /// What the file system refuses.
    pub(crate) fn to(disk: Arc<dyn Disk>, lock_file: PathBuf) -> io::Result<Self> {
        let id = disk.file_id(&lock_file)?;
        Ok(Self { disk, lock_file, id })
    }

    /// Whether the name of the lock file still leads to the one that is held.
    ///
    /// # Errors
    ///
    /// What the file system refuses.
    pub(crate) fn is_in_place(&self) -> io::Result<bool> {
        match self.id {
            None => Ok(true),
            Some(_) => match self.disk.file_id(&self.lock_file) {
                Ok(found) => Ok(found == self.id),
                Err(error) if is_absence(&error) => Ok(false),
                Err(error) => Err(error),
            },
        }
    }

    fn in_place(&self) -> io::Result<&dyn Disk> {
        match self.is_in_place()? {
            true => Ok(&*self.disk),
            false => Err(io::Error::other(DISPLACED)),
        }
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

impl Disk for Anchored {
    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.in_place()?.create_file(path)
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.in_place()?.open_file(path)
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read_file(path)
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.in_place()?.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.in_place()?.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.in_place()?.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.in_place()?.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.disk.try_lock(path)
    }

    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        self.disk.canonical(path)
    }

    fn file_id(&self, path: &Path) -> io::Result<Option<FileId>> {
        self.disk.file_id(path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::RealDisk;

    #[test]
    fn nothing_is_changed_under_a_name_that_leads_elsewhere_by_now() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let make = |name: &str| {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("LOCK"), "").unwrap();
            fs::write(at(name).join("kept"), name).unwrap();
        };
        make("ours");
        let disk = Anchored::to(Arc::new(RealDisk), at("ours/LOCK")).unwrap();
        disk.create_file(&at("ours/new")).unwrap();
        fs::rename(at("ours"), at("moved")).unwrap();
        let changes: [&dyn Fn() -> io::Result<()>; 6] = [
            &|| disk.create_file(&at("ours/other")).map(drop),
            &|| disk.open_file(&at("ours/kept")).map(drop),
            &|| disk.create_dir(&at("ours/dir")),
            &|| disk.rename(&at("ours/kept"), &at("ours/lost")),
            &|| disk.remove_file(&at("ours/kept")),
            &|| disk.remove_dir_all(&at("ours")),
        ];
        for is_replaced in [false, true] {
            if is_replaced {
                make("ours");
            }
            for change in changes {
                let refused = change().unwrap_err();
                assert!(refused.to_string().contains(DISPLACED), "{refused}");
            }
        }
        assert_eq!(fs::read(at("ours/kept")).unwrap(), b"ours");
        assert_eq!(RealDisk.list_dir(&at("ours")).unwrap().len(), 2);
        fs::rename(at("ours"), at("theirs")).unwrap();
        fs::rename(at("moved"), at("ours")).unwrap();
        changes.iter().take(2).for_each(|change| change().unwrap());
    }
}

//! A disk in memory that never fails.
//!
//! Knows: paths and bytes. Must not know: what survives a crash; the tests of the log have a disk
//! that does.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::{Disk, DiskFile};
use crate::sync::Mutex;

type Content = Arc<Mutex<Vec<u8>>>;

/// Files by path; directories are not kept.
#[derive(Debug, Default)]
pub(super) struct MemoryDisk(Mutex<BTreeMap<PathBuf, Content>>);

#[derive(Debug)]
struct MemoryFile(Content);

impl MemoryDisk {
    pub(super) fn put(&self, path: PathBuf, bytes: Vec<u8>) {
        self.0.lock().insert(path, Arc::new(Mutex::new(bytes)));
    }

    fn content(&self, path: &Path) -> io::Result<Content> {
        self.0.lock().get(path).cloned().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.put(path.to_owned(), Vec::new());
        self.open_file(path)
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(MemoryFile(self.content(path)?)))
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.content(path)?.lock().clone())
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let files = self.0.lock();
        Ok(files.keys().filter(|file| file.parent() == Some(path)).cloned().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.0.lock().contains_key(path))
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.0.lock();
        let content = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.lock().remove(path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.lock().retain(|file, _| !file.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self, _: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        Ok(Some(Box::new(())))
    }
}

impl DiskFile for MemoryFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.0.lock();
        let start = offset as usize;
        if content.len() < start + bytes.len() {
            content.resize(start + bytes.len(), 0);
        }
        content[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, size_bytes: u64) -> io::Result<()> {
        self.0.lock().resize(size_bytes as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

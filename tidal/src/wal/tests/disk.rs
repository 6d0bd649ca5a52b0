//! A disk in memory that can stop at any operation, refuse one, and lose power.
//!
//! Knows: which bytes and names were synced. Must not know: what they mean. It is stricter than
//! POSIX asks a file system to be kind: every sector of 512 bytes, size and directory entry that was
//! not synced survives a power cut or not, independently; a failed sync leaves everything readable,
//! some of it on the disk, and nothing left to try again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::{Disk, DiskFile};
use crate::sync::Mutex;

const SECTOR_BYTES: usize = 512;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// Operations that change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Create,
    Write,
    SetLen,
    Sync,
    Rename,
    Remove,
    SyncDir,
}

/// What a reboot finds of that which was never synced.
#[derive(Debug, Clone, Copy)]
pub(super) enum Survives {
    /// Only the process died.
    Everything,
    Nothing,
    /// A subset, by seed.
    Some(u64),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<FileChange>,
}

#[derive(Debug, Clone)]
enum FileChange {
    Sector(usize, Vec<u8>),
    Len(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Put(PathBuf, usize),
    Remove(PathBuf),
    /// From, to, and which file: the entry names the file, whatever else of the names survives.
    Rename(PathBuf, PathBuf, usize),
}

#[derive(Debug, Clone)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
    done: Vec<Op>,
    /// The number of operations that succeed before every one fails.
    stop_after: Option<usize>,
    /// The next operation of this kind fails, once.
    refuse: Option<(Op, io::ErrorKind)>,
    random: Random,
}

#[derive(Debug, Clone)]
pub(super) struct TestDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct TestFile {
    disk: TestDisk,
    inode: usize,
}

impl TestDisk {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            done: Vec::new(),
            stop_after: None,
            refuse: None,
            random: Random(1),
        })))
    }

    pub(super) fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// After `count` more operations every one fails, and the first of those is done by halves.
    pub(super) fn stop_after(&self, count: usize) {
        let mut state = self.0.lock();
        state.stop_after = Some(state.done.len() + count);
        state.random = Random(count as u64);
    }

    pub(super) fn refuse_next(&self, op: Op, kind: io::ErrorKind) {
        self.0.lock().refuse = Some((op, kind));
    }

    pub(super) fn done(&self) -> Vec<Op> {
        self.0.lock().done.clone()
    }

    /// The disk as the next process finds it; this one stays as it is.
    pub(super) fn reboot(&self, survives: Survives) -> Self {
        let mut state = self.0.lock().clone();
        state.stop_after = None;
        state.refuse = None;
        let mut random = match survives {
            Survives::Everything => return Self(Arc::new(Mutex::new(state))),
            Survives::Nothing => None,
            Survives::Some(seed) => Some(Random(seed)),
        };
        let mut survives = || random.as_mut().is_some_and(Random::coin);
        for change in std::mem::take(&mut state.pending_names) {
            if survives() {
                apply_name(&mut state.durable_names, change);
            }
        }
        state.names = state.durable_names.clone();
        for inode in &mut state.inodes {
            inode.settle(&mut survives);
            inode.now = inode.durable.clone();
        }
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().names.keys().cloned().collect()
    }

    pub(super) fn content(&self, path: &Path) -> Vec<u8> {
        self.read_file(path).expect("is there")
    }

    /// Damage: replaces a file's content, durably.
    pub(super) fn put(&self, path: &Path, content: Vec<u8>) {
        let mut state = self.0.lock();
        let inode = state.inodes.len();
        state.inodes.push(Inode { now: content.clone(), durable: content, pending: Vec::new() });
        state.names.insert(path.to_owned(), inode);
        state.durable_names.insert(path.to_owned(), inode);
    }

    /// Damage: removes a file, durably.
    pub(super) fn delete(&self, path: &Path) {
        let mut state = self.0.lock();
        state.names.remove(path);
        state.durable_names.remove(path);
    }
}

impl State {
    fn begin(&mut self, op: Op) -> io::Result<()> {
        if self.stop_after.is_some_and(|count| self.done.len() >= count) {
            return Err(io::Error::other("the machine stopped"));
        }
        self.done.push(op);
        match self.refuse.take_if(|(refused, _)| *refused == op) {
            Some((_, kind)) => Err(kind.into()),
            None => Ok(()),
        }
    }

    fn inode_at(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, change.clone());
        self.pending_names.push(change);
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, change: NameChange) {
    match change {
        NameChange::Put(path, inode) => {
            names.insert(path, inode);
        }
        NameChange::Remove(path) => {
            names.remove(&path);
        }
        NameChange::Rename(from, to, inode) => {
            names.remove(&from);
            names.insert(to, inode);
        }
    }
}

impl Inode {
    fn set_len(&mut self, len: usize) {
        self.now.resize(len, 0);
        self.pending.push(FileChange::Len(len));
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if end > self.now.len() {
            self.set_len(end);
        }
        self.now[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            let start = sector * SECTOR_BYTES;
            let stop = self.now.len().min(start + SECTOR_BYTES);
            self.pending.push(FileChange::Sector(start, self.now[start..stop].to_vec()));
        }
    }

    /// Brings those pending changes to the disk for which `survives` says so.
    fn settle(&mut self, survives: &mut dyn FnMut() -> bool) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                _ if !survives() => {}
                FileChange::Len(len) => self.durable.resize(len, 0),
                FileChange::Sector(start, bytes) => {
                    let stop = self.durable.len().min(start + bytes.len());
                    if start < stop {
                        self.durable[start..stop].copy_from_slice(&bytes[..stop - start]);
                    }
                }
            }
        }
    }
}

impl Disk for TestDisk {
    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.begin(Op::Create)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.change_name(NameChange::Put(path.to_owned(), inode));
        Ok(Arc::new(TestFile { disk: self.clone(), inode }))
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.0.lock().inode_at(path)?;
        Ok(Arc::new(TestFile { disk: self.clone(), inode }))
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.0.lock();
        Ok(state.inodes[state.inode_at(path)?].now.clone())
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.paths().into_iter().filter(|p| p.parent() == Some(path)).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.0.lock().names.contains_key(path))
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin(Op::Rename)?;
        let inode = state.inode_at(from)?;
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin(Op::Remove)?;
        state.inode_at(path)?;
        state.change_name(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.lock().names.retain(|name, _| !name.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin(Op::SyncDir)?;
        for change in std::mem::take(&mut state.pending_names) {
            apply_name(&mut state.durable_names, change);
        }
        Ok(())
    }

    fn try_lock(&self, _: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        Ok(Some(Box::new(())))
    }
}

impl DiskFile for TestFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let state = &mut *self.disk.0.lock();
        let begun = state.begin(Op::Write);
        let count = match begun {
            Ok(()) => bytes.len(),
            // The write that failed was done by halves.
            Err(_) => state.random.below(bytes.len() as u64 + 1) as usize,
        };
        if begun.is_ok() || state.stop_after == Some(state.done.len()) {
            state.inodes[self.inode].write(offset as usize, &bytes[..count]);
        }
        begun
    }

    fn set_len(&self, size_bytes: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.begin(Op::SetLen)?;
        state.inodes[self.inode].set_len(size_bytes as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let state = &mut *self.disk.0.lock();
        let begun = state.begin(Op::Sync);
        match &begun {
            Ok(()) => state.inodes[self.inode].settle(&mut || true),
            // The page cache believes it clean now, whatever of it reached the disk.
            Err(_) => state.inodes[self.inode].settle(&mut || state.random.coin()),
        }
        begun
    }
}

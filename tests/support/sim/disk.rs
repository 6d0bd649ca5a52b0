//! The simulated disk: operations, faults, reboots.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tidaldb::storage::{Disk, DiskFile};

use super::super::random::Random;
use super::nodes::{Dir, File, Node, Store};

/// Operations that change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// A file or a lock file comes into being.
    Create,
    /// A directory or a store does.
    CreateDir,
    /// Bytes are written.
    Write,
    /// A size is set.
    SetLen,
    /// A file is synced.
    Sync,
    /// A name is changed.
    Rename,
    /// A name is removed.
    Remove,
    /// A directory is synced.
    SyncDir,
    /// A batch is written to a store.
    StoreWrite,
    /// A store is synced.
    StoreSync,
}

/// What a reboot finds of that which was never synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survives {
    /// All of it: only the process died.
    Everything,
    /// None of it.
    Nothing,
    /// A subset, by seed.
    Some(u64),
}

/// How operations fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The operation that fails, counted from now.
    pub after: usize,
    /// Only operations of this kind are counted and fail, if there is one.
    pub of: Option<Op>,
    /// With what error: `Other` is what an EIO becomes, `StorageFull` an ENOSPC.
    pub kind: io::ErrorKind,
    /// Whether all later ones fail as well.
    pub for_good: bool,
    /// Whether a write that fails was done by halves.
    pub is_short: bool,
}

#[derive(Debug, Clone)]
struct State {
    nodes: Vec<Node>,
    locked: BTreeSet<PathBuf>,
    done: Vec<Op>,
    /// The number of operations that succeed before every one fails: the machine has stopped.
    stop_after: Option<usize>,
    /// Whether one has failed for that reason.
    is_dead: bool,
    fault: Option<Fault>,
    /// Whether it came to pass.
    has_failed: bool,
    random: Random,
}

/// Why an operation is not done, or not wholly.
struct Refused {
    error: io::Error,
    /// Whether part of it may have been done.
    by_halves: bool,
    /// Whether the machine goes on.
    goes_on: bool,
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

/// The machine right before one of its operations.
#[derive(Debug, Clone)]
pub struct Image {
    state: State,
    /// The operation that comes next.
    pub op: Op,
    /// The bytes that it writes.
    write: Option<(usize, usize, Arc<[u8]>)>,
    /// What the story had noted by then, see [`SimDisk::note`].
    pub note: u64,
}

#[derive(Debug, Default)]
struct Recorder {
    is_on: bool,
    note: u64,
    images: Vec<Image>,
}

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    recorder: Arc<Mutex<Recorder>>,
}

const ROOT: usize = 0;

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::of(State {
            nodes: vec![Node::Dir(Dir::default())],
            locked: BTreeSet::new(),
            done: Vec::new(),
            stop_after: None,
            is_dead: false,
            fault: None,
            has_failed: false,
            random: Random::new(1),
        })
    }

    fn of(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)), recorder: Arc::default() }
    }

    /// The disk for whoever takes any.
    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the disk")
    }

    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().expect("no test panics while it holds the recorder")
    }

    /// After `count` more operations every one fails, and the first of those is done by halves.
    pub fn stop_after(&self, count: usize) {
        let mut state = self.lock();
        state.stop_after = Some(state.done.len() + count);
        state.random = Random::new(count as u64);
    }

    /// The machine stops now.
    pub fn stop(&self) {
        let mut state = self.lock();
        // One that has stopped does not stop later.
        let done = state.done.len();
        state.stop_after = Some(state.stop_after.map_or(done, |stop| stop.min(done)));
        state.random = Random::new(u64::MAX);
    }

    /// Operations fail from now on as it says.
    pub fn fail(&self, fault: Fault) {
        let mut state = self.lock();
        (state.fault, state.has_failed) = (Some(fault), false);
    }

    /// The next operation of this kind fails, once.
    pub fn fail_next(&self, op: Op, kind: io::ErrorKind) {
        self.fail(Fault { after: 0, of: Some(op), kind, for_good: false, is_short: false });
    }

    /// Whether the fault that was asked for has come to pass.
    pub fn has_failed(&self) -> bool {
        self.lock().has_failed
    }

    /// Every operation that was begun, in order.
    pub fn done(&self) -> Vec<Op> {
        self.lock().done.clone()
    }

    /// Keeps an image before each operation from now on.
    pub fn record(&self) {
        self.recorder().is_on = true;
    }

    /// Notes how far the story is: the next images carry it.
    pub fn note(&self, note: u64) {
        self.recorder().note = note;
    }

    /// The images kept since [`record`](Self::record).
    pub fn images(&self) -> Vec<Image> {
        std::mem::take(&mut self.recorder().images)
    }

    /// The disk as the next process finds it; this one stays as it is.
    pub fn reboot(&self, survives: Survives) -> Self {
        Self::of(self.lock().rebooted(survives))
    }

    /// What can be told apart after a reboot: equal for equal contents under equal names.
    pub fn fingerprint(&self) -> u64 {
        let state = self.lock();
        let mut hasher = DefaultHasher::new();
        state.hash_node(ROOT, &mut hasher);
        hasher.finish()
    }

    /// Makes a directory and its parents, durably.
    pub fn make_dirs(&self, path: &Path) {
        let mut state = self.lock();
        let mut at = ROOT;
        for name in names(path) {
            at = match state.dir(at).expect("a directory").now.get(&name) {
                Some(&node) => node,
                None => state.add_durably(at, name, Node::Dir(Dir::default())),
            };
        }
    }

    /// Every file, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        let state = self.lock();
        let mut found = Vec::new();
        let mut todo = vec![(PathBuf::new(), ROOT)];
        while let Some((path, node)) = todo.pop() {
            match &state.nodes[node] {
                Node::Dir(dir) => {
                    todo.extend(dir.now.iter().map(|(name, &node)| (path.join(name), node)));
                }
                Node::File(_) => found.push(path),
                Node::Store(_) => {}
            }
        }
        found.sort_unstable();
        found
    }

    /// The content of a file that is there.
    pub fn content(&self, path: &Path) -> Vec<u8> {
        self.read_file(path).expect("is there")
    }

    /// Damage: replaces a file's content, durably.
    pub fn put(&self, path: &Path, content: Vec<u8>) {
        let mut state = self.lock();
        let (dir, name) = state.place(path).expect("its directory is there");
        state.add_durably(dir, name, Node::File(File::durable(content)));
    }

    /// Damage: removes a file, directory or store, durably.
    pub fn delete(&self, path: &Path) {
        let mut state = self.lock();
        let (dir, name) = state.place(path).expect("its directory is there");
        state.dir(dir).expect("a directory").change_durably(&vec![(name, None)]);
    }

    /// Does something to a store that is there.
    pub(super) fn with_store<T>(
        &self,
        path: &Path,
        change: impl FnOnce(&mut Store) -> T,
    ) -> io::Result<T> {
        let mut state = self.lock();
        let node = state.find(path)?;
        state.store(node).map(change)
    }

    /// Makes an empty, durable store under a name that is not.
    pub(super) fn create_store(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(Op::CreateDir, None)?;
        state.create(path, Node::Store(Store::default())).map(drop)
    }

    /// The node of the store at `path`.
    pub(super) fn find_store(&self, path: &Path) -> io::Result<usize> {
        let mut state = self.lock();
        let node = state.find(path)?;
        state.store(node).map(|_| node)
    }

    /// An operation on a store. If it fails, `by_halves` says what was done of it.
    pub(super) fn store_op<T>(
        &self,
        op: Op,
        node: usize,
        done: impl FnOnce(&mut Store) -> T,
        by_halves: impl FnOnce(&mut Store, &mut Random),
    ) -> io::Result<T> {
        match self.begin(op, None) {
            Ok(mut state) => state.store(node).map(done),
            Err(refused) => {
                let State { nodes, random, .. } = &mut *self.lock();
                // What a sync had not done when the machine stopped can still be synced: only a sync
                // that failed leaves what it believes clean.
                let is_done = refused.by_halves && (op != Op::StoreSync || refused.goes_on);
                if let (Node::Store(store), true) = (&mut nodes[node], is_done) {
                    by_halves(store, random);
                }
                Err(refused.error)
            }
        }
    }

    /// What a store holds now.
    pub(super) fn look_at_store<T>(&self, node: usize, look: impl FnOnce(&Store) -> T) -> T {
        look(self.lock().store(node).expect("a store stays one"))
    }

    /// Begins an operation: counts it, keeps an image, fails it if it is to fail.
    fn begin(
        &self,
        op: Op,
        write: Option<(usize, usize, &[u8])>,
    ) -> Result<MutexGuard<'_, State>, Refused> {
        let mut state = self.lock();
        if state.stop_after.is_some_and(|count| state.done.len() >= count) {
            let error = io::Error::other("the machine stopped");
            let by_halves = !std::mem::replace(&mut state.is_dead, true);
            return Err(Refused { error, by_halves, goes_on: false });
        }
        {
            let mut recorder = self.recorder();
            if recorder.is_on {
                let write = write.map(|(node, offset, bytes)| (node, offset, bytes.into()));
                let note = recorder.note;
                recorder.images.push(Image { state: state.clone(), op, write, note });
            }
        }
        state.done.push(op);
        state.fail_if_due(op)?;
        Ok(state)
    }
}

impl Image {
    /// The disk as the next process finds it, if the machine stopped right here.
    pub fn reboot(&self, survives: Survives) -> SimDisk {
        SimDisk::of(self.state.rebooted(survives))
    }

    /// The same, if the machine stopped in the middle of the write that comes next; `None` if no
    /// write does.
    pub fn reboot_torn(&self, seed: u64, survives: Survives) -> Option<SimDisk> {
        let (node, offset, bytes) = self.write.as_ref()?;
        let count = 1 + Random::new(seed).below(bytes.len() as u64) as usize;
        let mut state = self.state.clone();
        if let Node::File(file) = &mut state.nodes[*node] {
            file.write(*offset, &bytes[..count]);
        }
        Some(SimDisk::of(state.rebooted(survives)))
    }
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        _ => None,
    })
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl State {
    fn fail_if_due(&mut self, op: Op) -> Result<(), Refused> {
        let Some(fault) = &mut self.fault else { return Ok(()) };
        if fault.of.is_some_and(|kind| kind != op) {
            return Ok(());
        }
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        let error = io::Error::from(fault.kind);
        self.has_failed = true;
        // What a store or a page cache makes of a failure is unknown; a write says how much it wrote.
        let by_halves = op != Op::Write || fault.is_short;
        if !fault.for_good {
            self.fault = None;
        }
        Err(Refused { error, by_halves, goes_on: true })
    }

    fn rebooted(&self, survives: Survives) -> Self {
        let mut state = Self {
            locked: BTreeSet::new(),
            done: Vec::new(),
            stop_after: None,
            is_dead: false,
            fault: None,
            has_failed: false,
            ..self.clone()
        };
        let mut random = match survives {
            Survives::Everything => return state,
            Survives::Nothing => None,
            Survives::Some(seed) => Some(Random::new(seed)),
        };
        let mut survives = || random.as_mut().is_some_and(|random| random.one_in(2));
        state.nodes.iter_mut().for_each(|node| node.settle(&mut survives));
        state
    }

    fn dir(&mut self, node: usize) -> io::Result<&mut Dir> {
        match &mut self.nodes[node] {
            Node::Dir(dir) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&mut self, node: usize) -> io::Result<&mut File> {
        match &mut self.nodes[node] {
            Node::File(file) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn store(&mut self, node: usize) -> io::Result<&mut Store> {
        match &mut self.nodes[node] {
            Node::Store(store) => Ok(store),
            _ => Err(io::Error::other("no store lies there")),
        }
    }

    fn find(&mut self, path: &Path) -> io::Result<usize> {
        names(path)
            .try_fold(ROOT, |at, name| self.dir(at)?.now.get(&name).copied().ok_or_else(not_found))
    }

    /// The directory that a path lies in, and its name there.
    fn place(&mut self, path: &Path) -> io::Result<(usize, OsString)> {
        let name = path.file_name().ok_or_else(not_found)?.to_owned();
        let dir = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.dir(dir)?;
        Ok((dir, name))
    }

    fn create(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        let (dir, name) = self.place(path)?;
        let id = self.nodes.len();
        let dir = self.dir(dir)?;
        if dir.now.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        dir.change(vec![(name, Some(id))]);
        self.nodes.push(node);
        Ok(id)
    }

    fn add_durably(&mut self, dir: usize, name: OsString, node: Node) -> usize {
        let id = self.nodes.len();
        self.nodes.push(node);
        self.dir(dir).expect("a directory").change_durably(&vec![(name, Some(id))]);
        id
    }

    fn hash_node(&self, node: usize, hasher: &mut DefaultHasher) {
        match &self.nodes[node] {
            Node::File(file) => file.now.hash(hasher),
            Node::Store(store) => (&store.now, store.is_unopenable).hash(hasher),
            Node::Dir(dir) => {
                dir.now.len().hash(hasher);
                for (name, &node) in &dir.now {
                    name.hash(hasher);
                    self.hash_node(node, hasher);
                }
            }
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    node: usize,
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.lock().locked.remove(&self.path);
    }
}

impl Disk for SimDisk {
    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.begin(Op::Create, None)?;
        let node = state.create(path, Node::File(File::default()))?;
        Ok(Arc::new(SimFile { disk: self.clone(), node }))
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        let node = state.find(path)?;
        state.file(node)?;
        Ok(Arc::new(SimFile { disk: self.clone(), node }))
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.lock();
        let node = state.find(path)?;
        state.file(node).map(|file| file.now.to_vec())
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.lock();
        let node = state.find(path)?;
        Ok(state.dir(node)?.now.keys().map(|name| path.join(name)).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.lock().find(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        {
            let mut state = self.lock();
            if let Ok(node) = state.find(path) {
                return state.dir(node).map(drop);
            }
        }
        let mut state = self.begin(Op::CreateDir, None)?;
        state.create(path, Node::Dir(Dir::default())).map(drop)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.begin(Op::Rename, None)?;
        let node = state.find(from)?;
        let ((old_dir, old), (new_dir, new)) = (state.place(from)?, state.place(to)?);
        if old_dir == new_dir {
            state.dir(old_dir)?.change(vec![(old, None), (new, Some(node))]);
        } else {
            state.dir(new_dir)?.change(vec![(new, Some(node))]);
            state.dir(old_dir)?.change(vec![(old, None)]);
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(Op::Remove, None)?;
        state.find(path)?;
        let (dir, name) = state.place(path)?;
        state.dir(dir)?.change(vec![(name, None)]);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        match self.list_dir(path) {
            Ok(entries) => entries.iter().try_for_each(|entry| self.remove_dir_all(entry))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => {}
        }
        self.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(Op::SyncDir, None)?;
        let node = state.find(path)?;
        state.dir(node)?.settle(&mut || true);
        Ok(())
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        if !self.exists(path)? {
            self.create_file(path)?;
        }
        if !self.lock().locked.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock { disk: self.clone(), path: path.to_owned() })))
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).expect("it fits into memory");
        match self.disk.begin(Op::Write, Some((self.node, offset, bytes))) {
            Ok(mut state) => {
                state.file(self.node)?.write(offset, bytes);
                Ok(())
            }
            Err(refused) => {
                let state = &mut *self.disk.lock();
                if refused.by_halves {
                    let count = state.random.below(bytes.len() as u64 + 1) as usize;
                    state.file(self.node)?.write(offset, &bytes[..count]);
                }
                Err(refused.error)
            }
        }
    }

    fn set_len(&self, size_bytes: u64) -> io::Result<()> {
        let mut state = self.disk.begin(Op::SetLen, None)?;
        let len = usize::try_from(size_bytes).expect("it fits into memory");
        state.file(self.node)?.set_len(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        match self.disk.begin(Op::Sync, None) {
            Ok(mut state) => {
                state.file(self.node)?.settle(&mut || true);
                Ok(())
            }
            Err(refused) => {
                // The page cache believes it clean now, whatever of it reached the disk.
                let State { nodes, random, .. } = &mut *self.disk.lock();
                if let (Node::File(file), true) = (&mut nodes[self.node], refused.goes_on) {
                    file.settle(&mut || random.one_in(2));
                }
                Err(refused.error)
            }
        }
    }
}

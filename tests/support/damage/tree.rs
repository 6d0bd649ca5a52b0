//! Directories as values: to write copies from, and to compare.
//!
//! Files of a database are preallocated with up to 64 MiB of zeros, so only what lies before the
//! zeros at a file's end is kept, and holes are neither written nor read.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// The content of a file or directory, to be written anywhere.
#[derive(Debug, Clone)]
pub(super) enum Image {
    File { used: Vec<u8>, size_bytes: u64 },
    Dir(BTreeMap<String, Image>),
}

impl Image {
    /// Reads a file or directory.
    pub(super) fn load(path: &Path) -> Self {
        if path.is_dir() {
            let names = fs::read_dir(path).expect("the directory is listed").map(|entry| {
                entry.expect("an entry is read").file_name().into_string().expect("it is text")
            });
            // The reserve is 1 MiB of zeros that every open removes first.
            let names = names.filter(|name| name != "reserve");
            return Self::Dir(names.map(|n| (n.clone(), Self::load(&path.join(n)))).collect());
        }
        let (used, size_bytes) = used_bytes(path);
        Self::File { used, size_bytes }
    }

    /// Writes it where nothing lies.
    pub(super) fn write(&self, to: &Path) {
        match self {
            Self::File { used, size_bytes } => {
                let file = OpenOptions::new().write(true).create_new(true).open(to);
                let file = file.unwrap_or_else(|e| panic!("{}: {e}", to.display()));
                file.write_all_at(used, 0).expect("the copy is written");
                file.set_len(*size_bytes).expect("the copy gets its size");
            }
            Self::Dir(entries) => {
                fs::create_dir(to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
                entries.iter().for_each(|(name, entry)| entry.write(&to.join(name)));
            }
        }
    }
}

/// Every file below a directory: what it holds, its size, and how much of it is no hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, Leaf>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Leaf {
    Dir,
    File { used: Vec<u8>, size_bytes: u64 },
}

impl Tree {
    /// Looks at a directory.
    pub fn of(root: &Path) -> Self {
        let mut tree = Self(BTreeMap::new());
        tree.add(root, "");
        tree
    }

    fn add(&mut self, dir: &Path, prefix: &str) {
        for entry in fs::read_dir(dir).expect("the directory is listed") {
            let entry = entry.expect("an entry is read");
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().expect("its type is known").is_dir() {
                self.add(&entry.path(), &format!("{name}/"));
                self.0.insert(name, Leaf::Dir);
            } else {
                let (used, size_bytes) = used_bytes(&entry.path());
                self.0.insert(name, Leaf::File { used, size_bytes });
            }
        }
    }

    /// The files, each with its bytes up to the zeros at its end, and its size.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8], u64)> {
        self.0.iter().filter_map(|(name, leaf)| match leaf {
            Leaf::File { used, size_bytes } => Some((name.as_str(), used.as_slice(), *size_bytes)),
            Leaf::Dir => None,
        })
    }

    /// What differs in a later look: names, with `-` for what is gone, `+` for what is new and `~`
    /// for what was changed.
    pub fn changes(&self, later: &Self) -> Vec<String> {
        let gone = self.0.keys().filter(|name| !later.0.contains_key(*name));
        let gone = gone.map(|name| format!("-{name}"));
        let other = later.0.iter().filter_map(|(name, leaf)| match self.0.get(name) {
            None => Some(format!("+{name}")),
            Some(before) if before != leaf => Some(format!("~{name}")),
            Some(_) => None,
        });
        gone.chain(other).collect()
    }
}

/// The bytes of a file up to the zeros at its end, and its size. Holes are not read where they lie
/// behind everything that is allocated.
fn used_bytes(path: &Path) -> (Vec<u8>, u64) {
    const BLOCK_BYTES: u64 = 512;
    const SMALL_FILE_BYTES: u64 = 4 << 20;
    let failed = |e: std::io::Error| -> ! { panic!("{}: {e}", path.display()) };
    let mut file = File::open(path).unwrap_or_else(|e| failed(e));
    let metadata = file.metadata().unwrap_or_else(|e| failed(e));
    let (size_bytes, allocated) = (metadata.size(), metadata.blocks() * BLOCK_BYTES);
    let mut used = Vec::new();
    if size_bytes > SMALL_FILE_BYTES && allocated < size_bytes {
        // Written from the front, so what is allocated lies there; if not, all of it is read.
        let mut front = vec![0; usize::try_from(allocated.min(size_bytes)).expect("fits")];
        file.read_exact_at(&mut front, 0).unwrap_or_else(|e| failed(e));
        let blank = |block: &[u8]| block.iter().all(|&byte| byte == 0);
        if !front.chunks(4_096).any(blank) || allocated == 0 {
            used = front;
        }
    }
    if used.is_empty() {
        file.read_to_end(&mut used).unwrap_or_else(|e| failed(e));
    }
    let end = used.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    used.truncate(end);
    (used, size_bytes)
}

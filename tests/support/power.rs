//! What a disk holds after a power cut, by the shim's shadow of what was synced.
//!
//! Knows: the shadow's format (`tests/shim/faults.c`) and file systems' promises. Must not know: what
//! the files mean.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::random::Random;

/// A sector: what a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What survives besides what was synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survives {
    /// Nothing: POSIX promises no more.
    Nothing,
    /// Entries of directories as they were at the end, and sizes: bytes not synced are zeros.
    EntriesAndSizes,
    /// Entries of directories as they were at the end; sizes as synced.
    Entries,
    /// Entries and sizes of each directory at random, and of each file sectors at random.
    Sectors {
        /// What it follows from.
        seed: u64,
    },
}

/// Whether the file system tells inodes apart whose number was used before.
///
/// # Errors
///
/// Why not.
pub fn can_tell_inodes_apart(dir: &Path) -> Result<(), String> {
    fs::metadata(dir).and_then(|found| found.created()).map(drop).map_err(|e| e.to_string())
}

/// Puts all that lies in a directory into a shadow, as if it were synced.
pub fn adopt(dir: &Path, shadow: &Path) {
    let mut listing = String::new();
    for (name, found) in entries(dir) {
        let path = dir.join(&name);
        let (letter, id) = (if found.is_dir() { 'd' } else { 'f' }, id_of(&found));
        listing += &format!("{letter} {id} {name}\n");
        if found.is_dir() {
            adopt(&path, shadow);
        } else {
            fs::copy(&path, shadow.join(id)).expect("a file is copied");
        }
    }
    let id = id_of(&fs::metadata(dir).expect("the directory is there"));
    fs::write(shadow.join(id), listing).expect("the listing is written");
}

/// Builds, in an empty directory, what is left of `live`, whose process is dead, after a power cut.
///
/// The directory itself survives.
pub fn rebuild(live: &Path, shadow: &Path, survives: Survives, image: &Path) {
    let seed = if let Survives::Sectors { seed } = survives { seed } else { 0 };
    let mut power = PowerCut { shadow, survives, random: Random::new(seed) };
    let root = id_of(&fs::metadata(live).expect("the directory is there"));
    // The live inodes, wherever they lie now: an entry that survived may have been renamed since.
    let mut inodes = BTreeMap::new();
    find_inodes(live, &mut inodes);
    power.directory(&root, &inodes, image);
}

/// What is live of an inode.
enum Live {
    File(Vec<u8>),
    Directory(Listing),
}

/// Entries: name to whether it is a directory, and the inode's id.
type Listing = BTreeMap<String, (bool, String)>;

type Inodes = BTreeMap<String, Live>;

fn find_inodes(dir: &Path, inodes: &mut Inodes) {
    let mut listing = Listing::new();
    for (name, found) in entries(dir) {
        let (path, id) = (dir.join(&name), id_of(&found));
        if found.is_dir() {
            find_inodes(&path, inodes);
        } else {
            let bytes = fs::read(&path).expect("a file is read");
            inodes.insert(id.clone(), Live::File(bytes));
        }
        listing.insert(name, (found.is_dir(), id));
    }
    let id = id_of(&fs::metadata(dir).expect("the directory is there"));
    inodes.insert(id, Live::Directory(listing));
}

struct PowerCut<'a> {
    shadow: &'a Path,
    survives: Survives,
    random: Random,
}

impl PowerCut<'_> {
    fn directory(&mut self, id: &str, inodes: &Inodes, image: &Path) {
        let keeps_live = match self.survives {
            Survives::Nothing => false,
            Survives::EntriesAndSizes | Survives::Entries => true,
            Survives::Sectors { .. } => self.random.one_in(2),
        };
        let listing = match inodes.get(id) {
            Some(Live::Directory(listing)) if keeps_live => listing.clone(),
            // Of one that was removed since, only the synced entries are known.
            _ => self.synced(id).map(|text| parse_listing(&text)).unwrap_or_default(),
        };
        for (name, (is_directory, id)) in listing {
            let path = image.join(name);
            if is_directory {
                fs::create_dir(&path).expect("a directory is made");
                self.directory(&id, inodes, &path);
            } else {
                let live = match inodes.get(&id) {
                    Some(Live::File(bytes)) => Some(bytes.as_slice()),
                    _ => None,
                };
                let bytes = self.content(&id, live);
                write_sparse(&path, &bytes);
            }
        }
    }

    /// What a file holds. One that was removed since has no live content.
    fn content(&mut self, id: &str, live: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = self.synced(id).unwrap_or_default();
        let Some(live) = live else { return bytes };
        match self.survives {
            Survives::Nothing | Survives::Entries => {}
            Survives::EntriesAndSizes => bytes.resize(live.len(), 0),
            Survives::Sectors { .. } => {
                if self.random.one_in(4) {
                    return bytes;
                }
                bytes.resize(live.len(), 0);
                for (sector, live) in bytes.chunks_mut(SECTOR_BYTES).zip(live.chunks(SECTOR_BYTES))
                {
                    if sector != live && self.random.one_in(2) {
                        sector.copy_from_slice(live);
                    }
                }
            }
        }
        bytes
    }

    /// What was synced of an inode, if it ever was.
    fn synced(&self, id: &str) -> Option<Vec<u8>> {
        match fs::read(self.shadow.join(id)) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => panic!("the shadow cannot be read: {error}"),
        }
    }
}

/// The shim's name for an inode.
fn id_of(found: &Metadata) -> String {
    let born = found.created().expect("asked for before");
    let born = born.duration_since(UNIX_EPOCH).expect("after 1970");
    format!("{}-{}-{}", found.ino(), born.as_secs(), born.subsec_nanos())
}

fn parse_listing(text: &[u8]) -> Listing {
    let text = std::str::from_utf8(text).expect("names are text");
    let entry = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().expect("a word").to_owned();
        let (letter, id, name) = (word(), word(), word());
        (name, (letter == "d", id))
    };
    text.lines().map(entry).collect()
}

/// The entries of a directory.
fn entries(dir: &Path) -> Vec<(String, Metadata)> {
    let listed = fs::read_dir(dir).expect("the directory is listed");
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.expect("an entry is read");
        let name = entry.file_name().into_string().expect("names are text");
        (name, entry.metadata().expect("it is there"))
    };
    listed.map(entry).collect()
}

/// Zeros at the end take no space.
fn write_sparse(path: &Path, bytes: &[u8]) {
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let file = fs::File::create(path).expect("a file is made");
    file.write_all_at(&bytes[..used], 0).expect("it is written");
    file.set_len(bytes.len() as u64).expect("it is extended");
}

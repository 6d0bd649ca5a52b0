//! What is done to a copy of a database, as values and as lines of text.

use std::fmt::{self, Display, Formatter};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;

use super::tree::Image;
use crate::random::Random;

/// One change to a copy. Files are named by their path below the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Flips the bits of a mask in the byte at an offset of a file.
    Flip(String, u64, u8),
    /// Cuts a file to a size, or extends it with zeros.
    Resize(String, u64),
    /// Writes bytes at an offset of a file.
    Write(String, u64, Vec<u8>),
    /// Writes zeros at an offset of a file, this many.
    Zeros(String, u64, u64),
    /// The same with garbage, which follows from a seed.
    Garbage(String, u64, u64, u64),
    /// Removes a file or a directory.
    Remove(String),
    /// Renames a file or a directory.
    Rename(String, String),
    /// Puts a file or directory of the scene, named by its path below that, in place of whatever is
    /// at a path of the copy.
    Bring(String, String),
}

/// A damaged copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The database in the scene.
    pub of: String,
    /// In order.
    pub edits: Vec<Edit>,
    /// Whether, once open, both checkpoints are written anew and it is opened a second time.
    pub twice: bool,
}

impl Case {
    /// A copy with edits, opened once.
    pub fn new(of: &str, edits: impl Into<Vec<Edit>>) -> Self {
        Self { of: of.to_owned(), edits: edits.into(), twice: false }
    }

    /// The same, used for a while and opened again.
    pub fn twice(self) -> Self {
        Self { twice: true, ..self }
    }
}

impl Display for Edit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flip(file, offset, mask) => write!(f, "flip|{file}|{offset}|{mask}"),
            Self::Resize(file, size_bytes) => write!(f, "resize|{file}|{size_bytes}"),
            Self::Write(file, offset, bytes) => {
                write!(f, "write|{file}|{offset}|{}", crate::hex(bytes))
            }
            Self::Zeros(file, offset, size_bytes) => {
                write!(f, "zeros|{file}|{offset}|{size_bytes}")
            }
            Self::Garbage(file, offset, size_bytes, seed) => {
                write!(f, "garbage|{file}|{offset}|{size_bytes}|{seed}")
            }
            Self::Remove(path) => write!(f, "remove|{path}"),
            Self::Rename(from, to) => write!(f, "rename|{from}|{to}"),
            Self::Bring(from, to) => write!(f, "bring|{from}|{to}"),
        }
    }
}

impl Display for Case {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let opens = if self.twice { "twice" } else { "once" };
        write!(f, "{} {opens}", self.of)?;
        self.edits.iter().try_for_each(|edit| write!(f, " {edit}"))
    }
}

impl FromStr for Edit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
        let path = str::to_owned;
        let fields: Vec<&str> = text.split('|').collect();
        Ok(match fields[..] {
            ["flip", file, offset, mask] => {
                let mask = mask.parse().map_err(|e| format!("{mask}: {e}"))?;
                Self::Flip(path(file), number(offset)?, mask)
            }
            ["resize", file, size] => Self::Resize(path(file), number(size)?),
            ["write", file, offset, bytes] => {
                Self::Write(path(file), number(offset)?, unhex(bytes)?)
            }
            ["zeros", file, offset, size] => {
                Self::Zeros(path(file), number(offset)?, number(size)?)
            }
            ["garbage", file, offset, size, seed] => {
                Self::Garbage(path(file), number(offset)?, number(size)?, number(seed)?)
            }
            ["remove", at] => Self::Remove(path(at)),
            ["rename", from, to] => Self::Rename(path(from), path(to)),
            ["bring", from, to] => Self::Bring(path(from), path(to)),
            _ => return Err(format!("no edit: {text}")),
        })
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(' ');
        let (Some(of), Some(opens)) = (words.next(), words.next()) else {
            return Err(format!("no case: {text}"));
        };
        let edits = words.map(Edit::from_str).collect::<Result<_, _>>()?;
        Ok(Self { of: of.to_owned(), edits, twice: opens == "twice" })
    }
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let pairs = text.as_bytes().chunks(2).map(str::from_utf8);
    pairs
        .map(|pair| pair.map_err(|e| e.to_string()))
        .map(|pair| u8::from_str_radix(pair?, 16).map_err(|e| e.to_string()))
        .collect()
}

impl Edit {
    /// Whether it changes bytes of this file and leaves it where it is.
    pub(super) fn damages(&self, file: &str) -> bool {
        match self {
            Self::Flip(at, ..)
            | Self::Resize(at, _)
            | Self::Write(at, ..)
            | Self::Zeros(at, ..)
            | Self::Garbage(at, ..) => at == file,
            Self::Remove(_) | Self::Rename(..) | Self::Bring(..) => false,
        }
    }

    /// Does it to the database in `dir`, a copy from `scene`.
    pub(super) fn apply(&self, scene: &Path, dir: &Path) {
        let write = |file: &str, offset: u64, bytes: &[u8]| {
            open(&dir.join(file)).write_all_at(bytes, offset).expect("the bytes are written");
        };
        match self {
            Self::Flip(file, offset, mask) => {
                let mut byte = [0];
                let opened = open(&dir.join(file));
                opened.read_exact_at(&mut byte, *offset).expect("the byte is there");
                write(file, *offset, &[byte[0] ^ mask]);
            }
            Self::Resize(file, size_bytes) => {
                open(&dir.join(file)).set_len(*size_bytes).expect("the size is changed");
            }
            Self::Write(file, offset, bytes) => write(file, *offset, bytes),
            Self::Zeros(file, offset, size_bytes) => {
                write(file, *offset, &vec![0; *size_bytes as usize]);
            }
            Self::Garbage(file, offset, size_bytes, seed) => {
                let mut random = Random::new(*seed);
                let bytes: Vec<u8> = (0..*size_bytes).map(|_| random.below(256) as u8).collect();
                write(file, *offset, &bytes);
            }
            Self::Remove(path) => remove(&dir.join(path)),
            Self::Rename(from, to) => {
                fs::rename(dir.join(from), dir.join(to)).expect("it is renamed");
            }
            Self::Bring(from, to) => {
                remove(&dir.join(to));
                Image::load(&scene.join(from)).write(&dir.join(to));
            }
        }
    }
}

/// Opens a file, or makes it.
fn open(path: &Path) -> File {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    options.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).expect("the directory is removed"),
        Ok(_) => fs::remove_file(path).expect("the file is removed"),
        Err(_) => {}
    }
}

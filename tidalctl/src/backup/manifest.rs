//! What is in a backup: the size and the hash of each file, and the hash of the state.
//!
//! Knows: files, hashes. Must not know: what they mean to a database.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::failure::Failure;

const FORMAT: &str = "tidal backup";
const VERSION: u64 = 1;

/// What a backup says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    digest: String,
    seq: u64,
    files: BTreeMap<String, Entry>,
}

/// A file.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    size_bytes: u64,
    blake3: String,
}

/// Why a file is no manifest that can be followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is something else, or damaged.
    Unreadable,
    /// It is of a later program.
    Newer(Value),
    /// It names a file outside the backup.
    Outside(String),
}

impl Wrong {
    pub(super) fn in_file(self, path: &Path) -> Failure {
        let path = path.display();
        match self {
            Self::Unreadable => Failure::failed(format!("{path} is not the manifest of a backup"))
                .hint("it may be damaged: use another backup"),
            Self::Newer(version) => Failure::failed(format!(
                "{path} is of version {version}, this program knows {VERSION}"
            ))
            .hint("use the newer tidalctl that made the backup"),
            Self::Outside(name) => {
                Failure::failed(format!("{path} names {name:?}, which is no file of a backup"))
                    .hint("tidalctl backup never writes that: somebody has changed it")
            }
        }
    }
}

impl Manifest {
    /// What lies in a directory.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub(super) fn of(dir: &Path, digest: String, seq: u64) -> anyhow::Result<Self> {
        let mut files = BTreeMap::new();
        for path in paths(dir)? {
            let failed = || format!("cannot read {}", path.display());
            let name =
                path.strip_prefix(dir).expect("it lies there").to_str().with_context(failed)?;
            let mut file = File::open(&path).with_context(failed)?;
            let entry = copy(&mut file, &mut std::io::sink()).with_context(failed)?;
            files.insert(name.to_owned(), entry);
        }
        Ok(Self { digest, seq, files })
    }

    /// Writes it down.
    ///
    /// # Errors
    ///
    /// When `out` takes no more.
    pub(super) fn write(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let row = |(name, entry): (&String, &Entry)| json!({ "path": name, "size_bytes": entry.size_bytes, "blake3": entry.blake3 });
        let manifest = json!({
            "format": FORMAT,
            "version": VERSION,
            "digest": self.digest,
            "seq": self.seq.to_string(),
            "files": self.files.iter().map(row).collect::<Vec<Value>>(),
        });
        Ok(writeln!(out, "{manifest:#}")?)
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Wrong> {
        let value: Value = serde_json::from_slice(text).map_err(|_| Wrong::Unreadable)?;
        if value["format"] != FORMAT {
            return Err(Wrong::Unreadable);
        }
        if value["version"] != VERSION {
            return Err(Wrong::Newer(value["version"].clone()));
        }
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or(Wrong::Unreadable);
        let mut files = BTreeMap::new();
        for row in value["files"].as_array().ok_or(Wrong::Unreadable)? {
            let name = text(&row["path"])?;
            let is_inside = |part| matches!(part, Component::Normal(_));
            if name.is_empty() || !Path::new(&name).components().all(is_inside) {
                return Err(Wrong::Outside(name));
            }
            let size_bytes = row["size_bytes"].as_u64().ok_or(Wrong::Unreadable)?;
            files.insert(name, Entry { size_bytes, blake3: text(&row["blake3"])? });
        }
        let seq = text(&value["seq"])?.parse().map_err(|_| Wrong::Unreadable)?;
        Ok(Self { digest: text(&value["digest"])?, seq, files })
    }

    /// Copies the files, each compared with its hash and made durable.
    ///
    /// # Errors
    ///
    /// When a file is missing, another than it was, or too many; and what the file system refuses.
    pub(super) fn restore(&self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let listed = |path: &&PathBuf| {
            let name = path.strip_prefix(from).ok().and_then(Path::to_str);
            name.is_some_and(|name| self.files.contains_key(name))
        };
        if let Some(stranger) = paths(from)?.iter().find(|path| !listed(path)) {
            return Err(changed(stranger, "is not in the manifest").into());
        }
        for (name, entry) in &self.files {
            let (source, target) = (from.join(name), to.join(name));
            let dir = target.parent().expect("it lies in a directory");
            let failed = || format!("cannot write {}", target.display());
            fs::create_dir_all(dir).with_context(failed)?;
            let mut original =
                File::open(&source).map_err(|error| changed(&source, &error.to_string()))?;
            let mut made = File::create_new(&target).with_context(failed)?;
            let copied = copy(&mut original, &mut made).with_context(failed)?;
            if copied != *entry {
                return Err(changed(&source, "is not what was backed up").into());
            }
            made.sync_all().with_context(failed)?;
        }
        sync_dirs(to).with_context(|| format!("cannot write {}", to.display()))
    }

    /// The hash of the state, in hexadecimal.
    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    /// How many files there are.
    pub(super) fn files(&self) -> u64 {
        self.files.len() as u64
    }

    /// Their size.
    pub(super) fn size_bytes(&self) -> u64 {
        self.files.values().map(|entry| entry.size_bytes).sum()
    }
}

fn changed(path: &Path, how: &str) -> Failure {
    Failure::failed(format!("{} {how}", path.display()))
        .hint("nothing was restored: the backup is damaged, use another one")
}

/// Every file below a directory.
fn paths(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let failed = || format!("cannot read {}", dir.display());
    let mut found = Vec::new();
    for entry in dir.read_dir().with_context(failed)? {
        let entry = entry.with_context(failed)?;
        if entry.file_type().with_context(failed)?.is_dir() {
            found.extend(paths(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Copies a file, and says what it was.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> std::io::Result<Entry> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size_bytes = 0;
    loop {
        let len = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..len]);
        to.write_all(&buffer[..len])?;
        size_bytes += len as u64;
    }
    Ok(Entry { size_bytes, blake3: hasher.finalize().to_hex().to_string() })
}

fn sync_dirs(dir: &Path) -> std::io::Result<()> {
    for entry in dir.read_dir()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_dirs(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let entry = Entry { size_bytes: 3, blake3: "ab".to_owned() };
        let files = BTreeMap::from([("log/1".to_owned(), entry)]);
        Manifest { digest: "cd".to_owned(), seq: u64::MAX, files }
    }

    fn written() -> Value {
        let mut text = Vec::new();
        manifest().write(&mut text).expect("memory takes everything");
        serde_json::from_slice(&text).expect("JSON")
    }

    #[test]
    fn what_was_written_down_is_read_back() {
        assert_eq!(Manifest::parse(written().to_string().as_bytes()), Ok(manifest()));
    }

    #[test]
    fn a_manifest_names_no_file_outside_the_backup() {
        for name in ["../x", "/etc/passwd", "", "log/../../x", "."] {
            let mut wrong = written();
            wrong["files"][0]["path"] = name.into();
            let parsed = Manifest::parse(wrong.to_string().as_bytes());
            assert_eq!(parsed, Err(Wrong::Outside(name.to_owned())));
        }
    }

    #[test]
    fn what_is_no_manifest_or_a_newer_one_is_told_apart() {
        assert_eq!(Manifest::parse(b"{}"), Err(Wrong::Unreadable));
        assert_eq!(Manifest::parse(b"\xff"), Err(Wrong::Unreadable));
        let mut newer = written();
        newer["version"] = 2.into();
        assert_eq!(Manifest::parse(newer.to_string().as_bytes()), Err(Wrong::Newer(2.into())));
    }
}

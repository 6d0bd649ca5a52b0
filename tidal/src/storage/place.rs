//! What lies beside a store: its stage while it is created, its predecessor that was moved aside.
//!
//! Knows: names and renames of directories. Must not know: what is in them.
//!
//! On disk, for a store at `x`: `x.tmp-creating` is one whose creation did not finish (wiped by the
//! next open or create), `x.damaged` the newest one that was moved aside.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Disk, RealDisk};
use crate::error::{Error, Result};

/// What every stage's name has behind the store's.
const STAGE_PREFIX: &str = ".tmp-";

/// Where a store at `path` is built before it gets its name.
pub(super) fn stage_path(path: &Path) -> PathBuf {
    beside(path, ".tmp-creating")
}

/// Where [`move_aside`] puts the store at `path`.
pub(crate) fn aside_path(path: &Path) -> PathBuf {
    beside(path, ".damaged")
}

/// A path in the same directory, whose name is `path`'s with `suffix` behind it.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// The directory that `path` lies in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Removes what interrupted creations of the store at `path` left.
pub(super) fn wipe_stages(disk: &dyn Disk, path: &Path) -> Result<()> {
    let dir = parent(path);
    let stages = beside(path, STAGE_PREFIX);
    let prefix = stages.file_name().expect("a name with a suffix is a name");
    for found in disk.list_dir(dir).map_err(|source| Error::io("list", dir, source))? {
        let is_stage = found
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes()));
        if is_stage {
            tracing::info!(path = %found.display(), "wiping what an interrupted creation left");
            disk.remove_dir_all(&found).map_err(|source| Error::io("remove", &found, source))?;
        }
    }
    Ok(())
}

/// Renames the store at `path`, which must not be open, to [`aside_path`], where it replaces the one
/// that was moved aside before. The count of its aborted opens goes with it: whatever is created at
/// `path` next starts without a past. A store that is not there is no error.
///
/// # Errors
///
/// What the file system refuses; then the store is still at `path`, or whole at [`aside_path`].
pub(crate) fn move_aside(disk: &dyn Disk, path: &Path) -> Result<()> {
    let aside = aside_path(path);
    let dir = parent(path);
    if disk.exists(path).map_err(|source| Error::io("look at", path, source))? {
        remove_aside(disk, &aside).map_err(|source| Error::io("remove", &aside, source))?;
        disk.rename(path, &aside).map_err(|source| Error::io("move aside", path, source))?;
        disk.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))?;
    }
    super::opening::forget_opens(disk, path)
}

/// What was moved aside may be anything: a file that lay where a store should, too.
fn remove_aside(disk: &dyn Disk, aside: &Path) -> std::io::Result<()> {
    match disk.remove_dir_all(aside) {
        Err(error) if error.kind() == ErrorKind::NotADirectory => disk.remove_file(aside),
        outcome => outcome,
    }
}

/// Copies a file, or a directory and all in it, to `to`, where nothing lies yet. Nothing may write to
/// the original meanwhile. Zeros at the end of a file take no space in the copy. The copy is not
/// synced: it is for looking at.
///
/// # Errors
///
/// What the file system refuses; then a part of the copy may be there.
pub(crate) fn copy_tree(disk: &dyn Disk, from: &Path, to: &Path) -> Result<()> {
    let entries = match disk.list_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotADirectory => return copy_file(disk, from, to),
        Err(source) => return Err(Error::io("list", from, source)),
    };
    disk.create_dir(to).map_err(|source| Error::io("create", to, source))?;
    for entry in entries {
        let name = entry.file_name().expect("an entry of a directory has a name");
        copy_tree(disk, &entry, &to.join(name))?;
    }
    Ok(())
}

/// Refuses a `target` where something lies, or that lies in `source`, which must not be changed.
///
/// # Errors
///
/// [`InvalidArgument`](Error::InvalidArgument); what the file system refuses to say.
pub(crate) fn expect_free(source: &Path, target: &Path) -> Result<()> {
    if RealDisk.exists(target).map_err(|e| Error::io("look at", target, e))? {
        return Err(Error::invalid("target", format!("something lies at {}", target.display())));
    }
    if real(parent(target))?.starts_with(real(source)?) {
        return Err(Error::invalid("target", "it lies in the database that is to be copied"));
    }
    Ok(())
}

/// The path of something that exists, by no link.
pub(super) fn real(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).map_err(|e| Error::io("look at", path, e))
}

fn copy_file(disk: &dyn Disk, from: &Path, to: &Path) -> Result<()> {
    let bytes = disk.read_file(from).map_err(|source| Error::io("read", from, source))?;
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    disk.create_file(to)
        .and_then(|copy| {
            copy.write_at(0, &bytes[..used])?;
            copy.set_len(bytes.len() as u64)
        })
        .map_err(|source| Error::io("write", to, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store_holding(path: &Path, content: &[u8]) {
        RealDisk.create_dir(path).unwrap();
        RealDisk.create_file(&path.join("content")).unwrap().write_at(0, content).unwrap();
    }

    #[test]
    fn moving_aside_keeps_the_newest_copy_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        for content in [b"first", b"later"] {
            store_holding(&path, content);
            move_aside(&RealDisk, &path).unwrap();
            assert!(!RealDisk.exists(&path).unwrap());
            let kept = RealDisk.read_file(&aside_path(&path).join("content")).unwrap();
            assert_eq!(kept, content);
        }
        assert_eq!(RealDisk.list_dir(dir.path()).unwrap(), [dir.path().join("b.damaged")]);
    }

    #[test]
    fn a_file_that_lies_where_a_store_should_is_moved_aside_and_its_copy_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        for _ in 0..2 {
            RealDisk.create_file(&path).unwrap().write_at(0, b"x").unwrap();
            move_aside(&RealDisk, &path).unwrap();
        }
        store_holding(&path, b"kept");
        move_aside(&RealDisk, &path).unwrap();
        let kept = RealDisk.read_file(&aside_path(&path).join("content")).unwrap();
        assert_eq!(kept, b"kept");
    }

    #[test]
    fn moving_aside_what_is_not_there_keeps_the_copy_made_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        store_holding(&path, b"kept");
        move_aside(&RealDisk, &path).unwrap();
        move_aside(&RealDisk, &path).unwrap();
        let kept = RealDisk.read_file(&aside_path(&path).join("content")).unwrap();
        assert_eq!(kept, b"kept");
    }

    #[test]
    fn wiping_stages_takes_those_of_this_store_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "a.tmp-creating", "a.tmp-4711", "a.damaged", "b.tmp-creating", "aa.tmp-x"]
        {
            store_holding(&dir.path().join(name), b"x");
        }
        wipe_stages(&RealDisk, &dir.path().join("a")).unwrap();
        let left = RealDisk.list_dir(dir.path()).unwrap();
        let expected = ["a", "a.damaged", "aa.tmp-x", "b.tmp-creating"];
        assert_eq!(left, expected.map(|name| dir.path().join(name)));
    }

    #[test]
    fn a_copied_tree_has_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        store_holding(&from, b"a\0b\0\0");
        store_holding(&from.join("inner"), b"\0\0");
        RealDisk.create_file(&from.join("empty")).unwrap();
        copy_tree(&RealDisk, &from, &to).unwrap();
        for name in ["content", "inner/content", "empty"] {
            let original = RealDisk.read_file(&from.join(name)).unwrap();
            assert_eq!(RealDisk.read_file(&to.join(name)).unwrap(), original, "{name}");
        }
    }
}

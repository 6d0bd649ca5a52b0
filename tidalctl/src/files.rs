//! New files: whole or not at all, and never over something that is there.
//!
//! Knows: names, syncs. Must not know: what is written.
//!
//! What is being made lies beside its target, as `.tidalctl-` and some letters, and is locked by whoever
//! makes it. When a process is killed the lock goes and the rest stays, until the next command that makes
//! something in the same directory removes it.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::failure::Failure;

const STAGE_PREFIX: &str = ".tidalctl-";
const STAGE_LETTERS: usize = 12;

/// A stage is made before it is locked; a younger one is left alone.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// Writes a new file. It gets its name when it is whole and durable; after a failure there is none.
///
/// # Errors
///
/// When something lies at `path`, those of `write`, and what the file system refuses.
pub(crate) fn write_new<T>(
    path: &Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    expect_free(path)?;
    let failed = || format!("cannot write {}", path.display());
    let dir = parent(path);
    clear_abandoned(dir);
    let mut staged = stage_builder();
    // Who may read it is for the umask to say, as it is for any other file.
    let staged = staged.permissions(Permissions::from_mode(0o666));
    let staged = staged.tempfile_in(dir).with_context(failed)?;
    hold(staged.as_file());
    let mut out = BufWriter::new(staged);
    let result = write(&mut out)?;
    let staged = out.into_inner().map_err(|error| error.into_error()).with_context(failed)?;
    staged.as_file().sync_all().with_context(failed)?;
    staged.persist_noclobber(path).map_err(|error| error.error).with_context(failed)?;
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(failed)?;
    Ok(result)
}

/// A directory that gets its name later, or goes when it is dropped.
pub(crate) struct Stage {
    made: TempDir,
    _held: File,
}

impl Stage {
    /// A directory beside `target`.
    ///
    /// # Errors
    ///
    /// When none can be made there.
    pub(crate) fn beside(target: &Path) -> anyhow::Result<Self> {
        let failed = || format!("cannot write beside {}", target.display());
        let dir = parent(target);
        clear_abandoned(dir);
        let made = stage_builder().tempdir_in(dir).with_context(failed)?;
        let held = File::open(made.path()).with_context(failed)?;
        hold(&held);
        Ok(Self { made, _held: held })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        self.made.path()
    }

    /// Gives it its name, where nothing lies yet, and makes that durable.
    ///
    /// # Errors
    ///
    /// When something lies there, and what the file system refuses.
    pub(crate) fn give_name(self, target: &Path) -> anyhow::Result<()> {
        let failed = || format!("cannot write {}", target.display());
        File::open(self.path()).and_then(|dir| dir.sync_all()).with_context(failed)?;
        expect_free(target)?;
        fs::rename(self.path(), target).with_context(failed)?;
        // It has another name now, and is not temporary.
        let _gone = self.made.keep();
        File::open(parent(target)).and_then(|dir| dir.sync_all()).with_context(failed)
    }
}

fn stage_builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(STAGE_PREFIX).rand_bytes(STAGE_LETTERS);
    builder
}

/// Locks a stage for as long as it is open. Where the file system has no locks it may be taken for an
/// abandoned one, once it is old enough and someone makes something beside it.
fn hold(stage: &File) {
    let _ = stage.try_lock();
}

/// Removes the stages in a directory that nobody makes any more. What cannot be removed is in nobody's way.
fn clear_abandoned(dir: &Path) {
    let Ok(entries) = dir.read_dir() else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.file_name().is_some_and(is_stage_name) && is_abandoned(&path) {
            let is_dir = path.symlink_metadata().is_ok_and(|found| found.is_dir());
            let _ = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

fn is_stage_name(name: &OsStr) -> bool {
    let letters = name.to_str().and_then(|name| name.strip_prefix(STAGE_PREFIX));
    letters.is_some_and(|letters| {
        letters.len() == STAGE_LETTERS && letters.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

fn is_abandoned(path: &Path) -> bool {
    let age = path.symlink_metadata().and_then(|found| found.modified()).map(|at| at.elapsed());
    let is_old = age.is_ok_and(|age| age.is_ok_and(|age| age >= ABANDONED_AFTER));
    is_old && File::open(path).is_ok_and(|stage| stage.try_lock().is_ok())
}

/// The directory that a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Lets the same people into a directory as into another one, and its owner in any case.
///
/// # Errors
///
/// What the file system refuses.
pub(crate) fn admit_as(like: &Path, dir: &Path) -> io::Result<()> {
    let mode = fs::metadata(like)?.permissions().mode() | 0o700;
    fs::set_permissions(dir, Permissions::from_mode(mode))
}

/// Refuses a path where something lies: before the work is done, not after it.
///
/// # Errors
///
/// When something lies there, a dangling link included.
pub(crate) fn expect_free(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_ok() {
        return Err(Failure::failed(format!("something lies at {}", path.display()))
            .hint("name another path, or remove what is there"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("out");
        let failed: anyhow::Result<()> = write_new(&path, |out| {
            out.write_all(b"half")?;
            anyhow::bail!("in the middle")
        });
        assert!(failed.is_err());
        assert_eq!(dir.path().read_dir().expect("readable").count(), 0, "nothing is left");
        write_new(&path, |out| Ok(out.write_all(b"whole")?)).expect("written");
        let again = write_new(&path, |out| Ok(out.write_all(b"other")?));
        assert!(again.expect_err("refused").to_string().starts_with("something lies at"));
        assert_eq!(fs::read(&path).expect("readable"), b"whole");
        assert_eq!(dir.path().read_dir().expect("readable").count(), 1);
    }

    #[test]
    fn what_a_killed_process_left_goes_and_what_is_being_made_or_is_another_thing_stays() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        let age = |path: &Path, by: Duration| {
            let file = File::open(path).expect("there");
            file.set_modified(std::time::SystemTime::now() - by).expect("its times can be set");
        };
        let (old, young) = (2 * ABANDONED_AFTER, Duration::ZERO);
        let being_made = Stage::beside(&at("target")).expect("made");
        age(being_made.path(), old);
        for (name, by) in [
            (".tidalctl-abcdefABCDEF", old),
            (".tidalctl-abcdefABCDE0", young),
            (".tidalctl-notes", old),
            (".tidalctl-my-own-notes", old),
        ] {
            fs::write(at(name), "x").expect("written");
            age(&at(name), by);
        }
        fs::create_dir(at(".tidalctl-000000000000")).expect("made");
        fs::write(at(".tidalctl-000000000000").join("x"), "x").expect("written");
        age(&at(".tidalctl-000000000000"), old);
        write_new(&at("out"), |out| Ok(out.write_all(b"x")?)).expect("written");
        let names = dir.path().read_dir().expect("readable").map(|entry| entry.expect("an entry"));
        let mut left: Vec<_> = names.map(|entry| entry.path()).collect();
        left.sort_unstable();
        let stays = [".tidalctl-abcdefABCDE0", ".tidalctl-my-own-notes", ".tidalctl-notes", "out"];
        let mut expected: Vec<_> = stays.map(at).into();
        expected.push(being_made.path().to_owned());
        expected.sort_unstable();
        assert_eq!(left, expected);
        being_made.give_name(&at("target")).expect("named");
        assert!(at("target").is_dir() && !at("out").is_dir());
    }
}

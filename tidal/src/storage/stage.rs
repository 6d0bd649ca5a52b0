//! Where a database is put together before it gets its name.
//!
//! Knows: names, a lock, and what may be removed. Must not know: how a database is written.
//!
//! On disk, for a target at `x` and until that is whole:
//!
//! ```text
//! x.tmp-stage/
//! ├── stage        empty; locked by whoever makes x
//! ├── database/    what will be x
//! └── inspected/   a copy of it that is looked at
//! ```
//!
//! `stage` is made first and removed last: a directory in which there is anything else, or anything without
//! it, belongs to somebody else and is left alone. What a killed process left is not locked, and the
//! next stage for `x` begins by removing it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::place::{beside, expect_free, parent, real};
use super::{Disk, RealDisk};
use crate::error::{Error, Result};

const MARK: &str = "stage";
const DATABASE: &str = "database";
const INSPECTED: &str = "inspected";

/// A directory beside a target, held for one maker; it goes when this is dropped.
pub(crate) struct Stage {
    path: PathBuf,
    target: PathBuf,
    _held: Box<dyn Send + Sync>,
}

impl Stage {
    /// A stage for what will lie at `target`, and is made of what lies at `source`.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument) when something lies at `target` or where the stage
    /// would, or one of them in `source`, or it in the stage; [`Locked`](Error::Locked) while another one
    /// makes something for `target`; what the file system refuses.
    pub(crate) fn beside(source: &Path, target: &Path) -> Result<Self> {
        expect_free(source, target)?;
        let path = beside(target, ".tmp-stage");
        match RealDisk.create_dir(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(foreign(&path)),
            outcome => outcome.map_err(|e| Error::io("create", &path, e))?,
        }
        expect_stage(&path)?;
        if real(source)?.starts_with(real(&path)?) {
            let reason =
                format!("the database that is to be copied lies in {}, which goes", path.display());
            return Err(Error::invalid("target", reason));
        }
        let held = hold(&path)?;
        let stage = Self { path, target: target.to_owned(), _held: held };
        stage.clear()?;
        Ok(stage)
    }

    /// Where the database is to be made: nothing lies there yet.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Where a copy of it may be made, to be looked at.
    pub(crate) fn inspected(&self) -> PathBuf {
        self.path.join(INSPECTED)
    }

    /// Makes the database and all in it durable, and gives it its name.
    ///
    /// # Errors
    ///
    /// What the file system refuses, such as that something lies at the target by now.
    pub(crate) fn give_name(self) -> Result<()> {
        let (database, dir) = (self.database(), parent(&self.target));
        sync_tree(&database)?;
        RealDisk.rename(&database, &self.target).map_err(|e| Error::io("rename", &database, e))?;
        RealDisk.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))
    }

    fn clear(&self) -> Result<()> {
        let places = [self.database(), self.inspected()];
        places.iter().try_for_each(|path| {
            RealDisk.remove_dir_all(path).map_err(|e| Error::io("remove", path, e))
        })
    }
}

impl Drop for Stage {
    /// It is still locked here, so nobody else's stage is removed.
    fn drop(&mut self) {
        let mark = self.path.join(MARK);
        let gone = self.clear().and_then(|()| {
            RealDisk.remove_file(&mark).map_err(|e| Error::io("remove", &mark, e))?;
            // Not with all in it: another one may have made its mark by now.
            std::fs::remove_dir(&self.path).map_err(|e| Error::io("remove", &self.path, e))
        });
        if let Err(error) = gone {
            tracing::warn!(%error, path = %self.path.display(), "a stage could not be removed");
        }
    }
}

/// Locks the mark of a stage, which is made if need be.
fn hold(path: &Path) -> Result<Box<dyn Send + Sync>> {
    let mark = path.join(MARK);
    let locked = || Error::Locked { path: path.to_owned() };
    let failed = |error: std::io::Error| match error.kind() {
        // Its maker is done and has just removed it.
        ErrorKind::NotFound => locked(),
        _ => Error::io("lock", &mark, error),
    };
    match RealDisk.create_file(&mark) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        outcome => drop(outcome.map_err(failed)?),
    }
    let found = RealDisk.file_id(&mark).map_err(failed)?;
    let held = RealDisk.try_lock(&mark).map_err(failed)?.ok_or_else(locked)?;
    // Whoever held it may have removed it between the two, and another one be at work in a new one.
    if RealDisk.file_id(&mark).map_err(failed)? != found {
        return Err(locked());
    }
    Ok(held)
}

fn expect_stage(path: &Path) -> Result<()> {
    let found = RealDisk.list_dir(path).map_err(|e| Error::io("list", path, e))?;
    let is = |path: &PathBuf, names: &[&str]| names.iter().any(|name| path.ends_with(name));
    let is_ours = found.iter().all(|path| is(path, &[MARK, DATABASE, INSPECTED]))
        && (found.is_empty() || found.iter().any(|path| is(path, &[MARK])));
    if is_ours { Ok(()) } else { Err(foreign(path)) }
}

fn foreign(path: &Path) -> Error {
    let reason = format!(
        "it would be put together in {}, where something else lies: move that, or name another target",
        path.display()
    );
    Error::invalid("target", reason)
}

fn sync_tree(path: &Path) -> Result<()> {
    let synced = |e| Error::io("sync", path, e);
    match RealDisk.list_dir(path) {
        Ok(entries) => {
            entries.iter().try_for_each(|entry| sync_tree(entry))?;
            RealDisk.sync_dir(path).map_err(synced)
        }
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            RealDisk.open_file(path).and_then(|file| file.sync()).map_err(synced)
        }
        Err(error) => Err(Error::io("list", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a source in it, and paths there.
    struct Beside(tempfile::TempDir);

    impl Beside {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            put(&dir.path().join("source"));
            Self(dir)
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn names(&self, of: &str) -> Vec<String> {
            let found = RealDisk.list_dir(&self.at(of)).unwrap();
            let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
            found.iter().map(name).collect()
        }

        fn stage(&self) -> Result<Stage> {
            Stage::beside(&self.at("source"), &self.at("x"))
        }
    }

    fn put(dir: &Path) {
        RealDisk.create_dir(dir).unwrap();
        RealDisk.create_file(&dir.join("content")).unwrap().write_at(0, b"x").unwrap();
    }

    #[test]
    fn what_is_made_gets_its_name_and_the_stage_goes() {
        let dir = Beside::new();
        let stage = dir.stage().unwrap();
        put(&stage.database());
        put(&stage.inspected());
        assert_eq!(dir.names("x.tmp-stage"), [DATABASE, INSPECTED, MARK]);
        stage.give_name().unwrap();
        assert_eq!(
            (dir.names(""), dir.names("x")),
            (vec!["source".into(), "x".into()], vec!["content".into()])
        );
    }

    #[test]
    fn a_stage_that_is_given_up_goes_with_all_in_it() {
        let dir = Beside::new();
        let stage = dir.stage().unwrap();
        put(&stage.database());
        drop(stage);
        assert_eq!(dir.names(""), ["source"]);
    }

    #[test]
    fn one_makes_a_target_at_a_time_and_what_a_killed_one_left_is_removed() {
        let dir = Beside::new();
        let stage = dir.stage().unwrap();
        put(&stage.database());
        assert!(matches!(dir.stage(), Err(Error::Locked { .. })));
        assert_eq!(dir.names("x.tmp-stage"), [DATABASE, MARK], "it is left alone");
        drop(stage);
        // A killed process gives its lock back and removes nothing.
        put_abandoned(&dir.at("x.tmp-stage"));
        let stage = dir.stage().unwrap();
        assert_eq!(dir.names("x.tmp-stage"), [MARK]);
        drop(stage);
        // Or dies before its mark, or after the removal of it.
        RealDisk.create_dir(&dir.at("x.tmp-stage")).unwrap();
        drop(dir.stage().unwrap());
        assert_eq!(dir.names(""), ["source"]);
    }

    fn put_abandoned(stage: &Path) {
        RealDisk.create_dir(stage).unwrap();
        RealDisk.create_file(&stage.join(MARK)).unwrap();
        put(&stage.join(DATABASE));
        put(&stage.join(INSPECTED));
    }

    #[test]
    fn what_is_no_stage_is_left_alone() {
        let dir = Beside::new();
        let path = dir.at("x.tmp-stage");
        let refused = || match dir.stage() {
            Err(Error::InvalidArgument { what: "target", .. }) => {}
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("a stage was made"),
        };
        RealDisk.create_file(&path).unwrap();
        refused();
        RealDisk.remove_file(&path).unwrap();
        std::os::unix::fs::symlink(dir.at("nowhere"), &path).unwrap();
        refused();
        RealDisk.remove_file(&path).unwrap();
        put(&path);
        refused();
        assert_eq!(dir.names("x.tmp-stage"), ["content"]);
        RealDisk.create_file(&path.join(MARK)).unwrap();
        refused();
        assert_eq!(dir.names("x.tmp-stage"), ["content", MARK]);
        RealDisk.remove_dir_all(&path).unwrap();
        RealDisk.create_dir(&path).unwrap();
        put(&path.join(DATABASE));
        refused();
        assert_eq!(dir.names("x.tmp-stage"), [DATABASE], "there is no mark");
    }

    #[test]
    fn a_source_that_lies_in_the_stage_is_left_alone() {
        let dir = Beside::new();
        put_abandoned(&dir.at("x.tmp-stage"));
        let inner = dir.at("x.tmp-stage").join(DATABASE);
        std::os::unix::fs::symlink(&inner, dir.at("link")).unwrap();
        for source in [inner.clone(), dir.at("link"), dir.at("x.tmp-stage")] {
            let refused = Stage::beside(&source, &dir.at("x"));
            assert!(matches!(refused, Err(Error::InvalidArgument { .. })), "{}", source.display());
        }
        assert!(RealDisk.exists(&inner.join("content")).unwrap());
    }
}

//! A disk that is really full, and one that is read-only: a small tmpfs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tidal_support::operations::{builder, quiet_options, survived, try_apply};
use tidal_support::shim;
use tidaldb::schema::{EntityId, Window};
use tidaldb::{Error, TidalDb};

use crate::script::{open, reference};

/// Enough for a database and more operations than a test applies.
const SIZE_BYTES: u64 = 24 << 20;

/// A mounted file system, which is unmounted when it is dropped.
struct Mounted {
    dir: TempDir,
}

impl Mounted {
    /// Mounts one; says so aloud where that is not allowed.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let options = format!("size={SIZE_BYTES}");
        match run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path()))
        {
            Ok(()) => Some(Self { dir }),
            Err(reason) => {
                shim::left_out("a full disk", &reason);
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn remount(&self, option: &str) -> Result<(), String> {
        run(Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(self.path()))
    }

    /// Leaves so many bytes free, by a file whose removal frees the rest.
    fn fill(&self, free_bytes: u64) -> Ballast {
        let path = self.path().join("ballast");
        let block = vec![1; 4096];
        let mut file = std::fs::File::create(&path).expect("a file is made");
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        let full = file.metadata().expect("it is there").len();
        file.set_len(full.saturating_sub(free_bytes)).expect("it is cut");
        Ballast { path }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(reason) = run(Command::new("umount").arg("--lazy").arg(self.path())) {
            println!("{} stays mounted: {reason}", self.path().display());
        }
    }
}

/// What fills the disk.
struct Ballast {
    path: PathBuf,
}

impl Ballast {
    fn remove(self) {
        std::fs::remove_file(self.path).expect("it is removed");
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Applies operations with a checkpoint after every ten, until one is refused; the refusal, and how
/// many were acknowledged.
fn apply_until_full(db: &TidalDb, acknowledged: &mut u64) -> Option<Error> {
    let seed = reference().seed;
    for end in (10..=300).step_by(10) {
        let next = survived(db);
        if let Err(error) = try_apply(db, seed, next..end.max(next), &mut |i| {
            *acknowledged = (i + 1).max(*acknowledged)
        }) {
            return Some(error);
        }
        // A store that finds no room is rebuilt later; the log has everything.
        let _ = db.checkpoint();
    }
    None
}

#[test]
fn a_full_disk_refuses_writes_loses_nothing_and_recovers_when_there_is_space() {
    let Some(mounted) = Mounted::new() else { return };
    let (mut met_full, mut reopened) = (0, 0);
    for (case, free_kib) in [4096, 2048, 1024, 512, 256, 128, 64, 32, 8, 0].into_iter().enumerate()
    {
        let what = format!("{free_kib} KiB free");
        let dir = mounted.path().join(case.to_string());
        let db = open(&dir).unwrap_or_else(|error| panic!("{error}: {what}"));
        let ballast = mounted.fill(free_kib << 10);
        let mut acknowledged = 0;
        if let Some(error) = apply_until_full(&db, &mut acknowledged) {
            met_full += 1;
            assert!(
                matches!(error, Error::DiskFull { .. } | Error::Stopped { .. }),
                "{error:?}: {what}"
            );
            read_all(&db, &what);
            let next = survived(&db);
            let again = try_apply(&db, reference().seed, next..next + 1, &mut |_| ());
            let error = again.expect_err("the disk is still full");
            assert!(
                matches!(error, Error::DiskFull { .. } | Error::Stopped { .. }),
                "{error:?}: {what}"
            );
        }
        drop(db);
        match open(&dir) {
            Ok(db) => {
                assert!(survived(&db) >= acknowledged, "{what}");
                reopened += 1;
                read_all(&db, &what);
            }
            Err(Error::DiskFull { .. }) => {}
            Err(error) => panic!("neither open nor DiskFull: {error:?}: {what}"),
        }
        ballast.remove();
        reference().check(&dir, acknowledged, &what);
        std::fs::remove_dir_all(&dir).expect("it is removed");
    }
    println!("{met_full} of 10 met a full disk, {reopened} could be reopened meanwhile");
    assert!(met_full >= 3, "too few met a full disk to prove anything");
    assert!(reopened >= 1, "the reserve is there so that a full disk can be reopened");
}

/// The names of what lies beside the checkpoint stores.
fn store_names(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir.join("store")).expect("listed").map(|entry| {
        entry.expect("an entry").file_name().into_string().expect("a name of this library")
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn stores_that_met_a_full_disk_go_on_where_they_are_when_there_is_space() {
    let Some(mounted) = Mounted::new() else { return };
    let mut refused = 0;
    for (case, free_kib) in [512, 256, 128, 64, 32, 0].into_iter().enumerate() {
        let what = format!("{free_kib} KiB free");
        let dir = mounted.path().join(case.to_string());
        let mut options = quiet_options();
        options.mark_after = Duration::from_secs(3_600);
        let open = || builder(options.clone()).with_data_dir(&dir).open();
        let db = open().unwrap_or_else(|error| panic!("{error}: {what}"));
        for end in [40, 80] {
            try_apply(&db, reference().seed, end - 40..end, &mut |_| ()).expect("there is space");
            db.checkpoint().unwrap_or_else(|error| panic!("{error}: {what}"));
        }
        // What a checkpoint has to write, and lacks the space for.
        let metadata = [("title".to_owned(), "x".repeat(20 << 10))].into();
        for item in 0..50 {
            db.write_item(EntityId::new(1_000_000 + item), &metadata).expect("there is space");
        }
        let digest = db.state_digest().expect("a digest");
        let ballast = mounted.fill(free_kib << 10);
        for _ in 0..2 {
            let Err(error) = db.checkpoint() else { continue };
            refused += 1;
            assert!(matches!(error, Error::DiskFull { .. }), "{error:?}: {what}");
            db.health_check().expect_err("a store is out of use");
            read_all(&db, &what);
        }
        assert_eq!(store_names(&dir), ["a", "b"], "nothing is moved aside: {what}");
        ballast.remove();
        for _ in 0..2 {
            db.checkpoint().unwrap_or_else(|error| panic!("{error}: {what}"));
        }
        db.health_check().expect("healthy");
        assert!(db.verify().expect("verified").is_sound(), "{what}");
        assert_eq!(store_names(&dir), ["a", "b"], "{what}");
        drop(db);
        let db = open().expect("opens");
        assert!(db.open_report().repairs.is_empty(), "{}: {what}", db.open_report());
        assert_eq!(db.state_digest().expect("a digest"), digest, "{what}");
        drop(db);
        std::fs::remove_dir_all(&dir).expect("it is removed");
    }
    assert!(refused >= 4, "too few met a full disk to prove anything: {refused}");
}

fn read_all(db: &TidalDb, what: &str) {
    for item in (0..20).map(EntityId::new) {
        let count = db.read_windowed_count(item, "view", Window::AllTime);
        count.unwrap_or_else(|error| panic!("{error}: {what}"));
        db.get_item_metadata(item).unwrap_or_else(|error| panic!("{error}: {what}"));
    }
    db.state_digest().unwrap_or_else(|error| panic!("{error}: {what}"));
}

#[test]
fn a_read_only_directory_is_a_typed_error_that_names_it() {
    let Some(mounted) = Mounted::new() else { return };
    let dir = mounted.path().join("database");
    let db = open(&dir).expect("opens");
    let mut acknowledged = 0;
    assert!(apply_until_full(&db, &mut acknowledged).is_none());
    db.close().expect("closes");
    if let Err(reason) = mounted.remount("ro") {
        return shim::left_out("a read-only directory", &reason);
    }
    for path in [dir.clone(), mounted.path().join("other")] {
        match open(&path) {
            Err(Error::ReadOnly { path: refused }) => {
                assert!(refused.starts_with(&path) || path.starts_with(&refused), "{refused:?}");
            }
            other => panic!("not read-only: {other:?}"),
        }
    }
    mounted.remount("rw").expect("it can be written again");
    let there = reference().check(&dir, acknowledged, "after it was read-only");
    assert_eq!(there, acknowledged, "nothing is changed by the attempt");
}

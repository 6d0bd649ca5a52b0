//! The databases that are damaged, and all states that they have been in.

use std::fs;
use std::ops::Range;
use std::path::Path;

use tempfile::TempDir;
use tidal_support::child::{self, Victim};
use tidal_support::damage::segments::{Segment, segments_of};
use tidal_support::damage::{State, work_dir};
use tidal_support::operations::{HOUR, apply, builder, ephemeral, quiet_options, try_apply};
use tidaldb::{Durability, TidalDb};

/// Databases at rest, side by side in a directory.
pub(crate) struct Scene {
    dir: TempDir,
    seed: u64,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) name: String,
    pub(crate) segments: Vec<Segment>,
    /// What it showed after so many operations.
    pub(crate) states: Vec<State>,
    /// Where the checkpoints of its stores stand.
    pub(crate) checkpoints: [u64; 2],
    /// Where the stores stand when the newest checkpoint of all is lost, of which nothing else can
    /// know, if its store has an older one.
    pub(crate) without_newest: Option<String>,
}

/// A database is written in sittings: opened, given operations, and left.
#[derive(Clone, Copy)]
pub(crate) struct Sitting {
    /// So many operations in all.
    pub(crate) through: u64,
    /// Then as many checkpoints.
    pub(crate) checkpoints: u32,
    /// Operations in all after those.
    pub(crate) then_through: u64,
}

/// How the last sitting ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Dropped,
    /// By SIGKILL, with operations that were acknowledged before any sync.
    Killed,
}

impl Scene {
    /// For as many operations, that follow from the seed or the next one that will do: some begin
    /// with an event after which the rest is too far ahead.
    pub(crate) fn new(seed: u64, operations: u64) -> Self {
        let will_do =
            |seed: &u64| try_apply(&ephemeral(), *seed, 0..operations, &mut |_| ()).is_ok();
        let seed = (seed..).find(will_do).expect("some seed will do");
        Self { dir: work_dir(), seed }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a database.
    pub(crate) fn write(&self, name: &str, sittings: &[Sitting], end: End) -> Base {
        let path = self.path().join(name);
        let mut done = 0;
        for (index, sitting) in sittings.iter().enumerate() {
            let is_last = index + 1 == sittings.len();
            if is_last && end == End::Killed {
                self.write_and_die(&path, done..sitting.then_through);
                done = sitting.then_through;
                continue;
            }
            let db = open(&path);
            apply(&db, self.seed, done..sitting.through, &mut |_| ());
            for _ in 0..sitting.checkpoints {
                db.checkpoint().expect("a checkpoint");
            }
            apply(&db, self.seed, sitting.through..sitting.then_through, &mut |_| ());
            done = sitting.then_through;
            if is_last && end == End::Closed {
                db.close().expect("closes");
            }
        }
        self.base(name, done)
    }

    fn write_and_die(&self, path: &Path, range: Range<u64>) {
        let says = [
            ("TIDAL_DIR", path.display().to_string()),
            ("TIDAL_OPS_SEED", self.seed.to_string()),
            ("TIDAL_OPS", format!("{}..{}", range.start, range.end)),
        ];
        let mut victim = Victim::spawn("child", "write", &says);
        assert_eq!(victim.next_report().as_deref(), Some("written"));
        victim.kill();
    }

    /// A copy under another name, as it is now.
    pub(crate) fn keep(&self, name: &str, as_name: &str) {
        tidal_support::copy_dir(&self.path().join(name), &self.path().join(as_name));
    }

    /// What is known of a database that took so many operations.
    pub(crate) fn base(&self, name: &str, operations: u64) -> Base {
        let path = self.path().join(name);
        let segments = segments_of(&path);
        // A look at the original would be one more sitting.
        let copy = self.path().join("looked-at");
        tidal_support::copy_dir(&path, &copy);
        let db = open(&copy);
        let found = State::of(&db);
        assert!(db.open_report().repairs.is_empty(), "{}", db.open_report());
        let checkpoints: Vec<u64> = db.status().stores.iter().map(|s| s.seq.get()).collect();
        drop(db);
        fs::remove_dir_all(&copy).expect("the copy is removed");

        let reference = ephemeral();
        let mut states = vec![State::of(&reference)];
        for i in 0..operations {
            apply(&reference, self.seed, i..i + 1, &mut |_| ());
            states.push(State::of(&reference));
        }
        states.iter_mut().for_each(|state| state.stores.clone_from(&found.stores));
        assert_eq!(states.last(), Some(&found), "the database is as if nothing had interrupted it");
        let checkpoints = checkpoints.try_into().expect("two stores");
        Base { name: name.to_owned(), segments, states, checkpoints, without_newest: None }
    }
}

/// What a child does that is killed once it has written.
pub(crate) fn write_and_wait() {
    let seed = child::told("TIDAL_OPS_SEED").parse().expect("a number");
    let range = child::told("TIDAL_OPS");
    let (from, to) = range.split_once("..").expect("a range");
    let [from, to] = [from, to].map(|end| end.parse::<u64>().expect("a number"));
    let mut options = quiet_options();
    options.durability = Durability::Os { sync_every: HOUR };
    let db = builder(options).with_data_dir(child::told("TIDAL_DIR")).open().expect("it opens");
    apply(&db, seed, from..to, &mut |_| ());
    child::report("written");
    loop {
        std::thread::park();
    }
}

pub(crate) fn open(path: &Path) -> TidalDb {
    builder(quiet_options()).with_data_dir(path).open().expect("the database opens")
}

impl Base {
    /// The first sequence in the log.
    pub(crate) fn first(&self) -> u64 {
        self.segments[0].first
    }

    /// The last.
    pub(crate) fn last(&self) -> u64 {
        self.segments.iter().flat_map(|s| &s.frames).map(|f| f.seq).max().expect("a frame")
    }

    /// The state at a sequence: all operations but those that lie in the log behind it.
    pub(crate) fn at(&self, seq: u64) -> &State {
        assert!(seq + 1 >= self.first(), "the log does not reach back to {seq}");
        let frames = self.segments.iter().flat_map(|segment| &segment.frames);
        let after = frames.filter(|frame| frame.seq > seq && frame.is_operation).count();
        // The first operation is the schema.
        &self.states[(self.states.len() - 1).saturating_sub(after)]
    }

    /// The state after all operations.
    pub(crate) fn whole(&self) -> &State {
        self.states.last().expect("a state before the first operation")
    }

    /// The size of all frames, headers and seals.
    pub(crate) fn log_size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }
}

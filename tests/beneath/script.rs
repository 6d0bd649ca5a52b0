//! The child that meets the faults, and what its parent holds against what it left.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::OnceLock;

use tidal_support::child::{self, Victim};
use tidal_support::hex;
use tidal_support::operations::{
    apply, builder, ephemeral, is_synced, quiet_options, survived, try_apply,
};
use tidal_support::random::Random;
use tidal_support::shim::{self, Plan};
use tidaldb::schema::{EntityId, Window};
use tidaldb::{Error, Result, TidalDb};

/// A step of the child between opening and closing.
enum Step {
    /// Apply operations until there are so many.
    Until(u64),
    Checkpoint,
}
use Step::{Checkpoint, Until};

/// What one opening of the child does, and whether it closes the database or just lets it go.
struct Phase {
    steps: &'static [Step],
    closes: bool,
}

/// Both stores get several checkpoints, the log rolls (at every 90th operation or so) and is truncated
/// early, so that for long the stores alone have what was in it; it is reopened after a close and after
/// none.
const PHASES: [Phase; 3] = [
    Phase {
        steps: &[
            Until(95),
            Checkpoint,
            Until(105),
            Checkpoint,
            Until(190),
            Checkpoint,
            Until(195),
            Checkpoint,
            Until(215),
        ],
        closes: true,
    },
    Phase { steps: &[Until(235), Checkpoint, Until(255)], closes: false },
    Phase { steps: &[Until(275), Checkpoint, Until(300), Checkpoint], closes: true },
];

/// How many operations the child applies in all.
const OPERATIONS: u64 = 300;
/// How many the parent applies to what it found, to see that it can be written.
const MORE: u64 = 3;
/// How often a phase is tried again when a fault ended it.
const ATTEMPTS_MAX: u32 = 3;

/// Not a test by itself: what a child process does.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let dir = PathBuf::from(child::told("TIDAL_DIR"));
    match role.as_str() {
        "script" => run(&dir, child::told("TIDAL_OPS_SEED").parse().expect("a number")),
        "open" => match open(&dir) {
            Ok(db) => child::report(&format!("opened {}", survived(&db))),
            Err(error) => child::report(&format!("unopened {}", named(&error))),
        },
        "files" => crate::power_cuts::sync_some(&dir).expect("nothing fails but the syncs"),
        _ => panic!("no role is called {role}"),
    }
}

/// Opens a database that writes checkpoints only when it is asked to.
pub(crate) fn open(dir: &Path) -> Result<TidalDb> {
    builder(quiet_options()).with_data_dir(dir).open()
}

/// An error on one line, its variant first.
fn named(error: &Error) -> String {
    let debug = format!("{error:?}");
    let variant = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    format!("{variant} {error}").replace('\n', " ")
}

fn run(dir: &Path, seed: u64) {
    for phase in &PHASES {
        for _ in 0..ATTEMPTS_MAX {
            if run_phase(dir, seed, phase) {
                break;
            }
        }
    }
    child::report("finished");
}

/// Runs a phase; whether it came to its end.
fn run_phase(dir: &Path, seed: u64, phase: &Phase) -> bool {
    let db = match open(dir) {
        Ok(db) => db,
        Err(error) => {
            child::report(&format!("unopened {}", named(&error)));
            return false;
        }
    };
    let mut next = survived(&db);
    child::report(&format!("opened {next}"));
    for step in phase.steps {
        match *step {
            Until(end) => {
                let applied = try_apply(&db, seed, next..end, &mut |i| {
                    child::report(&format!("acknowledged {i}"));
                });
                if let Err(error) = applied {
                    child::report(&format!("refused {}", named(&error)));
                    look_at_a_stopped(&db, seed);
                    drop(db);
                    return false;
                }
                next = next.max(end);
            }
            Checkpoint => match db.checkpoint() {
                Ok(_) => child::report(&format!("durable {next}")),
                Err(error) => child::report(&format!("note checkpoint {}", named(&error))),
            },
        }
    }
    if phase.closes {
        match db.close() {
            Ok(()) => child::report(&format!("durable {next}")),
            Err(error) => child::report(&format!("note close {}", named(&error))),
        }
    }
    true
}

/// An engine that refused an operation for a fault refuses all others, and can be read.
fn look_at_a_stopped(db: &TidalDb, seed: u64) {
    let there = survived(db);
    match db.state_digest() {
        Ok(digest) => child::report(&format!("stopped {there} {}", hex(&digest))),
        Err(error) => child::report(&format!("LIE no digest {}", named(&error))),
    }
    for item in (0..20).map(EntityId::new) {
        let count = db.read_windowed_count(item, "view", Window::AllTime);
        let metadata = db.get_item_metadata(item);
        if let Some(error) = count.err().or(metadata.err()) {
            child::report(&format!("LIE a read fails {}", named(&error)));
        }
    }
    for _ in 0..3 {
        match try_apply(db, seed, there..there + 1, &mut |_| ()) {
            Ok(()) => child::report("LIE an operation is acknowledged after a failure"),
            Err(error) => child::report(&format!("refused {}", named(&error))),
        }
    }
    if db.health_check().is_ok() {
        child::report("LIE it is in good health");
    }
}

/// What a child said before it ended.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// So many operations were acknowledged.
    pub(crate) acknowledged: u64,
    /// So many were acknowledged as safe from a power cut.
    pub(crate) durable: u64,
    /// Errors of operations, in order.
    pub(crate) refused: Vec<String>,
    /// Errors of opens.
    pub(crate) unopened: Vec<String>,
    /// Errors of checkpoints and closes.
    pub(crate) notes: Vec<String>,
    /// What must not be.
    lies: Vec<String>,
    /// States after a failure.
    stopped: Vec<(u64, String)>,
    /// Whether it came to the end of its script.
    pub(crate) finished: bool,
}

impl Told {
    fn hear(&mut self, seed: u64, report: &str) {
        let (word, rest) = report.split_once(' ').unwrap_or((report, ""));
        match word {
            "acknowledged" => {
                let i: u64 = rest.parse().expect("an index");
                self.acknowledged = self.acknowledged.max(i + 1);
                if is_synced(seed, i) {
                    self.durable = self.durable.max(i + 1);
                }
            }
            "durable" => self.durable = self.durable.max(rest.parse().expect("a number")),
            "opened" => {
                let there: u64 = rest.parse().expect("a number");
                if there < self.acknowledged {
                    self.lies.push(format!("reopened with {there} of {}", self.acknowledged));
                }
            }
            "refused" => self.refused.push(rest.to_owned()),
            "unopened" => self.unopened.push(rest.to_owned()),
            "note" => self.notes.push(rest.to_owned()),
            "stopped" => {
                let (there, digest) = rest.split_once(' ').expect("two words");
                self.stopped.push((there.parse().expect("a number"), digest.to_owned()));
            }
            "finished" => self.finished = true,
            _ => self.lies.push(report.to_owned()),
        }
    }
}

/// Operations of one seed, and the digest after each.
pub(crate) struct Reference {
    pub(crate) seed: u64,
    digests: Vec<String>,
}

/// The seed of this run, and its digests.
pub(crate) fn reference() -> &'static Reference {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let seed = Random::seed_from("TIDAL_SEED");
        let db = ephemeral();
        let mut digests = Vec::new();
        // A directory may be checked twice.
        for i in 0..=OPERATIONS + 2 * MORE {
            digests.push(hex(&db.state_digest().expect("a digest")));
            apply(&db, seed, i..i + 1, &mut |_| ());
        }
        Reference { seed, digests }
    })
}

impl Reference {
    /// Runs a role of the child with a shim beneath it, in a directory.
    pub(crate) fn run_child(&self, role: &str, dir: &Path, plan: &Plan) -> (Told, ExitStatus) {
        let shim = shim::library().expect("asked for before");
        let dir = dir.canonicalize().expect("the directory is there");
        let mut says = plan.environment(shim);
        says.push(("TIDAL_DIR", dir.display().to_string()));
        says.push(("TIDAL_OPS_SEED", self.seed.to_string()));
        let (reports, status) = Victim::spawn("script::child", role, &says).finish();
        let mut told = Told::default();
        reports.iter().for_each(|report| told.hear(self.seed, report));
        (told, status)
    }

    /// Holds a child's words against each other.
    pub(crate) fn check_told(&self, told: &Told, what: &str) {
        assert!(told.lies.is_empty(), "{:?}: {what}", told.lies);
        for (there, digest) in &told.stopped {
            assert_eq!(digest, self.digest(*there), "stopped in another state at {there}: {what}");
        }
    }

    /// Opens what a fault left, and checks that it is the first so many operations, at least
    /// `required`, that it is sound and can be written. Returns how many it was.
    pub(crate) fn check(&self, dir: &Path, required: u64, what: &str) -> u64 {
        let db = match open(dir) {
            Ok(db) => db,
            Err(error) => panic!("it does not open: {error}: {what}"),
        };
        let what = format!("seed {}, {what}, {}", self.seed, db.open_report());
        let there = survived(&db);
        assert!(there >= required, "{required} are promised, {there} are there: {what}");
        let digest = hex(&db.state_digest().expect("a digest"));
        assert_eq!(digest, self.digest(there), "another state at {there}: {what}");
        let report = db.verify().expect("verified");
        assert!(report.is_sound(), "{report}\n{what}");
        apply(&db, self.seed, there..there + MORE, &mut |_| ());
        let digest = hex(&db.state_digest().expect("a digest"));
        assert_eq!(digest, self.digest(there + MORE), "another state after {there}: {what}");
        there
    }

    fn digest(&self, operations: u64) -> &str {
        &self.digests[usize::try_from(operations).expect("few")]
    }
}

/// Which of `total` operations meet a fault: `count` (`TIDAL_CASES` overrides it) of them, spread
/// evenly but for a random shift of each.
pub(crate) fn sample(total: u64, count: u64, random: &mut Random) -> Vec<u64> {
    let count = tidal_support::setting("TIDAL_CASES", count).clamp(1, total);
    let start = |n: u64| n * total / count;
    (0..count).map(|n| 1 + start(n) + random.below(start(n + 1) - start(n))).collect()
}

/// Does the cases on two threads, as many as there is time for.
pub(crate) fn on_two_threads<T: Copy + Send + Sync>(cases: &[T], run: impl Fn(T) + Sync) {
    let run = |case| {
        if !tidal_support::is_time_up() {
            run(case);
        }
    };
    let (first, second) = cases.split_at(cases.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| first.iter().for_each(|&case| run(case)));
        second.iter().for_each(|&case| run(case));
    });
}

//! Databases to measure: made in a directory of their own, and filled.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tidaldb::schema::{DecaySpec, EntityKind, Schema, SchemaBuilder, Window};
use tidaldb::{Batch, Builder, Durability, Options, Ticket, TidalDb, TimeSource};

use crate::workload::{COHORTS, SIGNALS, Workload};

/// Users are numbered from 0; user u belongs to cohort u mod [`COHORTS`].
pub const USERS: u64 = 8_000;

/// An interval that no bench lives to see.
pub const NEVER: Duration = Duration::from_secs(1_000_000);

/// Events of a group while a database is filled, and how many groups are on their way.
const FILL_GROUP_LEN: usize = 1_000;
const FILL_DEPTH: usize = 4;

/// The four signals, each with one half-life of a day and all four windows.
pub fn schema(velocity: bool) -> Schema {
    let half_life = Duration::from_secs(86_400);
    let mut builder = SchemaBuilder::new();
    for (name, _) in SIGNALS {
        // What is wrong with a declaration is said by build().
        let _ = builder
            .signal(name, EntityKind::Item, DecaySpec::Exponential { half_life })
            .windows(&Window::BUCKETED)
            .velocity(velocity)
            .add();
    }
    let members = u32::try_from(COHORTS).expect("there are few cohorts");
    builder.cohort_family("group", members);
    builder.build().expect("the schema of the benches is sound")
}

/// Options under which only [`TidalDb::checkpoint`] and [`TidalDb::close`] write checkpoints, and
/// writes do not wait for the disk: to prepare what is measured later.
pub fn without_checkpoints() -> Options {
    let mut options = Options::default();
    options.durability = Durability::Os { sync_every: Duration::from_millis(100) };
    options.checkpoint_interval = NEVER;
    options.checkpoint_log_bytes = u64::MAX;
    options
}

/// An open database in a temporary directory, which goes when it is dropped.
#[derive(Debug)]
pub struct Database {
    /// It lives in event time: the clock of the machine does not show in the figures.
    pub db: TidalDb,
    directory: TempDir,
}

impl Database {
    /// A fresh database with its users.
    pub fn create(options: Options, velocity: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory for temporary files");
        let builder = builder(&directory, options).with_schema(schema(velocity));
        let db = builder.with_time_source(TimeSource::Events).open().expect("a fresh database");
        write_users(&db);
        Self { db, directory }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Closes it, with a last checkpoint; the directory stays.
    pub fn close(self) -> TempDir {
        self.db.close().expect("close");
        self.directory
    }

    /// Stops it without a checkpoint; the directory stays.
    pub fn stop(self) -> TempDir {
        drop(self.db);
        self.directory
    }

    /// Opens what lies in a directory.
    pub fn reopen(directory: TempDir, options: Options) -> Self {
        let db = builder(&directory, options).open().expect("an existing database");
        Self { db, directory }
    }
}

fn builder(directory: &TempDir, options: Options) -> Builder {
    TidalDb::builder().with_data_dir(directory.path().join("db")).with_options(options)
}

/// Writes all users. Many at a time, because each waits for its acknowledgement.
pub fn write_users(db: &TidalDb) {
    const WRITERS: u64 = 32;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for user in (writer..USERS).step_by(WRITERS as usize) {
                    let group = (user % COHORTS).to_string();
                    let attributes = HashMap::from([("group".to_owned(), group)]);
                    let _ = db.write_user(user, &attributes).expect("a user is written");
                }
            });
        }
    });
}

/// Writes the next `events` events, rounded up to whole groups of a thousand.
pub fn fill(db: &TidalDb, workload: &mut Workload, events: usize) {
    let groups = (0..events.div_ceil(FILL_GROUP_LEN)).map(|_| workload.group(FILL_GROUP_LEN));
    write_in_flight(db, groups, FILL_DEPTH);
}

/// Writes events until there are at least this many cells; returns how many events that took.
pub fn fill_to_cells(db: &TidalDb, workload: &mut Workload, cells: u64) -> usize {
    const STEP: usize = 50_000;
    let mut events = 0;
    while db.status().cells < cells {
        fill(db, workload, STEP);
        events += STEP;
    }
    events
}

/// The size of the log, the last frame included. The engine reports it when it rests, so this waits
/// until it does.
pub fn log_size_bytes(db: &TidalDb) -> u64 {
    const REST: Duration = Duration::from_millis(500);
    let _ = db.flush().expect("the log is synced");
    std::thread::sleep(REST);
    db.status().log_size_bytes
}

/// One caller that keeps `depth` groups on their way, and waits for the oldest.
pub fn write_in_flight(db: &TidalDb, groups: impl IntoIterator<Item = Batch>, depth: usize) {
    let wait = |ticket: Ticket| ticket.wait().expect("a group is acknowledged");
    let mut tickets = VecDeque::with_capacity(depth);
    for group in groups {
        if tickets.len() == depth {
            let _ = tickets.pop_front().map(wait);
        }
        tickets.push_back(db.submit(group).expect("a group is accepted"));
    }
    for ticket in tickets {
        let _ = wait(ticket);
    }
}

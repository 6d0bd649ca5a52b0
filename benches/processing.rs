//! Processors of sessions: how many sessions a run gets through, what a run costs that has nothing to do, and what
//! it costs to ask for health.
//!
//! The processor puts down one row and reads no record, so what is measured is the runner, the log and the
//! state. The first database is on disk and synced, beginning and outcome of each attempt included; those
//! with nothing to do live in memory, where many sessions are there soon. One line each is printed; nothing
//! here is criterion's, since a run cannot be repeated.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidal_bench::{is_measured, sized, without_checkpoints};
use tidaldb::schema::{DecaySpec, EntityKind, Schema, SchemaBuilder, Timestamp};
use tidaldb::{
    Builder, Durability, ManualClock, Outputs, ProcessError, Processed, ProcessorOptions,
    RunOptions, Runtime, SessionConfig, SessionProcessor, SessionView, TidalDb,
};

const STARTERS: u64 = 32;

fn main() {
    throughput(sized(2_000, 100_000));
    for sessions in [sized(1_000, 100_000), sized(2_000, 1_000_000)] {
        for required in [true, false] {
            nothing_to_do(sessions, required);
        }
    }
}

struct Trivial;

impl SessionProcessor for Trivial {
    fn name(&self) -> &str {
        "trivial"
    }

    fn process(
        &self,
        session: &SessionView<'_>,
        out: &mut Outputs<'_>,
    ) -> Result<Processed, ProcessError> {
        out.put(b"hash", &session.content_hash())?;
        Ok(Processed { items: 1 })
    }
}

fn schema() -> Schema {
    let mut b = SchemaBuilder::new();
    let _ = b.signal("view", EntityKind::Item, DecaySpec::None).add();
    b.build().expect("the schema of the bench is sound")
}

fn builder() -> Builder {
    let mut sessions = SessionConfig::default();
    sessions.runtime = Runtime::Manual;
    TidalDb::builder()
        .with_schema(schema())
        .with_options(without_checkpoints())
        .with_sessions(sessions)
        .with_clock(Arc::new(ManualClock::at(Timestamp::from_secs(1_700_000_000))))
}

fn register(db: &TidalDb, required: bool) {
    let mut options = ProcessorOptions::default();
    options.required = required;
    db.sessions().register(Trivial, options).expect("registered");
}

/// Ends so many sessions, and leaves a few open: each start ends the session before it.
fn end_many(db: &TidalDb, count: u64) {
    std::thread::scope(|scope| {
        for user in 0..STARTERS {
            scope.spawn(move || {
                for _ in 0..=count.div_ceil(STARTERS) {
                    let _ = db.start_session(user, "phone", "default").expect("started").detach();
                }
            });
        }
    });
}

fn run(db: &TidalDb) -> u64 {
    let mut options = RunOptions::new().time_budget(Duration::MAX);
    options.max_sessions = NonZeroU32::new(u32::MAX);
    db.sessions().run_processor("trivial", options).expect("it runs").processed
}

fn throughput(sessions: u64) {
    let directory = tempfile::tempdir().expect("a directory for temporary files");
    let mut options = without_checkpoints();
    options.durability = Durability::Sync;
    let db = builder()
        .with_options(options)
        .with_data_dir(directory.path().join("db"))
        .open()
        .expect("it opens");
    register(&db, true);
    end_many(&db, sessions);
    let (began, frames) = (Instant::now(), db.applied().get());
    let processed = run(&db);
    let took = began.elapsed();
    let frames = db.applied().get() - frames;
    assert!(processed >= sessions, "all of them");
    if is_measured() {
        let per_s = processed as f64 / took.as_secs_f64();
        println!(
            "processing/throughput: {processed} sessions in {took:.1?}, {per_s:.0} sessions/s, {frames} frames"
        );
    }
}

fn nothing_to_do(sessions: u64, required: bool) {
    let db = builder().ephemeral().open().expect("it opens");
    register(&db, required);
    end_many(&db, sessions);
    let waiting = health(&db, sessions);
    let began = Instant::now();
    let processed = run(&db);
    let first = began.elapsed();
    let idle = hundred(|| assert_eq!(run(&db), 0, "there is nothing to do"));
    let stable = health(&db, 0);
    if is_measured() {
        println!(
            "processing/nothing to do: {processed} stable sessions, required {required}: {idle} \
             (in memory, the first run took {first:.1?})"
        );
        println!("processing/health: while they wait {waiting}, once they are stable {stable}");
    }
}

/// How long it takes to ask how a database is whose processor has so many sessions to see.
fn health(db: &TidalDb, waiting: u64) -> String {
    hundred(|| {
        let report = db.health();
        assert!(report.processors[0].waiting >= waiting, "{report:?}");
    })
}

/// The median and the worst of a hundred times.
fn hundred(work: impl Fn()) -> String {
    let time = |_| {
        let began = Instant::now();
        work();
        began.elapsed()
    };
    let mut took: Vec<Duration> = (0..100).map(time).collect();
    took.sort_unstable();
    format!("p50 {:?}, worst {:?}", took[50], took[99])
}

//! Sessions: what a signal of a session costs beside a plain one, starts and ends per second, opening with
//! many open ones, sweeping a few of many, bytes per open one.
//!
//! Where the disk would hide what is measured, the database lives in memory or acknowledges before the
//! sync; the signals are measured with both. The clock stands still unless the bench moves it. Single
//! calls and the table of bytes are printed after criterion's lines.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use tempfile::TempDir;
use tidal_bench::{Latencies, NEVER, criterion, is_measured, sized, without_checkpoints};
use tidaldb::schema::{
    DecaySpec, EntityId, EntityKind, Schema, SchemaBuilder, SessionPolicy, Timestamp, Window,
};
use tidaldb::{
    Batch, Builder, Durability, Event, ManualClock, Options, Runtime, SessionConfig, TidalDb,
};

const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const STARTERS: u64 = 32;

fn main() {
    let mut criterion = criterion();
    let mut singly = Vec::new();
    signals(&mut criterion, &mut singly);
    starts(&mut criterion, &mut singly);
    sweeps(&mut criterion, &mut singly);
    opens(&mut criterion, &mut singly);
    criterion.final_summary();
    singly.iter_mut().for_each(|(what, latencies)| println!("{}", latencies.line(what)));
    if is_measured() {
        print_bytes();
    }
}

fn schema() -> Schema {
    let half_life = Duration::from_secs(86_400);
    let mut b = SchemaBuilder::new();
    let _ = b
        .signal("view", EntityKind::Item, DecaySpec::Exponential { half_life })
        .windows(&Window::BUCKETED)
        .engaging()
        .add();
    let mut long = SessionPolicy::new("long");
    (long.idle_timeout, long.max_duration) = (Duration::from_secs(1 << 30), NEVER * 2_000);
    b.session_policy(long);
    b.build().expect("the schema of the bench is sound")
}

fn builder(clock: &ManualClock, options: Options) -> Builder {
    let mut sessions = SessionConfig::default();
    sessions.runtime = Runtime::Manual;
    TidalDb::builder()
        .with_schema(schema())
        .with_options(options)
        .with_sessions(sessions)
        .with_clock(Arc::new(clock.clone()))
}

fn on_disk(directory: &Path, options: Options) -> TidalDb {
    let clock = ManualClock::at(START);
    builder(&clock, options).with_data_dir(directory.join("db")).open().expect("it opens")
}

/// Starts sessions of that many users, whose numbers begin with `first`; many wait for one sync.
fn start_many(db: &TidalDb, first: u64, count: u64, policy: &str) {
    std::thread::scope(|scope| {
        for starter in 0..STARTERS {
            scope.spawn(move || {
                for user in (first + starter..first + count).step_by(STARTERS as usize) {
                    let _ = db.start_session(user, "phone", policy).expect("started").detach();
                }
            });
        }
    });
}

fn signals(criterion: &mut Criterion, singly: &mut Vec<(String, Latencies)>) {
    let mut group = criterion.benchmark_group("sessions/signal");
    let os = Durability::Os { sync_every: Duration::from_millis(100) };
    for (durability, name) in [(os, "os"), (Durability::Sync, "sync")] {
        let directory = tempfile::tempdir().expect("a directory for temporary files");
        let mut options = without_checkpoints();
        options.durability = durability;
        let db = on_disk(directory.path(), options);
        let handle = db.start_session(42, "phone", "long").expect("started");
        let mut number = 0;
        let mut item = || {
            number += 1;
            EntityId::new(number % 1_000)
        };
        let plain = |item: EntityId| {
            let mut batch = Batch::new();
            batch.push(Event::new("view", item, START).user(42));
            db.write(batch).expect("counted").seq
        };
        let in_session = |item| handle.signal("view", item, 1.0, START).expect("counted").seq;
        let calls: [(&str, &dyn Fn(EntityId) -> tidaldb::Seq); 2] =
            [("plain", &plain), ("in a session", &in_session)];
        for (what, call) in calls {
            let mut latencies = Latencies::default();
            group.bench_function(format!("{what}, {name}"), |bencher| {
                bencher.iter_custom(|count| {
                    (0..count)
                        .map(|_| {
                            timed(&mut latencies, || {
                                std::hint::black_box(call(item()));
                            })
                        })
                        .sum()
                });
            });
            singly.push((format!("sessions/signal/{what}, {name}"), latencies));
        }
    }
    group.finish();
}

fn timed(latencies: &mut Latencies, call: impl FnOnce()) -> Duration {
    let start = Instant::now();
    call();
    let latency = start.elapsed();
    latencies.add(latency);
    latency
}

/// A start and its close, both synced: by one caller, and by many at once.
fn starts(criterion: &mut Criterion, singly: &mut Vec<(String, Latencies)>) {
    let directory = tempfile::tempdir().expect("a directory for temporary files");
    let db = on_disk(directory.path(), without_checkpoints());
    let pair = |user: u64| {
        let handle = db.start_session(user, "phone", "default").expect("started");
        drop(handle.close().expect("closed"));
    };
    let mut group = criterion.benchmark_group("sessions/start and close");
    let (mut user, mut latencies) = (0, Latencies::default());
    group.throughput(Throughput::Elements(1));
    group.bench_function("one caller", |bencher| {
        bencher.iter_custom(|count| {
            let mut one = || {
                user += 1;
                timed(&mut latencies, || pair(user))
            };
            (0..count).map(|_| one()).sum()
        });
    });
    const EACH: u64 = 20;
    group.throughput(Throughput::Elements(STARTERS * EACH));
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(format!("{STARTERS} callers"), |bencher| {
        bencher.iter(|| {
            std::thread::scope(|scope| {
                for caller in 0..STARTERS {
                    scope.spawn(move || (0..EACH).for_each(|_| pair(1_000_000 + caller)));
                }
            });
        });
    });
    group.finish();
    singly.push(("sessions/start and close/one caller".to_owned(), latencies));
}

/// One frame that ends a thousand sessions, of as many as there are.
fn sweeps(criterion: &mut Criterion, singly: &mut Vec<(String, Latencies)>) {
    const DUE: u64 = 1_000;
    let many = sized(10_000, 1_000_000) as u64;
    let clock = ManualClock::at(START);
    let mut latencies = Latencies::default();
    let mut group = criterion.benchmark_group("sessions/sweep");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    let mut built = None;
    group.bench_function(format!("{DUE} due of {many}"), |bencher| {
        let db = built.get_or_insert_with(|| {
            let db = builder(&clock, without_checkpoints()).ephemeral().open().expect("it opens");
            start_many(&db, 0, many, "long");
            db
        });
        bencher.iter_custom(|sweeps| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..sweeps {
                start_many(db, 2 * many, DUE, "default");
                clock.advance(Duration::from_secs(1_801));
                let mut swept = 0;
                elapsed += timed(&mut latencies, || {
                    swept = db.drive().expect("swept").swept.ended;
                });
                assert_eq!(swept, DUE);
            }
            elapsed
        });
    });
    group.finish();
    singly.push((format!("sessions/sweep/{DUE} due of {many}"), latencies));
}

/// Opening a database with so many open sessions, in checkpoints and with all of them restored.
fn opens(criterion: &mut Criterion, singly: &mut Vec<(String, Latencies)>) {
    let many = sized(5_000, 100_000) as u64;
    let mut latencies = Latencies::default();
    let mut group = criterion.benchmark_group("sessions/open");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    let mut built: Option<TempDir> = None;
    group.bench_function(format!("with {many} open"), |bencher| {
        let directory = built.get_or_insert_with(|| {
            let directory = tempfile::tempdir().expect("a directory for temporary files");
            let db = on_disk(directory.path(), without_checkpoints());
            start_many(&db, 0, many, "long");
            for _store in 0..2 {
                let _ = db.checkpoint().expect("a checkpoint");
            }
            directory
        });
        bencher.iter_custom(|count| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..count {
                let start = Instant::now();
                let db = on_disk(directory.path(), without_checkpoints());
                let latency = start.elapsed();
                assert_eq!(db.open_report().sessions_restored.len() as u64, many);
                latencies.add(latency);
                elapsed += latency;
            }
            elapsed
        });
    });
    group.finish();
    singly.push((format!("sessions/open/with {many} open"), latencies));
}

/// Memory per open session without records; a record waits for the stores and is none of it.
fn print_bytes() {
    const SESSIONS: u64 = 100_000;
    let clock = ManualClock::at(START);
    let db = builder(&clock, without_checkpoints()).ephemeral().open().expect("it opens");
    start_many(&db, 0, SESSIONS, "long");
    let status = db.status();
    assert_eq!(status.sessions_open, SESSIONS);
    let each = status.sessions_size_bytes as f64 / SESSIONS as f64;
    println!("{SESSIONS} open sessions: {each:.1} bytes of memory each");
}

//! How many events per second are accepted.
//!
//! One iteration is one group, so criterion's elements per second are events per second. Groups are
//! built outside of the measured time; `ingest/build` is what building costs the caller. Each event
//! counts for everyone and for one cohort. `append_only` appends as many bytes as the log has per
//! group to a file that was filled with zeros, and syncs: what the disk allows one waiting caller.

use std::cell::{LazyCell, RefCell};
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use tidal_bench::{
    Database, Workload, criterion, fill, log_size_bytes, sized, without_checkpoints,
    write_in_flight,
};
use tidaldb::{Batch, Durability, Event, Options, TidalDb};

const ITEMS: usize = 100_000;
/// Events that are built ahead of each stretch of measured time.
const AHEAD: usize = 200_000;

#[derive(Clone, Copy)]
enum Callers {
    /// One, which waits for each group.
    Waiting,
    /// One, with this many groups on their way.
    InFlight(usize),
    /// So many, each of which waits for each group of its own.
    Concurrent(usize),
}

const CASES: [(Callers, usize); 8] = [
    (Callers::Waiting, 1),
    (Callers::Waiting, 100),
    (Callers::Waiting, 1_000),
    (Callers::InFlight(4), 1),
    (Callers::InFlight(4), 100),
    (Callers::InFlight(4), 1_000),
    (Callers::Concurrent(4), 1),
    (Callers::Concurrent(4), 64),
];

impl Callers {
    fn name(self) -> String {
        match self {
            Self::Waiting => "1_waiting".to_owned(),
            Self::InFlight(depth) => format!("{depth}_in_flight"),
            Self::Concurrent(callers) => format!("{callers}_callers"),
        }
    }

    fn write(self, db: &TidalDb, groups: Vec<Batch>) -> Duration {
        match self {
            Self::Waiting => timed(|| write_waiting(db, groups)),
            Self::InFlight(depth) => timed(|| write_in_flight(db, groups, depth)),
            Self::Concurrent(callers) => write_concurrently(db, groups, callers),
        }
    }
}

fn main() {
    let mut criterion = criterion();
    build(&mut criterion);
    let half_a_second = Duration::from_millis(500);
    ingest(&mut criterion, "sync", Durability::Sync);
    ingest(&mut criterion, "os", Durability::Os { sync_every: half_a_second });
    append_only(&mut criterion);
    criterion.final_summary();
}

fn ingest(criterion: &mut Criterion, name: &str, durability: Durability) {
    let mut group = criterion.benchmark_group(format!("ingest/{name}"));
    group.sampling_mode(SamplingMode::Flat);
    // One database for all cases, made when the first of them is not filtered out.
    let database = LazyCell::new(|| {
        let mut options = Options::default();
        options.durability = durability;
        let database = Database::create(options, false);
        let mut workload = Workload::new(ITEMS, 1);
        fill(&database.db, &mut workload, sized(200_000, 1_000_000));
        (database, RefCell::new(workload))
    });
    for (callers, len) in CASES {
        group.throughput(Throughput::Elements(len as u64));
        group.bench_function(format!("{}/{len}", callers.name()), |bencher| {
            let (database, workload) = &*database;
            bencher.iter_custom(|groups| {
                let mut left = usize::try_from(groups).expect("a count of groups");
                let mut elapsed = Duration::ZERO;
                while left > 0 {
                    let count = left.min(AHEAD / len);
                    let groups = workload.borrow_mut().groups(count, len);
                    elapsed += callers.write(&database.db, groups);
                    left -= count;
                }
                elapsed
            });
        });
    }
    group.finish();
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn write_waiting(db: &TidalDb, groups: Vec<Batch>) {
    for group in groups {
        let _ = db.write(group).expect("a group is acknowledged");
    }
}

/// Deals the groups out to the callers, and measures from when all of them are ready.
fn write_concurrently(db: &TidalDb, groups: Vec<Batch>, callers: usize) -> Duration {
    let mut hands: Vec<Vec<Batch>> = vec![Vec::new(); callers];
    for (position, group) in groups.into_iter().enumerate() {
        hands[position % callers].push(group);
    }
    let ready = Barrier::new(callers + 1);
    std::thread::scope(|scope| {
        let callers: Vec<_> = hands
            .into_iter()
            .map(|hand| {
                scope.spawn(|| {
                    let _ = ready.wait();
                    write_waiting(db, hand);
                })
            })
            .collect();
        let _ = ready.wait();
        timed(|| callers.into_iter().for_each(|caller| caller.join().expect("a caller")))
    })
}

/// What the caller pays to make a batch of the events it has.
fn build(criterion: &mut Criterion) {
    const LEN: usize = 1_000;
    let mut group = criterion.benchmark_group("ingest/build");
    group.throughput(Throughput::Elements(LEN as u64));
    let mut workload = Workload::new(ITEMS, 1);
    let events: Vec<Event<'_>> = (0..LEN).map(|_| workload.event()).collect();
    group.bench_function(LEN.to_string(), |bencher| {
        bencher.iter_with_large_drop(|| {
            let mut batch = Batch::new();
            for &event in black_box(&events) {
                batch.push(event);
            }
            batch
        });
    });
    group.finish();
}

fn append_only(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append_only");
    group.sampling_mode(SamplingMode::Flat);
    for len in [1, 100, 1_000] {
        group.throughput(Throughput::Elements(len as u64));
        let prepared = LazyCell::new(|| (zeroed_file(), vec![0xa5; log_bytes_per_group(len)]));
        let mut end = 0;
        group.bench_function(len.to_string(), |bencher| {
            let (file, bytes) = &*prepared;
            bencher.iter_custom(|groups| {
                timed(|| {
                    for _ in 0..groups {
                        end = append(file, end, bytes);
                    }
                })
            });
        });
    }
    group.finish();
}

const FILE_BYTES: usize = 64 << 20;

fn zeroed_file() -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    let zeros = vec![0; 1 << 20];
    for _ in 0..FILE_BYTES / zeros.len() {
        file.write_all(&zeros).expect("zeros are written");
    }
    file.sync_all().expect("zeros are synced");
    file
}

/// Writes at `end`, or at the beginning when the file is full; returns the new end.
fn append(file: &File, end: usize, bytes: &[u8]) -> usize {
    let start = if end + bytes.len() > FILE_BYTES { 0 } else { end };
    file.write_all_at(bytes, start as u64).expect("a group is written");
    file.sync_data().expect("a group is synced");
    start + bytes.len()
}

/// What a group takes in the log, its frame included: measured.
fn log_bytes_per_group(len: usize) -> usize {
    const GROUPS: usize = 100;
    let database = Database::create(without_checkpoints(), false);
    let groups = Workload::new(ITEMS, 1).groups(GROUPS, len);
    let before = log_size_bytes(&database.db);
    write_waiting(&database.db, groups);
    let written = log_size_bytes(&database.db) - before;
    let each = usize::try_from(written).expect("a small log") / GROUPS;
    assert!(each > len, "an event takes a byte at least");
    println!("append_only/{len}: {each} bytes");
    each
}

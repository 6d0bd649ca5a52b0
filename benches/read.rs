//! How long reads take: candidates, rankings by score, rankings that scan.
//!
//! Criterion gives the mean of many equal calls; the percentiles of single calls, and those beside
//! full ingest, are printed after it unless criterion was given a filter. Every read is as of the engine's time, which is that of the
//! last event.

use std::cell::LazyCell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use tidal_bench::{
    COHORTS, Database, Latencies, USERS, Workload, cohort, criterion, fill, is_measured, sized,
    without_checkpoints, write_in_flight,
};
use tidaldb::schema::{EntityId, Window};
use tidaldb::{Batch, Event, Options, Ranked, ReadOptions, TidalDb};

const ITEMS: usize = 100_000;
const CANDIDATES: usize = 200;
const SIGNAL: &str = "view";
const K: usize = 20;
/// The cohort of the rankings.
const COHORT: u64 = 3;

fn main() {
    let mut criterion = criterion();
    candidates(&mut criterion);
    hot(&mut criterion);
    scans(&mut criterion);
    criterion.final_summary();
    if is_measured() && !is_filtered() {
        println!("single calls, {CANDIDATES} candidates out of {ITEMS} items:");
        print_alone();
        print_beside_ingest();
    }
}

/// Whether there is an argument that is no flag.
fn is_filtered() -> bool {
    std::env::args().skip(1).any(|argument| !argument.starts_with('-'))
}

/// A Zipf log, and the lists of candidates that requests ask about in turn.
struct Zipf {
    database: Database,
    workload: Workload,
    requests: Vec<Vec<EntityId>>,
}

impl Zipf {
    fn create(options: Options, velocity: bool) -> Self {
        let database = Database::create(options, velocity);
        let mut workload = Workload::new(ITEMS, 2);
        fill(&database.db, &mut workload, sized(200_000, 1_000_000));
        let mut requester = Workload::new(ITEMS, 3);
        let requests = (0..256).map(|_| requester.candidates(CANDIDATES)).collect();
        Self { database, workload, requests }
    }
}

/// A caller of batch reads, with the buffers that it reuses.
struct Reader<'a> {
    db: &'a TidalDb,
    requests: std::iter::Cycle<std::slice::Iter<'a, Vec<EntityId>>>,
    options: ReadOptions,
    scores: Vec<f64>,
    counts: Vec<u64>,
}

impl<'a> Reader<'a> {
    fn new(db: &'a TidalDb, requests: &'a [Vec<EntityId>]) -> Self {
        Self {
            db,
            requests: requests.iter().cycle(),
            options: ReadOptions::new(),
            scores: vec![0.0; CANDIDATES],
            counts: vec![0; CANDIDATES],
        }
    }

    fn scores(&mut self) {
        let items = self.requests.next().expect("an endless iterator");
        self.db.scores(items, SIGNAL, &self.options, &mut self.scores).expect("scores");
        black_box(&self.scores);
    }

    fn scores_and_counts(&mut self) {
        let items = self.requests.next().expect("an endless iterator");
        let (scores, counts) = (&mut self.scores, &mut self.counts);
        self.db
            .scores_and_counts(
                items,
                SIGNAL,
                Window::TwentyFourHours,
                &self.options,
                scores,
                counts,
            )
            .expect("scores and counts");
        black_box((&self.scores, &self.counts));
    }
}

type Read = fn(&mut Reader<'_>);

fn candidates(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read/candidates");
    group.throughput(Throughput::Elements(CANDIDATES as u64));
    let zipf = LazyCell::new(|| Zipf::create(without_checkpoints(), false));
    group.bench_function("scores", |bencher| {
        let mut reader = Reader::new(&zipf.database.db, &zipf.requests);
        bencher.iter(|| reader.scores());
    });
    group.bench_function("scores_and_24h", |bencher| {
        let mut reader = Reader::new(&zipf.database.db, &zipf.requests);
        bencher.iter(|| reader.scores_and_counts());
    });
    group.finish();
}

fn print_alone() {
    let zipf = Zipf::create(without_checkpoints(), false);
    let mut reader = Reader::new(&zipf.database.db, &zipf.requests);
    let calls = sized(20_000, 200_000);
    let mut measure = |what: &str, read: Read| {
        let mut latencies = Latencies::default();
        for _ in 0..calls {
            let start = Instant::now();
            read(&mut reader);
            latencies.add(start.elapsed());
        }
        println!("{}", latencies.line(what));
    };
    measure("scores, alone", |reader| reader.scores());
    measure("scores and 24 h counts, alone", |reader| reader.scores_and_counts());
}

/// One caller ingests with four groups of a thousand in flight and the default options; one reader
/// reads without pause, or pauses between reads as a service with other work does.
fn print_beside_ingest() {
    let mut zipf = Zipf::create(Options::default(), false);
    let pause = Duration::from_micros(200);
    for (name, pause) in [("flat out", None), ("with pauses of 200 us", Some(pause))] {
        print_reads_beside_ingest(&mut zipf, &format!("scores, {name}"), pause, |reader| {
            reader.scores()
        });
        let what = format!("scores and 24 h, {name}");
        print_reads_beside_ingest(&mut zipf, &what, pause, |reader| reader.scores_and_counts());
    }
}

fn print_reads_beside_ingest(zipf: &mut Zipf, what: &str, pause: Option<Duration>, read: Read) {
    const LEN: usize = 1_000;
    let count = sized(400, 3_000);
    let groups = zipf.workload.groups(count, LEN);
    let db = &zipf.database.db;
    let mut reader = Reader::new(db, &zipf.requests);
    let mut latencies = Latencies::default();
    let writing = AtomicBool::new(true);
    let elapsed = std::thread::scope(|scope| {
        let ingest = scope.spawn(|| {
            let start = Instant::now();
            write_in_flight(db, groups, 4);
            writing.store(false, Ordering::Relaxed);
            start.elapsed()
        });
        while writing.load(Ordering::Relaxed) {
            let start = Instant::now();
            read(&mut reader);
            latencies.add(start.elapsed());
            if let Some(pause) = pause {
                std::thread::sleep(pause);
            }
        }
        ingest.join().expect("the ingesting thread")
    });
    let rate = (count * LEN) as f64 / elapsed.as_secs_f64() / 1e3;
    let line = latencies.line(&format!("{what}, beside ingest"));
    println!("{line}, {rate:.0} k events/s");
}

fn hot(criterion: &mut Criterion) {
    for items in [10_000, sized(100_000, 1_000_000)] {
        let database = LazyCell::new(|| every_item_once(items));
        hot_of(criterion, items, &database);
    }
}

/// Each sample after falls begins with one more fall.
fn hot_of<F: FnOnce() -> Database>(
    criterion: &mut Criterion,
    items: usize,
    database: &LazyCell<Database, F>,
) {
    let options = ReadOptions::new().cohort(cohort(COHORT));
    let best = |db: &TidalDb| db.hot(SIGNAL, K, &options).expect("a ranking");
    let mut group = criterion.benchmark_group("read/hot_of_cohort");
    group.bench_function(BenchmarkId::new("before_falls", items), |bencher| {
        bencher.iter(|| best(&database.db));
    });
    group.bench_function(BenchmarkId::new("after_return", items), |bencher| {
        let top = first(&best(&database.db));
        take_back(&database.db, top);
        assert!(best(&database.db).iter().all(|ranked| ranked.entity != top.entity));
        bencher.iter(|| best(&database.db));
    });
    group.bench_function(BenchmarkId::new("after_hide", items), |bencher| {
        let top = first(&best(&database.db));
        let _ = database.db.hide_item(top.entity).expect("an item is hidden");
        assert!(best(&database.db).iter().all(|ranked| ranked.entity != top.entity));
        bencher.iter(|| best(&database.db));
    });
    group.finish();
    // Only where the benches above were not filtered out.
    if is_measured() && LazyCell::get(database).is_some() {
        print_falls(items, &database.db, &best);
    }
}

/// A fall of the top item before each read: sooner or later the list of candidates must be made anew.
fn print_falls(items: usize, db: &TidalDb, best: &dyn Fn(&TidalDb) -> Vec<Ranked>) {
    let (mut writes, mut reads) = (Latencies::default(), Latencies::default());
    for _ in 0..sized(100, 400) {
        let top = first(&best(db));
        let start = Instant::now();
        take_back(db, top);
        writes.add(start.elapsed());
        let start = Instant::now();
        let after = best(db);
        reads.add(start.elapsed());
        assert!(after.len() == K && after[0].value <= top.value);
    }
    println!("{}", reads.line(&format!("hot of {items}, first read after a return")));
    println!("{}", writes.line(&format!("the return of the top item of {items} itself")));
}

fn first(ranking: &[Ranked]) -> Ranked {
    *ranking.first().expect("a ranking of many items is not empty")
}

/// Takes an item's score away, as a return does; the engine's time stands still.
fn take_back(db: &TidalDb, top: Ranked) {
    let mut batch = Batch::new();
    let event = Event::new(SIGNAL, top.entity, db.engine_time()).weight(-top.value);
    batch.push(event.user(COHORT));
    let _ = db.write(batch).expect("a return is acknowledged");
}

/// One event on every item, all of the users of one cohort, with weights that scatter.
fn every_item_once(items: usize) -> Database {
    const LEN: usize = 1_000;
    let database = Database::create(without_checkpoints(), false);
    let mut clock = Workload::new(1, 4);
    let groups = (0..items.div_ceil(LEN)).map(|group| {
        let mut batch = Batch::new();
        for rank in group * LEN..items.min((group + 1) * LEN) {
            let item = Workload::item(rank);
            let weight = 1.0 + (item.get() % 1_000_003) as f64 / 1e3;
            let user = (rank as u64 * COHORTS + COHORT) % USERS;
            batch.push(Event::new(SIGNAL, item, clock.tick()).weight(weight).user(user));
        }
        batch
    });
    write_in_flight(&database.db, groups, 4);
    database
}

fn scans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read/scan");
    let zipf = LazyCell::new(|| Zipf::create(without_checkpoints(), true));
    for window in [Window::OneHour, Window::TwentyFourHours] {
        group.bench_function(BenchmarkId::new("top", window), |bencher| {
            let (db, options) = (&zipf.database.db, ReadOptions::new());
            bencher.iter(|| db.top(SIGNAL, window, K, &options).expect("a ranking"));
        });
        group.bench_function(BenchmarkId::new("trending", window), |bencher| {
            let (db, options) = (&zipf.database.db, ReadOptions::new());
            bencher.iter(|| db.trending(SIGNAL, window, K, &options).expect("a ranking"));
        });
    }
    group.finish();
}

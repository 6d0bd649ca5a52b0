//! How fast edges are taken in with their capacity reached, how long neighbours and recommendations
//! take, how large an edge is.
//!
//! Visits of 20 different items out of 100,000, Zipf, each by a user of its own: 145 pairs, so 290
//! changes of edges. Throughput is in edges. Criterion gives the means; percentiles, sizes and
//! deletions are printed after it.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use tidal_bench::{
    Latencies, Workload, criterion, is_measured, sized, without_checkpoints, write_in_flight,
};
use tidaldb::co_engagement::{CoEngagementIndex, Method, Similarity};
use tidaldb::schema::{CoEngagement, DecaySpec, EntityId, EntityKind, Schema, SchemaBuilder};
use tidaldb::{Batch, Builder, Event, RecommendOptions, TidalDb, TimeSource};

const ITEMS: usize = 100_000;
const VISIT: usize = 20;
/// Directed edges that a visit changes: every item is paired with the ten before it.
const EDGES_PER_VISIT: usize = 2 * (45 + 10 * (VISIT - 10));
/// Visits of a group of a thousand events.
const VISITS_PER_GROUP: usize = 50;
const K: usize = 20;
const SEEDS: usize = 10;

fn main() {
    let mut criterion = criterion();
    index(&mut criterion);
    ingest(&mut criterion);
    let db = filled(ephemeral());
    neighbours(&mut criterion, &db);
    criterion.final_summary();
    if is_measured() {
        print_calls(&db);
        print_size(&db);
        print_deletions(&db);
    }
}

fn schema(is_engaging: bool) -> Schema {
    let mut b = SchemaBuilder::new();
    let decay = DecaySpec::Exponential { half_life: Duration::from_secs(86_400) };
    let view = b.signal("view", EntityKind::Item, decay);
    let _ = if is_engaging { view.engaging().add() } else { view.add() };
    if is_engaging {
        let mut settings = CoEngagement::default();
        settings.capacity = sized(200_000, 1_000_000);
        b.co_engagement(settings);
    }
    b.build().expect("a sound schema")
}

fn open(builder: Builder, is_engaging: bool) -> TidalDb {
    let builder = builder.with_schema(schema(is_engaging)).with_options(without_checkpoints());
    builder.with_time_source(TimeSource::Events).open().expect("a fresh database")
}

fn ephemeral() -> TidalDb {
    open(TidalDb::builder().ephemeral(), true)
}

/// An endless log of visits.
struct Visits {
    workload: Workload,
    user: u64,
}

impl Visits {
    fn new(seed: u64) -> Self {
        Self { workload: Workload::new(ITEMS, seed), user: 0 }
    }

    fn group(&mut self) -> Batch {
        let mut batch = Batch::new();
        for _ in 0..VISITS_PER_GROUP {
            self.user += 1;
            for item in self.workload.candidates(VISIT) {
                batch.push(Event::new("view", item, self.workload.tick()).user(self.user));
            }
        }
        batch
    }
}

/// Fills a database beyond its capacity of edges.
fn filled(db: TidalDb) -> TidalDb {
    let mut visits = Visits::new(5);
    let groups = sized(100, 1_000);
    write_in_flight(&db, (0..groups).map(|_| visits.group()), 4);
    db
}

fn index(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("co_engagement/index");
    const CAPACITY: usize = 100_000;
    let index = CoEngagementIndex::with_capacity(CAPACITY);
    let mut workload = Workload::new(ITEMS, 9);
    let items = workload.candidates(2_000);
    let mut at = 0;
    let mut insert = || {
        at += 1;
        let (from, to) =
            (items[at % items.len()], items[(at * 7 + at / items.len()) % items.len()]);
        if from != to {
            let weight = 1.0 + (at % 13) as f32;
            index.insert_edge(from.get(), to.get(), weight).expect("an edge");
        }
    };
    (0..2 * CAPACITY).for_each(|_| insert());
    assert_eq!(index.edge_count(), CAPACITY);
    group.throughput(Throughput::Elements(1));
    group.bench_function("insert_edge_when_full", |bencher| bencher.iter(&mut insert));
    group.finish();
}

fn ingest(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("co_engagement/ingest");
    group.throughput(Throughput::Elements((EDGES_PER_VISIT * VISITS_PER_GROUP) as u64));
    let directory = tempfile::tempdir().expect("a directory for temporary files");
    let on_disk = |name: &str| TidalDb::builder().with_data_dir(directory.path().join(name));
    let databases = [
        ("in_memory", filled(ephemeral())),
        ("on_disk", filled(open(on_disk("engaging"), true))),
        ("on_disk_without_edges", filled(open(on_disk("plain"), false))),
    ];
    for (name, db) in databases {
        let visits = RefCell::new(Visits::new(7));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || visits.borrow_mut().group(),
                |batch| db.write(batch).expect("acknowledged"),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn neighbours(criterion: &mut Criterion, db: &TidalDb) {
    let mut group = criterion.benchmark_group("co_engagement/neighbours");
    let items = Workload::new(ITEMS, 11).candidates(1_000);
    for (name, similarity) in [
        ("cosine", Similarity::default()),
        ("co_occurrence", Similarity::CoOccurrence),
        ("lift", Similarity::Lift),
    ] {
        let mut items = items.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| near(db, *items.next().expect("an endless iterator"), similarity));
        });
    }
    group.finish();
}

fn near(db: &TidalDb, item: EntityId, similarity: Similarity) {
    black_box(db.co_engagement().neighbours(item, K, similarity).expect("a similarity"));
}

fn print_calls(db: &TidalDb) {
    let mut latencies = Latencies::default();
    let mut workload = Workload::new(ITEMS, 13);
    for item in (0..50).flat_map(|_| workload.candidates(400)) {
        let start = Instant::now();
        near(db, item, Similarity::default());
        latencies.add(start.elapsed());
    }
    println!("{}", latencies.line(&format!("the {K} nearest of {ITEMS} items")));
    for method in [Method::Edges, Method::Sessions] {
        let options = RecommendOptions::new().method(method);
        let mut latencies = Latencies::default();
        for _ in 0..5_000 {
            let session = workload.candidates(SEEDS);
            let start = Instant::now();
            black_box(db.recommend(&session, K, &options).expect("an answer"));
            latencies.add(start.elapsed());
        }
        println!("{}", latencies.line(&format!("recommend {K} from {SEEDS} seeds by {method:?}")));
    }
}

fn print_size(db: &TidalDb) {
    let (edges, trails) = (db.co_engagement().edge_count(), db.co_engagement().trail_count());
    let size = db.co_engagement().size_bytes();
    println!("{edges} edges and {trails} trails of {VISIT} items: {size} bytes");
    let mut settings = CoEngagement::default();
    settings.trails_max = 1;
    settings.capacity = sized(200_000, 1_000_000);
    let mut b = SchemaBuilder::new();
    let _ = b.signal("view", EntityKind::Item, DecaySpec::None).engaging().add();
    b.co_engagement(settings);
    let builder = TidalDb::builder().ephemeral().with_schema(b.build().expect("sound"));
    let alone = filled(builder.with_time_source(TimeSource::Events).open().expect("opens"));
    let (edges, size) = (alone.co_engagement().edge_count(), alone.co_engagement().size_bytes());
    let each = size as f64 / edges as f64;
    println!("{edges} edges without trails: {size} bytes, {each:.1} each, rows of items included");
}

/// Items that are popular, and some that hardly any row names.
fn print_deletions(db: &TidalDb) {
    for (what, ranks) in [("popular", 0..20), ("rare", 50_000..50_020)] {
        let mut latencies = Latencies::default();
        for rank in ranks {
            let start = Instant::now();
            db.delete_item(Workload::item(rank)).expect("acknowledged");
            latencies.add(start.elapsed());
        }
        let edges = db.co_engagement().edge_count();
        println!("{}", latencies.line(&format!("deletion of a {what} item, {edges} edges left")));
    }
}

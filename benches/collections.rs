//! Collections: what adding costs whatever the size of the list, what reads cost, bytes per item.
//!
//! Acknowledged before the sync, so that the disk does not hide what the size of a list costs; a single
//! call still pays for waking the writer's thread. Lists keep their sizes: what is added is taken out
//! again, outside the time that is measured. The table of bytes is printed after criterion's lines.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use tidal_bench::{Database, Latencies, criterion, is_measured, without_checkpoints};
use tidaldb::schema::EntityId;
use tidaldb::{CollectionChange, CollectionId, TidalDb, UserId, Visibility};

const OWNER: u64 = 42;
const SIZES: [u64; 2] = [10, 100_000];
/// Items of a page that is read.
const PAGE: usize = 20;

fn main() {
    let database = Database::create(without_checkpoints(), false);
    let db = &database.db;
    let lists = SIZES.map(|size| (size, list_of(db, size)));
    let mut criterion = criterion();
    let mut latencies = Vec::new();
    changes(&mut criterion, db, &lists, &mut latencies);
    reads(&mut criterion, db, &lists);
    criterion.final_summary();
    latencies.iter_mut().for_each(|(what, latencies)| println!("{}", latencies.line(what)));
    if is_measured() {
        print_bytes(db);
    }
}

/// Items that have nothing to do with each other's numbers.
fn item(number: u64) -> EntityId {
    EntityId::new(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn list_of(db: &TidalDb, size: u64) -> CollectionId {
    let id = db.create_collection(OWNER, "list", Visibility::Private).expect("created");
    let change = CollectionChange::replace((0..size).map(item));
    let ack = db.change_collection(id, change).expect("replaced");
    assert_eq!(ack.item_count, size);
    // Room for one more, whatever the limit says.
    let _ = db.remove_from_collection(id, item(0)).expect("removed");
    id
}

fn changes(
    criterion: &mut Criterion,
    db: &TidalDb,
    lists: &[(u64, CollectionId)],
    latencies: &mut Vec<(String, Latencies)>,
) {
    let mut group = criterion.benchmark_group("collections/add");
    for &(size, id) in lists {
        let places = [("at the end", size - 1), ("in the middle", size / 2)];
        for (place, at) in places {
            let mut singly = Latencies::default();
            let name = BenchmarkId::new(place, size);
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|calls| {
                    let mut elapsed = Duration::ZERO;
                    for _ in 0..calls {
                        let change = CollectionChange::insert(item(0), at);
                        let start = Instant::now();
                        let ack = db.change_collection(id, change).expect("added");
                        let latency = start.elapsed();
                        assert!(ack.changed);
                        singly.add(latency);
                        elapsed += latency;
                        let _ = db.remove_from_collection(id, item(0)).expect("removed");
                    }
                    elapsed
                });
            });
            latencies.push((format!("add {place} of {size}"), singly));
        }
    }
    group.finish();
}

fn reads(criterion: &mut Criterion, db: &TidalDb, lists: &[(u64, CollectionId)]) {
    let owner = Some(UserId::new(OWNER));
    let mut group = criterion.benchmark_group("collections/read");
    for &(size, id) in lists {
        let mut number = 0;
        group.bench_function(BenchmarkId::new("is an item there", size), |bencher| {
            bencher.iter(|| {
                number = (number + 7_919) % size;
                black_box(db.is_in_collection(id, owner, item(number)).expect("read"))
            });
        });
        group.bench_function(BenchmarkId::new("a page at the end", size), |bencher| {
            let from = (size - 1).saturating_sub(PAGE as u64);
            bencher.iter(|| black_box(db.collection_items(id, owner, from, PAGE).expect("read")));
        });
    }
    group.finish();
}

/// Memory per item of a large list, and per collection of ten items.
fn print_bytes(db: &TidalDb) {
    const SMALL: u64 = 1_000;
    let status = db.status();
    let each = status.collections_size_bytes as f64 / SIZES[1] as f64;
    println!("one list of {}: {each:.1} bytes of memory an item", SIZES[1]);
    for owner in 0..SMALL {
        let id = db.create_collection(owner + 100, "favourites", Visibility::Private);
        let change = CollectionChange::replace((0..10).map(|n| item(owner * 10 + n)));
        let _ = db.change_collection(id.expect("created"), change).expect("replaced");
    }
    let grown = db.status().collections_size_bytes - status.collections_size_bytes;
    println!("{SMALL} lists of 10: {:.0} bytes of memory a list", grown as f64 / SMALL as f64);
}

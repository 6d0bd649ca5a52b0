//! How long opening takes: with checkpointed cells alone, and with log behind the checkpoint.
//!
//! A directory is built once per bench and opened again and again. Each open appends a small frame
//! to the log; none writes a checkpoint, because the database is stopped and not closed. Files are in
//! the page cache.

use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use tempfile::TempDir;
use tidal_bench::{
    Database, Latencies, Workload, criterion, fill, fill_to_cells, sized, without_checkpoints,
};

const ITEMS: usize = 100_000;

fn main() {
    let mut criterion = criterion();
    let cells = sized(200_000, 1_000_000);
    let events = sized(200_000, 1_000_000);
    open(&mut criterion, "checkpoint_only", cells, 0);
    open(&mut criterion, "checkpoint_and_log", cells, events);
    criterion.final_summary();
}

fn open(criterion: &mut Criterion, name: &str, cells: u64, events_of_log: usize) {
    let mut group = criterion.benchmark_group("open");
    group.sampling_mode(SamplingMode::Flat);
    let mut built = None;
    let mut latencies = Latencies::default();
    let mut report = None;
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|opens| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..opens {
                let place = built.take().unwrap_or_else(|| build(cells, events_of_log));
                let start = Instant::now();
                let database = Database::reopen(place, without_checkpoints());
                let latency = start.elapsed();
                latencies.add(latency);
                elapsed += latency;
                report.get_or_insert_with(|| database.db.open_report().to_string());
                built = Some(database.stop());
            }
            elapsed
        });
    });
    group.finish();
    if let Some(report) = report {
        println!("{}", latencies.line(&format!("open/{name}, single calls")));
        println!("{report}");
    }
}

/// A database with that many checkpointed cells, in both stores, and that many events of log behind
/// them.
fn build(cells: u64, events_of_log: usize) -> TempDir {
    let database = Database::create(without_checkpoints(), false);
    let mut workload = Workload::new(ITEMS, 5);
    let events = fill_to_cells(&database.db, &mut workload, cells);
    for _store in 0..2 {
        let _ = database.db.checkpoint().expect("a checkpoint");
    }
    fill(&database.db, &mut workload, events_of_log);
    let _ = database.db.flush().expect("the log is synced");
    println!("\n{cells} cells from {events} events, {events_of_log} more events behind them");
    database.stop()
}

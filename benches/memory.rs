//! Bytes: of memory per cell, as the engine reports them, and on the device per event.
//!
//! Nothing is timed, so this is no criterion bench: it prints tables. The shop log is read from
//! `shared/data/serenade` beside the repository or above it, and left out where there is none.

use std::path::{Path, PathBuf};

use tidal_bench::{
    Database, Workload, device_bytes_written, fill, full, is_measured, log_size_bytes,
    process_bytes_written, schema, write_users,
};
use tidaldb::schema::{EntityId, Timestamp};
use tidaldb::{Batch, Event, Options, TidalDb, TimeSource};

const ITEMS: usize = 100_000;

fn main() {
    if is_measured() {
        print_memory();
        print_device_bytes();
    }
}

fn print_memory() {
    println!("{:<32} {:>10} {:>10} {:>12} {:>8}", "log", "events", "cells", "bytes", "B/cell");
    let db = ephemeral();
    let mut workload = Workload::new(ITEMS, 6);
    const MILLION: usize = 1_000_000;
    fill(&db, &mut workload, MILLION);
    print_cells("Zipf, everyone and a cohort", MILLION, &db);
    if full() {
        fill(&db, &mut workload, 9 * MILLION);
        print_cells("Zipf, everyone and a cohort", 10 * MILLION, &db);
    }
    match shop_log() {
        Some(clicks) => {
            let db = ephemeral();
            write_clicks(&db, &clicks);
            print_cells("shop clicks, everyone", clicks.len(), &db);
        }
        None => println!("shop clicks: shared/data/serenade/train.txt is not there"),
    }
}

fn print_cells(log: &str, events: usize, db: &TidalDb) {
    let status = db.status();
    let each = status.cell_size_bytes().unwrap_or_default();
    let (cells, bytes) = (status.cells, status.cells_size_bytes);
    println!("{log:<32} {events:>10} {cells:>10} {bytes:>12} {each:>8.1}");
}

fn ephemeral() -> TidalDb {
    let builder = TidalDb::builder().ephemeral().with_schema(schema(false));
    let db = builder.with_time_source(TimeSource::Events).open().expect("an ephemeral database");
    write_users(&db);
    db
}

struct Click {
    at: Timestamp,
    item: EntityId,
}

/// Clicks of the shop log in the order of their times.
fn shop_log() -> Option<Vec<Click>> {
    let file = |above: &Path| above.join("shared/data/serenade/train.txt");
    let path: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(file).find(|path| path.is_file())?;
    let text = std::fs::read_to_string(path).expect("the shop log is text");
    let mut clicks: Vec<Click> = text.lines().skip(1).map(click).collect();
    clicks.sort_by_key(|click| click.at);
    Some(clicks)
}

/// `SessionId`, `ItemId`, `Time` in seconds, tabs between them.
fn click(line: &str) -> Click {
    let fields: Vec<&str> = line.split('\t').collect();
    let item = fields[1].parse().expect("an item is a number");
    let seconds: f64 = fields[2].parse().expect("a time is a number of seconds");
    Click { at: Timestamp::from_secs(seconds as u64), item: EntityId::new(item) }
}

fn write_clicks(db: &TidalDb, clicks: &[Click]) {
    for clicks in clicks.chunks(1_000) {
        let mut batch = Batch::new();
        for click in clicks {
            batch.push(Event::new("view", click.item, click.at));
        }
        let _ = db.write(batch).expect("clicks are acknowledged");
    }
}

/// Default options: every group synced, checkpoints as they fall due and one at the end.
fn print_device_bytes() {
    const EVENTS: usize = 2_000_000;
    // The frames of the first events alone are counted, because a checkpoint cuts the log.
    const FIRST: usize = 200_000;
    let database = Database::create(Options::default(), false);
    let mut workload = Workload::new(ITEMS, 7);
    let empty_log = log_size_bytes(&database.db);
    let start = Written::to(database.path());
    fill(&database.db, &mut workload, FIRST);
    let frames = log_size_bytes(&database.db) - empty_log;
    fill(&database.db, &mut workload, EVENTS - FIRST);
    let cells = database.db.status().cells;
    let open = Written::to(database.path());
    // The directory lives on until the counts are read: what was to be written back must be.
    let directory = database.close();
    let closed = Written::to(directory.path());
    println!("\n{EVENTS} events in groups of 1000, {cells} cells, synced; bytes per event:");
    println!("{:<40} {:>10.1}", "frames of the log", frames as f64 / FIRST as f64);
    println!("{:<40} {:>10} {:>10}", "", "device*", "process**");
    open.print_since(&start, "before closing", EVENTS);
    closed.print_since(&start, "with the checkpoint of closing", EVENTS);
    println!("* by everyone on the machine; ** counts large folios whole: an upper bound");
}

/// Bytes written so far.
struct Written {
    device: Option<u64>,
    process: Option<u64>,
}

impl Written {
    fn to(path: &Path) -> Self {
        Self { device: device_bytes_written(path), process: process_bytes_written() }
    }

    fn print_since(&self, start: &Self, what: &str, events: usize) {
        let each = |now: Option<u64>, then: Option<u64>| match (now, then) {
            (Some(now), Some(then)) => format!("{:.1}", (now - then) as f64 / events as f64),
            _ => "unknown".to_owned(),
        };
        let (device, process) =
            (each(self.device, start.device), each(self.process, start.process));
        println!("{what:<40} {device:>10} {process:>10}");
    }
}

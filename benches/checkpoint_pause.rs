//! Whether checkpoints hurt, and whether an idle database writes.
//!
//! Open loop: signals are sent at fixed times, whether or not earlier ones were acknowledged, and
//! latency counts from the time at which a signal was to be sent. A closed loop would not send while
//! it waits, and so hide a pause from all but one signal. Criterion measures closed loops; this
//! prints its own table.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use tidal_bench::{
    Database, Latencies, NEVER, Workload, fill, fill_to_cells, is_measured, process_bytes_written,
    sized, without_checkpoints,
};
use tidaldb::{Options, Seq, Ticket, TidalDb};

const ITEMS: usize = 100_000;
const SIGNALS_PER_S: u32 = 1_000;
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);

fn main() {
    if is_measured() {
        print_pauses();
        print_idle();
    }
}

fn print_pauses() {
    let cells = sized(200_000, 1_000_000);
    let seconds = sized(5, 30);
    let database = Database::create(without_checkpoints(), false);
    let mut workload = Workload::new(ITEMS, 8);
    let _ = fill_to_cells(&database.db, &mut workload, cells);
    // Both stores have all cells: from here on checkpoints are increments.
    for _store in 0..2 {
        let _ = database.db.checkpoint().expect("a checkpoint");
    }
    let mut directory = database.close();
    println!("{SIGNALS_PER_S} signals/s for {seconds} s over {cells} cells, synced one by one:");
    for (name, interval) in [("none", NEVER), ("one every 2 s", CHECKPOINT_INTERVAL)] {
        let database = Database::reopen(directory, options(interval));
        let (mut latencies, checkpoints) = open_loop(&database.db, &mut workload, seconds);
        println!("{}", latencies.line(&format!("checkpoints: {name} ({checkpoints} seen)")));
        directory = database.close();
    }
}

/// Synced writes; checkpoints by time alone.
fn options(checkpoint_interval: Duration) -> Options {
    let mut options = Options::default();
    options.checkpoint_interval = checkpoint_interval;
    options.checkpoint_log_bytes = u64::MAX;
    options
}

/// A signal on its way, and when it was to be sent.
type Sent = (Instant, Ticket);

/// Sends, and waits in another thread; meanwhile counts the checkpoints that come to be.
fn open_loop(db: &TidalDb, workload: &mut Workload, seconds: u32) -> (Latencies, usize) {
    let (sender, sent) = channel::<Sent>();
    let interval = Duration::from_secs(1) / SIGNALS_PER_S;
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || wait_in_order(&sent));
        scope.spawn(move || {
            let start = Instant::now();
            for number in 0..seconds * SIGNALS_PER_S {
                let signal = workload.group(1);
                let due = start + interval * number;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let ticket = db.submit(signal).expect("a signal is accepted");
                sender.send((due, ticket)).expect("the waiter outlives the sender");
            }
        });
        let checkpoints = count_checkpoints(db, &waiter);
        (waiter.join().expect("the waiting thread"), checkpoints)
    })
}

/// Acknowledgements come in the order of the log, so waiting for the oldest delays none.
fn wait_in_order(sent: &Receiver<Sent>) -> Latencies {
    let mut latencies = Latencies::default();
    for (due, ticket) in sent {
        let _ = ticket.wait().expect("a signal is acknowledged");
        latencies.add(due.elapsed());
    }
    latencies
}

fn count_checkpoints(db: &TidalDb, waiter: &ScopedJoinHandle<'_, Latencies>) -> usize {
    let mut seen: BTreeSet<Seq> = checkpoints(db).collect();
    let before = seen.len();
    while !waiter.is_finished() {
        std::thread::sleep(Duration::from_millis(50));
        seen.extend(checkpoints(db));
    }
    seen.len() - before
}

fn checkpoints(db: &TidalDb) -> impl Iterator<Item = Seq> {
    db.status().stores.into_iter().map(|store| store.seq)
}

/// Writes, lets the checkpoints of both stores happen, and then watches.
fn print_idle() {
    let watched = Duration::from_secs(5);
    let database = Database::create(options(Duration::from_secs(1)), false);
    fill(&database.db, &mut Workload::new(ITEMS, 9), 100_000);
    std::thread::sleep(Duration::from_secs(5));
    let Some(before) = process_bytes_written() else {
        return println!("idle: /proc/self/io is not there");
    };
    let checkpoints_before: Vec<Seq> = checkpoints(&database.db).collect();
    std::thread::sleep(watched);
    let written = process_bytes_written().unwrap_or_default() - before;
    let quiet = checkpoints_before == checkpoints(&database.db).collect::<Vec<_>>();
    let verdict = if written == 0 && quiet { "it writes nothing" } else { "IT WRITES" };
    println!("idle for {watched:?}, checkpoint interval 1 s: {written} bytes written: {verdict}");
}

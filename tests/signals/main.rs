//! What signals, cohorts, items and sources mean, seen from outside and under a manual clock.

mod additions;
mod ingest;
mod meaning;
mod plain_list;
mod rankings;
mod reopening;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidal_support::model::BUCKETED;
use tidaldb::schema::{
    DecaySpec, EntityId, EntityKind, Predicate, Schema, SchemaBuilder, Timestamp, Window,
};
use tidaldb::{Batch, Event, ManualClock, ReadOptions, TidalDb};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const HALF_HOUR: Duration = Duration::from_secs(1_800);
const HALF_LIVES: [Duration; 3] = [DAY, HALF_HOUR, Duration::MAX];
const VELOCITY: [Window; 3] = [Window::OneHour, Window::TwentyFourHours, Window::SevenDays];
/// Not on the edge of any grain.
const START: Timestamp = Timestamp::from_secs(1_700_000_123);
const EVERYONE: Option<&str> = None;

fn all_windows() -> Vec<Window> {
    BUCKETED.iter().map(|(window, ..)| *window).chain([Window::AllTime]).collect()
}

fn declare(b: &mut SchemaBuilder, signal: &str) {
    let _ = b
        .signal(signal, EntityKind::Item, DecaySpec::Exponential { half_life: DAY })
        .half_lives(&HALF_LIVES[1..])
        .windows(&Window::ALL)
        .velocity(true)
        .add();
}

fn builder_of_schema() -> SchemaBuilder {
    let mut b = SchemaBuilder::new();
    declare(&mut b, "view");
    declare(&mut b, "like");
    b.cohort("adults", Predicate::range("age", 18.0..200.0));
    b.cohort_family("country", 3);
    b.named_cohort("editors-picks");
    b
}

fn schema() -> Schema {
    builder_of_schema().build().expect("a sound schema")
}

fn ephemeral() -> (ManualClock, TidalDb) {
    let clock = ManualClock::at(START);
    let builder = TidalDb::builder().ephemeral().with_schema(schema());
    let db = builder.with_clock(Arc::new(clock.clone())).open().expect("opens");
    (clock, db)
}

fn open(dir: &Path, schema: Schema, clock: &ManualClock) -> TidalDb {
    let builder = TidalDb::builder().with_data_dir(dir).with_schema(schema);
    builder.with_clock(Arc::new(clock.clone())).open().expect("opens")
}

fn item(n: u64) -> EntityId {
    EntityId::new(n)
}

fn of(cohort: &str) -> ReadOptions {
    ReadOptions::new().cohort(cohort)
}

fn one(event: Event<'_>) -> Batch {
    let mut batch = Batch::new();
    batch.push(event);
    batch
}

fn all_time(db: &TidalDb, n: u64, options: &ReadOptions) -> u64 {
    db.windowed_count(item(n), "view", Window::AllTime, options).expect("counted")
}

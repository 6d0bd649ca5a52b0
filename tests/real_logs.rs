//! Real logs, ingested by processes that are killed, against a plain reference made from the file.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use tidal_support::child::{self, Victim};
use tidal_support::logs::{self, Line};
use tidal_support::model::{BUCKETED, Check, Column};
use tidal_support::pairs;
use tidaldb::schema::{DecaySpec, EntityId, EntityKind, Predicate, Schema, SchemaBuilder, Window};
use tidaldb::{Batch, Event, Options, TidalDb, TimeSource};

const DAY: Duration = Duration::from_secs(86_400);
const HALF_HOUR: Duration = Duration::from_secs(1_800);
const VELOCITY: [Window; 3] = [Window::OneHour, Window::TwentyFourHours, Window::SevenDays];
const SOURCE: &str = "log";

fn schema() -> Schema {
    let mut b = SchemaBuilder::new();
    for signal in ["view", "purchase", "return"] {
        let _ = b
            .signal(signal, EntityKind::Item, DecaySpec::Exponential { half_life: DAY })
            .half_lives(&[HALF_HOUR])
            .windows(&Window::ALL)
            .velocity(true)
            .add();
    }
    b.cohort_family("country", 100);
    b.cohort_family("third", 3);
    b.cohort("young", Predicate::range("age", 0.0..30.0));
    b.build().expect("a sound schema")
}

/// Small segments and many checkpoints: a kill meets both.
fn options() -> Options {
    let mut options = Options::default();
    options.segment_size_bytes = 128 << 10;
    options.checkpoint_log_bytes = 256 << 10;
    options
}

fn open(dir: &Path) -> TidalDb {
    let builder = TidalDb::builder().with_data_dir(dir).with_schema(schema());
    let builder = builder.with_options(options()).with_time_source(TimeSource::Events);
    builder.open().expect("the database opens")
}

fn attributes(user: u64) -> [(&'static str, String); 2] {
    [("third", (user % 3).to_string()), ("age", (user % 60).to_string())]
}

/// The cohorts that follow from a user's attributes.
fn user_cohorts(user: u64) -> Vec<String> {
    let mut cohorts = vec![format!("third={}", user % 3)];
    if user % 60 < 30 {
        cohorts.push("young".to_owned());
    }
    cohorts
}

/// The users that are written; signals of others count for nobody but everyone.
const WRITTEN_USERS: u64 = 200;

/// Ingests what the database does not have yet, and reports each acknowledged position.
fn ingest(db: &TidalDb, log: &[Line], batch_len: usize, mut acknowledged: impl FnMut(u64)) {
    let begin = match db.source_offset(SOURCE) {
        Some(stored) => stored as usize + 1,
        None => {
            for user in 0..WRITTEN_USERS {
                let attributes = attributes(user);
                let given: Vec<(&str, &str)> =
                    attributes.iter().map(|(k, v)| (*k, v.as_str())).collect();
                db.write_user(user, &pairs(&given)).expect("the user is written");
            }
            0
        }
    };
    for (i, lines) in log[begin..].chunks(batch_len).enumerate() {
        let first = begin + i * batch_len;
        let texts: Vec<&str> = lines.iter().map(|line| line.item.as_str()).collect();
        let items = db.intern(&texts).expect("texts are interned");
        let last = (first + lines.len() - 1) as u64;
        let mut batch = Batch::from_source(SOURCE, first as u64, last).contiguous();
        for (line, item) in lines.iter().zip(items) {
            let mut event = Event::new(line.signal, item, line.at).weight(line.weight);
            if let Some(user) = line.user {
                event = event.user(user);
            }
            if let Some(cohort) = &line.cohort {
                event = event.cohort(cohort);
            }
            batch.push(event);
        }
        db.write(batch).expect("the batch is written");
        acknowledged(last);
    }
}

/// Compares every count, score and ranking with those of the lines.
fn compare(db: &TidalDb, lines: &[Line]) {
    let mut columns: BTreeMap<(&str, Option<String>), Column> = BTreeMap::new();
    let mut items: BTreeMap<&str, EntityId> = BTreeMap::new();
    let mut now = lines[0].at;
    for line in lines {
        now = now.max(line.at);
        let lookup = || db.lookup_text(&line.item).expect("every item of the log has an id");
        let item = *items.entry(&line.item).or_insert_with(lookup);
        let written = line.user.filter(|&user| user < WRITTEN_USERS);
        let cohorts = written.map(user_cohorts).into_iter().flatten().chain(line.cohort.clone());
        for scope in std::iter::once(None).chain(cohorts.map(Some)) {
            let column = columns.entry((line.signal, scope)).or_default();
            column.push(item, line.at, line.weight);
        }
    }
    assert_eq!(db.engine_time(), now, "engine time is the latest event's");
    let items: Vec<EntityId> = items.into_values().collect();
    let windows: Vec<Window> = BUCKETED.iter().map(|(w, ..)| *w).chain([Window::AllTime]).collect();
    let hidden = HashSet::new();
    for ((signal, cohort), column) in &columns {
        let check = Check { db, signal, cohort: cohort.as_deref(), now, column, hidden: &hidden };
        check.counts(&items, &windows);
        check.scores(&items, &[DAY, HALF_HOUR]);
        check.hot(&[DAY, HALF_HOUR], 20);
        check.top(&windows, 20);
        check.trending(&VELOCITY, 20);
    }
    println!("{} columns of {} items are equal", columns.len(), items.len());
}

fn log_named(name: &str) -> Option<Vec<Line>> {
    match name {
        "serenade" => logs::serenade(),
        "retail" => logs::retail(),
        other => panic!("no log {other:?}"),
    }
}

/// Not a test by itself: what a child process does.
#[test]
fn child() {
    let Some(name) = child::role() else { return };
    let log = log_named(&name).expect("the parent has found the log");
    let batch_len = child::told("TIDAL_BATCH").parse().expect("a number");
    let db = open(Path::new(&child::told("TIDAL_DIR")));
    ingest(&db, &log, batch_len, |last| child::report(&last.to_string()));
    child::report("done");
}

/// Ingests a log with a kill at each of these shares of it, comparing after every one.
fn survives(name: &str, batch_len: usize, kills: &[f64]) {
    let Some(log) = log_named(name) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    for share in kills {
        let target = (log.len() as f64 * share) as u64;
        let says = [
            ("TIDAL_DIR", dir.path().display().to_string()),
            ("TIDAL_BATCH", batch_len.to_string()),
        ];
        let mut victim = Victim::spawn("child", name, &says);
        let mut acknowledged = None;
        while acknowledged.is_none_or(|last| last < target) {
            let report = victim.next_report().expect("it lives until it is killed");
            acknowledged = Some(report.parse::<u64>().expect("a position"));
        }
        let rest = victim.kill();
        let acknowledged = rest.last().map_or(acknowledged, |last| last.parse().ok());
        let db = open(dir.path());
        let stored = db.source_offset(SOURCE);
        println!(
            "{name}: killed after {acknowledged:?}, {stored:?} is there: {}",
            db.open_report()
        );
        assert!(stored >= acknowledged, "{stored:?} is there, {acknowledged:?} was acknowledged");
        let stored = stored.expect("something was acknowledged") as usize;
        assert!((stored + 1).is_multiple_of(batch_len), "a batch is there whole or not at all");
        compare(&db, &log[..=stored]);
    }
    let db = open(dir.path());
    ingest(&db, &log, batch_len, |_| ());
    compare(&db, &log);
    let report = db.verify().expect("verified");
    assert!(report.is_sound(), "{report}");
    println!("{report}");
    let digest = db.state_digest().expect("digest");
    db.close().expect("closes");

    let db = open(dir.path());
    assert_eq!(db.state_digest().expect("digest"), digest, "after close and open");
    compare(&db, &log);
    drop(db);

    let whole = TidalDb::builder().ephemeral().with_schema(schema());
    let whole = whole.with_time_source(TimeSource::Events).open().expect("opens");
    ingest(&whole, &log, batch_len, |_| ());
    assert_eq!(whole.state_digest().expect("digest"), digest, "of an ingest without a kill");
}

#[test]
fn shop_clicks_survive_three_kills() {
    survives("serenade", 500, &[0.1, 0.45, 0.8]);
}

#[test]
fn a_year_of_retail_survives_two_kills() {
    survives("retail", 1_000, &[0.3, 0.6]);
}

//! Everything at once: items, users, views in cohorts that connect items, a collection; and a kill.
//!
//! Knows: the public interface. Each step but a checkpoint is one operation, so what a kill left is
//! compared with a database in memory that took as many, besides what is asked of each surface.

use std::path::Path;

use tidal_support::child::{self, Victim};
use tidal_support::operations::survived;
use tidal_support::pairs;
use tidal_support::random::Random;
use tidaldb::co_engagement::Similarity;
use tidaldb::schema::{EntityId, Window};
use tidaldb::storage::Machine;
use tidaldb::{Batch, Event, ReadOptions, TidalDb, TimeSource, Visibility};

use crate::{OWNER, START, open, options, schema};

const ITEMS: u64 = 100;
/// Items of the collection.
const COLLECTED: u64 = 10;
/// Items that a user views, each of which is connected with all others of them.
const VIEWED: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Collection,
    Item(u64),
    User(u64),
    View(u64),
    Add(u64),
    Checkpoint,
}

fn steps() -> Vec<Step> {
    let of_item = |id: u64| {
        [
            Some(Step::Item(id)),
            id.is_multiple_of(VIEWED).then_some(Step::User(id / VIEWED)),
            Some(Step::View(id)),
            id.is_multiple_of(ITEMS / COLLECTED).then_some(Step::Add(id)),
            (id % 30 == 29).then_some(Step::Checkpoint),
        ]
    };
    [Step::Collection].into_iter().chain((0..ITEMS).flat_map(of_item).flatten()).collect()
}

fn metadata_of(id: u64) -> [(&'static str, String); 2] {
    [("title", format!("item {id}")), ("creator_id", (id % 10).to_string())]
}

fn perform(db: &TidalDb, step: Step) {
    match step {
        Step::Collection => {
            db.create_collection(OWNER, "editor's choice", Visibility::Public).expect("created");
        }
        Step::Item(id) => {
            let metadata = metadata_of(id);
            let given = metadata.each_ref().map(|(key, value)| (*key, value.as_str()));
            let item = EntityId::new(id);
            db.write_item_with_metadata(item, &pairs(&given)).expect("written");
        }
        Step::User(user) => drop(db.write_user(user, &pairs(&[("age", "30")])).expect("written")),
        Step::View(id) => {
            let viewed = Event::new("view", EntityId::new(id), START).user(id / VIEWED);
            let mut batch = Batch::new();
            batch.push(viewed.cohort("cohort_b"));
            db.write(batch).expect("written");
        }
        Step::Add(id) => {
            let list = db.list_collections(OWNER).expect("listed")[0].id;
            db.add_to_collection(list, EntityId::new(id)).expect("added");
        }
        Step::Checkpoint => drop(db.checkpoint().expect("a checkpoint")),
    }
}

/// What a child does, until it is killed: it reports each step that is acknowledged.
pub(crate) fn write(db: &TidalDb) {
    for step in steps() {
        perform(db, step);
        child::report(&format!("{step:?}"));
    }
}

/// What a child was told is done.
struct Told(Vec<String>);

impl Told {
    fn has(&self, step: Step) -> bool {
        self.0.contains(&format!("{step:?}"))
    }
}

/// Everything that was acknowledged is there, and nothing is there by halves.
fn check(dir: &Path, told: &Told) {
    let db = open(dir, Machine::default());
    db.health_check().expect("healthy after recovery");
    let report = db.verify().expect("verified");
    assert!(report.is_sound(), "{report}");
    check_collected(&db, told);
    for id in 0..ITEMS {
        check_item(&db, id, told);
        check_views(&db, id, told);
    }
    let operations = steps().into_iter().filter(|step| *step != Step::Checkpoint);
    let there = usize::try_from(survived(&db)).expect("few");
    let reference = TidalDb::builder().ephemeral().with_schema(schema()).with_options(options());
    let reference = reference.with_time_source(TimeSource::Events).open().expect("opens");
    operations.take(there).for_each(|step| perform(&reference, step));
    let digest = reference.state_digest().expect("a digest");
    assert_eq!(db.state_digest().expect("a digest"), digest, "after {there} operations");
}

fn check_item(db: &TidalDb, id: u64, told: &Told) {
    let metadata = db.get_item_metadata(EntityId::new(id)).expect("read");
    let given = metadata_of(id);
    let given = given.each_ref().map(|(key, value)| (*key, value.as_str()));
    match metadata {
        Some(metadata) => assert_eq!(metadata, pairs(&given)),
        None => assert!(!told.has(Step::Item(id)), "item {id} is lost"),
    }
}

/// The view of an item counts once in each cohort, and has connected it with what its user had viewed.
fn check_views(db: &TidalDb, id: u64, told: &Told) {
    let item = EntityId::new(id);
    let everyone = db.read_windowed_count(item, "view", Window::AllTime).expect("read");
    for cohort in ["adults", "cohort_b"] {
        let options = ReadOptions::new().cohort(cohort);
        let count = db.windowed_count(item, "view", Window::AllTime, &options).expect("read");
        assert_eq!(count, everyone, "one frame, one view of item {id} in {cohort}");
    }
    let least = u64::from(told.has(Step::View(id)));
    assert!((least..=1).contains(&everyone), "{everyone} views of item {id}");
    let near = db.co_engagement().neighbours(item, 20, Similarity::default()).expect("read");
    let mut near: Vec<u64> = near.iter().map(|near| near.item.get()).collect();
    near.sort_unstable();
    let first = id - id % VIEWED;
    let is_viewed = |id: &u64| {
        let of = db.read_windowed_count(EntityId::new(*id), "view", Window::AllTime);
        of.expect("read") == 1
    };
    let others = (first..first + VIEWED).filter(|other| *other != id && is_viewed(other));
    let expected: Vec<u64> = if everyone == 1 { others.collect() } else { Vec::new() };
    assert_eq!(near, expected, "what item {id} is connected with");
}

/// The collection has the first of its items, and all that were acknowledged.
fn check_collected(db: &TidalDb, told: &Told) {
    let listed = db.list_collections(OWNER).expect("listed");
    assert!(!listed.is_empty() || !told.has(Step::Collection), "the collection is lost");
    let Some(info) = listed.first() else { return };
    let page = db.collection_items(info.id, None, 0, 100).expect("it is public");
    let there = page.items.len() as u64;
    let expected = (0..there).map(|n| EntityId::new(n * (ITEMS / COLLECTED)));
    assert_eq!(page.items, expected.collect::<Vec<_>>());
    for n in there..COLLECTED {
        assert!(!told.has(Step::Add(n * (ITEMS / COLLECTED))), "{there} items are left");
    }
}

/// Kills so many processes, and checks what each left.
pub(crate) fn die_and_recover(rounds: u64) {
    let mut random = Random::new(Random::seed_from("TIDAL_SEED"));
    let all = steps().len();
    let mut unfinished = 0;
    for round in 0..rounds {
        let dir = tempfile::tempdir().expect("a directory");
        let says = [("TIDAL_DIR", dir.path().display().to_string())];
        let mut victim = Victim::spawn("child", "mixed", &says);
        // The first one dies when everything is acknowledged, the others on the way.
        let enough = if round == 0 { all } else { random.below(all as u64) as usize };
        let mut told = Vec::new();
        while told.len() < enough
            && let Some(report) = victim.next_report()
        {
            told.push(report);
        }
        told.extend(victim.kill());
        unfinished += u64::from(told.len() < all);
        check(dir.path(), &Told(told));
    }
    assert!(unfinished > rounds / 3, "too few died on the way to prove anything");
}

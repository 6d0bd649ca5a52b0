//! `tidalctl export`, read back.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidaldb::schema::{DecaySpec, EntityKind, SchemaBuilder, Timestamp, Window};
use tidaldb::{Batch, Event, TidalDb, UserId, Visibility};

use crate::{Said, files, run};

/// A shop with counters, edges and collections. Returns the numbers of lamp, chair and desk.
fn shop(dir: &Path) -> [u64; 3] {
    let half_life = Duration::from_secs(3_600);
    let mut schema = SchemaBuilder::new();
    let _ = schema
        .signal("view", EntityKind::Item, DecaySpec::Exponential { half_life })
        .windows(&[Window::OneHour])
        .engaging()
        .add();
    schema.cohort_family("country", 8);
    let schema = schema.build().expect("a schema");
    let db = TidalDb::builder().with_data_dir(dir).with_schema(schema).open().expect("opens");
    let ids = db.intern(&["lamp", "chair", "user:ann"]).expect("interned");
    let [lamp, chair, ann] = ids[..] else { panic!("three: {ids:?}") };
    let desk = tidaldb::schema::EntityId::new(u64::MAX - 1);
    let now = Timestamp::now();
    let mut batch = Batch::new();
    for item in [lamp, chair] {
        batch.push(Event::new("view", item, now).user(7).cohort("country=FR"));
    }
    batch.push(Event::new("view", desk, now).weight(0.25));
    db.write(batch).expect("written");
    db.hide_item(desk).expect("hidden");
    let ann = UserId::new(ann.get() | 1 << 63);
    let list = db.create_collection(ann, "for later", Visibility::Private).expect("created");
    for item in [chair, lamp] {
        db.add_to_collection(list, item).expect("added");
    }
    db.create_collection(7, "nothing", Visibility::Public).expect("created");
    db.close().expect("closed");
    [lamp.get(), chair.get(), desk.get()]
}

pub(crate) struct Shop {
    pub(crate) temporary: TempDir,
    items: [u64; 3],
}

impl Shop {
    pub(crate) fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let items = shop(&temporary.path().join("shop.tidal"));
        Self { temporary, items }
    }

    pub(crate) fn export(&self, flags: &str) -> Said {
        let dir = self.temporary.path().join("shop.tidal");
        let before = files(&dir);
        let said = run(&format!("export --dir DIR {flags}"), &dir);
        assert!(files(&dir) == before, "{flags} changed the database");
        said
    }

    pub(crate) fn lines(&self, what: &str) -> Vec<Value> {
        lines(self.export(&format!("--what {what} --format jsonl")).text())
    }
}

pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn counters_are_those_of_everyone_and_of_each_cohort_hidden_items_too() {
    let shop = Shop::new();
    let [lamp, chair, desk] = shop.items;
    let rows = shop.lines("counters");
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row["entity"].as_str(), row["name"].as_str(), row["cohort"].as_str()))
        .collect();
    let [lamp, chair, desk] = [lamp, chair, desk].map(|id| id.to_string());
    assert_eq!(
        found,
        [
            (Some(&*lamp), Some("lamp"), None),
            (Some(&*chair), Some("chair"), None),
            (Some(&*desk), None, None),
            (Some(&*lamp), Some("lamp"), Some("country=FR")),
            (Some(&*chair), Some("chair"), Some("country=FR")),
        ]
    );
    let last = &rows[2];
    assert_eq!((&last["is_hidden"], &rows[0]["is_hidden"]), (&json!(true), &json!(false)));
    assert_eq!(
        (&last["count_1h"], &last["count_24h"], &last["count_all"]),
        (&json!(1), &json!(null), &json!(1))
    );
    let score = last["score"].as_f64().expect("a score");
    assert!((0.2..=0.25).contains(&score), "{score}");
}

#[test]
fn edges_and_collections_are_all_there() {
    let shop = Shop::new();
    let edges = shop.lines("edges");
    let ends: Vec<_> =
        edges.iter().map(|row| (row["name"].as_str(), row["neighbour_name"].as_str())).collect();
    assert_eq!(ends, [(Some("lamp"), Some("chair")), (Some("chair"), Some("lamp"))]);
    assert_eq!(edges[0]["support"], 1);
    let rows = shop.lines("collections");
    let items: Vec<_> = rows
        .iter()
        .map(|row| {
            (row["owner_name"].as_str(), row["position"].as_u64(), row["item_name"].as_str())
        })
        .collect();
    let ann = Some("ann");
    let expected =
        [(ann, Some(0), Some("chair")), (ann, Some(1), Some("lamp")), (None, None, None)];
    assert_eq!(items, expected);
    assert_eq!((&rows[0]["visibility"], &rows[2]["owner"]), (&json!("private"), &json!("7")));
}

#[test]
#[cfg(not(feature = "parquet"))]
fn a_program_without_parquet_says_how_to_get_one_that_has_it() {
    let shop = Shop::new();
    let said = shop.export("--what edges --format parquet --out edges.parquet");
    said.refuses(2, "this tidalctl was built without Parquet");
    assert!(said.err.contains("cargo install --path tidalctl --features parquet"), "{said:?}");
    assert!(!shop.temporary.path().join("edges.parquet").exists());
}

#[test]
fn an_export_overwrites_nothing_and_refuses_what_it_cannot_write() {
    let shop = Shop::new();
    std::fs::write(shop.temporary.path().join("there"), "mine").expect("written");
    shop.export("--what edges --format jsonl --out there").refuses(1, "something lies at there");
    assert_eq!(std::fs::read(shop.temporary.path().join("there")).expect("readable"), b"mine");
    shop.export("--what edges --format jsonl --out no/such/file")
        .refuses(1, "cannot write no/such/file");
    for flags in ["--what users --format jsonl", "--what edges --format csv", "--what edges", ""] {
        assert_eq!(shop.export(flags).code, 2, "{flags}");
    }
    run(
        "export --what edges --format jsonl --dir nowhere",
        shop.temporary.path().join("x").as_path(),
    )
    .refuses(1, "there is no database at nowhere");
}

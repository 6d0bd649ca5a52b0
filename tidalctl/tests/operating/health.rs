//! `tidalctl health`.

use serde_json::{Value, json};

use crate::{Scene, builder};

fn check<'a>(report: &'a Value, rule: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("a list");
    let found = checks.iter().find(|check| check["rule"] == rule);
    found.unwrap_or_else(|| panic!("no {rule} in {report:#}"))
}

/// Opens and closes the database, which writes down what is over.
fn visited(scene: &Scene) {
    scene.clock.set(tidaldb::schema::Timestamp::now());
    builder(&scene.dir, &scene.clock).open().expect("opens").close().expect("closed");
}

#[test]
fn a_database_with_an_overlooked_end_is_degraded_and_one_without_is_healthy() {
    let scene = Scene::new();
    let said = scene.look("health --dir DIR --json");
    assert_eq!((said.code, said.err.as_str()), (3, ""), "{said:?}");
    let report: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(report["status"], "degraded");
    let overdue = check(&report, "sessions.overdue");
    assert_eq!(overdue["severity"], "warning");
    assert!(overdue["hint"].as_str().expect("advice").contains("sweep()"), "{report:#}");
    assert_eq!(overdue["facts"]["allowed_ms"], json!(60_000));
    assert_eq!(report["metrics"]["sessions_open"], json!(2));

    let said = scene.look("health --dir DIR");
    assert_eq!(said.code, 3, "{said:?}");
    let text = &said.out;
    assert!(text.starts_with("degraded\n  warning   sessions.overdue: "), "{text}");
    assert!(text.contains("\n            do: call sessions().sweep()"), "{text}");
    assert!(!text.contains("journal.log"), "{text}");
    let all = scene.look("health --dir DIR --all").out;
    assert!(all.contains("\n  ok        journal.log: ") && all.contains("stores (b)"), "{all}");

    visited(&scene);
    let said = scene.look("health --dir DIR");
    assert!(said.text().starts_with("healthy\n"), "{said:?}");
    assert_eq!(said.out.lines().count(), 2, "{said:?}");
}

#[test]
fn what_is_only_worth_knowing_is_told_and_is_no_failure() {
    let scene = Scene::new();
    visited(&scene);
    std::fs::remove_dir_all(scene.dir.join("store").join("a")).expect("removed");
    let said = scene.look("health --dir DIR --json");
    let report = said.json();
    assert_eq!(report["status"], "healthy", "{report:#}");
    let recovery = check(&report, "recovery");
    assert_eq!(recovery["severity"], "info", "{report:#}");
    let detail = recovery["detail"].as_str().expect("a sentence");
    assert!(detail.contains("repaired when it was opened; store a was missing"), "{detail}");
    // The clock of the copy is not the machine's, and nobody is to be told of it.
    assert!(!detail.contains("the clock is"), "{detail}");
}

#[test]
fn a_database_in_use_is_to_be_asked_where_it_is_used() {
    let scene = Scene::new();
    let db = builder(&scene.dir, &scene.clock).open().expect("opens");
    let said = scene.run("health --dir DIR");
    said.refuses(1, "");
    assert!(
        said.err.contains("\nhint: ask the process that has it: TidalDb::health()"),
        "{said:?}"
    );
    drop(db);
    scene.look("health --dir nowhere").refuses(1, "there is no database at nowhere");
}

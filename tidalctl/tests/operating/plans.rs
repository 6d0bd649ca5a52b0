//! `tidalctl plan` and `apply`.

use serde_json::{Value, json};

use crate::{Scene, texts};

const PRUNE: &str = "plan prune --dir DIR --older-than 30d --out plan.json";

fn plan_of(scene: &Scene) -> Value {
    let text = std::fs::read(scene.beside("plan.json")).expect("written");
    serde_json::from_slice(&text).expect("JSON")
}

fn write_plan(scene: &Scene, name: &str, plan: &Value) {
    std::fs::write(scene.beside(name), plan.to_string()).expect("written");
}

#[test]
fn a_plan_says_what_it_would_do_changes_nothing_and_is_carried_out_once() {
    let scene = Scene::new();
    let said = scene.look(PRUNE);
    assert!(said.text().starts_with("It would forget 4 records of 2 sessions.\n"), "{said:?}");
    assert!(said.out.contains("tidalctl apply plan.json --dir "), "{said:?}");
    let plan = plan_of(&scene);
    assert_eq!((&plan["kind"], &plan["version"]), (&json!("prune"), &json!(1)));
    let [first, second] = scene.old;
    let shown = |id| scene.look(&format!("sessions show --dir DIR {id} --json")).json();
    let before = shown(first);
    assert_eq!(plan["items"][0]["content_hash"], before["session"]["content_hash"]);

    let applied = scene.run("apply plan.json --dir DIR --json").json();
    assert_eq!(applied, json!({ "done": texts(&[first, second]), "skipped": [] }));
    let after = shown(first);
    assert_eq!((&after["session"]["state"], &after["records"]), (&json!("pruned"), &json!([])));
    assert_eq!(after["session"]["content_hash"], before["session"]["content_hash"]);

    let again = scene.run("apply plan.json --dir DIR");
    assert!(again.text().starts_with("0 done, 2 skipped\n"), "{again:?}");
    assert!(again.out.contains(&format!("session {second}: it was pruned already")), "{again:?}");
    assert!(scene.run("verify --dir DIR").text().contains("Everything verifies"));
}

#[test]
fn each_item_is_checked_again_and_the_answer_says_why_it_was_left() {
    let scene = Scene::new();
    scene.look(PRUNE);
    let [first, second] = scene.old;
    let mut plan = plan_of(&scene);
    plan["items"][0]["content_hash"] = "00".repeat(32).into();
    let mut more = plan["items"][1].clone();
    more["session"] = "999999".into();
    plan["items"].as_array_mut().expect("a list").push(more);
    write_plan(&scene, "changed.json", &plan);
    let applied = scene.run("apply changed.json --dir DIR --json").json();
    let skipped = json!([
        { "session": first.to_string(), "reason": "content_moved" },
        { "session": "999999", "reason": "gone" },
    ]);
    assert_eq!(applied, json!({ "done": texts(&[second]), "skipped": skipped }));
    let mut plan = plan_of(&scene);
    plan["older_than_ns"] = (60 * 86_400 * 1_000_000_000_u64).to_string().into();
    write_plan(&scene, "older.json", &plan);
    let applied = scene.run("apply older.json --dir DIR --json").json();
    assert_eq!(applied["skipped"][0]["reason"], "too_young");
    assert_eq!(applied["done"], json!([]));
}

#[test]
fn a_plan_of_another_database_of_another_kind_or_of_nothing_is_refused_with_advice() {
    let (scene, other) = (Scene::new(), Scene::new());
    scene.look(PRUNE);
    let plan = plan_of(&scene);
    write_plan(&other, "plan.json", &plan);
    // Not one byte of it is written: an open would have.
    let refused = other.look("apply plan.json --dir DIR");
    refused.refuses(1, "is a plan for database ");
    assert!(refused.err.contains("hint: name the --dir that it was made for"), "{refused:?}");
    for (member, value, about) in [
        ("version", json!(2), "a plan of version 2"),
        ("kind", json!("requeue"), "a plan of kind \"requeue\""),
        ("format", json!("tar"), "is not a plan"),
        ("items", json!({}), "its items is missing or wrong"),
        ("items", json!([{}]), "item 1 is wrong"),
        ("older_than_ns", json!(7), "its older_than_ns is missing or wrong"),
    ] {
        let mut wrong = plan.clone();
        wrong[member] = value;
        write_plan(&scene, "wrong.json", &wrong);
        // It is not even opened.
        let refused = scene.look("apply wrong.json --dir DIR");
        refused.refuses(1, about);
        assert!(refused.err.contains("\nhint: "), "{refused:?}");
    }
    std::fs::write(scene.beside("wrong.json"), b"\xff{").expect("written");
    scene.look("apply wrong.json --dir DIR").refuses(1, "is not a plan");
    scene.look("apply nowhere.json --dir DIR").refuses(1, "cannot read nowhere.json");
}

#[test]
fn nothing_is_overwritten_by_a_plan_and_an_empty_one_is_one_too() {
    let scene = Scene::new();
    let said = scene.look("plan prune --dir DIR --older-than 900d --out plan.json --json").json();
    assert_eq!((&said["sessions"], &said["records"]), (&json!(0), &json!(0)));
    scene.look(PRUNE).refuses(1, "something lies at plan.json");
    let applied = scene.run("apply plan.json --dir DIR");
    assert_eq!(applied.text(), "0 done, 0 skipped\n");
    scene
        .look("plan prune --dir DIR --older-than 30d --out no/such/plan.json")
        .refuses(1, "cannot write");
    for line in
        ["plan prune --dir DIR --out p", "plan prune --dir DIR --older-than 0d --out p", "plan"]
    {
        assert_eq!(scene.look(line).code, 2, "{line}");
    }
}

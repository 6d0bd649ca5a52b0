//! `tidalctl sessions`.

use serde_json::Value;

use crate::{Scene, builder, ids_of, texts};

#[test]
fn a_list_has_every_session_as_it_was_left_and_changes_nothing() {
    let scene = Scene::new();
    let listed = scene.look("sessions list --dir DIR --json").json();
    assert_eq!(ids_of(&listed["sessions"]), texts(&scene.ids()));
    assert_eq!(listed["next_after"], Value::Null);
    let states = listed["sessions"].as_array().expect("a list").iter();
    let states: Vec<&str> = states.filter_map(|row| row["state"].as_str()).collect();
    assert_eq!(states[..2], ["settled", "settled"]);
    assert!(states[2..4].iter().all(|state| ["ended", "settled"].contains(state)), "{states:?}");
    assert_eq!(states[4], "restored");
    let text = scene.look("sessions list --dir DIR");
    assert_eq!(text.text().lines().count(), 6, "a header and five sessions: {text:?}");
    assert!(
        text.out.contains("closed by its holder") && text.out.contains("assistant"),
        "{text:?}"
    );
}

#[test]
fn filters_choose_and_pages_go_on_where_the_last_one_ended() {
    let scene = Scene::new();
    let list = |flags: &str| scene.look(&format!("sessions list --dir DIR --json {flags}")).json();
    let [first, second] = scene.old;
    assert_eq!(ids_of(&list("--user 43")["sessions"]), texts(&[second]));
    assert_eq!(ids_of(&list("--user 47")["sessions"]), texts(&[]));
    assert_eq!(ids_of(&list("--state open")["sessions"]), texts(&[scene.open]));
    assert_eq!(ids_of(&list("--state restored")["sessions"]), texts(&[scene.open]));
    assert_eq!(ids_of(&list("--older-than 30d")["sessions"]), texts(&[first, second]));
    assert_eq!(ids_of(&list("--older-than 30d --user 42")["sessions"]), texts(&[first]));
    let page = list("--limit 2");
    assert_eq!(ids_of(&page["sessions"]), texts(&[first, second]));
    assert_eq!(page["next_after"], second.to_string().as_str());
    let rest = list(&format!("--after {second} --limit 4"));
    assert_eq!(ids_of(&rest["sessions"]), texts(&scene.ids()[2..]));
    assert_eq!(rest["next_after"], Value::Null);
    let note = scene.look("sessions list --dir DIR --limit 2");
    assert!(note.err.contains(&format!("--after {second}")), "{note:?}");
}

#[test]
fn a_session_is_shown_with_its_records_as_its_export_says_them() {
    let scene = Scene::new();
    let id = scene.old[0];
    let shown = scene.look(&format!("sessions show --dir DIR {id} --json")).json();
    let exported = scene.look(&format!("sessions export --dir DIR {id}"));
    let lines: Vec<Value> =
        exported.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(shown["session"], lines[0]);
    assert_eq!(shown["records"].as_array().map(Vec::as_slice), Some(&lines[1..]));
    let text = scene.look(&format!("sessions show --dir DIR {id}"));
    for part in ["user          42\n", "2 (1 signal, 1 annotation, 0 late)", "view", "two\\nlines"]
    {
        assert!(text.text().contains(part), "{part:?} is missing: {text:?}");
    }
    for id in scene.ids() {
        let shown = scene.look(&format!("sessions show --dir DIR {id} --json")).json();
        let line = scene.look(&format!("sessions export --dir DIR {id}"));
        let line: Value =
            serde_json::from_str(line.text().lines().next().expect("a line")).expect("JSON");
        assert_eq!(shown["session"], line);
    }
}

#[test]
fn overdue_are_those_that_are_over_and_nobody_noticed_before_and_after_the_last_operation() {
    let scene = Scene::new();
    let overdue = |flags: &str| {
        let said = scene.look(&format!("sessions overdue --dir DIR --json {flags}"));
        ids_of(&said.json()["overdue"])
    };
    assert_eq!(overdue(""), texts(&[scene.overlooked, scene.expired]));
    assert_eq!(overdue("--for 10m"), texts(&[scene.overlooked]));
    assert_eq!(overdue("--for 1h"), texts(&[]));
    let text = scene.look("sessions overdue --dir DIR");
    assert!(text.text().contains("idle for longer than its policy allows"), "{text:?}");
    // An open writes the ends down; then nothing is overdue.
    scene.run("status --dir DIR").text();
    assert_eq!(overdue(""), texts(&[]));
    assert_eq!(scene.look("sessions overdue --dir DIR").text(), "no end is overdue\n");
}

#[test]
fn an_export_has_all_that_match_whole_or_not_at_all() {
    let scene = Scene::new();
    let exported = scene.look("sessions export --dir DIR --older-than 30d");
    assert_eq!(exported.text().lines().count(), 6);
    let said = scene.look("sessions export --dir DIR --older-than 30d --out sessions.jsonl --json");
    assert_eq!(said.json()["sessions"], 2);
    let written = std::fs::read_to_string(scene.beside("sessions.jsonl")).expect("written");
    assert_eq!(written, exported.out);
    let again = scene.look("sessions export --dir DIR --out sessions.jsonl");
    again.refuses(1, "something lies at sessions.jsonl");
    let none = scene.look("sessions export --dir DIR --user 47 --out none.jsonl");
    assert!(none.text().starts_with("0 sessions are in"), "{none:?}");
}

#[test]
fn what_is_not_there_is_told_with_what_to_do() {
    let scene = Scene::new();
    let none = scene.look("sessions show --dir DIR 999999");
    none.refuses(1, "there is no session 999999");
    assert!(none.err.contains("hint: "), "{none:?}");
    scene.look("sessions export --dir DIR 999999").refuses(1, "there is no session 999999");
    scene.look("sessions export --dir DIR 999999 --out x").refuses(1, "there is no session 999999");
    assert!(!scene.beside("x").exists());
    scene.look("sessions list --dir DIR --user nobody").refuses(1, "no user \"nobody\"");
    scene.look("sessions list --dir nowhere").refuses(1, "there is no database at nowhere");
    for line in [
        "sessions list --dir DIR --state over",
        "sessions list --dir DIR --limit 0",
        "sessions list --dir DIR --older-than yesterday",
        "sessions list --dir DIR --after x",
        "sessions overdue --dir DIR --for 3d",
        "sessions show --dir DIR phone",
        "sessions export --dir DIR 7 --user 42",
        "sessions",
    ] {
        assert_eq!(scene.look(line).code, 2, "{line}");
    }
}

#[test]
fn a_database_that_somebody_has_open_is_not_looked_at() {
    let scene = Scene::new();
    let db = builder(&scene.dir, &scene.clock).open().expect("opens");
    for command in ["list", "overdue", "export", "show 1"] {
        let said = scene.run(&format!("sessions {command} --dir DIR"));
        said.refuses(1, "is in use");
        assert!(said.err.contains("hint: "), "{said:?}");
    }
    drop(db);
}

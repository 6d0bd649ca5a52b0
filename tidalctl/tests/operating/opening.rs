//! `tidalctl inspect`.

use serde_json::{Value, json};

use crate::{Scene, builder, files, ids_of, texts};

#[test]
fn an_inspection_foretells_what_an_open_does_to_sessions_and_changes_nothing() {
    let scene = Scene::new();
    let inspect = |flags: &str| scene.look(&format!("inspect --dir DIR --json {flags}")).json();
    let found = inspect("");
    let opened = &found["opened"];
    assert_eq!((&found["sound"], &opened["clean"]), (&json!(true), &json!(true)));
    assert_eq!(ids_of(&opened["sessions_ended"]), texts(&[scene.overlooked, scene.expired]));
    assert_eq!(opened["sessions_restored"], json!(texts(&[scene.open])));
    assert_eq!(opened["sessions_ended"][0]["end"]["cause"], "idle_timeout");
    let ended = &inspect("--on-open end-all")["opened"]["sessions_ended"];
    assert_eq!(ids_of(ended), texts(&scene.ids()[2..]));
    assert_eq!(ended[2]["end"]["cause"], "orphan_recovered");
    let restored = inspect("--on-open restore-all");
    assert_eq!(restored["opened"]["sessions_restored"], json!(texts(&scene.ids()[3..])));
    let text = scene.look("inspect --dir DIR");
    for part in
        ["left          at rest", "1 restored, 2 ended", "verifies      yes", "repairs       none"]
    {
        assert!(text.text().contains(part), "{part:?} is missing: {text:?}");
    }
    let db = builder(&scene.dir, &scene.clock).open().expect("opens");
    let report = db.open_report();
    assert_eq!(Value::from(report.incarnation), opened["incarnation"]);
    // What was at rest has the whole log in a checkpoint.
    assert_eq!(Value::from(report.replayed), opened["replayed"]);
}

#[test]
fn a_torn_tail_a_lost_store_and_frames_without_a_checkpoint_are_foretold_and_left() {
    let scene = Scene::new();
    let db = builder(&scene.dir, &scene.clock).open().expect("opens");
    let _ = db.start_session(50, "phone", "default").expect("started");
    drop(db);
    let log = files(&scene.dir.join("log")).into_keys().next_back().expect("a segment");
    let mut bytes = std::fs::read(&log).expect("readable");
    let used = bytes.iter().rposition(|&byte| byte != 0).expect("it has frames") + 1;
    bytes.truncate(used);
    bytes.extend([7; 20]);
    std::fs::write(&log, &bytes).expect("written");
    let found = scene.look("inspect --dir DIR --json").json();
    let opened = &found["opened"];
    assert_eq!(opened["clean"], false, "{found}");
    assert!(opened["replayed"].as_u64() > Some(0), "{found}");
    assert_eq!(opened["repairs"].as_array().map(Vec::len), Some(1), "{found}");
    let text = scene.look("inspect --dir DIR");
    assert!(text.text().contains("left          in the middle of its work"), "{text:?}");
    assert!(text.out.contains("\nrepair    "), "{text:?}");

    let store = scene.dir.join("store").join("a");
    std::fs::remove_dir_all(store).expect("removed");
    let found = scene.look("inspect --dir DIR --json").json();
    let repairs = found["opened"]["repairs"].to_string();
    assert!(repairs.contains("store a was missing"), "{found}");
}

#[test]
fn what_an_open_would_refuse_an_inspection_refuses() {
    let scene = Scene::new();
    for path in files(&scene.dir.join("log")).into_keys() {
        std::fs::remove_file(path).expect("removed");
    }
    let refused = scene.look("inspect --dir DIR");
    assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{refused:?}");
    assert!(refused.err.contains("\nhint: "), "{refused:?}");
    scene.look("inspect --dir nowhere").refuses(1, "there is no database at nowhere");
    assert_eq!(scene.look("inspect --dir DIR --on-open forget").code, 2);
}

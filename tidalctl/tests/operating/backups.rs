//! `tidalctl backup` and `restore`.

use std::path::Path;

use serde_json::Value;

use crate::{Scene, builder, files};

/// The files of a directory by their names in it.
fn relative(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let name = |path: &Path| path.strip_prefix(dir).expect("below").display().to_string();
    files(dir).into_iter().map(|(path, bytes)| (name(&path), bytes)).collect()
}

/// How many things lie beside the database, stages that were left included.
fn beside(scene: &Scene) -> usize {
    scene.dir.parent().expect("it has one").read_dir().expect("readable").count()
}

#[test]
fn what_is_restored_is_the_database_that_was_backed_up_byte_by_byte() {
    let scene = Scene::new();
    let made = scene.look("backup --dir DIR --to backup --json").json();
    assert_eq!(beside(&scene), 2, "the database and the backup");
    let restored = scene.run("restore --from backup --to again.tidal --json").json();
    assert_eq!(beside(&scene), 3);
    assert_eq!((&restored["digest"], &restored["files"]), (&made["digest"], &made["files"]));
    let again = scene.beside("again.tidal");
    assert!(relative(&again) == relative(&scene.dir), "not the same bytes");
    let list = |dir: &str| scene.run(&format!("sessions list --dir {dir} --json")).json();
    let states = |listed: Value| -> Vec<Value> {
        let rows = listed["sessions"].as_array().expect("a list").iter();
        rows.map(|row| Value::from(vec![row["id"].clone(), row["content_hash"].clone()])).collect()
    };
    assert_eq!(states(list("again.tidal")), states(list("DIR")));
    assert!(scene.run("verify --dir again.tidal").text().contains("Everything verifies"));
    let text = scene.look("backup --dir DIR --to second");
    assert!(text.text().starts_with("backed up to second: "), "{text:?}");
    let text = scene.run("restore --from second --to third.tidal");
    assert!(text.text().contains("; it verifies\ndigest "), "{text:?}");
}

#[test]
fn a_database_that_was_left_in_the_middle_is_backed_up_as_it_is() {
    let scene = Scene::new();
    let db = builder(&scene.dir, &scene.clock).open().expect("opens");
    let _ = db.start_session(50, "phone", "default").expect("started");
    scene.run("backup --dir DIR --to backup").refuses(1, "is in use");
    drop(db);
    scene.look("backup --dir DIR --to backup").text();
    scene.run("restore --from backup --to again.tidal").text();
    assert!(relative(&scene.beside("again.tidal")) == relative(&scene.dir), "not the same bytes");
}

#[test]
fn a_backup_with_a_changed_missing_or_additional_file_is_not_restored() {
    let scene = Scene::new();
    scene.look("backup --dir DIR --to backup").text();
    let database = scene.beside("backup").join("database");
    let count = beside(&scene);
    let refused = |about: &str| {
        let said = scene.run("restore --from backup --to again.tidal");
        said.refuses(1, about);
        assert!(said.err.contains("\nhint: "), "{said:?}");
        assert_eq!(beside(&scene), count, "something was left");
    };
    for (path, bytes) in files(&database) {
        if bytes.is_empty() {
            continue;
        }
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        std::fs::write(&path, changed).expect("written");
        refused("is not what was backed up");
        std::fs::write(&path, bytes).expect("written");
    }
    let (path, bytes) = files(&database).pop_first().expect("a file");
    std::fs::remove_file(&path).expect("removed");
    refused("No such file");
    std::fs::write(&path, &bytes).expect("written");
    std::fs::write(database.join("more"), "x").expect("written");
    refused("is not in the manifest");
    std::fs::remove_file(database.join("more")).expect("removed");
    let manifest = scene.beside("backup").join("manifest.json");
    let text = std::fs::read_to_string(&manifest).expect("readable");
    let digest = |text: &str| {
        let parsed: Value = serde_json::from_str(text).expect("JSON");
        parsed["digest"].as_str().expect("a text").to_owned()
    };
    std::fs::write(&manifest, text.replace(&digest(&text), &"00".repeat(32))).expect("written");
    refused("its state is not the one that was backed up");
    std::fs::write(&manifest, text.replace("\"version\": 1", "\"version\": 2")).expect("written");
    refused("is of version 2, this program knows 1");
    std::fs::write(&manifest, "{").expect("written");
    refused("is not the manifest of a backup");
    std::fs::remove_file(&manifest).expect("removed");
    refused("is not a whole backup");
}

#[test]
fn nothing_is_overwritten_and_what_does_not_verify_is_not_backed_up() {
    let scene = Scene::new();
    scene.look("backup --dir DIR --to backup").text();
    scene.look("backup --dir DIR --to backup").refuses(1, "something lies at backup");
    scene.look("restore --from backup --to DIR").refuses(1, "something lies at ");
    scene.look("backup --dir nowhere --to second").refuses(1, "there is no database at nowhere");
    scene
        .look("backup --dir DIR --to no/such/place")
        .refuses(1, "cannot write beside no/such/place");
    let inside = scene.dir.join("inside").display().to_string();
    let said = scene.look(&format!("backup --dir DIR --to {inside}"));
    said.refuses(1, "it lies in the database that is to be copied");
    for path in files(&scene.dir.join("log")).into_keys() {
        std::fs::remove_file(path).expect("removed");
    }
    let count = beside(&scene);
    assert_eq!(scene.look("backup --dir DIR --to second").code, 1);
    assert_eq!(beside(&scene), count, "something was left");
    assert_eq!(scene.look("backup --dir DIR").code, 2);
    assert_eq!(scene.look("restore --from backup").code, 2);
}

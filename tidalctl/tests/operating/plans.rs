//! `tidalctl plan` and `apply`.

use serde_json::{Value, json};
use tidaldb::schema::EntityId;
use tidaldb::{
    Outputs, ProcessError, Processed, ProcessorOptions, RunOptions, SessionId, SessionProcessor,
    SessionView,
};

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
    assert!(
        again.out.contains(&format!("session {second}: it is not as it was planned")),
        "{again:?}"
    );
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
        ("kind", json!("polish"), "a plan of kind \"polish\""),
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

/// A database whose processor has done one session, gives up another, and has yet to see a third.
fn processed(scene: &Scene) -> [SessionId; 3] {
    let db = scene.open_it();
    db.sessions().register(Half, ProcessorOptions::default()).expect("registered");
    let sessions = [51, 666, 53].map(|user| {
        if user == 53 {
            db.sessions().run_processor("half", RunOptions::new()).expect("a run");
        }
        let session = db.start_session(user, "phone", "default").expect("started");
        session.signal("view", EntityId::new(7), 1.0, db.engine_time()).expect("written");
        let id = session.session_id();
        session.close().expect("closed");
        id
    });
    db.close().expect("closed");
    sessions
}

/// Puts down one row, but for one user.
struct Half;

impl SessionProcessor for Half {
    fn name(&self) -> &str {
        "half"
    }

    fn process(
        &self,
        session: &SessionView<'_>,
        out: &mut Outputs<'_>,
    ) -> Result<Processed, ProcessError> {
        if session.info().user.get() == 666 {
            return Err(ProcessError::Permanent("it has horns".into()));
        }
        out.put(b"signals", &session.info().signals.to_be_bytes())?;
        Ok(Processed::default())
    }
}

#[test]
fn what_was_given_up_is_shown_requeued_and_tried_again_by_the_service() {
    let scene = Scene::new();
    let [done, given_up, _] = processed(&scene);
    let show = |id| scene.look(&format!("sessions show --dir DIR {id} --json")).json();
    let of = |id: SessionId| show(id)["processing"][0].clone();
    let first = of(done);
    assert_eq!((&first["processor"], &first["status"]), (&json!("half"), &json!("done")));
    assert_eq!((&first["attempts"], &first["outcome"]["outputs"]), (&json!(1), &json!(1)));
    let second = of(given_up);
    assert_eq!(
        (&second["status"], &second["error"]),
        (&json!("quarantined"), &json!("it has horns"))
    );
    let job = scene.look("jobs --dir DIR --json").json()["jobs"][0].clone();
    assert_eq!((&job["name"], &job["last_outcome"]), (&json!("processor:half"), &json!("success")));
    assert_eq!((&job["consecutive_failures"], job["last_error"].is_null()), (&json!(0), true));
    let jobs = scene.look("jobs --dir DIR");
    assert!(jobs.text().contains("processor:half") && jobs.out.contains("success"), "{jobs:?}");
    let text = scene.look(&format!("sessions show --dir DIR {given_up}"));
    assert!(text.text().contains("quarantined") && text.out.contains("it has horns"), "{text:?}");

    let said = scene.look("plan requeue --dir DIR --out requeue.json");
    assert!(said.text().starts_with("It would hand 1 session anew"), "{said:?}");
    let none = scene.look("plan requeue --dir DIR --user 51 --out none.json --json").json();
    assert_eq!(none["sessions"], 0);
    let applied = scene.run("apply requeue.json --dir DIR --json").json();
    assert_eq!(applied, json!({ "done": texts(&[given_up]), "skipped": [] }));
    assert_eq!(show(given_up)["session"]["state"], "ended");
    let again = scene.run("apply requeue.json --dir DIR --json").json();
    assert_eq!(again["skipped"][0]["reason"], "state_moved");
    assert_eq!(runs(&scene), (3, 1), "two that it had not seen, and this one, which fails again");
}

/// How many sessions a run of the service attempts, and fails at.
fn runs(scene: &Scene) -> (u64, u64) {
    let db = scene.open_it();
    db.sessions().register(Half, ProcessorOptions::default()).expect("registered");
    let stats = db.sessions().run_processor("half", RunOptions::new()).expect("a run");
    db.close().expect("closed");
    (stats.scanned, stats.errors)
}

#[test]
fn what_waits_for_too_long_is_reset_and_what_was_seen_is_reprocessed_by_the_service() {
    let scene = Scene::new();
    let [done, ..] = processed(&scene);
    let none = scene.look("plan reset --dir DIR --timeout 2h --out none.json --json").json();
    assert_eq!(none["sessions"], 0, "it has not been there for so long");
    let said =
        scene.look("plan reset --dir DIR --timeout 20m --by me --reason tired --out reset.json");
    assert!(said.text().starts_with("It would give up the processing of 1 session.\n"), "{said:?}");
    assert!(said.out.contains(" 32m") && said.out.contains("age"), "{said:?}");
    let waits = scene.expired;
    let applied = scene.run("apply reset.json --dir DIR --json").json();
    assert_eq!(applied, json!({ "done": texts(&[waits]), "skipped": [] }));
    let shown = scene.look(&format!("sessions show --dir DIR {waits} --json")).json();
    assert_eq!(shown["session"]["state"], "failed");

    let refused = scene.look("plan reprocess --dir DIR --processor hal --out p.json");
    refused.refuses(1, "no processor is called \"hal\"");
    assert!(refused.err.contains("half"), "{refused:?}");
    let line = "plan reprocess --dir DIR --processor half --user 51 --out again.json";
    let said = scene.look(line);
    assert!(said.text().starts_with("It would hand 1 session to half once more.\n"), "{said:?}");
    let applied = scene.run("apply again.json --dir DIR --json").json();
    assert_eq!(applied, json!({ "done": texts(&[done]), "skipped": [] }));
    assert_eq!(runs(&scene), (2, 0), "this one, and the one that it had not seen");
    assert_eq!(runs(&scene), (0, 0));
}

//! Operations on files that fail, once or for good.

use std::path::Path;

use tidal_support::copy_dir;
use tidal_support::operations::survived;
use tidal_support::random::Random;
use tidal_support::shim::{self, Fault, Plan, Traced};

use crate::kills::{met, trace_of_the_script};
use crate::script::{Told, on_two_threads, open, reference, sample};

/// Errors that an engine may give when it has stopped.
const AFTER_A_FAILURE: [&str; 2] = ["Stopped ", "DiskFull "];

/// Runs the script with the fault at a sample of the operations of some kinds.
fn fail_at_a_sample(kinds: &'static str, fault: Fault, for_good: bool, count: u64) {
    if shim::library().is_none() {
        return;
    }
    let total = trace_of_the_script(kinds).len() as u64;
    let mut random = Random::new(reference().seed ^ total);
    let cases = sample(total, count, &mut random);
    println!("{fault:?} at {} of {total} operations", cases.len());
    on_two_threads(&cases, |at| {
        let dir = tempfile::tempdir().expect("a directory");
        let plan = Plan::counting(dir.path(), kinds);
        let plan = if for_good { plan.for_good(fault, at) } else { plan.once(fault, at) };
        fail(dir.path(), plan, &format!("{fault:?} at {at}, for good: {for_good}"));
    });
}

/// Runs the script with a fault that the process survives; what it told, and the faults it met.
fn fail(dir: &Path, plan: Plan, what: &str) -> (Told, Vec<Traced>) {
    let trace = tempfile::NamedTempFile::new().expect("a file");
    let (told, status) = reference().run_child("script", dir, &plan.traced(trace.path()));
    let what = format!("{what}: {}", met(trace.path()));
    assert!(status.success() && told.finished, "{status}: {what}: {told:?}");
    reference().check_told(&told, &what);
    for refusals in told.refused.chunks(4) {
        for later in &refusals[1..] {
            let typed = AFTER_A_FAILURE.iter().any(|known| later.starts_with(known));
            assert!(typed, "an untyped refusal {later:?}: {what}");
        }
    }
    reference().check(dir, told.acknowledged, &what);
    let faults = shim::trace(trace.path()).into_iter().filter(|traced| traced.met).collect();
    (told, faults)
}

#[test]
fn a_write_or_sync_that_fails_once_is_no_lie() {
    fail_at_a_sample(shim::CHANGES, Fault::Io, false, 40);
}

#[test]
fn a_disk_that_fails_for_good_is_no_lie() {
    fail_at_a_sample(shim::CHANGES, Fault::Io, true, 12);
}

#[test]
fn no_space_once_is_no_lie() {
    fail_at_a_sample(shim::SPENDING, Fault::NoSpace, false, 24);
}

#[test]
fn no_space_for_good_is_no_lie() {
    fail_at_a_sample(shim::SPENDING, Fault::NoSpace, true, 12);
}

#[test]
fn half_a_write_is_no_lie_whether_it_is_said_or_not() {
    fail_at_a_sample("w", Fault::Short, false, 6);
    fail_at_a_sample("w", Fault::Short, true, 2);
    fail_at_a_sample("w", Fault::Torn, false, 16);
}

#[test]
fn after_a_failed_write_or_sync_of_the_log_nothing_is_acknowledged_until_it_is_reopened() {
    if shim::library().is_none() {
        return;
    }
    for (kinds, fault) in
        [("w", Fault::Io), ("w", Fault::NoSpace), ("w", Fault::Torn), ("s", Fault::Io)]
    {
        for at in [40, 60] {
            let dir = tempfile::tempdir().expect("a directory");
            let plan = Plan::counting(dir.path(), kinds).on("/log/").once(fault, at);
            let what = format!("{fault:?} at {kinds} {at} of the log");
            let (told, faults) = fail(dir.path(), plan, &what);
            assert_eq!(faults.len(), 1, "{what}");
            let refused = &told.refused;
            assert_eq!(
                refused.len(),
                4,
                "the failure, and three attempts after it: {what}: {told:?}"
            );
            let expected = if fault == Fault::NoSpace { "DiskFull " } else { "Io " };
            assert!(
                refused[0].starts_with(expected) || refused[0].starts_with("Stopped "),
                "{what}: {refused:?}"
            );
            assert!(told.unopened.is_empty(), "the way back is to reopen: {what}: {told:?}");
        }
    }
}

#[test]
fn old_log_that_cannot_be_removed_does_no_harm_and_goes_later() {
    if shim::library().is_none() {
        return;
    }
    let segments = |dir: &Path| std::fs::read_dir(dir.join("log")).expect("listed").count();
    let plain = tempfile::tempdir().expect("a directory");
    fail(plain.path(), Plan::counting(plain.path(), "u"), "no fault");
    let dir = tempfile::tempdir().expect("a directory");
    let plan = Plan::counting(dir.path(), "u").on("/log/").for_good(Fault::Io, 1);
    let (told, faults) = fail(dir.path(), plan, "removals in the log fail");
    assert!(!faults.is_empty(), "something was to be removed");
    assert!(told.refused.is_empty() && told.unopened.is_empty(), "{told:?}");
    let kept = segments(dir.path());
    assert!(kept > segments(plain.path()), "what could not be removed is there: {kept}");
    let db = open(dir.path()).expect("opens");
    db.checkpoint().expect("checkpoint");
    db.checkpoint().expect("checkpoint");
    assert!(segments(dir.path()) < kept, "it goes with a later checkpoint");
    let there = survived(&db);
    drop(db);
    reference().check(dir.path(), there, "after the removals");
}

#[test]
fn a_rename_or_a_removal_that_fails_once_is_no_lie() {
    fail_at_a_sample("ru", Fault::Io, false, 20);
}

/// A closed database that has been through the whole script.
fn pristine() -> (tempfile::TempDir, u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let plan = Plan::counting(dir.path(), "");
    let (told, status) = reference().run_child("script", dir.path(), &plan);
    assert!(status.success() && told.finished, "{status}: {told:?}");
    (dir, told.acknowledged)
}

/// Opens a copy in a child; if it does not open, the error must say so and nothing be lost by it.
fn open_a_copy(pristine: &Path, there: u64, plan: impl Fn(&Path) -> Plan, what: &str) -> bool {
    let copy = tempfile::tempdir().expect("a directory");
    copy_dir(pristine, copy.path());
    let (told, status) = reference().run_child("open", copy.path(), &plan(copy.path()));
    assert!(status.success(), "{status}: {what}: {told:?}");
    for error in &told.unopened {
        let typed = ["Io ", "Store "].iter().any(|known| error.starts_with(known));
        assert!(typed, "an untyped error {error:?}: {what}");
    }
    let db = open(copy.path()).unwrap_or_else(|error| panic!("{error}: {what}"));
    let report = db.open_report();
    assert!(report.repairs.is_empty(), "something was taken for damaged: {what}: {report}");
    drop(db);
    reference().check(copy.path(), there, what);
    told.unopened.is_empty()
}

#[test]
fn an_open_without_file_handles_or_memory_fails_and_takes_nothing_for_damaged() {
    if shim::library().is_none() {
        return;
    }
    let (dir, there) = pristine();
    let trace = tempfile::NamedTempFile::new().expect("a file");
    let count = |dir: &Path| Plan::counting(dir, shim::OPENS).traced(trace.path());
    assert!(open_a_copy(dir.path(), there, count, "no fault"));
    let total = shim::trace(trace.path()).len() as u64;
    let cases = sample(total, 24, &mut Random::new(reference().seed ^ 29));
    println!("no handles at {} of {total} opens", cases.len());
    on_two_threads(&cases, |at| {
        let plan = |dir: &Path| match at % 3 {
            0 => Plan::counting(dir, shim::OPENS).once(Fault::NoHandles, at),
            1 => Plan::counting(dir, shim::OPENS).for_good(Fault::NoMemory, at),
            _ => Plan::counting(dir, shim::OPENS).for_good(Fault::NoHandles, at),
        };
        open_a_copy(dir.path(), there, plan, &format!("no handles at open {at}"));
    });
    // The same by a true limit.
    let limits: Vec<u64> = (4..64).step_by(6).collect();
    let opened = std::sync::atomic::AtomicU64::new(0);
    on_two_threads(&limits, |limit| {
        let plan = |dir: &Path| Plan::counting(dir, "").open_files_max(limit);
        if open_a_copy(dir.path(), there, plan, &format!("at most {limit} open files")) {
            opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let opened = opened.into_inner();
    assert!((1..limits.len() as u64).contains(&opened), "{opened} of {} opened", limits.len());
}

#[test]
fn a_creation_that_fails_is_begun_again() {
    if shim::library().is_none() {
        return;
    }
    let create = |plan: &dyn Fn(Plan) -> Plan| {
        let dir = tempfile::tempdir().expect("a directory");
        let trace = tempfile::NamedTempFile::new().expect("a file");
        let plan = plan(Plan::counting(dir.path(), shim::CHANGES)).traced(trace.path());
        let (told, status) = reference().run_child("open", dir.path(), &plan);
        let what = format!("a creation failed: {}", met(trace.path()));
        assert!(status.success(), "{status}: {what}: {told:?}");
        for error in &told.unopened {
            let typed = ["Io ", "DiskFull ", "Store "].iter().any(|known| error.starts_with(known));
            assert!(typed, "an untyped error {error:?}: {what}");
        }
        reference().check(dir.path(), 0, &what);
        shim::trace(trace.path()).len() as u64
    };
    let total = create(&|plan| plan);
    let cases = sample(total, 24, &mut Random::new(reference().seed ^ 22));
    println!("a creation that fails at {} of {total} operations", cases.len());
    on_two_threads(&cases, |at| {
        create(&|plan| match at % 3 {
            0 => plan.once(Fault::Io, at),
            1 => plan.for_good(Fault::NoSpace, at),
            _ => plan.for_good(Fault::Io, at),
        });
    });
}

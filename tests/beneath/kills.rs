//! A process that is killed at an operation on its files.

use std::collections::BTreeMap;
use std::path::Path;

use tidal_support::random::Random;
use tidal_support::shim::{self, Fault, Plan};

use crate::script::{on_two_threads, reference, sample};

/// A trace of the whole script without a fault.
pub(crate) fn trace_of_the_script(kinds: &'static str) -> Vec<shim::Traced> {
    let dir = tempfile::tempdir().expect("a directory");
    let trace = tempfile::NamedTempFile::new().expect("a file");
    let plan = Plan::counting(dir.path(), kinds).traced(trace.path());
    let (told, status) = reference().run_child("script", dir.path(), &plan);
    assert!(status.success() && told.finished, "{status}: {told:?}");
    let quiet = told.refused.is_empty() && told.unopened.is_empty() && told.notes.is_empty();
    assert!(quiet, "without a fault nothing fails: {told:?}");
    reference().check_told(&told, "without a fault");
    reference().check(dir.path(), told.acknowledged, "without a fault");
    shim::trace(trace.path())
}

/// The operation that met the fault, for messages.
pub(crate) fn met(trace: &Path) -> String {
    let met = shim::trace(trace).into_iter().find(|traced| traced.met);
    met.map_or("nothing".to_owned(), |traced| format!("{} {}", traced.kind, traced.path.display()))
}

#[test]
fn the_shim_sees_every_kind_of_operation_on_the_log_and_on_both_stores() {
    if shim::library().is_none() {
        return;
    }
    let mut counts: BTreeMap<(char, &str), u64> = BTreeMap::new();
    for traced in trace_of_the_script("wsdtocmru") {
        let path = traced.path.to_str().expect("text");
        let place = ["/log", "/store/a", "/store/b"].into_iter().find(|part| path.contains(part));
        *counts.entry((traced.kind, place.unwrap_or("/"))).or_default() += 1;
    }
    println!("{counts:?}");
    let count = |kind, place| counts.get(&(kind, place)).copied().unwrap_or(0);
    for kind in "wsdtocmru".chars() {
        assert!(count(kind, "/log") > 0, "{kind} in the log");
        // Each store is made, gets its name, and is flushed when it is opened again.
        for store in ["/store/a", "/store/b"] {
            assert!(count(kind, store) > 0, "{kind} in {store}");
        }
    }
    // Of these, only the creation's rename is tidal's own: the others go through tempfile and rustix.
    assert!(count('r', "/store/a") > 1 && count('r', "/store/b") > 1, "renames of the store");
    // A log begins with one segment, and each of the three opens begins another.
    assert!(count('c', "/log") > 4 && count('u', "/log") > 1, "the log rolls and is truncated");
}

#[test]
fn a_kill_at_any_operation_on_its_files_loses_nothing_acknowledged() {
    if shim::library().is_none() {
        return;
    }
    let total = trace_of_the_script(shim::CHANGES).len() as u64;
    let mut random = Random::new(reference().seed ^ 1);
    let cases = sample(total, 40, &mut random);
    println!("{} kills at {total} operations", cases.len());
    on_two_threads(&cases, |at| {
        let dir = tempfile::tempdir().expect("a directory");
        let trace = tempfile::NamedTempFile::new().expect("a file");
        let fault = if at % 2 == 0 { Fault::KillBefore } else { Fault::KillAfter };
        let plan = Plan::counting(dir.path(), shim::CHANGES).once(fault, at).traced(trace.path());
        let (told, _) = reference().run_child("script", dir.path(), &plan);
        let what = format!("{fault:?} at {at}: {}", met(trace.path()));
        reference().check_told(&told, &what);
        reference().check(dir.path(), told.acknowledged, &what);
    });
}

#[test]
fn a_creation_killed_at_any_operation_is_begun_again() {
    if shim::library().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let trace = tempfile::NamedTempFile::new().expect("a file");
    let plan = Plan::counting(dir.path(), shim::CHANGES).traced(trace.path());
    reference().run_child("open", dir.path(), &plan);
    let total = shim::trace(trace.path()).len() as u64;
    let cases: Vec<u64> = (1..=total).collect();
    println!("a creation killed at each of {total} operations");
    on_two_threads(&cases, |at| {
        let dir = tempfile::tempdir().expect("a directory");
        let trace = tempfile::NamedTempFile::new().expect("a file");
        let plan = Plan::counting(dir.path(), shim::CHANGES).once(Fault::KillBefore, at);
        reference().run_child("open", dir.path(), &plan.traced(trace.path()));
        reference().check(dir.path(), 0, &format!("killed at {at}: {}", met(trace.path())));
    });
}

#[test]
fn kills_during_recovery_from_kills_lose_nothing_acknowledged() {
    const NESTED: u32 = 6;
    if shim::library().is_none() {
        return;
    }
    let total = trace_of_the_script(shim::CHANGES).len() as u64;
    on_two_threads(&[1u64, 2, 3, 4], |round| {
        let mut random = Random::new(reference().seed ^ round);
        let dir = tempfile::tempdir().expect("a directory");
        let (mut at, mut acknowledged, mut what) = (1 + random.below(total), 0, String::new());
        for _ in 0..NESTED {
            let trace = tempfile::NamedTempFile::new().expect("a file");
            let plan = Plan::counting(dir.path(), shim::CHANGES).once(Fault::KillBefore, at);
            let (told, _) = reference().run_child("script", dir.path(), &plan.traced(trace.path()));
            what += &format!("; killed at {at}: {}", met(trace.path()));
            reference().check_told(&told, &what);
            acknowledged = acknowledged.max(told.acknowledged);
            // Somewhere in the next open, or a little after it.
            at = 1 + random.below(80);
        }
        reference().check(dir.path(), acknowledged, &what);
    });
}

//! What a run does, counts and refuses.

use std::num::NonZeroU32;
use std::sync::mpsc;

use super::*;
use tidaldb::{Error, RunError, StopReason};

#[test]
fn a_required_processor_settles_sessions_and_its_outputs_are_read_back() {
    let (db, _clock) = ephemeral();
    let usage = pure("usage");
    register(&db, &usage, minutely());
    let ids: Vec<SessionId> = (0..5).map(|user| ended(&db, user, user)).collect();
    assert!(ids.iter().all(|&id| !is_settled(&db, id)), "they wait for it");
    let stats = run(&db, "usage");
    assert_eq!((stats.scanned, stats.processed, stats.items), (5, 5, 10));
    assert_eq!((stats.errors, stats.fenced, stats.stopped), (0, 0, StopReason::Drained));
    for &id in &ids {
        assert!(is_settled(&db, id));
        assert_eq!(db.sessions().outputs("usage", id).expect("read"), pure_outputs(&db, id));
        let row = db.sessions().processor_row("usage", id).expect("read").expect("attempted");
        let outcome = row.outcome.expect("done");
        let info = db.sessions().get(id).expect("read").expect("there");
        assert_eq!((row.status, row.attempts), (ProcessorStatus::Done, 1));
        assert_eq!((outcome.content_hash, outcome.version), (info.content_hash, 1));
    }
}

#[test]
fn stable_sessions_are_filtered() {
    let (db, _clock) = ephemeral();
    let (all, some) = (pure("all"), pure("some"));
    register(&db, &all, minutely());
    register(&db, &some, observing());
    (0..20).for_each(|user| {
        ended(&db, user, 2);
    });
    assert_eq!((run(&db, "all").processed, run(&db, "some").processed), (20, 20));
    let before = db.applied();
    for name in ["all", "some"] {
        let stats = run(&db, name);
        assert_eq!((stats.scanned, stats.processed, stats.unchanged), (0, 0, 0), "{name}");
    }
    assert_eq!((all.calls(), some.calls()), (20, 20));
    assert_eq!(db.applied(), before, "a run with nothing to do writes nothing");
}

#[test]
fn a_modification_after_marking_surfaces_the_session_again() {
    let (db, _clock) = ephemeral();
    let usage = pure("usage");
    register(&db, &usage, minutely());
    let id = ended_under(&db, 1, 2, "lenient");
    assert_eq!(run(&db, "usage").processed, 1);
    assert_eq!(run(&db, "usage").scanned, 0);
    let late = tidaldb::SessionSignal::new("view", EntityId::new(9), START);
    db.sessions().append_late(id, late).expect("it takes late records");
    let stats = run(&db, "usage");
    assert_eq!((stats.scanned, stats.processed, stats.items), (1, 1, 3));
    assert_eq!(db.sessions().outputs("usage", id).expect("read"), pure_outputs(&db, id));
}

#[test]
fn a_filtered_session_is_scanned_0_not_skipped_1() {
    let (db, _clock) = ephemeral();
    let usage = pure("usage");
    register(&db, &usage, observing());
    ended(&db, 1, 1);
    assert_eq!(run(&db, "usage").scanned, 1);
    // The same content in the same version, to a processor that has to look at everything anew.
    db.sessions().unregister("usage").expect("removed");
    register(&db, &usage, observing());
    let stats = run(&db, "usage");
    assert_eq!((stats.scanned, stats.unchanged, stats.processed), (0, 1, 0));
    assert_eq!(usage.calls(), 1);
}

#[test]
fn already_running() {
    let (db, clock) = ephemeral();
    let (entered, enter) = mpsc::channel();
    let (leave, left) = mpsc::channel::<()>();
    let left = std::sync::Mutex::new(left);
    let slow = probe("slow", move |_, _| {
        entered.send(()).expect("heard");
        left.lock().expect("alone").recv_timeout(PATIENCE).expect("told");
        Ok(Processed::default())
    });
    register(&db, &slow, minutely());
    ended(&db, 1, 1);
    clock.advance(SECOND);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| run(&db, "slow"));
        enter.recv_timeout(PATIENCE).expect("it is called");
        clock.advance(SECOND);
        match db.sessions().run_processor("slow", RunOptions::new()) {
            Err(RunError::AlreadyRunning { processor, since }) => {
                assert_eq!((&*processor, since), ("slow", START.saturating_add(SECOND)));
            }
            other => panic!("{other:?}"),
        }
        let id = db.sessions().list(&tidaldb::SessionFilter::new()).expect("listed")[0].id;
        let since = START.saturating_add(SECOND);
        assert_eq!(status(&db, "slow", id), Some(ProcessorStatus::Running { since }));
        leave.send(()).expect("it waits");
        assert_eq!(first.join().expect("no panic").processed, 1);
    });
    assert_eq!(run(&db, "slow").scanned, 0, "the lock is free");
}

#[test]
fn lock_released_on_exception() {
    let (db, clock) = ephemeral();
    let broken = probe("broken", |_, _| panic!("a panic of this test's own"));
    register(&db, &broken, minutely());
    let id = ended(&db, 1, 1);
    let stats = run(&db, "broken");
    assert_eq!(
        (stats.errors, &*stats.errors_detail[0].1),
        (1, "panicked: a panic of this test's own")
    );
    assert_eq!(stats.errors_detail[0].0, id);
    clock.advance(2 * MINUTE);
    assert_eq!(run(&db, "broken").errors, 1, "it runs again");
}

/// The names of the brief: that a run was made is known however it ended.
mod test_run_job_bookkeeping {
    use super::*;

    /// Drives over three cadences with a processor that does this, and counts its runs.
    fn runs_in_three_cadences(
        work: impl Fn() -> Result<Processed, ProcessError> + Send + Sync + 'static,
    ) -> u64 {
        let (db, clock) = ephemeral();
        let it = probe("it", move |_, _| work());
        let mut options = minutely();
        options.cadence = 15 * MINUTE;
        register(&db, &it, options);
        ended(&db, 1, 1);
        let mut runs = 0;
        // Every tick of 30 s for 45 minutes.
        for _ in 0..90 {
            runs += db.drive().expect("drives").runs;
            clock.advance(30 * SECOND);
        }
        runs
    }

    #[test]
    fn last_run_advances_on_success() {
        assert_eq!(runs_in_three_cadences(|| Ok(Processed::default())), 3);
    }

    #[test]
    fn last_run_advances_on_failure() {
        assert_eq!(runs_in_three_cadences(|| Err("no".into())), 3);
    }

    #[test]
    fn last_run_advances_on_unhandled_raise() {
        assert_eq!(runs_in_three_cadences(|| panic!("a panic of this test's own")), 3);
    }
}

#[test]
fn a_clock_that_was_set_back_does_not_keep_a_processor_from_running() {
    let (db, clock) = ephemeral();
    let it = pure("it");
    register(&db, &it, minutely());
    assert_eq!(db.drive().expect("drives").runs, 1);
    clock.set(START.saturating_sub(HOUR));
    db.reset_clock().expect("reset");
    assert_eq!(db.drive().expect("drives").runs, 0);
    clock.advance(15 * MINUTE);
    assert_eq!(
        db.drive().expect("drives").runs,
        1,
        "it is due a cadence after now, not after then"
    );
}

#[test]
fn budgets_and_caps_count_attempts_only() {
    let (db, clock) = ephemeral();
    let ticking = clock.clone();
    let it = probe("it", move |session, out| {
        ticking.advance(40 * SECOND);
        put_pure(session, out)
    });
    register(&db, &it, observing());
    let ids: Vec<SessionId> = (0..10).map(|user| ended(&db, user, 1)).collect();
    // 0, 40, 80 and 120 s are less than 150 s.
    let stats = run(&db, "it");
    assert_eq!((stats.processed, stats.stopped), (4, StopReason::TimeBudget));
    assert_eq!(stats.took, 160 * SECOND);
    let two = RunOptions::new().max_sessions(NonZeroU32::new(2).expect("not 0"));
    let stats = db.sessions().run_processor("it", two.clone()).expect("runs");
    assert_eq!((stats.processed, stats.stopped), (2, StopReason::SessionCap));
    // What was processed is looked at again, and counts for neither.
    db.sessions().unregister("it").expect("removed");
    register(&db, &it, observing());
    let brief = two.time_budget(Duration::ZERO);
    let stats = db.sessions().run_processor("it", brief).expect("runs");
    assert_eq!((stats.unchanged, stats.scanned, stats.processed), (6, 1, 1));
    assert_eq!(stats.stopped, StopReason::TimeBudget);
    assert!(status(&db, "it", ids[6]).is_some() && status(&db, "it", ids[7]).is_none());
}

#[test]
fn quick_work_goes_in_batches_that_grow_and_a_cap_cuts_them() {
    let (db, _clock) = ephemeral();
    let it = pure("it");
    register(&db, &it, minutely());
    (0..600).for_each(|user| {
        ended(&db, user, 0);
    });
    let cap = RunOptions::new().max_sessions(NonZeroU32::new(100).expect("not 0"));
    let before = db.applied().get();
    let stats = db.sessions().run_processor("it", cap).expect("runs");
    assert_eq!((stats.processed, stats.scanned), (100, 100));
    // 1, 2, 4, 8, 16, 32 and the rest of 100: two frames each. And the one that says that it ran.
    assert_eq!(db.applied().get() - before, 15);
}

#[test]
fn slow_work_goes_alone_and_is_busy_only_while_it_is_worked_on() {
    let (db, clock) = ephemeral();
    let ticking = clock.clone();
    let it = probe("it", move |session, out| {
        ticking.advance(SECOND);
        put_pure(session, out)
    });
    register(&db, &it, minutely());
    (0..5).for_each(|user| {
        ended(&db, user, 0);
    });
    let before = db.applied().get();
    assert_eq!(run(&db, "it").processed, 5);
    assert_eq!(
        db.applied().get() - before,
        11,
        "one beginning and one commit each, and that it ran"
    );
}

#[test]
fn only_the_session_that_is_asked_for_is_processed() {
    let (db, _clock) = ephemeral();
    for (name, options) in [("all", minutely()), ("some", observing())] {
        register(&db, &pure(name), options);
        let ids: Vec<SessionId> = (0..3).map(|user| ended(&db, user, 1)).collect();
        if name == "some" {
            run(&db, "all");
        }
        let only = RunOptions::new().only(ids[1]);
        let stats = db.sessions().run_processor(name, only.clone()).expect("runs");
        assert_eq!((stats.scanned, stats.processed), (1, 1));
        assert!(status(&db, name, ids[0]).is_none() && status(&db, name, ids[1]).is_some());
        let again = db.sessions().run_processor(name, only).expect("runs");
        assert_eq!(again.scanned, 0);
        assert_eq!(run(&db, name).processed, if name == "all" { 2 } else { 5 });
    }
}

#[test]
fn catching_up_runs_all_of_them_however_long_it_takes_and_whenever_they_are_due() {
    let (db, clock) = ephemeral();
    let (one, two) = (pure("one"), probe("two", |_, _| Err("not yet".into())));
    let mut capped = minutely();
    capped.max_sessions_per_run = NonZeroU32::new(1);
    register(&db, &one, capped.clone());
    register(&db, &two, capped);
    (0..4).for_each(|user| {
        ended(&db, user, 1);
    });
    let stats = db.sessions().catch_up().expect("runs");
    assert_eq!(stats.iter().map(|run| run.processed).collect::<Vec<_>>(), [4, 0]);
    assert_eq!((stats[1].errors, stats[1].deferred), (4, 4));
    let stats = db.sessions().catch_up().expect("runs");
    assert_eq!(stats[1].errors, 4, "each once more, though none is due");
    assert_eq!(run(&db, "two").scanned, 0);
    clock.advance(2 * MINUTE);
    assert_eq!(run(&db, "two").scanned, 1);
}

#[test]
fn registrations_that_make_no_sense_are_refused() {
    let (db, _clock) = ephemeral();
    let refused = |probe: Probe, options| match db.sessions().register(probe, options) {
        Err(Error::InvalidArgument { what, reason }) => (what, reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(pure("No Name"), minutely()).0, "processor name");
    let mut never = minutely();
    never.cadence = Duration::ZERO;
    assert_eq!(refused(pure("it"), never).0, "cadence");
    register(&db, &pure("it"), minutely());
    let (what, reason) = refused(pure("it").version(2), minutely());
    assert!(what == "processor" && reason.contains("registered already"), "{reason}");
    match db.sessions().run_processor("its", RunOptions::new()) {
        Err(RunError::Unknown { known, .. }) => assert_eq!(known, ["it"]),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        db.sessions().processor_row("other", SessionId::new(1)),
        Err(Error::UnknownName { what: "processor", .. })
    ));
    assert!(matches!(db.sessions().unregister("other"), Err(Error::UnknownName { .. })));
}

#[test]
fn a_registration_that_changes_nothing_writes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let db = open(dir.path(), &clock);
    register(&db, &pure("it"), minutely());
    db.close().expect("closes");
    let db = open(dir.path(), &clock);
    let before = db.applied();
    register(&db, &pure("it"), minutely());
    assert_eq!(db.applied(), before);
    db.close().expect("closes");
    let db = open(dir.path(), &clock);
    let before = db.applied().get();
    register(&db, &pure("it").version(2), minutely());
    assert_eq!(db.applied().get(), before + 1);
}

#[test]
fn sessions_wait_for_a_required_processor_until_it_is_unregistered() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let db = open(dir.path(), &clock);
    register(&db, &pure("it"), minutely());
    let id = ended(&db, 1, 1);
    db.close().expect("closes");
    let db = open(dir.path(), &clock);
    let later = ended(&db, 2, 1);
    assert!(!is_settled(&db, id) && !is_settled(&db, later), "nobody is there to do it");
    db.sessions().unregister("it").expect("it is known, though not in this process");
    assert!(is_settled(&db, id) && is_settled(&db, later));
}

#[test]
fn outcomes_are_walked_page_by_page_in_the_order_of_sessions() {
    let (db, _clock) = ephemeral();
    register(&db, &pure("one"), minutely());
    register(&db, &pure("two"), minutely());
    let ids: Vec<SessionId> = (0..7).map(|user| ended(&db, user, 1)).collect();
    run(&db, "one");
    run(&db, "two");
    let (mut walked, mut after) = (Vec::new(), None);
    loop {
        let page = db.sessions().outcomes("two", after, 3).expect("read");
        after = page.last().map(|outcome| outcome.session);
        let is_last = page.len() < 3;
        for outcome in page {
            assert_eq!(outcome.outputs, pure_outputs(&db, outcome.session));
            walked.push(outcome.session);
        }
        if is_last {
            break;
        }
    }
    assert_eq!(walked, ids);
}

#[test]
fn a_run_whose_processor_was_replaced_by_its_like_does_not_walk_for_that() {
    let (db, _clock) = ephemeral();
    let ids: Vec<SessionId> = (0..4).map(|user| ended(&db, user, 1)).collect();
    let db = Arc::new(db);
    let (its, second) = (Arc::downgrade(&db), pure("it"));
    let heir = second.clone();
    let first = probe("it", move |session, out| {
        let db = its.upgrade().ok_or("it is closed")?;
        if heir.calls() == 0 && db.sessions().unregister("it").is_ok() {
            register(&db, &heir, minutely());
        }
        put_pure(session, out)
    });
    register(&db, &first, minutely());
    let stats = run(&db, "it");
    assert_eq!((stats.processed, stats.fenced, first.calls()), (0, 1, 1));
    let stats = run(&db, "it");
    assert_eq!((stats.processed, second.calls()), (4, 4), "all of them are left to it");
    assert!(ids.iter().all(|&id| status(&db, "it", id) == Some(ProcessorStatus::Done)));
}

#[test]
fn a_sweep_goes_on_past_a_thousand_sessions_that_wait_for_processors_from_then_on() {
    let (db, clock) = ephemeral();
    register(&db, &pure("it"), minutely());
    for user in 0..1_000 {
        ended_under(&db, user, 0, "lenient");
    }
    let last = db.start_session(1_000, "phone", "default").expect("started");
    last.extend(HOUR + 30 * MINUTE).expect("extended");
    let id = last.detach();
    // The grace of the others ends first, and each of them waits for the processor.
    clock.advance(3 * HOUR);
    assert_eq!(db.sessions().sweep().expect("swept").ended, 1);
    assert!(db.sessions().get(id).expect("read").expect("there").state.end().is_some());
    let before = db.applied();
    assert_eq!(db.sessions().sweep().expect("nothing is due").ended, 0);
    assert_eq!(db.applied(), before, "nothing due, nothing written");
}

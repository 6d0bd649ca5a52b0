//! A log on a disk that works, and one that refuses a single operation.

use std::io::ErrorKind::{Other, PermissionDenied, StorageFull};

use super::*;

#[test]
fn what_was_appended_is_replayed_over_many_rolls() {
    let (disk, mut history) = (new_disk(), History::new(1));
    let mut log = create(&disk, SMALL).expect("works");
    for _ in 0..200 {
        for _ in 0..history.random.below(4) {
            history.append(&mut log);
        }
        log.write_group().expect("works");
    }
    history.acknowledged = log.sync().expect("works");
    assert_eq!(history.acknowledged, history.last());
    assert!(log.segment_count() > 50, "{} segments", log.segment_count());
    let on_disk: usize = segments(&disk).iter().map(|path| disk.content(path).len()).sum();
    assert!(log.size_bytes() <= on_disk as u64);
    drop(log);

    let mut opened = open(&disk, &[]).expect("opens");
    history.check(&opened, "");
    assert_eq!(opened.report.cut, None);
    assert_eq!(opened.report.frames_kept, history.last().get());

    history.resume(&opened);
    grow(&mut opened.log, &mut history, 20);
    history.check(&open(&disk, &[]).expect("opens again"), "");
}

#[test]
fn replay_begins_after_the_given_position_and_refuses_one_that_was_truncated() {
    let (disk, mut history) = (new_disk(), History::new(2));
    let mut log = create(&disk, SMALL).expect("works");
    grow(&mut log, &mut history, 20);
    let removed = log.truncate_through(Seq::new(12)).expect("works");
    assert!(removed > 0);
    let checkpoint = [history.checkpoint(12)];
    history.check(&open(&disk, &checkpoint).expect("opens"), "");

    let scan = Scan::run(disk.shared(), dir(), DATABASE).expect("scans");
    let tail = scan.resolve(&checkpoint).expect("resolves");
    let (first, last) = (tail.first(), tail.last());
    assert!(first > Seq::new(2) && first <= Seq::new(13) && last == Seq::new(20));
    let gap = tail.replay(Seq::new(1), |_| Ok(()));
    assert!(matches!(gap, Err(Error::LogGap { from, to })
        if from == Seq::new(2) && to.next() == first));
    let mut replayed = 0;
    tail.replay(last, |_| {
        replayed += 1;
        Ok(())
    })
    .expect("nothing to replay");
    assert_eq!(replayed, 0);
    let stopped = tail.replay(Seq::new(15), |_| Err(Error::Closed));
    assert!(matches!(stopped, Err(Error::Closed)));
}

#[test]
fn a_group_larger_than_a_segment_gets_one_to_itself() {
    let (disk, mut history) = (new_disk(), History::new(3));
    let mut log = create(&disk, SMALL).expect("works");
    for frames in [1, 60, 1, 40] {
        for _ in 0..frames {
            history.append(&mut log);
        }
        log.write_group().expect("works");
    }
    history.acknowledged = log.sync().expect("works");
    let paths = segments(&disk);
    let counts: Vec<usize> = paths.iter().map(|path| frames_in(&disk, path).len()).collect();
    assert_eq!(counts, [1, 60, 1, 40]);
    history.check(&open(&disk, &[]).expect("opens"), "");
}

#[test]
fn frames_may_be_written_while_another_thread_syncs_those_before() {
    let (disk, mut history) = (new_disk(), History::new(4));
    let mut log = create(&disk, LogOptions { segment_size_bytes: 1 << 20, faults: Faults::NONE })
        .expect("works");
    history.append(&mut log);
    log.write_group().expect("works");
    let job = log.begin_sync().expect("works");
    let done = std::thread::spawn(move || job.run());
    history.append(&mut log);
    log.write_group().expect("works");
    assert_eq!(log.synced(), Seq::ZERO);
    let done = done.join().expect("does not panic");
    assert_eq!(log.finish_sync(done).expect("works"), Seq::new(1));
    assert_eq!(
        (log.synced(), log.written(), log.appended()),
        (Seq::new(1), Seq::new(2), Seq::new(2))
    );
}

#[test]
#[should_panic(expected = "while it is being synced")]
fn a_roll_under_a_running_sync_is_refused() {
    let (disk, mut history) = (new_disk(), History::new(5));
    let mut log = create(&disk, SMALL).expect("works");
    grow(&mut log, &mut history, 1);
    let _job = log.begin_sync().expect("works");
    for _ in 0..20 {
        history.append(&mut log);
    }
    assert!(log.group_rolls());
    let _ = log.write_group();
}

#[test]
fn a_failed_sync_latches_and_is_never_retried() {
    let (disk, mut history) = (new_disk(), History::new(6));
    let mut log = create(&disk, SMALL).expect("works");
    grow(&mut log, &mut history, 2);
    history.append(&mut log);
    log.write_group().expect("works");
    disk.fail_next(Op::Sync, Other);
    assert!(matches!(log.sync(), Err(Error::Io { action: "sync", .. })));
    let operations = disk.done().len();
    for _ in 0..3 {
        history.append(&mut log);
        assert!(matches!(log.write_group(), Err(Error::Stopped { .. })));
        assert!(matches!(log.sync(), Err(Error::Stopped { .. })));
        assert!(matches!(log.begin_sync(), Err(Error::Stopped { .. })));
        assert!(matches!(log.truncate_through(Seq::new(1)), Err(Error::Stopped { .. })));
    }
    assert_eq!(disk.done().len(), operations, "a stopped log leaves the disk alone");
    assert_eq!(log.synced(), Seq::new(2));
    drop(log);
    // The frame can be read, though the disk does not have it; reopening makes it durable.
    let mut opened = open(&disk, &[]).expect("opens");
    history.check(&opened, "");
    assert_eq!(opened.report.frames_copied, 1);
    history.resume(&opened);
    grow(&mut opened.log, &mut history, 1);
    let cut = disk.reboot(Survives::Nothing);
    history.check(&open(&cut, &[]).expect("opens"), "");
}

#[test]
fn a_failed_write_latches() {
    for (op, kind) in [(Op::Write, StorageFull), (Op::Write, Other)] {
        let (disk, mut history) = (new_disk(), History::new(7));
        let mut log = create(&disk, SMALL).expect("works");
        grow(&mut log, &mut history, 2);
        history.append(&mut log);
        disk.fail_next(op, kind);
        let first = log.write_group().expect_err("refused");
        match kind {
            StorageFull => assert!(matches!(first, Error::DiskFull { action: "write", .. })),
            _ => assert!(matches!(first, Error::Io { action: "write", .. })),
        }
        assert!(matches!(log.write_group(), Err(Error::Stopped { .. })));
        assert!(matches!(log.sync(), Err(Error::Stopped { .. })));
        drop(log);
        history.check(&open(&disk, &[]).expect("opens"), "");
    }
}

#[test]
fn a_fill_that_fails_costs_nothing() {
    for (kind, is_short) in [(StorageFull, false), (StorageFull, true), (Other, true)] {
        let (disk, mut history) = (new_disk(), History::new(17));
        let options = LogOptions { segment_size_bytes: 1 << 20, faults: Faults::NONE };
        let mut log = create(&disk, options).expect("works");
        history.append(&mut log);
        // The group is the first write, and what is filled behind it the second.
        disk.fail(Fault { after: 1, of: Some(Op::Write), kind, for_good: false, is_short });
        log.write_group().expect("the group is there");
        assert!(disk.has_failed());
        history.acknowledged = log.sync().expect("works");
        let cut = disk.reboot(Survives::Nothing);
        history.check(&open(&cut, &[]).expect("opens"), "right after it");
        grow(&mut log, &mut history, 5);
        let cut = disk.reboot(Survives::Nothing);
        history.check(&open(&cut, &[]).expect("opens"), "after more groups");
    }
}

#[test]
fn a_write_that_fails_during_a_sync_leaves_nothing_confirmed() {
    let (disk, mut history) = (new_disk(), History::new(8));
    let mut log = create(&disk, LogOptions { segment_size_bytes: 1 << 20, faults: Faults::NONE })
        .expect("works");
    history.append(&mut log);
    log.write_group().expect("works");
    let job = log.begin_sync().expect("works");
    history.append(&mut log);
    disk.fail_next(Op::Write, Other);
    log.write_group().expect_err("refused");
    assert!(matches!(log.finish_sync(job.run()), Err(Error::Stopped { .. })));
}

#[test]
fn every_refused_operation_of_a_roll_latches_and_loses_nothing() {
    for op in [Op::Create, Op::SyncDir, Op::SetLen, Op::Sync, Op::Write] {
        let (disk, mut history) = (new_disk(), History::new(9));
        let mut log = create(&disk, SMALL).expect("works");
        grow(&mut log, &mut history, 1);
        while !log.group_rolls() {
            history.append(&mut log);
        }
        disk.fail_next(op, Other);
        log.write_group().expect_err("refused");
        assert!(matches!(log.write_group(), Err(Error::Stopped { .. })), "{op:?}");
        drop(log);
        for survives in [Survives::Everything, Survives::Nothing, Survives::Some(1)] {
            let mut history = history.clone();
            let rebooted = disk.reboot(survives);
            let mut opened = open(&rebooted, &[]).expect("opens");
            history.check(&opened, &format!("{op:?} {survives:?}"));
            history.resume(&opened);
            grow(&mut opened.log, &mut history, 10);
            let again = open(&rebooted.reboot(Survives::Nothing), &[]).expect("opens");
            history.check(&again, &format!("{op:?} {survives:?}, then a power cut"));
        }
    }
}

#[test]
fn an_unlink_that_fails_is_harmless_and_tried_again() {
    let (disk, mut history) = (new_disk(), History::new(10));
    let mut log = create(&disk, SMALL).expect("works");
    grow(&mut log, &mut history, 20);
    let before = log.segment_count();
    disk.fail_next(Op::Remove, PermissionDenied);
    assert_eq!(log.truncate_through(Seq::new(20)).expect("harmless"), 0);
    assert_eq!(log.segment_count(), before);
    let removed = log.truncate_through(Seq::new(20)).expect("works");
    assert_eq!(removed as usize, before - 1, "the last segment stays");
    assert_eq!(segments(&disk).len(), 1);
    grow(&mut log, &mut history, 1);
    history.check(&open(&disk, &[history.checkpoint(20)]).expect("opens"), "");
}

#[test]
fn truncation_keeps_every_frame_above_the_position() {
    for through in 0..=20 {
        let (disk, mut history) = (new_disk(), History::new(11));
        let mut log = create(&disk, SMALL).expect("works");
        grow(&mut log, &mut history, 20);
        log.truncate_through(Seq::new(through)).expect("works");
        history.check(&open(&disk, &[history.checkpoint(through)]).expect("opens"), "");
    }
}

#[test]
fn a_store_that_fell_back_behind_a_truncation_does_not_make_a_gap_of_it() {
    let (disk, mut history) = (new_disk(), History::new(16));
    let mut log = create(&disk, SMALL).expect("works");
    grow(&mut log, &mut history, 20);
    assert!(log.truncate_through(Seq::new(12)).expect("works") > 0);
    drop(log);
    // It was at 12, and shows again what it was at 3; the newest one has all that is gone.
    let checkpoints = [history.checkpoint(3), history.checkpoint(15)];
    let tail = Scan::run(disk.shared(), dir(), DATABASE).expect("scans").resolve(&checkpoints);
    let tail = tail.expect("nothing is missing behind the newest");
    assert!(tail.first() > Seq::new(4) && tail.last() == Seq::new(20));
    assert!(is_log_damage(&tail.replay(Seq::new(3), |_| Ok(()))), "the older one cannot be used");
}

#[test]
fn an_idle_log_does_not_grow_however_often_it_is_opened() {
    let (disk, mut history) = (new_disk(), History::new(12));
    let mut log = create(&disk, SMALL).expect("works");
    grow(&mut log, &mut history, 3);
    drop(log);
    let checkpoint = [history.checkpoint(3)];
    for _ in 0..5 {
        let opened = open(&disk, &checkpoint).expect("opens");
        history.check(&opened, "");
        assert_eq!(opened.log.segment_count(), 2);
    }
    assert_eq!(segments(&disk).len(), 2);
}

#[test]
fn files_are_filled_ahead_so_that_most_groups_leave_their_size() {
    let (disk, mut history) = (new_disk(), History::new(13));
    let mut log = create(&disk, LogOptions { segment_size_bytes: 4 << 20, faults: Faults::NONE })
        .expect("works");
    let path = path_of(&dir(), Seq::new(1));
    let mut sizes = std::collections::BTreeSet::new();
    for _ in 0..100 {
        history.append(&mut log);
        log.write_group().expect("works");
        sizes.insert(disk.content(&path).len());
    }
    history.acknowledged = log.sync().expect("works");
    assert_eq!(sizes.len(), 1, "{sizes:?}");
    history.check(&open(&disk, &[]).expect("opens"), "");
    assert!(disk.content(&path).len() < 20_000, "the old segment is cut to its frames");
}

#[test]
fn opening_writes_nothing_before_finish_and_removes_what_never_was_a_segment() {
    let (disk, mut history) = (new_disk(), History::new(14));
    let mut log = create(&disk, SMALL).expect("works");
    grow(&mut log, &mut history, 9);
    drop(log);
    let leftover = dir().join("00000000000000000007.tmp");
    disk.put(&leftover, vec![1, 2, 3]);
    let operations = disk.done().len();
    let scan = Scan::run(disk.shared(), dir(), DATABASE).expect("scans");
    let tail = scan.resolve(&[]).expect("resolves");
    tail.replay(Seq::ZERO, |_| Ok(())).expect("replays");
    assert_eq!(disk.done().len(), operations);
    tail.finish(SMALL).expect("finishes");
    assert!(!disk.paths().contains(&leftover));
}

#[test]
fn the_report_says_in_one_sentence_what_was_found() {
    let (disk, mut history) = (new_disk(), History::new(15));
    let mut log = create(&disk, LogOptions { segment_size_bytes: 1 << 20, faults: Faults::NONE })
        .expect("works");
    grow(&mut log, &mut history, 3);
    drop(log);
    let path = path_of(&dir(), Seq::new(1));
    let frames = frames_in(&disk, &path);
    let mut bytes = disk.content(&path);
    bytes.truncate(frames[2].1.end - 1);
    disk.put(&path, bytes);
    let report = open(&disk, &[]).expect("opens").report;
    let (offset, size) = (frames[2].1.start, frames[2].1.len() - 1);
    assert_eq!(
        report.to_string(),
        format!(
            "the log holds 2 frames, 1 to 2, in 2 segments, proven synced through 2, 0 written \
             anew; the log was cut before 3, in log/00000000000000000001.seg at byte {offset}: \
             {size} bytes with 0 whole frames dropped, none of them ever proven synced (the frame \
             ends 1 bytes early)"
        )
    );
}

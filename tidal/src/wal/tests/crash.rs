//! A machine that stops at every operation, and again while it recovers.

use super::*;

/// What a run had done when the machine stopped.
struct Run {
    disk: SimDisk,
    history: History,
    /// The two stores' checkpoints, the older first; none before the first.
    checkpoints: Vec<Checkpoint>,
}

impl Run {
    /// Appends, writes, syncs, rolls, truncates, reopens, until done or the machine stops.
    fn drive(&mut self, steps: usize) -> Result<()> {
        let mut log = create(&self.disk, SMALL)?;
        for step in 0..steps {
            if step == steps / 2 {
                drop(log);
                let opened = open(&self.disk, &self.checkpoints)?;
                self.history.check(&opened, "reopened while running");
                self.history.resume(&opened);
                log = opened.log;
            }
            self.step(&mut log)?;
        }
        Ok(())
    }

    fn step(&mut self, log: &mut Log) -> Result<()> {
        for _ in 0..=self.history.random.below(3) {
            self.history.append(log);
        }
        match self.history.random.below(8) {
            0 => return Ok(()),
            1 | 2 => log.write_group()?,
            3 => self.overlap(log)?,
            4 => {
                log.write_group()?;
                self.history.acknowledged = log.sync()?;
                self.checkpoint(log)?;
            }
            _ => {
                log.write_group()?;
                self.history.acknowledged = log.sync()?;
            }
        }
        Ok(())
    }

    /// One group is written while another thread syncs the one before.
    fn overlap(&mut self, log: &mut Log) -> Result<()> {
        log.write_group()?;
        let job = log.begin_sync()?;
        self.history.append(log);
        let late = log.group_rolls();
        if !late {
            log.write_group()?;
        }
        self.history.acknowledged = log.finish_sync(job.run())?;
        if late { log.write_group() } else { Ok(()) }
    }

    /// A store takes a checkpoint; the log goes up to the older one.
    fn checkpoint(&mut self, log: &mut Log) -> Result<()> {
        self.checkpoints.push(self.history.checkpoint(log.synced().get()));
        if let [.., older, _] = self.checkpoints.as_slice() {
            let through = older.0;
            log.truncate_through(through)?;
            self.checkpoints.drain(..self.checkpoints.len() - 2);
        }
        Ok(())
    }

    /// A store without a manifest counts as sequence 0.
    fn known(&self) -> Vec<Checkpoint> {
        match self.checkpoints.len() {
            2 => self.checkpoints.clone(),
            _ => Vec::new(),
        }
    }
}

const STEPS: usize = 24;

/// Every run that stops after one more operation than the last, up to one that ends by itself.
fn every_stop(seed: u64, mut each: impl FnMut(&Run, usize)) {
    for stop in 0.. {
        let disk = new_disk();
        disk.stop_after(stop);
        let mut run = Run { disk, history: History::new(seed), checkpoints: Vec::new() };
        let outcome = run.drive(STEPS);
        if run.history.last() > Seq::ZERO {
            each(&run, stop);
        } else {
            check_creation(&run.disk);
        }
        if outcome.is_ok() {
            assert!(stop > 50, "the run has {stop} operations");
            return;
        }
    }
}

/// Creation is staged by the layer above: one that did not return may have left nothing, or no log,
/// or an empty one, but nothing else.
fn check_creation(disk: &SimDisk) {
    for survives in survivals(5) {
        match open(&disk.reboot(survives), &[]) {
            Ok(opened) => assert_eq!(opened.report.last, Seq::ZERO),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
        }
    }
}

fn survivals(seed: u64) -> [Survives; 5] {
    [
        Survives::Everything,
        Survives::Nothing,
        Survives::Some(seed),
        Survives::Some(seed + 1_000),
        Survives::Some(seed + 2_000),
    ]
}

#[test]
fn a_crash_after_every_operation_leaves_a_prefix_with_everything_synced() {
    for seed in 100..108 {
        every_stop(seed, |run, stop| {
            for survives in survivals(stop as u64) {
                let context = format!("seed {seed}, stop {stop}, {survives:?}");
                let disk = run.disk.reboot(survives);
                let mut history = run.history.clone();
                let mut opened =
                    open(&disk, &run.known()).unwrap_or_else(|e| panic!("{e}: {context}"));
                history.check(&opened, &context);

                history.resume(&opened);
                grow(&mut opened.log, &mut history, 5);
                let disk = disk.reboot(Survives::Nothing);
                let again =
                    open(&disk, &run.known()).unwrap_or_else(|e| panic!("again: {e}: {context}"));
                history.check(&again, &context);
            }
        });
    }
}

#[test]
fn a_recovery_that_crashes_after_every_operation_is_repeated_to_the_same_end() {
    for seed in 200..202 {
        every_stop(seed, |run, stop| {
            for survives in [Survives::Nothing, Survives::Some(stop as u64), Survives::Everything] {
                let disk = run.disk.reboot(survives);
                let whole = open(&disk.reboot(Survives::Everything), &run.known());
                let last = whole.expect("opens").report.last;
                // After a mere kill, the next power cut may still take what was never synced.
                let durable = (!matches!(survives, Survives::Everything)).then_some(last);
                for inner in 0.. {
                    let context = format!("seed {seed}, stop {stop}, {survives:?}, inner {inner}");
                    let nested = disk.reboot(Survives::Everything);
                    nested.stop_after(inner);
                    if open(&nested, &run.known()).is_ok() {
                        assert!(inner >= 5, "an open has more operations than {inner}");
                        break;
                    }
                    check_nested(run, &nested, durable, &context);
                }
            }
        });
    }
}

/// What was durable comes back whole, after one more crash of each kind and five more recoveries
/// that crash.
fn check_nested(run: &Run, disk: &SimDisk, durable: Option<Seq>, context: &str) {
    for survives in [Survives::Everything, Survives::Nothing, Survives::Some(77)] {
        let mut disk = disk.reboot(survives);
        let mut random = Random::new(run.history.last().get());
        for depth in 0..5 {
            disk.stop_after(random.below(8) as usize);
            // Whether the stores could be read may differ from one open to the next.
            let known = if random.one_in(2) { run.known() } else { Vec::new() };
            let _ = open(&disk, &known);
            disk = disk.reboot(if depth % 2 == 0 { Survives::Some(depth) } else { survives });
        }
        let context = format!("{context}, then {survives:?}");
        let opened = open(&disk, &run.known()).unwrap_or_else(|e| panic!("{e}: {context}"));
        run.history.check(&opened, &context);
        if let Some(last) = durable {
            assert_eq!(opened.report.last, last, "{context}");
        }
    }
}

#[test]
fn a_kill_during_recovery_never_changes_what_is_recovered() {
    for seed in 300..303 {
        every_stop(seed, |run, stop| {
            let disk = run.disk.reboot(Survives::Some(stop as u64));
            let whole = open(&disk.reboot(Survives::Everything), &run.known());
            let last = whole.expect("opens").report.last;
            let mut random = Random::new(stop as u64);
            for _ in 0..6 {
                disk.stop_after(random.below(9) as usize);
                let _ = open(&disk, &run.known());
            }
            let disk = disk.reboot(Survives::Everything);
            let opened = open(&disk, &run.known()).expect("opens");
            run.history.check(&opened, &format!("seed {seed}, stop {stop}"));
            assert_eq!(opened.report.last, last, "seed {seed}, stop {stop}");
        });
    }
}

#[test]
fn a_refused_operation_during_recovery_costs_nothing() {
    let ops = [Op::Create, Op::Write, Op::Sync, Op::Rename, Op::SyncDir, Op::SetLen];
    for seed in 400..403 {
        every_stop(seed, |run, stop| {
            for op in ops {
                let context = format!("seed {seed}, stop {stop}, {op:?}");
                let disk = run.disk.reboot(Survives::Some(stop as u64));
                disk.fail_next(op, std::io::ErrorKind::Other);
                let refused = open(&disk, &run.known());
                // A file system that failed to sync may forget what can be read of it.
                let disk = disk.reboot(Survives::Everything);
                let mut history = run.history.clone();
                let mut opened =
                    open(&disk, &run.known()).unwrap_or_else(|e| panic!("{e}: {context}"));
                history.check(&opened, &context);
                drop(refused);
                history.resume(&opened);
                grow(&mut opened.log, &mut history, 6);
                let disk = disk.reboot(Survives::Nothing);
                let again =
                    open(&disk, &run.known()).unwrap_or_else(|e| panic!("again: {e}: {context}"));
                history.check(&again, &context);
            }
        });
    }
}

#[test]
fn a_checkpoint_found_later_does_not_make_an_interrupted_open_look_like_damage() {
    let (disk, mut history) = (new_disk(), History::new(500));
    let mut log = create(&disk, LogOptions { segment_size_bytes: 1 << 20, faults: Faults::NONE })
        .expect("works");
    for frames in [2, 4] {
        for _ in 0..frames {
            history.append(&mut log);
        }
        log.write_group().expect("works");
        history.acknowledged = log.sync().expect("works");
    }
    drop(log);
    // The log alone proves 2, so the new segment begins with 3; its elder is not sealed any more.
    disk.fail_next(Op::SetLen, std::io::ErrorKind::Other);
    assert!(open(&disk, &[]).is_err());
    assert_eq!(segments(&disk).len(), 2);
    let checkpoint = [history.checkpoint(6)];
    let mut opened = open(&disk, &checkpoint).expect("nothing is damaged");
    history.check(&opened, "");
    history.resume(&opened);
    grow(&mut opened.log, &mut history, 10);
    let disk = disk.reboot(Survives::Nothing);
    history.check(&open(&disk, &[]).expect("every segment is sealed"), "");
}

//! Damage to a closed log: a torn tail is cut, everything else is reported, nothing is skipped.

use super::*;
use crate::wal::frame::HEADER_BYTES;

/// A log in a single segment whose frame n proves n - 1.
fn single(count: usize) -> (SimDisk, History, PathBuf) {
    let (disk, mut history) = (new_disk(), History::new(21));
    let mut log = create(&disk, LogOptions { segment_size_bytes: 8 << 10, faults: Faults::NONE })
        .expect("works");
    grow(&mut log, &mut history, count);
    history.acknowledged = Seq::ZERO;
    (disk, history, path_of(&dir(), Seq::new(1)))
}

/// A log of at least three segments, of which the last has at least two frames.
fn several() -> (SimDisk, History, Vec<PathBuf>) {
    let (disk, mut history) = (new_disk(), History::new(22));
    let mut log = create(&disk, SMALL).expect("works");
    while segments(&disk).len() < 3 {
        grow(&mut log, &mut history, 1);
    }
    grow(&mut log, &mut history, 1);
    history.acknowledged = Seq::ZERO;
    let paths = segments(&disk);
    assert_eq!(paths.len(), 3);
    assert!(frames_in(&disk, &paths[2]).len() >= 2);
    (disk, history, paths)
}

fn with(disk: &SimDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> SimDisk {
    let damaged = disk.reboot(Survives::Everything);
    let mut bytes = damaged.content(path);
    change(&mut bytes);
    damaged.put(path, bytes);
    damaged
}

/// Opens, checks the prefix, and checks that opening again finds the same and nothing to cut.
fn check_cut(disk: &SimDisk, history: &History, last: Seq, context: &str) -> LogReport {
    let opened = open(disk, &[]).unwrap_or_else(|e| panic!("{e} {context}"));
    history.check(&opened, context);
    assert_eq!(opened.report.last, last, "{context}");
    let again = open(disk, &[]).unwrap_or_else(|e| panic!("again: {e} {context}"));
    history.check(&again, context);
    assert_eq!((again.report.last, again.report.cut), (last, None), "again {context}");
    opened.report
}

#[test]
fn torn_tail_is_cut_at_every_byte_length() {
    let (disk, history, path) = single(5);
    let frames = frames_in(&disk, &path);
    for len in FRAMES_AT as usize..=frames[4].1.end {
        let torn = with(&disk, &path, |bytes| bytes.truncate(len));
        let whole = frames.iter().filter(|(_, range)| range.end <= len).count();
        let report = check_cut(&torn, &history, Seq::new(whole as u64), &format!("at {len}"));
        let start = frames.get(whole).map_or(len, |(_, range)| range.start);
        match report.cut {
            Some(cut) => {
                assert_eq!((cut.offset, cut.frames), (start as u64, 0));
                assert!(cut.size_bytes > 0 && cut.size_bytes <= (len - start) as u64);
                assert_eq!(cut.segment, path);
            }
            None => assert_eq!(len, start, "a torn frame is reported"),
        }
        let checkpoint = [history.checkpoint(4)];
        let torn = with(&disk, &path, |bytes| bytes.truncate(len));
        let opened = open(&torn, &checkpoint);
        if whole >= 4 {
            history.check(&opened.expect("nothing proven is lost"), "");
        } else {
            let seq = Seq::new(whole as u64 + 1);
            assert!(matches!(opened, Err(Error::CorruptLog { seq: at, offset, .. })
                if at == seq && offset == start as u64));
        }
    }
}

#[test]
fn a_tail_of_zeros_is_cut_from_every_byte() {
    let (disk, history, path) = single(4);
    let frames = frames_in(&disk, &path);
    for from in FRAMES_AT as usize..=frames[3].1.end {
        let zeroed = with(&disk, &path, |bytes| bytes[from..].fill(0));
        let last = check_cut_zeroed(&zeroed, &history, from);
        let whole = frames.iter().filter(|(_, range)| range.end <= from).count() as u64;
        // A frame that ended in zeros anyway lost nothing.
        assert!(last == whole || last == whole + 1, "{last} of {whole} from {from}");
    }
}

fn check_cut_zeroed(disk: &SimDisk, history: &History, from: usize) -> u64 {
    let opened = open(disk, &[]).unwrap_or_else(|e| panic!("{e}, zeros from {from}"));
    history.check(&opened, "zeros");
    opened.report.last.get()
}

#[test]
fn garbage_after_the_last_frame_is_cut() {
    let (disk, history, path) = single(4);
    let end = frames_in(&disk, &path)[3].1.end;
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let garbage: Vec<u8> =
            (0..=random.below(2_000)).map(|_| random.next_u64() as u8 | 1).collect();
        let damaged = with(&disk, &path, |bytes| {
            bytes.truncate(end);
            bytes.extend_from_slice(&garbage);
        });
        let report = check_cut(&damaged, &history, Seq::new(4), &format!("seed {seed}"));
        let cut = report.cut.expect("reported");
        assert_eq!((cut.offset, cut.size_bytes), (end as u64, garbage.len() as u64));
    }
}

#[test]
fn every_flipped_bit_is_damage_through_the_proven_position_and_a_cut_above() {
    let (disk, history, paths) = several();
    let last = history.last();
    let proven = Seq::new(last.get() - 1);
    let checkpoint = [history.checkpoint(proven.get())];
    for path in &paths {
        let frames = frames_in(&disk, path);
        for bit in 0..disk.content(path).len() * 8 {
            let byte = bit / 8;
            let damaged = with(&disk, path, |bytes| bytes[byte] ^= 1 << (bit % 8));
            let hit = frames.iter().find(|(_, range)| range.contains(&byte));
            // The log alone proves what the checkpoint does, by the mark of its last frame or by
            // the one before.
            let checkpoints: &[Checkpoint] = if bit % 2 == 0 { &checkpoint } else { &[] };
            let opened = open(&damaged, checkpoints);
            let context = format!("bit {bit} of {}", path.display());
            match hit {
                Some(&(seq, ref range)) if seq == last => {
                    let opened = opened.unwrap_or_else(|e| panic!("{e} {context}"));
                    history.check(&opened, &context);
                    assert_eq!(opened.report.last, proven, "{context}");
                    let cut = opened.report.cut.expect("reported");
                    assert_eq!((cut.seq, cut.offset), (last, range.start as u64), "{context}");
                }
                None if byte >= FRAMES_AT as usize => {
                    let opened = opened.unwrap_or_else(|e| panic!("{e} {context}"));
                    history.check(&opened, &context);
                    assert_eq!(opened.report.last, last, "{context}");
                    assert!(opened.report.cut.is_some(), "{context}");
                }
                _ => assert!(is_log_damage(&opened), "{context}: {:?}", opened.err()),
            }
        }
    }
}

#[test]
fn a_bad_frame_is_found_proven_by_a_later_one_even_in_the_middle_of_garbage() {
    let (disk, _, path) = single(6);
    let frames = frames_in(&disk, &path);
    // Frames 3 and 4 are gone; frame 5 still proves 4, wherever it lies.
    for shift in 0..5 {
        let damaged = with(&disk, &path, |bytes| {
            let fifth = bytes[frames[4].1.clone()].to_vec();
            bytes.truncate(frames[2].1.start);
            bytes.extend(std::iter::repeat_n(0xff, 200 + shift));
            bytes.extend_from_slice(&fifth);
        });
        let opened = open(&damaged, &[]);
        assert!(matches!(opened, Err(Error::CorruptLog { seq, offset, .. })
            if seq == Seq::new(3) && offset == frames[2].1.start as u64));
    }
}

#[test]
fn a_torn_body_does_not_take_the_proof_in_its_header_away() {
    let (disk, _, path) = single(3);
    let frames = frames_in(&disk, &path);
    let damaged = with(&disk, &path, |bytes| {
        bytes[frames[1].1.start] ^= 1;
        bytes.truncate(frames[2].1.start + HEADER_BYTES);
    });
    assert!(is_log_damage(&open(&damaged, &[])));
}

#[test]
fn the_largest_length_is_refused_before_anything_is_sized_by_it() {
    let (disk, history, path) = single(4);
    for (seq, range) in frames_in(&disk, &path) {
        let damaged =
            with(&disk, &path, |bytes| bytes[range.start + 4..range.start + 8].fill(0xff));
        if seq == history.last() {
            check_cut(&damaged, &history, Seq::new(3), "length");
        } else {
            assert!(is_log_damage(&open(&damaged, &[])));
        }
    }
}

#[test]
fn duplicated_frames_break_the_chain() {
    let (disk, history, path) = single(4);
    for (seq, range) in frames_in(&disk, &path) {
        let damaged = with(&disk, &path, |bytes| {
            let copy = bytes[range.clone()].to_vec();
            bytes.splice(range.end..range.end, copy);
        });
        if seq.next() >= history.last() {
            // What follows was never proven, whole as it is.
            let report = check_cut(&damaged, &history, seq, "duplicated");
            let frames = history.last().get() - seq.get() + 1;
            assert_eq!(report.cut.expect("reported").frames, frames);
        } else {
            let opened = open(&damaged, &[]);
            assert!(matches!(opened, Err(Error::CorruptLog { seq: at, .. }) if at == seq.next()));
        }
    }
}

#[test]
fn swapped_and_removed_frames_break_the_chain() {
    let (disk, history, path) = single(5);
    let frames = frames_in(&disk, &path);
    for pair in frames.windows(2) {
        let [(seq, first), (_, second)] = pair else { panic!("windows of two") };
        let swapped = with(&disk, &path, |bytes| {
            let mut both = bytes[second.clone()].to_vec();
            both.extend_from_slice(&bytes[first.clone()]);
            bytes[first.start..second.end].copy_from_slice(&both);
        });
        assert!(
            matches!(open(&swapped, &[]), Err(Error::CorruptLog { seq: at, .. }) if at == *seq)
        );
        let removed = with(&disk, &path, |bytes| drop(bytes.drain(first.clone())));
        assert!(
            matches!(open(&removed, &[]), Err(Error::CorruptLog { seq: at, .. }) if at == *seq)
        );
    }
    let removed = with(&disk, &path, |bytes| drop(bytes.drain(frames[4].1.clone())));
    check_cut(&removed, &history, Seq::new(4), "the last one removed");
}

#[test]
fn a_frame_of_another_history_in_the_place_of_ours_breaks_the_chain() {
    let (disk, history, path) = single(5);
    let (other, mut random) = (new_disk(), History::new(21).random);
    let mut log = create(&other, LogOptions { segment_size_bytes: 8 << 10, faults: Faults::NONE })
        .expect("works");
    for _ in 0..5 {
        let mut entry = Entry::random(&mut random);
        entry.kind ^= 1;
        entry.append_to(&mut log);
        log.write_group().expect("works");
        log.sync().expect("works");
    }
    let (frames, theirs) = (frames_in(&disk, &path), other.content(&path));
    assert_eq!(frames, frames_in(&other, &path), "the same sequences in the same places");
    for (seq, range) in frames {
        let damaged = with(&disk, &path, |bytes| {
            bytes[range.clone()].copy_from_slice(&theirs[range.clone()]);
        });
        // The first one has no predecessor: the second is the one that does not follow.
        let broken = seq.max(Seq::new(2));
        if broken == history.last() {
            check_cut(&damaged, &history, Seq::new(4), "the last one is another's");
        } else {
            let opened = open(&damaged, &[]);
            assert!(matches!(opened, Err(Error::CorruptLog { seq: at, .. }) if at == broken));
        }
    }
}

#[test]
fn a_missing_segment_in_the_middle_is_a_gap() {
    let (disk, history, paths) = several();
    let damaged = disk.reboot(Survives::Everything);
    damaged.delete(&paths[1]);
    let frames = frames_in(&disk, &paths[1]);
    let (from, to) = (frames[0].0, frames[frames.len() - 1].0);
    for checkpoints in [&[][..], &[history.checkpoint(from.get())]] {
        assert!(matches!(open(&damaged, checkpoints), Err(Error::LogGap { from: f, to: t })
            if f == from && t == to));
    }
    // Two stores stand behind the hole: a truncation was interrupted there.
    let checkpoints = [history.checkpoint(to.get()), history.checkpoint(to.get() + 1)];
    let opened = open(&damaged, &checkpoints).expect("nothing needed is missing");
    history.check(&opened, "behind the hole");
    assert_eq!(opened.report.hole, Some((from, to)));
    // What lay before the hole serves nobody and is gone: an open log has no hole.
    let as_is = Scan::run(damaged.shared(), dir(), DATABASE).and_then(Scan::resolve_as_is);
    as_is.map(drop).expect("whole");
    let again = open(&damaged, &checkpoints).expect("opens again");
    history.check(&again, "behind the hole");
    assert_eq!(again.report.hole, None, "the truncation is finished");
}

#[test]
fn a_missing_oldest_segment_needs_a_checkpoint_that_covers_it() {
    let (disk, history, paths) = several();
    let damaged = disk.reboot(Survives::Everything);
    damaged.delete(&paths[0]);
    let to = frames_in(&disk, &paths[0]).pop().expect("frames").0;
    assert!(matches!(open(&damaged, &[]), Err(Error::LogGap { from, to: t })
        if from == Seq::new(1) && t == to));
    let behind = [history.checkpoint(to.get() - 1), history.checkpoint(to.get() + 1)];
    assert!(is_log_damage(&open(&damaged, &behind)), "the older store needs what is missing");
    history.check(&open(&damaged, &[history.checkpoint(to.get())]).expect("opens"), "");
}

#[test]
fn a_missing_last_segment_is_damage_because_the_one_before_is_sealed() {
    let (disk, history, paths) = several();
    disk.delete(&paths[2]);
    assert!(is_log_damage(&open(&disk, &[])));
    assert!(is_log_damage(&open(&disk, &[history.checkpoint(1)])));
}

#[test]
fn a_directory_without_segments_is_corrupt() {
    let (disk, _, path) = single(1);
    disk.delete(&path);
    assert!(is_corrupt(&open(&disk, &[])));
}

#[test]
fn a_segment_under_another_number_is_refused() {
    let (disk, history, paths) = several();
    let content = disk.content(&paths[1]);
    for number in [2, history.last().get() + 1] {
        let damaged = disk.reboot(Survives::Everything);
        damaged.put(&path_of(&dir(), Seq::new(number)), content.clone());
        assert!(matches!(open(&damaged, &[]), Err(Error::Corrupt { .. })), "{number}");
    }
}

#[test]
fn a_segment_of_another_database_is_refused() {
    let (disk, mut history, paths) = several();
    let other = new_disk();
    let id = DatabaseId::new([2; 16]);
    let mut log = Log::create(other.shared(), dir(), id, SMALL).expect("works");
    history.entries.clear();
    history.hashes.truncate(1);
    history.random = Random::new(22);
    while segments(&other).len() < 3 {
        grow(&mut log, &mut history, 1);
    }
    assert_eq!(segments(&other), paths, "the same frames fill the same segments");
    for path in paths {
        let damaged = disk.reboot(Survives::Everything);
        damaged.put(&path, other.content(&path));
        assert!(matches!(open(&damaged, &[]), Err(Error::Corrupt { .. })));
    }
}

#[test]
fn a_segment_of_another_history_of_the_same_database_is_refused() {
    let (disk, _, paths) = several();
    let (other, mut history) = (new_disk(), History::new(22));
    let mut log = create(&other, SMALL).expect("works");
    while segments(&other).len() < 3 {
        let mut entry = Entry::random(&mut history.random);
        entry.kind ^= 1;
        entry.append_to(&mut log);
        log.write_group().expect("works");
        log.sync().expect("works");
    }
    assert_eq!(segments(&other), paths, "frames of the same size fill the same segments");
    for path in paths {
        let damaged = disk.reboot(Survives::Everything);
        damaged.put(&path, other.content(&path));
        assert!(is_log_damage(&open(&damaged, &[])));
    }
}

#[test]
fn a_checkpoint_of_another_history_is_refused() {
    let (disk, history, _) = several();
    for seq in 1..=history.last().get() {
        let (at, mut hash) = history.checkpoint(seq);
        let opened = open(&disk.reboot(Survives::Everything), &[(at, hash)]);
        history.check(&opened.expect("the same history"), "");
        hash[0] ^= 1;
        assert!(matches!(open(&disk, &[(at, hash)]), Err(Error::Corrupt { .. })), "{seq}");
    }
}

#[test]
fn a_checkpoint_behind_the_end_of_the_log_is_damage() {
    let (disk, history, _) = several();
    let opened = open(&disk, &[(history.last().next(), [0; 16])]);
    assert!(matches!(opened, Err(Error::CorruptLog { seq, .. }) if seq == history.last().next()));
}

#[test]
fn a_segment_cut_to_nothing_or_to_its_header_is_a_gap_in_the_middle_and_damage_at_the_end() {
    let (disk, history, paths) = several();
    let first = |index: usize| frames_in(&disk, &paths[index])[0].0;
    for len in [0, FRAMES_AT as usize] {
        let middle = with(&disk, &paths[1], |bytes| {
            // Its seal would show that there were frames.
            bytes[512..].fill(0);
            bytes.truncate(len);
        });
        assert!(
            matches!(open(&middle, &[]), Err(Error::LogGap { from, to })
            if from == first(1) && to.next() == first(2)),
            "{len}"
        );
    }
    let empty = with(&disk, &paths[2], Vec::clear);
    assert!(is_log_damage(&open(&empty, &[])), "its header was durable: its elder is sealed");
    let empty = with(&disk, &paths[2], |bytes| bytes.truncate(FRAMES_AT as usize));
    check_cut(&empty, &history, Seq::new(first(2).get() - 1), "header only");
    let empty = with(&disk, &paths[2], |bytes| bytes.truncate(FRAMES_AT as usize));
    let checkpoint = [history.checkpoint(first(2).get())];
    assert!(is_log_damage(&open(&empty, &checkpoint)));
}

#[test]
fn an_empty_file_that_a_roll_left_is_removed() {
    let (disk, history, _) = single(3);
    for content in [vec![], vec![0; 700], vec![9; 700]] {
        let damaged = disk.reboot(Survives::Everything);
        let unborn = path_of(&dir(), Seq::new(4));
        damaged.put(&unborn, content.clone());
        let opened = open(&damaged, &[]).expect("opens");
        history.check(&opened, "");
        assert_eq!(opened.report.cut.is_some(), content.contains(&9));
        assert!(!segments(&damaged).contains(&unborn));
        assert!(is_log_damage(&open(
            &{
                let other = disk.reboot(Survives::Everything);
                other.put(&unborn, content);
                other
            },
            &[history.checkpoint(3), (Seq::new(4), [0; 16])]
        )));
    }
}

#[test]
fn a_body_that_quotes_a_frame_of_another_database_proves_nothing() {
    let (quoted, _, path) = single(5);
    let image = quoted.content(&path)[FRAMES_AT as usize..].to_vec();
    let id = DatabaseId::new([3; 16]);
    let disk = new_disk();
    let mut log = Log::create(
        disk.shared(),
        dir(),
        id,
        LogOptions { segment_size_bytes: 1 << 20, faults: Faults::NONE },
    )
    .expect("works");
    log.append(Timestamp::EPOCH, &FrameBody::new(1, 1, image).expect("small"));
    log.write_group().expect("works");
    let damaged = with(&disk, &path, |bytes| bytes[FRAMES_AT as usize] ^= 1);
    let tail = Scan::run(damaged.shared(), dir(), id).expect("scans").resolve(&[]).expect("a cut");
    assert_eq!((tail.last(), tail.proven()), (Seq::ZERO, Seq::ZERO));
    assert!(tail.cut().is_some_and(|cut| cut.frames == 0));
}

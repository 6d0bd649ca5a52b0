//! Damage to the log.

use tidal_support::damage::segments::{
    BODY_LENGTH_AT, FRAME_HEADER_BYTES, FRAMES_AT, Frame, SEAL_AT, Segment,
};
use tidal_support::damage::{Case, Edit};
use tidal_support::random::Random;

use crate::judge::{Expected, Named, Names, Plan};
use crate::scene::{Base, End, Scene, Sitting};
use crate::{alone, masks, scale};

/// How far behind the end of the log bytes are flipped.
const BEHIND_END_BYTES: u64 = 600;

/// Of so many offsets one is overwritten in the short run; every one is cut at.
const SAMPLED: u64 = 4;

/// Three segments of a log that reaches back to the first operation, and stores with checkpoints in
/// the middle of two of them.
const KILLED: [Sitting; 3] = [
    Sitting { through: 8, checkpoints: 1, then_through: 10 },
    Sitting { through: 16, checkpoints: 1, then_through: 18 },
    Sitting { through: 27, checkpoints: 0, then_through: 27 },
];

/// The same, where the last checkpoint is the one of closing.
const CLOSED: [Sitting; 3] = [
    Sitting { through: 8, checkpoints: 1, then_through: 10 },
    Sitting { through: 18, checkpoints: 0, then_through: 18 },
    Sitting { through: 27, checkpoints: 0, then_through: 27 },
];

/// Two databases with the same operations and a log of some 10 kB, one closed and one killed.
pub(crate) fn small(seed: u64) -> (Scene, Base, Base) {
    for attempt in 0.. {
        let scene = Scene::new(seed.wrapping_add(attempt), 27);
        let killed = scene.write("killed", &KILLED, End::Killed);
        if (8_000..13_000).contains(&killed.log_size_bytes()) {
            let closed = scene.write("closed", &CLOSED, End::Closed);
            for base in [&closed, &killed] {
                let [size, segments] = [base.log_size_bytes(), base.segments.len() as u64];
                println!("{}: {size} bytes in {segments} segments", base.name);
                println!("  frames {}, checkpoints {:?}", base.last(), base.checkpoints);
            }
            return (scene, closed, killed);
        }
    }
    unreachable!("some seed has a log of that size");
}

/// What is right when the bytes of one segment are others, by a second reading of the rule: what is
/// proven by what is left decides whether the first bad frame is a torn tail or damage.
fn expected(base: &Base, index: usize, damaged: &[u8]) -> Expected {
    let segment = &base.segments[index];
    let corrupt = Expected::Refused(&["CorruptLog"], Names::File(segment.file.clone()));
    let is_last = index + 1 == base.segments.len();
    if damaged.get(..SEAL_AT as usize) != Some(&segment.bytes[..SEAL_AT as usize]) {
        // Of a segment of which nothing is left, all that is known is what is missing.
        return match damaged.iter().all(|&byte| byte == 0) && !is_last {
            true => Expected::Refused(&["LogGap"], Names::Sequences),
            false => corrupt,
        };
    }
    let block = |bytes: &[u8]| {
        let mut seal = bytes.get(SEAL_AT as usize..).unwrap_or_default().to_vec();
        seal.resize((FRAMES_AT - SEAL_AT) as usize, 0);
        seal
    };
    let is_intact = |frame: &&Frame| {
        let range = frame.offset as usize..(frame.offset + frame.size_bytes) as usize;
        damaged.get(range) == Some(segment.frame_bytes(frame))
    };
    let behind = |offset: u64| {
        let rest = damaged.get(offset as usize..).unwrap_or_default();
        if rest.iter().all(|&byte| byte == 0) { Named::No } else { Named::Yes }
    };
    let bad = segment.frames.iter().find(|frame| !is_intact(frame));
    if block(damaged) != block(&segment.bytes) {
        // Without a seal that says how many there were, frames that just end are a gap.
        return match bad {
            Some(bad) if !is_last && behind(bad.offset) == Named::No => {
                Expected::Refused(&["LogGap"], Names::Sequences)
            }
            _ => corrupt,
        };
    }
    match bad {
        None if is_last => Expected::Whole(behind(segment.end)),
        // Behind a sealed end nothing is looked at.
        None => Expected::Whole(Named::No),
        Some(bad) if bad.seq <= proven(base, index, damaged) => corrupt,
        Some(bad) => Expected::Through(bad.seq - 1, behind(bad.offset)),
    }
}

/// The highest sequence that is proven synced when the frames of one segment are damaged.
fn proven(base: &Base, index: usize, damaged: &[u8]) -> u64 {
    let headers = base.segments.iter().map(|segment| segment.first - 1);
    let seals = base.segments.iter().filter_map(|segment| segment.sealed);
    let others = base.segments.iter().enumerate().filter(|(i, _)| *i != index);
    let marks = others.flat_map(|(_, segment)| &segment.frames).map(|frame| frame.synced);
    // A header that verifies proves its mark wherever it lies.
    let segment = &base.segments[index];
    let own = segment.frames.iter().filter(|frame| {
        let header = &segment.frame_bytes(frame)[..FRAME_HEADER_BYTES as usize];
        let at = frame.offset as usize;
        damaged.get(at..at + header.len()) == Some(header)
            || damaged.windows(header.len()).any(|window| window == header)
    });
    let own = own.map(|frame| frame.synced);
    let checkpoints = base.checkpoints.iter().copied();
    headers.chain(seals).chain(marks).chain(own).chain(checkpoints).max().expect("a header")
}

/// A case that changes the bytes of one segment to others of the same or another length.
fn add(plan: &mut Plan, class: &'static str, base: &Base, index: usize, edit: Edit) {
    let segment = &base.segments[index];
    let mut damaged = segment.bytes.clone();
    match &edit {
        Edit::Flip(_, offset, mask) => damaged[*offset as usize] ^= mask,
        Edit::Resize(_, size) => damaged.resize(*size as usize, 0),
        Edit::Zeros(_, offset, size) => put(&mut damaged, *offset, &vec![0; *size as usize]),
        Edit::Write(_, offset, bytes) => put(&mut damaged, *offset, bytes),
        Edit::Garbage(_, offset, size, seed) => {
            let mut random = Random::new(*seed);
            let bytes: Vec<u8> = (0..*size).map(|_| random.below(256) as u8).collect();
            put(&mut damaged, *offset, &bytes);
        }
        other => unreachable!("{other} is not one of a segment's bytes"),
    }
    plan.add(class, Case::new(&base.name, [edit]), expected(base, index, &damaged));
}

fn put(bytes: &mut Vec<u8>, offset: u64, new: &[u8]) {
    let (from, to) = (offset as usize, offset as usize + new.len());
    bytes.resize(bytes.len().max(to), 0);
    bytes[from..to].copy_from_slice(new);
}

/// Where bytes of a segment are flipped: everything used, and some of the zeros behind the end.
fn swept(segment: &Segment) -> std::ops::Range<u64> {
    0..segment.size_bytes.min(segment.end + BEHIND_END_BYTES)
}

/// The segments to sweep: all of the closed database, and of the killed one the last, since those
/// before it are sealed in both.
fn differing<'a>(base: &'a Base, closed: &Base) -> impl Iterator<Item = (usize, &'a Segment)> {
    let sealed = base.segments.len() - 1;
    let skipped = if base.name == closed.name { 0 } else { sealed };
    base.segments.iter().enumerate().skip(skipped)
}

#[test]
fn every_flipped_byte_of_the_log_is_refused_or_ends_it_where_nothing_was_proven() {
    let _alone = alone();
    let (seed, bits) = scale();
    let (scene, closed, killed) = small(seed);
    let mut random = Random::new(seed);
    let mut plan = Plan::default();
    for (base, class) in [(&closed, "closed: a bit flipped"), (&killed, "killed: a bit flipped")] {
        for (index, segment) in base.segments.iter().enumerate() {
            for offset in swept(segment) {
                for mask in masks(&mut random, bits) {
                    let flip = Edit::Flip(segment.file.clone(), offset, mask);
                    add(&mut plan, class, base, index, flip);
                }
            }
        }
    }
    let table = plan.run(&scene, &[&closed, &killed]);
    let [closed, killed] = ["closed: a bit flipped", "killed: a bit flipped"].map(|c| table[c]);
    assert!(closed.refused > 6_000 && killed.refused > 1_000, "damage is refused");
    assert!(killed.cut > 100, "what was not proven is cut");
}

#[test]
fn a_log_cut_zeroed_or_overwritten_from_any_byte_on_is_refused_or_ends_there() {
    let _alone = alone();
    let (seed, bits) = scale();
    let (scene, closed, killed) = small(seed);
    let mut plan = Plan::default();
    for base in [&closed, &killed] {
        for (index, segment) in differing(base, &closed) {
            for offset in 0..=segment.end {
                let file = || segment.file.clone();
                let rest = segment.end - offset;
                add(&mut plan, "cut", base, index, Edit::Resize(file(), offset));
                if bits == 1 && !(offset + seed).is_multiple_of(SAMPLED) {
                    continue;
                }
                add(&mut plan, "zeroed", base, index, Edit::Zeros(file(), offset, rest));
                let garbage = Edit::Garbage(file(), offset, rest + 200, seed ^ offset);
                add(&mut plan, "overwritten", base, index, garbage);
            }
        }
    }
    let table = plan.run(&scene, &[&closed, &killed]);
    assert!(table["cut"].refused > 8_000);
    assert!(table.values().all(|counts| counts.refused > 8_000 / SAMPLED));
    assert!(table["overwritten"].cut > 100, "garbage above what was proven is cut");
}

#[test]
fn frames_that_are_misplaced_are_no_frames() {
    let _alone = alone();
    let (seed, _) = scale();
    let (scene, closed, killed) = small(seed);
    let mut plan = Plan::default();
    for base in [&closed, &killed] {
        for (index, segment) in base.segments.iter().enumerate() {
            for (at, frame) in segment.frames.iter().enumerate() {
                let file = || segment.file.clone();
                let length = Edit::Write(file(), frame.offset + BODY_LENGTH_AT, vec![0xff; 4]);
                add(&mut plan, "a length of 4 GiB", base, index, length);
                // The rest of the segment moves; in a sealed one beyond its end.
                let own = segment.frame_bytes(frame);
                let after = (frame.offset + frame.size_bytes) as usize;
                let rest = &segment.bytes[after..segment.end as usize];
                let twice = Edit::Write(file(), after as u64, [own, rest].concat());
                add(&mut plan, "a frame twice", base, index, twice);
                let zeros = vec![0; own.len()];
                let removed = Edit::Write(file(), frame.offset, [rest, &zeros].concat());
                add(&mut plan, "a frame removed", base, index, removed);
                let Some(next) = segment.frames.get(at + 1) else { continue };
                let swapped = [segment.frame_bytes(next), own].concat();
                let swapped = Edit::Write(file(), frame.offset, swapped);
                add(&mut plan, "two frames swapped", base, index, swapped);
            }
        }
    }
    let table = plan.run(&scene, &[&closed, &killed]);
    assert!(table.values().all(|counts| counts.cases >= 50 && counts.refused >= 30));
}

/// Log of several full segments above and below the checkpoints.
const LONG: [Sitting; 3] = [
    Sitting { through: 260, checkpoints: 1, then_through: 300 },
    Sitting { through: 300, checkpoints: 0, then_through: 560 },
    Sitting { through: 560, checkpoints: 0, then_through: 700 },
];

#[test]
fn segments_that_are_missing_misnamed_or_of_another_database_are_noticed() {
    let _alone = alone();
    let (seed, _) = scale();
    let scene = Scene::new(seed, 700);
    let long = scene.write("long", &LONG, End::Dropped);
    let other = scene.write("other", &LONG, End::Dropped);
    assert!(long.segments.len() >= 5, "only {} segments", long.segments.len());
    let newest = long.checkpoints.into_iter().max().expect("two");
    println!("{} segments, checkpoints {:?}", long.segments.len(), long.checkpoints);
    let mut plan = Plan::default();
    let mut add = |class, edits: Vec<Edit>, expected| {
        plan.add(class, Case::new("long", edits).twice(), expected);
    };
    let last = long.segments.len() - 1;
    for (index, segment) in long.segments.iter().enumerate() {
        let file = || segment.file.clone();
        let remove = vec![Edit::Remove(file())];
        let end = segment.frames.last().expect("a frame").seq;
        let gap = || Expected::Refused(&["LogGap"], Names::Sequences);
        match index {
            _ if index == last => {
                let before = Names::File(long.segments[index - 1].file.clone());
                add("last segment missing", remove, Expected::Refused(&["CorruptLog"], before));
            }
            // Below every checkpoint that is needed, what is missing was truncated.
            _ if end <= newest => {
                add("old segment missing", remove, Expected::Whole(Named::IfLost));
            }
            _ => add("middle segment missing", remove, gap()),
        }
        let misnamed = "log/00000000000000099999.seg".to_owned();
        let wrong_name = || Expected::Refused(&["Corrupt"], Names::File(misnamed.clone()));
        let copy = Edit::Bring(format!("long/{}", file()), misnamed.clone());
        add("segment under a second name", vec![copy], wrong_name());
        let rename = Edit::Rename(file(), misnamed.clone());
        add("segment under another name", vec![rename], wrong_name());
        let theirs = &other.segments[index.min(other.segments.len() - 1)].file;
        let bring = Edit::Bring(format!("other/{theirs}"), theirs.clone());
        let foreign = Expected::Refused(&["Corrupt"], Names::File(theirs.clone()));
        add("segment of another database", vec![bring], foreign);
        let bring = Edit::Bring(format!("long/{}", file()), "log/00000000000000099999.tmp".into());
        add("segment that never got its name", vec![bring], Expected::Whole(Named::No));
    }
    for [one, other] in long.segments.array_windows() {
        let aside = || "log/aside".to_owned();
        let swap = vec![
            Edit::Rename(one.file.clone(), aside()),
            Edit::Rename(other.file.clone(), one.file.clone()),
            Edit::Rename(aside(), other.file.clone()),
        ];
        let names = Names::File(other.file.clone());
        add("segments swapped", swap, Expected::Refused(&["Corrupt"], names));
    }
    let of_log = || Names::File("log".to_owned());
    let lost = Expected::Refused(&["Corrupt"], of_log());
    add("log missing", vec![Edit::Remove("log".to_owned())], lost.clone());
    let emptied = long.segments.iter().map(|segment| Edit::Remove(segment.file.clone()));
    add("log emptied", emptied.collect(), lost.clone());
    add("log of another database", vec![Edit::Bring("other/log".into(), "log".into())], lost);
    let table = plan.run(&scene, &[&long]);
    assert!(table["middle segment missing"].refused >= 1);
    assert!(table["old segment missing"].cases >= 1);
}

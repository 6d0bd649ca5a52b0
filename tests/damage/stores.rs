//! Damage to the checkpoint stores, and to the small files beside them: never an error where the log
//! reaches back to what is left.

use tidal_support::copy_dir;
use tidal_support::damage::{Case, Edit, State, Tree};
use tidal_support::operations::{apply, ephemeral, try_apply};
use tidal_support::random::Random;
use tidaldb::TidalDb;

use crate::judge::{Expected, Named, Names, Plan};
use crate::scene::{Base, End, Scene, Sitting, open};
use crate::{alone, masks, scale};

/// How far behind the end of a preallocated file bytes are flipped.
const BEHIND_END_BYTES: u64 = 64;

/// Smaller files are cut at every length, of larger ones every so many in the short run.
const SMALL_FILE_BYTES: usize = 400;
const CUT_SAMPLED: u64 = 3;

/// The bytes of both stores of a small database, and the cells that fit into them.
const PAIR_SIZE_BYTES_MAX: usize = 19_000;
const PAIR_CELLS_MAX: u64 = 40;

/// A database with small stores, two checkpoints in each, and a log that reaches back to the first
/// operation, because all of them are in the middle of its first segment. `older` is what it was
/// before the second checkpoints, `other` is another one with the same operations, and `young` and
/// `void` have nothing.
fn pair(seed: u64) -> (Scene, Base) {
    let is_small = |seed: &u64| {
        let db = ephemeral();
        try_apply(&db, *seed, 0..9, &mut |_| ()).is_ok() && db.status().cells <= PAIR_CELLS_MAX
    };
    for seed in (seed..).filter(is_small) {
        let scene = Scene::new(seed, 9);
        write_pair(&scene, "pair");
        let size = used_size(&scene, "pair");
        if size > PAIR_SIZE_BYTES_MAX {
            continue;
        }
        write_pair(&scene, "other");
        drop(open(&scene.path().join("young")));
        std::fs::create_dir(scene.path().join("void")).expect("a directory");
        let mut base = scene.base("pair", 9);
        base.without_newest = Some(without_newest(&scene));
        assert_eq!(base.first(), 1, "the log reaches back to the first operation");
        println!("seed {seed}: two stores of {size} bytes, checkpoints {:?}", base.checkpoints);
        return (scene, base);
    }
    unreachable!("some seed has stores of that size");
}

fn write_pair(scene: &Scene, name: &str) {
    let path = scene.path().join(name);
    let db = open(&path);
    let write = |db: &TidalDb, range| apply(db, scene.seed(), range, &mut |_| ());
    for (range, copy) in [(0..3, Some("older")), (3..5, None)] {
        write(&db, range);
        for _ in 0..2 {
            db.checkpoint().expect("a checkpoint");
        }
        if let Some(copy) = copy.filter(|_| name == "pair") {
            scene.keep(name, copy);
        }
    }
    write(&db, 5..6);
    drop(db);
    let db = open(&path);
    write(&db, 6..9);
    drop(db);
    // Opened once more, so that the journals have their last size.
    drop(open(&path));
}

/// Store b was written last.
fn without_newest(scene: &Scene) -> String {
    let path = scene.path().join("without-newest");
    scene.keep("pair", "without-newest");
    let store = path.join("store/b");
    std::fs::remove_dir_all(&store).expect("it is removed");
    copy_dir(&scene.path().join("older/store/b"), &store);
    State::of(&open(&path)).stores
}

fn used_size(scene: &Scene, name: &str) -> usize {
    let stores = Tree::of(&scene.path().join(name).join("store"));
    stores.files().map(|(_, used, _)| used.len()).sum()
}

fn class_of(file: &str) -> &'static str {
    match file {
        _ if file.ends_with(".jnl") => "journal",
        _ if file.contains("/tables/") => "table",
        _ => "other file",
    }
}

#[test]
fn every_flipped_byte_of_both_stores_is_harmless_or_repaired() {
    let _alone = alone();
    let (seed, bits) = scale();
    let (scene, base) = pair(seed);
    let mut random = Random::new(seed);
    let mut plan = Plan::default();
    for (file, used, size_bytes) in Tree::of(&scene.path().join("pair/store")).files() {
        for offset in 0..size_bytes.min(used.len() as u64 + BEHIND_END_BYTES) {
            for mask in masks(&mut random, bits) {
                let flip = Edit::Flip(format!("store/{file}"), offset, mask);
                plan.add(class_of(file), case(&base, [flip]), Expected::Whole(Named::IfLost));
            }
        }
    }
    let table = plan.run(&scene, &[&base]);
    assert!(table["journal"].repaired > 2_000, "damaged journals are rebuilt");
    assert!(table["table"].repaired > 1_000, "damaged tables are rebuilt");
    assert!(table["other file"].repaired > 400, "damaged versions are rebuilt");
}

#[test]
fn files_of_both_stores_may_be_cut_zeroed_or_overwritten_from_any_byte_on() {
    let _alone = alone();
    let (seed, bits) = scale();
    let (scene, base) = pair(seed);
    let mut plan = Plan::default();
    for (file, used, _) in Tree::of(&scene.path().join("pair/store")).files() {
        let path = || format!("store/{file}");
        let is_sampled = |n| bits > 1 || used.len() < SMALL_FILE_BYTES || n % CUT_SAMPLED == 0;
        for size in (0..used.len() as u64).filter(|size| is_sampled(size + seed)) {
            let whole = Expected::Whole(Named::IfLost);
            plan.add(class_of(file), case(&base, [Edit::Resize(path(), size)]), whole.clone());
            let rest = used.len() as u64 - size;
            if bits > 1 || (size / CUT_SAMPLED).is_multiple_of(2) {
                let zeros = Edit::Zeros(path(), size, rest);
                plan.add("zeroed", case(&base, [zeros]), whole.clone());
                let garbage = Edit::Garbage(path(), size, rest + 100, seed ^ size);
                plan.add("overwritten", case(&base, [garbage]), whole);
            }
        }
    }
    let table = plan.run(&scene, &[&base]);
    assert!(table["journal"].repaired > 500, "cut journals are rebuilt");
    assert!(table["table"].repaired > 500, "cut tables are rebuilt");
    assert!(table["overwritten"].repaired > 500 && table["zeroed"].repaired > 500);
}

/// A database whose stores have flushed: checkpoints lie in tables, and no longer in the journal.
fn large(seed: u64) -> (Scene, Base) {
    const OPERATIONS_MAX: u64 = 8_000;
    const ROUND: u64 = 40;
    let scene = Scene::new(seed, OPERATIONS_MAX);
    let path = scene.path().join("large");
    let has_tables = |store: &str| {
        let tables = path.join(format!("store/{store}/keyspaces/1/tables"));
        std::fs::read_dir(tables).expect("it is listed").next().is_some()
    };
    let db = open(&path);
    let mut done = 0;
    while !has_tables("a") || !has_tables("b") {
        assert!(done < OPERATIONS_MAX, "the stores never flush");
        apply(&db, scene.seed(), done..done + ROUND, &mut |_| ());
        db.checkpoint().expect("a checkpoint");
        done += ROUND;
    }
    drop(db);
    drop(open(&path));
    let base = scene.base("large", done);
    (scene, base)
}

#[test]
fn bits_flipped_in_large_stores_and_cuts_of_them_are_harmless_or_repaired() {
    let _alone = alone();
    let (seed, bits) = scale();
    let (scene, base) = large(seed);
    let mut random = Random::new(seed);
    let mut plan = Plan::default();
    for (file, used, _) in Tree::of(&scene.path().join("large/store")).files() {
        let path = || format!("store/{file}");
        let sampled = if bits > 1 { 400 } else { 8 };
        for _ in 0..sampled.min(used.len()) {
            let at = random.below(used.len() as u64);
            let flip = Edit::Flip(path(), at, 1 << random.below(8));
            // The list of tables may fall back, and the journal lose its end: behind the newest manifest
            // nothing else knows what there was.
            let falls_back = file.ends_with(".jnl") || file.contains("/v");
            let named = if falls_back { Named::Either } else { Named::IfLost };
            plan.add("a bit flipped", case(&base, [flip]), Expected::Whole(named));
            let at = random.below(used.len() as u64);
            let cut = Edit::Resize(path(), at);
            plan.add("cut", case(&base, [cut]), Expected::Whole(named));
        }
        println!("{file}: {} bytes", used.len());
    }
    let table = plan.run(&scene, &[&base]);
    assert!(table.values().all(|counts| counts.repaired > 25));
}

fn case(base: &Base, edits: impl Into<Vec<Edit>>) -> Case {
    Case::new(&base.name, edits)
}

fn bring(from: &str, to: &str) -> Edit {
    Edit::Bring(from.to_owned(), to.to_owned())
}

fn remove(path: &str) -> Edit {
    Edit::Remove(path.to_owned())
}

fn rename(from: &str, to: &str) -> Edit {
    Edit::Rename(from.to_owned(), to.to_owned())
}

#[test]
fn stores_lost_emptied_rolled_back_swapped_and_taken_from_elsewhere_are_rebuilt() {
    let _alone = alone();
    let (seed, _) = scale();
    let (scene, base) = pair(seed);
    let mut plan = Plan::default();
    let mut add = |class, edits: Vec<Edit>, named| {
        plan.add(class, case(&base, edits).twice(), Expected::Whole(named));
    };
    for (store, fellow) in [("a", "b"), ("b", "a")] {
        let at = format!("store/{store}");
        let at = at.as_str();
        let from = |database: &str, store: &str| bring(&format!("{database}/store/{store}"), at);
        add("missing", vec![remove(at)], Named::Yes);
        add("an empty directory", vec![bring("void", at)], Named::Yes);
        add("a file", vec![remove(at), Edit::Write(at.into(), 0, b"x".to_vec())], Named::Yes);
        add("without a checkpoint", vec![from("young", store)], Named::Yes);
        add("rolled back", vec![from("older", store)], Named::IfLost);
        add("of its fellow", vec![from("pair", fellow)], Named::Yes);
        add("of its fellow's past", vec![from("older", fellow)], Named::Yes);
        add("of another database", vec![from("other", store)], Named::Yes);
        let mixed = [from("other", store), bring("young/store/a", &format!("store/{fellow}"))];
        add("both lost", mixed.to_vec(), Named::Yes);
        let left = vec![bring("other/store/a", &format!("{at}.damaged")), remove(at)];
        add("lost twice", left, Named::Yes);
        let stage = vec![bring("other/store/a", &format!("{at}.tmp-creating"))];
        add("a stage left behind", stage, Named::No);
    }
    let swap = vec![
        rename("store/a", "store/c"),
        rename("store/b", "store/a"),
        rename("store/c", "store/b"),
    ];
    add("swapped", swap, Named::Either);
    for database in ["older", "other", "young", "void"] {
        let at = |store| {
            if database == "void" { "void".into() } else { format!("{database}/store/{store}") }
        };
        let both = vec![bring(&at("a"), "store/a"), bring(&at("b"), "store/b")];
        // What they say of each other fits, and nothing else knows of them.
        let fit = matches!(database, "older" | "young");
        add("both lost", both, if fit { Named::Either } else { Named::Yes });
    }
    add("both lost", vec![remove("store/a"), remove("store/b")], Named::Yes);
    add("both lost", vec![remove("store")], Named::Yes);
    let table = plan.run(&scene, &[&base]);
    assert_eq!(table["rolled back"].repaired, 1, "the other one is the newest of all");
}

#[test]
fn files_of_a_store_missing_misplaced_and_of_another_epoch_are_repaired() {
    let _alone = alone();
    let (seed, _) = scale();
    let (scene, base) = pair(seed);
    let mut plan = Plan::default();
    let mut add = |class, edits: Vec<Edit>| {
        plan.add(class, case(&base, edits).twice(), Expected::Whole(Named::IfLost));
    };
    for (file, _, _) in Tree::of(&scene.path().join("pair/store")).files() {
        let at = format!("store/{file}");
        let fellow = format!("{}{}", if file.starts_with('a') { "b" } else { "a" }, &file[1..]);
        add("a file missing", vec![remove(&at)]);
        add("a directory for a file", vec![bring("void", &at)]);
        add("a file of the other store", vec![bring(&format!("pair/store/{fellow}"), &at)]);
        add("a file of an older epoch", vec![bring(&format!("older/store/{file}"), &at)]);
        add("a file of another database", vec![bring(&format!("other/store/{file}"), &at)]);
        let twin = format!("{}/17", at.rsplit_once('/').expect("it is in a directory").0);
        add("a file twice", vec![bring(&format!("pair/store/{file}"), &twin)]);
    }
    for store in ["a", "b"] {
        let journal = format!("pair/store/{store}/0.jnl");
        for stray in ["x.jnl", "1.jnl", "7.jnl", "-1.jnl", "18446744073709551616.jnl"] {
            add("a stray journal", vec![bring(&journal, &format!("store/{store}/{stray}"))]);
        }
        for stray in ["keyspaces/x", "keyspaces/9", "keyspaces", "keyspaces/0", "keyspaces/1"] {
            add("an empty directory", vec![bring("void", &format!("store/{store}/{stray}"))]);
            add("a directory missing", vec![remove(&format!("store/{store}/{stray}"))]);
        }
        let inner = [0, 1].map(|n| format!("store/{store}/keyspaces/{n}"));
        let swapped = vec![
            rename(&inner[0], "store/k"),
            rename(&inner[1], &inner[0]),
            rename("store/k", &inner[1]),
        ];
        add("keyspaces swapped", swapped);
    }
    let table = plan.run(&scene, &[&base]);
    assert!(table["a file missing"].repaired > 8, "a store that lacks a file is rebuilt");
}

#[test]
fn marks_of_opening_locks_and_the_reserve_may_hold_anything() {
    let _alone = alone();
    let (seed, _) = scale();
    let (scene, base) = pair(seed);
    let mut plan = Plan::default();
    let mark = |store: &str, bytes: &[u8]| {
        Edit::Write(format!("store/{store}.opening"), 0, bytes.to_vec())
    };
    let mut add = |class, edits: Vec<Edit>, named| {
        plan.add(class, case(&base, edits).twice(), Expected::Whole(named));
    };
    for store in ["a", "b"] {
        for byte in 0..=255 {
            // Two opens that did not return: the store is not tried a third time.
            let named = if byte == b'2' { Named::Yes } else { Named::No };
            add("a mark of opening", vec![mark(store, &[byte])], named);
        }
        for bytes in [&b""[..], b"22", b"2\n", b"1 or 2", &[0; 4_096]] {
            add("a mark of opening", vec![mark(store, bytes)], Named::No);
        }
    }
    // With no other store to rely on, both are tried again.
    add("marks of both", vec![mark("a", b"2"), mark("b", b"2")], Named::Either);
    for bytes in [&b""[..], b"garbage", &[0xff; 4_096]] {
        for file in ["LOCK", "reserve", "notes.txt", "identity.tmp"] {
            let write = vec![remove(file), Edit::Write(file.into(), 0, bytes.to_vec())];
            add("lock, reserve and strangers", write, Named::No);
        }
    }
    for file in ["LOCK", "reserve"] {
        add("lock, reserve and strangers", vec![remove(file)], Named::No);
    }
    add("lock, reserve and strangers", vec![bring("void", "reserve")], Named::No);
    plan.run(&scene, &[&base]);
}

#[test]
fn a_damaged_identity_is_refused() {
    let _alone = alone();
    let (seed, _) = scale();
    let (scene, base) = pair(seed);
    let mut plan = Plan::default();
    let refused = |kind, name: &str| Expected::Refused(kind, Names::File(name.to_owned()));
    let size = std::fs::metadata(scene.path().join("pair/identity")).expect("it is there").len();
    let file = || "identity".to_owned();
    for offset in 0..size {
        for bit in 0..8 {
            let flip = Edit::Flip(file(), offset, 1 << bit);
            plan.add("a bit flipped", case(&base, [flip]), refused(&["Corrupt"], "identity"));
        }
        let cut = Edit::Resize(file(), offset);
        plan.add("cut", case(&base, [cut]), refused(&["Corrupt"], "identity"));
    }
    let longer = Edit::Resize(file(), size + 1);
    plan.add("longer", case(&base, [longer]), refused(&["Corrupt"], "identity"));
    let missing = case(&base, [remove("identity")]);
    plan.add("missing", missing, refused(&["NotADatabase"], "identity"));
    let theirs = case(&base, [bring("other/identity", "identity")]);
    plan.add("of another database", theirs, refused(&["Corrupt"], "log/"));
    plan.run(&scene, &[&base]);
}

/// The log begins behind the first operation, so one store must hold.
#[test]
fn what_neither_stores_nor_log_have_is_a_gap() {
    let _alone = alone();
    let (seed, _) = scale();
    let scene = Scene::new(seed, 14);
    let sitting = |through| Sitting { through, checkpoints: 2, then_through: through + 1 };
    scene.write("trimmed", &[sitting(5)], End::Closed);
    scene.keep("trimmed", "older");
    let db = open(&scene.path().join("trimmed"));
    apply(&db, scene.seed(), 6..12, &mut |_| ());
    db.close().expect("closes");
    let db = open(&scene.path().join("trimmed"));
    db.checkpoint().expect("a checkpoint");
    apply(&db, scene.seed(), 12..14, &mut |_| ());
    drop(db);
    let base = scene.base("trimmed", 14);
    assert!(base.first() > 1, "segments were truncated");
    println!("the log begins at {}, checkpoints {:?}", base.first(), base.checkpoints);
    let mut plan = Plan::default();
    let gap = || Expected::Refused(&["LogGap"], Names::Sequences);
    let flip = |store: &str| Edit::Garbage(format!("store/{store}/0.jnl"), 300, 500, seed);
    let both =
        |from: &str| ["a", "b"].map(|s| bring(&format!("{from}/store/{s}"), &format!("store/{s}")));
    plan.add("both lost", case(&base, [remove("store/a"), remove("store/b")]), gap());
    plan.add("both lost", case(&base, both("older")), gap());
    plan.add("both lost", case(&base, [flip("a"), flip("b")]), gap());
    for (store, fellow) in [("a", "b"), ("b", "a")] {
        let at = format!("store/{store}");
        let mixed = [flip(store), remove(&format!("store/{fellow}"))];
        plan.add("both lost", case(&base, mixed), gap());
        for lost in [remove(&at), flip(store), bring(&format!("older/{at}"), &at)] {
            let one = case(&base, [lost]).twice();
            plan.add("one lost", one, Expected::Whole(Named::Yes));
        }
    }
    plan.run(&scene, &[&base]);
}

//! Power that is cut: only what was synced is sure to survive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tempfile::TempDir;
use tidal_support::files;
use tidal_support::power::{Survives, adopt, can_tell_inodes_apart, rebuild};
use tidal_support::random::Random;
use tidal_support::shim::{self, Fault, Plan};

use crate::kills::{met, trace_of_the_script};
use crate::script::{Told, on_two_threads, reference, sample};

/// A directory, and a shadow of what was synced in it.
struct Powered {
    dir: TempDir,
    shadow: TempDir,
}

impl Powered {
    fn new() -> Self {
        let dir = || tempfile::tempdir().expect("a directory");
        Self { dir: dir(), shadow: dir() }
    }

    /// Runs a child until it meets the fault; what it told, and what the fault was met at.
    fn run(
        &self,
        role: &str,
        plan: impl FnOnce(Plan) -> Plan,
        kinds: &'static str,
    ) -> (Told, String) {
        let trace = tempfile::NamedTempFile::new().expect("a file");
        let plan = plan(Plan::counting(self.dir.path(), kinds));
        let plan = plan.shadowed(self.shadow.path()).traced(trace.path());
        let (told, _) = reference().run_child(role, self.dir.path(), &plan);
        (told, met(trace.path()))
    }

    /// The power is cut: what is left.
    fn cut(&self, survives: Survives) -> TempDir {
        let image = tempfile::tempdir().expect("a directory");
        rebuild(self.dir.path(), self.shadow.path(), survives, image.path());
        image
    }

    /// Cuts the power in every way, and checks what is left.
    fn check_cuts(&self, told: &Told, seed: u64, what: &str) {
        reference().check_told(told, what);
        let ways = [
            Survives::Nothing,
            Survives::EntriesAndSizes,
            Survives::Entries,
            Survives::Sectors { seed },
            Survives::Sectors { seed: seed ^ 1 },
        ];
        for survives in ways {
            let image = self.cut(survives);
            let what = format!("{what}, {survives:?} survives besides");
            reference().check(image.path(), told.durable, &what);
        }
    }
}

/// Whether power can be cut here; said aloud if not.
fn can_be_cut() -> bool {
    if shim::library().is_none() {
        return false;
    }
    let dir = tempfile::tempdir().expect("a directory");
    match can_tell_inodes_apart(dir.path()) {
        Ok(()) => true,
        Err(reason) => {
            shim::left_out("power cuts", &reason);
            false
        }
    }
}

fn cut_at_a_sample(kinds: &'static str, count: u64) {
    if !can_be_cut() {
        return;
    }
    let total = trace_of_the_script(kinds).len() as u64;
    let seed = reference().seed;
    let cases = sample(total, count, &mut Random::new(seed ^ total));
    println!("{} power cuts at {total} operations", cases.len());
    on_two_threads(&cases, |at| {
        let fault = if at % 2 == 0 { Fault::KillBefore } else { Fault::KillAfter };
        let powered = Powered::new();
        let (told, met) = powered.run("script", |plan| plan.once(fault, at), kinds);
        powered.check_cuts(&told, seed ^ at, &format!("{fault:?} {kinds} {at}: {met}"));
    });
}

/// Of the syncs of [`sync_some`], the one that fails.
const FAILED_SYNC: u64 = 5;

/// The role of a child that syncs some things and leaves others.
pub(crate) fn sync_some(dir: &Path) -> io::Result<()> {
    let write = |name: &str, bytes: &[u8]| -> io::Result<File> {
        let mut file = File::create(dir.join(name))?;
        file.write_all(bytes).map(|()| file)
    };
    let mut synced = write("synced", b"first")?;
    synced.sync_all()?;
    fs::create_dir(dir.join("inner"))?;
    write("inner/entered", b"never synced")?;
    File::open(dir.join("inner"))?.sync_all()?;
    let mut failing = write("failing", &[1; 9_000])?;
    File::open(dir)?.sync_all()?;
    failing.sync_data()?;
    failing.write_all(&[2; 5_000])?;
    failing.sync_data().expect_err("it is the fifth");
    // The last page that was not written becomes dirty again, by bytes that it had.
    failing.write_all_at(&[2; 100], 12_288)?;
    failing.write_all_at(&[3; 10], 20_000)?;
    failing.sync_data()?;
    synced.write_all(b", then more")?;
    fs::rename(dir.join("synced"), dir.join("renamed"))?;
    write("late", b"not its entry")?.sync_all()
}

#[test]
fn a_power_cut_takes_what_was_not_synced_and_nothing_else() {
    if !can_be_cut() {
        return;
    }
    let powered = Powered::new();
    powered.run("files", |plan| plan.once(Fault::Io, FAILED_SYNC), shim::SYNCS);
    let zeros = |len: usize| vec![0; len];
    let failing =
        [vec![1; 9_000], zeros(3_288), vec![2; 1_712], zeros(6_000), vec![3; 10]].concat();
    let expected = |files: &[(&str, &[u8])]| -> BTreeMap<String, Vec<u8>> {
        let rest = [("failing", failing.as_slice())];
        files.iter().chain(&rest).map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect()
    };
    let after = |survives| files_in(powered.cut(survives).path());
    assert_eq!(after(Survives::Nothing), expected(&[("synced", b"first"), ("inner/entered", b"")]),);
    assert_eq!(
        after(Survives::Entries),
        expected(&[("renamed", b"first"), ("inner/entered", b""), ("late", b"not its entry")]),
    );
    assert_eq!(
        after(Survives::EntriesAndSizes),
        expected(&[
            ("renamed", &[&b"first"[..], &zeros(11)].concat()),
            ("inner/entered", &zeros(12)),
            ("late", b"not its entry"),
        ]),
    );
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let mut left = after(Survives::Sectors { seed });
        let whole =
            left.remove("synced").or_else(|| left.remove("renamed")).expect("one of the two");
        assert!(whole.starts_with(b"first"), "what was synced is there: {whole:?}");
        seen.insert((whole, left.contains_key("late"), left["failing"] == failing));
    }
    assert!(seen.len() >= 6, "it differs from seed to seed: {seen:?}");
}

/// The files beneath a directory, by their path in it.
fn files_in(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let name = |path: &Path| {
        path.strip_prefix(dir).expect("it was found there").to_str().expect("text").to_owned()
    };
    files(dir).into_iter().map(|(path, bytes)| (name(&path), bytes)).collect()
}

#[test]
fn a_power_cut_at_any_sync_loses_nothing_durable() {
    cut_at_a_sample(shim::SYNCS, 40);
}

#[test]
fn a_power_cut_between_syncs_loses_nothing_durable() {
    cut_at_a_sample("wtcmru", 24);
}

#[test]
fn a_power_cut_after_a_failed_sync_loses_nothing_durable() {
    if !can_be_cut() {
        return;
    }
    let total = trace_of_the_script(shim::SYNCS).len() as u64;
    let seed = reference().seed;
    let cases = sample(total, 16, &mut Random::new(seed ^ 26));
    on_two_threads(&cases, |at| {
        let powered = Powered::new();
        let (told, met) = powered.run("script", |plan| plan.once(Fault::Io, at), shim::SYNCS);
        assert!(told.finished, "{told:?}");
        powered.check_cuts(&told, seed ^ at, &format!("sync {at} failed: {met}"));
    });
}

#[test]
fn a_power_cut_during_creation_leaves_what_can_be_created() {
    if !can_be_cut() {
        return;
    }
    let trace = tempfile::NamedTempFile::new().expect("a file");
    let dir = tempfile::tempdir().expect("a directory");
    let plan = Plan::counting(dir.path(), shim::SYNCS).traced(trace.path());
    reference().run_child("open", dir.path(), &plan);
    let total = shim::trace(trace.path()).len() as u64;
    let cases = sample(total, 16, &mut Random::new(reference().seed ^ 22));
    println!("{} power cuts at {total} syncs of a creation", cases.len());
    on_two_threads(&cases, |at| {
        let powered = Powered::new();
        let fault = Fault::KillAfter;
        let (told, met) = powered.run("open", |plan| plan.once(fault, at), shim::SYNCS);
        powered.check_cuts(&told, at, &format!("creation, sync {at}: {met}"));
    });
}

#[test]
fn power_cuts_during_recovery_from_power_cuts_lose_nothing_durable() {
    const NESTED: u32 = 5;
    if !can_be_cut() {
        return;
    }
    let total = trace_of_the_script(shim::SYNCS).len() as u64;
    let seed = reference().seed;
    on_two_threads(&[1u64, 2, 3, 4], |round| {
        let mut random = Random::new(seed ^ round);
        let mut powered = Powered::new();
        let mut at = 1 + random.below(total);
        let mut durable = 0;
        let mut what = format!("round {round}");
        for nested in 0..NESTED {
            let (told, met) =
                powered.run("script", |plan| plan.once(Fault::KillBefore, at), shim::SYNCS);
            what += &format!("; cut before sync {at}: {met}");
            reference().check_told(&told, &what);
            durable = durable.max(told.durable);
            let survives = match random.below(3) {
                0 => Survives::Nothing,
                1 => Survives::Entries,
                _ => Survives::Sectors { seed: seed ^ u64::from(nested) },
            };
            powered = plugged_in_again(powered.cut(survives));
            // An open has some 20 syncs.
            at = 1 + random.below(24);
        }
        reference().check(powered.dir.path(), durable, &what);
    });
}

/// What a power cut left is what is on the disk now.
fn plugged_in_again(dir: TempDir) -> Powered {
    let shadow = tempfile::tempdir().expect("a directory");
    let adopted: &Path = dir.path();
    adopt(adopted, shadow.path());
    Powered { dir, shadow }
}

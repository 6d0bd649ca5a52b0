//! What the fuzzers would try first, without a fuzzer: every seed, and mutations of it.
//!
//! Knows: seeds, mutations, a harness that notices a panic. Must not know: what the targets read.
//!
//! Mutations follow from `TIDAL_SEED` (default 1) alone, so a failure is repeated by its number. The
//! seeds in `fuzz/seeds` are written anew with `TIDAL_WRITE_SEEDS=1`.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tidaldb::fuzzing::{self, Target};

/// Every target: the crate that has it, its name, and the function.
fn targets() -> impl Iterator<Item = (&'static str, &'static str, Target)> {
    let ingest: Target = tidalctl::fuzzing::ingest;
    fuzzing::TARGETS
        .into_iter()
        .map(|(name, target)| ("tidaldb", name, target))
        .chain([("tidalctl", "ingest", ingest)])
}

fn target(name: &str) -> Target {
    targets().find(|(_, known, _)| *known == name).expect("a target").2
}

/// Every seed by target and name, as the engine and the ingest write them today.
fn made() -> BTreeMap<(String, String), Vec<u8>> {
    let ingest = tidalctl::fuzzing::seeds().into_iter().map(|(name, seed)| ("ingest", name, seed));
    fuzzing::seeds()
        .into_iter()
        .chain(ingest)
        .map(|(target, name, bytes)| ((target.to_owned(), name.to_owned()), bytes))
        .collect()
}

/// Mutations of each seed.
const MUTATIONS: u64 = 2_000;

/// xorshift64* (Marsaglia 2003, Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound.max(1)
    }
}

/// One to four changes of a seed; `other` is what is spliced in.
fn mutated(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => flip(&mut bytes, at, random),
            2 => overwrite(&mut bytes, at, random),
            3 => splice(&mut bytes, at, other, random),
            4 => {
                let end = at + random.below(64.min(bytes.len() - at));
                bytes.drain(at..end);
            }
            // One byte in the midst of what belongs together: a comma in a character, say.
            5 => bytes.insert(at, other[random.below(other.len())]),
            _ => {
                let end = at + random.below(64.min(bytes.len() - at));
                let twice = bytes[at..end].to_vec();
                bytes.splice(at..at, twice);
            }
        }
    }
    bytes
}

fn flip(bytes: &mut [u8], at: usize, random: &mut Random) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

/// Puts a number where a length or a count may be: the edges of each width, and near misses.
fn overwrite(bytes: &mut [u8], at: usize, random: &mut Random) {
    let width = [1, 2, 4, 8][random.below(4)];
    let Some(field) = bytes.get_mut(at..at + width) else { return };
    let mut number = [0; 8];
    number[..width].copy_from_slice(field);
    let number = u64::from_le_bytes(number);
    let edges = [0, u64::MAX, 1 << 63, u64::MAX >> 1, 0x7ff8 << 48, number ^ (1 << 31)];
    let chosen = match random.below(8) {
        edge @ 0..=5 => edges[edge],
        6 => number.wrapping_add(1),
        _ => number.wrapping_sub(1),
    };
    field.copy_from_slice(&chosen.to_le_bytes()[..width]);
}

fn splice(bytes: &mut Vec<u8>, at: usize, other: &[u8], random: &mut Random) {
    let from = random.below(other.len());
    let len = random.below(other.len() - from);
    let end = (at + random.below(len)).min(bytes.len());
    bytes.splice(at..end, other[from..from + len].iter().copied());
}

/// The message of the panic of a target, if it does not return.
fn panic_of(target: Target, bytes: &[u8]) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| target(bytes))).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .or_else(|| Some("a panic without words".to_owned()))
}

/// Gives a target a seed and its mutations; the first input that it does not return from, with why.
fn hunt(target: Target, seeds: &[Vec<u8>], which: usize) -> Option<(Vec<u8>, String)> {
    let start = tidal_support::setting("TIDAL_SEED", 1);
    let mut random = Random((start + which as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let seed = &seeds[which];
    let mutations = (0..MUTATIONS).map(|_| {
        let other = &seeds[random.below(seeds.len())];
        mutated(seed, other, &mut random)
    });
    std::iter::once(seed.clone())
        .chain(mutations)
        .find_map(|bytes| panic_of(target, &bytes).map(|message| (bytes, message)))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("fuzz/seeds")
}

/// The seeds on disk, by target and name.
fn stored() -> BTreeMap<(String, String), Vec<u8>> {
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let entries = |path: &Path| -> Vec<PathBuf> {
        let listed = fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        listed.map(|entry| entry.expect("it is listed").path()).collect()
    };
    let mut seeds = BTreeMap::new();
    for target in entries(&folder()) {
        for seed in entries(&target) {
            seeds.insert((name(&target), name(&seed)), fs::read(&seed).expect("it is listed"));
        }
    }
    seeds
}

fn replay(name: &str) {
    let target = target(name);
    let seeds: Vec<Vec<u8>> =
        stored().into_iter().filter(|((of, _), _)| of == name).map(|(_, seed)| seed).collect();
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for which in 0..seeds.len() {
        if let Some((bytes, message)) = hunt(target, &seeds, which) {
            let path = std::env::temp_dir().join(format!("tidal-{name}-{which}"));
            fs::write(&path, &bytes).expect("the temporary folder takes a file");
            panic!("{name}: {message}; the input is {}", path.display());
        }
    }
}

#[test]
fn every_seed_is_accepted_all_the_way() {
    for ((name, seed), bytes) in stored() {
        assert!(target(&name)(&bytes), "{name}/{seed} does not reach what lies behind its checks");
    }
}

#[test]
fn no_mutation_of_a_segment_panics() {
    replay("segment");
}

#[test]
fn no_mutation_of_a_record_panics() {
    replay("record");
}

#[test]
fn no_mutation_of_a_frame_that_is_applied_panics() {
    replay("apply");
}

#[test]
fn no_mutation_of_a_page_panics() {
    replay("page");
}

#[test]
fn no_mutation_of_a_store_panics() {
    replay("manifest");
}

#[test]
fn no_mutation_of_a_schema_panics() {
    replay("schema");
}

#[test]
fn no_mutation_of_a_file_that_is_ingested_panics() {
    replay("ingest");
}

#[test]
fn the_harness_notices_a_canary() {
    let seeds = [b"canary".to_vec(), b"Canary".to_vec()];
    let (bytes, message) = hunt(fuzzing::canary, &seeds, 0).expect("the seed itself sings");
    assert_eq!((&bytes[..], message.as_str()), (&b"canary"[..], "the canary sang"));
    let found = hunt(fuzzing::canary, &seeds, 1).expect("one flipped bit of a seed sings");
    assert!(found.0.starts_with(b"canary"));
    assert_eq!(hunt(fuzzing::canary, &[b"gull".to_vec()], 0), None);
}

#[test]
fn the_seeds_on_disk_are_what_the_engine_writes() {
    let made = made();
    if std::env::var_os("TIDAL_WRITE_SEEDS").is_some() {
        for ((target, name), bytes) in &made {
            let folder = folder().join(target);
            fs::create_dir_all(&folder).expect("a folder can be made");
            fs::write(folder.join(name), bytes).expect("a seed can be written");
        }
    }
    let stored = stored();
    assert!(stored.keys().eq(made.keys()), "other seeds are made than lie in fuzz/seeds");
    let differ: Vec<_> = made.iter().filter(|(key, bytes)| stored[*key] != **bytes).collect();
    let names: Vec<_> = differ.iter().map(|(key, _)| key).collect();
    assert!(names.is_empty(), "a format changed, or its version should have: {names:?}");
}

#[test]
fn every_seed_is_small_and_every_target_has_a_shim() {
    let size_bytes: usize = stored().values().map(Vec::len).sum();
    assert!(size_bytes < 100_000, "{size_bytes} bytes of seeds");
    for (krate, name, _) in targets() {
        let shim = folder().join(format!("../fuzz_targets/{name}.rs"));
        let text = fs::read_to_string(&shim).unwrap_or_else(|e| panic!("{}: {e}", shim.display()));
        assert!(text.contains(&format!("{krate}::fuzzing::{name}(bytes);")), "{name}");
    }
}

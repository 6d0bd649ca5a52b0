//! Damage, seen from outside: every byte of a log of some 10 kB and of both stores of a small
//! database is flipped, files are cut, filled, removed, duplicated, swapped and taken from other
//! databases, and each copy is opened in a child process, with the real fjall.
//!
//! Damage to stores alone is never an error. Damage to the log is an error that names the file and
//! changes nothing where the position was proven synced, else the log ends there and the open report
//! says so. Never another state, never a panic of tidal's own, never a hang.
//!
//! `TIDAL_SEED=…` repeats operations and bits. `TIDAL_CASES=…`, 1 to 8, is how many bits of each byte
//! are flipped, each in a case of its own; from 2 on, large files are not sampled either.

mod judge;
mod log;
mod scene;
mod stores;
mod versions;

use tidal_support::damage::serve;
use tidal_support::random::Random;

/// Not a test by itself: what a child process does.
#[test]
fn child() {
    match tidal_support::child::role().as_deref() {
        Some("damage") => serve(),
        Some("write") => scene::write_and_wait(),
        role => assert_eq!(role, None),
    }
}

/// The seed, and how many bits of a byte are flipped.
fn scale() -> (u64, u32) {
    let bits = tidal_support::setting("TIDAL_CASES", 1);
    (Random::seed_from("TIDAL_SEED"), bits)
}

/// Masks to flip in a byte, a bit each.
fn masks(random: &mut Random, bits: u32) -> impl Iterator<Item = u8> + use<> {
    let first = random.below(8) as u32;
    (0..bits).map(move |n| 1 << ((first + n) % 8))
}

/// One sweep at a time: each has as many children as there are cores.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

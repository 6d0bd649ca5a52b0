//! Hashes of keys, for the indexes in memory only.
//!
//! Ids come from callers, often dense or in strides, so their bits are mixed; keys that outsiders
//! choose freely (texts, event ids) are hashed with a seed of this process, so that nobody can
//! choose colliding ones.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

static SEEDED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A 64-bit mixer: one widening multiplication, both halves folded (as wyhash and foldhash do).
#[inline]
pub(crate) const fn hash_u64(key: u64) -> u64 {
    let product = (key ^ 0x9e37_79b9_7f4a_7c15) as u128 * 0xff51_afd7_ed55_8ccd_u128;
    (product as u64) ^ ((product >> 64) as u64)
}

/// A hash of an event id, which is a hash itself.
pub(crate) fn hash_u128(key: u128) -> u64 {
    SEEDED.hash_one(key)
}

/// A hash of a text.
pub(crate) fn hash_text(key: &str) -> u64 {
    SEEDED.hash_one(key)
}

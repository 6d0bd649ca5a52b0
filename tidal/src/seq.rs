//! Positions in the log.
//!
//! Knows: that frames are numbered from 1 without holes, and which number follows which.
//! Must not know: anything else; this is the ground floor.

use std::fmt;

/// The position of one frame in the log: 1 is the first frame, 0 ([`Seq::ZERO`]) is "before the
/// first".
///
/// Every accepted operation is one frame, and so has one sequence number. Inside a running engine
/// positions only grow; outside it (cursors, followers) a position is the pair of incarnation and
/// sequence, because after a power cut in [`Os`](crate::Durability::Os) mode numbers that were
/// never synced are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(u64);

impl Seq {
    /// Before the first frame.
    pub const ZERO: Self = Self(0);

    /// Names the frame with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position right after this one.
    ///
    /// # Panics
    ///
    /// When 2^64 frames have been written, which no log reaches.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(number) => Self(number),
            None => panic!("the log has no further sequence number"),
        }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

//! Operations of those who process sessions, which follow from a seed.
//!
//! They begin, fail and give up; what they make is committed by suites of their own, since an attempt ends
//! with its process: here every operation does the same whether or not there was a crash before it.

use tidaldb::processing::{ProcessingStep, process};
use tidaldb::{Error, Result, SessionId, TidalDb};

use super::visiting::recent;
use crate::random::Random;

/// What a processor, or an operator, does.
pub(super) struct Processing {
    name: &'static str,
    session: SessionId,
    choice: u64,
    is_odd: bool,
}

impl Processing {
    /// Operation `i` of a seed, where it is one of processors.
    pub(super) fn operation(seed: u64, i: u64) -> Self {
        let mut random = Random::new(seed.rotate_left(23) ^ i.wrapping_mul(0x9e37_79b9));
        Self {
            name: ["usage", "claims"][random.below(2) as usize],
            session: recent(&mut random, i),
            choice: random.below(12),
            is_odd: random.one_in(3),
        }
    }

    /// Does it; a refusal by the state is as good as an acceptance, and as much in the log.
    pub(super) fn perform(self, db: &TidalDb) -> Result<()> {
        let Self { name, session, choice, is_odd } = self;
        let step = match choice {
            0 => ProcessingStep::Register { name, version: 2, required: is_odd },
            1 => ProcessingStep::Register { name, version: 1, required: !is_odd },
            2 => ProcessingStep::Remove { name },
            3 | 4 => ProcessingStep::Walk { name },
            5 => ProcessingStep::Fail { session },
            6 | 7 => ProcessingStep::Requeue { session },
            _ => ProcessingStep::Try { name, session, is_last: is_odd },
        };
        match process(db, step) {
            Err(Error::UnknownName { .. }) => Ok(()),
            done => done,
        }
    }
}

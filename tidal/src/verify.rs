//! Checking everything that can be checked.
//!
//! Knows: which checks there are. Must not know: how they are done.

use std::fmt;

use crate::state::State;

/// What [`verify`](crate::TidalDb::verify) found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// What was checked and found sound, a sentence each.
    pub sound: Vec<String>,
    /// What is broken, a sentence each; empty in a sound database.
    pub broken: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is broken.
    pub fn is_sound(&self) -> bool {
        self.broken.is_empty()
    }

    pub(crate) fn of_state(state: &State) -> Self {
        let broken = state.check();
        let sound = if broken.is_empty() {
            let rows: u64 = state.tables().iter().map(|table| table.size().rows).sum();
            vec![format!("the state: {rows} rows, their indexes, buckets and top lists")]
        } else {
            Vec::new()
        };
        Self { sound, broken }
    }

    pub(crate) fn add(&mut self, what: String, result: crate::Result<String>) {
        match result {
            Ok(found) => self.sound.push(format!("{what}: {found}")),
            Err(error) => self.broken.push(format!("{what}: {error}")),
        }
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for sentence in &self.sound {
            writeln!(f, "sound   {sentence}")?;
        }
        for sentence in &self.broken {
            writeln!(f, "BROKEN  {sentence}")?;
        }
        Ok(())
    }
}

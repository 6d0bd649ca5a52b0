//! What stands in where seeds lead to too little: the rankings of cohorts, in turn.

use super::super::{Ranked, ReadOptions};
use super::options::{Filler, Reason};
use super::page::Page;
use crate::error::{Error, Result};
use crate::schema::{EntityKind, Schema};

/// Rankings that are read as far as they are needed.
pub(super) struct StandIns {
    filler: Option<Filler>,
    rankings: Vec<Ranking>,
    /// Whose turn it is.
    turn: usize,
}

/// The ranking of one cohort, or of everyone.
struct Ranking {
    cohort: Option<String>,
    read: Vec<Ranked>,
    next: usize,
    is_whole: bool,
}

impl StandIns {
    /// Of these cohorts; everyone's turn comes when theirs is over. Nothing without a filler.
    pub(super) fn of(filler: Option<Filler>, cohorts: Vec<Option<String>>) -> Self {
        let ranking = |cohort| Ranking { cohort, read: Vec::new(), next: 0, is_whole: false };
        Self { filler, rankings: cohorts.into_iter().map(ranking).collect(), turn: 0 }
    }

    /// Refuses a filler that could not stand in.
    pub(super) fn check(&self, schema: &Schema) -> Result<()> {
        let Some(filler) = &self.filler else { return Ok(()) };
        let signal = filler.signal();
        let id = schema.resolve(signal)?;
        let declared = &schema.signals()[usize::from(id.get())];
        if declared.kind() != EntityKind::Item {
            let reason =
                format!("signal {signal:?} is of {:?}s: name one of items", declared.kind());
            return Err(Error::invalid("fill", reason));
        }
        match filler {
            Filler::Trending { window, .. }
                if declared.velocity_windows().all(|known| known.window != *window) =>
            {
                let reason = format!("signal {signal:?} declares no velocity over {window}");
                Err(Error::invalid("fill", reason))
            }
            _ => Ok(()),
        }
    }

    /// The next one, and why.
    pub(super) fn next(&mut self, page: &Page<'_>) -> Result<Option<(Ranked, Reason)>> {
        let Some(filler) = &self.filler else { return Ok(None) };
        let named = self.rankings.iter().filter(|ranking| ranking.cohort.is_some()).count();
        for step in 0..named {
            let ranking = &mut self.rankings[(self.turn + step) % named];
            if let Some(next) = ranking.next(filler, page)? {
                self.turn = (self.turn + step + 1) % named;
                return Ok(Some(next));
            }
        }
        match self.rankings[named..].first_mut() {
            Some(everyone) => everyone.next(filler, page),
            None => Ok(None),
        }
    }
}

impl Ranking {
    fn next(&mut self, filler: &Filler, page: &Page<'_>) -> Result<Option<(Ranked, Reason)>> {
        if self.next == self.read.len() && !self.is_whole {
            self.read_on(filler, page)?;
        }
        let Some(&ranked) = self.read.get(self.next) else { return Ok(None) };
        self.next += 1;
        let cohort = self.cohort.clone();
        let reason = match filler {
            Filler::Hot { .. } => Reason::Hot { cohort },
            Filler::Trending { .. } => Reason::Trending { cohort },
        };
        Ok(Some((ranked, reason)))
    }

    /// Reads as many as there are places, which is cheap, and then as far as may be. What was read stays
    /// the same: the view stands at one position.
    fn read_on(&mut self, filler: &Filler, page: &Page<'_>) -> Result<()> {
        let depth = page.depth();
        let wanted = if self.read.is_empty() { page.k.min(depth) } else { depth };
        let mut options = ReadOptions::new().now(page.now);
        if let Some(cohort) = &self.cohort {
            options = options.cohort(cohort);
        }
        self.read = match filler {
            Filler::Hot { signal } => page.view.hot(signal, wanted, &options)?,
            Filler::Trending { signal, window } => {
                page.view.trending(signal, *window, wanted, &options)?
            }
        };
        self.is_whole = self.read.len() < wanted || wanted == depth;
        Ok(())
    }
}

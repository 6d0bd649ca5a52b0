//! Which sessions a run attempts, and in which order.
//!
//! Knows: fresh ones first, then those with the fewest attempts, each once a run; who may go with others.
//! Must not know: what an attempt is.

use std::collections::{BTreeSet, VecDeque};

use super::entry::Entry;
use super::options::RunOptions;
use super::view::Pinned;
use super::walk::Walk;
use crate::db::door::Inside;
use crate::db::sessions::look::find;
use crate::error::Result;
use crate::ids::{SessionId, Timestamp};
use crate::processors::{Due, ProcessorRow};
use crate::sessions::SessionState;

/// Sessions that are asked for at once.
const PAGE: usize = 4_096;

/// Where a run looks for sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Those in memory that the processor wants and has never attempted.
    Wanted,
    /// Those that had left.
    Left,
    /// Those that were attempted before.
    Repeated,
    /// There are no more.
    Over,
}

/// The sessions of one run.
pub(super) struct Candidates {
    phase: Phase,
    /// A page of those that the state lists.
    page: VecDeque<Due>,
    /// What the state would list again in this run.
    had: BTreeSet<SessionId>,
    pub(super) walk: Walk,
    options: RunOptions,
    /// Sessions whose content had been processed already.
    pub(super) unchanged: u64,
}

impl Candidates {
    pub(super) fn begin(row: &ProcessorRow, mut walk: Walk, options: RunOptions) -> Self {
        walk.begin(row);
        let (page, had) = (VecDeque::new(), BTreeSet::new());
        Self { phase: Phase::Wanted, page, had, walk, options, unchanged: 0 }
    }

    /// The next ones, at most so many; none when there are no more, or when the processor is to stop. One that was attempted before goes
    /// alone: should it end the process, it takes no attempt of others with it, but for the first time.
    pub(super) fn next(
        &mut self,
        (inside, entry): (&Inside, &Entry),
        now: Timestamp,
        count_max: usize,
    ) -> Result<Vec<Pinned>> {
        loop {
            if entry.is_stopping() {
                return Ok(Vec::new());
            }
            if let Some(id) = self.options.only {
                return self.only((inside, entry), id, now);
            }
            let found = match self.phase {
                Phase::Wanted => {
                    self.listed((inside, entry), now, count_max, |due| due.count == 0)?
                }
                Phase::Left => {
                    self.walk.next((inside, entry), now, count_max, &mut self.unchanged)?
                }
                Phase::Repeated => self.listed((inside, entry), now, 1, |due| due.count > 0)?,
                Phase::Over => return Ok(Vec::new()),
            };
            if !found.is_empty() {
                return Ok(found);
            }
            self.phase = match self.phase {
                Phase::Wanted => Phase::Left,
                Phase::Left => Phase::Repeated,
                Phase::Repeated | Phase::Over => Phase::Over,
            };
        }
    }

    /// A session is not to be offered again in this run.
    pub(super) fn leave_out(&mut self, id: SessionId) {
        self.had.insert(id);
    }

    /// From the list of the state.
    fn listed(
        &mut self,
        (inside, entry): (&Inside, &Entry),
        now: Timestamp,
        count_max: usize,
        wants: impl Fn(&Due) -> bool,
    ) -> Result<Vec<Pinned>> {
        let mut found = Vec::new();
        loop {
            while found.len() < count_max
                && let Some(due) = self.page.pop_front()
            {
                match pin(inside, due, now)? {
                    Some(pinned) => found.push(pinned),
                    None => self.leave_out(due.session),
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
            let by = if self.options.ignore_backoff { END_OF_TIME } else { now };
            let listed = inside.state.pending(entry.number, by, PAGE + self.had.len());
            let new =
                listed.into_iter().filter(|due| wants(due) && !self.had.contains(&due.session));
            self.page = new.collect();
            if self.page.is_empty() {
                return Ok(found);
            }
        }
    }

    /// The one session that the run is for, if it is to be attempted.
    fn only(
        &mut self,
        (inside, entry): (&Inside, &Entry),
        id: SessionId,
        now: Timestamp,
    ) -> Result<Vec<Pinned>> {
        if std::mem::replace(&mut self.phase, Phase::Over) == Phase::Over {
            return Ok(Vec::new());
        }
        let by = if self.options.ignore_backoff { END_OF_TIME } else { now };
        let is_it = |due: &Due| due.session == id;
        let listed = inside.state.pending(entry.number, by, usize::MAX).into_iter().find(is_it);
        if let Some(due) = listed {
            return Ok(pin(inside, due, now)?.into_iter().collect());
        }
        let found = super::walk::look_up((inside, entry), id, now, &mut self.unchanged)?;
        Ok(found.into_iter().collect())
    }
}

/// All that is ever to be tried again is due by then.
const END_OF_TIME: Timestamp = Timestamp::from_nanos(u64::MAX);

/// A session as it is now, if it has ended, and its records are there.
fn pin(inside: &Inside, due: Due, now: Timestamp) -> Result<Option<Pinned>> {
    let Some(found) = find(inside, due.session, now)? else { return Ok(None) };
    let is_processed =
        matches!(found.info.state, SessionState::Ended(_) | SessionState::Settled(_));
    let pinned = Pinned { info: found.info, head: found.head, count: due.count, observed_at: now };
    Ok(Some(pinned).filter(|_| is_processed))
}

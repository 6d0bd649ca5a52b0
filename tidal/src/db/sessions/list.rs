//! Lists of sessions.
//!
//! Knows: where sessions lie, and how pages of them go on. Must not know: when a session ends.

use std::ops::ControlFlow;
use std::time::Duration;

use super::Sessions;
use super::look::found_in;
use crate::db::door::Inside;
use crate::error::Result;
use crate::ids::{SessionId, Timestamp, UserId};
use crate::sessions::{Selection, SessionInfo, SessionStateKind};

/// Which sessions to list; all, 100 at a time, unless it says otherwise.
///
/// ```
/// use std::time::Duration;
/// use tidaldb::{SessionFilter, SessionStateKind};
///
/// let open_since_an_hour = SessionFilter::new()
///     .user(42)
///     .states([SessionStateKind::Active, SessionStateKind::Restored])
///     .older_than(Duration::from_secs(3_600));
/// ```
#[derive(Debug, Clone)]
#[must_use = "it is what Sessions::list asks for"]
pub struct SessionFilter {
    selection: Selection,
    older_than: Option<Duration>,
    limit: usize,
}

impl Default for SessionFilter {
    fn default() -> Self {
        Self { selection: Selection::default(), older_than: None, limit: 100 }
    }
}

impl SessionFilter {
    /// All sessions, 100 at a time.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sessions of this user alone.
    pub fn user(mut self, user: impl Into<UserId>) -> Self {
        self.selection.user = Some(user.into());
        self
    }

    /// Sessions in one of these states alone; in any where none is named.
    pub fn states(mut self, states: impl IntoIterator<Item = SessionStateKind>) -> Self {
        self.selection.states = states.into_iter().collect();
        self
    }

    /// Sessions alone that were started longer ago than this.
    pub const fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Sessions alone that come after this one: the last of the page before.
    pub const fn after(mut self, last: SessionId) -> Self {
        self.selection.after = Some(last);
        self
    }

    /// At most so many.
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// What it wants as of now, and how many at most.
    pub(in crate::db) fn wanted_at(&self, now: Timestamp) -> (Selection, usize) {
        (self.selection_at(now), self.limit)
    }

    fn selection_at(&self, now: Timestamp) -> Selection {
        let started_before = self.older_than.map(|age| now.saturating_sub(age));
        Selection { started_before, ..self.selection.clone() }
    }
}

impl Sessions<'_> {
    /// Sessions as they are now, in the order in which they were started. The next page is
    /// [after](SessionFilter::after) the last of this one, and there is none where this one has fewer
    /// than its [limit](SessionFilter::limit).
    ///
    /// It walks the sessions in memory, and as many of the ended ones, from where the page begins, as it
    /// takes to fill it.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::Error::Store) or [`Corrupt`](crate::Error::Corrupt) when ended sessions cannot be
    /// read.
    pub fn list(&self, filter: &SessionFilter) -> Result<Vec<SessionInfo>> {
        let now = self.db.default_now();
        let (wanted, limit) = (filter.selection_at(now), filter.limit);
        self.db.door.look(|inside| {
            let state = &inside.state;
            let declared = state.declared();
            let as_of = (&declared.schema, state.header().incarnation, now);
            // Hot ones first: a session moves to the ended ones, and never back.
            let hot = state.sessions.select(&wanted, limit, as_of);
            let last_wanted = if hot.len() < limit { None } else { hot.last().map(|info| info.id) };
            let ended = list_ended(inside, &wanted, limit, last_wanted)?;
            Ok(merged(hot, ended, limit))
        })
    }

    /// Sessions that are over for more than twice the
    /// [`sweep_interval`](crate::SessionConfig::sweep_interval), and of whom nobody has been told: their
    /// state says how they ended. There are none as long as the sweeper works.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Error::Closed); those of [`get`](Self::get).
    pub fn overdue(&self) -> Result<Vec<SessionInfo>> {
        let patience = self.db.sessions.sweep_interval.saturating_mul(2);
        let moment = self.db.default_now().saturating_sub(patience);
        let overdue = self.db.state.sessions.unnoticed_by(moment);
        overdue.into_iter().filter_map(|id| self.get(id).transpose()).collect()
    }
}

/// The first `limit` ended sessions that are wanted, as far as `last_wanted`.
fn list_ended(
    inside: &Inside,
    wanted: &Selection,
    limit: usize,
    last_wanted: Option<SessionId>,
) -> Result<Vec<SessionInfo>> {
    let declared = inside.state.declared();
    let mut found = Vec::new();
    let from = wanted.after.map_or(Some(0), |after| after.get().checked_add(1));
    let Some(from) = from.filter(|_| limit > 0) else { return Ok(found) };
    inside.each_row(inside.state.sessions.ended(), from, |id, row| {
        let id = SessionId::new(id);
        if last_wanted.is_some_and(|last| id > last) {
            return Ok(ControlFlow::Break(()));
        }
        let info = found_in(row, id, &declared.schema)?.info;
        if wanted.wants(&info) {
            found.push(info);
        }
        Ok(match found.len() < limit {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })
    })?;
    Ok(found)
}

/// Both in one order, each once: one that moved between the two looks is in both.
fn merged(hot: Vec<SessionInfo>, ended: Vec<SessionInfo>, limit: usize) -> Vec<SessionInfo> {
    let mut all = [ended, hot].concat();
    // Stable: of two, the ended one comes first and stays.
    all.sort_by_key(|info| info.id);
    all.dedup_by_key(|info| info.id);
    all.truncate(limit);
    all
}

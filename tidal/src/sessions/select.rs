//! Which sessions someone wants to see.
//!
//! Knows: how hot rows are chosen without looking closely at all of them. Must not know: the stores.

use std::collections::BinaryHeap;

use super::info::{SessionInfo, SessionState};
use super::row::Stage;
use super::{AsOf, Sessions};
use crate::ids::{SessionId, Timestamp, UserId};
use crate::schema::Schema;

/// What a session may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SessionStateKind {
    /// [`SessionState::Active`].
    Active = 0,
    /// [`SessionState::Restored`].
    Restored = 1,
    /// [`SessionState::Ended`].
    Ended = 2,
    /// [`SessionState::Settled`].
    Settled = 3,
    /// [`SessionState::Pruned`].
    Pruned = 4,
    /// [`SessionState::Failed`].
    Failed = 5,
}

impl SessionState {
    /// What it is, without more.
    pub const fn kind(&self) -> SessionStateKind {
        match self {
            Self::Active => SessionStateKind::Active,
            Self::Restored { .. } => SessionStateKind::Restored,
            Self::Ended(_) => SessionStateKind::Ended,
            Self::Failed { .. } => SessionStateKind::Failed,
            Self::Settled(_) => SessionStateKind::Settled,
            Self::Pruned(_) => SessionStateKind::Pruned,
        }
    }
}

/// Which sessions are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    pub(crate) user: Option<UserId>,
    /// All where none is named.
    pub(crate) states: Vec<SessionStateKind>,
    /// Started before this, if anything is said.
    pub(crate) started_before: Option<Timestamp>,
    /// Later ones than this, if anything is said.
    pub(crate) after: Option<SessionId>,
}

impl Selection {
    /// Whether it wants a session.
    pub(crate) fn wants(&self, info: &SessionInfo) -> bool {
        self.wants_row(info.id, info.user, info.started_at) && self.wants_state(&info.state)
    }

    fn wants_row(&self, id: SessionId, user: UserId, started: Timestamp) -> bool {
        self.after.is_none_or(|after| id > after)
            && self.user.is_none_or(|wanted| wanted == user)
            && self.started_before.is_none_or(|before| started < before)
    }

    fn wants_state(&self, state: &SessionState) -> bool {
        self.states.is_empty() || self.states.contains(&state.kind())
    }
}

impl Sessions {
    /// The first `limit` hot sessions that are wanted, as of `now`, by ascending id. A pass over all hot
    /// rows; only what is answered is copied.
    pub(crate) fn select(
        &self,
        wanted: &Selection,
        limit: usize,
        (schema, incarnation, now): (&Schema, u64, Timestamp),
    ) -> Vec<SessionInfo> {
        let rows = self.rows.read();
        let as_of = AsOf { schema, awaited: rows.side().awaited(), incarnation, now };
        // The largest on top, to make room for a smaller one.
        let mut first: BinaryHeap<SessionId> = BinaryHeap::new();
        for (_, row) in rows.iter() {
            let is_first = first.len() < limit || first.peek().is_some_and(|&last| row.id < last);
            if is_first
                && wanted.wants_row(row.id, row.user, row.course.started)
                && (wanted.states.is_empty() || wanted.wants_state(&self.state_of(row, &as_of)))
            {
                first.push(row.id);
                if first.len() > limit {
                    first.pop();
                }
            }
        }
        let found = first.into_sorted_vec();
        let found = found.iter().filter_map(|id| rows.get(id));
        found.map(|row| self.found(row, &as_of).info).collect()
    }

    /// The sessions that were over by a moment and that nobody has noticed an end of since, by
    /// ascending id.
    pub(crate) fn unnoticed_by(&self, moment: Timestamp) -> Vec<SessionId> {
        let rows = self.rows.read();
        let mut ids = rows.side().due_by(moment, usize::MAX);
        ids.retain(|id| rows.get(id).is_some_and(|row| row.stage == Stage::Open));
        ids.sort_unstable();
        ids
    }
}

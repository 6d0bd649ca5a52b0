//! Sessions: what one user does through one agent, from a start to an end.
//!
//! Knows: who holds a session, what was written in it, when it is over, where it ended. Must not know:
//! what a signal counts for, the log, clocks, threads.
//!
//! - `course`: when a session is over and where it ended: pure functions.
//! - `row`: what is known of a session, as bytes, and the index over all rows.
//! - `content`: the records of a session, and the hash over them.
//! - `change`: what a record of the log does to sessions; `ends`: how they end, and what an open and a reset
//!   of the clock do to them.
//! - `processing`: who a session waits for before it settles, and that it has failed.
//! - `rates`: how many signals an agent has sent lately.
//! - `event`, `info`: the words for what happened, and for what is known.
//!
//! Two hot tables: sessions that are open or still take late records, and rates. Two cold ones: the
//! records of all sessions, and what is known of those that have ended for good. `apply` reads no cold
//! table, so what is written to a session that is not hot is refused as not found; who knows the stores
//! can say more.
//!
//! **Time ends a session whether anyone notices or not.** From its deadline on every answer and every
//! decision is that of an ended session, and its end follows from its row. Noticing it (by a sweep, an
//! open, a refused write) tells those who want to be told, and moves the row to the cold table; the digest
//! is the same before and after. For the same reason a row that time has ended moves only once an
//! *operation* has come after its deadline: engine time may be set back to the last operation.

mod change;
mod content;
mod course;
mod deliveries;
mod ends;
mod event;
mod info;
mod processing;
mod rates;
mod row;
mod select;
#[cfg(test)]
mod tests;

pub(crate) use change::{At, Change, Started};
pub(crate) use content::{Content, What, hash_of};
pub(crate) use deliveries::{Deliveries, decode_event};
pub(crate) use ends::Noticed;
#[cfg(test)]
use ends::Recovery;
pub(crate) use event::Happened;
pub use event::{FailCause, SessionEvent};
pub use info::{SessionContent, SessionInfo, SessionRecord, SessionState};
pub(crate) use processing::{Awaited, Failed, FailedLately, Processed, Stake, Standing};
pub(crate) use select::Selection;
pub use select::SessionStateKind;

use std::sync::Arc;

use crate::codec::DecodeError;
use crate::ids::{Fence, SessionId, Timestamp, UserId};
use crate::schema::{Lane, Schema};
use crate::sync::{AtomicU64, Ordering};
use crate::table::{ColdTable, Slab, StateTable, Table, TableId};
use course::Limits;
use rates::Rates;
use row::{Index, SessionRow, Stage};

/// All sessions.
pub(crate) struct Sessions {
    rows: Arc<Table<SessionRow>>,
    rates: Rates,
    records: Arc<ColdTable>,
    ended: Arc<ColdTable>,
    /// The engine time of the open that this process began with. Every process begins with one, so it is
    /// in no page.
    opened_at_ns: AtomicU64,
}

/// A session whose row is at hand, and where its records begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) info: SessionInfo,
    /// The number of its newest record, or 0.
    pub(crate) head: u64,
    /// The first moment at which it takes no late records; `None` while it is open.
    pub(crate) settles_at: Option<Timestamp>,
    /// Who has seen how much of it while it was hot, or has given it up.
    pub(crate) processed: Vec<Processed>,
    /// That its processing was given up, if it was.
    pub(crate) failed: Option<Failed>,
}

/// What decides how a session is.
struct AsOf<'a> {
    schema: &'a Schema,
    awaited: &'a [Awaited],
    incarnation: u64,
    now: Timestamp,
}

impl Sessions {
    /// The kinds of the hot tables on disk.
    pub(crate) const ROWS: u8 = 13;
    pub(crate) const RATES: u8 = 14;
    /// The numbers of the cold tables on disk.
    pub(crate) const RECORDS: u8 = 2;
    pub(crate) const ENDED: u8 = 3;

    pub(crate) fn new() -> Self {
        let table = |kind| TableId { kind, part: 0 };
        Self {
            rows: Arc::new(Table::new(table(Self::ROWS), Index::default())),
            rates: Rates::new(table(Self::RATES)),
            records: Arc::new(ColdTable::new(Self::RECORDS)),
            ended: Arc::new(ColdTable::new(Self::ENDED)),
            opened_at_ns: AtomicU64::new(0),
        }
    }

    /// The table of sessions.
    pub(crate) fn rows(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.rows) as Arc<dyn StateTable>
    }

    /// The table of rates.
    pub(crate) fn rates(&self) -> Arc<dyn StateTable> {
        self.rates.table()
    }

    /// Both hot tables.
    pub(crate) fn tables(&self) -> [Arc<dyn StateTable>; 2] {
        [self.rows(), self.rates()]
    }

    /// The cold table of records.
    pub(crate) const fn records(&self) -> &Arc<ColdTable> {
        &self.records
    }

    /// The cold table of sessions that have ended for good.
    pub(crate) const fn ended(&self) -> &Arc<ColdTable> {
        &self.ended
    }

    /// The hot rows as the table of ended sessions will have them, for the digest: there it does not
    /// matter in which table a row lies.
    pub(crate) fn canonical_rows(&self) -> Vec<(u64, Vec<u8>)> {
        let rows = self.rows.read();
        rows.iter().map(|(_, row)| (row.id.get(), row.canonical_bytes())).collect()
    }

    /// A session that is open, or still takes late records, as of `now`.
    pub(crate) fn find(
        &self,
        id: SessionId,
        schema: &Schema,
        incarnation: u64,
        now: Timestamp,
    ) -> Option<Found> {
        let rows = self.rows.read();
        let as_of = AsOf { schema, awaited: rows.side().awaited(), incarnation, now };
        rows.get(&id).map(|row| self.found(row, &as_of))
    }

    /// What the table of ended sessions says of a session.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the row is none, or is another session's.
    pub(crate) fn found_ended(
        id: SessionId,
        bytes: &[u8],
        schema: &Schema,
    ) -> Result<Found, DecodeError> {
        let row = SessionRow::from_canonical(bytes)?;
        let policy = schema.session_policy_at(row.policy);
        let policy = policy
            .ok_or(DecodeError::Malformed("a session under a policy that there is none of"))?;
        if row.id != id {
            return Err(DecodeError::Malformed("another session"));
        }
        let limits = Limits::of(policy);
        if !row.course.is_sound(limits) {
            return Err(DecodeError::Malformed("a session that was active after its deadline"));
        }
        let end = row.last_end(limits);
        let settles_at = Some(row.settles_at(limits));
        let state = if row.pruned { SessionState::Pruned(end) } else { SessionState::Settled(end) };
        Ok(found_as(row, schema, (state, settles_at), None, 0))
    }

    /// What the table of ended sessions is to say of a session once its records are gone.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the row is none.
    pub(crate) fn pruned_row(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let row = SessionRow::from_canonical(bytes)?;
        Ok(SessionRow { pruned: true, head: 0, ..row }.canonical_bytes())
    }

    /// The session that is over, or settles, next, whether or not that was noticed; and when. Not those that
    /// only leave.
    pub(crate) fn first_over(&self) -> Option<(Timestamp, SessionId)> {
        self.rows.read().side().first_over()
    }

    /// From when on there is something for a sweep to do; `None` while there is nothing, after an
    /// operation at this time.
    pub(crate) fn first_due(&self, operation_time: Timestamp) -> Option<Timestamp> {
        self.rows.read().side().first_due(operation_time)
    }

    /// How many sessions nobody has noticed an end of.
    pub(crate) fn open_len(&self) -> usize {
        self.rows.read().side().open_len()
    }

    fn found(&self, row: &SessionRow, as_of: &AsOf<'_>) -> Found {
        let &AsOf { schema, now, .. } = as_of;
        let limits = limits_of(schema, row.policy);
        let is_over = row.end_at(limits, now).is_some();
        let settles_at = is_over.then(|| row.settles_at(limits));
        let deadline = (!is_over).then(|| row.course.deadline(limits));
        let state = self.state_of(row, as_of);
        found_as(row.clone(), schema, (state, settles_at), deadline, as_of.incarnation)
    }

    fn state_of(&self, row: &SessionRow, as_of: &AsOf<'_>) -> SessionState {
        let limits = limits_of(as_of.schema, row.policy);
        match row.end_at(limits, as_of.now) {
            Some(end) if row.is_settled(as_of.awaited, limits, as_of.now) => {
                SessionState::Settled(end)
            }
            Some(end) => match row.failed.as_deref().cloned() {
                Some(Failed { at, cause }) => SessionState::Failed { end, cause, at },
                None => SessionState::Ended(end),
            },
            None if row.fence.incarnation == as_of.incarnation => SessionState::Active,
            None => SessionState::Restored { since: self.opened_at() },
        }
    }

    fn opened_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.opened_at_ns.load(Ordering::Relaxed))
    }

    /// Refuses restored rows that no log leads to.
    pub(crate) fn check_restored(
        &self,
        schema: &Schema,
        (operations, incarnation): (u64, u64),
        engine_time: Timestamp,
    ) -> Result<(), DecodeError> {
        self.rates.check_restored(schema.session_policies().len())?;
        let rows = self.rows.read();
        for (_, row) in rows.iter() {
            let evidence = row.course.evidence.map_or(0, |evidence| evidence.record);
            let newest = row.id.get().max(row.head).max(evidence).max(row.counts.records);
            if newest > operations || row.fence.incarnation > incarnation || row.pruned {
                return Err(DecodeError::Malformed("a session from operations that never were"));
            }
            if schema.session_policy_at(row.policy).is_none() {
                return Err(DecodeError::Malformed(
                    "a session under a policy that there is none of",
                ));
            }
            if row.end.is_none() && row.course.last_activity > engine_time {
                return Err(DecodeError::Malformed("a session that was active after now"));
            }
        }
        self.check_rows(&rows, schema)
            .map_err(|_| DecodeError::Malformed("sessions that contradict each other"))
    }

    /// Checks what is derived, and the rows against the rules of the schema; the sentence says what is
    /// broken.
    pub(crate) fn check(&self, schema: &Schema) -> Result<(), String> {
        self.rates.check()?;
        let rows = self.rows.read();
        let awaited = rows.side().awaited().to_vec();
        if *rows.side() != Index::of_rows(&rows, awaited) {
            return Err("sessions are not listed by their users, times and processors".to_owned());
        }
        self.check_rows(&rows, schema)
    }

    fn check_rows(&self, rows: &Slab<SessionRow>, schema: &Schema) -> Result<(), String> {
        for (_, row) in rows.iter() {
            let (id, limits) = (row.id, limits_of(schema, row.policy));
            if !row.course.is_sound(limits) {
                return Err(format!("session {id} was active after its deadline"));
            }
            if row.due != row.next_due(limits) {
                return Err(format!("session {id} is due at another time than its row says"));
            }
            if (row.end.is_some() || row.failed.is_some()) && row.stage == Stage::Open {
                return Err(format!("session {id} has ended and is open"));
            }
            if row.stage == Stage::Open
                && schema.session_lane() != Lane::Overlapping
                && in_lane(rows, schema.session_lane(), row.user, &row.agent).len() != 1
            {
                return Err(format!("session {id} is not alone in its lane"));
            }
        }
        Ok(())
    }
}

/// The sessions of a lane that nobody has noticed an end of, ascending.
fn in_lane(
    rows: &Slab<SessionRow>,
    lane: Lane,
    user: UserId,
    agent: &str,
) -> smallvec::SmallVec<[SessionId; 2]> {
    let index = rows.side();
    if lane == Lane::User {
        return index.open_of(user).collect();
    }
    let is_same = |id: &SessionId| rows.get(id).is_some_and(|row| *row.agent == *agent);
    index.open_with(user, agent).filter(is_same).collect()
}

/// The durations of a policy.
///
/// # Panics
///
/// When there is no such policy: what names one is refused before it becomes a row.
fn limits_of(schema: &Schema, policy: u16) -> Limits {
    Limits::of(schema.session_policy_at(policy).expect("a session has a policy of the schema"))
}

fn found_as(
    row: SessionRow,
    schema: &Schema,
    (state, settles_at): (SessionState, Option<Timestamp>),
    deadline: Option<Timestamp>,
    incarnation: u64,
) -> Found {
    let (head, processed) = (row.head, row.processed.to_vec());
    let failed = row.failed.as_deref().cloned();
    let info = info_of(row, schema, state, deadline, incarnation);
    Found { info, head, settles_at, processed, failed }
}

fn info_of(
    row: SessionRow,
    schema: &Schema,
    state: SessionState,
    deadline: Option<Timestamp>,
    incarnation: u64,
) -> SessionInfo {
    let policy = schema.session_policy_at(row.policy).map(|policy| policy.name.clone());
    // Nobody holds one that has ended: whoever held it is not known any more once its row has moved.
    let fence = if state.is_open() { row.fence_in(incarnation) } else { Fence::default() };
    SessionInfo {
        id: row.id,
        user: row.user,
        fence,
        agent: row.agent.into(),
        policy: policy.unwrap_or_default(),
        state,
        started_at: row.course.started,
        last_activity_at: row.course.last_activity,
        deadline,
        records: row.counts.records,
        signals: row.counts.signals,
        annotations: row.counts.annotations,
        late: row.counts.late,
        content_hash: row.hash,
    }
}

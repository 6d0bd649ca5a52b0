//! The way of a processor through sessions that had left before its version came.
//!
//! Knows: which rows of the table of ended sessions it has yet to look at. Must not know: what is done with
//! a session.
//!
//! Sessions that are in memory are listed by the state as long as a processor wants them. What had left when
//! it was registered, or got its version, has a lower number than that operation, and never changes: it is
//! looked at once, by ascending id, each page of rows after the one before. What was in memory then, and has
//! left since, was seen; its outcome says so.

use std::collections::BTreeMap;

use super::entry::Entry;
use super::view::Pinned;
use crate::db::door::Inside;
use crate::db::sessions::look::found_in;
use crate::error::Result;
use crate::ids::{SessionId, Timestamp};
use crate::processors::{Outcome, ProcessorRow};
use crate::sessions::SessionState;

/// Rows that are read at once.
const PAGE: usize = 256;

/// How far a processor has gone.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// All rows up to this one were looked at.
    scanned: u64,
    /// It goes no further: what came later was in memory.
    end: u64,
    /// Sessions that were looked at and are to be attempted.
    found: BTreeMap<u64, Pinned>,
    /// The first session whose attempt could not begin: the next run looks again from there.
    put_off: Option<u64>,
}

impl Walk {
    /// From where the last run that anyone knows of got to.
    pub(super) fn from(row: &ProcessorRow) -> Self {
        Self { scanned: row.backfilled, ..Self::default() }
    }

    /// A run begins.
    pub(super) fn begin(&mut self, row: &ProcessorRow) {
        self.end = row.bumped_op;
    }

    /// The next sessions that are to be attempted, at most so many; none when there are no more, or when the
    /// processor is to stop while they are looked for. How many had been processed already is added to
    /// `unchanged`.
    pub(super) fn next(
        &mut self,
        on: (&Inside, &Entry),
        now: Timestamp,
        count_max: usize,
        unchanged: &mut u64,
    ) -> Result<Vec<Pinned>> {
        while self.found.len() < count_max && self.scanned < self.end {
            if on.1.is_stopping() {
                return Ok(Vec::new());
            }
            self.look_ahead(on, now, unchanged)?;
        }
        Ok(self.found.values().take(count_max).cloned().collect())
    }

    /// An attempt at a session has begun, and is known to the state from now on.
    pub(super) fn begun(&mut self, id: SessionId) {
        self.found.remove(&id.get());
    }

    /// An attempt at a session could not begin: the next run looks again.
    pub(super) fn put_off(&mut self, id: SessionId) {
        if self.found.remove(&id.get()).is_some() {
            self.put_off = Some(self.put_off.map_or(id.get(), |first| first.min(id.get())));
        }
    }

    /// Through which session nothing is left to be looked at, be it by a process that knows nothing of
    /// this walk.
    pub(super) fn through(&self) -> u64 {
        let left = self.found.keys().next().copied().into_iter().chain(self.put_off).min();
        left.map_or(self.scanned, |left| (left - 1).min(self.scanned))
    }

    /// A run ends: what was looked at and not attempted is looked at again.
    pub(super) fn end(&mut self) {
        self.scanned = self.through();
        (self.found, self.put_off) = (BTreeMap::new(), None);
    }

    /// Looks at a page of rows.
    fn look_ahead(
        &mut self,
        (inside, entry): (&Inside, &Entry),
        now: Timestamp,
        unchanged: &mut u64,
    ) -> Result<()> {
        let rows = inside.rows_from(inside.state.sessions.ended(), self.scanned + 1, PAGE)?;
        let is_last = rows.len() < PAGE || rows.last().is_some_and(|(id, _)| *id >= self.end);
        for (id, row) in rows.into_iter().take_while(|(id, _)| *id <= self.end) {
            let found = look_at((inside, entry), (id, &row), now, unchanged)?;
            self.found.extend(found.map(|pinned| (id, pinned)));
            self.scanned = id;
        }
        if is_last {
            self.scanned = self.end;
        }
        Ok(())
    }
}

/// A session that has left, if it is to be attempted.
fn look_at(
    (inside, entry): (&Inside, &Entry),
    (id, row): (u64, &[u8]),
    now: Timestamp,
    unchanged: &mut u64,
) -> Result<Option<Pinned>> {
    let id = SessionId::new(id);
    // One that was attempted before is listed by its attempts.
    if inside.state.processors.attempt(id, entry.number).is_some() {
        return Ok(None);
    }
    let found = found_in(row, id, &inside.state.declared().schema)?;
    if matches!(found.info.state, SessionState::Pruned(_)) {
        return Ok(None);
    }
    if let Some(bytes) = outcome_row(inside, entry, id)? {
        let outcome = Outcome::decode(&bytes);
        let outcome = outcome.map_err(|e| e.of(format!("an outcome of session {id}")))?;
        if outcome.version == entry.version && outcome.hash == found.info.content_hash {
            *unchanged += 1;
            return Ok(None);
        }
    }
    Ok(Some(Pinned { info: found.info, head: found.head, count: 0, observed_at: now }))
}

fn outcome_row(inside: &Inside, entry: &Entry, id: SessionId) -> Result<Option<Vec<u8>>> {
    inside.row(inside.state.processors.outcomes(), Outcome::key(id, entry.number))
}

/// A session that has left, wherever the walk is, if it is to be attempted.
pub(super) fn look_up(
    on: (&Inside, &Entry),
    id: SessionId,
    now: Timestamp,
    unchanged: &mut u64,
) -> Result<Option<Pinned>> {
    let row = on.0.row(on.0.state.sessions.ended(), id.get())?;
    let found = row.map(|row| look_at(on, (id.get(), &row), now, unchanged));
    Ok(found.transpose()?.flatten())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::db::TidalDb;
    use crate::db::processors::{ProcessorOptions, Usage};
    use crate::ids::ProcessorId;
    use crate::options::{Runtime, SessionConfig};
    use crate::schema::{DecaySpec, EntityKind, SchemaBuilder};

    fn entry(number: ProcessorId) -> Entry {
        let (name, usage) = ("usage".to_owned(), Box::new(Usage::new()));
        let options = (ProcessorOptions::default(), std::time::Duration::from_secs(60));
        Entry::new((name, 1, number), options, usage, (Arc::default(), None))
    }

    #[test]
    fn a_walk_that_is_to_stop_does_so_between_pages_and_goes_on_from_where_it_was() {
        let mut schema = SchemaBuilder::new();
        let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).add();
        let config = SessionConfig { runtime: Runtime::Manual, ..SessionConfig::default() };
        let builder = TidalDb::builder().ephemeral().with_sessions(config);
        let db = builder.with_schema(schema.build().expect("sound")).open().expect("opens");
        let len = 2 * PAGE as u64 + 10;
        for user in 0..len {
            db.start_session(user, "app", "default").expect("started").close().expect("closed");
        }
        db.sessions().register(Usage::new(), ProcessorOptions::default()).expect("registered");
        let row = db.state.processors.find("usage").expect("it is there");
        let (stopped, goes_on) = (entry(row.number), entry(row.number));
        let (mut walk, mut unchanged) = (Walk::from(&row), 0);
        walk.begin(&row);
        let now = db.engine_time();
        let mut next = |walk: &mut Walk, entry: &Entry, count_max: usize| {
            let look = |inside: &Inside| walk.next((inside, entry), now, count_max, &mut unchanged);
            db.processors.context.door.look(look).expect("read")
        };
        let first = next(&mut walk, &stopped, 1).remove(0).info.id;
        assert_eq!(walk.through(), first.get() - 1);
        walk.begun(first);
        stopped.stop();
        assert!(next(&mut walk, &stopped, PAGE).is_empty(), "it would have to read on");
        let second = walk.through() + 1;
        assert!((first.get() + 1..row.bumped_op).contains(&second));
        walk.end();
        assert_eq!(walk.through() + 1, second, "nothing is passed by");
        let rest = next(&mut walk, &goes_on, usize::MAX);
        assert_eq!((rest.len() as u64, rest[0].info.id.get()), (len - 1, second));
    }
}

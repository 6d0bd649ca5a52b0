//! What a handle keeps of a database when the call that gave it is over.
//!
//! Knows: how a record gets to the writer, and how to look inside while the database is open. Must not
//! know: what a record means.
//!
//! A handle may outlive its database: it keeps no store, no state and no lock, so that a database that is
//! closed is closed, whoever still has a handle on it.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::ticket::Ticket;
use super::view::DatabaseAddress;
use crate::checkpoint::{StorePair, waiting_rows};
use crate::clock::Clock;
use crate::engine::{Barrier, Operation, Positions, Queue, engine_now, promise};
use crate::error::{Error, Result};
use crate::ids::Timestamp;
use crate::options::{Durability, Options, SessionConfig};
use crate::seq::Seq;
use crate::state::{Reply, State};
use crate::sync::RwLock;
use crate::table::ColdTable;
use crate::wal::FrameBody;

/// The way to a database's writer, and inside.
pub(super) struct Door {
    queue: Arc<Queue>,
    address: DatabaseAddress,
    /// The address is its own as long as these are there.
    _positions: Arc<Positions>,
    pub(super) options: Options,
    pub(super) sessions: SessionConfig,
    inside: RwLock<Option<Inside>>,
}

/// What is behind the door of an open database.
pub(super) struct Inside {
    pub(super) state: Arc<State>,
    pub(super) stores: Option<Arc<StorePair>>,
}

impl Inside {
    /// A row of a cold table.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] or [`Error::Corrupt`] when neither checkpoint store can give it.
    pub(super) fn row(&self, table: &ColdTable, key: u64) -> Result<Option<Vec<u8>>> {
        match &self.stores {
            Some(stores) => stores.row(table, key),
            None => Ok(table.pending(key).flatten().map(|row| row.to_vec())),
        }
    }

    /// The rows of a cold table from a key on, in ascending order, at most `limit` of them.
    ///
    /// # Errors
    ///
    /// As [`row`](Self::row).
    pub(super) fn rows_from(
        &self,
        table: &ColdTable,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>> {
        match &self.stores {
            Some(stores) => stores.rows_from(table, from, limit),
            None => Ok(waiting_rows(table, from, limit)),
        }
    }

    /// Goes through the rows of a cold table from a key on, in ascending order, until `each` breaks off.
    ///
    /// # Errors
    ///
    /// As [`row`](Self::row); those of `each`.
    pub(super) fn each_row(
        &self,
        table: &ColdTable,
        from: u64,
        mut each: impl FnMut(u64, &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut next = Some(from);
        while let Some(from) = next {
            let rows = self.rows_from(table, from, ROWS_PER_READ)?;
            next = rows.last().and_then(|(last, _)| last.checked_add(1));
            for (key, row) in rows {
                if each(key, &row)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Rows that are read at once.
const ROWS_PER_READ: usize = 256;

impl Door {
    pub(super) fn new(
        queue: Arc<Queue>,
        positions: Arc<Positions>,
        (options, sessions): (Options, SessionConfig),
        inside: Inside,
    ) -> Self {
        Self {
            queue,
            address: DatabaseAddress::of(&positions),
            _positions: positions,
            options,
            sessions,
            inside: RwLock::new(Some(inside)),
        }
    }

    /// Looks inside. Closing waits for it to be over.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; those of `look`.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Inside) -> Result<T>) -> Result<T> {
        look(self.inside.read().as_ref().ok_or(Error::Closed)?)
    }

    /// The time: the clock's, or the events'.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub(super) fn now(&self, clock: &dyn Clock) -> Result<Timestamp> {
        self.look(|inside| Ok(engine_now(&inside.state, clock)))
    }

    /// Queues a record.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], [`Error::Stopped`]; [`Error::InvalidArgument`] within a view.
    pub(super) fn send(
        &self,
        body: FrameBody,
        events: usize,
        latest: Option<Timestamp>,
        durability: Option<Durability>,
        resets_clock: bool,
    ) -> Result<Ticket> {
        self.address.expect_no_view()?;
        let (promise, pending) = promise::<(Seq, Reply)>();
        let durability = durability.unwrap_or(self.options.durability);
        self.queue.push(Operation { body, events, latest, durability, resets_clock, promise })?;
        Ok(Ticket::new(pending, self.address))
    }

    /// Makes everything written so far survive a power cut; through where.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub(super) fn flush(&self) -> Result<Seq> {
        self.address.expect_no_view()?;
        let (answer, pending) = promise();
        self.queue.push_barrier(Barrier::Flush(answer))?;
        pending.wait()
    }

    /// The way to the writer alone.
    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    /// Nobody looks inside any more.
    pub(super) fn close(&self) {
        let inside = self.inside.write().take();
        drop(inside);
    }
}

//! A session, as a processor sees it.
//!
//! Knows: what was there when the attempt began, and whether the attempt still counts. Must not know: what
//! becomes of the outputs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Context;
use super::entry::Entry;
use crate::codec::{Hash, Hasher, Purpose};
use crate::db::sessions::read::records;
use crate::error::{Error, Result};
use crate::ids::{AttemptId, CohortId, EntityId, SessionId, Timestamp};
use crate::schema::Window;
use crate::sessions::{Content, SessionContent, SessionInfo, SessionRecord, hash_of};

/// A session whose attempt is to begin, as it was when that was decided.
#[derive(Debug, Clone)]
pub(super) struct Pinned {
    pub(super) info: SessionInfo,
    /// Its newest record, or 0.
    pub(super) head: u64,
    /// How many attempts there were before.
    pub(super) count: u32,
    /// When it was looked at.
    pub(super) observed_at: Timestamp,
}

/// A session as it was when the attempt began: what is appended meanwhile is not in it, and makes that it
/// is handed out again.
pub struct SessionView<'a> {
    pub(super) context: &'a Context,
    pub(super) entry: &'a Entry,
    pub(super) pinned: &'a Pinned,
    pub(super) attempt: AttemptId,
    /// When the call began, by the monotonic clock.
    pub(super) called_at: Duration,
}

impl std::fmt::Debug for SessionView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionView")
            .field("id", &self.id())
            .field("head", &self.head())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

impl SessionView<'_> {
    /// The session.
    pub const fn id(&self) -> SessionId {
        self.pinned.info.id
    }

    /// What is known of it.
    pub const fn info(&self) -> &SessionInfo {
        &self.pinned.info
    }

    /// The number of its newest record, or 0.
    pub const fn head(&self) -> u64 {
        self.pinned.head
    }

    /// The hash of its content.
    pub const fn content_hash(&self) -> [u8; 32] {
        self.pinned.info.content_hash
    }

    /// Its records, in the order in which they came. They are read at each call.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) or [`Corrupt`](Error::Corrupt) when a record cannot be read, also because
    /// the session was pruned meanwhile; [`Closed`](Error::Closed).
    pub fn records(&self) -> Result<Vec<SessionRecord>> {
        let records =
            self.context.door.look(|inside| records(inside, self.id(), self.pinned.head))?;
        match records.len() as u64 == self.pinned.info.records {
            true => Ok(records),
            false => Err(self.incomplete()),
        }
    }

    /// Which attempt this is, from 1 on.
    pub const fn attempt(&self) -> u32 {
        self.pinned.count.saturating_add(1)
    }

    /// A hash of the processor's name and version, the session, and its content: the same each time for
    /// one content, and another one for any other. For effects outside of the database, which may happen
    /// more than once: a receiver that remembers the key can leave out the repetition.
    pub fn idempotency_key(&self) -> [u8; 32] {
        idempotency_key(self.entry, self.pinned)
    }

    /// Whether the call ought to return: it has taken longer than
    /// [`attempt_timeout`](crate::ProcessorOptions::attempt_timeout), or the processor is being stopped,
    /// or what it makes would not be accepted any more, since the processing of the session was given up
    /// or begun anew.
    pub fn should_stop(&self) -> bool {
        let spent = self.context.clock.monotonic().saturating_sub(self.called_at);
        spent > self.entry.attempt_timeout
            || self.entry.is_stopping()
            || !self.counts().unwrap_or(false)
    }

    /// Whether the attempt is still the one that is running.
    fn counts(&self) -> Result<bool> {
        let (processor, session) = (self.entry.number, self.id());
        self.context.door.look(|inside| {
            let incarnation = inside.state.header().incarnation;
            let attempt = (self.attempt, incarnation);
            Ok(inside.state.processors.is_running(processor, session, attempt))
        })
    }

    /// The hash of its content, worked out anew from its records as they lie.
    pub(super) fn recomputed_hash(&self) -> Result<Hash> {
        let info = &self.pinned.info;
        self.context.door.look(|inside| {
            let (mut rows, mut next) = (Vec::new(), self.pinned.head);
            while next != 0 {
                let row = inside.row(inside.state.sessions.records(), next)?;
                let row = row.ok_or_else(|| self.incomplete())?;
                let what = || format!("record {next} of session {}", info.id);
                let previous = Content::decode(&row).map_err(|e| e.of(what()))?.previous;
                if previous >= next {
                    return Err(Error::corrupt(what(), "it comes after a later one"));
                }
                rows.push(row);
                next = previous;
            }
            let (policy, _) = inside.state.declared().schema.session_policy(&info.policy)?;
            let of = (info.user, &*info.agent, policy, info.started_at);
            Ok(hash_of(of, rows.iter().rev().map(Vec::as_slice)))
        })
    }

    /// What the ledger has fewer signals of, for items that it has counted any of; in sentences.
    pub(super) fn uncounted(&self, records: &[SessionRecord]) -> Result<Vec<String>> {
        let mut counts = BTreeMap::<(&str, EntityId), u64>::new();
        for record in records {
            if let SessionContent::Signal { signal, .. } = &record.content {
                *counts.entry((signal, record.entity)).or_default() += 1;
            }
        }
        let now = self.context.now()?;
        self.context.door.look(|inside| {
            let declared = inside.state.declared();
            let mut findings = Vec::new();
            for ((signal, item), count) in counts {
                let number = declared.schema.resolve(signal)?;
                let view = inside.state.signal(&declared, Some(CohortId::EVERYONE), number, now);
                let mut counted = [0];
                // A signal without that window is not counted for ever.
                let is_known = view.counts(&[item], Window::AllTime, &mut counted).is_ok();
                if is_known && (1..count).contains(&counted[0]) {
                    let [counted] = counted;
                    findings.push(format!(
                        "the ledger has {counted} {signal:?} of item {item}, and it sent {count}"
                    ));
                }
            }
            Ok(findings)
        })
    }

    fn incomplete(&self) -> Error {
        Error::corrupt(format!("the records of session {}", self.id()), "some are missing")
    }
}

pub(super) fn idempotency_key(entry: &Entry, pinned: &Pinned) -> Hash {
    Hasher::new(Purpose::Idempotency)
        .update(&entry.version.to_le_bytes())
        .update(&pinned.info.id.get().to_le_bytes())
        .update(&pinned.info.content_hash)
        .update(entry.name.as_bytes())
        .finish()
}

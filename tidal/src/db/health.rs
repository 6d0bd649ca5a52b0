//! Whether an open database is well.
//!
//! Knows: where what the rules of health judge comes from. Must not know: the rules.
//!
//! Nothing here walks rows: it is counters, and the first and last keys of indexes, so it costs the same
//! with a million sessions as with none. It takes no lock for longer than a read does, and asks no thread,
//! so it answers when they are dead.

use std::sync::Arc;
use std::time::Duration;

use super::TidalDb;
use super::processors::{LONGEST_SLEEP, Observation, ProcessorOptions, Processors, Registration};
use crate::checkpoint::{SlotState, StorePair};
use crate::clock::{Clock, Stopwatch};
use crate::engine::{Lag, Overtime, Positions, Pulse, engine_now};
use crate::health::{
    self, BusyObserved, ClockObserved, CursorObserved, FailedObserved, HealthReport,
    JournalObserved, LastOpen, Observed, OldestWaiting, ProcessorObserved, SessionsObserved,
    StoreObserved, Task,
};
use crate::ids::Timestamp;
use crate::options::{Options, ProcessingTimeout, SessionConfig};
use crate::processors::ProcessorRow;
use crate::recovery::OpenReport;
use crate::sessions::{FailedLately, Stake};
use crate::state::{State, Work};
use crate::table::StoreSlot;

/// A log beyond this many times what leads to a checkpoint is not cut as it should be: each store has one
/// checkpoint's worth behind it, and one is being written.
const LOG_SIZES: u64 = 4;

/// A session may be passed over for this many cadences while newer ones are processed.
const SKIPPED_CADENCES: u32 = 8;

/// A thread may be silent for this many times as long as it may sleep.
const SILENCES: u32 = 3;

impl TidalDb {
    /// Whether the database is well, and what to do where it is not: every rule with its finding, from
    /// the log to the threads.
    ///
    /// May be called from any thread at any time, also when the database's own threads are dead; it
    /// waits for no disk and walks no rows. For a yes or no, see [`health_check`](Self::health_check).
    ///
    /// | rule | finds | at worst |
    /// |---|---|---|
    /// | `journal.log` | a log that cannot be written, or is not cut | critical |
    /// | `journal.checkpoint` | no checkpoint for three intervals, though there was something to write | warning |
    /// | `clock` | a clock that jumped, for which writes are refused | critical |
    /// | `stores` | a checkpoint store that is being rebuilt | warning |
    /// | `recovery` | what the last open repaired, for an hour | info |
    /// | `background` | a thread that does not move, or panicked; those of processors among them | warning |
    /// | `cursors` | a cursor that keeps more than 100,000 events | info |
    /// | `sessions.overdue` | an end that no sweep has written down for two intervals | warning |
    /// | `sessions.stuck` | a session that is processed for longer than its [`processing_timeout`](crate::SessionConfig::processing_timeout): critical if the session waits for that call, a warning if it does not | critical |
    /// | `sessions.long_running` | too many that are processed for longer than the first of [`warn_after`](crate::SessionConfig::warn_after) | warning |
    /// | `sessions.failed` | sessions whose processing was given up, for a day or until they are requeued | info |
    /// | `sessions.pipeline` | a processor that sees nothing, though a session has waited for two cadences | warning |
    /// | `sessions.skipped` | a session that is passed over while newer ones are processed | info |
    /// | `processors.overrun` | a call beyond its [`attempt_timeout`](crate::ProcessorOptions::attempt_timeout) | warning |
    /// | `processors.quarantined` | sessions that a processor has given up; a warning when it is required and they are more than 10 | warning |
    ///
    /// The last four are there once for each processor that there is, be it registered in this open or not.
    /// Those of a processor that is not required are info at most, but for `processors.overrun`, which
    /// always warns.
    ///
    /// ```
    /// # use tidaldb::schema::{DecaySpec, EntityKind, SchemaBuilder};
    /// # use tidaldb::{Overall, TidalDb};
    /// # let mut schema = SchemaBuilder::new();
    /// # let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).add();
    /// # let db = TidalDb::builder().ephemeral().with_schema(schema.build()?).open()?;
    /// let health = db.health();
    /// assert_eq!(health.overall, Overall::Healthy);
    /// for check in health.findings() {
    ///     println!("{}: {}", check.rule, check.detail);
    /// }
    /// # Ok::<(), tidaldb::Error>(())
    /// ```
    pub fn health(&self) -> HealthReport {
        let probe = self.probe.read();
        probe.as_ref().expect("it is there until the database is closed").report()
    }
}

/// All that health is judged by, for any thread to look at while the database is open.
pub(super) struct Probe {
    pub(super) state: Arc<State>,
    pub(super) positions: Arc<Positions>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: Options,
    pub(super) sessions: SessionConfig,
    pub(super) stores: Option<Arc<StorePair>>,
    pub(super) lag: Arc<Lag>,
    pub(super) overtime: Arc<Overtime>,
    /// The threads, and how long each may sleep.
    pub(super) tasks: Vec<(&'static str, Arc<Pulse>, Duration)>,
    pub(super) processors: Arc<Processors>,
    /// What the open found; `since` is counted from `since_opened`.
    pub(super) opened: LastOpen,
    pub(super) since_opened: Stopwatch,
}

/// What health tells of an open.
pub(super) fn last_open(report: &OpenReport) -> LastOpen {
    LastOpen {
        was_clean: report.clean,
        since: Duration::ZERO,
        replayed: report.replayed,
        rewritten: report.rewritten,
        repairs: report.repairs.clone(),
        sessions_restored: report.sessions_restored.len() as u64,
        sessions_ended: report.sessions_ended.len() as u64,
    }
}

impl Probe {
    pub(super) fn now(&self) -> Timestamp {
        engine_now(&self.state, &*self.clock)
    }

    pub(super) fn report(&self) -> HealthReport {
        let now = self.now();
        let mut work = self.overtime.work(&self.state, now);
        // What goes on with a session that was given up counts no more, and nobody writes down its end.
        work.retain(|work| work.stake != Stake::None);
        health::report(&Observed {
            clock: ClockObserved { now, jump_ms: self.positions.clock_jump_ms() },
            journal: self.journal(),
            stores: self.stores(),
            last_open: LastOpen { since: self.since_opened.elapsed(), ..self.opened.clone() },
            tasks: self.tasks(),
            cursors: self.cursors(),
            sessions: self.sessions(&work, now),
            processors: self.processors(&work, now),
        })
    }

    fn journal(&self) -> JournalObserved {
        let options = &self.options;
        let size_bytes = options.checkpoint_log_bytes.saturating_add(options.segment_size_bytes);
        JournalObserved {
            failure: self.positions.failure(),
            size_bytes: self.positions.log_size_bytes(),
            size_bytes_max: size_bytes.saturating_mul(LOG_SIZES),
            checkpoint_lag: self.lag.elapsed(),
            checkpoint_interval: options.checkpoint_interval,
            is_ephemeral: self.stores.is_none(),
        }
    }

    fn stores(&self) -> Vec<StoreObserved> {
        let Some(stores) = &self.stores else { return Vec::new() };
        let observed = |(slot, state): (StoreSlot, SlotState)| StoreObserved {
            name: slot.name(),
            failure: match state {
                SlotState::Failed { reason } => Some(reason.to_string()),
                SlotState::Empty | SlotState::Healthy { .. } => None,
            },
        };
        StoreSlot::BOTH.into_iter().zip(stores.state()).map(observed).collect()
    }

    fn tasks(&self) -> Vec<Task> {
        let own = |(name, pulse, sleep): &(&'static str, Arc<Pulse>, Duration)| Task {
            name: (*name).to_owned(),
            age: pulse.age(),
            allowed: *sleep * SILENCES,
            is_restarting: pulse.is_restarting(),
        };
        let of_processor = |it: Observation| Task {
            name: it.name,
            age: it.age,
            allowed: LONGEST_SLEEP * SILENCES,
            is_restarting: it.is_restarting,
        };
        let of_processors = self.processors.threads().into_iter().map(of_processor);
        self.tasks.iter().map(own).chain(of_processors).collect()
    }

    fn cursors(&self) -> Vec<CursorObserved> {
        let waiting = self.state.deliveries.waiting().into_iter();
        waiting.map(|(name, waiting)| CursorObserved { name, waiting }).collect()
    }

    fn sessions(&self, work: &[Work], now: Timestamp) -> SessionsObserved {
        let (header, sessions) = (self.state.header(), &self.state.sessions);
        // Where events advance time nobody is busy for any time: a minute may pass between two of them.
        let timeout = Some(self.sessions.processing_timeout).filter(|_| !header.event_time);
        let first_level = self.sessions.warn_after.first().copied();
        let busy = work.iter().map(|work| {
            let name = self.state.processors.get(work.processor).map(|row| row.name.into());
            BusyObserved {
                age: work.since.until(now),
                processor: name.unwrap_or_default(),
                session: work.session,
                timeout: timeout.map(|timeout| work.timeout(timeout)),
                is_awaited: work.stake == Stake::Awaited,
            }
        });
        SessionsObserved {
            open: sessions.open_len() as u64,
            // Nor has what is due an age there.
            first_due: match header.event_time {
                true => None,
                // What has been written down, and only has to leave memory, is not overdue.
                false => sessions.first_over().map(|(due, _)| due),
            },
            sweep_interval: self.sessions.sweep_interval,
            busy: busy.collect(),
            warn_after: first_level.filter(|_| !header.event_time),
            processing_timeout: timeout.map(ProcessingTimeout::smallest),
            long_running_max: self.sessions.long_running_max as u64,
            failed: self.failed(now),
        }
    }

    fn failed(&self, now: Timestamp) -> FailedObserved {
        let since = now.saturating_sub(health::FAILED_IS_NEWS_FOR);
        let FailedLately { len, last } =
            self.state.sessions.failed_since(since, health::FAILED_COUNTED as usize);
        let last = last.map(|(session, failed)| (session, failed.cause.to_string()));
        FailedObserved { count: len as u64, last }
    }

    /// Those that there are, whether or not they are registered in this open.
    fn processors(&self, work: &[Work], now: Timestamp) -> Vec<ProcessorObserved> {
        let registered = self.processors.registrations();
        let live = self.state.processors.all().into_iter().filter(|row| !row.removed);
        let of = |row: ProcessorRow| {
            let registration = registered.iter().find(|it| it.number == row.number);
            self.processor(row, registration, work, now)
        };
        live.map(of).collect()
    }

    fn processor(
        &self,
        row: ProcessorRow,
        registration: Option<&Registration>,
        work: &[Work],
        now: Timestamp,
    ) -> ProcessorObserved {
        let (number, header) = (row.number, self.state.header());
        let backlog = self.state.sessions.backlog(number, &self.state.declared().schema);
        let oldest = backlog.oldest.map(|(session, over_at)| {
            let attempt = self.state.processors.attempt(session, number);
            let (attempts, last_error) = attempt
                .map_or((0, None), |attempt| (attempt.count, attempt.error(header.incarnation)));
            OldestWaiting { session, over_at, attempts, last_error }
        });
        let cadence = registration.map_or(ProcessorOptions::default().cadence, |it| it.cadence);
        let working = work.iter().find(|work| work.processor == number).map(|work| work.since);
        // A call goes on, though its session was given up.
        let running_since = self.overtime.handed_since(number).or(working);
        let running_since = running_since.filter(|_| !header.event_time);
        let written = || self.state.processors.job(number);
        let ran = registration.map_or_else(written, |it| it.ran.clone());
        let ended_at = ran.as_ref().map(|run| run.finished_at).filter(|_| !header.event_time);
        ProcessorObserved {
            name: row.name.into(),
            is_gating: row.required,
            is_registered: registration.is_some(),
            cadence,
            skipped_after: self.sessions.stuck_grace.unwrap_or(cadence * SKIPPED_CADENCES),
            newest_observed: Some(row.observed_at).filter(|it| *it > Timestamp::EPOCH),
            newest_input: backlog.newest.map(|(_, over_at)| over_at),
            oldest,
            waiting: backlog.len,
            quarantined: self.state.processors.quarantined_len(number),
            running_for: running_since.map(|since| since.until(now)),
            ended_before: ended_at.map(|at| at.until(now)),
            failures: ran.map_or(0, |run| run.failures),
            attempt_timeout: registration.map_or(Duration::MAX, |it| it.attempt_timeout),
        }
    }
}

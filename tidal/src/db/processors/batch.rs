//! Attempts that begin together.
//!
//! Knows: what is written before and after the calls, and what becomes of each. Must not know: which
//! sessions are attempted, and why.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::candidates::Candidates;
use super::options::LONGEST;
use super::outputs::{Made, Outputs};
use super::processor::{ProcessError, Processed};
use super::run::Run;
use super::view::{Pinned, SessionView, idempotency_key};
use crate::engine::{encoded, words_of};
use crate::error::{ErrorKind, Result};
use crate::fault::CrashPoint;
use crate::ids::duration_nanos;
use crate::ids::{AttemptId, SessionId, Timestamp};
use crate::record::{
    BeginAttempt, BeginAttempts, CommitAttempt, CommitAttempts, FailAttempt, FailAttempts, Record,
};
use crate::sessions::Standing;
use crate::state::Reply;
use crate::wal::FrameBody;

/// Outputs that go into one frame: more are written down at once.
const COMMIT_SIZE_BYTES: usize = 1 << 20;
/// After so long in calls, what has not had its turn is given back: it would count as busy.
const STRETCH: Duration = Duration::from_secs(1);

const GIVEN_BACK: &str = "given back: the run ended, or took longer than expected, before its turn";

/// Attempts that have begun.
pub(super) struct Batch {
    attempt: AttemptId,
    begun: Vec<Pinned>,
}

/// A session that was processed, and is to be written down.
struct Done {
    pinned: Pinned,
    processed: Processed,
    made: Made,
}

/// A session that was not.
struct Failed {
    session: SessionId,
    next: Timestamp,
    is_last: bool,
    error: String,
}

impl Batch {
    /// Begins attempts, as far as they may.
    pub(super) fn begin(
        run: &mut Run<'_>,
        pinned: Vec<Pinned>,
        candidates: &mut Candidates,
    ) -> Result<Self> {
        let (entry, retry) = (run.entry, &run.entry.options.retry);
        let items = pinned.iter().map(|Pinned { info, count, .. }| {
            let attempt = count.saturating_add(1);
            BeginAttempt {
                session: info.id,
                user: info.user,
                count: *count,
                retry_ns: duration_nanos(retry.delay(&entry.name, info.id, attempt)),
                is_last: retry.is_last(attempt),
            }
        });
        let items = items.collect();
        let record = Record::BeginAttempts(BeginAttempts { processor: entry.number, items });
        let (attempt, may) = match run.ask(encoded(&record)?, 1, None)? {
            Some(Reply::Begun { attempt, begun }) => (attempt, begun),
            None => (AttemptId::new(0), vec![false; pinned.len()]),
            other => unreachable!("a beginning is answered with what began, not with {other:?}"),
        };
        run.context.faults.reach(CrashPoint::ProcessorAfterStarted);
        run.stats.scanned += pinned.len() as u64;
        let mut begun = Vec::with_capacity(pinned.len());
        for (pinned, may) in pinned.into_iter().zip(may) {
            let id = pinned.info.id;
            match may {
                true => {
                    candidates.walk.begun(id);
                    begun.push(pinned);
                }
                false => {
                    run.stats.fenced += 1;
                    candidates.leave_out(id);
                    candidates.walk.put_off(id);
                }
            }
        }
        Ok(Self { attempt, begun })
    }

    /// Makes the calls and writes down what became of them; how long the calls took.
    pub(super) fn finish(self, run: &mut Run<'_>, candidates: &mut Candidates) -> Result<Duration> {
        let began = run.context.clock.monotonic();
        let (mut done, mut failed) = (Vec::<Done>::new(), Vec::<Failed>::new());
        let mut returned = Vec::<Failed>::new();
        let (mut size_bytes, mut took) = (0, Duration::ZERO);
        let through = candidates.walk.through();
        let writing = Writing { attempt: self.attempt, through };
        for (at, pinned) in self.begun.into_iter().enumerate() {
            if at > 0 && (run.entry.is_stopping() || took > STRETCH) {
                returned.push(given_back(&pinned));
                continue;
            }
            match call(run, self.attempt, &pinned)? {
                Ok((processed, made)) if made.signals.is_empty() => {
                    size_bytes += made.size_bytes;
                    done.push(Done { pinned, processed, made });
                }
                Ok((processed, made)) => {
                    // They count if the item does, so it goes alone.
                    let one = vec![Done { pinned, processed, made }];
                    failed.extend(writing.commit(run, one, candidates)?);
                }
                Err(failure) => failed.push(failure),
            }
            took = run.context.clock.monotonic().saturating_sub(began);
            if size_bytes >= COMMIT_SIZE_BYTES {
                failed.extend(writing.commit(run, std::mem::take(&mut done), candidates)?);
                size_bytes = 0;
            }
        }
        if !done.is_empty() {
            failed.extend(writing.commit(run, done, candidates)?);
        }
        failed.iter().for_each(|failed| candidates.leave_out(failed.session));
        writing.fail(run, &failed)?;
        // Those are due at once, each alone: this run comes to them if it may.
        writing.give_back(run, &returned)?;
        Ok(took)
    }
}

/// Hands a session to the processor; whatever it does, nothing but its answer comes out.
fn call(
    run: &mut Run<'_>,
    attempt: AttemptId,
    pinned: &Pinned,
) -> Result<Result<(Processed, Made), Failed>> {
    let (context, entry) = (run.context, run.entry);
    let called_at = context.clock.monotonic();
    let view = SessionView { context, entry, pinned, attempt, called_at };
    let mut made = Made::default();
    let now = context.now()?;
    context.overtime.hand(entry.number, pinned.info.id, now);
    let mut outputs = Outputs {
        made: &mut made,
        door: &context.door,
        user: pinned.info.user,
        key: idempotency_key(entry, pinned),
        latest: context.latest(now)?,
    };
    context.faults.reach(CrashPoint::ProcessorInUserCode);
    // The words of an error, and its end, are the host's code as well.
    let call = || match entry.processor.process(&view, &mut outputs) {
        Ok(processed) => Ok(processed),
        Err(ProcessError::Retry { after, source }) => Err((after, source.to_string(), false)),
        Err(ProcessError::Permanent(source)) => Err((None, source.to_string(), true)),
    };
    let answer = catch_unwind(AssertUnwindSafe(call));
    let attempt = view.attempt();
    let (after, error, is_permanent) = match answer {
        Ok(Ok(processed)) => return Ok(Ok((processed, made))),
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let error = format!("panicked: {}", words_of(&*panic));
            // So is the end of what it panicked with; a second panic there is forgotten, whatever is in it.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
                std::mem::forget(panic);
            }
            tracing::error!(session = %pinned.info.id, attempt, error, "a processor panicked");
            (None, error, false)
        }
    };
    let retry = &entry.options.retry;
    let delay = after.unwrap_or_else(|| retry.delay(&entry.name, pinned.info.id, attempt));
    let delay = delay.min(LONGEST);
    Ok(Err(Failed {
        session: pinned.info.id,
        next: context.now()?.saturating_add(delay),
        is_last: is_permanent || retry.is_last(attempt),
        error,
    }))
}

fn given_back(pinned: &Pinned) -> Failed {
    let (session, next) = (pinned.info.id, pinned.observed_at);
    Failed { session, next, is_last: false, error: GIVEN_BACK.to_owned() }
}

/// The longest beginning of an error that may be written down.
fn shortened(error: &str) -> &str {
    &error[..error.floor_char_boundary(FailAttempt::ERROR_SIZE_BYTES_MAX)]
}

/// What all frames about a batch say.
struct Writing {
    attempt: AttemptId,
    /// Through which session nothing is left to be looked at, now that these have begun.
    through: u64,
}

impl Writing {
    /// Writes down what was made; what the state refuses has failed.
    fn commit(
        &self,
        run: &mut Run<'_>,
        done: Vec<Done>,
        candidates: &mut Candidates,
    ) -> Result<Vec<Failed>> {
        run.context.faults.reach(CrashPoint::ProcessorBeforeCommit);
        let committed = match self.send(run, &done) {
            Ok(committed) => committed,
            // Its signals are refused: it is what the processor made that is wrong.
            Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Refused) => {
                let retry = &run.entry.options.retry;
                let now = run.context.now()?;
                let failed = done.iter().map(|Done { pinned, .. }| {
                    let (session, attempt) = (pinned.info.id, pinned.count.saturating_add(1));
                    let next = now.saturating_add(retry.delay(&run.entry.name, session, attempt));
                    let is_last = retry.is_last(attempt);
                    Failed { session, next, is_last, error: error.to_string() }
                });
                return Ok(failed.collect());
            }
            Err(error) => return Err(error),
        };
        run.context.faults.reach(CrashPoint::ProcessorAfterCommit);
        let now = run.context.now()?;
        run.context.door.look(|inside| {
            let declared = inside.state.declared();
            for (Done { pinned, processed, .. }, is_committed) in done.iter().zip(committed) {
                let id = pinned.info.id;
                if !is_committed {
                    run.stats.fenced += 1;
                    candidates.leave_out(id);
                    continue;
                }
                run.stats.processed += 1;
                run.stats.items = run.stats.items.saturating_add(processed.items);
                let standing = inside.state.sessions.standing(id, &declared.schema, now);
                if matches!(standing, Standing::Ended { head, .. } if head > pinned.head) {
                    // More has come meanwhile: that is for the next run.
                    candidates.leave_out(id);
                }
            }
            Ok(())
        })?;
        Ok(Vec::new())
    }

    fn send(&self, run: &Run<'_>, done: &[Done]) -> Result<Vec<bool>> {
        let (context, entry) = (run.context, run.entry);
        let items = done.iter().map(|Done { pinned, processed, made }| CommitAttempt {
            session: pinned.info.id,
            attempt: self.attempt,
            head: pinned.head,
            hash: pinned.info.content_hash,
            items: processed.items,
            observed_at: pinned.observed_at,
            outputs: made.rows.iter().map(|(key, value)| (&key[..], &value[..])).collect(),
        });
        let signals = match done {
            [Done { made, .. }] if !made.signals.is_empty() => Some(&made.signals),
            _ => None,
        };
        let encode = |signals: &crate::db::Batch| {
            context.door.look(|inside| {
                signals.to_bytes(&inside.state.declared().schema, &context.door.options)
            })
        };
        let bytes = signals.map(encode).transpose()?;
        let record = Record::CommitAttempts(CommitAttempts {
            processor: entry.number,
            version: entry.version,
            through: self.through,
            items: items.collect(),
            signals: bytes.as_deref(),
        });
        let events = signals.map_or(1, crate::db::Batch::len);
        let count = u32::try_from(events).unwrap_or(u32::MAX);
        let body = FrameBody::new(record.kind() as u8, count, record.encode())?;
        let latest = signals.and_then(crate::db::Batch::latest);
        match run.ask(body, events, latest)? {
            Some(Reply::Committed(committed)) => Ok(committed),
            None => Ok(vec![false; done.len()]),
            other => unreachable!("a commit is answered with what counts, not with {other:?}"),
        }
    }

    fn fail(&self, run: &mut Run<'_>, failed: &[Failed]) -> Result<()> {
        run.fail(self.items(failed))
    }

    /// Writes down that attempts have ended before their turn, which is no error of theirs.
    fn give_back(&self, run: &mut Run<'_>, returned: &[Failed]) -> Result<()> {
        run.stats.scanned -= returned.len() as u64;
        run.write_failed(self.items(returned)).map(drop)
    }

    fn items<'a>(&self, failed: &'a [Failed]) -> Vec<FailAttempt<'a>> {
        let item = |failed: &'a Failed| FailAttempt {
            session: failed.session,
            attempt: self.attempt,
            next: failed.next,
            is_last: failed.is_last,
            error: shortened(&failed.error),
        };
        failed.iter().map(item).collect()
    }
}

impl Run<'_> {
    /// Writes down that attempts have ended; for which of them that counts.
    fn write_failed(&mut self, items: Vec<FailAttempt<'_>>) -> Result<Vec<bool>> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let (processor, len) = (self.entry.number, items.len());
        let record = Record::FailAttempts(FailAttempts { processor, items });
        match self.ask(encoded(&record)?, 1, None)? {
            Some(Reply::Decided(failed)) => Ok(failed),
            None => Ok(vec![false; len]),
            other => unreachable!("failures are answered with what counts, not with {other:?}"),
        }
    }

    /// Writes down attempts that failed.
    pub(super) fn fail(&mut self, items: Vec<FailAttempt<'_>>) -> Result<()> {
        let failed = self.write_failed(items.clone())?;
        for (item, failed) in items.iter().zip(failed) {
            if !failed {
                self.stats.fenced += 1;
                continue;
            }
            self.stats.note_error(item.session, item.error);
            item.error.clone_into(&mut self.last_error);
            if item.is_last {
                self.stats.quarantined += 1;
                let error = item.error;
                tracing::warn!(session = %item.session, error, "a processor has given up a session");
            }
        }
        Ok(())
    }
}

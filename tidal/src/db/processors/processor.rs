//! What a host writes: a processor of sessions.
//!
//! Knows: the words between a run and its processor. Must not know: when a processor is called.

use std::time::Duration;

use super::{Outputs, SessionView};

/// An error of a processor's own.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Works on sessions that have ended, one at a time, and puts down what it makes of them.
///
/// It is called with each session whose content it has not seen in its current
/// [`version`](Self::version): once all goes well, and again after an error, a panic, or the end of the
/// process during the call, later each time, until it is given up ([`RetryPolicy`](crate::RetryPolicy)).
/// A call that returns `Ok` is written down with its outputs in one frame of the log: after a crash both
/// are there, or neither. What a call before has put down of the session is replaced.
///
/// So whatever it puts in its [`Outputs`] is there exactly once. What it does elsewhere (a message, a
/// request) may happen more than once for one content; the receiver can tell by the
/// [`idempotency_key`](SessionView::idempotency_key), which is the same each time.
///
/// Sessions that are open are never handed out. One that takes late records may be handed out before all of
/// them are there; then it is handed out again.
///
/// ```
/// use tidaldb::{Outputs, ProcessError, Processed, SessionProcessor, SessionView};
///
/// struct Length;
///
/// impl SessionProcessor for Length {
///     fn name(&self) -> &str {
///         "length"
///     }
///
///     fn process(
///         &self,
///         session: &SessionView<'_>,
///         out: &mut Outputs<'_>,
///     ) -> Result<Processed, ProcessError> {
///         let end = session.info().state.end().ok_or("it is open")?;
///         let length_ns = end.at.as_nanos() - session.info().started_at.as_nanos();
///         out.put(b"length_ns", &length_ns.to_be_bytes())?;
///         Ok(Processed { items: session.info().records })
///     }
/// }
/// ```
pub trait SessionProcessor: Send + Sync + 'static {
    /// What its outcomes are kept under: 1 to 64 of `a`-`z`, `0`-`9`, `_`, `-`. Asked for once, at
    /// registration.
    fn name(&self) -> &str;

    /// Which sessions it has to see again: with another version than the one it was registered with
    /// before, all of them. Asked for once, at registration.
    fn version(&self) -> u32 {
        1
    }

    /// Works on one session. It runs on the thread of the run, and may take as long as it wants; from
    /// [`attempt_timeout`](crate::ProcessorOptions::attempt_timeout) on
    /// [`should_stop`](SessionView::should_stop) asks it to return.
    ///
    /// # Errors
    ///
    /// Any: nothing of it is written down but what the error says, and it is tried again, or not.
    fn process(
        &self,
        session: &SessionView<'_>,
        out: &mut Outputs<'_>,
    ) -> Result<Processed, ProcessError>;
}

/// A session was processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Processed {
    /// How many items were found in it, whatever they are: kept with the outcome, and summed up in
    /// [`RunStats`](crate::RunStats).
    pub items: u64,
}

/// Why a session could not be processed. Any error is one that is tried again; say
/// [`Permanent`](Self::Permanent) where that is of no use.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProcessError {
    /// It may go well another time.
    Retry {
        /// After how long; what the [`RetryPolicy`](crate::RetryPolicy) says unless it is said here.
        after: Option<Duration>,
        /// What went wrong.
        source: BoxError,
    },
    /// It will never go well: it is given up at once.
    Permanent(BoxError),
}

impl ProcessError {
    /// It may go well after this long.
    pub fn retry_after(after: Duration, source: impl Into<BoxError>) -> Self {
        Self::Retry { after: Some(after), source: source.into() }
    }

    /// It will never go well.
    pub fn permanent(source: impl Into<BoxError>) -> Self {
        Self::Permanent(source.into())
    }
}

impl<E: Into<BoxError>> From<E> for ProcessError {
    fn from(source: E) -> Self {
        Self::Retry { after: None, source: source.into() }
    }
}

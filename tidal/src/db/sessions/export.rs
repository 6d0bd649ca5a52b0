//! A session as text.
//!
//! Knows: the members of each line. Must not know: how JSON is written.

use std::io::Write;
use std::path::Path;

use super::Sessions;
use super::json::Object;
use crate::end::{End, EndCause, EndEvidence};
use crate::error::{Error, Result};
use crate::ids::{SessionId, Timestamp, duration_nanos};
use crate::sessions::{FailCause, SessionContent, SessionInfo, SessionRecord, SessionState};

impl Sessions<'_> {
    /// Writes a session as lines of JSON: what is known of it, then each of its records. Times are in
    /// nanoseconds since 1970, as text, since most readers of JSON are exact up to 2^53 only; so are
    /// the numbers of sessions, users and items. Lengths and counts are numbers.
    ///
    /// ```text
    /// {"type":"session","id":"2","user":"42","agent":"phone","policy":"default","state":"settled",…}
    /// {"type":"signal","number":"3","at_ns":"…","arrived_at_ns":"…","entity":"7","signal":"view",…}
    /// {"type":"annotation","number":"4","at_ns":"…","arrived_at_ns":"…","entity":"7","text":"…"}
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionNotFound`](Error::SessionNotFound); [`Io`](Error::Io) when `out` takes no more; those of
    /// [`records`](Self::records).
    pub fn export(&self, id: SessionId, out: &mut dyn Write) -> Result<()> {
        let info = self.get(id)?.ok_or(Error::SessionNotFound(id))?;
        let records = self.records(id)?;
        let mut line = |object: Object| {
            writeln!(out, "{}", object.finish())
                .map_err(|e| Error::io("write to", Path::new("the output of an export"), e))
        };
        line(session_line(&info))?;
        records.iter().try_for_each(|record| line(record_line(record)))
    }
}

fn session_line(info: &SessionInfo) -> Object {
    let mut line = Object::new();
    line.text("type", "session")
        .text("id", &info.id.to_string())
        .text("user", &info.user.to_string())
        .text("agent", &info.agent)
        .text("policy", &info.policy)
        .text("state", info.state.as_str())
        .text("started_at_ns", &info.started_at.as_nanos().to_string())
        .text("last_activity_at_ns", &info.last_activity_at.as_nanos().to_string());
    if let Some(deadline) = info.deadline {
        line.text("deadline_ns", &deadline.as_nanos().to_string());
    }
    if let Some(end) = info.state.end() {
        line.object("end", end_object(end));
    }
    if let SessionState::Failed { cause, at, .. } = &info.state {
        line.object("failed", failed_object(cause, *at));
    }
    let hash: String = info.content_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    line.number("records", info.records)
        .number("signals", info.signals)
        .number("annotations", info.annotations)
        .number("late", info.late)
        .text("content_hash", &hash);
    line
}

fn end_object(end: &End) -> Object {
    let mut object = Object::new();
    object.text("at_ns", &end.at.as_nanos().to_string());
    object.text("cause", end.cause.as_str());
    match &end.cause {
        EndCause::Superseded { by } => {
            object.text("by", &by.to_string());
        }
        EndCause::Forced { reason } => {
            object.text("reason", reason);
        }
        EndCause::Closed
        | EndCause::IdleTimeout
        | EndCause::MaxDuration
        | EndCause::OrphanRecovered
        | EndCause::Shutdown => {}
    }
    match end.evidence {
        EndEvidence::Explicit => object.text("evidence", "explicit"),
        EndEvidence::Record { record } => {
            object.text("evidence", "record").text("record", &record.to_string())
        }
        EndEvidence::Fallback { clamped } => {
            object.text("evidence", "fallback").boolean("clamped", clamped)
        }
    };
    object
}

fn failed_object(cause: &FailCause, at: Timestamp) -> Object {
    let mut object = Object::new();
    object.text("at_ns", &at.as_nanos().to_string());
    match cause {
        FailCause::TimedOut { after, automatic } => object
            .text("cause", "timed_out")
            .text("after_ns", &duration_nanos(*after).to_string())
            .boolean("automatic", *automatic),
        FailCause::Reset { by, reason } => {
            object.text("cause", "reset").text("by", by).text("reason", reason)
        }
        FailCause::Quarantined { processor } => {
            object.text("cause", "quarantined").text("processor", processor)
        }
    };
    object
}

fn record_line(record: &SessionRecord) -> Object {
    let kind = match record.content {
        SessionContent::Signal { .. } => "signal",
        SessionContent::Annotation(_) => "annotation",
    };
    let mut line = Object::new();
    line.text("type", kind)
        .text("number", &record.number.to_string())
        .text("at_ns", &record.at.as_nanos().to_string())
        .text("arrived_at_ns", &record.arrived_at.as_nanos().to_string())
        .text("entity", &record.entity.to_string());
    match &record.content {
        SessionContent::Signal { signal, weight, span, annotation, late } => {
            line.text("signal", signal)
                .float("weight", *weight)
                .number("span_ns", duration_nanos(*span))
                .boolean("late", *late);
            if let Some(text) = annotation {
                line.text("annotation", text);
            }
        }
        SessionContent::Annotation(text) => {
            line.text("text", text);
        }
    }
    line
}

//! What can be asked, and what is answered.
//!
//! Knows: paths, the token, how answers are laid out. Must not know: sockets; how anything is measured.

use std::sync::{PoisonError, RwLock};

use serde_json::{Value, json};

use super::http::{Reply, Request};
use super::prometheus;
use crate::engine::{Engine, HealthReport, Overall, Severity, StuckSession, metric_descriptions};
use crate::health::{report_json, stamp};

/// A page of an open database.
type Page = fn(&Engine) -> Reply;

const PAGES: [(&str, Page); 5] = [
    ("/metrics", metrics),
    ("/healthz", healthz),
    ("/health", health),
    ("/health/sessions", health_sessions),
    ("/health/sessions/stuck", health_sessions_stuck),
];

/// What a request must bring.
pub(super) struct Token(blake3::Hash);

impl Token {
    /// `None` when it could be guessed, or not be sent.
    pub(super) fn new(text: &str) -> Option<Self> {
        let is_good =
            (16..=1024).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        is_good.then(|| Self(blake3::hash(text.as_bytes())))
    }

    /// Whether a request brings it. How long it takes to say so does not depend on how much of it is right:
    /// hashes are compared, and each in constant time.
    fn is_in(&self, request: &Request) -> bool {
        let given = request.authorization.as_deref().and_then(|given| given.split_at_checked(7));
        given.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case(b"bearer ") && blake3::hash(token.trim_ascii()) == self.0
        })
    }
}

/// The pages of a database, until it is closed.
pub(super) struct Pages {
    engine: RwLock<Option<Engine>>,
    token: Option<Token>,
}

impl Pages {
    pub(super) fn new(engine: Engine, token: Option<Token>) -> Self {
        Self { engine: RwLock::new(Some(engine)), token }
    }

    pub(super) fn answer(&self, request: &Request) -> Reply {
        if self.token.as_ref().is_some_and(|token| !token.is_in(request)) {
            let reply = Reply::refusal(401, "a request must bring the token");
            return Reply { header: Some(("WWW-Authenticate", "Bearer")), ..reply };
        }
        let Some((_, page)) = PAGES.iter().find(|(path, _)| *path == request.path) else {
            let paths: Vec<&str> = PAGES.iter().map(|(path, _)| *path).collect();
            return json_reply(404, &json!({ "error": "there is no such page", "pages": paths }));
        };
        if !["GET", "HEAD"].contains(&request.method.as_str()) {
            let reply = Reply::refusal(405, "pages are only read");
            return Reply { header: Some(("Allow", "GET, HEAD")), ..reply };
        }
        match &*self.engine.read().unwrap_or_else(PoisonError::into_inner) {
            Some(engine) => page(engine),
            None => Reply::refusal(503, "the database is being closed"),
        }
    }

    /// Closes the database, once those who read it are done. Whoever asks later is told so.
    pub(super) fn close(&self) -> anyhow::Result<()> {
        let engine = self.engine.write().unwrap_or_else(PoisonError::into_inner).take();
        engine.map_or(Ok(()), Engine::close)
    }
}

fn json_reply(status: u16, value: &Value) -> Reply {
    let body = format!("{value:#}\n");
    Reply { status, content_type: "application/json", header: None, body }
}

fn metrics(engine: &Engine) -> Reply {
    let body = prometheus::text(metric_descriptions(), &engine.metrics());
    Reply { status: 200, content_type: prometheus::CONTENT_TYPE, header: None, body }
}

/// For what takes a service out of use when it says no: a warning is no reason.
fn healthz(engine: &Engine) -> Reply {
    let report = engine.health();
    let status = match report.overall {
        Overall::Healthy | Overall::Degraded => 200,
        _ => 503,
    };
    json_reply(status, &json!({ "status": report.overall.as_str() }))
}

fn health(engine: &Engine) -> Reply {
    json_reply(200, &report_json(&engine.health()))
}

fn health_sessions(engine: &Engine) -> Reply {
    json_reply(200, &sessions_json(&engine.health()))
}

fn health_sessions_stuck(engine: &Engine) -> Reply {
    match engine.stuck() {
        Ok(stuck) => {
            let sessions: Vec<Value> = stuck.iter().map(stuck_json).collect();
            json_reply(200, &json!({ "count": sessions.len(), "sessions": sessions }))
        }
        Err(error) => json_reply(503, &json!({ "error": format!("{error:#}") })),
    }
}

fn stuck_json(stuck: &StuckSession) -> Value {
    json!({
        "id": stuck.id.to_string(),
        "user_id": stuck.user.to_string(),
        "agent": stuck.agent,
        "created_at": stamp(stuck.started_at),
        "processing_minutes": stuck.processing_for.as_secs() / 60,
        "waiting_on": stuck.waiting_on,
    })
}

/// The rules that say how the processing of sessions is.
const OF_PROCESSING: [&str; 2] = ["sessions.stuck", "sessions.long_running"];

/// What is known of sessions, and from when on work on one counts as long.
fn sessions_json(report: &HealthReport) -> Value {
    let of_processing = report.checks.iter().filter(|check| OF_PROCESSING.contains(&check.rule));
    let status = match of_processing.map(|check| check.severity).max() {
        Some(Severity::Critical) => "critical",
        Some(Severity::Warning) => "warning",
        _ => "healthy",
    };
    let metrics = &report.metrics;
    json!({
        "status": status,
        "timestamp": stamp(report.at),
        "metrics": {
            "open": metrics.sessions_open,
            "waiting": report.processors.iter().map(|it| it.waiting).sum::<u64>(),
            "processing": metrics.sessions_processing,
            "long_running": metrics.sessions_long_running,
            "stuck": metrics.sessions_stuck,
        },
        "thresholds": {
            "warning_after_s": report.thresholds.warn_after.map(|it| it.as_secs()),
            "timeout_after_s": report.thresholds.processing_timeout.map(|it| it.as_secs()),
            "max_long_running": report.thresholds.long_running_max,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::health::made;

    fn get(path: &str, authorization: Option<&str>) -> Request {
        let authorization = authorization.map(|text| text.as_bytes().to_vec());
        Request { method: "GET".into(), path: path.into(), authorization }
    }

    #[test]
    fn only_what_is_critical_takes_a_service_out_of_use() {
        let pages = Pages::new(made::healthy(), None);
        assert_eq!(pages.answer(&get("/healthz", None)).status, 200);
        let pages = Pages::new(made::critical(), None);
        let reply = pages.answer(&get("/healthz", None));
        assert_eq!((reply.status, &*reply.body), (503, "{\n  \"status\": \"critical\"\n}\n"));
        // Whoever reads the whole of it is answered all the same.
        assert_eq!(pages.answer(&get("/health", None)).status, 200);
    }

    #[test]
    fn a_token_is_right_whole_or_not_at_all() {
        let token = Token::new("0123456789abcdef").expect("long enough");
        let pages = Pages::new(made::healthy(), Some(token));
        let status = |given| pages.answer(&get("/healthz", given)).status;
        assert_eq!(status(Some("Bearer 0123456789abcdef")), 200);
        assert_eq!(status(Some("bearer  0123456789abcdef")), 200, "as RFC 9110 has schemes");
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdefg",
            "Bearer 0123456789ABCDEF",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert_eq!(status(Some(wrong)), 401, "{wrong:?}");
        }
        assert_eq!(status(None), 401);
        assert_eq!(pages.answer(&get("/nothing", None)).status, 401, "nor what there is");
        for bad in ["", "short", "has a space in it all", &"x".repeat(1025)] {
            assert!(Token::new(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_database_that_is_closed_says_so() {
        let pages = Pages::new(made::healthy(), None);
        pages.close().expect("closes");
        assert_eq!(pages.answer(&get("/health", None)).status, 503);
        pages.close().expect("there is nothing to close");
    }
}

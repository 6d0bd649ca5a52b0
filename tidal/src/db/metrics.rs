//! The numbers of an open database, for those who draw them.
//!
//! Knows: what each number is called, and where it is read. Must not know: who draws it, how often.
//!
//! Numbers are read when somebody asks, so nothing is counted for nobody and the hot path has no part in
//! it. They are those of `status` and `health`, and cost what those cost.

use std::time::Duration;

use super::{Status, TidalDb};
use crate::health::{Facts, HealthReport, ProcessorHealth, Severity};

/// What a number does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricKind {
    /// It rises and falls.
    Gauge,
    /// It only rises, restarts included.
    Counter,
}

/// What a number is called, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricDescription {
    /// Its name, its unit last.
    pub name: &'static str,
    /// What it does.
    pub kind: MetricKind,
    /// The label that tells its values apart, where there are several.
    pub label: Option<&'static str>,
    /// What it says, a sentence.
    pub help: &'static str,
}

/// A number of an open database.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// What it is.
    pub description: &'static MetricDescription,
    /// The value of its label, where it has one.
    pub subject: Option<String>,
    /// Its value, in the unit that its name ends with.
    pub value: f64,
}

/// Of what a number is read.
type Read = fn(&Status, &HealthReport) -> Vec<(Option<String>, f64)>;

const fn gauge(name: &'static str, help: &'static str) -> MetricDescription {
    MetricDescription { name, kind: MetricKind::Gauge, label: None, help }
}

const fn counter(name: &'static str, help: &'static str) -> MetricDescription {
    MetricDescription { name, kind: MetricKind::Counter, label: None, help }
}

const fn by(label: &'static str, description: MetricDescription) -> MetricDescription {
    MetricDescription { label: Some(label), ..description }
}

fn one(value: f64) -> Vec<(Option<String>, f64)> {
    vec![(None, value)]
}

fn severity(severity: Severity) -> f64 {
    f64::from(match severity {
        Severity::Ok => 0_u8,
        Severity::Info => 1,
        Severity::Unknown => 2,
        Severity::Warning => 3,
        Severity::Critical => 4,
    })
}

/// What each check of a rule that has a subject says.
fn of_rule(
    health: &HealthReport,
    rule: &str,
    value: fn(&Facts, Severity) -> Option<f64>,
) -> Vec<(Option<String>, f64)> {
    let checks = health.checks.iter().filter(|check| check.rule == rule);
    let value = |check: &crate::health::Check| {
        Some((Some(check.subject.clone()?), value(&check.facts, check.severity)?))
    };
    checks.filter_map(value).collect()
}

fn age_s(facts: &Facts, _: Severity) -> Option<f64> {
    match facts {
        Facts::Age { age, .. } => Some(age.as_secs_f64()),
        _ => None,
    }
}

fn count(facts: &Facts, _: Severity) -> Option<f64> {
    match facts {
        Facts::Count { value, .. } => Some(*value as f64),
        _ => None,
    }
}

fn of_processors(
    health: &HealthReport,
    value: fn(&ProcessorHealth) -> u64,
) -> Vec<(Option<String>, f64)> {
    let processors = health.processors.iter();
    processors.map(|it| (Some(it.name.clone()), value(it) as f64)).collect()
}

fn finished(health: &HealthReport) -> Vec<(Option<String>, f64)> {
    let processors = health.processors.iter();
    let age =
        |it: &ProcessorHealth| Some((Some(it.name.clone()), it.last_finished_age?.as_secs_f64()));
    processors.filter_map(age).collect()
}

fn gravest(health: &HealthReport) -> Vec<(Option<String>, f64)> {
    let mut gravest: Vec<(Option<String>, f64)> = Vec::new();
    for check in &health.checks {
        let value = severity(check.severity);
        match gravest.iter_mut().find(|(rule, _)| rule.as_deref() == Some(check.rule)) {
            Some((_, worst)) => *worst = worst.max(value),
            None => gravest.push((Some(check.rule.to_owned()), value)),
        }
    }
    gravest
}

fn memory(status: &Status) -> Vec<(Option<String>, f64)> {
    let parts = [
        ("cells", status.cells_size_bytes),
        ("users", status.users_size_bytes),
        ("texts", status.texts_size_bytes),
        ("collections", status.collections_size_bytes),
        ("sessions", status.sessions_size_bytes),
        ("other", status.other_size_bytes),
        ("cold_pending", status.cold_pending_size_bytes),
    ];
    parts.into_iter().map(|(part, size)| (Some(part.to_owned()), size as f64)).collect()
}

fn stores(status: &Status) -> Vec<(Option<String>, f64)> {
    let is_in_use = |store: &super::StoreStatus| f64::from(u8::from(store.failure.is_none()));
    status.stores.iter().map(|store| (Some(store.name.to_owned()), is_in_use(store))).collect()
}

/// Every number, in the order of the documentation.
const METRICS: &[(MetricDescription, Read)] = &[
    (gauge("tidal_health", "The headline: 0 healthy, 1 degraded, 2 critical."), |_, health| {
        one(health.overall as u8 as f64)
    }),
    (
        by(
            "rule",
            gauge(
                "tidal_health_severity",
                "The gravest finding of a rule: 0 ok, 1 info, 2 unknown, 3 warning, 4 critical.",
            ),
        ),
        |_, health| gravest(health),
    ),
    (counter("tidal_operations_total", "Operations since the database was made."), |status, _| {
        one(status.operations as f64)
    }),
    (gauge("tidal_appended_seq", "The last frame appended to the log."), |status, _| {
        one(status.appended.get() as f64)
    }),
    (gauge("tidal_durable_seq", "The last frame that survives a power cut."), |status, _| {
        one(status.durable.get() as f64)
    }),
    (gauge("tidal_applied_seq", "The last frame that reads see."), |status, _| {
        one(status.applied.get() as f64)
    }),
    (gauge("tidal_log_size_bytes", "Size of the log's segments."), |status, _| {
        one(status.log_size_bytes as f64)
    }),
    (
        gauge(
            "tidal_checkpoint_lag_seconds",
            "How long the newest checkpoint has lacked an operation; 0 when it lacks none.",
        ),
        |_, health| one(health.metrics.checkpoint_lag_ms as f64 / 1_000.0),
    ),
    (
        by("store", gauge("tidal_store_in_use", "Whether a checkpoint store is in use, 1 or 0.")),
        |status, _| stores(status),
    ),
    (gauge("tidal_engine_time_seconds", "Engine time, since 1970."), |status, _| {
        one(Duration::from_nanos(status.engine_time.as_nanos()).as_secs_f64())
    }),
    (counter("tidal_opens_total", "How often the database was opened."), |status, _| {
        one(status.incarnation as f64)
    }),
    (
        by(
            "task",
            gauge("tidal_background_age_seconds", "How long ago a thread went through its loop."),
        ),
        |_, health| of_rule(health, "background", age_s),
    ),
    (
        by("part", gauge("tidal_memory_size_bytes", "Memory of one part of the state.")),
        |status, _| memory(status),
    ),
    (
        gauge("tidal_cells", "Triples of item, signal and scope that something counted for."),
        |status, _| one(status.cells as f64),
    ),
    (gauge("tidal_users", "Users."), |status, _| one(status.users as f64)),
    (gauge("tidal_collections", "Collections."), |status, _| one(status.collections as f64)),
    (gauge("tidal_sessions_open", "Sessions that nobody has noticed an end of."), |_, health| {
        one(health.metrics.sessions_open as f64)
    }),
    (gauge("tidal_sessions_processing", "Sessions that processors work on."), |_, health| {
        one(health.metrics.sessions_processing as f64)
    }),
    (
        gauge("tidal_sessions_long_running", "Those that they have worked on for long."),
        |_, health| one(health.metrics.sessions_long_running as f64),
    ),
    (gauge("tidal_sessions_stuck", "Those that they have worked on for too long."), |_, health| {
        one(health.metrics.sessions_stuck as f64)
    }),
    (
        by(
            "processor",
            gauge("tidal_processor_waiting", "Sessions that a processor has yet to see."),
        ),
        |_, health| of_processors(health, |it| it.waiting),
    ),
    (
        by(
            "processor",
            gauge("tidal_processor_quarantined", "Sessions that a processor has given up."),
        ),
        |_, health| of_processors(health, |it| it.quarantined),
    ),
    (
        by(
            "processor",
            gauge(
                "tidal_processor_last_finished_age_seconds",
                "How long ago the last run of a processor ended, however it did.",
            ),
        ),
        |_, health| finished(health),
    ),
    (
        by(
            "processor",
            gauge(
                "tidal_processor_consecutive_failures",
                "Runs of a processor that ended without success since one did.",
            ),
        ),
        |_, health| of_processors(health, |it| u64::from(it.consecutive_failures)),
    ),
    (
        by("cursor", gauge("tidal_cursor_events", "Events that the slowest cursor keeps.")),
        |_, health| of_rule(health, "cursors", count),
    ),
];

impl TidalDb {
    /// What each number of [`metrics`](Self::metrics) is called, in a fixed order. `docs/metrics.md` has the
    /// same list.
    pub fn metric_descriptions() -> impl Iterator<Item = &'static MetricDescription> {
        METRICS.iter().map(|(description, _)| description)
    }

    /// The numbers of the database at this moment, in the order of
    /// [`metric_descriptions`](Self::metric_descriptions): those of [`status`](Self::status) and of
    /// [`health`](Self::health). One with a label may have several values, or none.
    pub fn metrics(&self) -> Vec<Metric> {
        let (status, health) = (self.status(), self.health());
        let read = |(description, read): &'static (MetricDescription, Read)| {
            let values = read(&status, &health).into_iter();
            values.map(move |(subject, value)| Metric { description, subject, value })
        };
        METRICS.iter().flat_map(read).collect()
    }

    /// Hands the numbers of [`metrics`](Self::metrics) to the recorder of the `metrics` crate that the
    /// program has installed; without one it does nothing.
    ///
    /// Call it when they are to be drawn, such as before each scrape. Two databases of one program share
    /// the names: give each its own recorder with `metrics::with_local_recorder`, or draw
    /// [`metrics`](Self::metrics) yourself.
    pub fn publish_metrics(&self) {
        for it in Self::metric_descriptions() {
            match it.kind {
                MetricKind::Gauge => metrics::describe_gauge!(it.name, it.help),
                MetricKind::Counter => metrics::describe_counter!(it.name, it.help),
            }
        }
        for Metric { description, subject, value } in self.metrics() {
            let label = description.label.zip(subject);
            let labels = label.map(|(label, subject)| metrics::Label::new(label, subject));
            let labels: Vec<metrics::Label> = labels.into_iter().collect();
            match description.kind {
                MetricKind::Gauge => metrics::gauge!(description.name, labels).set(value),
                MetricKind::Counter => {
                    metrics::counter!(description.name, labels).absolute(value as u64);
                }
            }
        }
    }
}

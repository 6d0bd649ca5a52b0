//! What a database tells those who watch it: numbers, a dashboard of them, spans.
//!
//! Knows: the public calls, and the documents that describe them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};
use tidal_support::operations::{apply, quiet_options, schema};
use tidaldb::schema::Timestamp;
use tidaldb::{EventFilter, ManualClock, Metric, MetricKind, Overall, TidalDb};

const SEED: u64 = 31;

/// The rows of docs/metrics.md.
fn documented() -> Vec<String> {
    let text = include_str!("../docs/metrics.md");
    text.lines().filter(|line| line.starts_with("| `tidal_")).map(str::to_owned).collect()
}

fn at_work(dir: &std::path::Path) -> TidalDb {
    let db = tidal_support::operations::builder(quiet_options()).with_data_dir(dir).open();
    let db = db.expect("opens");
    apply(&db, SEED, 0..60, &mut |_| ());
    db.sessions().cursor("feed", EventFilter::all()).expect("registered");
    db.checkpoint().expect("written");
    db
}

#[test]
fn the_documentation_lists_every_metric_as_it_is_and_no_other() {
    let described = TidalDb::metric_descriptions().map(|it| {
        let kind = match it.kind {
            MetricKind::Counter => "counter",
            _ => "gauge",
        };
        let label = it.label.map(|label| format!("`{label}`")).unwrap_or_default();
        format!("| `{}` | {kind} | {label} | {} |", it.name, it.help)
    });
    let described: Vec<String> = described.collect();
    assert_eq!(documented(), described, "write docs/metrics.md anew:\n{}", described.join("\n"));
}

#[test]
fn a_name_is_given_once_and_ends_with_its_unit_if_it_has_one() {
    let mut names = BTreeSet::new();
    for it in TidalDb::metric_descriptions() {
        assert!(names.insert(it.name), "{} twice", it.name);
        assert!(it.name.starts_with("tidal_"), "{}", it.name);
        assert_eq!(it.kind == MetricKind::Counter, it.name.ends_with("_total"), "{}", it.name);
        assert!(it.help.ends_with('.'), "{}", it.help);
    }
}

/// The names of metrics that a query reads.
fn names_in(query: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = query.split(|c| !is_part(c)).filter(|word| word.starts_with("tidal_"));
    words.map(str::to_owned).collect()
}

fn queries(json: &serde_json::Value, found: &mut Vec<String>) {
    match json {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(query) if key == "expr" => found.push(query.to_owned()),
                    _ => queries(value, found),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_draws_every_metric_that_there_is_and_no_other() {
    let json = serde_json::from_str(include_str!("../docs/grafana.json")).expect("JSON");
    let mut found = Vec::new();
    queries(&json, &mut found);
    let drawn: BTreeSet<String> = found.iter().flat_map(|query| names_in(query)).collect();
    let there: BTreeSet<String> =
        TidalDb::metric_descriptions().map(|it| it.name.to_owned()).collect();
    assert_eq!(drawn, there);
}

/// A recorder that keeps what it is told.
#[derive(Default)]
struct Kept {
    values: Arc<Mutex<BTreeMap<String, f64>>>,
    described: Mutex<BTreeSet<String>>,
}

struct Value(String, Arc<Mutex<BTreeMap<String, f64>>>);

impl Value {
    fn put(&self, value: f64) {
        self.1.lock().expect("no panic").insert(self.0.clone(), value);
    }
}

impl GaugeFn for Value {
    fn increment(&self, _: f64) {
        panic!("gauges are set");
    }
    fn decrement(&self, _: f64) {
        panic!("gauges are set");
    }
    fn set(&self, value: f64) {
        self.put(value);
    }
}

impl CounterFn for Value {
    fn increment(&self, _: u64) {
        panic!("counters are absolute");
    }
    fn absolute(&self, value: u64) {
        self.put(value as f64);
    }
}

impl Kept {
    fn value(&self, key: &Key) -> Arc<Value> {
        let labels: Vec<_> =
            key.labels().map(|it| format!("{}={}", it.key(), it.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::new(Value(name, Arc::clone(&self.values)))
    }

    fn describe(&self, name: &KeyName) {
        self.described.lock().expect("no panic").insert(name.as_str().to_owned());
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }
    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.value(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.value(key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn a_recorder_is_given_every_number_and_every_description() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = at_work(dir.path());
    let kept = Kept::default();
    metrics::with_local_recorder(&kept, || db.publish_metrics());
    let values = kept.values.lock().expect("no panic").clone();
    let read = db.metrics();
    assert_eq!(values.len(), read.len(), "each value has its own key");
    for Metric { description, subject, value, .. } in &read {
        let label = description.label.zip(subject.as_deref());
        let label = label.map(|(key, value)| format!("{key}={value}")).unwrap_or_default();
        let given = values.get(&format!("{}{{{label}}}", description.name));
        let given = given.unwrap_or_else(|| panic!("{} is not given", description.name));
        // What moves by itself between two looks.
        if !description.name.ends_with("_seconds") && !description.name.ends_with("_size_bytes") {
            assert!((given - value).abs() < 1e-9, "{}: {given}, not {value}", description.name);
        }
    }
    let described = kept.described.lock().expect("no panic").len();
    assert_eq!(described, TidalDb::metric_descriptions().count());
    let of = |name: &str| values.get(name).copied().unwrap_or(f64::NAN);
    let headline = match db.health().overall {
        Overall::Healthy => 0.0,
        Overall::Degraded => 1.0,
        _ => 2.0,
    };
    assert_eq!(of("tidal_health{}"), headline);
    assert_eq!(of("tidal_store_in_use{store=a}"), 1.0);
    assert_eq!(of("tidal_operations_total{}"), db.status().operations as f64);
}

/// Keeps the names of spans, and what encloses them.
#[derive(Clone, Default)]
struct Spans {
    names: Arc<Mutex<Vec<&'static str>>>,
}

impl tracing::Subscriber for Spans {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        let mut names = self.names.lock().expect("no panic");
        names.push(span.metadata().name());
        tracing::span::Id::from_u64(names.len() as u64)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn open_recovery_checkpoint_and_sweep_are_spans() {
    let dir = tempfile::tempdir().expect("a directory");
    let spans = Spans::default();
    // The engine's threads have spans as well, so it is the subscriber of the whole process.
    tracing::subscriber::set_global_default(spans.clone()).expect("the only test that sets one");
    let clock = ManualClock::at(Timestamp::from_secs(1_700_000_000));
    let builder = TidalDb::builder().with_data_dir(dir.path()).with_schema(schema());
    let db = builder.with_clock(Arc::new(clock.clone())).open().expect("opens");
    db.start_session(42, "app", "default").expect("started").detach();
    db.checkpoint().expect("written");
    clock.advance(Duration::from_secs(3_600));
    db.sessions().sweep().expect("swept");
    db.close().expect("closed");
    TidalDb::builder().with_data_dir(dir.path()).open().expect("opens").close().expect("closed");
    let names = spans.names.lock().expect("no panic").clone();
    for name in ["open", "recovery", "checkpoint", "sweep"] {
        assert!(names.contains(&name), "no span {name} in {names:?}");
    }
}

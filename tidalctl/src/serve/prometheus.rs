//! Numbers in the text format of Prometheus, version 0.0.4.
//!
//! Knows: that format. Must not know: what the numbers are.

use crate::engine::{Metric, MetricDescription, MetricKind};

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric with what it says, and those values of it that there are.
pub(super) fn text(
    described: impl Iterator<Item = &'static MetricDescription>,
    values: &[Metric],
) -> String {
    let mut text = String::new();
    for &MetricDescription { name, kind, label, help, .. } in described {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            _ => "untyped",
        };
        text.push_str(&format!("# HELP {name} {}\n# TYPE {name} {kind}\n", escaped(help, false)));
        for metric in values.iter().filter(|metric| metric.description.name == name) {
            let labels = match label.zip(metric.subject.as_deref()) {
                Some((label, subject)) => format!("{{{label}=\"{}\"}}", escaped(subject, true)),
                None => String::new(),
            };
            text.push_str(&format!("{name}{labels} {}\n", number(metric.value)));
        }
    }
    text
}

/// A text as the format has it; quotes end the value of a label, and are nothing in a sentence.
fn escaped(text: &str, is_label: bool) -> String {
    let text = text.replace('\\', r"\\").replace('\n', r"\n");
    if is_label { text.replace('"', "\\\"") } else { text }
}

fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::health::made;
    use crate::engine::metric_descriptions;

    #[test]
    fn a_name_cannot_write_lines_of_its_own() {
        let mut values = made::healthy().metrics();
        let of_cursor = |it: &&mut Metric| it.description.name == "tidal_cursor_events";
        let metric = values.iter_mut().find(of_cursor).expect("a cursor");
        metric.subject = Some("a\"b\\c\ntidal_health 2".to_owned());
        let text = text(metric_descriptions(), &values);
        let line = r#"tidal_cursor_events{cursor="a\"b\\c\ntidal_health 2"} 0"#;
        assert!(text.ends_with(&format!("{line}\n")), "{text}");
    }

    #[test]
    fn a_metric_without_a_value_is_described_all_the_same() {
        let text = text(metric_descriptions(), &[]);
        assert_eq!(text.lines().count(), 2 * metric_descriptions().count());
        assert!(text.contains("# TYPE tidal_operations_total counter\n"), "{text}");
    }

    #[test]
    fn numbers_are_those_that_prometheus_reads() {
        for (value, text) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (1e21, "1000000000000000000000"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}

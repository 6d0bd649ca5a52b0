//! `tidalctl health`: whether a database that nobody has open is well.
//!
//! Knows: how findings are laid out, as text and as JSON, and which exit code they have. Must not know:
//! the rules.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::HealthArgs;
use crate::engine::{Check, Engine, Facts, HealthReport, Overall, Severity, Timestamp};
use crate::print;
use crate::time::format_point;
use crate::value::counted;

/// A check warns.
const EXIT_DEGRADED: u8 = 3;
/// A check is critical.
const EXIT_CRITICAL: u8 = 4;

/// Carries out `tidalctl health`; the exit code says what the headline says.
///
/// # Errors
///
/// When the database cannot be copied or opened.
pub(crate) fn run(args: &HealthArgs) -> anyhow::Result<ExitCode> {
    let report = Engine::look_at_health(&args.of.dir)?.health();
    if args.of.json {
        print::json(&report_json(&report))?;
    } else {
        print::out(&text(&report, args.all))?;
    }
    Ok(ExitCode::from(exit_code(report.overall)))
}

const fn exit_code(overall: Overall) -> u8 {
    match overall {
        Overall::Healthy => 0,
        Overall::Degraded => EXIT_DEGRADED,
        // What is not known yet is not taken lightly.
        _ => EXIT_CRITICAL,
    }
}

fn text(report: &HealthReport, all: bool) -> String {
    let mut lines = vec![report.overall.to_string()];
    let sound = report.checks.iter().filter(|check| all && check.severity == Severity::Ok);
    for check in report.findings().into_iter().chain(sound) {
        let severity = check.severity.as_str();
        lines.push(format!("  {severity:<9} {}: {}", named(check), check.detail));
        if let Some(hint) = &check.hint {
            lines.push(format!("  {:<9} do: {hint}", ""));
        }
    }
    let sound = report.checks.iter().filter(|check| check.severity == Severity::Ok).count();
    if !all {
        lines.push(format!(
            "{sound} of {} found nothing: --all",
            counted(report.checks.len() as u64, "check")
        ));
    }
    lines.iter().map(|line| print::printable_line(line)).collect()
}

/// A rule, and whom it is about.
fn named(check: &Check) -> String {
    match &check.subject {
        Some(subject) => format!("{} ({subject})", check.rule),
        None => check.rule.to_owned(),
    }
}

/// A time as programs read it, by RFC 3339.
pub(crate) fn stamp(at: Timestamp) -> String {
    format_point(at.as_nanos()).replacen(' ', "T", 1)
}

/// A report with all that is in it.
pub(crate) fn report_json(report: &HealthReport) -> Value {
    let metrics = &report.metrics;
    json!({
        "status": report.overall.as_str(),
        "timestamp": stamp(report.at),
        "checks": report.checks.iter().map(check_json).collect::<Vec<Value>>(),
        "metrics": {
            "sessions_open": metrics.sessions_open,
            "sessions_processing": metrics.sessions_processing,
            "sessions_long_running": metrics.sessions_long_running,
            "sessions_stuck": metrics.sessions_stuck,
            "attempts_quarantined": metrics.attempts_quarantined,
            "log_size_bytes": metrics.log_size_bytes,
            "checkpoint_lag_ms": metrics.checkpoint_lag_ms,
        },
    })
}

fn check_json(check: &Check) -> Value {
    json!({
        "rule": check.rule,
        "subject": check.subject,
        "severity": check.severity.as_str(),
        "detail": check.detail,
        "hint": check.hint,
        "facts": facts_json(&check.facts),
    })
}

fn ms(duration: Duration) -> Value {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).into()
}

fn facts_json(facts: &Facts) -> Value {
    let point = |at: &Timestamp| Value::from(stamp(*at));
    let members: Vec<(&str, Value)> = match facts {
        Facts::Lag { newest_input, newest_observed, lag, grace } => vec![
            ("newest_input", point(newest_input)),
            ("newest_observed", newest_observed.as_ref().map_or(Value::Null, point)),
            ("lag_ms", ms(*lag)),
            ("grace_ms", ms(*grace)),
        ],
        Facts::Waiting { session, age, grace, attempts, last_error } => vec![
            ("session", session.to_string().into()),
            ("age_ms", ms(*age)),
            ("grace_ms", ms(*grace)),
            ("attempts", (*attempts).into()),
            ("last_error", last_error.clone().into()),
        ],
        Facts::Count { value, threshold } => {
            vec![("value", (*value).into()), ("threshold", (*threshold).into())]
        }
        Facts::Age { age, allowed } => vec![("age_ms", ms(*age)), ("allowed_ms", ms(*allowed))],
        _ => return Value::Null,
    };
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::health::made;

    #[test]
    fn a_critical_database_has_an_exit_code_of_its_own_and_says_what_to_do() {
        let report = made::critical().health();
        assert_eq!(exit_code(report.overall), 4);
        let text = text(&report, false);
        assert!(text.starts_with("critical\n  critical  clock: writes are refused"), "{text}");
        assert!(text.contains("do: set the clock right, or accept it"), "{text}");
        let json = report_json(&report);
        assert_eq!(json["status"], "critical");
        let severities: Vec<&Value> = json["checks"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|check| &check["severity"])
            .collect();
        assert_eq!(severities.iter().filter(|it| **it == "critical").count(), 1, "{json}");
    }

    #[test]
    fn each_headline_has_its_exit_code_and_none_is_that_of_a_failure() {
        let codes = [Overall::Healthy, Overall::Degraded, Overall::Critical].map(exit_code);
        assert_eq!(codes, [0, 3, 4]);
    }
}

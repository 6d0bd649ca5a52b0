//! `tidalctl top`: rankings.
//!
//! Knows: questions and how answers are laid out. Must not know: how the engine finds them.

use serde_json::{Value, json};

use crate::cli::{By, TopArgs};
use crate::engine::{Engine, RankedItem, Ranking};
use crate::failure::{Failure, nearest};
use crate::print::{self, Lean, Table};
use crate::time::format_point;
use crate::value::Span;

/// Carries out `tidalctl top`.
///
/// # Errors
///
/// When a flag does not fit the ranking, a name is unknown, or the database cannot be opened.
pub(crate) fn run(args: &TopArgs) -> anyhow::Result<()> {
    check_flags(args)?;
    let engine = Engine::open(&args.dir)?;
    engine.check_signal(&args.signal).map_err(|reason| {
        Failure::failed(reason)
            .hint(format!("the signals are: {}", engine.signal_names().join(", ")))
    })?;
    if let Some(cohort) = &args.cohort {
        engine.check_cohort(cohort).map_err(|reason| {
            Failure::failed(reason).hint(match engine.cohort_names().as_slice() {
                [] => "the database has no cohorts; they come from ingest --cohort".to_owned(),
                known => format!("the cohorts and families are: {}", known.join(", ")),
            })
        })?;
    }
    let ranking = Ranking {
        signal: &args.signal,
        by: args.by,
        window: args.window.unwrap_or(Span::Day),
        half_life: args.half_life,
        cohort: args.cohort.as_deref(),
        now_ns: args.now,
        k: args.k as usize,
    };
    let items = engine.rank(&ranking)?;
    let now_ns = args.now.unwrap_or_else(|| engine.time_ns());
    let stranger = args.cohort.as_deref().and_then(|cohort| stranger(&engine, cohort));
    engine.close()?;
    if let Some(note) = stranger {
        print::note(&print::printable_line(&note));
    }
    if args.json {
        return Ok(print::json(&ranking_json(&ranking, &items, now_ns))?);
    }
    Ok(print::out(&ranking_text(&ranking, &items, now_ns))?)
}

fn check_flags(args: &TopArgs) -> Result<(), Failure> {
    match args.by {
        By::Hot if args.window.is_some() => {
            Err(Failure::usage("--window belongs to --by count and --by velocity")
                .hint("hot ranks by the decayed score, which has a --half-life"))
        }
        By::Count | By::Velocity if args.half_life.is_some() => {
            Err(Failure::usage("--half-life belongs to --by hot")
                .hint("count and velocity have a --window"))
        }
        _ => Ok(()),
    }
}

/// A note, when nothing was ever counted for the cohort: it may be misspelt.
fn stranger(engine: &Engine, cohort: &str) -> Option<String> {
    let counted = engine.counted_cohorts();
    if counted.iter().any(|name| name == cohort) {
        return None;
    }
    let near = nearest(cohort, counted.iter().map(String::as_str));
    let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    Some(format!("note: nothing was ever counted for {cohort}{hint}"))
}

fn by_name(by: By) -> &'static str {
    match by {
        By::Hot => "hot",
        By::Count => "count",
        By::Velocity => "velocity",
    }
}

/// What is ranked, for whom, and when.
fn title(ranking: &Ranking<'_>, now_ns: u64) -> String {
    let what = match (ranking.by, ranking.window) {
        (By::Hot, _) => "decayed score".to_owned(),
        (By::Count, Span::All) => "count over all time".to_owned(),
        (By::Count, window) => format!("count of the last {window}"),
        (By::Velocity, window) => format!("velocity of the last {window}"),
    };
    let who = ranking.cohort.unwrap_or("everyone");
    format!("{} by {what}, {who}, at {}", ranking.signal, format_point(now_ns))
}

fn ranking_text(ranking: &Ranking<'_>, items: &[RankedItem], now_ns: u64) -> String {
    let title = print::printable(&title(ranking, now_ns)) + "\n";
    if items.is_empty() {
        return title + "  nothing yet\n";
    }
    let mut table =
        Table::new(&[("#", Lean::Right), ("item", Lean::Left), (by_name(ranking.by), Lean::Right)]);
    for (place, item) in (1u64..).zip(items) {
        table.row([place.to_string(), item.name.clone(), print::value(item.value)]);
    }
    title + &table.render()
}

fn ranking_json(ranking: &Ranking<'_>, items: &[RankedItem], now_ns: u64) -> Value {
    let rows: Vec<Value> = (1u64..)
        .zip(items)
        .map(|(place, item)| json!({ "rank": place, "item": item.name, "value": item.value }))
        .collect();
    let window = match ranking.by {
        By::Hot => None,
        By::Count | By::Velocity => Some(ranking.window.to_string()),
    };
    json!({
        "signal": ranking.signal,
        "by": by_name(ranking.by),
        "window": window,
        "cohort": ranking.cohort,
        "now_ns": now_ns,
        "items": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_says_what_is_ranked_for_whom_and_when() {
        let mut ranking = Ranking {
            signal: "view",
            by: By::Hot,
            window: Span::Day,
            half_life: None,
            cohort: None,
            now_ns: None,
            k: 5,
        };
        assert_eq!(title(&ranking, 0), "view by decayed score, everyone, at 1970-01-01 00:00:00Z");
        (ranking.by, ranking.cohort) = (By::Velocity, Some("country=FR"));
        assert!(
            title(&ranking, 0).starts_with("view by velocity of the last 24h, country=FR, at ")
        );
        (ranking.by, ranking.window) = (By::Count, Span::All);
        assert!(title(&ranking, 0).starts_with("view by count over all time, "));
    }
}

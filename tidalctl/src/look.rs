//! `tidalctl top`, `status` and `verify`: looking at a database.
//!
//! Knows: questions and how answers are laid out. Must not know: how the engine finds them.

use serde_json::{Value, json};

use crate::cli::{By, DirArgs, TopArgs};
use crate::engine::{Engine, RankedItem, Ranking};
use crate::failure::Failure;
use crate::print::{self, Lean, Table};
use crate::time::format_point;
use crate::value::{Span, thousands};

/// Carries out `tidalctl top`.
///
/// # Errors
///
/// When a flag does not fit the ranking, a name is unknown, or the database cannot be opened.
pub(crate) fn top(args: &TopArgs) -> anyhow::Result<()> {
    check_flags(args)?;
    let engine = Engine::open(&args.dir)?;
    engine.check_signal(&args.signal).map_err(|reason| {
        Failure::failed(reason)
            .hint(format!("the signals are: {}", engine.signal_names().join(", ")))
    })?;
    if let Some(cohort) = &args.cohort {
        engine.check_cohort(cohort).map_err(|reason| {
            let known = engine.cohort_names().join(", ");
            Failure::failed(reason).hint(format!("the cohorts and families are: {known}"))
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
    engine.close()?;
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

fn by_name(by: By) -> &'static str {
    match by {
        By::Hot => "hot",
        By::Count => "count",
        By::Velocity => "velocity",
    }
}

fn ranking_text(ranking: &Ranking<'_>, items: &[RankedItem], now_ns: u64) -> String {
    let of_window = match ranking.by {
        By::Hot => String::new(),
        By::Count | By::Velocity => format!(" of {}", ranking.window),
    };
    let who = ranking.cohort.unwrap_or("everyone");
    let by = by_name(ranking.by);
    let title =
        format!("{}, {who}, by {by}{of_window}, at {}\n", ranking.signal, format_point(now_ns));
    if items.is_empty() {
        return title + "  nothing yet\n";
    }
    let mut table = Table::new(&[("#", Lean::Right), ("item", Lean::Left), (by, Lean::Right)]);
    for (place, item) in (1u64..).zip(items) {
        table.row([place.to_string(), item.name.clone(), print::value(item.value)]);
    }
    print::printable_line(&title) + &table.render()
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

/// Carries out `tidalctl status`.
///
/// # Errors
///
/// When the database cannot be opened.
pub(crate) fn status(args: &DirArgs) -> anyhow::Result<()> {
    let engine = Engine::open(&args.dir)?;
    let facts = [
        ("applied", thousands(engine.applied())),
        ("engine time", format_point(engine.time_ns())),
        ("signals", engine.signal_names().join(", ")),
        ("cohorts", engine.cohort_names().join(", ")),
        ("digest", engine.digest()?),
    ];
    let (opened, status) = (engine.open_report(), engine.status());
    let applied = engine.applied();
    let time_ns = engine.time_ns();
    let names = (engine.signal_names(), engine.cohort_names());
    engine.close()?;
    if args.json {
        return Ok(print::json(&json!({
            "applied": applied,
            "engine_time_ns": time_ns,
            "signals": names.0,
            "cohorts": names.1,
            "digest": facts[4].1,
            "opened": opened,
            "status": status,
        }))?);
    }
    let mut text = String::new();
    for (name, value) in facts {
        text.push_str(&format!("{name:<12} {}\n", print::printable(&value)));
    }
    Ok(print::out(&format!("{text}\n{opened}\n\n{status}\n"))?)
}

/// Carries out `tidalctl verify`.
///
/// # Errors
///
/// When the database cannot be opened or something in it is damaged.
pub(crate) fn verify(args: &DirArgs) -> anyhow::Result<()> {
    let engine = Engine::open(&args.dir)?;
    let report = engine.verify()?;
    let (digest, applied) = (engine.digest()?, engine.applied());
    engine.close()?;
    if args.json {
        return Ok(print::json(
            &json!({ "ok": true, "applied": applied, "digest": digest, "report": report }),
        )?);
    }
    Ok(print::out(&format!(
        "{report}\nok: everything verifies through operation {}; digest {digest}\n",
        thousands(applied)
    ))?)
}

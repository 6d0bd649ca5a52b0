//! The steps of an evaluation.
//!
//! Knows: what is learnt, foretold and told, in this order. Must not know: how the engine finds items.
//!
//! The protocol: learn from the first part in order of time; then, for every step of every session of
//! the second, foretell the next item from those before. With `--live` the second part is learnt as
//! it goes, step by step, in order of time.

use std::collections::HashMap;

use serde_json::json;

use super::log::{self, Click, Log, Test};
use super::score::Scores;
use crate::cli::EvaluateArgs;
use crate::engine::{Learner, NewClick, Question, Stopwatch};
use crate::failure::Failure;
use crate::ingest::columns::SignalFrom;
use crate::ingest::plan;
use crate::print::{self, Lean, Table, Unit};
use crate::value::thousands;

/// What may be in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// Everything.
    All,
    /// Everything but the current item.
    AllButCurrent,
    /// Nothing that the session has.
    New,
}

impl Allowed {
    const fn text(self) -> &'static str {
        match self {
            Self::All => "current item allowed",
            Self::AllButCurrent => "current item excluded",
            Self::New => "new items only",
        }
    }
}

/// Carries out `tidalctl evaluate`.
///
/// # Errors
///
/// When the flags contradict each other or the input, or a file cannot be read.
pub(crate) fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let wanted = plan::wanted(&args.columns);
    if wanted.user.is_none() {
        return Err(Failure::usage("--user names the column of the session, and is missing").into());
    }
    let signals = match &wanted.signal {
        SignalFrom::Fixed(name) => vec![name.clone()],
        SignalFrom::Column(_) => args.signals.clone(),
    };
    let test = match (&args.test, args.test_from) {
        (Some(file), _) => Test::File(file),
        (None, from) => Test::From(from.unwrap_or_default()),
    };
    let log = log::read(&args.train, &test, args.format, &wanted, &signals)?;
    let learner = learn(args, &log, &signals, wanted.cohort.map(|cohort| cohort.family))?;
    let variants: &[Allowed] =
        if args.baskets { &[Allowed::New] } else { &[Allowed::AllButCurrent, Allowed::All] };
    let scores = foretell(args, &learner, &log, variants)?;
    if scores.iter().all(|scores| scores.predictions == 0) {
        return Err(Failure::failed("there is nothing to foretell: no session has a second step")
            .hint("--user names the column of the session")
            .into());
    }
    tell(args, &learner, &log, variants, &scores)
}

fn learn(
    args: &EvaluateArgs,
    log: &Log,
    signals: &[String],
    family: Option<String>,
) -> anyhow::Result<Learner> {
    let learner = Learner::new(&args.model, signals, family)?;
    let bar = print::progress(Some(log.train.len() as u64), Unit::Events);
    for clicks in log.train.chunks(1_000) {
        learner.learn(clicks.iter().map(NewClick::from))?;
        bar.inc(clicks.len() as u64);
    }
    bar.finish_and_clear();
    Ok(learner)
}

/// The scores of each variant.
fn foretell(
    args: &EvaluateArgs,
    learner: &Learner,
    log: &Log,
    variants: &[Allowed],
) -> anyhow::Result<Vec<Scores>> {
    let steps = if args.baskets { first_entries(&log.test) } else { log.test.clone() };
    let following = following(&steps);
    let mut scores: Vec<Scores> = variants.iter().map(|_| Scores::default()).collect();
    let mut sessions: HashMap<u64, Vec<u64>> = HashMap::new();
    let bar = print::progress(Some(steps.len() as u64), Unit::Events);
    for (click, next) in steps.iter().zip(following) {
        if args.live {
            learner.learn([NewClick::from(click)])?;
        }
        let session = sessions.entry(click.session).or_default();
        session.push(click.item);
        bar.inc(1);
        let Some(next) = next else { continue };
        for (variant, scores) in variants.iter().zip(&mut scores) {
            let question = Question {
                session,
                k: args.k as usize,
                allowed: *variant,
                cohort: click.cohort.as_deref(),
                now_ns: click.at_ns,
            };
            let watch = Stopwatch::start();
            let answer = learner.recommend(&question)?;
            let took = watch.elapsed();
            let rank = answer.iter().position(|&item| item == next).map(|at| at + 1);
            scores.add(rank, took);
        }
    }
    bar.finish_and_clear();
    Ok(scores)
}

/// Each session's items where they first come.
fn first_entries(clicks: &[Click]) -> Vec<Click> {
    let mut seen = std::collections::HashSet::new();
    clicks.iter().filter(|click| seen.insert((click.session, click.item))).cloned().collect()
}

/// What comes next in the session of each click.
fn following(clicks: &[Click]) -> Vec<Option<u64>> {
    let mut later: HashMap<u64, u64> = HashMap::new();
    let mut following: Vec<Option<u64>> =
        clicks.iter().rev().map(|click| later.insert(click.session, click.item)).collect();
    following.reverse();
    following
}

fn tell(
    args: &EvaluateArgs,
    learner: &Learner,
    log: &Log,
    variants: &[Allowed],
    scores: &[Scores],
) -> anyhow::Result<()> {
    let size = learner.size();
    if args.json {
        let rows: Vec<serde_json::Value> = variants
            .iter()
            .zip(scores)
            .map(|(variant, scores)| {
                let [p50, p90, p99] = scores.percentiles_us([0.5, 0.9, 0.99]);
                json!({
                    "variant": variant.text(),
                    "predictions": scores.predictions,
                    "hit_rate": scores.hit_rate(),
                    "mean_reciprocal_rank": scores.mean_reciprocal_rank(),
                    "p50_us": p50, "p90_us": p90, "p99_us": p99,
                })
            })
            .collect();
        return Ok(print::json(&json!({
            "k": args.k,
            "learnt": log.train.len(),
            "passed_over": log.passed_over,
            "edges": size.edges, "trails": size.trails, "co_engagement_size_bytes": size.size_bytes,
            "variants": rows,
        }))?);
    }
    let (hr, mrr) = (format!("HR@{}", args.k), format!("MRR@{}", args.k));
    let mut table = Table::new(&[
        ("", Lean::Left),
        (&hr, Lean::Right),
        (&mrr, Lean::Right),
        ("predictions", Lean::Right),
        ("p50 µs", Lean::Right),
        ("p90 µs", Lean::Right),
        ("p99 µs", Lean::Right),
    ]);
    for (variant, scores) in variants.iter().zip(scores) {
        let times = scores.percentiles_us([0.5, 0.9, 0.99]).map(|us| format!("{us:.1}"));
        let quality = [scores.hit_rate(), scores.mean_reciprocal_rank()].map(|x| format!("{x:.4}"));
        let row = [variant.text().to_owned()].into_iter().chain(quality);
        table.row(row.chain([thousands(scores.predictions)]).chain(times));
    }
    let learnt = format!(
        "learnt {} events ({} lines passed over): {} edges, {} trails, {} kB\n",
        thousands(log.train.len() as u64),
        thousands(log.passed_over),
        thousands(size.edges),
        thousands(size.trails),
        thousands(size.size_bytes / 1_000),
    );
    Ok(print::out(&(learnt + &table.render()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn click(session: u64, item: u64) -> Click {
        Click { at_ns: 0, session, item, signal: String::new(), cohort: None }
    }

    #[test]
    fn what_comes_next_is_of_the_same_session() {
        let clicks = [click(1, 10), click(2, 20), click(1, 10), click(1, 30)];
        assert_eq!(following(&clicks), [Some(10), None, Some(30), None]);
        assert_eq!(first_entries(&clicks), [click(1, 10), click(2, 20), click(1, 30)]);
    }
}

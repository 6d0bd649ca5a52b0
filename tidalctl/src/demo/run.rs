//! The scenes of the demo.
//!
//! Knows: what is shown, in which order. Must not know: how counts are compared.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::check::{self, Checks};
use super::shop::Shop;
use super::tally::{Scope, Tally};
use super::writer::{self, Acknowledged, SOURCE};
use crate::cli::{By, DemoArgs};
use crate::engine::{Engine, RankedItem, Ranking, Stopwatch};
use crate::failure::Failure;
use crate::print::{self, Lean, Table, Unit};
use crate::time::format_point;
use crate::value::{Span, thousands};

/// The country whose cohort is shown beside everyone.
const SHOWN_COUNTRY: usize = 2;
const SHOWN_ITEMS: usize = 8;
/// In a smaller log the last day is too small for a trend to stand out of chance.
const TREND_CHECKED_EVENTS: usize = 100_000;

/// Carries out `tidalctl demo`.
///
/// # Errors
///
/// When the directory is taken, the engine fails, or a check does not hold.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let watch = Stopwatch::start();
    // Held until the end: dropping it removes the directory.
    let (_temporary, dir) = choose_dir(args.dir.as_deref())?;
    let mut stage = Stage { json: args.json, facts: json!({}), checks: Checks::default() };
    let shop = Shop::generate(args.seed, usize::try_from(args.events)?);
    stage.say(&format!(
        "tidal demo: a shop's month, made from seed {}: {} events, {} items, {} users\n\n",
        args.seed,
        thousands(args.events),
        thousands(shop.items.len() as u64),
        thousands(shop.users.len() as u64),
    ))?;

    let killed = kill_half_way(&mut stage, args, &dir)?;
    let engine = reopen(&mut stage, &shop, &dir, killed)?;
    go_on(&mut stage, &shop, &engine)?;
    show(&mut stage, &shop, &engine)?;
    engine.close()?;

    stage.facts["seconds"] = json!(watch.elapsed().as_secs_f64());
    stage.facts["checks"] = stage.checks.json();
    if args.json {
        print::json(&stage.facts)?;
    }
    if let Some(kept) = &args.dir {
        stage.say(&format!(
            "The database is in {0}: try  tidalctl top --dir {0} --signal cart\n",
            kept.display()
        ))?;
    }
    match stage.checks.failed() {
        0 => stage.say(&format!(
            "All {} checks hold: nothing acknowledged was lost, nothing counts twice. {:.1} s\n",
            stage.checks.count(),
            watch.elapsed().as_secs_f64()
        )),
        failed => Err(Failure::failed(format!("{failed} checks of the demo failed")).into()),
    }
}

/// Where the scenes leave what they have to say.
struct Stage {
    json: bool,
    facts: Value,
    checks: Checks,
}

impl Stage {
    fn say(&self, text: &str) -> anyhow::Result<()> {
        if !self.json {
            print::out(text)?;
        }
        Ok(())
    }
}

fn choose_dir(asked: Option<&Path>) -> anyhow::Result<(Option<tempfile::TempDir>, PathBuf)> {
    if let Some(dir) = asked {
        if !Engine::is_new(dir) {
            return Err(Failure::usage(format!("{} is not empty", dir.display()))
                .hint("the demo needs a new directory")
                .into());
        }
        return Ok((None, dir.to_owned()));
    }
    let temporary = tempfile::Builder::new()
        .prefix("tidal-demo-")
        .tempdir()
        .context("could not make a temporary directory")?;
    let dir = temporary.path().join("shop.tidal");
    Ok((Some(temporary), dir))
}

/// What the writer had said when it died.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    users: u64,
    events: u64,
}

/// Scene one: a child writes and is killed.
fn kill_half_way(stage: &mut Stage, args: &DemoArgs, dir: &Path) -> anyhow::Result<Said> {
    stage.say("1. A child process writes the log. It is killed with SIGKILL half-way.\n")?;
    let program = std::env::current_exe().context("could not find this program's own file")?;
    let mut child = Command::new(program)
        .arg("demo-writer")
        .args(["--seed", &args.seed.to_string(), "--events", &args.events.to_string()])
        .arg("--dir")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start the writer")?;
    let listened = listen(&mut child, args.events);
    if listened.is_err() {
        // It may be dead already, which is as good.
        let _ = child.kill();
    }
    let status = child.wait().context("could not wait for the writer")?;
    let (said, killed) = listened?;
    require_killed(status, killed)?;
    stage.say(&format!(
        "   acknowledged before it died: {} users, events 1 to {}\n\n",
        thousands(said.users),
        thousands(said.events)
    ))?;
    stage.facts["acknowledged"] = json!({ "users": said.users, "events": said.events });
    Ok(said)
}

/// Listens to the child and kills it at half of the events. What was still in the pipe counts: it
/// was acknowledged.
fn listen(child: &mut Child, events: u64) -> anyhow::Result<(Said, bool)> {
    let stdout = child.stdout.take().context("the writer has no output")?;
    let mut lines = BufReader::new(stdout);
    let bar = print::progress(Some(events), Unit::Events);
    let mut said = Said::default();
    let mut killed = false;
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        match Acknowledged::parse(&line) {
            Some(Acknowledged::Users(count)) => said.users = count,
            Some(Acknowledged::Events(last)) => said.events = last,
            None => {}
        }
        bar.set_position(said.events);
        if !killed && said.events >= events / 2 {
            child.kill().context("could not kill the writer")?;
            killed = true;
        }
        line.clear();
    }
    bar.finish_and_clear();
    Ok((said, killed))
}

fn require_killed(status: ExitStatus, killed: bool) -> anyhow::Result<()> {
    match status.code() {
        // Ended by a signal: ours.
        None if killed => Ok(()),
        Some(0) => Err(Failure::failed("the writer finished before it could be killed")
            .hint("give it more to do with --events")
            .into()),
        _ => Err(Failure::failed(format!("the writer failed by itself: {status}")).into()),
    }
}

/// Scene two: what is left.
fn reopen(stage: &mut Stage, shop: &Shop, dir: &Path, said: Said) -> anyhow::Result<Engine> {
    let watch = Stopwatch::start();
    let engine = Engine::open(dir)?;
    let seconds = watch.elapsed().as_secs_f64();
    stage.say(&format!("2. The database is opened again: {seconds:.2} s.\n"))?;
    stage.say(&indented(&engine.open_report().to_string()))?;
    let stored = engine.source_offset(SOURCE);
    let users = check::users(&engine, shop);
    let items = check::items(&engine, shop);
    stage.say(&found(said, shop, stored, users, items.len() as u64))?;

    let (event_count, user_count) = (shop.events.len() as u64, shop.users.len() as u64);
    let kept = stage.checks.add(
        (said.events..=event_count).contains(&stored),
        format!("every acknowledged event is there{}", surplus(stored, said.events)),
    );
    let members = stage.checks.add(
        said.users == user_count && users == user_count,
        "every user is there, in the cohort of their country",
    );
    let named =
        stage.checks.add(items.len() == shop.items.len(), "every item's name is in the dictionary");
    stage.say(&(kept + &members + &named))?;
    if items.len() == shop.items.len() {
        let prefix_len = usize::try_from(stored)?.min(shop.events.len());
        let tally = Tally::of_prefix(shop, prefix_len);
        let counted = check::counts(&mut stage.checks, &engine, &items, &tally, stored)?;
        stage.say(&counted)?;
    }
    stage.facts["reopened"] = json!({ "seconds": seconds, "stored": stored });
    Ok(engine)
}

/// What was acknowledged beside what is there.
fn found(said: Said, shop: &Shop, stored: u64, users: u64, items: u64) -> String {
    let mut table = Table::new(&[
        (" ", Lean::Left),
        ("acknowledged", Lean::Right),
        ("found after the kill", Lean::Right),
    ]);
    // Names are acknowledged before the first event is written.
    let names = if said.events > 0 { shop.items.len() as u64 } else { 0 };
    for (what, acknowledged, found) in [
        (" events", said.events, stored),
        (" users", said.users, users),
        (" item names", names, items),
    ] {
        table.row([what.to_owned(), thousands(acknowledged), thousands(found)]);
    }
    format!("\n{}\n", table.render())
}

fn surplus(stored: u64, acknowledged: u64) -> String {
    match stored.saturating_sub(acknowledged) {
        0 => String::new(),
        more => format!(", and {} that were in flight when it died", thousands(more)),
    }
}

/// Scene three: the rest of the log, from where the database says it stands.
fn go_on(stage: &mut Stage, shop: &Shop, engine: &Engine) -> anyhow::Result<()> {
    let stored = engine.source_offset(SOURCE);
    let total = shop.events.len() as u64;
    let names: Vec<&str> = shop.items.iter().map(String::as_str).collect();
    let items = engine.intern(&names)?;
    let bar = print::progress(Some(total), Unit::Events);
    let watch = Stopwatch::start();
    writer::write_events(engine, shop, &items, stored, |last| {
        bar.set_position(last);
        Ok(())
    })?;
    let seconds = watch.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let events_per_s = ((total - stored) as f64 / seconds.max(1e-9)) as u64;
    stage.say(&format!(
        "\n3. Writing goes on at event {}: {} more in {seconds:.2} s ({} events/s).\n",
        thousands(stored + 1),
        thousands(total - stored),
        thousands(events_per_s)
    ))?;
    let ended = stage.checks.add(
        engine.source_offset(SOURCE) == total,
        format!("the log is stored to its end, {}", thousands(total)),
    );
    stage.say(&ended)?;
    let tally = Tally::of_prefix(shop, shop.events.len());
    let counted = check::counts(&mut stage.checks, engine, &items, &tally, total)?;
    stage.say(&counted)?;
    stage.facts["resumed"] =
        json!({ "events": total - stored, "seconds": seconds, "events_per_s": events_per_s });
    Ok(())
}

/// Scene four: what people want to see.
fn show(stage: &mut Stage, shop: &Shop, engine: &Engine) -> anyhow::Result<()> {
    let now = format_point(engine.time_ns());
    let cohort = Scope::country(SHOWN_COUNTRY).cohort().expect("a country is a cohort");
    stage.say(&format!("\n4. What the shop sees at {now}, for everyone and for {cohort}:\n"))?;
    let planted: Vec<&str> =
        shop.trending.iter().map(|&item| shop.items[item as usize].as_str()).collect();
    let scenes = [
        (
            "trending",
            "Trending: views of the last 24 h against the 24 h before",
            "view",
            By::Velocity,
            Span::Day,
        ),
        ("hot", "Hot: views, half-life 24 h", "view", By::Hot, Span::Day),
        ("top", "Top: purchases of the last 7 days", "purchase", By::Count, Span::Week),
    ];
    for (key, title, signal, by, window) in scenes {
        let rank = |cohort: Option<&str>| {
            let (half_life, now_ns, k) = (None, None, SHOWN_ITEMS);
            engine.rank(&Ranking { signal, by, window, half_life, cohort, now_ns, k })
        };
        let (everyone, some) = (rank(None)?, rank(Some(&cohort))?);
        stage
            .say(&format!("\n   {title}\n{}", side_by_side(&everyone, &some, &cohort, &planted)))?;
        stage.facts[key] =
            json!({ "everyone": ranked_json(&everyone), cohort.clone(): ranked_json(&some) });
        if by == By::Velocity && shop.events.len() >= TREND_CHECKED_EVENTS {
            let first: Vec<&str> =
                everyone.iter().take(planted.len()).map(|item| item.name.as_str()).collect();
            let found = planted.iter().all(|item| first.contains(item));
            let line = stage.checks.add(
                found,
                format!(
                    "the {} items that take off on the last day (*) trend first",
                    planted.len()
                ),
            );
            stage.say(&line)?;
        }
    }
    stage.say("\n")
}

fn side_by_side(
    everyone: &[RankedItem],
    some: &[RankedItem],
    cohort: &str,
    planted: &[&str],
) -> String {
    let mut table = Table::new(&[
        (" #", Lean::Right),
        ("everyone", Lean::Left),
        ("value", Lean::Right),
        (cohort, Lean::Left),
        ("value", Lean::Right),
    ]);
    let cells = |item: Option<&RankedItem>| match item {
        Some(item) => {
            let mark = if planted.contains(&item.name.as_str()) { " *" } else { "" };
            [format!("{}{mark}", item.name), print::value(item.value)]
        }
        None => [String::new(), String::new()],
    };
    for place in 0..everyone.len().max(some.len()) {
        let (left, right) = (cells(everyone.get(place)), cells(some.get(place)));
        table.row([(place + 1).to_string()].into_iter().chain(left).chain(right));
    }
    table.render()
}

fn ranked_json(items: &[RankedItem]) -> Value {
    items.iter().map(|item| json!({ "item": item.name, "value": item.value })).collect()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("   {line}\n")).collect()
}

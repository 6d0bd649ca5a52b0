//! What may come of a damaged database, and the tables of what did.

use std::collections::BTreeMap;

use tidal_support::damage::{Answer, Case, Outcome, Run, State, run};

use crate::scene::{Base, Scene};

/// The only outcome that is right.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// Everything is there, and whatever was lost beside it is named in the open report.
    Whole(Named),
    /// Everything through a sequence is there, and nothing after it.
    Through(u64, Named),
    /// One of these errors, and not one byte changed.
    Refused(&'static [&'static str], Names),
}

/// Whether the open report must name a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// It must.
    Yes,
    /// It must not.
    No,
    /// It must if a store does not stand where it stood, unless it lost what nothing else knows of.
    IfLost,
    /// What was lost is nothing that anyone can know of, or nothing at all.
    Either,
}

/// What an error must name.
#[derive(Debug, Clone)]
pub(crate) enum Names {
    File(String),
    /// What is missing has no name: the sentence says which sequences.
    Sequences,
}

/// Cases of a suite, each with what is right.
#[derive(Default)]
pub(crate) struct Plan {
    classes: Vec<&'static str>,
    cases: Vec<Case>,
    expected: Vec<Expected>,
}

/// The outcomes of a class of cases.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) cases: u64,
    pub(crate) whole: u64,
    pub(crate) repaired: u64,
    pub(crate) cut: u64,
    pub(crate) refused: u64,
    pub(crate) deaths: u64,
    pub(crate) panics: u64,
}

impl Plan {
    pub(crate) fn add(&mut self, class: &'static str, case: Case, expected: Expected) {
        self.classes.push(class);
        self.cases.push(case);
        self.expected.push(expected);
    }

    /// Opens all cases, prints a table, and fails where an outcome is not the right one.
    pub(crate) fn run(self, scene: &Scene, bases: &[&Base]) -> BTreeMap<&'static str, Counts> {
        let Run { answers, elapsed } = run("child", scene.path(), &self.cases);
        let mut table: BTreeMap<&str, Counts> = BTreeMap::new();
        let mut failures = Vec::new();
        for (index, answer) in answers.iter().enumerate() {
            let case = &self.cases[index];
            let base = bases.iter().find(|base| base.name == case.of).expect("a known database");
            let counts = table.entry(self.classes[index]).or_default();
            counts.count(answer);
            if let Err(wrong) = judge(base, &self.expected[index], answer) {
                let class = self.classes[index];
                failures.push(format!("{class}: {case}: {wrong}: {answer:?}"));
            }
        }
        print_table(&table);
        let opens = table.values().map(|c| c.cases + c.deaths).sum::<u64>();
        println!("{} cases, {opens} opens, {elapsed:.1?}", self.cases.len());
        let shown = failures.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join("\n");
        assert!(failures.is_empty(), "{} cases are wrong:\n{shown}", failures.len());
        table
    }
}

const SHOWN_MAX: usize = 30;

fn print_table(table: &BTreeMap<&str, Counts>) {
    println!(
        "{:44} {:>6} {:>6} {:>8} {:>6} {:>7} {:>6} {:>6}",
        "", "cases", "whole", "repaired", "cut", "refused", "deaths", "panics"
    );
    for (class, counts) in table {
        let Counts { cases, whole, repaired, cut, refused, deaths, panics } = counts;
        println!(
            "{class:44} {cases:6} {whole:6} {repaired:8} {cut:6} {refused:7} {deaths:6} {panics:6}"
        );
    }
}

impl Counts {
    fn count(&mut self, answer: &Answer) {
        self.cases += 1;
        self.deaths += answer.deaths.len() as u64;
        self.panics += answer.panics.len() as u64;
        match &answer.outcome {
            Outcome::Opened { first, .. } if first.repairs.contains("log was cut") => self.cut += 1,
            Outcome::Opened { first, .. } if first.repairs.is_empty() => self.whole += 1,
            Outcome::Opened { .. } => self.repaired += 1,
            Outcome::Refused { .. } => self.refused += 1,
            Outcome::Lost { .. } => {}
        }
    }
}

fn judge(base: &Base, expected: &Expected, answer: &Answer) -> Result<(), String> {
    // fjall ends the process by a panic while it unwinds from one, which is an abort.
    if let Some(death) = answer.deaths.iter().find(|status| !status.contains("SIGABRT")) {
        return Err(format!("a process ended with {death}"));
    }
    let is_fjalls = |panic: &&String| {
        let ends_the_process = panic.contains("panic in a destructor during cleanup");
        panic.contains("/fjall-") || panic.contains("/lsm-tree-") || ends_the_process
    };
    if let Some(panic) = answer.panics.iter().find(|panic| !is_fjalls(panic)) {
        return Err(format!("a panic of tidal's own: {panic}"));
    }
    match (&answer.outcome, expected) {
        (Outcome::Opened { first, second }, Expected::Whole(named)) => {
            check_opened(base, base.whole(), (first, second.as_ref()), *named)
        }
        (Outcome::Opened { first, second }, Expected::Through(seq, named)) => {
            check_opened(base, base.at(*seq), (first, second.as_ref()), *named)
        }
        (Outcome::Refused { variant, message, changes }, Expected::Refused(kinds, names)) => {
            let is_named = match names {
                Names::File(file) => message.contains(file.as_str()),
                Names::Sequences => message.contains("frames"),
            };
            match () {
                () if !kinds.contains(&variant.as_str()) => Err(format!("refused with {variant}")),
                () if !is_named => Err(format!("it does not name {names:?}")),
                () if !changes.is_empty() => Err("refused, and yet changed something".to_owned()),
                () => Ok(()),
            }
        }
        (_, expected) => Err(format!("expected {expected:?}")),
    }
}

fn check_opened(
    base: &Base,
    right: &State,
    (first, second): (&State, Option<&State>),
    named: Named,
) -> Result<(), String> {
    check_state(right, first).map_err(|wrong| format!("{wrong} (right: {right:?})"))?;
    let must_name = match named {
        Named::Yes => Some(true),
        Named::No => Some(false),
        Named::Either => None,
        Named::IfLost => {
            let is_known = Some(&first.stores) != base.without_newest.as_ref();
            (is_known && first.stores != right.stores).then_some(true)
        }
    };
    match must_name {
        Some(true) if first.repairs.is_empty() => return Err("no repair is named".to_owned()),
        Some(false) if !first.repairs.is_empty() => return Err("a repair is named".to_owned()),
        _ => {}
    }
    let Some(second) = second else { return Ok(()) };
    check_state(right, second).map_err(|wrong| format!("opened again: {wrong}"))?;
    match second.repairs.is_empty() {
        true => Ok(()),
        false => Err("opened again: there is something to repair".to_owned()),
    }
}

fn check_state(right: &State, found: &State) -> Result<(), String> {
    match () {
        () if found.operations != right.operations => Err("another number of operations"),
        () if found.digest != right.digest => Err("another state"),
        () if found.rows != right.rows => Err("other rows"),
        () if !found.broken.is_empty() => Err("it does not verify"),
        () => Ok(()),
    }
    .map_err(str::to_owned)
}

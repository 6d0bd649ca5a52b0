//! Extending a stored schema by a given one.
//!
//! Knows: what may be added later and what may never change. Must not know: who asks, or when.
//!
//! The given schema must have all that is stored, so a program built with an older schema cannot
//! open a newer database and silently miss what it does not know.

use super::cohort::{CohortDef, CohortRule};
use super::signal::{ExtendedAt, SignalDef};
use super::{HalfLifeDef, Own, Parts, Schema, WindowDef};
use crate::error::{Error, Result};

impl Schema {
    /// This given schema, with what it leaves to a default as the stored one has it: the settings of
    /// co-engagement; the lane and the default policy of sessions, and, where it declares no policy at
    /// all, the other policies.
    ///
    /// It is for extending only: what it takes over may go with signals that it does not declare.
    pub(crate) fn over(&self, stored: &Self) -> Self {
        let (own, mut parts) = (self.0.own, self.0.parts.clone());
        if let (true, Some(settings)) =
            (parts.is_engaging() && !own.co_engagement, stored.co_engagement())
        {
            parts.co_engagement = Some(*settings);
        }
        parts.sessions = parts.sessions.over(own.sessions, &stored.0.parts.sessions);
        Self::unchecked(parts, own)
    }

    /// This stored schema with all that `given` adds, declared at `at`; `None` when it adds
    /// nothing.
    ///
    /// Signals, windows, half-lives, velocity, cohorts and families can be added, and the limit of
    /// a family raised; a signal can become engaging, and bounds of co-engagement be raised; session
    /// policies can be added, and allow other signals or rates. New signals are numbered in alphabetical
    /// order after the old ones, new half-lives follow the old ones by length, new session policies by
    /// name.
    ///
    /// # Errors
    ///
    /// [`Error::SchemaMismatch`], with a sentence for each difference, when something stored is
    /// missing from `given` or declared otherwise there.
    pub(crate) fn extend(&self, given: &Self, at: ExtendedAt) -> Result<Option<Self>> {
        let mut differences = Vec::new();
        let signals = extended_signals(self, given, at, &mut differences);
        let cohorts = extended_cohorts(self, given, at, &mut differences);
        let co_engagement = given.co_engagement().copied();
        if let (Some(stored), Some(given)) = (self.co_engagement(), &co_engagement) {
            differences.extend(given.differences(stored));
        }
        let sessions = &self.0.parts.sessions;
        let sessions = sessions.extended(&given.0.parts.sessions, &mut differences);
        if !differences.is_empty() {
            return Err(Error::SchemaMismatch(differences));
        }
        let parts = Parts { signals, cohorts, co_engagement, sessions };
        let extended = Self::from_parts(parts, Own::ALL)
            .map_err(|problems| Error::InvalidSchema(problems.join("; ")))?;
        Ok((extended != *self).then_some(extended))
    }
}

fn extended_signals(
    stored: &Schema,
    given: &Schema,
    at: ExtendedAt,
    differences: &mut Vec<String>,
) -> Vec<SignalDef> {
    let mut signals = Vec::with_capacity(given.signals().len());
    for signal in stored.signals() {
        match given.signal_type(signal.name()).and_then(|id| given.signal(id)) {
            Some(given) => signals.push(extended_signal(signal, given, at, differences)),
            None => differences.push(format!(
                "signal {:?} is stored but not given: declare it, signals are never removed",
                signal.name()
            )),
        }
    }
    let mut new: Vec<&SignalDef> = given
        .signals()
        .iter()
        .filter(|signal| stored.signal_type(signal.name()).is_none())
        .collect();
    new.sort_by_key(|signal| signal.name());
    signals.extend(new.into_iter().map(|signal| signal.clone().declared(at)));
    signals
}

fn extended_signal(
    stored: &SignalDef,
    given: &SignalDef,
    at: ExtendedAt,
    differences: &mut Vec<String>,
) -> SignalDef {
    differences.extend(signal_differences(stored, given));
    let mut extended = stored.clone();
    let mut half_lives: Vec<_> = given
        .half_lives
        .iter()
        .map(|def| def.half_life)
        .filter(|&half_life| stored.half_life_position(half_life).is_none())
        .collect();
    half_lives.sort_unstable();
    extended
        .half_lives
        .extend(half_lives.into_iter().map(|half_life| HalfLifeDef { half_life, since: at }));
    let windows = given.windows.iter().filter(|def| stored.window(def.window).is_none());
    extended.windows.extend(windows.map(|def| WindowDef { window: def.window, since: at }));
    extended.windows.sort_by_key(|def| def.window);
    extended.velocity = stored.velocity.or(given.velocity.map(|_| at));
    extended.engaging = stored.engaging.or(given.engaging.map(|_| at));
    extended
}

/// What of `stored` is not so in `given`, a sentence each.
fn signal_differences(stored: &SignalDef, given: &SignalDef) -> Vec<String> {
    let name = &stored.name;
    let mut differences = Vec::new();
    if stored.kind != given.kind {
        differences.push(format!(
            "signal {name:?} is stored as one of kind {:?} but given as {:?}: kinds never change, \
             declare another signal",
            stored.kind, given.kind
        ));
    }
    if stored.default_half_life() != given.default_half_life() {
        differences.push(format!(
            "signal {name:?} has the default half-life {} stored but {} given: keep the stored \
             one as default and add the other with half_lives",
            stored.default_half_life(),
            given.default_half_life()
        ));
    }
    for def in &stored.half_lives[1..] {
        if given.half_life_position(def.half_life).is_none() {
            differences.push(format!(
                "signal {name:?} has the half-life {} stored but not given: declare it",
                def.half_life
            ));
        }
    }
    for def in &stored.windows {
        if !given.has_window(def.window) {
            differences.push(format!(
                "signal {name:?} has the window {} stored but not given: declare it",
                def.window
            ));
        }
    }
    if stored.velocity.is_some() && given.velocity.is_none() {
        differences.push(format!(
            "signal {name:?} has velocity stored but not given: declare velocity(true)"
        ));
    }
    if stored.engaging.is_some() && given.engaging.is_none() {
        differences.push(format!(
            "signal {name:?} is engaging as stored but not as given: declare engaging()"
        ));
    }
    differences
}

fn extended_cohorts(
    stored: &Schema,
    given: &Schema,
    at: ExtendedAt,
    differences: &mut Vec<String>,
) -> Vec<CohortDef> {
    let missing = stored.cohorts().iter().filter(|def| given.cohort(&def.name).is_none());
    differences.extend(missing.map(|def| {
        format!(
            "{} {:?} is stored but not given: declare it, cohorts are never removed",
            rule_name(&def.rule),
            def.name
        )
    }));
    let merge = |def: &CohortDef| {
        let since = stored.cohort(&def.name).map_or(at, |stored| {
            differences.extend(cohort_difference(stored, def));
            stored.since
        });
        CohortDef { since, ..def.clone() }
    };
    given.cohorts().iter().map(merge).collect()
}

fn cohort_difference(stored: &CohortDef, given: &CohortDef) -> Option<String> {
    let name = &stored.name;
    match (&stored.rule, &given.rule) {
        (CohortRule::Named, CohortRule::Named) => None,
        (CohortRule::Family { max_members: stored }, CohortRule::Family { max_members: given }) => {
            (given < stored).then(|| {
                format!(
                    "cohort family {name:?} may have {stored} members as stored but {given} as \
                     given: the limit can only be raised"
                )
            })
        }
        (CohortRule::Predicate(stored), CohortRule::Predicate(given)) => {
            (stored != given).then(|| {
                format!(
                    "cohort {name:?} is stored with the predicate {} but given with {}: a \
                     predicate never changes, declare another cohort",
                    shortened(stored.to_string()),
                    shortened(given.to_string())
                )
            })
        }
        (stored, given) => Some(format!(
            "{name:?} is stored as a {} but given as a {}: declare the other under another name",
            rule_name(stored),
            rule_name(given)
        )),
    }
}

const fn rule_name(rule: &CohortRule) -> &'static str {
    match rule {
        CohortRule::Predicate(_) => "cohort",
        CohortRule::Family { .. } => "cohort family",
        CohortRule::Named => "named cohort",
    }
}

/// A predicate may name thousands of values; a sentence shows its beginning.
fn shortened(text: String) -> String {
    const CHARS_MAX: usize = 200;
    match text.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

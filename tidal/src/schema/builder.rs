//! Building a schema.
//!
//! Knows: how declarations are written down. Must not know: what makes them sound beyond asking
//! them.

use std::time::Duration;

use super::co_engagement::CoEngagement;
use super::cohort::{CohortDef, CohortRule};
use super::decay::{DecaySpec, HalfLife};
use super::predicate::Predicate;
use super::sessions::{Lane, SessionPolicy, SessionRules};
use super::signal::{EntityKind, ExtendedAt, HalfLifeDef, SignalDef, WindowDef};
use super::window::Window;
use super::{Own, Parts, Schema};
use crate::error::{Error, Result};

/// Collects the declarations of a [`Schema`].
///
/// Mistakes are collected too and reported together by [`build`](Self::build), so nothing needs to
/// be checked on the way.
///
/// # Limits
///
/// Names have 1 to 256 bytes and no control characters. A schema has at most 1,000 signals, 1,000
/// cohort declarations and 1,000 session policies, and takes at most 1 MiB when stored.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tidaldb::schema::{DecaySpec, EntityKind, Predicate, SchemaBuilder, Window};
///
/// let half_hour = Duration::from_secs(30 * 60);
/// let day = Duration::from_secs(24 * 60 * 60);
///
/// let mut b = SchemaBuilder::new();
/// let _ = b
///     .signal("view", EntityKind::Item, DecaySpec::Exponential { half_life: half_hour })
///     .half_lives(&[day])
///     .windows(&[Window::OneHour, Window::TwentyFourHours])
///     .velocity(true)
///     .add();
/// let _ = b.signal("purchase", EntityKind::Item, DecaySpec::None).add();
/// b.cohort("us-18-24", Predicate::eq("country", "US").and(Predicate::range("age", 18.0..25.0)))
///     .cohort_family("country", 300)
///     .named_cohort("editors-picks");
/// let schema = b.build()?;
///
/// assert_eq!(schema.signals()[0].name(), "purchase");
/// assert!(schema.cohort_kind("country=FR").is_some());
/// # Ok::<(), tidaldb::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct SchemaBuilder {
    signals: Vec<SignalDef>,
    cohorts: Vec<CohortDef>,
    co_engagement: Option<CoEngagement>,
    policies: Vec<SessionPolicy>,
    lane: Option<Lane>,
    problems: Vec<String>,
}

impl SchemaBuilder {
    /// A schema without any declaration.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the declaration of a signal type, which [`SignalBuilder::add`] ends.
    ///
    /// Signal types get their numbers in alphabetical order when a schema is first stored; types
    /// that are added later follow.
    pub fn signal(
        &mut self,
        name: impl Into<String>,
        kind: EntityKind,
        decay: DecaySpec,
    ) -> SignalBuilder<'_> {
        SignalBuilder {
            name: name.into(),
            kind,
            half_life: decay.half_life(),
            further: Vec::new(),
            windows: Vec::new(),
            velocity: false,
            engaging: false,
            schema: self,
        }
    }

    /// Declares the cohort of the users that satisfy a predicate.
    pub fn cohort(&mut self, name: impl Into<String>, predicate: Predicate) -> &mut Self {
        self.declare(name.into(), CohortRule::Predicate(predicate))
    }

    /// Declares one cohort for each value of a user attribute, at most `max_members` (up to
    /// 1,000,000); for the attribute `country` they are called `country=FR` and so on.
    ///
    /// A value that could not be a name (empty, above 256 bytes, with control characters) makes no
    /// member.
    pub fn cohort_family(&mut self, attribute: impl Into<String>, max_members: u32) -> &mut Self {
        self.declare(attribute.into(), CohortRule::Family { max_members })
    }

    /// Declares a cohort that signals name themselves and no attribute leads to.
    pub fn named_cohort(&mut self, name: impl Into<String>) -> &mut Self {
        self.declare(name.into(), CohortRule::Named)
    }

    /// Sets the bounds and times of co-engagement; without this they are the default ones. At least
    /// one signal must be [`engaging`](SignalBuilder::engaging).
    pub const fn co_engagement(&mut self, settings: CoEngagement) -> &mut Self {
        self.co_engagement = Some(settings);
        self
    }

    /// Declares how the sessions behave that are started under a policy's name. One called `"default"`
    /// takes the place of the one that every schema has.
    ///
    /// Policies get their numbers by name when a schema is first stored; those that are added later
    /// follow. A schema that declares none keeps those that are stored.
    pub fn session_policy(&mut self, policy: SessionPolicy) -> &mut Self {
        self.policies.push(policy);
        self
    }

    /// Sets which sessions exclude each other; without this it is [`Lane::UserAgent`], or what is
    /// stored.
    pub const fn session_lane(&mut self, lane: Lane) -> &mut Self {
        self.lane = Some(lane);
        self
    }

    /// The schema.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSchema`] with everything that is wrong with it, a sentence each.
    pub fn build(&self) -> Result<Schema> {
        let mut signals = self.signals.clone();
        signals.sort_by(|left, right| left.name.cmp(&right.name));
        let mut cohorts = self.cohorts.clone();
        cohorts.sort_by(|left, right| left.name.cmp(&right.name));
        let co_engagement = self.co_engagement;
        let (sessions, declared) = SessionRules::of(&self.policies, self.lane);
        let own = Own { co_engagement: co_engagement.is_some(), sessions: declared };
        match Schema::from_parts(Parts { signals, cohorts, co_engagement, sessions }, own) {
            Ok(schema) if self.problems.is_empty() => Ok(schema),
            result => {
                let more = result.err().unwrap_or_default();
                let problems: Vec<String> = self.problems.iter().cloned().chain(more).collect();
                Err(Error::InvalidSchema(problems.join("; ")))
            }
        }
    }

    fn declare(&mut self, name: String, rule: CohortRule) -> &mut Self {
        self.cohorts.push(CohortDef { name, rule, since: ExtendedAt::CREATION });
        self
    }
}

/// The declaration of one signal type, to be ended by [`add`](Self::add).
#[derive(Debug)]
#[must_use = "a signal is declared only when add() is called"]
pub struct SignalBuilder<'b> {
    schema: &'b mut SchemaBuilder,
    name: String,
    kind: EntityKind,
    half_life: Result<HalfLife>,
    further: Vec<Result<HalfLife>>,
    windows: Vec<Window>,
    velocity: bool,
    engaging: bool,
}

impl<'b> SignalBuilder<'b> {
    /// Counts events over these windows too. All time is always counted; naming it changes nothing.
    pub fn windows(mut self, windows: &[Window]) -> Self {
        self.windows.extend_from_slice(windows);
        self
    }

    /// Keeps a score under each of these half-lives too, beside the default one of the
    /// [`DecaySpec`]; at most four in all. [`Duration::MAX`] is the plain sum.
    pub fn half_lives(mut self, half_lives: &[Duration]) -> Self {
        self.further.extend(half_lives.iter().map(|&length| HalfLife::from_duration(length)));
        self
    }

    /// Whether velocity, and so trending, is kept over those of 1 h, 24 h and 7 d that are
    /// declared; at least one must be. It needs twice the window of history, so not over 30 d
    /// (see [`Window::has_velocity`]).
    pub fn velocity(mut self, velocity: bool) -> Self {
        self.velocity = velocity;
        self
    }

    /// Events of a weight above 0 are engagements: the item is connected with the others that the
    /// same user engages with in the same visit, and can be found as their neighbour. For signals
    /// about items only. Events connect as they come: one that is late by more than
    /// [`trail_idle`](super::CoEngagement::trail_idle) counts, and connects nothing, so bring a log in
    /// in the order of its times; and what came before the signal was engaging is not connected.
    pub const fn engaging(mut self) -> Self {
        self.engaging = true;
        self
    }

    /// Declares the signal type.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSchema`] when the declaration is unsound in itself. It may be ignored:
    /// [`SchemaBuilder::build`] reports it again.
    pub fn add(self) -> Result<&'b mut SchemaBuilder> {
        let (schema, engaging) = (self.schema, self.engaging);
        let Self { name, kind, half_life, further, windows, velocity, .. } = self;
        match define(name, kind, half_life, further, windows, velocity, engaging) {
            Ok(signal) => {
                schema.signals.push(signal);
                Ok(schema)
            }
            Err(problem) => {
                schema.problems.push(problem.clone());
                Err(Error::InvalidSchema(problem))
            }
        }
    }
}

fn define(
    name: String,
    kind: EntityKind,
    half_life: Result<HalfLife>,
    further: Vec<Result<HalfLife>>,
    mut windows: Vec<Window>,
    velocity: bool,
    engaging: bool,
) -> std::result::Result<SignalDef, String> {
    let since = ExtendedAt::CREATION;
    let mut half_lives: Vec<HalfLife> = std::iter::once(half_life)
        .chain(further)
        .collect::<Result<_>>()
        .map_err(|error| format!("signal {name:?}: {error}"))?;
    // Further half-lives are a set: the order in which they were written down must not matter.
    half_lives[1..].sort_unstable();
    windows.retain(|&window| window != Window::AllTime);
    windows.sort_unstable();
    windows.dedup();
    let signal = SignalDef {
        name,
        kind,
        half_lives: half_lives
            .into_iter()
            .map(|half_life| HalfLifeDef { half_life, since })
            .collect(),
        windows: windows.into_iter().map(|window| WindowDef { window, since }).collect(),
        velocity: velocity.then_some(since),
        engaging: engaging.then_some(since),
    };
    signal.validate()?;
    Ok(signal)
}

#[cfg(test)]
mod tests {
    use super::super::tests::ignore;
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const HOURLY: DecaySpec = DecaySpec::Exponential { half_life: HOUR };

    /// The sentence with which `declare` makes a schema invalid.
    fn refusal(declare: impl FnOnce(&mut SchemaBuilder)) -> String {
        let mut b = SchemaBuilder::new();
        declare(&mut b);
        match b.build() {
            Err(Error::InvalidSchema(sentence)) => sentence,
            other => panic!("accepted, or refused otherwise: {other:?}"),
        }
    }

    fn signal_refusal(
        complete: impl for<'b> FnOnce(SignalBuilder<'b>) -> SignalBuilder<'b>,
    ) -> String {
        refusal(|b| {
            let added = complete(b.signal("view", EntityKind::Item, HOURLY)).add().map(|_| ());
            assert!(matches!(added, Err(Error::InvalidSchema(_))), "{added:?}");
        })
    }

    #[test]
    fn an_empty_schema_is_accepted() {
        assert!(SchemaBuilder::new().build().expect("sound").signals().is_empty());
    }

    #[test]
    fn add_returns_the_builder_so_that_declarations_chain() -> Result<()> {
        let mut b = SchemaBuilder::new();
        b.signal("b", EntityKind::User, HOURLY)
            .add()?
            .signal("a", EntityKind::Item, HOURLY)
            .add()?;
        let schema = b.build()?;
        let names: Vec<&str> = schema.signals().iter().map(SignalDef::name).collect();
        assert_eq!(names, ["a", "b"]);
        Ok(())
    }

    #[test]
    fn order_of_declaration_does_not_matter() {
        let half_lives = [HOUR * 3, HOUR * 2];
        let windows = [Window::SevenDays, Window::AllTime, Window::OneHour, Window::OneHour];
        let build = |half_lives: &[Duration], windows: &[Window]| {
            let mut b = SchemaBuilder::new();
            let _ = b
                .signal("view", EntityKind::Item, HOURLY)
                .half_lives(half_lives)
                .windows(windows)
                .add();
            b.build().expect("sound")
        };
        let one = build(&half_lives, &windows);
        let other = build(&[HOUR * 2, HOUR * 3], &[Window::OneHour, Window::SevenDays]);
        assert_eq!(one, other);
        let view = &one.signals()[0];
        assert_eq!(view.default_half_life().as_duration(), HOUR);
        assert_eq!(view.half_lives()[1].half_life.as_duration(), HOUR * 2);
        assert!(view.has_window(Window::AllTime) && view.has_window(Window::SevenDays));
        assert!(!view.has_window(Window::TwentyFourHours));
        assert_eq!(view.windows().len(), 2);
    }

    #[test]
    fn velocity_is_available_over_the_declared_windows_below_thirty_days() {
        let mut b = SchemaBuilder::new();
        let _ =
            b.signal("view", EntityKind::Item, HOURLY).windows(&Window::ALL).velocity(true).add();
        let schema = b.build().expect("sound");
        let windows: Vec<Window> =
            schema.signals()[0].velocity_windows().map(|def| def.window).collect();
        assert_eq!(windows, [Window::OneHour, Window::TwentyFourHours, Window::SevenDays]);
    }

    #[test]
    fn velocity_without_a_window_for_it_is_refused() {
        assert!(signal_refusal(|s| s.velocity(true)).contains("1h, 24h, 7d"));
        let long = [Window::ThirtyDays, Window::AllTime];
        assert!(signal_refusal(|s| s.windows(&long).velocity(true)).contains("velocity"));
    }

    #[test]
    fn half_lives_are_one_to_four_distinct_ones_in_range() {
        assert!(signal_refusal(|s| s.half_lives(&[HOUR])).contains("1h twice"));
        assert!(signal_refusal(|s| s.half_lives(&[HOUR * 2, HOUR * 2])).contains("2h twice"));
        let four = [HOUR * 2, HOUR * 3, HOUR * 4, HOUR * 5];
        assert!(signal_refusal(|s| s.half_lives(&four)).contains("5 half-lives"));
        assert!(signal_refusal(|s| s.half_lives(&[Duration::ZERO])).contains("10 seconds"));
        let sentence = refusal(|b| {
            let decay = DecaySpec::Exponential { half_life: Duration::from_secs(9) };
            let _ = b.signal("view", EntityKind::Item, decay).add();
        });
        assert!(sentence.contains("\"view\"") && sentence.contains("9s"), "{sentence}");
    }

    #[test]
    fn names_that_cannot_be_names_are_refused() {
        for bad in ["", "a\tb", &"x".repeat(257)] {
            refusal(|b| ignore(b.signal(bad, EntityKind::Item, HOURLY).add()));
            refusal(|b| ignore(b.cohort(bad, Predicate::eq("a", "b"))));
            refusal(|b| ignore(b.cohort_family(bad, 1)));
            refusal(|b| ignore(b.named_cohort(bad)));
            refusal(|b| ignore(b.cohort("c", Predicate::eq(bad, "b"))));
        }
    }

    #[test]
    fn a_signal_declared_twice_is_refused() {
        let sentence = refusal(|b| {
            let _ = b.signal("view", EntityKind::Item, HOURLY).add();
            let _ = b.signal("view", EntityKind::User, DecaySpec::None).add();
        });
        assert!(sentence.contains("\"view\" is declared twice"), "{sentence}");
    }

    #[test]
    fn cohorts_and_families_share_their_names() {
        let sentence = refusal(|b| ignore(b.cohort_family("country", 3).named_cohort("country")));
        assert!(sentence.contains("\"country\" is declared twice"), "{sentence}");
        refusal(|b| ignore(b.named_cohort("x").cohort("x", Predicate::eq("a", "b"))));
    }

    #[test]
    fn only_members_of_a_family_have_an_equals_sign() {
        for declare in [
            |b: &mut SchemaBuilder| ignore(b.named_cohort("country=FR")),
            |b: &mut SchemaBuilder| ignore(b.cohort("country=FR", Predicate::eq("a", "b"))),
            |b: &mut SchemaBuilder| ignore(b.cohort_family("a=b", 1)),
        ] {
            assert!(refusal(declare).contains("cohort_family"));
        }
    }

    #[test]
    fn a_family_allows_one_to_a_million_members() {
        refusal(|b| ignore(b.cohort_family("country", 0)));
        refusal(|b| ignore(b.cohort_family("country", 1_000_001)));
        assert!(SchemaBuilder::new().cohort_family("country", 1_000_000).build().is_ok());
    }

    #[test]
    fn unsound_predicates_are_refused_with_the_name_of_their_cohort() {
        let sentence = refusal(|b| ignore(b.cohort("teens", Predicate::range("age", 19.0..13.0))));
        assert!(sentence.contains("\"teens\"") && sentence.contains("swap"), "{sentence}");
    }

    #[test]
    fn the_number_of_declarations_is_bounded() {
        let with = |signals: usize, cohorts: usize| {
            let mut b = SchemaBuilder::new();
            for i in 0..signals {
                let _ = b.signal(format!("s{i}"), EntityKind::Item, HOURLY).add();
            }
            for i in 0..cohorts {
                b.named_cohort(format!("c{i}"));
            }
            b.build().is_ok()
        };
        assert!(with(1000, 1000));
        assert!(!with(1001, 0));
        assert!(!with(0, 1001));
    }

    #[test]
    fn a_schema_above_one_mebibyte_is_refused() {
        let sentence = refusal(|b| {
            for i in 0..5 {
                let values = (0..4096).map(|v| format!("{v:060}"));
                b.cohort(format!("c{i}"), Predicate::any_of("a", values));
            }
        });
        assert!(sentence.contains("bytes"), "{sentence}");
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let sentence = refusal(|b| {
            let _ = b.signal("", EntityKind::Item, HOURLY).add();
            let _ = b.signal("v", EntityKind::Item, HOURLY).velocity(true).add();
            b.cohort_family("f", 0).named_cohort("n").named_cohort("n");
        });
        assert_eq!(sentence.matches("; ").count(), 3, "{sentence}");
    }
}

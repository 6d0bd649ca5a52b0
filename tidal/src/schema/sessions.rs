//! Session policies: how long sessions last, what may be written in them, and which may be open at once.
//!
//! Knows: what a policy holds, which are accepted, what may change later. Must not know: sessions.

use std::time::Duration;

use super::names;
use super::signal::SignalDef;
use crate::ids::duration_nanos;

/// The policy that every schema has, declared or not, at number 0.
pub(super) const DEFAULT_NAME: &str = "default";
/// The most policies of a schema.
pub(super) const POLICIES_MAX: usize = 1_000;

const IDLE_MIN: Duration = Duration::from_secs(1);

const _: () = assert!(POLICIES_MAX <= u16::MAX as usize, "a policy has a 16-bit number");

/// How the sessions that are started under its name behave.
///
/// Every schema has the policy `"default"`, with the values below where it declares none of that name.
/// A policy is part of the schema, because a replay of the log must end the same sessions at the same
/// times under any options.
///
/// ```
/// use std::time::Duration;
/// use tidaldb::schema::{RateLimit, SchemaBuilder, SessionPolicy};
///
/// let mut chat = SessionPolicy::new("chat");
/// chat.idle_timeout = Duration::from_secs(5 * 60);
/// chat.signals = Some(Vec::new()); // annotations only
/// chat.rate_limit = Some(RateLimit { signals: 20, per: Duration::from_secs(1) });
/// let schema = SchemaBuilder::new().session_policy(chat).build()?;
///
/// let (number, chat) = schema.session_policy("chat")?;
/// assert_eq!((number, chat.max_duration), (1, Duration::from_secs(2 * 60 * 60)));
/// # Ok::<(), tidaldb::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionPolicy {
    /// The name that a start gives: 1 to 256 bytes without control characters.
    pub name: String,
    /// Without activity for longer than this a session ends: at least 1 s (30 min). Never changes.
    pub idle_timeout: Duration,
    /// Longer than this no session lasts, however active: at least `idle_timeout` (2 h). Never changes.
    pub max_duration: Duration,
    /// How long a session was that nothing tells the end of: above zero, at most `idle_timeout` (60 s).
    /// Never changes.
    pub empty_fallback: Duration,
    /// For how long a session that is over takes late signals (zero). Never changes. It begins at the
    /// deadline of a session that timed out, and when it was ended of one that someone ended.
    pub late_grace: Duration,
    /// The signals that a session may send; `None` is all of them (`None`). May be changed later.
    pub signals: Option<Vec<String>>,
    /// How many signals one agent may send for one user; `None` is any number (`None`). May be changed
    /// later.
    pub rate_limit: Option<RateLimit>,
}

impl SessionPolicy {
    /// A policy with the defaults above.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            idle_timeout: Duration::from_secs(30 * 60),
            max_duration: Duration::from_secs(2 * 60 * 60),
            empty_fallback: Duration::from_secs(60),
            late_grace: Duration::ZERO,
            signals: None,
            rate_limit: None,
        }
    }

    /// Whether a session under this policy may send the signal of this name.
    pub fn allows(&self, signal: &str) -> bool {
        let listed = |names: &Vec<String>| names.iter().any(|name| name == signal);
        self.signals.as_ref().is_none_or(listed)
    }

    /// The durations, in the order of the fields.
    fn durations(&self) -> [(&'static str, Duration); 4] {
        [
            ("idle_timeout", self.idle_timeout),
            ("max_duration", self.max_duration),
            ("empty_fallback", self.empty_fallback),
            ("late_grace", self.late_grace),
        ]
    }

    /// What is wrong with it, a sentence each.
    fn problems(&self, signals: &[SignalDef]) -> Vec<String> {
        let name = &self.name;
        let mut problems: Vec<String> =
            names::validate("session policy", name).err().into_iter().collect();
        for (field, length) in self.durations() {
            if length.is_zero() && field != "late_grace" {
                problems.push(format!("session policy {name:?} has no {field}: give it one"));
            }
            if duration_nanos(length) == u64::MAX {
                problems.push(format!(
                    "session policy {name:?} has the {field} {length:?}: give it less than 584 years"
                ));
            }
        }
        for (shorter, longer) in [(2, 0), (0, 1)] {
            let (shorter, longer) = (self.durations()[shorter], self.durations()[longer]);
            if shorter.1 > longer.1 {
                problems.push(format!(
                    "session policy {name:?} has the {} {:?}, longer than its {} {:?}: shorten the \
                     one or lengthen the other",
                    shorter.0, shorter.1, longer.0, longer.1
                ));
            }
        }
        if !self.idle_timeout.is_zero() && self.idle_timeout < IDLE_MIN {
            problems.push(format!(
                "session policy {name:?} has the idle_timeout {:?}: give it at least 1 s",
                self.idle_timeout
            ));
        }
        problems.extend(self.rate_limit.and_then(|limit| limit.problem(name)));
        let unknown = |wanted: &&String| signals.iter().all(|signal| signal.name() != *wanted);
        problems.extend(self.signals.iter().flatten().filter(unknown).map(|wanted| {
            format!("session policy {name:?} allows signal {wanted:?}, which is not declared")
        }));
        problems
    }

    /// What of `stored` may not become what it is here, a sentence each.
    fn differences(&self, stored: &Self) -> impl Iterator<Item = String> {
        let pairs = stored.durations().into_iter().zip(self.durations());
        pairs.filter(|(old, new)| old.1 != new.1).map(|((field, old), (_, new))| {
            format!(
                "session policy {:?} has the {field} {old:?} stored but {new:?} given: it never \
                 changes, declare another policy",
                self.name
            )
        })
    }
}

/// At most so many signals in a time, of one agent for one user under one policy: as many at once, and
/// from then on evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// How many signals; at least 1.
    pub signals: u32,
    /// In which time; above zero, and at least 1 ns for each signal.
    pub per: Duration,
}

impl RateLimit {
    fn problem(self, policy: &str) -> Option<String> {
        let Self { signals, per } = self;
        let per_ns = duration_nanos(per);
        let is_sound = signals > 0 && per_ns >= u64::from(signals) && per_ns < u64::MAX;
        (!is_sound).then(|| {
            format!(
                "session policy {policy:?} has a rate limit of {signals} signals in {per:?}: give it \
                 at least one, in at least 1 ns each and less than 584 years"
            )
        })
    }
}

/// Which sessions exclude each other: of those in one lane at most one is open. Never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Lane {
    /// One session of a user.
    User,
    /// One session of a user for each agent.
    #[default]
    UserAgent,
    /// Any number of sessions.
    Overlapping,
}

/// All that a schema says of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SessionRules {
    /// A policy stands at its number; the first is the default one.
    pub(super) policies: Vec<SessionPolicy>,
    pub(super) lane: Lane,
}

/// What of it is its own. The rest is implied, and taken from the stored schema where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) lane: bool,
    pub(super) default_policy: bool,
    pub(super) other_policies: bool,
}

impl Declared {
    pub(super) const ALL: Self = Self { lane: true, default_policy: true, other_policies: true };
}

impl Default for SessionRules {
    fn default() -> Self {
        Self { policies: vec![SessionPolicy::new(DEFAULT_NAME)], lane: Lane::default() }
    }
}

impl SessionRules {
    /// The rules of these declarations: the default policy first, the others by name. A name that is
    /// there twice stays twice, for [`problems`](Self::problems) to find.
    pub(super) fn of(policies: &[SessionPolicy], lane: Option<Lane>) -> (Self, Declared) {
        let mut policies = policies.to_vec();
        let is_default = |policy: &SessionPolicy| policy.name == DEFAULT_NAME;
        let declared = Declared {
            lane: lane.is_some(),
            default_policy: policies.iter().any(is_default),
            other_policies: !policies.iter().all(is_default),
        };
        if !declared.default_policy {
            policies.push(SessionPolicy::new(DEFAULT_NAME));
        }
        policies.sort_by(|left, right| {
            is_default(right).cmp(&is_default(left)).then_with(|| left.name.cmp(&right.name))
        });
        for names in policies.iter_mut().filter_map(|policy| policy.signals.as_mut()) {
            // They are a set: the order in which they were written down must not matter.
            names.sort_unstable();
            names.dedup();
        }
        (Self { policies, lane: lane.unwrap_or_default() }, declared)
    }

    /// What is wrong with them, a sentence each.
    pub(super) fn problems(&self, signals: &[SignalDef]) -> Vec<String> {
        let mut problems = Vec::new();
        if self.policies.len() > POLICIES_MAX {
            problems.push(format!(
                "{} session policies are declared, at most {POLICIES_MAX} are allowed",
                self.policies.len()
            ));
        }
        if self.policies.first().is_none_or(|policy| policy.name != DEFAULT_NAME) {
            problems.push("the default session policy is not the first".to_owned());
        }
        problems.extend(self.policies.iter().flat_map(|policy| policy.problems(signals)));
        let mut sorted: Vec<&str> = self.policies.iter().map(|policy| &*policy.name).collect();
        sorted.sort_unstable();
        problems.extend(super::twice("session policy", &sorted));
        problems
    }

    /// These given rules, with those of the stored ones that they leave out.
    pub(super) fn over(&self, declared: Declared, stored: &Self) -> Self {
        let lane = if declared.lane { self.lane } else { stored.lane };
        let mut policies = match declared.default_policy || declared.other_policies {
            true => self.policies.clone(),
            false => stored.policies.clone(),
        };
        if !declared.default_policy {
            policies[0].clone_from(&stored.policies[0]);
        }
        Self { policies, lane }
    }

    /// These stored rules with all that `given` adds: further policies follow, by name.
    pub(super) fn extended(&self, given: &Self, differences: &mut Vec<String>) -> Self {
        let find = |rules: &'_ Self, name: &str| {
            rules.policies.iter().position(|policy| policy.name == name)
        };
        if self.lane != given.lane {
            differences.push(format!(
                "sessions have the lane {:?} stored but {:?} given: it never changes",
                self.lane, given.lane
            ));
        }
        let mut policies = Vec::with_capacity(given.policies.len());
        for stored in &self.policies {
            match find(given, &stored.name).map(|at| &given.policies[at]) {
                Some(given) => {
                    differences.extend(given.differences(stored));
                    policies.push(given.clone());
                }
                None => differences.push(format!(
                    "session policy {:?} is stored but not given: declare it, policies are never \
                     removed",
                    stored.name
                )),
            }
        }
        let mut new: Vec<&SessionPolicy> =
            given.policies.iter().filter(|policy| find(self, &policy.name).is_none()).collect();
        new.sort_by(|left, right| left.name.cmp(&right.name));
        policies.extend(new.into_iter().cloned());
        Self { policies, lane: self.lane }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ignore;
    use super::super::{DecaySpec, EntityKind, ExtendedAt, Schema, SchemaBuilder};
    use super::*;
    use crate::error::{Error, Result};
    use crate::ids::Timestamp;
    use crate::seq::Seq;

    const MINUTE: Duration = Duration::from_secs(60);
    const LATER: ExtendedAt = ExtendedAt { seq: Seq::new(7), time: Timestamp::from_secs(1) };

    fn try_schema(declare: impl FnOnce(&mut SchemaBuilder)) -> Result<Schema> {
        let mut b = SchemaBuilder::new();
        for name in ["like", "view"] {
            let _ = b.signal(name, EntityKind::Item, DecaySpec::None).add();
        }
        declare(&mut b);
        b.build()
    }

    fn schema(declare: impl FnOnce(&mut SchemaBuilder)) -> Schema {
        try_schema(declare).expect("sound")
    }

    fn policy(name: &str, change: impl FnOnce(&mut SessionPolicy)) -> SessionPolicy {
        let mut policy = SessionPolicy::new(name);
        change(&mut policy);
        policy
    }

    fn names(schema: &Schema) -> Vec<&str> {
        schema.session_policies().iter().map(|policy| &*policy.name).collect()
    }

    #[test]
    fn the_default_policy_is_number_zero_and_the_others_follow_by_name() {
        let plain = schema(|_| ());
        assert_eq!(plain.session_policies(), [SessionPolicy::new("default")]);
        assert_eq!(plain.session_lane(), Lane::UserAgent);
        let named = schema(|b| {
            for name in ["zeal", "chat", "default"] {
                b.session_policy(policy(name, |of| of.late_grace = MINUTE));
            }
            b.session_lane(Lane::Overlapping);
        });
        assert_eq!(names(&named), ["default", "chat", "zeal"]);
        assert!(named.session_policies().iter().all(|policy| policy.late_grace == MINUTE));
        assert_eq!(named.session_lane(), Lane::Overlapping);
        for (number, policy) in (0u16..).zip(named.session_policies()) {
            assert_eq!(named.session_policy(&policy.name).expect("declared"), (number, policy));
            assert_eq!(named.session_policy_at(number), Some(policy));
        }
        assert_eq!(named.session_policy_at(3), None);
        let refused = named.session_policy("chta").expect_err("not declared").to_string();
        assert!(refused.contains("session policy") && refused.contains("mean chat?"), "{refused}");
    }

    #[test]
    fn a_policy_allows_the_signals_that_it_lists_or_all() {
        let all = SessionPolicy::new("all");
        let none = policy("none", |of| of.signals = Some(Vec::new()));
        let one = policy("one", |of| of.signals = Some(vec!["view".to_owned()]));
        let allowed = |policy: &SessionPolicy| [policy.allows("like"), policy.allows("view")];
        assert_eq!([&all, &none, &one].map(allowed), [[true; 2], [false; 2], [false, true]]);
    }

    #[test]
    fn the_order_in_which_signals_are_listed_does_not_matter() {
        let listed = |signals: &[&str]| {
            let signals = signals.iter().map(|&name| name.to_owned()).collect();
            schema(|b| ignore(b.session_policy(policy("p", |of| of.signals = Some(signals)))))
        };
        assert_eq!(listed(&["view", "like", "view"]), listed(&["like", "view"]));
    }

    #[test]
    fn an_unsound_policy_is_refused_with_every_mistake_named() {
        let refusal = |change: &dyn Fn(&mut SessionPolicy)| match try_schema(|b| {
            ignore(b.session_policy(policy("p", change)))
        }) {
            Err(Error::InvalidSchema(sentence)) => sentence,
            other => panic!("accepted, or refused otherwise: {other:?}"),
        };
        let says = |change: &dyn Fn(&mut SessionPolicy), words: &[&str]| {
            let sentence = refusal(change);
            assert_eq!(sentence.matches("; ").count() + 1, words.len(), "{sentence}");
            for word in words {
                assert!(sentence.contains(word), "{word:?} is not in: {sentence}");
            }
        };
        says(&|of| of.name = String::new(), &["without a name"]);
        says(&|of| of.empty_fallback = Duration::ZERO, &["no empty_fallback"]);
        says(
            &|of| of.idle_timeout = Duration::ZERO,
            &["no idle_timeout", "empty_fallback 60s, longer than its idle_timeout 0ns"],
        );
        says(
            &|of| (of.idle_timeout, of.empty_fallback) = (MINUTE / 61, MINUTE / 61),
            &["at least 1 s"],
        );
        says(&|of| of.max_duration = MINUTE, &["idle_timeout 1800s, longer than its max_duration"]);
        says(&|of| of.max_duration = Duration::MAX, &["max_duration"]);
        says(&|of| of.late_grace = Duration::MAX, &["late_grace"]);
        says(
            &|of| of.signals = Some(vec!["veiw".to_owned()]),
            &["\"veiw\", which is not declared"],
        );
        for (signals, per) in [
            (0, MINUTE),
            (1, Duration::ZERO),
            (1_000, Duration::from_nanos(999)),
            (1, Duration::MAX),
        ] {
            let limit = RateLimit { signals, per };
            says(&|of| of.rate_limit = Some(limit), &["rate limit"]);
        }
        let sound = RateLimit { signals: 1_000, per: Duration::from_nanos(1_000) };
        ignore(schema(|b| ignore(b.session_policy(policy("p", |of| of.rate_limit = Some(sound))))));
    }

    #[test]
    fn policies_are_a_thousand_of_different_names() {
        let declared = |names: &[String]| {
            let policies = names.iter().map(|name| SessionPolicy::new(name.as_str()));
            try_schema(|b| policies.for_each(|policy| ignore(b.session_policy(policy))))
        };
        let many: Vec<String> = (0..1_000).map(|number| format!("p{number}")).collect();
        assert_eq!(declared(&many[1..]).expect("sound").session_policies().len(), 1_000);
        let refused = declared(&many).expect_err("one too many").to_string();
        assert!(refused.contains("1001 session policies"), "{refused}");
        for twice in ["p1", "default"] {
            let refused = declared(&[twice.to_owned(), twice.to_owned()]).expect_err("twice");
            assert!(refused.to_string().contains("is declared twice"), "{refused}");
        }
    }

    #[test]
    fn policies_are_added_behind_the_stored_ones_and_may_allow_otherwise() {
        let stored = schema(|b| ignore(b.session_policy(SessionPolicy::new("m"))));
        let given = schema(|b| {
            b.session_policy(policy("m", |of| of.signals = Some(vec!["view".to_owned()])));
            b.session_policy(SessionPolicy::new("z")).session_policy(SessionPolicy::new("a"));
            b.session_policy(policy("default", |of| {
                of.rate_limit = Some(RateLimit { signals: 1, per: MINUTE });
            }));
        });
        let grown = stored.extend(&given, LATER).expect("it only adds").expect("something");
        assert_eq!(names(&grown), ["default", "m", "a", "z"]);
        assert!(!grown.session_policies()[1].allows("like"));
        assert!(grown.session_policies()[0].rate_limit.is_some());
        assert_eq!(grown.extend(&given, LATER).expect("alike"), None);
        assert_eq!(Schema::from_bytes(&grown.to_bytes()), Ok(grown));
    }

    #[test]
    fn durations_lanes_and_stored_policies_stay() {
        let mismatch = |stored: &dyn Fn(&mut SchemaBuilder), given: &dyn Fn(&mut SchemaBuilder)| {
            let stored = schema(stored);
            match stored.extend(&schema(given).over(&stored), LATER) {
                Err(Error::SchemaMismatch(differences)) => differences.join("; "),
                other => panic!("accepted, or refused otherwise: {other:?}"),
            }
        };
        type Change = (&'static str, fn(&mut SessionPolicy));
        let changes: [Change; 4] = [
            ("idle_timeout 1800s stored but 60s", |of| of.idle_timeout = MINUTE),
            ("max_duration 7200s stored but 1860s", |of| of.max_duration = MINUTE * 31),
            ("empty_fallback 60s stored but 30s", |of| of.empty_fallback = MINUTE / 2),
            ("late_grace 0ns stored but 60s", |of| of.late_grace = MINUTE),
        ];
        for (says, change) in changes {
            // The default policy is stored from the first on, declared or not.
            let declare =
                |b: &mut SchemaBuilder| ignore(b.session_policy(policy("default", change)));
            let sentence = mismatch(&|_| (), &declare);
            assert!(sentence.contains(says) && !sentence.contains("; "), "{sentence}");
        }
        let lane = mismatch(&|_| (), &|b| ignore(b.session_lane(Lane::User)));
        assert!(lane.contains("lane UserAgent stored but User given"), "{lane}");
        let declare = |names: &'static [&'static str]| {
            move |b: &mut SchemaBuilder| {
                names.iter().for_each(|&name| ignore(b.session_policy(SessionPolicy::new(name))));
            }
        };
        for given in [&["b"], &["default"]] {
            let missing = mismatch(&declare(&["a"]), &declare(given));
            assert!(missing.contains("\"a\" is stored but not given"), "{missing}");
        }
    }

    #[test]
    fn what_is_not_declared_is_kept_as_it_is_stored() {
        let slow = policy("default", |of| of.max_duration = MINUTE * 600);
        let stored = schema(|b| {
            b.session_policy(slow.clone()).session_policy(SessionPolicy::new("chat"));
            b.session_lane(Lane::User);
        });
        let kept = |given: Schema| stored.extend(&given.over(&stored), LATER).expect("it is sound");
        assert_eq!(kept(schema(|_| ())), None);
        assert_eq!(kept(schema(|b| ignore(b.session_lane(Lane::User)))), None);
        assert_eq!(kept(schema(|b| ignore(b.session_policy(SessionPolicy::new("chat"))))), None);
        let more = kept(schema(|b| {
            b.session_policy(SessionPolicy::new("chat")).session_policy(SessionPolicy::new("b"));
        }));
        let more = more.expect("a policy more");
        assert_eq!((names(&more), more.session_lane()), (vec!["default", "chat", "b"], Lane::User));
        assert_eq!(more.session_policies()[0], slow);
    }

    #[test]
    fn a_kept_policy_of_a_signal_that_is_not_given_is_a_mismatch() {
        let stored = schema(|b| {
            b.session_policy(policy("p", |of| of.signals = Some(vec!["view".to_owned()])));
        });
        let mut b = SchemaBuilder::new();
        let _ = b.signal("like", EntityKind::Item, DecaySpec::None).add();
        let given = b.build().expect("sound").over(&stored);
        let Err(Error::SchemaMismatch(differences)) = stored.extend(&given, LATER) else {
            panic!("a stored signal must be given");
        };
        assert_eq!(differences.len(), 1, "{differences:?}");
    }
}

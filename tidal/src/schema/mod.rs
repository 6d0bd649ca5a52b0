//! The schema: which signals there are, what is kept of each, which cohorts, and which rules sessions
//! have.
//!
//! Knows: declarations, what makes them sound, what may be added to them later, and how they are
//! stored. Must not know: counts, scores, members, users.
//!
//! A schema is never changed in place. `Schema::extend` makes a new one that has everything of
//! the old one at the old places: numbers of signals and positions of half-lives are forever.
//!
//! On disk (`v1`, `v2`, `v3`): version u16, then bincode.

mod builder;
mod co_engagement;
mod cohort;
mod decay;
mod extend;
mod names;
mod predicate;
mod sessions;
mod signal;
mod v1;
mod v2;
mod v3;
mod window;

pub use builder::{SchemaBuilder, SignalBuilder};
pub use co_engagement::CoEngagement;
pub use cohort::{CohortDef, CohortKind, CohortRule};
pub use decay::{DecaySpec, HalfLife};
pub use predicate::Predicate;
pub use sessions::{Lane, RateLimit, SessionPolicy};
pub use signal::{EntityKind, ExtendedAt, HalfLifeDef, SignalDef, WindowDef};
pub use window::Window;

pub use crate::ids::{EntityId, Timestamp};

use std::fmt;
use std::sync::Arc;

use crate::codec::{DecodeError, Put, Reader};
use crate::error::{Error, Result};
use crate::ids::SignalTypeId;
use names::NameIndex;
use sessions::{Declared, SessionRules};

const SIGNALS_MAX: usize = 1000;
const COHORTS_MAX: usize = 1000;
const BYTES_MAX: usize = 1 << 20;

const _: () = assert!(SIGNALS_MAX <= u16::MAX as usize, "a signal type has a 16-bit number");

/// The declared signal types and cohorts of a database; made by [`SchemaBuilder`].
///
/// Cloning is cheap: clones share one schema. Two schemas are equal when they declare the same at
/// the same numbers since the same positions of the log.
#[derive(Clone)]
pub struct Schema(Arc<Declarations>);

struct Declarations {
    parts: Parts,
    own: Own,
    signal_index: NameIndex,
    cohort_index: NameIndex,
    policy_index: NameIndex,
}

/// What a schema is made of.
#[derive(Clone, PartialEq)]
struct Parts {
    /// A signal stands at its number.
    signals: Vec<SignalDef>,
    /// Sorted by name.
    cohorts: Vec<CohortDef>,
    /// There exactly when some signal is engaging.
    co_engagement: Option<CoEngagement>,
    sessions: SessionRules,
}

/// What of a schema is its own, and what a default. It is not stored: all of a stored schema is its own.
#[derive(Clone, Copy)]
struct Own {
    co_engagement: bool,
    sessions: Declared,
}

impl Schema {
    /// Every signal type, at the position of its number.
    pub fn signals(&self) -> &[SignalDef] {
        &self.0.parts.signals
    }

    /// The signal type with this number.
    pub fn signal(&self, id: SignalTypeId) -> Option<&SignalDef> {
        self.0.parts.signals.get(usize::from(id.get()))
    }

    /// The number of the signal type of this name.
    pub fn signal_type(&self, name: &str) -> Option<SignalTypeId> {
        let signals = &self.0.parts.signals;
        let position = self.0.signal_index.find(name, |at| &signals[at].name)?;
        Some(SignalTypeId::new(position as u16))
    }

    /// The number of the signal type of this name.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`], with the names that look alike, when there is none.
    pub fn resolve(&self, name: &str) -> Result<SignalTypeId> {
        self.signal_type(name).ok_or_else(|| {
            Error::unknown("signal", name, self.0.parts.signals.iter().map(SignalDef::name))
        })
    }

    /// Every declaration of a cohort or a family, sorted by name.
    pub fn cohorts(&self) -> &[CohortDef] {
        &self.0.parts.cohorts
    }

    /// The declaration of this name; a family has the name of its attribute.
    pub fn cohort(&self, name: &str) -> Option<&CohortDef> {
        let cohorts = &self.0.parts.cohorts;
        self.0.cohort_index.find(name, |at| &cohorts[at].name).map(|at| &cohorts[at])
    }

    /// What a cohort name stands for; `None` when no such cohort is declared or can become a member
    /// of a declared family.
    pub fn cohort_kind(&self, name: &str) -> Option<CohortKind<'_>> {
        if let Some((family, value)) = name.split_once(cohort::MEMBER_SEPARATOR) {
            let family = self.cohort(family).filter(|def| def.max_members().is_some())?;
            return names::is_valid(value).then_some(CohortKind::FamilyMember(family));
        }
        match self.cohort(name)?.rule {
            CohortRule::Predicate(_) => Some(CohortKind::Single),
            CohortRule::Named => Some(CohortKind::Named),
            CohortRule::Family { .. } => None,
        }
    }

    /// What a cohort name stands for.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidArgument`] when it names a family but no possible member of it.
    /// - [`Error::UnknownName`], with the names that look alike, when nothing is called so.
    pub fn resolve_cohort(&self, name: &str) -> Result<CohortKind<'_>> {
        if let Some(kind) = self.cohort_kind(name) {
            return Ok(kind);
        }
        let (family, value) = name.split_once(cohort::MEMBER_SEPARATOR).unwrap_or((name, ""));
        if self.cohort(family).is_some_and(|def| def.max_members().is_some()) {
            let reason = format!(
                "{name:?} names the family {family:?} but no member: write {family}=VALUE with a \
                 value of 1 to {} bytes and no control characters",
                names::BYTES_MAX
            );
            return Err(Error::invalid("cohort", reason));
        }
        let known: Vec<String> = self
            .0
            .parts
            .cohorts
            .iter()
            .map(|def| match def.rule {
                CohortRule::Family { .. } => cohort::member_name(&def.name, value),
                CohortRule::Predicate(_) | CohortRule::Named => def.name.clone(),
            })
            .collect();
        Err(Error::unknown("cohort", name, known.iter().map(String::as_str)))
    }

    /// The names of the cohorts that a user with these attributes belongs to: single ones whose
    /// predicate holds, and `attribute=value` for each family whose attribute the user has. They
    /// are in the order of the names of their declarations.
    pub fn cohorts_of<'a>(&self, attribute: impl Fn(&str) -> Option<&'a str>) -> Vec<String> {
        self.0.parts.cohorts.iter().filter_map(|def| def.cohort_of(&attribute)).collect()
    }

    /// How co-engagement is kept; `None` when no signal is engaging.
    pub fn co_engagement(&self) -> Option<&CoEngagement> {
        self.0.parts.co_engagement.as_ref()
    }

    /// Every session policy, at the position of its number; the one called `"default"` is the first.
    pub fn session_policies(&self) -> &[SessionPolicy] {
        &self.0.parts.sessions.policies
    }

    /// The session policy of this name, and its number.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`], with the names that look alike, when there is none.
    pub fn session_policy(&self, name: &str) -> Result<(u16, &SessionPolicy)> {
        let policies = self.session_policies();
        match self.0.policy_index.find(name, |at| &policies[at].name) {
            Some(at) => Ok((at as u16, &policies[at])),
            None => {
                let known = policies.iter().map(|policy| &*policy.name);
                Err(Error::unknown("session policy", name, known))
            }
        }
    }

    /// The session policy with this number.
    pub fn session_policy_at(&self, number: u16) -> Option<&SessionPolicy> {
        self.session_policies().get(usize::from(number))
    }

    /// Which sessions exclude each other.
    pub fn session_lane(&self) -> Lane {
        self.0.parts.sessions.lane
    }

    /// The schema as bytes; equal schemas have equal bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        encode(&self.0.parts).expect("the size was checked when it was made")
    }

    /// The schema that [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the bytes are none, of a later version, or of an unsound schema.
    pub(crate) fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, DecodeError> {
        if bytes.len() > BYTES_MAX {
            return Err(DecodeError::Malformed("larger than any schema"));
        }
        let mut reader = Reader::new(bytes);
        let version = reader.u16()?;
        let body = reader.take(reader.remaining())?;
        let parts = match version {
            v3::VERSION => {
                let (version, earlier, rules) = v3::decode(body)?;
                let parts = decode_earlier(version, &earlier)?;
                Parts { sessions: rules.with(&parts.signals)?, ..parts }
            }
            found if found > v3::VERSION => {
                return Err(DecodeError::FormatTooNew { found, max: v3::VERSION });
            }
            earlier => decode_earlier(earlier, body)?,
        };
        Self::from_parts(parts, Own::ALL)
            .map_err(|_| DecodeError::Malformed("a schema that contradicts itself"))
    }

    /// The one way to make a schema that is to be used.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, a sentence each.
    fn from_parts(mut parts: Parts, own: Own) -> std::result::Result<Self, Vec<String>> {
        parts.complete();
        match parts.problems() {
            problems if problems.is_empty() => Ok(Self::unchecked(parts, own)),
            problems => Err(problems),
        }
    }

    fn unchecked(parts: Parts, own: Own) -> Self {
        let signal_index = NameIndex::new(parts.signals.iter().map(SignalDef::name));
        let cohort_index = NameIndex::new(parts.cohorts.iter().map(CohortDef::name));
        let policy_names = parts.sessions.policies.iter().map(|policy| &*policy.name);
        let policy_index = NameIndex::new(policy_names);
        Self(Arc::new(Declarations { parts, own, signal_index, cohort_index, policy_index }))
    }
}

impl Own {
    const ALL: Self = Self { co_engagement: true, sessions: Declared::ALL };
}

impl Parts {
    /// Sets co-engagement up where it is needed and not declared.
    fn complete(&mut self) {
        if self.co_engagement.is_none() && self.is_engaging() {
            self.co_engagement = Some(CoEngagement::default());
        }
    }

    fn is_engaging(&self) -> bool {
        self.signals.iter().any(|signal| signal.engaging.is_some())
    }

    /// What is wrong with them, a sentence each.
    fn problems(&self) -> Vec<String> {
        let Self { signals, cohorts, co_engagement, sessions } = self;
        let mut problems = Vec::new();
        for (what, count, limit) in [
            ("signals", signals.len(), SIGNALS_MAX),
            ("cohorts and families", cohorts.len(), COHORTS_MAX),
        ] {
            if count > limit {
                problems.push(format!("{count} {what} are declared, at most {limit} are allowed"));
            }
        }
        problems.extend(signals.iter().filter_map(|signal| signal.validate().err()));
        problems.extend(cohorts.iter().filter_map(|cohort| cohort.validate().err()));
        if let Some(settings) = co_engagement {
            problems.extend(settings.problems());
            if !self.is_engaging() {
                problems.push(
                    "co-engagement is set up but no signal is engaging: declare engaging() for \
                     those that connect items"
                        .to_owned(),
                );
            }
        }
        let mut signal_names: Vec<&str> = signals.iter().map(SignalDef::name).collect();
        signal_names.sort_unstable();
        problems.extend(twice("signal", &signal_names));
        let cohort_names: Vec<&str> = cohorts.iter().map(CohortDef::name).collect();
        if cohort_names.is_sorted() {
            problems.extend(twice("cohort", &cohort_names));
        } else {
            problems.push("the cohorts are out of order".to_owned());
        }
        problems.extend(sessions.problems(signals));
        if problems.is_empty() {
            problems.extend(encode(self).err());
        }
        problems
    }
}

/// The parts of a schema of a version before the one that knows of sessions.
fn decode_earlier(version: u16, body: &[u8]) -> std::result::Result<Parts, DecodeError> {
    let (signals, cohorts, co_engagement) = match version {
        v1::VERSION => v1::decode(body).map(|(signals, cohorts)| (signals, cohorts, None))?,
        v2::VERSION => v2::decode(body).map(|(s, c, settings)| (s, c, Some(settings)))?,
        _ => return Err(DecodeError::Malformed("a schema of no version that was")),
    };
    Ok(Parts { signals, cohorts, co_engagement, sessions: SessionRules::default() })
}

/// The bytes of a schema of these parts, unless it is too large.
fn encode(parts: &Parts) -> std::result::Result<Vec<u8>, String> {
    let Parts { signals, cohorts, co_engagement, sessions } = parts;
    let earlier = match co_engagement {
        None => v1::encode(signals, cohorts).map(|body| (v1::VERSION, body)),
        Some(settings) => v2::encode(signals, cohorts, settings).map(|body| (v2::VERSION, body)),
    };
    let latest = earlier.and_then(|earlier| match *sessions == SessionRules::default() {
        true => Ok(earlier),
        false => v3::encode(earlier, signals, sessions).map(|body| (v3::VERSION, body)),
    });
    let (version, body) = latest.map_err(|error| error.to_string())?;
    let mut bytes = Vec::with_capacity(2 + body.len());
    bytes.put_u16(version);
    bytes.extend_from_slice(&body);
    if bytes.len() > BYTES_MAX {
        return Err(format!(
            "the schema takes {} bytes, at most {BYTES_MAX} are allowed: use fewer cohorts, fewer \
             values in their predicates, or fewer session policies",
            bytes.len()
        ));
    }
    Ok(bytes)
}

/// A sentence for each name that is the same as the one before it.
fn twice(what: &str, sorted: &[&str]) -> Vec<String> {
    sorted
        .windows(2)
        .filter(|pair| pair[0] == pair[1])
        .map(|pair| format!("{what} {:?} is declared twice: remove or rename one", pair[0]))
        .collect()
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.parts == other.0.parts
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema")
            .field("signals", &self.0.parts.signals)
            .field("cohorts", &self.0.parts.cohorts)
            .field("co_engagement", &self.0.parts.co_engagement)
            .field("sessions", &self.0.parts.sessions)
            .finish()
    }
}

#[cfg(test)]
mod tests;

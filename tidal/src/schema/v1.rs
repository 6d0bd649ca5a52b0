//! Version 1 of a stored schema. It is never changed: a later layout is another module.
//!
//! Knows: the layout. Must not know: what makes a schema sound; whoever decodes must ask.
//!
//! These types are what lies on disk and nothing else, so that a change of the live ones cannot
//! change the format. Integers are little-endian and of fixed width, lengths are u64. The tag of an
//! enum is a u32, the place of the variant counted from 0: bincode's derive ignores discriminants,
//! so the order below is the format, and a test pins each tag. A predicate is its list of steps in
//! postfix order, so decoding does not recurse.

use std::ops::Bound;

use super::cohort::{CohortDef, CohortRule};
use super::decay::HalfLife;
use super::predicate::{Op, Predicate};
use super::signal::{EntityKind, ExtendedAt, HalfLifeDef, SignalDef, WindowDef};
use super::window::Window;
use crate::codec::{self, Decode, DecodeError, Encode};
use crate::ids::Timestamp;
use crate::seq::Seq;

pub(super) const VERSION: u16 = 1;

#[derive(Encode, Decode)]
struct SchemaV1 {
    signals: Vec<SignalV1>,
    cohorts: Vec<CohortV1>,
}

#[derive(Encode, Decode)]
struct SignalV1 {
    name: String,
    kind: KindV1,
    half_lives: Vec<HalfLifeV1>,
    windows: Vec<WindowDefV1>,
    velocity: Option<AtV1>,
}

#[derive(Encode, Decode)]
struct AtV1 {
    seq: u64,
    time_ns: u64,
}

#[derive(Encode, Decode)]
struct HalfLifeV1 {
    /// 0 is infinite.
    length_ns: u64,
    since: AtV1,
}

#[derive(Encode, Decode)]
struct WindowDefV1 {
    window: WindowV1,
    since: AtV1,
}

#[derive(Encode, Decode)]
enum KindV1 {
    Item,
    User,
    Creator,
}

#[derive(Encode, Decode)]
enum WindowV1 {
    OneHour,
    TwentyFourHours,
    SevenDays,
    ThirtyDays,
}

#[derive(Encode, Decode)]
struct CohortV1 {
    name: String,
    rule: RuleV1,
    since: AtV1,
}

#[derive(Encode, Decode)]
enum RuleV1 {
    Predicate(Vec<OpV1>),
    Family { max_members: u32 },
    Named,
}

#[derive(Encode, Decode)]
enum OpV1 {
    AnyOf { attribute: String, values: Vec<String> },
    Range { attribute: String, lower: BoundV1, upper: BoundV1 },
    And,
    Or,
    Not,
}

/// Numbers are IEEE 754 bits.
#[derive(Encode, Decode)]
enum BoundV1 {
    Unbounded,
    Included(u64),
    Excluded(u64),
}

/// The bytes of these declarations.
pub(super) fn encode(signals: &[SignalDef], cohorts: &[CohortDef]) -> Result<Vec<u8>, DecodeError> {
    codec::to_bytes(&SchemaV1 {
        signals: signals.iter().map(SignalV1::from).collect(),
        cohorts: cohorts.iter().map(CohortV1::from).collect(),
    })
}

/// The declarations in `bytes`; each is well formed, but nothing is known of them together.
pub(super) fn decode(bytes: &[u8]) -> Result<(Vec<SignalDef>, Vec<CohortDef>), DecodeError> {
    let schema: SchemaV1 = codec::from_bytes(bytes)?;
    let signals = schema.signals.into_iter().map(SignalDef::try_from).collect::<Result<_, _>>()?;
    let cohorts = schema.cohorts.into_iter().map(CohortDef::try_from).collect::<Result<_, _>>()?;
    Ok((signals, cohorts))
}

impl From<&SignalDef> for SignalV1 {
    fn from(signal: &SignalDef) -> Self {
        let half_life = |def: &HalfLifeDef| HalfLifeV1 {
            length_ns: def.half_life.as_nanos().unwrap_or(0),
            since: def.since.into(),
        };
        let window = |def: &WindowDef| {
            let window = match def.window {
                Window::OneHour => WindowV1::OneHour,
                Window::TwentyFourHours => WindowV1::TwentyFourHours,
                Window::SevenDays => WindowV1::SevenDays,
                Window::ThirtyDays => WindowV1::ThirtyDays,
                Window::AllTime => unreachable!("a signal does not list all time"),
            };
            WindowDefV1 { window, since: def.since.into() }
        };
        Self {
            name: signal.name.clone(),
            kind: match signal.kind {
                EntityKind::Item => KindV1::Item,
                EntityKind::User => KindV1::User,
                EntityKind::Creator => KindV1::Creator,
            },
            half_lives: signal.half_lives.iter().map(half_life).collect(),
            windows: signal.windows.iter().map(window).collect(),
            velocity: signal.velocity.map(AtV1::from),
        }
    }
}

impl TryFrom<SignalV1> for SignalDef {
    type Error = DecodeError;

    fn try_from(signal: SignalV1) -> Result<Self, DecodeError> {
        let half_life = |def: HalfLifeV1| {
            let half_life = match def.length_ns {
                0 => HalfLife::INFINITE,
                nanos => HalfLife::from_nanos(nanos)
                    .ok_or(DecodeError::Malformed("a half-life out of range"))?,
            };
            Ok(HalfLifeDef { half_life, since: def.since.into() })
        };
        let window = |def: WindowDefV1| WindowDef {
            window: match def.window {
                WindowV1::OneHour => Window::OneHour,
                WindowV1::TwentyFourHours => Window::TwentyFourHours,
                WindowV1::SevenDays => Window::SevenDays,
                WindowV1::ThirtyDays => Window::ThirtyDays,
            },
            since: def.since.into(),
        };
        Ok(Self {
            name: signal.name,
            kind: match signal.kind {
                KindV1::Item => EntityKind::Item,
                KindV1::User => EntityKind::User,
                KindV1::Creator => EntityKind::Creator,
            },
            half_lives: signal.half_lives.into_iter().map(half_life).collect::<Result<_, _>>()?,
            windows: signal.windows.into_iter().map(window).collect(),
            velocity: signal.velocity.map(ExtendedAt::from),
            engaging: None,
        })
    }
}

impl From<&CohortDef> for CohortV1 {
    fn from(cohort: &CohortDef) -> Self {
        let rule = match &cohort.rule {
            CohortRule::Predicate(predicate) => {
                RuleV1::Predicate(predicate.ops().iter().map(OpV1::from).collect())
            }
            CohortRule::Family { max_members } => RuleV1::Family { max_members: *max_members },
            CohortRule::Named => RuleV1::Named,
        };
        Self { name: cohort.name.clone(), rule, since: cohort.since.into() }
    }
}

impl TryFrom<CohortV1> for CohortDef {
    type Error = DecodeError;

    fn try_from(cohort: CohortV1) -> Result<Self, DecodeError> {
        let rule = match cohort.rule {
            RuleV1::Predicate(ops) => {
                let ops = ops.into_iter().map(Op::from).collect();
                let predicate = Predicate::from_ops(ops)
                    .map_err(|_| DecodeError::Malformed("a predicate that is none"))?;
                CohortRule::Predicate(predicate)
            }
            RuleV1::Family { max_members } => CohortRule::Family { max_members },
            RuleV1::Named => CohortRule::Named,
        };
        Ok(Self { name: cohort.name, rule, since: cohort.since.into() })
    }
}

impl From<&Op> for OpV1 {
    fn from(op: &Op) -> Self {
        match op {
            Op::AnyOf { attribute, values } => {
                Self::AnyOf { attribute: attribute.clone(), values: values.clone() }
            }
            Op::Range { attribute, lower, upper } => Self::Range {
                attribute: attribute.clone(),
                lower: (*lower).into(),
                upper: (*upper).into(),
            },
            Op::And => Self::And,
            Op::Or => Self::Or,
            Op::Not => Self::Not,
        }
    }
}

impl From<OpV1> for Op {
    fn from(op: OpV1) -> Self {
        match op {
            OpV1::AnyOf { attribute, values } => Self::AnyOf { attribute, values },
            OpV1::Range { attribute, lower, upper } => {
                Self::Range { attribute, lower: lower.into(), upper: upper.into() }
            }
            OpV1::And => Self::And,
            OpV1::Or => Self::Or,
            OpV1::Not => Self::Not,
        }
    }
}

impl From<Bound<f64>> for BoundV1 {
    fn from(bound: Bound<f64>) -> Self {
        match bound {
            Bound::Unbounded => Self::Unbounded,
            Bound::Included(number) => Self::Included(number.to_bits()),
            Bound::Excluded(number) => Self::Excluded(number.to_bits()),
        }
    }
}

impl From<BoundV1> for Bound<f64> {
    fn from(bound: BoundV1) -> Self {
        // No writer writes -0.0, but it must not become a live bound that equals 0.0 and is
        // written otherwise.
        let number = |bits| f64::from_bits(bits) + 0.0;
        match bound {
            BoundV1::Unbounded => Self::Unbounded,
            BoundV1::Included(bits) => Self::Included(number(bits)),
            BoundV1::Excluded(bits) => Self::Excluded(number(bits)),
        }
    }
}

impl From<ExtendedAt> for AtV1 {
    fn from(at: ExtendedAt) -> Self {
        Self { seq: at.seq.get(), time_ns: at.time.as_nanos() }
    }
}

impl From<AtV1> for ExtendedAt {
    fn from(at: AtV1) -> Self {
        Self { seq: Seq::new(at.seq), time: Timestamp::from_nanos(at.time_ns) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(value: &(impl Encode + Decode<()>)) -> u8 {
        let bytes = codec::to_bytes(value).expect("small");
        assert_eq!(bytes[1..4], [0; 3], "tags are small little-endian u32");
        bytes[0]
    }

    #[test]
    fn tags_on_disk_never_change() {
        assert_eq!([KindV1::Item, KindV1::User, KindV1::Creator].map(|kind| tag(&kind)), [0, 1, 2]);
        let windows = [
            WindowV1::OneHour,
            WindowV1::TwentyFourHours,
            WindowV1::SevenDays,
            WindowV1::ThirtyDays,
        ];
        assert_eq!(windows.map(|window| tag(&window)), [0, 1, 2, 3]);
        let rules = [RuleV1::Predicate(vec![]), RuleV1::Family { max_members: 9 }, RuleV1::Named];
        assert_eq!(rules.map(|rule| tag(&rule)), [0, 1, 2]);
        let bounds = [BoundV1::Unbounded, BoundV1::Included(9), BoundV1::Excluded(9)];
        assert_eq!(bounds.map(|bound| tag(&bound)), [0, 1, 2]);
        let range = OpV1::Range {
            attribute: String::new(),
            lower: BoundV1::Unbounded,
            upper: BoundV1::Unbounded,
        };
        let any_of = OpV1::AnyOf { attribute: String::new(), values: vec![] };
        let ops = [any_of, range, OpV1::And, OpV1::Or, OpV1::Not];
        assert_eq!(ops.map(|op| tag(&op)), [0, 1, 2, 3, 4]);
    }
}

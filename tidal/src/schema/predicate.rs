//! Predicates over user attributes: which users a single cohort holds.
//!
//! Knows: how conditions combine and what they mean. Must not know: where attributes come from.
//!
//! A predicate is a list in postfix order: each condition yields one truth, `Not` replaces the last
//! one, `And` and `Or` replace the last two. A list has no depth, so nothing here recurses: neither
//! building nor dropping, comparing or decoding a predicate can exhaust the call stack, however it
//! is nested.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::{BitAnd, BitOr, Bound, Not, RangeBounds};

use super::names;

/// A condition on the attributes of a user; the users that satisfy it are a cohort.
///
/// An attribute that a user does not have satisfies no condition (but the negation of any).
///
/// At most 256 conditions and operators, nested at most 32 deep, with at most 4,096 values of at
/// most 256 bytes; [`SchemaBuilder`](super::SchemaBuilder) refuses more.
///
/// # Example
///
/// ```
/// use std::collections::HashMap;
/// use tidaldb::schema::Predicate;
///
/// let adults_nearby = Predicate::any_of("country", ["FR", "BE"])
///     .and(Predicate::range("age", 18.0..))
///     .and(!Predicate::eq("plan", "trial"));
///
/// let user = HashMap::from([("country", "FR"), ("age", "31")]);
/// assert!(adults_nearby.evaluate(|name| user.get(name).copied()));
/// assert!(!adults_nearby.evaluate(|name| (name == "age").then_some("unknown")));
/// ```
#[derive(Clone, PartialEq)]
pub struct Predicate {
    /// Postfix and complete: exactly one truth remains at the end.
    ops: Vec<Op>,
}

/// One step of a predicate.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Op {
    /// The attribute has one of these values; they are sorted and distinct.
    AnyOf {
        attribute: String,
        values: Vec<String>,
    },
    /// The attribute is a finite number in this range.
    Range {
        attribute: String,
        lower: Bound<f64>,
        upper: Bound<f64>,
    },
    And,
    Or,
    Not,
}

pub(super) const OPS_MAX: usize = 256;
pub(super) const DEPTH_MAX: usize = 32;
pub(super) const VALUES_MAX: usize = 4096;

impl Predicate {
    /// The attribute has exactly this value.
    pub fn eq(attribute: impl Into<String>, value: impl Into<String>) -> Self {
        Self::any_of(attribute, [value])
    }

    /// The attribute has one of these values.
    pub fn any_of<V: Into<String>>(
        attribute: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        let values: BTreeSet<String> = values.into_iter().map(Into::into).collect();
        Self::condition(Op::AnyOf {
            attribute: attribute.into(),
            values: values.into_iter().collect(),
        })
    }

    /// The attribute is a number in this range: `18.0..25.0`, `..=3.5`, `65.0..`.
    ///
    /// Attributes are text; one that does not read as a finite number is outside every range.
    pub fn range(attribute: impl Into<String>, range: impl RangeBounds<f64>) -> Self {
        // Adding zero turns -0.0 into 0.0: equal predicates must have equal bytes.
        Self::condition(Op::Range {
            attribute: attribute.into(),
            lower: range.start_bound().map(|bound| bound + 0.0),
            upper: range.end_bound().map(|bound| bound + 0.0),
        })
    }

    /// Both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.joined(other, Op::And)
    }

    /// At least one of the two holds.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.joined(other, Op::Or)
    }

    /// Whether a user holds, given what each attribute is.
    pub fn evaluate<'a>(&self, attribute: impl Fn(&str) -> Option<&'a str>) -> bool {
        let mut truths: Vec<bool> = Vec::new();
        for op in &self.ops {
            let truth = match op {
                Op::AnyOf { attribute: name, values } => attribute(name)
                    .is_some_and(|text| values.binary_search_by(|v| v.as_str().cmp(text)).is_ok()),
                Op::Range { attribute: name, lower, upper } => attribute(name)
                    .and_then(|text| text.parse::<f64>().ok())
                    .is_some_and(|number| number.is_finite() && (*lower, *upper).contains(&number)),
                Op::Not => !last(&mut truths),
                Op::And => last(&mut truths) & last(&mut truths),
                Op::Or => last(&mut truths) | last(&mut truths),
            };
            truths.push(truth);
        }
        last(&mut truths)
    }

    pub(super) fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The predicate with these steps.
    ///
    /// # Errors
    ///
    /// A sentence when they are no predicate, or not one that the schema accepts.
    pub(super) fn from_ops(ops: Vec<Op>) -> Result<Self, String> {
        let mut truths = 0usize;
        for op in &ops {
            let used = op.operands();
            truths = truths.checked_sub(used).ok_or("has an operator without operands")? + 1;
        }
        if truths != 1 {
            return Err(format!("leaves {truths} truths, not one"));
        }
        let predicate = Self { ops };
        predicate.validate()?;
        Ok(predicate)
    }

    /// What is wrong with it, as a sentence without its subject.
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.ops.len() > OPS_MAX {
            return Err(format!(
                "has {} conditions and operators, at most {OPS_MAX} are allowed: use any_of \
                 instead of a chain of or",
                self.ops.len()
            ));
        }
        let depth = self.depth();
        if depth > DEPTH_MAX {
            return Err(format!(
                "is nested {depth} deep, at most {DEPTH_MAX} are allowed: flatten it"
            ));
        }
        let mut value_count = 0;
        for op in &self.ops {
            value_count += op.validate()?;
        }
        if value_count > VALUES_MAX {
            return Err(format!(
                "names {value_count} values, at most {VALUES_MAX} are allowed: split it, or make \
                 the group an attribute of its own"
            ));
        }
        Ok(())
    }

    /// The nesting of the tree it stands for, where a run of the same operator, as in
    /// `a.and(b).and(c)`, is one level: what a person would write within one pair of parentheses.
    fn depth(&self) -> usize {
        let mut levels: Vec<(usize, Option<&Op>)> = Vec::new();
        for op in &self.ops {
            let level = match op.operands() {
                0 => 0,
                used => {
                    let operands = levels.split_off(levels.len() - used);
                    let grown = |(level, top): (usize, Option<&Op>)| {
                        if top == Some(op) && *op != Op::Not { level } else { level + 1 }
                    };
                    operands.into_iter().map(grown).max().unwrap_or(0)
                }
            };
            levels.push((level, Some(op)));
        }
        levels.pop().map_or(0, |(level, _)| level)
    }

    fn condition(op: Op) -> Self {
        Self { ops: vec![op] }
    }

    fn joined(mut self, other: Self, by: Op) -> Self {
        self.ops.extend(other.ops);
        self.ops.push(by);
        self
    }
}

/// Takes the last of the truths, or of whatever is computed in postfix order.
fn last<T>(stack: &mut Vec<T>) -> T {
    stack.pop().expect("every way to make a predicate gives each operator its operands")
}

impl Op {
    /// How many truths it replaces.
    const fn operands(&self) -> usize {
        match self {
            Self::AnyOf { .. } | Self::Range { .. } => 0,
            Self::Not => 1,
            Self::And | Self::Or => 2,
        }
    }

    /// How many values it names, or what is wrong with it.
    fn validate(&self) -> Result<usize, String> {
        match self {
            Self::AnyOf { attribute, values } => {
                validate_values(attribute, values)?;
                Ok(values.len())
            }
            Self::Range { attribute, lower, upper } => {
                names::validate("attribute", attribute)?;
                validate_range(attribute, *lower, *upper)?;
                Ok(0)
            }
            Self::And | Self::Or | Self::Not => Ok(0),
        }
    }
}

fn validate_values(attribute: &str, values: &[String]) -> Result<(), String> {
    names::validate("attribute", attribute)?;
    if values.is_empty() {
        return Err(format!("compares {attribute:?} with no value: it would never hold"));
    }
    if !values.is_sorted_by(|left, right| left < right) {
        return Err(format!("compares {attribute:?} with values out of order"));
    }
    match values.iter().map(String::len).find(|&len| len > names::BYTES_MAX) {
        Some(len) => Err(format!(
            "compares {attribute:?} with a value of {len} bytes, at most {} are allowed",
            names::BYTES_MAX
        )),
        None => Ok(()),
    }
}

fn validate_range(attribute: &str, lower: Bound<f64>, upper: Bound<f64>) -> Result<(), String> {
    let finite = |bound: Bound<f64>| match bound {
        Bound::Included(number) | Bound::Excluded(number) => number.is_finite(),
        Bound::Unbounded => true,
    };
    if !finite(lower) || !finite(upper) {
        return Err(format!(
            "has a range of {attribute:?} with a bound that is no finite number: leave that side open"
        ));
    }
    let holds_some = match (lower, upper) {
        (Bound::Included(low), Bound::Included(high)) => low <= high,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Included(high) | Bound::Excluded(high),
        ) => low < high,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
    };
    if holds_some {
        Ok(())
    } else {
        Err(format!("has a range of {attribute:?} that no number is in: swap its bounds"))
    }
}

impl Not for Predicate {
    type Output = Self;

    /// The users that do not satisfy it, those without the attribute included.
    fn not(mut self) -> Self {
        self.ops.push(Op::Not);
        self
    }
}

impl BitAnd for Predicate {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        self.and(other)
    }
}

impl BitOr for Predicate {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.or(other)
    }
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts: Vec<String> = Vec::new();
        for op in &self.ops {
            let text = match op {
                Op::AnyOf { attribute, values } => match values.as_slice() {
                    [value] => format!("{attribute} = {value:?}"),
                    values => format!("{attribute} in {values:?}"),
                },
                Op::Range { attribute, lower, upper } => range_text(attribute, *lower, *upper),
                Op::Not => format!("not ({})", last(&mut texts)),
                Op::And | Op::Or => {
                    let (right, left) = (last(&mut texts), last(&mut texts));
                    let word = if *op == Op::And { "and" } else { "or" };
                    format!("({left} {word} {right})")
                }
            };
            texts.push(text);
        }
        f.write_str(&last(&mut texts))
    }
}

fn range_text(attribute: &str, lower: Bound<f64>, upper: Bound<f64>) -> String {
    let low = match lower {
        Bound::Included(number) => format!("{number} <= "),
        Bound::Excluded(number) => format!("{number} < "),
        Bound::Unbounded => String::new(),
    };
    let high = match upper {
        Bound::Included(number) => format!(" <= {number}"),
        Bound::Excluded(number) => format!(" < {number}"),
        Bound::Unbounded => String::new(),
    };
    match (lower, upper) {
        (Bound::Unbounded, Bound::Unbounded) => format!("{attribute} is a number"),
        _ => format!("{low}{attribute}{high}"),
    }
}

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Predicate({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(predicate: &Predicate, user: &[(&str, &'static str)]) -> bool {
        predicate.evaluate(|name| user.iter().find(|(key, _)| *key == name).map(|(_, v)| *v))
    }

    #[test]
    fn conditions_combine_as_logic_says() {
        let france = || Predicate::eq("country", "FR");
        let trial = || Predicate::eq("plan", "trial");
        for (fr, tr) in [(false, false), (false, true), (true, false), (true, true)] {
            let user = [
                ("country", if fr { "FR" } else { "US" }),
                ("plan", if tr { "trial" } else { "" }),
            ];
            assert_eq!(holds(&france().and(trial()), &user), fr && tr);
            assert_eq!(holds(&(france() | trial()), &user), fr || tr);
            assert_eq!(holds(&!(france() & !trial()), &user), !fr || tr);
        }
    }

    #[test]
    fn a_missing_attribute_satisfies_no_condition() {
        assert!(!holds(&Predicate::eq("a", ""), &[]));
        assert!(!holds(&Predicate::range("a", ..), &[]));
        assert!(holds(&!Predicate::eq("a", ""), &[]));
    }

    #[test]
    fn what_is_no_finite_number_is_outside_every_range() {
        for text in ["", "abc", "NaN", "inf", "-inf", "1e999", " 5", "5 "] {
            assert!(!holds(&Predicate::range("a", ..), &[("a", text)]), "{text:?}");
        }
        assert!(holds(&Predicate::range("a", ..), &[("a", "-1.5e3")]));
    }

    #[test]
    fn ranges_respect_their_ends() {
        let age = |range: (Bound<f64>, Bound<f64>), text| {
            holds(&Predicate::range("age", range), &[("age", text)])
        };
        let half_open = (Bound::Included(18.0), Bound::Excluded(25.0));
        assert!(age(half_open, "18") && age(half_open, "24.9"));
        assert!(!age(half_open, "17.9") && !age(half_open, "25"));
        let other_half = (Bound::Excluded(18.0), Bound::Included(25.0));
        assert!(!age(other_half, "18") && age(other_half, "25"));
    }

    #[test]
    fn spelling_the_same_condition_differently_is_equal() {
        assert_eq!(Predicate::any_of("a", ["y", "x", "y"]), Predicate::any_of("a", ["x", "y"]));
        assert_eq!(Predicate::any_of("a", ["x"]), Predicate::eq("a", "x"));
        let Op::Range { lower: Bound::Included(zero), .. } = &Predicate::range("a", -0.0..).ops[0]
        else {
            panic!("a range was made");
        };
        assert_eq!(zero.to_bits(), 0);
    }

    #[test]
    fn conditions_that_can_never_hold_are_refused() {
        assert!(Predicate::any_of("a", Vec::<String>::new()).validate().is_err());
        assert!(Predicate::range("a", 2.0..1.0).validate().is_err());
        assert!(Predicate::range("a", 1.0..1.0).validate().is_err());
        assert!(Predicate::range("a", 1.0..=1.0).validate().is_ok());
        assert!(Predicate::range("a", f64::NAN..).validate().is_err());
        assert!(Predicate::range("a", ..f64::INFINITY).validate().is_err());
        assert!(Predicate::eq("", "x").validate().is_err());
        assert!(Predicate::eq("a", "x".repeat(257)).validate().is_err());
        assert!(Predicate::eq("a", "x".repeat(256)).validate().is_ok());
    }

    #[test]
    fn nesting_counts_alternations_not_the_length_of_a_chain() {
        let one = || Predicate::eq("a", "x");
        let chain = (0..100).fold(one(), |all, _| all.or(one()));
        assert_eq!(chain.depth(), 1);
        let right = (0..100).fold(one(), |all, _| one().or(all));
        assert_eq!(right.depth(), 1);
        let ladder = (0..16).fold(one(), |all, _| all.or(one()).and(one()));
        assert_eq!(ladder.depth(), 32);
        assert!(ladder.clone().validate().is_ok());
        assert!((!ladder).validate().is_err());
    }

    #[test]
    fn size_and_values_are_bounded() {
        let chain =
            |n| (1..n).fold(Predicate::eq("a", "x"), |all, _| all.or(Predicate::eq("a", "x")));
        assert!(chain(128).validate().is_ok());
        assert!(chain(129).validate().is_err());
        let wide = |n: usize| Predicate::any_of("a", (0..n).map(|i| i.to_string()));
        assert!(wide(VALUES_MAX).validate().is_ok());
        assert!(wide(VALUES_MAX + 1).validate().is_err());
    }

    #[test]
    fn a_million_negations_neither_overflow_the_stack_nor_are_accepted() {
        let deep = (0..1_000_000).fold(Predicate::eq("a", "x"), |inner, _| !inner);
        assert!(holds(&deep.clone(), &[("a", "x")]));
        assert!(deep.validate().is_err());
    }

    #[test]
    fn steps_that_are_no_predicate_are_refused() {
        let condition = || Op::AnyOf { attribute: "a".into(), values: vec!["x".into()] };
        for ops in [
            vec![],
            vec![Op::Not],
            vec![condition(), Op::And],
            vec![condition(), condition()],
            vec![condition(), Op::Or, condition()],
        ] {
            assert!(Predicate::from_ops(ops.clone()).is_err(), "{ops:?}");
        }
        assert!(Predicate::from_ops(vec![condition(), condition(), Op::And]).is_ok());
    }

    #[test]
    fn a_predicate_reads_as_one_would_write_it() {
        let predicate = Predicate::any_of("country", ["FR", "BE"])
            .and(Predicate::range("age", 18.0..25.0))
            .or(!Predicate::eq("plan", "trial"));
        assert_eq!(
            predicate.to_string(),
            r#"((country in ["BE", "FR"] and 18 <= age < 25) or not (plan = "trial"))"#
        );
    }
}

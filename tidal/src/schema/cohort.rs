//! Cohorts: named segments of users, as the schema declares them.
//!
//! Knows: which names are cohorts and which of them a user belongs to. Must not know: counts,
//! numbers of cohorts, or which members a family already has.

use super::names;
use super::predicate::Predicate;
use super::signal::ExtendedAt;

/// A declaration of one cohort, or of a family of them.
#[derive(Debug, Clone, PartialEq)]
pub struct CohortDef {
    pub(super) name: String,
    pub(super) rule: CohortRule,
    pub(super) since: ExtendedAt,
}

/// Who belongs to a cohort.
#[derive(Debug, Clone, PartialEq)]
pub enum CohortRule {
    /// The users whose attributes satisfy a predicate.
    Predicate(Predicate),
    /// One cohort for each value of the attribute that the family is named after, called
    /// `attribute=value`.
    Family {
        /// How many values may become a cohort.
        max_members: u32,
    },
    /// Nobody by attributes: signals name the cohort themselves.
    Named,
}

/// What a declared cohort name stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CohortKind<'a> {
    /// A cohort with a predicate.
    Single,
    /// A member, existing or possible, of this family.
    FamilyMember(&'a CohortDef),
    /// A cohort that signals name.
    Named,
}

/// Parts a family's attribute from a value in the name of a member; no other name has it.
pub(super) const MEMBER_SEPARATOR: char = '=';

/// The most members that a family may be declared with.
pub(super) const FAMILY_MEMBERS_MAX: u32 = 1_000_000;

impl CohortDef {
    /// Its name; a family has that of its attribute.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who belongs to it.
    pub const fn rule(&self) -> &CohortRule {
        &self.rule
    }

    /// When it was declared.
    pub const fn since(&self) -> ExtendedAt {
        self.since
    }

    /// How many members it may have; `None` when it is no family.
    pub const fn max_members(&self) -> Option<u32> {
        match self.rule {
            CohortRule::Family { max_members } => Some(max_members),
            CohortRule::Predicate(_) | CohortRule::Named => None,
        }
    }

    /// The cohort of this declaration that a user belongs to.
    pub(super) fn cohort_of<'a>(
        &self,
        attribute: &impl Fn(&str) -> Option<&'a str>,
    ) -> Option<String> {
        match &self.rule {
            CohortRule::Predicate(predicate) => {
                predicate.evaluate(attribute).then(|| self.name.clone())
            }
            CohortRule::Family { .. } => attribute(&self.name)
                .filter(|value| names::is_valid(value))
                .map(|value| member_name(&self.name, value)),
            CohortRule::Named => None,
        }
    }

    /// What is wrong with it, as a sentence.
    pub(super) fn validate(&self) -> Result<(), String> {
        names::validate("cohort", &self.name)?;
        let name = &self.name;
        if name.contains(MEMBER_SEPARATOR) {
            return Err(format!(
                "cohort {name:?} has a {MEMBER_SEPARATOR:?}, which only members of a family have: \
                 choose another name, or declare the family with cohort_family"
            ));
        }
        match &self.rule {
            CohortRule::Predicate(predicate) => predicate
                .validate()
                .map_err(|problem| format!("the predicate of cohort {name:?} {problem}")),
            CohortRule::Family { max_members }
                if !(1..=FAMILY_MEMBERS_MAX).contains(max_members) =>
            {
                Err(format!(
                    "cohort family {name:?} may have {max_members} members: allow 1 to \
                     {FAMILY_MEMBERS_MAX}"
                ))
            }
            CohortRule::Family { .. } | CohortRule::Named => Ok(()),
        }
    }
}

/// The name of the member of a family for one value.
pub(super) fn member_name(family: &str, value: &str) -> String {
    format!("{family}{MEMBER_SEPARATOR}{value}")
}

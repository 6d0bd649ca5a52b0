//! Which cohorts exist, and under which number.
//!
//! A row in a page: number u32 | name (length varint, UTF-8).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::codec::{DecodeError, Put, Reader};
use crate::error::{Error, Result};
use crate::ids::CohortId;
use crate::schema::{CohortKind, Schema};
use crate::table::{Row, Slab, Slot, StateTable, Table, TableId, hash_text};

#[derive(Debug)]
struct CohortRow {
    id: CohortId,
    name: Box<str>,
}

/// What is derived from the rows.
#[derive(Debug, Default)]
struct Derived {
    /// Names by number; number 0 is everyone and has none.
    by_id: Vec<Box<str>>,
    /// How many members each family has.
    members: HashMap<String, u32>,
}

/// The family of a member's name.
fn family_of(name: &str) -> Option<&str> {
    name.split_once('=').map(|(family, _)| family)
}

impl Derived {
    fn add(&mut self, name: &str) {
        self.by_id.push(name.into());
        if let Some(family) = family_of(name) {
            *self.members.entry(family.to_owned()).or_default() += 1;
        }
    }
}

impl Row for CohortRow {
    type Key = str;
    type Side = Derived;

    fn key(&self) -> &str {
        &self.name
    }

    fn hash(key: &str) -> u64 {
        hash_text(key)
    }

    fn encode(&self, _: Slot, _: &Derived, out: &mut Vec<u8>) {
        out.put_u32(self.id.get());
        out.put_bytes(self.name.as_bytes());
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, _: &mut Derived) -> Result<Self, DecodeError> {
        Ok(Self { id: CohortId::new(reader.u32()?), name: reader.str()?.into() })
    }

    fn rebuild(slab: &mut Slab<Self>) -> Result<(), DecodeError> {
        let mut rows: Vec<_> = slab.iter().map(|(_, row)| (row.id, row.name.clone())).collect();
        rows.sort_unstable();
        let mut derived = Derived::default();
        for (i, (id, name)) in rows.iter().enumerate() {
            if id.get() as usize != i + 1 {
                return Err(DecodeError::Malformed("a hole in the numbers of cohorts"));
            }
            derived.add(name);
        }
        *slab.side_mut() = derived;
        Ok(())
    }

    fn heap_size_bytes(&self) -> usize {
        self.name.len()
    }

    fn side_size_bytes(side: &Derived) -> usize {
        side.by_id.iter().map(|name| name.len() + size_of::<Box<str>>()).sum()
    }
}

/// The cohorts that exist.
pub(crate) struct CohortNames {
    table: Arc<Table<CohortRow>>,
}

impl CohortNames {
    /// The kind of table on disk.
    pub(crate) const KIND: u8 = 2;

    pub(crate) fn new() -> Self {
        let id = TableId { kind: Self::KIND, part: 0 };
        Self { table: Arc::new(Table::new(id, Derived::default())) }
    }

    /// The number of a cohort, if the log has needed it.
    pub(crate) fn find(&self, name: &str) -> Option<CohortId> {
        self.table.read().get(name).map(|row| row.id)
    }

    /// The name of a cohort that exists.
    pub(crate) fn name(&self, id: CohortId) -> Option<String> {
        let slab = self.table.read();
        let at = (id.get() as usize).checked_sub(1)?;
        slab.side().by_id.get(at).map(|name| name.to_string())
    }

    /// The last number; everyone's when there are no cohorts.
    pub(crate) fn last(&self) -> CohortId {
        CohortId::new(self.table.read().len() as u32)
    }

    /// Every name, in the order of numbers.
    pub(crate) fn all(&self) -> Vec<String> {
        self.table.read().side().by_id.iter().map(|name| name.to_string()).collect()
    }

    /// The numbers of all `names`, which are declared; those without one get the next.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] when a family would get more members than declared; then no name gets a
    /// number.
    pub(crate) fn ensure<'a>(
        &self,
        names: impl Iterator<Item = &'a str> + Clone,
        schema: &Schema,
    ) -> Result<Vec<CohortId>> {
        let missing = self.missing(names.clone(), schema)?;
        if !missing.is_empty() {
            let mut slab = self.table.write();
            for name in missing {
                let number = slab.len() as u32 + 1;
                slab.insert_new(CohortRow { id: CohortId::new(number), name: name.into() });
                slab.side_mut().add(name);
            }
        }
        Ok(names.map(|name| self.find(name).expect("every name has a number now")).collect())
    }

    /// The names without a number, each once, provided that their families have room.
    fn missing<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
        schema: &Schema,
    ) -> Result<Vec<&'a str>> {
        let slab = self.table.read();
        let mut missing: Vec<&str> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        // The sizes of families, with what is missing so far.
        let mut sizes: HashMap<&str, u64> = HashMap::new();
        for name in names {
            if slab.find(name).is_some() || !seen.insert(name) {
                continue;
            }
            if let CohortKind::FamilyMember(family) = schema.resolve_cohort(name)? {
                let members = || slab.side().members.get(family.name()).copied().unwrap_or(0);
                let size = sizes.entry(family.name()).or_insert_with(|| u64::from(members()));
                *size += 1;
                let limit = u64::from(family.max_members().unwrap_or(0));
                if *size > limit {
                    let (what, size) = ("the cohort family", *size);
                    return Err(Error::TooLarge { what, size, limit, unit: "members" });
                }
            }
            missing.push(name);
        }
        Ok(missing)
    }

    pub(crate) fn table(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.table) as Arc<dyn StateTable>
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::SchemaBuilder;

    #[test]
    fn many_new_names_of_one_batch_are_each_numbered_once_and_each_family_is_filled_to_its_limit() {
        const LIMIT: u32 = 20_000;
        let mut b = SchemaBuilder::new();
        b.cohort_family("country", LIMIT).cohort_family("plan", 1).named_cohort("picks");
        let schema = b.build().expect("sound");
        let mut names: Vec<String> = (0..LIMIT).map(|n| format!("country={n}")).collect();
        names.extend(["plan=free".to_owned(), "picks".to_owned()]);
        let twice = || names.iter().chain(&names).map(String::as_str);
        let cohorts = CohortNames::new();
        let more = twice().chain(["country=one more"]);
        match cohorts.ensure(more, &schema) {
            Err(Error::TooLarge { size, limit, .. }) => assert_eq!((size, limit), (20_001, 20_000)),
            other => panic!("there is no room: {other:?}"),
        }
        assert_eq!(cohorts.last(), CohortId::EVERYONE, "none got a number");
        let numbers = cohorts.ensure(twice(), &schema).expect("there is room");
        let expected = (1..=LIMIT + 2).chain(1..=LIMIT + 2).map(CohortId::new);
        assert!(numbers.into_iter().eq(expected));
        cohorts.ensure(["plan=paid"].into_iter(), &schema).expect_err("the family is full");
    }
}

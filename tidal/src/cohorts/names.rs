//! Which cohorts exist, and under which number.
//!
//! A row in a page: number u32 | name (length varint, UTF-8).

use std::collections::HashMap;
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
        for name in names {
            if slab.find(name).is_some() || missing.contains(&name) {
                continue;
            }
            if let CohortKind::FamilyMember(family) = schema.resolve_cohort(name)? {
                let new = missing.iter().filter(|m| family_of(m) == Some(family.name())).count();
                let members = slab.side().members.get(family.name()).copied().unwrap_or(0);
                let limit = family.max_members().unwrap_or(0);
                if u64::from(members) + new as u64 >= u64::from(limit) {
                    return Err(Error::TooLarge {
                        what: "the cohort family",
                        size: u64::from(members) + new as u64 + 1,
                        limit: u64::from(limit),
                        unit: "members",
                    });
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

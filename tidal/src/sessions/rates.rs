//! How many signals an agent has sent for a user lately.
//!
//! Knows: the generic cell rate algorithm (ITU-T I.371), one time for each (user, agent, policy). Must not
//! know: sessions; a new one resets nothing.
//!
//! With a limit of `n` signals in `p`, each signal costs `p / n`. A row has the time at which all signals
//! so far are paid for, the *theoretical arrival time*; a signal is refused when it would move that time
//! more than `p` ahead of now. A row whose time has come counts for nothing, and goes by and by.
//!
//! A row in a page: user u64 | policy varint | paid for u64 (ns) | agent: length varint, UTF-8.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::codec::{DecodeError, Put, Reader};
use crate::ids::{Timestamp, UserId, duration_nanos};
use crate::schema::{RateLimit, SessionPolicy};
use crate::table::{Row, Slab, Slot, StateTable, Table, TableId, hash_text, hash_u64};

/// Who is limited.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RateKey {
    pub(super) user: UserId,
    pub(super) policy: u16,
    pub(super) agent: Box<str>,
}

#[derive(Debug)]
pub(super) struct RateRow {
    key: RateKey,
    paid_at: Timestamp,
}

/// Rows by the time from which on they count for nothing; derived from them.
type Paid = BTreeSet<(Timestamp, Slot)>;

/// Rows that count for nothing leave so many at a time, so that the table does not grow and no signal
/// waits for long.
const DROPPED_AT_ONCE: usize = 2;

impl Row for RateRow {
    type Key = RateKey;
    type Side = Paid;

    fn key(&self) -> &RateKey {
        &self.key
    }

    fn hash(key: &RateKey) -> u64 {
        hash_u64(key.user.get() ^ hash_text(&key.agent).rotate_left(u32::from(key.policy)))
    }

    fn encode(&self, _: Slot, _: &Paid, out: &mut Vec<u8>) {
        out.put_u64(self.key.user.get());
        out.put_varint(u64::from(self.key.policy));
        out.put_u64(self.paid_at.as_nanos());
        out.put_bytes(self.key.agent.as_bytes());
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, _: &mut Paid) -> Result<Self, DecodeError> {
        let user = UserId::new(reader.u64()?);
        let policy = u16::try_from(reader.varint()?)
            .map_err(|_| DecodeError::Malformed("a policy beyond 16 bits"))?;
        let paid_at = Timestamp::from_nanos(reader.u64()?);
        Ok(Self { key: RateKey { user, policy, agent: reader.str()?.into() }, paid_at })
    }

    fn canonical(&self, slot: Slot, side: &Paid, now: Timestamp, out: &mut Vec<u8>) {
        if self.paid_at > now {
            self.encode(slot, side, out);
        }
    }

    fn rebuild(slab: &mut Slab<Self>) -> Result<(), DecodeError> {
        *slab.side_mut() = paid_of(slab);
        Ok(())
    }

    fn heap_size_bytes(&self) -> usize {
        self.key.agent.len()
    }

    fn side_size_bytes(side: &Paid) -> usize {
        side.len() * size_of::<(Timestamp, Slot)>() * 3 / 2
    }
}

fn paid_of(slab: &Slab<RateRow>) -> Paid {
    slab.iter().map(|(slot, row)| (row.paid_at, slot)).collect()
}

/// What is known of those whose policies have a limit.
pub(super) struct Rates(Arc<Table<RateRow>>);

impl Rates {
    pub(super) fn new(id: TableId) -> Self {
        Self(Arc::new(Table::new(id, Paid::new())))
    }

    pub(super) fn table(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.0) as Arc<dyn StateTable>
    }

    /// The time at which all signals are paid for if one more comes now.
    ///
    /// # Errors
    ///
    /// In how many nanoseconds the limit allows another one.
    pub(super) fn allow(
        &self,
        key: &RateKey,
        limit: RateLimit,
        now: Timestamp,
    ) -> Result<Timestamp, u64> {
        let paid_at = self.0.read().get(key).map_or(now, |row| row.paid_at.max(now));
        let per_ns = duration_nanos(limit.per);
        let cost_ns = per_ns / u64::from(limit.signals.max(1));
        let paid_at = paid_at.as_nanos().saturating_add(cost_ns);
        match paid_at.saturating_sub(now.as_nanos().saturating_add(per_ns)) {
            0 => Ok(Timestamp::from_nanos(paid_at)),
            wait_ns => Err(wait_ns),
        }
    }

    /// A signal came: all are paid for at the time that [`allow`](Self::allow) said.
    pub(super) fn take(&self, key: RateKey, paid_at: Timestamp, now: Timestamp) {
        let mut slab = self.0.write();
        match slab.find(&key) {
            Some(slot) => {
                let (row, paid) = slab.row_mut(slot);
                paid.remove(&(row.paid_at, slot));
                row.paid_at = paid_at;
                paid.insert((paid_at, slot));
            }
            None => {
                let slot = slab.insert_new(RateRow { key, paid_at });
                slab.side_mut().insert((paid_at, slot));
            }
        }
        for _ in 0..DROPPED_AT_ONCE {
            let first = slab.side().first().copied();
            let Some((_, slot)) = first.filter(|&(paid_at, _)| paid_at <= now) else { return };
            remove(&mut slab, slot);
        }
    }

    /// Engine time is set back, to before the last operation: nobody has sent more than a limit's worth.
    pub(super) fn clamp(&self, to: Timestamp, before: Timestamp, policies: &[SessionPolicy]) {
        let mut slab = self.0.write();
        let rows: Vec<Slot> = slab.iter().map(|(slot, _)| slot).collect();
        for slot in rows {
            let row = slab.row(slot);
            let limit = policies.get(usize::from(row.key.policy)).and_then(|p| p.rate_limit);
            match limit {
                Some(limit) if row.paid_at > before => {
                    let most = to.saturating_add(limit.per);
                    let (row, _) = slab.row_mut(slot);
                    row.paid_at = row.paid_at.min(most);
                }
                _ => remove(&mut slab, slot),
            }
        }
        *slab.side_mut() = paid_of(&slab);
    }

    /// Refuses restored rows of policies that there are none of.
    pub(super) fn check_restored(&self, policies: usize) -> Result<(), DecodeError> {
        let slab = self.0.read();
        if slab.iter().any(|(_, row)| usize::from(row.key.policy) >= policies) {
            return Err(DecodeError::Malformed("a rate under a policy that there is none of"));
        }
        Ok(())
    }

    /// Checks what is derived.
    pub(super) fn check(&self) -> Result<(), String> {
        let slab = self.0.read();
        match *slab.side() == paid_of(&slab) {
            true => Ok(()),
            false => Err("rates are not listed by their times".to_owned()),
        }
    }
}

fn remove(slab: &mut Slab<RateRow>, slot: Slot) {
    let row = slab.row(slot);
    let (paid_at, key) = (row.paid_at, row.key.clone());
    slab.side_mut().remove(&(paid_at, slot));
    slab.remove(&key);
}

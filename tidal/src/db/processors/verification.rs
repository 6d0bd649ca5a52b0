//! Verification: whether what a session claims of itself holds.
//!
//! Knows: which claims there are, and how each is proven. Must not know: runs.
//!
//! One row of outputs for each claim that does not hold: the key is a number, u32 big-endian, the value a
//! sentence.

use super::processor::{ProcessError, Processed, SessionProcessor};
use super::{Outputs, SessionView};
use crate::error::Result;
use crate::sessions::{SessionContent, SessionInfo, SessionRecord};

/// A processor that holds each session to its claims: its records are all there, in order; they are as many
/// signals, annotations and late signals as it counts; its content hash is theirs; and the ledger has counted
/// no fewer of its signals for an item, unless it has counted none, as after the item was deleted.
///
/// What it finds is read with [`findings`](Self::findings), and is no error: the session is processed. A
/// record that cannot be read is one. The items of a session are its records.
///
/// Where the clock was [reset](crate::TidalDb::reset_clock) to before the start of a session, its content hash
/// cannot be worked out any more, since it is over the start as it was; then it is found not to hold.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Verification {}

impl Verification {
    /// The name that it is registered under.
    pub const NAME: &str = "verification";

    /// The processor.
    pub const fn new() -> Self {
        Self {}
    }

    /// What its outputs of a session say: the claims that do not hold, in sentences.
    pub fn findings(outputs: &[(Vec<u8>, Vec<u8>)]) -> Vec<String> {
        outputs.iter().map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }
}

impl SessionProcessor for Verification {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn process(
        &self,
        session: &SessionView<'_>,
        out: &mut Outputs<'_>,
    ) -> Result<Processed, ProcessError> {
        let records = session.records()?;
        let mut findings = counts_that_differ(session.info(), &records);
        if session.recomputed_hash()? != session.content_hash() {
            findings.push("its content hash is not that of its records".to_owned());
        }
        findings.extend(session.uncounted(&records)?);
        for (number, finding) in (0_u32..).zip(&findings) {
            out.put(&number.to_be_bytes(), finding.as_bytes())?;
        }
        Ok(Processed { items: records.len() as u64 })
    }
}

/// The counts of a session that are not those of its records.
fn counts_that_differ(info: &SessionInfo, records: &[SessionRecord]) -> Vec<String> {
    let (mut signals, mut annotations, mut late) = (0, 0, 0);
    for record in records {
        match &record.content {
            SessionContent::Signal { annotation, late: is_late, .. } => {
                annotations += u64::from(annotation.is_some());
                match is_late {
                    true => late += 1,
                    false => signals += 1,
                }
            }
            SessionContent::Annotation(_) => annotations += 1,
        }
    }
    let claims = [
        ("records", info.records, records.len() as u64),
        ("signals", info.signals, signals),
        ("annotations", info.annotations, annotations),
        ("late signals", info.late, late),
    ];
    let differ = claims.into_iter().filter(|(_, claimed, found)| claimed != found);
    differ
        .map(|(what, claimed, found)| format!("it has {found} {what}, and claims {claimed}"))
        .collect()
}

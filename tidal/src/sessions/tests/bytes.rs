//! Rows and records of sessions come back from their bytes, and from nothing less.

use std::time::Duration;

use proptest::prelude::*;

use crate::end::{End, EndCause, EndEvidence};
use crate::ids::{EntityId, Fence, ProcessorId, SessionId, SignalTypeId, Timestamp, UserId};
use crate::sessions::content::{Content, What};
use crate::sessions::course::{Course, Evidence};
use crate::sessions::row::{Counts, Decided, SessionRow, Stage};
use crate::sessions::{FailCause, Failed, Processed};

fn decided() -> impl Strategy<Value = Decided> {
    let cause = prop_oneof![
        Just(EndCause::Closed),
        Just(EndCause::IdleTimeout),
        Just(EndCause::MaxDuration),
        any::<u64>().prop_map(|by| EndCause::Superseded { by: SessionId::new(by) }),
        Just(EndCause::OrphanRecovered),
        Just(EndCause::Shutdown),
        any::<String>().prop_map(|reason| EndCause::Forced { reason }),
    ];
    let evidence = prop_oneof![
        Just(EndEvidence::Explicit),
        any::<u64>().prop_map(|record| EndEvidence::Record { record }),
        any::<bool>().prop_map(|clamped| EndEvidence::Fallback { clamped }),
    ];
    (any::<[u64; 2]>(), cause, evidence).prop_map(|(times, cause, evidence)| {
        let [at, when] = times.map(Timestamp::from_nanos);
        Decided { end: End { at, cause, evidence }, when }
    })
}

fn processed() -> impl Strategy<Value = Box<[Processed]>> {
    let list = prop::collection::btree_map(1..=u8::MAX, any::<(u64, u32, bool)>(), 0..4);
    list.prop_map(|list| {
        let of = |(processor, (head, version, given_up))| Processed {
            processor: ProcessorId::new(processor),
            head,
            version,
            given_up,
        };
        list.into_iter().map(of).collect()
    })
}

fn failed() -> impl Strategy<Value = Failed> {
    let cause = prop_oneof![
        any::<(u64, bool)>().prop_map(|(after, automatic)| {
            FailCause::TimedOut { after: Duration::from_nanos(after), automatic }
        }),
        any::<[String; 2]>().prop_map(|[by, reason]| FailCause::Reset { by, reason }),
        any::<String>().prop_map(|processor| FailCause::Quarantined { processor }),
    ];
    (any::<u64>(), cause).prop_map(|(at, cause)| Failed { at: Timestamp::from_nanos(at), cause })
}

fn row() -> impl Strategy<Value = SessionRow> {
    let course = (any::<[u32; 3]>(), 0.0..1.0f64, prop::option::of(any::<u64>()));
    let numbers = any::<[u64; 5]>();
    let rest =
        (any::<[u8; 32]>(), prop::option::of(decided()), any::<bool>(), ".{0,9}", any::<u16>());
    let processing = (processed(), prop::option::of(failed()));
    (course, numbers, rest, any::<[u64; 2]>(), processing).prop_map(
        |((times, share, record), numbers, rest, ids, (processed, failed))| {
            let (hash, end, pruned, agent, policy) = rest;
            let [started, active, extended] = times.map(u64::from);
            let reach = started + (active as f64 * share) as u64;
            let [head, records, signals, annotations, late] = numbers;
            SessionRow {
                id: SessionId::new(ids[0]),
                user: UserId::new(ids[1]),
                agent: agent.into(),
                policy,
                course: Course {
                    started: Timestamp::from_nanos(started),
                    last_activity: Timestamp::from_nanos(started + active),
                    extended_until: Timestamp::from_nanos(extended),
                    evidence: record
                        .map(|record| Evidence { reach: Timestamp::from_nanos(reach), record }),
                },
                head,
                counts: Counts { records, signals, annotations, late },
                hash,
                end: end.map(Box::new),
                processed,
                failed: failed.map(Box::new),
                pruned,
                fence: Fence::default(),
                stage: Stage::Settled,
                due: Timestamp::EPOCH,
            }
        },
    )
}

proptest! {
    #[test]
    fn a_canonical_row_comes_back_and_a_part_of_it_does_not(row in row(), cut in 0.0..1.0f64) {
        let bytes = row.canonical_bytes();
        let back = SessionRow::from_canonical(&bytes);
        prop_assert_eq!(back.as_ref(), Ok(&row));
        let part = &bytes[..(bytes.len() as f64 * cut) as usize];
        prop_assert!(SessionRow::from_canonical(part).is_err());
    }

    #[test]
    fn a_record_comes_back(
        numbers: [u64; 5], signal: u16, weight in -1e9..1e9f64, text: Option<String>, is_late: bool,
    ) {
        let [previous, at, arrival, entity, span_ns] = numbers;
        let (signal, annotation) = (SignalTypeId::new(signal), text.as_deref());
        for what in [
            What::Signal { signal, weight, span_ns, annotation, is_late },
            What::Annotation(annotation.unwrap_or_default()),
        ] {
            let (at, arrival) = (Timestamp::from_nanos(at), Timestamp::from_nanos(arrival));
            let content = Content { previous, at, arrival, entity: EntityId::new(entity), what };
            let bytes = content.encode();
            prop_assert_eq!(Content::decode(&bytes), Ok(content));
        }
    }

    #[test]
    fn garbage_is_no_row_and_no_record_and_never_a_panic(bytes: Vec<u8>) {
        let _ = SessionRow::from_canonical(&bytes);
        let _ = Content::decode(&bytes);
    }
}

#[test]
fn a_row_that_nobody_processed_has_the_bytes_that_it_had_before_there_were_processors() {
    let at = Timestamp::from_secs(9);
    let row = SessionRow {
        id: SessionId::new(3),
        user: UserId::new(42),
        agent: "app".into(),
        policy: 1,
        course: Course::starting(at),
        head: 5,
        counts: Counts { records: 4, signals: 3, annotations: 2, late: 1 },
        hash: [7; 32],
        end: None,
        processed: Box::default(),
        failed: None,
        pruned: false,
        fence: Fence::default(),
        stage: Stage::Settled,
        due: Timestamp::EPOCH,
    };
    let head: &[u8] = &[0, 3, 42, 0, 0, 0, 0, 0, 0, 0, 1, 3, b'a', b'p', b'p'];
    let numbers: &[u8] = &[0, 5, 4, 3, 2, 1];
    let expected = [head, &at.as_nanos().to_le_bytes(), numbers, &[7; 32]].concat();
    assert_eq!(row.canonical_bytes(), expected);
    let processed =
        [Processed { processor: ProcessorId::new(2), head: 5, version: 300, given_up: true }];
    let cause = FailCause::Quarantined { processor: "usage".to_owned() };
    let failed = Some(Box::new(Failed { at, cause }));
    let row = SessionRow { processed: processed.into(), failed, ..row };
    let more: &[u8] = &[1, 2, 5, 0xd9, 4];
    let cause: &[u8] = &[2, 5, b'u', b's', b'a', b'g', b'e'];
    let expected = [&expected[1..], more, &at.as_nanos().to_le_bytes(), cause].concat();
    assert_eq!(row.canonical_bytes(), [&[16 | 32], &expected[..]].concat());
}

#[test]
fn processors_out_of_order_are_malformed() {
    let row = |numbers: &[u8]| {
        let of = |&it: &u8| Processed {
            processor: ProcessorId::new(it),
            head: 0,
            version: 1,
            given_up: false,
        };
        let mut bytes = Vec::new();
        crate::sessions::processing::put_processed(
            &mut bytes,
            &numbers.iter().map(of).collect::<Vec<_>>(),
        );
        crate::sessions::processing::read_processed(&mut crate::codec::Reader::new(&bytes)).is_ok()
    };
    assert!(row(&[1, 2]));
    assert!(!row(&[]) && !row(&[0]) && !row(&[2, 1]) && !row(&[1, 1]));
}

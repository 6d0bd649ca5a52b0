//! Records come back from their bytes, and nothing else does any harm.

use super::*;
use proptest::prelude::*;

fn event() -> impl Strategy<Value = SignalEvent> {
    let numbers = (any::<u16>(), any::<u64>(), any::<u64>(), any::<f64>());
    let rest = (any::<Option<u64>>(), prop::collection::vec(0u32..9, 0..5), any::<Option<u128>>());
    (numbers, rest).prop_map(|((signal, entity, at, weight), (user, cohorts, id))| SignalEvent {
        signal: SignalTypeId::new(signal % 40),
        entity: EntityId::new(entity),
        weight: if weight.is_nan() { 1.0 } else { weight },
        at: Timestamp::from_nanos(at),
        user: user.map(UserId::new),
        cohorts: cohorts.into_iter().collect(),
        id,
    })
}

proptest! {
    #[test]
    fn a_batch_comes_back(events in prop::collection::vec(event(), 0..40), first: u64, contiguous: bool) {
        let source = SourceRange { name: "kafka:views:3", first, last: first, contiguous };
        let latest = events.iter().map(|event| event.at).max().unwrap_or_default();
        let mut writer =
            SignalBatchWriter::new(Some(source), &["a", "b"], latest, events.len());
        events.iter().for_each(|event| writer.push(event.signal, event));
        let bytes = writer.finish();
        let Ok(Record::Signals(batch)) = Record::decode(1, &bytes) else { panic!("not a batch") };
        prop_assert_eq!(batch.source, Some(source));
        prop_assert_eq!(&batch.cohorts, &["a", "b"]);
        prop_assert_eq!(batch.events().collect::<Result<Vec<_>, _>>(), Ok(events));
    }

    #[test]
    fn garbage_never_panics(kind in 0u8..140, bytes: Vec<u8>) {
        if let Ok(Record::Signals(batch)) = Record::decode(kind, &bytes) {
            let _ = batch.events().count();
        }
    }

    #[test]
    fn other_records_come_back(id: u64, texts: Vec<String>, pairs: Attributes, flag: bool) {
        let records = [
            Record::WriteUser(UserId::new(id), pairs),
            Record::WriteItem(EntityId::new(id), b"metadata"),
            Record::DeleteItem(EntityId::new(id)),
            Record::HideItem(EntityId::new(id)),
            Record::ShowItem(EntityId::new(id)),
            Record::Intern(texts.iter().map(String::as_str).collect()),
            Record::ResetClock(Timestamp::from_nanos(id)),
            Record::DeleteCollection(CollectionId::new(id)),
            Record::Mark,
        ];
        let opened = OPEN_POLICIES.map(|sessions| {
            Record::Opened(Opened { incarnation: id, event_id_horizon_ns: 5, event_time: flag, sessions })
        });
        for record in records.into_iter().chain(opened) {
            let bytes = record.encode();
            prop_assert_eq!(Record::decode(record.kind() as u8, &bytes), Ok(record));
        }
    }
}

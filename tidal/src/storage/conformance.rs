//! What every engine must do, run against each of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{FjallBackend, InMemoryBackend, KeyValue, RealDisk, StorageEngine, WriteOp};
use crate::error::{Error, ErrorKind};

/// Runs `claim` against an empty engine of each kind.
fn for_each_engine(claim: impl Fn(&dyn StorageEngine)) {
    claim(&InMemoryBackend::new());
    let dir = tempfile::tempdir().unwrap();
    claim(&FjallBackend::create(&RealDisk, &dir.path().join("a")).unwrap());
}

fn put(key: &[u8], value: &[u8]) -> WriteOp {
    WriteOp::Put { key: key.to_vec(), value: value.to_vec() }
}

fn delete(key: &[u8]) -> WriteOp {
    WriteOp::Delete { key: key.to_vec() }
}

fn pair(key: &[u8], value: &[u8]) -> KeyValue {
    (key.to_vec(), value.to_vec())
}

#[test]
fn a_scan_yields_the_pairs_of_its_prefix_in_byte_order() {
    for_each_engine(|engine| {
        let pairs = |keys: &[&[u8]]| keys.iter().map(|key| pair(key, key)).collect::<Vec<_>>();
        let keys: [&[u8]; 6] = [b"b", b"\xff\xff", b"a\x00", b"a", b"\xff", b"a\xff"];
        engine.write_batch(keys.iter().map(|key| put(key, key)).collect()).unwrap();
        let sorted: [&[u8]; 6] = [b"a", b"a\x00", b"a\xff", b"b", b"\xff", b"\xff\xff"];
        assert_eq!(engine.scan_prefix(b"").unwrap(), pairs(&sorted));
        assert_eq!(engine.scan_prefix(b"a").unwrap(), pairs(&sorted[..3]));
        assert_eq!(engine.scan_prefix(b"\xff").unwrap(), pairs(&sorted[4..]));
        assert_eq!(engine.scan_prefix(b"c").unwrap(), []);
    });
}

#[test]
fn a_scan_from_a_key_yields_the_pairs_of_its_prefix_from_there_on() {
    for_each_engine(|engine| {
        let keys: [&[u8]; 7] = [b"a", b"a\x00", b"a\x05", b"a\xff", b"b", b"\xff", b"\xff\xff"];
        engine.write_batch(keys.iter().map(|key| put(key, key)).collect()).unwrap();
        let long = [b"\xff".as_slice(), &[0xff; 70_000]].concat();
        let prefixes: [&[u8]; 6] = [b"", b"a", b"a\x01", b"\xff", b"c", &[0xff; 70_000]];
        let starts = keys.iter().copied().chain([&b""[..], b"0", b"a\x01", b"zz", &long]);
        for start in starts {
            for prefix in prefixes {
                let mut seen = Vec::new();
                engine
                    .scan_from(prefix, start, &mut |key, _| {
                        seen.push(key.to_vec());
                        Ok(())
                    })
                    .unwrap();
                let expected = keys.iter().filter(|k| k.starts_with(prefix) && **k >= start);
                assert!(seen.iter().eq(expected.copied()), "from {start:?} under {prefix:?}");
            }
        }
    });
}

#[test]
fn a_scan_ends_at_the_first_error_of_its_callback() {
    for_each_engine(|engine| {
        engine.write_batch(vec![put(b"1", b""), put(b"2", b""), put(b"3", b"")]).unwrap();
        let mut seen = Vec::new();
        let outcome = engine.scan(b"", &mut |key, _| {
            seen.push(key.to_vec());
            if key == b"2" { Err(Error::Closed) } else { Ok(()) }
        });
        assert!(matches!(outcome, Err(Error::Closed)));
        assert_eq!(seen, [b"1", b"2"]);
    });
}

#[test]
fn a_scan_sees_the_moment_it_began_although_its_callback_writes() {
    for_each_engine(|engine| {
        engine.write_batch(vec![put(b"1", b"old"), put(b"2", b"old")]).unwrap();
        let mut seen = Vec::new();
        engine
            .scan(b"", &mut |key, value| {
                seen.push(pair(key, value));
                engine.write_batch(vec![put(b"2", b"new"), put(b"3", b"new"), delete(b"1")])
            })
            .unwrap();
        assert_eq!(seen, [pair(b"1", b"old"), pair(b"2", b"old")]);
        assert_eq!(engine.scan_prefix(b"").unwrap(), [pair(b"2", b"new"), pair(b"3", b"new")]);
    });
}

#[test]
fn the_last_change_of_a_key_in_a_batch_holds() {
    for_each_engine(|engine| {
        engine.put(b"kept", b"0").unwrap();
        engine
            .write_batch(vec![
                put(b"kept", b"1"),
                delete(b"kept"),
                put(b"kept", b"2"),
                put(b"gone", b"1"),
                delete(b"gone"),
            ])
            .unwrap();
        assert_eq!(engine.scan_prefix(b"").unwrap(), [pair(b"kept", b"2")]);
        assert_eq!(engine.get(b"gone").unwrap(), None);
    });
}

#[test]
fn deleting_what_is_not_there_and_writing_nothing_are_no_errors() {
    for_each_engine(|engine| {
        engine.delete(b"absent").unwrap();
        engine.write_batch(Vec::new()).unwrap();
        engine.write_batch_synced(Vec::new()).unwrap();
        engine.sync().unwrap();
        assert_eq!(engine.scan_prefix(b"").unwrap(), []);
    });
}

#[test]
fn a_key_out_of_range_refuses_its_whole_batch_and_harms_nothing() {
    for_each_engine(|engine| {
        let (empty, long) = (Vec::new(), vec![7; 70_000]);
        for key in [&empty, &long, &vec![7; 65_536]] {
            for bad in [put(key, b"x"), delete(key)] {
                for batch in [vec![put(b"good", b"x"), bad.clone()], vec![bad, put(b"good", b"x")]]
                {
                    let error = engine.write_batch(batch.clone()).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Invalid);
                    assert!(engine.write_batch_synced(batch).is_err());
                }
            }
            assert!(engine.put(key, b"x").is_err());
            assert!(engine.delete(key).is_err());
            assert_eq!(engine.get(key).unwrap(), None);
        }
        assert_eq!(engine.scan_prefix(&long).unwrap(), []);
        assert_eq!(engine.scan_prefix(b"").unwrap(), []);
        engine.write_batch_synced(vec![put(b"good", b"y")]).unwrap();
        assert_eq!(engine.get(b"good").unwrap().as_deref(), Some(&b"y"[..]));
    });
}

#[test]
fn the_smallest_and_largest_key_and_an_empty_value_are_kept() {
    for_each_engine(|engine| {
        let long = vec![0xff; 65_535];
        engine.write_batch(vec![put(b"\x00", b""), put(&long, b"long")]).unwrap();
        let expected = [pair(b"\x00", b""), pair(&long, b"long")];
        assert_eq!(engine.scan_prefix(b"").unwrap(), expected);
        assert_eq!(engine.scan_prefix(&long).unwrap(), expected[1..]);
        assert_eq!(engine.get(&long).unwrap().as_deref(), Some(&b"long"[..]));
        assert_eq!(engine.get(b"\x00").unwrap(), Some(Vec::new()));
    });
}

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    Write(Vec<WriteOp>),
    WriteSynced(Vec<WriteOp>),
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    let key = || prop::collection::vec(prop_oneof![Just(0_u8), Just(0xff), 1..4_u8], 1..4);
    let op = prop_oneof![
        2 => (key(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(key, value)| WriteOp::Put { key, value }),
        1 => key().prop_map(|key| WriteOp::Delete { key }),
    ];
    let batch = prop::collection::vec(op, 0..20);
    prop_oneof![
        4 => batch.clone().prop_map(Step::Write),
        1 => batch.prop_map(Step::WriteSynced),
        1 => Just(Step::Reopen),
    ]
}

fn apply(model: &mut BTreeMap<Vec<u8>, Vec<u8>>, ops: Vec<WriteOp>) {
    for op in ops {
        match op {
            WriteOp::Put { key, value } => model.insert(key, value),
            WriteOp::Delete { key } => model.remove(&key),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn both_engines_equal_a_map_after_every_step_reopening_included(
        steps in prop::collection::vec(any_step(), 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let memory = InMemoryBackend::new();
        let mut fjall = FjallBackend::create(&RealDisk, &path).unwrap();
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Write(ops) => {
                    memory.write_batch(ops.clone()).unwrap();
                    fjall.write_batch(ops.clone()).unwrap();
                    apply(&mut model, ops);
                }
                Step::WriteSynced(ops) => {
                    memory.write_batch_synced(ops.clone()).unwrap();
                    fjall.write_batch_synced(ops.clone()).unwrap();
                    apply(&mut model, ops);
                }
                Step::Reopen => {
                    drop(fjall);
                    fjall = FjallBackend::open(&RealDisk, &path).unwrap();
                }
            }
            let expected: Vec<KeyValue> = model.clone().into_iter().collect();
            prop_assert_eq!(memory.scan_prefix(b"").unwrap(), expected.clone());
            prop_assert_eq!(fjall.scan_prefix(b"").unwrap(), expected);
            for (key, value) in &model {
                prop_assert_eq!(fjall.get(key).unwrap(), Some(value.clone()));
            }
        }
    }
}

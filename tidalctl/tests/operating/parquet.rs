//! `tidalctl export --format parquet`, read back. Built with the feature of that name only.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Value, json};

use crate::Scene;
use crate::exports::{Shop, lines};

/// The rows of a Parquet file, as the lines of JSON have them.
fn parquet(shop: &Shop, what: &str) -> Vec<Value> {
    let name = format!("{what}.parquet");
    let said = shop.export(&format!("--what {what} --format parquet --out {name} --json")).json();
    let rows = read(&shop.temporary.path().join(name));
    assert_eq!(said["rows"], rows.len());
    rows
}

fn read(path: &Path) -> Vec<Value> {
    let file = SerializedFileReader::new(File::open(path).expect("there")).expect("a Parquet file");
    let schema = file.metadata().file_metadata().schema_descr_ptr();
    let rows = file.get_row_iter(None).expect("readable");
    let rows = rows.map(|row| {
        let row = row.expect("readable");
        let members = row.get_column_iter().enumerate().map(|(at, (name, field))| {
            let logical =
                schema.column(at).logical_type_ref().map(|logical| format!("{logical:?}"));
            let logical = logical.unwrap_or_default();
            let is_text = !name.starts_with("count_")
                && !["version", "position", "support", "records", "signals", "annotations", "late"]
                    .contains(&name.as_str());
            let value = match field {
                Field::Null => Value::Null,
                Field::Str(text) => json!(text),
                Field::Double(real) => json!(real),
                Field::Bool(flag) => json!(flag),
                Field::ULong(number) if is_text => json!(number.to_string()),
                Field::ULong(number) => json!(number),
                // The annotation says nanoseconds of UTC.
                Field::Long(nanos) => {
                    assert!(
                        logical.contains("Timestamp") && logical.contains("NANOS"),
                        "{logical}"
                    );
                    json!(nanos.to_string())
                }
                other => panic!("{name} is {other:?}, {logical}"),
            };
            (name.clone(), value)
        });
        Value::Object(members.collect())
    });
    rows.collect()
}

/// Without what depends on the moment of the export.
fn timeless(mut rows: Vec<Value>) -> Vec<Value> {
    for row in &mut rows {
        for name in ["as_of", "score", "weight"] {
            row.as_object_mut().expect("an object").remove(name);
        }
    }
    rows
}

#[test]
fn a_parquet_file_read_back_has_the_rows_of_the_lines_of_json() {
    let shop = Shop::new();
    for (what, count) in [("counters", 5), ("edges", 2), ("collections", 3), ("sessions", 0)] {
        let rows = parquet(&shop, what);
        assert_eq!(rows.len(), count, "{what}");
        assert_eq!(timeless(rows), timeless(shop.lines(what)), "{what}");
    }
    let scene = Scene::new();
    scene.look("export --dir DIR --what sessions --format parquet --out sessions.parquet").text();
    let rows = read(&scene.beside("sessions.parquet"));
    let expected = lines(scene.look("export --dir DIR --what sessions --format jsonl").text());
    assert_eq!((rows.len(), &rows), (5, &expected));
    shop.export("--what edges --format parquet").refuses(2, "--format parquet needs a file");
    assert_eq!((&rows[0]["cause"], &rows[4]["cause"]), (&json!("closed"), &json!(null)));
}

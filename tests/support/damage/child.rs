//! The child's side: makes one damaged copy after the other, opens it and says what came of it.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use tidaldb::schema::EntityId;
use tidaldb::{Error, TidalDb};

use super::edit::Case;
use super::run::{ITEMS, Outcome, State, stores_of};
use super::tree::{Image, Tree};
use crate::child;
use crate::operations::{builder, quiet_options};

/// The case that is open, for the panics on its way.
static AT: AtomicUsize = AtomicUsize::new(0);

/// What the child does that [`run`](super::run) starts: call it from the test named there.
pub fn serve() {
    let scene = PathBuf::from(child::told("TIDAL_SCENE"));
    let copy = PathBuf::from(child::told("TIDAL_WORK")).join("copy");
    let again = child::told("TIDAL_AGAIN") == "true";
    let from: usize = child::told("TIDAL_FROM").parse().expect("a number");
    let list = fs::read_to_string(child::told("TIDAL_LIST")).expect("the list is read");
    std::panic::set_hook(Box::new(report_panic));
    let mut images: HashMap<String, Image> = HashMap::new();
    for (index, line) in list.lines().enumerate().skip(from) {
        let case: Case = line.parse().expect("a case");
        AT.store(index, Ordering::Relaxed);
        let image =
            images.entry(case.of.clone()).or_insert_with(|| Image::load(&scene.join(&case.of)));
        let make = |at: &Path| {
            let _ = fs::remove_dir_all(at);
            image.write(at);
            case.edits.iter().for_each(|edit| edit.apply(&scene, at));
            Tree::of(at)
        };
        let before = if again && index == from {
            // The copy is as the open that died of it left it.
            let fresh = copy.with_file_name("fresh");
            let before = make(&fresh);
            fs::remove_dir_all(&fresh).expect("the copy is removed");
            before
        } else {
            make(&copy)
        };
        let outcome = match opened(&copy, case.twice) {
            Ok((first, second)) => Outcome::Opened { first, second },
            Err(error) => refused(&case, &error, &before.changes(&Tree::of(&copy))),
        };
        child::report(&format!("{index}\t{outcome}"));
        fs::remove_dir_all(&copy).expect("the copy is removed");
    }
}

/// Panics are caught where fjall is called, so what counts is where they come from.
fn report_panic(info: &PanicHookInfo<'_>) {
    let at = info.location().map_or("?".to_owned(), ToString::to_string);
    let said = info.payload_as_str().unwrap_or("?").replace(['\n', '\t'], " ");
    child::report(&format!("{}\tpanic\t{at}: {said}", AT.load(Ordering::Relaxed)));
}

fn opened(dir: &Path, twice: bool) -> Result<(State, Option<State>), Error> {
    let open = || builder(quiet_options()).with_data_dir(dir).open();
    let db = open()?;
    let first = state_of(&db);
    if !twice {
        return Ok((first, None));
    }
    // Whatever was damaged is rebuilt by two checkpoints, and nothing is left to repair.
    for _ in 0..2 {
        db.checkpoint()?;
    }
    db.health_check()?;
    db.close()?;
    let second = state_of(&open()?);
    Ok((first, Some(second)))
}

fn state_of(db: &TidalDb) -> State {
    let one_line = |text: String| text.replace(['\n', '\t'], " ");
    let broken = match db.verify() {
        Ok(report) => report.broken.join("; "),
        Err(error) => error.to_string(),
    };
    State {
        stores: stores_of(db),
        operations: crate::operations::survived(db),
        digest: db.state_digest().map_or_else(|e| one_line(e.to_string()), |d| crate::hex(&d)),
        rows: rows_of(db),
        broken: one_line(broken),
        repairs: one_line(db.open_report().repairs.join("; ")),
    }
}

/// A hash of all metadata, or the first error.
pub(super) fn rows_of(db: &TidalDb) -> String {
    let mut hasher = DefaultHasher::new();
    for item in ITEMS {
        match db.get_item_metadata(EntityId::new(item)) {
            Ok(row) => {
                let mut row: Vec<_> = row.into_iter().flatten().collect();
                row.sort_unstable();
                row.hash(&mut hasher);
            }
            Err(error) => return format!("item {item}: {error}").replace(['\n', '\t'], " "),
        }
    }
    format!("{:016x}", hasher.finish())
}

fn refused(case: &Case, error: &Error, changes: &[String]) -> Outcome {
    // Locks, marks of opening and the reserve are there to be written by an open. And fjall, while
    // it opens a store, cuts its journal where the damage begins.
    let harmless = |change: &&String| {
        let is_cut = change.strip_prefix('~').is_some_and(|file| {
            file.ends_with(".jnl") && case.edits.iter().any(|edit| edit.damages(file))
        });
        is_cut
            || matches!(change.as_str(), "+LOCK" | "+reserve" | "-reserve" | "~reserve")
            || change.ends_with(".opening")
    };
    let debug = format!("{error:?}");
    let variant = debug.split([' ', '(', '{']).next().unwrap_or_default().to_owned();
    Outcome::Refused {
        variant,
        message: error.to_string().replace(['\n', '\t'], " "),
        changes: changes.iter().filter(|change| !harmless(change)).cloned().collect(),
    }
}

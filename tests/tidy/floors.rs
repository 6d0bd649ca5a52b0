//! The floors of the engine's rooms, and who names whom.
//!
//! Knows: the plan of the house. Must not know: what happens in a room.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{PathUse, paths};
use crate::tree::{Source, engine_sources};

/// Room, floor, and step: a room may name rooms of lower floors, and of its own floor those on a
/// lower step. Steps are there where two rooms of one floor do meet, with the reason.
const ROOMS: &[(&str, u8, u8)] = &[
    ("lib", 9, 0),
    ("db", 8, 0),
    ("fuzzing", 8, 0), // for tests only: a way in for hostile bytes, past the public calls
    ("recovery", 7, 1), // it hands over the parts that the engine's threads start from
    ("engine", 7, 0),
    ("verify", 7, 0),
    ("checkpoint", 6, 0),
    ("state", 6, 0),
    ("co_engagement", 5, 0),
    ("cohorts", 5, 0),
    ("collections", 5, 0),
    ("ingest", 5, 0),
    ("items", 5, 0),
    ("processors", 5, 0),
    ("sessions", 5, 0),
    ("signals", 5, 0),
    ("wal", 5, 0),
    ("record", 4, 0),
    ("table", 4, 0),
    ("decay", 3, 0),
    ("health", 3, 0),
    ("storage", 3, 0),
    ("schema", 2, 1), // a stored schema is bytes, which only `codec` makes and reads
    ("clock", 2, 0),
    ("codec", 2, 0),
    ("options", 2, 0),
    ("error", 1, 2), // its sentences name times and ends
    ("end", 1, 1),   // a session may end because of another, at some time
    ("ids", 1, 0),
    ("fault", 0, 0),
    ("seq", 0, 0),
    ("sync", 0, 0),
];

/// Every import that goes up or sideways, and every room without a floor.
pub(crate) fn violations() -> Vec<String> {
    let sources = engine_sources();
    let floors: BTreeMap<&str, (u8, u8)> =
        ROOMS.iter().map(|&(room, floor, step)| (room, (floor, step))).collect();
    let rooms: BTreeSet<&str> = sources.iter().map(|file| room_of(&file.module)).collect();
    let mut violations = Vec::new();
    for room in rooms.iter().filter(|room| !floors.contains_key(**room)) {
        violations.push(format!("room {room:?} has no floor: give it one in tests/tidy/floors.rs"));
    }
    for room in floors.keys().filter(|room| !rooms.contains(**room)) {
        violations.push(format!("room {room:?} has a floor and does not exist"));
    }
    let reexports = reexports(&sources);
    for file in &sources {
        let from = room_of(&file.module);
        let Some(&here) = floors.get(from) else { continue };
        for path in paths(&file.tokens) {
            let Some(to) = target(&path, &file.module, &reexports, &rooms) else { continue };
            let is_below = floors.get(to).is_none_or(|&there| there < here);
            if to != from && !is_below {
                let named = path.segments.join("::");
                violations.push(format!(
                    "{}:{}: {from} (floor {}) names {named} of {to} (floor {})",
                    file.path, path.line, here.0, floors[to].0
                ));
            }
        }
    }
    violations
}

fn room_of(module: &[String]) -> &str {
    module.first().map_or("lib", String::as_str)
}

/// The names that the root of the crate passes on, and the rooms they come from: `crate::Error` is
/// a name of the room `error`.
fn reexports(sources: &[Source]) -> BTreeMap<String, String> {
    let root = sources.iter().find(|file| file.module.is_empty()).expect("a crate has a root");
    let from_a_room = |path: PathUse| {
        let segments: Vec<&String> = path.segments.iter().filter(|s| *s != "crate").collect();
        let [room, .., name] = segments[..] else { return None };
        Some((path.alias.unwrap_or_else(|| name.clone()), room.clone()))
    };
    paths(&root.tokens).into_iter().filter_map(from_a_room).collect()
}

/// The room that a path leads to; `None` when it leads out of the crate.
fn target<'a>(
    path: &PathUse,
    module: &[String],
    reexports: &'a BTreeMap<String, String>,
    rooms: &BTreeSet<&'a str>,
) -> Option<&'a str> {
    let depth = module.len() + path.inline_modules;
    let supers = path.segments.iter().take_while(|segment| *segment == "super").count();
    let first = if path.segments.first().is_some_and(|segment| segment == "crate") {
        path.segments.get(1)?
    } else if supers > 0 && supers == depth {
        path.segments.get(supers)?
    } else {
        return None;
    };
    let passed_on = || reexports.get(first).map(String::as_str);
    Some(rooms.get(first.as_str()).copied().or_else(passed_on).unwrap_or("lib"))
}

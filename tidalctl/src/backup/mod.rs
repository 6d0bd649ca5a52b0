//! `tidalctl backup` and `restore`: a database elsewhere, whole and checked.
//!
//! Knows: the order of the steps. Must not know: what lies in a database.
//!
//! A backup at `x` is `x/database`, the bytes of the database, and `x/manifest.json`, which is written
//! last: without it the rest is none.

mod manifest;

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use crate::cli::{BackupArgs, RestoreArgs};
use crate::engine::{Engine, hex};
use crate::failure::Failure;
use crate::files::{self, Stage};
use crate::print;
use crate::value::{size, thousands};
use manifest::Manifest;

const MANIFEST: &str = "manifest.json";
const DATABASE: &str = "database";

/// Carries out `tidalctl backup`.
///
/// # Errors
///
/// When something lies where the backup is to be, or the database cannot be copied or does not verify.
pub(crate) fn backup(args: &BackupArgs) -> anyhow::Result<()> {
    files::expect_free(&args.to)?;
    let stage = Stage::beside(&args.to)?;
    let database = stage.path().join(DATABASE);
    Engine::copy(&args.of.dir, &database)?;
    let (digest, seq) = verified(&database, &args.to)?;
    let manifest = Manifest::of(&database, digest, seq)?;
    files::write_new(&stage.path().join(MANIFEST), |out| manifest.write(out))?;
    name(stage, &args.of.dir, &args.to)?;
    report("backed up", &manifest, &args.to, args.of.json)
}

/// Carries out `tidalctl restore`.
///
/// # Errors
///
/// When something lies where the database is to be, or the backup is not whole or not as it was made.
pub(crate) fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    files::expect_free(&args.to)?;
    let path = args.from.join(MANIFEST);
    let text = std::fs::read(&path).map_err(|error| {
        Failure::failed(format!("{} is not a whole backup: {error}", args.from.display()))
            .hint("--from is a directory that tidalctl backup has made")
    })?;
    let manifest = Manifest::parse(&text).map_err(|wrong| wrong.in_file(&path))?;
    let stage = Stage::beside(&args.to)?;
    manifest.restore(&args.from.join(DATABASE), stage.path())?;
    let (digest, _) = verified(stage.path(), &args.to)?;
    if digest != manifest.digest() {
        return Err(damaged("it opens, and its state is not the one that was backed up").into());
    }
    name(stage, &args.from, &args.to)?;
    report("restored", &manifest, &args.to, args.json)
}

/// Checks a copy of a database whole. The copy lies beside `target`, where there is room for one.
fn verified(database: &Path, target: &Path) -> anyhow::Result<(String, u64)> {
    let scratch = Stage::beside(target)?;
    let found = Engine::inspect_as_left(database, &scratch.path().join("copy"))?;
    match found.digest {
        Some(digest) => Ok((hex(&digest), found.opened.seq.get())),
        None => Err(damaged(&found.verified.broken.join("; ")).into()),
    }
}

fn damaged(what: &str) -> Failure {
    Failure::failed(format!("the copy does not verify: {what}"))
        .hint("nothing was made; tidalctl verify says what is damaged, an older backup may not be")
}

/// Gives a directory, whose files are durable, its name, and lets those in who may see the other one.
fn name(stage: Stage, like: &Path, target: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", target.display());
    files::admit_as(like, stage.path()).with_context(failed)?;
    stage.give_name(target)
}

fn report(verb: &str, manifest: &Manifest, to: &Path, as_json: bool) -> anyhow::Result<()> {
    let (files, size_bytes) = (manifest.files(), manifest.size_bytes());
    if as_json {
        return Ok(print::json(&json!({
            "to": to.display().to_string(),
            "files": files,
            "size_bytes": size_bytes,
            "digest": manifest.digest(),
        }))?);
    }
    let (count, size, digest) = (thousands(files), size(size_bytes), manifest.digest());
    let line = format!("{verb} to {}: {count} files, {size}; it verifies", to.display());
    Ok(print::out(&format!("{}digest {digest}\n", print::printable_line(&line)))?)
}

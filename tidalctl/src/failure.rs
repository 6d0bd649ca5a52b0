//! How a command fails: one line that says what, one that says what to do, and an exit code.
//!
//! Knows: messages and exit codes. Must not know: any command.

use std::fmt;
use std::io;

/// The command ran and failed.
const EXIT_FAILED: u8 = 1;
/// The command line itself is wrong; clap uses the same code for what it refuses.
const EXIT_USAGE: u8 = 2;

/// A failure whose text is written for the person at the keyboard.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    exit_code: u8,
}

impl Failure {
    /// The command line asks for something impossible.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit_code: EXIT_USAGE }
    }

    /// The command was right, and could not be carried out.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit_code: EXIT_FAILED }
    }

    /// What the person can do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, when there is something to say.
    #[must_use]
    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The lines to print for `error`, and the exit code.
///
/// `None` when there is nobody left to tell: the reader of our output has gone, as `head` does.
pub(crate) fn describe(error: &anyhow::Error) -> Option<(String, u8)> {
    let pipe_closed = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe);
    if pipe_closed {
        return None;
    }
    let failure = error.downcast_ref::<Failure>();
    let mut text = format!("error: {error:#}").replace('\n', " ");
    if let Some(hint) = failure.and_then(|failure| failure.hint.as_deref()) {
        text.push_str("\nhint: ");
        text.push_str(hint);
    }
    Some((text, failure.map_or(EXIT_FAILED, |failure| failure.exit_code)))
}

/// Says which known name the given one probably meant.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let reach = (name.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|&(distance, _)| distance <= reach)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edit distance in characters, upper and lower case alike.
fn distance(left: &str, right: &str) -> usize {
    let fold = |text: &str| text.to_lowercase().chars().collect::<Vec<char>>();
    let (left, right) = (fold(left), fold(right));
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_hint_and_the_exit_code_survive_added_context() {
        let failed: anyhow::Result<()> = Err(Failure::usage("no such column").hint("look").into());
        let error = failed.context("reading events.csv").expect_err("made to fail");
        let (text, exit_code) = describe(&error).expect("someone is listening");
        assert_eq!(text, "error: reading events.csv: no such column\nhint: look");
        assert_eq!(exit_code, 2);
    }

    #[test]
    fn an_error_of_several_lines_is_told_in_one() {
        let (text, exit_code) = describe(&anyhow::anyhow!("first\nsecond")).expect("told");
        assert_eq!((text.as_str(), exit_code), ("error: first second", 1));
    }

    #[test]
    fn a_closed_pipe_is_nobodys_error() {
        let closed = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(describe(&closed.context("printing")).is_none());
    }

    #[test]
    fn the_nearest_name_ignores_case_and_gives_up_on_strangers() {
        assert_eq!(nearest("itemid", ["SessionId", "ItemId", "Time"]), Some("ItemId"));
        assert_eq!(nearest("tim", ["item", "time"]), Some("time"));
        assert_eq!(nearest("warehouse", ["item", "time"]), None);
    }
}

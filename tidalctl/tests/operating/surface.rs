//! Help and completions.

use std::path::Path;

use crate::{Said, run};

fn said(line: &str) -> Said {
    run(line, Path::new("/tmp/nowhere"))
}

/// The commands that operators have.
const COMMANDS: [&str; 20] = [
    "sessions list",
    "sessions show",
    "sessions overdue",
    "sessions export",
    "jobs",
    "plan prune",
    "plan reset",
    "plan requeue",
    "plan reprocess",
    "apply",
    "inspect",
    "health",
    "serve",
    "export",
    "backup",
    "restore",
    "completions",
    "status",
    "top",
    "recommend",
];

#[test]
fn every_command_has_examples_and_says_whether_it_changes_anything() {
    for command in COMMANDS {
        let help = said(&format!("{command} --help"));
        let example = format!("  tidalctl {command} ");
        assert!(help.text().contains("Examples:") && help.out.contains(&example), "{help:?}");
        let said_of = [
            "leave the database as it is",
            "leaves the database as it is",
            "changes nothing",
            "changes it",
        ];
        let help_text = help.out.split_whitespace().collect::<Vec<_>>().join(" ");
        let says = said_of.iter().any(|words| help_text.contains(words));
        assert!(says || command == "completions", "{help:?}");
    }
}

#[test]
fn completions_are_for_the_shells_there_are_and_know_every_command() {
    for (shell, mark) in
        [("bash", "complete -F"), ("zsh", "#compdef tidalctl"), ("fish", "complete -c tidalctl")]
    {
        let script = said(&format!("completions {shell}"));
        assert!(script.text().contains(mark), "{shell}");
        for word in ["sessions", "overdue", "prune", "older-than", "on-open"] {
            assert!(script.out.contains(word), "{shell} does not know {word}");
        }
    }
    assert_eq!(said("completions tcsh").code, 2);
    assert_eq!(said("completions").code, 2);
}

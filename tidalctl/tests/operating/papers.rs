//! The commands that the papers tell operators to run.

use std::path::Path;

use crate::Scene;

/// The commands in the blocks for a shell, comments cut off.
fn commands(text: &str) -> Vec<&str> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = line == "```sh";
        } else if in_block && line.starts_with("tidalctl ") {
            let line = line.split_once(" #").map_or(line, |(command, _)| command);
            found.push(line.trim_start_matches("tidalctl ").trim());
        }
    }
    found
}

fn paper(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    std::fs::read_to_string(root.join(name)).expect("it is there")
}

/// Runs them one after the other beside a database that is called as theirs is.
fn all_succeed(commands: &[&str]) {
    let scene = Scene::new();
    for command in commands {
        // The one session that they name.
        scene.run(&command.replace("1041", &scene.old[0].to_string())).text();
    }
}

#[test]
fn every_command_of_the_page_on_operations_runs() {
    let text = paper("docs/operations.md");
    let commands = commands(&text);
    assert!(commands.len() >= 15, "the blocks are not found: {commands:?}");
    all_succeed(&commands);
}

#[test]
fn every_command_for_operators_in_the_readme_runs() {
    let text = paper("README.md");
    let (_, operating) = text.split_once("\nOperate it").expect("the section is there");
    let (operating, _) = operating.split_once("\n## ").expect("another one follows");
    let commands = commands(operating);
    assert!(commands.len() >= 6, "the block is not found: {commands:?}");
    all_succeed(&commands);
}

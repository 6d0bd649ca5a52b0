//! The commands that the papers tell operators to run.

use tidaldb::ProcessorOptions;
use tidaldb::builtin::Usage;

use crate::serving::Server;
use crate::{Scene, paper};

/// The commands in the blocks for a shell, comments cut off.
fn commands(text: &str) -> Vec<&str> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = line == "```sh";
        } else if in_block && (line.starts_with("tidalctl ") || line.starts_with("curl ")) {
            let line = line.split_once(" #").map_or(line, |(command, _)| command);
            found.push(line.trim_start_matches("tidalctl ").trim());
        }
    }
    found
}

/// The token that the papers have in a file called `token`.
const TOKEN: &str = "o6P0VxkR7mbJx2uQnV0s";

/// Where the papers have `tidalctl serve` listen; tests take any port that is free.
const PORT: &str = ":9187";

/// Runs them one after the other beside a database that is called as theirs is. One that serves does so
/// until there is something else to do than to ask it.
fn all_succeed(commands: &[&str]) {
    let scene = Scene::new();
    std::fs::write(scene.beside("token"), TOKEN).expect("written");
    // The processor that they name.
    let db = scene.open_it();
    db.sessions().register(Usage::new(), ProcessorOptions::default()).expect("registered");
    db.close().expect("closed");
    let mut serving: Option<Server> = None;
    for command in commands {
        if let Some(url) = command.strip_prefix("curl ") {
            asked(serving.as_ref().expect("something serves"), url);
            continue;
        }
        if let Some(server) = serving.take() {
            assert_eq!(server.stop("-TERM").code, 0);
        }
        // The one session that they name.
        let line = command.replace("1041", &scene.old[0].to_string());
        if command.starts_with("serve ") {
            assert!(line.contains(PORT), "{line}");
            serving = Some(Server::start(&line.replace(PORT, ":0"), &scene.dir));
        } else if command.starts_with("health ") {
            // Its exit code says how the database is.
            let said = scene.run(&line);
            assert!([0, 3].contains(&said.code) && said.err.is_empty(), "{said:?}");
        } else {
            scene.run(&line).text();
        }
    }
}

/// Asks as curl would.
fn asked(server: &Server, words: &str) {
    let (_, path) = words.split_once(PORT).expect("an address of the papers");
    let bring = words.contains(r#"-H "Authorization: Bearer $(cat token)""#);
    let answer = server.get_with(path, if bring { TOKEN } else { "none" });
    assert_eq!(answer.status, 200, "{words}: {answer:?}");
    assert!(!answer.body.is_empty(), "{words}");
}

#[test]
fn every_command_of_the_page_on_operations_runs() {
    let text = paper("docs/operations.md");
    let commands = commands(&text);
    assert!(commands.len() >= 30, "the blocks are not found: {commands:?}");
    all_succeed(&commands);
}

#[test]
fn every_command_for_operators_in_the_readme_runs() {
    let text = paper("README.md");
    let (_, operating) = text.split_once("\nOperate it").expect("the section is there");
    let (operating, _) = operating.split_once("\n## ").expect("another one follows");
    let commands = commands(operating);
    assert!(commands.len() >= 8, "the block is not found: {commands:?}");
    all_succeed(&commands);
}

//! The pages of the documentation are true: their commands are run as they are written, and show what the pages say.
//! `scripts/docs-walk.d/walk.py` does it, and says how; `make docs-walk` is the same by hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Walks pages with this binary.
fn walk(pages: &[PathBuf]) -> Output {
    Command::new("python3")
        .arg(root().join("scripts/docs-walk.d/walk.py"))
        .args(["--binary", env!("CARGO_BIN_EXE_agentrunner"), "--node"])
        .arg(testkit::node_folder().join("node_modules"))
        .args(pages)
        .output()
        .unwrap()
}

fn assert_true(pages: &[PathBuf]) {
    let walked = walk(pages);
    let said = String::from_utf8_lossy(&walked.stdout);
    let errors = String::from_utf8_lossy(&walked.stderr);
    assert!(walked.status.success(), "{said}{errors}");
}

/// What somebody reads who has nothing yet.
const FIRST: [&str; 3] = ["README.md", "CONTRIBUTING.md", "docs/first-steps.md"];

#[test]
fn a_new_user_gets_from_nothing_to_an_agent_of_his_own() {
    assert_true(&FIRST.map(|page| root().join(page)));
}

#[test]
fn every_command_of_the_documentation_does_what_its_page_says() {
    let mut pages: Vec<PathBuf> = std::fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        // Walked above; and by `make guide-walk`, against containers.
        .filter(|path| {
            let elsewhere = ["first-steps.md", "operations-guide.md", "guide-walk.md"];
            !elsewhere.iter().any(|page| path.ends_with(page))
        })
        .collect();
    pages.sort();
    assert!(pages.len() > 20, "{pages:?}");
    assert_true(&pages);
}

#[test]
fn what_of_the_guide_is_not_run_as_it_is_written_is_told() {
    let told = Command::new("python3")
        .arg(root().join("scripts/guide-walk.d/walk.py"))
        .arg("--page")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{errors}");
    let page = std::fs::read_to_string(root().join("docs/guide-walk.md")).unwrap();
    assert!(
        String::from_utf8_lossy(&told.stdout) == page,
        "docs/guide-walk.md is old: scripts/guide-walk.d/walk.py --page prints it"
    );
}

#[test]
fn a_page_that_says_what_is_not_so_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.md");
    let nothing = "<!-- walk: from nothing -->\n";
    for (text, told) in [
        ("```sh\nagentrunner --versoin\n```\n", "it ended with 2"),
        (
            "```sh\nagentrunner --version\n```\n```text\nagentrunner 99\n```\n",
            "nothing like 'agentrunner 99'",
        ),
        (
            "```sh\nagentrunner tasks --json\n```\n```json\n[{\"execution_id\": \"\"}]\n```\n",
            "it is empty",
        ),
        (
            "<!-- not run: -->\n```sh\nagentrunner up\n```\n",
            "it says not why",
        ),
        (
            "<!-- not rum: a mistake -->\n```sh\ntrue\n```\n",
            "unknown marks",
        ),
    ] {
        std::fs::write(&page, format!("{nothing}{text}")).unwrap();
        let walked = walk(std::slice::from_ref(&page));
        let said = String::from_utf8_lossy(&walked.stdout);
        assert_eq!(walked.status.code(), Some(1), "{text}\n{said}");
        assert!(said.contains(told), "{text}\n{said}");
    }
}

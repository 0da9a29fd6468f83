//! The file tools and the folder that they cannot leave.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use agentrunner_tools::Toolkit;
use domain::definition::Tool;
use serde_json::{Value, json};

use crate::support::{entry, failure, refusal, run, text, toolkit};

struct Folder {
    _dir: tempfile::TempDir,
    toolkit: Toolkit,
}

fn folder() -> Folder {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("sub/deep")).unwrap();
    fs::write(dir.path().join("secret.txt"), "secret").unwrap();
    fs::create_dir(dir.path().join("root-other")).unwrap();
    fs::write(dir.path().join("root-other/secret.txt"), "secret").unwrap();
    let lines: String = (1..=50).map(|n| format!("line {n}\n")).collect();
    fs::write(root.join("a.log"), lines).unwrap();
    fs::write(root.join("sub/b.log"), "Error: one\r\nfine\r\nERROR: two").unwrap();
    fs::write(root.join("sub/deep/c.txt"), "Error: three\n").unwrap();
    fs::write(root.join("binary"), b"Error\0\x01\x02").unwrap();
    symlink(dir.path().join("secret.txt"), root.join("out")).unwrap();
    symlink(dir.path(), root.join("up")).unwrap();
    symlink(Path::new("a.log"), root.join("in")).unwrap();
    symlink(Path::new("."), root.join("sub/loop")).unwrap();
    let working_dir = dir.path().to_owned();
    Folder {
        toolkit: toolkit(|settings| settings.working_dir = working_dir),
        _dir: dir,
    }
}

fn tool(name: &str, max: usize) -> Tool {
    entry(json!({"name": name, "type": "function", "root": "root", "max_result_bytes": max}))
}

async fn read(folder: &Folder, arguments: Value) -> String {
    text(
        run(
            &folder.toolkit,
            &tool("read_file", 65_536),
            "read_file",
            arguments,
        )
        .await,
    )
}

#[tokio::test]
async fn a_file_is_read_by_lines() {
    let folder = folder();
    let whole = read(&folder, json!({"path": "a.log"})).await;
    assert!(whole.starts_with("line 1\n") && whole.ends_with("line 50\n"));
    assert_eq!(
        read(
            &folder,
            json!({"path": "./sub/../a.log", "start_line": 3, "max_lines": 2})
        )
        .await,
        "line 3\nline 4\n[lines 3 to 4; the file goes on: read on with start_line 5]"
    );
    assert_eq!(
        read(&folder, json!({"path": "in", "start_line": 50})).await,
        "line 50\n"
    );
    let small = tool("read_file", 160);
    let part = text(
        run(
            &folder.toolkit,
            &small,
            "read_file",
            json!({"path": "a.log"}),
        )
        .await,
    );
    assert!(part.len() <= 160 && part.contains("start_line 6"), "{part}");
}

#[tokio::test]
async fn what_is_no_text_file_is_told() {
    let folder = folder();
    let tool = tool("read_file", 65_536);
    for (path, words) in [
        ("binary", "not a text file"),
        ("sub", "a folder"),
        ("none", "no such file"),
    ] {
        let reason = failure(run(&folder.toolkit, &tool, "read_file", json!({"path": path})).await);
        assert!(reason.contains(words), "{path}: {reason}");
    }
    let beyond = json!({"path": "a.log", "start_line": 51});
    let reason = failure(run(&folder.toolkit, &tool, "read_file", beyond).await);
    assert!(reason.contains("50 lines"), "{reason}");
}

#[tokio::test]
async fn the_root_is_not_left() {
    let folder = folder();
    for path in [
        "../secret.txt",
        "sub/../../secret.txt",
        "out",
        "up/secret.txt",
        "../root-other/secret.txt",
        "/etc/passwd",
        "up",
        "..",
    ] {
        for name in ["read_file", "list_files", "search_files"] {
            let arguments = json!({"path": path, "text": "secret"});
            let outcome = run(&folder.toolkit, &tool(name, 65_536), name, arguments).await;
            let reason = refusal(outcome);
            assert!(reason.contains("leads out"), "{name} {path}: {reason}");
        }
    }
    let nul = json!({"path": "a\0b"});
    failure(run(&folder.toolkit, &tool("read_file", 100), "read_file", nul).await);
}

#[tokio::test]
async fn folders_are_listed() {
    let folder = folder();
    let tool = tool("list_files", 65_536);
    let list = async |arguments| text(run(&folder.toolkit, &tool, "list_files", arguments).await);
    assert_eq!(
        list(json!({})).await,
        "a.log 391\nbinary 8\nin (link)\nout (link)\nsub/\nup (link)"
    );
    assert_eq!(
        list(json!({"recursive": true, "pattern": "*.{log,txt}"})).await,
        "a.log 391\nsub/b.log 28\nsub/deep/c.txt 13"
    );
    assert_eq!(list(json!({"path": "sub/deep"})).await, "sub/deep/c.txt 13");
    assert_eq!(list(json!({"pattern": "*.md"})).await, "[nothing]");
}

#[tokio::test]
async fn lines_are_found() {
    let folder = folder();
    let tool = tool("search_files", 65_536);
    let find = async |arguments| text(run(&folder.toolkit, &tool, "search_files", arguments).await);
    assert_eq!(
        find(json!({"text": "Error"})).await,
        "sub/b.log:1: Error: one\nsub/deep/c.txt:1: Error: three"
    );
    assert_eq!(
        find(json!({"text": "error", "ignore_case": true, "pattern": "*.log"})).await,
        "sub/b.log:1: Error: one\nsub/b.log:3: ERROR: two"
    );
    assert_eq!(
        find(json!({"text": "line 50", "path": "a.log"})).await,
        "a.log:50: line 50"
    );
    assert_eq!(
        find(json!({"text": "nowhere"})).await,
        "[no line contains it]"
    );
    let many = find(json!({"text": "e", "path": "a.log"})).await;
    assert_eq!(many.lines().count(), 50);
}

//! Keeps the house as `docs/architecture.md` draws it: who may use whom, and which door a heavy dependency is behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which crates of the house each crate may use (besides `testkit`, for tests).
const MAY_USE: [(&str, &[&str]); 9] = [
    ("domain", &[]),
    ("store", &["domain"]),
    ("bus", &["domain"]),
    ("llm", &["domain"]),
    ("tools", &["domain"]),
    ("engine", &["domain", "store", "bus", "llm", "tools"]),
    (
        "services",
        &["domain", "store", "bus", "llm", "tools", "engine"],
    ),
    (
        "agentrunner",
        &[
            "domain", "store", "bus", "llm", "tools", "engine", "services",
        ],
    ),
    ("testkit", &[]),
];

/// Heavy or dangerous dependencies, and the only crates that may have them (tests aside).
const BEHIND_ONE_DOOR: [(&str, &[&str]); 14] = [
    ("aws-config", &["llm"]),
    ("aws-sigv4", &["llm"]),
    ("rusqlite", &["store"]),
    ("tokio-postgres", &["store"]),
    ("redis", &["store"]),
    ("lapin", &["bus"]),
    ("rmcp", &["tools", "services"]),
    ("jsonschema", &["tools", "services"]),
    ("lettre", &["services"]),
    ("reqwest", &["llm", "tools", "services", "agentrunner"]),
    ("utoipa", &["services"]),
    ("opentelemetry_sdk", &["agentrunner"]),
    ("notify", &["services"]),
    ("clap", &["agentrunner", "testkit"]),
];

/// What `domain` may use: data and arithmetic, nothing that reaches the world.
const DOMAIN_USES: [&str; 11] = [
    "chrono",
    "chrono-tz",
    "croner",
    "regex",
    "schemars",
    "serde",
    "serde_json",
    "sha2",
    "strsim",
    "thiserror",
    "uuid",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// The dependencies of each crate of the house, those for tests aside.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let short = |name: &str| name.trim_start_matches("agentrunner-").to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().unwrap().iter();
            let used = all
                .filter(|d| d["kind"].is_null())
                .map(|d| short(d["name"].as_str().unwrap()));
            (short(package["name"].as_str().unwrap()), used.collect())
        })
        .collect()
}

#[test]
fn every_crate_uses_only_those_below_it() {
    let house: BTreeMap<&str, &[&str]> = MAY_USE.into_iter().collect();
    let dependencies = dependencies();
    assert_eq!(
        dependencies.len(),
        house.len(),
        "a crate is missing from the table: {:?}",
        dependencies.keys()
    );
    for (name, used) in &dependencies {
        for other in used
            .iter()
            .filter(|other| house.contains_key(other.as_str()))
        {
            assert!(
                house[name.as_str()].contains(&other.as_str()),
                "{name} uses {other}, which is not below it"
            );
        }
    }
}

#[test]
fn heavy_dependencies_stay_behind_one_door() {
    for (name, used) in dependencies() {
        for (heavy, doors) in BEHIND_ONE_DOOR {
            let allowed = doors.contains(&name.as_str()) || !used.contains(heavy);
            assert!(allowed, "{name} uses {heavy}, which belongs to {doors:?}");
        }
    }
}

#[test]
fn the_domain_touches_nothing() {
    for used in &dependencies()["domain"] {
        assert!(DOMAIN_USES.contains(&used.as_str()), "domain uses {used}");
    }
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let root = root();
    let mut documents = vec![
        root.join("README.md"),
        root.join("CONTRIBUTING.md"),
        root.join("CHANGELOG.md"),
    ];
    collect(&root.join("docs"), "md", &mut documents);
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in
            targets.filter(|t| !t.contains("://") && !t.starts_with('#') && !t.contains(' '))
        {
            let path = document
                .parent()
                .unwrap()
                .join(target.split('#').next().unwrap());
            assert!(
                path.exists(),
                "{} links to {target}, which is not there",
                document.display()
            );
        }
    }
}

#[test]
fn a_file_fits_in_the_head() {
    let mut files = Vec::new();
    collect(&root().join("crates"), "rs", &mut files);
    let mut lengths: Vec<(usize, PathBuf)> = files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            (code.lines().count(), path)
        })
        .collect();
    lengths.sort();
    for (lines, path) in lengths.iter().rev().take(8) {
        println!("{lines:5} {}", path.display());
    }
    let (longest, path) = lengths.last().unwrap();
    assert!(
        *longest <= 800,
        "{} has {longest} lines of code: split it",
        path.display()
    );
}

fn collect(folder: &Path, ending: &str, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, ending, files);
        } else if path.extension().is_some_and(|e| e == ending) {
            files.push(path);
        }
    }
}

#[test]
fn the_schema_beside_the_agents_is_the_one_that_the_code_has() {
    let committed = std::fs::read_to_string(root().join("config/agent.schema.json")).unwrap();
    let project = crate::product::Project::new();
    let made = Command::new(env!("CARGO_BIN_EXE_agentrunner"))
        .arg("init")
        .current_dir(project.path())
        .env_clear()
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let current = std::fs::read_to_string(project.path().join("config/agent.schema.json")).unwrap();
    assert!(
        committed == current,
        "config/agent.schema.json is old: make it anew by `agentrunner init` in an empty folder"
    );
}

//! The pages say what the code does: every example is read, every field and route has its place.

use std::collections::BTreeSet;
use std::path::Path;

use agentrunner_services::config::{parse, render, schema};
use agentrunner_services::http::{Service, api};
use serde_json::Value;

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(&fence)
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next())
        .collect()
}

#[test]
fn every_example_of_an_agent_is_valid() {
    let text = page("agents.md");
    let examples = blocks(&text, "yaml");
    assert!(examples.len() >= 8, "{}", examples.len());
    for example in examples {
        let set = |_: &str| Some("x".to_owned());
        match parse(example, "agents.md", &set) {
            Ok(parsed) => assert!(parsed.warnings.is_empty(), "{}", render(&parsed.warnings)),
            Err(found) => panic!("{}\n{example}", render(&found)),
        }
    }
}

#[test]
fn every_field_of_an_agent_is_described_and_has_an_example() {
    let text = page("agents.md");
    let examples = blocks(&text, "yaml").concat();
    // What stands before a colon ends with a key.
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let shown: BTreeSet<&str> = examples
        .split(':')
        .filter_map(|before| before.rsplit(|c| !word(c)).next())
        .collect();
    let mut missing = BTreeSet::new();
    let mut visit = |schema: &Value| {
        for name in schema["properties"]
            .as_object()
            .into_iter()
            .flat_map(|p| p.keys())
        {
            if !text.contains(&format!("`{name}`")) || !shown.contains(name.as_str()) {
                missing.insert(name.clone());
            }
        }
        let variants = schema["oneOf"].as_array().into_iter().flatten();
        for word in variants.filter_map(|variant| variant["const"].as_str()) {
            if !text.contains(word) {
                missing.insert(word.to_owned());
            }
        }
    };
    visit(schema());
    schema()["definitions"]
        .as_object()
        .unwrap()
        .values()
        .for_each(&mut visit);
    assert!(
        missing.is_empty(),
        "agents.md says nothing, or has no example, of {missing:?}"
    );
}

#[test]
fn every_route_is_described_and_no_other() {
    let text = page("api.md");
    let described: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|line| line.replace('`', ""))
        .collect();
    let mut served = BTreeSet::new();
    for service in Service::ALL {
        let doc = serde_json::to_value(api(service, "1").into_openapi()).unwrap();
        for (path, methods) in doc["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                served.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    served.extend(["GET /docs".to_owned(), "GET /openapi.json".to_owned()]);
    assert_eq!(described, served);
}

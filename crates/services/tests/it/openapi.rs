//! The description of each service is what it serves.

use std::collections::BTreeSet;
use std::path::Path;

use agentrunner_services::http::{Service, api};
use reqwest::Method;
use serde_json::Value;

use crate::harness::{System, Workers};

#[tokio::test]
async fn every_described_route_is_served_and_the_description_is_sound() {
    let system = System::start(Workers::Absent).await;
    for service in Service::ALL {
        let (status, doc) = system.get(service, "/openapi.json").await;
        assert!(status.is_success());
        assert_eq!(doc["openapi"], "3.1.0");
        // That it is a description at all is for schemathesis to say, in the tests of the binary.
        assert!(!doc["paths"].as_object().unwrap().is_empty());
        references_resolve(&doc, &doc);
        let mut ids = BTreeSet::new();
        for (path, methods) in doc["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let what = format!("{method} {path}");
                let id = operation["operationId"].as_str().unwrap();
                assert!(
                    ids.insert((path.clone(), method.clone(), id.to_owned())),
                    "{what}"
                );
                assert!(
                    operation["summary"].is_string() || operation["description"].is_string(),
                    "{what}"
                );
                let concrete = path
                    .replace("{id}", "0190c2f4-a1b2-7c3d-8e4f-5a6b7c8d9e0f")
                    .replace("{name}", "helper")
                    .replace("{seq}", "1")
                    .replace("{version}", "0123456789abcdef");
                let method: Method = method.to_uppercase().parse().unwrap();
                let response = system
                    .request(method, service, &concrete)
                    .send()
                    .await
                    .unwrap();
                let status = response.status();
                let text = response.text().await.unwrap();
                assert!(
                    status.as_u16() != 405 && !text.contains("there is no route"),
                    "{what}: {text}"
                );
                let documented = operation["responses"].get(status.as_str()).is_some();
                assert!(
                    documented,
                    "{what} answers {status}, which is not described: {text}"
                );
            }
        }
    }
}

#[test]
fn no_route_goes_round_the_description() {
    // Routes added by `routes!` are described by construction; `.route(` would not be.
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for call in [".route(", ".route_service(", ".nest("] {
            assert!(!text.contains(call), "{} uses {call}", file.display());
        }
    }
    for service in Service::ALL {
        let api = api(service, "1").into_openapi();
        assert!(api.paths.paths.contains_key("/health/live"));
    }
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

fn references_resolve(doc: &Value, at: &Value) {
    match at {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.trim_start_matches('#');
                assert!(doc.pointer(pointer).is_some(), "{reference}");
            }
            fields
                .values()
                .for_each(|field| references_resolve(doc, field));
        }
        Value::Array(items) => items.iter().for_each(|item| references_resolve(doc, item)),
        _ => {}
    }
}

//! What is offered to a model.

use std::sync::Arc;

use agentrunner_tools::Schemas;
use domain::definition::{Builtin, Effect};
use serde_json::json;

use crate::support::{entry, names, offers, refusal, run, stdio_server, toolkit};

#[tokio::test]
async fn every_built_in_is_offered_with_a_schema_that_is_valid() {
    let toolkit = toolkit(|_| {});
    let entries: Vec<_> = Builtin::ALL
        .iter()
        .map(|builtin| entry(json!({"name": builtin.as_str(), "type": "function", "root": "."})))
        .collect();
    let offers = offers(&toolkit, "1", &entries).await.unwrap();
    assert_eq!(offers.len(), Builtin::ALL.len());
    let schemas = Schemas::default();
    for offer in offers.iter() {
        assert!(offer.description.len() > 20, "{}", offer.name);
        let found = schemas.validate_arguments(&offer.parameters, &json!({"unknown": 1}));
        let found = found.unwrap_err();
        assert!(
            !found[0].contains("schema itself"),
            "{}: {found:?}",
            offer.name
        );
    }
}

#[tokio::test]
async fn the_same_version_is_gathered_once() {
    let toolkit = toolkit(|_| {});
    let entries = [entry(json!({"name": "calculate", "type": "function"}))];
    let first = offers(&toolkit, "1", &entries).await.unwrap();
    let second = offers(&toolkit, "1", &entries).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    let other = offers(&toolkit, "2", &entries).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
}

#[tokio::test]
async fn agents_and_persons_are_offered_but_not_called_here() {
    let toolkit = toolkit(|_| {});
    let helper = entry(json!({"name": "helper", "type": "agent", "requires_approval": true}));
    let person = entry(json!({"name": "ask_human", "type": "function"}));
    let offered = offers(&toolkit, "1", &[helper.clone(), person.clone()])
        .await
        .unwrap();
    assert_eq!(offered[0].parameters["required"], json!(["task"]));
    assert_eq!(
        (offered[0].effect, offered[0].approval),
        (Effect::Unsafe, true)
    );
    refusal(run(&toolkit, &helper, "helper", json!({"task": "x"})).await);
    refusal(run(&toolkit, &person, "ask_human", json!({"question": "x"})).await);
}

#[tokio::test]
async fn two_tools_of_one_name_are_refused_and_both_named() {
    let toolkit = toolkit(|_| {});
    let own = entry(json!({"name": "echo", "type": "function", "function": "calculate"}));
    let server = stdio_server(json!({}));
    let error = offers(&toolkit, "1", &[own.clone(), server])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("\"srv\"") && error.contains("\"echo\""),
        "{error}"
    );
    let without = stdio_server(json!({"deny": ["echo"]}));
    let offered = offers(&toolkit, "2", &[own, without]).await.unwrap();
    assert!(names(&offered).contains(&"meta"));
    toolkit.shutdown().await;
}

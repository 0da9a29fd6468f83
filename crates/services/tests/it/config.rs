//! Files become agents, and stay agents while they are broken.

use std::fs;
use std::time::{Duration, Instant};

use agentrunner_services::http::Settings;
use domain::AgentName;
use serde_json::Value;

use crate::harness::{System, Workers, agent};

fn name(text: &str) -> AgentName {
    text.parse().unwrap()
}

async fn changes(system: &System) -> Vec<(String, String)> {
    let outbox = system.store.outbox(100).await.unwrap();
    let ids: Vec<i64> = outbox.iter().map(|entry| entry.id).collect();
    system.store.outbox_done(&ids).await.unwrap();
    outbox
        .into_iter()
        .map(|entry| {
            let Value::String(what) = &entry.event.data["change"] else {
                panic!("{:?}", entry.event)
            };
            (entry.event.topic.to_string(), what.clone())
        })
        .collect()
}

fn told(topic: &str, what: &str) -> (String, String) {
    (format!("config.changed.{topic}"), what.to_owned())
}

#[tokio::test]
async fn each_change_is_stored_counted_and_told() {
    let system = System::start(Workers::Absent).await;
    assert_eq!(changes(&system).await, [told("helper", "added")]);
    let path = system.agents().join("helper.yml");

    let report = system.config.reload().await.unwrap();
    assert_eq!((report.loaded, report.unchanged), (1, 1));
    assert_eq!(changes(&system).await, []);

    fs::write(&path, agent("helper") + "description: new\n").unwrap();
    fs::write(system.agents().join("other.yaml"), agent("other")).unwrap();
    let report = system.config.reload().await.unwrap();
    assert_eq!((report.loaded, report.added, report.updated), (2, 1, 1));
    assert_eq!(
        changes(&system).await,
        [told("helper", "updated"), told("other", "added")]
    );
    let versions = system.store.config_versions(&name("helper")).await.unwrap();
    assert_eq!(versions.len(), 2);
    assert!(versions.iter().any(|version| version.is_current));

    fs::remove_file(&path).unwrap();
    let report = system.config.reload().await.unwrap();
    assert_eq!((report.loaded, report.removed, report.unchanged), (1, 1, 1));
    assert!(system.engine.agents().get(&name("helper")).is_none());
    assert_eq!(changes(&system).await, [told("helper", "removed")]);
}

#[tokio::test]
async fn a_broken_file_keeps_its_last_good_version() {
    let system = System::start(Workers::Absent).await;
    let before = system.engine.agents().get(&name("helper")).unwrap();
    let path = system.agents().join("helper.yml");

    fs::write(&path, agent("helper").replace("model:", "modle:")).unwrap();
    let report = system.config.reload().await.unwrap();
    assert_eq!(
        (report.loaded, report.rejected, report.unchanged),
        (1, 1, 1)
    );
    let now = system.engine.agents().get(&name("helper")).unwrap();
    assert_eq!(now.version, before.version);
    let rejected = now.rejected.unwrap();
    assert!(
        rejected.starts_with("helper.yml:5:3: llm_config.modle: unknown field"),
        "{rejected}"
    );

    fs::write(&path, agent("helper")).unwrap();
    system.config.reload().await.unwrap();
    assert_eq!(
        system
            .engine
            .agents()
            .get(&name("helper"))
            .unwrap()
            .rejected,
        None
    );
}

#[tokio::test]
async fn a_file_that_is_broken_at_the_start_is_taken_from_the_store() {
    let system = System::start(Workers::Absent).await;
    let before = system.engine.agents().get(&name("helper")).unwrap();
    let folder = system.stop().await;
    let path = folder.path().join("agents/helper.yml");
    fs::write(&path, "name: helper\nllm_config: [\n").unwrap();
    let system = System::open(folder, Workers::Absent, Settings::default()).await;
    let now = system.engine.agents().get(&name("helper")).unwrap();
    assert_eq!(now.version, before.version);
    assert!(now.rejected.unwrap().contains("not valid YAML"));

    // And the same file, unbroken, is nothing new to anyone.
    changes(&system).await;
    fs::write(&path, agent("helper")).unwrap();
    let folder = system.stop().await;
    let system = System::open(folder, Workers::Absent, Settings::default()).await;
    assert_eq!(system.config.report().loaded, 1);
    assert_eq!(changes(&system).await, []);
}

#[tokio::test]
async fn a_name_belongs_to_the_file_that_had_it() {
    let system = System::start(Workers::Absent).await;
    fs::write(
        system.agents().join("a.yml"),
        format!("# mine\n{}", agent("helper")),
    )
    .unwrap();
    let report = system.config.reload().await.unwrap();
    assert_eq!((report.loaded, report.rejected), (1, 1));
    let error = &report.errors[0];
    assert_eq!((error.file.as_str(), error.line), ("a.yml", 2));
    assert!(error.message.contains("taken by helper.yml:1"), "{error}");
    assert_eq!(
        system.engine.agents().get(&name("helper")).unwrap().path,
        "helper.yml"
    );

    fs::remove_file(system.agents().join("helper.yml")).unwrap();
    let report = system.config.reload().await.unwrap();
    assert_eq!((report.loaded, report.rejected), (1, 0));
    assert_eq!(
        system.engine.agents().get(&name("helper")).unwrap().path,
        "a.yml"
    );
}

#[tokio::test]
async fn a_name_that_nobody_had_goes_to_nobody() {
    let files = [("a.yml", agent("twin")), ("b.yml", agent("twin"))];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let system = System::with(Workers::Absent, Settings::default(), &files).await;
    let report = system.config.report();
    assert_eq!((report.loaded, report.rejected), (0, 2));
    assert!(
        report.errors[0]
            .to_string()
            .contains("a.yml:1:1: name: the name twin is taken by b.yml:1")
    );
}

#[tokio::test]
async fn nothing_becomes_current_that_is_not_stored() {
    let system = System::start(Workers::Absent).await;
    let before = system.engine.agents().get(&name("helper")).unwrap();
    fs::write(
        system.agents().join("helper.yml"),
        agent("helper") + "max_steps: 7\n",
    )
    .unwrap();
    system.store.close().await.unwrap();
    assert!(system.config.reload().await.is_err());
    let now = system.engine.agents().get(&name("helper")).unwrap();
    assert_eq!(now.version, before.version);
}

#[tokio::test]
async fn changes_are_seen_within_a_second() {
    let system = System::start(Workers::Absent).await;
    let config = system.config.clone();
    let shutdown = system.shutdown.clone();
    let mut reloads = system.config.reloads();
    let running = tokio::spawn(async move { config.run(shutdown).await });
    // The first reload of `run` comes after the watch began.
    reloads.changed().await.unwrap();

    let path = system.agents().join("helper.yml");
    seen(
        &system,
        |system| system.config.report().updated == 1,
        || {
            fs::write(&path, agent("helper") + "description: edited\n").unwrap();
        },
    )
    .await;
    // As editors do it: write beside, rename over.
    let beside = system.agents().join(".helper.yml.swp");
    seen(
        &system,
        |system| description(system) == "renamed",
        || {
            fs::write(&beside, agent("helper") + "description: renamed\n").unwrap();
            fs::rename(&beside, &path).unwrap();
        },
    )
    .await;
    let deep = system.agents().join("team");
    seen(
        &system,
        |system| has(system, "deep"),
        || {
            fs::create_dir(&deep).unwrap();
            fs::write(deep.join("deep.yml"), agent("deep")).unwrap();
        },
    )
    .await;
    seen(
        &system,
        |system| !has(system, "deep"),
        || fs::remove_dir_all(&deep).unwrap(),
    )
    .await;

    // The folder as a whole goes and comes back: what was loaded stays, what is new is seen.
    fs::remove_dir_all(system.agents()).unwrap();
    assert!(has(&system, "helper"));
    seen(
        &system,
        |system| has(system, "again"),
        || {
            fs::create_dir(system.agents()).unwrap();
            fs::write(system.agents().join("again.yml"), agent("again")).unwrap();
        },
    )
    .await;
    seen(
        &system,
        |system| has(system, "third"),
        || {
            fs::write(system.agents().join("third.yml"), agent("third")).unwrap();
        },
    )
    .await;

    system.shutdown.cancel();
    running.await.unwrap();
}

fn has(system: &System, agent: &str) -> bool {
    system.engine.agents().get(&name(agent)).is_some()
}

fn description(system: &System) -> String {
    let agent = system.engine.agents().get(&name("helper"));
    agent.map_or_else(String::new, |agent| agent.definition.description.clone())
}

/// Does something to the files and waits until it is seen.
async fn seen(system: &System, is_seen: impl Fn(&System) -> bool, act: impl FnOnce()) {
    let mut reloads = system.config.reloads();
    let begun = Instant::now();
    act();
    while !is_seen(system) {
        tokio::time::timeout(Duration::from_secs(10), reloads.changed())
            .await
            .expect("the change is seen")
            .unwrap();
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "it took {took:?}");
}

#[tokio::test]
async fn a_missing_folder_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::open(folder, Workers::Absent, Settings::default()).await;
    assert_eq!(system.config.report().loaded, 0);
    fs::create_dir(system.agents()).unwrap();
    fs::write(system.agents().join("a.yml"), agent("a")).unwrap();
    assert_eq!(system.config.reload().await.unwrap().added, 1);
}

//! What belongs to agents: conversations, facts, definitions, usage.

use domain::definition::Provider;
use domain::{AgentName, Definition, Money, Tokens, Usage};
use serde_json::{Value, json};
use store::{
    Change, ConfigRecord, ConfigSummary, StateChange, StateChanged, Store, Then, UsageFilter,
};

use super::Fixture;
use super::given::{append, at, commit, done, finish, intent, leased, model_call, said, task};

pub(crate) async fn a_conversation_is_kept_in_order(f: &impl Fixture) {
    let store = f.store();
    for (agent, conversation, texts) in [
        ("a", "c", vec!["1", "2"]),
        ("a", "c", vec!["3"]),
        ("a", "other", vec!["x"]),
        ("b", "c", vec!["y"]),
        ("a", "c", vec![]),
        ("a", "c", vec!["4", "5"]),
    ] {
        let mut talk = task(agent);
        talk.conversation = Some(conversation.parse().unwrap());
        let owner = leased(&*store, talk).await;
        let then = Then::Finish {
            outcome: done(),
            messages: texts.into_iter().map(said).collect(),
            digest: None,
        };
        commit(&*store, append(&owner, at(1), Vec::new(), then)).await;
    }
    let read = async |agent: &str, conversation: &str, limit| {
        let (agent, conversation) = (agent.parse().unwrap(), conversation.parse().unwrap());
        store
            .conversation(&agent, &conversation, limit)
            .await
            .unwrap()
    };
    assert_eq!(
        read("a", "c", 100).await,
        ["1", "2", "3", "4", "5"].map(said)
    );
    assert_eq!(
        read("a", "c", 2).await,
        ["4", "5"].map(said),
        "the last ones"
    );
    assert_eq!(read("b", "c", 100).await, ["y"].map(said));
    assert!(read("b", "none", 100).await.is_empty());
}

pub(crate) async fn a_conversation_says_when_it_has_changed(f: &impl Fixture) {
    let store = f.store();
    let version = async |conversation: &str| {
        let (agent, conversation) = ("a".parse().unwrap(), conversation.parse().unwrap());
        store
            .conversation_version(&agent, &conversation)
            .await
            .unwrap()
    };
    assert_eq!(version("c").await, None);
    let mut seen = std::collections::BTreeSet::new();
    for texts in [vec!["1", "2"], vec!["3"], vec!["3"]] {
        let mut talk = task("a");
        talk.conversation = Some("c".parse().unwrap());
        let owner = leased(&*store, talk).await;
        let then = Then::Finish {
            outcome: done(),
            messages: texts.into_iter().map(said).collect(),
            digest: None,
        };
        commit(&*store, append(&owner, at(1), Vec::new(), then)).await;
        let now = version("c").await.unwrap();
        assert_eq!(version("c").await.as_ref(), Some(&now), "it stands still");
        assert!(seen.insert(now), "and never comes back");
    }
    assert_eq!(version("other").await, None);
}

pub(crate) async fn facts_are_kept_once_per_write(f: &impl Fixture) {
    let store = f.store();
    let agent: AgentName = "a".parse().unwrap();
    let remember = async |key: &str, value: Value, write: &str, seconds| {
        store
            .remember(&agent, key, &value, write, at(seconds))
            .await
            .unwrap();
    };
    remember("city.home", json!("Bonn"), "w1", 1).await;
    remember("city.work", json!({ "name": "Köln" }), "w2", 2).await;
    remember("city.home", json!("Berlin"), "w3", 3).await;
    // A repeated write is not made again, though another came between.
    remember("city.home", json!("Bonn"), "w1", 4).await;
    let facts = store.recall(&agent, "city", 10).await.unwrap();
    let expected = [
        ("city.home".to_owned(), json!("Berlin")),
        ("city.work".to_owned(), json!({ "name": "Köln" })),
    ];
    assert_eq!(facts, expected);
    assert_eq!(
        store.recall(&agent, "home", 10).await.unwrap(),
        expected[..1]
    );
    assert_eq!(store.recall(&agent, "", 1).await.unwrap(), expected[..1]);
    assert!(
        store.recall(&agent, "c%y", 10).await.unwrap().is_empty(),
        "no wildcards"
    );
    assert!(
        store
            .recall(&"b".parse().unwrap(), "", 10)
            .await
            .unwrap()
            .is_empty()
    );
}

pub(crate) async fn versions_of_definitions_are_kept(f: &impl Fixture) {
    let store = f.store();
    let record = |prompt: &str, seconds| {
        let definition: Definition = serde_json::from_value(json!({
            "name": "a", "execution_mode": "autonomous", "system_prompt": prompt,
            "llm_config": { "provider": "scripted", "model": "s" },
        }))
        .unwrap();
        ConfigRecord {
            version: definition.content_hash(),
            definition,
            source: format!("# {prompt}"),
            path: "agents/a.yml".to_owned(),
            loaded_at: at(seconds),
        }
    };
    let (old, new) = (record("old", 1), record("new", 2));
    for record in [&old, &new] {
        store.put_config(record.clone()).await.unwrap();
    }
    let agent: AgentName = "a".parse().unwrap();
    let summary = |record: &ConfigRecord, is_current| ConfigSummary {
        version: record.version.clone(),
        loaded_at: record.loaded_at,
        is_current,
    };
    let versions = store.config_versions(&agent).await.unwrap();
    assert_eq!(versions, [summary(&new, true), summary(&old, false)]);
    // The same again, later: it becomes current and keeps the time of its first loading.
    store.put_config(record("old", 9)).await.unwrap();
    let versions = store.config_versions(&agent).await.unwrap();
    assert_eq!(versions, [summary(&new, false), summary(&old, true)]);
    let read = store.config(&agent, &old.version).await.unwrap();
    assert_eq!(read, Some(old.clone()));
    let other = "b".parse().unwrap();
    assert_eq!(store.config(&other, &old.version).await.unwrap(), None);
    assert!(store.config_versions(&other).await.unwrap().is_empty());
}

pub(crate) async fn usage_adds_up_by_day_and_model(f: &impl Fixture) {
    let store = f.store();
    let day = 24 * 60 * 60;
    let owner = leased(&*store, task("a")).await;
    let steps = vec![
        model_call(&owner, 1, "m1"),
        intent(&owner, 2),
        intent(&owner, 3),
    ];
    commit(&*store, append(&owner, at(0), steps, Then::Continue)).await;
    // A tool call alone counts with the model that wanted it.
    commit(
        &*store,
        append(&owner, at(1), vec![intent(&owner, 4)], Then::Continue),
    )
    .await;
    let steps = vec![
        model_call(&owner, 5, "m1"),
        model_call(&owner, 6, "m2"),
        intent(&owner, 7),
    ];
    commit(&*store, append(&owner, at(2), steps, Then::Continue)).await;
    commit(
        &*store,
        append(
            &owner,
            at(day),
            vec![model_call(&owner, 8, "m1")],
            Then::Continue,
        ),
    )
    .await;
    let other = leased(&*store, task("b")).await;
    commit(
        &*store,
        append(
            &other,
            at(0),
            vec![model_call(&other, 1, "m1")],
            Then::Continue,
        ),
    )
    .await;
    let (first, second) = ("2027-01-15", "2027-01-16");
    assert_eq!(
        usage(&*store, None, None, None).await,
        [
            "2027-01-15 a m1 2 3",
            "2027-01-15 a m2 1 1",
            "2027-01-15 b m1 1 0",
            "2027-01-16 a m1 1 0",
        ]
    );
    assert_eq!(
        usage(&*store, Some("b"), None, None).await,
        ["2027-01-15 b m1 1 0"]
    );
    assert_eq!(
        usage(&*store, None, Some(second), None).await,
        ["2027-01-16 a m1 1 0"]
    );
    assert_eq!(
        usage(&*store, Some("a"), Some(first), Some(first))
            .await
            .len(),
        2
    );
}

/// Day, agent, model, model calls and tool calls of each row, whose other numbers follow from those.
async fn usage(
    store: &dyn Store,
    agent: Option<&str>,
    from: Option<&str>,
    to: Option<&str>,
) -> Vec<String> {
    let filter = UsageFilter {
        agent: agent.map(|agent| agent.parse().unwrap()),
        from_day: from.map(str::to_owned),
        to_day: to.map(str::to_owned),
    };
    let rows = store.usage(filter).await.unwrap().into_iter();
    rows.map(|row| {
        assert_eq!(row.provider, Provider::Openai);
        assert_eq!(row.cost_usd, Money::from_usd(0.5 * row.model_calls as f64));
        let tokens = |n: u64| Tokens(n * row.model_calls);
        let expected = Usage {
            input_tokens: tokens(100),
            output_tokens: tokens(10),
            cached_tokens: tokens(1),
        };
        assert_eq!(row.usage, expected);
        format!(
            "{} {} {} {} {}",
            row.day, row.agent, row.model, row.model_calls, row.tool_calls
        )
    })
    .collect()
}

fn change(conversation: Option<&str>, expected: Option<u64>, change: Change) -> StateChange {
    StateChange {
        agent: "a".parse().unwrap(),
        conversation: conversation.map(|id| id.parse().unwrap()),
        expected,
        now: at(7),
        change,
    }
}

fn write(state_data: Option<Value>, messages: Option<&[&str]>) -> Change {
    Change::Write {
        state_data,
        metadata: None,
        messages: messages.map(|texts| texts.iter().map(|text| said(text)).collect()),
    }
}

pub(crate) async fn states_are_written_and_read(f: &impl Fixture) {
    let store = f.store();
    let agent: AgentName = "a".parse().unwrap();
    let c = "c".parse().unwrap();
    for (name, id) in [(None, None), (Some("c"), Some(&c))] {
        assert_eq!(store.agent_state(&agent, id, 10).await.unwrap(), None);
        let first = change(name, None, write(Some(json!({ "n": 1 })), None));
        let done = store.change_state(first).await.unwrap();
        assert_eq!(done, StateChanged::Done { version: 1 });
        let state = store.agent_state(&agent, id, 10).await.unwrap().unwrap();
        assert_eq!(state.state_data, json!({ "n": 1 }));
        assert_eq!((state.metadata, state.version), (Value::Null, 1));
        assert_eq!((state.created_at, state.updated_at), (at(7), at(7)));
        assert!(state.messages.is_empty() && state.turn.is_none());
    }
    let apply = async |what| {
        store
            .change_state(change(Some("c"), None, what))
            .await
            .unwrap()
    };
    apply(write(None, Some(&["1", "2"]))).await;
    let more = |texts: &[&str], keep| Change::Append {
        messages: texts.iter().map(|text| said(text)).collect(),
        keep,
    };
    apply(more(&["3", "4"], None)).await;
    let state = store
        .agent_state(&agent, Some(&c), 3)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(state.messages, ["2", "3", "4"].map(said));
    assert_eq!(
        state.state_data,
        json!({ "n": 1 }),
        "what is not named stays"
    );
    apply(more(&["5"], Some(2))).await;
    assert_eq!(
        store.conversation(&agent, &c, 9).await.unwrap(),
        ["4", "5"].map(said)
    );
    apply(write(None, Some(&["new"]))).await;
    assert_eq!(
        store.conversation(&agent, &c, 9).await.unwrap(),
        ["new"].map(said)
    );
    assert_eq!(
        apply(Change::Remove).await,
        StateChanged::Done { version: 0 }
    );
    assert!(store.conversation(&agent, &c, 9).await.unwrap().is_empty());
    assert_eq!(store.agent_state(&agent, Some(&c), 9).await.unwrap(), None);
    assert!(store.agent_state(&agent, None, 9).await.unwrap().is_some());
}

pub(crate) async fn only_the_expected_version_is_changed(f: &impl Fixture) {
    let store = f.store();
    let apply = async |expected| {
        let what = change(Some("c"), expected, write(Some(json!(1)), None));
        store.change_state(what).await.unwrap()
    };
    assert_eq!(apply(Some(1)).await, StateChanged::Conflict { version: 0 });
    assert_eq!(apply(Some(0)).await, StateChanged::Done { version: 1 });
    assert_eq!(apply(Some(0)).await, StateChanged::Conflict { version: 1 });
    assert_eq!(apply(Some(1)).await, StateChanged::Done { version: 2 });
    // An execution that adds to the conversation is a change as well.
    let mut talk = task("a");
    talk.conversation = Some("c".parse().unwrap());
    let owner = leased(&*store, talk).await;
    let then = Then::Finish {
        outcome: done(),
        messages: vec![said("x")],
        digest: None,
    };
    commit(&*store, append(&owner, at(8), Vec::new(), then)).await;
    assert_eq!(apply(Some(2)).await, StateChanged::Conflict { version: 3 });
}

pub(crate) async fn whoever_has_the_turn_owns_the_messages(f: &impl Fixture) {
    let store = f.store();
    let mut talk = task("a");
    talk.conversation = Some("c".parse().unwrap());
    let owner = leased(&*store, talk).await;
    let busy = StateChanged::Busy(owner.execution.id);
    let apply = async |what| {
        store
            .change_state(change(Some("c"), None, what))
            .await
            .unwrap()
    };
    let more = || Change::Append {
        messages: vec![said("x")],
        keep: None,
    };
    for what in [more(), Change::Remove, write(None, Some(&[]))] {
        assert_eq!(apply(what).await, busy);
    }
    let (agent, c) = ("a".parse().unwrap(), "c".parse().unwrap());
    let state = store
        .agent_state(&agent, Some(&c), 9)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((state.version, state.turn), (0, Some(owner.execution.id)));
    // What is the caller's own is never the execution's.
    let own = apply(write(Some(json!(1)), None)).await;
    assert_eq!(own, StateChanged::Done { version: 1 });
    commit(&*store, append(&owner, at(8), Vec::new(), finish())).await;
    assert_eq!(apply(more()).await, StateChanged::Done { version: 2 });
}

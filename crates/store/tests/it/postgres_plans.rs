//! How PostgreSQL finds what is asked for hundreds of times a second: by the key, however many rows there are beside it.

use domain::AgentName;
use domain::message::{Message, Reply, StopReason};
use store::Store;
use store::postgres::{Asleep, fill_asleep};

use crate::server::{connect, database, session, settings};

/// How sessions for what is asked all the time are set up; [`store::postgres`] says why.
const SESSION: &str =
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_nestloop = off;
    SET enable_mergejoin = off; SET enable_bitmapscan = off";

/// Statements about conversations, and how many values each is given.
const STATEMENTS: [(&str, &str, usize); 3] = [
    ("turns", include_str!("../../src/postgres/sql/turns.sql"), 3),
    (
        "sit_down",
        include_str!("../../src/postgres/sql/sit_down.sql"),
        8,
    ),
    (
        "release",
        include_str!("../../src/postgres/sql/release.sql"),
        4,
    ),
];

/// The lines of a plan that read conversations otherwise than by their name or by the place of their row.
fn passes_over(plan: &[String]) -> Vec<&String> {
    let reads = |line: &&String| line.contains(" on conversations") && line.contains("Scan");
    let is_by_key = |after: Option<&String>| {
        let keys = ["Index Cond: ((agent_name", "TID Cond:"];
        after.is_some_and(|line| keys.iter().any(|key| line.contains(key)))
    };
    let lines = plan.iter().zip(plan.iter().skip(1).map(Some).chain([None]));
    let odd = lines.filter(|(line, after)| reads(line) && !is_by_key(*after));
    odd.map(|(line, _)| line).collect()
}

#[tokio::test]
async fn a_conversation_is_found_by_its_name_however_many_sleep() {
    let url = database().await;
    let store = connect(&url).await;
    let text = "hm".to_owned();
    let reply = Reply {
        text: text.clone(),
        tool_calls: Vec::new(),
        stop: StopReason::EndTurn,
        provider_data: None,
    };
    let said = [Message::User { text }, Message::Assistant(reply)];
    let agent: AgentName = "sleeper".parse().unwrap();
    for (prefix, conversations) in [("few-", 0), ("many-", 20_000)] {
        let asleep = Asleep {
            agent: &agent,
            prefix,
            conversations,
            long_one_in: 1000,
            messages: (10, 2),
            said: &said,
        };
        fill_asleep(&settings(&url), asleep).await.unwrap();
        let client = session(&url).await;
        client.batch_execute(SESSION).await.unwrap();
        for (name, sql, values) in STATEMENTS {
            let nulls = vec!["NULL"; values].join(", ");
            let prepare = format!("PREPARE {name} AS {sql}");
            client.batch_execute(&prepare).await.unwrap();
            let explain = format!("EXPLAIN (COSTS OFF) EXECUTE {name} ({nulls})");
            let rows = client.query(&explain, &[]).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            assert!(plan.iter().any(|line| line.contains(" on conversations")));
            let odd = passes_over(&plan);
            assert!(odd.is_empty(), "{name}: {odd:?} in\n{}", plan.join("\n"));
        }
    }
    // What was made are conversations like others.
    for (n, messages) in [(0, 10), (1, 2)] {
        let conversation = format!("many-{n}").parse().unwrap();
        let all = store.conversation(&agent, &conversation, 100).await;
        let all = all.unwrap();
        assert_eq!(all.len(), messages);
        assert_eq!(all[..2], said);
    }
}

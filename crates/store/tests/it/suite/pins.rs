//! What tools of servers were approved as.

use domain::pin::{Change, Fingerprint, Pin, Seen, Sight};
use serde_json::{Value, json};
use store::ToolApproval;

use super::Fixture;
use super::given::at;

fn definition(tool: &str, words: &str) -> Value {
    json!({ "name": tool, "description": words, "inputSchema": { "type": "object" } })
}

fn sight(tool: &str, words: &str) -> Sight {
    let definition = definition(tool, words);
    Sight {
        server: "files#1".to_owned(),
        tool: tool.to_owned(),
        fingerprint: Fingerprint::of(&definition),
        definition,
    }
}

fn approval(tool: &str, words: &str) -> ToolApproval {
    ToolApproval {
        agent: "alpha".parse().unwrap(),
        server: "files#1".to_owned(),
        tool: tool.to_owned(),
        fingerprint: Fingerprint::of(&definition(tool, words)),
        by: "ada".to_owned(),
        at: at(9),
    }
}

pub(crate) async fn a_tool_that_changes_is_withheld_until_it_is_approved(f: &impl Fixture) {
    let store = f.store();
    let (alpha, beta) = ("alpha".parse().unwrap(), "beta".parse().unwrap());
    let see = async |agent, second, sights: &[Sight]| {
        store.see_tools(agent, sights, at(second)).await.unwrap()
    };
    let both = [sight("read", "Reads."), sight("write", "Writes.\0")];
    assert_eq!(see(&alpha, 0, &both).await, [Seen::First, Seen::First]);
    assert_eq!(
        see(&alpha, 1, &both).await,
        [Seen::Approved, Seen::Approved]
    );
    assert_eq!(store.changed_tools(None).await.unwrap(), []);

    let pulled = [sight("read", "Reads, and asks for keys."), both[1].clone()];
    assert_eq!(
        see(&alpha, 2, &pulled).await,
        [Seen::Changed, Seen::Approved]
    );
    assert_eq!(
        see(&alpha, 3, &pulled).await,
        [Seen::Withheld, Seen::Approved]
    );
    // Changing back does not help, nor do other agents' and servers' tools.
    assert_eq!(see(&alpha, 4, &both[..1]).await, [Seen::Withheld]);
    assert_eq!(see(&beta, 4, &pulled).await, [Seen::First, Seen::First]);
    let elsewhere = Sight {
        server: "files#2".to_owned(),
        ..pulled[0].clone()
    };
    assert_eq!(see(&alpha, 4, &[elsewhere]).await, [Seen::First]);
    let pin = Pin {
        agent: alpha.clone(),
        server: "files#1".to_owned(),
        tool: "read".to_owned(),
        approved: both[0].fingerprint.clone(),
        definition: both[0].definition.clone(),
        approved_at: at(0),
        approved_by: None,
        change: Some(Change {
            fingerprint: pulled[0].fingerprint.clone(),
            definition: pulled[0].definition.clone(),
            seen_at: at(2),
        }),
    };
    assert_eq!(
        store.changed_tools(None).await.unwrap(),
        std::slice::from_ref(&pin)
    );
    assert_eq!(store.changed_tools(Some(&alpha)).await.unwrap(), [pin]);
    assert_eq!(store.changed_tools(Some(&beta)).await.unwrap(), []);

    // It is approved as what was looked at, not as whatever it is by then.
    let worse = [sight("read", "Sends your keys.")];
    assert_eq!(see(&alpha, 5, &worse).await, [Seen::ChangedAgain]);
    let approve = async |approval| store.approve_tool(approval).await.unwrap();
    assert!(!approve(approval("read", "Reads, and asks for keys.")).await);
    assert!(!approve(approval("write", "Writes.\0")).await);
    assert!(approve(approval("read", "Sends your keys.")).await);
    assert!(!approve(approval("read", "Sends your keys.")).await);
    assert_eq!(store.changed_tools(None).await.unwrap(), []);
    assert_eq!(see(&alpha, 6, &worse).await, [Seen::Approved]);
    assert_eq!(see(&alpha, 7, &both[..1]).await, [Seen::Changed]);
    let changed = store.changed_tools(Some(&alpha)).await.unwrap();
    assert_eq!(changed[0].approved_by.as_deref(), Some("ada"));
    assert_eq!(
        (changed[0].approved_at, &changed[0].definition),
        (at(9), &worse[0].definition)
    );
    // As what it was: the server is to change back first.
    assert!(approve(approval("read", "Sends your keys.")).await);
    assert_eq!(see(&alpha, 8, &worse).await, [Seen::Approved]);
}

pub(crate) async fn that_a_tool_changed_is_told_once(f: &impl Fixture) {
    let store = f.store();
    let agent: domain::AgentName = "alpha".parse().unwrap();
    let look = |words: &'static str| {
        let (store, agent) = (store.clone(), agent.clone());
        async move {
            let looks = (0..8).map(|n| {
                let (store, agent) = (store.clone(), agent.clone());
                tokio::spawn(async move {
                    store
                        .see_tools(&agent, &[sight("read", words)], at(n))
                        .await
                        .unwrap()
                })
            });
            let mut told = Vec::new();
            for look in looks.collect::<Vec<_>>() {
                told.extend(look.await.unwrap());
            }
            told
        }
    };
    let count = |told: &[Seen], wanted| told.iter().filter(|seen| **seen == wanted).count();
    let told = look("Reads.").await;
    assert_eq!(
        (count(&told, Seen::First), count(&told, Seen::Approved)),
        (1, 7)
    );
    let told = look("Reads, and asks for keys.").await;
    assert_eq!(
        (count(&told, Seen::Changed), count(&told, Seen::Withheld)),
        (1, 7)
    );
}

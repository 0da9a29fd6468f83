//! What a watcher sees.

use agentrunner_engine::{LiveEvent, Position};
use domain::Seq;
use domain::definition::Effect;
use serde_json::json;

use crate::rig::{Rig, Say, tool};

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_hears_words_before_the_step_and_can_resume() {
    let rig = Rig::start(json!({}), |_, _| Say::Hang).await;
    let id = rig.submit().await;
    let mut watch = rig.engine.watch(id, None);
    let first = watch.next().await.unwrap().unwrap();
    let LiveEvent::Delta { position, text } = &first else {
        panic!("{first:?}")
    };
    assert_eq!((text.as_str(), position.seq), ("thinking", Seq::FIRST));
    let read: Position = position.to_string().parse().unwrap();
    assert_eq!(read, *position);
    rig.engine.cancel(id, "me", "").await.unwrap();
    let mut resumed = rig.engine.watch(id, Some(read));
    let end = resumed.next().await.unwrap().unwrap();
    assert!(
        matches!(&end, LiveEvent::Step(step) if step.body.kind() == "finished"),
        "{end:?}"
    );
    assert_eq!(resumed.next().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_come_once_and_in_order_to_early_and_late_watchers() {
    let tools = json!({ "tools": [tool("read", Effect::ReadOnly)] });
    let rig = Rig::start(tools, |turn, _| match turn {
        0..5 => Say::Tools(vec![("read", json!({}))]),
        _ => Say::Text("done"),
    })
    .await;
    let id = rig.submit().await;
    let mut early = Vec::new();
    let mut watch = rig.engine.watch(id, None);
    while let Some(event) = watch.next().await.unwrap() {
        if let LiveEvent::Step(step) = event {
            early.push(step.seq.get());
        }
    }
    assert_eq!(
        early,
        (1..=u32::try_from(early.len()).unwrap()).collect::<Vec<_>>()
    );
    let after = Position {
        seq: Seq::new(3),
        piece: None,
    };
    let mut late = rig.engine.watch(id, Some(after));
    let next = late.next().await.unwrap().unwrap();
    assert_eq!(next.position().seq, Seq::new(4));
    let last = Position {
        seq: Seq::new(early.last().copied().unwrap()),
        piece: None,
    };
    assert_eq!(
        rig.engine.watch(id, Some(last)).next().await.unwrap(),
        None,
        "nothing comes after the end"
    );
}

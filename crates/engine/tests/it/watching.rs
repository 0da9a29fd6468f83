//! What a watcher sees.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agentrunner_engine::{Engine, LiveEvent, Position, Settings, Watch};
use domain::definition::Effect;
use domain::{Seq, StepBody};
use serde_json::json;

use crate::rig::{Rig, Say, settings, tool};

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
    let void = resumed.next().await.unwrap().unwrap();
    assert!(
        matches!(&void, LiveEvent::Supersede { position } if position.seq == Seq::FIRST),
        "nothing became of the words: {void:?}"
    );
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

/// An engine in another process, which performs nothing.
fn desk(rig: &Rig, name: &str) -> Engine {
    let settings = Settings {
        modes: Vec::new(),
        ..settings(name)
    };
    let desk = Engine::new(rig.ports(), rig.agents.clone(), settings);
    desk.start();
    desk
}

async fn next(watch: &mut Watch) -> LiveEvent {
    let next = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
    next.expect("something comes")
        .unwrap()
        .expect("and is no end")
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_heard_in_other_processes_and_ids_mean_the_same_there() {
    let rig = Rig::start(json!({}), |_, _| Say::Hang).await;
    let (first, second) = (desk(&rig, "desk-1"), desk(&rig, "desk-2"));
    let id = rig.submit_to(&first).await;
    let mut watch = first.watch(id, None);
    let heard = next(&mut watch).await;
    let LiveEvent::Delta { position, text } = &heard else {
        panic!("{heard:?}")
    };
    assert_eq!((text.as_str(), position.seq), ("thinking", Seq::FIRST));
    // One who comes in the middle gets it from the beginning, one who has it nothing twice.
    assert_eq!(next(&mut second.watch(id, None)).await, heard);
    assert_eq!(next(&mut rig.engine.watch(id, None)).await, heard);
    let mut resumed = second.watch(id, Some(*position));
    let more = tokio::time::timeout(Duration::from_millis(300), resumed.next()).await;
    assert!(more.is_err(), "{more:?}");
    rig.engine.cancel(id, "me", "").await.unwrap();
    for watch in [&mut watch, &mut resumed] {
        let void = next(watch).await;
        assert!(matches!(void, LiveEvent::Supersede { .. }), "{void:?}");
        let end = next(watch).await;
        assert!(
            matches!(&end, LiveEvent::Step(step) if step.seq == Seq::FIRST),
            "{end:?}"
        );
        assert_eq!(watch.next().await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_takes_over_in_the_middle_of_an_answer_makes_it_void() {
    static WAS_ASKED: AtomicBool = AtomicBool::new(false);
    let play = |_: usize, _: &llm::ChatRequest<'_>| match WAS_ASKED.swap(true, Ordering::SeqCst) {
        false => Say::Hang,
        true => Say::Text("another answer"),
    };
    let rig = Rig::start(json!({}), play).await;
    let desk = desk(&rig, "desk");
    let id = rig.submit_to(&desk).await;
    let mut watch = desk.watch(id, None);
    let heard = next(&mut watch).await;
    assert!(
        matches!(&heard, LiveEvent::Delta { text, .. } if text == "thinking"),
        "{heard:?}"
    );
    rig.engine.shutdown(Duration::ZERO).await;
    let other = rig.another("w2");
    other.start();
    let void = next(&mut watch).await;
    assert!(matches!(void, LiveEvent::Supersede { .. }), "{void:?}");
    // Its words may be heard before they are committed, or not.
    let mut words = String::new();
    let step = loop {
        match next(&mut watch).await {
            LiveEvent::Delta { text, .. } => words.push_str(&text),
            LiveEvent::Step(step) => break step,
            other => panic!("{other:?}"),
        }
    };
    let StepBody::ModelCall(call) = &step.body else {
        panic!("{step:?}")
    };
    assert_eq!(call.reply.text, "another answer");
    assert!(call.reply.text.starts_with(&words), "{words}");
}

//! What is decided while the store is slow is seen when it answers, before anything is done.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agentrunner_engine::{Engine, NewTask, Settings};
use async_trait::async_trait;
use chrono::Utc;
use domain::Outcome;
use serde_json::json;
use store::intercept::{Intercept, Intercepted};
use store::{Append, Appended, Result, Store};
use tokio::sync::{Notify, Semaphore};

use crate::rig::{Rig, Say, outcome, settings};

/// Does not answer what a conversation holds until the gate is opened, and never what is new.
struct Slow {
    asked: Arc<Notify>,
    gate: Arc<Semaphore>,
}

#[async_trait]
impl Intercept for Slow {
    async fn append(&self, inner: &dyn Store, append: Append) -> Result<Appended> {
        inner.append(append).await
    }

    async fn before_conversation(&self) {
        self.asked.notify_one();
        self.gate.acquire().await.unwrap().forget();
    }

    async fn before_woken(&self) {
        pending().await
    }
}

/// Longer than the second look waits for: half a second.
const SLOW: Duration = Duration::from_millis(600);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_called_off_while_its_conversation_is_read_asks_no_model() {
    let (asked, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let slow = Slow {
        asked: asked.clone(),
        gate: gate.clone(),
    };
    let wrap = |store| Arc::new(Intercepted::new(store, slow)) as Arc<dyn Store>;
    let rig = Rig::new(json!({}), |_, _| Say::Text("yes"), wrap).await;
    // No renewal tells of it either.
    let patient = Settings {
        lease: Duration::from_secs(60),
        ..settings("w2")
    };
    let engine = Engine::new(rig.ports(), rig.engine.agents().clone(), patient);
    engine.start();
    let task = NewTask {
        conversation: Some("c".parse().unwrap()),
        ..NewTask::new("a", json!("go"), "1".repeat(32).parse().unwrap())
    };
    let id = engine.submit(task).await.unwrap().id;
    asked.notified().await;
    // The time that a slow server takes is what this is about.
    tokio::time::sleep(SLOW).await;
    // As another process takes it in.
    let cancelled = rig.store.cancel(id, "ada", "not needed", Utc::now()).await;
    cancelled.unwrap();
    gate.add_permits(1);
    let ended = outcome(&engine, id).await;
    assert!(matches!(ended, Outcome::Cancelled { .. }), "{ended:?}");
    assert_eq!(rig.model.asked.load(Ordering::SeqCst), 0);
}

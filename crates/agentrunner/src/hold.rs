//! Stops executions at an exact point of the step protocol, so that a test can kill the process there. Only in builds
//! with debug assertions; a shipped binary has none of it.
//!
//! With `TEST_HOLD_DIR` set, an execution whose `metadata` says `{"hold_at": "before-result"}` stops there in
//! its first lease, and a file with its id appears in that folder. Where that file is removed, it goes on.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::{ExecutionId, StepBody};
use store::intercept::Intercept;
use store::{Append, Appended, Store, Then};

/// How often it is looked whether a mark is still there.
const LOOK: Duration = Duration::from_millis(20);

/// The one who stops executions.
pub(crate) struct Hold {
    folder: PathBuf,
    wishes: Mutex<HashMap<ExecutionId, Option<String>>>,
}

impl Hold {
    /// Marks what it holds in `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            wishes: Mutex::default(),
        }
    }

    async fn wish(&self, store: &dyn Store, id: ExecutionId) -> Option<String> {
        if let Some(known) = self
            .wishes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
        {
            return known.clone();
        }
        let row = store.execution(id).await.ok().flatten();
        let wish = row.and_then(|row| {
            row.execution
                .metadata
                .get("hold_at")?
                .as_str()
                .map(str::to_owned)
        });
        self.wishes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, wish.clone());
        wish
    }

    async fn stop_if(&self, wish: Option<&str>, here: &str, id: ExecutionId) {
        let mark = self.folder.join(id.to_string());
        if wish == Some(here) && std::fs::write(&mark, here).is_ok() {
            while mark.exists() {
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

#[async_trait]
impl Intercept for Hold {
    async fn append(&self, inner: &dyn Store, append: Append) -> store::Result<Appended> {
        let (id, commit) = (append.id, what_it_commits(&append));
        let first_lease = append.epoch.get() == 1;
        let wish = if first_lease {
            self.wish(inner, id).await
        } else {
            None
        };
        self.stop_if(wish.as_deref(), &format!("before-{commit}"), id)
            .await;
        let answer = inner.append(append).await;
        self.stop_if(wish.as_deref(), &format!("after-{commit}"), id)
            .await;
        answer
    }
}

fn what_it_commits(append: &Append) -> &'static str {
    let has = |wanted: fn(&StepBody) -> bool| append.steps.iter().any(|step| wanted(&step.body));
    match &append.then {
        Then::Finish { .. } => "finish",
        _ if has(|body| matches!(body, StepBody::ToolResult(_))) => "result",
        _ if has(|body| matches!(body, StepBody::ToolIntent(_))) => "intent",
        _ => "other",
    }
}

//! Stops executions at an exact point of the step protocol, so that a test can kill the process there. Only in builds
//! with debug assertions; a shipped binary has none of it.
//!
//! With `TEST_HOLD_DIR` set, an execution whose `metadata` says `{"hold_at": "before-result"}` stops there,
//! and a file with its id appears in that folder. Where that file is removed, it goes on; while it lies there, whoever
//! takes over does not stop again.
//!
//! Of the schedulers that use the folder, the first to act while a file `before-fire` or `after-fire` lies in it stops
//! there: the file then has the number of its process at the end of its name.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::{ExecutionId, Planning, Purpose, StepBody};
use store::intercept::Intercept;
use store::{Append, Appended, Fired, Firing, Store, Then};

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

    async fn stop_if(&self, wish: Option<&str>, when: &str, commits: &[&str], id: ExecutionId) {
        let Some((wanted, commit)) = wish.and_then(|wish| wish.split_once('-')) else {
            return;
        };
        let is_here = wanted == when && commits.contains(&commit);
        let mark = self.folder.join(id.to_string());
        if is_here && !mark.exists() && std::fs::write(&mark, when).is_ok() {
            while mark.exists() {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    async fn stop_scheduler(&self, here: &str) {
        let mark = self.folder.join(format!("{here}.{}", std::process::id()));
        if std::fs::rename(self.folder.join(here), &mark).is_ok() {
            while mark.exists() {
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

#[async_trait]
impl Intercept for Hold {
    async fn append(&self, inner: &dyn Store, append: Append) -> store::Result<Appended> {
        let (id, commits) = (append.id, what_it_commits(&append));
        let wish = self.wish(inner, id).await;
        self.stop_if(wish.as_deref(), "before", &commits, id).await;
        let answer = inner.append(append).await;
        self.stop_if(wish.as_deref(), "after", &commits, id).await;
        answer
    }

    async fn fire(&self, inner: &dyn Store, firings: Vec<Firing>) -> store::Result<Vec<Fired>> {
        self.stop_scheduler("before-fire").await;
        let answer = inner.fire(firings).await;
        self.stop_scheduler("after-fire").await;
        answer
    }
}

/// What a commit is called: what follows from it, or the main thing that it holds; and what else it holds.
fn what_it_commits(append: &Append) -> Vec<&'static str> {
    let has = |wanted: fn(&StepBody) -> bool| append.steps.iter().any(|step| wanted(&step.body));
    let main = match &append.then {
        Then::Finish { .. } => "finish",
        _ if has(|body| matches!(body, StepBody::ToolResult(_))) => "result",
        _ if has(|body| matches!(body, StepBody::ToolIntent(_))) => "intent",
        _ => "other",
    };
    let more = [
        ("plan", has(is_plan)),
        ("summary", has(is_summary)),
        (
            "child",
            has(|body| matches!(body, StepBody::ChildStarted { .. })),
        ),
        (
            "child-end",
            has(|body| matches!(body, StepBody::ChildFinished { .. })),
        ),
        (
            "question",
            has(|body| matches!(body, StepBody::InputRequested(_))),
        ),
        (
            "answer",
            has(|body| matches!(body, StepBody::InputReceived(_))),
        ),
    ];
    let more = more.into_iter().filter(|(_, is_there)| *is_there);
    std::iter::once(main)
        .chain(more.map(|(name, _)| name))
        .collect()
}

fn is_plan(body: &StepBody) -> bool {
    matches!(body, StepBody::Plan(planning) if matches!(**planning, Planning::Made { .. }))
}

fn is_summary(body: &StepBody) -> bool {
    matches!(body, StepBody::ModelCall(call) if matches!(call.purpose, Purpose::Summary { .. }))
}

//! What an agent says while it says it, for answers in frames; and waiting for what it says in the end.

use std::time::Duration;

use domain::ExecutionId;
use engine::Watch;
use store::ExecutionRow;

use super::answer::{Said, said};
use super::words::{Diverged, Words};
use crate::http::caller::Caller;
use crate::http::edge::LONGEST_WAIT;
use crate::http::params::no_execution;
use crate::http::{Answer, ApiError, App, Code};

/// How often in a row reading may fail before an answer is given up.
const MAX_FAILURES: u32 = 5;

pub(super) async fn row(app: &App, id: ExecutionId) -> Answer<ExecutionRow> {
    let row = app.engine.store().execution(id).await?;
    row.ok_or_else(|| no_execution(id))
}

/// Waits until it is over, or for as long as a caller may.
pub(super) async fn wait(app: &App, id: ExecutionId) -> Answer<()> {
    let mut watch = app.engine.watch(id, None);
    let end = async {
        while watch.next().await?.is_some() || watch.resume() {}
        Ok::<_, store::Error>(())
    };
    tokio::select! {
        ended = tokio::time::timeout(LONGEST_WAIT, end) => match ended {
            Ok(ended) => Ok(ended?),
            Err(_) => Ok(()),
        },
        () = app.shutdown.cancelled() => Ok(()),
    }
}

/// An execution that somebody is told of, word by word.
pub(super) struct Telling {
    pub(super) app: App,
    caller: Caller,
    pub(super) id: ExecutionId,
    watch: Watch,
    words: Words,
}

/// What comes next.
pub(super) enum Told {
    /// More words.
    Words(String),
    /// The last words, if they were not told yet; and what was said.
    End(Option<String>, Said, Box<ExecutionRow>),
}

impl Telling {
    /// Of this execution, from its beginning.
    pub(super) fn new(app: App, caller: Caller, row: &ExecutionRow, words: Words) -> Self {
        let id = row.execution.id;
        Self {
            watch: app.engine.watch(id, None),
            app,
            caller,
            id,
            words,
        }
    }

    /// The next words, or the end.
    ///
    /// # Errors
    /// It ended without an answer, or can't be told any further.
    pub(super) async fn next(&mut self) -> Answer<Told> {
        let shutdown = self.app.shutdown.clone();
        let mut failures = 0;
        loop {
            let next = tokio::select! {
                () = shutdown.cancelled() => return Err(self.interrupted()),
                () = self.caller.ended() => return Err(self.shut_out()),
                next = self.watch.next() => next,
            };
            match next {
                Ok(Some(event)) => match self.words.hear(&event) {
                    Ok(None) => {}
                    Ok(Some(words)) => return Ok(Told::Words(words)),
                    Err(Diverged) => return Err(self.diverged()),
                },
                Ok(None) if self.watch.resume() => {}
                Ok(None) => {
                    let row = row(&self.app, self.id).await?;
                    let said = said(&row)?;
                    let last = self.words.end(&said.text);
                    return Ok(Told::End(last, said, Box::new(row)));
                }
                Err(error) => {
                    failures += 1;
                    if failures >= MAX_FAILURES {
                        return Err(error.into());
                    }
                    tracing::warn!(%error, failures, "the journal can't be read; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn shut_out(&self) -> ApiError {
        self.about(Code::AuthFailed, "the key is not valid any more".to_owned())
    }

    fn interrupted(&self) -> ApiError {
        let message = format!(
            "this process ends; the execution goes on, and GET /tasks/{} tells how it stands",
            self.id
        );
        self.about(Code::DependencyUnavailable, message)
    }

    fn diverged(&self) -> ApiError {
        let message = format!(
            "the model broke off and was asked again, and says something else than what was sent; \
             GET /tasks/{}/result has the answer",
            self.id
        );
        self.about(Code::StateConflict, message)
    }

    fn about(&self, code: Code, message: String) -> ApiError {
        ApiError::new(code, message).with("execution_id", self.id.to_string())
    }
}

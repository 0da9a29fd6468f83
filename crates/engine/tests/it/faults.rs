//! A matrix: at every append of an execution with calls of each effect, the store fails before it, fails after it, or
//! the lease is taken away. Whatever happens, the execution ends, what was committed is not done again, and an unsafe
//! call is made once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use domain::definition::Effect;
use domain::step::Answer;
use domain::{ExecutionId, Outcome, State, Status, StepBody};
use serde_json::json;
use store::intercept::{Intercept, Intercepted};
use store::{Append, Appended, Certainty, Claim, Claimed, Result, Store, Then};

use crate::rig::{Rig, Say, tool};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Before,
    After,
    LoseLease,
}

/// Lets append number `at` go wrong.
pub(crate) struct Faulty {
    pub(crate) at: u32,
    pub(crate) fault: Fault,
    pub(crate) appends: AtomicU32,
}

fn down(certainty: Certainty) -> store::Error {
    store::Error::Unavailable {
        message: "the test pulled the plug".to_owned(),
        certainty,
        source: None,
    }
}

/// Another takes the execution over, as it would after the lease ran out, and gives it back.
async fn take_over(store: &dyn Store, id: ExecutionId) -> Result<()> {
    if let Some(stolen) = steal(store, id).await? {
        give_back(store, &stolen).await?;
    }
    Ok(())
}

/// Another takes the execution over, for a minute and a half.
pub(crate) async fn steal(store: &dyn Store, id: ExecutionId) -> Result<Option<Claimed>> {
    let claim = Claim {
        worker: "thief".parse().unwrap(),
        now: Utc::now() + Duration::from_secs(60),
        lease: Duration::from_secs(30),
        limit: 1,
        only: Some(id),
        modes: vec![
            domain::ExecutionMode::Autonomous,
            domain::ExecutionMode::Collaborative,
        ],
        without: Vec::new(),
    };
    Ok(store.claim(claim).await?.pop())
}

/// The thief gives it back.
pub(crate) async fn give_back(store: &dyn Store, stolen: &Claimed) -> Result<()> {
    let append = Append {
        id: stolen.execution.id,
        epoch: stolen.epoch,
        now: Utc::now(),
        steps: Vec::new(),
        totals: State::replay(&stolen.execution, &stolen.steps)
            .unwrap()
            .totals,
        events: Vec::new(),
        children: Vec::new(),
        then: Then::HandBack,
    };
    store.append(append).await.map(drop)
}

#[async_trait]
impl Intercept for Faulty {
    async fn append(&self, inner: &dyn Store, append: Append) -> Result<Appended> {
        let here = self.appends.fetch_add(1, Ordering::SeqCst) == self.at;
        match self.fault {
            Fault::Before if here => Err(down(Certainty::NotApplied)),
            Fault::After if here => {
                inner.append(append).await?;
                Err(down(Certainty::Unknown))
            }
            Fault::LoseLease if here => {
                take_over(inner, append.id).await?;
                let answer = inner.append(append).await?;
                assert_eq!(answer, Appended::LostLease, "a late write is refused");
                Ok(answer)
            }
            Fault::Before | Fault::After | Fault::LoseLease => inner.append(append).await,
        }
    }
}

/// Waits for the end; where a person is asked whether a call happened, says what the tool's own book says.
async fn end_of(rig: &Rig, id: ExecutionId) -> Outcome {
    let work = async {
        loop {
            let row = rig.store.execution(id).await.unwrap().unwrap();
            if let Some(outcome) = row.outcome {
                return outcome;
            }
            if row.status == Status::WaitingForInput {
                let answer = if rig.tools.count("charge") > 0 {
                    Answer::Happened {
                        result: "charge done".to_owned(),
                    }
                } else {
                    Answer::Repeat
                };
                let input = store::NewInput {
                    id,
                    request: None,
                    answer,
                    by: "me".to_owned(),
                    now: Utc::now(),
                };
                rig.engine.answer(input).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), work)
        .await
        .expect("it ends")
}

async fn one(fault: Fault, at: u32) -> bool {
    let extra = json!({ "tools": [
        tool("read", Effect::ReadOnly), tool("put", Effect::Idempotent), tool("order", Effect::Checkable),
        tool("charge", Effect::Unsafe), tool("check", Effect::ReadOnly),
    ] });
    let rig = Rig::new(
        extra,
        |turn, _| match turn {
            0 => Say::Tools(vec![("charge", json!({})), ("order", json!({}))]),
            1 => Say::Tools(vec![("read", json!({})), ("put", json!({}))]),
            _ => Say::Text("done"),
        },
        |inner| {
            Arc::new(Intercepted::new(
                inner,
                Faulty {
                    at,
                    fault,
                    appends: AtomicU32::new(0),
                },
            ))
        },
    )
    .await;
    rig.engine.start();
    let id = rig.submit().await;
    let outcome = end_of(&rig, id).await;
    let context = format!("{fault:?} at append {at}");
    assert!(
        matches!(outcome, Outcome::Completed { .. }),
        "{context}: {outcome:?}"
    );
    assert_eq!(
        rig.tools.count("charge"),
        1,
        "{context}: an unsafe call was doubled"
    );
    assert_eq!(
        rig.tools.count("order"),
        1,
        "{context}: a checkable call was doubled"
    );

    let row = rig.store.execution(id).await.unwrap().unwrap();
    let steps = rig.store.steps(id, None, 1000).await.unwrap();
    let state = State::replay(&row.execution, &steps).unwrap();
    assert_eq!(
        (state.status(), state.totals),
        (row.status, row.totals),
        "{context}: the journal is not the state"
    );
    let answers = steps
        .iter()
        .filter(|step| matches!(step.body, StepBody::ModelCall(_)))
        .count();
    assert_eq!(answers, 3, "{context}");
    steps.iter().any(|step| step.epoch.get() > 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_at_any_commit_nothing_is_lost_or_doubled() {
    // Side by side: most of the time is spent waiting for leases to run out.
    let runs = [Fault::Before, Fault::After, Fault::LoseLease]
        .into_iter()
        .flat_map(|fault| (0..7).map(move |at| tokio::spawn(one(fault, at))));
    let mut recovered = 0;
    for run in runs.collect::<Vec<_>>() {
        recovered += u32::from(run.await.unwrap());
    }
    assert!(
        recovered >= 12,
        "only {recovered} runs were taken over; the matrix shows nothing"
    );
}

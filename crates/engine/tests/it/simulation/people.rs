//! Those who use the system: they submit, publish, cancel and answer, through any worker, again until it is taken.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentrunner_engine::{Error, NewTask};
use domain::step::{Answer, Question};
use domain::{Event, EventId, ExecutionId, Priority, Seq, TraceId};
use serde_json::json;
use store::{IdempotencyKey, NewInput};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::cast::{HELPER, MAIN, TOPIC};
use super::cluster::{Cluster, Worker};
use super::world::World;

/// How long anybody waits for a worker's answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// What was promised to somebody.
#[derive(Default)]
pub(crate) struct Promises {
    pub(crate) tasks: Mutex<BTreeSet<ExecutionId>>,
    pub(crate) events: Mutex<BTreeSet<EventId>>,
}

/// The users of a system.
#[derive(Clone)]
pub(crate) struct People {
    pub(crate) world: Arc<World>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) promises: Arc<Promises>,
}

impl People {
    /// Does what everybody came for. The person who answers questions never ends.
    pub(crate) async fn act(&self) {
        let (tasks, events) = {
            let mut lots = self.world.lots();
            (2 + lots.below(7), lots.below(4))
        };
        let mut all = JoinSet::new();
        for n in 0..tasks {
            let this = self.clone();
            all.spawn(async move { this.submit(n).await });
        }
        for n in 0..events {
            let this = self.clone();
            all.spawn(async move { this.publish(n).await });
        }
        while all.join_next().await.is_some() {}
        self.world.note(format_args!("everything is submitted"));
    }

    /// Asks a worker, another when it does not answer, until one has taken it.
    async fn insist<T, F>(&self, ask: impl Fn(Worker) -> F) -> T
    where
        F: Future<Output = Result<T, Error>>,
    {
        loop {
            let worker = self.cluster.any();
            if let Ok(Ok(answer)) = timeout(PATIENCE, ask(worker)).await {
                return answer;
            }
            let pause = self.world.lots().millis(200, 2000);
            sleep(pause).await;
        }
    }

    async fn submit(&self, n: u64) {
        let pause = self.world.lots().millis(0, 25_000);
        sleep(pause).await;
        let trace = TraceId::from_uuid(self.world.new_id());
        let (is_direct, priority) = {
            let mut lots = self.world.lots();
            let priorities = [
                Priority::Low,
                Priority::Normal,
                Priority::Normal,
                Priority::High,
            ];
            (lots.below(5) == 0, *lots.pick(&priorities))
        };
        let agent = if is_direct { HELPER } else { MAIN };
        let task = NewTask {
            priority,
            idempotency: Some(IdempotencyKey {
                key: format!("key-{n}"),
                body_hash: format!("body-{n}"),
            }),
            ..NewTask::new(agent, json!({ "prompt": format!("task {n}") }), trace)
        };
        let ask = |worker: Worker| {
            let task = task.clone();
            async move { worker.engine.submit(task).await }
        };
        let id = self.insist(ask).await.id;
        self.world.count("tasks");
        self.promises.tasks.lock().unwrap().insert(id);
        if self.world.lots().below(5) == 0 {
            let pause = self.world.lots().millis(0, 15_000);
            sleep(pause).await;
            self.world.count("cancellations");
            let cancel = |worker: Worker| async move { worker.engine.cancel(id, "me", "").await };
            self.insist(cancel).await;
        }
    }

    async fn publish(&self, n: u64) {
        let pause = self.world.lots().millis(0, 20_000);
        sleep(pause).await;
        let event = Event {
            id: format!("order-{n}").parse().unwrap(),
            topic: TOPIC.parse().unwrap(),
            source: "agentrunner/simulation".to_owned(),
            time: self.world.now(),
            trace_id: TraceId::from_uuid(self.world.new_id()),
            hops: 0,
            data: json!({ "n": n }),
        };
        // Now and then it is published twice.
        let times = 1 + self.world.lots().below(2);
        for _ in 0..times {
            let ask = |worker: Worker| {
                let event = event.clone();
                async move { worker.engine.publish(event).await }
            };
            self.insist(ask).await;
            self.world.count("events");
            self.promises
                .events
                .lock()
                .unwrap()
                .insert(event.id.clone());
            let pause = self.world.lots().millis(0, 5000);
            sleep(pause).await;
        }
    }

    /// Answers questions, sooner or later, sometimes never.
    pub(crate) async fn answer_questions(self) {
        let mut known = BTreeSet::new();
        let mut answering = JoinSet::new();
        loop {
            let open = self.world.tables().open_questions();
            for (id, request, question) in open {
                let never = !known.insert((id, request)) || self.world.lots().below(7) == 0;
                if !never {
                    let this = self.clone();
                    answering.spawn(async move { this.answer(id, request, question).await });
                }
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn answer(&self, id: ExecutionId, request: Seq, question: Question) {
        let pause = self.world.lots().millis(300, 15_000);
        sleep(pause).await;
        let text = "because".to_owned();
        let answer = match (question, self.world.lots().below(3)) {
            (_, 0) => Answer::Reject { reason: text },
            (Question::Clarification { .. }, _) => Answer::Text { text },
            (Question::Approval { .. } | Question::Plan { .. }, _) => Answer::Approve,
            (Question::UnknownOutcome { .. }, 1) => Answer::Happened { result: text },
            (Question::UnknownOutcome { .. }, _) => Answer::Repeat,
        };
        let ask = |worker: Worker| {
            let input = NewInput {
                id,
                request: Some(request),
                answer: answer.clone(),
                by: "me".to_owned(),
                now: self.world.now(),
            };
            async move { worker.engine.answer(input).await }
        };
        self.insist(ask).await;
        self.world.count("answers");
    }
}

//! Gathers requests of many callers and performs them with one commit.
//!
//! A task owns one session. It takes whatever waits, performs it together and answers all. It never waits for more:
//! alone, a request costs one commit and not a microsecond of gathering; under load, batches form by themselves while
//! the disk is busy with the commit before.
//!
//! # A request that fails harms no other
//! When the server refuses a batch because of what is in it, nothing was changed, and its requests are performed again,
//! each for itself. Two requests that touch the same thing never share a batch: the later one waits for the next.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Signals;
use super::connection::{Conn, Role};
use super::fault::{Fault, Outcome, closed};
use super::settings::Server;
use crate::{Certainty, Error, Result};

/// How many requests share a commit at most: bounds how long the first of them waits.
const MAX_BATCH: usize = 256;
/// How many requests wait at most; further callers wait for room.
const MAX_QUEUE: usize = 4096;
/// How often a batch is tried that is in another transaction's way.
const ATTEMPTS: usize = 4;

/// A kind of request, and how a batch of it is performed.
pub(super) trait Kind: Send + Sync + 'static {
    type Request: Send + Sync;
    type Answer: Send;

    /// What requests of one batch must not have in common, hashed.
    fn touches(request: &Self::Request) -> Vec<u64>;

    /// Performs a batch with one commit; answers each request in its place. When it fails, nothing is changed, unless
    /// the fault says that nobody knows.
    fn perform(
        &self,
        conn: &mut Conn,
        batch: &[Self::Request],
    ) -> impl Future<Output = Outcome<Done<Self::Answer>>> + Send;
}

/// What came of a batch.
pub(super) struct Done<A> {
    pub(super) answers: Vec<Result<A>>,
    /// Whether events wait to be sent out.
    pub(super) has_events: bool,
    /// Whether something became due.
    pub(super) has_work: bool,
}

enum Message<K: Kind> {
    Work(Call<K>),
    Close(oneshot::Sender<()>),
}

struct Call<K: Kind> {
    request: K::Request,
    reply: oneshot::Sender<Result<K::Answer>>,
}

/// A handle of the task.
pub(super) struct Gatherer<K: Kind> {
    queue: mpsc::Sender<Message<K>>,
}

impl<K: Kind> Clone for Gatherer<K> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
        }
    }
}

impl<K: Kind> std::fmt::Debug for Gatherer<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gatherer")
    }
}

impl<K: Kind> Gatherer<K> {
    /// Begins to gather. The session is opened at once, so that what was begun can go on when others take the last one of
    /// the server later; and again whenever it was lost.
    pub(super) fn start(kind: K, server: Arc<Server>, signals: Signals) -> Self {
        let (queue, requests) = mpsc::channel(MAX_QUEUE);
        let worker = Worker {
            kind,
            server,
            signals,
            conn: None,
        };
        tokio::spawn(worker.serve(requests));
        Self { queue }
    }

    /// Has a request performed; answers when that is durable. A caller that stops waiting does not stop the work.
    pub(super) async fn perform(&self, request: K::Request) -> Result<K::Answer> {
        let (reply, answer) = oneshot::channel();
        let call = Call { request, reply };
        self.queue
            .send(Message::Work(call))
            .await
            .map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| {
            Err(Error::Unavailable {
                message: "the task that writes is gone; restart the program".to_owned(),
                certainty: Certainty::Unknown,
                source: None,
            })
        })
    }

    /// Lets everything that waits be written, and ends the task. Again: nothing.
    pub(super) async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.queue.send(Message::Close(reply)).await.is_ok() {
            // An error is the same end.
            drop(done.await);
        }
    }
}

struct Worker<K> {
    kind: K,
    server: Arc<Server>,
    signals: Signals,
    conn: Option<Conn>,
}

impl<K: Kind> Worker<K> {
    async fn serve(mut self, mut queue: mpsc::Receiver<Message<K>>) {
        // Without one, the first batch says what is wrong.
        self.conn = Conn::open(&self.server, Role::Batches).await.ok();
        let mut waiting: VecDeque<Call<K>> = VecDeque::new();
        let mut closing = Vec::new();
        loop {
            let next = if waiting.is_empty() {
                match queue.recv().await {
                    Some(message) => Some(message),
                    None => break,
                }
            } else {
                queue.try_recv().ok()
            };
            let mut next = next;
            while let Some(message) = next {
                match message {
                    Message::Work(call) => waiting.push_back(call),
                    // What is in the queue is still performed, then it tells that there is no more.
                    Message::Close(reply) => {
                        queue.close();
                        closing.push(reply);
                    }
                }
                next = if waiting.len() < MAX_QUEUE {
                    queue.try_recv().ok()
                } else {
                    None
                };
            }
            let batch = choose::<K>(&mut waiting);
            if !batch.is_empty() {
                self.answer(batch).await;
            }
        }
        for reply in closing {
            // Whoever closed may have stopped waiting.
            reply.send(()).ok();
        }
    }

    async fn answer(&mut self, batch: Vec<Call<K>>) {
        let (requests, replies): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|call| (call.request, call.reply))
            .unzip();
        let answers = match self.attempt(&requests).await {
            Ok(answers) => answers,
            Err(fault) if fault.is_one_requests() && requests.len() > 1 => {
                let mut answers = Vec::with_capacity(requests.len());
                for request in &requests {
                    let alone = self.attempt(std::slice::from_ref(request)).await;
                    answers.push(match alone {
                        Ok(mut one) => one.pop().unwrap_or_else(|| Err(closed())),
                        Err(fault) => Err(fault.into()),
                    });
                }
                answers
            }
            Err(fault) => losses(fault, requests.len()),
        };
        for (answer, reply) in answers.into_iter().zip(replies) {
            // Whoever asked may have stopped waiting.
            drop(reply.send(answer));
        }
    }

    async fn attempt(&mut self, requests: &[K::Request]) -> Outcome<Vec<Result<K::Answer>>> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let mut conn = match self.conn.take() {
                Some(conn) if conn.is_clean() => conn,
                _ => Conn::open(&self.server, Role::Batches).await?,
            };
            match self.kind.perform(&mut conn, requests).await {
                Ok(done) => {
                    self.conn = Some(conn);
                    if done.has_events {
                        self.signals.outbox.notify_one();
                    }
                    if done.has_work {
                        self.signals.work();
                    }
                    return Ok(done.answers);
                }
                Err(fault) => {
                    // Another session is opened when this one can't be brought back to order.
                    if !fault.is_passing() && conn.roll_back().await.is_ok() {
                        self.conn = Some(conn);
                    }
                    if !fault.is_passing() || left == 0 {
                        return Err(fault);
                    }
                    tracing::debug!("a batch was in another transaction's way and is tried again");
                }
            }
        }
    }
}

/// The requests of the next batch: the oldest, less those that touch what an older one touches.
fn choose<K: Kind>(waiting: &mut VecDeque<Call<K>>) -> Vec<Call<K>> {
    let (mut batch, mut later) = (Vec::new(), VecDeque::new());
    let mut touched = HashSet::new();
    while batch.len() < MAX_BATCH
        && let Some(call) = waiting.pop_front()
    {
        let mut is_free = true;
        for touch in K::touches(&call.request) {
            is_free &= touched.insert(touch);
        }
        if is_free {
            batch.push(call);
        } else {
            later.push_back(call);
        }
    }
    later.append(waiting);
    *waiting = later;
    batch
}

/// The same failure for each request of a batch.
fn losses<A>(fault: Fault, n: usize) -> Vec<Result<A>> {
    let error = Error::from(fault);
    tracing::error!(requests = n, error = %error, "a batch was not committed");
    let certainty = error.certainty();
    let message = match &error {
        Error::Unavailable { message, .. } => message.clone(),
        other => other.to_string(),
    };
    let mut answers = vec![Err(error)];
    answers.extend((1..n).map(|_| {
        Err(Error::Unavailable {
            message: message.clone(),
            certainty,
            source: None,
        })
    }));
    answers
}

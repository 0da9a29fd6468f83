//! Takes what is due, tries it, and writes down what came of it.

use std::time::Duration;

use domain::Matter;
use domain::delivery::{Attempt, Verdict, is_worn_out, verdict};
use store::{ClaimedDelivery, DeliveryClaim, DeliveryKind, Settled, Settlement};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Sender;
use super::post::Tried;

/// How many are tried at once.
const AT_ONCE: usize = 32;
/// How often it is looked for what is due.
const POLL: Duration = Duration::from_secs(1);
/// How long a delivery is one sender's: much longer than a try may take.
const LEASE: Duration = Duration::from_secs(60);
/// How long what is under way may take when the process is to end. What is not settled then is sent again.
const LAST: Duration = Duration::from_secs(5);

impl Sender {
    /// Sends until `stop`. Any number of processes may.
    pub async fn run(self, stop: CancellationToken) {
        let mut trying = JoinSet::new();
        let mut complained = false;
        loop {
            let room = AT_ONCE - trying.len().min(AT_ONCE);
            let is_full = match self.take(room).await {
                Ok(taken) => {
                    complained = false;
                    let is_full = taken.len() == room;
                    for one in taken {
                        trying.spawn(self.clone().perform(one));
                    }
                    is_full
                }
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!(%error, "what is to be sent out can't be read; it is tried again");
                    }
                    false
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                _ = trying.join_next(), if is_full && !trying.is_empty() => {}
                () = tokio::time::sleep(POLL) => {}
            }
            while trying.try_join_next().is_some() {}
        }
        let rest = async { while trying.join_next().await.is_some() {} };
        tokio::time::timeout(LAST, rest).await.ok();
    }

    async fn take(&self, limit: usize) -> store::Result<Vec<ClaimedDelivery>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let claim = DeliveryClaim {
            now: self.engine.now(),
            lease: LEASE,
            limit,
            // Who can't sign leaves callbacks to one who can: a try that sends nothing is none.
            kind: match self.keys {
                Some(_) => None,
                None => Some(DeliveryKind::Alert),
            },
        };
        self.engine.store().claim_deliveries(claim).await
    }

    async fn perform(self, taken: ClaimedDelivery) {
        let delivery = &taken.delivery;
        let tried = if is_worn_out(&delivery.matter, delivery.attempts) {
            Tried::refused("each process that tried it died of it")
        } else {
            self.attempt(&taken).await
        };
        let verdict = verdict(&delivery.matter, delivery.attempts, tried.reply, lot());
        let now = self.engine.now();
        let (then, outcome) = match verdict {
            Verdict::Delivered => (Settled::Delivered, "delivered"),
            Verdict::Again(pause) => (Settled::Again(now + pause), "retried"),
            Verdict::GiveUp => (Settled::Failed, "failed"),
        };
        let kind = match delivery.matter {
            Matter::Result { .. } => "callback",
            Matter::Alert { .. } => "alert",
        };
        metrics::counter!("agentrunner_deliveries_total", "kind" => kind, "outcome" => outcome)
            .increment(1);
        let (id, detail, attempts) = (delivery.id, &tried.detail, delivery.attempts);
        match then {
            Settled::Delivered => {
                tracing::info!(delivery = %id, event = delivery.event, "a {kind} was delivered")
            }
            Settled::Again(at) => {
                tracing::warn!(delivery = %id, attempts, next = %at, "a {kind} was not delivered: {detail}");
            }
            Settled::Failed => {
                tracing::error!(delivery = %id, attempts, "a {kind} is given up: {detail}");
            }
        }
        let settlement = Settlement {
            id,
            claim: taken.claim,
            attempt: Attempt::new(now, tried.status(), &tried.detail),
            then,
        };
        match self.engine.store().settle_delivery(settlement).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!(delivery = %id, "another process has taken it since"),
            // Its claim runs out, and it is sent again: the receiver knows the id.
            Err(error) => {
                tracing::warn!(delivery = %id, %error, "what came of a try was not noted")
            }
        }
    }

    async fn attempt(&self, taken: &ClaimedDelivery) -> Tried {
        let delivery = &taken.delivery;
        match (&delivery.matter, &self.keys) {
            (Matter::Result { execution, .. }, Some(keys)) => {
                self.call_back(delivery, *execution, keys).await
            }
            (Matter::Result { .. }, None) => Tried::failed(
                "this process can't sign it: set CALLBACK_SIGNING_SECRET for all processes alike",
            ),
            (Matter::Alert { receiver, message }, keys) => {
                let keys = keys.as_deref();
                let now = self.engine.now();
                let told = (delivery.id, now);
                self.alerts
                    .tell(&self.egress, keys, receiver, message, told)
                    .await
            }
        }
    }
}

/// A number between 0 and 1, by chance.
fn lot() -> f64 {
    let mut random = [0; 4];
    match getrandom::fill(&mut random) {
        Ok(()) => f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

//! What is sent out until it has arrived, and what is known of alerts, as a store keeps them.

use std::time::Duration;

use async_trait::async_trait;
use domain::delivery::Attempt;
use domain::{AgentName, Delivery, DeliveryId, DeliveryState, ScheduleName, Status, Time};

use crate::{Page, Result};

/// Which deliveries.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Of what kind.
    pub kind: DeliveryKind,
    /// Only those that stand so.
    pub state: Option<DeliveryState>,
    /// Only ends of these agents' executions; of all when it is empty.
    pub agents: Vec<AgentName>,
    /// Which part of them.
    pub page: Page,
}

/// What kind of delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeliveryKind {
    /// Ends of executions.
    #[default]
    Result,
    /// Alerts.
    Alert,
}

/// Takes deliveries that are due.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryClaim {
    /// What time it is.
    pub now: Time,
    /// How long nobody else gets them.
    pub lease: Duration,
    /// How many at most.
    pub limit: usize,
    /// Only of this kind.
    pub kind: Option<DeliveryKind>,
}

/// A delivery that was taken to be tried.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedDelivery {
    /// What is delivered; its `attempts` counts this try.
    pub delivery: Delivery,
    /// Proves that it is the latest taking.
    pub claim: u64,
}

/// What became of a try.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// Of which delivery.
    pub id: DeliveryId,
    /// Taken by which claim.
    pub claim: u64,
    /// The try.
    pub attempt: Attempt,
    /// What follows.
    pub then: Settled,
}

/// What follows from a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It arrived.
    Delivered,
    /// It is tried again then.
    Again(Time),
    /// It is given up.
    Failed,
}

/// What alerts are about, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vitals {
    /// How many executions ended so, by agent, since each of the times that were asked for.
    pub ended: Vec<Vec<(AgentName, Status, u64)>>,
    /// The executions that nobody has begun: how many, and since when the oldest waits; by agent.
    pub queued: Vec<(AgentName, u64, Time)>,
    /// How many events were given up and not replayed.
    pub dead_letters: u64,
    /// Active schedules whose fire time nobody has looked at since.
    pub overdue: Vec<(ScheduleName, Time)>,
    /// The fire times that were left out, with the word for why, since each of the times that were asked for.
    pub skipped: Vec<Vec<(ScheduleName, String, u64)>>,
}

/// What is known of alerts: a document of whoever evaluates them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertRecord {
    /// Counts its changes; 0 when there is none yet.
    pub version: u64,
    /// JSON; empty when there is none yet.
    pub state: String,
}

/// The part of a store that keeps what is sent out until it has arrived.
///
/// That an execution has ended becomes a delivery in the transaction that ends it, if it was accepted with a
/// `callback_url`; nobody has to ask for it. It goes with its execution.
#[async_trait]
pub trait Outgoing: Send + Sync + 'static {
    /// Takes the deliveries that are due the longest and that no other sender has. Until the claim runs out nobody else
    /// gets them. Each taking counts as a try, so that one that takes its sender down is not tried for ever.
    async fn claim_deliveries(&self, claim: DeliveryClaim) -> Result<Vec<ClaimedDelivery>>;

    /// Notes what became of a try. Answers whether it was noted: not when another sender has taken the delivery since.
    async fn settle_delivery(&self, settlement: Settlement) -> Result<bool>;

    /// Makes a delivery due now and forgets its tries, however it stands; one that is being tried at this moment is
    /// left to that try first. Answers it as it stands then; `None` when there is none.
    async fn resend_delivery(&self, id: DeliveryId, now: Time) -> Result<Option<Delivery>>;

    /// One delivery.
    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>>;

    /// Deliveries, newest first. Those that can't be read are left out.
    async fn deliveries(&self, filter: DeliveryFilter) -> Result<Vec<Delivery>>;

    /// What alerts are about: `since` are the beginnings of the windows that are looked at, `overdue` is the time
    /// before which a fire time should have been looked at.
    async fn vitals(&self, since: &[Time], overdue: Time) -> Result<Vitals>;

    /// What is known of alerts.
    async fn alert_state(&self) -> Result<AlertRecord>;

    /// Keeps what is known of alerts as the next version, together with what is to be told of it, if it is as the
    /// caller has seen it. Answers whether it was kept; otherwise nothing was changed.
    async fn save_alert_state(
        &self,
        record: AlertRecord,
        tell: Vec<Delivery>,
        now: Time,
    ) -> Result<bool>;
}

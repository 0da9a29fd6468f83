//! What is sent out until it has arrived, and what is known of alerts.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::{Delivery, DeliveryId, DeliveryState, ExecutionId, Matter, Status, Time};
use store::{
    AlertRecord, ClaimedDelivery, DeliveryClaim, DeliveryFilter, DeliveryKind, Outgoing, Result,
    RunState, Settled, Settlement, Vitals,
};

use super::Tables;
use crate::simulation::store::{Reached, Way};

/// A delivery, and who has it.
pub(super) struct Out {
    delivery: Delivery,
    claims: u64,
    claimed_until: Option<Time>,
}

impl Tables {
    /// An execution has ended: if somebody wants to know, it is to be sent.
    pub(super) fn tell_end(&mut self, id: ExecutionId, now: Time) {
        let row = &self.rows[&id];
        if row.execution.callback_url.is_none() {
            return;
        }
        let matter = Matter::Result {
            execution: id,
            agent: row.execution.agent.clone(),
        };
        self.put_delivery(Delivery {
            id: id.into(),
            matter,
            event: format!("execution.{}", row.status),
            state: DeliveryState::Pending,
            attempts: 0,
            created_at: now,
            next_at: Some(now),
            settled_at: None,
            last: None,
        });
    }

    fn put_delivery(&mut self, delivery: Delivery) {
        let out = Out {
            delivery,
            claims: 0,
            claimed_until: None,
        };
        self.deliveries.entry(out.delivery.id).or_insert(out);
    }

    fn claim_deliveries(&mut self, claim: DeliveryClaim) -> Vec<ClaimedDelivery> {
        let is_due = |out: &&mut Out| {
            out.delivery.next_at.is_some_and(|at| at <= claim.now)
                && out.claimed_until.is_none_or(|until| until <= claim.now)
                && claim.kind.is_none_or(|kind| {
                    let is_end = matches!(out.delivery.matter, Matter::Result { .. });
                    is_end == (kind == DeliveryKind::Result)
                })
        };
        let mut due: Vec<&mut Out> = self.deliveries.values_mut().filter(is_due).collect();
        due.sort_by_key(|out| out.delivery.next_at);
        let taken = due.into_iter().take(claim.limit).map(|out| {
            out.claims += 1;
            out.delivery.attempts += 1;
            out.claimed_until = Some(claim.now + claim.lease);
            ClaimedDelivery {
                delivery: out.delivery.clone(),
                claim: out.claims,
            }
        });
        taken.collect()
    }

    fn settle_delivery(&mut self, settlement: Settlement) -> bool {
        let Some(out) = self.deliveries.get_mut(&settlement.id) else {
            return false;
        };
        if out.claims != settlement.claim || out.claimed_until.is_none() {
            return false;
        }
        out.claimed_until = None;
        let delivery = &mut out.delivery;
        let at = settlement.attempt.at;
        delivery.last = Some(settlement.attempt);
        let is_sent_again = delivery.attempts == 0;
        let (state, next, over) = match settlement.then {
            Settled::Delivered => (DeliveryState::Delivered, None, Some(at)),
            _ if is_sent_again => return true,
            Settled::Again(at) => (DeliveryState::Pending, Some(at), None),
            Settled::Failed => (DeliveryState::Failed, None, Some(at)),
        };
        (delivery.state, delivery.next_at, delivery.settled_at) = (state, next, over);
        true
    }

    fn resend_delivery(&mut self, id: DeliveryId, now: Time) -> Option<Delivery> {
        let delivery = &mut self.deliveries.get_mut(&id)?.delivery;
        delivery.state = DeliveryState::Pending;
        (delivery.attempts, delivery.next_at, delivery.settled_at) = (0, Some(now), None);
        Some(delivery.clone())
    }

    fn find_deliveries(&self, filter: &DeliveryFilter) -> Vec<Delivery> {
        let place = |one: &Delivery| Reverse((one.created_at, one.id.to_string()));
        let is_wanted = |one: &Delivery| {
            let (kind, agent) = match &one.matter {
                Matter::Result { agent, .. } => (DeliveryKind::Result, Some(agent)),
                Matter::Alert { .. } => (DeliveryKind::Alert, None),
            };
            let after = filter.page.after.as_ref();
            kind == filter.kind
                && filter.state.is_none_or(|state| state == one.state)
                && (filter.agents.is_empty() || agent.is_some_and(|a| filter.agents.contains(a)))
                && after.is_none_or(|after| place(one) > Reverse(after.clone()))
        };
        let all = self.deliveries.values().map(|out| &out.delivery);
        let mut found: Vec<Delivery> = all.filter(|one| is_wanted(one)).cloned().collect();
        found.sort_by_key(place);
        found.truncate(filter.page.limit);
        found
    }

    fn vitals(&self, since: &[Time], overdue: Time) -> Vitals {
        let mut vitals = Vitals {
            dead_letters: self.letters.len() as u64,
            ..Vitals::default()
        };
        for since in since {
            let mut ended = BTreeMap::new();
            for row in self.rows.values() {
                if row.finished_at.is_some_and(|at| at >= *since) {
                    let key = (row.execution.agent.clone(), row.status.as_str());
                    ended.entry(key).or_insert((row.status, 0)).1 += 1;
                }
            }
            let ended = ended.into_iter();
            vitals
                .ended
                .push(ended.map(|((agent, _), (s, n))| (agent, s, n)).collect());
            let mut skipped = BTreeMap::new();
            for ((name, _), run) in &self.runs {
                let run = run.said();
                if run.noticed_at >= *since && run.state == RunState::Skipped {
                    let why = run.reason.clone().unwrap_or_default();
                    *skipped.entry((name.clone(), why)).or_insert(0) += 1;
                }
            }
            let skipped = skipped.into_iter();
            vitals
                .skipped
                .push(skipped.map(|((name, why), n)| (name, why, n)).collect());
        }
        let mut queued = BTreeMap::new();
        for row in self.rows.values() {
            if row.status == Status::Queued {
                let created = row.execution.created_at;
                let agent = row.execution.agent.clone();
                let (n, oldest) = queued.entry(agent).or_insert((0, created));
                (*n, *oldest) = (*n + 1, created.min(*oldest));
            }
        }
        let queued = queued.into_iter();
        vitals.queued = queued.map(|(agent, (n, at))| (agent, n, at)).collect();
        let late = self.schedules.iter().filter_map(|(name, record)| {
            let due = record.next_due.filter(|due| *due < overdue)?;
            record.is_active().then(|| (name.clone(), due))
        });
        vitals.overdue = late.collect();
        vitals.overdue.sort_by_key(|(name, at)| (*at, name.clone()));
        vitals
    }

    fn save_alert_state(&mut self, record: AlertRecord, tell: Vec<Delivery>) -> bool {
        if record.version != self.alerts.version {
            return false;
        }
        self.alerts = AlertRecord {
            version: record.version + 1,
            ..record
        };
        for delivery in tell {
            self.put_delivery(delivery);
        }
        true
    }
}

#[async_trait]
impl<W: Way> Outgoing for Reached<W> {
    async fn claim_deliveries(&self, claim: DeliveryClaim) -> Result<Vec<ClaimedDelivery>> {
        let take = move |t: &mut Tables| Ok(t.claim_deliveries(claim));
        self.way.carry("claim_deliveries", take).await
    }
    async fn settle_delivery(&self, settlement: Settlement) -> Result<bool> {
        let settle = move |t: &mut Tables| Ok(t.settle_delivery(settlement));
        self.way.carry("settle_delivery", settle).await
    }
    async fn resend_delivery(&self, id: DeliveryId, now: Time) -> Result<Option<Delivery>> {
        let resend = move |t: &mut Tables| Ok(t.resend_delivery(id, now));
        self.way.carry("resend_delivery", resend).await
    }
    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>> {
        let find = move |t: &mut Tables| Ok(t.deliveries.get(&id).map(|out| out.delivery.clone()));
        self.way.carry("delivery", find).await
    }
    async fn deliveries(&self, filter: DeliveryFilter) -> Result<Vec<Delivery>> {
        let find = move |t: &mut Tables| Ok(t.find_deliveries(&filter));
        self.way.carry("deliveries", find).await
    }
    async fn vitals(&self, since: &[Time], overdue: Time) -> Result<Vitals> {
        let since = since.to_vec();
        let read = move |t: &mut Tables| Ok(t.vitals(&since, overdue));
        self.way.carry("vitals", read).await
    }
    async fn alert_state(&self) -> Result<AlertRecord> {
        let read = |t: &mut Tables| Ok(t.alerts.clone());
        self.way.carry("alert_state", read).await
    }
    async fn save_alert_state(
        &self,
        record: AlertRecord,
        tell: Vec<Delivery>,
        _now: Time,
    ) -> Result<bool> {
        let save = move |t: &mut Tables| Ok(t.save_alert_state(record, tell));
        self.way.carry("save_alert_state", save).await
    }
}

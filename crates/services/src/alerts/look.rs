//! Looks, now and then, whether something is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::alert::{Known, Notice, Rule, Signs, Wrong, step};
use domain::fleet::{AgentStatus, Circumstances, standing};
use domain::{AgentName, Delivery, DeliveryId, DeliveryState, Matter, Money, Time};
use engine::Engine;
use store::{AlertRecord, UsageFilter};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Alerts;

/// How long a fire time may be overdue: schedulers look every second, and a start takes a while.
pub(crate) const OVERDUE: Duration = Duration::from_secs(60);
/// Why a fire time was left out that should not have been.
const MISSED: [&str; 3] = ["misfire", "misfires", "coalesced"];

impl Alerts {
    /// Looks after alerts until `stop`. Any number of processes may: one of them tells.
    pub async fn run(self, engine: Engine, stop: CancellationToken) {
        let mut complained = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.settings.interval) => {}
            }
            match self.look(&engine).await {
                Ok(()) => complained = false,
                Err(error) if !std::mem::replace(&mut complained, true) => {
                    tracing::warn!(%error, "alerts can't be looked after now; it is tried again");
                }
                Err(_) => {}
            }
        }
    }

    /// Looks once.
    ///
    /// # Errors
    /// The store can't be read or written; nothing was changed.
    pub async fn look(&self, engine: &Engine) -> Result<(), engine::Error> {
        let Some(config) = self.reload().await else {
            return Ok(());
        };
        let rules = config.rules();
        let record = engine.store().alert_state().await?;
        let known = known(&record);
        if rules.is_empty() && known.rules.is_empty() {
            return Ok(());
        }
        let now = engine.now();
        let recently = self.settings.interval / 2;
        let ago = known.looked_at.and_then(|at| (now - at).to_std().ok());
        if ago.is_some_and(|ago| ago < recently) {
            return Ok(());
        }
        let signs = signs(engine, &rules, now).await?;
        let (next, notices) = step(&known, &rules, &signs, now);
        let state = serde_json::to_string(&next).unwrap_or_default();
        let record = AlertRecord {
            version: record.version,
            state,
        };
        let tell: Vec<Delivery> = notices
            .iter()
            .flat_map(|notice| told(notice, now))
            .collect();
        if engine.store().save_alert_state(record, tell, now).await? {
            for notice in &notices {
                log(notice);
            }
        }
        Ok(())
    }
}

/// What is known. What can't be read, of a newer version perhaps, is begun anew.
pub(crate) fn known(record: &AlertRecord) -> Known {
    if record.state.is_empty() {
        return Known::default();
    }
    serde_json::from_str(&record.state).unwrap_or_else(|error| {
        tracing::warn!(%error, "what was known of alerts can't be read; it is begun anew");
        Known::default()
    })
}

fn log(notice: &Notice) {
    let count = notice.subjects.len();
    let first = notice.subjects.first();
    let (name, summary) = first.map_or(("", ""), |one| (one.name.as_str(), one.summary.as_str()));
    tracing::warn!(
        rule = notice.rule,
        severity = notice.severity.as_str(),
        subjects = count,
        "{}: {name} {summary}",
        notice.kind.event()
    );
    metrics::counter!("agentrunner_alerts_total", "rule" => notice.rule.clone(), "event" => notice.kind.event())
        .increment(1);
}

/// A message for each receiver.
fn told(notice: &Notice, now: Time) -> Vec<Delivery> {
    let Ok(message) = serde_json::to_string(notice) else {
        return Vec::new();
    };
    let receivers = notice.receivers.iter();
    let deliveries = receivers.map(|receiver| Delivery {
        id: DeliveryId::from_uuid(Uuid::now_v7()),
        matter: Matter::Alert {
            receiver: receiver.clone(),
            message: message.clone(),
        },
        event: notice.kind.event().to_owned(),
        state: DeliveryState::Pending,
        attempts: 0,
        created_at: now,
        next_at: Some(now),
        settled_at: None,
        last: None,
    });
    deliveries.collect()
}

/// What the rules look at; nothing that none of them does.
async fn signs(engine: &Engine, rules: &[Rule], now: Time) -> Result<Signs, engine::Error> {
    let windows: BTreeSet<Duration> = rules
        .iter()
        .filter_map(|rule| rule.wrong.window())
        .collect();
    let since: Vec<Time> = windows.iter().map(|window| now - *window).collect();
    let vitals = engine.store().vitals(&since, now - OVERDUE).await?;
    let missed = windows.iter().copied().zip(vitals.skipped);
    let missed = missed.map(|(window, skipped)| {
        let mut by_schedule = BTreeMap::new();
        for (schedule, reason, n) in skipped {
            if MISSED.contains(&reason.as_str()) {
                *by_schedule.entry(schedule).or_insert(0) += n;
            }
        }
        (window, by_schedule.into_iter().collect())
    });
    let mut signs = Signs {
        missed: missed.collect(),
        ended: windows.iter().copied().zip(vitals.ended).collect(),
        queued: vitals.queued,
        dead_letters: vitals.dead_letters,
        overdue: vitals.overdue,
        ..Signs::default()
    };
    let wants = |wanted: fn(&Wrong) -> bool| rules.iter().any(|rule| wanted(&rule.wrong));
    if wants(|wrong| matches!(wrong, Wrong::AgentUnavailable)) {
        signs.unavailable = unavailable(engine, now).await?;
    }
    if wants(|wrong| matches!(wrong, Wrong::Cost { .. })) {
        signs.cost = cost(engine, now).await?;
    }
    Ok(signs)
}

async fn unavailable(
    engine: &Engine,
    now: Time,
) -> Result<Vec<(AgentName, String)>, engine::Error> {
    let workers = engine.workers().await?;
    let interval = engine.registration().interval;
    let agents = engine.agents().all();
    let unavailable = agents.iter().filter_map(|agent| {
        let circumstances = Circumstances {
            name: &agent.definition.name,
            mode: agent.definition.execution_mode,
            is_enabled: agent.definition.enabled,
            switched_off: agent.switched_off.as_ref(),
            missing: None,
            rejected: None,
            withheld: 0,
            active: 0,
        };
        match standing(&circumstances, &workers, now, interval) {
            (AgentStatus::Unavailable, why) => {
                Some((agent.definition.name.clone(), why.unwrap_or_default()))
            }
            _ => None,
        }
    });
    Ok(unavailable.collect())
}

async fn cost(engine: &Engine, now: Time) -> Result<Vec<(AgentName, Money)>, engine::Error> {
    let today = now.format("%Y-%m-%d").to_string();
    let filter = UsageFilter {
        agent: None,
        from_day: Some(today.clone()),
        to_day: Some(today),
    };
    let mut by_agent: BTreeMap<AgentName, u64> = BTreeMap::new();
    for row in engine.store().usage(filter).await? {
        let sum = by_agent.entry(row.agent).or_default();
        *sum = sum.saturating_add(row.cost_usd.nanos());
    }
    let cost = by_agent.into_iter();
    Ok(cost
        .map(|(agent, nanos)| (agent, Money::from_nanos(nanos)))
        .collect())
}

//! What is sent out until it has arrived, and what is known of alerts.

use async_trait::async_trait;
use domain::delivery::Attempt;
use domain::{Delivery, DeliveryId, ExecutionId, Matter, Status, Time};
use tokio_postgres::Row;
use uuid::Uuid;

use super::Postgres;
use super::connection::Conn;
use super::fault::{Outcome, corrupt};
use super::sql::{counted, get, limit, parse, small, smalled, text, up};
use crate::codec::readable;
use crate::{
    AlertRecord, ClaimedDelivery, DeliveryClaim, DeliveryFilter, DeliveryKind, Outgoing, Result,
    Settled, Settlement, Vitals,
};

/// The columns of a delivery, as [`read`] takes them.
macro_rules! columns {
    () => {
        "d.id, d.execution_id, d.agent_name, d.receiver, d.message, d.event, d.state, d.attempts, d.created_at, \
         d.next_at, d.settled_at, d.last_at, d.last_status, d.last_detail"
    };
}

#[async_trait]
impl Outgoing for Postgres {
    async fn claim_deliveries(&self, claim: DeliveryClaim) -> Result<Vec<ClaimedDelivery>> {
        let until = claim.now + claim.lease;
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                concat!(
                    "WITH due AS (
                         SELECT id FROM deliveries
                         WHERE next_at <= $1 AND (claimed_until IS NULL OR claimed_until <= $1)
                             AND ($4::boolean IS NULL OR (execution_id IS NOT NULL) = $4)
                         ORDER BY next_at LIMIT $3 FOR UPDATE SKIP LOCKED
                     )
                     UPDATE deliveries d SET claims = d.claims + 1, attempts = d.attempts + 1, claimed_until = $2
                     FROM due WHERE d.id = due.id
                     RETURNING ",
                    columns!(),
                    ", d.claims"
                ),
                &[&claim.now, &until, &limit(claim.limit), &of_ends(claim.kind)],
            )
            .await?;
        let mut claimed = Vec::with_capacity(rows.len());
        for row in &rows {
            // One that can't be read is not sent, and is looked at again when its claim runs out.
            match read(row) {
                Ok(delivery) => claimed.push(ClaimedDelivery {
                    delivery,
                    claim: counted(get(row, 14)?),
                }),
                Err(error) => tracing::warn!(%error, "a delivery can't be read"),
            }
        }
        claimed.sort_by_key(|one| one.delivery.next_at);
        Ok(claimed)
    }

    async fn settle_delivery(&self, settlement: Settlement) -> Result<bool> {
        let Settlement {
            id,
            claim,
            attempt,
            then,
        } = settlement;
        let (state, next) = match then {
            Settled::Delivered => ("delivered", None),
            Settled::Again(at) => ("pending", Some(up(at))),
            Settled::Failed => ("failed", None),
        };
        let is_over = next.is_none();
        let status = attempt.status.map(i32::from);
        let mut conn = self.pool.get().await?;
        // Sent again while it was under way: it is due at once, unless it has arrived.
        let settled = conn
            .run(
                "UPDATE deliveries SET claimed_until = NULL, last_at = $5, last_status = $6, last_detail = $7,
                     state = CASE WHEN attempts = 0 AND $3 <> 'delivered' THEN state ELSE $3 END,
                     settled_at = CASE WHEN $8::boolean AND NOT (attempts = 0 AND $3 <> 'delivered') THEN $5::timestamptz END,
                     next_at = CASE WHEN attempts = 0 AND $3 <> 'delivered' THEN next_at ELSE $4::timestamptz END
                 WHERE id = $1 AND claims = $2 AND claimed_until IS NOT NULL RETURNING id",
                &[
                    &id.as_uuid(),
                    &super::sql::count(claim),
                    &state,
                    &next,
                    &attempt.at,
                    &status,
                    &text(&attempt.detail).as_ref(),
                    &is_over,
                ],
            )
            .await?;
        Ok(settled)
    }

    async fn resend_delivery(&self, id: DeliveryId, now: Time) -> Result<Option<Delivery>> {
        let mut conn = self.pool.get().await?;
        let row = conn
            .first(
                concat!(
                    "UPDATE deliveries d SET state = 'pending', attempts = 0, next_at = $2, settled_at = NULL
                     WHERE id = $1 RETURNING ",
                    columns!()
                ),
                &[&id.as_uuid(), &now],
            )
            .await?;
        row.as_ref().map(read).transpose()
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>> {
        let mut conn = self.pool.get().await?;
        let row = conn
            .first(
                concat!("SELECT ", columns!(), " FROM deliveries d WHERE id = $1"),
                &[&id.as_uuid()],
            )
            .await?;
        row.as_ref().map(read).transpose()
    }

    async fn deliveries(&self, filter: DeliveryFilter) -> Result<Vec<Delivery>> {
        let (at, id) = match &filter.page.after {
            Some((at, id)) => (Some(*at), id.parse::<DeliveryId>().ok()),
            None => (None, None),
        };
        let id = id.map_or(Uuid::nil(), DeliveryId::as_uuid);
        let state = filter.state.map(|state| state.as_str());
        let agents: Vec<&str> = filter.agents.iter().map(|agent| agent.as_str()).collect();
        let is_result = filter.kind == DeliveryKind::Result;
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                concat!(
                    "SELECT ",
                    columns!(),
                    " FROM deliveries d
                     WHERE ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2))
                       AND (execution_id IS NOT NULL) = $3 AND ($4::text IS NULL OR state = $4)
                       AND (cardinality($5::text[]) = 0 OR agent_name = ANY ($5))
                     ORDER BY created_at DESC, id DESC LIMIT $6"
                ),
                &[
                    &at,
                    &id,
                    &is_result,
                    &state,
                    &agents,
                    &limit(filter.page.limit),
                ],
            )
            .await?;
        let deliveries = rows.iter().filter_map(|row| {
            let read = read(row);
            read.inspect_err(|error| tracing::warn!(%error, "a delivery is left out"))
                .ok()
        });
        Ok(deliveries.collect())
    }

    async fn vitals(&self, since: &[Time], overdue: Time) -> Result<Vitals> {
        let mut conn = self.pool.get().await?;
        let mut vitals = Vitals::default();
        for since in since {
            vitals.ended.push(ended(&mut conn, *since).await?);
            vitals.skipped.push(skipped(&mut conn, *since).await?);
        }
        let rows = conn
            .all(
                "SELECT agent_name, count(*), min(created_at) FROM executions
                 WHERE status = 'queued' AND due_at IS NOT NULL GROUP BY 1 ORDER BY 1",
                &[],
            )
            .await?;
        for row in &rows {
            let agent: String = get(row, 0)?;
            if let Some(agent) = readable(&agent) {
                vitals
                    .queued
                    .push((agent, counted(get(row, 1)?), get(row, 2)?));
            }
        }
        let row = conn.first("SELECT count(*) FROM dead_letters", &[]).await?;
        vitals.dead_letters = counted(row.map_or(Ok(0), |row| get(&row, 0))?);
        let rows = conn
            .all(
                "SELECT name, next_due FROM schedules WHERE is_active AND next_due < $1 ORDER BY next_due, name LIMIT 1000",
                &[&overdue],
            )
            .await?;
        for row in &rows {
            let name: String = get(row, 0)?;
            if let Some(name) = readable(&name) {
                vitals.overdue.push((name, get(row, 1)?));
            }
        }
        Ok(vitals)
    }

    async fn alert_state(&self) -> Result<AlertRecord> {
        let mut conn = self.pool.get().await?;
        let row = conn
            .first("SELECT version, state FROM alert_state WHERE id = 1", &[])
            .await?;
        let Some(row) = row else {
            return Ok(AlertRecord::default());
        };
        Ok(AlertRecord {
            version: counted(get(&row, 0)?),
            state: get(&row, 1)?,
        })
    }

    async fn save_alert_state(
        &self,
        record: AlertRecord,
        tell: Vec<Delivery>,
        now: Time,
    ) -> Result<bool> {
        let mut conn = self.pool.get().await?;
        conn.begin();
        let seen = super::sql::count(record.version);
        let kept = if record.version == 0 {
            conn.run(
                "INSERT INTO alert_state (id, version, state, updated_at) VALUES (1, 1, $1, $2)
                 ON CONFLICT (id) DO NOTHING RETURNING id",
                &[&record.state, &now],
            )
            .await?
        } else {
            conn.run(
                "UPDATE alert_state SET version = version + 1, state = $2, updated_at = $3
                 WHERE id = 1 AND version = $1 RETURNING id",
                &[&seen, &record.state, &now],
            )
            .await?
        };
        if !kept {
            conn.roll_back().await?;
            return Ok(false);
        }
        for delivery in &tell {
            insert(&mut conn, delivery).await?;
        }
        conn.commit().await?;
        Ok(true)
    }
}

async fn insert(conn: &mut Conn, delivery: &Delivery) -> Outcome<()> {
    let (execution, agent, receiver, message) = match &delivery.matter {
        Matter::Result { execution, agent } => {
            (Some(execution.as_uuid()), Some(agent.as_str()), None, None)
        }
        Matter::Alert { receiver, message } => (
            None,
            None,
            Some(text(receiver).into_owned()),
            Some(text(message).into_owned()),
        ),
    };
    conn.run(
        "INSERT INTO deliveries (id, execution_id, agent_name, receiver, message, event, state, attempts, created_at,
             next_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO NOTHING",
        &[
            &delivery.id.as_uuid(),
            &execution,
            &agent,
            &receiver,
            &message,
            &delivery.event,
            &delivery.state.as_str(),
            &small(delivery.attempts),
            &delivery.created_at,
            &delivery.next_at,
        ],
    )
    .await?;
    Ok(())
}

async fn ended(conn: &mut Conn, since: Time) -> Result<Vec<(domain::AgentName, Status, u64)>> {
    let rows = conn
        .all(
            "SELECT agent_name, status, count(*) FROM execution_results WHERE created_at >= $1
             GROUP BY 1, 2 ORDER BY 1, 2",
            &[&since],
        )
        .await?;
    let mut ended = Vec::with_capacity(rows.len());
    for row in &rows {
        let (agent, status): (String, String) = (get(row, 0)?, get(row, 1)?);
        if let (Some(agent), Some(status)) = (readable(&agent), readable(&status)) {
            ended.push((agent, status, counted(get(row, 2)?)));
        }
    }
    Ok(ended)
}

async fn skipped(conn: &mut Conn, since: Time) -> Result<Vec<(domain::ScheduleName, String, u64)>> {
    let rows = conn
        .all(
            "SELECT schedule_name, coalesce(reason, ''), count(*) FROM schedule_runs
             WHERE noticed_at >= $1 AND state = 'skipped' GROUP BY 1, 2 ORDER BY 1, 2",
            &[&since],
        )
        .await?;
    let mut skipped = Vec::with_capacity(rows.len());
    for row in &rows {
        let name: String = get(row, 0)?;
        if let Some(name) = readable(&name) {
            skipped.push((name, get(row, 1)?, counted(get(row, 2)?)));
        }
    }
    Ok(skipped)
}

fn of_ends(kind: Option<DeliveryKind>) -> Option<bool> {
    kind.map(|kind| kind == DeliveryKind::Result)
}

/// Forgets alerts that were told, or given up, long ago; and ends of executions that went with their months.
pub(super) async fn forget(conn: &mut Conn, before: Time) -> Outcome<()> {
    conn.run(
        "DELETE FROM deliveries WHERE id = ANY (ARRAY(
             SELECT d.id FROM deliveries d
             WHERE d.created_at < $1 AND (d.execution_id IS NULL AND d.settled_at < $1
                 OR d.execution_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = d.execution_id))
             LIMIT 10000))",
        &[&before],
    )
    .await?;
    Ok(())
}

fn read(row: &Row) -> Result<Delivery> {
    let id = DeliveryId::from_uuid(get(row, 0)?);
    let what = || format!("delivery {id}");
    let execution: Option<Uuid> = get(row, 1)?;
    let (agent, receiver, message): (Option<String>, Option<String>, Option<String>) =
        (get(row, 2)?, get(row, 3)?, get(row, 4)?);
    let matter = match (execution, agent, receiver, message) {
        (Some(execution), Some(agent), ..) => Matter::Result {
            execution: ExecutionId::from_uuid(execution),
            agent: parse(&what(), &agent)?,
        },
        (None, _, Some(receiver), Some(message)) => Matter::Alert { receiver, message },
        _ => {
            return Err(corrupt(
                what(),
                "it is neither an execution's end nor an alert",
            ));
        }
    };
    let state: String = get(row, 6)?;
    let last: Option<Time> = get(row, 11)?;
    let status: Option<i32> = get(row, 12)?;
    let detail: Option<String> = get(row, 13)?;
    Ok(Delivery {
        id,
        matter,
        event: get(row, 5)?,
        state: parse(&what(), &state)?,
        attempts: smalled(get(row, 7)?),
        created_at: get(row, 8)?,
        next_at: get(row, 9)?,
        settled_at: get(row, 10)?,
        last: last.map(|at| Attempt {
            at,
            status: status.and_then(|status| u16::try_from(status).ok()),
            detail: detail.unwrap_or_default(),
        }),
    })
}

//! What is sent out until it has arrived, and what is known of alerts.

use async_trait::async_trait;
use domain::delivery::Attempt;
use domain::{Delivery, DeliveryId, Matter, Time};
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use super::Sqlite;
use super::fault::{Outcome, corrupt};
use super::sql::{self, Sql, count, counted, limit, micros, micros_up, parse, time};
use super::writer::Tx;
use crate::codec::readable;
use crate::{
    AlertRecord, ClaimedDelivery, DeliveryClaim, DeliveryFilter, DeliveryKind, Outgoing, Result,
    Settled, Settlement, Vitals,
};

/// The columns of a delivery, as [`Raw::of`] takes them.
macro_rules! columns {
    () => {
        "id, execution_id, agent_name, receiver, message, event, state, attempts, created_at, next_at, settled_at, \
         last_at, last_status, last_detail"
    };
}

#[async_trait]
impl Outgoing for Sqlite {
    async fn claim_deliveries(&self, claim: DeliveryClaim) -> Result<Vec<ClaimedDelivery>> {
        // Looked at first, so that nothing due costs no commit.
        let now = micros(claim.now);
        let due = "SELECT id FROM deliveries
                   WHERE next_at <= ?1 AND (claimed_until IS NULL OR claimed_until <= ?1)";
        let look = move |conn: &Connection| conn.first(due, [now], |_| Ok(()));
        if self.readers.read(look).await?.is_none() {
            return Ok(Vec::new());
        }
        let until = micros_up(claim.now + claim.lease);
        let of_ends = claim.kind.map(|kind| kind == DeliveryKind::Result);
        let take = move |tx: &mut Tx<'_>| {
            tx.conn.all(
                concat!(
                    "UPDATE deliveries SET claims = claims + 1, attempts = attempts + 1, claimed_until = ?2
                     WHERE id IN (
                         SELECT id FROM deliveries
                         WHERE next_at <= ?1 AND (claimed_until IS NULL OR claimed_until <= ?1)
                             AND (?4 IS NULL OR (execution_id IS NOT NULL) = ?4)
                         ORDER BY next_at LIMIT ?3)
                     RETURNING ",
                    columns!(),
                    ", claims"
                ),
                params![now, until, limit(claim.limit), of_ends],
                |row| Ok((Raw::of(row)?, row.get::<_, i64>(14)?)),
            )
        };
        let rows = self.writer.write(take).await?;
        let claimed = rows.into_iter().filter_map(|(raw, claim)| {
            // One that can't be read is not sent, and is looked at again when its claim runs out.
            let delivery = raw.read();
            let delivery =
                delivery.inspect_err(|error| tracing::warn!(%error, "a delivery can't be read"));
            Some(ClaimedDelivery {
                delivery: delivery.ok()?,
                claim: counted(claim),
            })
        });
        let mut claimed: Vec<_> = claimed.collect();
        claimed.sort_by_key(|one| one.delivery.next_at);
        Ok(claimed)
    }

    async fn settle_delivery(&self, settlement: Settlement) -> Result<bool> {
        let settle = move |tx: &mut Tx<'_>| {
            let Settlement {
                id,
                claim,
                attempt,
                then,
            } = &settlement;
            let (state, next) = match then {
                Settled::Delivered => ("delivered", None),
                Settled::Again(at) => ("pending", Some(micros_up(*at))),
                Settled::Failed => ("failed", None),
            };
            // Sent again while it was under way: it is due at once, unless it has arrived.
            let changed = tx.conn.run(
                "UPDATE deliveries SET claimed_until = NULL, last_at = ?5, last_status = ?6, last_detail = ?7,
                     state = CASE WHEN attempts = 0 AND ?3 <> 'delivered' THEN state ELSE ?3 END,
                     settled_at = CASE WHEN ?4 IS NULL AND NOT (attempts = 0 AND ?3 <> 'delivered') THEN ?5 END,
                     next_at = CASE WHEN attempts = 0 AND ?3 <> 'delivered' THEN next_at ELSE ?4 END
                 WHERE id = ?1 AND claims = ?2 AND claimed_until IS NOT NULL",
                params![
                    key(*id),
                    count(*claim),
                    state,
                    next,
                    micros(attempt.at),
                    attempt.status,
                    attempt.detail
                ],
            )?;
            Ok(changed == 1)
        };
        self.writer.write(settle).await
    }

    async fn resend_delivery(&self, id: DeliveryId, now: Time) -> Result<Option<Delivery>> {
        let resend = move |tx: &mut Tx<'_>| {
            tx.conn.first(
                concat!(
                    "UPDATE deliveries SET state = 'pending', attempts = 0, next_at = ?2, settled_at = NULL
                     WHERE id = ?1 RETURNING ",
                    columns!()
                ),
                params![key(id), micros(now)],
                Raw::of,
            )
        };
        let row = self.writer.write(resend).await?;
        row.map(Raw::read).transpose()
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>> {
        let find = move |conn: &Connection| {
            conn.first(
                concat!("SELECT ", columns!(), " FROM deliveries WHERE id = ?1"),
                [key(id)],
                Raw::of,
            )
        };
        let row = self.readers.read(find).await?;
        row.map(Raw::read).transpose()
    }

    async fn deliveries(&self, filter: DeliveryFilter) -> Result<Vec<Delivery>> {
        let rows = self.readers.read(move |conn| select(conn, &filter)).await?;
        let deliveries = rows.into_iter().filter_map(|row| {
            let read = row.read();
            read.inspect_err(|error| tracing::warn!(%error, "a delivery is left out"))
                .ok()
        });
        Ok(deliveries.collect())
    }

    async fn vitals(&self, since: &[Time], overdue: Time) -> Result<Vitals> {
        let since: Vec<i64> = since.iter().map(|since| micros(*since)).collect();
        let overdue = micros(overdue);
        let read = move |conn: &Connection| signs(conn, &since, overdue);
        self.readers.read(read).await?.read()
    }

    async fn alert_state(&self) -> Result<AlertRecord> {
        let read = |conn: &Connection| {
            conn.first(
                "SELECT version, state FROM alert_state WHERE id = 1",
                [],
                |row| {
                    Ok(AlertRecord {
                        version: counted(row.get(0)?),
                        state: row.get(1)?,
                    })
                },
            )
        };
        Ok(self.readers.read(read).await?.unwrap_or_default())
    }

    async fn save_alert_state(
        &self,
        record: AlertRecord,
        tell: Vec<Delivery>,
        now: Time,
    ) -> Result<bool> {
        let save = move |tx: &mut Tx<'_>| {
            let now = micros(now);
            let changed = if record.version == 0 {
                tx.conn.run(
                    "INSERT INTO alert_state (id, version, state, updated_at) VALUES (1, 1, ?1, ?2) ON CONFLICT DO NOTHING",
                    params![record.state, now],
                )?
            } else {
                tx.conn.run(
                    "UPDATE alert_state SET version = version + 1, state = ?2, updated_at = ?3
                     WHERE id = 1 AND version = ?1",
                    params![count(record.version), record.state, now],
                )?
            };
            if changed == 0 {
                return Ok(false);
            }
            for delivery in &tell {
                insert(tx, delivery)?;
            }
            Ok(true)
        };
        self.writer.write(save).await
    }
}

fn insert(tx: &Tx<'_>, delivery: &Delivery) -> Outcome<()> {
    let (execution, agent, receiver, message) = match &delivery.matter {
        Matter::Result { execution, agent } => {
            (Some(sql::key(*execution)), Some(agent.as_str()), None, None)
        }
        Matter::Alert { receiver, message } => {
            (None, None, Some(receiver.as_str()), Some(message.as_str()))
        }
    };
    tx.conn.run(
        "INSERT INTO deliveries (id, execution_id, agent_name, receiver, message, event, state, attempts, created_at,
             next_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
        params![
            key(delivery.id),
            execution,
            agent,
            receiver,
            message,
            delivery.event,
            delivery.state.as_str(),
            delivery.attempts,
            micros(delivery.created_at),
            delivery.next_at.map(micros)
        ],
    )?;
    Ok(())
}

fn select(conn: &Connection, filter: &DeliveryFilter) -> Outcome<Vec<Raw>> {
    // Before the first page lies nothing.
    let (at, id) = match &filter.page.after {
        Some((at, id)) => (micros(*at), id.parse().map_or([0; 16], key)),
        None => (i64::MAX, [0; 16]),
    };
    let is_result = filter.kind == DeliveryKind::Result;
    let agents: Vec<&str> = filter.agents.iter().map(|agent| agent.as_str()).collect();
    let agents = serde_json::to_string(&agents).unwrap_or_default();
    conn.all(
        concat!(
            "SELECT ",
            columns!(),
            " FROM deliveries
             WHERE (created_at, id) < (?1, ?2) AND (execution_id IS NOT NULL) = ?3 AND (?4 IS NULL OR state = ?4)
               AND (?5 = '[]' OR agent_name IN (SELECT value FROM json_each(?5)))
             ORDER BY created_at DESC, id DESC LIMIT ?6"
        ),
        params![
            at,
            id,
            is_result,
            filter.state.map(|state| state.as_str()),
            agents,
            limit(filter.page.limit)
        ],
        Raw::of,
    )
}

/// What alerts are about, as it is stored.
#[derive(Default)]
struct Signs {
    ended: Vec<Vec<(String, String, i64)>>,
    queued: Vec<(String, i64, i64)>,
    dead_letters: i64,
    overdue: Vec<(String, i64)>,
    skipped: Vec<Vec<(String, String, i64)>>,
}

fn signs(conn: &Connection, since: &[i64], overdue: i64) -> Outcome<Signs> {
    let three = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let mut signs = Signs::default();
    for since in since {
        signs.ended.push(conn.all(
            "SELECT agent_name, status, count(*) FROM execution_results WHERE created_at >= ?1
             GROUP BY 1, 2 ORDER BY 1, 2",
            [since],
            three,
        )?);
        signs.skipped.push(conn.all(
            "SELECT schedule_name, coalesce(reason, ''), count(*) FROM schedule_runs
             WHERE noticed_at >= ?1 AND state = 'skipped' GROUP BY 1, 2 ORDER BY 1, 2",
            [since],
            three,
        )?);
    }
    signs.queued = conn.all(
        "SELECT agent_name, count(*), min(created_at) FROM executions
         WHERE status = 'queued' AND due_at IS NOT NULL GROUP BY 1 ORDER BY 1",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let letters = conn.first("SELECT count(*) FROM dead_letters", [], |row| row.get(0))?;
    signs.dead_letters = letters.unwrap_or_default();
    signs.overdue = conn.all(
        "SELECT name, next_due FROM schedules WHERE is_active AND next_due < ?1 ORDER BY next_due, name LIMIT 1000",
        [overdue],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(signs)
}

impl Signs {
    fn read(self) -> Result<Vitals> {
        let mut vitals = Vitals {
            dead_letters: counted(self.dead_letters),
            ..Vitals::default()
        };
        for window in self.ended {
            let rows = window.iter().filter_map(|(agent, status, n)| {
                Some((readable(agent)?, readable(status)?, counted(*n)))
            });
            vitals.ended.push(rows.collect());
        }
        for window in self.skipped {
            let rows = window
                .into_iter()
                .filter_map(|(name, reason, n)| Some((readable(&name)?, reason, counted(n))));
            vitals.skipped.push(rows.collect());
        }
        for (agent, n, oldest) in &self.queued {
            if let Some(agent) = readable(agent) {
                vitals.queued.push((agent, counted(*n), time(*oldest)?));
            }
        }
        for (name, due) in &self.overdue {
            if let Some(name) = readable(name) {
                vitals.overdue.push((name, time(*due)?));
            }
        }
        Ok(vitals)
    }
}

fn key(id: DeliveryId) -> [u8; 16] {
    id.as_uuid().into_bytes()
}

/// Forgets alerts that were told, or given up, long ago. Ends of executions go with those.
pub(super) fn forget(tx: &Tx<'_>, before: Time) -> Outcome<()> {
    tx.conn.run(
        "DELETE FROM deliveries WHERE id IN (
             SELECT id FROM deliveries WHERE execution_id IS NULL AND created_at < ?1 AND settled_at < ?1 LIMIT 1000)",
        [micros(before)],
    )?;
    Ok(())
}

struct Raw {
    id: [u8; 16],
    execution: Option<[u8; 16]>,
    agent: Option<String>,
    receiver: Option<String>,
    message: Option<String>,
    event: String,
    state: String,
    attempts: u32,
    created_at: i64,
    next_at: Option<i64>,
    settled_at: Option<i64>,
    last_at: Option<i64>,
    last_status: Option<u16>,
    last_detail: Option<String>,
}

impl Raw {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            execution: row.get(1)?,
            agent: row.get(2)?,
            receiver: row.get(3)?,
            message: row.get(4)?,
            event: row.get(5)?,
            state: row.get(6)?,
            attempts: row.get(7)?,
            created_at: row.get(8)?,
            next_at: row.get(9)?,
            settled_at: row.get(10)?,
            last_at: row.get(11)?,
            last_status: row.get(12)?,
            last_detail: row.get(13)?,
        })
    }

    fn read(self) -> Result<Delivery> {
        let id = DeliveryId::from_uuid(Uuid::from_bytes(self.id));
        let what = || format!("delivery {id}");
        let matter = match (self.execution, self.agent, self.receiver, self.message) {
            (Some(execution), Some(agent), ..) => Matter::Result {
                execution: sql::id(execution),
                agent: parse(&what(), &agent)?,
            },
            (None, _, Some(receiver), Some(message)) => Matter::Alert { receiver, message },
            _ => {
                let message = "it is neither an execution's end nor an alert";
                return Err(corrupt(what(), message));
            }
        };
        let last = self.last_at.map(|at| -> Result<Attempt> {
            Ok(Attempt {
                at: time(at)?,
                status: self.last_status,
                detail: self.last_detail.unwrap_or_default(),
            })
        });
        Ok(Delivery {
            id,
            matter,
            event: self.event,
            state: parse(&what(), &self.state)?,
            attempts: self.attempts,
            created_at: time(self.created_at)?,
            next_at: self.next_at.map(time).transpose()?,
            settled_at: self.settled_at.map(time).transpose()?,
            last: last.transpose()?,
        })
    }
}

//! The audit log.

use async_trait::async_trait;
use domain::Time;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Postgres;
use super::fault::Outcome;
use super::sql::{count, counted, get, limit, text};
use crate::audits::place;
use crate::{AuditChain, AuditFilter, AuditRow, Audits, Result};

#[async_trait]
impl Audits for Postgres {
    async fn append_audit(&self, chain: AuditChain, rows: Vec<AuditRow>) -> Result<()> {
        let mut conn = self.pool.get().await?;
        let part = |of: fn(&AuditRow) -> &str| -> Vec<String> {
            rows.iter().map(|row| text(of(row)).into_owned()).collect()
        };
        let seqs: Vec<i64> = rows.iter().map(|row| count(row.seq)).collect();
        let times: Vec<Time> = rows.iter().map(|row| row.at).collect();
        // One statement is one transaction.
        conn.run(
            "WITH kept AS (
                 INSERT INTO audit_log (chain, seq, at, who, action, target, outcome, trace_id, line)
                 SELECT $1, r.* FROM unnest($2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::text[],
                     $7::text[], $8::text[], $9::text[]) AS r
                 ON CONFLICT DO NOTHING)
             INSERT INTO audit_chains (chain, anchor, head) VALUES ($1, $10, $11)
             ON CONFLICT (chain) DO UPDATE SET head = excluded.head RETURNING chain",
            &[
                &chain.chain,
                &seqs,
                &times,
                &part(|row| &row.who),
                &part(|row| &row.action),
                &part(|row| &row.target),
                &part(|row| &row.outcome),
                &part(|row| &row.trace_id),
                &part(|row| &row.line),
                &chain.anchor,
                &chain.head,
            ],
        )
        .await?;
        Ok(())
    }

    async fn audit_rows(&self, filter: AuditFilter) -> Result<Vec<AuditRow>> {
        let (at, (chain, seq)) = match &filter.page.after {
            Some((at, id)) => (Some(*at), place(id).unwrap_or((Uuid::nil(), 0))),
            None => (None, (Uuid::nil(), 0)),
        };
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT chain, seq, at, who, action, target, outcome, trace_id, line FROM audit_log
                 WHERE ($1::timestamptz IS NULL OR (at, chain, seq) < ($1, $2, $3))
                   AND ($4::text IS NULL OR who = $4)
                   AND ($5::text IS NULL OR strpos(lower(action), lower($5)) > 0)
                   AND ($6::text IS NULL OR outcome = $6)
                   AND ($7::text IS NULL OR trace_id = $7)
                   AND ($8::timestamptz IS NULL OR at >= $8)
                   AND ($9::timestamptz IS NULL OR at < $9)
                 ORDER BY at DESC, chain DESC, seq DESC LIMIT $10",
                &[
                    &at,
                    &chain,
                    &count(seq),
                    &filter.who.as_deref().map(text),
                    &filter.action.as_deref().map(text),
                    &filter.outcome,
                    &filter.trace_id,
                    &filter.since,
                    &filter.until,
                    &limit(filter.page.limit),
                ],
            )
            .await?;
        Ok(rows.iter().map(read).collect::<Outcome<_>>()?)
    }

    async fn audit_chains(&self) -> Result<Vec<AuditChain>> {
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT chain, anchor, head FROM audit_chains UNION ALL
                 SELECT DISTINCT chain, '', '' FROM audit_log AS l
                 WHERE NOT EXISTS (SELECT 1 FROM audit_chains AS c WHERE c.chain = l.chain)
                 ORDER BY chain",
                &[],
            )
            .await?;
        let chains = rows.iter().map(|row| {
            Ok(AuditChain {
                chain: get(row, 0)?,
                anchor: get(row, 1)?,
                head: get(row, 2)?,
            })
        });
        Ok(chains.collect::<Outcome<_>>()?)
    }

    async fn audit_chain(&self, chain: Uuid, after: u64, most: usize) -> Result<Vec<AuditRow>> {
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT chain, seq, at, who, action, target, outcome, trace_id, line FROM audit_log
                 WHERE chain = $1 AND seq > $2 ORDER BY seq LIMIT $3",
                &[&chain, &count(after), &limit(most)],
            )
            .await?;
        Ok(rows.iter().map(read).collect::<Outcome<_>>()?)
    }

    async fn audit_before(&self, chain: Uuid, time: Time) -> Result<Option<AuditRow>> {
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT chain, seq, at, who, action, target, outcome, trace_id, line FROM audit_log
                 WHERE chain = $1 AND seq < coalesce(
                     (SELECT min(seq) FROM audit_log WHERE chain = $1 AND at >= $2), 9223372036854775807)
                 ORDER BY seq DESC LIMIT 1",
                &[&chain, &time],
            )
            .await?;
        Ok(rows.first().map(read).transpose()?)
    }

    async fn forget_audit(&self, chain: Uuid, through: u64, anchor: &str) -> Result<()> {
        let mut conn = self.pool.get().await?;
        conn.begin();
        conn.run(
            "DELETE FROM audit_log WHERE chain = $1 AND seq <= $2",
            &[&chain, &count(through)],
        )
        .await?;
        conn.run(
            "UPDATE audit_chains SET anchor = $2 WHERE chain = $1",
            &[&chain, &anchor],
        )
        .await?;
        conn.run(
            "DELETE FROM audit_chains AS c WHERE chain = $1
             AND NOT EXISTS (SELECT 1 FROM audit_log AS l WHERE l.chain = c.chain)",
            &[&chain],
        )
        .await?;
        conn.commit().await?;
        Ok(())
    }
}

fn read(row: &Row) -> Outcome<AuditRow> {
    Ok(AuditRow {
        chain: get(row, 0)?,
        seq: counted(get(row, 1)?),
        at: get(row, 2)?,
        who: get(row, 3)?,
        action: get(row, 4)?,
        target: get(row, 5)?,
        outcome: get(row, 6)?,
        trace_id: get(row, 7)?,
        line: get(row, 8)?,
    })
}

//! The audit log.

use async_trait::async_trait;
use domain::Time;
use rusqlite::params;
use uuid::Uuid;

use super::Sqlite;
use super::sql::{Sql, count, counted, limit, micros, time};
use super::writer::Tx;
use crate::audits::place;
use crate::{AuditChain, AuditFilter, AuditRow, Audits, Result};

#[async_trait]
impl Audits for Sqlite {
    async fn append_audit(&self, chain: AuditChain, rows: Vec<AuditRow>) -> Result<()> {
        let append = move |tx: &mut Tx<'_>| {
            for row in &rows {
                tx.conn.run(
                    "INSERT INTO audit_log (chain, seq, at, who, action, target, outcome, trace_id, line)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
                    params![
                        row.chain.into_bytes(),
                        count(row.seq),
                        micros(row.at),
                        row.who,
                        row.action,
                        row.target,
                        row.outcome,
                        row.trace_id,
                        row.line
                    ],
                )?;
            }
            tx.conn.run(
                "INSERT INTO audit_chains (chain, anchor, head) VALUES (?1, ?2, ?3)
                 ON CONFLICT (chain) DO UPDATE SET head = excluded.head",
                params![chain.chain.into_bytes(), chain.anchor, chain.head],
            )?;
            Ok(())
        };
        self.writer.write(append).await
    }

    async fn audit_rows(&self, filter: AuditFilter) -> Result<Vec<AuditRow>> {
        let (at, (chain, seq)) = match &filter.page.after {
            Some((at, id)) => (micros(*at), place(id).unwrap_or((Uuid::nil(), 0))),
            None => (i64::MAX, (Uuid::nil(), 0)),
        };
        let find = move |conn: &rusqlite::Connection| {
            conn.all(
                "SELECT chain, seq, at, who, action, target, outcome, trace_id, line FROM audit_log
                 WHERE (at, chain, seq) < (?1, ?2, ?3)
                   AND (?4 IS NULL OR who = ?4)
                   AND (?5 IS NULL OR instr(lower(action), lower(?5)) > 0)
                   AND (?6 IS NULL OR outcome = ?6)
                   AND (?7 IS NULL OR trace_id = ?7)
                   AND (?8 IS NULL OR at >= ?8)
                   AND (?9 IS NULL OR at < ?9)
                 ORDER BY at DESC, chain DESC, seq DESC LIMIT ?10",
                params![
                    at,
                    chain.into_bytes(),
                    count(seq),
                    filter.who,
                    filter.action,
                    filter.outcome,
                    filter.trace_id,
                    filter.since.map(micros),
                    filter.until.map(micros),
                    limit(filter.page.limit)
                ],
                raw,
            )
        };
        let rows = self.readers.read(find).await?;
        rows.into_iter().map(Raw::read).collect()
    }

    async fn audit_chains(&self) -> Result<Vec<AuditChain>> {
        let find = |conn: &rusqlite::Connection| {
            conn.all(
                "SELECT chain, anchor, head FROM audit_chains UNION ALL
                 SELECT DISTINCT chain, '', '' FROM audit_log WHERE chain NOT IN (SELECT chain FROM audit_chains)
                 ORDER BY chain",
                [],
                |row| {
                    Ok(AuditChain {
                        chain: Uuid::from_bytes(row.get(0)?),
                        anchor: row.get(1)?,
                        head: row.get(2)?,
                    })
                },
            )
        };
        self.readers.read(find).await
    }

    async fn audit_chain(&self, chain: Uuid, after: u64, most: usize) -> Result<Vec<AuditRow>> {
        let find = move |conn: &rusqlite::Connection| {
            conn.all(
                "SELECT chain, seq, at, who, action, target, outcome, trace_id, line FROM audit_log
                 WHERE chain = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
                params![chain.into_bytes(), count(after), limit(most)],
                raw,
            )
        };
        let rows = self.readers.read(find).await?;
        rows.into_iter().map(Raw::read).collect()
    }

    async fn audit_before(&self, chain: Uuid, time: Time) -> Result<Option<AuditRow>> {
        let find = move |conn: &rusqlite::Connection| {
            conn.all(
                "SELECT chain, seq, at, who, action, target, outcome, trace_id, line FROM audit_log
                 WHERE chain = ?1 AND seq < coalesce(
                     (SELECT min(seq) FROM audit_log WHERE chain = ?1 AND at >= ?2), 9223372036854775807)
                 ORDER BY seq DESC LIMIT 1",
                params![chain.into_bytes(), micros(time)],
                raw,
            )
        };
        let rows = self.readers.read(find).await?;
        rows.into_iter().next().map(Raw::read).transpose()
    }

    async fn forget_audit(&self, chain: Uuid, through: u64, anchor: &str) -> Result<()> {
        let anchor = anchor.to_owned();
        let forget = move |tx: &mut Tx<'_>| {
            let chain = chain.into_bytes();
            tx.conn.run(
                "DELETE FROM audit_log WHERE chain = ?1 AND seq <= ?2",
                params![chain, count(through)],
            )?;
            tx.conn.run(
                "UPDATE audit_chains SET anchor = ?2 WHERE chain = ?1",
                params![chain, anchor],
            )?;
            tx.conn.run(
                "DELETE FROM audit_chains WHERE chain = ?1 AND chain NOT IN (SELECT chain FROM audit_log)",
                params![chain],
            )?;
            Ok(())
        };
        self.writer.write(forget).await
    }
}

struct Raw {
    at: i64,
    /// Without its time.
    row: AuditRow,
}

impl Raw {
    fn read(self) -> Result<AuditRow> {
        Ok(AuditRow {
            at: time(self.at)?,
            ..self.row
        })
    }
}

fn raw(row: &rusqlite::Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        at: row.get(2)?,
        row: AuditRow {
            chain: Uuid::from_bytes(row.get(0)?),
            seq: counted(row.get(1)?),
            at: Time::UNIX_EPOCH,
            who: row.get(3)?,
            action: row.get(4)?,
            target: row.get(5)?,
            outcome: row.get(6)?,
            trace_id: row.get(7)?,
            line: row.get(8)?,
        },
    })
}

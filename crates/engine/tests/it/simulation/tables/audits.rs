//! The audit log.

use std::cmp::Reverse;

use async_trait::async_trait;
use domain::Time;
use store::{AuditChain, AuditFilter, AuditRow, Audits, Result};
use uuid::Uuid;

use super::Tables;
use crate::simulation::store::{Reached, Way};

impl Tables {
    fn append_audit(&mut self, chain: AuditChain, rows: Vec<AuditRow>) {
        for row in rows {
            let is_there = |known: &AuditRow| (known.chain, known.seq) == (row.chain, row.seq);
            if !self.audit_rows.iter().any(is_there) {
                self.audit_rows.push(row);
            }
        }
        let mut known = self.audit_chains.iter_mut();
        match known.find(|known| known.chain == chain.chain) {
            Some(known) => known.head = chain.head,
            None => self.audit_chains.push(chain),
        }
    }

    fn find_audit(&self, filter: &AuditFilter) -> Vec<AuditRow> {
        let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|w| w == text);
        let contains = |wanted: &Option<String>, text: &str| {
            let wanted = wanted.as_ref().map(|wanted| wanted.to_lowercase());
            wanted.is_none_or(|wanted| text.to_lowercase().contains(&wanted))
        };
        let place = |row: &AuditRow| (row.at, row.chain, row.seq);
        let last = filter.page.after.as_ref().and_then(|after| {
            let last = self.audit_rows.iter().find(|row| row.place() == *after);
            last.map(place)
        });
        let mut rows = self.audit_rows.clone();
        rows.retain(|row| {
            is(&filter.who, &row.who)
                && contains(&filter.action, &row.action)
                && is(&filter.outcome, &row.outcome)
                && is(&filter.trace_id, &row.trace_id)
                && filter.since.is_none_or(|since| row.at >= since)
                && filter.until.is_none_or(|until| row.at < until)
                && last.is_none_or(|last| place(row) < last)
        });
        rows.sort_by_key(|row| Reverse(place(row)));
        rows.truncate(filter.page.limit);
        rows
    }

    fn audit_of(&self, chain: Uuid) -> Vec<AuditRow> {
        let mut rows = self.audit_rows.clone();
        rows.retain(|row| row.chain == chain);
        rows.sort_by_key(|row| row.seq);
        rows
    }

    fn forget_audit(&mut self, chain: Uuid, through: u64, anchor: &str) {
        let is_old = |row: &AuditRow| row.chain == chain && row.seq <= through;
        self.audit_rows.retain(|row| !is_old(row));
        let is_empty = self.audit_of(chain).is_empty();
        self.audit_chains
            .retain(|known| known.chain != chain || !is_empty);
        for known in self
            .audit_chains
            .iter_mut()
            .filter(|known| known.chain == chain)
        {
            anchor.clone_into(&mut known.anchor);
        }
    }
}

#[async_trait]
impl<W: Way> Audits for Reached<W> {
    async fn append_audit(&self, chain: AuditChain, rows: Vec<AuditRow>) -> Result<()> {
        let append = move |t: &mut Tables| {
            t.append_audit(chain, rows);
            Ok(())
        };
        self.way.carry("append_audit", append).await
    }
    async fn audit_rows(&self, filter: AuditFilter) -> Result<Vec<AuditRow>> {
        let find = move |t: &mut Tables| Ok(t.find_audit(&filter));
        self.way.carry("audit_rows", find).await
    }
    async fn audit_chains(&self) -> Result<Vec<AuditChain>> {
        let find = move |t: &mut Tables| Ok(t.audit_chains.clone());
        self.way.carry("audit_chains", find).await
    }
    async fn audit_chain(&self, chain: Uuid, after: u64, limit: usize) -> Result<Vec<AuditRow>> {
        let find = move |t: &mut Tables| {
            let rows = t.audit_of(chain).into_iter();
            Ok(rows.filter(|row| row.seq > after).take(limit).collect())
        };
        self.way.carry("audit_chain", find).await
    }
    async fn audit_before(&self, chain: Uuid, time: Time) -> Result<Option<AuditRow>> {
        let find = move |t: &mut Tables| {
            let rows = t.audit_of(chain).into_iter();
            Ok(rows.take_while(|row| row.at < time).last())
        };
        self.way.carry("audit_before", find).await
    }
    async fn forget_audit(&self, chain: Uuid, through: u64, anchor: &str) -> Result<()> {
        let anchor = anchor.to_owned();
        let forget = move |t: &mut Tables| {
            t.forget_audit(chain, through, &anchor);
            Ok(())
        };
        self.way.carry("forget_audit", forget).await
    }
}

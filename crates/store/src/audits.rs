//! The audit log, as a store keeps it: chains of lines whose hashes it does not understand.

use async_trait::async_trait;
use domain::Time;
use uuid::Uuid;

use crate::{Page, Result};

/// One act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Of which chain.
    pub chain: Uuid,
    /// Its place there, from 1.
    pub seq: u64,
    /// When.
    pub at: Time,
    /// By whom.
    pub who: String,
    /// What.
    pub action: String,
    /// On what.
    pub target: String,
    /// done, refused, denied or failed.
    pub outcome: String,
    /// The request's trace.
    pub trace_id: String,
    /// All of it, as it is hashed.
    pub line: String,
}

/// Where a chain begins and ends, in words that the store does not understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditChain {
    /// Which.
    pub chain: Uuid,
    /// The line before the first that is kept. Empty when nobody knows.
    pub anchor: String,
    /// The last line. Empty when nobody knows.
    pub head: String,
}

/// Which acts.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// By whom.
    pub who: Option<String>,
    /// Whose name of what was done contains this, in any case.
    pub action: Option<String>,
    /// done, refused, denied or failed.
    pub outcome: Option<String>,
    /// Of this trace.
    pub trace_id: Option<String>,
    /// At this time or later.
    pub since: Option<Time>,
    /// Before this time.
    pub until: Option<Time>,
    /// Which part of them.
    pub page: Page,
}

/// The part of a store that keeps the audit log. Each chain has one writer.
#[async_trait]
pub trait Audits: Send + Sync + 'static {
    /// Keeps rows and the new end of their chain, in one transaction; the anchor is kept when the chain is new. May be
    /// repeated.
    async fn append_audit(&self, chain: AuditChain, rows: Vec<AuditRow>) -> Result<()>;

    /// Acts, the newest first.
    async fn audit_rows(&self, filter: AuditFilter) -> Result<Vec<AuditRow>>;

    /// All chains, also those that only rows tell of.
    async fn audit_chains(&self) -> Result<Vec<AuditChain>>;

    /// Rows of a chain after one of its numbers, in their order.
    async fn audit_chain(&self, chain: Uuid, after: u64, limit: usize) -> Result<Vec<AuditRow>>;

    /// The last row of a chain before which, and with which, everything is older than this.
    async fn audit_before(&self, chain: Uuid, time: Time) -> Result<Option<AuditRow>>;

    /// Forgets the rows of a chain up to this one, and notes where it begins now; a chain without rows is forgotten
    /// whole. May be repeated.
    async fn forget_audit(&self, chain: Uuid, through: u64, anchor: &str) -> Result<()>;
}

/// The place of a row in a list, as it stands in a cursor.
pub(crate) fn place(id: &str) -> Option<(Uuid, u64)> {
    let (chain, seq) = id.split_once('.')?;
    Some((chain.parse().ok()?, seq.parse().ok()?))
}

impl AuditRow {
    /// Its place in a list: what a cursor goes on after.
    pub fn place(&self) -> (Time, String) {
        (self.at, format!("{}.{}", self.chain, self.seq))
    }
}

//! What tools of servers were approved as, as a store keeps it.

use std::collections::HashMap;

use async_trait::async_trait;
use domain::pin::{Change, Fingerprint, Pin, Seen, Sight, judge};
use domain::{AgentName, Time};

use crate::Result;
use crate::error::corrupt;

/// The part of a store that keeps what each agent's tools were when they were approved, and what became of them.
#[async_trait]
pub trait Pins: Send + Sync + 'static {
    /// Notes the tools that an agent would be offered, as [`domain::pin::judge`] has it: one that was not seen before is
    /// what is approved, one that has changed is kept as what it became. Tells how each stands, in order. Durable, all or
    /// nothing; may be repeated, but that a tool has changed is told once.
    async fn see_tools(&self, agent: &AgentName, sights: &[Sight], now: Time) -> Result<Vec<Seen>>;

    /// The tools that changed and were not approved since, by agent, server and name; those of all agents when `None`.
    async fn changed_tools(&self, agent: Option<&AgentName>) -> Result<Vec<Pin>>;

    /// Approves a tool that has changed as what it became, or again as what it was, whichever has the fingerprint.
    /// Answers whether it is approved; nothing was changed if not. Durable.
    async fn approve_tool(&self, approval: ToolApproval) -> Result<bool>;
}

/// A person's word that a tool may be used as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolApproval {
    /// Whose tool.
    pub agent: AgentName,
    /// Of which server: [`Sight::server`].
    pub server: String,
    /// Which: [`Sight::tool`].
    pub tool: String,
    /// As what.
    pub fingerprint: Fingerprint,
    /// Who says so.
    pub by: String,
    /// When.
    pub at: Time,
}

/// What is known of an agent's tools: by server and name, what was approved and what it became.
pub(crate) type Known = HashMap<(String, String), (Fingerprint, Option<Fingerprint>)>;

/// A row of what is known.
pub(crate) fn known(
    server: String,
    tool: String,
    approved: String,
    changed: Option<String>,
) -> ((String, String), (Fingerprint, Option<Fingerprint>)) {
    let approved = Fingerprint::from_text(approved);
    (
        (server, tool),
        (approved, changed.map(Fingerprint::from_text)),
    )
}

/// How each tool stands that is seen.
pub(crate) fn judged(known: &Known, sights: &[Sight]) -> Vec<Seen> {
    let stands = |sight: &Sight| {
        let known = known.get(&(sight.server.clone(), sight.tool.clone()));
        let known = known.map(|(approved, changed)| (approved, changed.as_ref()));
        judge(known, &sight.fingerprint)
    };
    sights.iter().map(stands).collect()
}

/// Whether there is nothing to write down: mostly so, for it is looked all the time.
pub(crate) fn is_no_news(seen: &[Seen]) -> bool {
    seen.iter()
        .all(|seen| matches!(seen, Seen::Approved | Seen::Withheld))
}

/// A row of a tool that has changed.
pub(crate) struct Row {
    pub(crate) agent: String,
    pub(crate) server: String,
    pub(crate) tool: String,
    pub(crate) approved: String,
    pub(crate) definition: String,
    pub(crate) approved_at: Time,
    pub(crate) approved_by: Option<String>,
    pub(crate) changed: String,
    pub(crate) changed_definition: String,
    pub(crate) changed_at: Time,
}

impl Row {
    pub(crate) fn read(self) -> Result<Pin> {
        let what = format!("the tool {:?} of agent {:?}", self.tool, self.agent);
        let json = |text: &str| serde_json::from_str(text).map_err(|error| corrupt(&what, error));
        Ok(Pin {
            agent: self.agent.parse().map_err(|error| corrupt(&what, error))?,
            definition: json(&self.definition)?,
            approved: Fingerprint::from_text(self.approved),
            approved_at: self.approved_at,
            approved_by: self.approved_by,
            change: Some(Change {
                fingerprint: Fingerprint::from_text(self.changed),
                definition: json(&self.changed_definition)?,
                seen_at: self.changed_at,
            }),
            server: self.server,
            tool: self.tool,
        })
    }
}

//! The caller of a request, as a handler sees it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use domain::AgentName;
use http::request::Parts;

use super::access::{Access, Principal};
use super::door::{caller_of, no_agent};
use super::{Answer, ApiError, Code};

/// Who sent a request, and was let in.
#[derive(Clone)]
pub struct Caller {
    principal: Arc<Principal>,
    access: Access,
    notes: Arc<Mutex<Vec<(&'static str, String)>>>,
}

impl Caller {
    pub(crate) fn new(principal: Principal, access: Access) -> Self {
        Self {
            principal: Arc::new(principal),
            access,
            notes: Arc::default(),
        }
    }

    /// Who it is.
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The name that acts are written down under.
    pub(crate) fn name(&self) -> &str {
        &self.principal.name
    }

    /// The agents that the caller is limited to; all when `None`.
    pub(crate) fn agents(&self) -> Option<&BTreeSet<AgentName>> {
        self.principal.grants.agents.as_ref()
    }

    /// Whether the caller may have to do with an agent.
    pub(crate) fn covers(&self, agent: &AgentName) -> bool {
        self.principal.grants.covers(agent)
    }

    /// As [`Caller::covers`], of a name as it was sent.
    ///
    /// # Errors
    /// There is no such agent, as far as this caller is told.
    pub(crate) fn check(&self, agent: &str) -> Answer<()> {
        if self.agents().is_none() || agent.parse().is_ok_and(|agent| self.covers(&agent)) {
            return Ok(());
        }
        Err(no_agent(agent, Code::AgentNotFound))
    }

    /// Waits until the caller would not be let in any more: streams end then.
    pub(crate) async fn ended(&self) {
        self.access.ended(&self.principal).await;
    }

    /// Adds a fact to what is written down of the request: what it was about, when the address does not say it.
    pub(crate) fn note(&self, what: &'static str, value: impl Into<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push((what, value.into()));
    }

    /// The facts.
    pub(crate) fn notes(&self) -> Vec<(&'static str, String)> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut notes)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        caller_of(&parts.extensions)
    }
}
